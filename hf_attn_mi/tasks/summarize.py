"""`summarize`: what the model has learned, from the folder of `explain_dataset`."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import estimate, holm
from hf_attn_mi.evaluation.random_word import RandomWordTest
from hf_attn_mi.evaluation.statistics import percentile_interval, resampled_means
from hf_attn_mi.evaluation.t_tests import Moments, one_sample_p, welch_p
from hf_attn_mi.results.corpus_summary import ClassWord, CorpusSummary, ErrorWord, OpposingWord
from hf_attn_mi.results.stored_results import StoredExplanation, StoredResults, load_results
from hf_attn_mi.tasks.arguments import check_seed, check_whole_number
from hf_attn_mi.tasks.corpus_examples import Examples, largest_first, remember

MOSTLY = 2 / 3  # share of a word's inputs with one label, from which on it "mostly occurs" there
KEPT = 20_000  # values of a word that are kept for its bootstrap interval

Key = tuple[str, str]  # (class, word)


def summarize(
    results: StoredResults | str | Path, *, words: int = 20, least: int = 10, resamples: int = 2000, seed: int = 0
) -> CorpusSummary:
    """Summarize the scores of a data set: the words that speak for each class, and those of the errors.

    The contribution of a word to an input is the mean score of its occurrences there, in lower case. For each class:
    the words with the largest mean contribution over the inputs that were explained as this class, as far as it is
    above zero and above chance. Chance is the mean score of all words of the same inputs: what a word drawn at random
    from each of them contributes, and the test is against such words (`hf_attn_mi.evaluation.random_word`). Inputs are
    the unit of every mean, interval and test, so that a word that is repeated in one text counts once. They count as
    independent: with copies, or phrases of one sentence, intervals are too narrow and p values too small.

    The folder is read twice, one shard at a time; memory grows with the number of different words.

    Args:
        results: the folder that `explain_dataset` wrote, or what `load_results` returned. It may be unfinished.
        words: how many words of each class, and of each other table.
        least: inputs that must hold a word; rarer words are left out.
        resamples: bootstrap resamples of each interval.
        seed: the random seed of the bootstrap.

    Returns:
        A `CorpusSummary`; `report(corpus=summary)` shows it as a page.

    Raises:
        InvalidInputError: an argument is wrong, there are no explanations, or the scores belong to no class.

    Example:
        >>> summary = summarize("reviews")    # doctest: +SKIP
        >>> print(summary)                    # doctest: +SKIP
    """
    for name, value, smallest in (("words", words, 1), ("least", least, 2), ("resamples", resamples, 100)):
        check_whole_number(name, value, smallest)
    check_seed(seed)
    stored = results if isinstance(results, StoredResults) else load_results(results)
    counts = _count(stored)
    if not counts.rows:
        raise InvalidInputError(f"{str(stored.path)!r} holds no explanations.")
    tested = {key: moments for key, moments in counts.against_chance.items() if moments.count >= least}
    best = _best_of_each_class(counts, tested, words)
    wrong = _tested_errors(counts, least)
    wrong_p = _adjusted({key: welch_p(*counts.of_errors[key]) for key in wrong})
    worst = heapq.nlargest(words, wrong, key=lambda key: (abs(_difference(counts, key)), key))
    against = _tested_opposing(counts, least)
    against_p = _adjusted({key: one_sample_p(moments) for key, (moments, _) in against.items()})
    lowest = heapq.nsmallest(words, against, key=lambda key: (against[key][0].mean, key))
    random_words = {
        key: RandomWordTest(moments.count * moments.mean, moments.squares + moments.count * moments.mean**2)
        for key, moments in tested.items()
    }
    details = _collect(stored, {*best, *worst, *lowest}, counts.opposite, random_words)
    p_values = _adjusted({key: test.p_value for key, test in random_words.items()})
    settings = {"resamples": resamples, "seed": seed}
    opposing = [_opposing_word(key, *against[key], against_p[key], details[key], settings) for key in lowest]
    return CorpusSummary(
        rows=counts.rows,
        inputs=counts.inputs,
        classes=tuple(name for name, _ in counts.classes.most_common()),
        counts=tuple(count for _, count in counts.classes.most_common()),
        accuracy=counts.correct / counts.known if counts.known else None,
        words=tuple(_class_word(key, counts, p_values[key], details[key], settings) for key in best),
        errors=tuple(_error_word(key, counts, wrong_p[key], details[key], settings) for key in worst),
        opposing=tuple(one for one in opposing if one.interval is not None and one.interval[1] < 0),
        tested=len(tested),
        least=least,
        info={**counts.info, "data": stored.data, "folder": str(stored.path), "seed": seed, "resamples": resamples},
        skipped=stored.failed,
        missing=stored.missing or 0,
        labeled=counts.known,
        unnamed=counts.unnamed,
    )


@dataclass
class _Counts:
    """Sums over all inputs, by class and word.

    Attributes:
        rows: explanations.
        inputs: rows of the data set with explanations.
        classes: explanations of each class.
        contribution: moments of the contributions.
        against_chance: moments of contribution less the mean of all words of the input.
        occurrences: how often the word occurs.
        of_errors: moments of the contributions in wrong and in correct predictions.
        labels: word -> label -> inputs.
        known, correct: explanations with a known label, and correct ones among them.
        unnamed: explanations with a gold label that names no class of the model.
        info: the facts about the run, from the first explanation.
    """

    rows: int = 0
    inputs: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    contribution: dict[Key, Moments] = field(default_factory=lambda: defaultdict(Moments))
    against_chance: dict[Key, Moments] = field(default_factory=lambda: defaultdict(Moments))
    occurrences: Counter[Key] = field(default_factory=Counter)
    of_errors: dict[Key, tuple[Moments, Moments]] = field(
        default_factory=lambda: defaultdict(lambda: (Moments(), Moments()))
    )
    labels: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    known: int = 0
    correct: int = 0
    unnamed: int = 0
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def opposite(self) -> dict[str, str]:
        """The other of two classes, for each: what speaks for one speaks against the other by the same amount.

        Nothing where inputs were explained as several classes: an input must not count twice.
        """
        names = list(self.classes)
        return {names[0]: names[1], names[1]: names[0]} if len(names) == 2 and self.rows == self.inputs else {}


def _count(stored: StoredResults) -> _Counts:
    counts = _Counts()
    row: int | None = None
    for one in stored.with_rows():
        explanation = one.explanation
        first, row = one.row != row, one.row
        counts.inputs += first
        if not counts.rows:
            kept = ("model", "method", "versions", "class_linked")
            counts.info = {key: explanation.info[key] for key in kept if key in explanation.info}
            if not counts.info.get("class_linked", True):
                raise InvalidInputError(
                    f"{str(stored.path)!r}: the scores of method {counts.info.get('method')!r} belong to no class; "
                    "explain the data set by a class-linked method, such as 'relevance'."
                )
        name = explanation.target_name
        counts.rows += 1
        counts.classes[name] += 1
        counts.known += one.correct is not None
        counts.correct += one.correct is True
        counts.unnamed += first and one.label is not None and one.label_name is None
        label = (one.label_name if one.label is not None else name) if first else None
        contributions, occurrences, scores = _contributions(one)
        mean = sum(scores) / len(scores) if scores else 0.0
        counts.occurrences.update({(name, word): count for word, count in occurrences.items()})
        for word, value in contributions.items():
            counts.contribution[name, word].add(value)
            counts.against_chance[name, word].add(value - mean)
            if one.correct is not None:
                counts.of_errors[name, word][one.correct].add(value)
            if label is not None:
                counts.labels[word][label] += 1
    return counts


def _contributions(one: StoredExplanation) -> tuple[dict[str, float], Counter[str], list[float]]:
    """Of one input: word -> mean score, word -> occurrences, and the scores of all its words."""
    sums: dict[str, float] = defaultdict(float)
    occurrences: Counter[str] = Counter()
    word_scores = one.explanation.to_words()
    for word in word_scores:
        text = word.text.casefold().strip()
        sums[text] += word.score
        occurrences[text] += 1
    means = {text: total / occurrences[text] for text, total in sums.items()}
    return means, occurrences, [word.score for word in word_scores]


def _best_of_each_class(counts: _Counts, tested: Iterable[Key], words: int) -> list[Key]:
    best = []
    for name, _ in counts.classes.most_common():
        mine = [key for key in tested if key[0] == name and _speaks_for(counts, key)]
        best += heapq.nlargest(words, mine, key=lambda key: (counts.contribution[key].mean, key))
    return best


def _speaks_for(counts: _Counts, key: Key) -> bool:
    """Whether a word contributes to the class, and more than chance."""
    return counts.contribution[key].mean > 0 and counts.against_chance[key].mean > 0


def _tested_errors(counts: _Counts, least: int) -> list[Key]:
    return [key for key, groups in counts.of_errors.items() if all(group.count >= least for group in groups)]


def _difference(counts: _Counts, key: Key) -> float:
    wrong, right = counts.of_errors[key]
    return wrong.mean - right.mean


def _tested_opposing(counts: _Counts, least: int) -> dict[Key, tuple[Moments, float]]:
    """(label, word) -> moments of the contribution to the label, and the share of the word's inputs with it."""
    word_scores = {}
    for word, labels in counts.labels.items():
        (label, count), total = labels.most_common(1)[0], sum(labels.values())
        if count < MOSTLY * total or total < least:
            continue
        moments = counts.contribution.get((label, word), Moments())
        other = counts.opposite.get(label)
        if other is not None:
            moments = moments.with_negated(counts.contribution.get((other, word), Moments()))
        if moments.count >= least and moments.mean < 0:
            word_scores[label, word] = (moments, count / total)
    return word_scores


