"""The result of `minimal_attention`: attention weights that carry a prediction, and numbers to run again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.attention_family import AttentionFamily, FamilyMember, Place
from hf_attn_mi.results.attention_parts import (
    AttentionModule,
    AttentionUnit,
    DeeperRemovals,
    RemovalCheck,
    UnitRemoval,
)
from hf_attn_mi.results.document import Block, Facts, Paragraph, Table, Tone
from hf_attn_mi.results.outcome import DOES_NOT_HOLD, HOLDS, NOTHING_TO_CERTIFY, Outcome, check_probabilities
from hf_attn_mi.results.plots.sets import subgraph_plots
from hf_attn_mi.results.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LISTED = 10  # layers, token pairs and units that the text lists
_EDGE = "edge"
_NOUNS = {_EDGE: "attention weights", "head": "heads", "layer": "layers", "token": "tokens"}
_FAILURES = {
    "set": "the set no longer suffices",
    "rest": "the rest suffices",
    "both": "both fail",
    "": "it can be left out",
}


@dataclass(frozen=True, eq=False, repr=False)
class AttentionSubgraph(Record):
    """Attention weights that carry a prediction: they suffice, the rest does not, and none can be removed.

    Every row of every head is restricted to the weights of the set and computed anew in every layer. The set is locally
    minimal: no single unit can be removed. It is neither the smallest nor the only one; `family` says what several
    sets have in common. Everything is checked by running the model; `recheck` runs it again from the saved record
    alone. `to_pandas` has a row for each unit.

    Attributes:
        tokens: the tokenizer's strings; () if the model makes its own tokens.
        texts: the original texts; () when the input was tensors.
        unit: what is removed as one: "edge" (an attention weight), "head", "layer" or "token" (as key).
        units: the units of the set, in the order of the model; () if there is no set.
        unit_count: number of units of the whole model.
        attention: the attention calls of the model.
        edge_count: attention weights above zero.
        target: index of the class; None if the target has none.
        target_name: its name.
        p_all, p_set, p_rest, p_none: probability of the class with all weights, with the set, with all others, and
            without any; None if it was not run.
        rest_same: whether the rest keeps the prediction.
        needs_attention: False if the model without any attention weight (for tokens: with the special tokens
            alone) keeps the prediction and enough of the probability: then there is nothing to find.
        singles: one for each unit of the set whose removal was run; all of them where `minimal`.
        group_size: 1 where every single removal broke a condition; more where only groups of so many units were
            removed; 0 if it is not known.
        keep: share of `p_all` that the set has to keep.
        strict: whether the rest has to change the prediction; else it only must not suffice.
        removal: the kind of removal that the set was found under.
        removals: the set under other kinds.
        deeper: removals of pairs and random subsets; None if they were not requested.
        family_members: sets that were found in other ways.
        prefix: length of the prefix of the ranking from which units were dropped.
        sequences: restricted sequences that the search ran; those of `family_members`, `removals` and `deeper` are not
            in it.
        forwards: its cost, with the ranking and shared states, in forward passes of the whole input.
        single_sequences, single_forwards: the part of both that the single removals of this very set cost.
        seconds: wall-clock time.
        inputs: the model's arguments for the input.
        reference: the arguments for the other input, for the removal "resample"; {} without it.
        reason: why there is no set, or why it may not be minimal; "" otherwise.
        info: how it was computed, JSON-like.

    Raises:
        InvalidInputError: fields that do not fit together.
    """

    TYPE: ClassVar[str] = "hf_attn_mi.AttentionSubgraph"
    NOUN: ClassVar[str] = "attention subgraph"
    IGNORED: ClassVar[frozenset[str]] = frozenset({"outcome", "holds", "minimal", "check"})

    tokens: tuple[str, ...]
    texts: tuple[str, ...]
    unit: str
    units: tuple[AttentionUnit, ...]
    unit_count: int
    attention: tuple[AttentionModule, ...]
    edge_count: int
    target: int | None
    target_name: str
    p_all: float
    p_set: float | None
    p_rest: float | None
    p_none: float | None
    rest_same: bool | None
    needs_attention: bool
    singles: tuple[UnitRemoval, ...]
    group_size: int
    keep: float
    strict: bool
    removal: str = "renormalized"
    removals: tuple[RemovalCheck, ...] = ()
    deeper: DeeperRemovals | None = None
    family_members: tuple[FamilyMember, ...] = ()
    prefix: int = 0
    sequences: int = 0
    forwards: float = 0.0
    single_sequences: int = 0
    single_forwards: float = 0.0
    seconds: float = 0.0
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    reference: Mapping[str, Tensor] = field(default_factory=dict)
    reason: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def minimal(self) -> bool:
        """Whether every single removal was run and broke one of the two conditions."""
        return bool(self.units) and self.group_size == 1

    @property
    def edges(self) -> tuple[AttentionUnit, ...]:
        """The attention weights of the set; () if its units are larger."""
        return tuple(unit for unit in self.units if unit.query is not None)

    @property
    def outcome(self) -> Outcome:
        """The outcome of the search.

        "holds": there is a set, and it is locally minimal. "does not hold": none was found, or minimality was
        not shown. "nothing to certify": the model needs no attention for this prediction.
        """
        if not self.needs_attention:
            return NOTHING_TO_CERTIFY
        return HOLDS if self.minimal else DOES_NOT_HOLD

    @property
    def holds(self) -> bool:
        """Whether `outcome` is "holds"."""
        return self.outcome == HOLDS

    @property
    def places(self) -> tuple[Place, ...]:
        """(number of the attention call, head, query, key) of each weight of the set."""
        return tuple((e.call, e.head, e.query, e.key) for e in self.edges)  # type: ignore[misc]

    @property
    def family(self) -> AttentionFamily:
        """The common parts of this set and those of `family_members`."""
        return AttentionFamily(tuple(filter(None, [self.places, *(one.edges for one in self.family_members)])))

    def _check(self) -> None:
        if unknown := {removal.fails for removal in self.singles} - _FAILURES.keys():
            raise InvalidInputError(f"singles: fails is one of {', '.join(map(repr, _FAILURES))}, not {unknown}")
        if any(not 0 <= one.unit < len(self.units) for one in self.singles):
            raise InvalidInputError(f"singles: unit must be an index of the {len(self.units)} units")
        if self.units and self.needs_attention:
            sides = (self.p_all, self.p_set, self.p_rest, self.rest_same)
            check_probabilities(*sides, (), keep=self.keep, strict=self.strict)
        if self.unit not in _NOUNS:
            raise InvalidInputError(f"unit must be one of {', '.join(map(repr, _NOUNS))}, not {self.unit!r}")
        if len({one.unit for one in self.singles}) < len(self.singles):
            raise InvalidInputError("singles: a unit occurs twice")
        places = [(one.call, one.head, one.query, one.key) for one in self.units if one.call is not None]
        for place in (*places, *(edge for member in self.family_members for edge in member.edges)):
            self._check_place(*place)
        edges = [None not in (one.call, one.head, one.query, one.key) for one in self.units]
        if edges != [self.unit == _EDGE] * len(edges):
            raise InvalidInputError(
                f"units: a place of call, head, query and key goes with unit {_EDGE!r}, and only there"
            )

    def _check_place(self, call: int | None, head: int | None, query: int | None, key: int | None) -> None:
        if call is None or not 0 <= call < len(self.attention):
            raise InvalidInputError(f"units: call must be an index of the {len(self.attention)} attention calls")
        module = self.attention[call]
        for name, place, size in (
            ("head", head, module.heads),
            ("query", query, module.queries),
            ("key", key, module.keys),
        ):
            if place is not None and not 0 <= place < size:
                raise InvalidInputError(f"units: {name} {place} is not there; {module.name} has {size}")

    def _computed(self) -> dict[str, Any]:
        return {"outcome": self.outcome, "holds": self.holds, "minimal": self.minimal}

    def _plots(self) -> dict[str, Callable[[Axes | None], Figure]]:
        return subgraph_plots(self)

    def _columns(self) -> dict[str, list[Any]]:
        removals = {removal.unit: removal for removal in self.singles}
        columns = ("name", "call", "layer", "head", "query", "key", "weight", "contribution")
        numbers = {
            name: [getattr(removals.get(i), name, None) for i in range(len(self.units))]
            for name in ("p_set", "p_rest", "fails")
        }
        return {**{name: [getattr(unit, name) for unit in self.units] for name in columns}, **numbers}

    def _summary(self) -> dict[str, object]:
        return {
            "target_name": self.target_name,
            "unit": self.unit,
            "units": f"{len(self.units)} of {self.unit_count}",
            "outcome": self.outcome,
        }

    # --- what is shown -----------------------------------------------------------------------------------------

    def _blocks(self) -> list[Block]:
        tones: dict[Outcome, Tone] = {"holds": "good", "does not hold": "bad", "nothing to certify": "neutral"}
        tone = tones[self.outcome]
        if not self.needs_attention:
            return [Paragraph(f"Nothing to certify: {self.target_name!r} needs no attention. {self.reason}", tone)]
        if not self.units:
            return [Paragraph(f"No set was found for {self.target_name!r}. {self.reason}", tone)]
        kind = "holds: locally minimal" if self.minimal else "does not hold: not shown to be minimal"
        verb = "carries" if len(self.units) == 1 else "carry"
        headline = f"{len(self.units):,} of {self.unit_count:,} {self._noun} {verb} {self.target_name!r} ({kind})."
        lines = [
            f"Probability of {self.target_name!r}: {self.p_all:.4f} with all {self._noun}, "
            f"{_number(self.p_set)} with the set alone, {_number(self.p_rest)} with all others (the rest), "
            f"{_number(self.p_none)} {self._nothing}.",
            f"The set alone keeps the prediction and at least {self.keep:g} of the probability; the rest alone "
            f"{'changes the prediction' if self.strict else 'does not suffice'}.",
            *(self._where() if self.edges else [f"The set: {_listed([unit.name for unit in self.units])}."]),
            *self._checks(),
            f"Found in {self.sequences:,} restricted sequences, at the cost of {self.forwards:.0f} forward passes of "
            f"the whole input ({self.single_forwards:.0f} of them for the single removals), in {self.seconds:.1f} s.",
        ]
        rows = [
            [
                self.units[one.unit].name,
                _number(self.units[one.unit].weight),
                _number(one.p_set),
                _number(one.p_rest),
                _FAILURES[one.fails],
            ]
            for one in sorted(self.singles, key=lambda one: -self.units[one.unit].contribution)
        ]
        header = ("without", "weight", "probability with the set", "with the rest", "what fails")
        return [
            Paragraph(headline, tone),
            Facts(lines + [self.reason] * bool(self.reason)),
            Table(header, rows, title="Single removals", folded=True),
        ]

    @property
    def _noun(self) -> str:
        return _NOUNS[self.unit]

    @property
    def _nothing(self) -> str:
        return "with the special tokens alone" if self.unit == "token" else "without any attention"

    def _where(self) -> list[str]:
        """The heads, layers and token pairs of the weights."""
        if len(self.edges) == 1:
            (edge,) = self.edges
            pair = f"{self._token(edge, 'query')} <- {self._token(edge, 'key')}"
            return [f"It lies in {self._layer_name(edge.call or 0)}, head {edge.head}, query <- key: {pair}."]
        heads = Counter((edge.call, edge.head) for edge in self.edges)
        layers: dict[int, list[str]] = {}
        for (call, head), count in sorted(heads.items(), key=lambda item: -item[1]):
            layers.setdefault(call or 0, []).append(f"{head}" + (f" ({count})" if count > 1 else ""))
        total = sum(module.heads for module in self.attention)
        names = [
            f"{self._layer_name(call)}: {'head' if len(heads_of_call) == 1 else 'heads'} {', '.join(heads_of_call)}"
            for call, heads_of_call in sorted(layers.items())
        ]
        pairs = Counter((self._token(edge, "query"), self._token(edge, "key")) for edge in self.edges)
        listed = [f"{query} <- {key}" + (f" ({n})" if n > 1 else "") for (query, key), n in pairs.most_common()]
        return [
            f"They lie in {len(heads)} of {total} heads and {len(layers)} of {len(self.attention)} layers, both "
            "counted from 0 (number of weights in brackets, 1 where none is given).",
            *(f"  {name}." for name in names),
            f"Token pairs, query <- key: {_listed(listed)}.",
        ]

    def _layer_name(self, call: int) -> str:
        layers = [module.layer for module in self.attention]
        module = self.attention[call]
        return f"layer {module.layer}" if len(set(layers)) == len(layers) else f"layer {module.layer} ({module.name})"

    def _token(self, edge: AttentionUnit, end: str) -> str:
        place, module = getattr(edge, end), self.attention[edge.call or 0]
        size = module.queries if end == "query" else module.keys
        return repr(self.tokens[place]) if size == len(self.tokens) else f"{end} {place}"

    def _checks(self) -> list[str]:
        lines = []
        if self.singles:
            counts = Counter(_FAILURES[one.fails] for one in self.singles)
            listed = ", ".join(f"{what} ({count})" for what, count in counts.most_common())
            alone = len(self.singles) == 1
            lines.append(
                f"Without it: {next(iter(counts))}."
                if alone
                else f"Without any single one of {len(self.singles)}: {listed}."
            )
        for one in self.removals:
            stands = "the set still meets the conditions" if one.stands else "the set no longer meets the conditions"
            lines.append(
                f"Removal {one.removal!r}: set {one.p_set:.4f}, rest {one.p_rest:.4f}, {self._nothing} "
                f"{one.p_none:.4f}: {stands}."
            )
        if self.deeper is not None:
            which = "all" if self.deeper.all_pairs else "random"
            lines.append(
                f"Removed together: {self.deeper.pairs} pairs ({which}), {self.deeper.free_pairs} of them can be "
                "left out; "
                f"{self.deeper.subsets} random subsets, {self.deeper.free_subsets} can be left out."
            )
        if self.family_members:
            family = self.family
            jaccard = family.jaccard
            means = ", ".join(f"{sum(v) / len(v):.2f} on {name}" for name, v in jaccard.items() if v)
            lines.append(
                f"{len(family.sets)} sets were found in {1 + len(self.family_members)} ways: {len(family.core)} "
                f"weights are in all of them" + (f"; mean Jaccard index {means}." if means else ".")
            )
        else:
            search = " others=2 (--others 2) searches further ones." if self.unit == _EDGE else ""
            lines.append(
                f"This is one set: others, with few {self._noun} in common, may carry the prediction too.{search}"
            )
        return lines


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
