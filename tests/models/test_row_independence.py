"""Models whose rows depend on each other, on padding, or on another mask: explained as they answer, or refused."""

import copy
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import NystromformerConfig, NystromformerForSequenceClassification

from hf_attn_mi import UnsupportedModelError, attention_maps, certify, compare, explain, minimal_tokens
from tests.sample_models import TEXTS, load_demo, tiny_bert

SAME_LENGTH = ["a warm film", "a dull film", "a good cast"]


class Around(nn.Module):
    """A BERT classifier whose logits, or whose attention mask, a function changes."""

    def __init__(self, logits=lambda logits: logits, mask=lambda mask: mask):
        super().__init__()
        self.inner = tiny_bert()
        self.config = self.inner.config
        self.change_logits, self.change_mask = logits, mask

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        mask = self.change_mask(attention_mask)
        outputs = self.inner(input_ids, attention_mask=mask, token_type_ids=token_type_ids)
        outputs.logits = self.change_logits(outputs.logits)
        return outputs


def batch_norm(logits):
    return nn.functional.batch_norm(logits, None, None, training=True)


MIXERS = {
    "mean over the batch": lambda logits: logits - logits.mean(0),
    "softmax over the batch": lambda logits: logits.softmax(0) * logits,
    "batch statistics": batch_norm,
    "sorted rows": lambda logits: logits[logits[:, 0].argsort()],
    "ranks": lambda logits: logits + logits.argsort(0).argsort(0),
    "large batches only": lambda logits: logits - logits.mean(0) if len(logits) > 2 else logits,
    "flipped rows": lambda logits: logits.flip(0),
}
TASKS = {
    "explain": explain,
    "certify": certify,
    "attention_maps": attention_maps,
    "minimal_tokens": minimal_tokens,
    "compare": lambda model, inputs, **options: compare(model, inputs, methods=["random"], **options),
}


@pytest.fixture(scope="module")
def tokenizer():
    return load_demo()[1]


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return dict(tokenizer(TEXTS[:3], padding=True, return_tensors="pt"))


@pytest.mark.parametrize("name", MIXERS)
def test_rows_that_depend_on_each_other_are_refused(name, encoded, tokenizer):
    model = Around(MIXERS[name])
    with pytest.raises(UnsupportedModelError, match=r"from the other rows.*inputs\[\d\].*alone"):
        explain(model, encoded, tokenizer=tokenizer, layers="none")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_refuses_them(task, encoded, tokenizer):
    with pytest.raises(UnsupportedModelError, match="from the other rows"):
        TASKS[task](Around(MIXERS["mean over the batch"]), encoded, tokenizer=tokenizer)


class PlainObject(Around):
    """Returns an object that is neither a mapping nor a sequence."""

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        return SimpleNamespace(logits=super().forward(input_ids, attention_mask, token_type_ids).logits)


def test_outputs_that_are_plain_objects_are_compared_too(encoded, tokenizer):
    with pytest.raises(UnsupportedModelError, match="from the other rows"):
        explain(PlainObject(MIXERS["mean over the batch"]).eval(), encoded, tokenizer=tokenizer)


def test_one_row_is_explained_as_the_model_answers_it(encoded, tokenizer):
    model = Around(MIXERS["softmax over the batch"])
    for i in range(3):
        row = {key: value[i : i + 1] for key, value in encoded.items()}
        found = explain(model, row, tokenizer=tokenizer, layers="none")
        own = model(**row).logits.softmax(1)[0]
        assert found.target == int(own.argmax())
        assert found.probability == pytest.approx(float(own.max()), abs=1e-5)


@pytest.mark.parametrize("method", ["relevance", "occlusion", "integrated_gradients", "attention"])
def test_texts_of_such_a_model_are_run_one_at_a_time(method, tokenizer):
    model = Around(MIXERS["ranks"])
    together = explain(model, SAME_LENGTH, tokenizer=tokenizer, method=method, batch_size=16)
    for text, found in zip(SAME_LENGTH, together):
        alone = explain(model, text, tokenizer=tokenizer, method=method, batch_size=1)
        own = model(**tokenizer(text, return_tensors="pt")).logits.softmax(1)[0]
        assert found.probability == pytest.approx(float(own[found.target]), abs=1e-5)
        assert torch.allclose(found.scores, alone.scores, atol=1e-6)


