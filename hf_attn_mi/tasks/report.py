"""`report`: everything about some predictions on one page: the words, the attention weights, and how that is known."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from hf_attn_mi.errors import HfAttnMiError, Interrupted, InvalidInputError, shown
from hf_attn_mi.methods import find_method
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target, read_target
from hf_attn_mi.models.tensor_checks import plain_values
from hf_attn_mi.results.comparison import Comparison
from hf_attn_mi.results.corpus_summary import CorpusSummary
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.results.report import Report, ReportItem
from hf_attn_mi.tasks.arguments import check_choice, check_flag, check_seed, check_whole_number
from hf_attn_mi.tasks.certify import certify
from hf_attn_mi.tasks.each_input import check_input_options
from hf_attn_mi.tasks.minimal_attention import minimal_attention
from hf_attn_mi.tasks.minimal_tokens import minimal_tokens
from hf_attn_mi.tasks.report_attention import LEVELS
from hf_attn_mi.tasks.report_inputs import (
    ReportRun,
    ReportTargets,
    model_of_report,
    read_report_targets,
    refuse_other_tokens,
)
from hf_attn_mi.tasks.report_outputs import ReportOutput, read_output
from hf_attn_mi.tasks.report_parts import FEW_INPUTS, FEW_PAGES, ReportParts, explained_target

OTHER_SETS = 1  # further sets of attention weights, for the membership of each weight
LEAST_BUDGET, MOST_BUDGET = 100, 2000  # forward passes that each of these searches may cost
BUDGET_TOKENS = 50_000  # tokens in these passes, between the two limits
METHODS = ("attnlrp", "attention", "effective")  # each costs one pass


def report(
    model: Any = None,
    inputs: Any = None,
    *,
    target: Any = None,
    targets: Any = None,
    method: str = "relevance",
    options: Mapping[str, Any] | None = None,
    methods: Sequence[str] = METHODS,
    classes: int = 5,
    labels: Any = None,
    token_set: bool | None = None,
    certificate: bool | None = None,
    subgraph: bool | None = None,
    attention: str | None = None,
    comparison: Comparison | None = None,
    profile: InformationProfile | None = None,
    corpus: CorpusSummary | None = None,
    tokenizer: Any = None,
    processor: Any = None,
    sampling_rate: int | None = None,
    batch_size: int = 16,
    truncation: bool = False,
    stride: int | None = None,
    aggregation: str = "mean",
    is_split_into_words: bool = False,
    errors: str = "raise",
    candidate_labels: Any = None,
    seed: int = 0,
) -> Report:
    """Explain predictions on one self-contained page: which words and attention weights made them, and the evidence.

    Runs `explain` for the predicted and further classes and by further methods, `minimal_tokens`, `certify`, and the
    attention of every layer. What a model does not allow is left out, and the page says why. `report(corpus=summary)`
    shows what a model has learned from a whole data set, without a model and inputs.

    Args:
        model: as in `explain`.
        inputs: as in `explain`, images and audio too.
        target: as in `explain`: by default the predicted class.
        targets: several targets of each input, instead of `target` and `classes`: a list, whose first target is that
            of the page, or "all" for all labels, choices or entities beside the predicted one.
        method: the method that scores the tokens, as in `explain`.
        options: the options of this method.
        methods: further methods whose scores are shown below those of `method`.
        classes: the number of explained classes: the target and the most probable others.
        labels: the correct class of each input, a name or number; None if an input has none.
        token_set: whether a minimal set of tokens is searched; None for up to 20 inputs.
        certificate: whether efficient attention is certified; None for up to 20 inputs.
        subgraph: whether the attention weights that carry the prediction are searched (`minimal_attention`, with a
            further set for the membership of each weight); None for up to 4 inputs.
        attention: matrices on the page: "all"; "top", of the 8 heads with the largest contribution; "rows", of these
            the row that contributes most; "none". None chooses by the number of tokens, and "none" for more than 4
            inputs. What is left out, the page says.
        comparison: a comparison of methods by `compare`; its verdict is shown.
        profile: the profile of this model, from `fit_information`: shows what each token tells about the output, layer
            by layer.
        corpus: the result of `summarize`: its words are shown below the inputs, or alone.
        tokenizer, processor, sampling_rate, batch_size, truncation, is_split_into_words: as in `explain`.
        stride, aggregation: as in `explain`: windows over long texts. An input of several windows has scores and
            classes; the parts that run a whole text at once are left out, and the page says so.
        errors: "raise", or "skip": an input of a list that cannot be used is left out; `Report.skipped` and the page
            give the reason.
        candidate_labels: as in `explain`, for zero-shot classification and for models of images and texts.
        seed: the random seed for random draws.

    Returns:
        A `Report`; `save("report.html")` writes the page, and a notebook displays it.

    Raises:
        InvalidInputError: an argument is wrong; the message names it.
        UnsupportedModelError: the attention of this model cannot be captured exactly; or what was asked for by
            `token_set=True`, `certificate=True` or `attention=...` is not possible.
        KeyboardInterrupt: Ctrl-C; its `results` are the page without the parts that were not finished, or, before the
            page has its first part, the explanations of the inputs that were finished.

    Example:
        >>> page = report(model, "A quietly moving film.")     # doctest: +SKIP
        >>> page.save("report.html")                           # doctest: +SKIP
    """
    if _is_corpus_alone(model, inputs, corpus):
        assert corpus is not None
        return Report((), info={name: corpus.info.get(name) for name in ("model", "method")}, corpus=corpus)
    _check(methods, classes, attention, comparison)
    check_whole_number("batch_size", batch_size)
    check_input_options(errors, truncation, is_split_into_words)
    for name, value in {"token_set": token_set, "certificate": certificate, "subgraph": subgraph}.items():
        check_flag(name, False if value is None else value)
    check_seed(seed)
    started = time.perf_counter()
    model, runner = model_of_report(model, inputs, (target, targets), tokenizer, processor, sampling_rate)
    reading = {"truncation": truncation, "is_split_into_words": is_split_into_words, "sampling_rate": sampling_rate}
    with _warned_once():
        run = ReportRun(
            model, runner, inputs, candidate_labels=candidate_labels, reading=reading, stride=stride,
            aggregation=aggregation, errors=errors,
        )  # fmt: skip
        chosen = read_report_targets(target, targets, run.labels, run.runner)
        gold = _read_labels(labels, chosen.names(run.runner), run.encoded.count)
        scoring = {"method": method, "options": options, "batch_size": batch_size}
        first, named = run.explain_targets(chosen, scoring, profile, (method, *methods))
        with run.keeping(first):
            bound, encoded = _targets(chosen, first, run.runner, run.of_kept(run.encoded))
            outputs = [read_output(run, chosen, *each) for each in zip(encoded, bound, first)]
        parts = ReportParts(run, first)
        if not chosen.others:
            beside = partial(_other_targets, run, chosen, first, outputs, classes, scoring)
            named = parts.unless_interrupted(beside, [[] for _ in first])
        further = parts.further_methods(chosen, [name for name in methods if name != method], batch_size)
        common = {"target": chosen.main, "seed": seed}
        sets = parts.optional("token_set", token_set, FEW_INPUTS, minimal_tokens, **common, batch_size=batch_size)
        certificates = parts.optional("certificate", certificate, FEW_INPUTS, certify, **common)
        search = {**common, "others": OTHER_SETS, "budget": _budget(encoded)}
        subgraphs = parts.optional("subgraph", subgraph, FEW_PAGES, minimal_attention, **search)
        details = parts.attention(encoded, bound, attention)
    items = [
        ReportItem(
            outputs[i].classes, (first[i], *named[i]), further[i], outputs[i].value, outputs[i].anchors,
            gold[run.kept[i]], sets[i], certificates[i], details[i], subgraphs[i], note,
        )
        for i, note in enumerate(parts.notes)
    ]  # fmt: skip
    info = {
        **run.runner.provenance(),
        "method": method,
        "methods": list(methods),
        "seed": seed,
        "seconds": time.perf_counter() - started,
        "warnings": [f"Input {one.index} was skipped: {one.reason}" for one in run.skipped] + run.interruption,
    }
    page = Report(tuple(items), comparison, info=info, skipped=run.skipped, corpus=corpus)
    if run.interrupt is not None:
        raise Interrupted(page, run.kept) from run.interrupt
    return page


def _is_corpus_alone(model: object, inputs: object, corpus: object) -> bool:
    """Whether the report is about a corpus and nothing else.

    Raises:
        InvalidInputError: `corpus` is something else, or model or inputs are missing.
    """
    if isinstance(model, CorpusSummary):
        raise InvalidInputError(
            "model is a CorpusSummary: pass it by its name, report(corpus=summary), or beside inputs, report(model, "
            "inputs, corpus=summary)."
        )
    if corpus is not None and not isinstance(corpus, CorpusSummary):
        raise InvalidInputError(f"corpus must be the result of summarize, not {type(corpus).__name__}.")
    if model is not None and inputs is not None:
        return False
    if corpus is None or model is not None or inputs is not None:
        missing = " and ".join(name for name, value in (("model", model), ("inputs", inputs)) if value is None)
        raise InvalidInputError(
            f"{missing}: missing; only a report about a corpus alone, report(corpus=...), has none."
        )
    return True


def _check(methods: object, classes: object, attention: object, comparison: object) -> None:
    if isinstance(methods, str) or not isinstance(methods, Sequence) or not all(isinstance(x, str) for x in methods):
        raise InvalidInputError(
            f"methods must be a list of names of list_methods(), such as ['attnlrp'], not {shown(methods)}."
        )
    for name in methods:
        find_method(name)
    check_whole_number("classes", classes)
    if attention is not None:
        check_choice("attention", attention, LEVELS)
    if comparison is not None and not isinstance(comparison, Comparison):
        raise InvalidInputError(f"comparison must be the result of compare, not {type(comparison).__name__}.")


def _read_labels(labels: Any, names: Mapping[int, str], count: int) -> list[str | None]:
    """The name of the correct class of each input."""
    if labels is None:
        return [None] * count
    labels = plain_values(labels, "labels")
    label_list = [labels] if isinstance(labels, str | int) else labels
    if not isinstance(label_list, Sequence) or len(label_list) != count:
        what = len(label_list) if isinstance(label_list, Sequence) else type(labels).__name__
        raise InvalidInputError(f"labels has {what} entries for {count} inputs; pass one for each, None where unknown.")
    results: list[str | None] = []
    for place, label in enumerate(label_list):
        number = isinstance(label, int) and not isinstance(label, bool)
        if label is not None and not (label in names if number else label in names.values()):
            raise InvalidInputError(
                f"labels[{place}] is {shown(label)}; allowed are the classes of this model, {list(names.values())}, "
                "their numbers, and None."
            )
        results.append(names[label] if number else label)
    return results


@contextmanager
def _warned_once() -> Iterator[None]:
    """Of warnings that every step repeats (a text was cut) only the first is given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    names_so_far = set()
    for warning in caught:
        if (key := (warning.category, str(warning.message))) not in names_so_far:
            names_so_far.add(key)
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _targets(
    chosen: ReportTargets, first: Sequence[Explanation], runner: EncoderRunner, inputs: Sequence[EncodedInput]
) -> tuple[list[Target], list[EncodedInput]]:
    """The target of each input as it was explained, and the inputs to run."""
    explained = [chosen.main if _only_given(chosen, one) else explained_target(one) for one in first]
    pairs = [read_target(item, runner, [one]) for item, one in zip(explained, inputs)]
    return [pair[0] for pair in pairs], [pair[1][0] for pair in pairs]


