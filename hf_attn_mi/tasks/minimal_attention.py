"""`minimal_attention`: which attention weights carry this prediction, so that they suffice and none can be removed?"""

from __future__ import annotations

import time
from itertools import combinations
from typing import Any

import torch

from hf_attn_mi.models.dual_encoders import tower_of
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target
from hf_attn_mi.results.attention_family import FamilyMember, Place
from hf_attn_mi.results.attention_parts import (
    AttentionModule,
    DeeperRemovals,
    RemovalCheck,
    UnitRemoval,
)
from hf_attn_mi.results.attention_subgraph import AttentionSubgraph
from hf_attn_mi.results.results import Results
from hf_attn_mi.tasks.arguments import (
    check_seed,
    check_whole_number,
)
from hf_attn_mi.tasks.attention_arguments import check_options, read_reference, read_removals
from hf_attn_mi.tasks.attention_edges import EdgeSpace
from hf_attn_mi.tasks.attention_units import MAKERS, Plan, TokenUnits
from hf_attn_mi.tasks.each_input import bind_targets, check_input_options, read_inputs, result_of_each
from hf_attn_mi.tasks.edge_ranking import GRADIENT, EdgeScores
from hf_attn_mi.tasks.edge_search import Rule, Single
from hf_attn_mi.tasks.restricted_forward import RestrictedForward
from hf_attn_mi.tasks.several_targets import refuse_functions, refuse_target_and_targets, results_of_targets
from hf_attn_mi.tasks.unit_search import Found

TIES = {torch.float64: 1e-9, torch.float32: 1e-5}  # differences of logits that rounding can make
TIE_REDUCED = 1e-2
ALL_PAIRS = 12  # from sets up to this size every pair is removed
DEEPER = 200  # pairs of larger sets, and random subsets, that are removed
OTHERS = ("relevance", GRADIENT, "attention", "random")  # rankings of the further sets of a family


