"""Temperature and offsets against the definition by L-BFGS, also where classes are absent, separate or unrelated."""

import importlib.util

import pytest
import torch

from hf_attn_mi.kernels.calibration import class_calibration
from hf_attn_mi.kernels.calibration.reference import reference_class_calibration

WITH_NUMBA = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not WITH_NUMBA, reason="numba (extra `fast`) is not installed")


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(logits):
    return torch.nn.functional.one_hot(logits.argmax(0), len(logits)).T.double()


def soft(scores):
    return (1.5 * scores + draws(*scores.shape, seed=1)).softmax(0)


def hard(scores):
    return drawn(scores + 2 * draws(*scores.shape, seed=2))


def unrelated(scores):
    return drawn(draws(*scores.shape, seed=3))


def absent(scores):
    target = drawn(scores[:-1] + draws(*scores[:-1].shape, seed=4))
    return torch.cat([target, torch.zeros_like(target[:1])])


@pytest.mark.parametrize("backend", ["torch", pytest.param("numba", marks=needs_numba)])
@pytest.mark.parametrize("target", [soft, hard, unrelated, absent])
@pytest.mark.parametrize(("classes", "n"), [(2, 63), (3, 257), (8, 1000)])
def test_is_the_minimum(backend, target, classes, n, nan_filled):
    scores = draws(classes, n)
    parameters, loss, posterior = class_calibration(scores, target(scores), backend=backend)
    expected = reference_class_calibration(scores, target(scores))
    assert loss == pytest.approx(float(expected[1]), abs=1e-8)
    torch.testing.assert_close(posterior, expected[2], atol=1e-3, rtol=0)
    torch.testing.assert_close(posterior, (parameters[0] * scores + parameters[1:, None]).softmax(0))


@needs_numba
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_backends_take_the_same_steps(scale):
    scores = scale * draws(4, 500)
    target = drawn(scores / scale)  # separate classes: no minimum, and the steps end
    found = [class_calibration(scores, target, backend=backend) for backend in ("torch", "numba")]
    for first, second in zip(*found):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-9)
    equal = [class_calibration(torch.ones(2, 50).double(), target[:2, :50], backend=b) for b in ("torch", "numba")]
    torch.testing.assert_close(equal[0][2], equal[1][2])


@pytest.mark.parametrize("backend", ["torch", pytest.param("numba", marks=needs_numba)])
@pytest.mark.parametrize("score", [0.0, 1e-200, 1e200])
def test_scores_without_a_usable_scale_end_the_search(backend, score):
    scores = torch.full((3, 60), score, dtype=torch.float64)
    scores[0, ::2] *= -1
    _, _, posterior = class_calibration(scores, drawn(draws(3, 60)), backend=backend)
    assert posterior.shape == (3, 60)
    twice = class_calibration(scores * torch.inf if score else scores, drawn(draws(3, 60)), backend=backend)
    assert twice[2].shape == (3, 60)
