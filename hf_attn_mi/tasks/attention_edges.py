"""The attention weights of one input as numbered edges, sets of them, and the rows after removal of some."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError

MOST_EDGES = 2**31


@dataclass(frozen=True, eq=False)
class CallEdges:
    """The edges of one attention call of the whole input.

    Attributes:
        layer, module_name: as in `AttentionCall`.
        repeat: how many calls of this module came before it in the pass.
        stack_layer: position of its layer in the model's only stack of layers; 0 if there is none.
        start: number of its first edge.
        present: (windows, heads, queries, keys) bool: the weight is above zero. `windows` is 1 except where the model
            folds windows into the batch.
        sums: whether its rows sum to something else than one, so that new rows have to keep the sums.
    """

    layer: int
    module_name: str
    repeat: int
    stack_layer: int
    start: int
    present: Tensor
    sums: bool

    @property
    def stop(self) -> int:
        """Number after its last edge."""
        return self.start + self.present.numel()

    @property
    def key(self) -> tuple[str, int]:
        """Module and repeat, by which a later pass finds it."""
        return self.module_name, self.repeat

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.present.shape[1]

    def place(self, edge: int) -> tuple[int, int, int]:
        """Return (head, query, key) of an edge; in windows, queries and keys are counted window by window."""
        _, heads, queries, keys = self.present.shape
        rest, key = divmod(edge - self.start, keys)
        rest, query = divmod(rest, queries)
        window, head = divmod(rest, heads)
        return head, window * queries + query, window * keys + key

    def number(self, head: int, query: int, key: int) -> int:
        """Return the number of the edge at this place; the inverse of `place`.

        Raises:
            InvalidInputError: there is no such place.
        """
        windows, heads, queries, keys = self.present.shape
        (window, query), (other, key) = divmod(query, queries), divmod(key, keys)
        if not (window == other and 0 <= window < windows and 0 <= head < heads):
            raise InvalidInputError(f"{self.module_name} has no edge (head {head}, query {query}, key {key}).")
        return self.start + ((window * heads + head) * queries + query) * keys + key


class EdgeSpace:
    """All edges of one input.

    Args:
        calls: the attention calls in the order of the pass; their edges have consecutive numbers.

    Raises:
        InvalidInputError: 2**31 edges or more.
    """

    def __init__(self, calls: Sequence[CallEdges]) -> None:
        self.calls = tuple(calls)
        self.places = self.calls[-1].stop
        if self.places >= MOST_EDGES:
            raise InvalidInputError(
                f"inputs: {self.places} attention weights are more than the 2**31 - 1 that can be numbered; cut the "
                "text, or use unit='head'."
            )
        self._starts = [call.start for call in self.calls]

    @cached_property
    def count(self) -> int:
        """Number of edges: weights above zero."""
        return sum(int(call.present.sum()) for call in self.calls)

    @cached_property
    def present(self) -> Tensor:
        """(places,) bool: whether there is an edge, on the CPU."""
        return torch.cat([call.present.flatten().cpu() for call in self.calls])

    def call_of(self, edge: int) -> CallEdges:
        """Return the call of this edge."""
        return self.calls[bisect_right(self._starts, edge) - 1]

    @cached_property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """(number of the call, head) of every head."""
        return tuple((number, head) for number, call in enumerate(self.calls) for head in range(call.heads))


class Selection(Protocol):
    """A set of edges to which the rows of a pass are restricted."""

    def kept(self, call: CallEdges, number: int) -> Tensor:
        """(windows, heads, queries, keys) bool, or broadcastable to it: the edges of this call that stay."""


@dataclass(frozen=True, eq=False)
class Edges:
    """A set of edges, or with `rest` all edges but these.

    Attributes:
        numbers: (edges,) long, ascending, on the CPU.
        rest: whether to take the complement.
    """

    numbers: Tensor
    rest: bool = False

    @classmethod
    def of(cls, numbers: Tensor | Sequence[int], *, rest: bool = False) -> Edges:
        """Return the set of these numbers in any order."""
        return cls(torch.as_tensor(numbers, dtype=torch.long).flatten().sort().values, rest)

    def kept(self, call: CallEdges, number: int) -> Tensor:
        """See `Selection.kept`."""
        ends = torch.searchsorted(self.numbers, torch.tensor([call.start, call.stop])).tolist()
        mask = call.present.clone() if self.rest else torch.zeros_like(call.present)
        if ends[0] < ends[1]:
            mask.view(-1)[(self.numbers[ends[0] : ends[1]] - call.start).to(mask.device)] = not self.rest
        return mask


@dataclass(frozen=True, eq=False)
class Heads:
    """All edges of some heads.

    Attributes:
        heads: (number of the call, head) of each.
    """

    heads: frozenset[tuple[int, int]]

    def kept(self, call: CallEdges, number: int) -> Tensor:
        """See `Selection.kept`."""
        chosen = [(number, head) in self.heads for head in range(call.heads)]
        return call.present & torch.tensor(chosen, device=call.present.device)[None, :, None, None]
