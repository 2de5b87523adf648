"""Scores drawn over the picture or the waveform that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hf_attn_mi.figures import AGAINST, FOR, draw, figure_of, own_axes, set_title, signed_colors
from hf_attn_mi.results.media import Picture, Sound, heatmap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_picture(
    picture: Picture | None,
    scores: Tensor,
    grid: tuple[int, int],
    path: str | Path | None = None,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Return the figure of the picture with a translucent map: blue for positive scores, orange for negative ones.

    Args:
        picture: None draws the map alone.
        scores: (rows x columns,).
        grid: (rows, columns).
        path: where to write it; the suffix names the format (.png, .svg, .pdf).
        title: shown above the picture.
        ax: matplotlib Axes to draw in; None for those of a new figure.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: a path that cannot be written.

    Example:
        >>> plot_picture(None, torch.tensor([0.5, -0.5]), (1, 2)).axes[0].get_title()
        ''
    """
    return draw({"picture": lambda ax: _picture(picture, scores, grid, title, ax)}, "picture", path, None, ax)


def _picture(picture: Picture | None, scores: Tensor, grid: tuple[int, int], title: str, ax: Axes | None) -> Figure:
    height, width = grid if picture is None else (picture.height, picture.width)
    ax = own_axes(ax, 5.2, max(2.0, min(8.0, 4.2 * height / width + 0.6)))
    extent = (0, width, height, 0)
    if picture is not None:
        ax.imshow(picture.array(), extent=extent)
    scale = _scale(scores)
    table = heatmap(scores, grid)
    opacity = abs(table) / scale * 0.75 if picture is not None else None
    image = ax.imshow(table, extent=extent, cmap=signed_colors(), vmin=-scale, vmax=scale, alpha=opacity)
    ax.set_xticks([])
    ax.set_yticks([])
    set_title(ax, title)
    bar = ax.figure.colorbar(_mappable(image), ax=ax, label="score", shrink=0.8)
    bar.outline.set_visible(False)
    return figure_of(ax)


def plot_sound(
    sound: Sound,
    scores: Tensor,
    seconds: Tensor,
    grid: tuple[int, int] | None,
    path: str | Path | None = None,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Return the figure of the scores over time, with the waveform behind; for a spectrogram, bands over time.

    Args:
        sound: the recording.
        scores: (positions,).
        seconds: (positions, 2) start and end of each.
        grid: (bands, columns) of a spectrogram; None for positions in time alone.
        path, title, ax: as in `plot_picture`.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: a path that cannot be written.

    Example:
        >>> sound = Sound.of(torch.tensor([[0.0, 0.5], [0.5, 1.0]]), torch.rand(100), 100)
        >>> plot_sound(sound, torch.tensor([0.1, 0.2]), sound.seconds, None).axes[0].get_xlabel()
        'seconds'
    """
    return draw({"sound": lambda ax: _sound(sound, scores, seconds, grid, title, ax)}, "sound", path, None, ax)


def _sound(
    sound: Sound, scores: Tensor, seconds: Tensor, grid: tuple[int, int] | None, title: str, ax: Axes | None
) -> Figure:
    ax = own_axes(ax, 6.4, 2.9)
    scale = _scale(scores)
    if grid is not None:
        columns = seconds[: grid[1]]
        extent = (float(columns[0, 0]), float(columns[-1, 1]), -0.5, grid[0] - 0.5)
        table = heatmap(scores, grid)
        image = ax.imshow(
            table, extent=extent, origin="lower", aspect="auto", cmap=signed_colors(), vmin=-scale, vmax=scale
        )
        ax.set_ylabel("frequency band")
        ax.figure.colorbar(image, ax=ax, label="score")
    else:
        _draw_waveform(sound, ax, scale)
        _draw_bars(scores, seconds, ax)
        ax.set_ylabel("score")
    ax.set_xlim(0, sound.duration)
    ax.set_xlabel("seconds")
    set_title(ax, title)
    return figure_of(ax)


def _scale(scores: Tensor) -> float:
    return float(scores.nan_to_num(posinf=0.0, neginf=0.0).abs().max()) or 1.0


def _draw_waveform(sound: Sound, ax: Axes, scale: float) -> None:
    if not len(sound.envelope):
        return
    factor = scale / max(float(sound.envelope.abs().max()), 1e-9)
    places = (torch.arange(len(sound.envelope)) + 0.5) * sound.duration / len(sound.envelope)
    low, high = (sound.envelope * factor).T.tolist()
    ax.fill_between(places.tolist(), low, high, color="#bbbbbb", linewidth=0, label="waveform")


def _draw_bars(scores: Tensor, seconds: Tensor, ax: Axes) -> None:
    starts, widths = seconds[:, 0].tolist(), (seconds[:, 1] - seconds[:, 0]).tolist()
    colors = [FOR if score >= 0 else AGAINST for score in scores.tolist()]
    ax.bar(starts, scores.tolist(), widths, align="edge", color=colors, alpha=0.85)
    ax.axhline(0, color="black", linewidth=0.5)


def _mappable(image: Any) -> Any:
    """The same colors without transparency, for the bar beside the picture."""
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm=image.norm, cmap=image.cmap)
