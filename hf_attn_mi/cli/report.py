"""`hf-attn-mi report TEXT... --html FILE`: everything about some predictions on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from hf_attn_mi.cli import options as opt
from hf_attn_mi.cli.exit_codes import DOES_NOT_HOLD, DONE
from hf_attn_mi.cli.loading import import_libraries, reads_of
from hf_attn_mi.cli.media import Inputs, load_for, read_inputs
from hf_attn_mi.cli.output import check_files, is_stdout, show, warnings_as_lines, write_json, write_text
from hf_attn_mi.errors import InvalidInputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_attn_mi import Comparison

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
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 16,
    html: opt.Html = DEFAULT_PAGE,
    json: opt.Json = None,
    quiet: opt.Quiet = False,
) -> int:
    """Write an interactive page: words, classes, minimal token set, certificate, attention, other methods."""
    inputs = read_inputs(texts, file, pair, image, audio, choice)
    check_files(json, html=html)
    if compare and inputs.kind != "text":
        raise InvalidInputError(f"--compare: methods are compared on texts, not on --{inputs.kind}.")
    if profile is not None and not profile.exists():
        raise InvalidInputError(f"--profile {profile}: there is no such folder; 'hf-attn-mi mi --save' writes one.")
    if label is not None and len(label) != len(inputs.items):
        raise InvalidInputError(f"--label: {len(label)} labels for {len(inputs.items)} inputs; give one for each.")
    import_libraries()
    opt.check_names("--method", [method], opt.method_names())
    opt.check_names("--also", also or (), opt.method_names())

    from hf_attn_mi import InformationProfile
    from hf_attn_mi import report as make_report
    from hf_attn_mi.tasks.report import METHODS

    information = None if profile is None else InformationProfile.load(profile)
    names = [model] if second_model is None else [model, second_model]
    known = opt.read_labels(candidate_labels)
    loaded = [load_for(inputs, name, quiet=quiet, reads=reads_of(target or (), name)) for name in names]
    results = []
    with warnings_as_lines(quiet):
        for place, (classifier, preparer) in enumerate(loaded):
            explained = opt.read_targets(target, classifier, known=known)
            report_of_model = make_report(
                classifier,
                inputs.items,
                **preparer,
                **explained,
                labels=None if label is None else [opt.read_target(one, classifier, known=known) for one in label],
                method=method,
                methods=METHODS if also is None else also,
                attention=None if attention == "auto" else attention,
                comparison=_compared(classifier, inputs, preparer, explained, known, seed) if compare else None,
                profile=information if place == 0 else None,
                truncation=truncate,
                stride=stride,
                aggregation=aggregation,
                errors=errors,
                candidate_labels=known,
                batch_size=batch_size,
                seed=seed,
            )
            results.append(report_of_model)
    result = results[0] if len(results) == 1 else results[0].beside(results[1])
    write_json(result.to_dict() if json is not None else None, json)
    assert html is not None
    write_text(result.to_html(), html)
    if not quiet and not is_stdout(json):
        show(f"{result.to_text()}\n\nHTML page: {html.resolve()}")
    return DOES_NOT_HOLD if result.skipped else DONE


def _compared(
    model: PreTrainedModel,
    inputs: Inputs,
    preparer: dict[str, Any],
    explained: dict[str, Any],
    labels: list[str] | None,
    seed: int,
) -> Comparison:
    """The comparison of methods on what the page explains: its only or its first target."""
    from hf_attn_mi import Comparison, targets
    from hf_attn_mi import compare as compare_methods

    several = explained.get("targets")
    first = several[0] if isinstance(several, list) else explained.get("target")
    if labels is not None:
        label = labels[first] if isinstance(first, int) else first
        first = targets.entails(label, among=tuple(labels))
    comparison = compare_methods(model, inputs.items, target=first, seed=seed, **preparer)
    assert isinstance(comparison, Comparison)  # of one target
    return comparison
