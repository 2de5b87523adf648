"""The search for a locally minimal set of edges that carries the prediction.

1. The shortest known prefix of the ranking whose edges suffice while the rest does not: doubling, then bisection. An
   adaptive ranking ranks the edges behind a prefix that does not qualify again, by what they contribute to the rest.
2. Drop many edges at once: one pass with gradients over the set and over the rest estimates what every single removal
   changes; as many of the least needed edges as can go together are dropped, until none can.
3. Single removals, least needed first, in batches that run from the lowest changed layer on. What can go is dropped;
   the search ends when every single removal from the last set was run and broke one of the two conditions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hf_attn_mi.tasks.attention_edges import Edges
from hf_attn_mi.tasks.restricted_forward import BACKWARD, Candidate, RestrictedForward
from hf_attn_mi.tasks.restricted_gradients import rest_contributions, toggle_effects
from hf_attn_mi.tasks.restricted_output import Answer

TOGETHER = 4  # prefixes in one batch while the length is doubled
UNITS_TOGETHER = 16  # removals between which the set may change; not the batch size, which must not change the set
ADAPTED_FROM = 16  # length of the prefix from which on an adaptive ranking is renewed after each doubling
CLOSE = 1.1  # bisection of the prefix ends within this factor: the next steps drop what is left over
SHARES = (1.0, 0.7, 1.4, 0.45)  # multiples of the estimated number of edges that can be dropped at once
LEAST_DROP = 0.04  # dropping at once ends where it drops less than this share of the set
WORTH_IT = 8.0  # and fewer edges than this: removing them one by one costs less than the estimate and its tries
WASTED = 48  # single removals that a drop makes out of date, from which on the others are estimated again
GROUPS = 2.0  # single removals that would cost more than this many times the rest of the budget are done in groups


@dataclass(frozen=True)
class Rule:
    """When a set of edges carries the prediction.

    Attributes:
        whole: the answer for all edges.
        keep: share of the probability that a sufficient set keeps.
        strict: the rest must change the prediction; else it only must not suffice.
        tie: difference of logits below which rounding decides the prediction: that counts as no change.
    """

    whole: Answer
    keep: float
    strict: bool
    tie: float = 0.0

    def sufficient(self, answer: Answer) -> bool:
        """Whether this restriction keeps the prediction and enough of the probability."""
        return answer.same and answer.probability >= self.keep * self.whole.probability

    def dispensable(self, rest: Answer) -> bool:
        """Whether this restriction, as the rest, shows that the set is not needed."""
        return rest.same or rest.margin > -self.tie if self.strict else self.sufficient(rest)

    @property
    def least_odds(self) -> float:
        """Log-odds of the smallest sufficient probability."""
        least = self.keep * self.whole.probability
        return math.log(least) - math.log1p(-least) if 0 < least < 1 else math.copysign(math.inf, least - 0.5)


@dataclass(frozen=True)
class Single:
    """What happens without one unit of the set: the answers for the set without it, and for the rest with it."""

    set: Answer
    rest: Answer


@dataclass
class EdgeSearchResult:
    """The result of a search.

    Attributes:
        numbers: the edges of the set, ascending; None if no set was found.
        set, rest: the answers for the set and for the rest.
        singles: by edge, every single removal that was run on this very set.
        group_size: 1 where every single removal broke a condition; more where this is known only of groups of so many
            consecutive edges of the ranking; 0 if it is not known.
        prefix: length of the prefix of the ranking from which edges were dropped.
        single_sequences, single_forwards: what the single removals of the last set cost.
        spent: whether the budget ran out.
    """

    numbers: Tensor | None = None
    set: Answer | None = None
    rest: Answer | None = None
    singles: dict[int, Single] = field(default_factory=dict)
    group_size: int = 0
    prefix: int = 0
    single_sequences: int = 0
    single_forwards: float = 0.0
    spent: bool = False


class _BudgetSpentError(Exception):
    """The next step would cost more than what is left."""


class EdgeSearch:
    """One search on one input.

    Args:
        forward: an open and analyzed `RestrictedForward`.
        order: edges that may be in the set, strongest first.
        rule: when a set carries the prediction.
        removal: the name of the kind of removal.
        budget: maximum cost of the search, in forward passes of the whole input.
        adaptive: whether to rank the edges after a prefix that does not qualify again.
    """

    def __init__(
        self,
        forward: RestrictedForward,
        order: Tensor,
        rule: Rule,
        *,
        removal: str = "renormalized",
        budget: float = math.inf,
        adaptive: bool = False,
    ) -> None:
        self.forward, self.order, self.rule, self.removal, self.budget = forward, order, rule, removal, budget
        self.result = EdgeSearchResult()
        self.adaptive = adaptive
        self._begun = forward.forwards
        self._need: dict[int, float] = {}  # by edge, how much it is needed: estimated, then as the last removal showed
        self._tried: dict[int, tuple[Answer | None, Answer]] = {}  # by edge: the set without it, the rest with it
        self._stale: set[int] = set()  # removed from an earlier, larger set: the last to be removed again

    @property
    def spent(self) -> float:
        """Cost so far, in forward passes of the whole input."""
        return self.forward.forwards - self._begun

    def run(self) -> EdgeSearchResult:
        """Return the set, or the best one that the budget allowed."""
        try:
            if self._prefix():
                self._drop_at_once()
                self._remove_units()
        except _BudgetSpentError:
            self.result.spent = True
            known = {edge: (one, rest) for edge, (one, rest) in self._tried.items() if one is not None}
            self.result.singles = {edge: Single(one, rest) for edge, (one, rest) in known.items()}
        return self.result

    # --- what is asked -----------------------------------------------------------------------------------------

    def _afford(self, cost: float) -> None:
        if self.spent + cost > self.budget:
            raise _BudgetSpentError

    def _run(self, sets: Sequence[Tensor], rest: bool, starts: Sequence[int]) -> list[Answer]:
        self._afford(sum(self.forward.cost(start) for start in starts))
        candidates = [Candidate(Edges(one, rest), int(rest), start) for one, start in zip(sets, starts)]
        return self.forward.run(candidates, self.removal)

    def _check(self, sets: Sequence[Tensor], starts: Sequence[int] | None = None) -> list[tuple[Answer, Answer] | None]:
        """The answers for set and rest of each candidate that qualifies, None for the others; rests run first."""
        starts = [0] * len(sets) if starts is None else starts
        rests = self._run(sets, True, starts)
        left = [i for i, rest in enumerate(rests) if not self.rule.dispensable(rest)]
        answers = dict(zip(left, self._run([sets[i] for i in left], False, [starts[i] for i in left])))
        return [
            (answers[i], rests[i]) if i in answers and self.rule.sufficient(answers[i]) else None
            for i in range(len(sets))
        ]

    def _accept(self, numbers: Tensor, answers: tuple[Answer, Answer]) -> None:
        self.result.numbers, (self.result.set, self.result.rest) = numbers, answers
        self._tried.clear()
        self.result.single_forwards = 0.0

    # --- the prefix --------------------------------------------------------------------------------------------

    def _first(self, count: int) -> Tensor:
        return self.order[:count].sort().values

    def _prefix(self) -> bool:
        """Find a prefix that qualifies; whether there is one."""
        for growth in (2.0, 2**0.5):  # a finer grid only if the coarse one finds nothing: conditions are not monotone
            low = 0
            for batch in _lengths(len(self.order), growth, self.adaptive):
                for count, answers in zip(batch, self._check([self._first(count) for count in batch])):
                    if answers is not None:
                        self._accept(self._first(count), answers)
                        self._bisect(low, count)
                        return True
                    low = count
                if self.adaptive and low >= ADAPTED_FROM / 2:
                    self._rank_again(low)
        return False

    def _rank_again(self, low: int) -> None:
        """Rank the edges behind a prefix that does not qualify by what they contribute to the rest."""
        self._afford(BACKWARD)
        scores = rest_contributions(self.forward, self._first(low), self.removal)
        if scores is not None:
            tail = self.order[low:]
            tail_scores = scores[tail]
            tail_scores = tail_scores.where(tail_scores != 0, torch.full_like(tail_scores, -torch.inf))
            self.order = torch.cat([self.order[:low], tail[tail_scores.argsort(descending=True, stable=True)]])

    def _bisect(self, low: int, high: int) -> None:
        while high - low > 1 and high > CLOSE * low:
            middle = min(max(math.isqrt(max(low, 1) * high), low + 1), high - 1)
            answers = self._check([self._first(middle)])[0]
            if answers is None:
                low = middle
            else:
                high = middle
                self._accept(self._first(high), answers)
        self.result.prefix = high

    # --- many at once ------------------------------------------------------------------------------------------

    def _estimate(self) -> tuple[Tensor, Tensor, Tensor]:
        """The edges of the set, least needed first, with the share of each side's slack that each of them takes."""
        numbers, answers = self.result.numbers, (self.result.set, self.result.rest)
        assert numbers is not None
        assert answers[0] is not None
        assert answers[1] is not None
        self._afford(2 * BACKWARD)
        loss, gain = toggle_effects(self.forward, numbers, self.removal)
        slack = max(answers[0].odds - self.rule.least_odds, 1e-6)
        room = max(-answers[1].margin if self.rule.strict else self.rule.least_odds - answers[1].odds, 1e-6)
        loss, gain = -loss / slack, gain / room
        need = loss.clamp_min(0) + gain
        order = need.argsort()
        for edge, needed in zip(numbers.tolist(), need.tolist()):
            if edge not in self._stale:  # what a removal showed is better known
                self._need[edge] = needed
        return numbers[order], loss[order].cumsum(0), gain[order].cumsum(0)

    def _drop_at_once(self) -> None:
        """Drop as many of the least needed edges as can go together, again and again."""
        while True:
            numbers, loss, gain = self._estimate()
            size = len(numbers)
            fits = ((loss <= 1) & (gain <= 1)).nonzero()[:, 0]
            guess = 1 + int(fits[-1]) if len(fits) else 0
            counts = sorted({min(max(round(guess * share), 1), size - 1) for share in SHARES}, reverse=True)
            counts = [count for count in counts if count > 0]
            dropped = self._drop_first(numbers, counts) if counts else 0
            if not dropped and guess > 8:
                dropped = self._drop_first(numbers, [guess // 4, guess // 8])
            if dropped < min(max(2.0, LEAST_DROP * size), WORTH_IT):
                return

    def _drop_first(self, numbers: Tensor, counts: Sequence[int]) -> int:
        """Drop the first edges, as many as the largest of these counts that qualifies; how many were dropped."""
        sets = [numbers[count:].sort().values for count in counts]
        for count, one, answers in zip(counts, sets, self._check(sets)):
            if answers is not None:
                self._accept(one, answers)
                return count
        return 0

    # --- one at a time -----------------------------------------------------------------------------------------

    def _remove_units(self) -> None:
        """Remove one unit at a time until each was removed from the current set and none can go."""
        size = self._unit_size()
        self._share()
        while True:
            left = [edge for edge in self._numbers.tolist() if edge not in self._tried]
            if not left:
                break
            left.sort(key=lambda edge: (edge in self._stale, self._need.get(edge, 0.0)))
            units = [tuple(left[i : i + size]) for i in range(0, size * UNITS_TOGETHER, size) if left[i:]]
            free = self._free(units)
            if free:
                wasted = len(self._tried)
                self._stale.update(self._tried)
                self._drop_units(free)
                if wasted >= WASTED:
                    self._drop_at_once()
                self._share()
        if size == 1:
            self._complete()
        self.result.group_size = size

    def _unit_size(self) -> int:
        """How many edges are removed together: one, if the budget allows for it."""
        depths = [self.forward.edges.call_of(edge).stack_layer for edge in self._numbers.tolist()]
        cost = 2 * sum(1 - depth / max(len(self.forward.layers), 1) for depth in depths)
        left = self.budget - self.spent - 2
        return 1 if cost <= left else math.ceil(GROUPS * cost / max(left, 1.0))

    @property
    def _numbers(self) -> Tensor:
        assert self.result.numbers is not None
        return self.result.numbers

    def _share(self) -> None:
        self._afford(2.0)
        self.forward.share([Edges(self._numbers), Edges(self._numbers, rest=True)], self.removal)

    def _sets_without(self, units: Sequence[tuple[int, ...]]) -> tuple[list[Tensor], list[int]]:
        """The current set without each unit, and the lowest layer of each unit."""
        numbers = self._numbers
        sets = [numbers[torch.isin(numbers, torch.tensor(unit), invert=True)] for unit in units]
        return sets, [min(self.forward.edges.call_of(edge).stack_layer for edge in unit) for unit in units]

    def _free(self, units: Sequence[tuple[int, ...]]) -> list[tuple[tuple[int, ...], Single]]:
        """The units that can go, the one that is needed least first."""
        sets, starts = self._sets_without(units)
        begun = self.spent
        rests = self._run(sets, True, starts)
        open_units = [i for i, rest in enumerate(rests) if not self.rule.dispensable(rest)]
        answers = self._run([sets[i] for i in open_units], False, [starts[i] for i in open_units])
        self.result.single_forwards += self.spent - begun
        known = dict(zip(open_units, answers))
        for i, (unit, rest) in enumerate(zip(units, rests)):
            self._tried.update(dict.fromkeys(unit, (known.get(i), rest)))
            self._need.update(dict.fromkeys(unit, self._shortage(known.get(i), rest)))
        free = [(units[i], Single(one, rests[i])) for i, one in known.items() if self.rule.sufficient(one)]
        return sorted(free, key=lambda unit: self._shortage(unit[1].set, unit[1].rest))

    def _shortage(self, chosen: Answer | None, rest: Answer) -> float:
        """By how much the worse one of the conditions fails without a unit; below zero where both hold."""
        short = -math.inf if chosen is None else self.rule.least_odds - chosen.odds
        return max(short, rest.margin)

    def _drop_units(self, free: Sequence[tuple[tuple[int, ...], Single]]) -> None:
        """Drop as many of these units as can go together, counted from the first; the first alone can."""
        single = free[0][1]
        best = (self._sets_without([free[0][0]])[0][0], (single.set, single.rest))
        low, high, middle = 1, len(free) + 1, len(free)  # all at once is tried before bisection
        while high - low > 1:
            together = tuple(edge for unit, _ in free[:middle] for edge in unit)
            sets, starts = self._sets_without([together])
            answers = self._check(sets, starts)[0]
            if answers is None:
                high = middle
            else:
                low, best = middle, (sets[0], answers)
            middle = (low + high) // 2
        self._accept(*best)

    def _complete(self) -> None:
        """Run the other side of every single removal, since the record has both."""
        edges = [edge for edge, (one, _) in self._tried.items() if one is None]
        sets, starts = self._sets_without([(edge,) for edge in edges])
        begun = self.spent
        answers = dict(zip(edges, self._run(sets, False, starts)))
        self.result.single_forwards += self.spent - begun
        for edge, (one, rest) in self._tried.items():
            self.result.singles[edge] = Single(one or answers[edge], rest)
        self.result.single_sequences = 2 * len(self.result.singles)


def _lengths(most: int, growth: float, adaptive: bool) -> list[list[int]]:
    """Lengths of prefixes up to `most`, each `growth` times the one before, in batches."""
    count = math.ceil(math.log(most + 1, growth)) + 1
    lengths = sorted({min(most, math.ceil(growth**i)) for i in range(count)})
    early = [one for one in lengths if not adaptive or one < ADAPTED_FROM]
    batches = [early[i : i + TOGETHER] for i in range(0, len(early), TOGETHER)]
    return batches + [[one] for one in lengths[len(early) :]]
