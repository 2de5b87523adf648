"""Models whose scores are known in closed form, and a way to call a method without `explain`."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from hf_attn_mi.methods import ScoringBatch, find_method, read_options
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.output_heads import ExplainedTarget, Function
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target

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


def column(outputs):
    return outputs.logits[:, 0]


def arguments(**more):
    return {"input_ids": IDS, "attention_mask": REAL.long(), **more}


def batch_of(runner, arguments, special):
    """A batch of these arguments as they are, padding included."""
    count = len(next(iter(arguments.values())))
    inputs = [
        EncodedInput(
            {key: value[i] for key, value in arguments.items()},
            next(iter(arguments.values())).shape[1],
            special=tuple(special[i].tolist()),
        )
        for i in range(count)
    ]
    return ScoringBatch(runner, inputs)


def score(name, model, given=None, target=column, special=SPECIAL, **options):
    """`TokenScores` by this method."""
    runner, scorer = EncoderRunner(model), find_method(name)
    batch = batch_of(runner, arguments() if given is None else given, special)
    aim = Target([None] * len(batch), model, head=Function(target))
    aim.explained = (ExplainedTarget(None, "column", None),) * len(batch)  # the toys have no attention to capture
    with runner.session():
        return scorer.score(runner, batch, aim, **read_options(scorer, options))
