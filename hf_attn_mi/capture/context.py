"""`capture_attention`: attention and hidden states, streamed while a model runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture.followed_pass import FollowedPasses, pass_key
from hf_attn_mi.capture.model_cache import cached, cached_pair
from hf_attn_mi.capture.model_state import attention_settings, eager_stance, model_lock, unwrap, visible_attention
from hf_attn_mi.capture.module_names import ModuleNames, NameTable, layer_stacks
from hf_attn_mi.capture.records import AttentionCall, LayerStates, ReplacedAttention
from hf_attn_mi.capture.states import stream_states
from hf_attn_mi.capture.tracer import AttentionTracer
from hf_attn_mi.capture.validation import CaptureValidation, ModuleCheck
from hf_attn_mi.errors import UnsupportedModelError


@dataclass
class Capture:
    """The object that `capture_attention` yields.

    Attributes:
        calls: the attention calls, where no consumer was passed.
        states: the hidden states, with `states=True`.
        checks: module name -> result of its check on first use.
        repeats: whether a further pass of the same call runs the operations of the last one, as far as attention goes.
    """

    calls: list[AttentionCall] = field(default_factory=list)
    states: list[LayerStates] = field(default_factory=list)
    checks: dict[str, ModuleCheck] = field(default_factory=dict)
    repeats: bool = False

    @property
    def linear_output(self) -> bool:
        """Whether every attention product is followed by a linear W_O."""
        return all(check.features is not None for check in self.checks.values())


@contextmanager
def capture_attention(
    model: nn.Module,
    consumer: Callable[[AttentionCall], None] | None = None,
    *,
    states: Callable[[LayerStates], None] | bool = False,
    replace: Callable[[AttentionCall], Tensor | ReplacedAttention | None] | None = None,
    skipped: set[str] | None = None,
) -> Iterator[Capture]:
    """Stream every attention call, and on request every hidden state, of a model while the context is open.

    The model runs its own code with its own kernels: its outputs are bit-equal with and without the context (unless
    `replace` changes them). Flash and flex kernels are the exception: they are switched to sdpa or eager attention, and
    compiled code runs eagerly. Everything is restored when the context ends, also after an exception. Contexts may be
    nested; another thread that opens one for the same model waits.

    Args:
        model: a PreTrainedModel or another module with softmax attention, also compiled, prepared by accelerate or
            wrapped for data parallelism. Call it inside the context as usual, as often as needed. Training or
            evaluation mode and gradients are the caller's choice.
        consumer: called with each `AttentionCall` as soon as its product is followed to W_O; the record can be freed
            when the consumer returns. None keeps all calls in `Capture.calls`: query, key and value of every layer stay
            in memory, so this is for small inputs.
        states: a function called with each `LayerStates`, or True to keep them in `Capture.states`. False captures no
            hidden states.
        replace: called with each `AttentionCall` before its output is used (its `projection` is None then). It returns
            new attention rows (batch, heads, queries, keys), with which the model continues as rows @ values, a
            `ReplacedAttention` to set the output, too, or None to leave this call unchanged. The record passed to
            `consumer` has the rows that were used.
        skipped: names of layers that need not make an attention call in a pass; see `capture.skipped_layers`. The
            caller may change the set between passes.

    Yields:
        A `Capture`.

    Raises:
        UnsupportedModelError: the attention of a forward pass was not captured exactly; raised at the end of the
            model's forward. When an attention module runs for the first time it is checked: its product is followed
            element by element to W_O, and the sum over heads is compared with the output of the projection.
            The same where a model is run by the consumer or by `replace`.
        InvalidInputError: `model` is not a module, or `replace` returned rows of another shape.

    Example:
        >>> with capture_attention(model) as capture:          # doctest: +SKIP
        ...     model(**inputs)
        >>> capture.calls[0].attention().shape                 # doctest: +SKIP
        torch.Size([1, 12, 9, 9])
    """
    inner = unwrap(model)
    _refuse_inside_consumer(inner)
    capture = Capture()
    # Not by enter_context: Ctrl-C between its two steps would leave the lock locked.
    with visible_attention(inner), model_lock(inner), eager_stance(model), ExitStack() as stack:
        checks, table = cached_pair(inner, _CHECKS, ("module_names", lambda: NameTable.of(inner)))
        names, capture.checks = ModuleNames(inner, table), checks
        validation = CaptureValidation(names, checks=capture.checks, skipped=set() if skipped is None else skipped)
        tracer = AttentionTracer(names, validation, consumer or capture.calls.append, replace)
        follows = replace is None and skipped is None
        stack.enter_context(_pass_boundaries(inner, tracer, capture, keeps=follows))
        if states:
            receive = capture.states.append if states is True else states
            stack.enter_context(stream_states(names, receive, cached(inner, "state_checks", dict[str, bool])))
        with tracer:
            yield capture
        tracer.flush()


# The checks of a model; they are filled when a module first runs, and again after a weight has changed.
_CHECKS = ("attention_checks", dict[str, ModuleCheck])


def module_checks(model: nn.Module) -> dict[str, ModuleCheck]:
    """Return the check of each attention module of this model that has run under `capture_attention`."""
    return dict(cached(unwrap(model), *_CHECKS))


def first_layer(model: nn.Module) -> nn.Module:
    """Return the first layer of the model's first stack of layers.

    Raises:
        UnsupportedModelError: there is no stack of layers with attention.
    """
    names = ModuleNames(unwrap(model))
    for layers in layer_stacks(names).values():
        return names.modules[layers[0]]
    raise UnsupportedModelError(f"{type(model).__name__} has no stack of layers with attention.")


def _refuse_inside_consumer(model: nn.Module) -> None:
    """Raise `UnsupportedModelError` if no operation can be traced: in what a capture calls while a model runs."""
    if not torch._C._is_torch_function_enabled():
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be run or explained by the consumer (or the `replace` function) of a "
            "capture: it is called in the middle of a forward pass, whose operations are traced. Keep what you need "
            "of the AttentionCall, and run the model after that forward pass."
        )


@contextmanager
def _pass_boundaries(model: nn.Module, tracer: AttentionTracer, capture: Capture, *, keeps: bool) -> Iterator[None]:
    """Call the tracer at the start and at the end of each forward pass of the whole model.

    Args:
        model: unwrapped.
        tracer: follows the pass.
        capture: notes whether the pass can be repeated.
        keeps: keep what was followed, and repeat what is known.
    """
    thread = threading.get_ident()
    known = FollowedPasses(False, {})
    key: Hashable | None = None  # of the pass that runs

    def start(module: nn.Module, args: Any, kwargs: Any) -> None:
        nonlocal known, key
        if threading.get_ident() == thread:
            _refuse_inside_consumer(module)
            arguments = {**dict(enumerate(args)), **kwargs}  # by number or name
            known = FollowedPasses.of(model) if keeps else known
            key = pass_key(model, arguments, attention_settings(model)) if known.repeat else None
            tracer.start_pass(None if key is None else known.passes.get(key))

    def end(module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            followed = tracer.end_pass()
            capture.repeats = followed is not None and key is not None
            if key is not None:
                known.keep(key, followed)

    handles = [model.register_forward_pre_hook(start, with_kwargs=True), model.register_forward_hook(end)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
