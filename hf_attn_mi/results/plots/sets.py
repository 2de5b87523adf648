"""The figures of sets: tokens, and attention weights, heads or layers that carry a prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from hf_attn_mi.results.plots.flow import FlowEdge, draw_flow
from hf_attn_mi.results.plots.heads import draw_counts
from hf_attn_mi.results.plots.probabilities import draw_probabilities
from hf_attn_mi.results.plots.words import plot_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_attn_mi.results.attention_subgraph import AttentionSubgraph
    from hf_attn_mi.results.token_set import TokenSet

MOST_UNITS = 24  # units that are drawn as bars


def token_set_plots(found: TokenSet) -> dict[str, Callable[[Axes | None], Figure]]:
    """Return kind -> function that draws it; the first kind is the default."""

    def probabilities(ax: Axes | None) -> Figure:
        sides = [
            ("all tokens", found.p_all),
            ("the set alone", found.p_set),
            ("the rest alone", found.p_rest),
            ("special tokens alone", found.p_special),
        ]
        removals = [(repr(one.text), one.p_set, one.p_rest) for one in found.singles]
        count = len(found.indices)
        words = ", ".join(word.text for word in found.words)
        title = f"{count} of {count + len(found.rest)} tokens ({found.outcome}): {words}"
        if not found.defined:
            title = f"{found.outcome}: the special tokens alone keep {found.target_name}"
        needed = found.keep * found.p_all
        return draw_probabilities(sides, removals, needed, found.target_name, ax, title, strict=found.strict)

    return {"probabilities": probabilities}


def subgraph_plots(found: AttentionSubgraph) -> dict[str, Callable[[Axes | None], Figure]]:
    """Return kind -> function that draws it; the first kind is the default: "flow" for attention weights."""

    def probabilities(ax: Axes | None) -> Figure:
        sides = [
            ("all of the attention", found.p_all),
            ("the set alone", found.p_set),
            ("the rest alone", found.p_rest),
            ("special tokens alone" if found.unit == "token" else "no attention", found.p_none),
        ]
        ordered = sorted(found.singles, key=lambda one: -abs(found.units[one.unit].contribution))
        removals = [(_short(found, one.unit), one.p_set, one.p_rest) for one in ordered]
        needed, title = found.keep * found.p_all, _title(found)
        return draw_probabilities(sides, removals, needed, found.target_name, ax, title, strict=found.strict)

    def units(ax: Axes | None) -> Figure:
        order = sorted(range(len(found.units)), key=lambda i: -abs(found.units[i].contribution))[:MOST_UNITS]
        scores = [found.units[i].contribution for i in order]
        return plot_words([_short(found, i) for i in order], scores, title=_title(found), ax=ax)

    plots: dict[str, Callable[[Axes | None], Figure]] = {"units": units, "probabilities": probabilities}
    if found.unit != "edge" or not found.edges:
        return plots if found.units else {"probabilities": probabilities}
    return {"flow": lambda ax: _flow(found, ax), "heads": lambda ax: _heads(found, ax), **plots}


def _title(found: AttentionSubgraph) -> str:
    if not found.units:
        return f"{found.target_name}: {found.outcome}. {found.reason}"
    return f"{len(found.units):,} of {found.unit_count:,} {found._noun} carry {found.target_name!r} ({found.outcome})"


def _flow(found: AttentionSubgraph, ax: Axes | None) -> Figure:
    member = found.family.edges
    edges: list[FlowEdge] = []
    names: dict[int, str] = {}
    for edge in found.edges:
        call, head, query, key = edge.call or 0, edge.head or 0, edge.query or 0, edge.key or 0
        names |= {query: _token(found, call, query, "query"), key: _token(found, call, key, "key")}
        edges.append(FlowEdge(call, query, key, edge.contribution, member.get((call, head, query, key), 1.0)))
    layers = [f"layer {module.layer}" for module in found.attention]
    return draw_flow(edges, names, layers, found.target_name, ax, _title(found))


def _heads(found: AttentionSubgraph, ax: Axes | None) -> Figure:
    counts = Counter((edge.call or 0, edge.head or 0) for edge in found.edges)
    shape = (len(found.attention), max(module.heads for module in found.attention))
    return draw_counts(counts, shape, ax, f"weights of the set in each head: {found.target_name}")


def _token(found: AttentionSubgraph, call: int, place: int, end: str) -> str:
    module = found.attention[call]
    size = module.queries if end == "query" else module.keys
    return found.tokens[place] if size == len(found.tokens) else f"{end} {place}"


def _short(found: AttentionSubgraph, number: int) -> str:
    """A unit on an axis: layer.head and its tokens."""
    unit = found.units[number]
    if unit.call is None or unit.query is None or unit.key is None:
        return unit.name
    query, key = _token(found, unit.call, unit.query, "query"), _token(found, unit.call, unit.key, "key")
    return f"{unit.layer}.{unit.head} {query[:8]} ← {key[:8]}"
