"""Estimation stays on the device of the states, and gives what the CPU gives."""

import dataclasses

import pytest
import torch

from hf_attn_mi.mi import fit_probe, mutual_information
from tests.mi.other_device import DEVICE, OtherDevice

N, D = 200, 6
# Copies to the CPU of one number or more for each example that are wanted: outputs, draws, and scikit-learn's data.
NAMED = {"_prepared", "_fit_sites", "draw_classes", "mark_of", "_boosted"}


def data(kind):
    draw = torch.Generator().manual_seed(3)
    states = torch.randn(1, N, D, generator=draw)
    if kind == "soft":
        return states, (states[0, :, :3] * 2).softmax(1)
    if kind == "many classes":
        return states, torch.arange(N) % 8
    if kind == "values":
        return states[0, :, :2] + 0.5 * torch.randn(N, 2, generator=draw), states[0, :, 1]
    if kind == "discrete":
        states = torch.randint(3, (1, N, D), generator=draw).float()
        return states, (states[0, :, 0] + states[0, :, 1] > 2).long()
    return states + (torch.arange(N) % 2)[:, None], torch.arange(N) % 2


def same(one, other):
    for item in dataclasses.fields(one):
        value, wanted = getattr(one, item.name), getattr(other, item.name)
        if isinstance(value, torch.Tensor):
            assert value.device.type == "cpu"
            torch.testing.assert_close(value, wanted, rtol=0, atol=1e-6, equal_nan=True)
        elif item.name != "warnings":
            assert value == wanted, item.name


def measured(kind, **options):
    """The result on the CPU, that of the other device, and the copies from there to the CPU."""
    states, outputs = data(kind)
    wanted = mutual_information(states, outputs, permutations=3, folds=5, **options)
    with OtherDevice() as device:
        found = mutual_information(device.put(states), device.put(outputs), permutations=3, folds=5, **options)
    return wanted, found, {name for name, count in device.copies if count >= N}


@pytest.mark.parametrize(  # "auto" has the other estimators as parts
    ("kind", "estimator"),
    [("hard", "auto"), ("soft", "auto"), ("hard", "gaussian"), ("hard", "ksg"), ("soft", "logistic")],
)
def test_estimates_of_classes(kind, estimator):
    wanted, found, copied = measured(kind, estimator=estimator)
    same(found, wanted)
    assert copied <= NAMED


@pytest.mark.parametrize("kind", ["many classes", "discrete"])
def test_other_branches(kind):
    wanted, found, copied = measured(kind)
    same(found, wanted)
    assert copied <= NAMED


@pytest.mark.parametrize("estimator", ["auto_continuous", "gaussian_continuous"])
def test_estimates_of_vectors(estimator):
    wanted, found, copied = measured("values", estimator=estimator)
    same(found, wanted)
    assert copied <= NAMED


def test_trees_are_fitted_on_the_cpu_and_the_result_says_so():
    wanted, found, copied = measured("hard", estimator="gaussian", effort="default")
    same(found, wanted)
    assert "_boosted" in copied
    assert copied <= NAMED
    assert f"everything else was computed on {DEVICE}" in found.warnings[0]
    assert wanted.warnings == found.warnings[1:]


def test_a_probe_stays_on_the_device():
    states, outputs = data("soft")
    wanted = fit_probe(states, outputs)
    with OtherDevice() as device:
        found = fit_probe(device.put(states), device.put(outputs))
        for name in ("directions", "offsets", "prior"):
            value = getattr(found, name)
            assert value.device == DEVICE
            torch.testing.assert_close(value.cpu(), getattr(wanted, name), rtol=0, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["hard", "soft", "many classes", "values"])
def test_cuda_gives_what_the_cpu_gives(kind):
    states, outputs = data(kind)
    wanted = mutual_information(states, outputs, permutations=3)
    found = mutual_information(states.cuda(), outputs.cuda(), permutations=3)
    for name, most in (("lower_bound", 1e-3), ("upper_bound", 1e-9), ("nats", 0.02)):  # rounding seeds draws of `nats`
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=0, atol=most, equal_nan=True)
