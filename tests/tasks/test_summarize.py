"""`summarize`: the words with the largest contributions, as they follow from the explanations one by one."""

import json
import math
import random

import pytest
import scipy.stats
import torch

from hf_attn_mi import InvalidInputError, explain_dataset, load_results, report, summarize
from hf_attn_mi.evaluation.t_tests import Moments, one_sample_p, welch_p
from hf_attn_mi.results import CorpusSummary
from hf_attn_mi.results.corpus_summary import ClassWord
from tests.sample_models import load_demo

GOOD, BAD = ("funny", "moving", "warm"), ("dull", "awful", "tedious")


def review(rng):
    """A text and its label; one in six labels is wrong."""
    label = rng.randrange(2)
    words = [rng.choice((GOOD if label else BAD) if rng.random() < 0.9 else (*GOOD, *BAD)) for _ in range(2)]
    text = f"A {words[0]} film, and the story of {rng.randrange(99)} is {words[1]}."
    return {"text": text, "label": label if rng.random() > 1 / 6 else 1 - label}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run over 90 reviews with words that speak for one of two classes."""
    model, tokenizer = load_demo()
    rng = random.Random(0)
    output = tmp_path_factory.mktemp("summary") / "out"
    explain_dataset(model, [review(rng) for _ in range(90)], output=output, tokenizer=tokenizer, shard_size=40)
    return output


def values_of(folder, word, target_name, correct=None):
    """The contributions of a word to a class, input by input, straight from the explanations."""
    found = []
    for one in load_results(folder).with_rows():
        if one.explanation.target_name == target_name and correct in (None, one.correct):
            words = one.explanation.to_words()
            scores = [x.score for x in words if x.text.lower() == word]
            if scores:
                found.append((sum(scores) / len(scores), sum(x.score for x in words) / len(words)))
    return found


def least_bound(folder, word, target_name):
    """Twice Chernoff's bound for the word against words drawn at random from its inputs, on a fine grid of slopes."""
    total, populations = 0.0, []
    for one in load_results(folder):
        words = one.to_words()
        scores = [x.score for x in words if x.text.lower() == word]
        if one.target_name == target_name and scores:
            mean = sum(x.score for x in words) / len(words)
            total += sum(scores) / len(scores) - mean
            populations.append((len(scores), torch.tensor([x.score - mean for x in words], dtype=torch.float64)))
    slopes = math.copysign(1.0, total) * torch.logspace(-3, 2, 400, dtype=torch.float64)
    logs = sum(
        m * (torch.logsumexp(slopes[:, None] * deviations / m, 1) - math.log(len(deviations)))
        for m, deviations in populations
    )
    return min(1.0, 2 * float((logs - slopes * total).min().exp()))


def test_means_tests_and_intervals_are_those_of_the_inputs(folder):
    summary = summarize(folder, least=5, words=30)
    assert summary.rows == 90
    assert sum(summary.counts) == 90
    for name, words in (("positive", GOOD), ("negative", BAD)):
        best = summary.of_class(name)
        assert {one.word for one in best[:3]} == set(words)
        assert [one.mean for one in best] == sorted((one.mean for one in best), reverse=True)
        one = best[0]
        values = values_of(folder, one.word, name)
        mean = sum(value for value, _ in values) / len(values)
        assert (one.inputs, one.mean) == (len(values), pytest.approx(mean))
        assert one.chance == pytest.approx(sum(chance for _, chance in values) / len(values))
        assert one.p_value == pytest.approx(least_bound(folder, one.word, name), rel=0.5)
        assert one.p_value <= one.adjusted <= min(1, summary.tested * one.p_value * (1 + 1e-9))
        assert one.interval[0] < one.mean < one.interval[1]
        assert all(one.word in example.lower() for example in one.examples)


def test_errors_are_compared_with_correct_predictions(folder):
    summary = summarize(folder, least=3)
    known = [one.correct for one in load_results(folder).with_rows()]
    assert summary.accuracy == pytest.approx(sum(known) / len(known))
    one = summary.errors[0]
    wrong, right = ([x for x, _ in values_of(folder, one.word, one.target_name, flag)] for flag in (False, True))
    assert (one.errors, one.correct) == (len(wrong), len(right))
    assert one.difference == pytest.approx(sum(wrong) / len(wrong) - sum(right) / len(right))
    if one.p_value is not None:
        assert one.p_value == pytest.approx(scipy.stats.ttest_ind(wrong, right, equal_var=False).pvalue, abs=1e-9)


