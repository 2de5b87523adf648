"""Rankings of attention weights that follow further papers; `attention_weights.py` searches sets from them.

    flow        information flow routes (Ferrando and Voita, arXiv 2403.00824)
    masks       learned masks with a factual and a counterfactual loss (CF^2, arXiv 2202.08816)
    gim         gradient interaction modifications (Edin et al., arXiv 2505.17630)
    relp        relevance patching (arXiv 2508.21258)

Each function takes the scores of an input and the id of [MASK], which these rankings do not use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_attn_mi.capture import AttentionCall, ReplacedAttention, capture_attention
from hf_attn_mi.capture.function_mode import FunctionMode
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.methods.relevance.rules import layer_norm, uniform_rule
from hf_attn_mi.models.output_heads import find_logits
from hf_attn_mi.tasks.edge_ranking import EdgeScores, Scores
from hf_attn_mi.tasks.row_replacement import in_full_precision

FLOOR = 1e-5  # smallest share before it is normalized, as in the code of the authors of information flow routes
MASK_STEPS, MASK_RATE = 60, 0.2  # steps and rate of Adam
FACTUAL, MARGIN, PENALTY = 0.6, 0.5, 1000.0  # alpha, gamma and lambda of CF^2
TEMPERATURE = 2.0  # of the softmax in the backward pass of GIM


# --- information flow routes -----------------------------------------------------------------------------------------


def contributions(parts: Tensor, whole: Tensor) -> Tensor:
    """(parts,) shares in a sum: max(|y| - |y - z_k|, 0) in the L1 norm, normalized over the parts.

    Args:
        parts: (parts, ..., hidden) the terms z_k.
        whole: (..., hidden) the sum y.
    """
    near = whole.abs().sum(-1) - torch.stack([(part - whole).abs().sum(-1) for part in parts])
    near = near.clamp_min(FLOOR)
    return near / near.sum(0)


def flow_routes(scores: EdgeScores, mask_id: int) -> Scores:
    """The threshold at which a weight enters the graph of information flow routes.

    At a threshold t the graph holds every edge with a share of at least t that is reached, from the positions that the
    classifier reads downwards, by edges with such shares. A weight therefore enters at the smallest share on the best
    path to it, its own included; of weights that enter together the one with the larger share is first. Terms of the
    sum after the attention of a layer: the residual stream and, for each head and key, weight times projected value;
    after the feed-forward layer: the residual stream and the output of the layer. The class does not enter.

    Raises:
        UnsupportedModelError: the layers are not those of BERT, whose terms are known here.
    """
    sublayers = _BertSums(scores)
    calls = len(scores.weights)
    reached = sublayers.read
    entered, shares = {}, {}
    for number in reversed(range(calls)):
        attention, kept, through = sublayers.shares(number)
        shares[number] = attention[None]
        middle = torch.minimum(reached, through)
        entered[number] = torch.minimum(middle[None, :, None], attention)[None]
        reached = torch.maximum(torch.minimum(middle, kept), entered[number][0].amax((0, 1)))
    return _lexicographic(entered, shares)


class _BertSums:
    """The terms of the sums in every layer of a BERT.

    Attributes:
        read: (tokens,) one where the classifier reads the last states, by the gradient of the explained value.
    """

    def __init__(self, scores: EdgeScores) -> None:
        forward = scores.forward
        model, self.weights = forward.runner.model, scores.weights
        base = getattr(model, getattr(model, "base_model_prefix", ""), None)
        self.layers: Sequence[Any] = getattr(getattr(base, "encoder", None), "layer", ())
        if len(self.layers) != len(scores.weights) or not hasattr(self.layers[0], "intermediate"):
            raise UnsupportedModelError(f"information flow routes: {forward.runner.class_name} has no layers of BERT.")
        self.sums: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self.values: dict[int, Tensor] = {}
        outputs = [module for layer in self.layers for module in (layer.attention.output, layer.output)]
        states: list[Tensor] = []
        handles = [module.register_forward_pre_hook(self._keep) for module in outputs]
        handles += [self.layers[-1].output.register_forward_hook(lambda module, inputs, output: states.append(output))]
        try:
            with forward.paused(), torch.enable_grad(), capture_attention(model, self._keep_values):
                result = forward.runner.forward(forward.runner.collate([forward.input]))
                (slope,) = torch.autograd.grad(forward.target.settled()(result).sum(), states)
        finally:
            for handle in handles:
                handle.remove()
        self.read = (slope[0] != 0).any(-1).float()

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        self.sums[module] = (inputs[0][0].detach(), inputs[1][0].detach())  # for the projection; the residual stream

    def _keep_values(self, call: AttentionCall) -> None:
        self.values[call.index] = call.values_per_head()[0].detach()

    @torch.no_grad()
    def shares(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Shares of the weights (heads, queries, keys), of the residual stream, and of the best way on (tokens,)."""
        layer, rows, values = self.layers[number], self.weights[number][0], self.values[number]
        context, residual = self.sums[layer.attention.output]
        dense = layer.attention.output.dense
        heads, tokens, width = values.shape
        projected = torch.einsum("hkw,dhw->hkd", values, dense.weight.view(-1, heads, width))
        # (heads * keys, queries, hidden) would be large: the parts are made one at a time
        whole = dense(context) + residual
        norm = whole.abs().sum(-1)
        near = torch.stack(
            [
                norm - (rows[h, :, k, None] * projected[h, k] - whole).abs().sum(-1)
                for h in range(heads)
                for k in range(tokens)
            ]
        )
        near = torch.cat([near, (norm - (residual - whole).abs().sum(-1))[None]]).clamp_min(FLOOR)
        near = near / near.sum(0)
        own, below = self.sums[layer.output]
        parts = torch.stack([layer.output.dense(own), below])
        through = contributions(parts, parts.sum(0)).amax(0)
        return near[:-1].view(heads, tokens, -1).transpose(1, 2), near[-1], through


