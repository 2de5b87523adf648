"""Efficient rows: each backend against HiGHS, the backends against each other, and what they refuse."""

import importlib.util
import sys
import threading

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.kernels import efficient_rows
from hf_attn_mi.kernels.efficient import operation
from hf_attn_mi.kernels.efficient import torch as rows_torch
from hf_attn_mi.kernels.efficient.reference import reference_efficient_rows

WITH_NUMBA = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not WITH_NUMBA, reason="numba (extra `fast`) is not installed")
BACKENDS = ["torch", pytest.param("numba", marks=needs_numba)]
TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def draw(heads, queries, keys, dim, *, seed=0, sharpness=2.0):
    """Random attention (heads, queries, keys) and values (heads, keys, dim), float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(heads, queries, keys, generator=generator, dtype=torch.float64)
    return logits.softmax(-1), torch.randn(heads, keys, dim, generator=generator, dtype=torch.float64)


def plain():
    return draw(2, 20, 40, 6)


def similar():
    """Rows that change slowly, so that neighbors share their bases."""
    attention, values = draw(2, 2, 50, 8)
    way = torch.linspace(0, 1, 30, dtype=torch.float64)[:, None]
    return attention[:, :1] * way + attention[:, 1:] * (1 - way), values


def unrelated_and_wide():
    return draw(1, 40, 150, 30, sharpness=3.0)


def nearly_uniform():
    """Rows with few keys in common that are still solved fastest from a neighbor's basis."""
    return draw(1, 40, 150, 30, sharpness=0.1)


def duplicates():
    attention, values = draw(2, 20, 30, 5)
    values[:, 15:] = values[:, :15]
    return attention, values


def rounded():
    """Weights and values on a coarse grid: degenerate vertices and ties."""
    attention, values = draw(2, 25, 40, 5)
    attention = (attention * 40).round() + 1
    return attention / attention.sum(-1, keepdim=True), (values * 2).round()


def zero_dimensions():
    attention, values = draw(2, 20, 30, 6)
    values[:, :, 2] = 0
    values[:, :, 4] = values[:, :, 0] - values[:, :, 1]
    return attention, values


def ill_conditioned():
    attention, values = draw(2, 20, 40, 6)
    return attention, values * torch.logspace(0, -6, 6, dtype=torch.float64)


def far_from_the_origin():
    attention, values = draw(1, 20, 40, 6)
    return attention, values + 1e4


def one_hot():
    attention, values = draw(2, 12, 30, 4)
    attention[:, :6] = torch.eye(30, dtype=torch.float64)[[0, 3, 29, 3, 7, 7]]
    attention[:, 6:] *= torch.arange(30) % 9 == 0
    return attention / attention.sum(-1, keepdim=True), values


def uniform():
    attention, values = draw(2, 10, 64, 8)
    attention[:, ::2] = 1 / 64
    return attention, values


def with_a_sink():
    attention, values = draw(2, 20, 63, 8)
    attention = attention * 1e-4
    attention[:, :, 0] = 1 - attention[:, :, 1:].sum(-1)
    values[:, 0] *= 1e-3
    return attention, values


def one_dimension():
    return draw(1, 15, 100, 1)


FAMILIES = [
    plain,
    similar,
    unrelated_and_wide,
    nearly_uniform,
    duplicates,
    rounded,
    zero_dimensions,
    ill_conditioned,
    far_from_the_origin,
    one_hot,
    uniform,
    with_a_sink,
    one_dimension,
]


def cost_of(weights):
    """The cost of the definition: the row and, for ties, low key numbers."""
    number = torch.arange(len(weights), dtype=torch.float64)
    return weights / weights.max() - 1e-7 * (number + (number * 0.6180339887498949).frac()) / len(weights)


def best(cost, values, row):
    """HiGHS's vertex, from the definition: no coordinates, no bases. Values are scaled, which changes nothing."""
    centered = (values - values.mean(0)).numpy()
    scale = np.abs(centered).max(0)
    matrix = np.vstack([(centered / np.where(scale > 0, scale, 1)).T, np.ones(len(values))])
    answer = linprog(
        -cost.numpy(), A_eq=matrix, b_eq=matrix @ row.numpy(), bounds=(0, None), method="highs-ds", options=TIGHT
    )
    assert answer.status == 0, answer.message
    return torch.tensor(answer.x)


