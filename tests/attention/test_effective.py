"""Effective attention against an SVD projector in float64, and noise against SciPy's null spaces."""

import math

import numpy as np
import pytest
import torch
from polytope_oracle import heads
from scipy.linalg import null_space

from hf_attn_mi.attention import effective_attention, unit_noise
from hf_attn_mi.errors import InvalidInputError

torch.set_num_threads(1)


def sample(*shape, head_dim=4, seed=0, dtype=torch.float64):
    """Return attention (*shape, keys) and values (*shape[:-1], keys, head_dim) with shape[-1] queries and keys."""
    generator = torch.Generator().manual_seed(seed)
    attention = torch.randn(*shape, shape[-1], generator=generator, dtype=torch.float64).mul(2).softmax(-1)
    values = torch.randn(*shape, head_dim, generator=generator, dtype=torch.float64) + 0.3
    return attention.to(dtype), values.to(dtype)


def projector(values, affine=False):
    if affine:
        values = torch.cat([values, torch.ones_like(values[:, :1])], 1)
    basis, sizes, _ = torch.linalg.svd(values, full_matrices=False)
    basis = basis[:, sizes > 1e-10 * sizes[0]]
    return basis @ basis.T


@pytest.mark.parametrize("affine", [False, True])
def test_equals_svd_projector_and_keeps_output(affine):
    attention, values = sample(2, 3, 12)
    result = effective_attention(attention, values, affine=affine)
    for b in range(2):
        for h in range(3):
            expected = attention[b, h] @ projector(values[b, h], affine)
            torch.testing.assert_close(result.attention[b, h], expected, atol=1e-12, rtol=0)
            change = (attention[b, h] - expected).norm() / attention[b, h].norm()
            assert math.isclose(result.null_space_fraction[b, h], change, abs_tol=1e-12)
    torch.testing.assert_close(result.attention @ values, attention @ values, atol=1e-12, rtol=0)
    assert (result.rank == 4 + affine).all()
    assert (result.n == 12).all()


