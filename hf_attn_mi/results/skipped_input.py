"""`SkippedInput`: what stands in the place of a result where an input could not be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.document import Block, Paragraph
from hf_attn_mi.results.record import Record


@dataclass(frozen=True, eq=False, repr=False)
class SkippedInput(Record):
    """An input of a list without a result, from a task that was called with errors="skip".

    It stands in `Results` where the result would, so that `results[i]` still belongs to `inputs[i]`; it is shown, saved
    and loaded with the others. `to_pandas` has one row, with the reason in the column `skipped`.

    Attributes:
        index: its place in the list of inputs.
        texts: its texts, two for a pair; () for tensors and if the input was not a text.
        error: name of the exception, such as "InvalidInputError".
        reason: its message.

    Example:
        >>> skipped = SkippedInput(3, ("",), "InvalidInputError", "inputs[3] is an empty text")
        >>> print(skipped)
        Input 3 was skipped: inputs[3] is an empty text
    """

    TYPE: ClassVar[str] = "hf_attn_mi.SkippedInput"
    NOUN: ClassVar[str] = "skipped input"

    index: int
    texts: tuple[str, ...]
    error: str
    reason: str

    def _check(self) -> None:
        if self.index < 0:
            raise InvalidInputError(f"index must be 0 or more, got {self.index}")

    def _blocks(self) -> list[Block]:
        return [Paragraph(f"Input {self.index} was skipped: {self.reason}", "neutral")]

    def _columns(self) -> dict[str, list[Any]]:
        return {"skipped": [self.reason]}

    def _summary(self) -> dict[str, object]:
        return {"index": self.index, "error": self.error, "reason": self.reason}
