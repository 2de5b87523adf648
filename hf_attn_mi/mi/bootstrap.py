"""Bootstrap over inputs: means of what each input contributes, and intervals for them."""

from __future__ import annotations

import math

import scipy  # scipy.special itself is loaded when it is first used
import torch
from torch import Tensor

WEIGHTS = 1 << 22  # resampled weights held at once


def resampled_means(sums: Tensor, counts: Tensor, *, bootstrap: int, seed: int) -> Tensor:
    """Return the means of each resample of the inputs: total of `sums` over total of `counts`, float64.

    Inputs are drawn whole, so that what one input contributes (several heads) stays together, and the same draws
    serve every column, so that columns can be subtracted.

    Args:
        sums: (inputs, columns).
        counts: (inputs, columns), how many values each sum has.
        bootstrap: resamples.
        seed: of the draws.

    Returns:
        (bootstrap, columns); NaN where a resample has no value.

    Example:
        >>> means = resampled_means(torch.arange(4.0)[:, None], torch.ones(4, 1), bootstrap=2000, seed=0)
        >>> bool(abs(means.mean() - 1.5) < 0.05)
        True
    """
    inputs, columns = counts.shape
    both = torch.cat([sums.double(), counts.double()], 1)
    generator = torch.Generator().manual_seed(seed)
    block, found = max(1, WEIGHTS // max(1, inputs)), []
    for start in range(0, bootstrap, block):
        drawn = torch.randint(inputs, (min(block, bootstrap - start), inputs), generator=generator)
        times = torch.zeros(drawn.shape, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
        totals = times @ both
        found.append(totals[:, :columns] / totals[:, columns:])
    return torch.cat(found)


def percentile_interval(means: Tensor, inputs: int) -> tuple[float, float] | None:
    """Return the 95 % expanded percentile interval of resampled means; None for fewer than two inputs.

    The percentiles are Phi(-+ sqrt(n / (n - 1)) t_.975(n - 1)) instead of 2.5 and 97.5 %: for few inputs the plain
    ones are as much too short as a normal interval is against Student's (Hesterberg 2015, arXiv 1411.5279).

    Args:
        means: (bootstrap,) from `resampled_means`; NaN are left out.
        inputs: how many inputs the mean rests on.
    """
    means = means[means.isfinite()]
    if inputs < 2 or len(means) == 0:
        return None
    reach = math.sqrt(inputs / (inputs - 1)) * float(scipy.special.stdtrit(inputs - 1, 0.975))
    levels = torch.special.ndtr(torch.tensor([-reach, reach], dtype=torch.float64))
    low, high = torch.quantile(means, levels).tolist()
    return low, high
