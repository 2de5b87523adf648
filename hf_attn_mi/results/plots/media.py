"""Scores drawn over the picture or the waveform that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.results.media import Picture, Sound, heatmap
from hf_attn_mi.results.plots.figure import check_figure_path, new_figure, save_figure


def plot_picture(
    picture: Picture | None,
    scores: Tensor,
    grid: tuple[int, int],
    path: str | Path | None = None,
    *,
    title: str = "",
    axes: Any = None,
) -> Any:
    """Return the figure of the picture with a translucent map: blue for positive scores, orange for negative ones.

    Args:
        picture: None draws the map alone.
        scores: (rows x columns,).
        grid: (rows, columns).
        path: where to write it; the suffix names the format (.png, .svg, .pdf).
        title: shown above the picture.
        axes: matplotlib axes to draw in instead of those of a new figure.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: a path that cannot be written.

    Example:
        >>> plot_picture(None, torch.tensor([0.5, -0.5]), (1, 2)).axes[0].get_title()
        ''
    """
    check_figure_path(path)
    height, width = grid if picture is None else (picture.height, picture.width)
    axes = new_figure(5.2, max(2.0, min(8.0, 4.2 * height / width + 0.6))).subplots() if axes is None else axes
    extent = (0, width, height, 0)
    if picture is not None:
        axes.imshow(picture.array(), extent=extent)
    scale = float(scores.abs().max()) or 1.0
    table = heatmap(scores, grid)
    opacity = abs(table) / scale * 0.75 if picture is not None else None
    image = axes.imshow(table, extent=extent, cmap=_colors(), vmin=-scale, vmax=scale, alpha=opacity)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title.replace("$", r"\$"), fontsize="medium")
    axes.figure.colorbar(_mappable(image), ax=axes, label="score", shrink=0.8)
    save_figure(axes.figure, path)
    return axes.figure


def plot_sound(
    sound: Sound,
    scores: Tensor,
    seconds: Tensor,
    grid: tuple[int, int] | None,
    path: str | Path | None = None,
    *,
    title: str = "",
    axes: Any = None,
) -> Any:
    """Return the figure of the scores over time, with the waveform behind; for a spectrogram, bands over time.

    Args:
        sound: the recording.
        scores: (positions,).
        seconds: (positions, 2) start and end of each.
        grid: (bands, columns) of a spectrogram; None for positions in time alone.
        path, title, axes: as in `plot_picture`.

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
    check_figure_path(path)
    axes = new_figure(8.0, 3.2).subplots() if axes is None else axes
    scale = float(scores.abs().max()) or 1.0
    if grid is not None:
        columns = seconds[: grid[1]]
        extent = (float(columns[0, 0]), float(columns[-1, 1]), -0.5, grid[0] - 0.5)
        table = heatmap(scores, grid)
        image = axes.imshow(
            table, extent=extent, origin="lower", aspect="auto", cmap=_colors(), vmin=-scale, vmax=scale
        )
        axes.set_ylabel("frequency band")
        axes.figure.colorbar(image, ax=axes, label="score")
    else:
        _draw_waveform(sound, axes, scale)
        _draw_bars(scores, seconds, axes)
        axes.set_ylabel("score")
    axes.set_xlim(0, sound.duration)
    axes.set_xlabel("seconds")
    axes.set_title(title.replace("$", r"\$"), fontsize="medium")
    save_figure(axes.figure, path)
    return axes.figure


def plot_words(
    names: Sequence[str], scores: Sequence[float], path: str | Path | None = None, title: str = "", axes: Any = None
) -> Any:
    """Return the figure of words and their scores as bars, the first at the top.

    Args:
        names: the names of the words.
        scores: one for each.
        path, title, axes: as in `plot_picture`.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        InvalidInputError: a path that cannot be written.

    Example:
        >>> plot_words(["good"], [0.5]).axes[0].get_xlabel()
        'score'
    """
    check_figure_path(path)
    axes = new_figure(6.4, 1.2 + 0.25 * len(names)).subplots() if axes is None else axes
    axes.barh(range(len(names)), scores, color=[POSITIVE if score >= 0 else NEGATIVE for score in scores])
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.5)
    axes.set_xlabel("score")
    axes.set_title(title.replace("$", r"\$"), fontsize="medium")
    save_figure(axes.figure, path)
    return axes.figure


def _draw_waveform(sound: Sound, axes: Any, scale: float) -> None:
    if not len(sound.envelope):
        return
    factor = scale / max(float(sound.envelope.abs().max()), 1e-9)
    places = (torch.arange(len(sound.envelope)) + 0.5) * sound.duration / len(sound.envelope)
    low, high = (sound.envelope * factor).T.tolist()
    axes.fill_between(places.tolist(), low, high, color="#bbbbbb", linewidth=0, label="waveform")


def _draw_bars(scores: Tensor, seconds: Tensor, axes: Any) -> None:
    starts, widths = seconds[:, 0].tolist(), (seconds[:, 1] - seconds[:, 0]).tolist()
    colors = [POSITIVE if score >= 0 else NEGATIVE for score in scores.tolist()]
    axes.bar(starts, scores.tolist(), widths, align="edge", color=colors, alpha=0.85)
    axes.axhline(0, color="black", linewidth=0.5)


POSITIVE, NEGATIVE = "#2166ac", "#cd4a14"


def _colors() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    stops: Sequence[str] = (NEGATIVE, "#ffffff", POSITIVE)
    return LinearSegmentedColormap.from_list("scores", stops)


def _mappable(image: Any) -> Any:
    """The same colors without transparency, for the bar beside the picture."""
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm=image.norm, cmap=image.cmap)
