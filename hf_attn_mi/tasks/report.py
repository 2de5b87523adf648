"""`report`: everything about some predictions on one page: the words, the attention weights, and how that is known."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from hf_attn_mi.errors import HfAttnMiError, InvalidInputError, shown
from hf_attn_mi.methods import find_method
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.labels import label_names
from hf_attn_mi.models.output_heads import find_logits, find_output_head
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.base import TargetKind
from hf_attn_mi.models.targets import Target, read_target
from hf_attn_mi.models.tensor_checks import plain_values
from hf_attn_mi.results.attention_subgraph import AttentionSubgraph
from hf_attn_mi.results.certificate import Certificate
from hf_attn_mi.results.comparison import Comparison
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.results.record import Record
from hf_attn_mi.results.report import Report, ReportItem
from hf_attn_mi.results.report_parts import AttentionDetail, ClassOutput
from hf_attn_mi.results.results import Results
from hf_attn_mi.results.token_set import TokenSet
from hf_attn_mi.tasks.arguments import check_choice, check_flag, check_seed, check_whole_number, progress_bar
from hf_attn_mi.tasks.certify import certify
from hf_attn_mi.tasks.explain import explain
from hf_attn_mi.tasks.minimal_attention import minimal_attention
from hf_attn_mi.tasks.minimal_tokens import minimal_tokens
from hf_attn_mi.tasks.report_attention import LEVELS, attention_detail, default_level

OTHER_SETS = 1  # further sets of attention weights, for the membership of each weight
LEAST_BUDGET, MOST_BUDGET = 100, 2000  # forward passes that each of these searches may cost
BUDGET_TOKENS = 50_000  # tokens in these passes, between the two limits
MOST_CLASSES = 100  # classes whose probabilities are kept: the most probable ones
METHODS = ("attnlrp", "attention", "effective")  # each costs one pass
FEW_INPUTS = 20  # inputs up to which token sets and certificates are computed by default
FEW_PAGES = 4  # inputs up to which matrices are kept by default
Notes = list[dict[str, str]]  # for each input: part -> why it was not computed
RecordT = TypeVar("RecordT", bound=Record)


def report(
    model: Any,
    inputs: Any,
    *,
    target: Any = None,
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
    tokenizer: Any = None,
    processor: Any = None,
    sampling_rate: int | None = None,
    batch_size: int = 16,
    truncation: bool = False,
    is_split_into_words: bool = False,
    seed: int = 0,
) -> Report:
    """Explain predictions on one self-contained page: which words and attention weights made them, and the evidence.

    Runs `explain` for the predicted and further classes and by further methods, `minimal_tokens`, `certify`, and the
    attention of every layer. What a model does not allow is left out, and the page says why.

    Args:
        model: as in `explain`.
        inputs: as in `explain`, images and audio too.
        target: as in `explain`: by default the predicted class.
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
        tokenizer, processor, sampling_rate, batch_size, truncation, is_split_into_words: as in `explain`.
        seed: the random seed for random draws.

    Returns:
        A `Report`; `save("report.html")` writes the page, and a notebook displays it.

    Raises:
        InvalidInputError: an argument is wrong; the message names it.
        UnsupportedModelError: the attention of this model cannot be captured exactly; or what was asked for by
            `token_set=True`, `certificate=True` or `attention=...` is not possible.

    Example:
        >>> page = report(model, "A quietly moving film.")     # doctest: +SKIP
        >>> page.save("report.html")                           # doctest: +SKIP
    """
    _check(methods, classes, attention, comparison)
    check_whole_number("batch_size", batch_size)
    reading = {"truncation": truncation, "is_split_into_words": is_split_into_words}
    for name, value in {**reading, "token_set": token_set, "certificate": certificate, "subgraph": subgraph}.items():
        check_flag(name, False if value is None else value)
    check_seed(seed)
    started = time.perf_counter()
    runner = EncoderRunner.of(model, tokenizer, processor=processor, sampling_rate=sampling_rate)
    inputs = list(inputs) if isinstance(inputs, Iterator) else inputs  # every task reads them once
    run = {"model": model, "inputs": inputs, "tokenizer": tokenizer, **reading}
    scoring = {**run, "batch_size": batch_size, "processor": processor, "sampling_rate": sampling_rate}
    with _warned_once():
        encoded, _ = runner.encode(inputs, **reading)
        gold = _read_labels(labels, runner, len(encoded))
        notes: Notes = [{} for _ in encoded]
        first = _all(explain(**scoring, target=target, method=method, options=options, profile=profile))
        targets, encoded = _targets(target, first, runner, encoded)
        outputs = [_output(runner, one, targets[i]) for i, one in enumerate(encoded)]
        others = _other_targets(first, outputs, classes, {**scoring, "method": method, "options": options})
        further = _further_methods(first, [name for name in methods if name != method], notes, scoring, target)
        sets = _optional(
            "token_set", token_set, FEW_INPUTS, notes, lambda: _token_sets(run, encoded, batch_size, target, seed)
        )
        certificates = _optional(
            "certificate", certificate, FEW_INPUTS, notes, lambda: _certificates(run, encoded, target, seed)
        )
        subgraphs = _optional("subgraph", subgraph, FEW_PAGES, notes, lambda: _subgraphs(run, encoded, target, seed))
        details = _attention(runner, encoded, targets, first, attention, notes)
    items = [
        ReportItem(
            outputs[i].classes,
            (first[i], *others[i]),
            further[i],
            outputs[i].value,
            outputs[i].anchors,
            gold[i],
            sets[i],
            certificates[i],
            details[i],
            subgraphs[i],
            note,
        )
        for i, note in enumerate(notes)
    ]
    info = {
        **runner.provenance(),
        "method": method,
        "methods": list(methods),
        "seed": seed,
        "seconds": time.perf_counter() - started,
    }
    return Report(tuple(items), comparison, info=info)


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


def _read_labels(labels: Any, runner: EncoderRunner, count: int) -> list[str | None]:
    """The name of the correct class of each input."""
    if labels is None:
        return [None] * count
    labels = plain_values(labels, "labels")
    given = [labels] if isinstance(labels, str | int) else labels
    if not isinstance(given, Sequence) or len(given) != count:
        what = len(given) if isinstance(given, Sequence) else type(labels).__name__
        raise InvalidInputError(f"labels has {what} entries for {count} inputs; pass one for each, None where unknown.")
    names = label_names(runner.config)
    found: list[str | None] = []
    for place, label in enumerate(given):
        number = isinstance(label, int) and not isinstance(label, bool)
        if label is not None and not (label in names if number else label in names.values()):
            raise InvalidInputError(
                f"labels[{place}] is {shown(label)}; allowed are the classes of this model, {list(names.values())}, "
                "their numbers, and None."
            )
        found.append(names[label] if number else label)
    return found


@contextmanager
def _warned_once() -> Iterator[None]:
    """Of warnings that every step repeats (a text was cut) only the first is given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    seen = set()
    for warning in caught:
        if (key := (warning.category, str(warning.message))) not in seen:
            seen.add(key)
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _all(results: RecordT | Results[RecordT]) -> list[RecordT]:
    return list(results) if isinstance(results, Results) else [results]


