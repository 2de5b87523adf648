"""Scores drawn as HTML: a translucent map over the picture, bars over the waveform."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import torch
from torch import Tensor

from hf_attn_mi.results.media import Picture, Sound, png_uri
from hf_attn_mi.results.words import format_score, level_colors

NAMED = 1024  # maximum number of cells that get individual titles
STRONGEST = 0.75  # opacity of the largest score
WIDTH, HEIGHT = 700, 120  # size of the drawing of a sound, in pixels


def picture_html(
    picture: Picture | None, scores: Tensor, grid: tuple[int, int], names: Sequence[str], *, upward: bool = False
) -> str:
    """The picture with a translucent map of the scores: blue for positive, orange for negative.

    Args:
        picture: None draws the map alone.
        scores: (rows x columns,).
        grid: (rows, columns).
        names: the names of the cells, for the titles that are shown under the pointer.
        upward: put the first row at the bottom, as frequencies are drawn.
    """
    rows, columns = grid
    if upward:
        order = torch.arange(len(scores)).reshape(grid).flip(0).flatten()
        scores, names = scores[order], [names[i] for i in order.tolist()]
    height, width = (rows, columns) if picture is None else (picture.height, picture.width)
    shown = 448 if width >= height else round(448 * width / height)
    overlay = png_uri(_colors(scores).reshape(rows, columns, 4))
    style = "position:absolute;left:0;top:0;width:100%;height:100%"
    parts = [] if picture is None else [f'<img alt="the image" style="{style}" src="{escape(picture.uri)}">']
    parts.append(f'<img alt="map of the scores" style="{style};image-rendering:pixelated" src="{overlay}">')
    if len(names) <= NAMED:
        cells = "".join(
            f'<rect x="{i % columns}" y="{i // columns}" width="1" height="1"><title>{escape(name)}: '
            f"{format_score(score)}</title></rect>"
            for i, (name, score) in enumerate(zip(names, scores.tolist()))
        )
        parts.append(
            f'<svg style="{style}" viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" fill="transparent">{cells}'
            "</svg>"
        )
    box = (
        f"position:relative;width:{shown}px;max-width:100%;aspect-ratio:{width}/{height};background:#fff;margin:.6em 0"
    )
    return f'<div style="{box}">{"".join(parts)}</div>'


def sound_html(sound: Sound, scores: Tensor, seconds: Tensor, names: Sequence[str]) -> str:
    """The waveform, and behind it a band for each position in the color of its score.

    Args:
        sound: the recording.
        scores: (positions,).
        seconds: (positions, 2) start and end of each position.
        names: the names of the positions.
    """
    duration = max(sound.duration, 1e-9)
    inside = [i for i, (start, _) in enumerate(seconds.tolist()) if start < duration]
    colors, pieces = _colors(scores), []
    for i in inside:
        start, end = (WIDTH * min(float(x), duration) / duration for x in seconds[i])
        red, green, blue, alpha = colors[i].tolist()
        pieces.append(
            f'<rect x="{start:.1f}" y="0" width="{max(end - start, 0.5):.1f}" height="{HEIGHT}" '
            f'fill="rgb({red},{green},{blue})" fill-opacity="{alpha / 255:.2f}"><title>{escape(names[i])}: '
            f"{format_score(float(scores[i]))}</title></rect>"
        )
    if len(sound.envelope):
        pieces.append(f'<path d="{_outline(sound.envelope)}" fill="#444" stroke="#444" stroke-width=".5"/>')
    ticks = "".join(
        f'<text x="{WIDTH * share:.0f}" y="{HEIGHT + 14}" font-size="11" fill="currentColor" '
        f'text-anchor="{anchor}">{duration * share:.2f} s</text>'
        for share, anchor in ((0.0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1.0, "end"))
    )
    return (
        f'<svg style="width:100%;max-width:{WIDTH}px" viewBox="0 0 {WIDTH} {HEIGHT + 18}" role="img" '
        f'aria-label="scores over time"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{"".join(pieces)}{ticks}'
        "</svg>"
    )


def _outline(envelope: Tensor) -> str:
    """The path around the waveform."""
    scale = HEIGHT / 2 / max(float(envelope.abs().max()), 1e-9)
    places = [WIDTH * (i + 0.5) / len(envelope) for i in range(len(envelope))]
    upper = [f"{x:.1f},{HEIGHT / 2 - scale * y:.1f}" for x, y in zip(places, envelope[:, 1].tolist())]
    lower = [f"{x:.1f},{HEIGHT / 2 - scale * y:.1f}" for x, y in zip(places, envelope[:, 0].tolist())]
    return "M" + " L".join([*upper, *reversed(lower)]) + " Z"


def _colors(scores: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(scores, 4) red, green, blue and opacity; the largest magnitude has the strongest color."""
    finite = torch.nan_to_num(scores.double(), posinf=0.0, neginf=0.0)
    scale = float(finite.abs().max()) if len(finite) else 0.0
    share = finite / scale if scale > 0 else finite
    positive, negative = level_colors(10)[0], level_colors(-10)[0]
    color = torch.where(share[:, None] >= 0, torch.tensor(positive), torch.tensor(negative)).double()
    opacity = (255 * STRONGEST * share.abs())[:, None]
    array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = torch.cat([color, opacity], 1).round().byte().numpy()
    return array
