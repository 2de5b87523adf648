"""Effective rows, and received weights alone, against the projector by singular value decomposition in float64."""

import pytest
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels import effective_rows, received_weights
from hf_attn_mi.kernels.effective import row_projectors
from hf_attn_mi.kernels.effective import torch as effective_torch
from hf_attn_mi.kernels.effective.reference import reference_effective_rows, reference_received_weights
from hf_attn_mi.kernels.effective.value_basis import epsilon_of
from tests.kernels.bounds import ABSOLUTE, assert_within_twice
from tests.kernels.test_attention_statistics import spectrum

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
HEADS, DIM = 3, 16


def sample(queries, keys, *, dim=DIM, dtype=torch.float32, seed=0, shift=0.3):
    """Return attention (heads, queries, keys) and values (heads, keys, dim)."""
    generator = torch.Generator().manual_seed(seed)
    attention = torch.randn(HEADS, queries, keys, generator=generator, dtype=torch.float64).mul(2).softmax(-1)
    values = torch.randn(HEADS, keys, dim, generator=generator, dtype=torch.float64) + shift
    return attention.to(dtype), values.to(dtype)


def masks_of(kind, queries, keys):
    """Return allowed, (heads, 1 or queries, keys)."""
    generator = torch.Generator().manual_seed(5)
    i, j = torch.arange(queries)[:, None], torch.arange(keys)
    one = {
        "all": torch.ones(1, keys, dtype=torch.bool),
        "keys": (j % 7 != 2)[None],
        "causal": i >= j,
        "window": (i - j).abs() < 24,
        "causal window": (i >= j) & (i - j < 40),
        "blocks": i // 45 == j // 45,
        "dead rows": (i >= j) & (i % 10 != 3),
    }
    if kind == "heads":  # each head its own, the last two the same
        drawn = torch.rand(HEADS, queries, keys, generator=generator) < 0.6
        drawn[2] = drawn[1]
        return drawn
    return one[kind].expand(HEADS, -1, keys)


KINDS = ["all", "keys", "causal", "window", "causal window", "blocks", "dead rows", "heads"]


def specify(attention, values, allowed, dtype, affine):
    """The definition in `dtype`: rows, rank and number of keys of each row."""
    everywhere = allowed.expand(attention.shape)
    rows = torch.where(everywhere, attention, 0.0).to(dtype)
    values = torch.where(allowed.any(1)[..., None], values, 0.0).to(dtype)
    epsilon = epsilon_of(attention, values if dtype == attention.dtype else attention)
    if affine:
        size = values.square().mean((1, 2), keepdim=True).sqrt()  # spans the same, and no scale decides its rank
        values = torch.cat([values, size.expand(-1, values.shape[1], 1)], 2)
    return *reference_effective_rows(rows, values, everywhere, epsilon), everywhere.sum(-1)


def check(attention, values, allowed, *, affine=False, absolute=None):
    """Rows within twice the error of plain PyTorch, mean and maximum; ranks equal; unchanged rows bit for bit."""
    dtype = attention.dtype
    wide = torch.promote_types(dtype, torch.float32)
    exact, rank, n = specify(attention, values, allowed, torch.float64, affine)
    plain = specify(attention, values, allowed, wide, affine)[0].to(dtype)
    found = effective_rows(attention, values, allowed, affine=affine)
    rows = found.attention
    assert rows.dtype == dtype
    everywhere = allowed.expand(attention.shape)
    assert (rows[~everywhere] == 0).all()
    by_row = allowed.shape[1] > 1
    assert torch.equal(found.rank[:, None].expand_as(rank) if not by_row else found.rank, rank)
    assert torch.equal(found.n[:, None].expand_as(n) if not by_row else found.n, n)
    same = n <= rank
    assert torch.equal(rows[same], torch.where(everywhere, attention, 0.0)[same])
    atol = ABSOLUTE[wide] if absolute is None else absolute
    assert_within_twice("rows", rows, exact, plain, atol)
    given = torch.where(everywhere, attention, 0.0).double()
    fraction = (given - exact).norm(dim=(1, 2)) / given.norm(dim=(1, 2)).clamp_min(1e-300)
    torch.testing.assert_close(found.null_space_fraction, fraction, atol=5 * atol, rtol=0)
    assert (found.null_space_fraction[same.all(1)] == 0).all()
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 63, 100, 257])
@pytest.mark.parametrize("affine", [False, True])
def test_agrees_with_specification(length, dtype, affine, nan_filled):
    for kind in ("all", "causal"):
        check(*sample(length, length, dtype=dtype), masks_of(kind, length, length), affine=affine)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("affine", [False, True])
