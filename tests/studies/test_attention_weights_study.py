"""The rankings of benchmarks/studies/causal/attention_weights.py on encoders whose mechanism is known."""

import pytest
import torch

from benchmarks.common import read_rows
from benchmarks.studies.causal import attention_weights as study
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from hf_attn_mi.tasks.edge_ranking import EdgeScores, order_of
from hf_attn_mi.tasks.restricted_forward import RestrictedForward
from tests.tasks.planted_models import IDS, MECHANISMS, Planted

COPY = "one head copies the label"


def scored(name, ranking):
    """The scores of a planted encoder, (places,), and the open forward pass."""
    runner = EncoderRunner.of(Planted(*MECHANISMS[name][0]))
    target, (one,) = read_target(None, runner, runner.encode({"input_ids": IDS})[0])
    with RestrictedForward(runner, one, target, 4) as forward:
        scores = EdgeScores(forward, 0)
        found = study.RANKINGS[ranking](scores, 0)
        return scores, found, forward


@pytest.mark.parametrize("ranking", ["gradient", "attattr", "head"])
def test_the_planted_weight_is_ranked_first(ranking):
    scores, found, forward = scored(COPY, ranking)
    best = int(order_of(scores.flat(found), forward.edges.present)[0])
    call = forward.edges.call_of(best)
    assert {(call.layer, *call.place(best))} == MECHANISMS[COPY][1]


def test_integrated_gradients_on_attention_add_up_to_what_the_attention_of_a_layer_changes():
    _, found, forward = scored("two redundant heads", "attattr")
    model = forward.runner.model
    whole = float(model(IDS).detach().softmax(-1)[0, 0])
    for layer in model.layers:
        layer.value.weight.data.zero_()  # as if its attention were zero
    nothing = float(model(IDS).detach().softmax(-1)[0, 0])
    assert float(found[0].sum()) == pytest.approx(whole - nothing, abs=0.05)  # a sum of 20 steps


def test_a_study_is_continued_and_summed_up(tmp_path):
    options = study.argparse.Namespace(models=[], data=None, inputs=1, rankings=["gradient", "random"], budget=60.0)
    output = tmp_path / "attention_weights.jsonl"
    study.run_suite("quick", options, output)
    first = read_rows(output)
    assert [row["ranking"] for row in first] == options.rankings
    study.run_suite("quick", options, output)
    assert read_rows(output) == first
    assert all(row["forwards"] <= 60 for row in first)
    assert "| quick | gradient | 1 |" in study.table_of(first)
    assert torch.is_grad_enabled()
