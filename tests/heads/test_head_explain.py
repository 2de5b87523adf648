"""`explain` of a model with an attention head: a layer of its own, and a method."""

import copy

import pytest
import torch

from hf_attn_mi import InvalidInputError, attention_maps, explain
from hf_attn_mi.attention import effective_attention, efficient_attention
from hf_attn_mi.heads import AttentionHeadForSequenceClassification
from tests.heads.families import FAMILIES, tiny_encoder
from tests.sample_models import DEMO, TEXTS, distance, state_of

LONG = TEXTS[2] + " " + TEXTS[4]


def with_head(encoder=str(DEMO), **options):
    torch.manual_seed(1)
    return AttentionHeadForSequenceClassification.from_encoder(encoder, 2, **options).eval()


def seen_by_hand(model, tokenizer, text):
    """Rows (heads, queries, tokens) and values (heads, tokens, head_dim) of the head, from its own outputs."""
    batch = tokenizer([text], return_tensors="pt")
    with torch.no_grad():
        out = model(**batch)
        states = model.encoder(**batch).last_hidden_state
        if model.head.recurrence is not None:
            states = model.head.recurrence(states)
    return out.weights[0], states[0].unflatten(-1, (model.head.heads, -1)).transpose(0, 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": 4, "queries": 2},
        {"heads": 2, "queries": 2, "score": "scaled_dot"},
        {"queries": 3, "score": "deep"},
        {"normalizer": "gumbel", "temperature": 0.5, "hard": True},
        {"recurrence": "bilstm", "recurrence_size": 6},
    ],
    ids=str,
)
def test_the_head_is_a_layer_of_its_own(demo, options):
    model = with_head(**options)
    found = explain(model, LONG, tokenizer=demo[1], method="efficient")
    layers = [layer.layer for layer in found.layers]
    assert layers == [0, 1, 2, 3]  # three of the encoder, then the head's
    layer = found.layers[-1]
    rows, values = seen_by_hand(model, demo[1], LONG)
    assert layer.name == "head"
    assert layer.n == len(found.tokens)
    assert layer.head_dim == values.shape[-1]
    assert layer.received.shape == (model.head.heads, layer.n)
    assert distance(layer.received, rows.mean(1)) <= 1e-5
    entropy = -(rows * rows.clamp_min(1e-30).log()).sum(-1).mean(1)
    assert torch.allclose(layer.entropy, entropy, atol=1e-5)
    effective = effective_attention(rows, values)
    assert torch.equal(layer.rank, effective.rank)
    assert layer.rank.tolist() == [torch.linalg.matrix_rank(v).item() for v in values.double()]
    assert torch.allclose(layer.null_space_fraction, effective.null_space_fraction.float(), atol=1e-5)
    assert distance(layer.received_effective, effective.attention.mean(1)) <= 1e-4
    support_size = efficient_attention(rows, values).support_size.double().mean(1).float()
    assert torch.equal(layer.support_size, support_size)


def test_method_head_gives_the_weights(demo):
    model = with_head(heads=2, queries=2)
    alone = [explain(model, text, tokenizer=demo[1], method="head") for text in TEXTS]
    together = explain(model, TEXTS, tokenizer=demo[1], method="head")
    for one, other, text in zip(alone, together, TEXTS, strict=True):
        assert distance(other.scores, one.scores) <= 1e-5
        assert distance(one.scores, seen_by_hand(model, demo[1], text)[0].mean((0, 1))) <= 1e-5
        assert float(one.scores.sum()) == pytest.approx(1.0, abs=1e-5)
        assert one.info["method"] == "head"
        assert one.layers == alone[TEXTS.index(text)].layers


def test_masked_tokens_of_a_tensor_input_get_nothing():
    model = with_head()
    mask = torch.tensor([[1, 1, 0, 1, 1]])
    found = explain(model, {"input_ids": torch.tensor([[2, 50, 60, 70, 3]]), "attention_mask": mask}, method="head")
    assert float(found.scores[2]) == 0.0
    assert found.layers[-1].n == 4
    assert float(found.scores.sum()) == pytest.approx(1.0, abs=1e-5)


def test_methods_about_the_encoder_leave_the_head_out(demo):
    model = with_head()
    bare = demo[0]
    for method in ("attention", "rollout", "effective", "efficient"):
        mine = explain(model, LONG, tokenizer=demo[1], method=method)
        wanted = explain(bare, LONG, tokenizer=demo[1], method=method)
        assert distance(mine.scores, wanted.scores) <= 1e-5, method
    maps = attention_maps(model, LONG, tokenizer=demo[1], kind="raw")
    assert maps.layers == (0, 1, 2)


@pytest.mark.parametrize("options", [{}, {"heads": 2, "queries": 2}, {"hard": True}, {"freeze_encoder": True}], ids=str)
def test_relevance_is_complete_through_the_head(demo, options):
    model = with_head(**options)
    before = copy.deepcopy(state_of(model))
    found = explain(model, LONG, tokenizer=demo[1])
    assert found.completeness_gap <= 1e-5
    assert state_of(model) == before


def test_what_relevance_misses_of_a_bilstm_is_said(demo):
    found = explain(with_head(recurrence="bilstm"), LONG, tokenizer=demo[1])
    assert found.completeness_gap > 0.02
    assert any("miss" in note for note in found.info["warnings"])


@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_encoders(family):
    model = with_head(tiny_encoder(family))
    ids = torch.randint(3, 30, (1, 7), generator=torch.Generator().manual_seed(0))
    found = explain(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, method="head")
    with torch.no_grad():
        wanted = model(ids).weights[0].mean((0, 1))
    assert distance(found.scores, wanted) <= 1e-5
    assert found.layers[-1].layer == len(found.layers) - 1
    if family != "fnet":  # no attention in its encoder
        assert len(found.layers) == 3


def test_half_precision_is_explained(demo):
    model = with_head().to(torch.bfloat16)
    found = explain(model, TEXTS[0], tokenizer=demo[1], method="head")
    assert float(found.scores.sum()) == pytest.approx(1.0, abs=2e-2)


def test_other_models_have_no_such_method(demo):
    with pytest.raises(InvalidInputError, match=r"BertForSequenceClassification has none\..*such as 'relevance'"):
        explain(*demo[:1], TEXTS[0], tokenizer=demo[1], method="head")
    with pytest.raises(InvalidInputError, match=r"not known; allowed are .*head"):
        explain(demo[0], TEXTS[0], tokenizer=demo[1], method="heads")
