"""The table of token embeddings is found by what looks the input's ids up: through adapters and own classes."""

import copy

import pytest
import torch
from torch import nn

from hf_attn_mi import explain
from tests.sample_models import TEXTS, distance

METHODS = {
    "relevance": None,
    "attnlrp": None,
    "input_x_gradient": None,
    "integrated_gradients": {"steps": 4, "baseline": "mask"},
    "occlusion": {"baseline": "zero"},
    "kernel_shap": {"samples": 20, "baseline": "mask"},
    "attention": None,
    "value_norms": None,
}


class Around(nn.Module):
    """A plain module around an encoder and its head, without a configuration or get_input_embeddings of its own."""

    def __init__(self, model):
        super().__init__()
        self.encoder, self.pooler_head = model.bert, nn.Sequential(model.dropout, model.classifier)

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        outputs = self.encoder(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return {"logits": self.pooler_head(outputs.pooler_output)}


def adapted(model, kind):
    """The model with an adapter that computes the same function, or another one for "trained"."""
    peft = pytest.importorskip("peft")
    options = {
        "lora": {"target_modules": ["query", "value"]},
        "token indices": {"target_modules": ["query"], "trainable_token_indices": [2000, 2001]},
        "embeddings": {"target_modules": ["query", "word_embeddings"]},
        "modules to save": {"target_modules": ["query"], "modules_to_save": ["classifier", "word_embeddings"]},
    }[kind]
    torch.manual_seed(0)
    return peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=4, **options)).eval()


@pytest.mark.parametrize("kind", ["around", "lora", "token indices", "embeddings", "modules to save"])
def test_a_wrapped_model_has_the_scores_of_the_bare_one(demo, fresh, kind):
    model, tokenizer = demo
    wrapped = Around(fresh[0]).eval() if kind == "around" else adapted(fresh[0], kind)
    for method, options in METHODS.items():
        wanted = explain(model, TEXTS[2], method=method, options=options, target=1, tokenizer=tokenizer)
        found = explain(wrapped, TEXTS[2], method=method, options=options, target=1, tokenizer=tokenizer)
        limit = 2e-3 if method == "kernel_shap" else 1e-4
        assert distance(found.scores, wanted.scores) < limit, method
        assert found.probability == pytest.approx(wanted.probability, abs=1e-5)
        assert len(found.layers) == len(wanted.layers)


def test_a_trained_adapter_of_the_table_is_explained_like_the_merged_model(fresh):
    model, tokenizer = fresh
    wrapped = adapted(model, "embeddings")
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_embedding" in name or "lora_B" in name:
                parameter.normal_(0, 0.05)
    merged = copy.deepcopy(wrapped).merge_and_unload()
    for method in ("relevance", "integrated_gradients", "occlusion"):
        options = {"steps": 4} if method == "integrated_gradients" else None
        wanted = explain(merged, TEXTS[2], method=method, options=options, tokenizer=tokenizer, layers="none")
        found = explain(wrapped, TEXTS[2], method=method, options=options, tokenizer=tokenizer, layers="none")
        assert distance(found.scores, wanted.scores) < 1e-4, method
    assert not wrapped.base_model.model.bert.embeddings.word_embeddings._forward_hooks


class OneHot(nn.Module):
    """Token embeddings by a product, which is no look-up."""

    def __init__(self, table):
        super().__init__()
        self.weight = table.weight

    def forward(self, ids):
        return nn.functional.one_hot(ids, len(self.weight)).to(self.weight) @ self.weight


def test_scores_of_another_space_than_that_of_the_table_are_named(demo, fresh):
    fresh[0].bert.embeddings.word_embeddings = OneHot(fresh[0].bert.embeddings.word_embeddings)
    found = explain(fresh[0], TEXTS[2], tokenizer=demo[1], layers="none")
    (warning,) = found.info["warnings"]
    assert warning.startswith("No table of the model looks the token ids up")
    assert not explain(demo[0], TEXTS[2], tokenizer=demo[1], layers="none").info["warnings"]
