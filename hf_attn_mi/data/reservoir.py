"""The states of a bounded random sample of inputs."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

import torch
from torch import Tensor


class Reservoir:
    """A uniform sample of at most `capacity` inputs: those with the smallest of random keys.

    The key of an input depends only on `seed` and its number, so that the sample does not depend on the batches, and
    whether an input is kept is known before it is run. Rows are assigned in the order of the inputs.

    Args:
        capacity: maximum number of inputs kept.
        shape: (layers, picks, width) of the states of one input.
        classes: number of classes.
        seed: the random seed for the keys.

    Attributes:
        states: (layers, picks, capacity, width) float32.
        present: (layers, picks, capacity) bool: whether the input has such a token.
        outputs: (capacity, classes) float64.

    Example:
        >>> sample = Reservoir(2, (1, 1, 4), 3, seed=0)
        >>> rows = [sample.offer(number) for number in range(9)]
        >>> rows[:2], len(sample.owner), len(set(sample.owner.values()))
        ([0, 1], 2, 2)
    """

    def __init__(self, capacity: int, shape: tuple[int, int, int], classes: int, *, seed: int) -> None:
        layers, picks, width = shape
        # Pages of an empty tensor take no memory until they are written: unused capacity costs nothing.
        self.states = torch.empty(layers, picks, capacity, width)
        self.present = torch.zeros(layers, picks, capacity, dtype=torch.bool)
        self.outputs = torch.zeros(capacity, classes, dtype=torch.float64)
        self.capacity, self.seed = capacity, seed
        self.owner: dict[int, int] = {}  # row -> number of the input
        self._largest: list[tuple[float, int]] = []  # (-key, row)

    def offer(self, number: int) -> int | None:
        """Return the row for this input, which may replace another input; None if the input is not kept."""
        key = random.Random(f"{self.seed} keep {number}").random()
        if len(self.owner) < self.capacity:
            row = len(self.owner)
            heapq.heappush(self._largest, (-key, row))
        elif -key > self._largest[0][0]:
            row = heapq.heapreplace(self._largest, (-key, self._largest[0][1]))[1]
        else:
            return None
        self.owner[row] = number
        return row

    def merged(self, numbers: Sequence[int], parts: Sequence[Reservoir]) -> Reservoir:
        """Return the sample that one process would have kept of the inputs of several.

        The key of an input depends on its number alone, so the sample of all inputs is drawn again, in their order,
        and what each row holds is taken from the part that has it.

        Args:
            numbers: of all inputs that were offered, in any order.
            parts: samples of disjoint inputs, of the same capacity, shape and seed.

        Example:
            >>> shape, parts = (1, 1, 4), [Reservoir(2, (1, 1, 4), 3, seed=0) for _ in range(2)]
            >>> whole = Reservoir(2, shape, 3, seed=0)
            >>> for number in range(9):
            ...     _ = whole.offer(number), parts[number % 2].offer(number)
            >>> parts[0].merged(range(9), parts).owner == whole.owner
            True
        """
        layers, picks, capacity, width = self.states.shape
        together = Reservoir(capacity, (layers, picks, width), self.outputs.shape[1], seed=self.seed)
        for number in sorted(numbers):
            together.offer(number)
        row_of = [{number: row for row, number in part.owner.items()} for part in parts]
        for row, number in together.owner.items():
            place = next(place for place, rows in enumerate(row_of) if number in rows)
            source, there = parts[place], row_of[place][number]
            together.states[:, :, row] = source.states[:, :, there]
            together.present[:, :, row] = source.present[:, :, there]
            together.outputs[row] = source.outputs[there]
        return together

    def put(self, layer: int, rows: list[int], states: Tensor, positions: Tensor) -> None:
        """Store the states of one layer at the picked positions.

        Args:
            layer: index of the layer in the sample.
            rows: row of each input of the batch.
            states: (batch, tokens, width).
            positions: (batch, picks) position of each pick, -1 if the input has none.
        """
        index = positions.to(states.device)
        picked = states[torch.arange(len(rows), device=states.device)[:, None], index.clamp_min(0)]
        self.states[layer][:, rows] = picked.detach().float().cpu().transpose(0, 1)
        self.present[layer][:, rows] = (positions >= 0).t().cpu()
