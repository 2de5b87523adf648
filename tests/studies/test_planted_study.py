"""benchmarks/studies/causal/planted.py: a BERT whose mechanism was set by hand, and what rankings find of it."""

import pytest
import torch

from benchmarks.studies.causal import planted as study
from tests.tasks.masked_attention import Hand


@pytest.mark.parametrize("name", study.MECHANISMS)
def test_the_planted_weights_carry_the_class_by_hand(name):
    """The planted weights alone give the class, all others alone do not, and no planted weight can go."""
    layers, truth = study.MECHANISMS[name]
    hand = Hand(study.planted_bert(layers), {"input_ids": study.IDS[0]})
    whole, nothing = hand(hand.mask([], rest=True)), hand(hand.mask([]))
    assert (int(whole.argmax()), int(nothing.argmax())) == (0, 1)
    assert float(whole[0]) > 0.9
    assert float(hand(hand.mask(truth))[0]) >= 0.9 * float(whole[0])
    assert int(hand(hand.mask(truth, rest=True)).argmax()) == 1
    for place in truth:
        left = truth - {place}
        short = float(hand(hand.mask(left))[0]) < 0.9 * float(whole[0])
        assert short or int(hand(hand.mask(left, rest=True)).argmax()) == 0


def test_the_label_decides_and_nothing_else_of_the_input():
    layers, _ = study.MECHANISMS["a look-up through two layers"]
    model = study.planted_bert(layers)
    other = torch.where(study.IDS == study.LABEL0, study.LABEL1, study.IDS)
    moved = study.IDS[:, [0, 3, 1, 2, 5, 4, 7, 6]]
    classes = [int(model(input_ids=ids).logits.argmax()) for ids in (study.IDS, other, moved)]
    assert classes == [0, 1, 0]


@pytest.mark.parametrize("name", study.MECHANISMS)
def test_rankings_by_gradients_and_every_set_find_the_mechanism(name):
    """The weight itself ranks idle heads first; the set that is searched from it is the mechanism all the same."""
    rows = {row["ranking"]: row for row in study.rows_of(name, ["gradient", "attattr", "attention"])}
    assert [row["recall_best"] for row in rows.values()] == [1.0, 1.0, 0.0]
    assert all((row["recall_set"], row["precision_set"]) == (1.0, 1.0) for row in rows.values())
    assert rows["gradient"]["forwards"] < rows["attention"]["forwards"]
    assert f"| {name} | attention | {rows['attention']['planted']} of 512 | 0.00 | 1.00 |" in study.table_of(
        list(rows.values())
    )


def test_recall_and_precision():
    truth = {(0, 0, 0, 1), (0, 0, 0, 2)}
    assert study.recall_and_precision({(0, 0, 0, 1), (1, 1, 1, 1), (2, 0, 0, 0)}, truth) == (0.5, 1 / 3)
    assert study.recall_and_precision(set(), truth) == (0.0, 0.0)
