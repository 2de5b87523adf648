"""Arguments that all tasks share: the same name, default, meaning and message everywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from hf_attn_mi.errors import Interrupted, InvalidInputError, shown
from hf_attn_mi.results.record import Record
from hf_attn_mi.results.results import Results


def check_whole_number(name: str, value: object, least: int = 1) -> None:
    """Check that the value is a whole number of at least `least`.

    Raises:
        InvalidInputError: names the argument.

    Example:
        >>> check_whole_number("batch_size", 16)
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        allowed = "a positive whole number" if least == 1 else f"a whole number of {least} or more"
        raise InvalidInputError(f"{name} must be {allowed}, not {shown(value)}.")


def check_flag(name: str, value: object) -> None:
    """Check that the value is True or False."""
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name} must be True or False, not {shown(value)}.")


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Check that the value is one of the allowed strings."""
    if not isinstance(value, str) or value not in allowed:
        raise InvalidInputError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {shown(value)}.")


def check_seed(value: object) -> None:
    """Check that the seed is a whole number from 0 to 2**32 - 1, the range of numpy's generators."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise InvalidInputError(f"seed must be a whole number from 0 to 2**32 - 1, not {shown(value)}.")


def check_indices(name: str, value: object) -> None:
    """Check that the value is None or a list of one or more whole numbers."""
    good = isinstance(value, list | tuple | range) and len(value) > 0 and all(type(item) is int for item in value)
    if value is not None and not good:
        raise InvalidInputError(
            f"{name} must be None (all) or a list of one or more whole numbers, not {shown(value)}."
        )


def progress_bar(total: int | None, description: str, unit: str) -> Any:
    """A progress bar on the terminal; hidden for a single step and if standard error is not a terminal."""
    hidden = (total is not None and total < 2) or not (sys.stderr and sys.stderr.isatty())
    return tqdm(total=total, desc=description, unit=unit, disable=hidden)


@contextmanager
def results_on_interrupt(records: Mapping[int, Sequence[Record]]) -> Iterator[None]:
    """Turn Ctrl-C into an `Interrupted` error that holds the results so far, if any.

    Args:
        records: those of each input by its number; the block fills it.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        places = sorted(records)
        if not places:
            raise
        raise Interrupted(Results([record for place in places for record in records[place]]), places) from interrupt
