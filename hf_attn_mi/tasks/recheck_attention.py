"""Compute every number of an attention subgraph again, from the saved record alone, one sequence at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.labels import label_names
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from hf_attn_mi.results.attention_family import Place
from hf_attn_mi.results.attention_parts import AttentionUnit
from hf_attn_mi.results.attention_subgraph import AttentionSubgraph
from hf_attn_mi.results.token_set import Removal, TokenSet
from hf_attn_mi.tasks.attention_edges import CallEdges, Edges
from hf_attn_mi.tasks.attention_units import token_name
from hf_attn_mi.tasks.minimal_attention import TIE_REDUCED, TIES, deeper_subsets
from hf_attn_mi.tasks.restricted_forward import Candidate, RestrictedForward
from hf_attn_mi.tasks.restricted_output import Answer

TOKEN = "token"
# By whether the set no longer suffices, and whether the rest does.
_FAILS = {(True, True): "both", (True, False): "set", (False, True): "rest", (False, False): ""}


class SubgraphCheck:
    """Runs the sets of one subgraph again and collects what does not hold.

    Args:
        runner: runs the model.
        subgraph: the subgraph to check; of attention weights, heads or layers.
        tolerance: the largest difference of a probability; comparisons closer than this count as met.
    """

    def __init__(self, runner: EncoderRunner, subgraph: AttentionSubgraph, tolerance: float) -> None:
        self.subgraph, self.tolerance = subgraph, tolerance
        self.tie, self.tokenizer = TIES.get(runner.dtype, TIE_REDUCED), runner.tokenizer
        reference = _encoded(subgraph.reference, None) if subgraph.reference else None
        seed = int(subgraph.info.get("seed", 0))
        called = subgraph.info.get("target", subgraph.target)
        target, (one,) = read_target(called, runner, [saved_input(subgraph)])
        self.forward = RestrictedForward(runner, one, target, 1, seed, reference)
        self.difference, self.reasons = 0.0, list[str]()

    def run(self) -> tuple[float, list[str]]:
        """Return the largest change of a probability, and what does not hold."""
        with self.forward:
            weights, _ = self.forward.analyze(gradients=False)
            self.forward.layers = ()  # every pass runs as a whole
            self._require_same_model()
            self._check_facts()
            self._check_units(weights)
            self._check_set()
        return self.difference, self.reasons

    def _require_same_model(self) -> None:
        modules = [(m.name, m.repeat, m.heads, m.queries * m.keys) for m in self.subgraph.attention]
        candidates = []
        for call in self.forward.edges.calls:
            windows, heads, queries, keys = call.present.shape
            candidates.append((call.module_name, call.repeat, heads, windows**2 * queries * keys))
        if modules != candidates:
            raise InvalidInputError(
                "model: its attention is not that of the subgraph, which was made with another model "
                f"({self.subgraph.info.get('model', 'unknown')})."
            )

    def _check_facts(self) -> None:
        """The class, and the numbers of edges and units."""
        one, calls, explained = self.subgraph, self.forward.edges.calls, self.forward.explained
        self._equal("the class", one.target, explained.target)
        labels = label_names(self.forward.runner.config)
        if explained.target is not None and explained.name == labels.get(explained.target):
            self._equal("the name of the class", one.target_name, explained.name)  # others may quote the text
        self._equal("edge_count", one.edge_count, self.forward.edges.count)
        counts = {"edge": self.forward.edges.count, "head": len(self.forward.edges.heads), "layer": len(calls)}
        self._equal("unit_count", one.unit_count, counts[one.unit])
        self._equal("the layers", tuple(m.layer for m in one.attention), tuple(call.layer for call in calls))
        known = self.forward.input
        if self.tokenizer is not None and one.tokens and "input_ids" in known.tensors:
            ids = known.tensors["input_ids"].tolist()
            names = {tuple(map(str, ids)), tuple(self.tokenizer.convert_ids_to_tokens(ids))}
            self._require(one.tokens in names, "tokens are not those of the input")

    def _check_units(self, weights: Mapping[int, Tensor]) -> None:
        """The place, the name and the attention weight of each unit."""
        seen = set[tuple[int | None, ...]]()
        for unit in self.subgraph.units:
            place = (unit.call, unit.head, unit.query, unit.key)
            self._require(place not in seen, f"{unit.name} is in the set twice")
            seen.add(place)
            number = unit.call or 0
            call = self.forward.edges.calls[number]
            self._equal(f"the layer of {unit.name}", unit.layer, call.layer)
            name = f"layer {call.layer}" if unit.head is None else f"layer {call.layer} head {unit.head}"
            names = {name}
            if unit.head is not None and unit.query is not None and unit.key is not None:
                query, key = (
                    token_name(self.forward.input, self.forward.edges, number, end, at)
                    for end, at in enumerate((unit.query, unit.key))
                )
                names = {f"{name}: {query} <- {key}", f"{name}: query {unit.query} <- key {unit.key}"}
                edge = call.number(unit.head, unit.query, unit.key) - call.start
                self._close(f"the weight of {unit.name}", float(weights[number].flatten()[edge]), unit.weight)
            self._require(unit.name in names, f"{unit.name} is not the name of {sorted(names)[0]}")

    def _check_same(self, what: str, answer: Answer, stated: bool | None) -> None:
        """Whether the prediction stays; where rounding decides it, either is right."""
        close = abs(answer.margin) <= max(self.tolerance, self.tie)
        self._require(close or answer.same == stated, f"{what}: that it keeps the prediction is said to be {stated}")

    def _check_set(self) -> None:
        one, everything = self.subgraph, range(len(self.subgraph.units))
        self._compare("all weights", self.forward.whole.probability, one.p_all)
        none = self._answer(())
        self._compare("no attention", none.probability, one.p_none)
        if not one.needs_attention:
            self._require(self._sufficient(none, self.tolerance), "without any attention the prediction is not kept")
            return
        if not one.units:
            return
        chosen, rest = self._answer(everything), self._answer(everything, rest=True)
        self._compare("the set", chosen.probability, one.p_set)
        self._compare("the rest", rest.probability, one.p_rest)
        self._check_same("the rest", rest, one.rest_same)
        self._require(self._sufficient(chosen, self.tolerance), "the set does not suffice")
        self._require(not self._dispensable(rest, -self.tolerance), "the rest suffices")
        if one.minimal:
            self._require({single.unit for single in one.singles} == set(everything), "a single removal is missing")
        self._check_singles()
        self._check_removals()
        self._check_family()
        self._check_deeper()

    def _check_singles(self) -> None:
        one = self.subgraph
        for single in one.singles:
            name = one.units[single.unit].name
            left = [unit for unit in range(len(one.units)) if unit != single.unit]
            chosen, rest = self._answer(left), self._answer(left, rest=True)
            self._compare(f"the set without {name}", chosen.probability, single.p_set)
            self._compare(f"the rest with {name}", rest.probability, single.p_rest)
            self._check_same(f"the set without {name}", chosen, single.set_same)
            self._check_same(f"the rest with {name}", rest, single.rest_same)
            slacks = (self.tolerance, -self.tolerance)
            failures = {
                _FAILS[not self._sufficient(chosen, first), self._dispensable(rest, second)]
                for first in slacks
                for second in slacks
            }
            said = f"without {name}, {single.fails or 'nothing'!r} is said to fail"
            self._require(single.fails in failures, said)
            if one.minimal:
                short = not self._sufficient(chosen, -self.tolerance)
                self._require(short or self._dispensable(rest, self.tolerance), f"{name} can be left out")

    def _check_removals(self) -> None:
        everything = range(len(self.subgraph.units))
        for one in self.subgraph.removals:
            chosen, rest = self._answer(everything, one.removal), self._answer(everything, one.removal, rest=True)
            none = self._answer((), one.removal)
            stated = (one.p_set, one.p_rest, one.p_none)
            for what, answer, number in zip(("the set", "the rest", "nothing"), (chosen, rest, none), stated):
                self._compare(f"{what} under removal {one.removal!r}", answer.probability, number)
            self._check_same(f"the set under removal {one.removal!r}", chosen, one.set_same)
            self._check_same(f"the rest under removal {one.removal!r}", rest, one.rest_same)
            stands = self._sufficient(chosen, self.tolerance) and not self._dispensable(rest, -self.tolerance)
            fails = not self._sufficient(chosen, -self.tolerance) or self._dispensable(rest, self.tolerance)
            self._require(stands if one.stands else fails, f"removal {one.removal!r}: stands is {one.stands}")

    def _check_family(self) -> None:
        for number, member in enumerate(self.subgraph.family_members):
            if member.edges:
                numbers = [self._number(place) for place in member.edges]
                sets = [Edges.of(numbers, rest=rest) for rest in (False, True)]
                chosen, rest = self.forward.run([Candidate(one) for one in sets], self.subgraph.removal)
                self._compare(f"set {number} of the family", chosen.probability, member.p_set)
                self._compare(f"the rest of set {number} of the family", rest.probability, member.p_rest)
                good = self._sufficient(chosen, self.tolerance) and not self._dispensable(rest, -self.tolerance)
                self._require(good, f"set {number} of the family does not carry the prediction")

    def _check_deeper(self) -> None:
        deeper, size = self.subgraph.deeper, len(self.subgraph.units)
        if deeper is None:
            return
        pairs, subsets, complete = deeper_subsets(size, int(self.subgraph.info.get("seed", 0)))
        stated_removals = (deeper.pairs, deeper.all_pairs, deeper.subsets)
        self._equal("the removals of several units", stated_removals, (len(pairs), complete, len(subsets)))
        for name, groups, stated in (("pairs", pairs, deeper.free_pairs), ("subsets", subsets, deeper.free_subsets)):
            free = [0, 0]
            for group in groups:
                left = [unit for unit in range(size) if unit not in group]
                chosen, rest = self._answer(left), self._answer(left, rest=True)
                for i, slack in enumerate((-self.tolerance, self.tolerance)):
                    free[i] += self._sufficient(chosen, slack) and not self._dispensable(rest, -slack)
            self._require(free[0] <= stated <= free[1], f"{stated} {name} can be left out, not {free[0]} to {free[1]}")

    # --- one restriction ---------------------------------------------------------------------------------------

    def _answer(self, units: Collection[int], removal: str = "", *, rest: bool = False) -> Answer:
        selection = _Selection([self.subgraph.units[unit] for unit in units], rest)
        return self.forward.run([Candidate(selection)], removal or self.subgraph.removal)[0]

    def _number(self, place: Place) -> int:
        call, head, query, key = place
        return self.forward.edges.calls[call].number(head, query, key)

    def _sufficient(self, answer: Answer, slack: float) -> bool:
        enough = answer.probability >= self.subgraph.keep * self.forward.whole.probability - slack
        return (answer.same or answer.margin > -max(slack, 0.0)) and enough

    def _dispensable(self, rest: Answer, slack: float) -> bool:
        if self.subgraph.strict:
            return rest.margin > -slack if slack else rest.same
        return self._sufficient(rest, slack)

    def _compare(self, what: str, value: float, stated: float | None) -> None:
        if stated is not None:
            self.difference = max(self.difference, abs(value - stated))
        self._close(what, value, stated)

    def _close(self, what: str, value: float, stated: float | None) -> None:
        if stated is None:
            self.reasons.append(f"{what}: nothing is stated, {value:.6f} was computed")
            return
        close = abs(value - stated) <= self.tolerance
        self._require(close, f"{what}: {stated:.6f} is stated, {value:.6f} was computed")

    def _equal(self, what: str, stated: object, value: object) -> None:
        self._require(stated == value, f"{what}: {stated!r} is stated, {value!r} was found")

    def _require(self, holds: bool, otherwise: str) -> None:
        self.reasons += [] if holds else [otherwise]


class _Selection:
    """Some units of a subgraph, or all but these, written out weight by weight and head by head."""

    def __init__(self, units: Sequence[AttentionUnit], rest: bool) -> None:
        self.units, self.rest = units, rest

    def kept(self, call: CallEdges, number: int) -> Tensor:
        """See `Selection.kept`."""
        chosen = torch.zeros_like(call.present)
        for unit in self.units:
            if unit.call != number:
                continue
            head, query, key = unit.head, unit.query, unit.key
            if head is not None and query is not None and key is not None:
                chosen.view(-1)[call.number(head, query, key) - call.start] = True
            elif head is not None:
                chosen[:, head] = True
            else:
                chosen[:] = True
        return call.present & (~chosen if self.rest else chosen)


def saved_input(subgraph: AttentionSubgraph) -> EncodedInput:
    """Return the input that a subgraph holds.

    Raises:
        InvalidInputError: it holds none, or its number of tokens is not that of its tensors.
    """
    length = subgraph.info.get("length")
    if not subgraph.inputs or not (length is None or length == len(subgraph.tokens)):
        raise InvalidInputError("token_set: the subgraph does not hold its input, so that nothing can be run again.")
    return _encoded(subgraph.inputs, subgraph)


def _encoded(tensors: Mapping[str, Tensor], subgraph: AttentionSubgraph | None) -> EncodedInput:
    ids = tensors.get("input_ids", tensors.get("inputs_embeds"))
    if subgraph is None:
        return EncodedInput(dict(tensors), None if ids is None else len(ids))
    special = subgraph.info.get("special")
    return EncodedInput(
        dict(tensors),
        subgraph.info.get("length"),
        texts=subgraph.texts,
        tokens=subgraph.tokens or None,
        special=None if special is None else tuple(special),
    )


def as_token_set(subgraph: AttentionSubgraph) -> TokenSet:
    """Return a subgraph whose units are tokens as the `TokenSet` that it is."""
    tokens = [unit.key or 0 for unit in subgraph.units]
    names = [unit.name for unit in subgraph.units]
    return TokenSet(
        tokens=subgraph.tokens,
        texts=subgraph.texts,
        special=tuple(subgraph.info.get("special") or ()),
        indices=tuple(tokens),
        spans=(),
        words=(),
        target=subgraph.target,
        target_name=subgraph.target_name,
        p_all=subgraph.p_all,
        p_set=subgraph.p_set,
        p_rest=subgraph.p_rest,
        p_special=subgraph.p_none,
        rest_same=subgraph.rest_same,
        singles=tuple(
            Removal(tokens[s.unit], names[s.unit], s.p_set, s.p_rest, s.set_same, s.rest_same, s.fails)
            for s in subgraph.singles
        ),
        defined=subgraph.needs_attention,
        minimal=subgraph.minimal,
        keep=subgraph.keep,
        strict=subgraph.strict,
        info=subgraph.info,
    )
