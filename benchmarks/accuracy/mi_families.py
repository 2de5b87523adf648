"""Families of states and outputs whose mutual information is known: closed form, or Monte Carlo with 100,000 points.

A case has a low-dimensional latent z with a known density given the class. An invertible map embeds z and independent
nuisance dimensions in d dimensions, so that I(states; output) = I(z; output).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

MONTE_CARLO = 100_000


@dataclass(frozen=True)
class Case:
    """States and outputs of one site, and their mutual information in nats."""

    states: Tensor  # (n, d) float32
    outputs: Tensor  # (n,) classes or (n, K) probabilities
    truth: float


class RandomNumbers:
    """Random numbers from one seed, float64."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def classes(self, share: Tensor, n: int) -> Tensor:
        return torch.multinomial(share, n, True, generator=self.generator)

    def student(self, degrees: int, *shape: int) -> Tensor:
        return self.normal(*shape) / (self.normal(degrees, *shape).square().mean(0)).sqrt()


Sample = Callable[[Tensor], Tensor]  # classes -> latents (n, q)
Density = Callable[[Tensor], Tensor]  # latents -> (n, K) log density of each class


def monte_carlo(sample: Sample, density: Density, share: Tensor, rng: RandomNumbers) -> float:
    """Return I(z; class), the mean of log (posterior / prior)."""
    labels = rng.classes(share, MONTE_CARLO)
    pointwise = []
    latents = sample(labels)
    for z, y in zip(latents.split(10_000), labels.split(10_000)):
        posterior = (density(z) + share.log()).log_softmax(1)
        pointwise.append(posterior.gather(1, y[:, None])[:, 0] - share[y].log())
    return float(torch.cat(pointwise).mean())


# --- embeddings -------------------------------------------------------------------------------------------------


