"""Twenty families of states and outputs of known mutual information that are unlike those of mi_families.py.

`BEFORE` was written, and committed, before any estimate or bound had been computed on one of its families; `AFTER` was
written once the method was frozen, and no result on it changed the method. What no family of mi_families.py has: noise
in labels, manifolds, products of several coordinates, many classes of unequal spread, heavy tails that are correlated,
states that repeat, few examples, real encoder states.

The truth is H(mean P) - mean H(P) over 100,000 draws of the posterior P(z) of the latents z, or over all states of the
pool of real ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from benchmarks.accuracy.mi_families import (
    MONTE_CARLO,
    Case,
    Family,
    RandomNumbers,
    among_noise,
    shifted,
    through_network,
)
from benchmarks.common import EMBEDDED_MODEL, SHARED
from benchmarks.inputs import load_classifier, load_tokenizer, read_texts

POOL = 8000  # texts whose encoder states are sampled from
Posterior = Callable[[Tensor], Tensor]  # latents (n, q) -> (n, K)


def information_of(posteriors: Tensor) -> float:
    """Return H(mean P) - mean H(P) of (n, K) posteriors, nats."""
    mean = posteriors.mean(0)
    entropies = -(posteriors * posteriors.clamp_min(1e-300).log()).sum(1)
    return max(0.0, float(-(mean * mean.clamp_min(1e-300).log()).sum() - entropies.mean()))


def _drawn(
    rng: RandomNumbers,
    sample: Callable[[int], Tensor],
    posterior: Posterior,
    n: int,
    embed: Callable[[Tensor], Tensor],
    *,
    soft: bool = False,
) -> Case:
    """Return a case from a sampler of latents, their posterior and an injective embedding."""
    truth = information_of(torch.cat([posterior(part) for part in sample(MONTE_CARLO).split(10_000)]))
    z = sample(n)
    outputs = posterior(z)
    if not soft:
        outputs = torch.multinomial(outputs, 1, generator=rng.generator)[:, 0]
    return Case(embed(z).float(), outputs, truth)


def _beside(z: Tensor, d: int, rng: RandomNumbers, *, spread: float = 1.0, rotate: bool = True) -> Tensor:
    """Append independent normal coordinates of this standard deviation, up to d; rotate."""
    states = torch.cat([z, spread * rng.normal(len(z), d - z.shape[1])], 1)
    return states @ torch.linalg.qr(rng.normal(d, d))[0] if rotate else states[:, rng.normal(d).argsort()]


def _two(log_odds: Tensor) -> Tensor:
    """Return (n, 2) probabilities of these log odds."""
    return torch.stack([torch.sigmoid(log_odds), torch.sigmoid(-log_odds)], 1)


def _mixture_posterior(density: Callable[[Tensor], Tensor], share: Tensor) -> Posterior:
    return lambda z: (density(z) + share.log()).log_softmax(1).exp()


def _equal(classes: int) -> Tensor:
    return torch.full((classes,), 1 / classes, dtype=torch.float64)


# --- written before any result -----------------------------------------------------------------------------------


def _label_noise(rng: RandomNumbers, level: float) -> Case:
    """Three classes, three tenths of whose labels are replaced by a random one."""
    share = _equal(3)
    means = torch.eye(3, dtype=torch.float64) * 3.5 * level

    def posterior(z: Tensor) -> Tensor:
        clean = (-(z[:, None] - means).square().sum(-1) / 2).softmax(1)
        return 0.7 * clean + 0.1

    return _drawn(
        rng, lambda n: means[rng.classes(share, n)] + rng.normal(n, 3), posterior, 2000, lambda z: _beside(z, 63, rng)
    )


def _annulus(rng: RandomNumbers, level: float) -> Case:
    """The class depends on the distance from the center in two of a hundred directions of equal variance; soft."""
    return _drawn(
        rng,
        lambda n: 1.5 * rng.normal(n, 2),
        lambda z: _two(-6 * level * (z.norm(dim=1) - 1.8)),
        2000,
        lambda z: _beside(z, 100, rng, spread=1.5, rotate=False),
        soft=True,
    )


def _three_signs(rng: RandomNumbers, level: float) -> Case:
    """The class is the product of three signs; soft."""

    def sample(n: int) -> Tensor:
        signs = torch.randint(0, 2, (n, 3), generator=rng.generator).double() * 2 - 1
        return 1.5 * signs + 0.6 * rng.normal(n, 3)

    def posterior(z: Tensor) -> Tensor:
        first = (1 + 0.95 * level * torch.tanh(2 * z).prod(1)) / 2
        return torch.stack([first, 1 - first], 1)

    return _drawn(rng, sample, posterior, 2000, lambda z: _beside(z, 43, rng, rotate=False), soft=True)


def _unequal_spread(rng: RandomNumbers, level: float) -> Case:
    """Fifty classes, each with its own mean and its own standard deviation."""
    classes, q, share = 50, 10, _equal(50)
    means = rng.normal(classes, q) / math.sqrt(q) * 2.5 * level
    logs = 0.5 * level * rng.normal(classes)

    def sample(n: int) -> Tensor:
        y = rng.classes(share, n)
        return means[y] + rng.normal(n, q) * logs[y, None].exp()

    def density(z: Tensor) -> Tensor:
        return -(z[:, None] - means).square().sum(-1) / 2 * (-2 * logs).exp() - q * logs

    return _drawn(rng, sample, _mixture_posterior(density, share), 2000, lambda z: _beside(z, 60, rng))


def _heavy_tails(rng: RandomNumbers, level: float) -> Case:
    """Two hundred correlated coordinates with the tails of Student's t of 2.5 degrees; a logistic class."""
    d = 200
    steps = torch.arange(d).double()
    root = torch.linalg.cholesky(0.9 ** (steps[:, None] - steps).abs())
    direction = rng.normal(d)
    direction = direction / (root.T @ direction).norm()
    gamma = torch.distributions.Gamma(torch.tensor(1.25, dtype=torch.float64), torch.tensor(1.25, dtype=torch.float64))

    def scale(n: int) -> Tensor:
        torch.manual_seed(int(rng.uniform(1) * 2**31))
        return gamma.sample((n, 1)).rsqrt()

    def posterior(projection: Tensor) -> Tensor:
        return _two(4 * level * torch.tanh(projection[:, 0]))

    truth = information_of(posterior(rng.normal(MONTE_CARLO, 1) * scale(MONTE_CARLO)))
    states = rng.normal(2000, d) @ root.T * scale(2000)
    outputs = torch.multinomial(posterior(states @ direction[:, None]), 1, generator=rng.generator)[:, 0]
    return Case(states.float(), outputs, truth)


