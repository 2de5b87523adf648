"""The parts of benchmarks/studies/causal that turn runs into figures and verdicts."""

import argparse
import json
import math

import pytest
import scipy.stats
import torch
from transformers import AutoTokenizer

from benchmarks.studies.causal import models, page_parts, report
from benchmarks.studies.causal import run as study
from hf_attn_mi import capture_attention, effective_attention, efficient_attention


def options(**more):
    return argparse.Namespace(
        **{
            "data": None,
            "models": [],
            "report": None,
            "collect": False,
            "limit": None,
            "minutes": 1e6,
            "share": "0/1",
            "quick": True,
            "suites": None,
            **more,
        }
    )


@pytest.fixture
def loaded():
    return study.load(study.QUICK[1], options())


def test_uniform_and_permuted_rows_by_hand(loaded):
    tensors = study.tensors_of(loaded, loaded.rows[0][0])
    with torch.no_grad(), capture_attention(loaded.model) as capture:
        loaded.model(**tensors)
    call = capture.calls[1]
    count = tensors["input_ids"].shape[1]
    assert torch.equal(study.uniform(call), torch.full((1, call.heads, count, count), 1 / count))
    own, shuffled = call.attention(), study.permuted(call)
    assert not torch.equal(own, shuffled)
    torch.testing.assert_close(own.sort(-1).values, shuffled.sort(-1).values)
    assert torch.equal(shuffled, study.permuted(call))
    assert study.predict(loaded, loaded.rows[0][0]) == int(loaded.model(**tensors).logits.argmax())


def test_divergence_against_scipy():
    first, second = torch.rand(5, 7, dtype=torch.double), torch.rand(5, 7, dtype=torch.double)
    first, second = first / first.sum(-1, keepdim=True), second / second.sum(-1, keepdim=True)
    second[0], second[0, 1] = 0.0, 1.0
    middle = (first + second) / 2
    by_hand = (scipy.stats.entropy(first, middle, axis=1) + scipy.stats.entropy(second, middle, axis=1)) / 2
    assert study.divergence(first, second) == pytest.approx(by_hand.mean())
    assert study.divergence(first[:1] * 0 + second[0], second[:1]) == 0.0


def test_distances_of_a_layer_by_hand(loaded):
    with torch.no_grad(), capture_attention(loaded.model) as capture:
        loaded.model(**study.tensors_of(loaded, loaded.rows[0][0]))
    call = capture.calls[0]
    found = study.compare_rows(call, torch.Generator().manual_seed(0))
    own, values = call.attention()[0].double(), call.values_per_head()[0].double()
    new = effective_attention(own, values).attention
    assert found["effective"]["tv"] == pytest.approx(float((own - new).abs().sum(-1).mean() / 2), rel=1e-3)
    assert found["effective"]["negative"] == pytest.approx(float(-new.clamp_max(0).sum(-1).mean()), rel=1e-3)
    assert found["efficient"]["negative"] == 0.0
    assert found["curve"] == sorted(found["curve"], reverse=True)
    support = (efficient_attention(own, values).attention > 0).sum(-1)
    assert found["support"] == pytest.approx(float(support.double().mean()), rel=1e-3)
    assert int(support.max()) == 33  # 32 dimensions and the sum
    assert 0 < found["curve"][0] <= 33.0


@pytest.mark.parametrize("name", ["snli", "rte"])
def test_no_premise_of_one_file_is_in_both_parts(name, monkeypatch, tmp_path):
    rows = [((f"premise {i // 3}", f"hypothesis {i}"), i % 3) for i in range(60)]
    monkeypatch.setattr(models, "read_rows", lambda path: list(rows))
    monkeypatch.setitem(models.ONE_FILE, name, 40)
    train, test = models.read_split(tmp_path, name)
    assert sorted(train + test) == sorted(rows)
    assert not {texts[0] for texts, _ in train} & {texts[0] for texts, _ in test}
    assert len(train) == 39


def test_intervals_against_scipy():
    for hits, count in ((0, 7), (7, 7), (13, 40)):
        expected = scipy.stats.binomtest(hits, count).proportion_ci(0.95, "exact")
        assert page_parts.exact_interval(hits, count) == pytest.approx((expected.low, expected.high))
    values = [float(x) for x in range(1, 41)]
    # Ranks 14 and 27 of 40: P(Binomial(40, 1/2) <= 13) = .0192 on each side.
    assert page_parts.median(values) == "20.5 [14, 27]"
    assert 1 - 2 * scipy.stats.binom.cdf(13, 40, 0.5) > 0.95
    assert page_parts.median([2.0, 1.0]) == "1.5"


def line(**more):
    return {
        "suite": "a",
        "changed": 5,
        "kept": True,
        "relative": 1e-7,
        "predicted": 1,
        "label": 1,
        "uniform": 1,
        "residual": 1e-9,
        "necessity": 1e-5,
        "sum_error": 0.0,
        "smallest_weight": 1e-6,
        "controls": {"null-space noise": [1e-7, True, 0.0], "visible noise": [0.5, False, 0.1]},
        **more,
    }


def test_verdicts():
    sets = {name: {"dataset": name} for name in "abcde"}
    assert report.claim_verdict(dict.fromkeys("abcd", "holds"), sets) == "holds"
    assert report.claim_verdict({**dict.fromkeys("abcd", "holds"), "e": "-"}, sets) == "holds"
    assert report.claim_verdict({**dict.fromkeys("abcd", "holds"), "e": "fails"}, sets) == "does not hold"
    assert report.claim_verdict(dict.fromkeys("abc", "holds"), sets) == "not decided"
    assert report.claim_verdict({**dict.fromkeys("abcd", "holds"), "e": "open"}, sets) == "not decided"
    assert report.claim_verdict({**dict.fromkeys("abcd", "open"), "e": "fails"}, sets) == "does not hold"
    same = {name: {"dataset": "one"} for name in "abcd"}
    assert report.claim_verdict(dict.fromkeys("abcd", "holds"), same) == "not decided"
    assert report.decides([line()] * 20)
    assert not report.decides([line()] * 19 + [line(changed=0)] * 50)
    assert report.noise_ratio([line()] * 3) == pytest.approx(5e6)
    assert math.isnan(report.noise_ratio([line(controls={"null-space noise": None, "visible noise": None})]))


