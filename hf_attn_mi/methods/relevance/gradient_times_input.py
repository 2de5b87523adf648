"""Gradient x input of the linearized forward pass at the token embeddings: the scores of "relevance" and "attnlrp"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture import first_layer
from hf_attn_mi.capture.model_state import visible_attention
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.methods.relevance.custom_activations import custom_functions, gated_activations
from hf_attn_mi.methods.relevance.linearized_forward import Leaf, LinearizedForward, SoftmaxRule
from hf_attn_mi.methods.relevance.linearized_target import LinearizedTarget
from hf_attn_mi.models.gradients import gradients as gradients_of
from hf_attn_mi.models.model_probe import probe
from hf_attn_mi.models.output_tensors import map_tensors
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.token_origins import TokenOrigins
from hf_attn_mi.models.token_table import find_table

FIRST_LAYER = "input of the first layer"


@dataclass(frozen=True, eq=False)
class Relevance:
    """Token scores of a batch and how completely they account for the explained value."""

    scores: Tensor  # (batch, tokens) signed
    bias: Tensor  # (batch,) float64 share of biases, positions and other constants
    value: Tensor  # (batch,) float64 the explained value
    gap: Tensor  # (batch,) |value - sum of scores - bias| / max(|value|, sum of |scores|)
    space: str  # the space in which gradient x input is taken
    target_gap: Tensor  # (batch,) the part of the gap due to the target function, not to the model
    tangents: tuple[str, ...] = ()  # functions of the target that were replaced by their tangent
    factors: tuple[str, ...] = ()  # functions f(x) of the target of which f(x) / x was held constant
    pieces: tuple[str, ...] = ()  # functions of the target that select outputs or take their signs
    unfollowed: tuple[str, ...] = ()  # operations of the model that have no rule
    # (batch, entries) shares of other texts, by argument; they are part of `bias`
    others: Mapping[str, Tensor] = field(default_factory=dict)


def relevance(
    runner: EncoderRunner,
    arguments: Mapping[str, Any],
    target: Callable[[Any], Tensor],
    *,
    run: Callable[[Mapping[str, Any]], Any] | None = None,
    softmax_rule: SoftmaxRule = "detach",
) -> Relevance:
    """Gradient x input of the linearized forward pass at the token embeddings.

    Attention rows, standard deviations of normalization layers and activation gates f(x)/x are held at their
    values; the rest is affine in the embeddings x, and score_j = <x_j, d value / d x_j>. Products of two
    activations (gated feed-forward layers) are shared equally between their factors. Conservative propagation: Ali et
    al., arXiv 2202.07304; by derivation the decomposition of DecompX (arXiv 2306.02873) with the bias terms kept
    separate, from the word embeddings on (its authors' code starts after the embedding layer).

    Args:
        runner: runs the model, inside a `session`.
        arguments: keyword arguments of its forward, batch first.
        target: outputs -> (batch,) explained values, for example a class logit minus the mean of the others. It runs
            inside the linearized network: see `LinearizedTarget` for the rules of its operations.
        run: arguments -> outputs of the forward pass; by default `runner.forward`.
        softmax_rule: "detach" holds attention rows constant; "taylor" takes the softmax as its tangent, which shares
            relevance with queries and keys (AttnLRP, arXiv 2402.05602).

    Returns:
        A `Relevance`. Parameters, their gradients and the model's flags are untouched.

    Raises:
        UnsupportedModelError: no gradient reaches the embeddings (quantized weights, an embedding used twice).
    """
    return relevances(runner, arguments, [target], run=run, softmax_rule=softmax_rule)[0]


def relevances(
    runner: EncoderRunner,
    arguments: Mapping[str, Any],
    targets: Sequence[Callable[[Any], Tensor]],
    *,
    run: Callable[[Mapping[str, Any]], Any] | None = None,
    softmax_rule: SoftmaxRule = "detach",
) -> list[Relevance]:
    """The `relevance` of each target: one forward pass, and one backward pass for each."""
    main = next(value for value in arguments.values() if isinstance(value, Tensor))
    batch = main.shape[0]
    network = _leaves(runner, arguments, batch, softmax_rule)
    with visible_attention(runner.model), torch.enable_grad(), network as (linearized, changed, leaves, space):
        with linearized, gated_activations(runner.model):
            outputs = (run or runner.forward)(changed)
        results = []
        for number, target in enumerate(targets):
            linearized.forget_bias()  # every backward pass collects its own
            keep = number + 1 < len(targets)
            results.append(_of_target(runner.model, arguments, target, outputs, linearized, leaves(), space, keep=keep))
    return results


def _of_target(
    model: nn.Module,
    arguments: Mapping[str, Any],
    target: Callable[[Any], Tensor],
    outputs: Any,
    linearized: LinearizedForward,
    leaves: Sequence[Leaf],
    space: str,
    *,
    keep: bool,
) -> Relevance:
    """The relevance of one target; `keep` leaves the graph of the forward pass for further ones."""
    batch = linearized.batch
    read: list[Tensor] = []  # what the target reads: the outputs that depend on the leaves
    outputs = map_tensors(outputs, lambda tensor: _noted(tensor, read))
    reading = LinearizedTarget(batch)
    with nullcontext() if _is_linear(target, outputs) else reading:
        value = target(outputs)
    _refuse_without_gradient(model, space, bool(leaves), value, read)
    unfollowed = custom_functions(value)
    tensors, constants = [leaf.tensor for leaf in leaves], linearized.constants
    everything = gradients_of(value, [*tensors, *constants, *read], keep=keep)
    gradients, of_outputs = everything[: len(tensors)], everything[len(tensors) + len(constants) :]
    linearized.add_gradients(everything[len(tensors) : len(tensors) + len(constants)])
    value = value.detach().double().cpu()
    left = value - reading.bias  # becomes the part of the value that the target is responsible for
    for output, gradient in zip(read, of_outputs):
        left = left - _by_example(output, gradient, batch)
    shares = _shares(model, space, leaves, gradients, arguments, batch)
    scores, bias = shares.scores, linearized.bias + reading.bias + shares.bias
    missing = (value - scores.sum(1) - bias).abs()
    scale = torch.maximum(value.abs(), scores.abs().sum(1)).clamp_min(1e-12)
    gap = missing / scale
    total = (value.sum() - scores.sum() - bias.sum()).abs() / scale.sum()
    if batch > 1 and float(gap.max()) > 1e-3 > float(total):  # bias terms of a layout that is not batch-first
        gap = total.expand(batch)
    target_gap = (left.abs() / scale).float() if read else torch.zeros(batch, dtype=torch.float32)
    others = {key: share.float() for key, share in shares.others.items()}
    return Relevance(
        scores.float(),
        bias,
        value,
        gap.float(),
        space,
        target_gap,
        tuple(reading.tangents),
        reading.factors,
        tuple(reading.pieces),
        tuple(dict.fromkeys([*linearized.unfollowed, *unfollowed])),
        others,
    )


def _is_linear(target: Callable[[Any], Tensor], outputs: Any) -> bool:
    """Whether it is known of a target that its value is linear in the outputs: then its operations need no rules."""
    known = getattr(target, "is_linear", None)
    return known is not None and bool(known(outputs))


@dataclass(eq=False)
class _Shares:
    scores: Tensor  # (batch, tokens)
    bias: Tensor  # (batch,) of look-ups that are not tokens of the input
    others: dict[str, Tensor]  # (batch, entries) the part of them that belongs to entries of other arguments


def _shares(
    model: nn.Module,
    space: str,
    leaves: Sequence[Leaf],
    gradients: Sequence[Tensor | None],
    arguments: Mapping[str, Any],
    batch: int,
) -> _Shares:
    """Gradient x input of every leaf, given to the tokens of the input."""
    token_ids = _token_ids(arguments)
    known = token_ids is not None and any(leaf.places is not None and bool((leaf.places >= 0).any()) for leaf in leaves)
    empty = torch.zeros(token_ids.shape, dtype=torch.float64) if known and token_ids is not None else torch.zeros(())
    shares = _Shares(empty, torch.zeros(batch, dtype=torch.float64), {})
    for leaf, gradient in zip(leaves, gradients):
        if gradient is None:
            continue
        contribution = _positions((gradient.double() * leaf.tensor.detach().double()).cpu(), model)
        if leaf.ids is None and contribution.shape[0] != batch:
            raise _mixed(model, space, leaf.tensor)
        if known and leaf.ids is not None and contribution.shape == leaf.ids.shape:
            _give(shares, contribution, leaf, arguments)
        else:
            shares.scores, constant = _place(shares.scores, contribution, leaf.ids, token_ids)
            shares.bias = shares.bias + constant
    if shares.scores.dim() != 2 or shares.scores.shape[0] != batch:
        raise _mixed(model, space, leaves[0].tensor)
    return shares


def _give(shares: _Shares, contribution: Tensor, leaf: Leaf, arguments: Mapping[str, Any]) -> None:
    """Add the contribution of one look-up to the tokens that its ids come from; the rest belongs to the bias."""
    batch = len(shares.bias)
    places = torch.full(contribution.shape, -1) if leaf.places is None else leaf.places.cpu()
    mine = places >= 0
    shares.scores = shares.scores.flatten().index_add(0, places[mine], contribution[mine]).view(shares.scores.shape)
    rest = ~mine
    for key, entries in leaf.others.items():
        entries, size = entries.cpu(), arguments[key].numel()
        if arguments[key].shape[0] != batch:
            continue
        theirs = entries >= 0
        share = torch.zeros(size, dtype=torch.float64).index_add(0, entries[theirs], contribution[theirs])
        share = share.view(batch, size // batch)
        shares.others[key] = shares.others.get(key, torch.zeros_like(share)) + share
        shares.bias, rest = shares.bias + share.sum(1), rest & ~theirs
    left = torch.where(rest, contribution, 0.0)
    if left.shape[0] == batch:
        shares.bias = shares.bias + left.reshape(batch, -1).sum(1)
    else:
        shares.bias = shares.bias + left.sum() / batch


def _noted(tensor: Tensor, read: list[Tensor]) -> Tensor:
    """The tensor; one that a gradient can reach as a view of its own, appended to `read`."""
    if not tensor.requires_grad:
        return tensor
    read.append(tensor.view_as(tensor))
    return read[-1]


def _by_example(output: Tensor, gradient: Tensor | None, batch: int) -> Tensor | float:
    """(batch,) <output, gradient>; shared out equally where the output is not batch-first."""
    if gradient is None:
        return 0.0
    product = torch.where(gradient == 0, 0.0, output.detach().double() * gradient.double()).cpu()
    if product.dim() and product.shape[0] == batch:
        return product.reshape(batch, -1).sum(1)
    return (product.sum() / batch).expand(batch)


def _refuse_without_gradient(
    model: nn.Module, space: str, has_gradient: bool, value: Tensor, read: list[Tensor]
) -> None:
    if has_gradient and value.requires_grad:
        return
    if has_gradient and read:
        raise UnsupportedModelError(
            f"target: no gradient leads from its value to the outputs of {type(model).__name__}. It must be computed "
            "by PyTorch from the outputs, without detach, argmax or comparison, and not as a constant divided by them."
        )
    raise UnsupportedModelError(
        f"{type(model).__name__}: the explained value does not depend on the {space} by gradients: its weights are "
        "quantized (load the model in float32, bfloat16 or float16), its outputs are computed outside the graph "
        "(detach, numpy, no_grad), or they are made by a softmax, which method='relevance' holds constant (return "
        "logits, or use method='attnlrp')."
    )


@contextmanager
def _leaves(runner: EncoderRunner, inputs: Mapping[str, Any], batch: int, softmax_rule: SoftmaxRule) -> Iterator[Any]:
    """The linearized forward with leaves at the embeddings, the arguments to call, the leaves, their name."""
    if "inputs_embeds" in inputs:
        leaf = inputs["inputs_embeds"].detach().clone().requires_grad_(True)
        arguments = {**inputs, "inputs_embeds": leaf}
        yield LinearizedForward(None, batch, softmax_rule), arguments, lambda: [Leaf(leaf)], "inputs_embeds"
        return
    token_ids = _token_ids(inputs)
    table = None if token_ids is None else find_table(runner, inputs)
    weight = None if table is None else table.weight
    if weight is not None or (token_ids is not None and probe(runner, inputs).looks_up):
        linearized = LinearizedForward(weight, batch, softmax_rule, origins=TokenOrigins(inputs))
        yield linearized, inputs, lambda: linearized.leaves, "word embeddings"
        return
    first_leaves: list[Leaf] = []

    def start(module: nn.Module, args: Any, kwargs: Any) -> Any:
        if first_leaves:
            return None
        states = args[0] if args else kwargs["hidden_states"]
        leaf = states.detach().requires_grad_(True)
        first_leaves.append(Leaf(leaf))
        return ((leaf, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": leaf})

    handle = first_layer(runner.model).register_forward_pre_hook(start, with_kwargs=True)
    try:
        yield LinearizedForward(None, batch, softmax_rule), inputs, lambda: first_leaves, FIRST_LAYER
    finally:
        handle.remove()


def _mixed(model: nn.Module, space: str, leaf: Tensor) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{type(model).__name__}: the {space} (shape {tuple(leaf.shape)}) cannot be assigned to inputs."
    )


def _token_ids(inputs: Mapping[str, Any]) -> Tensor | None:
    ids = inputs.get("input_ids", inputs.get("inputs"))
    return ids if isinstance(ids, Tensor) and ids.dim() == 2 and not ids.is_floating_point() else None


def _positions(products: Tensor, model: nn.Module) -> Tensor:
    """Sum over the channels of (batch, tokens, hidden), or of a feature map with channels last or first."""
    if products.dim() == 4:
        hidden = getattr(getattr(model, "config", None), "hidden_size", None)
        return products.sum(-1 if products.shape[-1] == hidden else 1).flatten(1)
    return products.sum(-1)


def _place(scores: Tensor, share: Tensor, ids: Tensor | None, token_ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """Add the share of one look-up to the tokens it stands for; the rest counts as bias, (batch,)."""
    none = torch.zeros(share.shape[0] if token_ids is None else token_ids.shape[0], dtype=share.dtype)
    if ids is None or token_ids is None or (ids.shape == token_ids.shape and torch.equal(ids, token_ids)):
        return scores + share, none
    if ids.dim() == 2 and ids.shape == token_ids.t().shape and torch.equal(ids, token_ids.t()):  # (tokens, batch)
        return scores + share.t(), none
    if ids.shape == token_ids.shape and torch.equal(ids[:, 1:], token_ids[:, :-1]):  # decoder input, shifted right
        moved = torch.cat([share[:, 1:], torch.zeros_like(share[:, :1])], 1)
        return scores + moved, share[:, 0]
    return scores, share.sum(1) if share.shape[0] == none.shape[0] else share.sum() / none.shape[0] + none
