"""Identifiable weights against closed forms and linear programs written from the definition."""

import pytest
import torch
from polytope_oracle import best_row, heads

from hf_attn_mi.attention import efficient_attention, identifiable_weights
from hf_attn_mi.errors import InvalidInputError


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
    torch.testing.assert_close(found.own, attention[..., asked])
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
    torch.testing.assert_close(found.own[..., mask], rest.own)
    torch.testing.assert_close(found.own.sum(-1), torch.ones(1, 2, dtype=torch.double))
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