def assert_certified(result, attention, values):
    """Each row is a distribution over few keys with the output of the given one."""
    rows = result.attention
    assert rows.isfinite().all()
    assert (rows >= 0).all()
    assert result.optimal.all()
    torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]), atol=1e-9, rtol=0)
    outputs = attention @ values
    error = (rows @ values - outputs).norm(dim=-1) / outputs.norm(dim=-1)
    assert error.max() <= 1e-9
    assert result.residual.max() <= 1e-9
    assert torch.equal(result.support, (rows > 0).sum(-1))
    assert result.support.max() <= min(values.shape[1], values.shape[2] + 1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_highs(family, backend):
    attention, values = family()
    result = efficient_rows(attention, values, backend=backend)
    assert result.backend == backend
    assert_certified(result, attention, values)
    compared = 0
    for h in range(len(values)):
        for i in range(0, attention.shape[1], 3):
            cost = cost_of(attention[h, i])
            ours, theirs = result.attention[h, i], best(cost, values[h], attention[h, i])
            assert float(cost @ ours) >= float(cost @ theirs) - 1e-9 * abs(float(cost @ theirs)) - 1e-9
            if result.gap[h, i] > 1e-6:  # HiGHS's own tolerance makes vertices nearer than that equal
                compared += 1
                assert torch.equal(ours > 1e-9, theirs > 1e-9) or (ours - theirs).abs().max() < 1e-8
    assert compared or family in (uniform, duplicates, rounded)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("keys", "dim"), [(4, 4), (8, 3), (10, 2)])
def test_equals_the_best_of_all_vertices(keys, dim, backend):
    attention, values = draw(2, 6, keys, dim, seed=keys)
    rows = efficient_rows(attention, values, backend=backend).attention
    torch.testing.assert_close(rows, reference_efficient_rows(attention, values), atol=1e-9, rtol=0)


