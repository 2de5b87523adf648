"""Pieces of the estimators against definitions, closed forms, exact refits and simulation."""

import math

import pytest
import torch
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression

from hf_attn_mi.kernels import class_moments, class_separation, factor_classes, mixture_information
from hf_attn_mi.mi import fit_probe, mutual_information
from hf_attn_mi.mi.calibration import calibrate, out_of_fold
from hf_attn_mi.mi.folds import draw_folds, fold_means, half_width, jackknife_error
from hf_attn_mi.mi.gaussian import _separations
from hf_attn_mi.mi.gaussianize import rank_normal
from hf_attn_mi.mi.leave_out import SHRINKAGE, sum_folds
from hf_attn_mi.mi.permutations import draw_shuffles, p_values, permuted_statistics
from hf_attn_mi.mi.principal import balance, principal_components
from hf_attn_mi.mi.spectrum import spectrum_bias

from .cases import shifted_classes, two_classes_information


@pytest.mark.parametrize("distance", [0.3, 1.0, 2.5, 6.0])
def test_quadrature_is_the_integral(distance):
    half = distance**2 / 4
    separation = torch.tensor([[half, -half], [-half, half]], dtype=torch.float64)
    share = torch.full((2,), 0.5, dtype=torch.float64)
    truth = two_classes_information(distance)
    assert float(mixture_information(separation, share)) == pytest.approx(truth, abs=2e-4)
    assert float(mixture_information(-separation, share)) == pytest.approx(-truth, abs=2e-4)


def scores_and_classes(n=600, classes=4):
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n,), generator=draw)
    scores = torch.randn(n, classes, generator=draw)
    scores[torch.arange(n), labels] += 1
    return scores, torch.nn.functional.one_hot(labels).double(), labels


def test_calibration_of_two_classes_is_logistic_regression():
    scores, probabilities, labels = scores_and_classes(classes=2)
    temperature, *offsets = calibrate(scores, probabilities).parameters.tolist()
    difference = (scores[:, 1] - scores[:, 0])[:, None].numpy()
    theirs = LogisticRegression(C=1e8, tol=1e-10).fit(difference, labels.numpy())
    assert temperature == pytest.approx(theirs.coef_[0, 0], abs=1e-3)
    assert offsets[1] - offsets[0] == pytest.approx(theirs.intercept_[0], abs=1e-3)


def test_one_step_without_a_fold_is_a_refit_without_it():
    scores, probabilities, _ = scores_and_classes()
    fold_of = torch.arange(len(scores)) % 10
    exact = torch.empty_like(probabilities)
    for fold in range(10):
        rest, inside = fold_of != fold, fold_of == fold
        fitted = calibrate(scores[rest], probabilities[rest]).parameters
        exact[inside] = (fitted[0] * scores[inside].double() + fitted[1:]).log_softmax(1)
    found = out_of_fold(scores, probabilities, fold_of)
    whole = calibrate(scores, probabilities).parameters
    uncrossed = (whole[0] * scores.double() + whole[1:]).log_softmax(1)
    assert float((found - exact).abs().max()) < 0.1 * float((uncrossed - exact).abs().max())


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
        separation, seen = class_separation(moments, factors)[0, 0], moments.weights[0].sum(0) / n
        value = float(mixture_information(separation, seen, points=1024))
        raw.append(value - truth)
        corrected.append(value - spectrum_bias(separation, seen, n, d) - truth)
    assert sum(raw) / 8 < -0.04  # standard error 0.015
    assert abs(sum(corrected) / 8) < abs(sum(raw) / 8) - 0.02


def test_jackknife_and_interval():
    values = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    each = torch.arange(50)  # folds of one example: the ordinary standard error of a mean
    error = float(jackknife_error(fold_means(values, each)))
    assert error == pytest.approx(float(values.std()) / math.sqrt(50), rel=1e-9)
    assert half_width(2.0, 10) == pytest.approx(2 * student.ppf(0.975, 9))


