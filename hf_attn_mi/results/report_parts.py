"""The parts of a report that other results do not hold: classes, and the heads of one input with their matrices."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown

STEPS = 127  # steps of a stored weight on each side of zero
Kind = Literal["raw", "effective", "efficient"]
KINDS: tuple[Kind, ...] = ("raw", "effective", "efficient")


@dataclass(frozen=True)
class ClassOutput:
    """The model's probability and value for one class.

    Attributes:
        target: number of the class.
        name: the name of the class.
        probability: softmax or sigmoid; None for regression.
        value: the value that an explanation of this class explains (class logit minus the mean of the others).
    """

    target: int
    name: str
    probability: float | None
    value: float


@dataclass(frozen=True)
class WeightInterval:
    """The interval of a weight over all rows with the same output of its head.

    Attributes:
        key: index of the token attended to.
        weight: the model's weight.
        low, high: the ends of the interval, see `attention_interval`.
    """

    key: int
    weight: float
    low: float
    high: float


@dataclass(frozen=True)
class HeadDetail:
    """One attention head on one input.

    The matrices hold 8-bit steps of `scale`: a stored weight is within scale / 254 of the weight. Each is a string:
    signed bytes in row order, compressed by zlib, in base64; "" if it was left out.

    Attributes:
        layer: place of its layer in `Explanation.layers`.
        head: number within the layer.
        contribution: what the head adds to the explained value, sum over queries of <output, gradient> of the
            linearized model; None if that was not computed.
        query: the token whose row contributes most; None likewise.
        intervals: the intervals of the largest weights of that row; () if they were not computed.
        rows: the queries of the stored rows: all tokens, only `query`, or none.
        support: keys that efficient attention keeps in each of these rows.
        scale: the largest absolute weight of the three matrices.
        raw, effective, efficient: the matrices, (rows, tokens).
    """

    layer: int
    head: int
    contribution: float | None = None
    query: int | None = None
    intervals: tuple[WeightInterval, ...] = ()
    rows: tuple[int, ...] = ()
    support: tuple[int, ...] = ()
    scale: float = 0.0
    raw: str = ""
    effective: str = ""
    efficient: str = ""

    def matrix(self, kind: Kind) -> Tensor | None:
        """Return the stored (rows, tokens) weights of "raw", "effective" or "efficient"; None if they were left out.

        Raises:
            InvalidInputError: another kind.

        Example:
            >>> scale, texts = pack_matrices([torch.tensor([[0.25, 0.75]])] * 3)
            >>> HeadDetail(0, 0, rows=(1,), scale=scale, **texts).matrix("raw").tolist()
            [[0.24803..., 0.75]]
        """
        if kind not in KINDS:
            raise InvalidInputError(f"kind must be one of {', '.join(map(repr, KINDS))}, not {shown(kind)}.")
        text: str = getattr(self, kind)
        if not text:
            return None
        steps = torch.frombuffer(bytearray(zlib.decompress(base64.b64decode(text))), dtype=torch.int8)
        return steps.float().reshape(len(self.rows), -1) * (self.scale / STEPS)


@dataclass(frozen=True)
class AttentionLinks:
    """For each token the strongest links to other tokens, by the mean of attention over all layers and heads.

    Attributes:
        keys: (tokens, k) the tokens that it attends to most.
        key_weights: (tokens, k) their mean weight.
        queries: (tokens, k) the tokens that attend most to it.
        query_weights: (tokens, k) their mean weight.
    """

    keys: Tensor
    key_weights: Tensor
    queries: Tensor
    query_weights: Tensor


@dataclass(frozen=True)
class AttentionDetail:
    """The attention of one input, as far as a report holds it.

    Attributes:
        heads: every head of every layer, in order.
        links: between tokens.
        left_out: which matrices are missing and why, in one sentence; "" if none is.
        contribution_note: why contributions were not computed; "" if they were.
    """

    heads: tuple[HeadDetail, ...]
    links: AttentionLinks
    left_out: str = ""
    contribution_note: str = ""


def pack_matrices(matrices: list[Tensor]) -> tuple[float, dict[str, str]]:
    """Return the common scale of raw, effective and efficient weights, and each as text (see `HeadDetail`).

    Example:
        >>> scale, texts = pack_matrices([torch.tensor([[0.5, 0.5]]), torch.zeros(1, 2), torch.zeros(1, 2)])
        >>> scale, list(texts)
        (0.5, ['raw', 'effective', 'efficient'])
    """
    scale = max(float(matrix.abs().max()) for matrix in matrices)
    factor = STEPS / scale if scale > 0 else 0.0
    texts: dict[str, str] = {}
    for kind, matrix in zip(KINDS, matrices, strict=True):
        steps = (matrix.float() * factor).round().to(torch.int8).contiguous()
        texts[kind] = base64.b64encode(zlib.compress(steps.numpy().tobytes(), 9)).decode("ascii")
    return scale, texts
