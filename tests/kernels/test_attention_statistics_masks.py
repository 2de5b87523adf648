"""Masks that differ by row: every row has its own projector."""

import pytest
import torch

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.kernels import attention_statistics
from hf_attn_mi.kernels.attention_statistics import torch as torch_tiles
from hf_attn_mi.kernels.attention_statistics import torch_per_query
from hf_attn_mi.kernels.attention_statistics.reference import (
    reference_allowed,
    reference_attention_statistics,
    reference_rows,
)
from hf_attn_mi.kernels.effective.value_basis import epsilon_of
from tests.kernels.test_attention_statistics import TENSORS, assert_agrees, assert_part, check, sample, specify


@pytest.fixture(params=["causal", "window", "causal window", "blocks", "any", "heads"])
def masks(request):
    """Arguments that make rows see different keys, for two examples, four heads, 80 queries and keys."""
    generator = torch.Generator().manual_seed(3)
    blocks = torch.arange(80) // 33
    return {
        "causal": {"is_causal": True},
        "window": {"window": 24},
        "causal window": {"is_causal": True, "window": 30},
        "blocks": {"mask": blocks[:, None] == blocks},
        "any": {"mask": torch.rand(2, 1, 80, 80, generator=generator) < 0.6},
        "heads": {"mask": torch.rand(2, 4, 80, 80, generator=generator) < 0.6},
    }[request.param]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_agrees_with_specification(masks, dtype, nan_filled):
    check(*sample(2, 4, 2, 80, 80, 8, dtype=dtype), output=True, direct=True, **masks)


