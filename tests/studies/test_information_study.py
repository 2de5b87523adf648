"""The parts of benchmarks/studies/information that turn attention and information into figures and verdicts."""

import argparse
import math

import numpy as np
import pytest
import scipy.stats
import torch

from benchmarks.common import EMBEDDED_MODEL
from benchmarks.studies.information import report
from benchmarks.studies.information import run as study


def test_shape_of_attention_by_hand():
    assert study.shape_of(torch.full((4,), 0.25)) == pytest.approx((1.0, 0.0, 0.25))
    spread, gini, largest = study.shape_of(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    assert (spread, largest) == (0.0, 1.0)
    assert gini == pytest.approx(3 / 4)  # 1 - 1 / n for all in one place
    weights = torch.tensor([0.1, 0.2, 0.7])
    pairs = sum(abs(a - b) for a in weights.tolist() for b in weights.tolist()) / (2 * 3 * 1.0)  # mean difference
    assert study.shape_of(weights)[1] == pytest.approx(pairs)


def test_pairs_are_sorted_by_how_far_apart_the_weights_are():
    weights = torch.tensor([1.0, math.exp(0.1), math.exp(2.0), 1.0])
    information = torch.tensor([0.0, 1.0, 0.5, 2.0], dtype=torch.double)
    agree, pairs = study.pair_agreement(weights, information)
    # (0, 1) .1 agree; (0, 2) 2 agree; (0, 3) equal, left out; (1, 2) 1.9 not; (1, 3) .1 not; (2, 3) 2 not
    assert pairs.tolist() == [0, 2, 0, 3]
    assert agree.tolist() == [0, 0, 0, -1]


def test_batches_of_cached_states_are_the_texts():
    states = torch.arange(12.0).reshape(6, 2).half()
    data = study.Cached(states, torch.tensor([0, 1, 4, 6]), torch.tensor([0, 1, 0]))
    batch, mask = data.batch(torch.tensor([2, 1]))
    assert mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch[0].tolist() == [[8, 9], [10, 11], [0, 0]]
    assert batch[1].tolist() == states[1:4].tolist()
    generator = torch.Generator().manual_seed(0)
    assert sorted(torch.cat(list(study.batches(data, generator))).tolist()) == [0, 1, 2]


def test_uniform_and_frozen_heads_are_what_they_say():
    data = study.Cached(torch.randn(6, 4).half(), torch.tensor([0, 1, 4, 6]), torch.tensor([0, 1, 0]))
    cell = study.Cell("x", 0, "additive", "softmax", 1.0, "none", "uniform")
    weights = study.make_head(cell, data).eval()(*data.batch(torch.tensor([1, 2]))).weights
    assert torch.allclose(weights[0, 0, 0], torch.full((3,), 1 / 3))
    frozen = study.make_head(study.replace(cell, attention="frozen"), data)
    before = frozen.score.weight.clone()
    study.fit(frozen, data, 2, 0)
    assert torch.equal(frozen.score.weight, before)
    assert not any(p.requires_grad for p in frozen.score.parameters())


def test_intervals_count_seeds_and_texts():
    values = np.random.default_rng(0).normal(size=(4, 50)) + np.array([0.0, 1.0, 2.0, 3.0])[:, None]
    mean, low, high = report.interval(values)
    seeds, texts = values.mean(1), values.mean(0)
    error = math.sqrt(scipy.stats.sem(seeds) ** 2 + scipy.stats.sem(texts) ** 2)
    assert mean == pytest.approx(values.mean())
    assert high - mean == pytest.approx(mean - low) == pytest.approx(scipy.stats.t.ppf(0.975, 3) * error)
    assert report.interval_with_gaps(values) == pytest.approx((mean, low, high))
    holes = values.copy()
    holes[0, :10] = math.nan
    assert report.interval_with_gaps(holes)[0] == pytest.approx(np.nanmean(holes, 1).mean())


def test_verdicts():
    assert report.classify((0.2, 0.1, 0.3), 0.05) == "holds"
    assert report.classify((-0.2, -0.3, -0.1), 0.05) == "reversed"
    assert report.classify((0.0, -0.04, 0.04), 0.05) == "absent"
    assert report.classify((0.0, -0.04, 0.06), 0.05) == "open"
    assert report.classify((0.0, math.nan, math.nan), 0.05) == "open"
    assert report.verdict(["holds", "holds"]) == "holds"
    assert report.verdict([]) == "not decided"
    assert report.verdict(["holds", "open"]) == "not decided"
    assert report.verdict(["holds", "absent", "open"]) == "does not hold"


@pytest.mark.slow
def test_a_small_run_goes_on_where_it_stopped_and_writes_its_page(tmp_path):
    options = argparse.Namespace(
        output=tmp_path,
        data=None,
        encoder=str(EMBEDDED_MODEL),
        quick=True,
        seeds=2,
        share="0/1",
        report=None,
        estimator="gaussian",
        permutations=10,
    )
    kinds = [("softmax", 1.0), ("gumbel", 0.5)]
    cells = [
        cell for cell in study.grid(options) if cell.dataset == "films" and (cell.normalizer, cell.temperature) in kinds
    ]
    for name in ("heads", "texts"):
        (tmp_path / name).mkdir()
    study.run_cells(cells[: len(cells) // 2], options)
    first = (tmp_path / "measured.jsonl").read_text()
    study.run_cells(cells, options)
    assert (tmp_path / "measured.jsonl").read_text().startswith(first)
    rows = study.read_rows(tmp_path / "measured.jsonl")
    assert [study.Cell(**row["cell"]) for row in rows] == cells
    assert all(row["mi"]["share"][2] == pytest.approx(1.0, abs=0.05) for row in rows)  # the context has it all
    loaded = report.load(tmp_path)
    trained = report.select(loaded, attention="trained", score="deep", dataset=cells[0].dataset)
    by_hand = np.mean([row["means"]["correct"] for row in trained])
    assert report.matrix(trained, "correct").mean() == pytest.approx(by_hand)
    verdicts = report.write_report(tmp_path, tmp_path).splitlines()
    assert len(verdicts) == 5
    page = (tmp_path / "information.md").read_text()
    assert f"{len(cells)} heads, 2 seeds" in page
    for verdict in verdicts:
        assert f"**Verdict: {verdict.rsplit('. ')[-1].lower()}.**" in page
    assert (tmp_path / "information.png").stat().st_size > 1000
