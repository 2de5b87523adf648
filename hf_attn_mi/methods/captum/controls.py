"""Baselines without Captum: chance, and the norms of value-weighted attention."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture import AttentionCall, capture_attention, unwrap
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods.captum.base import Aim, Options, TokenScores


def random(
    model: nn.Module, arguments: dict[str, Any], aim: Aim, special: Tensor, real: Tensor, options: Options
) -> TokenScores:
    """Uniform draws from [0, 1), no forward pass: what every method has to beat.

    The draws depend on the seed and on the input itself: the same in any batch, others for another text. For the
    arguments see `BASELINES`.
    """
    main = next(value for key in ("input_ids", "inputs_embeds", "inputs") if (value := arguments.get(key)) is not None)
    scores = torch.zeros(real.shape)
    for i, keep in enumerate(real.cpu()):
        content = main[i].detach().cpu()[keep].double().numpy().tobytes()
        generator = torch.Generator().manual_seed(zlib.crc32(content, options.seed))  # it reads 32 bits
        scores[i, keep] = torch.rand(int(keep.sum()), generator=generator)
    return TokenScores(scores)


def value_norms(
    model: nn.Module, arguments: dict[str, Any], aim: Aim, special: Tensor, real: Tensor, options: Options
) -> TokenScores:
    """Norm of what each token contributes to the output of attention, ||sum_h a_ij^h f_h(x_j)||, received.

    Kobayashi et al., arXiv 2004.10102: f_h(x_j) = v_j^h W_O^h, heads added before the norm; mean over the real
    queries i and over layers. One forward pass. For the arguments see `BASELINES`.

    Raises:
        InvalidInputError: no attention over the input's own tokens.
        UnsupportedModelError: the attention has no linear output map W_O, or cannot be captured.
    """
    found: list[Tensor] = []
    inner, keep = unwrap(model), real.bool()

    def receive(call: AttentionCall) -> None:
        same = (call.output.shape[0], call.output.shape[2], call.value.shape[2]) == (*keep.shape, keep.shape[1])
        if same and call.module_name.startswith(prefix):
            found.append(_received(call, keep))

    prefix = _encoder(inner)
    with torch.no_grad(), capture_attention(inner, receive):
        inner(**arguments)
    if not found:
        raise InvalidInputError(
            f"method 'value_norms' needs attention over the input's own tokens, which {type(inner).__name__} does not "
            "compute on this input; use method='relevance'."
        )
    return TokenScores(torch.stack(found).mean(0).float())


def _received(call: AttentionCall, real: Tensor) -> Tensor:
    """(batch, tokens) float64 mean over real queries of ||sum_h a_ij^h f_h(x_j)||."""
    output = call.output_weight
    if output is None:
        raise UnsupportedModelError(
            f"{call.module_name}: its attention is not followed to a linear W_O, so that a token's contribution has no "
            "norm. Use method='attention'."
        )
    rows = call.attention().detach().double()
    real = real.to(rows.device)
    moved = torch.einsum("bhkd,hde->bkhe", call.values_per_head().detach().double(), output.detach().double())
    # ||sum_h a_h f_h||^2 = a^T G a with G = F F^T for each key: nothing of size queries x keys x hidden is formed.
    gram = moved @ moved.transpose(-1, -2)  # (batch, keys, heads, heads)
    squares = torch.einsum("bhqk,bkhg,bgqk->bqk", rows, gram, rows)
    norms = squares.clamp_min(0).sqrt() * real[:, :, None] * real[:, None]
    return (norms.sum(1) / real.sum(1, keepdim=True).clamp_min(1)).cpu()


def _encoder(model: nn.Module) -> str:
    """Start of the names of the modules of an encoder-decoder's encoder; "" for every other model."""
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return ""
    return next((f"{name}." for name, _ in model.named_modules() if name.rpartition(".")[2] == "encoder"), "")
