"""A model whose every probability can be worked out by hand: the odds of the class are a product over the tokens."""

import torch

from hf_attn_mi.evaluation import Probabilities

SPECIAL, MASK = 1, 2
# Odds that each token id multiplies; special and mask tokens say nothing.
ODDS = {SPECIAL: 1.0, MASK: 1.0, 10: 9.0, 11: 3.0, 12: 1 / 3, 13: 1.0, 14: 2.0}


class Counting:
    """A `Predict` that counts its calls and what it was asked for."""

    def __init__(self):
        self.calls = 0
        self.examples = []

    def __call__(self, examples):
        self.calls += 1
        self.examples += examples
        return torch.stack([probability(example) for example in examples])


def probability(example):
    """odds / (1 + odds) of the tokens that are there and not masked out."""
    ids = example["input_ids"]
    seen = example.get("attention_mask", torch.ones_like(ids)) != 0
    odds = torch.tensor([ODDS[int(i)] for i in ids[seen]], dtype=torch.float64).prod()
    return odds / (1 + odds)


def made(*ids, removal="delete", specials=True):
    """Probabilities of [SPECIAL] ids [SPECIAL] (positions of the ids count from 1), or of the ids alone."""
    ids = [SPECIAL, *ids, SPECIAL] if specials else list(ids)
    example = {"input_ids": torch.tensor(ids)}
    special = torch.tensor([i == SPECIAL for i in ids])
    return Probabilities(Counting(), example, special, removal=removal, mask_id=MASK if removal == "mask" else None)


def padded(*scores):
    """Scores of the ids between those of two special tokens, which are the highest and must not matter."""
    return torch.tensor([99.0, *scores, 99.0])
