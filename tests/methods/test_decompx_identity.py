"""The default score is the decomposition of DecompX with the bias terms left out, written here from the paper.

DecompX (Modarressi et al., arXiv 2306.02873) carries a vector for each token forward through the layers of BERT: the
attention rows and the deviations of the layer norms are those of the input, an activation f is the line from the origin
through (x, f(x)), and the classifier is included. This code propagates forward what the package computes by one
backward pass, and shares nothing with it.

The default score starts at the word embeddings; the code of the authors of DecompX starts at the output of the
embedding layer and counts the value bias of the first layer to the tokens, whatever its settings. Both are tested here;
benchmarks/studies/faithfulness/check_rankings.py runs that code itself.
"""

import pytest
import torch

from benchmarks.studies.faithfulness.rankings.decompx import decompx_without_biases
from hf_attn_mi import explain
from tests.sample_models import TEXTS


def normalized(parts, whole, norm):
    """The parts of each state through a layer norm with the deviation of the whole state."""
    deviation = (whole.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    return (parts - parts.mean(-1, keepdim=True)) / deviation[:, None] * norm.weight


def decompx(model, tokenizer, text, from_words):
    """(tokens, classes) the part of each logit that the vector of each token carries.

    It starts at the word embeddings, or at the output of the embedding layer with the value bias of the first layer.
    """
    encoded = tokenizer(text, return_tensors="pt")
    outputs = model(**encoded, output_hidden_states=True)
    assert len(outputs.attentions) == len(model.bert.encoder.layer)
    tokens = encoded["input_ids"].shape[1]

    table = model.bert.embeddings
    words = table.word_embeddings(encoded["input_ids"][0])
    positions = table.position_embeddings.weight[:tokens] + table.token_type_embeddings.weight[:1]
    parts = torch.zeros(tokens, tokens, words.shape[-1])  # state, token that it comes from, feature
    parts[range(tokens), range(tokens)] = words
    parts = normalized(parts, words + positions, table.LayerNorm)
    if not from_words:
        parts[range(tokens), range(tokens)] = outputs.hidden_states[0][0]

    for layer, state, rows in zip(model.bert.encoder.layer, outputs.hidden_states, outputs.attentions):
        attention, state, rows = layer.attention, state[0], rows[0]
        heads, size = rows.shape[0], state.shape[-1] // rows.shape[0]
        value = attention.self.value
        carried = parts @ value.weight.T
        if not from_words and layer is model.bert.encoder.layer[0]:
            carried[range(tokens), range(tokens)] += value.bias
        mixed = carried.unflatten(-1, (heads, size))
        mixed = torch.einsum("hij,jthd->ithd", rows, mixed).flatten(2)
        own = torch.einsum("hij,jhd->ihd", rows, value(state).unflatten(-1, (heads, size))).flatten(1)
        dense = attention.output.dense
        before = dense(own) + state
        parts = normalized(mixed @ dense.weight.T + parts, before, attention.output.LayerNorm)
        middle = attention.output.LayerNorm(before)

        inner = layer.intermediate.dense(middle)
        slope = layer.intermediate.intermediate_act_fn(inner) / inner
        wide = (parts @ layer.intermediate.dense.weight.T) * slope[:, None]
        dense = layer.output.dense
        after = dense(inner * slope) + middle
        parts = normalized(wide @ dense.weight.T + parts, after, layer.output.LayerNorm)

    last = outputs.hidden_states[-1][0, 0]
    inner = model.bert.pooler.dense(last)
    pooled = (parts[0] @ model.bert.pooler.dense.weight.T) * (inner.tanh() / inner)
    return pooled @ model.classifier.weight.T


@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[2], "A dull start, and yet the two leads are a joy to watch."])
@torch.no_grad()
def test_the_default_score_is_decompx_without_biases(demo, text):
    model, tokenizer = demo
    explanation = explain(model, text, tokenizer=tokenizer)
    with torch.enable_grad():
        ids = tokenizer(text, return_tensors="pt")["input_ids"][0]
        after_embeddings = decompx_without_biases(model, ids, explanation.target)
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    model.config.output_attentions = True
    try:
        carried = [decompx(model, tokenizer, text, from_words) for from_words in (True, False)]
    finally:
        model.config.output_attentions = False
        model.set_attn_implementation(implementation)
    for scores, parts in zip((explanation.scores, after_embeddings), carried):
        wanted = of_margin(parts, explanation.target)
        torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    gap = (explanation.scores - after_embeddings).abs().max()
    assert gap > 0.01 * explanation.scores.abs().max()  # the start matters


def of_margin(parts, target):
    """(tokens,) parts of the logit of a class less the mean of the others."""
    others = [one for one in range(parts.shape[1]) if one != target]
    return parts[:, target] - parts[:, others].mean(1)
