"""The parts of benchmarks/studies/information that turn attention and information into figures and verdicts."""

import argparse
import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from benchmarks.common import EMBEDDED_MODEL, append_row, read_rows
from benchmarks.studies.information import collect, estimates, kinds, measures, report, states, training
from benchmarks.studies.information.run import Run
from hf_attn_mi.evaluation import holm


def small_data(texts=24, hidden=6):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 7, (texts,), generator=generator)
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    labels = torch.arange(texts) % 2
    tokens = torch.randn(int(starts[-1]), hidden, generator=generator) + labels.repeat_interleave(lengths)[:, None]
    return states.Cached(tokens, starts, labels)


def test_shape_of_attention_by_hand():
    assert measures.shape_of(torch.full((4,), 0.25)) == pytest.approx((1.0, 0.0, 0.25))
    spread, gini, largest = measures.shape_of(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    assert (spread, largest) == (0.0, 1.0)
    assert gini == pytest.approx(3 / 4)  # 1 - 1 / n for all in one place
    weights = torch.tensor([0.1, 0.2, 0.7])
    pairs = sum(abs(a - b) for a in weights.tolist() for b in weights.tolist()) / (2 * 3 * 1.0)  # mean difference
    assert measures.shape_of(weights)[1] == pytest.approx(pairs)


def test_pairs_are_sorted_by_how_far_apart_the_weights_are():
    weights = torch.tensor([1.0, math.exp(0.1), math.exp(2.0), 1.0])
    information = torch.tensor([0.0, 1.0, 0.5, 2.0], dtype=torch.double)
    other = torch.tensor([0.0, -1.0, 0.5, 2.0], dtype=torch.double)
    attention, halves = measures.pair_agreement(weights, information, (information, other))
    # (0, 1) .1 agree; (0, 2) 2 agree; (0, 3) equal, left out; (1, 2) 1.9 not; (1, 3) .1 not; (2, 3) 2 not
    assert attention == pytest.approx([math.nan, 0, math.nan, -1 / 3], nan_ok=True)
    # of the halves (0, 1) and (1, 2) disagree
    assert halves == pytest.approx([math.nan, 0, math.nan, 1 / 3], nan_ok=True)


def test_batches_of_cached_states_are_the_texts():
    tokens = torch.arange(12.0).reshape(6, 2).half()
    data = states.Cached(tokens, torch.tensor([0, 1, 4, 6]), torch.tensor([0, 1, 0]))
    batch = data.batch(torch.tensor([2, 1]))
    assert batch.mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.states[0].tolist() == [[8, 9], [10, 11], [0, 0]]
    assert batch.states[1].tolist() == tokens[1:4].tolist()
    assert batch.labels.tolist() == [0, 1]
    assert sorted(torch.cat([b.texts for b in data.batches(seed=3)]).tolist()) == [0, 1, 2]


def test_uniform_and_frozen_heads_are_what_they_say():
    data = small_data()
    batch = data.batch(torch.arange(3))
    given = training.make_head(kinds.UNIFORM, 0, data).eval()(batch.states, batch.mask).weights[:, 0, 0]
    assert torch.allclose(given, batch.mask / batch.mask.sum(1, keepdim=True))
    frozen = training.make_head(kinds.FROZEN, 0, data)
    before, classifier = frozen.score.weight.clone(), frozen.classifier.weight.clone()
    training.train_head(frozen, data.batches(seed=0), training.Setting(1e-2, 2), 0)
    assert torch.equal(frozen.score.weight, before)
    assert not torch.equal(frozen.classifier.weight, classifier)


def test_the_best_setting_has_the_fewest_epochs_of_equal_ones():
    table = [[0.5, 0.7, 0.9], [0.6, 0.9, 0.8], [0.7, 0.9, 0.9]]
    assert training.best_setting((0.1, 0.2, 0.3), table) == training.Setting(0.2, 2)


def test_tuning_trains_as_the_study_does():
    """The table's accuracy of (rate, epochs) is that of a head trained with this setting."""
    data = dict.fromkeys(states.SPLITS, small_data())
    batches = data["train"].batches(seed=0)
    setting, table = training.tune(kinds.Kind("additive"), data, batches, rates=(1e-3, 1e-1), epochs=3)
    head = training.make_head(kinds.Kind("additive"), training.TUNING_SEED, data["train"])
    training.train_head(head, batches, setting, training.TUNING_SEED)
    place = (1e-3, 1e-1).index(setting.rate)
    assert training.accuracy(head, data["held_out"].batches()) == table[place][setting.epochs - 1]
    assert table[place][setting.epochs - 1] == max(itertools.chain(*table))


def test_matched_heads_have_the_entropy_and_the_order_of_the_trained_head():
    data, cell = small_data(), kinds.Cell("x", 0, kinds.Kind("additive", entropy=0.5))
    trained = training.make_head(cell.kind.base, 0, data).eval()
    batches, setting = data.batches(seed=0), training.Setting(1e-2, 2)
    head, temperature = training.matched_head(cell, trained, dict.fromkeys(states.SPLITS, data), batches, setting)
    evenness, other = [], []
    for batch in data.batches():
        weights, base = (h(batch.states, batch.mask).weights[:, 0, 0].detach() for h in (head, trained))
        evenness.append(training.evenness_of(weights, batch.mask))
        other.append(training.evenness_of(base, batch.mask))
        assert torch.equal(weights.argmax(1), base.argmax(1))
    assert float(torch.cat(evenness).mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(torch.cat(other).mean()) > 0.6
    assert temperature < 1


def test_errors_count_seeds_and_texts():
    values = np.random.default_rng(0).normal(size=(4, 50)) + np.array([0.0, 1.0, 2.0, 3.0])[:, None]
    found = estimates.estimate(values.mean(1), values.mean(0))
    parts = scipy.stats.sem(values.mean(1)) ** 2, scipy.stats.sem(values.mean(0)) ** 2
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 49)
    half = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    assert (found.mean, found.low, found.high) == pytest.approx(
        (values.mean(), values.mean() - half, values.mean() + half)
    )
    by_seeds = estimates.estimate(values.mean(1), None)
    assert by_seeds.p == pytest.approx(scipy.stats.ttest_1samp(values.mean(1), 0).pvalue)
    assert math.isnan(estimates.estimate(np.array([1.0]), None).p)


def test_the_smallest_difference_that_would_be_found_is_found_with_this_probability():
    found = estimates.Estimate(0.0, 0.1, 9, 10, 0.05)
    true = found.detectable(1)
    draw = np.random.default_rng(0)
    samples = draw.normal(true, 0.1 * math.sqrt(10), size=(20_000, 10))
    power = (scipy.stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.02)
    assert found.detectable(10) > true > found.detectable_with_any_seeds(1)


def decisions(*given, limit=0.05, claim=estimates.ABOVE):
    values = [estimates.Estimate(mean, error, 9, 10, 0.0) for mean, error in given]
    return estimates.decide([estimates.Difference("", "", limit, value, claim) for value in values])


def test_words_and_verdicts():
    words = [d.word for d in decisions((0.2, 0.01), (-0.2, 0.01), (0.0, 0.001), (0.0, 1.0), (math.nan, math.nan))]
    assert words == ["holds", "reversed", "absent", "open", "open"]
    below = [d.word for d in decisions((0.0, 0.01), (0.2, 0.01), (0.09, 0.1), limit=0.1, claim=estimates.BELOW)]
    assert below == ["holds", "reversed", "open"]
    assert estimates.verdict(decisions((0.2, 0.01), (0.3, 0.01))) == "holds"
    assert estimates.verdict([]) == "not decided"
    assert estimates.verdict(decisions((0.2, 0.01), (0.1, 1.0))) == "not decided"
    assert estimates.verdict(decisions((0.2, 0.01), (0.0, 0.001), (0.1, 1.0))) == "does not hold"


def test_p_values_are_corrected_over_all_differences_of_a_claim():
    given = [(0.2, 0.07), (0.2, 0.08), (0.2, 0.09)]
    alone = [estimates.Estimate(mean, error, 9, 10, 0.0).p for mean, error in given]
    assert max(alone) < 0.06
    assert [d.p for d in decisions(*given)] == pytest.approx(holm(alone))
    assert decisions(given[1])[0].word == "holds"
    assert decisions(*given)[1].word == "open"


def test_an_absent_difference_has_its_interval_within_the_limit():
    for error, freedom in itertools.product((0.01, 0.02, 0.03), (4, 9)):
        value = estimates.Estimate(0.01, error, freedom, 10, 0.0)
        assert (value.p_absent(0.05) < 0.05) == (value.low > -0.05 and value.high < 0.05)


def test_differences_that_the_bounds_contradict_are_named():
    def table(*means):
        rows = tuple((str(i), {"x": estimates.Estimate(m, 0.1, 9, 10, 0.0)}) for i, m in enumerate(means))
        return report.Part("", "share", rows)

    text = report.signs_text(table(0.1, -0.1, -0.1), table(0.2, 0.1, -0.2))
    assert text.startswith("In 1 of 3 differences with matched entropy (1 on x)")
    assert report.signs_text(table(0.1), table(0.2)).startswith("Estimates and lower bounds point the same way")


def test_entropy_as_a_covariate_finds_what_was_added():
    entropy = np.linspace(0.1, 0.9, 9)
    names = ["a", "b", "c"] * 3
    extra = {"a": 0.3, "b": -0.1, "c": 0.0}
    points = [(k, x, 0.5 - 0.4 * x + 0.2 * x * x + extra[k]) for k, x in zip(names, entropy)]
    assert estimates.adjusted_for(points, ("a", "b", "c")) == pytest.approx({"a": 0.3, "b": -0.1})


def test_means_of_texts_are_over_the_seeds_that_have_a_value():
    values = np.array([[1.0, math.nan, math.nan], [0.0, 0.5, math.nan]])
    assert collect.means_of(values) == [0.5, 0.5, None]


def test_only_complete_seeds_are_stored():
    names = {group: [kind.name for kind in members] for group, members in kinds.GROUPS.items()}
    heads = {("x", seed, name): {} for seed in (0, 1, 2) for name in names["main"]}
    heads |= {("x", 0, name): {} for name in names["recurrent"]}
    del heads["x", 2, names["main"][-1]]
    assert collect.blocks_of(heads) == {("x", ("main", "recurrent")): [0], ("x", ("main",)): [1]}


def test_seeds_that_are_stored_together_are_not_torn_apart(tmp_path):
    kind = kinds.Kind("additive").name
    stored = tmp_path / "rows.jsonl"
    append_row({"row": "texts", "dataset": "x", "kind": kind, "measure": "tau", "seeds": [0, 1], "values": []}, stored)
    for member in kinds.GROUPS["main"]:
        append_row({"dataset": "x", "seed": 0, "kind": member.name}, tmp_path / "measured.jsonl")
    with pytest.raises(SystemExit, match=r"seeds \[0, 1\] of x are stored together"):
        collect.collect(tmp_path, stored)


def options_for(folder, seeds, minutes=math.inf):
    return argparse.Namespace(
        output=folder,
        encoder=str(EMBEDDED_MODEL),
        quick=True,
        seeds=seeds,
        stored=folder / "rows.jsonl.gz",
        minutes=minutes,
        estimator="gaussian",
        permutations=1,
        rates=(1e-2,),
        epochs=1,
    )


@pytest.mark.slow
def test_a_small_run_goes_on_where_it_stopped_and_writes_its_page(tmp_path):
    options = options_for(tmp_path, {"films": 2})
    stopped = Run(options)
    cells = list(kinds.cells_in_order(options.seeds))
    for cell in cells[:5]:
        stopped.one(cell)
    first = (tmp_path / "measured.jsonl").read_text()
    Run(options_for(tmp_path, {"films": 2}, minutes=-1)).all()  # the time is over
    assert (tmp_path / "measured.jsonl").read_text() == first
    Run(options).all()
    assert (tmp_path / "measured.jsonl").read_text().startswith(first)
    rows = read_rows(tmp_path / "measured.jsonl")
    assert [(row["dataset"], row["seed"], row["kind"]) for row in rows] == [
        (cell.dataset, cell.seed, cell.kind.name) for cell in cells
    ]
    for mi in (row["mi"] for row in rows if "mi" in row):
        assert mi["nats"]["context"] == pytest.approx(mi["ceiling"], rel=0.05)  # the context has it all
        assert all(mi["lower_bound"][site] <= mi["upper_bound"][site] for site in measures.SITES)

    collect.collect(tmp_path, options.stored)
    once = options.stored.read_bytes()
    collect.collect(tmp_path, options.stored)
    assert options.stored.read_bytes() == once  # what is stored is not added again
    results = estimates.Results(options.stored)
    kind = kinds.Kind("additive")
    assert results.seeds("films", [kind]) == [0, 1]
    by_hand = [row["means"]["tau"] for row in rows if row["kind"] == kind.name]
    found = results.estimate("films", [estimates.Term(kind, "tau")])
    assert found.mean == pytest.approx(np.mean(by_hand), abs=1e-5)
    assert np.nanmean(results.text_values("films", [estimates.Term(kind, "tau")])) == pytest.approx(
        np.mean(by_hand), abs=2e-3
    )

    verdicts = report.write_report(options.stored, tmp_path).splitlines()
    assert len(verdicts) == 5
    page = (tmp_path / "information.md").read_text()
    assert f"{len(cells)} heads, " in page
    for line in verdicts:
        assert f"**Verdict: {line.rsplit('. ')[-1]}.**".lower() in page.lower()
    assert (tmp_path / "information.png").stat().st_size > 1000


def test_seeds_of_another_run_are_added_to_the_stored_ones(tmp_path):
    kind = kinds.Kind("additive")
    values = {0: [0.2, 0.4], 1: [0.4, 0.8], 2: [0.0, 0.0]}
    stored = tmp_path / "rows.jsonl"
    for seed, by_text in values.items():
        head = {"row": "head", "dataset": "x", "seed": seed, "kind": kind.name, "means": {"tau": np.mean(by_text)}}
        append_row(head, stored)
    for seeds in ([0, 1], [2]):
        texts = np.mean([values[seed] for seed in seeds], 0).tolist()
        fields = {"row": "texts", "dataset": "x", "kind": kind.name, "measure": "tau", "seeds": seeds}
        append_row(fields | {"values": texts}, stored)
    results = estimates.Results(stored)
    assert results.text_values("x", [estimates.Term(kind, "tau")]).tolist() == pytest.approx([0.2, 0.4])
    assert results.seed_values("x", [estimates.Term(kind, "tau", 2.0)]).tolist() == pytest.approx([0.6, 1.2, 0.0])
