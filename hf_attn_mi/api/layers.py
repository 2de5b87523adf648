"""What was seen in each attention layer, example by example, while the model runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hf_attn_mi.attention import effective_attention, effective_summary, efficient_attention, received_effective
from hf_attn_mi.capture import AttentionCall
from hf_attn_mi.explanation import LayerAttention


@dataclass(frozen=True, eq=False)
class HeadView:
    """One example of one attention call, without padding at its ends."""

    rows: Tensor  # (heads, n, n) attention, zero for masked keys
    values: Tensor  # (heads, n, head_dim)
    output: Tensor  # (heads, n, head_dim)
    real: Tensor  # (n,) bool: tokens that are not masked
    keys: Tensor  # (n,) bool, or (n, n) where the keys differ by query

    @property
    def by_row(self) -> bool:
        """Whether queries see different keys (causal, sliding window)."""
        return self.keys.dim() == 2


@dataclass
class LayerCollector:
    """Consumer of attention calls: summaries of every layer that attends over the input's own tokens.

    Args:
        lengths: number of tokens of each example of the batch.
        masks: (batch, tokens) bool, True for real tokens.
        encoder: prefix of the modules to keep ("" keeps all), so that a decoder's tokens are not mixed in.
        efficient: also solve efficient attention (costs about a millisecond a row).
        matrices: also keep the head-mean attention of each layer, for rollout.
    """

    lengths: list[int]
    masks: Tensor
    encoder: str = ""
    efficient: bool = False
    matrices: bool = False
    layers: list[list[LayerAttention]] = field(default_factory=list)
    efficient_received: list[list[Tensor]] = field(default_factory=list)
    means: list[list[Tensor]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layers = [[] for _ in self.lengths]
        self.efficient_received = [[] for _ in self.lengths]
        self.means = [[] for _ in self.lengths]

    def __call__(self, call: AttentionCall) -> None:
        """Summarise one attention call."""
        with torch.no_grad():
            if not covers_tokens(call, self.masks, self.encoder):
                self.skipped.append(call.module_name)
                return
            for i, length in enumerate(self.lengths):
                view = head_view(call, i, self.masks[i, :length])
                self.layers[i].append(self._summary(call, view, i))
                if self.matrices:
                    self.means[i].append(view.rows.mean(0).cpu())

    def _summary(self, call: AttentionCall, view: HeadView, i: int) -> LayerAttention:
        real, count = view.real, view.real.sum()
        received = view.rows[:, real].sum(1) / count
        logs = torch.where(view.rows > 0, view.rows.log(), view.rows.new_zeros(()))
        entropy = -(view.rows * logs).sum(-1)[:, real].sum(1) / count
        if view.by_row:
            full = effective_attention(view.rows, view.values, view.keys, query_mask=real)
            rank, difference = full.rank.amax(-1), full.difference
            unseen = full.attention[:, real].sum(1) / count
        else:
            seen = effective_summary(view.rows, view.values, view.keys, real)
            rank, difference = seen.rank, seen.difference
            unseen = received_effective(view.output, view.values, view.keys, real)
            whole = (seen.n <= seen.rank)[:, None]
            unseen = torch.where(whole, received.to(unseen.dtype), unseen)
        support = None
        if self.efficient:
            solved = efficient_attention(view.rows, view.values, view.keys)
            support = solved.support[:, real].double().mean(1).float()
            self.efficient_received[i].append(solved.attention[:, real].sum(1).cpu() / count.cpu())
        return LayerAttention(
            layer=call.layer, name=call.module_name, n=int(count), head_dim=call.head_dim, rank=rank,
            difference=difference.float(), entropy=entropy.float(), received=received.float(),
            received_effective=unseen.float(), support=support,
        )  # fmt: skip


def covers_tokens(call: AttentionCall, masks: Tensor, encoder: str = "") -> bool:
    """Whether queries and keys of the call are the tokens of the batch: no windows, no cross-attention."""
    batch, tokens = masks.shape
    same = call.output.shape[0] == batch and call.output.shape[2] == tokens and call.value.shape[2] == tokens
    return same and (encoder == "" or call.module_name.startswith(encoder + "."))


def head_view(call: AttentionCall, example: int, mask: Tensor) -> HeadView:
    """The rows, values and output of one example, in float32 or wider.

    Args:
        call: an attention call that covers the tokens of the batch.
        example: its place in the batch.
        mask: (n,) bool, True for real tokens; n is the number of tokens without padding.
    """
    n = mask.shape[0]

    def cut(tensor: Tensor | None, *dims: int) -> Tensor | None:
        if tensor is None:
            return None
        tensor = tensor.detach()
        tensor = tensor[example : example + 1] if tensor.shape[0] > 1 else tensor
        for dim in dims:
            tensor = tensor.narrow(dim, 0, n) if tensor.shape[dim] > 1 else tensor
        return tensor if tensor.dtype in (torch.bool, torch.float32, torch.float64) else tensor.float()

    one = replace(
        call, query=cut(call.query, 2), key=cut(call.key, 2), value=cut(call.value, 2), mask=cut(call.mask, 2, 3),
        output=cut(call.output, 2), rows=cut(call.rows, 2, 3), raw_logits=cut(call.raw_logits, 2, 3),
    )  # fmt: skip
    mask = mask.to(one.value.device)
    allowed = one.allowed()[0] & mask
    rows = torch.where(allowed, one.attention()[0], 0.0) * mask[:, None]
    first = allowed[:, mask][:, :1] if allowed.shape[1] > 1 else allowed
    by_row = allowed.shape[1] > 1 and not bool((allowed[:, mask] == first).all())
    by_head = allowed.shape[0] > 1 and not bool((allowed == allowed[:1]).all())
    keys = allowed[0] if by_row else first[0, 0]
    assert not by_head, "heads with different masks"
    return HeadView(rows, one.values_per_head()[0], one.output[0], mask, keys.expand(n, n) if by_row else keys.expand(n))


Consumer = Callable[[AttentionCall], None]
