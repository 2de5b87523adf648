"""The application of all commands, and `main`, which turns their errors into a line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from hf_attn_mi import __version__
from hf_attn_mi.cli.certify import certify
from hf_attn_mi.cli.compare import CompareCommand, compare
from hf_attn_mi.cli.exit_codes import FAULT, INTERRUPTED, PIPE_CLOSED, REFUSED, in_words
from hf_attn_mi.cli.explain import explain
from hf_attn_mi.cli.explain_dataset import explain_dataset
from hf_attn_mi.cli.methods import methods
from hf_attn_mi.cli.mi import mi
from hf_attn_mi.cli.minimal import minimal
from hf_attn_mi.cli.models import models
from hf_attn_mi.cli.options import ManyValues
from hf_attn_mi.cli.output import PROGRAM, complain, discard_output
from hf_attn_mi.cli.recheck import recheck
from hf_attn_mi.cli.report import report
from hf_attn_mi.cli.subgraph import subgraph
from hf_attn_mi.cli.summarize import summarize
from hf_attn_mi.errors import HfAttnMiError

TEXTS, DATA_SETS, LISTS = "Commands for texts", "Commands for a data set", "What there is"  # panels of the help

_TRACEBACK = "HF_ATTN_MI_TRACEBACK"  # environment variable: show the traceback of a defect

app = typer.Typer(name=PROGRAM, no_args_is_help=True, rich_markup_mode="rich")


def _epilog(statuses: str, *examples: str) -> str:
    """The end of a command's help: examples and exit statuses."""
    lines = "\n".join(f"  {PROGRAM} {example}" for example in examples)
    return f"[bold]Examples[/bold]\n{lines}\n\n{statuses}"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback(
    epilog=_epilog(
        in_words("done, and what the command claims holds", "a claim does not hold", "there is no claim to make"),
        'explain "A warm and funny film."',
        "explain --help",
        "--install-completion",
    )
)
def _application(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Which tokens and which attention weights made this prediction, and how do you know?"""


app.command(
    rich_help_panel=TEXTS,
    epilog=_epilog(
        in_words("done", "an input was skipped (--errors skip); the output says why"),
        'explain "A warm and funny film."',
        'explain --target negative --html page.html "A warm film."',
        'explain --target all "A warm film."',
        "explain --file reviews.txt --method rollout --json scores.json",
        "explain --method integrated_gradients --options '{\"steps\": 50}' TEXT",
    ),
)(explain)
app.command(
    rich_help_panel=TEXTS,
    epilog=_epilog(
        in_words("done"),
        'report "A warm and funny film."',
        "report --file reviews.txt --compare --html reviews.html",
        'report --label positive --also lime --also rollout "A warm and funny film."',
        'report --corpus reviews "A warm and funny film."',
    ),
)(report)
app.command(
    rich_help_panel=TEXTS,
    epilog=_epilog(
        in_words("every certificate holds", "a certificate does not hold", "a text has no row that could change"),
        'certify "A warm and funny film." && echo holds',
        "certify --file reviews.txt --tolerance 0.1 --json certificates.json",
    ),
)(certify)
app.command(
    rich_help_panel=TEXTS,
    epilog=_epilog(
        in_words(
            "each text has a locally minimal set (and, with --check, every number of it was reproduced)",
            "a set is not shown to be minimal, or its check failed",
            "a text has no set: the special tokens alone give the same answer",
        ),
        'minimal --check "A warm and funny film."',
        "minimal --file reviews.txt --keep 0.8 --strict --json sets.json",
    ),
)(minimal)
app.command(
    rich_help_panel=TEXTS,
    epilog=_epilog(
        in_words(
            "each text has a locally minimal set (and, with --check, every number of it was reproduced)",
            "a set was not found or is not shown to be minimal, or its check failed",
            "a text has no set: without any attention the model gives the same answer",
        ),
        'subgraph --check "A warm and funny film."',
        "subgraph --unit head --file reviews.txt --json sets.json",
        'subgraph --others 3 --removal renormalized --removal missing --removal mean "A warm and funny film."',
    ),
)(subgraph)
app.command(
    rich_help_panel=TEXTS,
    epilog=_epilog(
        in_words("every number was reproduced, and every set holds", "a result does not hold; the output says why"),
        "recheck sets.json && echo holds",
        "recheck subgraph.json.gz --model NAME_OR_PATH",
    ),
)(recheck)
app.command(
    name="explain-dataset",
    rich_help_panel=DATA_SETS,
    epilog=_epilog(
        in_words("done; rows that failed are in the errors files"),
        "explain-dataset --data reviews.jsonl --output reviews --dry-run",
        "explain-dataset --data reviews.jsonl --output reviews --truncate",
        "explain-dataset --data pairs.csv --output pairs --columns text=a --columns text_pair=b --columns label=gold",
    ),
)(explain_dataset)
app.command(
    rich_help_panel=DATA_SETS,
    epilog=_epilog(
        in_words("done"),
        "summarize reviews --html learned.html",
        "summarize reviews --least 5 --words 50 --json summary.json --plot learned.png",
    ),
)(summarize)
app.command(
    cls=CompareCommand,
    rich_help_panel=DATA_SETS,
    epilog=_epilog(
        in_words("every method has its results", "a method failed; the output says why"),
        "compare --data reviews.jsonl --n 100 --html comparison.html",
        "compare --data marked.jsonl --rationales --methods relevance lime",
        'compare --data sst2:train --methods lime --options \'{"lime": {"samples": 500}}\'',
    ),
)(compare)
app.command(
    cls=ManyValues,
    rich_help_panel=DATA_SETS,
    epilog=_epilog(
        in_words("done"),
        "mi --data reviews.jsonl --plot layers.png --save profile",
        "mi --data sst2:train --limit 2000 --layers 0 3 6 --sites tokens attention",
    ),
)(mi)
app.command(rich_help_panel=LISTS, epilog=_epilog(in_words("done"), "methods"))(methods)
app.command(rich_help_panel=LISTS, epilog=_epilog(in_words("done"), "models", "models --all"))(models)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the name of the program; by default those of the process.

    Returns:
        The exit status, see `hf_attn_mi.cli.exit_codes`. Every error is one line on standard error.
    """
    try:
        _occupy_closed_streams()
        command = typer.main.get_command(app)
        status = command.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except typer.TyperException as error:  # wrong usage
        _complain_of_usage(error)
        return REFUSED
    except BrokenPipeError:
        discard_output()
        return PIPE_CLOSED
    except (HfAttnMiError, OSError) as error:
        complain(error)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        complain(
            f"a defect of this program: {type(error).__name__}: {error}. Please report it, with the traceback that "
            f"{_TRACEBACK}=1 in the environment shows."
        )
        return FAULT
    return int(status or 0)


def _occupy_closed_streams() -> None:
    """Replace closed standard streams by the null device.

    Else the first files that are opened would get their numbers, and libraries would fail that look at standard error.
    `sys.stdout` stays None: a command that has something to print says that it cannot.
    """
    for number, stream in enumerate((sys.__stdin__, sys.__stdout__, sys.__stderr__)):
        if stream is None:
            try:
                os.fstat(number)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)


def _complain_of_usage(error: typer.TyperException) -> None:
    """Print the error and how to get help; without arguments, the help was already printed."""
    options: Sequence[str] = getattr(error, "possibilities", None) or ()
    message = error.format_message().replace("Value error, ", "").rstrip(".")  # pydantic's prefix says nothing
    if options:
        message = f"{error.message}. Did you mean {' or '.join(map(repr, options))}"
    if message:
        context: typer.Context | None = getattr(error, "ctx", None)
        end = "?" if "Did you mean" in message else "."
        complain(f"{message.rstrip('?')}{end} Try '{context.command_path if context else PROGRAM} --help'.")
