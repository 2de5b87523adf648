"""Necessity distances against SciPy: least squares and non-negative least squares."""

import numpy as np
import pytest
import torch
from polytope_oracle import heads
from scipy.optimize import nnls

from hf_attn_mi.attention import efficient_attention, necessity_distance
from hf_attn_mi.errors import InvalidInputError


def to_affine_hull(point, others):
    edges = (others[1:] - others[0]).T
    steps = np.linalg.lstsq(edges, point - others[0], rcond=None)[0]
    return np.linalg.norm(point - others[0] - edges @ steps)


def to_convex_hull(point, others):
    """Non-negative least squares; the sum of the weights is held at one by a heavy last equation."""
    heavy = 1e5
    weights, _ = nnls(np.vstack([others.T, heavy * np.ones(len(others))]), np.append(point, heavy), maxiter=10_000)
    return np.linalg.norm(point - weights / weights.sum() @ others)


@pytest.mark.parametrize(("keys", "head_dim"), [(12, 3), (30, 8), (9, 8)])
def test_the_bound_is_the_distance_to_the_affine_hull_and_below_that_to_the_convex_hull(keys, head_dim):
    attention, values = heads(2, 3, keys=keys, head_dim=head_dim)
    rows = efficient_attention(attention, values).attention
    found = necessity_distance(rows, values)
    assert found.shape == (6, keys)
    for number, (row, distances) in enumerate(zip(rows.flatten(0, 1), found)):
        points = values[number // 3].numpy()
        output = attention.flatten(0, 1)[number].numpy() @ points
        kept = row.nonzero()[:, 0].tolist()
        assert torch.equal(~distances.isnan(), row > 0)
        for key in kept:
            others = points[[k for k in kept if k != key]]
            bound = float(distances[key])
            assert bound > 0
            assert bound == pytest.approx(to_affine_hull(output, others), rel=1e-8)
            assert bound <= to_convex_hull(output, others) * (1 + 1e-6) + 1e-9


def test_the_bound_is_reached_where_the_nearest_point_is_inside():
    # A regular triangle and its center: without a corner, the middle of the other side is nearest.
    values = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]]], dtype=torch.float64)
    found = necessity_distance(torch.full((1, 1, 3), 1 / 3, dtype=torch.float64), values)
    torch.testing.assert_close(found, torch.full((1, 3), 0.75**0.5 / 3, dtype=torch.float64))


def test_a_key_that_can_go_has_no_distance_and_an_only_key_cannot_go():
    values = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [5.0, 0.0]]])
    rows = torch.tensor([[[0.25, 0.5, 0.25, 0.0], [0.0, 0.0, 0.0, 1.0], [0.2, 0.4, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0]]])
    found = necessity_distance(rows, values)
    assert found[0, :3].tolist() == [0, 0, 0]  # three points of one line
    assert found[1, 3] == torch.inf
    assert found[2].tolist() == [0, 0, 0, 0]  # four points in the plane
    assert found[3].isnan().all()
    torch.testing.assert_close(
        necessity_distance(3 * rows, values, torch.tensor([1, 0])), found[[1, 0]], equal_nan=True
    )


def test_rows_that_are_not_there_are_refused():
    attention, values = heads(2, 3, keys=5, head_dim=2)
    for rows in (torch.tensor([6]), torch.tensor([-1]), torch.tensor([0.0]), torch.tensor([[0]])):
        with pytest.raises(InvalidInputError, match="rows"):
            necessity_distance(attention, values, rows)
    with pytest.raises(InvalidInputError, match="attention"):
        necessity_distance(attention[0], values[0])
