"""`attention_maps`: the matrices of chosen layers and heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.attention import effective_attention, efficient_attention
from hf_attn_mi.capture import AttentionCall, capture_attention, model_lock
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods.layer_statistics import LayerView, covers_tokens, encoder_prefix, layer_view
from hf_attn_mi.models.batching import real_tokens, stack
from hf_attn_mi.models.encode import read_inputs
from hf_attn_mi.models.loading import device_of, evaluation_mode, model_and_tokenizer

KINDS = ("raw", "effective", "effective_affine", "efficient")


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention matrices of one input.

    Attributes:
        kind: "raw", "effective", "effective_affine" or "efficient".
        tokens: the tokens, which are both queries and keys.
        layers: layer index of each matrix.
        names: module name of each matrix.
        heads: the heads that were kept, in order.
        matrices: one (heads, tokens, tokens) tensor for each layer.
        residual: one (heads, tokens) tensor for each layer: ||new row V - output|| / ||output||.
        support: one (heads, tokens) tensor for each layer: keys with a weight that is not zero.
    """

    kind: str
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    names: tuple[str, ...]
    heads: tuple[int, ...]
    matrices: tuple[Tensor, ...]
    residual: tuple[Tensor, ...]
    support: tuple[Tensor, ...]

    def __getitem__(self, layer: int) -> Tensor:
        """The (heads, tokens, tokens) matrices of the layer with this index."""
        return self.matrices[self.layers.index(layer)]


def attention_maps(
    model: Any,
    inputs: Any,
    *,
    tokenizer: Any = None,
    kind: str = "efficient",
    layers: list[int] | None = None,
    heads: list[int] | None = None,
) -> AttentionMaps | list[AttentionMaps]:
    """Attention matrices (heads, tokens, tokens) of chosen layers and heads.

    Args:
        model: as in `explain`; plain encoders without a head are welcome.
        inputs: as in `explain`.
        tokenizer: as in `explain`.
        kind: "raw"; "effective" (A projected on the column space of the values, arXiv 1908.04211);
            "effective_affine" (the same with rows that sum to one); "efficient" (the vertex of all rows with the
            same output that keeps most of the model's own attention; about a millisecond a row).
        layers: layer indices, None for all.
        heads: head indices, None for all.

    Returns:
        One `AttentionMaps` for one input, a list for a list.

    Raises:
        InvalidInputError: unknown kind, a layer or head that is not there, or inputs as in `explain`.
        UnsupportedModelError: the attention cannot be captured exactly, or is not over the input's own tokens.
    """
    if kind not in KINDS:
        raise InvalidInputError(f"kind {kind!r} is not known; allowed are {', '.join(KINDS)}.")
    _check_numbers("layers", layers)
    _check_numbers("heads", heads)
    inner, tokenizer = model_and_tokenizer(model, tokenizer)
    examples, tokenizer, single = read_inputs(inputs, inner, tokenizer, False)
    if examples[0].length is None:
        raise InvalidInputError(
            f"inputs has {', '.join(examples[0].tensors)}, but attention maps are for token sequences; use "
            "capture_attention for images and audio."
        )
    results: list[AttentionMaps] = []
    for example in examples:
        found = _watch(inner, stack([example], 0, device_of(inner)), layers, heads)
        tokens = example.tokens or tuple(f"token {i}" for i in range(int(example.length or 0)))
        results.append(_maps(kind, tokens, found, heads))
    return results[0] if single else results


def _watch(
    model: nn.Module, batch: dict[str, Tensor], layers: list[int] | None, heads: list[int] | None
) -> list[tuple[AttentionCall, LayerView]]:
    """The wanted attention calls of one forward pass."""
    mask, encoder = real_tokens(batch), encoder_prefix(model)
    found: list[tuple[AttentionCall, LayerView]] = []
    available: set[int] = set()

    def keep(call: AttentionCall) -> None:
        if covers_tokens(call, mask, encoder):
            available.add(call.layer)
            if layers is None or call.layer in layers:
                _check_heads(heads, call.heads)
                found.append((call, layer_view(call, range(1), mask)))

    with model_lock(model), evaluation_mode(model), torch.no_grad(), capture_attention(model, keep):
        model(**batch)
    if not available:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no attention over the input's own tokens (windows, patches or latents), so "
            "there are no (tokens, tokens) maps; use capture_attention."
        )
    missing = sorted(set(layers or []) - available)
    if missing:
        raise InvalidInputError(f"layers {missing} are not there; this model has layers {sorted(available)}.")
    return found


def _check_numbers(name: str, numbers: Any) -> None:
    wanted = isinstance(numbers, (list, tuple, range)) and len(numbers) > 0
    if numbers is not None and not (wanted and all(type(number) is int for number in numbers)):
        raise InvalidInputError(f"{name} must be None (all) or a list of one or more whole numbers, not {numbers!r}.")


def _check_heads(heads: list[int] | None, count: int) -> None:
    wrong = [head for head in heads or [] if not 0 <= head < count]
    if wrong:
        raise InvalidInputError(f"heads {wrong} are not there; this layer has heads 0 to {count - 1}.")


def _maps(
    kind: str, tokens: tuple[str, ...], found: list[tuple[AttentionCall, LayerView]], heads: list[int] | None
) -> AttentionMaps:
    matrices, residuals, supports = [], [], []
    for call, view in found:
        precise = call.output.dtype in (torch.float32, torch.float64)
        chosen = list(range(view.rows.shape[1])) if heads is None else heads
        rows, values, keys = view.rows[0, chosen], view.values[0, chosen], view.keys[0]
        keys = keys.expand(len(chosen), *keys.shape)  # a (queries, keys) mask alone could be read as (heads, keys)
        if kind == "efficient":
            new = efficient_attention(rows, values, keys).attention
        elif kind == "raw":
            new = rows
        else:
            outputs = view.call.output[0, chosen]
            new = effective_attention(
                rows, values, keys, affine=kind == "effective_affine", outputs=outputs if precise else None
            ).attention
        target = rows.double() @ values.double()
        missed = (new.double() @ values.double() - target).norm(dim=-1)
        matrices.append(new)
        residuals.append((missed / target.norm(dim=-1).clamp_min(1e-300)).float())
        supports.append((new != 0).sum(-1))
    return AttentionMaps(
        kind,
        tokens,
        tuple(call.layer for call, _ in found),
        tuple(call.module_name for call, _ in found),
        tuple(chosen),
        tuple(matrices),
        tuple(residuals),
        tuple(supports),
    )
