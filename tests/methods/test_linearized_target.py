"""Target functions run inside the linearized network: norms, softmax and the rest have rules of their own."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

from hf_attn_mi import UnsupportedModelError, explain
from tests.sample_models import DEMO, TEXTS, distance, run_relevance, zoo_model


@pytest.fixture(scope="module")
def encoder(demo):
    """The embedded model's encoder in float64, its tokenizer, and the embedding of another text."""
    model = AutoModel.from_pretrained(DEMO, local_files_only=True).eval().double()
    with torch.no_grad():
        other = pooled(model(**demo[1](TEXTS[4], return_tensors="pt")))
    return model, demo[1], other


def pooled(outputs):
    return outputs.last_hidden_state.mean(1)


def length(x):
    return x.norm(dim=-1, keepdim=True)


NORMS = {
    "cosine_similarity": lambda x, other: F.cosine_similarity(x, other),
    "normalize": lambda x, other: (F.normalize(x, dim=-1) * F.normalize(other, dim=-1)).sum(-1),
    "x / x.norm()": lambda x, other: (x / length(x) @ other.T)[:, 0] / length(other)[:, 0],
    "torch.linalg.norm": lambda x, other: (x / torch.linalg.norm(x, dim=-1, keepdim=True) @ F.normalize(other).T)[:, 0],
    "mm": lambda x, other: torch.mm(F.normalize(x), F.normalize(other).T)[:, 0],
    "root of a sum of squares": lambda x, other: (x / x.pow(2).sum(-1, True).sqrt() * F.normalize(other)).sum(-1),
    "squares": lambda x, other: (x / torch.square(x).sum(-1, keepdim=True).sqrt() * F.normalize(other)).sum(-1),
    "inverse root": lambda x, other: (x * (x * x).sum(-1, keepdim=True).rsqrt() * F.normalize(other)).sum(-1),
    "powers": lambda x, other: (x / ((x**2).sum(-1, keepdim=True) ** 0.5) * F.normalize(other)).sum(-1),
}


@pytest.mark.parametrize("method", ["relevance", "attnlrp"])
@pytest.mark.parametrize("form", NORMS)
def test_a_norm_by_which_is_divided_is_held_constant(encoder, form, method):
    model, tokenizer, other = encoder
    with torch.no_grad():
        norm = length(pooled(model(**tokenizer(TEXTS[2], return_tensors="pt"))))

    def by_hand(outputs):
        return ((pooled(outputs) / norm) @ F.normalize(other).T)[:, 0]

    options = {"tokenizer": tokenizer, "layers": "none", "method": method}
    found = explain(model, TEXTS[2], target=lambda o: NORMS[form](pooled(o), other), **options)
    wanted = explain(model, TEXTS[2], target=by_hand, **options)
    assert distance(found.scores, wanted.scores) < 1e-5
    assert found.completeness_gap < 1e-6
    assert not found.info["warnings"]


def test_a_norm_that_is_the_value_is_linear_along_its_argument(encoder):
    model, tokenizer, other = encoder
    inputs = dict(tokenizer(TEXTS[2], return_tensors="pt"))
    with torch.no_grad():
        difference = pooled(model(**inputs)) - other
    direction = difference / length(difference)
    wanted = run_relevance(model, inputs, lambda o: -((pooled(o) - other) * direction).sum(-1))
    for target in (
        lambda o: -(pooled(o) - other).norm(dim=-1),
        lambda o: -torch.linalg.vector_norm(pooled(o) - other, dim=-1),
        lambda o: -((pooled(o) - other) ** 2).sum(-1).sqrt(),
        lambda o: -torch.cdist(pooled(o)[None], other[None])[0, 0],
    ):
        found = run_relevance(model, inputs, target)
        assert distance(found.scores, wanted.scores) < 1e-5
        assert float(found.gap) < 1e-6 > float(found.target_gap)


def test_the_similarity_of_two_outputs_is_shared_equally():
    model, inputs = zoo_model("seqcls-bert")
    model, inputs = model.double(), {key: value[:1] for key, value in inputs.items()}

    def states(outputs):
        return outputs.hidden_states[-1][:, 0], outputs.hidden_states[-1][:, 1]

    inputs["output_hidden_states"] = True
    with torch.no_grad():
        first, second = states(model(**inputs))
    scale = length(first)[:, 0] * length(second)[:, 0]

    def by_hand(outputs):
        x, y = states(outputs)
        return ((x * second).sum(-1) + (y * first).sum(-1)) / (2 * scale)

    found = run_relevance(model, inputs, lambda o: F.cosine_similarity(*states(o)))
    assert distance(found.scores, run_relevance(model, inputs, by_hand).scores) < 1e-6
    assert float(found.gap) < 1e-6


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "sigmoid", "cross_entropy"])
def test_a_probability_is_explained_by_its_tangent_and_the_target_is_named(demo, name):
    model, _tokenizer = demo
    targets = {
        "softmax": (lambda o: o.logits.softmax(-1)[:, 1], lambda p: p * (1 - p)),
        "log_softmax": (lambda o: F.log_softmax(o.logits, -1)[:, 1], lambda p: 1 - p),
        "sigmoid": (lambda o: torch.sigmoid(o.logits[:, 1] - o.logits[:, 0]), lambda p: p * (1 - p)),
        "cross_entropy": (lambda o: -F.cross_entropy(o.logits, torch.tensor([1]))[None], lambda p: 1 - p),
    }
    target, slope = targets[name]
    margin = explain(model, TEXTS[2], target=1, layers="none")
    found = explain(model, TEXTS[2], target=target, layers="none")
    assert distance(found.scores, margin.scores * slope(margin.probability)) < 1e-4
    assert found.completeness_gap < 1e-5
    (warning,) = found.info["warnings"]
    assert warning.startswith("The target is not linear")
    assert name in warning


