"""`hf-attn-mi report TEXT... --html FILE`: everything about some predictions on one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from hf_attn_mi.cli import options as opt
from hf_attn_mi.cli.exit_codes import DOES_NOT_HOLD, DONE, INTERRUPTED
from hf_attn_mi.cli.loading import import_libraries, reads_of
from hf_attn_mi.cli.media import Inputs, load_for, read_inputs
from hf_attn_mi.cli.output import (
    Finished,
    check_files,
    is_stdout,
    nothing_to_keep,
    show,
    until_interrupted,
    warnings_as_lines,
    write_json,
    write_text,
)
from hf_attn_mi.cli.summarize import read_corpus
from hf_attn_mi.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from hf_attn_mi import Report

Attention = Literal["auto", "all", "top", "rows", "none"]
DEFAULT_PAGE = Path("report.html")


def report(
    texts: opt.Texts = None,
    file: opt.TextFile = None,
    pair: opt.Pair = None,
    choice: opt.Choices = None,
    image: opt.Images = None,
    audio: opt.Recordings = None,
    model: opt.Model = None,
    second_model: Annotated[
        str | None,
        opt.input_option(metavar="NAME_OR_PATH", help="Another model, shown beside the first on the same texts."),
    ] = None,
    is_split_into_words: opt.SplitIntoWords = False,
    truncate: opt.Truncate = False,
    stride: opt.Stride = None,
    aggregation: opt.Aggregation = "mean",
    errors: opt.Errors = "raise",
    target: opt.Targets = None,
    candidate_labels: opt.CandidateLabels = None,
    label: Annotated[
        list[str] | None,
        opt.input_option(metavar="LABEL", help="The correct class of each text, in their order; repeat the option."),
    ] = None,
    method: opt.Method = "relevance",
    also: Annotated[
        list[str] | None,
        opt.method_name(help="A further method, shown below the first; repeat the option.", show_default=False),
    ] = None,
    attention: Annotated[
        Attention,
        opt.method_option(help="Attention matrices on the page; auto chooses by the number of tokens and texts."),
    ] = "auto",
    compare: Annotated[
        bool, opt.method_option("--compare", help="Compare methods on these texts and show the recommendation.")
    ] = False,
    profile: Annotated[
        Path | None,
        opt.method_option(metavar="FOLDER", help="What 'mi --save' wrote: adds information, layer by layer."),
    ] = None,
    corpus: Annotated[
        Path | None,
        opt.input_option(
            metavar="FOLDER",
            help="What 'explain-dataset' wrote, or a file of 'summarize --json': adds what the model has learned from "
            "the data set; without TEXT alone.",
        ),
    ] = None,
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 16,
    html: opt.Html = DEFAULT_PAGE,
    json: opt.Json = None,
    quiet: opt.Quiet = False,
) -> int:
    """Write an interactive page: words, classes, minimal token set, certificate, attention, other methods."""
    check_files(json, html=html)
    if corpus is not None and not (texts or file or image or audio):
        return _about_corpus(corpus, html, json, quiet=quiet)
    inputs = read_inputs(texts, file, pair, image, audio, choice, is_split_into_words=is_split_into_words)
    _check(inputs, compare, profile, label)
    import_libraries()
    opt.check_names("--method", [method], opt.method_names())
    opt.check_names("--also", also or (), opt.method_names())

    from hf_attn_mi import InformationProfile
    from hf_attn_mi import report as make_report
    from hf_attn_mi.tasks.report import METHODS

    information = None if profile is None else InformationProfile.load(profile)
    summary = None if corpus is None else read_corpus(corpus)
    names = [model] if second_model is None else [model, second_model]
    known = opt.read_labels(candidate_labels)
    loaded = [load_for(inputs, name, quiet=quiet, reads=reads_of(target or (), name)) for name in names]
    settings: dict[str, Any] = {
        "truncation": truncate,
        "is_split_into_words": is_split_into_words,
        "batch_size": batch_size,
        "seed": seed,
    }
    pages: list[Report] = []
    interrupted = False
    with warnings_as_lines(quiet), nothing_to_keep("No input was finished."):
        for place, (classifier, preparer) in enumerate(loaded):
            chosen = opt.read_targets(target, classifier, known=known)
            task = partial(
                make_report,
                classifier,
                inputs.items,
                **preparer,
                **chosen,
                **settings,
                labels=None if label is None else [opt.read_target(one, classifier, known=known) for one in label],
                method=method,
                methods=METHODS if also is None else also,
                attention=None if attention == "auto" else attention,
                profile=information if place == 0 else None,
                corpus=summary if place == 0 else None,
                stride=stride,
                aggregation=aggregation,
                errors=errors,
                candidate_labels=known,
            )
            page, interrupted = _finished(task, len(inputs.items), pages)
            if page is not None and compare and not interrupted:
                same = {"target": _comparison_target(chosen, known, classifier, preparer), **preparer, **settings}
                page, interrupted = _with_comparison(page, inputs.items, classifier, **same)
            pages += [] if page is None else [page]
            if interrupted:
                break
    _write(pages, html, json, quiet=quiet)
    if interrupted:
        return INTERRUPTED
    return DOES_NOT_HOLD if pages[0].skipped or pages[-1].skipped else DONE


def _check(inputs: Inputs, compare: bool, profile: Path | None, label: Sequence[str] | None) -> None:
    """Refuse options that do not fit the inputs, before the libraries are imported.

    Raises:
        InvalidInputError: names the option.
    """
    if compare and inputs.kind != "text":
        raise InvalidInputError(f"--compare: methods are compared on texts, not on --{inputs.kind}.")
    if profile is not None and not profile.exists():
        raise InvalidInputError(f"--profile {profile}: there is no such folder; 'hf-attn-mi mi --save' writes one.")
    if label is not None and len(label) != len(inputs.items):
        raise InvalidInputError(
            f"--label: {counted(len(label), 'label')} for {counted(len(inputs.items), 'input')}; give one for each."
        )


def _about_corpus(corpus: Path, html: Path | None, json: Path | None, *, quiet: bool) -> int:
    """The report about a data set alone, which needs no model."""
    import_libraries()
    from hf_attn_mi import report as make_report

    _write([make_report(corpus=read_corpus(corpus))], html, json, quiet=quiet)
    return DONE


def _write(pages: Sequence[Report], html: Path | None, json: Path | None, *, quiet: bool) -> None:
    """Write and print one report, or two beside each other."""
    from hf_attn_mi import Report

    result: Any = pages[0].beside(pages[1]) if isinstance(pages[-1], Report) and len(pages) > 1 else pages[0]
    if json is not None:  # a list of explanations if the command was interrupted before the first page
        write_json(result.to_dict() if isinstance(result, Report) else result.to_dicts(), json)
    assert html is not None
    write_text(result.to_html(), html)
    if not quiet and not is_stdout(json):
        show(f"{result.to_text()}\n\nHTML page: {html.resolve()}")


def _with_comparison(page: Report, inputs: Sequence[Any], model: Any, **options: Any) -> tuple[Report, bool]:
    """The page with a comparison of methods on its inputs, and whether Ctrl-C ended it."""
    from hf_attn_mi import Results
    from hf_attn_mi import compare as compare_methods

    skipped = {one.index for one in page.skipped}
    items = [item for i, item in enumerate(inputs) if i not in skipped]
    comparison, interrupted = _finished(partial(compare_methods, model, items, **options), len(items), [page])
    assert not isinstance(comparison, Results)  # of one target
    return replace(page, comparison=comparison), interrupted


def _finished(task: Callable[[], Finished], count: int, before: Sequence[object]) -> tuple[Finished | None, bool]:
    """What the task returns, or what it finished before Ctrl-C; nothing is no reason to lose what came before."""
    try:
        return until_interrupted(task, count)
    except KeyboardInterrupt:
        if not before:
            raise
        return None, True


def _comparison_target(
    chosen: Mapping[str, Any], labels: list[str] | None, model: Any, preparer: Mapping[str, Any]
) -> Any:
    """The target of the page, on which methods are compared: the first one where there are several."""
    from hf_attn_mi.models.runner import EncoderRunner
    from hf_attn_mi.models.targets import zero_shot

    several = chosen.get("targets")
    target = several[0] if isinstance(several, list) else chosen.get("target")
    return zero_shot(target, labels, EncoderRunner.of(model, **preparer))
