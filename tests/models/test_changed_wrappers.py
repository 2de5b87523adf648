"""What a wrapper changes is followed or refused; it is never explained as if it were not there."""

import pytest
import torch
from torch import nn
from transformers import TextClassificationPipeline, pipeline

from hf_attn_mi import InvalidInputError, UnsupportedModelError, certify, explain
from hf_attn_mi.models.pipelines import read_pipeline
from hf_attn_mi.models.sentence_models import read_cross_encoder, read_sentence_transformer
from hf_attn_mi.models.target_kinds.similarity import Similarity


class OwnOutputs(TextClassificationPipeline):
    def postprocess(self, model_outputs, **options):
        return super().postprocess({"logits": -model_outputs["logits"]}, **options)


class OwnTexts(TextClassificationPipeline):
    def preprocess(self, inputs, **options):
        return super().preprocess(inputs.upper(), **options)


class Flagged(nn.Module):
    """A classifier whose forward takes a value for all inputs."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, input_ids, attention_mask=None, flag=False, temperature=1.0):
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits / temperature
        return {"logits": -logits if flag else logits}


@pytest.mark.parametrize(("kind", "step"), [(OwnOutputs, "postprocess"), (OwnTexts, "preprocess")])
def test_a_pipeline_with_a_step_of_its_own_is_refused_by_name(demo, kind, step):
    model, tokenizer = demo
    changed = pipeline("text-classification", model=model, tokenizer=tokenizer, pipeline_class=kind)
    with pytest.raises(InvalidInputError, match=f"a {kind.__name__} with a {step} of its own"):
        explain(changed, "A warm film.")


def test_a_step_replaced_on_one_pipeline_is_refused(demo):
    changed = pipeline("text-classification", model=demo[0], tokenizer=demo[1])
    assert explain(changed, "A warm film.").target_name == changed("A warm film.")[0]["label"]
    changed.postprocess = lambda outputs, **options: []
    with pytest.raises(InvalidInputError, match="with a postprocess of its own"):
        explain(changed, "A warm film.")


def test_padding_to_a_fixed_length_is_refused_on_the_left_and_changes_nothing_on_the_right(demo, fresh):
    model, tokenizer = fresh
    padded = pipeline("text-classification", model=model, tokenizer=tokenizer, padding="max_length", max_length=32)
    (answer,) = padded("A warm film.")
    assert explain(padded, "A warm film.").probability == pytest.approx(answer["score"], abs=1e-5)
    tokenizer.padding_side = "left"
    try:
        with pytest.raises(InvalidInputError, match="pads every text on the left"):
            read_pipeline(padded)
    finally:
        tokenizer.padding_side = "right"


@pytest.mark.parametrize("value", [True, 3.0, torch.tensor(3.0)])
@pytest.mark.parametrize("task", [explain, certify])
def test_a_value_for_all_inputs_is_refused_and_not_dropped(demo, task, value):
    model, tokenizer = demo
    inputs = dict(tokenizer(["A warm film.", "A dull film."], return_tensors="pt", padding=True))
    inputs.pop("token_type_ids", None)
    key = "flag" if value is True else "temperature"
    with pytest.raises(InvalidInputError, match=f"'{key}'.* is a single value for all inputs"):
        task(Flagged(model), {**inputs, key: value})
    row = {key: part[:1] for key, part in inputs.items()}
    flags = {"temperature": torch.full((1, 1), 2.0)}
    expected = Flagged(model)(**row, **flags)["logits"].softmax(1)[0]
    assert explain(Flagged(model), {**row, **flags}).probability == pytest.approx(float(expected.max()), abs=1e-5)


def test_torchscript_is_refused(demo):
    model, tokenizer = demo
    ids = tokenizer("A warm film.", return_tensors="pt")["input_ids"]
    traced = torch.jit.trace(Flagged(model), (ids, torch.ones_like(ids)), strict=False)
    for task in (explain, certify):
        with pytest.raises(UnsupportedModelError, match="TorchScript"):
            task(traced, {"input_ids": ids})


class Sentence(nn.Module):
    """As a SentenceTransformer: what is read before anything runs."""

    def __init__(self, **settings):
        super().__init__()
        self.prompts, self.default_prompt_name = {}, None
        for name, value in settings.items():
            setattr(self, name, value)


def test_embeddings_that_are_cut_or_compared_otherwise_are_refused():
    with pytest.raises(InvalidInputError, match="truncate_dim=8"):
        read_sentence_transformer(Sentence(truncate_dim=8))

    class Runner:
        model = Sentence()

    Runner.model.body = Sentence(similarity_fn_name="dot")
    with pytest.raises(InvalidInputError, match="compares embeddings by 'dot'"):
        Similarity("A film.").bind(None, Runner())


def test_a_cross_encoder_of_several_labels_has_the_probability_of_its_activation(demo):
    model, tokenizer = demo
    cross = Sentence(model=model, tokenizer=tokenizer, activation_fn=nn.Sigmoid())
    head = read_cross_encoder(cross).output_head
    assert type(head).__name__ == "MultiLabel"
    cross = Sentence(model=model, tokenizer=tokenizer, activation_fn=nn.Identity())
    assert type(read_cross_encoder(cross).output_head).__name__ == "ClassLogits"