@pytest.mark.parametrize("name", ["logaddexp", "logaddexp2", "logcumsumexp"])
def test_a_sum_of_exponentials_is_explained_by_its_tangent_in_every_form(demo, name):
    targets = {
        "logaddexp": lambda x: torch.logaddexp(x[:, 0] + 4, x[:, 1]),  # of comparable size
        "logaddexp2": lambda x: torch.logaddexp2((x[:, 0] + 4) / math.log(2), x[:, 1] / math.log(2)) * math.log(2),
        "logcumsumexp": lambda x: (x + torch.tensor([4.0, 0.0])).logcumsumexp(-1)[:, 1],
    }
    model, tokenizer = demo
    options = {"tokenizer": tokenizer, "layers": "none"}
    found = explain(model, TEXTS[4], target=lambda o: targets[name](o.logits), **options)
    first, second = (explain(model, TEXTS[4], target=lambda o, i=i: o.logits[:, i], **options).scores for i in (0, 1))
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS[4], return_tensors="pt")).logits[0]
    share = torch.softmax(logits + torch.tensor([4.0, 0.0]), 0)
    assert distance(found.scores, share[0] * first + share[1] * second) < 1e-4
    assert found.completeness_gap < 1e-5
    (warning,) = found.info["warnings"]
    assert warning.startswith(f"The target is not linear in the model's outputs ({name}): its tangent")


POWERS = {
    "pow": lambda o: o.logits[:, 1] ** 2,
    "tanh": lambda o: torch.tanh(o.logits[:, 1]),
    "relu": lambda o: torch.relu(o.logits[:, 1]),
    "sqrt": lambda o: o.logits[:, 1].abs().sqrt(),
}


@pytest.mark.parametrize("name", POWERS)
def test_a_function_whose_factor_is_held_is_named_and_the_scores_are_those_of_the_output_times_it(demo, name):
    model, tokenizer = demo
    options = {"tokenizer": tokenizer, "layers": "none"}
    found = explain(model, TEXTS[4], target=POWERS[name], **options)
    plain = explain(model, TEXTS[4], target=lambda o: o.logits[:, 1], **options)
    with torch.no_grad():
        outputs = model(**tokenizer(TEXTS[4], return_tensors="pt"))
    factor = float(POWERS[name](outputs) / outputs.logits[:, 1])
    assert distance(found.scores, plain.scores * factor) < 1e-4
    assert not plain.info["warnings"]
    warning = next(one for one in found.info["warnings"] if f"({name})" in one)
    assert warning.startswith("The target is not linear in the model's outputs (")


