"""The model on some tokens of an input: the others masked as keys, or, where that is the same, left out."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture import model_lock
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.models.batching import length_buckets, padding_id, stack
from hf_attn_mi.models.encoded_input import EncodedInput, per_token
from hf_attn_mi.models.loading import device_of, evaluation_mode
from hf_attn_mi.models.padding import ignores_padding
from hf_attn_mi.models.targets import Target


@dataclass(frozen=True)
class Seen:
    """What the model said: probability of the class, number and name of the class, and its prediction.

    The prediction is the class with the largest logit; for independent labels, whether this label is said (0 or 1).
    """

    probability: float
    target: int
    name: str
    prediction: int


@dataclass
class MaskedPredictor:
    """Runs inputs on sets of their tokens.

    Attributes:
        model: the bare model.
        examples: the inputs, with `special` known.
        batch_size: sequences in one forward.
        offset: position id of the first token where the kept tokens may be run alone with their own position ids; None
            where all tokens are run with a mask.
        mixed: whether sequences of different length may share a batch.
        fixed: for each input, tokens that always stay.
        movable: for each input, tokens that may be left out.
    """

    model: nn.Module
    examples: list[EncodedInput]
    batch_size: int
    offset: int | None = None
    mixed: bool = False
    fixed: list[tuple[int, ...]] = field(init=False)
    movable: list[tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        refuse_unmaskable(self.model)
        pairs = [fixed_and_movable(example, i) for i, example in enumerate(self.examples)]
        self.fixed, self.movable = [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def example(self, number: int, tokens: Collection[int]) -> EncodedInput:
        """The input of this number restricted to these tokens and the special ones."""
        kept = sorted({*self.fixed[number], *tokens})
        if self.offset is None:
            return masked(self.examples[number], kept)
        return compacted(self.examples[number], kept, self.offset)

    def cost(self, number: int, size: int) -> float:
        """Of running so many tokens of this input, in forwards of the full input."""
        if self.offset is None:
            return 1.0
        fixed = len(self.fixed[number])
        return (size + fixed) / (len(self.movable[number]) + fixed)

    def run(self, asked: Sequence[tuple[int, Collection[int]]], wanted: Sequence[int | None]) -> list[Seen]:
        """What the model says for each (number of the input, tokens), in order.

        Args:
            asked: inputs and tokens; special tokens are added.
            wanted: the class for each, None for the predicted one.
        """
        examples = [self.example(number, tokens) for number, tokens in asked]
        found: dict[int, Seen] = {}
        lengths = [int(example.length or 0) for example in examples]
        for places in length_buckets(lengths, self.batch_size, mixed=self.mixed):
            mine = [examples[i] for i in places]
            found.update(zip(places, run_examples(self.model, mine, [wanted[i] for i in places])))
        return [found[i] for i in range(len(asked))]


def fixed_and_movable(example: EncodedInput, index: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Special tokens, and the others; tokens that the input's own mask hides are in neither.

    Raises:
        InvalidInputError: no tokens, special tokens not known, none of its own, or a mask by query.
    """
    if example.length is None or example.special is None:
        raise InvalidInputError(
            f"inputs[{index}]: which of its tokens are special is not known. Pass texts, or input_ids and tokenizer=..."
        )
    mask = example.tensors.get("attention_mask", torch.ones(example.length))
    if mask.dim() != 1:
        raise InvalidInputError(f"inputs['attention_mask'] must be (batch, tokens), not {mask.dim() + 1}-dimensional.")
    real = mask.bool().tolist()
    fixed = tuple(i for i, special in enumerate(example.special) if special and real[i])
    movable = tuple(i for i, special in enumerate(example.special) if not special and real[i])
    if not movable:
        raise InvalidInputError(f"inputs[{index}] has no token of its own beside the special ones.")
    return fixed, movable


def masked(example: EncodedInput, kept: Sequence[int]) -> EncodedInput:
    """The whole example, with all tokens but these masked as keys."""
    mask = torch.zeros(int(example.length or 0), dtype=torch.long)
    mask[list(kept)] = 1
    return replace(example, tensors={**example.tensors, "attention_mask": mask})


def compacted(example: EncodedInput, kept: Sequence[int], offset: int) -> EncodedInput:
    """These tokens alone, each with the position id it has in the whole example."""
    length = int(example.length or 0)
    positions = torch.arange(length) + offset
    tensors = {"position_ids": positions, **example.tensors}
    places = torch.tensor(list(kept), dtype=torch.long)
    cut = {k: v[places.to(v.device)] if per_token(k, v, length) else v for k, v in tensors.items()}
    cut["attention_mask"] = torch.ones(len(places), dtype=torch.long)
    return replace(example, tensors=cut, length=len(places))


def refuse_unmaskable(model: nn.Module) -> None:
    """Raise `UnsupportedModelError` where no attention mask can be passed: sets of tokens are defined by it."""
    if "attention_mask" not in inspect.signature(model.forward).parameters:
        raise UnsupportedModelError(
            f"{type(model).__name__}.forward has no attention_mask, so it cannot be restricted to some of its tokens. "
            "minimal_tokens needs a classifier that takes one."
        )


def run_examples(model: nn.Module, examples: list[EncodedInput], wanted: Sequence[int | None]) -> list[Seen]:
    """One forward pass without gradients; what the model says for each example.

    Raises:
        InvalidInputError: no class logits, logits that are not finite, or a regression.
    """
    logits, aim = forward(model, examples, list(wanted))
    labels = getattr(getattr(model, "config", None), "problem_type", None) == "multi_label_classification"
    predicted = logits.argmax(1).tolist()
    found = []
    for i, explained in enumerate(aim.explained):
        if explained.probability is None or explained.target is None:
            raise InvalidInputError(
                f"model: {type(model).__name__} is a regression model, its output has no probability that a set of "
                "tokens could keep. Pass a model with class logits."
            )
        prediction = int(explained.probability >= 0.5) if labels else predicted[i]
        found.append(Seen(explained.probability, explained.target, explained.name, prediction))
    return found


def forward(model: nn.Module, examples: list[EncodedInput], wanted: list[int | None]) -> tuple[Tensor, Target]:
    """(batch, classes) logits of one pass without gradients, and the target that read them."""
    batch: dict[str, Any] = dict(stack(examples, padding_id(model) or 0, device_of(model)))
    if getattr(getattr(model, "config", None), "return_dict", True) is False:
        batch["return_dict"] = True
    aim = Target(wanted, model)
    with torch.no_grad(), model_lock(model), evaluation_mode(model):
        outputs = model(**batch)
        aim(outputs)
    return (outputs.logits if hasattr(outputs, "logits") else outputs[0]).detach(), aim


def mixable(model: nn.Module, examples: list[EncodedInput]) -> bool:
    """Whether these examples give the same output beside longer ones."""
    pad = padding_id(model)
    if pad is None or len({example.length for example in examples}) < 2:
        return False  # nothing to try it on: equal lengths only, which is always right
    return ignores_padding(model, examples, pad)