def minimal_attention(
    model: Any,
    inputs: Any,
    *,
    target: Any = None,
    targets: Any = None,
    unit: str = "edge",
    keep: float = 0.9,
    strict: bool = True,
    ranking: str = "gradient",
    others: int = 0,
    removals: Any = ("renormalized",),
    reference: Any = None,
    deeper: bool = False,
    budget: float = 10_000.0,
    batch_size: int = 16,
    tokenizer: Any = None,
    processor: Any = None,
    sampling_rate: int | None = None,
    truncation: bool = False,
    is_split_into_words: bool = False,
    errors: str = "raise",
    seed: int = 0,
) -> AttentionSubgraph | Results[AttentionSubgraph]:
    """Search attention weights that carry the prediction of each input: they suffice, the rest does not, none can go.

    An edge is one attention weight above zero: (layer, head, query, key). For a set S of edges the model runs with
    every row of every head restricted to its edges in S, in all layers at once, so that later rows follow from the
    restricted ones below. With p(S) the probability of the class:

    - S suffices: p(S) >= keep * p(all), and the prediction stays;
    - the rest (all edges but S) does not suffice; with `strict` it changes the prediction;
    - without any single edge of S one of the two fails. S is locally minimal: neither smallest nor unique.

    Where the model without any attention weight meets the first condition, no set needs to be found:
    `needs_attention` is False. Definition, search and limits: docs/methods/minimal_attention.md.

    Args:
        model: as in `explain`, with class logits.
        inputs: as in `explain`.
        target: as in `explain`; it must have a probability.
        targets: several targets of each input, instead of `target`: a list, or "all", as in `explain`. The results are
            in the order of the inputs, and for each input in that of its targets.
        unit: what is kept or removed as one: "edge", "head", "layer", or "token" (as key in all layers, by the
            attention mask; special tokens stay, as in `minimal_tokens`).
        keep: share of p(all) that a sufficient set keeps, above 0, at most 1.
        strict: the rest must change the prediction.
        ranking: what ranks the units before the search. "gradient": a_ij (g_ij - sum_k a_ik g_ik) with g the gradient
            of the explained value; "relevance": the same in the linearized model of the method "relevance"; the
            controls "attention" (the weight itself) and "random". It affects set and cost, never the guarantees.
        others: how many further sets to search, by other rankings and with the edges found so far forbidden
            (`family`); for unit "edge".
        removals: kinds of removal. The set is found under the first, and run again under the others: "renormalized"
            (what stays of a row is scaled to its sum), "missing" (as it is), "mean" (the share of the others goes to
            the mean value of the row's keys), "resample" (to the values at the same places of `reference`).
        reference: another input, at least as long as each of `inputs`, for "resample".
        deeper: also remove pairs (all of them up to 12 units, else 200 at random) and 200 random subsets of the set.
        budget: the largest cost of each search, in forward passes of the whole input, 2 or more. Where it runs out,
            `minimal` is False and `reason` says what was shown.
        batch_size: restricted sequences in one forward pass; bounds the memory.
        tokenizer, processor, sampling_rate, truncation, is_split_into_words, errors: as in `explain`.
        seed: the random seed for the random ranking and for `deeper`.

    Returns:
        One `AttentionSubgraph` for one input, `Results` of them for a list. `outcome` says whether it holds.

    Raises:
        InvalidInputError: an argument is wrong, the model has no class probabilities, or there are 2**31 edges or more.
        UnsupportedModelError: the attention of this model cannot be captured or restricted exactly.
        KeyboardInterrupt: Ctrl-C; its `results` are those of the inputs that were finished.

    Example:
        >>> subgraph = minimal_attention(model, "A quietly moving film.")     # doctest: +SKIP
        >>> print(subgraph)                                                   # doctest: +SKIP
    """
    kinds = read_removals(removals, unit)
    check_options(unit, keep, strict, ranking, others, deeper, budget)
    check_whole_number("batch_size", batch_size)
    check_input_options(errors, truncation, is_split_into_words)
    check_seed(seed)
    refuse_target_and_targets(target, targets)
    refuse_functions(target, targets, "a set")
    runner = EncoderRunner.of(model, tokenizer, processor=processor, sampling_rate=sampling_rate)
    runner = tower_of(runner, inputs, target, targets)
    encoded = read_inputs(
        runner,
        inputs,
        errors=errors,
        truncation=truncation,
        is_split_into_words=is_split_into_words,
        special_known=MAKERS[unit] is TokenUnits,
    )
    bound: Target | None = None
    if targets is None:
        bound, encoded = bind_targets(target, runner, encoded, errors=errors)
    other = read_reference(runner, reference, kinds, encoded.inputs)
    plan = Plan(float(keep), strict, ranking, kinds[0], float(budget), seed)

    def run_one(one: EncodedInput, chosen: Target, place: int) -> AttentionSubgraph:
        started = time.perf_counter()
        with RestrictedForward(runner, one, chosen, batch_size, seed, other) as forward:
            return _Task(forward, plan, unit, place).record(kinds[1:], others, deeper, started)

    if bound is None:
        return results_of_targets(targets, runner, encoded, run_one, errors=errors, task="minimal attention")

    def run(positions: list[int]) -> list[AttentionSubgraph]:
        assert bound is not None
        return [run_one(encoded.inputs[i], bound.select([i]), encoded.places[i]) for i in positions]

    batches = [[i] for i in range(len(encoded.inputs))]
    return result_of_each(encoded, batches, run, errors=errors, task="minimal attention")


