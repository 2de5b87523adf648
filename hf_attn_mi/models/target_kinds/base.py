"""The interface of a target: what users write, what it becomes for one input, and what is read off the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.output_heads import ExplainedTarget
from hf_attn_mi.models.runner import EncoderRunner

BLANK = "▁"  # stands for the blank in front of a word in tokens of SentencePiece


@dataclass(frozen=True, eq=False)
class TargetReading:
    """The values that a target reads from the outputs for one input.

    Attributes:
        value: () float64 explained value, connected to the outputs by gradients.
        explained: what the value stands for.
        prediction: a number that encodes the model's prediction: equal numbers mean equal predictions. None
            if there is no prediction.
    """

    value: Tensor
    explained: ExplainedTarget
    prediction: int | None = None


@dataclass(frozen=True, eq=False)
class OutputRow:
    """The outputs of one input in a batch.

    Attributes:
        outputs: the outputs of the whole batch.
        index: the row of the input.
        one: the input that was run: the whole input, or a variant of it with some tokens removed.
    """

    outputs: Any
    index: int
    one: EncodedInput

    def field(self, *names: str) -> Tensor | None:
        """The row of the first of these fields that the outputs have; None if they have none of them."""
        for name in names:
            value = output_field(self.outputs, name)
            if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] > self.index:
                return value[self.index]
        return None

    def per_token(self, target: str, *names: str) -> Tensor:
        """(tokens, ...) of the first of these fields, without padding.

        Raises:
            InvalidInputError: the outputs have none of them, or it has no entry for each token.
        """
        value = self.field(*names)
        if value is None or value.dim() == 0 or value.shape[0] < self.one.token_count or self.one.length is None:
            shape = "" if value is None else ", ".join(["batch", *map(str, value.shape)])
            reason = "this model gives none" if value is None else f"this model gives the shape ({shape})"
            raise InvalidInputError(
                f"target {target} needs {' or '.join(names)} with an entry for each of {self.one.token_count} tokens; "
                f"{reason}. Leave target out to explain what its head answers."
            )
        return value[: self.one.token_count]

    def token_logits(self, target: str) -> Tensor:
        """(tokens, classes) logits, without padding.

        Raises:
            InvalidInputError: the model gives no logits for each token.
        """
        logits = self.per_token(target, "logits", "prediction_logits")
        if logits.dim() != 2:
            raise InvalidInputError(
                f"target {target} needs logits of shape (batch, tokens, classes); this model gives "
                f"(batch, {', '.join(map(str, logits.shape))})."
            )
        return logits

    def real(self) -> Tensor:
        """(tokens,) bool, False at padding and at tokens that are masked."""
        mask = self.one.tensors.get("attention_mask")
        if mask is None or mask.dim() != 1 or mask.shape[0] != self.one.token_count:
            return torch.ones(self.one.token_count, dtype=torch.bool)
        return mask.bool().cpu()

    def place(self, position: int) -> int:
        """The position of a token of the whole input in the input that was run.

        Raises:
            InvalidInputError: the token was removed.
        """
        if self.one.origin is None:
            return position
        if position not in self.one.origin:
            raise InvalidInputError(f"target: token {position}, whose output is explained, was removed from the input.")
        return self.one.origin.index(position)

    def origin(self, place: int) -> int:
        """The position in the whole input of a token of the input that was run."""
        return place if self.one.origin is None else self.one.origin[place]


class BoundTarget(Protocol):
    """A target of one input: names are resolved to numbers and words to positions."""

    @property
    def one(self) -> EncodedInput:
        """The input to run: that of the caller, or one that the target has changed."""

    @property
    def anchors(self) -> tuple[int, ...]:
        """Tokens of the input whose outputs are read: they stay where tokens are removed. () until settled."""

    @property
    def call(self) -> str | None:
        """The target as a string that can be parsed again, such as "token(position=3, label='B-LOC')".

        None for a target that holds what no string can write, such as an embedding.
        """

    def settle(self, row: OutputRow) -> BoundTarget:
        """The target with everything decided that was left to the model; further passes follow the same."""

    def read(self, row: OutputRow) -> TargetReading:
        """The explained value.

        Raises:
            InvalidInputError: outputs that do not have what the target needs.
        """


@runtime_checkable
class TargetKind(Protocol):
    """The values that users pass as `target=`: one class for each kind, a frozen dataclass of its arguments.

    Attributes:
        kind: the name that users write, also on the command line.
    """

    kind: ClassVar[str]

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """The target of this input.

        Raises:
            InvalidInputError: words, labels or positions that do not exist.
        """


@dataclass(frozen=True, eq=False)
class Bound:
    """Default behavior of bound targets: nothing is left to the model, and no token is read.

    Attributes:
        one: the input to run.
        runner: runs the model.
    """

    one: EncodedInput
    runner: EncoderRunner

    @property
    def anchors(self) -> tuple[int, ...]:
        """No token."""
        return ()

    def settle(self, row: OutputRow) -> Self:
        """Nothing is left to the model."""
        return self


def output_field(outputs: Any, name: str) -> Any:
    """A member or entry of a model's outputs; None without it. A plain tensor is the field "logits"."""
    if isinstance(outputs, Tensor):
        return outputs if name == "logits" else None
    return outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)