def test_masks(kind, dtype, affine, nan_filled):
    check(*sample(100, 100, dtype=dtype), masks_of(kind, 100, 100), affine=affine)


@pytest.mark.parametrize("kind", ["causal", "window", "causal window"])
@pytest.mark.parametrize("dim", [8, 24])
def test_shared_and_own_factors_agree(kind, dim, monkeypatch):
    attention, values = sample(120, 120, dim=dim, dtype=torch.float64)
    allowed = masks_of(kind, 120, 120)
    whole = check(attention, values, allowed, absolute=1e-12)
    monkeypatch.setattr(row_projectors, "TRUSTED", 2.0)  # no shared factor is ever good enough
    alone = check(attention, values, allowed, absolute=1e-12)
    torch.testing.assert_close(alone.attention, whole.attention, atol=1e-12, rtol=0)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_change_nothing(kind, affine, monkeypatch):
    attention, values = sample(80, 80)
    allowed = masks_of(kind, 80, 80)
    whole = effective_rows(attention, values, allowed, affine=affine)
    for module, name, size in (
        (effective_torch, "TILE", 200),
        (effective_torch, "ROWS", 7),
        (row_projectors, "MASKED", 300),
    ):
        monkeypatch.setattr(module, name, size)
        part = effective_rows(attention, values, allowed, affine=affine)
        torch.testing.assert_close(part.attention, whole.attention, atol=1e-6, rtol=0)
        torch.testing.assert_close(part.null_space_fraction, whole.null_space_fraction, atol=1e-6, rtol=0)
        assert torch.equal(part.rank, whole.rank)


