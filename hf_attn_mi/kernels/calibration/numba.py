"""Calibration in numba (extra `fast`): a few thousand examples of a few classes are little work for an operation."""

# mypy: ignore-errors
# The arrays' types are what the caller passes: annotations would say nothing that numba reads.

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hf_attn_mi.kernels.calibration.torch import CONVERGED, NUGGET, RIDGE, SHORTEST, STEPS

OPTIONS = {"error_model": "numpy", "nogil": True}


def calibrate_numba(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parameters (1 + K,), the loss and the posterior (K, n) at the minimum, of tensors on the CPU."""
    parameters, posterior = scores.new_zeros(1 + len(scores)), torch.empty_like(scores)
    parameters[0] = 1 / scores.std().clamp_min(1e-12)
    loss = _minimize(scores.numpy(), target.numpy(), parameters.numpy(), posterior.numpy(), (RIDGE, NUGGET, CONVERGED))
    return parameters, torch.tensor(loss, dtype=torch.float64), posterior


def _compile():
    """Return the compiled minimization, kept on disk where a folder can be written."""

    def minimize(scores, target, parameters, posterior, constants):
        """Write the parameters at the minimum and the posterior there, and return the loss.

        Args:
            scores, target: (K, n) float64.
            parameters: (1 + K,) float64, the start, out.
            posterior: (K, n) float64, out.
            constants: ridge, nugget, gain at which the search ends.
        """
        ridge, nugget, converged = constants
        classes, n = scores.shape
        slope, second = np.empty(1 + classes), np.empty((1 + classes, 1 + classes))
        tried, other = np.empty(1 + classes), np.empty((classes, n))
        loss = -1.0
        for turn in range(STEPS + 1):
            size, value = 1.0, np.inf
            while True:
                for a in range(1 + classes):
                    tried[a] = parameters[a] if turn == 0 else parameters[a] - size * slope[a]
                total_loss = 0.0
                for i in range(n):
                    largest = -np.inf
                    for k in range(classes):
                        other[k, i] = tried[1 + k] + tried[0] * scores[k, i]
                        largest = max(largest, other[k, i])
                    total, inner = 0.0, 0.0
                    for k in range(classes):
                        inner += target[k, i] * other[k, i]
                        other[k, i] = math.exp(other[k, i] - largest)
                        total += other[k, i]
                    for k in range(classes):
                        other[k, i] /= total
                    total_loss += math.log(total) + largest - inner
                value = total_loss / n
                for k in range(classes):
                    value += ridge * tried[1 + k] * tried[1 + k]
                if turn == 0 or value <= loss or size <= SHORTEST:
                    break
                size /= 2
            if turn > 0 and not value <= loss:
                break
            gain = np.inf if turn == 0 else loss - value
            loss = value
            parameters[:] = tried
            posterior[:] = other
            if gain < converged or turn == STEPS:
                break
            slope[:] = 0.0
            second[:] = 0.0
            for i in range(n):
                mean = 0.0
                for k in range(classes):
                    mean += posterior[k, i] * scores[k, i]
                for k in range(classes):
                    weight, score = posterior[k, i], scores[k, i]
                    slope[0] += (weight - target[k, i]) * score
                    slope[1 + k] += weight - target[k, i]
                    second[0, 0] += weight * (score - mean) * (score - mean)
                    second[0, 1 + k] += weight * (score - mean)
                    second[1 + k, 1 + k] += weight
                    for m in range(k + 1):
                        second[1 + k, 1 + m] -= weight * posterior[m, i]
            slope /= n
            second /= n
            for k in range(classes):
                slope[1 + k] += 2 * ridge * parameters[1 + k]
                second[1 + k, 0] = second[0, 1 + k]
                second[1 + k, 1 + k] += 2 * ridge
                for m in range(k):
                    second[1 + m, 1 + k] = second[1 + k, 1 + m]
            for a in range(1 + classes):
                second[a, a] += nugget
            if not (np.isfinite(slope).all() and np.isfinite(second).all()):
                break  # there is no step, as in PyTorch, where it is not a number
            slope[:] = np.linalg.solve(second, slope)
        return loss

    try:
        return njit(cache=True, **OPTIONS)(minimize)
    except RuntimeError:
        return njit(**OPTIONS)(minimize)


_minimize = _compile()
