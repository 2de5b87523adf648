"""What the commands print and write: text, warnings and errors as lines, strict JSON, files."""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import TypeVar

import typer
from rich.console import Console
from rich.text import Text

from hf_attn_mi.atomic_files import write_file
from hf_attn_mi.cli.exit_codes import PIPE_CLOSED
from hf_attn_mi.errors import Interrupted, InvalidInputError, counted

Finished = TypeVar("Finished")

PROGRAM = "hf-attn-mi"
_ALIKE = 3  # warnings that differ only by numbers and are printed one by one
_LONGEST = 2000  # characters of a message: those of libraries can hold whole files
_OPTIONS = {  # Python arguments that messages name -> the options of commands with the same meaning
    "truncation=True": "--truncate",
    "stride=: ": "--stride: ",
    "stride= ": "--stride ",
    "stride=N": "--stride N",
    "batch_size=1": "--batch-size 1",
    'errors="skip"': "--errors skip",
    "is_split_into_words=True": "--is-split-into-words",
    "candidate_labels": "--candidate-labels",
}
_HTML = (".html", ".htm")


def show(text: str) -> None:
    r"""Print text as it is; characters that the output cannot encode become escapes such as \u2603.

    Raises:
        InvalidInputError: standard output is closed.
        OSError: it cannot be written, such as to a full disk.
        typer.Exit: its reader went away.
    """
    if sys.stdout is None:
        raise InvalidInputError("standard output is closed: pass --quiet to print nothing.")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        raise typer.Exit(PIPE_CLOSED) from None
    except OSError:
        discard_output()
        raise


def discard_output() -> None:
    """Discard the rest of standard output: Python flushes it once more when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)


def complain(message: object, kind: str = "") -> None:
    """Print a message as one line to standard error, whatever line breaks it has.

    Args:
        message: an error or a text.
        kind: such as "warning: ", printed before the message.
    """
    text = as_options(_shortened(str(message)))
    words = "".join(character if character.isprintable() else " " for character in text).split()
    Console(stderr=True).print(Text.assemble((f"{PROGRAM}: {kind}", "bold"), " ".join(words)), soft_wrap=True)


def as_options(message: str) -> str:
    """Return a message of the package with the options of the command line in the place of Python's arguments.

    Example:
        >>> as_options("Shorten it, or pass truncation=True to explain its first part only.")
        'Shorten it, or pass --truncate to explain its first part only.'
    """
    for argument, option in _OPTIONS.items():
        message = message.replace(argument, option)
    return message


def _shortened(text: str) -> str:
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} ... {text[-half:]}"


def until_interrupted(task: Callable[[], Finished], count: int) -> tuple[Finished, bool]:
    """Return what a task over several inputs returns, and whether Ctrl-C or SIGTERM ended it before the last one.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM before the first result.
    """
    try:
        with sigterm_as_interrupt():
            return task(), False
    except Interrupted as stop:
        if stop.results is None:
            raise
        complain(
            f"interrupted: the output has {len(stop.places):,} of {counted(count, 'input')}, those that were finished."
        )
        finished: Finished = stop.results  # type: ignore[assignment]
        return finished, True


@contextmanager
def nothing_to_keep(reason: str) -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM end the command with one line that says why there is no output yet."""
    try:
        with sigterm_as_interrupt():
            yield
    except KeyboardInterrupt:
        complain(f"interrupted: nothing is written. {reason}")
        raise


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt as Ctrl-C does, unless it has another handler than the default."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def warnings_as_lines(quiet: bool = False) -> Iterator[None]:
    """Collect the warnings of the block and print each as one line at its end; `quiet` hides progress bars.

    Of warnings that differ only by numbers (two hundred long texts give two hundred) the first three are printed, and
    how many more there were.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        if quiet:
            with redirect_stderr(io.StringIO()):
                yield
        else:
            yield
    alike: dict[str, list[str]] = {}
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            alike.setdefault(re.sub(r"[0-9]+", "0", str(warning.message)), []).append(str(warning.message))
    for messages in alike.values():
        for message in messages[:_ALIKE]:
            complain(message, "warning: ")
        if len(messages) > _ALIKE:
            complain(f"{len(messages) - _ALIKE} more of this kind.", "warning: ")


def check_files(*paths: Path | None, html: Path | None = None) -> None:
    """Refuse files that could not be written, before the work and not after it.

    Args:
        paths: files of any name; None and "-" (standard output) are passed over.
        html: a page, whose name has to say so.

    Raises:
        InvalidInputError: a folder that does not exist, a folder where a file is named, or a page without .html;
            two outputs of one name.
    """
    if html is not None and html.suffix.lower() not in _HTML:
        raise InvalidInputError(f"--html {html}: an HTML page is written; its name must end in {' or '.join(_HTML)}.")
    resolved: set[Path] = set()
    for path in (*paths, html):
        if path is None or is_stdout(path):
            continue
        if path.resolve() in resolved:
            raise InvalidInputError(f"{path}: two outputs have this name, and one would replace the other.")
        if not path.exists() or path.is_file():  # what is written to a device is not replaced
            resolved.add(path.resolve())
        if not path.parent.is_dir():
            raise InvalidInputError(
                f"{path}: the folder {path.parent} does not exist; create it first, or name another file."
            )
        if path.is_dir():
            raise InvalidInputError(f"{path} is a directory; name a file.")


def is_stdout(path: Path | None) -> bool:
    """Whether this file name is "-", which stands for standard output."""
    return path is not None and str(path) == "-"


def write_text(text: str, path: Path) -> None:
    """Write a UTF-8 file in one step: an interruption leaves the old file, or none."""
    content, path = text.encode("utf-8", "backslashreplace"), path.resolve()  # a link keeps pointing to its file
    if path.exists() and not path.is_file():  # a device or a pipe, which must not be replaced by a file
        path.write_bytes(content)
    else:
        write_file(content, path, overwrite=True)


def write_json(data: object, path: Path | None) -> None:
    """Write strict JSON to a file, or print it for "-"; nothing without a path."""
    if path is None:
        return
    encoding = getattr(sys.stdout, "encoding", None) if is_stdout(path) else None
    readable = (encoding or "utf-8").lower() in ("utf-8", "utf8")
    text = json.dumps(strict(data), allow_nan=False, ensure_ascii=not readable)
    if not _encodable(text):  # a lone surrogate, which JSON can only hold as an escape
        text = json.dumps(strict(data), allow_nan=False)
    if is_stdout(path):
        show(text)
    else:
        write_text(text + "\n", path)


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def strict(value: object) -> object:
    """Return the data with lists for tuples and null for numbers that are not finite, which JSON lacks.

    Example:
        >>> strict({"nats": (0.5, float("nan"))})
        {'nats': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
