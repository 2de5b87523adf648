"""`hf-attn-mi certify TEXT...`: certificates in words; the exit status says whether they hold."""

from __future__ import annotations

import argparse
from typing import Any

from hf_attn_mi.cli.arguments import add_command, add_model, add_output, add_texts, read_texts
from hf_attn_mi.cli.exit_codes import DONE, FAILED
from hf_attn_mi.cli.loading import load_model
from hf_attn_mi.cli.output import check_files, headed, is_stdout, show, warnings_as_lines, write_json
from hf_attn_mi.tasks.certify import FORMS, certify


def add_certify(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = add_command(
        commands,
        "certify",
        "certify that few keys of each attention row suffice",
        "Put efficient attention in the place of the model's attention and certify what the prediction does. The exit "
        "status is 0 where every certificate holds and 1 where one does not.",
    )
    parser.set_defaults(run=_run)
    add_texts(parser, "certify")
    add_model(parser)
    add = parser.add_argument
    add("--form", choices=FORMS, default="efficient", help="which rows take its place (default: efficient)")
    add("--tolerance", type=float, default=0.0, metavar="T", help="of efficient rows, in [0, 1) (default 0, exact)")
    add_output(parser, "the certificates")


def _run(options: argparse.Namespace) -> int:
    texts = read_texts(options)
    check_files(options.json)
    model, tokenizer = load_model(options.model, quiet=options.quiet)
    with warnings_as_lines(options.quiet):
        found = certify(model, texts, tokenizer=tokenizer, form=options.form, tolerance=options.tolerance)
    assert isinstance(found, list)
    write_json([one.to_dict() for one in found], options.json)
    if not options.quiet and not is_stdout(options.json):
        show(headed([(one.texts, one.to_words()) for one in found]))
    return DONE if all(one.holds for one in found) else FAILED
