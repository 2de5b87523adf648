"""The same scores from a few lines of torch, or of Captum, on the same model; largest difference 1e-5."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_attn_mi import explain
from tests.sample_models import TEXTS, captured, tiny_bert

TEXT = TEXTS[0]


@pytest.fixture(scope="module")
def case(demo):
    """The embedded model as a function of word embeddings, and of token ids."""
    model, tokenizer = demo
    batch = tokenizer(TEXT, return_tensors="pt")
    ids = batch["input_ids"]
    words = model.get_input_embeddings().weight.detach()

    def difference(embeddings):
        logits = model(inputs_embeds=embeddings, attention_mask=torch.ones(embeddings.shape[:2])).logits
        return logits[:, 1] - logits[:, 0]

    def probability(some):
        with torch.no_grad():
            return model(input_ids=some).logits.softmax(-1)[:, 1]

    return SimpleNamespace(
        model=model, ids=ids, words=words, difference=difference, probability=probability, last=ids.shape[1] - 1
    )


def gradient(case, embeddings):
    leaf = embeddings.clone().requires_grad_(True)
    return torch.autograd.grad(case.difference(leaf).sum(), leaf)[0]


def close(found, wanted):
    assert found.scores.shape == wanted.shape
    assert float((found.scores.double() - wanted.double()).abs().max()) <= 1e-5


def without_text(case):
    """[PAD] between [CLS] and [SEP]."""
    ids = torch.zeros_like(case.ids)
    ids[:, 0], ids[:, -1] = case.ids[:, 0], case.ids[:, -1]
    return ids


def test_saliency(case):
    close(explain(case.model, TEXT, method="saliency"), gradient(case, case.words[case.ids])[0].norm(dim=-1))


def test_input_x_gradient(case):
    inputs = case.words[case.ids]
    close(explain(case.model, TEXT, method="input_x_gradient"), (inputs * gradient(case, inputs))[0].sum(-1))


def test_integrated_gradients(case):
    inputs, start = case.words[case.ids], case.words[without_text(case)]
    nodes, weights = np.polynomial.legendre.leggauss(50)
    total = torch.zeros_like(inputs, dtype=torch.float64)
    for node, weight in zip((nodes + 1) / 2, weights / 2):
        total += weight * gradient(case, start + float(node) * (inputs - start)).double()
    found = explain(case.model, TEXT, method="integrated_gradients", options={"steps": 50})
    close(found, ((inputs - start).double() * total)[0].sum(-1))
    with torch.no_grad():
        difference = float(case.difference(inputs) - case.difference(start))
    assert float(found.scores.sum()) == pytest.approx(difference, abs=1e-3 * abs(difference))
    assert found.completeness_gap == pytest.approx(
        abs(difference - float(found.scores.double().sum())) / float(found.scores.abs().sum()), abs=1e-5
    )


def test_integrated_gradients_against_captums_layer_method(case):
    from captum.attr import LayerIntegratedGradients

    def value(some):
        logits = case.model(input_ids=some).logits
        return logits[:, 1] - logits[:, 0]

    method = LayerIntegratedGradients(value, case.model.get_input_embeddings())
    wanted = method.attribute(case.ids, baselines=without_text(case), n_steps=20)
    close(explain(case.model, TEXT, method="integrated_gradients", options={"steps": 20}), wanted[0].sum(-1).detach())


def test_leave_one_out(case):
    rows = case.ids.repeat(case.last - 1, 1)
    rows[torch.arange(case.last - 1), torch.arange(1, case.last)] = 0
    wanted = torch.zeros(case.last + 1)
    wanted[1:-1] = case.probability(case.ids) - case.probability(rows)
    close(explain(case.model, TEXT, method="feature_ablation"), wanted)


def test_leave_one_out_with_the_mask_token(case):
    rows = case.ids.repeat(case.last - 1, 1)
    rows[torch.arange(case.last - 1), torch.arange(1, case.last)] = 4
    wanted = torch.zeros(case.last + 1)
    wanted[1:-1] = case.probability(case.ids) - case.probability(rows)
    found = explain(case.model, TEXT, method="feature_ablation", options={"baseline": "mask"})
    assert found.info["baseline"] == "embedding of the mask token (id 4)"
    close(found, wanted)


def test_occlusion(case):
    wanted, count = torch.zeros(case.last + 1), torch.zeros(case.last + 1)
    for start in range(1, case.last - 1):
        row = case.ids.clone()
        row[:, start : start + 2] = 0
        wanted[start : start + 2] += case.probability(case.ids) - case.probability(row)
        count[start : start + 2] += 1
    found = explain(case.model, TEXT, method="occlusion", options={"window": 2})
    close(found, wanted / count.clamp_min(1))


def of_presence(case):
    """Probability as a function of which tokens between [CLS] and [SEP] are there."""

    def value(presence):
        rows = case.ids.repeat(len(presence), 1)
        rows[:, 1:-1] = rows[:, 1:-1] * presence.long()  # the id of [PAD] is 0
        return case.probability(rows)

    return value


def on_words(case, found):
    wanted = torch.zeros(case.last + 1)
    wanted[1:-1] = found[0]
    return wanted


def test_lime_and_kernel_shap_against_scikit_learn(case):
    from captum._utils.models.linear_model import SkLearnLinearModel
    from captum.attr import KernelShap, Lime
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    present, value = torch.ones(1, case.last - 1), of_presence(case)
    kernel = get_exp_kernel_similarity_function("cosine", 0.25)
    lime = Lime(value, SkLearnLinearModel("linear_model.Ridge", alpha=1.0), kernel)
    for name, method in (("lime", lime), ("kernel_shap", KernelShap(value))):
        torch.manual_seed(7)
        wanted = method.attribute(present, n_samples=150)
        close(explain(case.model, TEXT, method=name, options={"samples": 150, "seed": 7}), on_words(case, wanted))


def test_shapley_sampling_against_captum(case):
    from captum.attr import ShapleyValueSampling

    torch.manual_seed(7)
    wanted = ShapleyValueSampling(of_presence(case)).attribute(torch.ones(1, case.last - 1), n_samples=6)
    close(
        explain(case.model, TEXT, method="shapley_sampling", options={"samples": 6, "seed": 7}), on_words(case, wanted)
    )


def test_gradient_shap_by_hand(case):
    """At the points that numpy draws from this seed, after the choice among the one baseline."""
    state = np.random.get_state()
    np.random.seed(7)
    np.random.choice(1, 6)
    points = np.random.uniform(0.0, 1.0, 6)
    np.random.set_state(state)
    inputs, start = case.words[case.ids], case.words[without_text(case)]
    mean = torch.stack([gradient(case, start + float(t) * (inputs - start)) for t in points]).mean(0)
    found = explain(case.model, TEXT, method="gradient_shap", options={"samples": 6, "seed": 7})
    close(found, ((inputs - start) * mean)[0].sum(-1))


def test_deeplift_against_captum_and_its_convergence_delta(case):
    from captum.attr import DeepLift

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = case.model

        def forward(self, embeddings):
            return case.difference(embeddings)

    inputs, start = case.words[case.ids], case.words[without_text(case)]
    inputs.requires_grad_(True)
    with pytest.warns(UserWarning, match="hooks"):
        wanted, delta = DeepLift(Model()).attribute(inputs, baselines=start, return_convergence_delta=True)
    found = explain(case.model, TEXT, method="deeplift")
    close(found, wanted[0].sum(-1).detach())
    with torch.no_grad():
        difference = float(case.difference(inputs) - case.difference(start))
    scale = max(abs(difference), float(wanted.detach().sum(-1).abs().sum()))
    assert found.completeness_gap == pytest.approx(abs(float(delta)) / scale, rel=1e-3)
    assert any("convergence delta" in note for note in found.info["warnings"])


@pytest.mark.parametrize("text", [TEXT, ("dull", "One of the worst!")])
def test_value_norms_from_captured_values(demo, text):
    """||sum_h a_ij W_O^h v_j^h|| written out query by query, from the weights of the model."""
    model, tokenizer = demo
    batch = dict(
        tokenizer(text[0], text[1], return_tensors="pt")
        if isinstance(text, tuple)
        else tokenizer(text, return_tensors="pt")
    )
    layers = []
    for call, layer in zip(captured(model, batch), model.bert.encoder.layer, strict=True):
        rows, values = call.attention()[0], call.value[0]  # (heads, n, n), (heads, n, head_dim)
        weight = layer.attention.output.dense.weight.detach().t().reshape(*values.shape[::2], -1)
        moved = torch.einsum("hjd,hde->hje", values, weight)
        norms = torch.stack([(rows[:, i, :, None] * moved).sum(0).norm(dim=-1) for i in range(rows.shape[1])])
        layers.append(norms.mean(0))
    close(explain(model, text, method="value_norms"), torch.stack(layers).mean(0))


def test_value_norms_leave_masked_queries_out():
    model, ids = tiny_bert(), torch.tensor([[2, 50, 60, 70, 3]])
    mask = torch.tensor([[1, 1, 0, 1, 1]])
    found = explain(model, {"input_ids": ids, "attention_mask": mask}, method="value_norms").scores
    short = explain(
        model, {"input_ids": ids[:, mask[0].bool()], "position_ids": torch.tensor([[0, 1, 3, 4]])}, method="value_norms"
    ).scores
    assert float((found[mask[0].bool()] - short).abs().max()) <= 1e-5
    assert found[2] == 0
