"""Efficient attention against HiGHS, and its certificates against their meaning."""

import pytest
import torch
from polytope_oracle import best_row, distance_without, heads

from hf_attn_mi.attention import efficient_attention
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.efficient.pursuit import pursue

torch.set_num_threads(1)


def assert_valid(result, attention, values):
    """Check that each row is a distribution with the output of the given one, and certified."""
    rows = result.attention
    torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]), atol=1e-10, rtol=0)
    assert (rows >= 0).all()
    assert result.optimal.all()
    outputs = attention / attention.sum(-1, keepdim=True) @ values
    error = (rows @ values - outputs).norm(dim=-1) / outputs.norm(dim=-1)
    assert error.max() <= 1e-10
    torch.testing.assert_close(result.residual, error, atol=1e-12, rtol=0)
    assert torch.equal(result.support_size, (rows > 0).sum(-1))


@pytest.mark.parametrize(("keys", "head_dim", "sharpness"), [(30, 4, 1.0), (40, 8, 3.0), (20, 15, 2.0), (60, 12, 6.0)])
def test_equals_highs(keys, head_dim, sharpness):
    attention, values = heads(2, 12, keys=keys, head_dim=head_dim, sharpness=sharpness)
    result = efficient_attention(attention, values)
    assert_valid(result, attention, values)
    assert (result.support_size <= head_dim + 1).all()
    for h in range(2):
        for i in range(12):
            row, expected = attention[h, i], best_row(attention[h, i], values[h])
            mine = result.attention[h, i]
            assert abs(float(row @ mine - row @ expected)) <= 2e-7 * float(row.max())
            if result.gap[h, i] > 1e-5:
                assert torch.equal(mine > 0, expected > 1e-9)
                torch.testing.assert_close(mine, expected, atol=1e-7, rtol=0)


def test_head_objective_equals_highs():
    attention, values = heads(1, 30, keys=25, head_dim=4)
    result = efficient_attention(attention, values, objective="head")
    assert_valid(result, attention, values)
    cost = attention[0].mean(0)
    for i in range(30):
        expected = best_row(attention[0, i], values[0], cost)
        torch.testing.assert_close(result.attention[0, i], expected, atol=1e-7, rtol=0)
    own = efficient_attention(attention, values)
    assert (own.attention - result.attention).abs().max() > 0.05  # the two objectives do differ


def test_every_kept_key_is_necessary():
    attention, values = heads(1, 10, keys=30, head_dim=5)
    result = efficient_attention(attention, values)
    checked = 0
    for i in range(10):
        kept = result.attention[0, i].nonzero()[:, 0].tolist()
        assert distance_without(attention[0, i], values[0], kept) < 1e-10
        for key in kept:
            if result.attention[0, i, key] > 1e-3:
                others = [other for other in kept if other != key]
                assert distance_without(attention[0, i], values[0], others) > 1e-7
                checked += 1
    assert checked > 40
    points = torch.cat([values[0], torch.ones(30, 1, dtype=torch.float64)], 1)
    basis = torch.linalg.qr(points)[0]
    for i in range(10):
        smallest = torch.linalg.svdvals(basis[result.attention[0, i] > 0])[-1]
        torch.testing.assert_close(result.smallest_singular[0, i], smallest, rtol=1e-6, atol=0)
        row = result.attention[0, i]
        torch.testing.assert_close(result.smallest_weight[0, i], row[row > 0].min())


def test_gap_is_the_smallest_reduced_cost():
    attention, values = heads(1, 6, keys=15, head_dim=3)
    result = efficient_attention(attention, values)
    points = torch.cat([values[0], torch.ones(15, 1, dtype=torch.float64)], 1)
    for i in range(6):
        kept = result.attention[0, i] > 0
        prices = torch.linalg.solve(points[kept], attention[0, i, kept])
        gaps = (points @ prices - attention[0, i])[~kept]
        torch.testing.assert_close(result.gap[0, i], gaps.min() / attention[0, i].max(), atol=1e-6, rtol=1e-4)


def test_answer_does_not_depend_on_row_order_or_batch():
    attention, values = heads(2, 40, keys=40, head_dim=6, sharpness=1.0)
    attention[:, ::3] = 1 / 40  # ties everywhere: any feasible row is optimal without the second cost
    attention[:, 1::3] = (attention[:, 1::3] * 50).round() + 1
    attention = attention / attention.sum(-1, keepdim=True)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    whole = efficient_attention(attention, values)
    assert_valid(whole, attention, values)
    shuffled = efficient_attention(attention[:, order], values)
    torch.testing.assert_close(shuffled.attention, whole.attention[:, order], atol=1e-11, rtol=0)
    assert torch.equal(shuffled.support_size, whole.support_size[:, order])
    for i in (0, 1, 2, 33, 34):
        single = efficient_attention(attention[1, i : i + 1], values[1])
        torch.testing.assert_close(single.attention[0], whole.attention[1, i], atol=1e-11, rtol=0)
    torch.testing.assert_close(whole.attention[:, ::3], whole.attention[:, :1].expand(2, 14, 40), atol=1e-11, rtol=0)


