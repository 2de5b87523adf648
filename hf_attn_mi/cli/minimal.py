"""`hf-attn-mi minimal TEXT...`: the tokens that carry a prediction; the exit status says whether that is shown."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from hf_attn_mi.cli import options as opt
from hf_attn_mi.cli.exit_codes import INTERRUPTED, exit_code, outcomes_of
from hf_attn_mi.cli.loading import import_libraries, reads_of
from hf_attn_mi.cli.media import Inputs, load_for, read_inputs
from hf_attn_mi.cli.output import check_files, is_stdout, show, until_interrupted, warnings_as_lines, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_attn_mi import Results, TokenSet
    from hf_attn_mi.tasks.recheck import Recheck

RANDOM, NONE = "random", "none"  # rankings that are not methods


def minimal(
    texts: opt.Texts = None,
    file: opt.TextFile = None,
    pair: opt.Pair = None,
    choice: opt.Choices = None,
    image: opt.Images = None,
    audio: opt.Recordings = None,
    model: opt.Model = None,
    is_split_into_words: opt.SplitIntoWords = False,
    truncate: opt.Truncate = False,
    errors: opt.Errors = "raise",
    target: opt.Targets = None,
    keep: Annotated[
        float, opt.method_option(metavar="P", help="Share of its probability that the set keeps, in (0, 1].")
    ] = 0.9,
    strict: Annotated[
        bool,
        opt.method_option(
            "--strict", help="The remaining tokens must change the prediction, not only fall short of --keep."
        ),
    ] = False,
    ranking: Annotated[
        str,
        opt.method_name(help="What ranks the tokens before the search: a method (`hf-attn-mi methods`) or 'random'."),
    ] = "relevance",
    second_ranking: Annotated[
        str,
        opt.method_name(
            help="Ranking of a second search, whose set is compared with the first: a method, 'random' or 'none'."
        ),
    ] = RANDOM,
    budget: opt.Budget = 200.0,
    batch_size: opt.BatchSize = 16,
    seed: opt.Seed = 0,
    check: Annotated[
        bool,
        opt.method_option(
            "--check", help="Run every set of the proof again, one whole text at a time, and compare all numbers."
        ),
    ] = False,
    json: opt.Json = None,
    quiet: opt.Quiet = False,
) -> int:
    """Find tokens that carry the prediction: they suffice, the others do not, and none of them can be left out."""
    inputs = read_inputs(texts, file, pair, image, audio, choice, is_split_into_words=is_split_into_words)
    check_files(json)
    import_libraries()
    opt.check_names("--ranking", [ranking], [RANDOM, *opt.method_names()])
    opt.check_names("--second-ranking", [second_ranking], [NONE, RANDOM, *opt.method_names()])

    from hf_attn_mi import TokenSet, minimal_tokens

    classifier, preparer = load_for(inputs, model, quiet=quiet, reads=reads_of(target or (), model))
    checks: list[Recheck | None] = []
    with warnings_as_lines(quiet):
        token_sets, interrupted = until_interrupted(
            lambda: minimal_tokens(
                classifier,
                inputs.items,
                **preparer,
                **opt.read_targets(target, classifier),
                keep=keep,
                strict=strict,
                ranking=ranking,
                second_ranking=None if second_ranking == NONE else second_ranking,
                budget=budget,
                batch_size=batch_size,
                seed=seed,
                truncation=truncate,
                is_split_into_words=is_split_into_words,
                errors=errors,
            ),
            len(inputs.items),
        )
        assert not isinstance(token_sets, TokenSet)  # a list of texts gives a list of results
        try:
            if check and not interrupted:
                _recheck(classifier, preparer, inputs, token_sets, checks)
        finally:  # an interruption of the checks does not lose the sets
            write_json(with_checks(token_sets.to_dicts(), checks), json)
    if not quiet and not is_stdout(json):
        show("\n".join([token_sets.to_text(), *verdicts(checks, len(inputs.items))]))
    if interrupted:
        return INTERRUPTED
    return exit_code([*outcomes_of(token_sets), *("does not hold" for one in checks if one and not one.holds)])


def _recheck(
    model: PreTrainedModel,
    preparer: dict[str, Any],
    inputs: Inputs,
    token_sets: Results[TokenSet],
    checks: list[Recheck | None],
) -> None:
    """Append the check of each set, None for an input that was skipped."""
    from tqdm import tqdm

    from hf_attn_mi import recheck
    from hf_attn_mi.results import SkippedInput

    hidden = len(token_sets) < 2 or not sys.stderr.isatty()
    with warnings.catch_warnings():
        # The search has already warned of this text, with its own number.
        warnings.filterwarnings("ignore", "input 0 was cut", UserWarning)
        for place, token_set in enumerate(tqdm(token_sets, desc="check", unit="input", disable=hidden)):
            skipped = isinstance(token_set, SkippedInput)
            number = token_set.info.get("input", place) if not skipped else place  # several targets of an input
            item = None if inputs.kind == "text" else inputs.items[number]  # a set holds its texts
            checks.append(None if skipped else recheck(model, token_set, inputs=item, **preparer))


def with_checks(data: list[dict[str, Any]], checks: Sequence[Recheck | None]) -> list[dict[str, Any]]:
    """Return saved results with the check of each that was checked beside it; `from_dict` leaves the check unread."""
    checked = [{**one, "check": vars(check)} if check else one for one, check in zip(data, checks)]
    return checked + data[len(checks) :]


def verdicts(checks: Sequence[Recheck | None], inputs: int | None = None) -> list[str]:
    """Return a line for each check, with its number where there are several: of its result with more than `inputs`."""
    noun, lines = "result" if inputs is not None and len(checks) > inputs else "text", []
    for number, check in enumerate(checks):
        if check is None:
            continue
        if check.holds:
            verdict = f"every number was reproduced (largest difference {check.difference:.1e})."
        else:
            verdict = f"FAILED: {'; '.join(check.reasons)}."
        lines.append(f"Check{f' of {noun} {number}' if len(checks) > 1 else ''}: {verdict}")
    return lines
