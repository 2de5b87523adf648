"""What products of the leading components say: classes that differ in spread or correlation, not in mean."""

from __future__ import annotations

import torch

from hf_attn_mi.kernels import class_moments, factor_classes, linear_discriminant
from hf_attn_mi.mi.calibration import out_of_fold
from hf_attn_mi.mi.estimate import Estimate, Site, from_series
from hf_attn_mi.mi.folds import fold_means

COMPONENTS = 8


def quadratic_information(site: Site) -> Estimate:
    """Return the calibrated, cross-fitted information of a shrunk discriminant on components and their products.

    A lower bound. Eight components have 44 such features, so that little is lost to training.

    Args:
        site: of which the first eight principal components are used.
    """
    points = site.principal.points[:, :COMPONENTS].double()
    row, column = torch.triu_indices(points.shape[1], points.shape[1])
    features = torch.cat([points, points[:, row] * points[:, column]], 1)
    moments = class_moments(features, site.probabilities, folds=site.fold_of)
    directions, offsets = linear_discriminant(factor_classes(moments, leave_one_out=True))
    centered = features - moments.mean
    scores = torch.einsum("nfd,nkd->nk", centered[:, None], directions[site.fold_of])
    scores = scores + offsets.clamp_min(-50)[site.fold_of]
    share = site.probabilities.mean(0)
    posterior = out_of_fold(scores, site.probabilities, site.fold_of)
    pointwise = (site.probabilities * (posterior - share.log())).sum(1)
    return from_series(torch.cat([pointwise.mean()[None], fold_means(pointwise, site.fold_of)]), "quadratic")
