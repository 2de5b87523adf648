"""The labels of a model: names and numbers."""

from __future__ import annotations

from typing import Any

from hf_attn_mi.errors import InvalidInputError, shown


def label_names(config: object) -> dict[int, str]:
    """Number -> name of each class of a configuration; {} if it has none."""
    return {int(number): str(name) for number, name in (getattr(config, "id2label", None) or {}).items()}


def label_number(target: str | int, config: object, hint: str = "") -> int:
    """The number of a label: its name as written, in other letter case where that is unique, or a number in range.

    Args:
        target: a name or a number.
        config: the model's configuration.
        hint: a sentence that is added to the message about an unknown name.

    Raises:
        InvalidInputError: no label, several, or a number out of range.
    """
    names = label_names(config)
    if isinstance(target, str):
        exact = [number for number, name in names.items() if name == target]
        loose = [number for number, name in names.items() if name.lower() == target.lower()]
        matches = exact or loose
        if len(matches) != 1:
            fault = "names more than one label" if matches else "is not a label"
            raise InvalidInputError(
                f"target {shown(target)} {fault} of this model; its labels are {list(names.values())}. Pass one of "
                f"these as it is written, or the number of the class.{hint}"
            )
        return matches[0]
    number: Any = target
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidInputError(f"target: a label must be a name or a number, not {shown(number)}.")
    if names and not 0 <= number < len(names):
        raise InvalidInputError(
            f"target {shown(number)} is out of range: this model has classes 0 to {len(names) - 1} "
            f"{list(names.values())}."
        )
    return number


def label_name(number: int, config: object) -> str:
    """The name of a class; "class 3" if it has no name."""
    return label_names(config).get(number, f"class {number}")
