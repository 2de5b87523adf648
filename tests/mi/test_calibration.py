"""Calibration against logistic regression and exact refits."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hf_attn_mi.mi.calibration import calibrate, out_of_fold


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
