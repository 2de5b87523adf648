"""Models that run their encoder twice: each pass belongs to the text that it reads, also where both texts are equal."""

import pytest
import torch
from torch import nn

from hf_attn_mi import UnsupportedModelError, attention_maps, explain
from tests.sample_models import TEXTS, distance, load_demo

METHODS = ["relevance", "attnlrp", "input_x_gradient", "integrated_gradients", "occlusion"]
ATTENTION = ["attention", "rollout", "effective", "value_norms"]


class Siamese(nn.Module):
    """Class logits of a weighted sum of the states of [CLS] of two texts; `order` is that of the two passes."""

    def __init__(self, weights, order="AB", joined=False):
        super().__init__()
        model = load_demo()[0]
        self.bert, self.fc, self.config = model.bert, model.classifier, model.config
        self.weights, self.order, self.joined = dict(zip("AB", weights)), order, joined

    def forward(self, input_ids, attention_mask, other_ids, other_mask):
        texts = {"A": (input_ids, attention_mask), "B": (other_ids, other_mask)}
        if self.joined:  # both in one call
            ids, mask = (torch.cat(parts) for parts in zip(texts["A"], texts["B"]))
            states = dict(zip("AB", self.bert(ids, attention_mask=mask).pooler_output.chunk(2)))
        else:
            states = {name: self.bert(*texts[name]).pooler_output for name in self.order}
        return {"logits": self.fc(sum(weight * states[name] for name, weight in self.weights.items()))}


def pair(tokenizer, first, second):
    one, two = tokenizer(first, return_tensors="pt"), tokenizer(second, return_tensors="pt")
    names = {"input_ids": one.input_ids, "attention_mask": one.attention_mask}
    return {**names, "other_ids": two.input_ids, "other_mask": two.attention_mask}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("order", "joined"), [("AB", False), ("BA", False), ("AB", True)])
def test_a_text_that_the_value_does_not_depend_on_has_no_scores(demo, method, order, joined):
    _, tokenizer = demo
    model = Siamese([0.0, 1.0], order, joined).eval()
    inputs = pair(tokenizer, TEXTS[0], TEXTS[0])
    found = explain(model, inputs, method=method, target=1, tokenizer=tokenizer, layers="none")
    assert float(found.scores.abs().max()) < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_a_text_beside_which_another_is_not_read_has_its_own_scores(demo, method):
    model, tokenizer = demo
    options = {"method": method, "target": 1, "tokenizer": tokenizer, "layers": "none"}
    wanted = explain(model, TEXTS[0], **options)
    for order, joined in (("AB", False), ("BA", False), ("AB", True)):
        siamese = Siamese([1.0, 0.0], order, joined).eval()
        assert distance(explain(siamese, pair(tokenizer, TEXTS[0], TEXTS[0]), **options).scores, wanted.scores) < 1e-4


def test_the_share_of_the_other_text_is_named(demo):
    _, tokenizer = demo
    model = Siamese([0.5, 0.5]).eval()
    found = explain(model, pair(tokenizer, TEXTS[0], TEXTS[0]), target=1, layers="none")
    share = found.info["other_inputs"]["other_ids"]
    assert share == pytest.approx(float(found.scores.double().sum()), rel=1e-4)  # equal texts, equal shares
    assert any("other_ids" in note for note in found.info["warnings"])
    swapped = explain(model, pair(tokenizer, TEXTS[1], TEXTS[0]), target=1, layers="none")
    mirrored = explain(model, pair(tokenizer, TEXTS[0], TEXTS[1]), target=1, layers="none")
    assert swapped.info["other_inputs"]["other_ids"] == pytest.approx(float(mirrored.scores.double().sum()), rel=1e-4)


@pytest.mark.parametrize("order", ["AB", "BA"])
def test_layers_and_attention_methods_are_those_of_the_text_itself(demo, order):
    model, tokenizer = demo
    siamese = Siamese([0.5, 0.5], order).eval()
    inputs = pair(tokenizer, TEXTS[0], "A quickly losing team.")
    assert inputs["input_ids"].shape == inputs["other_ids"].shape
    for method in ATTENTION:
        options = {"method": method, "target": 1, "tokenizer": tokenizer}
        wanted, found = explain(model, TEXTS[0], **options), explain(siamese, inputs, **options)
        assert distance(found.scores, wanted.scores) < 1e-5, method
        assert [(layer.layer, layer.name) for layer in found.layers] == [
            (layer.layer, layer.name) for layer in wanted.layers
        ]
        for one, other in zip(found.layers, wanted.layers):
            torch.testing.assert_close(one.received, other.received, rtol=1e-4, atol=1e-6)
    maps = attention_maps(siamese, inputs, tokenizer=tokenizer)
    assert maps.layers == (0, 1, 2)
    torch.testing.assert_close(maps.matrices, attention_maps(model, TEXTS[0], tokenizer=tokenizer).matrices)
    states = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in siamese.modules()]
    assert sum(states) == 0


def test_where_the_passes_cannot_be_told_apart_the_reason_is_true(demo):
    _, tokenizer = demo

    class Embedded(Siamese):
        def forward(self, inputs_embeds, other_ids):
            states = self.bert(inputs_embeds=inputs_embeds).pooler_output + self.bert(other_ids).pooler_output
            return {"logits": self.fc(states)}

    model = Embedded([1.0, 1.0]).eval()
    ids = tokenizer(TEXTS[0], return_tensors="pt").input_ids
    inputs = {"inputs_embeds": model.bert.get_input_embeddings()(ids).detach(), "other_ids": ids}
    assert explain(model, inputs, target=1, layers="none").completeness_gap < 1e-5
    with pytest.raises(UnsupportedModelError, match="runs bert more than once"):
        explain(model, inputs, target=1, method="attention")
