"""Scores that can be written down: a linear model, games with known Shapley values, and one that reads its segments."""

import pytest
import torch

from tests.methods.toys import IDS, REAL, SPECIAL, WORDS, Toy, arguments, score

WEIGHT = torch.tensor([1.0, -2.0, 0.5, 3.0])
EXACT = {"lime": {"penalty": 0.0}, "kernel_shap": {"samples": 60}}  # more samples than tokens; no shrinkage


def linear():
    """logit = <weight, sum of the embeddings>, the same twice for two classes."""
    return Toy(lambda states: (states.sum(1) @ WEIGHT)[:, None].expand(-1, 2))


def changes(model):
    """(batch, tokens) what the linear logit loses where a token becomes [PAD]; special tokens are never changed."""
    table = model.words.weight.detach()
    return ((table[IDS] - table[0]) @ WEIGHT) * (REAL & ~SPECIAL)


@pytest.mark.parametrize("name", [name for name in WORDS if name != "occlusion"])
def test_a_linear_model_gives_each_token_its_own_term(name):
    model = linear()
    found = score(name, model, **EXACT.get(name, {}))
    assert float((found.scores - changes(model)).abs().max()) <= 1e-5
    assert found.info["baseline"] == "embedding of the pad token (id 0)"
    assert found.gaps is None or float(found.gaps.max()) <= 1e-5


def test_occlusion_is_the_mean_over_the_windows_that_hold_the_token():
    model = linear()
    c = changes(model)[0, 1:5]
    first, second = c[:3].sum(), c[1:].sum()  # the two windows of three among four tokens
    wanted = torch.tensor([first, (first + second) / 2, (first + second) / 2, second])
    found = score("occlusion", model, window=3).scores
    assert float((found[0, 1:5] - wanted).abs().max()) <= 1e-5
    both = changes(model)[1, 1:3].sum()  # fewer tokens than the window: one window of all
    assert float((found[1, 1:3] - both).abs().max()) <= 1e-5


def test_saliency_of_a_linear_model_is_the_norm_of_its_weight():
    found = score("saliency", linear()).scores
    assert float((found - WEIGHT.norm() * REAL).abs().max()) <= 1e-5


def test_input_x_gradient_of_a_linear_model_is_its_term():
    model = linear()
    wanted = (model.words.weight.detach()[IDS] @ WEIGHT) * REAL
    assert float((score("input_x_gradient", model).scores - wanted).abs().max()) <= 1e-5


def test_the_zero_and_the_mask_embedding_as_baseline():
    model = linear()
    table = model.words.weight.detach()
    zero = score("feature_ablation", model, baseline="zero")
    assert zero.info["baseline"] == "zero embedding"
    wanted = (table[IDS] @ WEIGHT) * (REAL & ~SPECIAL)
    assert float((zero.scores - wanted).abs().max()) <= 1e-5


def together():
    """logit = 1 where the tokens at places 1 and 2 are both there, else 0."""

    def function(states):
        return (states[:, 1, :1] * states[:, 2, :1]).expand(-1, 2)

    model = Toy(function)
    with torch.no_grad():
        model.words.weight.fill_(1.0)
        model.words.weight[0] = 0.0
    return model


@pytest.mark.parametrize(
    ("name", "options"), [("shapley_sampling", {"samples": 2000}), ("kernel_shap", {"samples": 4000})]
)
def test_two_tokens_that_count_only_together_share_alike(name, options):
    found = score(name, together(), **options)
    wanted = torch.tensor([[0, 0.5, 0.5, 0, 0, 0], [0, 0.5, 0.5, 0, 0, 0]])
    # 2000 orders: a standard error of 0.5 / sqrt(2000) = 0.011, here four of them
    assert float((found.scores - wanted).abs().max()) <= 0.045
    assert float((found.scores.sum(1) - 1).abs().max()) <= 1e-4  # f(x) - f(baseline), whatever was drawn
    assert float(found.gaps.max()) <= 1e-4


