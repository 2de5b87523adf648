"""How far the scores of a method move when the embeddings of an input move a little (`max_sensitivity`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.evaluation import max_sensitivity
from hf_attn_mi.methods import TokenScorer
from hf_attn_mi.methods.scoring import check_method, score_batch
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target
from hf_attn_mi.tasks.method_runs import FAILURES

SAME = 1e-3  # difference of scores from embeddings and from ids, relative to the largest score


def sensitivities(
    scorer: TokenScorer,
    runner: EncoderRunner,
    inputs: Sequence[EncodedInput],
    target: Target,
    scores: Sequence[Tensor | None],
    *,
    options: Mapping[str, Any],
    batch_size: int,
    seed: int,
) -> tuple[list[float | None], list[str]]:
    """`max_sensitivity` of each input, and notes: eleven more runs of the method on each.

    The model is given `inputs_embeds` instead of ids. Where its scores are then not those it gave for the ids, or it
    takes no embeddings, the metric is undefined.

    Args:
        scorer: the method.
        runner: runs the model.
        inputs: the inputs.
        target: the target, already settled, of all inputs.
        scores: (tokens,) scores of each input by its ids; None if the method failed.
        options: the options of the method.
        batch_size: maximum number of versions of an input in one pass.
        seed: the random seed for the changes.
    """
    values: list[float | None] = []
    notes: list[str] = []
    for i, one in enumerate(inputs):
        value, reference = None, scores[i]
        if reference is not None:
            try:
                value = _of_input(
                    scorer,
                    runner,
                    one,
                    target.select([i]),
                    reference,
                    options=options,
                    batch_size=batch_size,
                    seed=seed,
                )
            except FAILURES as error:
                notes = notes or [f"max_sensitivity is undefined on some inputs: {type(error).__name__}: {error}"]
        values.append(value)
    return values, notes


def _of_input(
    scorer: TokenScorer,
    runner: EncoderRunner,
    one: EncodedInput,
    target: Target,
    reference: Tensor,
    *,
    options: Mapping[str, Any],
    batch_size: int,
    seed: int,
) -> float | None:
    table = runner.input_embedding
    if table is None or not runner.takes("inputs_embeds"):
        raise UnsupportedModelError(f"{runner.class_name} takes no inputs_embeds")
    with torch.no_grad():
        embeddings = table(one.tensors["input_ids"].to(runner.device)).clone()
    rest = {key: value for key, value in one.tensors.items() if key != "input_ids"}

    def score(versions: Tensor) -> Tensor:
        scores: list[Tensor] = []
        size = batch_size if runner.takes_batches(one) else 1
        for start in range(0, len(versions), size):
            part = versions[start : start + size]
            changed = [replace(one, tensors={"inputs_embeds": embedding, **rest}) for embedding in part]
            check_method(runner, scorer, options)
            scores += score_batch(runner, changed, scorer, target.select([0] * len(changed)), options).scores
        largest = max(float(reference.abs().max()), 1e-12)
        if len(versions) == 1 and float((scores[0] - reference).abs().max()) > SAME * largest:
            raise UnsupportedModelError(
                f"method {scorer.name!r} gives other scores for inputs_embeds than for their ids"
            )
        return torch.stack(scores)

    return max_sensitivity(score, embeddings, seed=seed)
