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


def token_set_plots(token_set: TokenSet) -> dict[str, Callable[[Axes | None], Figure]]:
    """Return kind -> function that draws it; the first kind is the default."""

    def probabilities(ax: Axes | None) -> Figure:
        sides = [
            ("all tokens", token_set.p_all),
            ("the set alone", token_set.p_set),
            ("the rest alone", token_set.p_rest),
            ("special tokens alone", token_set.p_special),
        ]
        removals = [(repr(one.text), one.p_set, one.p_rest) for one in token_set.singles]
        count = len(token_set.indices)
        words = ", ".join(word.text for word in token_set.words)
        title = f"{count} of {count + len(token_set.rest)} tokens ({token_set.outcome}): {words}"
        if not token_set.defined:
            title = f"{token_set.outcome}: the special tokens alone keep {token_set.target_name}"
        needed = token_set.keep * token_set.p_all
        return draw_probabilities(sides, removals, needed, token_set.target_name, ax, title, strict=token_set.strict)

    return {"probabilities": probabilities}


def subgraph_plots(graph: AttentionSubgraph) -> dict[str, Callable[[Axes | None], Figure]]:
    """Return kind -> function that draws it; the first kind is the default: "flow" for attention weights."""

    def probabilities(ax: Axes | None) -> Figure:
        sides = [
            ("all of the attention", graph.p_all),
            ("the set alone", graph.p_set),
            ("the rest alone", graph.p_rest),
            ("special tokens alone" if graph.unit == "token" else "no attention", graph.p_none),
        ]
        ordered = sorted(graph.singles, key=lambda one: -abs(graph.units[one.unit].contribution))
        removals = [(_short(graph, one.unit), one.p_set, one.p_rest) for one in ordered]
        needed, title = graph.keep * graph.p_all, _title(graph)
        return draw_probabilities(sides, removals, needed, graph.target_name, ax, title, strict=graph.strict)

    def units(ax: Axes | None) -> Figure:
        order = sorted(range(len(graph.units)), key=lambda i: -abs(graph.units[i].contribution))[:MOST_UNITS]
        scores = [graph.units[i].contribution for i in order]
        return plot_words([_short(graph, i) for i in order], scores, title=_title(graph), ax=ax)

    plots: dict[str, Callable[[Axes | None], Figure]] = {"units": units, "probabilities": probabilities}
    if graph.unit != "edge" or not graph.edges:
        return plots if graph.units else {"probabilities": probabilities}
    return {"flow": lambda ax: _flow(graph, ax), "heads": lambda ax: _heads(graph, ax), **plots}


def _title(graph: AttentionSubgraph) -> str:
    if not graph.units:
        return f"{graph.target_name}: {graph.outcome}. {graph.reason}"
    return f"{len(graph.units):,} of {graph.unit_count:,} {graph._noun} carry {graph.target_name!r} ({graph.outcome})"


def _flow(graph: AttentionSubgraph, ax: Axes | None) -> Figure:
    member = graph.family.edges
    edges: list[FlowEdge] = []
    names: dict[int, str] = {}
    for edge in graph.edges:
        call, head, query, key = edge.call or 0, edge.head or 0, edge.query or 0, edge.key or 0
        names |= {query: _token(graph, call, query, "query"), key: _token(graph, call, key, "key")}
        edges.append(FlowEdge(call, query, key, edge.contribution, member.get((call, head, query, key), 1.0)))
    layers = [f"layer {module.layer}" for module in graph.attention]
    return draw_flow(edges, names, layers, graph.target_name, ax, _title(graph))


def _heads(graph: AttentionSubgraph, ax: Axes | None) -> Figure:
    counts = Counter((edge.call or 0, edge.head or 0) for edge in graph.edges)
    shape = (len(graph.attention), max(module.heads for module in graph.attention))
    return draw_counts(counts, shape, ax, f"weights of the set in each head: {graph.target_name}")


def _token(graph: AttentionSubgraph, call: int, place: int, end: str) -> str:
    module = graph.attention[call]
    size = module.queries if end == "query" else module.keys
    return graph.tokens[place] if size == len(graph.tokens) else f"{end} {place}"


def _short(graph: AttentionSubgraph, number: int) -> str:
    """A unit on an axis: layer.head and its tokens."""
    unit = graph.units[number]
    if unit.call is None or unit.query is None or unit.key is None:
        return unit.name
    query, key = _token(graph, unit.call, unit.query, "query"), _token(graph, unit.call, unit.key, "key")
    return f"{unit.layer}.{unit.head} {query[:8]} ← {key[:8]}"