def contrast(logits: Tensor, chosen: int) -> tuple[Tensor, float, int]:
    """The value of a class among others that exclude each other, its probability, and the predicted class.

    Args:
        logits: (classes,) of two classes or more.
        chosen: the number of the class.

    Returns:
        () float64 logit of the class minus the mean of the other logits, softmax probability, largest logit.

    Example:
        >>> value, probability, predicted = contrast(torch.tensor([0.0, 2.0, 1.0]), 1)
        >>> float(value), predicted
        (1.5, 1)
    """
    logits = logits.double()
    value = logits[chosen] - (logits.sum() - logits[chosen]) / (logits.shape[0] - 1)
    return value, float(logits.detach().softmax(0)[chosen]), int(logits.detach().argmax())


def call_text(kind: str, *values: object, **arguments: object) -> str:
    """A call as a string; arguments of None are left out.

    Example:
        >>> call_text("token", position=3, label="B-LOC", word=None)
        "token(position=3, label='B-LOC')"
    """
    stated = [repr(value) for value in values if value is not None]
    return f"{kind}({', '.join([*stated, *(f'{k}={v!r}' for k, v in arguments.items() if v is not None)])})"


def check_count(kind: str, argument: str, value: object, *, optional: bool = False) -> None:
    """Refuse anything but a whole number of at least 0.

    Raises:
        InvalidInputError: names the target and the argument.
    """
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInputError(f"target {kind}: {argument} must be a whole number from 0 on, not {shown(value)}.")


def check_text(kind: str, argument: str, value: object, *, optional: bool = False) -> None:
    """Refuse anything but a text with a visible character.

    Raises:
        InvalidInputError: names the target and the argument.
    """
    if optional and value is None:
        return
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"target {kind}: {argument} must be a text, not {shown(value)}.")


def vocabulary_id(
    kind: str, word: str | int, runner: EncoderRunner, size: int | None = None, *, after_blank: bool = False
) -> int:
    """The token id of a word that is a single token.

    Some tokenizers have two tokens for a word, one of which includes the blank in front of it ("Paris", " Paris").

    Args:
        kind: the kind of the target, for messages.
        word: a token as the tokenizer writes it, a word, or an id.
        runner: runs the model; its tokenizer is needed for words.
        size: the size of the vocabulary, if it is known.
        after_blank: the word stands behind a blank that is part of its token, where the tokenizer has such a token.

    Raises:
        InvalidInputError: a word of several tokens or none, or an id outside the vocabulary.
    """
    if isinstance(word, int):
        if size is not None and not 0 <= word < size:
            raise InvalidInputError(f"target {kind}: token id {word} is out of range; the model has 0 to {size - 1}.")
        return word
    tokenizer = runner.require_tokenizer()
    pieces: list[int] = tokenizer(word, add_special_tokens=False)["input_ids"]
    unknown = getattr(tokenizer, "unk_token_id", None)
    if after_blank and not word[:1].isspace():
        with_blank: list[int] = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        pieces = with_blank if len(with_blank) == 1 and with_blank[0] != unknown else pieces
    if len(pieces) > 1 and word[:1].isspace():  # tokenizers that put a blank in front of every text have two now
        bare = tokenizer(word.lstrip(), add_special_tokens=False)["input_ids"]
        marked = len(bare) == 1 and str(tokenizer.convert_ids_to_tokens(bare[0])).startswith(BLANK)
        pieces = bare if marked else pieces
    if len(pieces) == 1 and pieces[0] != unknown:
        return pieces[0]
    number = tokenizer.convert_tokens_to_ids(word)  # a token as it stands in the vocabulary, such as "##ing"
    if isinstance(number, int) and number != unknown:
        return number
    names = tokenizer.convert_ids_to_tokens(pieces)
    raise InvalidInputError(
        f"target {kind}: {word!r} is not a single token of this model's vocabulary (its tokens are {names}). Pass one "
        "token, or a token id."
    )


def token_text(number: int, runner: EncoderRunner) -> str:
    """The text shown for a token id: decoded, or the number without a tokenizer."""
    if runner.tokenizer is None:
        return str(number)
    return str(runner.tokenizer.decode([number])) or str(runner.tokenizer.convert_ids_to_tokens(number))


def softmax_at(logits: Tensor, place: int, real: Tensor) -> float:
    """The probability of this entry among the real ones of (n,) logits."""
    masked = logits.detach().double().cpu().masked_fill(~real, -torch.inf)
    return float(masked.softmax(0)[place])


def one_hot_best(logits: Tensor) -> int:
    """The place of the largest of (n,) logits."""
    return int(torch.argmax(logits.detach()))