def _few_examples(rng: RandomNumbers, level: float) -> Case:
    """Three normal classes with 300 examples in 40 dimensions."""
    share = _equal(3)
    latent, density = shifted(rng, 3, 2, 2.2 * level)
    return _drawn(
        rng,
        lambda n: latent(rng.classes(share, n)),
        _mixture_posterior(density, share),
        300,
        lambda z: among_noise(z, 40, rng),
    )


def _swiss_roll(rng: RandomNumbers, level: float) -> Case:
    """Three classes in turn along a Swiss roll in thirty dimensions."""

    def sample(n: int) -> Tensor:
        t = 1.5 * math.pi * (1 + 2 * rng.uniform(n))
        return torch.stack([t, 21 * rng.uniform(n)], 1)

    def posterior(z: Tensor) -> Tensor:
        turns = 2 * math.pi / 3 * torch.arange(3).double()
        return (4 * level * torch.cos(z[:, :1] - turns)).softmax(1)

    def embed(z: Tensor) -> Tensor:
        t, height = z.unbind(1)
        roll = torch.stack([t * t.cos(), height, t * t.sin()], 1)
        return _beside((roll - roll.mean(0)) / roll.std(0), 30, rng, spread=0.3)

    return _drawn(rng, sample, posterior, 2000, embed)


def _circle(rng: RandomNumbers, level: float) -> Case:
    """Two classes in eight turns around a circle, which a random network embeds with 24 other dimensions."""

    def embed(z: Tensor) -> Tensor:
        return through_network(2 * torch.cat([z.cos(), z.sin()], 1), 384, rng)

    return _drawn(
        rng,
        lambda n: 2 * math.pi * rng.uniform(n, 1),
        lambda z: _two(5 * level * torch.cos(4 * z[:, 0])),
        2000,
        embed,
    )


