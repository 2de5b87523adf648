"""How far the scores of a method move when the embeddings of an input move a little."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.evaluation import max_sensitivity
from hf_attn_mi.methods.captum import Options
from hf_attn_mi.methods.relevance import input_embedding
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.loading import device_of
from hf_attn_mi.models.targets import ExplainedTarget
from hf_attn_mi.tasks.method_runs import FAILURES, scores_of

SAME = 1e-3  # of the largest score: by how much scores from embeddings may differ from those from ids


def sensitivities(
    method: str,
    model: nn.Module,
    examples: list[EncodedInput],
    classes: list[ExplainedTarget],
    own: Sequence[Tensor | None],
    *,
    wanted: Any,
    options: Options,
    batch_size: int,
    seed: int,
) -> tuple[list[float | None], list[str]]:
    """Return `max_sensitivity` of each input and notes: eleven more runs of the method on each.

    The model is given `inputs_embeds` in place of ids. Where its scores are then not those it gave for the ids, or it
    takes no embeddings, the metric is undefined.

    Args:
        method: name of a row of METHODS.
        model: the bare model.
        examples: the inputs.
        classes: what is explained for each.
        own: (tokens,) scores of each input by its ids; None where the method failed.
        wanted: the caller's function, where the target is one.
        options: of the method.
        batch_size: versions of an input in one pass.
        seed: of the changes.
    """
    values: list[float | None] = []
    notes: list[str] = []
    for example, explained, scores in zip(examples, classes, own):
        value = None
        if scores is not None:
            try:
                value = _of_one(method, model, example, explained, scores, wanted, options, batch_size, seed)
            except FAILURES as error:
                notes = notes or [f"max_sensitivity is undefined on some inputs: {type(error).__name__}: {error}"]
        values.append(value)
    return values, notes


def _of_one(
    method: str,
    model: nn.Module,
    example: EncodedInput,
    explained: ExplainedTarget,
    own: Tensor,
    wanted: Any,
    options: Options,
    batch_size: int,
    seed: int,
) -> float | None:
    table = input_embedding(model)
    if table is None or "inputs_embeds" not in inspect.signature(model.forward).parameters:
        raise UnsupportedModelError(f"{type(model).__name__} takes no inputs_embeds")
    with torch.no_grad():
        embeddings = table(example.tensors["input_ids"].to(device_of(model))).clone()
    rest = {key: value for key, value in example.tensors.items() if key != "input_ids"}

    def scored(versions: Tensor) -> Tensor:
        found = []
        for start in range(0, len(versions), batch_size):
            part = versions[start : start + batch_size]
            moved = [replace(example, tensors={"inputs_embeds": one, **rest}) for one in part]
            aims = wanted if callable(wanted) else [explained.target] * len(moved)
            found += scores_of(method, model, moved, [explained] * len(moved), wanted=aims, options=options)[0]
        if len(versions) == 1 and float((found[0] - own).abs().max()) > SAME * max(float(own.abs().max()), 1e-12):
            raise UnsupportedModelError(f"method {method!r} gives other scores for inputs_embeds than for their ids")
        return torch.stack(found)

    return max_sensitivity(scored, embeddings, seed=seed)
