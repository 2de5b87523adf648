"""The target `frame`: a symbol at one point of time, for models with a CTC head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
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
    contrast,
    one_hot_best,
    token_text,
    vocabulary_id,
)


@dataclass(frozen=True)
class Frame:
    """A symbol of a frame of the output, for speech recognition with a CTC head.

    The explained value is the logit of the symbol minus the mean of all other logits, the probability the softmax over
    the symbols.

    Args:
        t: the number of the frame, from 0.
        symbol: as the tokenizer writes it, or its id; None for the most probable one.

    Raises:
        InvalidInputError: values of the wrong type.

    Example:
        >>> Frame(12, 3).t
        12
    """

    t: int
    symbol: str | int | None = None
    kind: ClassVar[str] = "frame"

    def __post_init__(self) -> None:
        check_count("frame", "t", self.t)
        if self.symbol is not None and (isinstance(self.symbol, bool) or not isinstance(self.symbol, str | int)):
            raise InvalidInputError(f"target frame: symbol must be a symbol or its id, not {shown(self.symbol)}.")

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        symbol = None if self.symbol is None else vocabulary_id("frame", self.symbol, runner)
        return _BoundFrame(one, runner, self.t, symbol)


@dataclass(frozen=True, eq=False)
class _BoundFrame(Bound):
    t: int
    symbol: int | None

    @property
    def call(self) -> str:
        return call_text("frame", self.t, self.symbol)

    def settle(self, row: OutputRow) -> _BoundFrame:
        return self if self.symbol is not None else replace(self, symbol=one_hot_best(self._logits(row)))

    def read(self, row: OutputRow) -> TargetReading:
        assert self.symbol is not None
        logits = self._logits(row)
        symbol = vocabulary_id("frame", self.symbol, self.runner, logits.shape[0])
        value, probability, predicted = contrast(logits, symbol)
        name = f"{token_text(symbol, self.runner)!r} in frame {self.t}"
        return TargetReading(value, ExplainedTarget(symbol, name, probability), predicted)

    def _logits(self, row: OutputRow) -> Tensor:
        logits = row.field("logits")
        if logits is None or logits.dim() != 2 or self.t >= logits.shape[0]:
            shape = "none" if logits is None else f"(batch, {', '.join(map(str, logits.shape))})"
            raise InvalidInputError(
                f"target frame: logits of shape (batch, frames, symbols) with more than {self.t} frames are needed; "
                f"this model gives {shape}."
            )
        return logits[self.t]
