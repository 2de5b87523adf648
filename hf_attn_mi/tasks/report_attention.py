"""The attention of one input for a report: what each head contributes, its matrices, intervals, links of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.attention import attention_interval
from hf_attn_mi.capture import AttentionCall, capture_attention
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.methods.layer_statistics import LayerView, covers_tokens, layer_view
from hf_attn_mi.methods.relevance import relevance
from hf_attn_mi.models.encoded_input import EncodedInput, real_positions
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target
from hf_attn_mi.results.layer_attention import LayerAttention
from hf_attn_mi.results.report_parts import (
    KINDS,
    AttentionDetail,
    AttentionLinks,
    HeadDetail,
    WeightInterval,
    pack_matrices,
)
from hf_attn_mi.tasks.attention_maps import rows_of_kind

LEVELS = ("all", "top", "rows", "none")
MOST_WEIGHTS = 3_600_000  # weights of all matrices: 6 layers of 12 heads over 128 tokens, about 3 MB on the page
MOST_TOKENS = 128  # tokens of an input whose matrices are all kept by default
MOST_TOKENS_TOP = 512  # tokens of an input for which matrices of the largest heads are kept
TOP_HEADS = 8  # heads of largest contribution
TOP_KEYS = 5  # weights of a row with an interval
LINKS = 8  # tokens that a token is linked to, in each direction


@dataclass(frozen=True, eq=False)
class _Layer:
    """One attention call: its place in `Explanation.layers`, and <output, gradient> of each head and query."""

    place: int
    call: AttentionCall
    view: LayerView
    contributions: Tensor | None  # (heads, queries)


def default_level(tokens: int, heads: int) -> str:
    """How much of the attention a page of one input holds: "all", "top" (matrices of the largest heads) or "rows".

    Args:
        tokens: the number of tokens of the input.
        heads: the number of heads of all layers together.

    Example:
        >>> default_level(80, 72), default_level(256, 72), default_level(2000, 72)
        ('all', 'top', 'rows')
    """
    if tokens <= MOST_TOKENS and len(KINDS) * heads * tokens**2 <= MOST_WEIGHTS:
        return "all"
    return "top" if tokens <= MOST_TOKENS_TOP else "rows"


def attention_detail(
    runner: EncoderRunner, one: EncodedInput, target: Target, layers: Sequence[LayerAttention], level: str
) -> AttentionDetail:
    """The heads of one input.

    A head's contribution is sum_i <o_i, g_i> over queries i, with o_i its output and g_i the gradient of the explained
    value in the linearized model (the sum over keys of a_ij <v_j, g_i>).

    Args:
        runner: runs the model.
        one: the input.
        target: the target of this input, already settled.
        layers: those of its explanation.
        level: "all", "top", "rows" (of the top heads the row that contributes most) or "none".

    Raises:
        UnsupportedModelError: the model has no attention over the input's own tokens.
    """
    layer_records, note = _run(runner, one, target, layers)
    if not layer_records:
        raise UnsupportedModelError(
            f"{runner.class_name} has no attention over the input's own tokens, so a report has no matrices."
        )
    places = [(layer, head) for layer in layer_records for head in range(layer.view.rows.shape[1])]
    sizes = {(layer.place, head): _contribution(layer, head) for layer, head in places}
    ranked = sorted((key for key, size in sizes.items() if size is not None), key=lambda key: -abs(sizes[key] or 0.0))
    top = set(ranked[:TOP_HEADS])
    heads = [detail for layer in layer_records for detail in _heads(layer, level, top)]
    return AttentionDetail(tuple(heads), _links(layer_records), _left_out(level, len(heads), len(top)), note)


def _run(
    runner: EncoderRunner, one: EncodedInput, target: Target, layers: Sequence[LayerAttention]
) -> tuple[list[_Layer], str]:
    """The attention calls of one pass; and why they have no contributions, "" if they have."""
    arguments = runner.collate([one])
    real = real_positions([one], arguments)
    calls: list[AttentionCall] = []
    gradients: dict[int, Tensor] = {}

    def keep(call: AttentionCall) -> None:
        place = len(calls)
        if place < len(layers) and call.module_name == layers[place].name and covers_tokens(call, real):
            calls.append(call)
            if call.output.requires_grad:
                call.output.register_hook(  # type: ignore[no-untyped-call]
                    lambda gradient: gradients.__setitem__(place, gradient)
                )

    def run(changed: Mapping[str, Any]) -> Any:
        calls.clear()
        gradients.clear()
        with capture_attention(runner.model, keep):
            return runner.forward(changed)

    note = ""
    with runner.session():
        try:
            relevance(runner, arguments, target, run=run)
        except UnsupportedModelError as error:
            note = str(error)
            with torch.no_grad():
                run(arguments)
    layer_records = []
    for place, call in enumerate(calls):
        gradient = gradients.get(place)
        products = None if gradient is None else (gradient.double() * call.output.detach().double()).sum(-1)[0].cpu()
        layer_records.append(_Layer(place, call, layer_view(call, range(1), real), products))
    if not note and any(layer.contributions is None for layer in layer_records):
        note = "No gradient of the explained value reaches the attention of some layers."
    return layer_records, note


def _contribution(layer: _Layer, head: int) -> float | None:
    return None if layer.contributions is None else float(layer.contributions[head].sum())


def _heads(layer: _Layer, level: str, top: set[tuple[int, int]]) -> list[HeadDetail]:
    """The heads of one layer; the matrices of heads that keep the same rows are computed together."""
    view = layer.view
    count, tokens = view.rows.shape[1:3]
    stored: dict[tuple[int, ...], list[int]] = {}
    details = []
    for head in range(count):
        chosen = (layer.place, head) in top
        query = None if layer.contributions is None else int(layer.contributions[head].abs().argmax())
        intervals = _intervals(view, head, query) if chosen and query is not None and level != "none" else ()
        if level == "all" or (level == "top" and chosen):
            stored.setdefault(tuple(range(tokens)), []).append(head)
        elif level == "rows" and chosen and query is not None:
            stored.setdefault((query,), []).append(head)
        details.append(HeadDetail(layer.place, head, _contribution(layer, head), query, intervals))
    for queries, heads in stored.items():
        kinds = [rows_of_kind(kind, layer.call, view, heads, list(queries)).detach().cpu() for kind in KINDS]
        for head, *matrices in zip(heads, *kinds):
            scale, texts = pack_matrices(matrices)
            support = tuple((matrices[-1] != 0).sum(-1).tolist())
            details[head] = replace(details[head], rows=queries, support=support, scale=scale, **texts)
    return details


def _intervals(view: LayerView, head: int, query: int) -> tuple[WeightInterval, ...]:
    """The intervals of the largest weights of one row."""
    row, values = view.rows[0, head, query].detach(), view.values[0, head].detach()
    keys = view.keys[0, query] if view.per_query else view.keys[0]
    chosen = [key for key in row.argsort(descending=True).tolist() if bool(keys[key])][:TOP_KEYS]
    ends = attention_interval(row, values, chosen, keys)
    return tuple(
        WeightInterval(key, float(row[key]), float(low), float(high)) for key, (low, high) in zip(chosen, ends)
    )


def _links(layer_records: Sequence[_Layer]) -> AttentionLinks:
    mean = torch.stack([layer.view.rows[0].detach().mean(0).cpu() for layer in layer_records]).mean(0)
    count = min(LINKS, mean.shape[0])
    out, into = mean.topk(count, dim=1), mean.T.topk(count, dim=1)
    return AttentionLinks(out.indices, out.values, into.indices, into.values)


def _left_out(level: str, heads: int, top: int) -> str:
    if level == "all":
        return ""
    if level == "none":
        return f"The matrices of all {heads} heads are left out."
    if top == 0:
        return f"The matrices of all {heads} heads are left out: the contribution of the heads is not known."
    rest = f"the other {heads - top} heads are left out" if heads > top else "no head is left out"
    if level == "top":
        return f"Matrices of the {top} heads with the largest contribution; {rest}."
    return f"Of the {top} heads with the largest contribution the row that contributes most; {rest}."
