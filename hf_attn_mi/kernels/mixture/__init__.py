"""The information between a class and a Gaussian mixture whose components share one covariance.

`reference.py` defines it; PyTorch is its only backend.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.inputs import check_real, read_positive, read_probabilities

ELEMENTS = 2**20  # float64 numbers held at a time: 8 MB, which stay in cache
SEED = 0  # random seed of the scrambled Sobol points
REACH = 600.0  # exponents up to here neither overflow nor underflow in float64, nor does a sum of them


def mixture_information(separation: Tensor, share: Tensor, *, points: int = 4096) -> Tensor:
    """Return (...,) the information in nats between the class and a state drawn from a Gaussian mixture, float64.

    x given class k is N(mu_k, S), with class probabilities p: I = sum_k p_k E[log p(x | k) - log p(x) | k]. It depends
    on the separation G_kl = (mu_k - mu)^T S^-1 (mu_l - mu) alone, in K - 1 dimensions, and is averaged over scrambled
    Sobol points there. It is 0 for G = 0 and the entropy of p for classes far apart; sum_k p_k G_kk / 2 to first order.

    A matrix with negative eigenvalues, such as an unbiased estimate around zero, gives the information of its positive
    part minus that of its negative part, so that the noise of an estimate does not turn into information.

    Args:
        separation: (..., K, K) inner products of class means in the metric within classes, as `class_separation` gives
            them; symmetric, in any origin: only differences of means count.
        share: (K,) or (..., K) class probabilities. A class with none does not count.
        points: the number of points of the quadrature; a power of two is best. With 4096 the root mean square error
            over scramblings was at most 2e-4 nats for K = 4 and 7e-4 for K = 10.

    Raises:
        InvalidInputError: wrong shapes or dtypes, NaN or infinity, or shares that do not sum to one.

    Example:
        >>> apart = torch.tensor([[0.25, -0.25], [-0.25, 0.25]])  # means one standard deviation apart
        >>> round(mixture_information(apart, torch.tensor([0.5, 0.5])).item(), 3)
        0.111
    """
    lead, flat, shares = _read(separation, share)
    classes = flat.shape[-1]
    read_positive("points", points)
    if classes == 1:
        return flat.new_zeros(lead)
    normal = _normal_points(points, classes - 1, SEED).to(flat.device)
    centering = torch.eye(classes, dtype=flat.dtype, device=flat.device) - shares[:, None, :]
    values, vectors = torch.linalg.eigh(centering @ flat @ centering.transpose(-1, -2))
    # Centered, one eigenvalue is zero: the other K - 1 largest hold the positive part, the K - 1 smallest the negative.
    means = vectors[..., 1:] * values[:, None, 1:].clamp_min(0).sqrt()
    information = _in_chunks(means, shares, normal)
    below = (values[:, 0] < -1e-9 * values.abs().amax(-1)).nonzero()[:, 0]
    if len(below):
        opposite = vectors[below][..., :-1] * values[below][:, None, :-1].neg().clamp_min(0).sqrt()
        information[below] -= _in_chunks(opposite, shares[below], normal)
    return information.view(lead)


def _in_chunks(means: Tensor, shares: Tensor, normal: Tensor) -> Tensor:
    """Return (sites,) information of (sites, K, K - 1) means: many sites at a time, or one site's points in parts."""
    sites, classes, _ = means.shape
    at_means = means @ means.transpose(-1, -2)
    at_means = at_means - at_means.diagonal(dim1=1, dim2=2)[:, None] / 2 + shares.log()[:, None]  # (sites, own, K)
    information = means.new_empty(sites)
    step = max(1, ELEMENTS // (len(normal) * classes))
    for start in range(0, sites, step):
        part = slice(start, start + step)
        information[part] = _average(means[part], at_means[part], shares[part], normal)
    return information


def _average(means: Tensor, at_means: Tensor, shares: Tensor, normal: Tensor) -> Tensor:
    """Return (sites,) sum_c p_c mean_z [log p(c | mu_c + z) - log p_c].

    The logit of class k at mu_c + z is a_zk + b_ck, so that sum_k exp(a_zk + b_ck) is one matrix product of
    exponentials. Where classes are so far apart that these might leave the range of float64, the logits are formed.
    """
    at_points = normal @ means.transpose(-1, -2)  # (sites, points, K)
    there = shares > 0
    everywhere = bool(there.all())
    high = (at_points if everywhere else torch.where(there[:, None], at_points, -torch.inf)).amax(-1)  # (sites, points)
    top = at_means.amax(-1)  # (sites, own)
    lowest = (at_points if everywhere else torch.where(there[:, None], at_points, torch.inf)).amin(-1)
    least = torch.where(there[:, None], at_means, torch.inf).amin(-1)
    near = (high - lowest).amax(-1) + torch.where(there, top - least, 0).amax(-1) < REACH
    # log p(mu_c + z) up to what all classes share: (sites, points, own)
    if bool(near.all()):
        total = _near(at_points, at_means, high, top)
    else:
        total = at_points.new_zeros(at_points.shape)
        total[near] = _near(at_points[near], at_means[near], high[near], top[near])
    for site in (~near).nonzero()[:, 0].tolist():
        total[site] = _far(at_points[site], at_means[site])
    log_posterior = at_points + at_means.diagonal(dim1=1, dim2=2)[:, None] - total
    gained = log_posterior.mean(1) - shares.log()
    return torch.where(there, gained * shares, 0).sum(-1)


def _near(at_points: Tensor, at_means: Tensor, high: Tensor, top: Tensor) -> Tensor:
    """Return (sites, points, own) log sum_k exp(a_zk + b_ck), by one product of exponentials."""
    left = (at_points - high[..., None]).clamp_max_(0).exp_()
    right = (at_means - top[..., None]).exp()
    return (left @ right.transpose(-1, -2)).log_().add_(high[..., None]).add_(top[:, None])


def _far(at_points: Tensor, at_means: Tensor) -> Tensor:
    """Return (points, own) log sum_k exp(a_zk + b_ck) of one site, by the logits of a few points at a time."""
    step = max(1, ELEMENTS // at_means.numel())
    parts = [(part[:, None] + at_means).logsumexp(-1) for part in at_points.split(step)]  # type: ignore[no-untyped-call]
    return torch.cat(parts)


@lru_cache(maxsize=4)
def _normal_points(points: int, dimensions: int, seed: int) -> Tensor:
    """Return (points, dimensions) standard normal points from a scrambled Sobol sequence, float64."""
    with torch.device("cpu"):  # the same points on every device
        engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        uniform: Tensor = engine.draw(points, dtype=torch.float64)
        normal: Tensor = torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9))
    return normal


def _read(separation: Tensor, share: Tensor) -> tuple[torch.Size, Tensor, Tensor]:
    """Return the leading dimensions, (sites, K, K) separations and (sites, K) shares, float64."""
    check_real("separation", separation)
    if separation.dim() < 2 or separation.shape[-1] != separation.shape[-2] or separation.shape[-1] < 1:
        raise InvalidInputError(f"separation has shape {tuple(separation.shape)}: it must be (..., K, K)")
    lead, classes = separation.shape[:-2], separation.shape[-1]
    if not bool(torch.isfinite(separation).all()):
        raise InvalidInputError("separation has NaN or infinite entries: check the states it was made from")
    wide = read_probabilities("share", share, [(classes,), (*lead, classes)], separation.device)
    flat = separation.detach().double().reshape(-1, classes, classes)
    return lead, (flat + flat.transpose(-1, -2)) / 2, wide.expand(*lead, classes).reshape(-1, classes)
