"""The benchmark for a GPU: the parts that need no kernel of a GPU, run on the CPU in its place."""

import pytest
import torch

from benchmarks.common import CheckFailed
from benchmarks.speed import gpu, over_backward


@pytest.fixture(autouse=True)
def cpu_in_place_of_a_gpu(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "SHAPES", ((1, 16),))
    monkeypatch.setattr(gpu, "MODEL", "MiniLM")
    monkeypatch.setattr(gpu, "TOKENS", 70)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "none")
    monkeypatch.setattr("benchmarks.common.SHORTEST_TURN", 0.0)


def test_explain_is_timed_over_forward_and_backward_with_the_limits_of_the_processor():
    rows = list(gpu.explained(1))
    assert [row["name"] for row in rows] == [f"explain on a GPU/MiniLM {task}, 1 x 16" for task in ("none", "full")]
    assert [row["target"] for row in rows] == ["<= 1.15", "<= 1.5"]
    assert all(row["ratio"]["median"] > 0 and row["gpu"] == "none" for row in rows)


def test_scores_that_do_not_add_up_get_no_figure(monkeypatch):
    monkeypatch.setattr(over_backward, "LARGEST_GAP", -1.0)
    with pytest.raises(CheckFailed, match="add up to"):
        next(gpu.explained(1))


def test_efficient_rows_are_compared_with_those_of_torch():
    layer, head = gpu.efficient(1)
    assert layer["ours"] > 0
    assert head["largest_difference"] <= 1e-6
    assert head["ratio"]["median"] > 0