def test_independent_rows_are_not_refused_and_share_batches(encoded, tokenizer):
    model = tiny_bert()
    rows = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    explain(model, SAME_LENGTH, tokenizer=tokenizer, layers="none")
    handle.remove()
    assert rows[-1] == 3
    assert len(explain(model, encoded, tokenizer=tokenizer, layers="none")) == 3


def hide_third(mask):
    return torch.cat([mask[:, :2], 0 * mask[:, 2:3], mask[:, 3:]], 1) if mask.shape[1] > 3 else mask


def test_rows_whose_padding_matters_are_explained_with_it(tokenizer):
    """What the first row gives without its padding says nothing about a row that becomes shorter than four tokens."""
    model = Around(mask=hide_third)
    encoded = dict(tokenizer(["a warm film", "dull"], padding=True, return_tensors="pt"))
    own = model(**encoded).logits.softmax(1)
    for found, probabilities in zip(explain(model, encoded, tokenizer=tokenizer, layers="none"), own):
        assert found.probability == pytest.approx(float(probabilities[found.target]), abs=1e-5)


MASKS = {"no mask": lambda mask: None, "a mask of ones": torch.ones_like, "the opposite": lambda mask: 1 - mask.flip(1)}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("method", ["relevance", "attention", "effective", "rollout"])
def test_a_model_that_ignores_its_mask_is_refused_with_this_reason(mask, method, encoded, tokenizer):
    if mask == "the opposite":
        encoded = {key: value[1:2] for key, value in encoded.items()}  # of this row no real token is left
    with pytest.raises(UnsupportedModelError, match=r"attention_mask.*ignores its attention_mask, or replaces"):
        explain(Around(mask=MASKS[mask]), encoded, tokenizer=tokenizer, method=method)


def test_without_attention_statistics_it_is_explained_as_it_answers(encoded, tokenizer):
    model = Around(mask=torch.ones_like)
    own = model(**encoded).logits.softmax(1)
    for found, probabilities in zip(explain(model, encoded, tokenizer=tokenizer, layers="none"), own):
        assert found.probability == pytest.approx(float(probabilities[found.target]), abs=1e-5)


def test_the_check_leaves_the_model_alone(encoded, tokenizer):
    model = Around(MIXERS["mean over the batch"]).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UnsupportedModelError):
        explain(model, encoded, tokenizer=tokenizer)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_reasons_for_which_a_nystromformer_refuses_a_batch_are_its_own(demo):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"vocab_size": 8000, "max_position_embeddings": 64, "num_landmarks": 4, "segment_means_seq_len": 16}
    model = NystromformerForSequenceClassification(NystromformerConfig(**sizes)).eval()
    for name, weight in model.named_parameters():
        if name.endswith("weight") and weight.dim() == 2:
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    rows = torch.randint(5, 800, (2, 16))
    with torch.no_grad():  # the inverse starts from the largest sum in the whole batch
        logits, alone = model(input_ids=rows).logits, torch.cat([model(input_ids=row[None]).logits for row in rows])
    assert not torch.allclose(logits, alone, atol=1e-4)
    with pytest.raises(UnsupportedModelError, match="the outputs for one row of a batch from the other rows"):
        explain(model, {"input_ids": rows}, method="occlusion", tokenizer=demo[1])
    mask = torch.ones_like(rows)
    mask[0, 9:] = 0
    padded = {"input_ids": rows, "attention_mask": mask}
    with pytest.raises(RuntimeError) as own:  # it has a row for each landmark, the mask one for each token
        model(**padded)
    with pytest.raises(UnsupportedModelError, match=re.escape(f"raised RuntimeError: {own.value}")):
        explain(model, padded, method="occlusion", tokenizer=demo[1])
