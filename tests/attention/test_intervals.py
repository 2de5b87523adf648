"""Identifiability intervals and weights against closed forms, random members of the polytope and linear programs."""

import pytest
import torch
from polytope_oracle import best_row, heads

from hf_attn_mi.attention import attention_interval, efficient_attention, identifiable_weights
from hf_attn_mi.errors import InvalidInputError


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


def test_whole_heads_are_their_rows_one_by_one():
    attention, values = heads(2, 3, 4, keys=9, head_dim=3)
    ends = attention_interval(attention, values, [0, 8, 5])
    assert ends.shape == (2, 3, 4, 3, 2)
    for place in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
        alone = attention_interval(attention[place], values[place[:2]], [0, 8, 5])
        torch.testing.assert_close(ends[place], alone, atol=1e-8, rtol=0)
    for key in (0, 2):  # against the linear programs written from the definition
        unit = torch.eye(9, dtype=torch.float64)[[0, 8, 5][key]]
        assert abs(float(best_row(attention[1, 2, 3], values[1, 2], unit) @ unit - ends[1, 2, 3, key, 1])) < 1e-8


def test_heads_whose_rows_see_different_keys():
    attention, values = heads(2, 7, keys=7, head_dim=2)
    causal = torch.ones(7, 7, dtype=torch.bool).tril().expand(2, 7, 7)
    rows = attention * causal
    ends = attention_interval(rows, values, [1, 4], causal)
    for query in range(7):
        alone = attention_interval(rows[1, query], values[1], [1, 4], causal[1, query])
        torch.testing.assert_close(ends[1, query], alone, atol=1e-8, rtol=0)
    assert (ends[:, :4, 1] == 0).all()  # key 4 is not seen before query 4
    assert torch.equal(ends[:, 2, 0, 0], ends[:, 2, 0, 1])  # three keys in two dimensions: the row is the only one
    assert (ends[:, 6, :, 1] - ends[:, 6, :, 0]).max() > 0.01


def test_keys_keep_their_numbers_where_others_are_masked():
    attention, values = heads(1, 2, keys=9, head_dim=2)
    mask = torch.arange(9) != 3
    rest = attention[..., mask] / attention[..., mask].sum(-1, keepdim=True)
    ends = attention_interval(attention, values, [3, 4, 8], mask)
    torch.testing.assert_close(ends[:, :, 1:], attention_interval(rest, values[:, mask], [3, 7]), atol=1e-8, rtol=0)
    assert (ends[:, :, 0] == 0).all()


def test_wrong_input_is_refused():
    attention, values = heads(1, 1, keys=8, head_dim=2)
    for row, points, keys in (
        (attention[0], values[0, :5], [0]),
        (attention[0, 0], values, [0]),
        (torch.tensor(1.0), values[0], [0]),
        (attention[0, 0], values[0], [8]),
        (attention[0, 0], values[0], [-1]),
    ):
        with pytest.raises(InvalidInputError):
            attention_interval(row, points, keys)


# --- identifiable weights


def test_with_no_more_keys_than_the_rank_every_weight_is_a_point():
    attention, values = heads(2, 3, 4, keys=5, head_dim=4)
    found = identifiable_weights(attention, values, width=0.0)
    assert torch.equal(found.lower, found.upper)
    torch.testing.assert_close(found.lower, attention, atol=1e-12, rtol=0)
    assert found.identifiable.all()
    assert found.forced.all()
    assert torch.equal(found.share, torch.ones(2, 3, dtype=torch.double))


def test_two_keys_of_the_same_value_share_their_weight_as_they_like():
    # Values 0, e1, e2 and e2 again: the sum of the last two is fixed, each alone lies anywhere between 0 and it.
    values = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.double)
    row = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.double)
    found = identifiable_weights(row, values, width=0.01)
    torch.testing.assert_close(found.lower, torch.tensor([[0.1, 0.2, 0.0, 0.0]], dtype=torch.double), atol=1e-9, rtol=0)
    torch.testing.assert_close(found.upper, torch.tensor([[0.1, 0.2, 0.7, 0.7]], dtype=torch.double), atol=1e-9, rtol=0)
    assert found.identifiable.tolist() == [[True, True, False, False]]
    assert found.forced.tolist() == [[True, True, False, False]]
    assert float(found.share) == 0.5
    assert identifiable_weights(row, values, width=0.8).identifiable.all()  # the width is the caller's
    # Efficient attention gives all of it to one of the two: the one the model weighs more.
    torch.testing.assert_close(found.efficient, torch.tensor([[0.1, 0.2, 0.0, 0.7]], dtype=torch.double))


def test_a_forced_weight_need_not_be_identifiable():
    # On a line, v = 0, 1, 2 and output 1.8: b = (t, .2 - 2 t, .8 + t) with t in [0, .1].
    row, values = torch.tensor([[0.0, 0.2, 0.8]]), torch.tensor([[0.0], [1.0], [2.0]])
    found = identifiable_weights(row, values, width=0.15)
    assert found.forced.tolist() == [[False, False, True]]
    assert found.identifiable.tolist() == [[True, False, True]]
    narrow = identifiable_weights(row, values, width=0.05)
    assert narrow.forced.tolist() == [[False, False, True]]
    assert not narrow.identifiable.any()


def test_the_share_counts_what_linear_programs_say():
    attention, values = heads(2, 3, keys=12, head_dim=3)
    asked = [0, 5, 11, 7]
    found = identifiable_weights(attention, values, asked, width=0.4)
    assert found.keys.tolist() == asked
    torch.testing.assert_close(found.attention, attention[..., asked])
    torch.testing.assert_close(found.efficient, efficient_attention(attention, values).attention[..., asked])
    for head in range(2):
        narrow = 0
        for query in range(3):
            for key in asked:
                unit = torch.eye(12, dtype=torch.double)[key]
                top = float(best_row(attention[head, query], values[head], unit) @ unit)
                bottom = float(best_row(attention[head, query], values[head], -unit) @ unit)
                narrow += top - bottom <= 0.4
        assert float(found.share[head]) == narrow / 12
    assert 0 < float(found.share.min()) < float(found.share.max()) < 1


def test_masked_keys_and_rows_are_not_counted():
    attention, values = heads(1, 2, keys=6, head_dim=2)
    mask = torch.arange(6) != 4
    found = identifiable_weights(attention, values, mask=mask, width=0.2)
    rest = identifiable_weights(attention[..., mask], values[:, mask], width=0.2)
    torch.testing.assert_close(found.share, rest.share)
    torch.testing.assert_close(found.attention[..., mask], rest.attention)
    torch.testing.assert_close(found.attention.sum(-1), torch.ones(1, 2, dtype=torch.double))
    assert not found.identifiable[..., 4].any()
    none = identifiable_weights(attention, values, mask=mask & False)
    assert none.share.isnan().all()
    assert not none.forced.any()


@pytest.mark.parametrize("width", [-0.1, 1.5, True, "0.1", float("nan")])
def test_a_wrong_width_is_refused(width):
    attention, values = heads(1, 2, keys=6, head_dim=2)
    with pytest.raises(InvalidInputError, match="width"):
        identifiable_weights(attention, values, width=width)


def test_a_single_row_is_refused_with_the_way_out():
    attention, values = heads(1, 2, keys=6, head_dim=2)
    with pytest.raises(InvalidInputError, match=r"row\[None\]"):
        identifiable_weights(attention[0, 0], values[0])
