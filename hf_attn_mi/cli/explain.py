"""`hf-attn-mi explain TEXT...`: token scores in the terminal, as JSON and as a page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hf_attn_mi.cli.arguments import (
    add_command,
    add_model,
    add_output,
    add_texts,
    read_settings,
    read_target,
    read_texts,
)
from hf_attn_mi.cli.exit_codes import DONE
from hf_attn_mi.cli.loading import load_model
from hf_attn_mi.cli.output import check_files, in_color, is_stdout, show, warnings_as_lines, write_json
from hf_attn_mi.methods.registry import METHODS
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.results.rendering import html_page
from hf_attn_mi.tasks.explain import explain


def add_explain(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = add_command(commands, "explain", "explain texts", "Explain the prediction of a model on texts.")
    parser.set_defaults(run=_run)
    add_texts(parser, "explain")
    add_model(parser)
    add = parser.add_argument
    add("--target", metavar="LABEL", help="class to explain, a label or a number (default: the predicted)")
    add(
        "--method",
        choices=list(METHODS),
        default="relevance",
        help="default: relevance; attnlrp_iterative: a more faithful order of the tokens, at up to four times the cost",
    )
    add("--options", metavar="JSON", help="settings of the method, such as '{\"steps\": 20}'")
    add(
        "--profile",
        type=Path,
        metavar="DIR",
        help="what 'mi --save' wrote: adds what each token tells about the output, layer by layer",
    )
    add("--batch-size", type=int, default=16, metavar="N", help="texts in one forward pass (default 16)")
    add("--truncate", action="store_true", help="cut texts too long for the model, with a warning")
    add_output(parser, "the explanations")
    add("--html", type=Path, metavar="F", help="write one self-contained HTML page")


def _run(options: argparse.Namespace) -> int:
    texts = read_texts(options)
    settings = read_settings(options.options, '{"steps": 20}')
    check_files(options.json, options.html)
    profile = None if options.profile is None else InformationProfile.load(options.profile)
    model, tokenizer = load_model(options.model, quiet=options.quiet)
    with warnings_as_lines(options.quiet):
        results = explain(
            model,
            texts,
            tokenizer=tokenizer,
            target=read_target(options.target, model),
            method=options.method,
            profile=profile,
            batch_size=options.batch_size,
            truncation=options.truncate,
            options=settings,
        )
    assert isinstance(results, list)
    write_json([result.to_dict() for result in results], options.json)
    printing = not options.quiet and not is_stdout(options.json)
    if printing:
        color = in_color()
        show("\n\n".join(_in_words(result, color) for result in results))
    if options.html is not None:
        page = html_page([result._repr_html_() for result in results], f"Explanation: {results[0].info['model']}")
        options.html.write_text(page, encoding="utf-8")
        if printing:
            show(f"\nHTML page: {options.html.resolve()}")
    return DONE


def _in_words(result: Explanation, color: bool) -> str:
    return "\n".join([result.to_terminal(color=color), *_information_lines(result)])


def _information_lines(result: Explanation, most: int = 3) -> list[str]:
    """For each layer of the profile the tokens whose state tells most about the output; none without one."""
    told = result.information
    if told is None:
        return []
    lines = [
        f"What single states tell about the output, nats (KL; {told['n']} texts, ceiling of their mean "
        f"{told['ceiling']:.3g}), most first:"
    ]
    own = [place for place, special in enumerate(result.special) if not special]
    for layer in told["layers"]:
        first = sorted(own, key=lambda place, kl=layer["kl"]: -kl[place])[:most]  # type: ignore[misc]
        tokens = ", ".join(f"{result.tokens[place]!r} {layer['kl'][place]:.3g}" for place in first)
        lines.append(f"  layer {layer['layer']}: {tokens}")
    return lines