@cache
def _encoder_states() -> Tensor:
    """Return (pool, d) float64 last states of [CLS] for texts of SST-2, standardized, in the order of the file."""
    model, tokenizer = load_classifier(EMBEDDED_MODEL), load_tokenizer(EMBEDDED_MODEL)
    texts = read_texts(SHARED / "data" / "sst2" / "train.jsonl.gz", POOL)
    states = []
    with torch.no_grad():
        for start in range(0, len(texts), 64):
            batch = tokenizer(texts[start : start + 64], padding=True, truncation=True, return_tensors="pt")
            states.append(model(**batch, output_hidden_states=True).hidden_states[-1][:, 0].double())
    pool = torch.cat(states)
    return (pool - pool.mean(0)) / pool.std(0)


def _encoder(rng: RandomNumbers, level: float, n: int, *, linear: bool) -> Case:
    """Real encoder states; the class is drawn from a random softmax of them, linear and soft or of a hidden layer."""
    pool = _encoder_states()
    d = pool.shape[1]
    first, second = rng.normal(d, 16) / math.sqrt(d), rng.normal(16, 3)
    scores = pool @ first
    scores = scores / scores.std(0)
    logits = scores @ second * 0.5 if linear else torch.tanh(1.5 * scores) @ second * 0.8
    posterior = (logits * 2 * level).softmax(1)
    chosen = torch.randperm(len(pool), generator=rng.generator)[:n]
    outputs = posterior[chosen]
    if not linear:
        outputs = torch.multinomial(outputs, 1, generator=rng.generator)[:, 0]
    return Case(pool[chosen].float(), outputs, information_of(posterior))


def _repeated_state(rng: RandomNumbers, level: float) -> Case:
    """Six tenths of the states are the same vector; the others are of four normal classes."""
    share = _equal(4)
    latent, density = shifted(rng, 4, 3, 2.5 * level)
    clean = _mixture_posterior(density, share)

    def sample(n: int) -> Tensor:
        same = (rng.uniform(n, 1) < 0.6).double()
        return torch.cat([latent(rng.classes(share, n)) * (1 - same), same], 1)

    def posterior(z: Tensor) -> Tensor:
        return torch.where(z[:, 3:] > 0, share, clean(z[:, :3]))

    def embed(z: Tensor) -> Tensor:
        states = among_noise(z[:, :3], 128, rng)
        return torch.where(z[:, 3:] > 0, states.mean(0) + 2.0, states)

    return _drawn(rng, sample, posterior, 2000, embed)


BEFORE: dict[str, Family] = {
    "label noise": _label_noise,
    "annulus": _annulus,
    "three signs": _three_signs,
    "50 classes unequal spread": _unequal_spread,
    "heavy tails 200": _heavy_tails,
    "n 300": _few_examples,
    "swiss roll": _swiss_roll,
    "circle network": _circle,
    "encoder states": lambda rng, level: _encoder(rng, level, 2000, linear=False),
    "repeated state": _repeated_state,
}
# --- written after the method was frozen -------------------------------------------------------------------------


def _checkerboard(rng: RandomNumbers, level: float) -> Case:
    """Two classes on the fields of a board of four by four, in the two widest of sixty directions."""

    def posterior(z: Tensor) -> Tensor:
        parity = z.floor().sum(1) % 2 * 2 - 1
        first = (1 + 0.95 * level * parity) / 2
        return torch.stack([first, 1 - first], 1)

    return _drawn(
        rng, lambda n: 4 * rng.uniform(n, 2), posterior, 2000, lambda z: _beside((z - 2) * 2, 60, rng, spread=0.7)
    )


def _rare_class(rng: RandomNumbers, level: float) -> Case:
    """One example in fifty is of the second of two normal classes."""
    share = torch.tensor([0.98, 0.02], dtype=torch.float64)
    latent, density = shifted(rng, 2, 3, 2.5 * level)
    return _drawn(
        rng,
        lambda n: latent(rng.classes(share, n)),
        _mixture_posterior(density, share),
        2000,
        lambda z: among_noise(z, 100, rng),
    )


