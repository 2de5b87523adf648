"""The parts of an `AttentionSubgraph`: attention calls, units, and what was run on the set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AttentionModule:
    """One attention call of the whole input.

    Attributes:
        layer: index of the layer within its stack.
        name: dotted name of the module.
        repeat: how many calls of this module came before it in the pass.
        heads, queries, keys: shape of its attention; windows, if any, are counted one after the other.
    """

    layer: int
    name: str
    repeat: int
    heads: int
    queries: int
    keys: int


@dataclass(frozen=True)
class AttentionUnit:
    """A unit that is kept or removed as a whole: an attention weight (edge), a head, a layer, or a token as key.

    Attributes:
        name: a description in words.
        call: index of its attention call in `AttentionSubgraph.attention`; None for tokens.
        layer: index of the layer within its stack; None for tokens.
        head, query, key: indices of an attention weight; None if the unit is larger.
        weight: the attention weight; None for larger units.
        contribution: its score in the ranking. With the ranking by gradients and for the controls: a_ij (g_ij -
            sum_k a_ik g_ik), g the gradient of the explained value.
    """

    name: str
    call: int | None
    layer: int | None
    head: int | None
    query: int | None
    key: int | None
    weight: float | None
    contribution: float


@dataclass(frozen=True)
class UnitRemoval:
    """The effect of moving one unit of the set to the rest.

    Attributes:
        unit: index in `AttentionSubgraph.units`.
        p_set: probability of the class with the set without this unit.
        p_rest: probability with the rest and this unit.
        set_same: whether the set without this unit keeps the prediction.
        rest_same: whether the rest with this unit keeps the prediction.
        fails: "set", "rest" or "both": which condition is broken; "" if the unit can be left out.
    """

    unit: int
    p_set: float | None
    p_rest: float | None
    set_same: bool
    rest_same: bool
    fails: str


@dataclass(frozen=True)
class RemovalCheck:
    """The set under another kind of removal than the one it was found under.

    Attributes:
        removal: "renormalized", "missing", "mean" or "resample".
        p_set, p_rest, p_none: probability with the set, with the rest, and without any attention weight.
        set_same, rest_same: whether the prediction is kept.
        stands: whether the set suffices and the rest does not, by the same rule.
    """

    removal: str
    p_set: float
    p_rest: float
    p_none: float
    set_same: bool
    rest_same: bool
    stands: bool


@dataclass(frozen=True)
class DeeperRemovals:
    """Removals of more than one unit from the set.

    Attributes:
        pairs: the pairs that were removed.
        free_pairs: those of these pairs without which both conditions still hold.
        all_pairs: whether these are all pairs of the set.
        subsets: random subsets of two units or more that were removed.
        free_subsets: those of these subsets without which both conditions still hold.
    """

    pairs: int
    free_pairs: int
    all_pairs: bool
    subsets: int
    free_subsets: int