def _lexicographic(first: Scores, second: Scores) -> Scores:
    """Scores in the order of the first, and among equal ones in that of the second; zero where the first is zero."""
    flat, ties = (torch.cat([one[n].flatten() for n in range(len(one))]).double() for one in (first, second))
    order = ties.argsort(stable=True)
    order = order[flat[order].argsort(stable=True)]
    places = torch.empty(len(order)).scatter_(0, order, torch.arange(1.0, len(order) + 1))
    parts = (places * (flat > 0)).split([first[n].numel() for n in range(len(first))])
    return {n: part.view(first[n].shape) for n, part in enumerate(parts)}


# --- learned masks ---------------------------------------------------------------------------------------------------


def cf2_loss(kept: Tensor, left: Tensor, chosen: int, size: Tensor) -> Tensor:
    """|M|_1 + lambda (alpha L_f + (1 - alpha) L_c) with hinge losses on probabilities.

    Args:
        kept: (classes,) probabilities with the masked weights; the class must lead by the margin.
        left: (classes,) probabilities with the rest; another class must lead by the margin.
        chosen: the explained class.
        size: |M|_1.
    """
    others = torch.arange(len(kept)) != chosen
    factual = (MARGIN + kept[others].max() - kept[chosen]).clamp_min(0)
    counterfactual = (MARGIN + left[chosen] - left[others].max()).clamp_min(0)
    return size + PENALTY * (FACTUAL * factual + (1 - FACTUAL) * counterfactual)


