"""Default targets of models that do not classify whole inputs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hf_attn_mi.models.labels import label_names
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.answer import Answer
from hf_attn_mi.models.target_kinds.base import TargetKind, output_field
from hf_attn_mi.models.target_kinds.mask import Mask
from hf_attn_mi.models.target_kinds.next_token import NextToken
from hf_attn_mi.models.target_kinds.token import Token

CAUSAL = ("CausalLM", "LMHeadModel")  # parts of the names of transformers' classes
MASKED = ("MaskedLM", "PreTraining")


def default_target(outputs: Any, runner: EncoderRunner) -> TargetKind | None:
    """The default target for a model's outputs; None if it cannot be determined with certainty.

    Question answering: the best answer span. Token classification: the most probable entity token. Masked language
    models: the first mask token. Causal language models: the token after the last.
    """
    starts, ends = output_field(outputs, "start_logits"), output_field(outputs, "end_logits")
    if isinstance(starts, Tensor) and isinstance(ends, Tensor):
        return Answer()
    logits = output_field(outputs, "logits")
    masked = has_head(runner, MASKED)
    if masked and isinstance(output_field(outputs, "prediction_logits"), Tensor):
        return Mask()
    if not isinstance(logits, Tensor) or logits.dim() != 3:
        return None
    if has_head(runner, CAUSAL):
        return NextToken()
    if masked:
        return Mask()
    if logits.shape[-1] == len(label_names(runner.config)) > 1:
        return Token()
    return None


def has_head(runner: EncoderRunner, names: tuple[str, ...]) -> bool:
    """Whether a class of the model has one of these words in its name."""
    return any(name in kind.__name__ for kind in type(runner.model).__mro__ for name in names)
