"""Identifiability intervals against closed forms and random members of the polytope."""

import pytest
import torch
from polytope_oracle import best_row, heads

from hf_attn_mi.attention import attention_interval, efficient_attention
from hf_attn_mi.errors import InvalidInput


def test_closed_form_on_a_line():
    # v = 0, 1, 2 and output 1: b = (t, 1 - 2 t, t) with t in [0, 1/2].
    values = torch.tensor([[0.0], [1.0], [2.0]])
    ends = attention_interval(torch.tensor([0.25, 0.5, 0.25]), values, [0, 1, 2])
    expected = torch.tensor([[0.0, 0.5], [0.0, 1.0], [0.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(ends, expected, atol=1e-8, rtol=0)
    # Output 1.8: key 2 is in every explanation. b = (t, .2 - 2 t, .8 + t) with t in [0, .1].
    ends = attention_interval(torch.tensor([0.0, 0.2, 0.8]), values, torch.tensor([2]))
    torch.testing.assert_close(ends, torch.tensor([[0.8, 0.9]], dtype=torch.float64), atol=1e-6, rtol=0)


def test_contains_the_row_and_every_other_with_its_output():
    attention, values = heads(1, 1, keys=20, head_dim=4)
    row = attention[0, 0]
    ends = attention_interval(row, values[0], range(20))
    members = [row, efficient_attention(attention, values).attention[0, 0]]
    generator = torch.Generator().manual_seed(3)
    members += [best_row(row, values[0], torch.randn(20, generator=generator)) for _ in range(20)]
    for member in members:
        assert (member >= ends[:, 0] - 1e-8).all()
        assert (member <= ends[:, 1] + 1e-8).all()
    for key in (0, 7):
        unit = torch.eye(20)[key]
        assert abs(float(best_row(row, values[0], unit)[key] - ends[key, 1])) < 1e-8
        assert abs(float(best_row(row, values[0], -unit)[key] - ends[key, 0])) < 1e-8


def test_collapses_where_the_row_is_the_only_one():
    attention, values = heads(1, 1, keys=5, head_dim=4)
    ends = attention_interval(attention[0, 0], values[0], range(5))
    assert torch.equal(ends[:, 0], ends[:, 1])
    torch.testing.assert_close(ends[:, 0], attention[0, 0])


def test_masked_keys_do_not_count():
    attention, values = heads(1, 1, keys=8, head_dim=2)
    wide = torch.cat([attention[0, 0], torch.full((2,), torch.nan, dtype=torch.float64)])
    wide_values = torch.cat([values[0], torch.full((2, 2), torch.nan, dtype=torch.float64)])
    mask = torch.arange(10) < 8
    ends = attention_interval(wide, wide_values, [1, 9, 4], mask)
    alone = attention_interval(attention[0, 0], values[0], [1, 4])
    torch.testing.assert_close(ends[[0, 2]], alone, atol=1e-9, rtol=0)
    assert (ends[1] == 0).all()
    assert (attention_interval(wide, wide_values, [0], mask & False) == 0).all()


def test_wrong_input_is_refused():
    attention, values = heads(1, 1, keys=8, head_dim=2)
    for row, points, keys in (
        (attention[0], values[0], [0]),
        (attention[0, 0], values, [0]),
        (attention[0, 0], values[0], [8]),
        (attention[0, 0], values[0], [-1]),
    ):
        with pytest.raises(InvalidInput):
            attention_interval(row, points, keys)
