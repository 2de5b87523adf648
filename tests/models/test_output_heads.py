"""How outputs are read: every form that is certain, a head from outside, and refusals that name `target=`."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_attn_mi import InvalidInputError, certify, explain
from hf_attn_mi.models.output_heads import (
    ClassLogits,
    ExplainedTarget,
    HeadReading,
    find_logits,
    find_output_head,
    register_output_head,
    unregister_output_head,
)
from hf_attn_mi.models.targets import Target
from tests.sample_models import TEXTS, distance, tiny_bert

LOGITS = torch.tensor([[1.0, 3.0, 2.0], [0.5, -1.0, 0.0]])


def config(**more):
    return SimpleNamespace(num_labels=3, id2label={0: "a", 1: "b", 2: "c"}, problem_type=None, **more)


@pytest.mark.parametrize(
    "outputs",
    [
        LOGITS,
        {"logits": LOGITS},
        SimpleNamespace(logits=LOGITS),
        (torch.zeros(2, 7, 8), LOGITS),
        [LOGITS, torch.zeros(2, 8)],
    ],
    ids=["tensor", "mapping", "object", "tuple", "list"],
)
def test_every_form_of_class_logits_is_read(outputs):
    reading = find_output_head(outputs, config()).read(outputs, [None, 2], config())
    assert [(one.target, one.name) for one in reading.explained] == [(1, "b"), (2, "c")]
    assert reading.values.tolist() == pytest.approx([3.0 - 1.5, 0.0 + 0.25])
    wanted = LOGITS.double().softmax(1)
    assert [one.probability for one in reading.explained] == pytest.approx([float(wanted[0, 1]), float(wanted[1, 2])])
    assert reading.predictions == (1, 0)


@pytest.mark.parametrize(
    "outputs",
    [(LOGITS, LOGITS), (torch.zeros(2, 8),), torch.zeros(2, 3, 4), {"other": LOGITS}, SimpleNamespace(), "text"],
    ids=["two of the width", "another width", "three dimensions", "another key", "nothing", "a string"],
)
def test_what_is_not_certain_is_refused_and_names_the_way_out(outputs):
    assert find_logits(outputs, config()) is None
    module = nn.Linear(1, 1)
    module.config = config()
    with pytest.raises(InvalidInputError, match="pass target=function"):
        Target([None, None], module)(outputs)


def test_labels_that_do_not_exclude_each_other():
    labels = config()
    labels.problem_type = "multi_label_classification"
    reading = find_output_head(LOGITS, labels).read(LOGITS, [0, 1], labels)
    assert reading.values.tolist() == [1.0, -1.0]
    assert [one.probability for one in reading.explained] == pytest.approx(
        [torch.sigmoid(torch.tensor(1.0)).item(), torch.sigmoid(torch.tensor(-1.0)).item()]
    )
    assert reading.predictions == (1, 0)


def test_a_single_output_has_no_probability():
    reading = find_output_head(LOGITS[:, :1], None).read(LOGITS[:, :1], [None, None], None)
    assert reading.values.tolist() == [1.0, 0.5]
    assert [one.probability for one in reading.explained] == [None, None]
    assert reading.predictions is None


class TwoTowers(nn.Module):
    """A model of one's own around an encoder: its outputs are a mapping with a name that no head of ours reads."""

    def __init__(self):
        super().__init__()
        self.inner = tiny_bert()
        self.config = self.inner.config

    def get_input_embeddings(self):
        return self.inner.get_input_embeddings()

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        outputs = self.inner(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return {"odds": outputs.logits[:, 1] - outputs.logits[:, 0]}


class Odds:
    """A head from outside the package."""

    name = "odds"

    def accepts(self, outputs, config):
        return isinstance(outputs, dict) and "odds" in outputs

    def read(self, outputs, targets, config):
        odds = outputs["odds"].double()
        probabilities = odds.detach().sigmoid().tolist()
        explained = tuple(ExplainedTarget(1, "odds", probability) for probability in probabilities)
        return HeadReading(odds, explained, tuple(int(p >= 0.5) for p in probabilities))


@pytest.fixture
def registered():
    """Registers heads for one test."""
    heads = []

    def register(head):
        register_output_head(head)
        heads.append(head)
        return head

    yield register
    for head in heads:
        unregister_output_head(head)


class Parity(ClassLogits):
    """A head that reads class logits, but whose prediction is always the same."""

    name = "parity"

    def read(self, outputs, targets, config):
        return replace(super().read(outputs, targets, config), predictions=(7,) * len(targets))


def test_certify_follows_the_target_of_a_head_from_outside(demo, registered):
    torch.manual_seed(0)
    model = TwoTowers().eval()
    text = "a quietly moving film " * 12
    registered(Odds())
    explanation = explain(model, text, tokenizer=demo[1])
    certificate = certify(model, text, tokenizer=demo[1], checked_rows=1)
    shown = (certificate.output, certificate.target, certificate.target_name)
    assert shown == ("odds", explanation.target, explanation.target_name)
    assert certificate.probability == pytest.approx(explanation.probability, rel=1e-5)
    assert certificate.change.kept is True
    moved = certificate.controls["uniform"]
    assert moved.value != 0
    assert abs(moved.value) == pytest.approx(moved.largest, rel=1e-9)


def test_certify_compares_what_the_head_predicts(demo, registered):
    text = "not good at all"  # uniform attention turns the class with the largest logit
    own = certify(demo[0], text, tokenizer=demo[1], checked_rows=1)
    registered(Parity())
    constant = certify(demo[0], text, tokenizer=demo[1], checked_rows=1)
    assert (own.controls["uniform"].kept, constant.controls["uniform"].kept) == (False, True)


@pytest.mark.parametrize("form", ["tensor", "tuple"])
def test_certify_reads_the_logits_wherever_explain_finds_them(demo, form):
    class Bare(TwoTowers):
        def forward(self, input_ids, attention_mask=None, token_type_ids=None):
            outputs = self.inner(input_ids, attention_mask=attention_mask, output_hidden_states=True)
            return outputs.logits if form == "tensor" else (outputs.hidden_states[0], outputs.logits)

    torch.manual_seed(0)
    model, text = Bare().eval(), "a quietly moving film"
    explanation = explain(model, text, tokenizer=demo[1])
    certificate = certify(model, text, tokenizer=demo[1], checked_rows=1)
    assert (certificate.output, certificate.target) == ("logits", explanation.target)
    assert certificate.change.kept is True


def test_a_head_from_outside_is_explained(demo):
    model, tokenizer = TwoTowers().eval(), demo[1]
    with pytest.raises(InvalidInputError, match="pass target=function"):
        explain(model, TEXTS[0], tokenizer=tokenizer)
    head = Odds()
    register_output_head(head)
    try:
        explanation = explain(model, TEXTS[0], tokenizer=tokenizer)
    finally:
        unregister_output_head(head)
    wanted = explain(model, TEXTS[0], tokenizer=tokenizer, target=lambda outputs: outputs["odds"])
    assert explanation.target_name == "odds"
    assert 0 < explanation.probability < 1
    assert distance(explanation.scores, wanted.scores) <= 1e-6
    with pytest.raises(InvalidInputError, match="has no accepts, read"):
        register_output_head(SimpleNamespace(name="half a head"))
