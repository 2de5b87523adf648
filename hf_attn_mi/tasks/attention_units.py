"""The units of `minimal_attention`: attention weights, heads, layers or tokens, and how sets of them are run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.removal_predictor import Prediction, RemovalPredictor
from hf_attn_mi.results.attention_parts import AttentionUnit
from hf_attn_mi.tasks.attention_edges import Edges, EdgeSpace, Heads
from hf_attn_mi.tasks.edge_ranking import GRADIENT, RANKINGS, EdgeScores, order_of
from hf_attn_mi.tasks.edge_search import EdgeSearch, Rule
from hf_attn_mi.tasks.minimal_tokens import RestrictedInputs
from hf_attn_mi.tasks.rankings import ranking_scores
from hf_attn_mi.tasks.restricted_forward import Candidate, RestrictedForward
from hf_attn_mi.tasks.restricted_output import Answer
from hf_attn_mi.tasks.unit_search import Found, search_units

Sets = Sequence[tuple[Sequence[int] | Tensor, bool]]  # units, and whether to take their complement


@dataclass(frozen=True)
class Plan:
    """The rule and the settings of a search.

    Attributes:
        keep, strict: the conditions of the rule.
        ranking: a key of `RANKINGS`.
        removal: the kind of removal that the set is found under.
        budget: maximum cost of one search, in forward passes of the whole input.
        seed: the random seed for random rankings.
    """

    keep: float
    strict: bool
    ranking: str
    removal: str
    budget: float
    seed: int


class Units(Protocol):
    """The units of one kind on one input."""

    count: int
    whole: Answer
    none: Answer | None  # None if the input cannot be run without any unit

    def run(self, sets: Sets, removal: str) -> list[Answer]:
        """Return what the model says when only these units, or all but these, stay."""

    def search(self, rule: Rule, plan: Plan, forbidden: Sequence[int] = ()) -> Found:
        """Search a locally minimal set that carries the prediction and has none of the forbidden units."""

    def describe(self, units: Sequence[int], plan: Plan) -> tuple[AttentionUnit, ...]:
        """Return these units in words and numbers."""


class EdgeUnits:
    """Single attention weights.

    Args:
        forward: an open `RestrictedForward`.
        scores: the scores of its edges.
        plan: the rule and settings of the search.
    """

    def __init__(self, forward: RestrictedForward, scores: EdgeScores, plan: Plan) -> None:
        self.forward, self.scores = forward, scores
        self.space = forward.edges
        self.count, self.whole = self.space.count, forward.whole
        self.none: Answer | None = self.run([((), False)], plan.removal)[0]
        self._flat: dict[str, Tensor] = {}

    def run(self, sets: Sets, removal: str) -> list[Answer]:
        """See `Units.run`."""
        return self.forward.run([Candidate(Edges.of(units, rest=rest)) for units, rest in sets], removal)

    def search(self, rule: Rule, plan: Plan, forbidden: Sequence[int] = ()) -> Found:
        """See `Units.search`."""
        forward = self.forward
        sequences, forwards = forward.sequences, forward.forwards
        last = torch.tensor(list(forbidden), dtype=torch.long)
        order = order_of(self.scored(plan.ranking), self.space.present, last)
        result = EdgeSearch(
            forward,
            order,
            rule,
            removal=plan.removal,
            budget=plan.budget,
            adaptive=RANKINGS[plan.ranking] is RANKINGS[GRADIENT],
        ).run()
        return Found(
            () if result.numbers is None else tuple(result.numbers.tolist()),
            result.set,
            result.rest,
            result.singles,
            result.group_size,
            result.prefix,
            forward.sequences - sequences,
            forward.forwards - forwards,
            result.single_sequences,
            result.single_forwards,
            result.spent,
        )

    def scored(self, ranking: str) -> Tensor:
        """(places,) scores of this ranking, computed once."""
        if ranking not in self._flat:
            self._flat[ranking] = self.scores.flat(RANKINGS[ranking](self.scores))
        return self._flat[ranking]

    def describe(self, units: Sequence[int], plan: Plan) -> tuple[AttentionUnit, ...]:
        """See `Units.describe`."""
        weights, scores = self.scores.flat(self.scores.weights), self.scored(contribution_of(plan.ranking, self.scores))
        described = []
        for number in units:
            call = self.space.call_of(number)
            head, query, key = call.place(number)
            index = self.space.calls.index(call)
            ends = [token_name(self.forward.input, self.space, index, end, at) for end, at in enumerate((query, key))]
            name = f"layer {call.layer} head {head}: {ends[0]} <- {ends[1]}"
            described.append(
                AttentionUnit(name, index, call.layer, head, query, key, float(weights[number]), float(scores[number]))
            )
        return tuple(described)


class HeadUnits:
    """Whole heads, or all heads of a layer as one.

    Args:
        forward: an open `RestrictedForward`.
        scores: the scores of its edges.
        plan: the rule and settings of the search.
        layers: take the heads of an attention call together.
    """

    def __init__(self, forward: RestrictedForward, scores: EdgeScores, plan: Plan, *, layers: bool = False) -> None:
        self.forward, self.scores, self.layers = forward, scores, layers
        heads = forward.edges.heads
        self.members = [frozenset([head]) for head in heads]
        if layers:
            numbers = range(len(forward.edges.calls))
            self.members = [frozenset(head for head in heads if head[0] == number) for number in numbers]
        self.count, self.whole = len(self.members), forward.whole
        self.none: Answer | None = self.run([((), False)], plan.removal)[0]

    def run(self, sets: Sets, removal: str) -> list[Answer]:
        """See `Units.run`."""
        candidates = []
        for units, rest in sets:
            chosen = frozenset(int(unit) for unit in units)
            kept = [members for unit, members in enumerate(self.members) if (unit in chosen) != rest]
            candidates.append(Candidate(Heads(frozenset().union(*kept))))
        return self.forward.run(candidates, removal)

    def search(self, rule: Rule, plan: Plan, forbidden: Sequence[int] = ()) -> Found:
        """See `Units.search`."""
        assert self.none is not None
        forwards, sequences = self.forward.forwards, self.forward.sequences
        scores = self._scores(plan.ranking)
        result = search_units(
            sorted(range(self.count), key=lambda unit: -scores[unit]),
            lambda sets: self.run([(sorted(units), False) for units in sets], plan.removal),
            (self.whole, self.none),
            rule,
            plan.budget,
        )
        result.forwards, result.sequences = self.forward.forwards - forwards, self.forward.sequences - sequences
        return result

    def describe(self, units: Sequence[int], plan: Plan) -> tuple[AttentionUnit, ...]:
        """See `Units.describe`."""
        scores, described = self._scores(contribution_of(plan.ranking, self.scores)), []
        for unit in units:
            number, head = min(self.members[unit])
            layer = self.forward.edges.calls[number].layer
            name = f"layer {layer}" if self.layers else f"layer {layer} head {head}"
            described.append(
                AttentionUnit(name, number, layer, None if self.layers else head, None, None, None, scores[unit])
            )
        return tuple(described)

    def _scores(self, ranking: str) -> list[float]:
        """Effect of removing the whole head, to first order: the sum of weight times gradient, which is not centered.

        Rankings that do not follow gradients are summed.
        """
        products = self.scores.products
        use_products = RANKINGS[ranking] is RANKINGS[GRADIENT] and bool(products)
        by_call = products if use_products else RANKINGS[ranking](self.scores)
        heads = {
            n: one.double().abs().sum((0, 2, 3)) if not use_products else one.double().sum((0, 2, 3))
            for n, one in by_call.items()
        }
        return [float(sum(heads[number][head] for number, head in members)) for members in self.members]


class TokenUnits:
    """Tokens as keys, by the attention mask, as in `minimal_tokens`; special tokens always stay.

    Args:
        forward: an open `RestrictedForward` of a text.
        scores: the scores of its edges.
        plan: the rule and settings of the search.
        index: the index of the input among the caller's, for messages.
    """

    def __init__(self, forward: RestrictedForward, scores: EdgeScores, plan: Plan, index: int) -> None:
        self.forward, self.scores = forward, scores
        with forward.paused():
            predictor = RemovalPredictor(forward.runner, [forward.input], forward.target.settled(), forward.batch_size)
            self.restricted = RestrictedInputs(predictor, (index,))
            self.original = self.restricted.run_originals()[0]
        self.fixed, self.movable = self.restricted.fixed[0], self.restricted.movable[0]
        self.count, self.whole = len(self.movable), self._answer(self.original)
        self.none = self.run([((), False)], plan.removal)[0] if self.fixed else None

    def run(self, sets: Sets, removal: str) -> list[Answer]:
        """See `Units.run`; an empty set of a model without special tokens counts as not sufficient."""
        tokens = []
        for units, rest in sets:
            chosen = frozenset(int(unit) for unit in units)
            tokens.append([one for one in self.movable if (one in chosen) != rest])
        there = [one for one in tokens if one or self.fixed]
        with self.forward.paused():
            answers = iter(self.restricted.run([(0, one) for one in there]))
        nothing = Answer(0.0, False, -math.inf, -math.inf)
        return [self._answer(next(answers)) if one or self.fixed else nothing for one in tokens]

    def search(self, rule: Rule, plan: Plan, forbidden: Sequence[int] = ()) -> Found:
        """See `Units.search`."""
        none = Answer(0.0, False, -math.inf, -math.inf) if self.none is None else self.none
        scores = self._scores(plan.ranking, plan.seed)
        result = search_units(
            sorted(self.movable, key=lambda token: -scores[token]),
            lambda sets: self.run([(sorted(tokens), False) for tokens in sets], plan.removal),
            (self.whole, none),
            rule,
            plan.budget,
            lambda size: self.restricted.cost(0, size),
        )
        return result

    def describe(self, units: Sequence[int], plan: Plan) -> tuple[AttentionUnit, ...]:
        """See `Units.describe`."""
        scores, tokens = self._scores(plan.ranking, plan.seed), self.forward.input.tokens
        names = [repr(tokens[unit]) if tokens else f"token {unit}" for unit in units]
        return tuple(
            AttentionUnit(name, None, None, None, None, unit, None, scores[unit]) for name, unit in zip(names, units)
        )

    def _scores(self, ranking: str, seed: int) -> list[float]:
        """Token scores: of `explain` for relevance and random, else those of the edges summed for each key."""
        if ranking in TOKEN_RANKINGS:
            with self.forward.paused():
                predictor, size = self.restricted.predictor, self.forward.batch_size
                scores = ranking_scores(ranking, "ranking", predictor, (0,), size, seed)[0]
            return scores.double().tolist()
        length, total = self.forward.input.token_count, torch.zeros(self.forward.input.token_count).double()
        for number, one in RANKINGS[ranking](self.scores).items():
            if one.shape[-1] != length or one.shape[0] != 1:
                raise UnsupportedModelError(
                    f"unit='token': {self.forward.edges.calls[number].module_name} does not attend over the input's "
                    "own tokens (windows, patches or latents); use unit='head'."
                )
            total += one.double().sum((0, 1, 2)).cpu()
        return total.tolist()

    def _answer(self, one: Prediction) -> Answer:
        return Answer(one.value, one.predicted == self.original.predicted, math.nan, math.nan)


TOKEN_RANKINGS = ("relevance", "random")  # rankings of tokens, not of attention weights


def contribution_of(ranking: str, scores: EdgeScores) -> str:
    """Return the ranking whose scores say what a unit contributes: for the controls, gradients."""
    controls = (RANKINGS["attention"], RANKINGS["random"])
    return GRADIENT if RANKINGS[ranking] in controls and scores.products else ranking


def token_name(one: EncodedInput, space: EdgeSpace, number: int, end: int, place: int) -> str:
    """Return the token of this query (end 0) or key (end 1), or its number where it is none of the input's tokens."""
    windows, _, *sizes = space.calls[number].present.shape
    if one.tokens and windows * sizes[end] == one.token_count:
        return repr(one.tokens[place])
    return f"{('query', 'key')[end]} {place}"


MAKERS: dict[str, Callable[[RestrictedForward, EdgeScores, Plan, int], Units]] = {
    "edge": lambda forward, scores, plan, index: EdgeUnits(forward, scores, plan),
    "head": lambda forward, scores, plan, index: HeadUnits(forward, scores, plan),
    "layer": lambda forward, scores, plan, index: HeadUnits(forward, scores, plan, layers=True),
    "token": TokenUnits,
}
UNITS = tuple(MAKERS)