def _targets(
    target: Any, first: Sequence[Explanation], runner: EncoderRunner, inputs: Sequence[EncodedInput]
) -> tuple[list[Target], list[EncodedInput]]:
    """The target of each input as it was explained, and the inputs to run."""
    function = callable(target) and not isinstance(target, TargetKind)
    explained = [target if function else _explained(one) for one in first]
    pairs = [read_target(item, runner, [one]) for item, one in zip(explained, inputs)]
    return [pair[0] for pair in pairs], [pair[1][0] for pair in pairs]


def _explained(one: Explanation) -> Any:
    """The explained target, in a form that `target=` accepts."""
    return one.info.get("target", one.target)


@dataclass(frozen=True)
class _Output:
    """The model's outputs for one input: every class, the explained value, and the tokens where it is read."""

    classes: tuple[ClassOutput, ...]
    value: float
    anchors: tuple[int, ...]


def _output(runner: EncoderRunner, one: EncodedInput, target: Target) -> _Output:
    """No classes for a target function and for outputs without class logits."""
    with runner.session(), torch.no_grad():
        outputs = runner.forward(runner.collate([one]))
    value = float(target.read(outputs).values[0])
    if target.is_function or target.bound is not None:
        return _Output((), value, () if target.is_function else target.anchors(0))
    logits = find_logits(outputs, runner.config)
    head = find_output_head(outputs, runner.config) if target.head is None else target.head
    if logits is None or head is None:
        return _Output((), value, ())
    found = []
    for number in sorted(logits[0].float().topk(min(MOST_CLASSES, logits.shape[1])).indices.tolist()):
        reading = head.read(outputs, [number], runner.config)
        explained = reading.explained[0]
        found.append(ClassOutput(number, explained.name, explained.probability, float(reading.values[0])))
    return _Output(tuple(found), value, ())