def test_with_padding_and_rows_that_see_nothing(masks):
    query, key, value = sample(2, 4, 2, 80, 80, 8)
    real = torch.ones(2, 80, dtype=torch.bool)
    real[0, :30] = real[1, 60:] = False
    closed = {**masks, "mask": masks.get("mask", torch.ones(80, 80, dtype=torch.bool)).clone()}
    closed["mask"][..., 40:50, :] = False
    statistics, _ = check(query, key, value, key_mask=real, query_mask=real, direct=True, **closed)
    torch.testing.assert_close(statistics.received.sum(-1), torch.ones(2, 4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_additive_mask_as_bias(dtype, backend, device):
    query, key, value = sample(2, 4, 2, 50, 50, dtype=dtype, device=device)
    bias = torch.randn(1, 4, 50, 50, generator=torch.Generator().manual_seed(1)).to(dtype).to(device)
    bias[..., 40:] = torch.finfo(dtype).min
    found, _ = check(query, key, value, backend=backend, mask=bias)
    assert (found.n == 40).all()
    plain, _ = check(query, key, value, backend=backend)
    assert (plain.n == 50).all()


def test_causal_additive_mask_equals_causal():
    query, key, value = sample(1, 2, 2, 40, 40, 8)
    mask = torch.full((40, 40), -1e4).triu(1)
    left = attention_statistics(query, key, value, None, mask=mask)
    right = attention_statistics(query, key, value, None, is_causal=True)
    for name in (*TENSORS, "rank", "n"):
        torch.testing.assert_close(getattr(left, name), getattr(right, name))


def test_expanded_key_mask_is_a_key_mask(backend, device):
    query, key, value = sample(2, 2, 2, 40, 40, device=device)
    real = torch.ones(2, 40, dtype=torch.bool, device=device)
    real[1, 30:] = False
    plain = attention_statistics(query, key, value, None, key_mask=real, backend=backend)
    for mask in (real[:, None, None].expand(2, 2, 40, 40), real[:, None, None].expand(2, 1, 40, 40).clone()):
        found = attention_statistics(query, key, value, None, mask=mask, backend=backend)
        assert torch.equal(found.received, plain.received)
        assert torch.equal(found.received_effective, plain.received_effective)


def test_mask_that_differs_only_for_pad_queries_does_not_differ(backend, device):
    query, key, value = sample(1, 2, 2, 40, 40, device=device)
    real = torch.arange(40, device=device)[None] < 30
    mask = real[:, None, None] & torch.ones(1, 1, 40, 40, dtype=torch.bool, device=device)
    mask[:, :, 30:, :10] = False
    found = attention_statistics(query, key, value, None, mask=mask, key_mask=real, query_mask=real, backend=backend)
    plain = attention_statistics(query, key, value, None, key_mask=real, query_mask=real, backend=backend)
    assert torch.equal(found.received, plain.received)


def test_duplicates_in_causal_attention():
    query, key, value = sample(1, 2, 1, 30, 30, 8)
    value[:, :, 1::2] = value[:, :, ::2]
    check(query, key, value, is_causal=True, output=True, direct=True)
    first = [x[:, :, :1] for x in (query, key, value)]  # one key: nothing to hide
    assert (attention_statistics(*first, None, is_causal=True).null_space_fraction == 0).all()
    two = [x[:, :, :2] for x in (query, key, value)]  # two equal keys
    assert (attention_statistics(*two, None, is_causal=True).null_space_fraction > 0).all()


def test_early_causal_rows_have_no_invisible_part_at_all():
    query, key, value = sample(1, 4, 2, 30, 30, 8)
    early = [x[:, :, :8] for x in (query, key, value)]
    assert (attention_statistics(*early, None, is_causal=True).null_space_fraction == 0).all()
    later = torch.arange(30)[None] >= 9
    statistics, _ = check(query, key, value, is_causal=True, direct=True)
    only, _ = check(query, key, value, is_causal=True, query_mask=later, direct=True)
    assert (statistics.null_space_fraction > 0).all()
    assert (only.null_space_fraction > statistics.null_space_fraction).all()


def test_tiles_change_nothing(masks, monkeypatch):
    query, key, value = sample(2, 4, 2, 80, 80, 8)
    whole = attention_statistics(query, key, value, None, **masks)
    for name, size in (("TILE", 100), ("GRAMS", 300), ("ROWS", 7)):
        monkeypatch.setattr(torch_per_query, name, size)
        part = attention_statistics(query, key, value, None, **masks)
        for field in TENSORS:
            torch.testing.assert_close(getattr(part, field), getattr(whole, field), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("given", ["query and key", "rows"])
def test_tiles_have_the_keys_that_their_queries_may_see(masks, given, monkeypatch):
    query, key, value = sample(2, 4, 2, 80, 80, 8)
    real = torch.ones(2, 80, dtype=torch.bool)
    real[0, :9] = real[1, 70:] = False
    closed = {**masks, "mask": masks.get("mask", torch.ones(80, 80, dtype=torch.bool)).clone()}
    closed["mask"][..., 40:60, :] = False
    options = {**closed, "key_mask": real, "query_mask": real, "effective": False}
    tensors = (query, key, value)
    if given == "rows":
        rows = reference_rows(query, key, reference_allowed((2, 4, 80, 80), **closed, key_mask=real, query_mask=real))
        tensors, options["rows"] = (None, None, value), rows
    whole = attention_statistics(*tensors, None, **options)
    widths, form = [], torch_tiles._form_rows

    def formed(inputs, block, queries):
        widths.append(block.keys.stop - block.keys.start)
        return form(inputs, block, queries)

    monkeypatch.setattr(torch_tiles, "MANY_KEYS", 1)
    monkeypatch.setattr(torch_tiles, "TILE", 1600)  # ten queries of two heads
    monkeypatch.setattr(torch_tiles, "_form_rows", formed)
    part = attention_statistics(*tensors, None, **options)
    for field in ("received", "mean_entropy", "rank", "n"):
        torch.testing.assert_close(getattr(part, field), getattr(whole, field), atol=1e-6, rtol=1e-5)
    if closed.get("window") == 24:
        assert max(widths) <= 10 + 2 * 23
    if closed.get("is_causal") and "window" not in closed:
        assert widths[0] <= 10 < max(widths)


def test_given_causal_rows():
    query, key, value = sample(1, 4, 2, 50, 50, 8)
    allowed = reference_allowed((1, 4, 50, 50), is_causal=True)
    rows = reference_rows(query.double(), key.double(), allowed)
    exact = reference_attention_statistics(rows.float().double(), value.double(), allowed, epsilon_of(value))
    plain = reference_attention_statistics(rows.float(), value, allowed, epsilon_of(value))
    found = attention_statistics(None, None, value, None, rows=rows.float(), is_causal=True)
    assert_agrees(found, exact, plain, 3e-6, direct=True)


def test_output_that_is_not_rows_times_values(masks):
    query, key, value = sample(2, 4, 2, 80, 80, 8)
    _, rows = specify(query, key, value, torch.float64, **masks)
    output = (rows @ value.double().repeat_interleave(2, 1)).float()
    attention_statistics(query, key, value, output, **masks)
    with pytest.raises(InvalidInputError, match="output is not rows times values"):
        attention_statistics(query, key, value, output * 1.1, **masks)


def test_triton_says_what_it_cannot_do(masks, needs_triton):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    query, key, value = sample(2, 4, 2, 80, 80, 8, device=device)
    masks = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in masks.items()}
    with pytest.raises(BackendUnavailableError, match="queries see different keys"):
        attention_statistics(query, key, value, None, backend="triton", **masks)
    assert attention_statistics(query, key, value, None, **masks).backend == "torch"


def test_without_effective_attention_the_rest_is_the_same(masks):
    query, key, value = sample(2, 4, 2, 80, 80, 8)
    whole = attention_statistics(query, key, value, None, **masks)
    assert_part(attention_statistics(query, key, value, None, effective=False, **masks), whole)


def test_short_causal_input_has_no_invisible_part_at_all():
    found, _ = check(*sample(2, 4, 2, 12, 12, 16), is_causal=True, direct=True)
    assert (found.null_space_fraction == 0).all()
    assert (found.rank == 12).all()