def among_noise(z: Tensor, d: int, rng: RandomNumbers, *, top: bool = False, scale: float = 1.0) -> Tensor:
    """Put the latents into random coordinates (top: those of largest variance) of a power-law spectrum; rotate."""
    n, q = z.shape
    states = rng.normal(n, d)
    candidates = q if top else min(d, max(4 * q, d // 2))
    coordinates = torch.arange(q) if top else torch.randperm(candidates, generator=rng.generator)[:q]
    states[:, coordinates] = z * scale
    spectrum = torch.arange(1, d + 1).double().rsqrt()
    rotation = torch.linalg.qr(rng.normal(d, d))[0]
    return (states * (spectrum / spectrum.square().mean().sqrt()) @ rotation + 0.3).float()


def through_network(z: Tensor, d: int, rng: RandomNumbers, nuisance: int = 24) -> Tensor:
    """Map latents and nuisance dimensions through a random, injective two-layer network with leaky ReLU."""
    wide = torch.cat([z, rng.normal(len(z), nuisance)], 1)
    m = wide.shape[1]
    first, second = rng.normal(m, 256) / math.sqrt(m), rng.normal(256, d) / 16
    leaky = torch.nn.functional.leaky_relu
    hidden = leaky(wide @ first * 1.5 + rng.normal(256) * 0.5, 0.2)
    return (leaky(hidden @ second * 1.5 + rng.normal(d) * 0.3, 0.2) + 0.3).float()


# --- latents ----------------------------------------------------------------------------------------------------


def _share(classes: int, kind: str = "equal") -> Tensor:
    if kind == "90/10":
        return torch.tensor([0.9, 0.1], dtype=torch.float64)
    weights = torch.arange(1, classes + 1).double() ** (-0.7 if kind == "zipf" else 0.0)
    return weights / weights.sum()


def _spread_means(rng: RandomNumbers, classes: int, q: int, length: float) -> Tensor:
    means = rng.normal(classes, q)
    means = means - means.mean(0)
    return means / means.norm(dim=1).mean() * length


def shifted(rng: RandomNumbers, classes: int, q: int, length: float, noise: str = "normal") -> tuple[Sample, Density]:
    """Return classes with different means and noise of this kind."""
    means = _spread_means(rng, classes, q, length)

    def sample(y: Tensor) -> Tensor:
        if noise == "normal":
            return means[y] + rng.normal(len(y), q)
        if noise == "laplace":
            u = rng.uniform(len(y), q) - 0.5
            return means[y] - u.sign() * (1 - 2 * u.abs()).clamp_min(1e-12).log()
        if noise == "skew":  # exponential
            return means[y] - rng.uniform(len(y), q).clamp_min(1e-12).log()
        if noise == "elliptic":  # multivariate Student t, 3 degrees
            return means[y] + rng.normal(len(y), q) / rng.normal(3, len(y), 1).square().mean(0).sqrt()
        return means[y] + rng.student(int(noise), len(y), q)

    def density(z: Tensor) -> Tensor:
        apart = z[:, None] - means
        if noise == "normal":
            return -apart.square().sum(-1) / 2
        if noise == "laplace":
            return -apart.abs().sum(-1)
        if noise == "skew":
            return torch.where((apart >= 0).all(-1), -apart.sum(-1), -1e9)
        if noise == "elliptic":
            return -(3 + q) / 2 * torch.log1p(apart.square().sum(-1) / 3)
        degrees = int(noise)
        return -(degrees + 1) / 2 * torch.log1p(apart.square() / degrees).sum(-1)

    return sample, density


def modes(rng: RandomNumbers, classes: int, count: int, q: int, length: float) -> tuple[Sample, Density]:
    """Return classes that are mixtures of `count` Gaussians with random centers at this distance from the origin."""
    centers = rng.normal(classes, count, q)
    centers = centers / centers.norm(dim=-1, keepdim=True) * length

    def sample(y: Tensor) -> Tensor:
        mode = torch.randint(0, count, (len(y),), generator=rng.generator)
        return centers[y, mode] + rng.normal(len(y), q)

    def density(z: Tensor) -> Tensor:
        return (-(z[:, None, None] - centers).square().sum(-1) / 2).logsumexp(-1)

    return sample, density


def exclusive_or(length: float, rng: RandomNumbers) -> tuple[Sample, Density]:
    """Return two classes, each at two opposite corners of a square, so that the class means are equal."""
    corners = torch.tensor([[[1.0, 1], [-1, -1]], [[1, -1], [-1, 1]]], dtype=torch.float64) * length / math.sqrt(2)

    def sample(y: Tensor) -> Tensor:
        mode = torch.randint(0, 2, (len(y),), generator=rng.generator)
        return corners[y, mode] + rng.normal(len(y), 2)

    def density(z: Tensor) -> Tensor:
        return (-(z[:, None, None] - corners).square().sum(-1) / 2).logsumexp(-1)

    return sample, density


def scales(rng: RandomNumbers, classes: int, q: int, length: float) -> tuple[Sample, Density]:
    """Return classes with equal means and standard deviations exp(l_k) in each of q dimensions: rings."""
    levels = torch.linspace(-0.5, 0.5, classes).double() * length

    def sample(y: Tensor) -> Tensor:
        return rng.normal(len(y), q) * levels[y, None].exp()

    def density(z: Tensor) -> Tensor:
        return -z.square().sum(1, keepdim=True) / 2 * (-2 * levels).exp() - q * levels

    return sample, density


# --- cases ------------------------------------------------------------------------------------------------------


def _case(
    rng: RandomNumbers, latent: tuple[Sample, Density], share: Tensor, n: int, embed: Callable[[Tensor], Tensor]
) -> Case:
    sample, density = latent
    truth = monte_carlo(sample, density, share, rng)
    labels = rng.classes(share, n)
    return Case(embed(sample(labels)), labels, max(0.0, truth))


def _curve(rng: RandomNumbers, level: float, n: int, d: int, classes: int, width: float) -> Case:
    """Return states on a random curve of three frequencies; the class is the bin of the noisy position on it."""
    amplitude = rng.normal(6, d) / math.sqrt(d) * torch.tensor([3.0, 3, 2, 2, 1.5, 1.5], dtype=torch.float64)[:, None]
    spread = (1 - level) * 0.6 + 0.03  # standard deviation of the label's noise around the position

    def posterior(t: Tensor) -> Tensor:
        edges = torch.linspace(0, 1, classes + 1).double()[1:-1]
        below = torch.special.ndtr((edges - t[:, None]) / spread)
        below = torch.cat([torch.zeros(len(t), 1).double(), below, torch.ones(len(t), 1).double()], 1)
        return below.diff(dim=1).clamp_min(1e-300)

    t = rng.uniform(n)
    grid = (torch.arange(20_000).double() + 0.5) / 20_000
    p = posterior(grid)
    truth = -(p.mean(0) * p.mean(0).log()).sum() + (p * p.log()).sum(1).mean()
    angle = 1.5 * math.pi * t[:, None] * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    states = torch.cat([angle.cos(), angle.sin()], 1)[:, [0, 3, 1, 4, 2, 5]] @ amplitude + width * rng.normal(
        n, d
    ) / math.sqrt(d)
    labels = torch.multinomial(posterior(t), 1, generator=rng.generator)[:, 0]
    return Case(states.float(), labels, float(truth))


def _symbols(rng: RandomNumbers, level: float, n: int, d: int, classes: int, values: int, kind: str) -> Case:
    """Return integer states with four coordinates whose distribution over `values` integers depends on the class."""
    q = 4
    share = _share(classes)
    tables = (rng.normal(classes, q, values) * 1.6 * level).log_softmax(-1)

    def sample(y: Tensor) -> Tensor:
        flat = tables.exp()[y].reshape(-1, values)
        return torch.multinomial(flat, 1, generator=rng.generator)[:, 0].reshape(len(y), q).double()

    def density(z: Tensor) -> Tensor:
        return sum(tables[:, j][:, z[:, j].long()].T for j in range(q))

    truth = monte_carlo(sample, density, share, rng)
    labels = rng.classes(share, n)
    states = torch.randint(0, values, (n, d), generator=rng.generator).double()
    if kind == "counts":
        states = torch.poisson(torch.full((n, d), 2.0, dtype=torch.float64), generator=rng.generator)
    coordinates = torch.randperm(d, generator=rng.generator)[:q]
    states[:, coordinates] = sample(labels)
    return Case(states.float(), labels, max(0.0, truth))


def _soft(rng: RandomNumbers, level: float, n: int, d: int, classes: int, sharp: float, teacher: str) -> Case:
    """Return probabilities softmax(f(u)) and states that contain a noisy copy of u with correlation `level`."""
    q, rho = 4, min(0.999, level)
    weights = rng.normal(classes, q) * sharp
    first, second = rng.normal(q, 32), rng.normal(32, classes) / math.sqrt(32) * sharp * 1.5

    def outputs(u: Tensor) -> Tensor:
        logits = u @ weights.T if teacher == "linear" else torch.tanh(u @ first) @ second
        return logits.softmax(-1)

    noise = math.sqrt(1 - rho * rho)
    u = rng.normal(n, q)
    z = rho * u + noise * rng.normal(n, q)
    probe, extra = rng.normal(4000, q), rng.normal(400, q)
    posterior = torch.cat([outputs(rho * part[:, None] + noise * extra).mean(1) for part in probe.split(500)])
    mean = posterior.mean(0)
    truth = -(mean * mean.log()).sum() + (posterior * posterior.clamp_min(1e-300).log()).sum(1).mean()
    return Case(among_noise(z, d, rng), outputs(u), max(0.0, float(truth)))


_DIGITS: list[tuple[Tensor, Tensor]] = []


def _digits(rng: RandomNumbers, level: float, d: int) -> Case:
    """Return images of digits and labels that are replaced by a random one with probability 1 - level.

    The digit is a function of the image, so that the information is that of the noisy channel.
    """
    if not _DIGITS:
        from sklearn.datasets import load_digits

        images, digit = load_digits(return_X_y=True)
        _DIGITS.append((torch.from_numpy(images), torch.from_numpy(digit)))
    images, digit = _DIGITS[0]
    other = torch.randint(0, 10, digit.shape, generator=rng.generator)
    labels = torch.where(rng.uniform(len(digit)) < level, digit, other)
    right, wrong = level + (1 - level) / 10, (1 - level) / 10
    truth = math.log(10) + right * math.log(right) + (9 * wrong * math.log(wrong) if wrong > 0 else 0.0)
    images = images / 16 + 0.01 * rng.normal(*images.shape)
    if d == 64:
        return Case(images.float(), labels, truth)
    return Case(through_network(images * 4 - 1, d, rng, 0), labels, truth)


def _lin(
    rng: RandomNumbers, level: float, n: int, classes: int, length: float, q: int = 0, share: str = "equal", **embedding
):
    noise = embedding.pop("noise", "normal")
    d = embedding.pop("d", 384)
    latent = shifted(rng, classes, q or classes - 1, level * length, noise)
    return _case(rng, latent, _share(classes, share), n, lambda z: among_noise(z, d, rng, **embedding))


def _modes(rng: RandomNumbers, level: float, classes: int, count: int, q: int, length: float, network: bool) -> Case:
    def embed(z: Tensor) -> Tensor:
        return through_network(z, 384, rng) if network else among_noise(z, 384, rng, top=True)

    return _case(rng, modes(rng, classes, count, q, level * length), _share(classes), 2000, embed)


def _square(rng: RandomNumbers, level: float) -> Case:
    latent = shifted(rng, 4, 3, 2.2 * level)
    return _case(rng, latent, _share(4), 2000, lambda z: (lambda h: h * h.abs())(among_noise(z, 384, rng)))


Family = Callable[[RandomNumbers, float], Case]
KNOWN: dict[str, Family] = {
    "lin": lambda rng, level: _lin(rng, level, 2000, 4, 2.2),
    "network": lambda rng, level: _modes(rng, level, 4, 2, 4, 2.5, True),
    "digits": lambda rng, level: _digits(rng, level, 64),
    "digits network": lambda rng, level: _digits(rng, level, 384),
    "exclusive or": lambda rng, level: _case(
        rng, exclusive_or(3 * level, rng), _share(2), 2000, lambda z: among_noise(z, 384, rng, top=True, scale=3.0)
    ),
}
DEVELOPMENT: dict[str, Family] = {
    "three modes": lambda rng, level: _modes(rng, level, 3, 3, 3, 3.0, False),
    "student": lambda rng, level: _lin(rng, level, 2000, 4, 2.5, noise="3"),
    "90/10": lambda rng, level: _lin(rng, level, 2000, 2, 2.2, q=3, share="90/10"),
    "20 classes": lambda rng, level: _lin(rng, level, 2000, 20, 2.5),
    "20 classes flat": lambda rng, level: _lin(rng, level, 2000, 20, 3.0, q=4),
    "weak": lambda rng, level: _weak(rng, level, 3, 0.05),
    "symbols": lambda rng, level: _symbols(rng, level, 2000, 384, 3, 3, "uniform"),
    "curve": lambda rng, level: _curve(rng, level, 2000, 384, 5, 0.1),
    "n 500": lambda rng, level: _lin(rng, level, 500, 3, 2.2),
    "n 20000": lambda rng, level: _lin(rng, level, 20_000, 4, 2.2),
    "soft": lambda rng, level: _soft(rng, level, 2000, 384, 4, 1.5, "linear"),
    "signed squares": _square,
}
HELD_OUT: dict[str, Family] = {
    "five modes network": lambda rng, level: _modes(rng, level, 2, 5, 3, 3.5, True),
    "elliptic student": lambda rng, level: _lin(rng, level, 2000, 3, 2.5, noise="elliptic"),
    "laplace": lambda rng, level: _lin(rng, level, 2000, 4, 3.0, noise="laplace"),
    "zipf classes": lambda rng, level: _lin(rng, level, 2000, 8, 2.5, share="zipf"),
    "30 classes": lambda rng, level: _lin(rng, level, 2000, 30, 2.5, q=10),
    "very weak": lambda rng, level: _weak(rng, level, 4, 0.02),
    "counts": lambda rng, level: _symbols(rng, level, 2000, 384, 4, 5, "counts"),
    "ordinal": lambda rng, level: _curve(rng, level, 2000, 384, 8, 0.3),
    "n 500 modes": lambda rng, level: _case(
        rng, modes(rng, 2, 2, 3, 3 * level), _share(2), 500, lambda z: among_noise(z, 64, rng, top=True)
    ),
    "n 20000 modes": lambda rng, level: _case(
        rng, modes(rng, 3, 2, 4, 3 * level), _share(3), 20_000, lambda z: through_network(z, 384, rng)
    ),
    "soft network": lambda rng, level: _soft(rng, level, 2000, 384, 5, 1.2, "network"),
    "rings": lambda rng, level: _case(
        rng, scales(rng, 3, 4, 1.6 * level), _share(3), 2000, lambda z: among_noise(z, 384, rng, top=True)
    ),
}
FRESH: dict[str, Family] = {  # evaluated once, after every design decision
    "student 5": lambda rng, level: _lin(rng, level, 2000, 3, 2.5, noise="5"),
    "signs": lambda rng, level: _signs(rng, level),
    "modes zipf": lambda rng, level: _case(
        rng, modes(rng, 5, 2, 4, 3 * level), _share(5, "zipf"), 2000, lambda z: through_network(z, 384, rng)
    ),
    "12 classes n 5000": lambda rng, level: _lin(rng, level, 5000, 12, 2.5, q=6),
    "words": lambda rng, level: _words(rng, level),
    "soft sharp": lambda rng, level: _soft(rng, level, 2000, 384, 3, 3.0, "linear"),
}
FAMILIES = KNOWN | DEVELOPMENT | HELD_OUT | FRESH


def _weak(rng: RandomNumbers, level: float, classes: int, scale: float) -> Case:
    latent = shifted(rng, classes, classes - 1, level * 2.2)
    return _case(rng, latent, _share(classes), 2000, lambda z: among_noise(z, 384, rng, scale=scale))


def _signs(rng: RandomNumbers, level: float) -> Case:
    """Return states of plus and minus one, eight of 384 of which agree with a code of the class more often than not."""
    q, rate = 8, 0.5 + 0.3 * level
    codes = torch.randint(0, 2, (4, q), generator=rng.generator).double() * 2 - 1

    def sample(y: Tensor) -> Tensor:
        return codes[y] * torch.where(rng.uniform(len(y), q) < rate, 1.0, -1.0).double()

    def density(z: Tensor) -> Tensor:
        same = (z[:, None] == codes).sum(-1)
        return same * math.log(rate) + (q - same) * math.log(1 - rate)

    def embed(z: Tensor) -> Tensor:
        states = torch.randint(0, 2, (len(z), 384), generator=rng.generator).double() * 2 - 1
        states[:, torch.randperm(384, generator=rng.generator)[:q]] = z
        return states.float()

    return _case(rng, (sample, density), _share(4), 2000, embed)


def _words(rng: RandomNumbers, level: float) -> Case:
    """Return the embeddings of 25 words as states; the class depends on the word by a random table."""
    table = (rng.normal(25, 4) * 2 * level).softmax(1)
    word = torch.randint(0, 25, (2000,), generator=rng.generator)
    labels = torch.multinomial(table[word], 1, generator=rng.generator)[:, 0]
    mean = table.mean(0)
    truth = -(mean * mean.log()).sum() + (table * table.log()).sum(1).mean()
    return Case(rng.normal(25, 384)[word].float(), labels, max(0.0, float(truth)))


def cases(name: str, seed: int, count: int = 8) -> Iterator[Case]:
    """Yield cases of a family, from no signal to a strong one."""
    for index in range(count):
        rng = RandomNumbers(1000 * seed + index)
        yield FAMILIES[name](rng, index / (count - 1) if count > 1 else 0.6)
