"""`hf-attn-mi compare --data F`: which method's explanations to trust on these texts, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from hf_attn_mi.cli import options as opt
from hf_attn_mi.cli.exit_codes import DOES_NOT_HOLD, DONE, INTERRUPTED
from hf_attn_mi.cli.inputs import Sample, draw_texts
from hf_attn_mi.cli.loading import import_libraries, load_model, reads_of
from hf_attn_mi.cli.output import (
    check_files,
    complain,
    is_stdout,
    nothing_to_keep,
    show,
    until_interrupted,
    warnings_as_lines,
    write_json,
    write_text,
)
from hf_attn_mi.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from hf_attn_mi.results.comparison import Comparison

EVERY = "all"
Removal = Literal["delete", "mask", "attention_mask"]
UNMEASURED = "Texts are measured once every method has scored all of them; --n N compares on fewer."
_EXAMPLE = '{"lime": {"samples": 500}}'


class CompareCommand(opt.ManyValues):
    """`--rationales` may stand without the name of its column."""

    implied: ClassVar[dict[str, str]] = {"--rationales": "rationale"}


def compare(
    data: opt.Data,
    model: opt.Model = None,
    n: Annotated[
        int, opt.input_option("--n", metavar="N", help="Number of texts that are drawn at random from the data.")
    ] = 200,
    is_split_into_words: opt.SplitIntoWords = False,
    truncate: Annotated[
        bool, opt.input_option(help="Cut texts that are too long for the model, with a warning, or refuse them.")
    ] = True,
    rationales: Annotated[
        str | None,
        opt.input_option(
            metavar="COLUMN",
            help="Column of the data with 0 or 1 for each word of the column 'tokens' (without a name: 'rationale'), "
            "for the metrics that compare with people.",
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        opt.method_name(
            metavar="METHOD...",
            help="Methods to compare; `hf-attn-mi methods` lists the names (default: those that need few passes).",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        opt.method_option(
            metavar="METRIC...",
            help="The first one decides: comprehensiveness, sufficiency (both by default), comprehensiveness_deciles, "
            "sufficiency_deciles, deletion_area, insertion_area, monotonicity, leave_one_out, infidelity, "
            "normalized_aopc, normalized_aopc_ascending, max_sensitivity, completeness_gap; with --rationales "
            "token_f1, iou_f1, auprc, average_precision; or all.",
            show_default=False,
        ),
    ] = None,
    target: opt.Targets = None,
    removal: Annotated[Removal, opt.method_option(help="How tokens are removed.")] = "delete",
    options: Annotated[
        str | None, opt.method_option(metavar="JSON", help=f"Options of methods, such as '{_EXAMPLE}'.")
    ] = None,
    batch_size: opt.BatchSize = 16,
    seed: opt.Seed = 0,
    json: opt.Json = None,
    markdown: Annotated[Path | None, opt.output_option(metavar="FILE", help="Write the tables as Markdown.")] = None,
    html: opt.Html = None,
    plot: opt.Plot = None,
    quiet: opt.Quiet = False,
) -> int:
    """Compare methods on the same texts: what happens to the prediction when the tokens they name are removed."""
    check_files(json, markdown, plot, html=html)  # checked before the work, which may take an hour
    import_libraries()
    from hf_attn_mi import Results
    from hf_attn_mi import compare as compare_methods
    from hf_attn_mi.evaluation import METRICS
    from hf_attn_mi.results.plots import check_figure_path
    from hf_attn_mi.tasks.compare import DEFAULT_METHODS, DEFAULT_METRICS

    chosen, measures = methods or list(DEFAULT_METHODS), metrics or list(DEFAULT_METRICS)
    opt.check_names("--methods", chosen, opt.method_names())
    opt.check_names("--metrics", measures, [*METRICS, EVERY])
    settings = _settings(options, chosen)
    if plot is not None:
        check_figure_path(plot)
    sample = draw_texts(data, n, rationales=rationales, is_split_into_words=is_split_into_words, seed=seed)
    classifier, tokenizer = load_model(model, quiet=quiet, reads=reads_of(target or (), model))
    explained = opt.read_targets(target, classifier)
    with warnings_as_lines(quiet), nothing_to_keep(UNMEASURED):
        compared, interrupted = until_interrupted(
            lambda: compare_methods(
                classifier,
                sample.texts,
                methods=chosen,
                rationales=sample.rationales,
                tokenizer=tokenizer,
                **explained,
                removal=removal,
                metrics=EVERY if EVERY in measures else measures,
                options=settings,
                batch_size=batch_size,
                truncation=truncate,
                is_split_into_words=is_split_into_words,
                seed=seed,
            ),
            len(sample.texts),
        )
    several = compared if isinstance(compared, Results) else Results([compared])
    tables = [{**one.to_dict(), "data": _data(sample, data)} for one in several]
    write_json(tables if isinstance(compared, Results) else tables[0], json)
    printing = not quiet and not is_stdout(json)
    if printing:
        show(f"{_drawn(sample, data, seed)}\n{compared.to_text()}")
    if markdown is not None:
        write_text("\n".join(map(_markdown, several)) if len(several) > 1 else several[0].to_markdown(), markdown)
    if html is not None:
        write_text(compared.to_html(), html)
    if plot is not None:
        compared.plot(plot)
    if printing:
        for path in (markdown, html, plot):
            if path is not None:
                show(f"Written: {path.resolve()}")
    failures = {method: reason for one in several for method, reason in one.failures.items()}
    if quiet:  # otherwise the table names them
        for method, reason in failures.items():
            complain(f"{method} failed: {reason}", "warning: ")
    if interrupted:
        return INTERRUPTED
    return DOES_NOT_HOLD if failures else DONE


def _markdown(comparison: Comparison) -> str:
    """The tables of one of several targets, below its name."""
    return f"# {comparison.target_name}\n\n{comparison.to_markdown()}"


def _settings(options: str | None, methods: list[str]) -> dict[str, dict[str, Any]] | None:
    """The options of each method.

    Raises:
        InvalidInputError: not an object of objects, or a method that is not compared.
    """
    settings = opt.read_options(options, _EXAMPLE)
    for method, values in (settings or {}).items():
        if method not in methods:
            raise InvalidInputError(f"--options: {method!r} is not compared; --methods are {', '.join(methods)}.")
        if not isinstance(values, dict):
            raise InvalidInputError(f"--options: {method!r} needs an object of its options, such as '{_EXAMPLE}'.")
    return settings


def _data(sample: Sample, name: str) -> dict[str, Any]:
    """How the texts were drawn, for the JSON file."""
    return {"name": name, "found": sample.available, "drawn": len(sample.texts), "empty": sample.empty}


def _drawn(sample: Sample, data: str, seed: int) -> str:
    count = len(sample.texts)
    text = (
        f"{'all ' if count > 1 else ''}{counted(count, 'text')}"
        if count == sample.available
        else f"{count:,} of {counted(sample.available, 'text')}, drawn at random"
    )
    empty = (
        f"; {counted(sample.empty, 'row')} without a text {'was' if sample.empty == 1 else 'were'} skipped"
        if sample.empty
        else ""
    )
    return f"{data}: {text} (seed {seed}){empty}."
