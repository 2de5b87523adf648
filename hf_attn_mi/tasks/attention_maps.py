"""`attention_maps`: the matrices of chosen layers and heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.attention import effective_attention, efficient_attention
from hf_attn_mi.capture import AttentionCall
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods.layer_statistics import LayerView, covers_tokens, layer_view
from hf_attn_mi.models.encoded_input import EncodedInput, real_positions
from hf_attn_mi.models.input_pass import capture_input
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.results.attention_maps import AttentionMaps
from hf_attn_mi.results.results import Results
from hf_attn_mi.tasks.arguments import check_choice, check_indices
from hf_attn_mi.tasks.each_input import check_input_options, read_inputs, result_of_each

KINDS = ("raw", "effective", "effective_affine", "efficient")


def attention_maps(
    model: Any,
    inputs: Any,
    *,
    kind: str = "efficient",
    layers: list[int] | None = None,
    heads: list[int] | None = None,
    tokenizer: Any = None,
    processor: Any = None,
    sampling_rate: int | None = None,
    truncation: bool = False,
    is_split_into_words: bool = False,
    errors: str = "raise",
) -> AttentionMaps | Results[AttentionMaps]:
    """Attention matrices (heads, tokens, tokens) of chosen layers and heads.

    Args:
        model: as in `explain`; plain encoders without a head are supported.
        inputs: as in `explain`.
        kind: "raw"; "effective" (A projected on the column space of the values, arXiv 1908.04211);
            "effective_affine" (the same with rows that sum to one); "efficient" (the vertex of all rows with the
            same output that keeps most of the model's own attention; about a millisecond a row).
        layers: layer indices, None for all.
        heads: head indices, None for all.
        tokenizer, processor, sampling_rate, truncation, is_split_into_words, errors: as in `explain`.

    Returns:
        One `AttentionMaps` for one input, `Results` of them for a list.

    Raises:
        InvalidInputError: an unknown kind, a layer or head that does not exist, or inputs as in `explain`.
        UnsupportedModelError: the attention cannot be captured exactly, or is not over the input's own tokens.
    """
    check_choice("kind", kind, KINDS)
    check_indices("layers", layers)
    check_indices("heads", heads)
    check_input_options(errors, truncation, is_split_into_words)
    runner = EncoderRunner.of(model, tokenizer, processor=processor, sampling_rate=sampling_rate)
    encoded = read_inputs(runner, inputs, errors=errors, truncation=truncation, is_split_into_words=is_split_into_words)
    if any(not one.token_count for one in encoded.inputs):
        raise InvalidInputError(
            f"inputs has {', '.join(encoded.inputs[0].tensors)}, of which {runner.class_name} makes no positions that "
            "are known, so there are no maps; use capture_attention."
        )

    def run(positions: list[int]) -> list[AttentionMaps]:
        (one,) = (encoded.inputs[i] for i in positions)
        calls = _capture(runner, one, layers, heads)
        tokens = one.tokens or tuple(f"token {i}" for i in range(one.token_count))
        info = {**runner.provenance(), "warnings": [*one.warnings, *runner.notes]}
        return [_maps(kind, tokens, calls, heads, info)]

    batches = [[i] for i in range(len(encoded.inputs))]
    return result_of_each(encoded, batches, run, errors=errors, task="attention maps")


def _capture(
    runner: EncoderRunner, one: EncodedInput, layers: list[int] | None, heads: list[int] | None
) -> list[tuple[AttentionCall, LayerView]]:
    """The attention calls of the chosen layers in one forward pass."""
    arguments = runner.collate([one])
    real, encoder = real_positions([one], arguments), runner.encoder_prefix
    calls: list[tuple[AttentionCall, LayerView]] = []
    available: set[int] = set()

    def keep(call: AttentionCall) -> None:
        if covers_tokens(call, real, encoder):
            available.add(call.layer)
            if layers is None or call.layer in layers:
                _check_heads(heads, call.heads)
                calls.append((call, layer_view(call, range(1), real)))

    with runner.session(), torch.no_grad(), capture_input(runner, arguments, keep):
        runner.forward(arguments)
    if not available:
        raise UnsupportedModelError(
            f"{runner.class_name} has no attention over the input's own tokens (windows, patches or latents), so "
            "there are no (tokens, tokens) maps; use capture_attention."
        )
    missing = sorted(set(layers or []) - available)
    if missing:
        raise InvalidInputError(f"layers {missing} do not exist; this model has layers {sorted(available)}.")
    return calls


def _check_heads(heads: list[int] | None, count: int) -> None:
    wrong = [head for head in heads or [] if not 0 <= head < count]
    if wrong:
        raise InvalidInputError(f"heads {wrong} do not exist; this layer has heads 0 to {count - 1}.")


def _maps(
    kind: str,
    tokens: tuple[str, ...],
    calls: list[tuple[AttentionCall, LayerView]],
    heads: list[int] | None,
    info: dict[str, Any],
) -> AttentionMaps:
    matrices, residuals, supports = [], [], []
    for call, view in calls:
        chosen = list(range(view.rows.shape[1])) if heads is None else heads
        rows, values = view.rows[0, chosen], view.values[0, chosen]
        new = rows_of_kind(kind, call, view, chosen)
        target = rows.double() @ values.double()
        missed = (new.double() @ values.double() - target).norm(dim=-1)
        matrices.append(new)
        residuals.append((missed / target.norm(dim=-1).clamp_min(1e-300)).float())
        supports.append((new != 0).sum(-1))
    return AttentionMaps(
        kind,
        tokens,
        tuple(call.layer for call, _ in calls),
        tuple(call.module_name for call, _ in calls),
        tuple(chosen),
        tuple(matrices),
        tuple(residuals),
        tuple(supports),
        info,
    )


def rows_of_kind(
    kind: str, call: AttentionCall, view: LayerView, heads: list[int], queries: list[int] | None = None
) -> Tensor:
    """(heads, queries, tokens) attention of one input in one layer.

    Args:
        kind: one of `KINDS`.
        call: the attention call of the layer; its precision decides whether the output that the model computed is used.
        view: a view of the same call; its first input is read.
        heads: the chosen heads.
        queries: the chosen rows, None for all.
    """
    places = list(range(view.rows.shape[2])) if queries is None else queries
    rows, values, keys = view.rows[0, heads][:, places], view.values[0, heads], view.keys[0]
    if view.per_query:
        keys = keys[places]
    keys = keys.expand(len(heads), *keys.shape)  # a (queries, keys) mask alone could be read as (heads, keys)
    if kind == "raw":
        return rows
    if kind == "efficient":
        return efficient_attention(rows, values, keys).attention
    precise = call.output.dtype in (torch.float32, torch.float64)
    outputs = view.call.output[0, heads][:, places] if precise else None
    return effective_attention(rows, values, keys, affine=kind == "effective_affine", outputs=outputs).attention
