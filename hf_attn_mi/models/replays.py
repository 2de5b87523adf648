"""`Replays`: the forward passes over variants of some inputs, in batches of a budget of tokens, equal variants once.

Everything that runs a model many times on changed inputs goes through it: Captum's perturbation methods, the metrics of
`compare`, the searches of `minimal_tokens` and `minimal_attention`, and `recheck`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

import torch

from hf_attn_mi.models.memory import out_of_memory

Value = TypeVar("Value")
TOKENS_ON_CPU = 2048  # more in one pass do not make a CPU faster: they leave its caches
TOKENS_ON_ACCELERATOR = 2**17
MOST_ROWS = 256  # sequences in one pass, however short they are
MOST_KNOWN = 2**14  # answers that are kept for later calls


class Replays(Generic[Value]):
    """Runs variants of inputs.

    A variant is named by a key: variants with equal keys have equal answers, and are run once, also in later calls. The
    last `MOST_KNOWN` answers are kept.

    Args:
        device: where the model runs; it decides the budget of tokens.
        rows: the maximum number of variants in one pass; None for as many as the budget holds.

    Attributes:
        rows: as above; halved where memory runs out.
        tokens: the maximum number of tokens in one pass, padding included; a single variant may have more.
        ran_out: whether memory has run out.

    Example:
        >>> replays = Replays(torch.device("cpu"), 2)
        >>> passes = []
        >>> def square(places):
        ...     passes.append(places)
        ...     return [place**2 for place in places]
        >>> replays.run("abcb", [5, 9, 5, 9], square)
        [0, 1, 4, 1]
        >>> passes
        [[0, 2], [1]]
    """

    def __init__(self, device: torch.device, rows: int | None = None) -> None:
        self.rows = MOST_ROWS if rows is None else rows
        self.tokens = TOKENS_ON_CPU if device.type == "cpu" else TOKENS_ON_ACCELERATOR
        self.ran_out = False
        self._known: OrderedDict[Hashable, Value] = OrderedDict()

    def run(
        self,
        keys: Sequence[Hashable],
        lengths: Sequence[int],
        forward: Callable[[list[int]], Sequence[Value]],
        *,
        groups: Sequence[int] | None = None,
        mixed: bool = False,
        most: int | None = None,
    ) -> list[Value]:
        """The answer for each variant, in order.

        Args:
            keys: the name of each variant.
            lengths: its tokens.
            forward: runs the variants at some places in one pass, and returns their answers in this order.
            groups: variants of different groups never share a pass; None for one group.
            mixed: whether variants of different length may share a pass, with padding.
            most: a smaller maximum number of variants in one pass.
        """
        first: dict[Hashable, int] = {}
        for place, key in enumerate(keys):
            if key not in self._known:
                first.setdefault(key, place)
        new, found = list(first.values()), dict[Hashable, Value]()

        def run(some: list[int]) -> None:
            places = [new[i] for i in some]
            found.update(zip((keys[place] for place in places), forward(places), strict=True))

        rows = self.rows if most is None else min(self.rows, most)
        group_of = [0 if groups is None else groups[place] for place in new]
        self.run_batches(list(length_buckets([lengths[i] for i in new], rows, self.tokens, group_of, mixed=mixed)), run)
        answers = [found[key] if key in found else self._known[key] for key in keys]
        self._known.update(found)
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return answers

    @property
    def notes(self) -> list[str]:
        """Remarks for the reader of a result."""
        return [f"Memory ran out: the batches were halved to {self.rows}."] if self.ran_out else []

    def forget(self) -> None:
        """Forget the answers: what is asked about the variants has changed."""
        self._known.clear()

    def rows_of(self, length: int) -> int:
        """How many variants of this length share a pass."""
        return max(1, min(self.rows, self.tokens // max(length, 1)))

    def run_batches(self, batches: Sequence[list[int]], run: Callable[[list[int]], None]) -> None:
        """Run every batch; where memory runs out, this batch and all later ones are cut to half of its size.

        Args:
            batches: the places of the variants of each batch.
            run: called with the places of one batch.
        """
        queue = [list(batch) for batch in batches]
        while queue:
            places = queue.pop(0)
            if len(places) > self.rows and self.ran_out:
                queue[:0] = [places[i : i + self.rows] for i in range(0, len(places), self.rows)]
                continue
            try:
                run(places)
                continue
            except RuntimeError as error:
                if not out_of_memory(error) or len(places) == 1:
                    raise
            # Outside `except`, where the error no longer holds the tensors of the failed pass.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.rows, self.ran_out = len(places) // 2, True
            queue.insert(0, places)


def length_buckets(
    lengths: Sequence[int],
    size: int,
    tokens: int | None = None,
    groups: Sequence[int] | None = None,
    *,
    mixed: bool,
) -> Iterator[list[int]]:
    """Positions of sequences that share a forward: of one length, or (`mixed`) little longer than the shortest.

    Args:
        lengths: the lengths of the sequences.
        size: maximum number of sequences in one batch.
        tokens: maximum number of tokens in one batch, padding included; a longer sequence is a batch of its own.
        groups: the group of each sequence; a batch holds one group.
        mixed: whether lengths may differ, with padding on the right.

    Example:
        >>> list(length_buckets([4, 8, 4, 9], 8, tokens=20, mixed=True))
        [[0, 2], [1, 3]]
    """
    group = [0] * len(lengths) if groups is None else groups
    bucket: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (group[i], lengths[i])):
        if bucket:
            longest = 1.25 * lengths[bucket[0]] + 4 if mixed else lengths[bucket[0]]
            full = len(bucket) == size or (tokens is not None and (len(bucket) + 1) * lengths[i] > tokens)
            if full or lengths[i] > longest or group[i] != group[bucket[0]]:
                yield bucket
                bucket = []
        bucket.append(i)
    if bucket:
        yield bucket