def test_duplicate_keys_tie_to_the_lower_number():
    attention, values = heads(1, 8, keys=20, head_dim=4)
    values = torch.cat([values, values], 1)
    equal = torch.cat([attention, attention], 2) / 2
    result = efficient_attention(equal, values)
    assert_valid(result, equal, values)
    assert (result.attention[..., 20:] == 0).all()
    torch.testing.assert_close(result.attention[..., :20], efficient_attention(attention, values[:, :20]).attention)
    heavier = torch.cat([attention * 0.4, attention * 0.6], 2)
    assert (efficient_attention(heavier, values).attention[..., :20] == 0).all()


def test_positions_as_values_are_no_tie():
    # v_j = j: a second cost linear in j would be the same for every row with this output.
    values = torch.arange(9, dtype=torch.float64)[:, None]
    attention = torch.full((3, 9), 1 / 9, dtype=torch.float64)
    result = efficient_attention(attention, values)
    assert_valid(result, attention, values)
    assert (result.gap > 1e-11).all()
    assert torch.equal(result.attention[0], result.attention[1])


def test_rank_deficient_values():
    attention, values = heads(3, 10, keys=30, head_dim=6)
    values[0, :, 2] = 0  # dead dimension
    values[1, :, 3] = values[1, :, 0] + values[1, :, 1]
    values[2] = values[2, :1]  # one value for all keys
    result = efficient_attention(attention, values)
    assert_valid(result, attention, values)
    assert result.support_size.amax(1).tolist() == [6, 6, 1]
    assert torch.equal(result.attention[2].argmax(-1), attention[2].argmax(-1))


