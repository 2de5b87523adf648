"""Information of a Gaussian mixture against one-dimensional quadrature, Monte Carlo in the full space, and limits."""

import math

import pytest
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels import mixture, mixture_information
from hf_attn_mi.kernels.mixture.reference import reference_mixture_information


def separation_of(means, share):
    """(K, K) inner products of centered means, for unit covariance."""
    centered = means - (share[:, None] * means).sum(0)
    return centered @ centered.T


def sample(classes, d, distance, seed=0):
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(classes, generator=generator).double() + 0.1
    means = distance * torch.randn(classes, d, generator=generator).double()
    return means, share / share.sum()


def entropy(share):
    return torch.special.entr(share).sum().item()


@pytest.mark.parametrize("distance", [0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("first", [0.5, 0.2])
def test_two_classes_by_quadrature(distance, first):
    # I = h(x) - h(x | class) on a fine grid, densities of N(0, 1) and N(distance, 1).
    x = torch.linspace(-12, 12 + distance, 200_001, dtype=torch.float64)
    share = torch.tensor([first, 1 - first], dtype=torch.float64)
    density = share[0] * (-x.square() / 2).exp() + share[1] * (-(x - distance).square() / 2).exp()
    entropy_of_x = torch.trapezoid(torch.special.entr(density / math.sqrt(2 * math.pi)), x)
    expected = entropy_of_x - 0.5 * math.log(2 * math.pi * math.e)
    means = torch.tensor([[0.0], [distance]], dtype=torch.float64)
    assert mixture_information(separation_of(means, share), share).item() == pytest.approx(expected.item(), abs=3e-4)


@pytest.mark.parametrize(("classes", "d"), [(3, 7), (5, 2), (12, 40), (100, 30)])
def test_equals_monte_carlo_in_the_full_space(classes, d):
    # States of all d dimensions and a covariance of their own, log ratio of densities; nothing of K x K.
    means, share = sample(classes, d, 2 / math.sqrt(d))
    generator = torch.Generator().manual_seed(1)
    root = torch.eye(d).double() + 0.3 * torch.randn(d, d, generator=generator).double() / math.sqrt(d)
    means = means @ root.T
    labels = torch.multinomial(share, 40_000, replacement=True, generator=generator)
    states = means[labels] + torch.randn(40_000, d, generator=generator).double() @ root.T
    gained = reference_mixture_information(means, root @ root.T, share, states, labels)
    centered = means - (share[:, None] * means).sum(0)
    separation = centered @ torch.linalg.solve(root @ root.T, centered.T)
    error = gained.std().item() / math.sqrt(40_000)
    found = mixture_information(separation, share).item()
    assert found == pytest.approx(gained.mean().item(), abs=3.5 * error)
    assert 20 * error < found < entropy(share)


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_limits(classes):
    means, share = sample(classes, 6, 1.0)
    separation = separation_of(means, share)
    assert mixture_information(0 * separation, share).item() == pytest.approx(0, abs=1e-12)
    small = mixture_information(1e-4 * separation, share).item()
    assert small == pytest.approx(0.5e-4 * (share * separation.diagonal()).sum().item(), rel=0.02)
    assert mixture_information(1e3 * separation, share).item() == pytest.approx(entropy(share), abs=1e-6)
    assert mixture_information(1e9 * separation, share).item() == pytest.approx(entropy(share), abs=1e-9)


def test_one_class_and_classes_without_members():
    assert mixture_information(torch.ones(3, 1, 1), torch.ones(1)).tolist() == [0, 0, 0]
    means, share = sample(4, 5, 1.0)
    expected = mixture_information(separation_of(means, share), share, points=2**15)
    share = torch.cat([share[:2], torch.zeros(1).double(), share[2:]])
    for far in (1.0, 1e6):
        wider = torch.cat([means[:2], far * torch.ones(1, 5).double(), means[2:]])
        found = mixture_information(separation_of(wider, share), share, points=2**15)
        assert found.item() == pytest.approx(expected.item(), abs=3e-4)
    certain = torch.tensor([1.0, 0.0])
    assert mixture_information(torch.eye(2), certain).item() == pytest.approx(0, abs=1e-12)


def test_indefinite_separations_are_signed():
    means, share = sample(4, 6, 0.5)
    separation = separation_of(means, share)
    forth, back = mixture_information(separation, share), mixture_information(-separation, share)
    assert back.item() == pytest.approx(-forth.item(), abs=3e-3)
    # An unbiased estimate around zero: the mean information is around zero too, where the positive part is not.
    generator = torch.Generator().manual_seed(3)
    noise = 0.1 * torch.randn(400, 4, 4, generator=generator).double()
    found = mixture_information(noise + noise.transpose(1, 2), share)
    assert found.mean().item() == pytest.approx(0, abs=3.5 * found.std().item() / 20)
    values, vectors = torch.linalg.eigh(noise + noise.transpose(1, 2))
    positive = (vectors * values.clamp_min(0)[:, None]) @ vectors.transpose(1, 2)
    assert mixture_information(positive, share).mean() > 5 * found.std() / 20


def test_origin_batches_and_dtypes():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(2, 3, 4, 5, generator=generator).double()
    shares = torch.rand(2, 3, 4, generator=generator).double() + 0.1
    shares = shares / shares.sum(-1, keepdim=True)
    anywhere = (means + 10) @ (means + 10).transpose(-1, -2)
    found = mixture_information(anywhere, shares)
    crooked = anywhere.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert torch.equal(mixture_information(crooked, shares), found)
    for i in range(2):
        for j in range(3):
            single = mixture_information(separation_of(means[i, j], shares[i, j]), shares[i, j])
            assert found[i, j].item() == pytest.approx(single.item(), abs=2e-3)  # other axes, other points
    narrow = mixture_information(anywhere.float(), shares.float())
    assert narrow.dtype == torch.float64
    torch.testing.assert_close(narrow, found, atol=2e-3, rtol=0)


@pytest.mark.parametrize("far", [False, True])
def test_chunks_and_the_form_for_classes_far_apart_change_nothing(far, monkeypatch):
    means, share = sample(7, 9, 1.0)
    separation = separation_of(means, share).expand(5, 7, 7) * torch.tensor([0.1, 1, 3, 10, 200])[:, None, None]
    expected = mixture_information(separation, share)
    monkeypatch.setattr(mixture, "ELEMENTS", 1000)
    if far:
        monkeypatch.setattr(mixture, "REACH", -1.0)
    torch.testing.assert_close(mixture_information(separation, share), expected, atol=1e-12, rtol=1e-12)


def test_seeds_and_points_agree_within_what_is_said(monkeypatch):
    for classes, error in ((4, 2e-4), (10, 7e-4)):
        means, share = sample(classes, 20, 0.5, seed=classes)
        separation = separation_of(means, share)
        monkeypatch.setattr(mixture, "SEED", 9)
        exact = mixture_information(separation, share, points=2**16)
        gaps = []
        for seed in range(6):
            monkeypatch.setattr(mixture, "SEED", seed)
            gaps.append(mixture_information(separation, share) - exact)
        gaps = torch.stack(gaps)
        assert gaps.square().mean().sqrt() < 1.5 * error
        assert not torch.equal(gaps[0], gaps[1])


@pytest.mark.parametrize(
    ("separation", "share", "options", "message"),
    [
        ([[1.0]], torch.ones(1), {}, "separation is list"),
        (torch.ones(2, 2).long(), torch.ones(2) / 2, {}, "separation is torch.int64"),
        (torch.ones(2, 3), torch.ones(2) / 2, {}, "separation has shape"),
        (torch.ones(2), torch.ones(2) / 2, {}, "separation has shape"),
        (torch.eye(2), torch.ones(3) / 3, {}, "share has shape"),
        (torch.eye(2).expand(4, 2, 2), torch.ones(3, 2) / 2, {}, "share has shape"),
        (torch.eye(2), torch.ones(2), {}, "share has rows that are not probabilities"),
        (torch.eye(2), torch.tensor([1.5, -0.5]), {}, "share has rows that are not probabilities"),
        (torch.eye(2), torch.tensor([math.nan, 1.0]), {}, "share has rows that are not probabilities"),
        (torch.eye(2) * math.nan, torch.ones(2) / 2, {}, "NaN or infinite"),
        (torch.eye(2), torch.ones(2) / 2, {"points": 0}, "points is 0"),
    ],
)
def test_bad_input(separation, share, options, message):
    with pytest.raises(InvalidInputError, match=message):
        mixture_information(separation, share, **options)
