"""Neighbor counts against the definition in float64, scikit-learn and counts done by hand."""

import importlib.util
import math
from functools import partial

import pytest
import torch
from sklearn.feature_selection._mutual_info import _compute_mi_cd

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.kernels import large_calls, neighbor_counts, ross_information
from hf_attn_mi.kernels.neighbors import torch as neighbors_torch
from hf_attn_mi.kernels.neighbors.reference import reference_neighbor_counts
from hf_attn_mi.kernels.neighbors.torch import largest, prepare
from hf_attn_mi.kernels.threads import across_threads

WITH_NUMBA = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not WITH_NUMBA, reason="numba (extra `fast`) is not installed")


@pytest.fixture(params=["torch", pytest.param("numba", marks=needs_numba)])
def count(request):
    """The operation by each backend of the CPU."""
    return partial(neighbor_counts, backend=request.param)


def plain(x):
    return x


def tied(x):
    return (2 * x).round()


def far_away(x):
    return x * 1e-3 + 1000


def duplicates_and_outlier(x):
    half = len(x) // 2
    return torch.cat([x[:half] * torch.tensor([1e4, *[1.0] * (half - 1)])[:half, None], x[:half], x[2 * half :]])


def tiny_float64(x):
    return x.double() * 1e-150


def denormal_float32(x):
    return x * 1e-38


def half_precision(x):
    return x.bfloat16()


def two_places(x):
    return (x > 0).float()[:, :1].expand_as(x)


DATA = [plain, tied, far_away, duplicates_and_outlier, tiny_float64, denormal_float32, half_precision, two_places]


