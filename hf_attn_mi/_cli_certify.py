"""`hf-attn-mi certify TEXT...`: certificates in words; the exit status says whether they hold."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_attn_mi.api import certify
from hf_attn_mi.api.certificates.certifying import FORMS
from hf_attn_mi.certificate import Certificate
from hf_attn_mi.errors import HfAttnMiError, InvalidInput


def add_certify(commands: Any, run: Callable[[argparse.Namespace], int]) -> None:
    """Add the sub-command to the parser's `commands`; `run` is called with its options."""
    parser = commands.add_parser(
        "certify", help="certify that few keys of each attention row suffice",
        description="Put efficient attention in the place of the model's attention and certify what the prediction "
        "does. Exit status: 0 every certificate holds, 1 one does not, 2 wrong input.",
    )  # fmt: skip
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("texts", nargs="*", metavar="TEXT", help="texts to certify; '-' reads one a line from stdin")
    add("--file", type=Path, metavar="F", help="a file with one text a line")
    add("--pair", metavar="TEXT", help="second text, for models of sentence pairs")
    add("--model", metavar="NAME_OR_PATH", help="Hub name or folder (default: the embedded model)")
    add("--form", choices=FORMS, default="efficient", help="which rows take its place (default: efficient)")
    add("--tolerance", type=float, default=0.0, metavar="T", help="of efficient rows, in [0, 1) (default 0, exact)")
    add("--json", type=Path, metavar="F", help="write the certificates as JSON; '-' prints them instead")
    add("--quiet", action="store_true", help="print nothing but warnings and errors")


def run_certify(
    options: argparse.Namespace,
    read: Callable[[argparse.Namespace], list[Any]],
    load: Callable[[argparse.Namespace], tuple[Any, Any]],
    show: Callable[[str], None],
) -> int:
    """Certify the texts; returns 0 where every certificate holds, 1 where one does not, 2 for wrong input.

    Args:
        options: of the command line.
        read: the texts that they name.
        load: the model and tokenizer that they name.
        show: prints.
    """
    try:
        texts = read(options)
        to_stdout = options.json is not None and str(options.json) == "-"
        if options.json is not None and not to_stdout and not options.json.parent.is_dir():
            raise InvalidInput(f"--json {options.json}: there is no folder {options.json.parent}; make it first.")
        model, tokenizer = load(options)
        found = certify(model, texts, tokenizer=tokenizer, form=options.form, tolerance=options.tolerance)
        assert isinstance(found, list)
        if options.json is not None:
            text = json.dumps([one.to_dict() for one in found], allow_nan=False, ensure_ascii=False)
            show(text) if to_stdout else options.json.write_text(text + "\n", encoding="utf-8")
    except BrokenPipeError:
        raise
    except (HfAttnMiError, OSError) as error:
        print(f"hf-attn-mi: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if not options.quiet and not to_stdout:
        show("\n\n".join(_headed(one, len(found) > 1) for one in found))
    return 0 if all(one.holds for one in found) else 1


def _headed(one: Certificate, several: bool) -> str:
    return f"{' | '.join(one.texts)}\n{one.to_words()}" if several else one.to_words()
