"""benchmarks/studies/causal/peer_rankings.py on small examples computed by hand, and on encoders of known mechanism."""

import math

import pytest
import torch

from benchmarks.studies.causal import peer_rankings as study
from benchmarks.studies.causal import planted
from benchmarks.studies.faithfulness.rankings.gim import SoftmaxAtTemperature
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from hf_attn_mi.tasks.edge_ranking import EdgeScores, order_of
from hf_attn_mi.tasks.restricted_forward import RestrictedForward
from tests.tasks.planted_models import IDS, MECHANISMS, Planted

COPY = "one head copies the label"
LOOK_UP = "a look-up through two layers"


def scored(model, ids, ranking):
    """The scores of one input, what the ranking gives, and the open forward pass."""
    runner = EncoderRunner.of(model)
    target, (one,) = read_target(None, runner, runner.encode({"input_ids": ids})[0])
    with RestrictedForward(runner, one, target, 4) as forward:
        scores = EdgeScores(forward, 0)
        return scores, ranking(scores, 0), forward


def test_contributions_by_hand():
    """|y| = 4; the distances of the parts to y are 2, 5 and 1: what is near counts 2, 0 and 3 of 5."""
    parts = torch.tensor([[1.0, 1.0], [-1.0, 0.0], [2.0, 1.0]])
    shares = study.contributions(parts, torch.tensor([2.0, 2.0]))
    assert shares.tolist() == pytest.approx([0.4, 0.0, 0.6], abs=1e-5)


@pytest.mark.parametrize("name", [COPY, LOOK_UP])
def test_flow_routes_enter_the_planted_weights_first(name):
    layers, truth = planted.MECHANISMS[name]
    scores, found, forward = scored(planted.planted_bert(layers), planted.IDS, study.flow_routes)
    order = order_of(scores.flat(found), forward.edges.present)
    assert planted.places_of(forward.edges, order[: len(truth)]) == truth
    assert not found[1][0, :, 1:].any()  # the classifier reads the first token only


def test_a_route_enters_at_its_smallest_share():
    """The share of the upper weight bounds that of the lower one, and equal thresholds are ordered by the share."""
    first = {0: torch.tensor([[0.3, 0.3]]), 1: torch.tensor([[0.3, 0.0]])}
    second = {0: torch.tensor([[0.5, 0.9]]), 1: torch.tensor([[0.3, 0.8]])}
    places = study._lexicographic(first, second)
    assert [places[n].tolist() for n in (0, 1)] == [[[3, 4]], [[2, 0]]]


def test_flow_routes_refuse_layers_that_they_do_not_know():
    with pytest.raises(UnsupportedModelError, match="no layers of BERT"):
        scored(Planted(*MECHANISMS[COPY][0]), IDS, study.flow_routes)


def test_the_loss_of_learned_masks_by_hand():
    """Lead of the class .1 of the margin .5, lead of another class with the rest .2: 2 + 1000 (.6 * .4 + .4 * .3)."""
    kept, left = torch.tensor([0.5, 0.4, 0.1]), torch.tensor([0.3, 0.5, 0.2])
    assert float(study.cf2_loss(kept, left, 0, torch.tensor(2.0))) == pytest.approx(362)
    assert float(study.cf2_loss(torch.tensor([0.8, 0.2]), torch.tensor([0.1, 0.9]), 0, torch.tensor(2.0))) == 2


@pytest.mark.parametrize("ranking", [study.learned_masks, study.gim, study.relp])
def test_the_planted_weight_is_ranked_first(ranking):
    scores, found, forward = scored(Planted(*MECHANISMS[COPY][0]), IDS, ranking)
    best = order_of(scores.flat(found), forward.edges.present)[:1]
    assert planted.places_of(forward.edges, best) == MECHANISMS[COPY][1]
    assert torch.is_grad_enabled()


def test_the_gradient_of_a_tempered_softmax_by_hand():
    """Logits 0 and log 4 are 1/5 and 4/5; at temperature 2 they are 1/3 and 2/3, and 1/3 * (1 - 1/3) = 2/9.

    The authors' package has no factor 1 / 2, and neither has the rule of the study of faithfulness.
    """
    logits = torch.tensor([0.0, math.log(4)]).requires_grad_()
    rows = study.TemperedSoftmax.apply(logits)
    assert rows.tolist() == pytest.approx([0.2, 0.8])
    (slope,) = torch.autograd.grad(rows[0], logits)
    assert slope.tolist() == pytest.approx([2 / 9, -2 / 9])
    (other,) = torch.autograd.grad(SoftmaxAtTemperature.apply(logits)[0], logits)
    assert torch.equal(slope, other)


def test_gim_without_its_rules_is_the_gradient(monkeypatch):
    """In one layer without normalization only the halves of weights and values are left."""
    monkeypatch.setattr(study, "TEMPERATURE", 1.0)
    scores, found, _ = scored(Planted(MECHANISMS[COPY][0][0]), IDS, study.gim)
    torch.testing.assert_close(found[0], scores.gradient()[0] / 2)


def test_normalization_passes_gradients_as_a_constant_scale():
    """(1, 3): the mean goes, the standard deviation 1 stays; the slope of the first entry is 1/2 and -1/2."""
    x = torch.tensor([1.0, 3.0]).requires_grad_()
    with study.FrozenNorms():
        result = torch.nn.functional.layer_norm(x, (2,), eps=0.0)
    assert torch.autograd.grad(result[0], x)[0].tolist() == pytest.approx([0.5, -0.5])
    plain = torch.nn.functional.layer_norm(x, (2,), eps=0.0)
    assert torch.autograd.grad(plain[0], x)[0].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_relp_of_a_linear_network_is_weight_times_gradient():
    """Centered it is `relevance`."""
    model = Planted(MECHANISMS[COPY][0][0])
    scores, found, _ = scored(model, IDS, study.relp)
    torch.testing.assert_close(found[0], scores.products[0])
    _, relevance, _ = scored(model, IDS, lambda scores, mask_id: scores.relevance())
    torch.testing.assert_close(relevance[0], found[0] - scores.weights[0] * found[0].sum(-1, keepdim=True))
