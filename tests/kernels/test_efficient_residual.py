"""Efficient rows of values that depend on one another nearly: optimal is never said above the limit of the residual."""

import pytest
import torch

from hf_attn_mi.attention import efficient_attention
from hf_attn_mi.kernels.efficient.operation import RESIDUAL


def nearly_dependent(difference):
    """Attention and float32 values whose last coordinate is the first one plus a small difference."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 128, 8, generator=generator)
    values[..., -1] = values[..., 0] + difference * torch.randn(4, 128, generator=generator)
    return torch.softmax(3 * torch.randn(4, 20, 128, generator=generator), -1), values


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("difference", [3e-6, 1e-5, 2e-5, 1e-4])
def test_rows_are_those_of_the_full_precision_of_the_values(difference, backend):
    attention, values = nearly_dependent(difference)
    found = efficient_attention(attention, values, backend=backend)
    exact = efficient_attention(attention.double(), values.double(), backend=backend)
    assert not (found.optimal & (found.residual > RESIDUAL)).any()
    assert found.optimal.all()
    again = found.residual <= 1e-12  # solved with every digit, or with values that need no more
    assert again.float().mean() > 0.5 or difference < 1e-5
    torch.testing.assert_close(found.attention[again].double(), exact.attention[again], rtol=0, atol=1e-6)


def test_a_row_above_the_limit_is_not_optimal():
    attention, values = nearly_dependent(2e-5)
    found = efficient_attention(attention, values, objective="head", backend="torch")
    assert found.residual.max() > RESIDUAL
    assert torch.equal(found.optimal, found.residual <= RESIDUAL)
