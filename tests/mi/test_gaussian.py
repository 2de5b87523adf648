"""Closed forms for Gaussian data against integrals, exact refits and simulation."""

import math

import pytest
import torch

from hf_attn_mi.kernels import class_moments, class_separation, factor_classes, mixture_information
from hf_attn_mi.mi import mutual_information
from hf_attn_mi.mi.coordinates import balance, principal_components
from hf_attn_mi.mi.folds import SHRINKAGE, draw_folds, sum_folds
from hf_attn_mi.mi.gaussian import _separations, spectrum_bias

from .sample_data import shifted_classes, two_classes_information


@pytest.mark.parametrize("distance", [0.3, 1.0, 2.5, 6.0])
def test_quadrature_is_the_integral(distance):
    half = distance**2 / 4
    separation = torch.tensor([[half, -half], [-half, half]], dtype=torch.float64)
    share = torch.full((2,), 0.5, dtype=torch.float64)
    truth = two_classes_information(distance)
    assert float(mixture_information(separation, share)) == pytest.approx(truth, abs=2e-4)
    assert float(mixture_information(-separation, share)) == pytest.approx(-truth, abs=2e-4)


def test_noise_in_the_spectrum_of_many_classes_is_taken_off():
    n, d, classes = 1000, 250, 20
    share = torch.full((classes,), 1 / classes, dtype=torch.float64)
    centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
    truth = float(mixture_information(2.5 * centring, share, points=8192))
    raw, corrected = [], []
    for seed in range(8):
        states, labels = shifted_classes(n, d, math.sqrt(5.0), classes, seed=seed)  # inner products 2.5 (I - 1/K)
        moments = class_moments(states, labels)
        factors = factor_classes(moments, metric="total", shrinkage=1e-6)
        separation, seen = class_separation(moments, factors)[0], moments.weights.sum(0) / n
        value = float(mixture_information(separation, seen, points=1024))
        raw.append(value - truth)
        corrected.append(value - spectrum_bias(separation, seen, n, d) - truth)
    assert sum(raw) / 8 < -0.04  # standard error 0.015
    assert abs(sum(corrected) / 8) < abs(sum(raw) / 8) - 0.02


def test_vectors_without_information_have_none_on_average():
    found, folds = [], 10
    for seed in range(12):
        draw = torch.Generator().manual_seed(seed)
        states = torch.randn(300, 60, generator=draw)
        found.append(
            float(
                mutual_information(states, torch.zeros(300, 3), noise=1.0, folds=folds, permutations=1, seed=seed).nats
            )
        )
    assert abs(sum(found) / 12) < 0.04  # the plug-in value is above 0.3
    assert max(map(abs, found)) < 0.2


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("n", "d"), [(400, 40), (300, 150)])
def test_left_out_separations_are_those_of_the_kernels(soft, n, d):
    states, labels = shifted_classes(n, d, 1.5, classes=3)
    probabilities = torch.nn.functional.one_hot(labels).double()
    if soft:
        probabilities = (probabilities * 2).softmax(1)
    points = principal_components(balance(states)[0]).points
    fold_of = draw_folds(labels, 10, 0)
    expected = []
    for used in (fold_of >= 0, fold_of != 0, fold_of != 4):
        exact = class_moments(points[used].double(), probabilities[used])
        factors = factor_classes(exact, metric="total", shrinkage=SHRINKAGE)
        expected.append(class_separation(exact, factors)[0])
    found = _separations(sum_folds(points, probabilities, fold_of))
    torch.testing.assert_close(found[[0, 1, 5]], torch.stack(expected), atol=1e-3, rtol=1e-3)