def test_words_that_speak_against_their_class_are_found(tmp_path):
    model, tokenizer = load_demo()
    # Gold labels say the opposite of the words, so that the words speak against the class they occur in.
    rows = [{"text": f"A dull and tedious film {i}.", "label": 1} for i in range(8)]
    rows += [{"text": f"A warm and funny film {i}.", "label": 0} for i in range(8)]
    explain_dataset(model, rows, output=tmp_path / "out", tokenizer=tokenizer)
    summary = summarize(tmp_path / "out", least=5)
    found = {(one.word, one.label): one for one in summary.opposing}
    assert found["dull", "positive"].share == 1
    assert found["dull", "positive"].mean < 0
    values = [-value for value, _ in values_of(tmp_path / "out", "dull", "negative")]
    assert found["dull", "positive"].mean == pytest.approx(sum(values) / len(values))
    assert ("funny", "negative") in found
    assert not {("funny", "positive"), ("dull", "negative")} & set(found)


def test_words_for_a_class_are_above_chance(folder):
    """Words below chance differ from it as well: that they do says nothing for the class."""
    summary = summarize(folder, least=5, words=1000)
    held = {one.word for one in summary.words}
    assert {"funny", "dull"} <= held
    for name in summary.classes:
        values = values_of(folder, "the", name)
        contribution, chance = (sum(column) / len(values) for column in zip(*values))
        assert contribution < chance
    assert "the" not in held
    assert all(one.mean > max(0.0, one.chance) for one in summary.words)


def test_what_an_unfinished_run_and_labels_without_a_class_leave_out_is_said(tmp_path):
    model, tokenizer = load_demo()
    rows = [{"text": f"A warm film {i}.", "label": label} for i, label in enumerate(("positive", "great", "", None))]
    explain_dataset(model, rows, output=tmp_path / "out", tokenizer=tokenizer, shard_size=2)
    summary = summarize(tmp_path / "out", least=2)
    assert (summary.missing, summary.labeled, summary.unnamed) == (0, 1, 2)
    assert "Accuracy: 100.0% of 1 prediction with a gold label." in str(summary)
    assert "2 gold labels name no class of the model" in str(summary)
    (tmp_path / "out" / "data" / "shard-00001.parquet").unlink()
    summary = summarize(tmp_path / "out", least=2)
    assert (summary.rows, summary.missing) == (2, 2)
    assert "Unfinished: 2 rows of the data set are not explained yet" in str(summary)
    assert "2 explanations, 0 failed rows, 2 rows missing" in repr(load_results(tmp_path / "out"))
    (tmp_path / "out" / "run.json").unlink()  # without it the number of rows is not known
    assert summarize(tmp_path / "out", least=2).missing == 0
    assert load_results(tmp_path / "out").missing is None


def test_the_explanations_of_one_row_are_read_from_its_shard(tmp_path):
    model, tokenizer = load_demo()
    rows = [{"text": text} for text in ("A warm film.", "A dull film.", "", "A good film.")]
    explain_dataset(model, rows, output=tmp_path / "out", tokenizer=tokenizer, shard_size=2, targets="all")
    stored = load_results(tmp_path / "out")
    every = list(stored.with_rows())
    for number in (0, 1, 3):
        assert stored.of_row(number) == tuple(one for one in every if one.row == number)
        assert len(stored.of_row(number)) == 2
    with pytest.raises(InvalidInputError, match="row 2 is an empty text"):
        stored.of_row(2)
    for wrong in (4, -1, "0", True):
        with pytest.raises(InvalidInputError, match="no such row in a finished shard"):
            stored.of_row(wrong)
    (tmp_path / "out" / "data" / "shard-00001.parquet").write_bytes(b"torn")
    assert "a shard is damaged" in repr(stored)
    with pytest.raises(InvalidInputError, match="is damaged"):
        stored.of_row(3)


def test_it_is_shown_saved_and_drawn(folder, tmp_path):
    summary = summarize(folder, least=5, words=3)
    assert "What the model has learned from 90 inputs" in str(summary)
    assert "Words for positive" in str(summary)
    assert "<table" in summary._repr_html_()
    assert all(f"<bdi>{one.word}</bdi>" in summary.to_html() for one in summary.words)
    assert len(summary.to_pandas()) == len(summary.words) == 6
    summary.save(tmp_path / "summary.json")
    assert CorpusSummary.load(tmp_path / "summary.json") == summary == summarize(folder, least=5, words=3)
    summary.plot(tmp_path / "words.png")
    summary.plot(tmp_path / "errors.svg", kind="errors") if summary.errors else None
    assert (tmp_path / "words.png").stat().st_size > 5000


def test_examples_are_cut_between_words(tmp_path):
    model, tokenizer = load_demo()
    text = f"{'unbelievably ' * 9}warm and {'extraordinary ' * 9}film"
    explain_dataset(model, [text] * 2, output=tmp_path / "out", tokenizer=tokenizer)
    (one,) = [one for one in summarize(tmp_path / "out", least=2).words if one.word == "warm"]
    (example,) = one.examples
    assert example == "...unbelievably unbelievably unbelievably warm and extraordinary extraordinary..."


