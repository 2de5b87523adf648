"""Statistics of the attention in one layer, and a sentence on whether its weights are identifiable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.results.document import Block, Paragraph, Table
from hf_attn_mi.results.plots.heads import draw_heads, draw_received
from hf_attn_mi.results.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SELF, CROSS = "self", "cross"


@dataclass(frozen=True, eq=False, repr=False)
class LayerAttention(Record):
    """Statistics of the attention in one layer, for each head.

    Attributes:
        layer: index in the encoder; of cross-attention in the decoder.
        name: module name, such as "bert.encoder.layer.0.attention.self".
        n: real keys.
        head_dim: dimension of a head's values.
        rank: (heads,) integer, rank of the values; below `n` part of the attention has no effect on the output.
        null_space_fraction: (heads,) ||A - A_eff||_F / ||A||_F, the part of attention that has no effect on the
            output; None if queries see different keys (causal, sliding window) and it was not asked for: every row
            then needs its own projector, which is expensive.
        entropy: (heads,) nats, mean over real queries.
        received: (heads, tokens) attention that each token received, mean over real queries.
        received_effective: (heads, tokens) the same for effective attention, signed; None if `null_space_fraction`
            is.
        support_size: (heads,) mean number of keys with a weight in efficient attention; None unless requested.
        kind: "self", or "cross" where the queries are the tokens of a decoder: means are then over these.

    Raises:
        InvalidInputError: shapes disagree; the message names the field.
    """

    TYPE: ClassVar[str] = "hf_attn_mi.LayerAttention"
    NOUN: ClassVar[str] = "attention layer"

    layer: int
    name: str
    n: int
    head_dim: int
    rank: Tensor
    null_space_fraction: Tensor | None
    entropy: Tensor
    received: Tensor
    received_effective: Tensor | None
    support_size: Tensor | None = None
    kind: str = SELF

    def _check(self) -> None:
        if self.kind not in (SELF, CROSS):
            raise InvalidInputError(f"kind must be {SELF!r} or {CROSS!r}, got {shown(self.kind)}")
        if self.rank.dim() != 1 or self.rank.is_floating_point():
            raise InvalidInputError(
                f"rank must be integers of shape (heads,), got {self.rank.dtype} {tuple(self.rank.shape)}"
            )
        if self.received.dim() != 2:
            raise InvalidInputError(f"received must have shape (heads, tokens), got {tuple(self.received.shape)}")
        heads, tokens = self.rank.shape[0], self.received.shape[1]
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("null_space_fraction", "entropy", "support_size"), (heads,))
        for name, shape in {**shapes, "received": (heads, tokens), "received_effective": (heads, tokens)}.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise InvalidInputError(
                    f"{name} must have shape {shape} to agree with rank and received, got {tuple(value.shape)}"
                )

    def _blocks(self) -> list[Block]:
        return [Paragraph(identifiability([self])), layer_table([self])]

    def _plots(self) -> dict[str, Callable[[Axes | None], Figure]]:
        return {"heads": lambda ax: draw_heads([self], ax), "received": lambda ax: draw_received(self, ax)}

    def _columns(self) -> dict[str, list[Any]]:
        names = ("rank", "null_space_fraction", "entropy", "support_size")
        tensors = {name: values for name in names if (values := getattr(self, name)) is not None}
        heads = len(self.rank)
        fixed: dict[str, list[Any]] = {
            "layer": [self.layer] * heads,
            "name": [self.name] * heads,
            "kind": [self.kind] * heads,
            "head": list(range(heads)),
        }
        return fixed | {name: values.tolist() for name, values in tensors.items()}

    def _summary(self) -> dict[str, object]:
        return {"layer": self.layer, "name": self.name, "n": self.n, "heads": len(self.rank)}


def identifiability(layers: Sequence[LayerAttention]) -> str:
    """Return one sentence: whether the outputs determine the attention weights, from n, head_dim and the ranks.

    A head's output is A V. Where the values V (n, head_dim) have rank n, only one A gives this output and effective
    attention is attention; below, part of A has no effect on the output.

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 2)
        >>> identifiability([LayerAttention(0, "0", 2, 4, torch.tensor([2]), ones[:, 0] * 0, ones[:, 0], ones, ones)])
        'n = 2 tokens <= rank 2 in every head (head_dim 4): effective attention equals attention here.'
    """
    layers = [layer for layer in layers if layer.kind == SELF] or layers
    n = _range([layer.n for layer in layers])
    dim = _range([layer.head_dim for layer in layers])
    rank = _range([int(x) for layer in layers for x in layer.rank.tolist()])
    heads = sum(len(layer.rank) for layer in layers)
    deficient = sum(int((layer.rank < layer.n).sum()) for layer in layers)
    if deficient == 0:
        return (
            f"n = {n} tokens <= rank {rank} in every head (head_dim {dim}): effective attention equals attention here."
        )
    fractions = [
        x for layer in layers if layer.null_space_fraction is not None for x in layer.null_space_fraction.tolist()
    ]
    sentence = (
        f"n = {n} tokens > rank in {deficient} of {heads} heads (rank {rank}, head_dim {dim}): part of their attention "
        "has no effect on the output"
    )
    if not fractions:
        return f"{sentence}; how much was not computed (queries see different keys; method='effective' computes it)."
    share = f"{sum(fractions) / len(fractions):.1%} of the norm on average, {max(fractions):.1%} at most"
    where = "" if len(fractions) == heads else f" in the {len(fractions)} heads where it was computed"
    return f"{sentence}; effective attention differs by {share}{where}."


def layer_table(layers: Sequence[LayerAttention]) -> Table:
    """Return the table of these layers, a row for each: means and ranges over the heads."""
    with_support = any(layer.support_size is not None for layer in layers)
    header = [
        "layer",
        "name",
        "n",
        "head_dim",
        "rank",
        "null-space fraction (mean, max)",
        "entropy (mean, range), nats",
    ]
    rows = []
    for layer in layers:
        fraction, entropy, size = layer.null_space_fraction, layer.entropy.double(), layer.support_size
        row = [
            str(layer.layer) if layer.kind == SELF else f"{layer.layer} ({layer.kind})",
            *map(str, (layer.name, layer.n, layer.head_dim)),
            _range([int(x) for x in layer.rank.tolist()]),
            "" if fraction is None else f"{float(fraction.double().mean()):.3g}, {float(fraction.max()):.3g}",
            f"{float(entropy.mean()):.3g}, {float(entropy.min()):.3g} to {float(entropy.max()):.3g}",
        ]
        support = "" if size is None else f"{float(size.double().mean()):.3g}"
        rows.append(row + [support] * with_support)
    return Table(header + ["support size (mean)"] * with_support, rows)


def _range(values: Sequence[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"