def _adjusted(p_values: Mapping[Key, float | None]) -> dict[Key, tuple[float | None, float | None]]:
    return dict(zip(p_values, zip(p_values.values(), holm(list(p_values.values())))))


@dataclass
class _Detail:
    """The values and the examples of one word and class.

    Attributes:
        values: contributions of the inputs that were explained as the class.
        to_class: the same with those that were explained as the other of two classes, negated.
        errors, correct: the values of wrong and of correct predictions.
        examples: (size, number, text), a heap of the largest.
        of_errors, opposing: the same for errors, and for contributions against the class.
    """

    values: list[float] = field(default_factory=list)
    to_class: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    correct: list[float] = field(default_factory=list)
    examples: Examples = field(default_factory=list)
    of_errors: Examples = field(default_factory=list)
    opposing: Examples = field(default_factory=list)


def _collect(
    stored: StoredResults, keys: set[Key], opposite: Mapping[str, str], random_words: Mapping[Key, RandomWordTest]
) -> dict[Key, _Detail]:
    """Read the folder again: the values and examples of the words that are shown, and the tests against chance."""
    details = {key: _Detail() for key in keys}
    for one in stored.with_rows():
        name = one.explanation.target_name
        contributions, occurrences, scores = _contributions(one)
        mean = sum(scores) / len(scores) if scores else 0.0
        deviations = [score - mean for score in scores]
        for word, value in contributions.items():
            test = random_words.get((name, word))
            if test is not None:
                test.add(deviations, occurrences[word])
            word_details = details.get((name, word))
            if word_details is not None:
                _append(word_details.values, value)
                _append(word_details.to_class, value)
                remember(word_details.examples, value, one, word)
                remember(word_details.opposing, -value, one, word)
                if one.correct is not None:
                    _append(word_details.correct if one.correct else word_details.errors, value)
                if one.correct is False:
                    remember(word_details.of_errors, value, one, word)
            other = details.get((opposite.get(name, ""), word))
            if other is not None:
                _append(other.to_class, -value)
                remember(other.opposing, value, one, word)
    return details


