"""What turns the lines of the study of faithfulness into means, paired tests and verdicts."""

import json
import re

import numpy as np
import pytest
import scipy.stats
import torch

from benchmarks.studies.faithfulness import data, plan, report, tables
from benchmarks.studies.faithfulness import run as study

OURS, RIVAL = "relevance", "integrated_gradients"


@pytest.fixture(autouse=True)
def few_flips(monkeypatch):
    monkeypatch.setattr(tables, "FLIPS", 2_000)


def line(places, values, *, name="imdb", group="main", removal="delete", forwards=1):
    cost = {"forwards": forwards, "backwards": 0}
    return {
        "kind": "run",
        "set": name,
        "group": group,
        "removal": removal,
        "places": list(places),
        "judged": list(places),
        "values": values,
        "costs": dict.fromkeys(values, cost),
        "failures": {},
        "tokens": 10,
    }


def both(comp, suff=None):
    return {"comprehensiveness": list(comp), "sufficiency": list(comp if suff is None else suff)}


def test_chunks_in_any_order_fall_into_their_places():
    rows = [
        line([2, 3], {OURS: both([0.3, 0.4]), RIVAL: both([0.1, 0.2])}),
        line([0, 1], {OURS: both([0.1, 0.2])}),
        line([0], {OURS: both([9.0])}, name="sst2"),
        line([0], {OURS: both([9.0])}, removal="attention_mask"),
        line([0], {OURS: both([9.0])}, group="masked"),
    ]
    found = tables.values_of(rows, "imdb", ("main",))
    assert found[OURS]["comprehensiveness"] == [0.1, 0.2, 0.3, 0.4]
    assert found[RIVAL]["sufficiency"] == [None, None, 0.1, 0.2]