@pytest.mark.parametrize("kind", ["keys", "causal"])
def test_rows_that_are_not_real_count_as_nothing(kind):
    attention, values = sample(60, 60)
    allowed = masks_of(kind, 60, 60)
    real = torch.arange(60) < torch.tensor([[60], [45], [50]])
    noisy = attention.masked_fill(~real[..., None], torch.nan).masked_fill(~allowed.expand(3, 60, 60), torch.inf)
    found = effective_rows(noisy, values, allowed, queries=real)
    whole = effective_rows(attention, values, allowed)
    assert (found.attention[~real] == 0).all()
    torch.testing.assert_close(found.attention[real], whole.attention[real], atol=1e-7, rtol=0)
    for head in range(3):
        part = effective_rows(
            attention[head : head + 1, real[head]],
            values[head : head + 1],
            allowed[head : head + 1] if kind == "keys" else allowed[head : head + 1, real[head]],
        )
        torch.testing.assert_close(found.null_space_fraction[head], part.null_space_fraction[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["all", "causal"])
def test_tensors_that_are_not_contiguous(kind, dtype):
    attention, values = sample(64, 64, dtype=dtype)
    allowed = masks_of(kind, 64, 64)
    values = values.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    turned, spaced = attention.mT.contiguous().mT, torch.stack([attention, attention * 0], -1)[..., 0]
    for apart in (turned, spaced):
        assert not apart.is_contiguous()
        check(apart, values, allowed)


@pytest.mark.parametrize("kind", ["all", "keys", "causal", "window"])
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ill_conditioned_values(condition, kind, dtype):
    attention, values = sample(100, 100, dim=8, dtype=torch.float64)
    allowed = masks_of(kind, 100, 100)
    values = spectrum(values, condition).to(dtype)
    if kind == "all":
        check(attention.to(dtype), values, allowed)
        return
    # The condition number of the values of some keys is another one, and ranks can be a matter of rounding.
    found = effective_rows(attention.to(dtype), values, allowed).attention.double()
    outputs = torch.where(allowed, attention.to(dtype), 0.0).double() @ values.double()
    limit = 1e-12 if dtype == torch.float64 else 1e-5
    assert (found @ values.double() - outputs).abs().max() < limit * values.abs().max()


@pytest.mark.parametrize("kind", ["all", "causal", "window"])
@pytest.mark.parametrize("affine", [False, True])
def test_duplicates_and_dead_dimensions(kind, affine):
    attention, values = sample(60, 60, dtype=torch.float64)
    values[0, 10:] = values[0, 9:10]
    values[1, :, 3:9] = 0
    values[2] = values[2, :1]
    found = check(attention, values, masks_of(kind, 60, 60), affine=affine)
    if kind == "all":
        assert found.rank.tolist() == ([10, 11, 1] if affine else [10, 10, 1])
    assert (effective_rows(attention, values * 0, masks_of(kind, 60, 60)).attention == 0).all()


@pytest.mark.parametrize("kind", ["all", "causal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_uniform_and_one_hot_attention(kind, dtype):
    _, values = sample(70, 70, dtype=dtype)
    allowed = masks_of(kind, 70, 70)
    uniform = allowed.expand(HEADS, 70, 70) / allowed.sum(-1, keepdim=True)
    check(uniform.to(dtype), values, allowed)
    check(torch.eye(70).expand(HEADS, 70, 70).to(dtype), values, allowed)


@pytest.mark.parametrize("kind", ["all", "causal"])
@pytest.mark.parametrize("affine", [False, True])
def test_half_precision_does_not_overflow(kind, affine):
    attention, values = sample(90, 90, dtype=torch.float16, shift=0.0)
    values = (values.float() / values.abs().max() * 6e4).half()
    found = check(attention, values, masks_of(kind, 90, 90), affine=affine)
    same = effective_rows(attention, values.float() / 2**14, masks_of(kind, 90, 90), affine=affine)
    torch.testing.assert_close(found.attention, same.attention, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["all", "keys", "causal", "heads"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_affine_form_keeps_row_sums_and_ignores_value_bias(kind, dtype):
    attention, values = sample(80, 80, dtype=dtype)
    allowed = masks_of(kind, 80, 80)
    attention = torch.where(allowed, attention, 0.0)
    found = effective_rows(attention, values, allowed, affine=True).attention
    limit = 1e-12 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(found.double().sum(-1), attention.double().sum(-1), atol=limit, rtol=0)
    bias = 4 * torch.randn(DIM, generator=torch.Generator().manual_seed(2)).to(dtype)
    moved = effective_rows(attention, values + bias, allowed, affine=True).attention
    torch.testing.assert_close(moved, found, atol=50 * limit, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["all", "keys"])
def test_outputs_save_a_product_and_change_nothing(kind, dtype):
    attention, values = sample(90, 90, dtype=dtype)
    allowed = masks_of(kind, 90, 90)
    outputs = (torch.where(allowed, attention, 0.0).double() @ values.double()).to(dtype)
    given = effective_rows(attention, values, allowed, outputs=outputs)
    torch.testing.assert_close(
        given.attention, effective_rows(attention, values, allowed).attention, atol=ABSOLUTE[dtype], rtol=0
    )
    swapped = outputs[:, [1, 0, *range(2, 90)]]  # the outputs of these queries, in another order: the mean is the same
    other = effective_rows(attention, values, allowed, outputs=swapped).attention
    if dtype == torch.bfloat16:
        assert torch.equal(other, given.attention)  # not exact enough to be used
    else:
        assert torch.equal(other[:, :2], given.attention[:, [1, 0]])
        assert not torch.equal(other[:, 0], given.attention[:, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, v: (-a, v), "attention has negative"),
        (lambda a, v: (a.index_fill(1, torch.tensor([9]), torch.nan), v), "attention has negative, NaN"),
        (lambda a, v: (a.index_fill(2, torch.tensor([0]), torch.inf), v), "attention has negative, NaN"),
        (lambda a, v: (a, v.index_fill(1, torch.tensor([0]), torch.nan)), "values has NaN"),
        (lambda a, v: (a.long(), v), "attention has dtype"),
        (lambda a, v: (a[0], v), "attention has shape"),
        (lambda a, v: (a, v[:, :, :0]), "values has shape"),
    ],
)
@pytest.mark.parametrize("kind", ["all", "causal"])
def test_bad_input_is_named(change, message, kind):
    with pytest.raises(InvalidInputError, match=message):
        effective_rows(*change(*sample(20, 20)), masks_of(kind, 20, 20))


def test_weights_that_overflow_when_squared_are_no_error():
    attention, values = sample(20, 20)
    assert torch.isfinite(effective_rows(attention * 1e30, values, masks_of("all", 20, 20)).attention).all()


def received_exactly(outputs, values):
    """The definition, with singular values that float32 cannot tell from zero counted as zero."""
    return reference_received_weights(outputs, values, 1.2e-7)


def given_outputs(length, dim, dtype, condition=None):
    """Outputs that are rows times values, and the values, (1, heads, length, dim)."""
    attention, values = sample(length, length, dim=dim, dtype=torch.float64)
    if condition is not None:
        values = spectrum(values, condition)
    values = values.to(dtype)
    return (attention @ values.double()).to(dtype)[None], values[None]


@pytest.mark.parametrize("condition", [None, 30, 300, 1e4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [20, 100, 700])
def test_received_weights_alone(length, dtype, condition):
    outputs, values = given_outputs(length, 12, dtype, condition)
    flags = torch.ones(1, length, dtype=torch.bool)
    weights = received_weights(outputs, values, flags, flags)
    exact = received_exactly(outputs, values)
    wide = torch.promote_types(dtype, torch.float32)
    plain = (outputs.to(wide).mean(2)[:, :, None] @ torch.linalg.pinv(values.to(wide)))[:, :, 0]
    assert_within_twice("weights", weights, exact, plain, 1e-12 if dtype == torch.float64 else 3e-7)


def test_received_weights_by_float32_and_float64_agree(monkeypatch):
    outputs, values = given_outputs(600, 16, torch.float32)
    flags = torch.ones(1, 600, dtype=torch.bool)
    seen = []
    quick = effective_torch._in_float32
    monkeypatch.setattr(effective_torch, "_in_float32", lambda *a: seen.append(quick(*a)) or seen[-1])
    weights = received_weights(outputs, values, flags, flags)
    assert seen[0] is not None
    monkeypatch.setattr(effective_torch, "_in_float32", lambda *a: None)
    exact = received_weights(outputs, values, flags, flags)
    torch.testing.assert_close(weights, exact, atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-17, 1.0, 1e17, 1e30])
def test_received_weights_whatever_the_scale(scale):
    outputs, values = given_outputs(100, 12, torch.float32)
    flags = torch.ones(1, 100, dtype=torch.bool)
    weights = received_weights(outputs * scale, values * scale, flags, flags)
    torch.testing.assert_close(weights, received_exactly(outputs, values).float(), atol=1e-6, rtol=1e-4)


def test_received_weights_of_dependent_values_and_pads():
    outputs, values = given_outputs(90, 12, torch.float32)
    values, outputs = values.clone(), outputs.clone()
    values[0, 1, :, 4] = values[0, 1, :, 5]
    outputs[0, 1, :, 4] = outputs[0, 1, :, 5]
    keys, queries = torch.arange(90)[None] < 70, torch.arange(90)[None] < 60
    weights = received_weights(outputs, values, keys, queries)
    exact = received_exactly(outputs[:, :, :60], values[:, :, :70])
    torch.testing.assert_close(weights[..., :70], exact.float(), atol=1e-6, rtol=1e-4)
    assert (weights[..., 70:] == 0).all()


def test_outputs_of_another_attention_are_refused():
    generator = torch.Generator().manual_seed(3)
    attention = torch.rand(2, 30, 20, generator=generator).softmax(-1)
    values = torch.randn(2, 20, 4, generator=generator)
    allowed = torch.ones(2, 1, 20, dtype=torch.bool)
    outputs = attention @ values
    kept = effective_rows(attention, values, allowed, outputs=outputs).attention
    torch.testing.assert_close(kept, effective_rows(attention, values, allowed).attention, atol=2e-6, rtol=0)
    for wrong in (outputs * 0.9, outputs.flip(0), outputs * torch.nan):
        with pytest.raises(InvalidInputError, match="outputs are not rows times values"):
            effective_rows(attention, values, allowed, outputs=wrong)
