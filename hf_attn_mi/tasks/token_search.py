"""The search for a locally minimal two-sided set of tokens on an oracle, independent of any model.

The oracle answers for a set of tokens: the probability of the class when only these are seen, and whether the
prediction is still that of all tokens. A search is a generator that yields the sets it wants answered and is sent the
answers, so that `run_together` can put the sets of many searches into one batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

Tokens = frozenset[int]
Answer = tuple[float, bool]  # probability of the class; whether the prediction is that of all tokens
Oracle = Callable[[list[tuple[int, Tokens]]], list[Answer]]  # (number of the search, set) -> answers in this order
EMPTY: Tokens = frozenset()
CHUNKS_FROM = 8  # smaller sets are tried token by token at once: the certificate needs that round anyway


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        kept: the set in the order of the search, strongest first; None if the empty set already gives the answer.
        minimal: whether every single removal was tried and broke a condition.
    """

    kept: tuple[int, ...] | None
    minimal: bool


@dataclass
class SearchState:
    """The known answers for the sets of one input, and their cost.

    Attributes:
        everything: all tokens that may be left out.
        keep: share of the probability of all tokens that a sufficient set keeps.
        strict: whether the rest must change the prediction; else it only must not suffice.
        cost: the cost of running a set of this size, in runs of the full input.
        budget: the maximum cost.
        answers: the oracle's answers. The answer for `everything` is there from the start.
        spent: cost so far.
        sequences: the number of sets passed to the oracle so far.
    """

    everything: Tokens
    keep: float
    strict: bool
    cost: Callable[[int], float]
    budget: float
    answers: dict[Tokens, Answer]
    spent: float = 0.0
    sequences: int = field(default=0)

    def sufficient(self, tokens: Tokens) -> bool:
        """Whether these tokens alone keep the prediction and `keep` of its probability."""
        probability, same = self.answers[tokens]
        return same and probability >= self.keep * self.answers[self.everything][0]

    def dispensable(self, tokens: Tokens) -> bool:
        """Whether these tokens, as the rest, make the others unnecessary: the opposite of the second condition."""
        return self.answers[tokens][1] if self.strict else self.sufficient(tokens)

    def knows(self, tokens: Tokens) -> bool:
        """Whether both sides of this set were run."""
        return tokens in self.answers and self.everything - tokens in self.answers

    def qualifies(self, tokens: Tokens) -> bool:
        """Whether both conditions hold: the set suffices and the rest does not."""
        return self.sufficient(tokens) and not self.dispensable(self.everything - tokens)

    def margin(self, tokens: Tokens) -> float:
        """How far the two sides are apart: large where both conditions hold easily."""
        return self.answers[tokens][0] - self.answers[self.everything - tokens][0]

    def ask(self, sets: Sequence[Tokens]) -> Generator[list[Tokens], list[Answer], bool]:
        """Runs both sides of these sets, the first ones only where the budget ends; whether all were run."""
        requested: dict[Tokens, None] = {}
        complete = True
        for tokens in sets:
            sides = (tokens, self.everything - tokens)
            new = [side for side in sides if side not in self.answers and side not in requested]
            cost = sum(self.cost(len(side)) for side in new)
            if self.spent + cost > self.budget:
                complete = False
                break
            self.spent += cost
            requested.update(dict.fromkeys(new))
        if requested:
            self.sequences += len(requested)
            self.answers.update(zip(requested, (yield list(requested)), strict=True))
        return complete


Search = Generator[list[Tokens], list[Answer], SearchResult]


