"""The fused pass against its specification in float64, within twice the error of plain PyTorch."""

import dataclasses

import pytest
import torch

from hf_attn_mi.kernels import attention_statistics
from hf_attn_mi.kernels.effective.gram import epsilon_of
from hf_attn_mi.kernels.reference import reference_allowed, reference_attention_statistics, reference_rows

ABSOLUTE = {torch.float64: 1e-9, torch.float32: 3e-6, torch.bfloat16: 1e-3, torch.float16: 1e-3}
ROW_FIELDS = ("entropy", "largest", "norm", "difference_norm", "total_variation", "negative_mass")


def sample(batch, heads, kv_heads, queries, keys, dim=16, *, seed=0, dtype=torch.float32, device="cpu"):
    """Return query, key, value in the layout of a model: heads are a transposed view."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count, length):
        drawn = torch.randn(batch, length, count, dim, generator=generator, dtype=torch.float64)
        return drawn.to(dtype).to(device).transpose(1, 2)

    return draw(heads, queries), draw(kv_heads, keys), draw(kv_heads, keys) + 0.3


def specify(query, key, value, dtype, **masks):
    """Return the specification in `dtype` (its linear algebra in float32 at least) and the attention rows."""
    query, key, value = (x.cpu() for x in (query, key, value))
    masks = {name: x.cpu() if isinstance(x, torch.Tensor) else x for name, x in masks.items()}
    mask = masks.get("mask")
    bias = mask.to(dtype) if mask is not None and mask.dtype != torch.bool else None
    allowed = reference_allowed((*query.shape[:3], key.shape[2]), **masks)
    rows, log_sum_exp = reference_rows(query.to(dtype), key.to(dtype), allowed, bias=bias)
    wide = torch.promote_types(dtype, torch.float32)
    found = reference_attention_statistics(
        rows.to(wide), value.to(wide), allowed, log_sum_exp=log_sum_exp.to(wide), epsilon=epsilon_of(query, key, value)
    )
    return found, rows


def assert_agrees(found, exact, plain, absolute):
    """Every field: error within twice that of plain PyTorch, mean and maximum; counts equal; no NaN."""
    for name, expected in exact.items():
        got = getattr(found, name).cpu()
        assert got.shape == expected.shape, name
        assert torch.isfinite(got).all(), name
        if name in ("rank", "n"):
            assert torch.equal(got, expected), name
        elif name == "condition":
            torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=0)
        else:
            error, allowed = (got.double() - expected).abs(), (plain[name].double() - expected).abs()
            atol = absolute * max(1.0, float(expected.abs().max()))
            assert error.max() <= 2 * allowed.max() + atol, (name, float(error.max()), float(allowed.max()))
            assert error.mean() <= 2 * allowed.mean() + atol, (name, float(error.mean()), float(allowed.mean()))


def check(query, key, value, *, backend="torch", output=False, **masks):
    """Run and compare; on CPU the PyTorch pass has to keep the bound of float32 for half precision, too."""
    dtype = query.dtype
    wide = dtype if backend == "triton" else torch.promote_types(dtype, torch.float32)
    exact, rows = specify(query, key, value, torch.float64, **masks)
    plain, _ = specify(query, key, value, wide, **masks)
    outputs = None
    if output:
        repeated = value.cpu().double().repeat_interleave(query.shape[1] // value.shape[1], 1)
        outputs = (rows @ repeated).to(dtype).to(query.device)
    found = attention_statistics(query, key, value, outputs, backend=backend, **masks)
    assert found.backend == backend
    assert_agrees(found, exact, plain, ABSOLUTE[wide])
    return found, exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [1, 63, 100, 257])
def test_agrees_with_specification(length, dtype, backend, device, nan_filled):
    query, key, value = sample(1, 2, 2, length, length, dtype=dtype, device=device)
    check(query, key, value, backend=backend)
    check(query, key, value, backend=backend, output=True)


@pytest.mark.parametrize("length", [1, 63, 100])
def test_float64(length):
    check(*sample(1, 2, 1, length, length, dtype=torch.float64), output=True)


@pytest.mark.parametrize("dim", [8, 24, 80, 256])
def test_head_dims_and_grouped_queries(dim, backend, device):
    check(*sample(2, 4, 2, 37, 70, dim, device=device), backend=backend, output=True)


def test_query_and_value_of_different_width(backend, device):
    query, key, _ = sample(1, 2, 2, 33, 50, 8, device=device)
    _, _, value = sample(1, 2, 2, 33, 50, 24, device=device)
    check(query, key, value, backend=backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_holes_and_empty_examples(dtype, backend, device, nan_filled):
    query, key, value = sample(4, 4, 2, 66, 66, dtype=dtype, device=device)
    real = torch.ones(4, 66, dtype=torch.bool, device=device)
    real[0, 50:] = real[1, :20] = real[2, 10:40] = real[3] = False
    found, _ = check(query, key, value, backend=backend, key_mask=real, query_mask=real, output=True)
    assert (found.received[~real[:, None].expand(-1, 4, -1)] == 0).all()
    assert (found.entropy[~real[:, None].expand(-1, 4, -1)] == 0).all()
    assert (found.n[3] == 0).all()
    noisy = [x.masked_fill(~real[:, None, :, None], torch.nan) for x in (query, key, value)]
    again = attention_statistics(*noisy, None, key_mask=real, query_mask=real, backend=backend)
    plain = attention_statistics(query, key, value, None, key_mask=real, query_mask=real, backend=backend)
    torch.testing.assert_close(again.received_effective, plain.received_effective, atol=2e-6, rtol=0)


def spectrum(values, condition):
    """The values with singular values that fall evenly from 1 to 1 / condition."""
    left, _, right = torch.linalg.svd(values.double(), full_matrices=False)
    sizes = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), values.shape[-1], dtype=torch.float64)
    return ((left * sizes) @ right).to(values.dtype)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_ill_conditioned_values(condition, backend, device):
    query, key, value = sample(1, 2, 2, 100, 100, 8)
    query, key, value = (x.to(device) for x in (query, key, spectrum(value, condition)))
    check(query, key, value, backend=backend, output=True)


def test_ill_conditioned_values_in_float64():
    query, key, value = sample(1, 2, 2, 100, 100, 8, dtype=torch.float64)
    found, _ = check(query, key, spectrum(value, 1e6), output=True)
    assert (found.rank == 8).all()


def test_duplicate_and_equal_keys(backend, device):
    query, key, value = sample(1, 2, 2, 40, 40, device=device)
    key, value = key.clone(), value.clone()
    key[:, :, 5:] = key[:, :, 5:6]
    value[:, :, 5:] = value[:, :, 5:6]
    found, _ = check(query, key, value, backend=backend, output=True)
    assert (found.rank == 6).all()
    key[:], value[:] = key[:, :, :1], value[:, :, :1]
    found, _ = check(query, key, value, backend=backend, output=True)
    assert (found.rank == 1).all()
    assert (attention_statistics(query, key, value * 0, None, backend=backend).rank == 0).all()


def test_uniform_one_hot_and_large_logits(backend, device):
    query, key, value = sample(1, 2, 2, 60, 60, device=device)
    found, _ = check(query * 0, key, value, backend=backend)
    torch.testing.assert_close(found.entropy, torch.full_like(found.entropy, 60.0).log())
    found, _ = check(query * 3e3, key, value, backend=backend)
    assert found.largest.median() > 0.999
    assert (found.entropy >= 0).all()


def test_half_precision_does_not_overflow(backend, device):
    query, key, value = sample(1, 2, 2, 50, 50, dtype=torch.float16, device=device)
    found = attention_statistics(query, key, value * 8000, None, backend=backend)
    same = attention_statistics(query, key, value, None, backend=backend)
    torch.testing.assert_close(found.difference, same.difference, atol=1e-3, rtol=0)
    assert all(bool(torch.isfinite(x).all()) for x in dataclasses.asdict(found).values() if isinstance(x, torch.Tensor))


def test_short_input_has_no_difference_at_all(backend, device):
    query, key, value = sample(2, 2, 2, 12, 12, 16, device=device)
    found, _ = check(query, key, value, backend=backend)
    for name in ("difference", "difference_norm", "total_variation", "negative_mass"):
        assert (getattr(found, name) == 0).all(), name
    assert torch.equal(found.received, found.received_effective)


def test_batch_equals_single(backend, device):
    query, key, value = sample(5, 2, 2, 40, 40, device=device)
    whole = attention_statistics(query, key, value, None, backend=backend)
    for b in range(5):
        alone = attention_statistics(query[b : b + 1], key[b : b + 1], value[b : b + 1], None, backend=backend)
        for name in ("received", "received_effective", "entropy", "total_variation", "difference"):
            torch.testing.assert_close(getattr(whole, name)[b], getattr(alone, name)[0], atol=1e-6, rtol=1e-5)


def test_tiles_change_nothing(monkeypatch):
    query, key, value = sample(3, 4, 2, 90, 90)
    real = torch.ones(3, 90, dtype=torch.bool)
    real[1, 70:] = False
    whole = attention_statistics(query, key, value, None, key_mask=real, query_mask=real)
    for tile in (1, 700, 20_000):
        monkeypatch.setattr("hf_attn_mi.kernels.attention_statistics.tiles.TILE", tile)
        part = attention_statistics(query, key, value, None, key_mask=real, query_mask=real)
        for name in ("received", "received_effective", *ROW_FIELDS, "log_sum_exp", "difference"):
            torch.testing.assert_close(getattr(part, name), getattr(whole, name), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("statistics", ["summary", "raw", "received"])
def test_less_is_the_same_but_less(statistics, backend, device):
    query, key, value = sample(2, 4, 2, 70, 70, device=device)
    whole = attention_statistics(query, key, value, None, backend=backend)
    part = attention_statistics(query, key, value, None, statistics=statistics, backend=backend)
    assert_part(part, whole, statistics)


def assert_part(part, whole, statistics):
    """The fields that were asked for are those of the whole analysis, the others are None."""
    kept = ["received", "rank", "n", "condition"]
    if statistics != "raw":
        kept += ["received_effective"]
    if statistics != "received":
        kept += ["entropy", "largest", "norm", "log_sum_exp", "mean_entropy"]
    if statistics == "summary":
        kept += ["difference", "difference_norm"]
    for field in dataclasses.fields(part):
        if field.name in kept:
            torch.testing.assert_close(getattr(part, field.name), getattr(whole, field.name), atol=2e-5, rtol=1e-5)
        elif field.name != "backend":
            assert getattr(part, field.name) is None


def test_received_weights_from_the_output_alone():
    query, key, value = sample(2, 4, 2, 70, 70, dtype=torch.float64)
    real = torch.ones(2, 70, dtype=torch.bool)
    real[1, 40:] = False
    exact, rows = specify(query, key, value, torch.float64, key_mask=real, query_mask=real)
    output = rows @ value.repeat_interleave(2, 1)
    found = attention_statistics(None, None, value, output, key_mask=real, query_mask=real, statistics="received")
    torch.testing.assert_close(found.received_effective, exact["received_effective"], atol=1e-12, rtol=0)
    assert found.received is None
    assert torch.equal(found.rank, exact["rank"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_given_rows_that_sum_to_less_than_one(dtype):
    query, key, value = sample(2, 4, 2, 60, 60, dtype=dtype)
    real = torch.ones(2, 60, dtype=torch.bool)
    real[1, 40:] = False
    _, rows = specify(query, key, value, torch.float64, key_mask=real, query_mask=real)
    sink = torch.linspace(0.2, 0.9, 60, dtype=torch.float64)[:, None]
    rows = (rows * sink).to(dtype)
    allowed = reference_allowed((2, 4, 60, 60), key_mask=real, query_mask=real)
    exact = reference_attention_statistics(rows.double(), value.double(), allowed, epsilon=epsilon_of(value))
    kept = rows.clone()
    found = attention_statistics(None, None, value, None, rows=rows, key_mask=real, query_mask=real)
    assert torch.equal(rows, kept)
    plain_dtype = torch.promote_types(dtype, torch.float32)
    plain = reference_attention_statistics(
        rows.to(plain_dtype), value.to(plain_dtype), allowed, epsilon=epsilon_of(value)
    )
    assert_agrees(found, exact, plain, ABSOLUTE[plain_dtype])
    assert found.log_sum_exp is None
