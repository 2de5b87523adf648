"""The figures of one input of a report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.figures import COLORS, FOR, INK, PLAIN, WIDTH, figure_of, label, own_axes, set_title
from hf_attn_mi.results.plots.certificates import draw_changes
from hf_attn_mi.results.plots.explanations import explanation_plots, explanation_title, marked_parts
from hf_attn_mi.results.plots.matrices import draw_matrices
from hf_attn_mi.results.plots.sets import subgraph_plots, token_set_plots
from hf_attn_mi.results.plots.words import plot_text
from hf_attn_mi.results.report_parts import KINDS, HeadDetail

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_attn_mi.results.report import ReportItem

PartT = TypeVar("PartT")
BARS = 20  # of "words"


def report_plots(item: ReportItem, head: tuple[int, int] | None) -> dict[str, Callable[[Axes | None], Figure]]:
    """Return kind -> function that draws it: those of the explanation, and what else the input has.

    Args:
        item: the input.
        head: (place of the layer, head) for "attention" and "intervals"; None for the head of largest contribution.
    """
    one = item.explanation
    plots = explanation_plots(one, BARS)
    in_set = frozenset(() if item.token_set is None else item.token_set.indices)

    def text(ax: Axes | None) -> Figure:
        linked = bool(one.info.get("class_linked", True))
        rows, marks = marked_parts(one, in_set), "the minimal token set" if in_set else ""
        title = explanation_title(one)
        return plot_text(rows, title=title, ax=ax, target=one.target_name, linked=linked, marks=marks)

    drawings: dict[str, Callable[[Axes | None], Figure]] = {"text": text}
    if one.grid is not None or one.sound is not None:
        drawings = {}
    drawings |= {name: plot for name, plot in plots.items() if name != "text"}
    drawings["attention"] = lambda ax: _attention(item, _head(item, head, "attention"), ax)
    drawings["intervals"] = lambda ax: _intervals(item, _head(item, head, "intervals"), ax)
    drawings["token_set"] = lambda ax: _first(token_set_plots(_there(item.token_set, item, "token_set")), ax)
    drawings["certificate"] = lambda ax: draw_changes(_there(item.certificate, item, "certificate"), ax)
    drawings["subgraph"] = lambda ax: _first(subgraph_plots(_there(item.subgraph, item, "subgraph")), ax)
    return drawings


def _first(plots: dict[str, Callable[[Axes | None], Figure]], ax: Axes | None) -> Figure:
    return next(iter(plots.values()))(ax)


def _there(part: PartT | None, item: ReportItem, name: str) -> PartT:
    """A part of the input.

    Raises:
        InvalidInputError: it was not computed; the message says why.
    """
    if part is None:
        raise InvalidInputError(f"kind={name!r}: this report has none. {item.notes.get(name, '')}".strip())
    return part


def _head(item: ReportItem, head: tuple[int, int] | None, kind: str) -> HeadDetail:
    """The chosen head, or the one of largest contribution that the report holds."""
    details = () if item.attention is None else item.attention.heads
    there = [one for one in details if one.raw or (kind == "intervals" and one.intervals)]
    if not there:
        why = item.notes.get("attention", "") if item.attention is None else item.attention.left_out
        raise InvalidInputError(f"kind={shown(kind)}: this report holds no attention matrices. {why}".strip())
    if head is None:
        return max(there, key=lambda one: abs(one.contribution or 0.0))
    for one in there:
        if (one.layer, one.head) == tuple(head):
            return one
    places = ", ".join(f"({one.layer}, {one.head})" for one in there[:12])
    raise InvalidInputError(f"head={head}: it is not among those with matrices in this report, such as {places}.")


def _attention(item: ReportItem, detail: HeadDetail, ax: Axes | None) -> Figure:
    tokens, layer = item.explanation.tokens, item.explanation.layers[detail.layer]
    matrices = [(kind, matrix) for kind in KINDS if (matrix := detail.matrix(kind)) is not None]
    share = layer.null_space_fraction
    unseen = "" if share is None else f", of which the output cannot see {100 * float(share[detail.head]):.0f} %"
    title = f"attention of layer {layer.layer}, head {detail.head}{unseen}"
    return draw_matrices(matrices, [tokens[row] for row in detail.rows], tokens, ax, title)


def _intervals(item: ReportItem, detail: HeadDetail, ax: Axes | None) -> Figure:
    """The interval bars of the largest weights of the row that contributes most."""
    if not detail.intervals or detail.query is None:
        raise InvalidInputError(
            f"kind='intervals': no interval was computed for layer {detail.layer}, head {detail.head}; a report has "
            "those of the 8 heads of largest contribution."
        )
    tokens = item.explanation.tokens
    rows = sorted(detail.intervals, key=lambda one: -one.weight)
    ax = own_axes(ax, WIDTH, 1.2 + 0.3 * len(rows))
    for place, one in enumerate(rows):
        ax.plot([one.low, one.high], [place, place], color=COLORS[5], linewidth=7, alpha=0.6, solid_capstyle="butt")
        ax.plot([one.weight], [place], "o", color=FOR, markersize=6, markeredgecolor=INK, markeredgewidth=0.6)
        text = f"{one.low:.2g} to {one.high:.2g}"
        ax.annotate(text, (one.high, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=7.5)
    ax.plot([], [], "o", color=FOR, markeredgecolor=INK, markersize=6, label="weight of the model")
    ax.plot([], [], color=COLORS[5], linewidth=7, alpha=0.6, label="where it can lie with the same output")
    ax.axvline(0, color=PLAIN, linewidth=0.8)
    ax.set_xlim(-0.02 * max(one.high for one in rows), 1.18 * max(one.high for one in rows))
    ax.set_yticks(range(len(rows)), [label(tokens[one.key]) for one in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("attention weight")
    ax.legend(loc="lower right")
    layer = item.explanation.layers[detail.layer].layer
    set_title(ax, f"layer {layer}, head {detail.head}: what {tokens[detail.query]!r} attends to")
    return figure_of(ax)
