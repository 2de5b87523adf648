"""`minimal_attention` finds mechanisms that were built by hand: every weight of them, and no other."""

import pytest
import torch

from hf_attn_mi.tasks.minimal_attention import minimal_attention
from hf_attn_mi.tasks.recheck import recheck
from tests.tasks.planted_models import FIRST, IDS, LABEL1, MECHANISMS, Planted


def found_in(name, **options):
    layers, truth = MECHANISMS[name]
    model = Planted(*layers)
    found = minimal_attention(model, {"input_ids": IDS}, **options)
    return model, found, truth


@pytest.mark.parametrize("ranking", ["gradient", "attention", "random"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_the_planted_weights_are_found(name, ranking):
    model, found, truth = found_in(name, ranking=ranking)
    assert found.holds, found.reason
    assert {(unit.layer, unit.head, unit.query, unit.key) for unit in found.edges} == truth
    assert found.target == 0
    assert recheck(model, found).holds


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_planted_heads_are_found(name):
    _, found, truth = found_in(name, unit="head")
    assert found.holds, found.reason
    assert {(unit.layer, unit.head) for unit in found.units} == {(layer, head) for layer, head, _, _ in truth}


def test_redundant_heads_are_both_in_the_set_because_the_rest_must_not_suffice():
    """One of them alone suffices; the other one, in the rest, would still give the class."""
    _, found, _ = found_in("two redundant heads")
    assert [single.fails for single in found.singles] == ["rest", "rest"]


def test_no_set_for_the_class_that_the_model_gives_without_attention():
    model = Planted(*MECHANISMS["one head copies the label"][0])
    ids = torch.tensor([[FIRST, 5, 6, LABEL1, 7, 8]])
    strict = minimal_attention(model, {"input_ids": ids})
    assert strict.needs_attention  # the class is kept without attention, but not nine tenths of its probability
    assert (strict.units, strict.outcome) == ((), "does not hold")
    assert "even without any of them the model predicts the same class" in strict.reason
    assert "With strict=False" in strict.reason
    lenient = minimal_attention(model, {"input_ids": ids}, strict=False)
    assert lenient.holds
    assert {(unit.layer, unit.head, unit.query, unit.key) for unit in lenient.edges} == {(0, 1, 0, 3)}
    no_label = minimal_attention(model, {"input_ids": torch.tensor([[FIRST, 5, 6, 7, 8]])})
    assert no_label.outcome == "nothing to certify"


def test_a_second_set_without_the_planted_weight_does_not_exist():
    _, found, _ = found_in("one head copies the label", others=2)
    first, second = found.family_members
    assert first.edges == found.places
    assert (second.edges, second.forbidden, second.p_set) == ((), 1, None)
    assert second.reason.startswith("No further set was found among the weights")
