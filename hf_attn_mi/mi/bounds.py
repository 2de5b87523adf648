"""Lower and upper bounds of the information between states and classes, valid whatever the distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.mi.estimator import SiteData
from hf_attn_mi.mi.inputs import entropy
from hf_attn_mi.mi.predictors import Effort, predictions_of

MISSED = 0.025  # probability with which each bound may fail
PRIOR_SHARE = 0.05  # least share of the prior in the mixture: it bounds the logarithm of the ratio
EM_STEPS = 40


@dataclass(frozen=True, eq=False)
class SiteBounds:
    """The lower bound of one site, nats. All sites have the same upper bound; see `upper_bound`.

    Attributes:
        lower: one-sided 97.5 % lower bound, empirical Bernstein: valid for any number of examples.
        lower_normal: the same with the normal approximation: shorter, valid for many examples.
        predictor: the member with the largest weight in the mixture; or "copula", whose density ratio a bound of
            continuous outputs may rest on.
    """

    lower: float
    lower_normal: float
    predictor: str


def site_bounds(site: SiteData, effort: Effort, *, missed: float = MISSED) -> SiteBounds:
    """Return the lower bound of one site with class outputs.

    For any q, I(H; Y) = H(Y) - H(Y | H) >= H(Y) + E[log q(Y | H)]. q is a mixture of the predictors of this effort and
    at least 5 % of the prior. Members are fitted without the fold that they predict, and so are the weights of the
    mixture. With P_i the output of example i and p the mean output,

        Z_i = sum_k P_ik (log q_i(k) - log p_k).

    Its mean is at most the mean of the same with the true p (the entropy of a mean is at most its cross-entropy), whose
    expectation is at most I. log q >= log 0.05 + log prior bounds Z_i, so that with variance V, range R and n examples
    (Maurer and Pontil, arXiv 0907.3740)

        lower = mean Z - sqrt(2 V log(2 / .025) / n) - 7 R log(2 / .025) / (3 (n - 1)).

    Examples of different folds are treated as independent.

    Args:
        site: class outputs.
        effort: "fast", "default" or "thorough".
        missed: probability with which the bound may fail.
    """
    names, members = predictions_of(site, effort)
    share = site.share
    log_q, weights = _mixture(members, site.outputs, site.fold_of)
    prior = members[names.index("prior")] if "prior" in names else share.log().expand_as(site.outputs)
    log_q = torch.logaddexp(math.log1p(-PRIOR_SHARE) + log_q, math.log(PRIOR_SHARE) + prior)
    gains = (site.outputs * (log_q - share.log())).sum(1)
    widest = -math.log(float(share.min()))
    mean, normal, bernstein = deviations(gains, widest - math.log(PRIOR_SHARE), missed=missed)
    floor = 0.0  # information is never negative
    return SiteBounds(
        lower=max(floor, mean - bernstein),
        lower_normal=max(floor, mean - normal),
        predictor=names[int(weights.argmax())],
    )


def upper_bound(outputs: Tensor) -> float:
    """Return the one-sided 97.5 % upper bound of the information between input and output, nats: no state has more.

    For any distribution r of the outputs, I(X; Y) = E[KL(P || p)] <= E[KL(P || r)]. With r_i the mean output of the
    other examples, half an example of each class added (Krichevsky and Trofimov 1981),

        upper = mean of KL(P_i || r_i), plus its error by the inequality of `site_bounds`,

    at most the logarithm of the number of classes. With the mean of all examples in place of r_i it would be too small
    by (K - 1) / 2 n, since from no other distribution these outputs diverge less. Examples are treated as independent.

    Args:
        outputs: (n, K) float64 probabilities of the classes that occur: of others nothing can be known.
    """
    n, classes = outputs.shape
    others = (outputs.sum(0) - outputs).clamp_min(0) + 0.5
    others = others / (n - 1 + classes / 2)
    divergence = -(outputs * others.log()).sum(1) - entropy(outputs)
    mean, _, bernstein = deviations(divergence, -math.log(float(others.min())))
    return min(mean + bernstein, math.log(classes))


def deviations(
    values: Tensor, width: float, *, missed: float = MISSED, independent: int | None = None
) -> tuple[float, float, float]:
    """Return the mean of values, and by how much the true mean may be on the other side: normal, and Bernstein.

    Args:
        values: (count,) float64.
        width: the largest less the smallest value that is possible.
        missed: probability with which the one-sided error may be larger.
        independent: how many of the values count as independent; all by default. Of the pairs of n examples n / 2.
    """
    n = len(values) if independent is None else independent
    variance = float(values.var())
    logarithm = math.log(2 / missed)
    normal = -float(torch.special.ndtri(torch.tensor(missed, dtype=torch.float64))) * math.sqrt(variance / n)
    bernstein = math.sqrt(2 * variance * logarithm / n) + 7 * width * logarithm / (3 * (n - 1))
    return float(values.mean()), normal, bernstein


def _mixture(members: Tensor, outputs: Tensor, fold_of: Tensor) -> tuple[Tensor, Tensor]:
    """Return (n, K) log probabilities of the mixture, its weights fitted without each fold, and their mean (members,).

    The weights maximize the mean of sum_k P_ik log sum_m w_m q_m(k | i) by expectation maximization, which is concave.
    """
    if len(members) == 1:
        return members[0], torch.ones(1, dtype=torch.float64)
    folds = int(fold_of.max()) + 1
    probabilities = members.exp()  # (members, n, K)
    inside = torch.nn.functional.one_hot(fold_of, folds).double()  # (n, folds)
    rest = (1 - inside) / (1 - inside).sum(0)
    example, output = outputs.nonzero(as_tuple=True)  # all others have no weight: of classes all but one of K
    flat = probabilities[:, example, output]  # (members, pairs): two small products for each step
    targets = rest.T[:, example] * outputs[example, output]  # (folds, pairs)
    weights = torch.full((folds, len(members)), 1 / len(members), dtype=torch.float64)
    for _ in range(EM_STEPS):
        weights = weights * ((targets / (weights @ flat).clamp_min(1e-300)) @ flat.T)
        weights = weights / weights.sum(1, keepdim=True)
    log_q = torch.einsum("nm,mnk->nk", weights[fold_of], probabilities).clamp_min(1e-300).log()
    return log_q, weights.mean(0)
