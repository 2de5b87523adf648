"""`hf-attn-mi explain TEXT...`: token scores in the terminal, as JSON and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from hf_attn_mi.cli import options as opt
from hf_attn_mi.cli.exit_codes import DOES_NOT_HOLD, DONE, INTERRUPTED
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
from hf_attn_mi.errors import InvalidInputError

if TYPE_CHECKING:
    from hf_attn_mi import Explanation, Results

Layers = Literal["full", "summary", "none"]


def explain(
    texts: opt.Texts = None,
    file: opt.TextFile = None,
    pair: opt.Pair = None,
    choice: opt.Choices = None,
    image: opt.Images = None,
    audio: opt.Recordings = None,
    model: opt.Model = None,
    is_split_into_words: opt.SplitIntoWords = False,
    truncate: opt.Truncate = False,
    stride: opt.Stride = None,
    aggregation: opt.Aggregation = "mean",
    errors: opt.Errors = "raise",
    target: opt.Targets = None,
    candidate_labels: opt.CandidateLabels = None,
    method: opt.Method = "relevance",
    options: opt.MethodOptions = None,
    layers: Annotated[
        Layers | None,
        opt.method_option(
            help="Statistics of each layer's attention: all; entropy, attention received and identifiability; none "
            "(default: full; with --stride none).",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        opt.method_option(
            metavar="FOLDER",
            help="What 'mi --save' wrote: adds the information of each token about the output, layer by layer.",
        ),
    ] = None,
    batch_size: opt.BatchSize = 16,
    json: opt.Json = None,
    html: opt.Html = None,
    quiet: opt.Quiet = False,
) -> int:
    """Explain the prediction of a model on texts, images or recordings: the score of each token, patch or moment."""
    inputs = read_inputs(texts, file, pair, image, audio, choice, is_split_into_words=is_split_into_words)
    settings = opt.read_options(options, '{"steps": 20}')
    check_files(json, html=html)
    if profile is not None and not profile.exists():
        raise InvalidInputError(f"--profile {profile}: there is no such folder; 'hf-attn-mi mi --save' writes one.")
    import_libraries()
    opt.check_names("--method", [method], opt.method_names())

    from hf_attn_mi import Explanation, InformationProfile
    from hf_attn_mi import explain as explain_texts

    information = None if profile is None else InformationProfile.load(profile)
    labels = opt.read_labels(candidate_labels)
    reads = reads_of(target or (), model)
    classifier, preparer = load_for(inputs, model, quiet=quiet, reads=reads)
    chosen = opt.read_targets(target, classifier, known=labels)
    with warnings_as_lines(quiet):
        results, interrupted = until_interrupted(
            lambda: explain_texts(
                classifier,
                inputs.items,
                **preparer,
                **chosen,
                method=method,
                profile=information,
                layers=layers,
                batch_size=batch_size,
                truncation=truncate,
                is_split_into_words=is_split_into_words,
                stride=stride,
                aggregation=aggregation,
                options=settings,
                errors=errors,
                candidate_labels=labels,
            ),
            len(inputs.items),
        )
    assert not isinstance(results, Explanation)  # a list of texts gives a list of results
    write_json(results.to_dicts(), json)
    if html is not None:
        write_text(results.to_html(), html)
    if not quiet and not is_stdout(json):
        show("\n".join([results.to_text(), *_information_lines(results)]))
        if html is not None:
            show(f"\nHTML page: {html.resolve()}")
    if interrupted:
        return INTERRUPTED
    return DOES_NOT_HOLD if results.skipped else DONE


def _information_lines(results: Results[Explanation], most: int = 3) -> list[str]:
    """For each layer of the profile the tokens with the most information about the output; none without a profile."""
    from hf_attn_mi.results import SkippedInput

    lines = []
    for number, result in enumerate(results):
        if isinstance(result, SkippedInput):
            continue
        information = result.information
        if information is None:
            continue
        lines.append(
            f"Information of single states{f' of text {number}' if len(results) > 1 else ''} about the output, nats "
            f"(KL; {information['n']} texts, largest possible mean {information['ceiling']:.3g}), highest first:"
        )
        places = [place for place, special in enumerate(result.special) if not special]
        for layer in information["layers"]:
            divergences: list[float] = layer["kl"]
            first = sorted((-divergences[place], place) for place in places)[:most]
            tokens = ", ".join(f"{result.tokens[place]!r} {-negative:.3g}" for negative, place in first)
            lines.append(f"  layer {layer['layer']}: {tokens}")
    return lines