def test_one_hot_and_sparse_rows():
    attention, values = heads(1, 12, keys=30, head_dim=4)
    attention[0, :6] = torch.eye(30, dtype=torch.float64)[[0, 3, 29, 3, 7, 7]]
    attention[0, 6:9] = attention[0, 6:9] * (torch.arange(30) % 9 == 0)
    attention = attention / attention.sum(-1, keepdim=True)
    result = efficient_attention(attention, values)
    assert_valid(result, attention, values)
    torch.testing.assert_close(result.attention[0, :6], attention[0, :6], atol=1e-11, rtol=0)
    for i in range(6, 12):
        expected = attention[0, i] @ best_row(attention[0, i], values[0])
        torch.testing.assert_close(attention[0, i] @ result.attention[0, i], expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize(("keys", "head_dim"), [(1, 1), (1, 4), (4, 4), (5, 4), (3, 8)])
def test_few_keys_come_back_bit_for_bit(keys, head_dim):
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        attention, values = heads(2, 7, keys=keys, head_dim=head_dim, dtype=dtype)
        result = efficient_attention(attention, values)
        assert torch.equal(result.attention, attention)
        assert result.gap.isinf().all()
        assert (result.residual == 0).all() or result.residual.max() < 1e-2  # halves do not sum to one
        assert result.optimal.all()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_lower_precision_is_solved_in_double(dtype, bound):
    attention, values = heads(2, 20, keys=30, head_dim=6, dtype=dtype)
    result = efficient_attention(attention, values)
    assert result.attention.dtype == dtype
    assert result.residual.max() < 1e-10  # before the cast
    assert result.optimal.all()
    exact = efficient_attention(attention.double(), values.double())
    torch.testing.assert_close(result.attention.double(), exact.attention, atol=bound, rtol=bound)


def test_pads_and_masked_rows():
    attention, values = heads(2, 2, 9, keys=9, head_dim=3)
    wide = torch.full((2, 2, 12, 12), torch.nan, dtype=torch.float64)
    wide_values = torch.full((2, 2, 12, 3), torch.nan, dtype=torch.float64)
    wide[:, :, 3:, 3:], wide_values[:, :, 3:] = attention, values
    mask = (torch.arange(12) >= 3).expand(2, 12)
    alone = efficient_attention(attention, values)
    result = efficient_attention(wide, wide_values, mask, query_mask=mask)
    torch.testing.assert_close(result.attention[:, :, 3:, 3:], alone.attention, atol=1e-11, rtol=0)
    assert (result.attention[..., :3] == 0).all()
    assert (result.attention[:, :, :3] == 0).all()
    assert torch.equal(
        efficient_attention(wide, wide_values, mask[:, None], query_mask=mask).support_size, result.support_size
    )
    attention[0, 0, 4] = 0
    empty = efficient_attention(attention, values)
    assert (empty.attention[0, 0, 4] == 0).all()
    assert empty.optimal.all()
    nothing = efficient_attention(wide, wide_values, torch.zeros(12, dtype=torch.bool))
    assert (nothing.attention == 0).all()
    assert (nothing.support_size == 0).all()


def test_causal_mask_equals_row_by_row():
    attention, values = heads(2, 14, keys=14, head_dim=3)
    causal = torch.ones(14, 14, dtype=torch.bool).tril()
    result = efficient_attention(attention, values, causal.expand(2, 14, 14))
    assert (result.attention[:, ~causal] == 0).all()
    for i in range(14):
        row = attention[:, i : i + 1, : i + 1]
        alone = efficient_attention(row, values[:, : i + 1])
        torch.testing.assert_close(result.attention[:, i, : i + 1], alone.attention[:, 0], atol=1e-11, rtol=0)


def test_leading_dimensions_are_optional_and_broadcast():
    attention, values = heads(2, 12, keys=12, head_dim=3)
    causal = torch.ones(12, 12, dtype=torch.bool).tril()
    for mask in (None, causal):
        whole = efficient_attention(attention, values[0], None if mask is None else mask[None])
        single = efficient_attention(attention[1], values[0], mask)
        torch.testing.assert_close(whole.attention[1], single.attention, atol=1e-11, rtol=0)
        assert single.support_size.shape == (12,)


def test_rows_may_share_windows():
    attention, values = heads(1, 20, keys=20, head_dim=2)
    window = (torch.arange(20)[:, None] // 10) == (torch.arange(20) // 10)
    result = efficient_attention(attention, values, window[None])
    for part in (slice(0, 10), slice(10, 20)):
        alone = efficient_attention(attention[:, part, part], values[:, part])
        torch.testing.assert_close(result.attention[:, part, part], alone.attention, atol=1e-11, rtol=0)


def test_support_never_grows_with_the_tolerance():
    attention, values = heads(2, 15, keys=40, head_dim=8)
    outputs = attention @ values
    width = (outputs - values.mean(1, keepdim=True)).norm(dim=-1)
    exact = efficient_attention(attention, values)
    before = exact.support_size
    for tolerance in (1e-6, 0.001, 0.01, 0.05, 0.1, 0.3, 0.6, 0.9):
        result = efficient_attention(attention, values, tolerance=tolerance)
        error = (result.attention @ values - outputs).norm(dim=-1)
        assert (error <= tolerance * width * (1 + 1e-9) + 1e-12).all()
        assert (result.attention >= 0).all()
        torch.testing.assert_close(result.attention.sum(-1), torch.ones(2, 15, dtype=torch.float64))
        assert (result.support_size <= before).all()
        assert result.optimal.all()
        before = result.support_size
    assert before.double().mean() < 4 < exact.support_size.double().mean()


def test_rows_that_are_short_already_stay_short():
    attention, values = heads(1, 40, keys=40, head_dim=8)
    generator = torch.Generator().manual_seed(2)
    few = attention[0].scatter(1, torch.rand(40, 40, generator=generator).argsort(1)[:, :36], 0.0)[None]
    few = few / few.sum(-1, keepdim=True)
    exact = efficient_attention(few, values).support_size
    assert (exact < 9).any()
    for tolerance in (1e-4, 1e-3, 0.01):
        assert (efficient_attention(few, values, tolerance=tolerance).support_size <= exact).all()


def test_pursuit_reaches_tight_tolerances_by_itself():
    attention, values = heads(1, 60, keys=40, head_dim=8, sharpness=1.0)
    centered = values - values.mean(1, keepdim=True)
    rows, found = pursue(centered, torch.zeros(60, dtype=torch.long), attention[0], 1e-3)
    assert found.all()
    assert ((rows > 0).sum(1) <= 9).all()


def test_rows_are_divided_by_their_sums():
    attention, values = heads(1, 10, keys=30, head_dim=4)
    result = efficient_attention(attention * 0.7, values)
    torch.testing.assert_close(result.attention, efficient_attention(attention, values).attention)


def test_wide_tolerance_beats_cutting_to_the_top_keys():
    attention, values = heads(1, 15, keys=40, head_dim=8, sharpness=1.0)
    result = efficient_attention(attention, values, tolerance=0.1)
    outputs = attention @ values
    width = (outputs - values.mean(1, keepdim=True)).norm(dim=-1)
    for i in range(15):
        top = attention[0, i].topk(int(result.support_size[0, i])).indices
        cut = torch.zeros(40, dtype=torch.float64).scatter(0, top, attention[0, i, top])
        assert (cut / cut.sum() @ values[0] - outputs[0, i]).norm() > 0.1 * width[0, i]


@pytest.mark.parametrize("options", [{"tolerance": -0.1}, {"tolerance": 1.0}, {"objective": "other"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(InvalidInputError):
        efficient_attention(*heads(1, 4, keys=6, head_dim=2), **options)


def test_logits_are_refused():
    attention, values = heads(1, 4, keys=6, head_dim=2)
    with pytest.raises(InvalidInputError, match="softmax"):
        efficient_attention(attention.log(), values)
