"""The model card of a saved head: it states how the head attends, and a card that somebody wrote stays."""

import pytest
import torch

from hf_attn_mi.heads import AttentionHeadForSequenceClassification
from hf_attn_mi.hub_cards import is_unchanged
from tests.sample_models import tiny_bert

SCHEDULE = {"kind": "linear", "start": 2.0, "end": 0.5, "steps": 4}


def make(**options):
    torch.manual_seed(0)
    return AttentionHeadForSequenceClassification.from_encoder(
        tiny_bert().bert, 2, labels=["negative", "positive"], **options
    )


def card_of(model, folder):
    model.save_pretrained(folder)
    return (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({}, ["kind (score) | `additive`: v^T tanh(W h + b)", "normalizer | `softmax`", "temperature | 1"]),
        (
            {"score": "deep", "normalizer": "gumbel", "temperature": 0.25, "hard": True},
            ["kind (score) | `deep`: ", "normalizer | `gumbel`", "temperature | 0.25", "hard | `True`"],
        ),
        (
            {"score": "scaled_dot", "recurrence": "bilstm", "temperature": SCHEDULE},
            [
                "kind (score) | `scaled_dot`: ",
                "recurrence | `bilstm`",
                "temperature | linear, from 2 to 0.5 in 4 training steps; 2 when it was saved",
            ],
        ),
    ],
    ids=["plain", "gumbel", "schedule"],
)
def test_the_card_states_how_the_head_attends(tmp_path, options, lines):
    card = card_of(make(**options), tmp_path / "my_head")
    for line in lines:
        assert f"\n| {line}" in card
    assert 'pipeline("text-classification", "my_head")' in card
    assert "docs/studies/information.md" in card
    assert "0 negative, 1 positive" in card
    assert str(tmp_path) not in card  # a path says nothing on another machine


def test_an_unchanged_card_follows_the_head_and_a_changed_one_stays(tmp_path):
    model = make(temperature=SCHEDULE)
    first = card_of(model, tmp_path)
    assert is_unchanged(first)
    model.head.steps_seen += 2
    second = card_of(model, tmp_path)
    assert "1.25 when it was saved" in second
    path = tmp_path / "README.md"
    path.write_text(
        second.replace("tags: [", "license: mit\ntags: [").replace("Not stated: to be", "Trained on reviews, to be")
    )
    changed = path.read_text()
    model.head.steps_seen += 2
    assert card_of(model, tmp_path) == changed
    path.write_text("# My own card\n")
    assert card_of(model, tmp_path) == "# My own card\n"


def test_other_processes_write_no_card(tmp_path):
    make().save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / "README.md").exists()
