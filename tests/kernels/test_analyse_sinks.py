"""Sinks: one more logit in each row, of no key. Against the specification and against a softmax written out here."""

import pytest
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels import attention_statistics
from hf_attn_mi.kernels.effective.gram import epsilon_of
from hf_attn_mi.kernels.reference import reference_allowed, reference_attention_statistics, reference_rows

ABSOLUTE = {torch.float64: 1e-9, torch.float32: 3e-6, torch.bfloat16: 1e-3, torch.float16: 1e-3}
HEADS, KV_HEADS, DIM = 4, 2, 16
SINKS = torch.tensor([0.3, -2.0, 4.0, 1.0])


def sample(batch, queries, keys, *, dtype=torch.float32, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(heads, length):
        drawn = torch.randn(batch, length, heads, DIM, generator=generator, dtype=torch.float64)
        return drawn.to(dtype).to(device).transpose(1, 2)

    return draw(HEADS, queries), draw(KV_HEADS, keys), draw(KV_HEADS, keys) + 0.3


def specify(query, key, value, sinks, dtype, **masks):
    query, key, value, sinks = (x.cpu() for x in (query, key, value, sinks))
    masks = {name: x.cpu() if isinstance(x, torch.Tensor) else x for name, x in masks.items()}
    mask = masks.get("mask")
    bias = mask.to(dtype) if mask is not None and mask.dtype != torch.bool else None
    allowed = reference_allowed((*query.shape[:3], key.shape[2]), **masks)
    rows, log_sum_exp = reference_rows(query.to(dtype), key.to(dtype), allowed, bias=bias, sinks=sinks)
    wide = torch.promote_types(dtype, torch.float32)
    epsilon = epsilon_of(query, key, value)
    found = reference_attention_statistics(
        rows.to(wide), value.to(wide), allowed, log_sum_exp=log_sum_exp.to(wide), epsilon=epsilon
    )
    return found, rows


def check(query, key, value, sinks, *, backend="torch", output=False, statistics="all", **masks):
    """Each field: error within twice that of plain PyTorch in the same dtype, mean and maximum."""
    wide = query.dtype if backend == "triton" else torch.promote_types(query.dtype, torch.float32)
    exact, rows = specify(query, key, value, sinks, torch.float64, **masks)
    plain, _ = specify(query, key, value, sinks, wide, **masks)
    outputs = None
    if output:
        repeated = value.cpu().double().repeat_interleave(query.shape[1] // value.shape[1], 1)
        outputs = (rows @ repeated).to(query.dtype).to(query.device)
    found = attention_statistics(
        query, key, value, outputs, sinks=sinks, backend=backend, statistics=statistics, **masks
    )
    assert found.backend == backend
    for name, expected in exact.items():
        got = getattr(found, name)
        if got is None:
            continue
        got = got.cpu()
        assert torch.isfinite(got).all(), name
        if name in ("rank", "n"):
            assert torch.equal(got, expected), name
        elif name != "condition":
            error, allowed = (got.double() - expected).abs(), (plain[name].double() - expected).abs()
            atol = ABSOLUTE[wide] * max(1.0, float(expected.abs().max()))
            assert error.max() <= 2 * allowed.max() + atol, (name, float(error.max()), float(allowed.max()))
            assert error.mean() <= 2 * allowed.mean() + atol, (name, float(error.mean()), float(allowed.mean()))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [1, 63, 100, 257])
def test_agrees_with_specification(length, dtype, backend, device, nan_filled):
    query, key, value = sample(1, length, length, dtype=dtype, device=device)
    check(query, key, value, SINKS.to(dtype), backend=backend, output=True)


@pytest.mark.parametrize("masks", [{}, {"is_causal": True}, {"window": 9}])
def test_float64_and_rows_with_keys_of_their_own(masks):
    query, key, value = sample(2, 50, 50, dtype=torch.float64)
    check(query, key, value, SINKS.double(), output=True, **masks)
    check(query, key, value, SINKS.double(), statistics="raw", **masks)
    query, key, value = sample(2, 50, 50)
    check(query, key, value, SINKS, **masks)


def test_padding_bias_and_sinks_by_example(backend, device, nan_filled):
    query, key, value = sample(3, 66, 66, device=device)
    real = torch.ones(3, 66, dtype=torch.bool, device=device)
    real[0, 50:] = real[1, :20] = real[2] = False
    sinks = torch.randn(3, HEADS, generator=torch.Generator().manual_seed(1))
    bias = torch.randn(3, 1, 1, 66, generator=torch.Generator().manual_seed(2)).to(device)
    found = check(query, key, value, sinks, backend=backend, mask=bias, key_mask=real, query_mask=real, output=True)
    pads = ~real[:, None].expand(-1, HEADS, -1)
    assert (found.log_sum_exp[pads] == 0).all()
    assert (found.entropy[pads] == 0).all()
    assert (found.n[2] == 0).all()


def softmax_beside_a_sink(query, key, sinks, is_causal):
    """Weights of the keys and log-sum-exp in float64, by a softmax over [logits, sink]."""
    wide = key.double().repeat_interleave(HEADS // KV_HEADS, 1)
    logits = query.double() @ wide.transpose(-1, -2) / DIM**0.5
    if is_causal:
        logits = logits.masked_fill(torch.ones(logits.shape[2:], dtype=torch.bool).triu(1), -torch.inf)
    column = sinks.double().view(1, HEADS, 1, 1).expand(*logits.shape[:3], 1)
    beside = torch.cat([logits, column], -1)
    return torch.softmax(beside, -1)[..., :-1], torch.logsumexp(beside, -1)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("sinks", [SINKS, SINKS + 200, SINKS - 200, torch.tensor([95.0, 89.0, 104.0, 0.0])])
def test_equals_a_softmax_over_logits_and_sink(sinks, is_causal, backend, device):
    query, key, value = sample(1, 70, 70, device=device)
    if is_causal and backend == "triton":
        pytest.skip("the kernels do no causal rows")
    rows, log_sum_exp = softmax_beside_a_sink(query.cpu(), key.cpu(), sinks, is_causal)
    expected = {
        "received": rows.mean(2),
        "largest": rows.amax(-1),
        "norm": rows.norm(dim=-1),
        "entropy": torch.special.entr(rows).sum(-1),
        "log_sum_exp": log_sum_exp,
    }
    masks = {"is_causal": is_causal, "backend": backend}
    for statistics in ("all", "raw"):
        found = attention_statistics(query, key, value, None, sinks=sinks, statistics=statistics, **masks)
        for name, exact in expected.items():
            torch.testing.assert_close(getattr(found, name).cpu().double(), exact, atol=5e-6, rtol=2e-6, msg=name)


def test_a_sink_takes_its_share(backend, device):
    # Equal logits: 9 keys at 0 and a sink at log 3 leave each key 1 / 12, together 3 / 4.
    query, key, value = sample(1, 5, 9, device=device)
    found = attention_statistics(query * 0, key, value, None, sinks=torch.full((HEADS,), 3.0).log(), backend=backend)
    torch.testing.assert_close(found.received.sum(-1).cpu(), torch.full((1, HEADS), 0.75))
    torch.testing.assert_close(found.largest.cpu(), torch.full((1, HEADS, 5), 1 / 12))
    torch.testing.assert_close(found.log_sum_exp.cpu(), torch.full((1, HEADS, 5), 12.0).log())
    torch.testing.assert_close(found.entropy.cpu(), 0.75 * torch.full((1, HEADS, 5), 12.0).log())


def test_equals_given_rows(backend, device):
    query, key, value = sample(2, 60, 60, device=device)
    rows = softmax_beside_a_sink(query.cpu(), key.cpu(), SINKS, False)[0].float().to(device)
    given = attention_statistics(None, None, value, None, rows=rows)
    found = attention_statistics(query, key, value, None, sinks=SINKS, backend=backend)
    for name in ("received_effective", "difference", "total_variation", "negative_mass", "mean_entropy", "rank", "n"):
        torch.testing.assert_close(getattr(found, name), getattr(given, name), atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("sinks", "message"),
    [
        (SINKS[:3], "sinks is"),
        (SINKS.long(), "sinks is"),
        (SINKS / 0, "NaN or infinite"),
        (SINKS[None, :, None], "sinks"),
    ],
)
def test_refuses_sinks_that_do_not_fit(sinks, message):
    with pytest.raises(InvalidInputError, match=message):
        attention_statistics(*sample(2, 5, 5), None, sinks=sinks)


def test_refuses_sinks_beside_given_rows():
    with pytest.raises(InvalidInputError, match="rows and output that are given"):
        attention_statistics(None, None, sample(1, 5, 5)[2], None, rows=torch.ones(1, HEADS, 5, 5) / 5, sinks=SINKS)
