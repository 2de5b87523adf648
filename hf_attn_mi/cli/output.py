"""What the commands print and write: text, warnings as lines, strict JSON."""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from hf_attn_mi.errors import InvalidInputError

_ALIKE = 3  # warnings that differ by numbers only and are printed one by one
_HEAD = 300  # characters of a text that stand above its result


def show(text: str) -> None:
    r"""Print; signs that this terminal cannot show become escapes such as \u2603."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def complain(message: object) -> None:
    """Print one line to standard error, whatever line breaks the message has."""
    print(f"hf-attn-mi: {' '.join(str(message).split())}", file=sys.stderr)


def in_color() -> bool:
    """Whether the output is looked at by somebody who wants colors (NO_COLOR and FORCE_COLOR are heeded)."""
    return (sys.stdout.isatty() and "NO_COLOR" not in os.environ) or bool(os.environ.get("FORCE_COLOR"))


@contextmanager
def warnings_as_lines(quiet: bool = False) -> Iterator[None]:
    """Print the warnings that come up inside as one line each, once it is done; `quiet` hides progress bars."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        if quiet:
            with redirect_stderr(io.StringIO()):
                yield
        else:
            yield
    alike: dict[str, list[str]] = {}  # two hundred long texts give two hundred warnings that differ by numbers
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            alike.setdefault(re.sub(r"[0-9]+", "0", str(warning.message)), []).append(str(warning.message))
    for messages in alike.values():
        for message in messages[:_ALIKE]:
            complain(f"warning: {message}")
        if len(messages) > _ALIKE:
            complain(f"warning: {len(messages) - _ALIKE} more of this kind.")


def check_files(*paths: Path | None) -> None:
    """Refuse files that could not be written, before the work and not after it.

    Raises:
        InvalidInputError: a folder that does not exist, or a folder where a file is named.
    """
    for path in paths:
        if path is None or is_stdout(path):
            continue
        if not path.parent.is_dir():
            raise InvalidInputError(
                f"{path}: the folder {path.parent} does not exist; make it first, or name another file."
            )
        if path.is_dir():
            raise InvalidInputError(f"{path} is a directory; name a file.")


def is_stdout(path: Path | None) -> bool:
    """Whether this file name is "-", which stands for standard output."""
    return path is not None and str(path) == "-"


def write_json(data: Any, path: Path | None) -> None:
    """Write strict JSON to a file, or print it for "-"; nothing without a path."""
    if path is None:
        return
    text = json.dumps(strict(data), allow_nan=False, ensure_ascii=False)
    show(text) if is_stdout(path) else path.write_text(text + "\n", encoding="utf-8")


def strict(value: Any) -> Any:
    """The data with lists for tuples and null for numbers that are not finite, which JSON lacks.

    Example:
        >>> strict({"nats": (0.5, float("nan"))})
        {'nats': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def headed(results: Sequence[tuple[Sequence[str], str]]) -> str:
    """Results in words, each below its texts where there are several.

    Args:
        results: (texts, words) of each.

    Example:
        >>> headed([(("a", "b"), "Holds."), (("c",), "Does not.")])
        'a | b\\nHolds.\\n\\nc\\nDoes not.'
    """
    if len(results) == 1:
        return results[0][1]
    return "\n\n".join(f"{_plain(' | '.join(texts))}\n{words}" for texts, words in results)


def _plain(text: str) -> str:
    """The beginning of the text on one line, without signs that would steer a terminal."""
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return line if len(line) <= _HEAD else f"{line[:_HEAD]} ..."
