"""A predictor whose probabilities can be computed by hand: the odds of the class are a product over the tokens."""

import torch

from hf_attn_mi.evaluation import Probabilities

SPECIAL, MASK = 1, 2
# The factor of each token id in the odds; special and mask tokens have no effect.
ODDS = {SPECIAL: 1.0, MASK: 1.0, 10: 9.0, 11: 3.0, 12: 1 / 3, 13: 1.0, 14: 2.0}


class CountingPredictor:
    """A `Predict` that counts its calls and keeps its examples."""

    def __init__(self):
        self.calls = 0
        self.examples = []

    def __call__(self, examples):
        self.calls += 1
        self.examples += examples
        return torch.stack([probability(example) for example in examples])


def probability(example):
    """odds / (1 + odds) of the tokens that are present and not masked out."""
    ids = example["input_ids"]
    visible = example.get("attention_mask", torch.ones_like(ids)) != 0
    odds = torch.tensor([ODDS[int(i)] for i in ids[visible]], dtype=torch.float64).prod()
    return odds / (1 + odds)


def removal_probabilities(*ids, removal="delete", specials=True):
    """Probabilities of [SPECIAL] ids [SPECIAL] (positions of the ids count from 1), or of the ids alone."""
    ids = [SPECIAL, *ids, SPECIAL] if specials else list(ids)
    example = {"input_ids": torch.tensor(ids)}
    special = torch.tensor([i == SPECIAL for i in ids])
    mask_id = MASK if removal == "mask" else None
    return Probabilities(CountingPredictor(), example, special, removal=removal, mask_id=mask_id)


def padded(*scores):
    """Scores of the ids between those of two special tokens, which are the highest and must not matter."""
    return torch.tensor([99.0, *scores, 99.0])