PRODUCTS = {  # the target, and its scores from those of the two logits a and b and from their values
    "mul": (lambda a, b: a * b, lambda scores, a, b: (scores[0] * b + scores[1] * a) / 2),
    "einsum": (lambda a, b: torch.einsum("i,i->i", a, b), lambda scores, a, b: (scores[0] * b + scores[1] * a) / 2),
    "multiply": (lambda a, b: a.multiply(b), lambda scores, a, b: (scores[0] * b + scores[1] * a) / 2),
    "div": (lambda a, b: a / b, lambda scores, a, b: scores[0] / b),
    "truediv": (lambda a, b: a.true_divide(b), lambda scores, a, b: scores[0] / b),
    "reciprocal": (lambda a, b: a * b.reciprocal(), lambda scores, a, b: scores[0] / b),
    "cube": (lambda a, b: a * a * a, lambda scores, a, b: scores[0] * a * a),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_and_a_quotient_of_outputs_are_named(demo, name):
    target, wanted = PRODUCTS[name]
    model, tokenizer = demo
    options = {"tokenizer": tokenizer, "layers": "none"}
    found = explain(model, TEXTS[4], target=lambda o: target(o.logits[:, 0], o.logits[:, 1]), **options)
    each = [explain(model, TEXTS[4], target=lambda o, i=i: o.logits[:, i], **options).scores for i in (0, 1)]
    with torch.no_grad():
        values = model(**tokenizer(TEXTS[4], return_tensors="pt")).logits[0].tolist()
    assert distance(found.scores, wanted(each, *values)) < 1e-4
    assert found.completeness_gap < 1e-5
    (warning,) = found.info["warnings"]
    assert warning.startswith("The target is not linear in the model's outputs (")
    names = {"truediv": "div", "reciprocal": "div", "cube": "mul"}
    assert f"({names.get(name, name)})" in warning


PIECES = {  # the target of two logits a < b, with the first below zero, and the scores by those of a and of b
    "max": (lambda x: x.max(-1).values, (0, 1)),
    "amax": (lambda x: x.amax(-1), (0, 1)),
    "abs": (lambda x: x[:, 0].abs(), (-1, 0)),
    "absolute": (lambda x: x[:, 0].clone().absolute_(), (-1, 0)),
    "clip": (lambda x: x[:, 0].clone().clip_(max=100.0), (1, 0)),
    "maximum": (lambda x: torch.maximum(x[:, 0], x[:, 1]), (0, 1)),
    "minimum": (lambda x: torch.minimum(x[:, 1], torch.tensor([100.0])), (0, 1)),
    "clamp": (lambda x: x[:, 0].clamp(max=100.0), (1, 0)),
    "topk": (lambda x: x.topk(2).values.sum(-1), (1, 1)),
    "sort": (lambda x: x.sort(descending=True).values[:, 0], (0, 1)),
    "where": (lambda x: torch.where(x[:, 0] > x[:, 1], x[:, 0], x[:, 1]), (0, 1)),
    "getitem": (lambda x: x[:, x.argmax()], (0, 1)),
    "gather": (lambda x: x.gather(1, x.argmin(1, keepdim=True))[:, 0], (1, 0)),
}


@pytest.mark.parametrize("name", PIECES)
def test_a_target_that_selects_outputs_or_takes_signs_is_named(demo, name):
    target, weights = PIECES[name]
    model, tokenizer = demo
    options = {"tokenizer": tokenizer, "layers": "none"}
    with torch.no_grad():
        first, second = model(**tokenizer(TEXTS[4], return_tensors="pt")).logits[0].tolist()
    assert first < 0 < second
    found = explain(model, TEXTS[4], target=lambda o: target(o.logits), **options)
    each = [explain(model, TEXTS[4], target=lambda o, i=i: o.logits[:, i], **options).scores for i in (0, 1)]
    assert distance(found.scores, weights[0] * each[0] + weights[1] * each[1]) < 1e-4
    assert found.completeness_gap < 1e-5
    (warning,) = found.info["warnings"]
    assert warning.startswith(f"The target is not linear in the model's outputs ({name})")
    assert "do not say why" in warning


def test_a_limit_that_is_reached_is_a_constant(demo):
    found = explain(demo[0], TEXTS[4], target=lambda o: o.logits[:, 1].clamp(min=100.0), layers="none")
    assert not found.scores.any()
    assert found.bias == pytest.approx(100.0)
    assert found.completeness_gap < 1e-6


@pytest.mark.parametrize("scale", [lambda x: x.abs().sum(-1), lambda x: x.abs().amax(-1), lambda x: x.norm(dim=-1)])
def test_a_scale_of_the_outputs_as_divisor_is_no_selection(demo, scale):
    found = explain(demo[0], TEXTS[4], target=lambda o: o.logits[:, 1] / scale(o.logits), layers="none")
    assert not found.info["warnings"]


def test_what_has_no_rule_is_blamed_on_the_target_and_not_on_the_model(encoder):
    model, tokenizer, _ = encoder
    found = explain(model, TEXTS[2], target=lambda o: pooled(o).var(-1), tokenizer=tokenizer, layers="none")
    (warning,) = found.info["warnings"]
    assert "because of the target" in warning
    assert "part of this model" not in warning


@pytest.mark.parametrize("target", [lambda o: 1 / o.logits[:, 0], lambda o: o.logits[:, 0].detach()])
def test_a_target_through_which_no_gradient_flows_is_named(demo, target):
    with pytest.raises(UnsupportedModelError, match=r"^target: no gradient"):
        explain(demo[0], TEXTS[0], target=target)


def test_every_form_of_outputs_is_read(demo):
    model, tokenizer = demo
    inputs = dict(tokenizer(TEXTS[0], return_tensors="pt"))
    wanted = run_relevance(model, inputs, lambda o: o.logits.softmax(-1)[:, 1])
    forms = {
        "dict": (lambda o: {"logits": o.logits}, lambda o: o["logits"]),
        "tuple": (lambda o: (o.logits,), lambda o: o[0]),
        "list": (lambda o: [o.logits], lambda o: o[0]),
        "tensor": (lambda o: o.logits, lambda o: o),
    }
    for form, read in forms.values():
        found = run_relevance(
            model,
            inputs,
            lambda o, read=read: read(o).softmax(-1)[:, 1],
            run=lambda arguments, form=form: form(model(**arguments)),
        )
        assert torch.equal(found.scores, wanted.scores)
        assert float(found.target_gap) < 1e-6
