"""The pass of the input: of a model that runs its encoder on several texts, the call that reads the explained one.

A look-up and an attention call belong together if they happen in the same call of the innermost module that holds both
the table and the attention, whatever the texts are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from hf_attn_mi.capture import AttentionCall, Capture, LayerStates, capture_attention, module_checks
from hf_attn_mi.capture.followed_pass import FollowedPass, FollowedPasses, pass_key
from hf_attn_mi.capture.model_state import attention_settings, visible_attention
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.models.model_probe import can_probe_during, probe, probe_during
from hf_attn_mi.models.token_origins import Following, TokenOrigins

if TYPE_CHECKING:
    from hf_attn_mi.models.runner import EncoderRunner

CallConsumer = Callable[[AttentionCall], None]
StateConsumer = Callable[[LayerStates], None]


@contextmanager
def capture_input(
    runner: EncoderRunner,
    arguments: Mapping[str, Any],
    consumer: CallConsumer | None,
    *,
    states: StateConsumer | None = None,
    probes: bool = False,
) -> Iterator[Capture]:
    """`capture_attention` of the attention calls and states that belong to the input.

    Args:
        runner: runs the model, inside a `session`.
        arguments: keyword arguments of the forward pass that is run inside.
        consumer: see `capture_attention`; None to capture the pass for its checks only.
        states: the same for hidden states; None to collect no states.
        probes: a model that was not probed before is probed in this pass, in place of one of its own.

    Raises:
        UnsupportedModelError: the model runs its encoder more than once, and which call reads the input is not known.
        RepeatedLayersError: with `probes`, the model turned out to do so; it has to be probed, and run anew.
    """
    if consumer is None and states is None:
        with _checked_once(runner, arguments) as capture, probe_during(runner, arguments, once=False):
            yield capture
        return
    if probes and can_probe_during(runner, arguments):
        taken, given = consumer or _nothing, states or False
        watched = probe_during(runner, arguments, once=True)
        with capture_attention(runner.model, taken, states=given) as capture, watched:
            yield capture
        return
    known = probe(runner, arguments)
    if not known.repeated:
        with capture_attention(runner.model, consumer or _nothing, states=states or False) as capture:
            yield capture
        return
    if known.table is None:
        raise UnsupportedModelError(
            f"{runner.class_name} runs {', '.join(known.repeated) or 'itself'} more than once in a forward pass, and "
            "which of these calls reads the input cannot be followed. Pass input_ids, use method='relevance', or use "
            "capture_attention, which streams the calls in their order."
        )
    input_pass = _InputPass(runner.model, known.table, TokenOrigins(arguments))
    receive = None if states is None else input_pass.states(states)
    calls = input_pass.calls(consumer or _nothing)
    with capture_attention(runner.model, calls, states=receive or False) as capture, input_pass.watched(), input_pass:
        yield capture


@contextmanager
def _checked_once(runner: EncoderRunner, arguments: Mapping[str, Any]) -> Iterator[Capture]:
    """`capture_attention` for the checks only; a call of which a pass was followed is not followed again."""
    model = runner.model
    followed = FollowedPasses.of(model)
    key = ("checked", pass_key(model, arguments, attention_settings(model))) if followed.repeat else None
    if key is not None and key in followed.passes:
        with visible_attention(model):
            yield Capture(checks=module_checks(model))
        return
    with capture_attention(model, _nothing) as capture:
        yield capture
    if key is not None and capture.repeats:
        followed.keep(key, FollowedPass(()))


def knows_input_pass(runner: EncoderRunner, arguments: Mapping[str, Any]) -> bool:
    """Whether `capture_input` knows the calls that belong to the input."""
    known = probe(runner, arguments)
    return not known.repeated or known.table is not None


def _nothing(call: AttentionCall) -> None:
    """Attention that cannot be captured exactly is refused; nothing else is done with it."""


class _InputPass(Following):
    """Tracks, during a forward pass, whether the current call has read the input.

    Args:
        model: the model that is run.
        table: name of the module that looks the token ids up.
        origins: the origins of the arguments' entries.
    """

    def __init__(self, model: nn.Module, table: str, origins: TokenOrigins) -> None:
        super().__init__(origins)
        self.model, self.table = model, table
        self.count: Counter[str] = Counter()  # calls of each module that holds the table
        self.own: dict[str, set[int]] = defaultdict(set)  # which of them have read the input
        self.layers: dict[str, list[int]] = defaultdict(list)  # the layers of all calls of an attention module
        self.taken: Counter[str] = Counter()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count the calls of the modules that hold the table, and note those that read the input."""
        parts = self.table.split(".")
        holders = [".".join(parts[:i]) for i in range(1, len(parts))]

        def count(name: str) -> Any:
            def before(module: nn.Module, args: Any) -> None:
                self.count[name] += 1

            return before

        def read(module: nn.Module, args: Any, kwargs: Any) -> None:
            if self.origins.reads_input(args[0] if args else next(iter(kwargs.values()), None)):
                for name in holders:
                    self.own[name].add(self.count[name])

        with ExitStack() as stack:
            for name in holders:
                stack.callback(self.model.get_submodule(name).register_forward_pre_hook(count(name)).remove)
            table = self.model.get_submodule(self.table)
            stack.callback(table.register_forward_pre_hook(read, with_kwargs=True).remove)
            yield

    def belongs(self, module_name: str) -> bool:
        """Whether the call of this module that runs now is part of the pass that reads the input."""
        common = []
        for mine, other in zip(self.table.split("."), f"{module_name}.".split(".")):
            if mine != other:
                break
            common.append(mine)
        holder = ".".join(common)
        return holder == "" or self.count[holder] in self.own[holder]

    def calls(self, consumer: CallConsumer) -> CallConsumer:
        """A consumer of all calls that passes those of the input on, with the layers of a first pass."""

        def receive(call: AttentionCall) -> None:
            name = call.module_name
            self.layers[name].append(call.layer)
            if self.belongs(name):
                layer = self.layers[name][self.taken[name]]
                self.taken[name] += 1
                consumer(replace(call, layer=layer))

        return receive

    def states(self, consumer: StateConsumer) -> StateConsumer:
        """The same for hidden states."""

        def receive(record: LayerStates) -> None:
            if self.belongs(record.stack):
                consumer(record)

        return receive
