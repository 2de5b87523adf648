"""`minimal_attention` finds mechanisms that were built by hand: every weight of them, and no other."""

from dataclasses import replace

import pytest
import torch

from hf_attn_mi.tasks.edge_search import Rule
from hf_attn_mi.tasks.minimal_attention import minimal_attention
from hf_attn_mi.tasks.recheck import recheck
from hf_attn_mi.tasks.restricted_output import Answer
from hf_attn_mi.tasks.unit_search import search_units
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
    assert "without any of them the model predicts the same class" in strict.reason
    assert "With strict=False" in strict.reason
    assert "Other sets were not tried" in strict.reason  # the search does not show that there is none
    assert "cannot" not in strict.reason
    lenient = minimal_attention(model, {"input_ids": ids}, strict=False)
    assert lenient.holds
    assert {(unit.layer, unit.head, unit.query, unit.key) for unit in lenient.edges} == {(0, 1, 0, 3)}
    no_label = minimal_attention(model, {"input_ids": torch.tensor([[FIRST, 5, 6, 7, 8]])})
    assert no_label.outcome == "nothing to certify"


def test_the_text_names_every_probability_and_says_that_it_is_one_set():
    _, found, _ = found_in("two redundant heads", unit="head", removals=("renormalized", "missing"))
    text = found.to_text(color="none")
    for value, name in (
        (found.p_all, "with all heads"),
        (found.p_set, "with the set alone"),
        (found.p_rest, "with all others (the rest)"),
        (found.p_none, "without any attention"),
    ):
        assert f"{value:.4f} {name}" in text
    assert "others, with few heads in common, may carry the prediction too." in text
    (other,) = found.removals
    assert f"without any attention {other.p_none:.4f}: " in text
    _, edges, _ = found_in("two redundant heads")
    assert "--others 2" in edges.to_text(color="none")
    _, edges, _ = found_in("two redundant heads", others=1)
    assert "--others 2" not in edges.to_text(color="none")


def test_a_set_outside_of_the_order_of_the_ranking_is_not_found_though_it_exists():
    """Why a search without a result does not say that there is no set."""
    everything = frozenset(range(3))

    def answer(units):
        same = units != frozenset({0, 2})  # the only set whose absence of {1} changes the prediction
        return Answer(1.0 if 1 in units else 0.5, same, 0.0, 1.0 if same else -1.0)

    ends = (answer(everything), answer(frozenset()))
    rule = Rule(ends[0], keep=0.9, strict=True)
    found = search_units((0, 1, 2), lambda sets: [answer(one) for one in sets], ends, rule, 100.0)
    assert (found.units, found.spent) == ((), False)
    assert search_units((1, 0, 2), lambda sets: [answer(one) for one in sets], ends, rule, 100.0).units == (1,)


def test_a_second_set_without_the_planted_weight_does_not_exist():
    _, found, _ = found_in("one head copies the label", others=2)
    first, second = found.family_members
    assert first.edges == found.places
    assert (second.edges, second.forbidden, second.p_set) == ((), 1, None)
    assert second.reason.startswith("No further set was found among the weights")


def test_a_check_reads_as_a_sentence_or_as_its_reasons():
    model, found, _ = found_in("two redundant heads")
    assert str(recheck(model, found)).startswith("Holds: every number was reproduced (largest difference ")
    wrong = replace(found, p_all=found.p_all - 0.01)
    lines = str(recheck(model, wrong)).splitlines()
    assert lines[0].startswith("Does not hold (largest difference ")
    assert lines[1].strip().startswith("all weights: ")
