"""Removing keys of efficient rows: each removal by hand, and the rows that the model runs with."""

import copy

import pytest
import torch

from benchmarks.studies.causal import efficient_keys as study
from hf_attn_mi import capture_attention
from tests.sample_models import TEXTS

ROWS = torch.tensor([[0.5, 0.0, 0.2, 0.3], [0.0, 1.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("removal", "wanted"),
    [
        ("nothing", [[0.5, 0.0, 0.2, 0.3], [0.0, 1.0, 0.0, 0.0]]),
        ("the smallest", [[0.5, 0.0, 0.0, 0.3], [0.0, 0.0, 0.0, 0.0]]),
        ("the largest", [[0.0, 0.0, 0.2, 0.3], [0.0, 0.0, 0.0, 0.0]]),
        ("all but the 1 largest", [[0.5, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]),
        ("all but the 2 largest", [[0.5, 0.0, 0.0, 0.3], [0.0, 1.0, 0.0, 0.0]]),
    ],
)
def test_removals_by_hand(removal, wanted):
    assert torch.equal(study.REMOVALS[removal](ROWS, torch.Generator()), torch.tensor(wanted))


def test_a_random_key_is_one_that_has_weight():
    seen = set()
    for seed in range(30):
        left = study.without_random(ROWS, torch.Generator().manual_seed(seed))
        assert int((left > 0).sum()) == 2
        seen.add(tuple((left[0] > 0).tolist()))
    assert len(seen) == 3


def test_without_a_removal_the_prediction_is_that_of_the_model(demo):
    model, tokenizer = copy.deepcopy(demo[0]), demo[1]
    inputs = dict(tokenizer(TEXTS[2], return_tensors="pt"))
    with torch.no_grad():
        own = model(**inputs).logits
        for removal in ("nothing", "the largest"):
            with capture_attention(model, lambda call: None, replace=lambda call, r=removal: study.removed(call, r, 0)):
                new = model(**inputs).logits
            same = bool(torch.allclose(own, new, atol=1e-3))
            assert same == (removal == "nothing")