@needs_numba
@pytest.mark.parametrize("objective", ["own", "head"])
@pytest.mark.parametrize("family", FAMILIES)
def test_backends_return_the_same_rows(family, objective):
    attention, values = family()
    first, second = (efficient_rows(attention, values, objective=objective, backend=b) for b in ("torch", "numba"))
    assert_certified(second, attention, values)
    torch.testing.assert_close(second.attention, first.attention, atol=1e-8, rtol=0)
    assert torch.equal(second.support, first.support) or family in (rounded, one_hot, ill_conditioned)
    if family not in (rounded, one_hot):  # degenerate: several bases hold the same vertex, each with its own gap
        torch.testing.assert_close(second.gap, first.gap, atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(second.smallest_singular, first.smallest_singular, atol=0, rtol=1e-6)


@needs_numba
def test_compiled_rows_need_no_help_from_torch(monkeypatch):
    monkeypatch.setattr(rows_torch, "solve_torch", lambda rows, weights: pytest.fail("a row was given up"))
    for family in (plain, similar, unrelated_and_wide, duplicates, rounded, uniform, with_a_sink, one_dimension):
        efficient_rows(*family(), backend="numba")


@needs_numba
def test_rows_given_up_come_from_torch(monkeypatch):
    from hf_attn_mi.kernels.efficient import numba as rows_numba

    attention, values = plain()
    expected = efficient_rows(attention, values, backend="numba")

    def lazy(rows, weights):
        found = solve(rows, weights)
        found.weights[::3], found.gap[::3] = torch.nan, torch.nan
        found.optimal[::3] = False
        return found

    solve = rows_numba.solve_numba
    monkeypatch.setattr(rows_numba, "solve_numba", lazy)
    result = efficient_rows(attention, values, backend="numba")
    assert_certified(result, attention, values)
    torch.testing.assert_close(result.attention, expected.attention, atol=1e-10, rtol=0)


def masks(keys):
    """Causal, causal within a window, a window, blocks, and pads that differ by head."""
    i, j = torch.arange(keys)[:, None], torch.arange(keys)
    blocks, pads = (i // 12) == (j // 12), torch.stack([j < keys - 5, j >= 3])[:, None]
    by_row = {"causal": j <= i, "causal window": (j <= i) & (i - j < 15), "window": (i - j).abs() < 9, "blocks": blocks}
    return {**{name: mask.expand(2, keys, keys) for name, mask in by_row.items()}, "pads": pads}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", masks(1))
def test_masks_equal_rows_alone(name, backend):
    attention, values = draw(2, 36, 36, 4)
    allowed = masks(36)[name]
    dirty = attention.where(allowed, torch.nan)
    unseen = ~allowed.any(1)
    dirty_values = values.masked_fill(unseen[:, :, None], torch.inf)
    result = efficient_rows(dirty, dirty_values, allowed, backend=backend)
    assert result.optimal.all()
    for h in range(2):
        for i in range(0, 36, 5):
            keys = allowed[h, i if allowed.shape[1] > 1 else 0]
            row = attention[h, i, keys] / attention[h, i, keys].sum()
            alone = efficient_rows(row[None, None], values[h, keys][None], backend="torch")
            # few keys: the row itself comes back, not divided by its sum
            mine = result.attention[h, i] / result.attention[h, i].sum()
            torch.testing.assert_close(mine[keys], alone.attention[0, 0], atol=1e-9, rtol=0)
            assert (mine[~keys] == 0).all()
            if keys.sum() > 5:
                expected = best(cost_of(row), values[h, keys], row)
                torch.testing.assert_close(mine[keys], expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_allowed_keys_are_zero(backend):
    attention, values = draw(2, 10, 20, 3)
    allowed = torch.ones(2, 10, 20, dtype=torch.bool)
    allowed[0, 4] = False
    allowed[1] = False
    attention[0, 7] = 0
    result = efficient_rows(attention, values, allowed, backend=backend)
    assert result.attention.isfinite().all()
    assert (result.attention[1] == 0).all()
    assert (result.attention[0, [4, 7]] == 0).all()
    assert result.support[0].tolist() == [4, 4, 4, 4, 0, 4, 4, 0, 4, 4]
    for field in ("residual", "smallest_weight", "smallest_singular"):
        assert getattr(result, field).isfinite().all()
    nothing = efficient_rows(attention, values, torch.zeros(2, 1, 20, dtype=torch.bool), backend=backend)
    assert (nothing.attention == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("keys", "dim"), [(1, 1), (1, 5), (4, 4), (5, 4), (9, 16)])
def test_few_keys_come_back_bit_for_bit(keys, dim, backend):
    attention, values = draw(2, 6, keys, dim)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        result = efficient_rows(attention.to(dtype), values.to(dtype), backend=backend)
        assert torch.equal(result.attention, attention.to(dtype))
        assert result.gap.isinf().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_values_leave_one_key(backend):
    attention, values = draw(2, 9, 25, 4)
    values[:] = values[:, :1]
    result = efficient_rows(attention, values, backend=backend)
    assert_certified(result, attention, values)
    assert (result.support == 1).all()
    assert torch.equal(result.attention.argmax(-1), attention.argmax(-1))
    zero = efficient_rows(attention, torch.zeros_like(values), backend=backend)
    assert (zero.support == 1).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", [plain, similar, rounded, uniform, with_a_sink])
def test_answer_does_not_depend_on_the_batch(family, backend):
    attention, values = family()
    whole = efficient_rows(attention, values, backend=backend)
    order = torch.randperm(attention.shape[1], generator=torch.Generator().manual_seed(3))
    shuffled = efficient_rows(attention[:, order], values, backend=backend)
    torch.testing.assert_close(shuffled.attention, whole.attention[:, order], atol=1e-9, rtol=0)
    for i in (0, 3, 8):
        single = efficient_rows(attention[-1:, i : i + 1], values[-1:], backend=backend)
        torch.testing.assert_close(single.attention[0, 0], whole.attention[-1, i], atol=1e-9, rtol=0)


@needs_numba
def test_heads_share_threads_and_their_operations_run_alone(monkeypatch):
    """Two threads for each small operation of each head spin more than they compute."""
    from hf_attn_mi.kernels.efficient import numba as rows_numba

    seen = {"svd": [], "block": [], "describe": []}

    def watched(name, function):
        def run(*given, **options):
            seen[name].append((torch.get_num_threads(), threading.get_ident()))
            if name == "block":
                together.wait()
            return function(*given, **options)

        return run

    together = threading.Barrier(2, timeout=60)  # passes only when two heads are solved at the same time
    monkeypatch.setattr(torch.linalg, "svd", watched("svd", torch.linalg.svd))
    monkeypatch.setattr(operation, "_describe", watched("describe", operation._describe))
    monkeypatch.setattr(rows_numba, "_solve_block", watched("block", rows_numba._solve_block))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert efficient_rows(*plain(), backend="numba").optimal.all()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert [threads for name in ("svd", "describe") for threads, _ in seen[name]] == [1, 1]
    assert [threads for threads, _ in seen["block"]] == [1, 1]
    assert len({thread for _, thread in seen["block"]}) == 2


@needs_numba
def test_threads_and_blocks_change_nothing(monkeypatch):
    from hf_attn_mi.kernels.efficient import numba as rows_numba

    attention, values = draw(4, 30, 40, 6)
    expected = efficient_rows(attention, values, backend="numba")
    monkeypatch.setattr(rows_numba, "_MEMORY", 8 * 7 * 8 * 4)  # four rows at a time
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        result = efficient_rows(attention, values, backend="numba")
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(result.attention, expected.attention, atol=1e-10, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_arguments_are_left_alone_and_need_not_be_contiguous(backend):
    attention, values = draw(2, 20, 40, 6)
    turned = attention.transpose(1, 2).contiguous().transpose(1, 2)
    sliced = torch.stack([values, values], -1)[..., 0]
    copies = attention.clone(), values.clone()
    result = efficient_rows(turned, sliced, backend=backend)
    torch.testing.assert_close(result.attention, efficient_rows(attention, values, backend=backend).attention)
    assert torch.equal(attention, copies[0])
    assert torch.equal(values, copies[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_lower_precision_is_solved_in_double(dtype, bound, backend):
    attention, values = (tensor.to(dtype) for tensor in draw(2, 20, 30, 6))
    result = efficient_rows(attention, values, backend=backend)
    assert result.attention.dtype == dtype
    assert result.residual.max() < 1e-9
    exact = efficient_rows(attention.double(), values.double(), backend="torch")
    torch.testing.assert_close(result.attention.double(), exact.attention, atol=bound, rtol=bound)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tolerance_shortens_rows(backend):
    attention, values = draw(2, 15, 40, 8)
    exact = efficient_rows(attention, values, backend=backend)
    short = efficient_rows(attention, values, tolerance=0.2, backend=backend)
    assert (short.support <= exact.support).all()
    assert short.support.double().mean() < exact.support.double().mean() - 2
    outputs = attention @ values
    width = (outputs - values.mean(1, keepdim=True)).norm(dim=-1)
    assert ((short.attention @ values - outputs).norm(dim=-1) <= 0.2 * width * (1 + 1e-9)).all()


def change(index, value):
    """Attention and values with one entry replaced."""
    given = [tensor.clone() for tensor in draw(1, 4, 8, 3)]
    given[index][0, 1, 2] = value
    return given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: change(0, -0.1), "attention has negative"),
        (lambda: change(0, torch.nan), "attention has negative, NaN"),
        (lambda: change(0, torch.inf), "infinite weights"),
        (lambda: change(1, torch.nan), "values has NaN"),
        (lambda: [draw(1, 4, 8, 3)[0].long(), draw(1, 4, 8, 3)[1]], "attention has dtype torch.int64"),
        (lambda: [draw(1, 4, 8, 3)[0], draw(1, 4, 8, 3)[1].to(torch.complex64)], "values has dtype torch.complex64"),
        (lambda: [draw(1, 4, 8, 3)[0][0], draw(1, 4, 8, 3)[1]], "3 dimensions"),
        (lambda: [draw(1, 4, 8, 3)[0], draw(1, 4, 9, 3)[1]], "values has shape"),
        (lambda: [draw(1, 4, 8, 3)[0], draw(1, 4, 8, 3)[1][:, :, :0]], "none empty"),
        (lambda: [*draw(1, 4, 8, 3), torch.ones(1, 3, 8, dtype=torch.bool)], "allowed is torch.bool of shape"),
        (lambda: [*draw(1, 4, 8, 3), torch.ones(1, 4, 8)], "allowed is torch.float32"),
    ],
)
def test_bad_input_is_refused(given, message):
    with pytest.raises(InvalidInputError, match=message):
        efficient_rows(*given())


@pytest.mark.parametrize(
    "options", [{"tolerance": 1.0}, {"tolerance": float("nan")}, {"objective": "other"}, {"backend": "cuda"}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        efficient_rows(*draw(1, 4, 8, 3), **options)


def test_numba_asked_for_by_name_and_missing(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else find(name))
    attention, values = draw(1, 4, 8, 3)
    assert efficient_rows(attention, values).backend == "torch"
    with pytest.raises(BackendUnavailableError, match="fast"):
        efficient_rows(attention, values, backend="numba")


@needs_numba
def test_auto_takes_numba_on_the_cpu_and_loads_it_late():
    assert efficient_rows(*draw(1, 1_000, 8, 3)).backend == "numba"  # fewer rows: see test_efficient_auto.py
    assert "numba" in sys.modules
    source = importlib.util.find_spec("hf_attn_mi.kernels.efficient.operation").origin
    with open(source, encoding="utf-8") as file:
        assert "\nimport numba" not in file.read()