def test_folds_hold_each_class_evenly():
    labels = torch.tensor([0] * 90 + [1] * 10)
    fold_of = draw_folds(labels, 5, 0)
    assert torch.bincount(fold_of[labels == 1]).tolist() == [2] * 5
    assert torch.bincount(fold_of).tolist() == [20] * 5
    assert not torch.equal(fold_of, draw_folds(labels, 5, 1))


def test_permutation_test_keeps_its_level():
    found = []
    for seed in range(400):
        draw = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (120,), generator=draw)
        site = principal_components(balance(torch.randn(120, 6, generator=draw))[0])
        shuffles = draw_shuffles(torch.nn.functional.one_hot(labels).double(), labels, 39, seed)
        found.append(permuted_statistics(site, shuffles))
    alone, _ = p_values(torch.stack(found))
    rate = float((alone <= 0.05).double().mean())
    assert 0.025 <= rate <= 0.08  # binomial of 5 % and 400


def test_family_wise_p_values_by_hand():
    # Largest of both sites in each permutation: 3, 2, 4. Site 0 saw 3: itself, 3 and 4 are as large.
    statistics = torch.tensor([[3.0, 3.0, 1.0, 0.0], [2.5, 0.0, 2.0, 4.0]])
    alone, family = p_values(statistics)
    assert alone.tolist() == [0.5, 0.5]
    assert family.tolist() == [0.75, 0.75]


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


def test_whitened_components_are_uncorrelated_and_drop_what_is_constant():
    states, _ = shifted_classes(500, 20, 1.0)
    states[:, 3] = 7.1
    states[:, 4] = states[:, 5] * 2 + 1
    found = principal_components(balance(states)[0])
    assert found.rank == 18
    torch.testing.assert_close(found.points.T @ found.points / 500, torch.eye(18), atol=1e-3, rtol=0)


def test_rank_normal_shares_ranks_of_ties():
    found = rank_normal(torch.tensor([[1.0], [5.0], [5.0], [9.0]]))
    expected = torch.special.ndtri(torch.tensor([[0.5], [2.0], [2.0], [3.5]]) / 4)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("soft", [False, True])
def test_probe_knows_the_posterior_of_new_states(soft):
    draw = torch.Generator().manual_seed(0)
    means = torch.randn(3, 10, generator=draw)

    def sample(n):
        labels = torch.randint(3, (n,), generator=draw)
        states = means[labels] + torch.randn(n, 10, generator=draw)
        return states, labels, (states @ means.T - means.square().sum(1) / 2).softmax(1)

    states, labels, posterior = sample(4000)
    probe = fit_probe(torch.stack([states, states * 3 + 1]), posterior if soft else labels)
    fresh, _, true = sample(1000)
    found = probe.log_posterior(torch.stack([fresh, fresh * 3 + 1]))
    divergence = (true * (true.log() - found)).sum(-1).mean(-1)
    assert float(divergence.max()) < (0.002 if soft else 0.01)
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)
    assert probe.prior.tolist() == pytest.approx(
        (posterior if soft else torch.nn.functional.one_hot(labels)).double().mean(0).tolist()
    )


def test_probe_keeps_the_places_of_classes_that_never_came():
    states, labels = shifted_classes(200, 4, 2.0)
    probe = fit_probe(states, labels * 2)
    assert probe.directions.shape == (3, 4)
    assert probe.log_posterior(states)[:, 1].max() == -torch.inf
    constant = fit_probe(torch.ones(200, 4), labels)
    torch.testing.assert_close(
        constant.log_posterior(torch.zeros(1, 4))[0].double(), constant.prior.log(), atol=1e-6, rtol=0
    )


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
        expected.append(class_separation(exact, factors)[0, 0])
    found = _separations(sum_folds(points, probabilities, fold_of))
    torch.testing.assert_close(found[[0, 1, 5]], torch.stack(expected), atol=1e-3, rtol=1e-3)
