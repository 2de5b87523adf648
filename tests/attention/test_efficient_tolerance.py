"""The tolerance curve against the rows of `efficient_attention`, one tolerance at a time."""

import pytest
import torch
from polytope_oracle import heads

from hf_attn_mi.attention import efficient_attention, tolerance_curve
from hf_attn_mi.errors import InvalidInputError

TOLERANCES = (0.01, 0.05, 0.1, 0.5)


@pytest.mark.parametrize("sharpness", [0.3, 2.0, 8.0])
def test_supports_are_those_of_the_rows(sharpness):
    attention, values = heads(2, 3, 5, keys=40, head_dim=8, sharpness=sharpness)
    curve = tolerance_curve(attention, values, tolerances=(0.5, 0.1, 0.05, 0.01, 0))
    assert curve.tolerances == (0.0, *TOLERANCES)
    for tolerance, support in zip(curve.tolerances, curve.support_size):
        rows = efficient_attention(attention, values, tolerance=tolerance)
        assert torch.equal(support, rows.support_size)
        centered = values - values.mean(-2, keepdim=True)
        missed = ((rows.attention - attention) @ values).norm(dim=-1)
        assert (missed <= tolerance * (attention @ centered).norm(dim=-1) + 1e-9).all()
    assert (curve.support_size.diff(dim=0) <= 0).all()
    assert (curve.support_size[-1] < curve.support_size[0]).any()
    torch.testing.assert_close(curve.mean, curve.support_size.double().mean(-1))


def test_closed_form_on_a_line():
    # Uniform on 0..4: output and mean value are 2, so any tolerance asks for the exact output: key 2, or a pair.
    values = torch.arange(5.0)[:, None]
    row = torch.tensor([[0.0, 0.0, 0.0, 0.6, 0.4]])  # output 3.4, 1.4 from the mean; key 3 misses by .4, key 4 by .6
    curve = tolerance_curve(row, values, tolerances=(0.25, 0.3))
    assert curve.support_size[:, 0].tolist() == [2, 1]  # .4 / 1.4 = .286


def test_masked_keys_and_queries_do_not_count():
    attention, values = heads(1, 4, keys=12, head_dim=3)
    mask = torch.arange(12) < 10
    queries = torch.tensor([[True, True, False, True]])
    part = attention[..., :10] / attention[..., :10].sum(-1, keepdim=True)
    curve = tolerance_curve(attention, values, mask, query_mask=queries)
    alone = tolerance_curve(part[:, [0, 1, 3]], values[:, :10])
    assert torch.equal(curve.support_size[..., [0, 1, 3]], alone.support_size)
    assert (curve.support_size[..., 2] == 0).all()
    torch.testing.assert_close(curve.mean, alone.mean)
    causal = torch.ones(12, 12, dtype=torch.bool).tril()
    rows, points = heads(12, keys=12, head_dim=3)[0] * causal, values[0]
    by_row = tolerance_curve(rows, points, causal, tolerances=[0.1])
    assert torch.equal(by_row.support_size[0], efficient_attention(rows, points, causal, tolerance=0.1).support_size)


def test_wrong_tolerances_are_refused():
    attention, values = heads(1, 1, keys=8, head_dim=2)
    for tolerances in ((), (1.0,), (-0.1,), (float("nan"),), ("0.1",), (False,)):
        with pytest.raises(InvalidInputError, match="tolerances"):
            tolerance_curve(attention, values, tolerances=tolerances)
