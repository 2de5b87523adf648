"""The attention weights of a set as lines from tokens through the layers to the class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from hf_attn_mi.figures import AGAINST, FOR, LINE, PLAIN, SOFT, WIDTH, figure_of, label, own_axes, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST = 14


class FlowEdge(NamedTuple):
    """One attention weight: from its key below layer `step` to its query above it."""

    step: int
    query: int
    key: int
    contribution: float
    member: float  # share of the sets that contain it


def draw_flow(
    edges: Sequence[FlowEdge],
    names: dict[int, str],
    layers: Sequence[str],
    target: str,
    ax: Axes | None,
    title: str = "",
) -> Figure:
    """Draw tokens as rows and layers as columns; a line is a weight, as thick as its contribution.

    Blue adds to the class, orange takes away; opacity is the share of the sets that have the weight. Only tokens with a
    weight are shown; gray lines say that every token also keeps its own state.

    Args:
        edges: the weights.
        names: a name for each token of them.
        layers: a name for each attention call, in order.
        target: the class, on the right.
        ax: where to draw; None for a new figure.
        title: shown above.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    tokens = sorted({place for edge in edges for place in (edge.query, edge.key)})
    row = {token: place for place, token in enumerate(tokens)}
    count = len(layers)
    ax = own_axes(ax, max(WIDTH, 2.2 + 0.42 * count), max(1.7, 0.75 + 0.23 * len(tokens)))
    for place in row.values():
        ax.plot([0, count], [place, place], color=LINE, linewidth=0.8, zorder=1)
        ax.plot(range(count + 1), [place] * (count + 1), ".", color=PLAIN, markersize=3, zorder=1.5)
    most = max((abs(edge.contribution) for edge in edges), default=0.0) or 1.0
    repeats: Counter[tuple[int, int, int]] = Counter()
    for edge in sorted(edges, key=lambda one: abs(one.contribution)):
        ends = (edge.step, edge.query, edge.key)  # heads with the same ends lie beside each other
        bend = 0.18 * (repeats[ends] // 2 + 1) * (1 if repeats[ends] % 2 else -1) if repeats[ends] else 0.0
        repeats[ends] += 1
        (x0, y0), (x1, y1) = (edge.step, row[edge.key]), (edge.step + 1, row[edge.query])
        curve = [(x0, y0), (x0 + 0.5, y0 + bend), (x1 - 0.5, y1 + bend), (x1, y1)]
        ax.add_patch(
            PathPatch(
                Path(curve, [Path.MOVETO, *[Path.CURVE4] * 3]),
                facecolor="none",
                edgecolor=FOR if edge.contribution >= 0 else AGAINST,
                linewidth=0.8 + 4.2 * abs(edge.contribution) / most,
                alpha=0.25 + 0.65 * edge.member,
                capstyle="round",
                zorder=2,
            )
        )
    _draw_target(ax, edges, row, count, target)
    ax.set_yticks(range(len(tokens)), [label(names[token], _LONGEST) for token in tokens])
    ax.set_xticks([x + 0.5 for x in range(count)], [label(layer, 14) for layer in layers], color=SOFT, fontsize=8)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_ylim(max(len(tokens) - 0.4, 0.6), -0.6)
    ax.set_xlim(-0.1, count + 0.9 + 0.012 * count * min(len(target), _LONGEST + 4))
    set_title(ax, title)
    return figure_of(ax)


def _draw_target(ax: Axes, edges: Sequence[FlowEdge], row: dict[int, int], count: int, target: str) -> None:
    """Thin lines from the tokens of the last weights to the name of the class."""
    last = {edge.query for edge in edges if edge.step == count - 1} or {edge.query for edge in edges}
    if not last:
        return
    middle = sum(row[token] for token in last) / len(last)
    for token in last:
        ax.plot([count, count + 0.35], [row[token], middle], color=PLAIN, linewidth=0.9, zorder=1)
    ax.text(count + 0.42, middle, label(target, _LONGEST + 4), va="center", fontweight="bold")
