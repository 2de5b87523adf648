"""Folds and the jackknife against closed forms."""

import math

import pytest
import torch
from scipy.stats import t as student

from hf_attn_mi.mi.folds import draw_folds, fold_means, half_width, jackknife_error


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
