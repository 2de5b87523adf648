"""Methods "relevance", "attnlrp" and "attnlrp_iterative": gradient x input of the frozen network, once or in stages."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods.registry import METHODS
from hf_attn_mi.methods.relevance import Rows, relevance, staged_scores
from hf_attn_mi.models.batching import real_tokens
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.targets import Target


@dataclass(frozen=True)
class RelevanceScores:
    """Scores of one batch: (tokens,) tensors, completeness gaps (None in stages), notes, and the model's outputs."""

    scores: list[Tensor]
    gaps: list[float | None]
    space: str
    outputs: Any
    notes: list[str]


def relevance_scores(
    model: nn.Module, arguments: dict[str, Any], examples: list[EncodedInput], aim: Target, method: str, *, around: Any
) -> RelevanceScores:
    """Scores by one of the methods of this file.

    Args:
        model: in evaluation mode.
        arguments: of its forward, the examples stacked.
        examples: of this batch.
        aim: what is explained; it is called on the outputs of the whole inputs.
        method: its name.
        around: entered around the first pass, such as `capture_attention`.

    Raises:
        InvalidInputError, UnsupportedModelError: there are no tokens to mask, for "attnlrp_iterative"; what `relevance` refuses.
    """
    row = METHODS[method]
    if row.staged:
        _check_maskable(model, examples[0])
    found = relevance(model, arguments, aim, around=around, rows=row.rows)
    scores, gaps, notes = list(found.scores), [float(gap) for gap in found.gap], list[str]()
    if row.staged:
        scores, notes = _in_stages(model, arguments, examples, aim, found.scores, row.rows)
    return RelevanceScores(scores, [None if row.staged else gap for gap in gaps], found.space, found.outputs, notes)


def _in_stages(
    model: nn.Module, arguments: dict[str, Any], examples: list[EncodedInput], aim: Target, first: Tensor, rows: Rows
) -> tuple[list[Tensor], list[str]]:
    mask = arguments["attention_mask"]
    removable = real_tokens(arguments).cpu()
    for i, example in enumerate(examples):
        if example.special is not None:
            removable[i, : len(example.special)] &= ~torch.tensor(example.special)
    settled = aim.wanted if callable(aim.wanted) else [explained.target for explained in aim.explained]

    def again(kept: Tensor) -> Tensor:
        fewer = mask.masked_fill(~kept.to(mask.device), 0)
        return relevance(model, {**arguments, "attention_mask": fewer}, Target(settled, model), rows=rows).scores

    notes = []
    if any(example.special is None for example in examples):
        notes.append("Without a tokenizer it is not known which tokens are special: all of them were masked.")
    return list(staged_scores(first, removable, again)), notes


def _check_maskable(model: nn.Module, example: EncodedInput) -> None:
    if example.length is None:
        raise InvalidInputError(
            f"method 'attnlrp_iterative' is for sequences of tokens; inputs has {', '.join(example.tensors)}. Use "
            "method='relevance'."
        )
    if "attention_mask" not in inspect.signature(model.forward).parameters:
        raise UnsupportedModelError(
            f"{type(model).__name__}.forward has no attention_mask, so none of its tokens can be masked. Use "
            "method='relevance'."
        )
    mask = example.tensors.get("attention_mask")
    if mask is not None and mask.dim() != 1:
        raise InvalidInputError(
            "inputs['attention_mask'] must be (batch, tokens) for method 'attnlrp_iterative', not "
            f"{mask.dim() + 1}-dimensional: further tokens are masked in it."
        )
