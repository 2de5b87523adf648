"""What is explained is what the model says about the input as the caller passed it."""

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import BertPreTrainedModel, Qwen2Config, Qwen2ForSequenceClassification

from hf_attn_mi import InvalidInputError, explain
from tests.sample_models import TEXTS, distance, logits, state_of, tiny_bert, zoo_model

PAIR = ("The plot is thin.", "The songs are lovely.")


def agrees(model, inputs, explanations):
    """Target and probability are those of the caller's own call."""
    chances = logits(model, inputs).double().softmax(1)
    for i, one in enumerate(explanations if len(chances) > 1 else [explanations]):
        assert one.target == int(chances[i].argmax())
        assert one.probability == pytest.approx(float(chances[i].max()), abs=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["demo", "seqcls-roberta", "seqcls-xlnet", "seqcls-gpt2", "seqcls-modernbert"])
def test_padded_rows_are_explained_as_they_are(demo, name, side):
    model, tokenizer = demo if name == "demo" else (zoo_model(name)[0].eval(), None)
    if tokenizer is None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(5, 60, (2, 12), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, slice(0, 5) if side == "left" else slice(7, 12)] = 0
        batch = {"input_ids": ids.masked_fill(mask == 0, model.config.pad_token_id or 0), "attention_mask": mask}
    else:
        batch = dict(tokenizer(TEXTS, padding=True, padding_side=side, return_tensors="pt"))
    explanations = explain(model, batch, tokenizer=tokenizer)
    agrees(model, batch, explanations)
    if name == "demo" and side == "right":  # on the left BERT's pooler reads the state of a [PAD]
        assert [len(one.tokens) for one in explanations] == batch["attention_mask"].sum(1).tolist()
        for one, text in zip(explanations, TEXTS, strict=True):
            assert distance(one.scores, explain(model, text, tokenizer=tokenizer).scores) <= 1e-4


def test_a_mask_with_holes_keeps_its_positions(demo):
    model, tokenizer = demo
    batch = dict(tokenizer(TEXTS[2], return_tensors="pt"))
    batch["attention_mask"][0, [3, 5, 6]] = 0
    agrees(model, batch, explain(model, batch, tokenizer=tokenizer))


@pytest.mark.parametrize("labels", [torch.tensor([1]), torch.tensor([1.0]), torch.tensor([[1.0, 0.0]])])
def test_labels_never_reach_the_model(fresh, labels):
    model, tokenizer = fresh
    plain = tokenizer(TEXTS[0], return_tensors="pt")
    wanted, before = explain(model, plain, tokenizer=tokenizer), state_of(model)
    with_labels = explain(model, {**plain, "labels": labels}, tokenizer=tokenizer)
    assert torch.equal(with_labels.scores, wanted.scores)
    assert with_labels.probability == wanted.probability
    assert model.config.problem_type is None
    assert state_of(model) == before
    assert explain(model, plain, tokenizer=tokenizer).probability == wanted.probability


def test_a_function_sees_one_input_at_a_time_without_padding(demo):
    model, tokenizer = demo
    encoder, shapes = model.bert, []

    def mean_of_the_last_two(outputs):
        shapes.append(tuple(outputs.last_hidden_state.shape[:2]))
        return outputs.last_hidden_state[:, -2:].mean((1, 2))

    together = explain(encoder, TEXTS, tokenizer=tokenizer, target=mean_of_the_last_two)
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    assert shapes == [(1, length) for length in lengths]  # in the caller's order
    for one, text in zip(together, TEXTS, strict=True):
        alone = explain(encoder, text, tokenizer=tokenizer, target=mean_of_the_last_two)
        assert torch.equal(one.scores, alone.scores)


class Own(BertPreTrainedModel):
    """A model of one's own, whose forward takes neither token types nor anything else."""

    def __init__(self, config):
        super().__init__(config)
        self.inner = tiny_bert()

    def get_input_embeddings(self):
        return self.inner.get_input_embeddings()

    def forward(self, input_ids, attention_mask=None):
        return self.inner(input_ids, attention_mask=attention_mask).logits