def test_the_role_of_attention():
    right, wrong = line(), line(uniform=0)
    assert report.attention_role([right] * 80 + [wrong] * 20)[1] == "plays a role"
    assert report.attention_role([right] * 300 + [line(predicted=0)])[1] == "plays no role"
    assert report.attention_role([right] * 30 + [wrong])[1] == "open"
    assert report.attention_role([right] * 19)[1] == "open"  # too few to say so
    assert report.attention_role([right] * 20)[1] == "plays no role"


def test_costs_are_compared_on_the_same_inputs():
    made = [
        {"index": i, "ranking": start, "defined": defined, "forwards": forwards, "passes": passes}
        for i, start, defined, forwards, passes in (
            (0, "relevance", True, 4.0, 3),
            (1, "relevance", True, 9.0, 3),
            (2, "relevance", False, 1.0, 3),
            (0, "random", True, 20.0, 0),
            (2, "random", True, 5.0, 0),
            (1, "attention", True, 10.0, 1),
        )
    ]
    assert report.paired(made, "random") == [13.0]
    assert report.paired(made, "attention") == [-1.0]


def test_rankings_of_one_input_are_one_input():
    made = [{"index": index, "true": true} for index, true in ((0, True), (0, False), (1, True), (1, True))]
    assert report.by_input(made, "true") == {0: False, 1: True}


@pytest.mark.slow
def test_a_small_run_goes_on_where_it_stopped_and_writes_its_page(tmp_path):
    some = options(output=tmp_path, limit=1)
    for part in study.PARTS:
        study.run_part(part, study.QUICK[1:], some, math.inf)
    first = {part: (tmp_path / f"{part}.jsonl").read_text() for part in study.PARTS}
    more = options(output=tmp_path, limit=2, parts=list(study.PARTS))
    more.suites = [study.QUICK[1].name]
    study.run(more)
    for part, before in first.items():
        assert (tmp_path / f"{part}.jsonl").read_text().startswith(before)
    made = study.read_rows(tmp_path / "certificates.jsonl")
    assert [one["index"] for one in made] == [0, 1]
    assert all(one["holds"] and one["changed"] > 0 for one in made)
    assert all(one["controls"]["visible noise"][0] > 100 * one["controls"]["null-space noise"][0] for one in made)
    sets = study.read_rows(tmp_path / "tokens.jsonl")
    assert {one["ranking"] for one in sets} == set(study.RANKINGS)
    assert all(one["true"] for one in sets)
    page = (tmp_path / "causal.md").read_text()
    assert "2 inputs in 1 suites" in page
    for verdict in page.split("**Verdict: ")[1:]:
        assert verdict.startswith("not decided")
    assert (tmp_path / "causal.png").stat().st_size > 1000
    # The stored rows give the same page, wherever the run's folder is.
    stored = tmp_path / "stored"
    assert (
        report.collect(tmp_path, stored)
        == "stored: 2 of certificates, 2 of details, 10 of tokens, 2 of speed, 1 of runs"
    )
    report.write_report(stored, stored)
    assert (stored / "causal.md").read_text() == page
    # Two inputs are too few for a verdict on times, however slow they are.
    slow = [one | {"certify": 100 * one["efficient"]} for one in study.read_rows(tmp_path / "speed.jsonl")]
    (tmp_path / "speed.jsonl").write_text("".join(json.dumps(one) + "\n" for one in slow))
    assert "NOT DECIDED" in report.write_report(tmp_path, tmp_path).splitlines()[2]
    # One prediction that changed turns the first claim, and says so among the targets.
    made[0]["kept"] = False
    (tmp_path / "certificates.jsonl").write_text("".join(json.dumps(one) + "\n" for one in made))
    verdicts = report.write_report(tmp_path, tmp_path).splitlines()
    assert "DOES NOT HOLD" in verdicts[0]
    assert "1 / 2" in (tmp_path / "causal.md").read_text()


def test_the_vocabulary_of_the_roberta_model_reads_bytes_and_survives_saving(tmp_path):
    rows = [("a fine film, a fine cast", 1), (("très bien", "not a fine film"), 0)] * 4
    recipe = models.RECIPES["roberta-sst2"]
    tokenizer = models.tokenizer_for(recipe, rows, "", "")
    text = "naïve \u2603 film"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == ids
    model = models.untrained(recipe, "", tokenizer, 2)
    longest = tokenizer(" ".join(["film"] * 99), truncation=True, max_length=recipe.longest, return_tensors="pt")
    assert longest["input_ids"].shape == (1, recipe.longest)
    assert model(**longest).logits.isfinite().all()


def test_stored_rows_are_packed_and_keep_every_digit(tmp_path):
    run_folder, stored = tmp_path / "run", tmp_path / "stored"
    row = line(relative=1.23456789012e-7, index=3, controls={"uniform": [0.123456789, True, None]})
    study.append_row(row, run_folder / "certificates.jsonl")
    assert report.collect(run_folder, stored).startswith("stored: 1 of certificates, 0 of details")
    first = (stored / "certificates.jsonl.gz").read_bytes()
    assert report.load(stored, "certificates") == [row]
    report.collect(stored, stored)
    assert (stored / "certificates.jsonl.gz").read_bytes() == first
