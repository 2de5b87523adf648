"""Inputs of multiple-choice models: a prompt with its choices, of which each is run as a row of its own.

Such models take (batch, choices, tokens), run every choice alone, and give it one logit. A target takes one of the
choices, so that scores, attention and removal of tokens are those of its row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encoded_input import EncodedInput, EncodedInputs

Question = tuple[str, list[str]]


def takes_choices(model: nn.Module) -> bool:
    """Whether the model has a multiple-choice head, by the names of its classes."""
    return any("MultipleChoice" in kind.__name__ for kind in type(model).__mro__)


def read_questions(inputs: Any) -> tuple[list[Question], bool] | None:
    """The prompts with their choices, and whether a single one was passed; None if inputs has another form.

    Raises:
        InvalidInputError: a prompt with fewer than two choices, or an empty one.

    Example:
        >>> read_questions(("It was", ["good.", "bad."]))
        ([('It was', ['good.', 'bad.'])], True)
    """
    single = _is_question(inputs)
    items = [inputs] if single else inputs
    if not isinstance(items, list) or not items or not all(map(_is_question, items)):
        return None
    questions = [(prompt, list(choices)) for prompt, choices in items]
    for i, (_, choices) in enumerate(questions):
        if len(choices) < 2:
            raise InvalidInputError(f"inputs[{i}] has {len(choices)} choices; pass two or more.")
    return questions, single


def choice_tensors(inputs: Mapping[str, Any]) -> list[dict[str, Tensor]] | None:
    """For each row of (batch, choices, tokens) tensors those of its choices, (choices, tokens); None for other tensors.

    Raises:
        InvalidInputError: tensors of other numbers of rows or choices.
    """
    main = next((inputs[key] for key in ("input_ids", "inputs_embeds") if key in inputs), None)
    dimensions = 3 if "input_ids" in inputs else 4
    if not isinstance(main, Tensor) or main.dim() != dimensions:
        return None
    tensors = {key: value for key, value in inputs.items() if isinstance(value, Tensor) and "label" not in key}
    for key, value in tensors.items():
        if value.shape[:2] != main.shape[:2]:
            raise InvalidInputError(
                f"inputs[{key!r}] has shape {tuple(value.shape)}; every tensor must begin with (batch, choices) = "
                f"{tuple(main.shape[:2])}."
            )
    return [{key: value[i] for key, value in tensors.items()} for i in range(main.shape[0])]


def encode_choices(encode: Callable[[Any], EncodedInputs], inputs: Any) -> EncodedInputs:
    """The inputs of a multiple-choice model: each prompt stands for all of its choices.

    Args:
        encode: encodes texts, pairs and (rows, tokens) tensors.
        inputs: (prompt, [choice, choice, ...]) or a list of these; tensors of shape (batch, choices, tokens); or single
            choices, (prompt, choice).

    Raises:
        InvalidInputError: the inputs have another form.
    """
    if isinstance(inputs, Mapping):
        rows = choice_tensors(inputs)
        groups = None if rows is None else [encode(row).inputs for row in rows]
        single = rows is not None and len(rows) == 1
    else:
        questions, single = read_questions(inputs) or (None, False)
        groups = None if questions is None else [encode([(p, c) for c in choices]).inputs for p, choices in questions]
    if groups is None:
        pairs = inputs if isinstance(inputs, list) else [inputs]
        if not pairs or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            raise InvalidInputError(
                "inputs: a multiple-choice model takes (prompt, [choice, choice, ...]), a list of these, tensors "
                "(batch, choices, tokens), or one choice as a pair (prompt, choice)."
            )
        return encode(inputs)
    encoded = [replace(group[0], alternatives=tuple(group)) for group in groups]
    return EncodedInputs(encoded, list(range(len(encoded))), {}, single)


def refuse_several_choices(inputs: Sequence[EncodedInput]) -> None:
    """Raise `InvalidInputError` for an input that stands for several choices, none of which was selected."""
    if any(one.alternatives for one in inputs):
        raise InvalidInputError("inputs holds prompts with several choices; pass one choice: (prompt, choice).")


def as_single_choices(model: nn.Module, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of rows, (batch, tokens), as a multiple-choice model takes single choices, (batch, 1, tokens)."""
    if not takes_choices(model):
        return arguments
    main = next((arguments[key] for key in ("input_ids", "inputs_embeds") if key in arguments), None)
    if not isinstance(main, Tensor) or main.dim() != (2 if "input_ids" in arguments else 3):
        return dict(arguments)
    return {
        key: value.unsqueeze(1) if isinstance(value, Tensor) and value.dim() > 1 else value
        for key, value in arguments.items()
    }


def _is_question(value: Any) -> bool:
    if not isinstance(value, tuple) or len(value) != 2 or not isinstance(value[0], str):
        return False
    return isinstance(value[1], list) and all(isinstance(choice, str) for choice in value[1])
