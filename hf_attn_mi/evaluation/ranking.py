"""Rank tokens by scores and select top tokens, in the same way for every metric."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown

ORDERS = ("signed", "absolute")
ERASER_BINS = (0.01, 0.05, 0.1, 0.2, 0.5)
DECILES = tuple(step / 10 for step in range(1, 10))  # 100 % is left out, where all methods are equal


def ranking(scores: Tensor, tokens: Sequence[int], *, by: str = "signed") -> list[int]:
    """Return the positions of these tokens, the highest score first; equal scores in the order of the text.

    "signed": tokens with negative scores, which count as evidence against the class, come last. "absolute": by |score|,
    so that the metrics measure influence in either direction.

    Args:
        scores: (length of the input,) one score a token; those of special tokens are ignored.
        tokens: positions to rank.
        by: "signed" or "absolute".

    Raises:
        InvalidInputError: another shape, a score of a token that is not finite, or another `by`.

    Example:
        >>> ranking(torch.tensor([9.0, 1.0, -3.0, 1.0, 2.0]), [1, 2, 3, 4])
        [4, 1, 3, 2]
        >>> ranking(torch.tensor([9.0, 1.0, -3.0, 1.0, 2.0]), [1, 2, 3, 4], by="absolute")
        [2, 4, 1, 3]
    """
    values = token_scores(scores, tokens, by=by)
    return [tokens[index] for index in torch.argsort(values, descending=True, stable=True).tolist()]


def token_scores(scores: Tensor, tokens: Sequence[int], *, by: str = "signed") -> Tensor:
    """Return the scores of these tokens, (tokens,) float64; their magnitude for by="absolute".

    Raises:
        InvalidInputError: see `ranking`.
    """
    if by not in ORDERS:
        raise InvalidInputError(f"by must be 'signed' or 'absolute', not {shown(by)}.")
    values = torch.as_tensor(scores).detach().to("cpu", torch.float64)
    if values.dim() != 1 or (tokens and max(tokens) >= len(values)):
        raise InvalidInputError(
            f"scores must be (tokens,) of the whole input, special tokens included; got {tuple(values.shape)}."
        )
    values = values[list(tokens)]
    if not bool(values.isfinite().all()):
        raise InvalidInputError("scores has entries that are NaN or infinite; leave this method out for this input.")
    return values.abs() if by == "absolute" else values


def bin_counts(tokens: int, bins: Sequence[float]) -> list[int]:
    """Return the number of tokens in each bin: ceil(share * tokens), at least one.

    In a short text several bins contain the same tokens; each still counts in the mean, so that every method and
    text has the same number of terms.

    Raises:
        InvalidInputError: no bins, or one outside (0, 1].

    Example:
        >>> bin_counts(30, ERASER_BINS), bin_counts(1, ERASER_BINS)
        ([1, 2, 3, 6, 15], [1, 1, 1, 1, 1])
    """
    if not bins or not all(0 < share <= 1 for share in bins):
        raise InvalidInputError(f"bins must be shares above 0 and up to 1, such as {ERASER_BINS}; got {tuple(bins)}.")
    # 0.07 * 100 is 7.000000000000001 in floating point; the bin has seven tokens.
    return [max(1, math.ceil(round(share * tokens, 9))) for share in bins]


def top_tokens(scores: Tensor, share: float, *, tokens: Sequence[int] | None = None) -> Tensor:
    """Return the ceil(share * tokens) tokens of highest score as a hard rationale, (length of the input,) bool.

    ERASER uses as `share` the mean share of tokens in the human rationales of the data set.

    Args:
        scores: (length of the input,).
        share: a share of the tokens, above 0 and up to 1.
        tokens: positions that may be chosen; None: all.

    Example:
        >>> top_tokens(torch.tensor([0.1, 0.7, 0.2, 0.7]), 0.5).tolist()
        [False, True, False, True]
    """
    chosen = torch.zeros(len(scores), dtype=torch.bool)
    order = ranking(scores, range(len(scores)) if tokens is None else tokens)
    if order:
        chosen[order[: bin_counts(len(order), [share])[0]]] = True
    return chosen
