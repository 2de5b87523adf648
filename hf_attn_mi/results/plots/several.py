"""Several results in one figure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.figures import WIDTH, figure_of, label, new_figure, panels
from hf_attn_mi.results.attention_maps import AttentionMaps
from hf_attn_mi.results.certificate import Certificate
from hf_attn_mi.results.plots.certificates import draw_tolerances
from hf_attn_mi.results.plots.matrices import draw_maps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def check_plot_options(item: Any, options: Mapping[str, Any]) -> None:
    """Raise unless `plot` of this result takes the options.

    Raises:
        InvalidInputError: an unknown option; the message lists those that exist.
    """
    known = sorted(set(inspect.signature(item.plot).parameters) - {"path", "kind", "ax"})
    if unknown := sorted(set(options) - set(known)):
        allowed = f"; {type(item).__name__} has {', '.join(known)}" if known else ""
        raise InvalidInputError(f"plot has no option {', '.join(unknown)} for {type(item).__name__}{allowed}.")


def plot_together(items: Sequence[Any], options: Mapping[str, Any]) -> Callable[[Axes | None], Figure] | None:
    """Return what draws these results as one picture; None where each has a panel of its own.

    Args:
        items: results of one class, at least one.
        options: `layer` and `head` of attention maps.
    """
    if isinstance(items[0], Certificate):
        tolerances = [one.tolerance for one in items]
        if len({one.texts for one in items}) == 1 and len(items) > 1 and len(set(tolerances)) == len(tolerances):
            return lambda ax: draw_tolerances(items, ax)
    if isinstance(items[0], AttentionMaps):
        same = len({one.tokens for one in items}) == 1
        if same and len(items) > 1 and len({one.kind for one in items}) == len(items):
            return lambda ax: draw_maps(items, options.get("layer"), options.get("head"), ax)
    return None


def plot_below(
    items: Sequence[Any], kind: str | None, most: int, options: Mapping[str, Any], ax: Axes | None
) -> Figure:
    """Draw each of the first results in a panel; of a new figure, each panel is as high as the result's own figure."""
    chosen = items[:most]
    left_out = f"{len(items) - len(chosen)} further results are not shown" if len(items) > len(chosen) else ""
    if ax is not None:
        for one, panel in zip(chosen, panels(ax, len(chosen), 1, WIDTH, 1.0)):
            one.plot(kind=kind, ax=panel, **options)
        ax.set_title(label(left_out, 90) if left_out else "")
        return figure_of(ax)
    sizes = [one.plot(kind=kind, **options).get_size_inches() for one in chosen]
    heights = [float(height) for _, height in sizes]
    figure = new_figure(max(float(width) for width, _ in sizes), sum(heights) + 0.25 * bool(left_out))
    grid = figure.add_gridspec(len(chosen), 1, height_ratios=heights)
    for place, one in enumerate(chosen):
        one.plot(kind=kind, ax=figure.add_subplot(grid[place]), **options)
    if left_out:
        figure.supxlabel(left_out, fontsize=8)
    return figure
