"""Permutation tests: level, and family-wise p-values by hand."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from hf_attn_mi.kernels.permutations import agreeing_neighbors
from hf_attn_mi.mi import permutations
from hf_attn_mi.mi.coordinates import balance, principal_components
from hf_attn_mi.mi.permutations import draw_permutations, p_values, permuted_statistics


def test_permutation_test_keeps_its_level():
    found = []
    for seed in range(400):
        draw = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (120,), generator=draw)
        site = principal_components(balance(torch.randn(120, 6, generator=draw))[0])
        shuffles = draw_permutations(torch.nn.functional.one_hot(labels).double(), labels, 39, seed)
        found.append(permuted_statistics(site, shuffles))
    alone, _ = p_values(torch.stack(found))
    rate = float((alone <= 0.05).double().mean())
    assert 0.025 <= rate <= 0.08  # binomial of 5 % and 400


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("case", ["equal states", "more examples than are tested"])
def test_permutation_test_keeps_its_level_on_data_sorted_by_class(case, backend, monkeypatch):
    """Of equal states, or of examples that are left out, the first may not be taken: they are of one class."""
    if backend == "numba":
        pytest.importorskip("numba")
    monkeypatch.setattr(permutations, "agreeing_neighbors", partial(agreeing_neighbors, backend=backend))
    monkeypatch.setattr(permutations, "MAX_POINTS", 5000 if case == "equal states" else 60)
    found = []
    for seed in range(100):
        draw = torch.Generator().manual_seed(seed)
        labels = (torch.rand(120, generator=draw) < 0.3).long().sort().values
        states = torch.randn(120, 3, generator=draw)
        if case == "equal states":
            states = states[:4][torch.randint(4, (120,), generator=draw)]
        site = principal_components(balance(states)[0])
        shuffles = draw_permutations(torch.nn.functional.one_hot(labels).double(), labels, 39, seed)
        found.append(permuted_statistics(site, shuffles))
    alone, _ = p_values(torch.stack(found))
    assert float((alone <= 0.05).double().mean()) <= 0.13  # binomial of 5 % and 100: larger once in 1,000 runs


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_sums_over_classes_give_the_trace_of_products_with_targets(classes, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (300,), generator=draw)
    points = principal_components(balance(torch.randn(300, 6, generator=draw) + labels[:, None])[0]).points + 1
    shuffles = draw_permutations(torch.nn.functional.one_hot(labels).double(), labels, 19, 0)
    assert (shuffles.classes is None) == (classes == 2)
    monkeypatch.setattr(permutations, "is_worth_loading", lambda *pairs: True)
    found = permutations._pillai(points, shuffles)
    expected = permutations._pillai(points, replace(shuffles, classes=None))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert found[0] > 3 * found[1:].max()
    soft = torch.nn.functional.one_hot(labels).double() * 0.9 + 0.1 / classes
    assert draw_permutations(soft, labels, 3, 0).classes is None


def test_family_wise_p_values_by_hand():
    # Largest of both sites in each permutation: 3, 2, 4. Site 0 saw 3: itself, 3 and 4 are as large.
    statistics = torch.tensor([[3.0, 3.0, 1.0, 0.0], [2.5, 0.0, 2.0, 4.0]])
    alone, family = p_values(statistics)
    assert alone.tolist() == [0.5, 0.5]
    assert family.tolist() == [0.75, 0.75]
