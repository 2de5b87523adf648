"""Models whose scores are known in closed form, and a way to call a method without `explain`."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from hf_attn_mi.methods.captum import BASELINES, read_options

FAST = {
    "lime": {"samples": 60},
    "kernel_shap": {"samples": 60},
    "shapley_sampling": {"samples": 4},
    "integrated_gradients": {"steps": 8},
    "gradient_shap": {"samples": 5},
}
IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 5, 3, 0, 0]])
SPECIAL = torch.tensor([[1, 0, 0, 0, 0, 1], [1, 0, 0, 1, 0, 0]]).bool()
REAL = IDS > 0
# Methods that replace tokens.
WORDS = (
    "integrated_gradients",
    "gradient_shap",
    "deeplift",
    "occlusion",
    "feature_ablation",
    "lime",
    "kernel_shap",
    "shapley_sampling",
)


class Toy(nn.Module):
    """logits = function of the masked embeddings (batch, tokens, 4); row 0 of the table is [PAD]."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(1)
        self.words, self.types = nn.Embedding(12, 4), nn.Embedding(2, 4)
        self.function, self.config = function, SimpleNamespace(pad_token_id=0)

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        states = self.words(input_ids)
        if token_type_ids is not None:
            states = states + self.types(token_type_ids)
        return SimpleNamespace(logits=self.function(states * attention_mask[..., None]))


def column(outputs, rows):
    return outputs.logits[:, 0]


def arguments(**more):
    return {"input_ids": IDS, "attention_mask": REAL.long(), **more}


def score(name, model, given=None, aim=column, special=SPECIAL, real=REAL, **options):
    """`TokenScores` by this method."""
    row = BASELINES[name]
    settings = read_options(name, options, row.allowed, row.default)
    return row.score(model, arguments() if given is None else given, aim, special, real, settings)
