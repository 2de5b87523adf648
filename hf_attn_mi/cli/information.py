"""`hf-attn-mi mi --data F`: what each layer tells about the output, over a data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hf_attn_mi.api import fit_background
from hf_attn_mi.api.backgrounds.slots import SLOTS
from hf_attn_mi.cli.arguments import add_command, add_model, add_output
from hf_attn_mi.cli.loading import load_model
from hf_attn_mi.cli.output import check_files, is_stdout, show, warnings_as_lines, write_json
from hf_attn_mi.cli.statuses import DONE
from hf_attn_mi.errors import InvalidInput
from hf_attn_mi.mi.background import Background
from hf_attn_mi.mi.information import ESTIMATORS
from hf_attn_mi.views import plot_information
from hf_attn_mi.views.information import check_figure_path


def add_information(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = add_command(
        commands, "mi", "mutual information of layers and output over a data set",
        "Mutual information between the states of each layer and the model's output, over a data set.",
    )  # fmt: skip
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add("--data", required=True, metavar="FILE_OR_DATASET", help=".txt, .jsonl, .csv, .arrow ..., folder or Hub name")
    add_model(parser)
    add(
        "--layers", type=int, nargs="+", metavar="L", help="0 for the embeddings, i for layer i's output (default: all)"
    )
    add("--slots", nargs="+", choices=SLOTS, default=["tokens"], help="whose states (default: tokens, and the first)")
    add("--limit", type=int, metavar="N", help="most texts to read (default: all)")
    add("--batch-size", type=int, default=32, metavar="N", help="texts in one forward pass (default 32)")
    add("--estimator", choices=list(ESTIMATORS), default="auto", help="default: auto")
    add("--permutations", type=int, default=200, metavar="N", help="behind the p-values (default 200)")
    add("--seed", type=int, default=0, metavar="N", help="of every random draw (default 0)")
    add_output(parser, "the numbers")
    add("--plot", type=Path, metavar="F", help="write the curves over layers: .png, .svg or .pdf (extra 'plots')")
    add("--save", type=Path, metavar="DIR", help="save the background, for explain --background")


def _run(options: argparse.Namespace) -> int:
    check_files(options.json)  # before hours of work, not after
    if options.save is not None and options.save.exists():
        raise InvalidInput(f"--save {options.save}: it exists already; name another folder.")
    check_files(options.save)
    if options.plot is not None:
        check_figure_path(options.plot)
    model, tokenizer = load_model(options.model, quiet=options.quiet)
    with warnings_as_lines(options.quiet):
        background = fit_background(
            model, options.data, tokenizer=tokenizer, layers=options.layers, slots=tuple(options.slots),
            batch_size=options.batch_size, estimator=options.estimator, permutations=options.permutations,
            limit=options.limit, seed=options.seed,
        )  # fmt: skip
    if options.save is not None:
        background.save(options.save)
    if options.plot is not None:
        plot_information(background, options.plot)
    write_json(_numbers(background), options.json)
    if not options.quiet and not is_stdout(options.json):
        show(f"{background}\n{_ceiling_line(background.ceiling_check())}")
        if options.plot is not None:
            show(f"Figure: {options.plot.resolve()}")
    return DONE


def _numbers(background: Background) -> dict[str, Any]:
    """The background without its tensors, as data."""
    found = background.information
    each = ("nats", "lower", "upper", "p_value", "family_p_value", "null_mean", "share")
    columns = {name: values.tolist() for name in each if (values := getattr(found, name)) is not None}
    slots = [
        {**vars(slot), **{name: values[place] for name, values in columns.items()}, "part": found.parts[place]}
        for place, slot in enumerate(background.slots)
    ]
    return {
        "unit": "nats", "n": background.n, "labels": background.labels, "prior": background.prior.tolist(),
        "ceiling": background.ceiling, "ceiling_check": background.ceiling_check(), "slots": slots,
        "fingerprint": background.fingerprint, "info": background.info,
    }  # fmt: skip


def _ceiling_line(check: dict[str, Any]) -> str:
    if check["share"] is None:
        return "ceiling check: not possible; it needs the last state of the one token that the output is computed from."
    low, high = check["interval"]
    verdict = "reached" if check["reached"] else f"NOT reached (wanted: {check['wanted']:.0%})"
    place = f"'{check['slot']}' of layer {check['layer']}"
    return f"ceiling check: {place} has {check['share']:.1%} [{low:.1%}, {high:.1%}] of the ceiling: {verdict}."
