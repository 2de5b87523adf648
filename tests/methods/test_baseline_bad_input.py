"""Options and models that a method cannot take, and memory that runs out."""

import pytest
import torch
from transformers import AlbertConfig, AlbertForSequenceClassification

from hf_attn_mi import InvalidInputError, UnsupportedModelError, explain
from hf_attn_mi.methods.captum.embedding_forward import EmbeddingForward
from tests.sample_models import TEXTS, distance, state_of, tiny_bert


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("integrated_gradients", {"samples": 5}, "no option 'samples'; allowed are steps, baseline, internal_batch"),
        ("relevance", {"steps": 5}, "method 'relevance' has no option 'steps'; it takes none"),
        ("value_norms", {"seed": 0}, "it takes none"),
        ("lime", {"samples": 0}, r"options\['samples'\] of method 'lime' must be a whole number, at least 1, not 0"),
        ("kernel_shap", {"samples": 1}, "at least 2, not 1"),
        ("lime", {"penalty": -1.0}, "a number from 0 up, not -1.0"),
        ("lime", {"penalty": float("nan")}, "a number from 0 up, not nan"),
        ("random", {"seed": -1}, "a whole number from 0 to"),
        ("random", {"seed": True}, "a whole number from 0 to"),
        ("occlusion", {"baseline": "black"}, "one of pad, mask, blank, zero, removed, deleted, not 'black'"),
        ("occlusion", {"baseline": ["pad"]}, "one of pad, mask, blank, zero"),
        ("occlusion", {"window": 1.5}, "a whole number, at least 1, not 1.5"),
        ("occlusion", "window=3", "options must be a dict of names and values, not str"),
        ("saliency", {"mask_id": 4}, "no option 'mask_id'"),
    ],
)
def test_options_are_checked(demo, method, options, message):
    with pytest.raises(InvalidInputError, match=message):
        explain(demo[0], TEXTS[0], method=method, options=options)


def test_baselines_that_the_model_does_not_have(demo):
    model = tiny_bert(pad_token_id=None)
    with pytest.raises(
        InvalidInputError, match="'pad', but BertForSequenceClassification or its tokenizer has no such token"
    ):
        explain(model, TEXTS[0], tokenizer=demo[1], method="occlusion", options={"baseline": "pad"})
    found = explain(model, TEXTS[0], tokenizer=demo[1], method="occlusion")
    assert found.info["baseline"] == "zero embedding"
    with pytest.raises(InvalidInputError, match="no tokenizer with a mask token"):
        explain(demo[0], {"input_ids": torch.tensor([[2, 50, 3]])}, method="occlusion", options={"baseline": "mask"})


def test_unknown_special_tokens_are_said(demo):
    inputs = {"input_ids": torch.tensor([[2, 50, 60, 3]])}
    assert any("all of them were replaced" in note for note in explain(demo[0], inputs, method="lime").info["warnings"])
    assert not any("replaced" in note for note in explain(demo[0], TEXTS[0], method="lime").info["warnings"])


def test_deeplift_refuses_a_module_used_twice():
    """ALBERT runs one layer over and over; with ReLU modules Captum would mix up what each pass recorded."""
    torch.manual_seed(0)
    config = AlbertConfig(
        vocab_size=100,
        hidden_size=32,
        embedding_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        num_hidden_layers=2,
        hidden_act="relu",
    )
    model, inputs = AlbertForSequenceClassification(config).eval(), {"input_ids": torch.tensor([[2, 50, 60, 3]])}
    before = state_of(model)
    with pytest.raises(UnsupportedModelError, match=r"DeepLift cannot follow it.*more than once"):
        explain(model, inputs, method="deeplift")
    assert state_of(model) == before
    assert explain(model, inputs, method="integrated_gradients").completeness_gap < 0.05


def test_a_target_outside_the_graph(demo):
    for method in ("saliency", "integrated_gradients", "deeplift"):
        with pytest.raises(UnsupportedModelError, match="gradient"):
            explain(demo[0], TEXTS[0], method=method, target=lambda outputs: outputs.logits[:, 0].detach())
    assert explain(demo[0], TEXTS[0], method="feature_ablation", target=lambda o: o.logits[:, 0].detach()).scores.any()


def test_functions_must_answer_row_by_row(demo):
    with pytest.raises(InvalidInputError, match="returned 1 values for 6 inputs"):
        explain(demo[0], TEXTS[0], method="feature_ablation", target=lambda outputs: outputs.logits[:1, 0])


@pytest.mark.parametrize("method", ["integrated_gradients", "saliency", "feature_ablation", "lime", "gradient_shap"])
def test_memory_that_runs_out_halves_the_batch_and_says_so(demo, monkeypatch, method):
    texts = TEXTS[2:4]
    settings = {"samples": 40} if method == "lime" else {}
    wanted = explain(demo[0], texts, method=method, options=settings)
    assert not any("Memory" in note for note in wanted[0].info["warnings"])
    forward, sizes = EmbeddingForward.forward, []

    def small(self, embeddings, rows):
        sizes.append(len(rows))
        if len(rows) > 1 and max(sizes[:-1], default=1) == 1:  # the first pass over more than one row
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, embeddings, rows)

    monkeypatch.setattr(EmbeddingForward, "forward", small)
    found = explain(demo[0], texts, method=method, options=settings)
    most = max(sizes)
    assert most > 1
    assert sizes.count(most) == 1
    assert max(size for size in sizes if size != most) == most // 2
    for one, other in zip(found, wanted, strict=True):
        assert distance(one.scores, other.scores) <= 1e-5
        assert f"Memory ran out: the batches were halved to {most // 2}." in one.info["warnings"]


def test_memory_that_is_short_for_a_single_row(demo, monkeypatch):
    def never(self, embeddings, rows):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(EmbeddingForward, "forward", never)
    for method in ("saliency", "feature_ablation", "deeplift"):
        with pytest.raises(torch.OutOfMemoryError):
            explain(demo[0], TEXTS[0], method=method)


def test_the_internal_batch_bounds_a_pass(demo, monkeypatch):
    forward, sizes = EmbeddingForward.forward, []

    def seen(self, embeddings, rows):
        sizes.append(len(rows))
        return forward(self, embeddings, rows)

    monkeypatch.setattr(EmbeddingForward, "forward", seen)
    wanted = explain(demo[0], TEXTS[2], method="integrated_gradients", options={"steps": 20})
    sizes.clear()
    found = explain(demo[0], TEXTS[2], method="integrated_gradients", options={"steps": 20, "internal_batch": 3})
    assert max(sizes) == 3
    assert distance(found.scores, wanted.scores) <= 1e-5
