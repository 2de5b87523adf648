"""Rankings of attention weights, for the search for those that carry the prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.capture import AttentionCall, ReplacedAttention, capture_attention
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.methods.relevance import relevance
from hf_attn_mi.tasks.restricted_forward import BACKWARD, RestrictedForward
from hf_attn_mi.tasks.restricted_probes import try_sharing
from hf_attn_mi.tasks.row_replacement import in_full_precision

Scores = dict[int, Tensor]  # by the number of the call, (windows, heads, queries, keys)
GRADIENT = "gradient"


class EdgeScores:
    """Scores of all attention weights of one input, by the rankings of `RANKINGS`.

    Args:
        forward: an open `RestrictedForward`, not yet analyzed; `analyze` is called here.
        seed: the random seed for the random ranking.

    Attributes:
        weights: the attention weights by call.
        products: weight times gradient of the explained value, by call; {} if the model has no gradients.
    """

    def __init__(self, forward: RestrictedForward, seed: int) -> None:
        self.forward, self.seed = forward, seed
        self.weights, gradients = forward.analyze()
        try_sharing(forward)
        self.products = {number: self.weights[number] * slope for number, slope in gradients.items()}

    def gradient(self) -> Scores:
        """c_ij = a_ij (g_ij - sum_k a_ik g_ik) with g the gradient of the explained value (its log-odds)."""
        if not self.products:
            raise UnsupportedModelError(
                f"ranking='gradient': no gradient reaches the attention weights of {self.forward.runner.class_name} "
                "(quantized weights, or an operation without a gradient). Use ranking='attention'."
            )
        return {n: _centered(self.weights[n], product) for n, product in self.products.items()}

    def relevance(self) -> Scores:
        """c_ij = a_ij <v_j - o_i, g_i> with g_i the gradient at the head output in the linearized forward pass."""
        return {n: _centered(self.weights[n], product) for n, product in self.relevance_products().items()}

    def relevance_products(self) -> Scores:
        """a_ij <v_j, g_i>: `relevance` before it is centered."""
        forward, runner = self.forward, self.forward.runner
        calls: list[tuple[Tensor, Tensor, list[Tensor]]] = []

        def replace(call: AttentionCall) -> ReplacedAttention | None:
            rows = in_full_precision(call).attention()
            if not call.value.requires_grad:
                calls.append((rows.detach(), call.values_per_head(), []))
                return None
            values, slopes = call.values_per_head(), list[Tensor]()
            output = rows.to(values.dtype).detach() @ values
            output.register_hook(slopes.append)  # type: ignore[no-untyped-call]
            calls.append((rows.detach(), values.detach(), slopes))
            return ReplacedAttention(rows, output)

        def run(arguments: Mapping[str, Any]) -> Any:
            with capture_attention(runner.model, _ignore, replace=replace):
                return runner.forward(arguments)

        with forward.paused():
            relevance(runner, runner.collate([forward.input]), forward.target.settled(), run=run)
        forward.forwards += BACKWARD
        products = {}
        for number, (rows, values, slopes) in enumerate(calls):
            slope = slopes[0].float() @ values.float().transpose(-1, -2) if slopes else torch.zeros_like(rows)
            products[number] = rows * slope
        if [tuple(rows.shape) for rows in products.values()] != [tuple(rows.shape) for rows in self.weights.values()]:
            raise UnsupportedModelError(
                f"ranking='relevance': the linearized forward pass of {runner.class_name} has other attention calls "
                "than the model's own. Use ranking='gradient'."
            )
        return products

    def attention(self) -> Scores:
        """The attention weights themselves, a control."""
        return self.weights

    def random(self) -> Scores:
        """Uniform random numbers, a control."""
        generator = torch.Generator().manual_seed(self.seed)
        return {n: torch.rand(rows.shape, generator=generator, dtype=torch.float32) for n, rows in self.weights.items()}

    def flat(self, scores: Scores) -> Tensor:
        """(places,) float32 on the CPU: the scores of all edges in the order of their numbers."""
        return torch.cat([scores[number].flatten().float().cpu() for number in range(len(self.weights))])


RANKINGS: dict[str, Callable[[EdgeScores], Scores]] = {
    GRADIENT: EdgeScores.gradient,
    "relevance": EdgeScores.relevance,
    "attention": EdgeScores.attention,
    "random": EdgeScores.random,
}


def order_of(scores: Tensor, present: Tensor, last: Tensor | None = None) -> Tensor:
    """Return the edges, strongest first; those whose score is exactly zero come at the end.

    An edge without any influence on the explained value has score zero. It cannot help a set, so that it stands behind
    those that oppose the class.

    Args:
        scores: (places,) of all places.
        present: (places,) bool, whether there is an edge.
        last: numbers of edges that are left out.

    Example:
        >>> order_of(torch.tensor([0.0, 2.0, -1.0, 3.0, 9.0]), torch.tensor([1, 1, 1, 1, 0]).bool()).tolist()
        [3, 1, 2, 0]
    """
    allowed = present.clone()
    if last is not None:
        allowed[last] = False
    numbers = allowed.nonzero()[:, 0]
    tail_scores = scores[numbers]
    tail_scores = tail_scores.where(tail_scores != 0, torch.full_like(tail_scores, -torch.inf))
    return numbers[tail_scores.argsort(descending=True, stable=True)]


def _centered(rows: Tensor, products: Tensor) -> Tensor:
    return products - rows * products.sum(-1, keepdim=True)


def _ignore(call: AttentionCall) -> None:
    """Capture a pass for its checks."""