def _only_given(chosen: ReportTargets, one: Explanation) -> bool:
    """Whether the target is known as the caller's object alone: a function, or one that no string can write."""
    single = chosen.main is not None and not isinstance(chosen.main, list | tuple)
    return chosen.is_function or (single and one.target is None and "target" not in one.info)


def _other_targets(
    run: ReportRun,
    chosen: ReportTargets,
    first: Sequence[Explanation],
    outputs: Sequence[ReportOutput],
    count: int,
    scoring: Mapping[str, Any],
) -> list[list[Explanation]]:
    """For each input the explanations of the most probable classes besides its target, the most probable first.

    For a single input without classes those of its other entities; with targets="all" every one.

    Raises:
        InvalidInputError: named targets that are explained on other tokens.
    """
    others: list[list[Explanation]] = [[] for _ in first]
    if chosen.named and not chosen.every:
        return others
    if chosen.every:
        every = _beside(first, run.explain_all(chosen.labels, layers="none", **scoring))
        refuse_other_tokens(first, every)
        return every
    if chosen.labels is not None:  # each label has a pair of text and hypothesis of its own
        return others
    ranked = [
        [x.target for x in sorted(output.classes, key=lambda x: -x.value) if x.target != one.target]
        for one, output in zip(first, outputs)
    ]
    most = min(count - 1, *(len(row) for row in ranked)) if len(ranked) else 0
    columns = [[row[place] for row in ranked] for place in range(most)]
    others = run.explain_columns(columns, layers="none", **scoring)
    if len(first) == 1 and not outputs[0].classes and outputs[0].anchors and count > 1:
        try:
            every = run.explain_all(chosen.labels, layers="none", **scoring)
        except HfAttnMiError:  # a head with one answer
            return others
        every = [[one for one in row if one.tokens == first[0].tokens] for row in every]  # choices have others
        others = [row[: count - 1] for row in _beside(first, every)]
    return others


def _beside(first: Sequence[Explanation], every: Sequence[Sequence[Explanation]]) -> list[list[Explanation]]:
    """For each input the explanations of other targets than that of the first one, the most probable first."""
    return [
        sorted((x for x in row if explained_target(x) != explained_target(one)), key=lambda x: -(x.probability or 0.0))
        for one, row in zip(first, every)
    ]


def _budget(encoded: Sequence[EncodedInput]) -> int:
    """Forward passes that a search of attention weights may cost."""
    longest = max(1, *(one.token_count for one in encoded), 1)
    return min(MOST_BUDGET, max(LEAST_BUDGET, BUDGET_TOKENS // longest))