def test_a_difference_is_paired_and_positive_where_relevance_is_better():
    drawn = np.random.default_rng(0)
    ours, rival = drawn.normal(0.5, 0.1, (2, 40))
    rival[3:] -= 0.05
    partial = [None, None, None, *rival[3:]]
    rows = [line(range(40), {OURS: both(ours), RIVAL: both(partial), "random": both(drawn.normal(0.1, 0.1, 40))})]
    values = tables.values_of(rows, "imdb", ("main",))
    for metric, sign in (("comprehensiveness", 1), ("sufficiency", -1)):
        tests = tables.against_ours(values, metric)
        assert set(tests) == {RIVAL, "random"}
        ahead = sign * (ours[3:] - rival[3:])
        assert tests[RIVAL].difference.mean == pytest.approx(ahead.mean(), abs=1e-12)
        assert tests[RIVAL].difference.inputs == 37
        low, high = tests[RIVAL].difference.interval
        assert low < ahead.mean() < high
        few = dict.fromkeys(values, None) | {
            name: {metric: [*columns[metric][3:13], *[None] * 27]} for name, columns in values.items()
        }
        exact = scipy.stats.permutation_test((ahead[:10],), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert tables.against_ours(few, metric)[RIVAL].p_value == pytest.approx(exact.pvalue)
        raw = sorted(test.p_value for test in tests.values())
        assert min(test.adjusted for test in tests.values()) == pytest.approx(min(1, 2 * raw[0]))


def test_the_best_captum_method_needs_half_of_the_inputs_and_the_sign_of_its_metric():
    ours = [0.5] * 10
    rows = [
        line(
            range(10),
            {
                OURS: both(ours),
                RIVAL: both([0.3] * 10, [0.2] * 10),
                "saliency": both([0.2] * 10, [0.1] * 10),
                "lime": both([0.9] * 4 + [None] * 6, [-0.9] * 4 + [None] * 6),
                "attention": both([0.95] * 10, [-0.95] * 10),
            },
        )
    ]
    assert tables.best_captum(rows, "imdb") == RIVAL  # lime: four inputs of ten; attention: not Captum's
    assert tables.best_captum(rows, "imdb", "sufficiency") == "saliency"
    assert tables.best_captum([], "imdb") == RIVAL


@pytest.mark.parametrize(
    ("ahead", "not_worse", "better"), [(0.05, True, True), (0.0, True, False), (-0.05, False, False)]
)
def test_verdicts_follow_the_interval_and_the_corrected_p(ahead, not_worse, better):
    noise = np.random.default_rng(1).normal(0, 0.005, 60)
    noise -= noise.mean()
    base = np.linspace(0.2, 0.8, 60)
    rows = [line(range(60), {OURS: both(base + ahead + noise, base - ahead - noise), RIVAL: both(base)})]
    found = {one.target: one for one in tables.verdicts(rows, {"imdb": 60}, ("imdb",))}
    assert len(found) == 4
    for metric in ("comprehensiveness", "sufficiency"):
        assert found[f"imdb: {metric} not worse by 0.01"].met is not_worse
        assert found[f"imdb: {metric} significantly better"].met is better
        assert found[f"imdb: {metric} not worse by 0.01"].complete
    (first, *_) = tables.verdicts(rows, {"imdb": 200}, ())
    assert not first.complete
    (missing, *_) = tables.verdicts([], {"imdb": 200}, ())
    assert missing.met is None


def test_passes_are_means_over_inputs():
    rows = [line([0, 1, 2], {OURS: both([0.1] * 3)}, forwards=2), line([3], {OURS: both([0.1])}, forwards=10)]
    assert tables.costs_of(rows, "imdb", ("main",)) == {OURS: (4.0, 0.0)}


def test_what_is_in_the_results_is_not_run_again():
    everything = plan.pending_units("imdb", [])
    done = line([0, 1, 2, 3, 4], {OURS: both([0.1] * 5)})
    assert len(plan.pending_units("imdb", [done])) == len(everything) - 1
    assert len(plan.pending_units("imdb", [done | {"removal": "mask"}])) == len(everything)


class Words:
    """Words are tokens, long ones two; [CLS] before and [SEP] behind."""

    def __call__(self, text, **_):
        ids, offsets, numbers, at = [0], [(0, 0)], [None], 0
        for number, word in enumerate(text.split()):
            start = text.index(word, at)
            at = start + len(word)
            middle = start + 4
            for place in [(start, middle), (middle, at)] if len(word) > 4 else [(start, at)]:
                ids.append(1)
                offsets.append(place)
                numbers.append(number)
        answer = {"input_ids": [*ids, 0], "offset_mapping": [*offsets, (0, 0)]}
        return type("Encoding", (dict,), {"word_ids": lambda self: [*numbers, None]})(answer)


@pytest.mark.parametrize(("tokens", "expected"), [(8, "one wordless two end"), (6, "one wordless two"), (4, "one")])
def test_a_text_is_cut_behind_a_whole_word(tokens, expected):
    assert data.cut("one wordless two end", Words(), tokens) == expected


def test_metrics_that_nothing_was_tuned_on_are_ranked_in_their_direction():
    """Places of the methods of the package: higher is better for soft comprehensiveness, lower for the log-odds."""
    count, metrics = 12, report.UNTUNED
    levels = {OURS: 0.2, "attnlrp": 0.3, report.ITERATIVE: 0.1, "GIM": 0.4}
    noise = np.random.default_rng(0).normal(0, 0.001, count)
    values = {method: {metric: list(level + noise) for metric in metrics} for method, level in levels.items()}
    rows = [line(range(count), values, name="sst2", group="untuned", removal="mask")]
    text = "\n".join(report._untuned(rows))
    assert "**12 of 100 planned inputs were run yet.**" in text
    assert "Not run yet: AG News, IMDB, 128 tokens." in text
    assert "| SST-2 | soft comprehensiveness | GIM, 0.4" in text
    assert re.search(r"SST-2 \| soft comprehensiveness \| GIM, [^|]+ \| 3 \| 2 \| 4 \| 4 \|", text)
    assert re.search(r"SST-2 \| log-odds \| attnlrp_iterative, [^|]+ \| 2 \| 3 \| 1 \| 4 \|", text)
    found = {name: re.search(rf"^\| {name} \| 12 .*$", text, re.MULTILINE)[0] for name in ("GIM", report.ITERATIVE)}
    assert "-0.200 [-0.200, -0.200]" in found["GIM"]
    assert "+0.200 [+0.200, +0.200]" in found["GIM"]


def test_the_page_says_what_is_missing_and_holds_the_numbers():
    columns = {method: both(torch.linspace(0, 1, 20).tolist()) for method in (OURS, RIVAL, "random")}
    hardware = {"cpu": "a", "cores": 2, "capability": "b"}
    about = {"hardware": hardware, "versions": {}, "commit": "c", "cpu_seconds": 60.0}
    text = report.page([line(range(20), columns) | about])
    assert "(only 20 were run yet)" in text
    assert "| **relevance** | ours | 20 | 0.500 [" in text
    assert "not all inputs were run yet" in text.lower()


def test_further_sets_are_run_in_turns():
    units = plan.pending_units("further", [])
    count = len(plan.FURTHER_SETS)
    assert [unit.dataset.name for unit in units[: count + 1]] == [*plan.FURTHER_SETS, plan.FURTHER_SETS[0]]
    done = line(units[0].positions, {OURS: both([0.1] * len(units[0].positions))}, name=units[0].dataset.name)
    assert plan.pending_units("further", [done]) == units[1:]


def test_pairs_are_judged_with_both_of_their_texts(demo):
    pairs = [("The plot is thin.", "The leads are a joy."), ("It is dull.", "Nobody minds.")]
    inputs = data.Inputs(demo[0], demo[1], pairs, None, None, "")
    row = study.run(data.SETS["snli"], inputs, (0, 1), group="main", methods=(OURS, "attnlrp_iterative", "random"))
    assert not row["failures"]
    assert row["tokens"] == np.mean([len(demo[1](*pair)["input_ids"]) for pair in pairs])
    assert all(
        len(column) == 2 and None not in column for columns in row["values"].values() for column in columns.values()
    )


def test_accuracies_of_trained_models_stand_beside_the_most_common_class(tmp_path):
    assert plan.trained_facts(tmp_path) == {}
    facts = {"name": "m", "accuracy": 0.56, "most_common": 0.54, "test": 490, "train": 2000, "minutes": 1}
    (tmp_path / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    values = dict.fromkeys((OURS, "attnlrp", report.ITERATIVE, RIVAL), both([0.1] * 5))
    weak = line(range(5), values, name="rte") | plan.trained_facts(tmp_path)
    good = line(range(5), values, name="snli") | {"trained": facts | {"accuracy": 0.9}}
    assert "RTE 0.560 (0.540), SNLI 0.900 (0.540). " in "\n".join(report._further([good, weak]))
    assert "Accuracy" not in "\n".join(report._further([line(range(5), values, name="rte")]))


def test_places_on_further_sets_are_those_of_the_means():
    noise = np.random.default_rng(0).normal(0, 0.001, 20)
    levels = {OURS: 0.3, "attnlrp": 0.2, report.ITERATIVE: 0.4, RIVAL: 0.35, "saliency": 0.1}
    rows = [
        line(range(20), {name: both(level + noise, 1 - level + noise) for name, level in levels.items()}, name="mrpc")
    ]
    text = "\n".join(report._further(rows))
    for metric, best in (("comprehensiveness", "0.400"), ("sufficiency", "0.600")):
        found = re.search(rf"^\| MRPC \| {metric} \| {report.ITERATIVE}, ({best}|0\.\d+) .*$", text, re.MULTILINE)[0]
        assert "| 3 | 4 | 1 | 5 |" in found
        assert re.search(rf"\| -0\.050 \[-0\.050, -0\.050\], p = \.00\d \({RIVAL}\) \| \+0\.050 \[", found)
    assert "Not run yet: SNLI, CoLA," in text
    assert report._further([]) == []
    assert "SNLI" in report._not_run(rows)
    assert "MRPC" not in report._not_run(rows)


def test_a_pair_has_the_p_of_its_table_among_the_targets():
    """The family of Holm's correction of a target is that of the table: peers and methods of papers are in it."""
    drawn = np.random.default_rng(3)
    base = drawn.normal(0.4, 0.1, 30)
    ours = base + 0.02 + drawn.normal(0, 0.045, 30)
    peers = {f"peer {number}": both(base + drawn.normal(0, 0.1, 30)) for number in range(10)}
    rows = [line(range(30), {OURS: both(ours), RIVAL: both(base)}), line(range(30), peers, group="peers")]
    (first, *_) = tables.verdicts(rows, {"imdb": 30}, ())
    adjusted = tables.against_ours(tables.values_of(rows, "imdb", tables.ALL), "comprehensiveness")[RIVAL].adjusted
    alone = tables.against_ours(tables.values_of(rows, "imdb", ("main",)), "comprehensiveness")[RIVAL].adjusted
    assert alone < adjusted < 1
    assert tables.p_text(adjusted) in first.figure


def test_the_worst_results_are_every_significant_loss_and_the_largest_one():
    noise = np.random.default_rng(0).normal(0, 0.001, 20)
    levels = {OURS: 0.3, report.ITERATIVE: 0.4, RIVAL: 0.45, "attnlrp": 0.2}
    columns = {name: both(level + noise, [0.1] * 20) for name, level in levels.items()}
    uncertain = both(0.3 + np.array([0.5, *[-0.001] * 19]), [0.1] * 20)
    rows = [line(range(20), columns | {"saliency": uncertain}, name="mrpc")]
    found = report._worst(rows)
    lines = [row for row in found if row.startswith("| MRPC")]
    assert [re.match(r"\| MRPC \| (\w+) \| (\w+) \| (\w+) \|", row).groups() for row in lines] == [
        ("comprehensiveness", OURS, RIVAL),
        ("comprehensiveness", OURS, report.ITERATIVE),
        ("comprehensiveness", report.ITERATIVE, RIVAL),
    ]
    assert all("**-0." in row for row in lines)
    alone = report._worst([line(range(20), {OURS: columns[OURS], "saliency": uncertain}, name="mrpc")])
    assert any("| saliency | -0.0" in row for row in alone)  # the largest loss stands there without a small p
    assert report._worst([line(range(20), {OURS: columns[OURS], "attnlrp": columns["attnlrp"]}, name="mrpc")]) == []


def test_missed_targets_stand_first():
    worse, better = (
        both(np.linspace(0.1, 0.3, 30), np.linspace(0.7, 0.9, 30)),
        both(np.linspace(0.7, 0.9, 30), [0] * 30),
    )
    rows = [
        line(range(30), {OURS: ours, RIVAL: both([0.5] * 30)}, name=name)
        for name, ours in (("agnews", better), ("imdb", worse))
    ]
    verdicts = re.findall(
        r"\| (met so far|not shown yet|\*\*missed\*\*|met) \|$", "\n".join(report._targets(rows)), re.M
    )
    first_good = next(place for place, verdict in enumerate(verdicts) if verdict.startswith("met"))
    assert first_good > 0
    assert all(verdict.startswith("met") for verdict in verdicts[first_good:])


def test_limits_name_what_the_plan_has_no_rows_of():
    columns = {OURS: both([0.1] * 12), RIVAL: both([0.1] * 12)}
    rows = [line(range(12), columns, name="snli"), line(range(12), columns, name="sst2", group="untuned")]
    text = "\n".join(report._limits(rows, []))
    assert "all methods, SNLI: 12 of 200" in text
    assert "metrics that nothing was tuned on, SST-2: 12 of 100" in text
    (missing,) = (row for row in text.splitlines() if row.startswith("- Not run: "))
    for name in ("RTE", "CoLA", "SST-2, DeBERTa-v2", "IMDB, 256 tokens", "LIME, deleted on AG News"):
        assert name in missing
    assert "SNLI" not in missing
    assert "metrics that nothing was tuned on, SST-2" not in missing
    assert "Captum's costly methods on SST-2" in missing
