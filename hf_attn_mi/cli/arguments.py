"""Arguments that several commands share, and how they are read."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from hf_attn_mi.cli.exit_codes import IN_WORDS
from hf_attn_mi.errors import InvalidInputError


def add_command(commands: Any, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a new command; its help ends with what an exit status says."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=description, epilog=IN_WORDS)
    return parser


def add_texts(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add TEXT..., --file and --pair, which `read_texts` reads."""
    parser.add_argument("texts", nargs="*", metavar="TEXT", help=f"texts to {verb}; '-' reads one a line from stdin")
    parser.add_argument("--file", type=Path, metavar="F", help="a file with one text a line")
    parser.add_argument("--pair", metavar="TEXT", help="second text, for models of sentence pairs")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add --model, which `load_model` loads."""
    parser.add_argument("--model", metavar="NAME_OR_PATH", help="Hub name or folder (default: the embedded model)")


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --json and --quiet."""
    parser.add_argument("--json", type=Path, metavar="F", help=f"write {what} as JSON; '-' prints it and nothing else")
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")


def read_texts(options: argparse.Namespace) -> list[str | tuple[str, str]]:
    """The texts of the command line, of --file and of standard input, in this order; pairs with --pair.

    Raises:
        InvalidInputError: a file that cannot be read, or no text at all.
    """
    texts: list[str] = [text for text in options.texts if text != "-"]
    try:
        if options.file is not None:
            texts += _lines(options.file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"--file {options.file}: {error}; a UTF-8 file with one text a line is needed."
        ) from error
    try:
        if "-" in options.texts or (not options.texts and options.file is None and not sys.stdin.isatty()):
            texts += _lines(sys.stdin.read())
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"standard input: {error}; UTF-8 with one text a line is needed.") from error
    if not texts:
        raise InvalidInputError("no text: pass TEXT, --file F, or lines on standard input.")
    return [(text, options.pair) for text in texts] if options.pair is not None else list(texts)


def read_target(given: str | None, model: Any) -> str | int | None:
    """A label where the model has one of this name, even a name of digits; else a number where it is one."""
    if given is None or given in map(str, model.config.id2label.values()):
        return given
    return int(given) if re.fullmatch(r"[+-]?[0-9]+", given) else given


def read_settings(given: str | None, example: str) -> dict[str, Any] | None:
    """The settings that --options holds as a JSON object; None without any.

    Args:
        given: the text of the option.
        example: of what is allowed, for the message.

    Raises:
        InvalidInputError: no strict JSON object.

    Example:
        >>> read_settings('{"steps": 20}', "")
        {'steps': 20}
    """
    if given is None:
        return None
    try:
        found = json.loads(given, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"--options is not JSON: {error}; an object is needed, such as '{example}'.") from error
    if not isinstance(found, dict):
        raise InvalidInputError(
            f"--options is a JSON {type(found).__name__}; an object is needed, such as '{example}'."
        )
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _lines(text: str) -> list[str]:
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]  # splitlines() would cut at U+2028, too
