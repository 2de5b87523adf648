"""Several sets of attention weights that carry the same prediction, and what they have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

T = TypeVar("T")
Place = tuple[int, int, int, int]  # number of the attention call, head, query, key


@dataclass(frozen=True)
class FamilyMember:
    """A set that was found by another ranking or with forbidden weights.

    Attributes:
        ranking: the ranking of the weights.
        forbidden: number of weights, those of the sets found before, that this set was not allowed to have.
        edges: its weights; () if no set was found.
        p_set, p_rest: probability of the class with the set, and with all other weights; None without a set.
        group_size: as in `AttentionSubgraph`.
        sequences: restricted sequences that were run.
        forwards: their cost in forward passes of the whole input.
        reason: why there is no set, or why it may not be minimal.
    """

    ranking: str
    forbidden: int
    edges: tuple[Place, ...]
    p_set: float | None
    p_rest: float | None
    group_size: int
    sequences: int
    forwards: float
    reason: str = ""


@dataclass(frozen=True)
class AttentionFamily:
    """The common parts of several sets. A statement about a weight is made from its membership in all of them.

    Attributes:
        sets: the weights of each set that was found.

    Example:
        >>> family = AttentionFamily((((0, 1, 0, 2), (1, 0, 0, 3)), ((0, 1, 0, 2), (1, 3, 0, 3))))
        >>> family.core, family.pairs[0, 3], family.jaccard["heads"]
        (((0, 1, 0, 2),), 1.0, (0.3333333333333333,))
    """

    sets: tuple[tuple[Place, ...], ...]

    @property
    def edges(self) -> dict[Place, float]:
        """Share of the sets that contain this weight, the most frequent first."""
        return _frequency([set(edges) for edges in self.sets])

    @property
    def heads(self) -> dict[tuple[int, int], float]:
        """Share of the sets with a weight in this head: (number of the attention call, head)."""
        return _frequency(self._heads)

    @property
    def pairs(self) -> dict[tuple[int, int], float]:
        """Share of the sets with a weight of this token pair, (query, key), in any head."""
        return _frequency(self._pairs)

    @property
    def core(self) -> tuple[Place, ...]:
        """The weights that are in every set."""
        return tuple(sorted(set(self.sets[0]).intersection(*self.sets))) if self.sets else ()

    @property
    def jaccard(self) -> dict[str, tuple[float, ...]]:
        """Jaccard index of each pair of sets: on "edges", "heads" and "pairs" of tokens."""
        return {
            "edges": _jaccard([set(edges) for edges in self.sets]),
            "heads": _jaccard(self._heads),
            "pairs": _jaccard(self._pairs),
        }

    @property
    def _heads(self) -> list[set[tuple[int, int]]]:
        return [{(call, head) for call, head, _, _ in edges} for edges in self.sets]

    @property
    def _pairs(self) -> list[set[tuple[int, int]]]:
        return [{(query, key) for _, _, query, key in edges} for edges in self.sets]


def _frequency(groups: Sequence[set[T]]) -> dict[T, float]:
    counts = Counter(item for group in groups for item in group)
    return {item: count / len(groups) for item, count in counts.most_common()}


def _jaccard(groups: Sequence[set[T]]) -> tuple[float, ...]:
    return tuple(len(a & b) / len(a | b) for a, b in combinations(groups, 2))
