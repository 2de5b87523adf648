"""`hf-attn-mi minimal TEXT...`: the tokens that carry a prediction; the exit status says whether that is shown."""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import Any

from tqdm import tqdm

from hf_attn_mi.cli.arguments import add_command, add_model, add_output, add_texts, read_target, read_texts
from hf_attn_mi.cli.exit_codes import DONE, FAILED
from hf_attn_mi.cli.loading import load_model
from hf_attn_mi.cli.output import check_files, headed, is_stdout, show, warnings_as_lines, write_json
from hf_attn_mi.results.token_set import TokenSet
from hf_attn_mi.tasks.minimal_tokens import minimal_tokens
from hf_attn_mi.tasks.recheck import Recheck, recheck


def add_minimal(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = add_command(
        commands,
        "minimal",
        "find the tokens that carry the prediction",
        "Search tokens that suffice for the prediction, while the rest does not and none of them can go. The exit "
        "status is 0 where each text has such a set (and, with --check, every number of it came out again), 1 where "
        "one has none, the budget ran out, or a check failed.",
    )
    parser.set_defaults(run=_run)
    add_texts(parser, "search")
    add_model(parser)
    add = parser.add_argument
    add("--target", metavar="LABEL", help="class to explain, a label or a number (default: the predicted)")
    add("--keep", type=float, default=0.9, metavar="P", help="share of its probability to keep, in (0, 1] (default .9)")
    add("--strict", action="store_true", help="the rest must change the prediction, not only fall short")
    add("--budget", type=float, default=200.0, metavar="N", help="most forwards of the whole text (default 200)")
    add("--batch-size", type=int, default=32, metavar="N", help="sequences in one forward pass (default 32)")
    add("--truncate", action="store_true", help="cut texts too long for the model, with a warning")
    add("--seed", type=int, default=0, metavar="N", help="of the random start of the second search (default 0)")
    add("--check", action="store_true", help="run every set of the proof again, one whole text at a time")
    add_output(parser, "the sets")


def _run(options: argparse.Namespace) -> int:
    texts = read_texts(options)
    check_files(options.json)
    model, tokenizer = load_model(options.model, quiet=options.quiet)
    with warnings_as_lines(options.quiet):
        found = minimal_tokens(
            model,
            texts,
            tokenizer=tokenizer,
            target=read_target(options.target, model),
            keep=options.keep,
            strict=options.strict,
            budget=options.budget,
            batch_size=options.batch_size,
            seed=options.seed,
            truncation=options.truncate,
        )
        assert isinstance(found, list)
        checks = _checks(model, tokenizer, found) if options.check else [None] * len(found)
    write_json([_as_data(one, check) for one, check in zip(found, checks)], options.json)
    if not options.quiet and not is_stdout(options.json):
        show(headed([(one.texts, _in_words(one, check)) for one, check in zip(found, checks)]))
    shown = all(one.defined and one.minimal and (check is None or check.holds) for one, check in zip(found, checks))
    return DONE if shown else FAILED


def _checks(model: Any, tokenizer: Any, found: list[TokenSet]) -> list[Recheck | None]:
    hidden = len(found) < 2 or not sys.stderr.isatty()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "input 0 was cut", UserWarning)  # the search said so, with the text's number
        return [
            recheck(model, one, tokenizer=tokenizer) for one in tqdm(found, desc="check", unit="input", disable=hidden)
        ]


def _as_data(one: TokenSet, check: Recheck | None) -> dict[str, Any]:
    """What `TokenSet.from_dict` takes; it leaves the check unread."""
    return one.to_dict() if check is None else {**one.to_dict(), "check": vars(check)}


def _in_words(one: TokenSet, check: Recheck | None) -> str:
    if check is None:
        return one.to_words()
    if check.holds:
        verdict = f"Checked: every number came out again (largest difference {check.difference:.1e})."
    else:
        verdict = f"The check FAILED: {'; '.join(check.reasons)}."
    return f"{one.to_words()}\n{verdict}"