@pytest.mark.parametrize("form", ["text", "pair", "encoding"])
def test_arguments_that_the_forward_does_not_take_are_left_out(demo, form):
    model, tokenizer = Own(tiny_bert().config).eval(), demo[1]
    inputs = {"text": TEXTS[0], "pair": PAIR, "encoding": tokenizer(TEXTS[0], return_tensors="pt")}[form]
    if form == "encoding":
        inputs = {key: value for key, value in inputs.items() if key != "token_type_ids"}
    explanation = explain(model, inputs, tokenizer=tokenizer)
    parts = inputs if isinstance(inputs, tuple) else (TEXTS[0],)
    encoded = tokenizer(*parts, return_tensors="pt")
    with torch.no_grad():
        chances = model(encoded["input_ids"], attention_mask=encoded["attention_mask"]).softmax(1)[0]
    assert explanation.probability == pytest.approx(float(chances.max()), abs=1e-5)


CONTAINERS = {
    "Column": lambda texts: Dataset.from_dict({"text": texts})["text"],
    "Series": pd.Series,
    "array": np.array,
    "iterator": iter,
    "generator": lambda texts: (text for text in texts),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_every_container_of_texts_is_a_list_of_inputs(demo, kind):
    model, tokenizer = demo
    found = explain(model, CONTAINERS[kind](TEXTS[:2]), tokenizer=tokenizer, layers="none")
    assert [one.texts for one in found] == [(text,) for text in TEXTS[:2]]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (("a", "b", "c"), "a tuple of 3: a tuple of two texts is one pair"),
        (("a",), "a tuple of 1"),
        ([("It was", ["good.", "bad."])], r"inputs\[0\] is a text with a list of 2 strings, as multiple-choice models"),
        ([["Jim", "Henson"]], r"inputs\[0\] is a list of 2 strings: is it a pair, or one text as words"),
        (["fine", ["one", "two", "three"]], r"inputs\[1\] is a list of 3 strings"),
        (pd.DataFrame({"a": ["b"]}), r"inputs is a DataFrame with columns \['a'\].*pass one column, .*table\['text'\]"),
        (b"bytes", "inputs must be .* not bytes"),
        (np.array([1.0, 2.0]), "inputs must be .* not ndarray"),
    ],
)
def test_what_could_mean_two_things_is_refused(demo, inputs, message):
    with pytest.raises(InvalidInputError, match=message):
        explain(demo[0], inputs, tokenizer=demo[1])


def test_a_module_around_an_encoder_is_explained():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny_bert()
            self.config = self.inner.config

        def forward(self, input_ids, attention_mask=None):
            return {"logits": self.inner(input_ids, attention_mask=attention_mask).logits}

    model, ids = Around().eval(), {"input_ids": torch.tensor([[2, 50, 60, 70, 3]])}
    assert distance(explain(model, ids).scores, explain(model.inner, ids).scores) <= 1e-5


@pytest.mark.parametrize("method", ["relevance", "integrated_gradients", "lime", "occlusion", "attention"])
def test_decoders_without_a_padding_token_run_row_by_row(method):
    torch.manual_seed(0)
    sizes = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2, pad_token_id=None)
    model = Qwen2ForSequenceClassification(config).eval()
    ids = torch.randint(5, 90, (2, 8))
    options = {"samples": 20} if method == "lime" else None
    together = explain(model, {"input_ids": ids}, method=method, options=options)
    for row, one in zip(ids, together, strict=True):
        alone = explain(model, {"input_ids": row[None]}, method=method, options=options)
        assert distance(one.scores, alone.scores) <= 1e-5
        chances = logits(model, {"input_ids": row[None]}).double().softmax(1)[0]
        assert one.probability == pytest.approx(float(chances.max()), abs=1e-5)


@pytest.mark.parametrize("name", ["seqcls-roberta", "seqcls-mpnet", "seqcls-xlm-roberta"])
def test_positions_counted_from_the_padding_id_are_those_of_the_callers_row(name):
    """These models number their positions by the ids that are not the padding id, wherever it stands."""
    model, inputs = zoo_model(name)
    inputs = {key: inputs[key].clone() for key in ("input_ids", "attention_mask")}
    inputs["input_ids"][0, 2] = model.config.pad_token_id  # among real tokens
    left = {key: value.flip(1) for key, value in inputs.items()}
    for rows in (inputs, left, {"input_ids": inputs["input_ids"][:1]}):
        agrees(model, rows, explain(model, rows, layers="none"))