def _append(values: list[float], value: float) -> None:
    if len(values) < KEPT:
        values.append(value)


def _class_word(
    key: Key,
    counts: _Counts,
    p_values: tuple[float | None, float | None],
    detail: _Detail,
    settings: Mapping[str, int],
) -> ClassWord:
    moments = counts.contribution[key]
    return ClassWord(
        word=key[1],
        target_name=key[0],
        inputs=moments.count,
        count=counts.occurrences[key],
        mean=moments.mean,
        interval=estimate(detail.values, **settings).interval,
        chance=moments.mean - counts.against_chance[key].mean,
        p_value=p_values[0],
        adjusted=p_values[1],
        examples=largest_first(detail.examples),
    )


def _error_word(
    key: Key,
    counts: _Counts,
    p_values: tuple[float | None, float | None],
    detail: _Detail,
    settings: Mapping[str, int],
) -> ErrorWord:
    wrong, right = counts.of_errors[key]
    return ErrorWord(
        word=key[1],
        target_name=key[0],
        errors=wrong.count,
        correct=right.count,
        mean_errors=wrong.mean,
        mean_correct=right.mean,
        difference=wrong.mean - right.mean,
        interval=_difference_interval(detail.errors, detail.correct, **settings),
        p_value=p_values[0],
        adjusted=p_values[1],
        examples=largest_first(detail.of_errors),
    )


def _opposing_word(
    key: Key,
    moments: Moments,
    share: float,
    p_values: tuple[float | None, float | None],
    detail: _Detail,
    settings: Mapping[str, int],
) -> OpposingWord:
    return OpposingWord(
        word=key[1],
        label=key[0],
        share=share,
        inputs=moments.count,
        mean=moments.mean,
        interval=estimate(detail.to_class, **settings).interval,
        p_value=p_values[0],
        adjusted=p_values[1],
        examples=largest_first(detail.opposing),
    )


def _difference_interval(
    first: list[float], second: list[float], *, resamples: int, seed: int
) -> tuple[float, float] | None:
    """95 % bootstrap interval of mean(first) - mean(second), both groups resampled."""
    means = []
    for number, values in enumerate((first, second)):
        known = torch.tensor(values, dtype=torch.float64)[:, None]
        means.append(resampled_means(known, torch.ones_like(known), bootstrap=resamples, seed=seed + number)[:, 0])
    return percentile_interval(means[0] - means[1], min(len(first), len(second)))