def _other_targets(
    first: Sequence[Explanation], outputs: Sequence[_Output], count: int, options: Mapping[str, Any]
) -> list[list[Explanation]]:
    """For each input the explanations of the most probable classes besides its target, the most probable first.

    For a single input without classes those of its other entities, choices or labels.
    """
    others: list[list[Explanation]] = [[] for _ in first]
    ranked = [
        [x.target for x in sorted(output.classes, key=lambda x: -x.value) if x.target != one.target]
        for one, output in zip(first, outputs)
    ]
    for place in range(min(count - 1, *(len(row) for row in ranked)) if len(ranked) else 0):
        for i, one in enumerate(_all(explain(**options, target=[row[place] for row in ranked], layers="none"))):
            others[i].append(one)
    if len(first) == 1 and not outputs[0].classes and outputs[0].anchors and count > 1:
        try:
            every = _all(explain(**options, targets="all", layers="none"))
        except HfAttnMiError:  # a head with one answer
            every = []
        same = [one for one in every if one.tokens == first[0].tokens and _explained(one) != _explained(first[0])]
        others[0] = sorted(same, key=lambda one: -(one.probability or 0.0))[: count - 1]
    return others


def _further_methods(
    first: Sequence[Explanation], names: Sequence[str], notes: Notes, options: Mapping[str, Any], target: Any
) -> list[tuple[Explanation, ...]]:
    """For each input the explanations of its target by further methods; a method that fails is noted."""
    targets = target if callable(target) and not isinstance(target, TargetKind) else list(map(_explained, first))
    found: list[list[Explanation]] = [[] for _ in first]
    for name in names:
        try:
            results = _all(explain(**options, target=targets, method=name, layers="none"))
        except (HfAttnMiError, ImportError) as error:
            for note in notes:
                note[name] = str(error)
            continue
        for row, one in zip(found, results):
            row.append(one)
    return [tuple(row) for row in found]


def _token_sets(
    run: Mapping[str, Any], encoded: Sequence[EncodedInput], batch_size: int, target: Any, seed: int
) -> Sequence[TokenSet]:
    if encoded[0].length is None:
        raise InvalidInputError("The page has token sets of texts; minimal_tokens finds those of images and audio.")
    return _all(minimal_tokens(**run, batch_size=batch_size, target=target, seed=seed))


def _certificates(
    run: Mapping[str, Any], encoded: Sequence[EncodedInput], target: Any, seed: int
) -> Sequence[Certificate]:
    if encoded[0].length is not None:
        return _all(certify(**run, target=target, seed=seed))
    found: list[Certificate] = []
    for place, one in enumerate(encoded):  # certify takes images and audio as tensors
        tensors = {name: value[None] for name, value in one.tensors.items()}
        chosen = [target[place]] if isinstance(target, list | tuple) else target
        found += _all(certify(run["model"], tensors, target=chosen, seed=seed))
    return found


def _subgraphs(
    run: Mapping[str, Any], encoded: Sequence[EncodedInput], target: Any, seed: int
) -> Sequence[AttentionSubgraph]:
    if encoded[0].length is None:
        raise InvalidInputError("The search of attention weights is for texts here; minimal_attention takes tensors.")
    longest = max(one.token_count for one in encoded)
    budget = min(MOST_BUDGET, max(LEAST_BUDGET, BUDGET_TOKENS // longest))
    return _all(minimal_attention(**run, target=target, others=OTHER_SETS, budget=budget, seed=seed))


def _optional(
    name: str,
    wanted: bool | None,
    most: int,
    notes: Notes,
    compute: Callable[[], Sequence[RecordT]],
) -> list[RecordT | None]:
    """The results of each input; None and a note where they were disabled, or impossible and not requested."""
    reason = ""
    if wanted is False:
        reason = f"Not asked for ({name}=False)."
    elif wanted is None and len(notes) > most:
        reason = f"Not computed for more than {most} inputs; {name}=True computes it."
    else:
        try:
            return list(compute())
        except HfAttnMiError as error:
            if wanted:
                raise
            reason = str(error)
    for note in notes:
        note[name] = reason
    return [None] * len(notes)


def _attention(
    runner: EncoderRunner,
    encoded: Sequence[EncodedInput],
    targets: Sequence[Target],
    first: Sequence[Explanation],
    level: str | None,
    notes: Notes,
) -> list[AttentionDetail | None]:
    """The heads of each input, by default as much as a page can hold."""
    if level is None and len(encoded) > FEW_INPUTS:
        for note in notes:
            note["attention"] = f"Not computed for more than {FEW_INPUTS} inputs; attention='top' computes it."
        return [None] * len(encoded)
    details: list[AttentionDetail | None] = []
    with progress_bar(len(encoded), "attention", "input") as bar:
        for one, target, explanation, note in zip(encoded, targets, first, notes):
            heads = sum(len(layer.rank) for layer in explanation.layers)
            chosen = level or ("none" if len(encoded) > FEW_PAGES else default_level(one.token_count, heads))
            try:
                details.append(attention_detail(runner, one, target, explanation.layers, chosen))
            except HfAttnMiError as error:
                if level is not None:
                    raise
                note["attention"] = str(error)
                details.append(None)
            bar.update()
    return details
