"""Inspect a classifier with one forward pass: its stack of layers, their width, and which states its output reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture import LayerStates, capture_attention
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.gradients import gradients
from hf_attn_mi.models.output_heads import find_logits
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.weights import nonfinite_reason

NEEDED = (
    "Mutual information needs a distribution over two or more classes: a model with class logits (batch, classes), "
    "such as AutoModelForSequenceClassification with num_labels >= 2"
)


@dataclass(frozen=True)
class LayerInspection:
    """The stack of layers that covers the input's tokens.

    Attributes:
        stack: name of the module whose layers these are.
        layers: indices of the states (0 = embeddings) that have one state of `width` a token.
        last: index of the stack's last state.
        width: the width of a state.
        classes: number of classes.
        reads: "first" or "last" where the logits depend on the last states through the first or last token only.
    """

    stack: str
    layers: tuple[int, ...]
    last: int
    width: int
    classes: int
    reads: str | None


def class_logits(runner: EncoderRunner, outputs: Any, batch: int) -> Tensor:
    """The logits (batch, classes) of a classifier with two classes or more.

    Raises:
        InvalidInputError: a regression, one logit, labels that do not exclude each other, no head, or logits that are
            not finite.
    """
    kind = getattr(runner.config, "problem_type", None)
    if kind in ("regression", "multi_label_classification"):
        raise InvalidInputError(f"model: problem_type {kind!r} gives no distribution over classes. {NEEDED}.")
    logits = find_logits(outputs, runner.config)
    if logits is None or logits.shape[0] != batch or logits.shape[1] < 2:
        shape = "none" if logits is None else tuple(logits.shape)
        raise InvalidInputError(f"model: {runner.class_name} has logits of shape {shape}. {NEEDED}.")
    if not bool(torch.isfinite(logits).all()):
        raise InvalidInputError(f"model: the logits are not finite. {nonfinite_reason(runner.model)}")
    return logits


def in_stack(record: LayerStates, prefix: str) -> bool:
    """Whether the states can be those of the encoder: not those of a decoder."""
    return prefix == "" or record.stack in ("encoder", prefix) or record.stack.startswith(prefix + ".")


def inspect_layers(runner: EncoderRunner, one: EncodedInput) -> LayerInspection:
    """Inspect the model by a pass over one example (preferably of three tokens or more).

    `reads` is found by the gradient of the logits by the last states, which is exactly zero for tokens not read.

    Raises:
        InvalidInputError: as in `class_logits`.
        UnsupportedModelError: no stack has a state for each token of the input.
    """
    prefix, length = runner.encoder_prefix, one.length
    by_stack: dict[str, list[LayerStates]] = {}

    def keep(record: LayerStates) -> None:
        if in_stack(record, prefix):
            by_stack.setdefault(record.stack, []).append(record)

    with runner.session(), torch.enable_grad(), _differentiable(runner.input_embedding):
        with capture_attention(runner.model, lambda call: None, states=keep):
            outputs = runner.forward(runner.collate([one]))
        logits = class_logits(runner, outputs, 1)
        stacks = {
            name: [r for r in records if r.states.dim() == 3 and r.states.shape[:2] == (1, length)]
            for name, records in by_stack.items()
        }
        name = max(stacks, key=lambda name: len(stacks[name]), default="")
        if not stacks.get(name):
            raise UnsupportedModelError(
                f"{runner.class_name} has no layers with one state for each token of the input."
            )
        records = stacks[name]
        last, width = by_stack[name][-1].index, records[-1].states.shape[2]
        reads = _read_by(logits, records[-1].states) if records[-1].index == last else None
    layers = tuple(r.index for r in records if r.states.shape[2] == width)
    return LayerInspection(name, layers, last, width, logits.shape[1], reads)


def _read_by(logits: Tensor, states: Tensor) -> str | None:
    """Which of the (1, tokens, width) states the logits depend on; None for several, or where it is not known."""
    if not (logits.requires_grad and states.requires_grad) or states.shape[1] < 2:
        return None
    weights = torch.arange(1.0, logits.shape[1] + 1, device=logits.device, dtype=logits.dtype)
    try:
        (slope,) = gradients(logits * weights, [states])
    except UnsupportedModelError:
        return None
    places = [] if slope is None else slope[0].abs().sum(-1).nonzero()[:, 0].tolist()
    return {(0,): "first", (states.shape[1] - 1,): "last"}.get(tuple(places))


@contextmanager
def _differentiable(table: nn.Embedding | None) -> Iterator[None]:
    """Gradients flow from the embeddings on, also where every weight is frozen."""

    def start(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output.detach().requires_grad_(torch.is_grad_enabled()).clone()  # a clone may be changed in place

    handle = None if table is None else table.register_forward_hook(start)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
