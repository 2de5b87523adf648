"""Log density ratios of a Gaussian and of a Student copula of two vectors, fitted without the fold they are applied to.

A Gaussian copula knows correlations alone. Under a Student copula a coordinate that is far out makes the others likely
to be far out as well, which is information even between uncorrelated vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import scipy  # scipy.special itself is loaded when it is first used
import torch
from torch import Tensor

from hf_attn_mi.mi.coordinates import principal_components
from hf_attn_mi.mi.estimator import SiteData

LARGEST_PAIRS = 1000  # examples of a fold whose pairs are formed
MAX_CORRELATION = 1 - 1e-9
INVERSE_DEGREES = (0.0, *(2.0**power for power in range(-6, 2)))  # 0: the Gaussian copula; 2: half a degree of freedom
REFINEMENTS = (0.5, 0.25, 0.125)  # steps of the logarithm to base 2
MAX_ELEMENTS = 2**18  # entries of the examples that the degrees of freedom are fitted to


@dataclass(frozen=True, eq=False)
class Ratios:
    """log q(x, y) - log q(x) q(y) in nats of a model q that was fitted to the other folds.

    Attributes:
        pointwise: (n,) float64, of the examples.
        apart: for each fold (size, size): of the states of one example and the outputs of another; on the diagonal NaN.
        expected: the mean of `pointwise` to be expected if the model were true.
    """

    pointwise: Tensor
    apart: tuple[Tensor, ...]
    expected: float


@dataclass(frozen=True, eq=False)
class CopulaRatios:
    """The ratios of both copulas.

    Attributes:
        gaussian: of the Gaussian copula.
        student: of the Student copula; None where every fold's degrees of freedom are infinite.
        trained: for each fold those of the copula with the larger mean in the other folds, for lower bounds.
        radial: (folds,) nats of the Student copula that are not those of its correlations, fitted without each fold.
        loss: nats that a model without any shrinkage would lose to training: half a covariance for each example.
        largest: the largest correlation of a predicted direction with the true one, mean over folds.
    """

    gaussian: Ratios
    student: Ratios | None
    trained: Ratios
    radial: Tensor
    loss: float
    largest: float


def cross_fitted_ratios(site: SiteData) -> CopulaRatios:
    """Return the log ratios of copulas of states and outputs.

    Coordinates are mapped to normal quantiles by the ranks among the n' examples of the other folds; states x and
    outputs y are whitened there. The side of fewer directions, here y, is predicted from the other of r directions:
    y' = B^T x with B = mean of x y^T. In the eigenvectors of B^T B, with eigenvalues g_k, direction k of y' is
    u_k = y'_k / sqrt(g_k), its product with y_k is in expectation not g_k but, as in an adjusted coefficient of
    determination, t_k = 1 - (1 - g_k) (n' - 1) / (n' - r - 1), and with the correlation c_k = t_k / sqrt(g_k)

        log r = sum_k -log(1 - c_k^2) / 2 - q / 2,
        q = sum_k (c_k^2 u_k^2 + c_k^2 y_k^2 - 2 c_k u_k y_k) / (1 - c_k^2).

    The Student copula with v degrees of freedom (Demarta and McNeil 2005) has the same correlations. Ranks are mapped
    to the quantiles of Student's t, and with a = |x|^2, b = |y|^2 and dimensions r and m

        log r = sum_k -log(1 - c_k^2) / 2 + log G(v + r + m) G(v) / (G(v + r) G(v + m))
                - (v + r + m) / 2 log(1 + (a + b + q) / v) + (v + r) / 2 log(1 + a / v) + (v + m) / 2 log(1 + b / v),

    G(z) = Gamma(z / 2). v maximizes the likelihood of the copula on the other folds.

    Args:
        site: states, and (n, m) continuous outputs.
    """
    folds = [_Fold.fit(site, site.fold_of == fold) for fold in range(int(site.fold_of.max()) + 1)]
    gaussian = [fold.held_out(0.0) for fold in folds]
    heavy = [(fold, fold.inverse_degrees) for fold in folds]
    student = [fold.held_out(inverse) if inverse > 0 else same for (fold, inverse), same in zip(heavy, gaussian)]
    better = [inverse > 0 and fold.training_mean(inverse) > fold.training_mean(0.0) for fold, inverse in heavy]
    trained = [second if chosen else first for chosen, first, second in zip(better, gaussian, student)]
    correlated = [fold.information for fold in folds]
    radial = [radial_information(inverse, fold.x.rank, fold.y.rank) for fold, inverse in heavy]
    expected = sum(correlated) / len(folds)
    of_student = expected + sum(radial) / len(folds)
    chosen = sum(correlated[i] + (radial[i] if better[i] else 0.0) for i in range(len(folds))) / len(folds)
    loss = sum(fold.x.rank * fold.y.rank / (2 * fold.training) for fold in folds) / len(folds)
    return CopulaRatios(
        gaussian=_together(site, gaussian, expected),
        student=_together(site, student, of_student) if any(inverse > 0 for _, inverse in heavy) else None,
        trained=_together(site, trained, chosen),
        radial=torch.tensor(radial, dtype=torch.float64),
        loss=loss,
        largest=sum(float(fold.correlation.max()) for fold in folds) / len(folds),
    )


def radial_information(inverse_degrees: float, r: int, m: int) -> float:
    """Return the information of r and m uncorrelated coordinates of one Student vector, nats.

    What Arellano-Valle, Contreras-Reyes and Genton (2013) add to the information of the correlations.

    Example:
        >>> round(radial_information(1.0, 1, 1), 3), radial_information(0.0, 5, 5)
        (0.224, 0.0)
    """
    if inverse_degrees == 0:
        return 0.0
    v = 1 / inverse_degrees
    gammaln, digamma = scipy.special.gammaln, scipy.special.digamma

    def mean(d: int) -> float:  # of (v + d) / 2 log(1 + |t|^2 / v)
        return float((v + d) / 2 * (digamma((v + d) / 2) - digamma(v / 2)))

    constant = gammaln((v + r + m) / 2) + gammaln(v / 2) - gammaln((v + r) / 2) - gammaln((v + m) / 2)
    return float(constant) - mean(r + m) + mean(r) + mean(m)


@dataclass(frozen=True, eq=False)
class _Scores:
    """One side: ranks of all examples among those not held out, and the map that whitens their normal quantiles."""

    ranks: Tensor  # (n, d) long: twice the mean rank, 0 to 2 n'
    training: int  # n'
    mean: Tensor  # (d,) of normal quantiles
    axes: Tensor | None  # (d, r); None where the examples that are not held out are all the same

    @classmethod
    def fit(cls, values: Tensor, held: Tensor) -> _Scores:
        columns = values.T.contiguous()  # (d, n)
        ordered = columns[:, ~held].sort(1).values.contiguous()
        ranks = (torch.searchsorted(ordered, columns) + torch.searchsorted(ordered, columns, right=True)).T
        training = ordered.shape[1]
        rest = _quantiles(training, 0.0)[0].float().to(ranks.device)[ranks[~held]]
        mean = rest.mean(0)
        whitened = principal_components(rest - mean)
        return cls(ranks, training, mean, None if whitened is None else whitened.axes)

    @property
    def rank(self) -> int:
        """Directions."""
        return 1 if self.axes is None else self.axes.shape[1]

    @property
    def full(self) -> bool:
        """Whether no direction is left out."""
        return self.axes is not None and self.axes.shape[0] == self.axes.shape[1]

    def whitened(self, rows: Tensor, inverse_degrees: float) -> Tensor:
        """Return (rows, r) float64 whitened quantiles: normal ones, centered, or those of Student's t."""
        if self.axes is None:
            return torch.zeros(len(rows), 1, dtype=torch.float64)
        table = _quantiles(self.training, inverse_degrees)[0].float().to(self.ranks.device)
        quantiles = table[self.ranks[rows]]
        if inverse_degrees == 0:
            quantiles = quantiles - self.mean
        scores: Tensor = quantiles @ self.axes
        return scores.double()

    def log_densities(self, rows: Tensor, inverse_degrees: float) -> Tensor:
        """Return (rows,) the sum over coordinates of the log densities of their quantiles."""
        return _quantiles(self.training, inverse_degrees)[1].to(self.ranks.device)[self.ranks[rows]].sum(1)


