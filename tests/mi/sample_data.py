"""Data of known information for the tests."""

import math

import torch


def two_classes_information(distance):
    """Information of two equally likely unit normals this far apart, by the trapezoidal rule."""
    x = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    densities = torch.stack(
        [(-((x - m) ** 2) / 2).exp() / math.sqrt(2 * math.pi) for m in (-distance / 2, distance / 2)]
    )
    mixture = densities.mean(0)
    terms = torch.where(densities > 0, densities * (densities.clamp_min(1e-300) / mixture.clamp_min(1e-300)).log(), 0)
    return float(torch.trapezoid(terms.mean(0), x))


def shifted_classes(n, d, distance, classes=2, seed=0):
    """States whose class means lie on a simplex with sides of this length, correlated noise, and classes."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=draw)
    states = torch.randn(n, d, generator=draw)
    states[torch.arange(n), labels] += distance / math.sqrt(2)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(1)) / math.sqrt(d) + torch.eye(d)
    return states @ mix + 3, labels


def exclusive_or(n, d, distance, seed=0):
    """Two classes at opposite corners of a square in the two directions of largest variance."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=draw)
    sign = torch.randint(2, (n,), generator=draw) * 2.0 - 1
    states = torch.randn(n, d, generator=draw)
    states[:, 0] += sign * distance / 2
    states[:, 1] += sign * (1 - 2.0 * labels) * distance / 2
    states[:, :2] *= 3
    return states, labels


def exclusive_or_information(distance, points=200_000):
    """Its information by Monte Carlo: H(Y) - E h(posterior)."""
    draw = torch.Generator().manual_seed(9)
    z = torch.randn(points, 2, generator=draw, dtype=torch.float64) + distance / 2  # one corner: the rest by symmetry
    a, b = z[:, 0] * distance / 2, z[:, 1] * distance / 2
    log_odds = torch.logaddexp(a + b, -a - b) - torch.logaddexp(a - b, b - a)
    return math.log(2) - float(torch.nn.functional.softplus(-log_odds).mean())
