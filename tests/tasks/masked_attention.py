"""BERT with its attention rows restricted to some weights, written by hand: shares no code with the package."""

from contextlib import contextmanager

import torch
from transformers import AttentionInterface


def restricted_row(rows, kept, kind, values, other):
    """The output of attention rows (heads, n, n) of which only `kept` stay, by each kind of removal."""
    left = torch.where(kept, rows, torch.zeros_like(rows))
    if kind == "renormalized":
        total = left.sum(-1, keepdim=True)
        return torch.where(total > 0, left / total, left) @ values
    if kind == "missing":
        return left @ values
    if kind == "mean":
        lost = 1 - left.sum(-1, keepdim=True)
        return left @ values + lost * values.mean(-2, keepdim=True)
    assert kind == "resample"
    return left @ values + (rows - left) @ other[:, : values.shape[1]]


@contextmanager
def attention_by_hand(model, mask_of_layer, kind="renormalized", other=None, record=None):
    """The model with a hand-written attention: `mask_of_layer(layer)` gives the (heads, n, n) weights that stay."""
    count = [0]

    def attend(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **options):
        layer = count[0]
        count[0] += 1
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        rows = torch.softmax(query[0] @ key[0].transpose(-1, -2) * scale, -1)
        if record is not None:
            record.append((rows, value[0]))
        mask = mask_of_layer(layer)
        mask = torch.ones_like(rows, dtype=torch.bool) if mask is None else mask
        output = restricted_row(rows, mask, kind, value[0], None if other is None else other[layer])
        return output.transpose(0, 1)[None].contiguous(), None

    AttentionInterface.register("by_hand", attend)
    before = model.config._attn_implementation
    model.set_attn_implementation("by_hand")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class Hand:
    """Runs one input of a BERT under masks, one sequence at a time."""

    def __init__(self, model, inputs, kind="renormalized", reference=None):
        self.model, self.inputs, self.kind = model, {k: v[None] for k, v in inputs.items()}, kind
        config = model.config
        self.layers, self.heads = config.num_hidden_layers, config.num_attention_heads
        self.length = self.inputs["input_ids"].shape[1]
        self.other = None
        if reference is not None:
            record = []
            with torch.no_grad(), attention_by_hand(model, lambda layer: None, record=record):
                model(**{k: v[None] for k, v in reference.items()})
            self.other = [value for _, value in record]

    def mask(self, edges, rest=False):
        """(layers, heads, n, n) bool from (layer, head, query, key) of each weight."""
        mask = torch.zeros(self.layers, self.heads, self.length, self.length, dtype=torch.bool)
        for layer, head, query, key in edges:
            mask[layer, head, query, key] = True
        return ~mask if rest else mask

    def __call__(self, mask):
        """(classes,) probabilities."""
        with torch.no_grad(), attention_by_hand(self.model, lambda layer: mask[layer], self.kind, self.other):
            return self.model(**self.inputs).logits[0].softmax(-1)
