"""The target `generated`: a text that the decoder of an encoder-decoder writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.output_heads import ExplainedTarget
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.base import (
    Bound,
    BoundTarget,
    OutputRow,
    TargetReading,
    call_text,
    check_count,
    check_text,
    contrast,
)

PRIME = 2**61 - 1  # modulus of the number that stands for a sequence of predictions


@dataclass(frozen=True)
class Generated:
    """A text that an encoder-decoder writes (teacher-forced): its decoder reads the text, each token predicts the next.

    The explained value is the sum over the tokens of the text of the token's logit minus the mean of all other logits;
    the probability is the product of the softmax probabilities. Special tokens of the text are read by the decoder and
    not counted.

    Args:
        text: what the decoder writes.
        token: only this token of the text, from 0; None for the sum.

    Raises:
        InvalidInputError: values of the wrong type.

    Example:
        >>> Generated("Ein Film.").text
        'Ein Film.'
    """

    text: str
    token: int | None = None
    kind: ClassVar[str] = "generated"

    def __post_init__(self) -> None:
        check_text("generated", "text", self.text)
        check_count("generated", "token", self.token, optional=True)

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        if not getattr(runner.config, "is_encoder_decoder", False):
            raise InvalidInputError(
                f"target generated: {runner.class_name} is not an encoder-decoder that writes text; for causal "
                "language "
                "models use next_token()."
            )
        tokenizer = runner.require_tokenizer()
        encoded = tokenizer(text_target=self.text, return_special_tokens_mask=True)
        labels = torch.tensor(encoded["input_ids"])
        counted = [i for i, special in enumerate(encoded["special_tokens_mask"]) if not special]
        if not counted:
            raise InvalidInputError(f"target generated: {self.text!r} has no tokens other than special ones.")
        if self.token is not None:
            if self.token >= len(counted):
                raise InvalidInputError(
                    f"target generated: token must be 0 to {len(counted) - 1} for {self.text!r}, not {self.token}."
                )
            counted = [counted[self.token]]
        tensors = {**one.tensors, "decoder_input_ids": _shifted(labels, runner)}
        tensors.pop("decoder_attention_mask", None)
        changed = replace(one, tensors=tensors)
        return _BoundGenerated(changed, runner, self.text, self.token, labels, tuple(counted))


def _shifted(labels: Tensor, runner: EncoderRunner) -> Tensor:
    """What the decoder reads: the text, shifted to the right behind the token that starts it."""
    prepare = getattr(runner.model, "prepare_decoder_input_ids_from_labels", None)
    if prepare is not None:
        decoder_ids: Tensor = prepare(labels=labels[None].to(runner.device))[0].cpu()
        return decoder_ids
    start = getattr(runner.config, "decoder_start_token_id", None)
    if not isinstance(start, int):
        raise InvalidInputError(
            f"target generated: {runner.class_name} names no token that starts its decoder; set "
            "model.config.decoder_start_token_id."
        )
    return torch.cat([torch.tensor([start]), labels[:-1]])


@dataclass(frozen=True, eq=False)
class _BoundGenerated(Bound):
    text: str
    token: int | None
    labels: Tensor
    counted: tuple[int, ...]

    @property
    def call(self) -> str:
        return call_text("generated", self.text, token=self.token)

    def read(self, row: OutputRow) -> TargetReading:
        logits = row.field("logits")
        if logits is None or logits.dim() != 2 or logits.shape[0] < len(self.labels):
            raise InvalidInputError(
                f"target generated: {self.runner.class_name} gives no logits for each token of its decoder; load it "
                "with AutoModelForSeq2SeqLM."
            )
        values, probability, number = [], 1.0, 0
        for place in self.counted:
            value, one_probability, predicted = contrast(logits[place], int(self.labels[place]))
            values.append(value)
            probability *= one_probability
            number = (number * 1_000_003 + predicted + 1) % PRIME
        what = repr(self.text)
        if self.token is not None:
            piece = self.runner.require_tokenizer().decode([int(self.labels[self.counted[0]])])
            what = f"{piece!r}, token {self.token} of {what}"
        explained = ExplainedTarget(None, f"generated {what}", probability)
        return TargetReading(torch.stack(values).sum(), explained, number)