def search(order: Sequence[int], state: SearchState) -> Search:
    """Search for a locally minimal set that suffices while the rest does not.

    The shortest known prefix of `order` that qualifies, by bisection (in the geometric mean, as short ones are
    likelier); then chunks of it are dropped, then single tokens, until none can go. Every set returned was itself
    tested: where the conditions are not monotone the prefix need not be the shortest, but the result still qualifies.

    Args:
        order: all tokens that may be left out, strongest first.
        state: conditions, budget and known answers; filled by the search.

    Returns:
        A generator of sets to run; its return value is a `SearchResult`.

    Example:
        >>> def oracle(asked):                          # token 2 alone carries the class
        ...     return [(0.9, True) if 2 in tokens else (0.3, False) for _, tokens in asked]
        >>> whole = frozenset(range(6))
        >>> state = SearchState(whole, 0.9, False, lambda size: size / 6, 50.0, {whole: (0.9, True)})
        >>> run_together([search([0, 1, 2, 3, 4, 5], state)], oracle)
        [SearchResult(kept=(2,), minimal=True)]
    """
    complete = yield from state.ask([state.everything])
    if not complete:
        return SearchResult(tuple(order), minimal=False)
    if state.dispensable(EMPTY):
        return SearchResult(None, minimal=False)
    low, high = 0, len(order)  # the empty prefix does not qualify, the whole does
    while high - low > 1:
        middle = _between(low, high)
        prefix = frozenset(order[:middle])
        if not (yield from state.ask([prefix])):
            return SearchResult(tuple(order[:high]), minimal=False)
        low, high = (low, middle) if state.qualifies(prefix) else (middle, high)
    return (yield from thin_out(tuple(order[:high]), state))


def _between(low: int, high: int) -> int:
    return min(max(math.isqrt(max(low, 1) * high), low + 1), high - 1)


def thin_out(kept: tuple[int, ...], state: SearchState) -> Search:
    """Drops what can go from a set that qualifies: chunks of it, then single tokens."""
    size = len(kept) // 4 if len(kept) >= CHUNKS_FROM else 1
    while True:
        chunks = [frozenset(kept[i : i + size]) for i in range(0, len(kept), size)][::-1]  # weakest first
        complete = yield from state.ask([frozenset(kept) - chunk for chunk in chunks])
        left = {chunk: frozenset(kept) - chunk for chunk in chunks}
        free = [chunk for chunk in chunks if state.knows(left[chunk]) and state.qualifies(left[chunk])]
        if free:
            free.sort(key=lambda chunk: -state.margin(left[chunk]))
            gone = yield from _longest(kept, free, state)
            kept = tuple(token for token in kept if token not in gone)
        if not complete:
            return SearchResult(kept, minimal=False)
        if not free and size == 1:
            return SearchResult(kept, minimal=True)
        size = max(1, min(size, len(kept) // 2) // 2) if size > 1 else 1


def _longest(
    kept: tuple[int, ...], free: list[Tokens], state: SearchState
) -> Generator[list[Tokens], list[Answer], Tokens]:
    """Tokens of as many of these chunks as can go together, the first of them counted from the front."""
    low, high, middle = 1, len(free) + 1, len(free)  # the first alone can go; all at once is tried before bisection
    while high - low > 1:
        left = frozenset(kept).difference(*free[:middle])
        if not (yield from state.ask([left])):
            break
        low, high = (middle, high) if state.qualifies(left) else (low, middle)
        middle = (low + high) // 2
    return EMPTY.union(*free[:low])


def run_together(searches: Sequence[Search], oracle: Oracle) -> list[SearchResult]:
    """Runs searches side by side: one call of the oracle answers what all of them ask in this round.

    Args:
        searches: generators that were not started yet.
        oracle: takes (number of the search, set) and answers in the same order.

    Returns:
        The result of each search, in order.
    """
    results: dict[int, SearchResult] = {}
    asked: dict[int, list[Tokens]] = {}
    answers: dict[int, list[Answer] | None] = dict.fromkeys(range(len(searches)))
    while answers:
        for number, answer in answers.items():
            try:
                asked[number] = next(searches[number]) if answer is None else searches[number].send(answer)
            except StopIteration as end:
                results[number] = end.value
        replies = oracle([(number, tokens) for number, sets in asked.items() for tokens in sets]) if asked else []
        rows = iter(replies)
        answers = {number: [next(rows) for _ in sets] for number, sets in asked.items()}
        asked = {}
    return [results[number] for number in range(len(searches))]
