"""`main`: the parser of all commands, and what becomes of their errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from hf_attn_mi import __version__
from hf_attn_mi.cli.certify import add_certify
from hf_attn_mi.cli.compare import add_compare
from hf_attn_mi.cli.exit_codes import IN_WORDS, INTERRUPTED, PIPE_CLOSED, REFUSED
from hf_attn_mi.cli.explain import add_explain
from hf_attn_mi.cli.mi import add_information
from hf_attn_mi.cli.minimal import add_minimal
from hf_attn_mi.cli.models import add_models
from hf_attn_mi.cli.output import complain
from hf_attn_mi.errors import HfAttnMiError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0: done, and what the command claims holds. 1: done, but a claim does not hold or a part is missing. 2: refused
    (wrong usage, wrong input, a model that is not supported).
    """
    options = _parser().parse_args(arguments)
    try:
        status = int(options.run(options))
        sys.stdout.flush()  # a reader that went away is noticed here, not when Python ends
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (HfAttnMiError, OSError) as error:
        complain(error)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hf-attn-mi",
        epilog=IN_WORDS,
        description="Which tokens and which attention weights made this prediction, and how do you know?",
    )
    parser.add_argument("--version", action="version", version=f"hf-attn-mi {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_explain, add_certify, add_minimal, add_compare, add_information, add_models):
        add(commands)
    return parser
