"""Calls with at most as many keys as dimensions: no basis where the values are independent, and the same numbers."""

import pytest
import torch

from hf_attn_mi.kernels import attention_statistics
from hf_attn_mi.kernels.attention_statistics import torch as shared_keys
from hf_attn_mi.kernels.effective.value_basis import epsilon_of, independent_values, value_basis
from tests.kernels.test_attention_statistics import check, sample


def no_basis(*args, **options):
    raise AssertionError("a basis was computed")


@pytest.mark.parametrize("output", [False, True])
@pytest.mark.parametrize("length", [1, 15, 16])
def test_independent_values_take_no_basis(length, output, monkeypatch):
    key_mask = torch.ones(2, length, dtype=torch.bool)
    key_mask[1, length // 2 + 1 :] = False
    monkeypatch.setattr(shared_keys, "value_basis", no_basis)
    tensors = sample(2, 4, 2, length, length, dim=16)
    statistics, _ = check(*tensors, key_mask=key_mask, query_mask=key_mask, output=output, direct=True)
    assert torch.equal(statistics.received, statistics.received_effective)
    assert float(statistics.null_space_fraction.max()) == 0


@pytest.mark.parametrize("change", ["equal keys", "nearly equal keys", "a zero value", "one head"])
def test_dependent_values_take_one(change, monkeypatch):
    query, key, value = sample(1, 2, 2, 8, 8, dim=16)
    value = value.contiguous()
    if change == "a zero value":
        value[:, :, 3] = 0
    else:
        heads = slice(0, 1) if change == "one head" else slice(None)
        value[:, heads, 3] = value[:, heads, 4] * (1 + 1e-7 * (change == "nearly equal keys"))
    statistics, exact = check(query, key, value)
    assert torch.equal(statistics.rank, exact["rank"])
    assert int(statistics.rank.min()) == 7
    monkeypatch.setattr(shared_keys, "value_basis", no_basis)
    with pytest.raises(AssertionError, match="a basis was computed"):
        attention_statistics(query, key, value, None)


@pytest.mark.parametrize("exponent", [0, -2, -4, -6, -8])
def test_what_is_called_independent_has_full_rank(exponent):
    values = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    values[:, 5] = values[:, 4] + 10.0**exponent * values[:, 5]
    flags = torch.ones(3, 6, dtype=torch.bool)
    sure = independent_values(values, flags, epsilon_of(values))
    rank = value_basis(values, flags.sum(1), epsilon_of(values)).rank
    assert bool((rank[sure] == 6).all())
    assert sure.tolist() == [exponent >= -4] * 3 or exponent == -6  # near the rounding of float32 it stays open
