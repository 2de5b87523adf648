"""`hf-attn-mi subgraph TEXT...`: the attention weights that carry a prediction; the exit status says if it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from hf_attn_mi.cli import options as opt
from hf_attn_mi.cli.exit_codes import INTERRUPTED, exit_code, outcomes_of
from hf_attn_mi.cli.loading import import_libraries, reads_of
from hf_attn_mi.cli.media import load_for, read_inputs
from hf_attn_mi.cli.output import (
    check_files,
    is_stdout,
    show,
    until_interrupted,
    warnings_as_lines,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    from hf_attn_mi.tasks.recheck import Recheck

Unit = Literal["edge", "head", "layer", "token"]
Ranking = Literal["gradient", "relevance", "attention", "random"]


def subgraph(
    texts: opt.Texts = None,
    file: opt.TextFile = None,
    pair: opt.Pair = None,
    choice: opt.Choices = None,
    model: opt.Model = None,
    is_split_into_words: opt.SplitIntoWords = False,
    truncate: opt.Truncate = False,
    errors: opt.Errors = "raise",
    target: opt.Targets = None,
    unit: Annotated[
        Unit, opt.method_option(help="What is kept or removed as one: 'edge' is a single attention weight.")
    ] = "edge",
    keep: Annotated[
        float, opt.method_option(metavar="P", help="Share of its probability that the set keeps, in (0, 1].")
    ] = 0.9,
    lenient: Annotated[
        bool,
        opt.method_option(
            "--lenient", help="The rest need not change the prediction: it is enough that it falls short of --keep."
        ),
    ] = False,
    ranking: Annotated[Ranking, opt.method_option(help="Method that ranks the units before the search.")] = "gradient",
    others: Annotated[
        int, opt.method_option(metavar="N", help="Further sets to search, and what all of them have in common.")
    ] = 0,
    removals: Annotated[
        list[str] | None,
        opt.method_option(
            "--removal",
            help="Kind of removal; the search uses the first, and the set is run again under each further one "
            "(renormalized by default; missing, mean, resample).",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        opt.method_option(metavar="TEXT", help="A text that is at least as long as the input, for --removal resample."),
    ] = None,
    deeper: Annotated[
        bool, opt.method_option("--deeper", help="Also remove pairs and random subsets of the set.")
    ] = False,
    budget: opt.Budget = 10_000.0,
    batch_size: opt.BatchSize = 16,
    seed: opt.Seed = 0,
    check: Annotated[
        bool,
        opt.method_option(
            "--check", help="Run every set of the result again, one whole text at a time, and compare all numbers."
        ),
    ] = False,
    json: opt.Json = None,
    html: opt.Html = None,
    quiet: opt.Quiet = False,
) -> int:
    """Find attention weights that carry the prediction: they suffice, the others do not, and none can be left out."""
    inputs = read_inputs(texts, file, pair, choices=choice, is_split_into_words=is_split_into_words)
    check_files(json, html=html)
    import_libraries()

    from hf_attn_mi import AttentionSubgraph, minimal_attention, recheck
    from hf_attn_mi.cli.minimal import verdicts, with_checks
    from hf_attn_mi.results import SkippedInput

    classifier, preparer = load_for(inputs, model, quiet=quiet, reads=reads_of(target or (), model))
    checks: list[Recheck | None] = []
    with warnings_as_lines(quiet):
        subgraphs, interrupted = until_interrupted(
            lambda: minimal_attention(
                classifier,
                inputs.items,
                **preparer,
                **opt.read_targets(target, classifier),
                unit=unit,
                keep=keep,
                strict=not lenient,
                ranking=ranking,
                others=others,
                removals=tuple(removals or ("renormalized",)),
                reference=reference,
                deeper=deeper,
                budget=budget,
                batch_size=batch_size,
                seed=seed,
                truncation=truncate,
                is_split_into_words=is_split_into_words,
                errors=errors,
            ),
            len(inputs.items),
        )
        assert not isinstance(subgraphs, AttentionSubgraph)  # a list of texts gives a list of results
        try:
            if check and not interrupted:
                for one in subgraphs:
                    skipped = isinstance(one, SkippedInput)
                    checks.append(None if skipped else recheck(classifier, one, **preparer))
        finally:  # an interruption of the checks does not lose the sets
            write_json(with_checks(subgraphs.to_dicts(), checks), json)
    if html is not None:
        write_text(subgraphs.to_html(), html)
    if not quiet and not is_stdout(json):
        show("\n".join([subgraphs.to_text(), *verdicts(checks, len(inputs.items))]))
    if interrupted:
        return INTERRUPTED
    return exit_code([*outcomes_of(subgraphs), *("does not hold" for one in checks if one and not one.holds)])
