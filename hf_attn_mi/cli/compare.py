"""`hf-attn-mi compare --data F`: which method's explanations to trust on these texts, in one table."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_attn_mi.cli.arguments import add_command, add_model, add_output, read_settings, read_target
from hf_attn_mi.cli.exit_codes import DONE, FAILED
from hf_attn_mi.cli.loading import load_model
from hf_attn_mi.cli.output import check_files, complain, is_stdout, show, warnings_as_lines, write_json
from hf_attn_mi.cli.samples import Sample, draw_texts
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import METRICS
from hf_attn_mi.methods.registry import METHODS
from hf_attn_mi.models.removal import WAYS
from hf_attn_mi.results.comparison import Comparison
from hf_attn_mi.results.plots import plot_comparison
from hf_attn_mi.results.plots.information import check_figure_path
from hf_attn_mi.tasks.compare import DEFAULT_METHODS, DEFAULT_METRICS, compare

EVERY = "all"


def add_compare(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = add_command(
        commands,
        "compare",
        "judge the explanations of several methods on the same texts",
        "Explain the same texts by several methods and judge them by what happens to the prediction when tokens are "
        "removed: a table of methods by metrics with 95 % intervals, cost and a recommendation. The exit status is 0 "
        "where every method has its results and 1 where one failed.",
    )
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add("--data", required=True, metavar="FILE_OR_DATASET", help=".txt, .jsonl, .csv, .arrow ..., folder or Hub name")
    add_model(parser)
    add(
        "--methods",
        nargs="+",
        choices=list(METHODS),
        metavar="METHOD",
        default=list(DEFAULT_METHODS),
        help=f"of {', '.join(METHODS)} (default: {' '.join(DEFAULT_METHODS)})",
    )
    add(
        "--metrics",
        nargs="+",
        choices=[*METRICS, EVERY],
        metavar="METRIC",
        default=list(DEFAULT_METRICS),
        help=f"of {', '.join(METRICS)}, or {EVERY}; the first decides (default: {' '.join(DEFAULT_METRICS)})",
    )
    add("--n", type=int, default=200, metavar="N", help="texts, drawn at random from the data (default 200)")
    add("--target", metavar="LABEL", help="class to explain, a label or a number (default: the predicted)")
    add("--removal", choices=WAYS, default="delete", help="how tokens are taken away (default: delete)")
    add("--options", metavar="JSON", help='settings of methods, such as \'{"lime": {"samples": 500}}\'')
    add(
        "--rationales",
        nargs="?",
        const="rationale",
        metavar="FIELD",
        help="column of the data with 0 or 1 for each word of the column 'tokens' (default: rationale), for the "
        "metrics that compare with people",
    )
    add("--batch-size", type=int, default=32, metavar="N", help="sequences in one forward pass (default 32)")
    add(
        "--truncate",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="cut texts too long for the model, with a warning (default), or refuse them",
    )
    add("--seed", type=int, default=0, metavar="N", help="of every random draw (default 0)")
    add_output(parser, "the comparison")
    add("--markdown", type=Path, metavar="F", help="write the tables as Markdown")
    add("--html", type=Path, metavar="F", help="write one self-contained HTML page")
    add("--plot", type=Path, metavar="F", help="write the figure: .png, .svg or .pdf (extra 'plots')")


def _run(options: argparse.Namespace) -> int:
    settings = _settings(options)
    check_files(options.json, options.markdown, options.html)  # before an hour of work, not after
    if options.plot is not None:
        check_figure_path(options.plot)
    sample = draw_texts(options.data, options.n, rationales=options.rationales, seed=options.seed)
    model, tokenizer = load_model(options.model, quiet=options.quiet)
    with warnings_as_lines(options.quiet):
        found = compare(
            model,
            sample.texts,
            methods=options.methods,
            rationales=sample.rationales,
            tokenizer=tokenizer,
            target=read_target(options.target, model),
            removal=options.removal,
            metrics=EVERY if EVERY in options.metrics else options.metrics,
            options=settings,
            batch_size=options.batch_size,
            truncation=options.truncate,
            seed=options.seed,
        )
    drawn = {"name": options.data, "found": sample.found, "drawn": len(sample.texts), "empty": sample.empty}
    write_json({**found.to_dict(), "data": drawn}, options.json)
    printing = not options.quiet and not is_stdout(options.json)
    if printing:
        show(f"{_drawn(sample, options)}\n{found}")
    for path in _written(found, options):
        if printing:
            show(f"Written: {path.resolve()}")
    if options.quiet:  # the table names them, too
        for method, reason in found.failures.items():
            complain(f"warning: {method} failed: {reason}")
    return FAILED if found.failures else DONE


def _settings(options: argparse.Namespace) -> dict[str, Any] | None:
    """The settings of each method.

    Raises:
        InvalidInputError: not an object of objects, or a method that is not compared.
    """
    example = '{"lime": {"samples": 500}}'
    found = read_settings(options.options, example)
    for method, own in (found or {}).items():
        if method not in options.methods:
            raise InvalidInputError(
                f"--options: {method!r} is not compared; --methods are {', '.join(options.methods)}."
            )
        if not isinstance(own, dict):
            raise InvalidInputError(f"--options: {method!r} needs an object of its settings, such as '{example}'.")
    return found


def _drawn(sample: Sample, options: argparse.Namespace) -> str:
    count = len(sample.texts)
    text = f"all {count} texts" if count == sample.found else f"{count} of {sample.found} texts, drawn at random"
    empty = f"; {sample.empty} rows without a text were passed over" if sample.empty else ""
    return f"{options.data}: {text} (seed {options.seed}){empty}."


def _written(found: Comparison, options: argparse.Namespace) -> list[Path]:
    """The files that were asked for beside the JSON, now written."""
    pages: list[tuple[Path | None, Callable[[Path], Any]]] = [
        (options.markdown, lambda path: path.write_text(found.to_markdown(), encoding="utf-8")),
        (options.html, lambda path: path.write_text(found.to_html(), encoding="utf-8")),
        (options.plot, lambda path: plot_comparison(found, path)),
    ]
    for path, write in pages:
        if path is not None:
            write(path)
    return [path for path, _ in pages if path is not None]