def test_rows_that_failed_and_the_name_of_the_data_are_known(tmp_path):
    model, tokenizer = load_demo()
    data = tmp_path / "some reviews.jsonl"
    rows = [{"text": text} for text in ("A warm film.", "", "A warm story.", None, "A dull film.")]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    explain_dataset(model, data, output=tmp_path / "out", tokenizer=tokenizer, shard_size=2)
    summary = summarize(tmp_path / "out", least=2)
    assert (summary.rows, summary.skipped, summary.info["data"]) == (3, 2, "some reviews.jsonl")
    assert "2 rows could not be explained" in str(summary)
    (tmp_path / "out" / "run.json").write_text("{")
    assert summarize(tmp_path / "out", least=2).info["data"] is None


def test_a_report_shows_it_alone_or_below_explanations(folder):
    model, tokenizer = load_demo()
    summary = summarize(folder, least=5, words=3)
    assert summary.info["data"] is None  # a list has no name
    alone = report(corpus=summary)
    assert (alone.items, alone.corpus, alone.info["method"]) == ((), summary, "relevance")
    plain = {"methods": (), "token_set": False, "certificate": False, "subgraph": False, "attention": "none"}
    page = report(model, "A warm film.", corpus=summary, tokenizer=tokenizer, **plain)
    assert page.corpus == summary
    assert len(page.items) == 1
    for call, words in (
        (lambda: report(), "model and inputs: missing"),
        (lambda: report(model), "inputs: missing"),
        (lambda: report(inputs="a", corpus=summary), "model: missing"),
        (lambda: report(summary), r"pass it by its name, report\(corpus=summary\)"),
        (lambda: report(corpus="reviews"), "corpus must be the result of summarize, not str"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            call()


def test_refusals_name_what_is_wrong(folder, tmp_path):
    with pytest.raises(InvalidInputError, match="least must be a whole number of 2 or more"):
        summarize(folder, least=1)
    with pytest.raises(InvalidInputError, match="is not the folder of a run"):
        summarize(tmp_path)
    model, tokenizer = load_demo()
    explain_dataset(model, ["a film"], output=tmp_path / "rollout", tokenizer=tokenizer, method="rollout")
    with pytest.raises(InvalidInputError, match="the scores of method 'rollout' belong to no class"):
        summarize(tmp_path / "rollout")


def moments_of(values):
    moments = Moments()
    for value in values:
        moments.add(value)
    return moments


def test_moments_give_the_tests_of_scipy():
    first, second = torch.randn(2, 40, generator=torch.Generator().manual_seed(0)).double().tolist()
    second = [2 * value + 0.3 for value in second[:25]]
    left, right = moments_of(first), moments_of(second)
    assert one_sample_p(left) == pytest.approx(scipy.stats.ttest_1samp(first, 0).pvalue)
    assert welch_p(left, right) == pytest.approx(scipy.stats.ttest_ind(first, second, equal_var=False).pvalue)
    both, expected = left.with_negated(right), moments_of([*first, *(-value for value in second)])
    assert (both.count, both.mean, both.squares) == pytest.approx((expected.count, expected.mean, expected.squares))
    assert one_sample_p(moments_of([1.0, 1.0])) is None


def test_an_input_of_several_targets_counts_once(tmp_path):
    model, tokenizer = load_demo()
    rng = random.Random(1)
    rows = [review(rng) for _ in range(30)]
    options = {"tokenizer": tokenizer, "columns": {"text": "text", "label": None}}
    explain_dataset(model, rows, output=tmp_path / "all", targets="all", **options)
    explain_dataset(model, rows, output=tmp_path / "first", target=0, **options)
    every, first = (summarize(tmp_path / name, least=3, words=50) for name in ("all", "first"))
    assert "30 inputs" in every.heading
    assert all(one.inputs <= 30 for one in every.opposing)
    found = {(one.word, one.label): one for one in every.opposing}
    expected = {(one.word, one.label): one for one in first.opposing}
    assert expected
    assert {key: (one.inputs, one.p_value) for key, one in found.items() if key[1] == "negative"} == {
        key: (one.inputs, one.p_value) for key, one in expected.items()
    }


def test_the_text_of_thousands_of_classes_is_short():
    names = tuple(f"class {i}" for i in range(3000))
    words = tuple(ClassWord(f"word{i}", name, 10, 10, 1.0, None, 0.0, None, None) for i, name in enumerate(names))
    summary = CorpusSummary(3000, names, (1,) * 3000, None, words, (), (), 3000, 10)
    text = " ".join(summary.to_text().split())
    assert len(text) < 10_000
    assert "class 19: 1 and 2,980 more classes." in text or "class 19: 1 and 2980 more classes." in text
    assert "word19" in text
    assert "word20 " not in text
    assert len(summary.to_pandas()) == 3000
