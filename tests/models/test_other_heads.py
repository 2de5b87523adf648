"""A target of one task on a model of another, outputs that are no logits, and inputs that are none: true refusals."""

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

from hf_attn_mi import InvalidInputError, UnsupportedModelError, explain, minimal_tokens, targets
from tests.sample_models import SIZES, load_demo, tiny_bert

TARGETS = {
    "label": targets.label(0),
    "margin": targets.margin(0, 1),
    "value": targets.value(0),
    "token": targets.token(position=1),
    "mask": targets.mask(),
    "next_token": targets.next_token(),
    "answer": targets.answer("film"),
    "answer_start": targets.answer_start("film"),
    "choice": targets.choice(0),
    "frame": targets.frame(0),
}
BERTS = {
    "classes of whole texts": BertForSequenceClassification,
    "classes of tokens": BertForTokenClassification,
    "answers to questions": BertForQuestionAnswering,
    "choices": BertForMultipleChoice,
    "masked tokens": BertForMaskedLM,
}
FITTING = {
    "classes of whole texts": {"label", "margin"},
    "classes of tokens": {"token"},
    "answers to questions": {"answer", "answer_start", "label", "margin", "value"},  # these three are refused later
    "choices": {"choice"},
    "masked tokens": {"mask"},
    "next tokens": {"next_token"},
}


def built(head):
    if head == "next tokens":
        return GPT2LMHeadModel(GPT2Config(vocab_size=8000, n_embd=32, n_layer=2, n_head=4, n_positions=64)).eval()
    return BERTS[head](tiny_bert().config).eval()


def regression(outputs):
    config = BertConfig(**SIZES, intermediate_size=32, num_labels=outputs, problem_type="regression")
    return BertForSequenceClassification(config).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return load_demo()[1]


@pytest.mark.parametrize(
    ("head", "kind"), [(head, kind) for head in FITTING for kind in TARGETS if kind not in FITTING[head]]
)
def test_a_target_for_another_head_is_refused_by_the_name_of_the_head(head, kind, tokenizer):
    inputs = ("a film", ["good", "bad"]) if head == "choices" else "a film [MASK]"
    expected = f"has a head for {head}" if (head, kind) != ("classes of whole texts", "value") else "has 2 classes"
    with pytest.raises(InvalidInputError, match=f"target {kind} is for .*{expected}"):
        explain(built(head), inputs, tokenizer=tokenizer, target=TARGETS[kind])


def test_the_sides_of_a_margin_are_checked(tokenizer):
    with pytest.raises(InvalidInputError, match=r"target frame is for .* head for classes of whole texts"):
        explain(tiny_bert(), "a film", tokenizer=tokenizer, target="margin(frame(0), label(1))")


@pytest.mark.parametrize("target", ["value()", "value(0)", "value(1)", "margin(value(0), value(1))"])
def test_value_is_not_a_class(target, tokenizer):
    with pytest.raises(InvalidInputError, match=r"has 2 classes \['LABEL_0', 'LABEL_1'\].*label\("):
        explain(tiny_bert(), "a film", tokenizer=tokenizer, target=target)


@pytest.mark.parametrize("kind", ["label(0)", "label('LABEL_0')", "margin(0, 1)"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_classes_are_not_values(kind, outputs, tokenizer):
    model = regression(outputs)
    with pytest.raises(InvalidInputError, match=r"is for classes; .* regression model .* value\("):
        explain(model, "a film", tokenizer=tokenizer, target=kind)


def test_values_of_regression_models_are_the_outputs(tokenizer):
    model = regression(3)
    seen = []
    for i in range(3):
        explanation = explain(model, "a film", tokenizer=tokenizer, target=targets.value(i), method="occlusion")
        seen.append((explanation.target, explanation.probability))
    assert seen == [(0, None), (1, None), (2, None)]
    with pytest.raises(InvalidInputError, match=r"3 outputs; name one: value\(0\) to value\(2\)"):
        explain(model, "a film", tokenizer=tokenizer, target=targets.value())
    two = explain(model, "a film", tokenizer=tokenizer, target="margin(value(2), value(1))")
    assert two.target_name == "LABEL_2 rather than LABEL_1"


class Probabilities(nn.Module):
    """A classifier that ends with a softmax."""

    def __init__(self, plain):
        super().__init__()
        self.inner, self.plain = tiny_bert(), plain
        self.config = self.inner.config

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        outputs = self.inner(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        outputs.logits = outputs.logits.softmax(-1)
        return outputs.logits if self.plain else outputs


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("method", ["relevance", "attnlrp", "occlusion", "attention"])
def test_outputs_that_are_probabilities_are_refused_with_this_reason(plain, method, tokenizer):
    with pytest.raises(UnsupportedModelError, match="logits are probabilities already"):
        explain(Probabilities(plain), ["a film", "dull"], tokenizer=tokenizer, method=method)


def test_a_function_of_probabilities_is_explained_or_refused_with_the_softmax_as_reason(tokenizer):
    model, target = Probabilities(False), lambda outputs: outputs.logits[:, 1]
    with pytest.raises(UnsupportedModelError, match=r"made by a softmax.*attnlrp"):
        explain(model, "a film", tokenizer=tokenizer, target=target)
    found = explain(model, "a film", tokenizer=tokenizer, target=target, method="occlusion")
    assert float(found.scores.abs().max()) > 0


@pytest.mark.parametrize(
    "key", ["output_attentions", "output_hidden_states", "return_dict", "use_cache", "return_loss"]
)
def test_switches_of_the_call_are_no_inputs(key, tokenizer):
    inputs = {**tokenizer("a film", return_tensors="pt"), key: True}
    with pytest.raises(
        InvalidInputError, match=rf"inputs has \['{key}'\]: this is how the model is called.*Leave it out"
    ):
        explain(tiny_bert(), inputs, tokenizer=tokenizer)


@pytest.mark.parametrize(("pair", "place"), [((None, "b"), 0), (("a", None), 1), (("a", 3), 1), (("a", b"b"), 1)])
def test_a_pair_with_something_else_than_a_text_is_refused_by_its_entry(pair, place, tokenizer):
    with pytest.raises(InvalidInputError, match=f"entry {place} is {type(pair[place]).__name__}"):
        explain(tiny_bert(), pair, tokenizer=tokenizer)


@pytest.mark.parametrize("inputs", ["a film", ["a film"], {"input_ids": torch.tensor([[2, 50, 3]])}])
def test_a_forward_without_known_arguments_is_refused_by_its_signature(inputs, tokenizer):
    with pytest.raises(InvalidInputError, match=r"its forward takes \(input\) and none of input_ids"):
        explain(nn.Sequential(tiny_bert()), inputs, tokenizer=tokenizer)


def test_special_tokens_of_tensors_need_a_tokenizer_and_the_message_says_so():
    with pytest.raises(InvalidInputError, match=r"pass tokenizer=\.\.\.: special tokens are never removed") as refusal:
        minimal_tokens(tiny_bert(), {"input_ids": torch.tensor([[2, 50, 60, 3]])})
    assert "dict of tensors" not in str(refusal.value)