def learned_masks(scores: EdgeScores, mask_id: int) -> Scores:
    """A mask between 0 and 1 on every weight, learned on this input; the rest is one minus the mask.

    As in CF^2 the masked weights are multiplied by the mask, and not scaled to their sum; all start at one half.
    """
    forward, runner = scores.forward, scores.forward.runner
    arguments, chosen = runner.collate([forward.input, forward.input]), forward.explained.target
    logits = {n: torch.zeros_like(one[0]).requires_grad_() for n, one in scores.weights.items()}

    def replace(call: AttentionCall) -> Tensor:
        mask = logits[call.index].sigmoid()
        return in_full_precision(call).attention() * torch.stack([mask, 1 - mask])

    optimizer = torch.optim.Adam(list(logits.values()), lr=MASK_RATE)
    with forward.paused(), torch.enable_grad():
        for _ in range(MASK_STEPS):
            with capture_attention(runner.model, _ignore, replace=replace):
                found = find_logits(runner.forward(arguments), runner.config)
            assert found is not None
            kept, left = found.softmax(-1)
            size = torch.stack([one.sigmoid().sum() for one in logits.values()]).sum()
            optimizer.zero_grad()
            cf2_loss(kept, left, chosen, size).backward(inputs=list(logits.values()))
            optimizer.step()
    return {n: one.detach().sigmoid()[None] for n, one in logits.items()}


# --- backward rules --------------------------------------------------------------------------------------------------


class TemperedSoftmax(torch.autograd.Function):
    """The softmax, whose backward pass is that of the softmax of the logits divided by the temperature."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        return logits.softmax(-1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (logits,) = ctx.saved_tensors
        return tempered_slope(logits, slope)


def tempered_slope(logits: Tensor, slope: Tensor) -> Tensor:
    """r_j (g_j - sum_k r_k g_k) with r the softmax of the logits divided by the temperature.

    Without the factor 1 / T of the derivative: so does the authors' package, `gim-explain` 0.1.4.
    """
    rows = (logits / TEMPERATURE).softmax(-1)
    return rows * (slope - (rows * slope).sum(-1, keepdim=True))


class FrozenNorms(FunctionMode):
    """Layer normalization passes gradients as if the standard deviation were a constant."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (layer_norm if func is F.layer_norm else func)(*args, **(kwargs or {}))


def gim(scores: EdgeScores, mask_id: int) -> Scores:
    """Gradient of the explained value with respect to the attention logits, by the backward rules of GIM.

    The softmax passes gradients at temperature 2, the standard deviations of normalization layers are constants, and
    the gradients of products are divided between their factors: weights and values, queries and keys. At temperature 1
    and without the other rules this would be `gradient`, since the gradient with respect to a logit is
    a_ij (g_ij - sum_k a_ik g_ik). Gated feed-forward layers have no rule here.
    """
    forward, runner = scores.forward, scores.forward.runner
    rows_of, logits_of = dict[int, Tensor](), dict[int, Tensor]()

    def replace(call: AttentionCall) -> ReplacedAttention:
        call = in_full_precision(call)
        logits = call.logits().masked_fill(~call.allowed(), torch.finfo(torch.float32).min)
        shared = logits.detach() + (logits - logits.detach()) / 2  # query and key get a half each
        rows: Tensor = TemperedSoftmax.apply(shared)  # type: ignore[no-untyped-call]
        rows = rows if rows.requires_grad else rows.detach().requires_grad_()
        values = call.values_per_head()
        rows_of[call.index], logits_of[call.index] = rows, logits.detach()
        return ReplacedAttention(rows, uniform_rule(torch.matmul, [rows, values]))

    with forward.paused(), torch.enable_grad(), capture_attention(runner.model, _ignore, replace=replace):
        with FrozenNorms():
            outputs = runner.forward(runner.collate([forward.input]))
        value = forward.target.settled()(outputs)
        slopes = torch.autograd.grad(value.sum(), [rows_of[n] for n in range(len(rows_of))])
    return {n: tempered_slope(logits_of[n], slope) for n, slope in enumerate(slopes)}


def relp(scores: EdgeScores, mask_id: int) -> Scores:
    """a_ij <v_j, g_i> with g_i the coefficient that the rules of RelP propagate to the output of the head.

    Attention weights and standard deviations are constants, activations are gates f(x)/x, products are shared equally.
    """
    return scores.relevance_products()


def _ignore(call: AttentionCall) -> None:
    """Capture a pass for its checks."""