def _sparse_words(rng: RandomNumbers, level: float) -> Case:
    """Four hundred rare binary features, of which thirty move the log odds of two classes."""
    rates = 0.3 / torch.arange(1, 401).double().sqrt()
    words = torch.randperm(100, generator=rng.generator)[:30]
    weights = 2.5 * level * rng.normal(30)

    def sample(n: int) -> Tensor:
        return (rng.uniform(n, 400) < rates).double()

    def posterior(z: Tensor) -> Tensor:
        return _two((z[:, words] - rates[words]) @ weights)

    return _drawn(rng, sample, posterior, 2000, lambda z: z)


def _eighty_classes(rng: RandomNumbers, level: float) -> Case:
    """Eighty normal classes of unequal frequency."""
    share = torch.arange(1, 81).double() ** -0.7
    share = share / share.sum()
    latent, density = shifted(rng, 80, 12, 2.8 * level)
    return _drawn(
        rng,
        lambda n: latent(rng.classes(share, n)),
        _mixture_posterior(density, share),
        2000,
        lambda z: among_noise(z, 100, rng),
    )


def _hidden_product(rng: RandomNumbers, level: float) -> Case:
    """The log odds are the product of two coordinates of small variance."""
    return _drawn(
        rng,
        lambda n: rng.normal(n, 2),
        lambda z: _two(4 * level * z.prod(1)),
        2000,
        lambda z: _beside(0.5 * z, 40, rng, rotate=False),
    )


def _rounded(rng: RandomNumbers, level: float) -> Case:
    """Four normal classes whose coordinates are rounded to integers, as after quantization."""
    share, q = _equal(4), 3
    means = rng.normal(4, q)
    means = (means - means.mean(0)) / means.norm(dim=1).mean() * 2.2 * level

    def density(z: Tensor) -> Tensor:
        apart = z[:, None] - means
        mass = torch.special.ndtr(apart + 0.5) - torch.special.ndtr(apart - 0.5)
        return mass.clamp_min(1e-300).log().sum(-1)

    def sample(n: int) -> Tensor:
        return (means[rng.classes(share, n)] + rng.normal(n, q)).round()

    return _drawn(
        rng, sample, _mixture_posterior(density, share), 2000, lambda z: _beside(z, 96, rng, rotate=False).round()
    )


def _boxes(rng: RandomNumbers, level: float) -> Case:
    """Three classes whose probabilities are constant on the boxes of a grid over three of thirty coordinates; soft."""
    edges = torch.tensor([-0.6, 0.6], dtype=torch.float64)
    table = (2.5 * level * rng.normal(27, 3)).softmax(1)

    def posterior(z: Tensor) -> Tensor:
        cell = torch.bucketize(z.contiguous(), edges)
        return table[cell @ torch.tensor([9, 3, 1])]

    return _drawn(
        rng, lambda n: rng.normal(n, 3), posterior, 2000, lambda z: _beside(z, 30, rng, rotate=False), soft=True
    )


def _thirty_clusters(rng: RandomNumbers, level: float) -> Case:
    """Thirty clusters, each with its own frequencies of four classes."""
    centers = 2.2 * rng.normal(30, 8)
    table = (2.5 * level * rng.normal(30, 4)).softmax(1)

    def posterior(z: Tensor) -> Tensor:
        return (-(z[:, None] - centers).square().sum(-1) / 2).softmax(1) @ table

    def sample(n: int) -> Tensor:
        return centers[torch.randint(0, 30, (n,), generator=rng.generator)] + rng.normal(n, 8)

    return _drawn(rng, sample, posterior, 2000, lambda z: _beside(z, 100, rng))


def _gate(rng: RandomNumbers, level: float) -> Case:
    """One coordinate decides whether another has anything to do with the class."""
    return _drawn(
        rng,
        lambda n: rng.normal(n, 2),
        lambda z: _two(6 * level * z[:, 0] * (z[:, 1] > 0)),
        1500,
        lambda z: _beside(z, 50, rng, rotate=False),
    )


AFTER: dict[str, Family] = {
    "checkerboard": _checkerboard,
    "2 % of a class": _rare_class,
    "sparse words": _sparse_words,
    "80 classes zipf": _eighty_classes,
    "hidden product": _hidden_product,
    "rounded": _rounded,
    "boxes": _boxes,
    "thirty clusters": _thirty_clusters,
    "gate": _gate,
    "encoder states, soft": lambda rng, level: _encoder(rng, level, 1000, linear=True),
}
NEW_FAMILIES = BEFORE | AFTER