@dataclass(frozen=True, eq=False)
class _Fold:
    """Both copulas, fitted without one fold."""

    held: Tensor  # indices
    rest: Tensor
    x: _Scores
    y: _Scores
    left: Tensor  # (r, pairs of directions)
    right: Tensor  # (m, pairs of directions)
    correlation: Tensor

    @classmethod
    def fit(cls, site: SiteData, held: Tensor) -> _Fold:
        x, y = (_Scores.fit(values, held) for values in (site.whitened.balanced, site.outputs))
        rest = (~held).nonzero()[:, 0]
        wide, narrow = (x, y) if y.rank <= x.rank else (y, x)
        slopes = wide.whitened(rest, 0.0).T @ narrow.whitened(rest, 0.0) / len(rest)
        explained, axes = torch.linalg.eigh(slopes.T @ slopes)
        explained = explained.clamp(1e-12, 1)
        true = 1 - (1 - explained) * (len(rest) - 1) / max(1, len(rest) - wide.rank - 1)
        correlation = (true.clamp_min(0) / explained.sqrt()).clamp(0, MAX_CORRELATION)
        maps = slopes @ axes / explained.sqrt(), axes
        left, right = maps if wide is x else maps[::-1]
        return cls(held.nonzero()[:, 0], rest, x, y, left, right, correlation)

    @property
    def training(self) -> int:
        """Examples that are not held out."""
        return len(self.rest)

    @property
    def information(self) -> float:
        """Of the correlations."""
        return -float((1 - self.correlation.square()).log().sum()) / 2

    @property
    def inverse_degrees(self) -> float:
        """1 / v of the largest likelihood: on a grid of powers of two that is refined, then the vertex of a parabola.

        Zero where a direction is left out: then quantiles of t are no coordinates of the whitened vector.
        """
        if not (self.x.full and self.y.full):
            return 0.0
        rows, found = self._some, dict[float, float]()
        for inverse in INVERSE_DEGREES:
            found[inverse] = self._likelihood(rows, inverse)
            if found[inverse] < max(found.values()):
                break
        best = max(found, key=found.__getitem__)
        if best == 0:
            return best
        for step in REFINEMENTS:
            around = [best * 2**shift for shift in (-step, 0.0, step)]
            found |= {inverse: self._likelihood(rows, inverse) for inverse in around if inverse not in found}
            best = max(around, key=found.__getitem__)
        low, middle, high = (found[inverse] for inverse in around)
        if best != around[1] or low == high:
            return best
        return float(best * 2 ** (REFINEMENTS[-1] * (low - high) / (2 * (low - 2 * middle + high))))

    @property
    def _some(self) -> Tensor:
        """Some examples that are not held out: enough for one parameter."""
        return self.rest[: max(1, MAX_ELEMENTS // (self.x.rank + self.y.rank))]

    def _likelihood(self, rows: Tensor, inverse: float) -> float:
        """Return the mean log density of the Student copula, up to what does not depend on the degrees of freedom."""
        _, _, _, total = self._squares(rows, inverse)
        dimensions = self.x.rank + self.y.rank
        alone = self.x.log_densities(rows, inverse) + self.y.log_densities(rows, inverse)
        return float((_log_density(total, dimensions, inverse) - alone).mean())

    def training_mean(self, inverse: float) -> float:
        """Return the mean log ratio of examples that are not held out."""
        a, b, _, total = self._squares(self._some, inverse)
        return float(self._log_ratio(a, b, total, inverse).mean())

    def held_out(self, inverse: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the held examples, (size,) their log ratios, and (some, some) those of pairs, NaN on the diagonal."""
        x, y = self.x.whitened(self.held, inverse), self.y.whitened(self.held, inverse)
        a, b, _, total = self._of_scores(x, y)
        few = slice(0, LARGEST_PAIRS)
        u, v = x[few] @ self.left, y[few] @ self.right
        rest = 1 - self.correlation.square()
        own = self.correlation.square() / rest
        across = (
            (a[few] + (own * u.square()).sum(1))[:, None]
            + (b[few] + (own * v.square()).sum(1))[None]
            - 2 * (u * self.correlation / rest) @ v.T
        )
        apart = self._log_ratio(a[few, None], b[None, few], across, inverse)
        return self.held, self._log_ratio(a, b, total, inverse), apart.fill_diagonal_(torch.nan)

    def _squares(self, rows: Tensor, inverse: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self._of_scores(self.x.whitened(rows, inverse), self.y.whitened(rows, inverse))

    def _of_scores(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (rows,) |x|^2, |y|^2, q and their sum, the squared Mahalanobis distance of both together."""
        a, b = x.square().sum(1), y.square().sum(1)
        u, v = x @ self.left, y @ self.right
        c = self.correlation
        q = ((c.square() * (u.square() + v.square()) - 2 * c * u * v) / (1 - c.square())).sum(1)
        return a, b, q, a + b + q

    def _log_ratio(self, a: Tensor, b: Tensor, total: Tensor, inverse: float) -> Tensor:
        """Return the log ratios from squared distances."""
        r, m = self.x.rank, self.y.rank
        joint = _log_density(total, r + m, inverse)
        return self.information + joint - _log_density(a, r, inverse) - _log_density(b, m, inverse)


def _log_density(squared: Tensor, dimensions: int, inverse_degrees: float) -> Tensor:
    """Return the log density of a standard normal or Student vector at these squared distances."""
    if inverse_degrees == 0:
        return -squared / 2 - dimensions / 2 * math.log(2 * math.pi)
    v = 1 / inverse_degrees
    constant = scipy.special.gammaln((v + dimensions) / 2) - scipy.special.gammaln(v / 2)
    return float(constant) - dimensions / 2 * math.log(v * math.pi) - (v + dimensions) / 2 * torch.log1p(squared / v)


@lru_cache(maxsize=64)
def _quantiles(training: int, inverse_degrees: float) -> tuple[Tensor, Tensor]:
    """Return (2 n' + 1,) quantiles for twice the mean rank among n' examples, and their log densities, float64."""
    with torch.device("cpu"):
        level = (torch.arange(2 * training + 1, dtype=torch.float64) / 2 + 0.5) / (training + 1)
        if inverse_degrees == 0:
            quantiles = torch.special.ndtri(level)
        else:
            quantiles = torch.from_numpy(scipy.special.stdtrit(1 / inverse_degrees, level.numpy()))
        return quantiles, _log_density(quantiles.square(), 1, inverse_degrees)


def _together(site: SiteData, parts: list[tuple[Tensor, Tensor, Tensor]], expected: float) -> Ratios:
    pointwise = torch.empty(len(site.outputs), dtype=torch.float64)
    for held, values, _ in parts:
        pointwise[held] = values
    return Ratios(pointwise, tuple(apart for _, _, apart in parts), expected)