def test_rank_is_per_head():
    attention, values = sample(3, 12)
    values[1, :, 2] = 0  # a dead dimension
    values[2, :, 3] = values[2, :, 0] - 2 * values[2, :, 1]
    result = effective_attention(attention, values)
    assert result.rank.tolist() == [4, 3, 3]
    assert effective_attention(attention, values, affine=True).rank.tolist() == [5, 4, 4]
    for h in range(3):
        torch.testing.assert_close(result.attention[h], attention[h] @ projector(values[h]), atol=1e-11, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_short_input_comes_back_bit_for_bit(dtype):
    attention, values = sample(2, 5, head_dim=8, dtype=dtype)
    result = effective_attention(attention, values)
    assert torch.equal(result.attention, attention)
    assert result.attention.dtype == dtype
    assert (result.null_space_fraction == 0).all()


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_pads_change_nothing_even_with_nan(affine, left):
    attention, values = sample(2, 9)
    padded = torch.full((2, 12, 12), torch.nan, dtype=torch.float64)
    wide = torch.full((2, 12, 4), torch.inf, dtype=torch.float64)
    mask = torch.zeros(12, dtype=torch.bool)
    real = slice(3, 12) if left else slice(0, 9)
    mask[real] = True
    padded[:, real, real], wide[:, real] = attention, values
    alone = effective_attention(attention, values, affine=affine)
    result = effective_attention(padded, wide, mask, affine=affine, query_mask=mask)
    torch.testing.assert_close(result.attention[:, real, real], alone.attention, atol=1e-12, rtol=0)
    assert (result.attention[:, ~mask] == 0).all()
    assert (result.attention[:, :, ~mask] == 0).all()
    torch.testing.assert_close(result.null_space_fraction, alone.null_space_fraction)
    assert torch.equal(result.n, alone.n)


def test_affine_form_keeps_row_sums_and_ignores_value_bias():
    attention, values = sample(3, 14)
    bias = torch.tensor([5.0, -3.0, 0.5, 11.0], dtype=torch.float64)
    first = effective_attention(attention, values, affine=True).attention
    second = effective_attention(attention, values + bias, affine=True).attention
    torch.testing.assert_close(first.sum(-1), torch.ones(3, 14, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(first, second, atol=1e-11, rtol=0)
    plain = effective_attention(attention, values).attention - effective_attention(attention, values + bias).attention
    assert plain.abs().max() > 1e-3  # the plain form does depend on it


@pytest.mark.parametrize("affine", [False, True])
def test_causal_mask_equals_row_by_row(affine):
    attention, values = sample(2, 10, head_dim=3)
    causal = torch.ones(10, 10, dtype=torch.bool).tril()
    attention = attention * causal
    attention = attention / attention.sum(-1, keepdim=True)
    result = effective_attention(attention, values, causal.expand(2, 10, 10), affine=affine)
    for i in range(10):
        for h in range(2):
            expected = attention[h, i, : i + 1] @ projector(values[h, : i + 1], affine)
            torch.testing.assert_close(result.attention[h, i, : i + 1], expected, atol=1e-10, rtol=0)
    assert (result.attention[:, ~causal] == 0).all()
    assert result.rank[0].tolist() == [min(i + 1, 3 + affine) for i in range(10)]
    assert torch.equal(result.attention[:, :3], attention[:, :3])


def test_batch_equals_single_and_batch_mask_reaches_all_heads():
    attention, values = sample(3, 2, 8, head_dim=3)
    mask = torch.arange(8) < torch.tensor([[8], [5], [7]])
    whole = effective_attention(attention, values, mask)
    assert torch.equal(whole.attention, effective_attention(attention, values, mask[:, None]).attention)
    for b in range(3):
        single = effective_attention(attention[b], values[b], mask[b])
        torch.testing.assert_close(whole.attention[b], single.attention, atol=1e-12, rtol=0)


def test_leading_dimensions_are_optional_and_broadcast():
    attention, values = sample(2, 9)
    whole = effective_attention(attention, values[:1])
    for h in range(2):
        single = effective_attention(attention[h], values[0])
        torch.testing.assert_close(whole.attention[h], single.attention, atol=1e-12, rtol=0)
        assert single.rank.shape == single.n.shape == single.null_space_fraction.shape == ()


def test_half_precision_is_computed_wide():
    attention, values = sample(2, 40, dtype=torch.bfloat16)
    result = effective_attention(attention, values)
    reference = effective_attention(attention.double(), values.double())
    assert result.attention.dtype == torch.bfloat16
    assert result.rank.tolist() == [4, 4]
    torch.testing.assert_close(result.attention, reference.attention.bfloat16(), atol=1e-6, rtol=1e-2)


def test_the_models_own_outputs_give_the_same_matrix():
    attention, values = sample(2, 3, 12)
    mask = torch.arange(12) < torch.tensor([[12], [9]])
    values[~mask[:, None].expand(2, 3, 12)] = torch.nan
    full = effective_attention(attention, values, mask, query_mask=mask)
    outputs = (attention * mask[:, None, None]) @ values.nan_to_num(0)
    result = effective_attention(attention, values, mask, query_mask=mask, outputs=outputs)
    torch.testing.assert_close(result.attention, full.attention, atol=1e-10, rtol=0)
    torch.testing.assert_close(result.null_space_fraction, full.null_space_fraction, atol=1e-10, rtol=0)
    assert torch.equal(result.rank, full.rank)
    assert torch.equal(result.n, full.n)
    with pytest.raises(InvalidInputError, match="outputs has shape"):
        effective_attention(attention, values, mask, outputs=outputs[..., :-1])


def test_fully_masked_rows_are_zero():
    attention, values = sample(2, 6, head_dim=2)
    result = effective_attention(attention, values, torch.zeros(6, dtype=torch.bool), affine=True)
    assert (result.attention == 0).all()
    assert result.rank.tolist() == [0, 0]


@pytest.mark.parametrize(
    "change",
    [
        lambda a, v: (a, v[:, :-1], None),
        lambda a, v: (-a, v, None),
        lambda a, v: (a * torch.nan, v, None),
        lambda a, v: (a, v * torch.inf, None),
        lambda a, v: (a.long(), v, None),
        lambda a, v: (a, v, torch.ones(6)),
        lambda a, v: (a, v, torch.ones(5, dtype=torch.bool)),
        lambda a, v: (a, v, torch.ones(3, 6, dtype=torch.bool)),
        lambda a, v: (a, torch.cat([v, v[:1]]), None),
    ],
)
def test_wrong_input_is_refused(change):
    with pytest.raises(InvalidInputError):
        effective_attention(*change(*sample(2, 6)))


@pytest.mark.parametrize("keep_sums", [True, False])
@pytest.mark.parametrize("by_row", [True, False])
def test_noise_lies_in_the_null_space_and_in_the_column_space(keep_sums, by_row):
    values = heads(2, 6, keys=11, head_dim=4)[1] * 3 + 20  # a large common part, as a bias makes it
    values[1, :, 3] = values[1, :, 2]  # of lower rank in one head
    allowed = torch.rand(2, 6 if by_row else 1, 11, generator=torch.Generator().manual_seed(2)) < 0.8
    invisible, visible = unit_noise(values, allowed, 6, generator=torch.Generator().manual_seed(1), keep_sums=keep_sums)
    for head in range(2):
        for query in range(6):
            mask = allowed[head, query if by_row else 0].numpy()
            points = values[head].numpy()[mask]
            if keep_sums:
                points = np.hstack([points, np.ones((len(points), 1))])
            basis = null_space(points.T)  # (keys, free directions)
            hidden, shown = invisible[head, query].numpy(), visible[head, query].numpy()
            assert (hidden[~mask] == 0).all()
            assert (shown[~mask] == 0).all()
            assert np.linalg.norm(hidden) == pytest.approx(1 if basis.shape[1] else 0)
            np.testing.assert_allclose(basis @ (basis.T @ hidden[mask]), hidden[mask], atol=1e-10)
            assert np.linalg.norm(shown) == pytest.approx(1)
            np.testing.assert_allclose(null_space(values[head].numpy()[mask].T).T @ shown[mask], 0, atol=1e-9)


def test_where_every_row_is_determined_no_noise_is_invisible():
    values = heads(1, 2, keys=4, head_dim=6)[1]
    invisible, visible = unit_noise(values, torch.ones(1, 1, 4, dtype=torch.bool), 2, generator=torch.Generator())
    assert (invisible == 0).all()
    assert (visible.norm(dim=-1) > 0.99).all()
