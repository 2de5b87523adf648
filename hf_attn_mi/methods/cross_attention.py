"""Statistics of the attention with which a decoder reads the tokens of the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hf_attn_mi.capture import AttentionCall
from hf_attn_mi.kernels import attention_statistics
from hf_attn_mi.results.layer_attention import CROSS, LayerAttention


@dataclass
class CrossAttention:
    """Consumer of attention calls: queries are the decoder's tokens, keys the input's tokens.

    Args:
        lengths: number of tokens of each input of the batch.
        real: (batch, tokens) bool, True for real tokens.
        encoder: prefix of the encoder's modules.
        decoder_mask: (batch, decoder tokens) that the caller passed; None if every one of them is real.
        shifted: the model derives the decoder's tokens from the input's: as many, and as many real ones.
        effective: compute effective attention, too.

    Attributes:
        layers: for each input one `LayerAttention` a decoder layer.
    """

    lengths: list[int]
    real: Tensor
    encoder: str
    decoder_mask: Tensor | None = None
    shifted: bool = False
    effective: bool = True
    layers: list[list[LayerAttention]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layers = [[] for _ in self.lengths]

    @classmethod
    def of(
        cls, lengths: list[int], real: Tensor, encoder: str, arguments: Mapping[str, Tensor], *, effective: bool
    ) -> CrossAttention | None:
        """The consumer for a batch with these arguments; None for models that are not encoder-decoders."""
        if not encoder:
            return None
        shifted = not any(key in arguments for key in ("decoder_input_ids", "decoder_inputs_embeds"))
        return cls(lengths, real, encoder, arguments.get("decoder_attention_mask"), shifted, effective)

    def takes(self, call: AttentionCall) -> bool:
        """Whether the keys of the call are the input's tokens and its queries the decoder's.

        Where both have the same number, the decoder's attention to itself is known by its causal mask.
        """
        batch, tokens = self.real.shape
        if call.module_name.startswith(f"{self.encoder}.") or call.value.shape[2] != tokens:
            return False
        if call.output.shape[0] != batch or call.is_causal:
            return False
        allowed = call.allowed()
        return bool((allowed == allowed[:, :, :1]).all()) and (tokens > 1 or call.output.shape[2] > 1)

    def __call__(self, call: AttentionCall) -> None:
        """Summarize one attention call that `takes` accepts."""
        with torch.no_grad():
            queries = self._real_queries(call)
            real = self.real.to(call.value.device)
            keys = real & call.allowed()[:, 0].any(1)
            formed = call.rows is not None
            by_keys = call.mask is None or (call.mask.dtype == torch.bool and call.mask.shape[1] == 1)
            value = _wide(call.value)
            assert value is not None
            precise = call.output.dtype in (torch.float32, torch.float64)
            statistics = attention_statistics(
                None if formed else _wide(call.query),
                None if formed else _wide(call.key),
                value,
                call.output.detach() if precise else None,
                rows=_wide(call.rows),
                mask=None if formed or by_keys else _wide(call.mask),
                scale=call.scale,
                key_mask=keys,
                query_mask=queries,
                effective=self.effective,
            )
        null_space, effective = statistics.null_space_fraction, statistics.received_effective
        for b, n in enumerate(self.lengths):
            self.layers[b].append(
                LayerAttention(
                    layer=call.layer,
                    name=call.module_name,
                    n=int(keys[b].sum()),
                    head_dim=call.head_dim,
                    rank=statistics.rank[b],
                    null_space_fraction=None if null_space is None else null_space[b].float(),
                    entropy=statistics.mean_entropy[b].float(),
                    received=statistics.received[b, :, :n].float(),
                    received_effective=None if effective is None else effective[b, :, :n].float(),
                    kind=CROSS,
                )
            )

    def _real_queries(self, call: AttentionCall) -> Tensor:
        """(batch, decoder tokens) bool."""
        batch, count = call.output.shape[0], call.output.shape[2]
        mask = self.decoder_mask
        if mask is None and self.shifted and count == self.real.shape[1]:
            mask = self.real
        if mask is None or tuple(mask.shape) != (batch, count):
            return torch.ones(batch, count, dtype=torch.bool, device=call.output.device)
        return mask.bool().to(call.output.device)


def _wide(tensor: Tensor | None) -> Tensor | None:
    """The tensor in float32 or wider; masks of bool as they are."""
    if tensor is None:
        return None
    tensor = tensor.detach()
    return tensor if tensor.dtype in (torch.bool, torch.float32, torch.float64) else tensor.float()
