"""Attention and hidden states of any Hugging Face encoder, streamed while the model runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from hf_attn_mi.capture.layer_stacks import layer_stacks
from hf_attn_mi.capture.model_state import eager_stance, model_lock, unwrap, visible_attention
from hf_attn_mi.capture.multihead import multi_head_call, rows_and_logits
from hf_attn_mi.capture.naming import ModuleNames
from hf_attn_mi.capture.records import AttentionCall, LayerStates, Projection, repeat_heads
from hf_attn_mi.capture.states import stream_states
from hf_attn_mi.capture.torch_ops import is_attention_rows
from hf_attn_mi.capture.tracer import AttentionTracer
from hf_attn_mi.capture.validation import Findings, ModuleCheck
from hf_attn_mi.errors import UnsupportedModelError

__all__ = [
    "AttentionCall",
    "Capture",
    "LayerStates",
    "ModuleCheck",
    "Projection",
    "capture_attention",
    "eager_stance",
    "first_layer",
    "is_attention_rows",
    "model_lock",
    "module_checks",
    "multi_head_call",
    "repeat_heads",
    "rows_and_logits",
    "unwrap",
]

_checked: WeakKeyDictionary[nn.Module, dict[str, ModuleCheck]] = WeakKeyDictionary()
_streams: WeakKeyDictionary[nn.Module, dict[str, bool]] = WeakKeyDictionary()


@dataclass
class Capture:
    """What `capture_attention` yields: the records kept where no consumer was given, and the checks."""

    calls: list[AttentionCall] = field(default_factory=list)
    states: list[LayerStates] = field(default_factory=list)
    checks: dict[str, ModuleCheck] = field(default_factory=dict)

    @property
    def linear_output(self) -> bool:
        """Whether every attention product was followed to a linear W_O."""
        return all(check.features is not None for check in self.checks.values())


@contextmanager
def capture_attention(
    model: nn.Module,
    consumer: Callable[[AttentionCall], None] | None = None,
    *,
    states: Callable[[LayerStates], None] | bool = False,
    replace: Callable[[AttentionCall], Tensor | None] | None = None,
) -> Iterator[Capture]:
    """Streams every attention call (and, on request, hidden state) of a model while the context is open.

    The model runs its own code with its own kernels: its outputs are bit-equal with and without the context.
    Records are handed over as soon as the product is followed to W_O and are dropped when the consumer returns.

    Args:
        model: a PreTrainedModel, also compiled, prepared by accelerate or wrapped for data parallelism. Call
            it inside the context as usual; evaluation mode is the caller's choice.
        consumer: called with each `AttentionCall`. None keeps them all in `Capture.calls` (this holds query,
            key and value of every layer: for inspection of small inputs).
        states: a function called with each `LayerStates`, or True to keep them in `Capture.states`.
        replace: called with each `AttentionCall` before its output is used; returns new attention rows
            (batch, heads, queries, keys), or None to leave this call alone. The model then goes on with
            rows @ values. Later records show what was used.

    Yields:
        A `Capture`.

    Raises:
        UnsupportedModelError: the attention of this forward pass was not captured exactly: raised when the model's
            forward ends. On first use every attention module is checked: its product is followed element by
            element to W_O, and the sum over heads is compared with the projection's output.
        InvalidInputError: `model` is not a module.

    Example:
        >>> with capture_attention(model) as capture:          # doctest: +SKIP
        ...     model(**inputs)
        >>> capture.calls[0].attention().shape                 # doctest: +SKIP
        torch.Size([1, 12, 9, 9])
    """
    inner = unwrap(model)
    capture = Capture()
    with ExitStack() as stack:
        stack.enter_context(model_lock(inner))
        stack.enter_context(eager_stance(model))
        stack.enter_context(visible_attention(inner))
        names = ModuleNames(inner)
        capture.checks = _checked.setdefault(inner, {})
        findings = Findings(names, checks=capture.checks)
        tracer = AttentionTracer(names, findings, consumer or capture.calls.append, replace)
        stack.enter_context(_pass_boundaries(inner, tracer))
        if states:
            receive = capture.states.append if states is True else states
            stack.enter_context(stream_states(names, receive, _streams.setdefault(inner, {})))
        with tracer:
            yield capture
        tracer.flush()


def module_checks(model: nn.Module) -> dict[str, ModuleCheck]:
    """What was found when each attention module of this model first ran under `capture_attention`."""
    return dict(_checked.get(unwrap(model), {}))


def first_layer(model: nn.Module) -> nn.Module:
    """The first layer of the model's first stack of layers.

    Raises:
        UnsupportedModelError: there is no stack of layers with attention.
    """
    names = ModuleNames(unwrap(model))
    for layers in layer_stacks(names).values():
        return names.modules[layers[0]]
    raise UnsupportedModelError(f"{type(model).__name__} has no stack of layers with attention.")


@contextmanager
def _pass_boundaries(model: nn.Module, tracer: AttentionTracer) -> Iterator[None]:
    """Start and verify each forward pass of the whole model."""
    thread = threading.get_ident()

    def start(module: nn.Module, args: Any) -> None:
        if threading.get_ident() == thread:
            tracer.start_pass()

    def end(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            tracer.flush()
            tracer.findings.verify()

    handles = [model.register_forward_pre_hook(start), model.register_forward_hook(end)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
