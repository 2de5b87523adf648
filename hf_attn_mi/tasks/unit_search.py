"""The search among few units (heads, layers, tokens): that of `minimal_tokens`, on restricted passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hf_attn_mi.tasks.edge_search import Rule, Single
from hf_attn_mi.tasks.restricted_output import Answer
from hf_attn_mi.tasks.token_search import (
    EMPTY,
    Search,
    SearchResult,
    SearchState,
    Tokens,
    run_together,
    search,
    thin_out,
)


@dataclass
class Found:
    """The result of a search; see `AttentionSubgraph`."""

    units: tuple[int, ...] = ()
    set: Answer | None = None
    rest: Answer | None = None
    singles: dict[int, Single] = field(default_factory=dict)
    group_size: int = 0
    prefix: int = 0
    sequences: int = 0
    forwards: float = 0.0
    single_sequences: int = 0
    single_forwards: float = 0.0
    spent: bool = False


def search_units(
    order: Sequence[int],
    run: Callable[[list[Tokens]], list[Answer]],
    ends: tuple[Answer, Answer],
    rule: Rule,
    budget: float,
    cost: Callable[[int], float] = lambda size: 1.0,
) -> Found:
    """Search among few units, by the search of `minimal_tokens`.

    Args:
        order: all units that may be left out, strongest first.
        run: returns the model's answers for sets of units.
        ends: the answers for all units and for none.
        rule: when a set carries the prediction.
        budget: maximum cost, in forward passes of the whole input.
        cost: the cost of a set of this size, in forward passes of the whole input.
    """
    everything = frozenset(order)
    full: dict[Tokens, Answer] = {everything: ends[0], EMPTY: ends[1]}
    known = {tokens: (answer.probability, answer.same) for tokens, answer in full.items()}
    state = SearchState(everything, rule.keep, rule.strict, cost, budget, known, spent=2.0, sequences=2)

    def oracle(asked: list[tuple[int, Tokens]]) -> list[tuple[float, bool]]:
        sets = [tokens for _, tokens in asked]
        full.update(zip(sets, run(sets)))
        return [(full[one].probability, full[one].same) for one in sets]

    way = _any_prefix(order, state) if state.dispensable(EMPTY) else search(order, state)
    result = run_together([way], oracle)[0]
    found = Found(sequences=state.sequences, forwards=state.spent, spent=state.spent + 2 > budget)
    if result.kept is None:
        return found
    kept = frozenset(result.kept)
    found.units = tuple(sorted(kept))
    if not state.knows(kept):  # the budget ended before it was run: it was accepted as the whole
        return Found(sequences=state.sequences, forwards=state.spent, spent=True)
    found.set, found.rest = full[kept], full[everything - kept]
    found.group_size = int(result.minimal)
    found.spent = not result.minimal
    for unit in found.units:
        if state.knows(kept - {unit}):
            found.singles[unit] = Single(full[kept - {unit}], full[everything - kept | {unit}])
    found.single_sequences = 2 * len(found.singles)
    sizes = [len(kept) - 1, len(everything) - len(kept) + 1]
    found.single_forwards = len(found.singles) * sum(map(cost, sizes))
    return found


def _any_prefix(order: Sequence[int], state: SearchState) -> Search:
    """Search from any prefix that qualifies: all units do not, because the prediction stays without any unit."""
    lengths = range(1, len(order))
    for count in (*[n for n in lengths if n & (n - 1) == 0], *lengths):
        prefix = frozenset(order[:count])
        if not (yield from state.ask([prefix])):
            return SearchResult(None, minimal=False)
        if state.qualifies(prefix):
            return (yield from thin_out(tuple(order[:count]), state))
    return SearchResult(None, minimal=False)
