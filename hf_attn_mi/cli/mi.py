"""`hf-attn-mi mi --data F`: what each layer tells about the output, over a data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hf_attn_mi.cli.arguments import add_command, add_model, add_output
from hf_attn_mi.cli.exit_codes import DONE
from hf_attn_mi.cli.loading import load_model
from hf_attn_mi.cli.output import check_files, is_stdout, show, warnings_as_lines, write_json
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi.information import ESTIMATORS
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.results.plots import plot_information
from hf_attn_mi.results.plots.information import check_figure_path
from hf_attn_mi.tasks.fit_information import fit_information
from hf_attn_mi.tasks.sites import SLOTS


def add_information(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = add_command(
        commands,
        "mi",
        "mutual information of layers and output over a data set",
        "Mutual information between the states of each layer and the model's output, over a data set.",
    )
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add("--data", required=True, metavar="FILE_OR_DATASET", help=".txt, .jsonl, .csv, .arrow ..., folder or Hub name")
    add_model(parser)
    add(
        "--layers", type=int, nargs="+", metavar="L", help="0 for the embeddings, i for layer i's output (default: all)"
    )
    add("--sites", nargs="+", choices=SLOTS, default=["tokens"], help="whose states (default: tokens, and the first)")
    add("--limit", type=int, metavar="N", help="most texts to read (default: all)")
    add("--batch-size", type=int, default=32, metavar="N", help="texts in one forward pass (default 32)")
    add("--estimator", choices=list(ESTIMATORS), default="auto", help="default: auto")
    add("--permutations", type=int, default=200, metavar="N", help="behind the p-values (default 200)")
    add("--seed", type=int, default=0, metavar="N", help="of every random draw (default 0)")
    add_output(parser, "the numbers")
    add("--plot", type=Path, metavar="F", help="write the curves over layers: .png, .svg or .pdf (extra 'plots')")
    add("--save", type=Path, metavar="DIR", help="save the profile, for explain --profile")


def _run(options: argparse.Namespace) -> int:
    check_files(options.json)  # before hours of work, not after
    if options.save is not None and options.save.exists():
        raise InvalidInputError(f"--save {options.save}: it exists already; name another folder.")
    check_files(options.save)
    if options.plot is not None:
        check_figure_path(options.plot)
    model, tokenizer = load_model(options.model, quiet=options.quiet)
    with warnings_as_lines(options.quiet):
        profile = fit_information(
            model,
            options.data,
            tokenizer=tokenizer,
            layers=options.layers,
            sites=tuple(options.sites),
            batch_size=options.batch_size,
            estimator=options.estimator,
            permutations=options.permutations,
            limit=options.limit,
            seed=options.seed,
        )
    if options.save is not None:
        profile.save(options.save)
    if options.plot is not None:
        plot_information(profile, options.plot)
    write_json(_numbers(profile), options.json)
    if not options.quiet and not is_stdout(options.json):
        show(f"{profile}\n{_ceiling_line(profile.ceiling_check())}")
        if options.plot is not None:
            show(f"Figure: {options.plot.resolve()}")
    return DONE


def _numbers(profile: InformationProfile) -> dict[str, Any]:
    """The profile without its tensors, as data."""
    found = profile.information
    each = ("nats", "lower", "upper", "p_value", "family_p_value", "null_mean", "share")
    columns = {name: values.tolist() for name in each if (values := getattr(found, name)) is not None}
    sites = [
        {**vars(site), **{name: values[place] for name, values in columns.items()}, "part": found.parts[place]}
        for place, site in enumerate(profile.sites)
    ]
    return {
        "unit": "nats",
        "n": profile.n,
        "labels": profile.labels,
        "prior": profile.prior.tolist(),
        "ceiling": profile.ceiling,
        "ceiling_check": profile.ceiling_check(),
        "sites": sites,
        "fingerprint": profile.fingerprint,
        "info": profile.info,
    }


def _ceiling_line(check: dict[str, Any]) -> str:
    if check["share"] is None:
        return "ceiling check: not possible; it needs the last state of the one token that the output is computed from."
    low, high = check["interval"]
    verdict = "reached" if check["reached"] else f"NOT reached (wanted: {check['wanted']:.0%})"
    place = f"'{check['site']}' of layer {check['layer']}"
    return f"ceiling check: {place} has {check['share']:.1%} [{low:.1%}, {high:.1%}] of the ceiling: {verdict}."
