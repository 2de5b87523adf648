"""Max-sensitivity and completeness against Captum and by hand."""

import pytest
import torch
from captum import metrics

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import completeness_gap, max_sensitivity, relative_change


def test_max_sensitivity_equals_captums_on_the_same_noise():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    weights = torch.randn(4, generator=generator, dtype=torch.float64)

    def explain(x):  # gradient x input of sum tanh(x w)
        return ((1 - (x @ weights).tanh().square())[..., None] * weights * x).sum(-1)

    noise = (torch.rand(8, 6, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 2 - 1) * 0.1
    wanted = metrics.sensitivity_max(
        lambda x: (explain(x[0]),),
        inputs[None],
        perturb_func=lambda x, radius: (x[0] + noise,),
        n_perturb_samples=8,
        perturb_radius=0.1,
    )
    assert max_sensitivity(explain, inputs, radius=0.1, samples=8, seed=5) == pytest.approx(float(wanted), rel=1e-6)
    assert float(noise.abs().max()) <= 0.1


def test_relative_change_by_hand():
    # ||(3, 4)|| = 5; changes (3, 4) - (3, 4) and (0, 1): 1 / 5
    assert relative_change(torch.tensor([3.0, 4.0]), torch.tensor([[3.0, 4.0], [3.0, 5.0]])) == pytest.approx(0.2)
    assert relative_change(torch.zeros(2), torch.ones(1, 2)) is None
    for scores, moved in ((torch.ones(2), torch.ones(2)), (torch.ones(2), torch.ones(1, 3)), (torch.ones(2), None)):
        moved = torch.full((1, 2), float("nan")) if moved is None else moved
        with pytest.raises(InvalidInputError):
            relative_change(scores, moved)
    with pytest.raises(InvalidInputError, match="radius and samples must be positive"):
        max_sensitivity(lambda x: x, torch.ones(2), radius=0.0)


def test_completeness_gap_by_hand():
    assert completeness_gap(torch.tensor([2.0, -0.5]), 1.0, bias=-0.5) == pytest.approx(0)
    assert completeness_gap(torch.tensor([2.0, -0.5]), 1.0) == pytest.approx(0.5 / 2.5)  # over the sum of |scores|
    assert completeness_gap(torch.tensor([1.0]), -4.0) == pytest.approx(5 / 4)  # over |value|
    assert completeness_gap(torch.zeros(3), 0.0) is None
