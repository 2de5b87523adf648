"""Which weights of attention rows their heads' outputs determine, which are forced, and which could be anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.attention.efficient import efficient_attention
from hf_attn_mi.attention.inputs import read_heads
from hf_attn_mi.attention.interval import attention_interval
from hf_attn_mi.errors import InvalidInputError

_FLOOR = 1e-9  # a minimum below this is zero: the linear programs are solved to 1e-10


@dataclass(frozen=True, eq=False)
class IdentifiableWeights:
    """What the output of each row says of its weights on the asked keys.

    Attributes:
        keys: (asked,) long, numbers of the asked keys.
        own: (..., queries, asked) float64, the model's weight, each row divided by its sum.
        efficient: (..., queries, asked) float64, the efficient row's weight.
        lower, upper: (..., queries, asked) float64, ends of the interval of `attention_interval`.
        real: (..., queries, asked) bool, False where the query may not see the key or sees none.
        width: intervals up to this wide count as identifiable.
        count: number of keys.
    """

    keys: Tensor
    own: Tensor
    efficient: Tensor
    lower: Tensor
    upper: Tensor
    real: Tensor
    width: float
    count: int

    @property
    def identifiable(self) -> Tensor:
        """Whether the output pins the weight down to `width`."""
        return (self.upper - self.lower <= self.width) & self.real

    @property
    def forced(self) -> Tensor:
        """Whether the key has weight in every distribution that gives the output (lower end above zero)."""
        return (self.lower > _FLOOR) & self.real

    @property
    def share(self) -> Tensor:
        """(...) share of the real (query, asked key) pairs of each head that are identifiable; NaN without any."""
        pairs = self.real.sum((-2, -1))
        return torch.where(pairs > 0, self.identifiable.sum((-2, -1)).double() / pairs.clamp_min(1), torch.nan)


@torch.no_grad()
def identifiable_weights(
    attention: Tensor,
    values: Tensor,
    keys: Sequence[int] | Tensor | None = None,
    mask: Tensor | None = None,
    *,
    width: float = 0.05,
) -> IdentifiableWeights:
    """Return which weights of these rows can be read off the outputs: identifiable, forced, or neither.

    A weight is identifiable where [min b_j, max b_j] over all distributions b with the row's output is at most `width`
    wide, and forced where the minimum is above zero. An identifiable weight near zero says that the key cannot matter
    more than that. Where n <= rank([V, 1]) every interval is a point. Two linear programs a query and key, a few
    milliseconds: ask for some queries (slice `attention`) or some keys.

    Args:
        attention: (..., queries, keys), non-negative; the rows of interest.
        values: (..., keys, head_dim); leading dimensions broadcast.
        keys: numbers of the keys asked for, the same for all rows; None for all.
        mask: bool, True where the key is real, as in `efficient_attention`.
        width: from 0 to 1.

    Raises:
        InvalidInputError: shapes, dtypes, keys or width that do not fit.

    Example:
        >>> values = torch.tensor([[0.0], [1.0], [1.0], [9.0]])                       # two keys of the same value
        >>> found = identifiable_weights(torch.tensor([[0.0, 0.25, 0.25, 0.5]]), values)
        >>> (found.lower.round(decimals=4) + 0.0).tolist(), found.upper.round(decimals=4).tolist()
        ([[0.0, 0.0, 0.0, 0.5]], [[0.4444, 0.5, 0.5, 0.5556]])
        >>> found.identifiable.tolist(), found.forced.tolist()
        ([[False, False, False, False]], [[False, False, False, True]])
    """
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 <= width <= 1:
        raise InvalidInputError(f"width must be a number from 0 to 1, not {width!r}")
    if attention.dim() < 2:
        raise InvalidInputError(
            f"attention must be (..., queries, keys), not {tuple(attention.shape)}; a row is row[None]"
        )
    count = attention.shape[-1]
    asked = list(range(count)) if keys is None else [int(key) for key in keys]
    ends = attention_interval(attention, values, asked, mask)
    heads = read_heads(attention, values, mask, None)
    rows = heads.attention.double()
    total = rows.sum(-1, keepdim=True)
    rows = rows / total.where(total > 0, torch.ones_like(total))
    shape = (*heads.lead, *heads.attention.shape[1:])
    real = (heads.allowed & (total > 0)).reshape(shape)
    efficient = efficient_attention(attention, values, mask).attention.double()
    return IdentifiableWeights(
        keys=torch.tensor(asked, dtype=torch.long),
        own=rows.reshape(shape)[..., asked].cpu(),
        efficient=efficient[..., asked].cpu(),
        lower=ends[..., 0],
        upper=ends[..., 1],
        real=real[..., asked].cpu(),
        width=float(width),
        count=count,
    )