def points(n, d, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(n, d, generator=generator)
    labels = torch.randint(classes, (n,), generator=generator)
    labels[: min(n, 2)] = 0  # some class has two members
    return states, labels


def check(counts, states, labels, k):
    within, neighbors, sizes = reference_neighbor_counts(states, labels, k)
    assert torch.equal(counts.within, within)
    assert torch.equal(counts.neighbors, neighbors)
    assert torch.equal(counts.class_sizes, sizes)


@pytest.mark.parametrize("change", DATA)
@pytest.mark.parametrize(
    ("n", "d", "classes", "k"), [(63, 1, 4, 3), (100, 8, 30, 5), (257, 64, 3, 1), (100, 300, 1, 3)]
)
def test_equals_the_definition(count, change, n, d, classes, k):
    states, labels = points(n, d, classes)
    states = change(states)
    check(count(states, labels, k), states, labels, k)


@pytest.mark.parametrize("n", [2, 3, 63, 100, 257])
def test_tiles_do_not_change_the_result(count, n, monkeypatch):
    states, labels = points(n, 7, 3, seed=n)
    for rows in (1, 16, 63, 1000):
        monkeypatch.setattr(neighbors_torch, "_tile_rows", lambda *_, rows=rows: rows)
        check(count(states, labels), states, labels, 3)


def test_many_points(count):
    states, labels = points(2100, 3, 2)
    check(count(states, labels), states, labels, 3)


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("n", [63, 257])
def test_equals_scikit_learn_in_one_dimension(count, n, integers):
    states, labels = points(n, 1, 4, seed=n)
    states = states.double() + 2 * labels[:, None]
    if integers:
        states = (30 * states).round()
    labels[5] = 99  # alone in its class
    expected = _compute_mi_cd(states[:, 0].numpy(), labels.numpy(), 3)
    assert ross_information(count(states, labels)).item() == pytest.approx(max(0, expected), abs=1e-12)
    assert expected > 0


def test_by_hand(count):
    # Class 0 at 0, 1, 4 and class 1 at 2, 3; k = 1. r = 1, 1, 3, 1, 1; strictly closer: the point itself, but for the
    # point at 4, which has 2 and 3 closer than its neighbor at 1.
    states = torch.tensor([[0.0], [1.0], [4.0], [2.0], [3.0]])
    counts = count(states, torch.tensor([0, 0, 0, 1, 1]), 1)
    assert counts.within.tolist() == [1, 1, 3, 1, 1]
    psi = {1: 0.0, 2: 1.0, 3: 1.5, 5: 1 + 1 / 2 + 1 / 3 + 1 / 4}  # plus psi(1), which cancels
    expected = psi[5] + psi[1] - (3 * psi[3] + 2 * psi[2]) / 5 - psi[3] / 5
    assert ross_information(counts).item() == pytest.approx(expected, abs=1e-12)


def test_separate_classes_reach_their_entropy_and_independent_ones_zero(count):
    states, labels = points(2000, 8, 2)
    apart = states + 100 * labels[:, None]
    share = labels.double().mean().item()
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert ross_information(count(apart, labels)).item() == pytest.approx(entropy, abs=0.01)
    shuffled = labels[torch.randperm(2000, generator=torch.Generator().manual_seed(1))]
    assert ross_information(count(apart, shuffled)).abs() < 0.05
    assert ross_information(count(states, labels)).abs() < 0.05


def test_a_circle_of_ties_far_from_the_center(count):
    # Two clusters far from the common center. Around the first point of one stand 120 others at a distance of 1 as far
    # as products can tell: their order is known from differences alone. All other rows have no such ties.
    generator = torch.Generator().manual_seed(0)
    angle = 2 * math.pi * torch.rand(120, generator=generator).double()
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    inside = 0.3 * torch.randn(2, 2, generator=generator).double()
    cluster = torch.cat([torch.zeros(1, 2).double(), inside, circle]) + torch.tensor([1000.0, 500.0])
    states = torch.cat([cluster, 5 * torch.randn(123, 2, generator=generator).double() - torch.tensor([1000.0, 500.0])])
    labels = torch.arange(246) % 2
    for classes in (labels, *(labels[torch.randperm(246, generator=generator)] for _ in range(5))):
        check(count(states, classes, 3), states, classes, 3)


def test_slots_and_layouts(count):
    states, labels = points(6 * 100, 10, 3)
    states, labels = states.reshape(2, 3, 100, 10), labels[:100]
    crooked = states.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert not crooked.is_contiguous()
    for k in (3, 200):  # 200: more than any class has
        found = count(crooked, labels, k)
        assert found.within.shape == (2, 3, 100)
        assert ross_information(found).shape == (2, 3)
        for i in range(2):
            for j in range(3):
                single = count(states[i, j], labels, k)
                assert torch.equal(found.within[i, j], single.within)
    check(count(states[1, 2], labels, 200), states[1, 2], labels, 200)


def test_one_point_one_class_and_equal_points(count):
    one = count(torch.ones(1, 4), torch.tensor([7]))
    assert one.within.tolist() == [0]
    assert ross_information(one).item() == 0
    states, labels = points(100, 4, 3)
    assert ross_information(count(states, torch.zeros(100, dtype=torch.bool))).item() == pytest.approx(0)
    labels[0] = 9
    same = states[:1].expand(100, 4)
    check(count(same, labels), same, labels, 3)


@pytest.mark.parametrize("change", [plain, far_away, duplicates_and_outlier, half_precision])
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_error_bound_holds(change, precision, monkeypatch):
    # Every point is within the bound of the largest radius, or stays beyond that radius.
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    states = change(points(257, 384, 2)[0])
    ready = prepare(states)
    assert ready.centered.dtype == (torch.float32 if precision == "highest" else torch.float64)
    tile = ready.proximity(0, 257, ready.tile_memory(257)).double()
    exact = torch.stack([(states.double() - row.double()).square().sum(1) for row in states])
    error = (ready.norms.square()[:, None] - tile - exact).abs().fill_diagonal_(0)
    rows = torch.arange(257)
    for rank in (1, 10, 100):
        radius = tile.topk(rank).values[:, -1]
        bound = ready.error_bound(rows, radius)
        inside = exact <= (ready.norms.square() - radius + 3 * bound)[:, None]
        assert (error <= bound[:, None])[inside].all()
        assert (bound < 2e-3 * ready.norms.square().clamp_min(1e-30).max()).all()


def test_float32_products_that_are_none(count, monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    states, labels = points(100, 8, 3)
    assert prepare(states).centered.dtype == torch.float64
    check(count(states, labels), states, labels, 3)


GOOD = points(10, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(10, 3, dtype=torch.long), GOOD[1]), "states is torch"),
        ((torch.ones(10, 3, dtype=torch.complex64), GOOD[1]), "states is torch"),
        ((torch.ones(10), GOOD[1]), "states has shape"),
        ((torch.ones(0, 3), GOOD[1]), "states has shape"),
        ((torch.full((10, 3), math.nan), GOOD[1]), "NaN or infinite"),
        ((torch.full((10, 3), math.inf), GOOD[1]), "NaN or infinite"),
        (([[1.0]], GOOD[1]), "states is list"),
        ((GOOD[0], GOOD[1].float()), "labels is torch.float32"),
        ((GOOD[0], GOOD[1][:9]), "labels has shape"),
        ((GOOD[0], torch.arange(10)), "one member each"),
        ((GOOD[0], GOOD[1], 0), "k is 0"),
        ((GOOD[0], GOOD[1], 2.0), "k is 2.0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        neighbor_counts(*arguments)


def test_backends(monkeypatch):
    with pytest.raises(InvalidInputError, match="backend is 'cuda'"):
        neighbor_counts(*GOOD, backend="cuda")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendUnavailableError, match=r"needs CUDA|not installed"):
        neighbor_counts(*GOOD, backend="triton")


@needs_numba
def test_numba_is_taken_by_size_and_not_by_what_ran_before(monkeypatch):
    states, labels = points(90, 3, 2)
    monkeypatch.setattr(large_calls, "NUMBA_PAIRS", 2 * 90**2)
    for _ in range(2):  # the second time numba is loaded
        assert neighbor_counts(states, labels).backend == "torch"
        assert neighbor_counts(states.expand(2, -1, -1), labels).backend == "numba"
    with large_calls.part_of_call(2 * 90**2 - 1):
        assert neighbor_counts(*GOOD).backend == "torch"
    with large_calls.part_of_call(2 * 90**2):
        assert neighbor_counts(*GOOD).backend == "numba"
        with large_calls.part_of_call(1):
            assert across_threads(lambda k: neighbor_counts(*GOOD, k).backend, (1, 2), 2) == ["numba", "numba"]
    assert neighbor_counts(*GOOD).backend == "torch"


@needs_numba
def test_threads_share_the_rows_of_one_site(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for d in (3, 40):
        states, labels = points(257, d, 3)
        check(neighbor_counts(states, labels, backend="numba"), states, labels, 3)


@pytest.mark.parametrize(
    ("m", "k"),
    [(7, 3), (63, 3), (100, 5), (257, 7), (447, 7), (60, 60), (257, 10), (1000, 10), (600, 60), (1801, 60), (2055, 8)],
)
def test_largest_by_groups_and_by_parts_are_those_of_topk(m, k):
    draw = torch.Generator().manual_seed(m)
    for values in (torch.randn(50, m, generator=draw), torch.randint(5, (50, m), generator=draw).float()):
        values[:, 0] = -torch.inf
        assert torch.equal(largest(values, k), values.topk(k).values)
        wide = torch.cat([values, values], 1)
        assert torch.equal(largest(wide[:, :m], k), values.topk(k).values)  # rows apart in memory


@pytest.mark.parametrize("n", [5, 64, 300])
def test_counts_of_long_rows_are_summed_in_parts(monkeypatch, n):
    monkeypatch.setattr(neighbors_torch, "EXACT_SUM", 64)
    tile = torch.randn(20, n, generator=torch.Generator().manual_seed(0))
    threshold = torch.zeros(20, 1)
    found = neighbors_torch._count(tile, threshold, torch.gt, torch.full((25, n), torch.nan))
    assert torch.equal(found, (tile > 0).sum(1))