def test_each_gradient_method_on_a_product():
    """f = x1 x2 from 0 to 1: the gradient at the end is 1 for both, on the straight way from 0 it is 1/2 on average."""
    for name, wanted in (("input_x_gradient", 1.0), ("integrated_gradients", 0.5)):
        found = score(name, together()).scores
        assert float((found[:, 1:3] - wanted).abs().max()) <= 1e-5
        assert float(found[:, 3:].abs().max()) <= 1e-6


def test_gradient_shap_comes_to_integrated_gradients():
    found = score("gradient_shap", together(), samples=4000)
    # mean of t, uniform: 1/2 with a standard error of 0.289 / sqrt(4000) = 0.0046
    assert float((found.scores[:, 1:3] - 0.5).abs().max()) <= 0.02
    assert float(found.gaps.max()) > 0.0


def test_deeplift_of_a_rectifier_is_the_rescale_rule():
    """f = relu(s), s = sum of terms: the multiplier is (relu(s) - relu(s0)) / (s - s0), not the gradient."""

    class Rectified(Toy):
        def __init__(self):
            super().__init__(None)
            self.relu = torch.nn.ReLU()
            self.function = lambda states: self.relu((states.sum(1) @ WEIGHT)[:, None] + 10.0).expand(-1, 2)

    model = Rectified()
    own, table = REAL[..., None] * 1.0, model.words.weight.detach()
    end = ((table[IDS] * own).sum(1) @ WEIGHT) + 10.0
    start = end - changes(model).sum(1)
    multiplier = (end.relu() - start.relu()) / (end - start)
    assert bool(((end > 0) != (start > 0)).any())  # the premise: somewhere the rule differs from the gradient
    found = score("deeplift", model)
    assert float((found.scores - multiplier[:, None] * changes(model)).abs().max()) <= 1e-5
    assert float(found.gaps.max()) <= 1e-5


def test_segments_reach_the_model():
    """A second segment that multiplies what a token tells: dropped segments would give the first one's scores."""
    model = Toy(lambda states: (states[..., 0] * states[..., 1]).sum(1)[:, None].expand(-1, 2))
    with torch.no_grad():
        model.types.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [1.0, 5.0, 0, 0]]))
    types = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0]])
    table, kinds = model.words.weight.detach(), model.types.weight.detach()
    full, pad = table[IDS] + kinds[types], table[torch.zeros_like(IDS)] + kinds[types]
    wanted = (full[..., 0] * full[..., 1] - pad[..., 0] * pad[..., 1]) * (REAL & ~SPECIAL)
    given = arguments(token_type_ids=types)
    for name in ("feature_ablation", "shapley_sampling", "integrated_gradients"):
        assert float((score(name, model, given).scores - wanted).abs().max()) <= 1e-5


def test_a_text_of_special_tokens_only_scores_nothing():
    ids, everything = torch.tensor([[2, 3]]), torch.ones(1, 2, dtype=torch.bool)
    for name in WORDS:
        found = score(
            name,
            linear(),
            {"input_ids": ids, "attention_mask": everything.long()},
            special=everything,
        )
        assert found.scores.tolist() == [[0.0, 0.0]]


def test_a_single_token_takes_all():
    ids, special, real = (
        torch.tensor([[2, 5, 3]]),
        torch.tensor([[True, False, True]]),
        torch.ones(1, 3, dtype=torch.bool),
    )
    model = linear()
    wanted = float((model.words.weight[5] - model.words.weight[0]).detach() @ WEIGHT)
    for name in WORDS:
        options = {"penalty": 0.0} if name == "lime" else {}
        given = {"input_ids": ids, "attention_mask": real.long()}
        found = score(name, model, given, special=special, **options).scores[0]
        assert found.tolist() == pytest.approx([0.0, wanted, 0.0], abs=1e-5)
