"""What was seen in one attention layer, and what a reader is told about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.record import own_tensor, same_fields


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """What was seen in one attention layer. Tensors are copied to the CPU, so that no larger storage is kept alive.

    Attributes:
        layer: index in the encoder.
        name: module name, such as "bert.encoder.layer.0.attention.self".
        n: real keys.
        head_dim: dimension of a head's values.
        rank: (heads,) integer, rank of the values; below `n` some attention weights cannot be seen in the output.
        difference: (heads,) ||A - A_eff||_F / ||A||_F; None where queries see different keys (causal, sliding window)
            and it was not asked for: every row then has a projector of its own, which costs.
        entropy: (heads,) nats, mean over real queries.
        received: (heads, tokens) attention each token received, mean over real queries.
        received_effective: (heads, tokens) the same of effective attention, signed; None where difference is.
        support: (heads,) mean support of efficient attention; None unless asked for.

    Raises:
        InvalidInputError: where shapes disagree; the message names the field.
    """

    layer: int
    name: str
    n: int
    head_dim: int
    rank: Tensor
    difference: Tensor | None
    entropy: Tensor
    received: Tensor
    received_effective: Tensor | None
    support: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("layer", "n", "head_dim"):
            object.__setattr__(self, name, int(getattr(self, name)))
        for name in ("rank", "difference", "entropy", "received", "received_effective", "support"):
            own_tensor(self, name, optional=name in ("support", "difference", "received_effective"))
        if self.rank.dim() != 1 or self.rank.is_floating_point():
            raise InvalidInputError(
                f"rank must be integers of shape (heads,), got {self.rank.dtype} {tuple(self.rank.shape)}"
            )
        if self.received.dim() != 2:
            raise InvalidInputError(f"received must have shape (heads, tokens), got {tuple(self.received.shape)}")
        heads, tokens = self.rank.shape[0], self.received.shape[1]
        shapes = dict.fromkeys(("difference", "entropy", "support"), (heads,))
        for name, shape in {**shapes, "received": (heads, tokens), "received_effective": (heads, tokens)}.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise InvalidInputError(
                    f"{name} must have shape {shape} to agree with rank and received, got {tuple(value.shape)}"
                )

    def __eq__(self, other: object) -> bool:
        return same_fields(self, other) if isinstance(other, LayerAttention) else NotImplemented

    def __repr__(self) -> str:
        return f"LayerAttention(layer={self.layer}, name={self.name!r}, n={self.n}, heads={len(self.rank)})"


def identifiability(layers: Sequence[LayerAttention]) -> str:
    """Return one sentence: whether the outputs determine the attention weights, from n, head_dim and the ranks.

    A head's output is A V. Where the values V (n, head_dim) have rank n, only one A gives this output and effective
    attention is attention; below, part of A leaves no trace in the output.

    Example:
        >>> import torch
        >>> ones = torch.ones(1, 2)
        >>> identifiability([LayerAttention(0, "0", 2, 4, torch.tensor([2]), ones[:, 0] * 0, ones[:, 0], ones, ones)])
        'n = 2 tokens <= rank 2 in every head (head_dim 4): effective attention equals attention here.'
    """
    n = _span([layer.n for layer in layers])
    dim = _span([layer.head_dim for layer in layers])
    rank = _span([int(x) for layer in layers for x in layer.rank.tolist()])
    heads = sum(len(layer.rank) for layer in layers)
    hidden = sum(int((layer.rank < layer.n).sum()) for layer in layers)
    if hidden == 0:
        return (
            f"n = {n} tokens <= rank {rank} in every head (head_dim {dim}): effective attention equals attention here."
        )
    known = [x for layer in layers if layer.difference is not None for x in layer.difference.tolist()]
    sentence = (
        f"n = {n} tokens > rank in {hidden} of {heads} heads (rank {rank}, head_dim {dim}): part of their attention "
        "leaves no trace in the output"
    )
    if not known:
        return f"{sentence}; how much was not computed (queries see different keys; method='effective' computes it)."
    share = f"{sum(known) / len(known):.1%} of the norm on average, {max(known):.1%} at most"
    where = "" if len(known) == heads else f" in the {len(known)} heads where it was computed"
    return f"{sentence}; effective attention differs by {share}{where}."


def layer_rows(layers: Sequence[LayerAttention]) -> list[list[str]]:
    """Return a table as strings, its header first, a row for each layer: mean and range over the heads.

    Example:
        >>> layer_rows([])
        []
    """
    if not layers:
        return []
    with_support = any(layer.support is not None for layer in layers)
    header = ["layer", "name", "n", "head_dim", "rank", "difference (mean, max)", "entropy (mean, range), nats"]
    rows = [[*header, "support (mean)"] if with_support else header]
    for layer in layers:
        difference, entropy = layer.difference, layer.entropy.double()
        row = [
            str(layer.layer),
            layer.name,
            str(layer.n),
            str(layer.head_dim),
            _span([int(x) for x in layer.rank.tolist()]),
            "" if difference is None else f"{float(difference.double().mean()):.3g}, {float(difference.max()):.3g}",
            f"{float(entropy.mean()):.3g}, {float(entropy.min()):.3g} to {float(entropy.max()):.3g}",
        ]
        if with_support:
            row.append("" if layer.support is None else f"{float(layer.support.double().mean()):.3g}")
        rows.append(row)
    return rows


def _span(values: Sequence[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"
