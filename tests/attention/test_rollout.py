"""Attention rollout against a product written out."""

import pytest
import torch

from hf_attn_mi.attention import rollout
from hf_attn_mi.errors import InvalidInputError


def layers(*shape, count=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, shape[-1], generator=generator, dtype=torch.float64).softmax(-1) for _ in range(count)]


@pytest.mark.parametrize("residual", [0.0, 0.5, 0.8])
def test_equals_the_product(residual):
    attentions = layers(2, 4, 6)
    eye = torch.eye(6, dtype=torch.float64)
    a, b, c = ((1 - residual) * layer.mean(1) + residual * eye for layer in attentions)
    result = rollout(attentions, residual=residual)
    torch.testing.assert_close(result, c @ b @ a)
    torch.testing.assert_close(result.sum(-1), torch.ones(2, 6, dtype=torch.float64))


def test_without_head_dimension():
    attentions = layers(2, 4, 6)
    means = [layer.mean(1) for layer in attentions]
    torch.testing.assert_close(rollout(means, head_dimension=None), rollout(attentions))
    torch.testing.assert_close(rollout([mean[0] for mean in means]), rollout(attentions)[0])


def test_pads_change_nothing():
    attentions = layers(2, 4, 6)
    padded = []
    for layer in attentions:
        wide = torch.full((2, 4, 8, 8), torch.nan, dtype=torch.float64)
        wide[:, :, :6, :6] = layer
        padded.append(wide)
    mask = (torch.arange(8) < 6).expand(2, 8)
    result = rollout(padded, mask)
    torch.testing.assert_close(result[:, :6, :6], rollout(attentions))
    assert (result[:, 6:] == 0).all()
    assert (result[:, :, 6:] == 0).all()


def test_wrong_input_is_refused():
    attentions = layers(2, 4, 6)
    for wrong in ([], [attentions[0][..., :5]], [attentions[0], attentions[0][:1]], [-attentions[0]]):
        with pytest.raises(InvalidInputError):
            rollout(wrong)
    for residual in (-0.1, 1.5, float("nan")):
        with pytest.raises(InvalidInputError):
            rollout(attentions, residual=residual)
    with pytest.raises(InvalidInputError):
        rollout(attentions, head_dimension=1)