class _Task:
    """The search on one input and everything that is run beside it.

    Args:
        forward: an open `RestrictedForward`.
        plan: the rule and settings of the search.
        unit: the kind of the units.
        index: the index of the input among the caller's.
    """

    def __init__(self, forward: RestrictedForward, plan: Plan, unit: str, index: int) -> None:
        self.forward, self.plan, self.unit = forward, plan, unit
        self.scores = EdgeScores(forward, plan.seed)
        self.units = MAKERS[unit](forward, self.scores, plan, index)
        tie = TIES.get(forward.runner.dtype, TIE_REDUCED)
        self.rule = Rule(self.units.whole, plan.keep, plan.strict, tie)
        self.needed = self.units.none is None or not self.rule.sufficient(self.units.none)
        # the cost of the analysis and of the pass without attention
        self.sequences, self.forwards = forward.sequences, forward.forwards
        self.found = self.units.search(self.rule, plan) if self.needed else Found()

    def record(self, kinds: tuple[str, ...], others: int, deeper: bool, started: float) -> AttentionSubgraph:
        """The result."""
        forward, found, none = self.forward, self.found, self.units.none
        complete = bool(found.units)
        removals = tuple(self._check_removal(kind) for kind in kinds) if complete else ()
        deep = self._deeper() if deeper and complete else None
        members = self._family(others) if self.needed else ()
        places = {unit: i for i, unit in enumerate(found.units)}
        one, space = forward.input, forward.edges
        info = {
            **forward.runner.provenance(),
            "ranking": self.plan.ranking,
            "budget": self.plan.budget,
            "batch_size": forward.batch_size,
            "shared_states": bool(forward.layers),
            "seed": self.plan.seed,
            **({} if forward.target.call(0) is None else {"target": forward.target.call(0)}),
            "length": one.length,
            "special": None if one.special is None else list(one.special),
            "warnings": [*one.warnings, *forward.notes],
        }
        return AttentionSubgraph(
            tokens=one.tokens or tuple(f"token {i}" for i in range(one.token_count)),
            texts=one.texts,
            unit=self.unit,
            units=self.units.describe(found.units, self.plan),
            unit_count=self.units.count,
            attention=_modules(space),
            edge_count=space.count,
            target=forward.explained.target,
            target_name=forward.explained.name,
            p_all=self.units.whole.probability,
            p_set=None if found.set is None else found.set.probability,
            p_rest=None if found.rest is None else found.rest.probability,
            p_none=None if none is None else none.probability,
            rest_same=None if found.rest is None else found.rest.same,
            needs_attention=self.needed,
            singles=tuple(self._removal(places[unit], one) for unit, one in sorted(found.singles.items())),
            group_size=found.group_size,
            keep=self.plan.keep,
            strict=self.plan.strict,
            removal=self.plan.removal,
            removals=removals,
            deeper=deep,
            family_members=members,
            prefix=found.prefix,
            sequences=self.sequences + found.sequences,
            forwards=self.forwards + found.forwards,
            single_sequences=found.single_sequences,
            single_forwards=found.single_forwards,
            seconds=time.perf_counter() - started,
            inputs=one.tensors,
            reference={} if forward.reference is None else forward.reference.tensors,
            reason=self._reason(found),
            info=info,
        )

    def _removal(self, place: int, single: Single) -> UnitRemoval:
        short, enough = not self.rule.sufficient(single.set), self.rule.dispensable(single.rest)
        fails = "both" if short and enough else "set" if short else "rest" if enough else ""
        return UnitRemoval(
            place, single.set.probability, single.rest.probability, single.set.same, single.rest.same, fails
        )

    def _check_removal(self, kind: str) -> RemovalCheck:
        """Run the set, the rest and nothing under another kind of removal."""
        sets = ((self.found.units, False), (self.found.units, True), ((), False))
        chosen, rest, none = self.units.run(sets, kind)
        stands = self.rule.sufficient(chosen) and not self.rule.dispensable(rest)
        probabilities = (chosen.probability, rest.probability, none.probability)
        return RemovalCheck(kind, *probabilities, chosen.same, rest.same, stands)

    def _deeper(self) -> DeeperRemovals:
        pairs, subsets, complete = deeper_subsets(len(self.found.units), self.plan.seed)
        free = []
        for group in (pairs, subsets):
            left = [[u for i, u in enumerate(self.found.units) if i not in gone] for gone in map(set, group)]
            answers = self.units.run([(units, rest) for units in left for rest in (False, True)], self.plan.removal)
            both = zip(answers[::2], answers[1::2])
            free.append(sum(self.rule.sufficient(a) and not self.rule.dispensable(b) for a, b in both))
        return DeeperRemovals(len(pairs), free[0], complete, len(subsets), free[1])

    def _family(self, others: int) -> tuple[FamilyMember, ...]:
        """Further sets: by another ranking and with all edges found so far forbidden, in turns."""
        members, found_so_far = list[FamilyMember](), set(self.found.units)
        rankings = [name for name in OTHERS if name != self.plan.ranking]
        for number in range(others):
            forbidden = sorted(found_so_far) if number % 2 else []
            ranking = self.plan.ranking if number % 2 else rankings[number // 2 % len(rankings)]
            plan = Plan(**{**vars(self.plan), "ranking": ranking})
            found = self.units.search(self.rule, plan, forbidden)
            found_so_far.update(found.units)
            members.append(
                FamilyMember(
                    ranking,
                    len(forbidden),
                    edge_places(self.forward.edges, found.units),
                    None if found.set is None else found.set.probability,
                    None if found.rest is None else found.rest.probability,
                    found.group_size,
                    found.sequences,
                    found.forwards,
                    self._reason(found, allowed=not forbidden),
                )
            )
        return tuple(members)

    def _reason(self, found: Found, *, allowed: bool = True) -> str:
        none, what = self.units.none, self.unit + "s"
        if not self.needed:
            assert none is not None
            return (
                f"Without any of these {what} the model gives the class the probability {none.probability:.4f} of "
                f"{self.units.whole.probability:.4f} and keeps its prediction."
            )
        if not found.units and found.spent:
            return f"The budget of {self.plan.budget:g} forward passes ran out before a set was found."
        if not found.units and not allowed:
            return (
                "No further set was found among the weights that are in none of the other sets: no part of them, taken "
                "in the order of the ranking, is enough while everything else is not."
            )
        if not found.units:
            assert none is not None
            return (
                f"Of the sets of {what} that the search tried, in the order of the ranking, none is enough while all "
                "others together change the prediction. Nor are all of them together such a set: "
                f"without any of them the model predicts the same class, with the probability {none.probability:.4f} "
                f"instead of {self.units.whole.probability:.4f}. Other sets were not tried; another ranking may find "
                "one. With strict=False (--lenient) the others need only not suffice: such a set exists."
            )
        if found.spent:
            tried = f"{len(found.singles)} of {len(found.units)} single removals were run on this set"
            return f"The budget of {self.plan.budget:g} forward passes ran out: {tried}."
        if found.group_size > 1:
            return (
                f"The budget of {self.plan.budget:g} forward passes did not allow for single removals: no group of "
                f"{found.group_size} {what} can be left out."
            )
        return ""


def deeper_subsets(size: int, seed: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]], bool]:
    """Return the pairs and the random subsets of a set of this size that are removed, and whether these are all pairs.

    Example:
        >>> pairs, subsets, complete = deeper_subsets(3, 0)
        >>> pairs, len(subsets), complete
        ([(0, 1), (0, 2), (1, 2)], 4, True)
    """
    generator = torch.Generator().manual_seed(seed)
    complete = size <= ALL_PAIRS

    def draw(count: int) -> tuple[int, ...]:
        return tuple(sorted(torch.randperm(size, generator=generator)[:count].tolist()))

    if size < 2:
        return [], [], True
    pairs: list[tuple[int, ...]]
    pairs = list(combinations(range(size), 2)) if complete else [draw(2) for _ in range(DEEPER)]
    sizes = torch.randint(2, size + 1, (DEEPER,), generator=generator).tolist()
    return pairs, list(dict.fromkeys(draw(count) for count in sizes)), complete  # small sets have fewer subsets


def edge_places(space: EdgeSpace, numbers: tuple[int, ...]) -> tuple[Place, ...]:
    """Return (number of the attention call, head, query, key) of each edge."""
    calls = [space.call_of(number) for number in numbers]
    return tuple((space.calls.index(call), *call.place(number)) for call, number in zip(calls, numbers))


def _modules(space: EdgeSpace) -> tuple[AttentionModule, ...]:
    modules = []
    for call in space.calls:
        windows, heads, queries, keys = call.present.shape
        modules.append(
            AttentionModule(call.layer, call.module_name, call.repeat, heads, windows * queries, windows * keys)
        )
    return tuple(modules)
