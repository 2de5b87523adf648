"""`SharedPass`: one forward pass over unchanged inputs, read by several methods, targets and statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.capture import AttentionCall, LayerStates, ModuleCheck
from hf_attn_mi.errors import HfAttnMiError, UnsupportedModelError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.input_pass import capture_input
from hf_attn_mi.models.memory import out_of_memory
from hf_attn_mi.models.model_probe import RepeatedLayersError
from hf_attn_mi.models.output_tensors import map_tensors
from hf_attn_mi.models.pass_counter import Passes, counted
from hf_attn_mi.models.runner import EncoderRunner

CallConsumer = Callable[[AttentionCall], None]


class PassConsumer:
    """What one reader of a pass does with its attention calls.

    Args:
        receive: called with each attention call while the model runs. If it has a member `finish`, that is called after
            the pass.

    Attributes:
        receive: as above.
        error: what `receive` raised, where the pass may have other readers: theirs are not affected.
        seconds: time that it took.
    """

    def __init__(self, receive: CallConsumer) -> None:
        self.receive = receive
        self.error: Exception | None = None
        self.seconds = 0.0

    def run(self, work: Callable[[], Any], *, keep: bool) -> None:
        """Do a part of the work; with `keep` an error is kept in `error`, and nothing more is done."""
        if self.error is not None:
            return
        started = time.perf_counter()
        try:
            work()
        except Exception as error:  # whatever a method of another package raises
            if not keep or out_of_memory(error):
                raise
            self.error = error.with_traceback(None)
        finally:
            self.seconds += time.perf_counter() - started

    def finish(self) -> None:
        """What is left to do after the pass."""
        finish = getattr(self.receive, "finish", None)
        if finish is not None:
            finish()


class SharedPass:
    """The forward pass of some unchanged inputs; it is run once, by whoever needs it first.

    Args:
        runner: runs the model.
        inputs: inputs of one kind; padded on the right if their lengths differ.
        consumers: are called with the attention calls of the first pass; `add` adds further ones.
        states: called with the hidden states of each layer during that pass; None for none.
        timed: count what the first pass costs.
        of_several: a consumer may be that of another method than the one that runs the pass.
        probes: the first pass may probe the model; see `capture_input`.

    Attributes:
        runner, inputs, consumers: as above.
        arguments: keyword arguments of the model's forward, batch first.
        outputs: those of the last pass, without its graph; None before it.
        checks: module name -> its check, once the first pass has run.
        begun: whether the first pass was begun.
        cost: sequences and seconds of the first pass, without the seconds of the consumers; None unless it is timed.
        repeated: the same of further passes, of methods that need a graph of their own.
    """

    def __init__(
        self,
        runner: EncoderRunner,
        inputs: Sequence[EncodedInput],
        consumers: Sequence[PassConsumer] = (),
        *,
        states: Callable[[LayerStates], None] | None = None,
        timed: bool = False,
        of_several: bool = False,
        probes: bool = False,
    ) -> None:
        self.runner, self.inputs, self.consumers = runner, tuple(inputs), list(consumers)
        self.arguments: dict[str, Tensor] = runner.collate(inputs)
        self.outputs: Any = None
        self.checks: Mapping[str, ModuleCheck] | None = None
        self.cost: Passes | None = None
        self.repeated = Passes()
        self._states, self._timed, self._of_several, self._probes = states, timed, of_several, probes
        self.begun = False

    def add(self, receive: CallConsumer) -> PassConsumer:
        """Let this consumer receive the attention calls, too; only before the first pass."""
        assert not self.begun
        self.consumers.append(PassConsumer(receive))
        return self.consumers[-1]

    @property
    def failed(self) -> bool:
        """Whether the first pass was begun and not finished: what its consumers hold is not complete."""
        return self.begun and self.outputs is None

    def run(self, arguments: Mapping[str, Any] | None = None) -> Any:
        """The outputs of the unchanged inputs; see `ScoringBatch.run`."""
        if arguments is None:
            if self.outputs is None:
                with torch.no_grad():
                    self.outputs = self._forward(self.arguments)
            return self.outputs
        outputs = self._forward(arguments)
        with torch._C.DisableTorchFunction():  # the modes that follow the model may still be open
            self.outputs = map_tensors(outputs, Tensor.detach)  # the graph belongs to the caller
        return outputs

    def _forward(self, arguments: Mapping[str, Any]) -> Any:
        first, self.begun = not self.begun, True
        with counted(self.runner.model) if self._timed else nullcontext() as passes:
            outputs = self._first(arguments) if first else self.runner.forward(arguments)
        if passes is not None and first:
            own = passes.seconds - sum(one.seconds for one in self.consumers)
            self.cost = Passes(max(0.0, own), passes.forwards)
        elif passes is not None:
            self.repeated = self.repeated.plus(Passes(passes.seconds, passes.forwards))
        return outputs

    def _first(self, arguments: Mapping[str, Any]) -> Any:
        """The first pass, with its consumers."""
        keep = self._of_several or len(self.consumers) > 1

        def receive(call: AttentionCall) -> None:
            for one in self.consumers:
                one.run(lambda one=one: one.receive(call), keep=keep)  # type: ignore[misc]

        def finish() -> None:
            for one in self.consumers:
                one.run(one.finish, keep=keep)

        consumer = None if not self.consumers else receive if keep or self._timed else self.consumers[0].receive
        try:
            options: dict[str, Any] = {"states": self._states, "probes": self._probes}
            with capture_input(self.runner, arguments, consumer, **options) as capture:
                outputs = self.runner.forward(arguments)
                self.checks = capture.checks
        except RepeatedLayersError:
            raise  # the pass is run anew
        except HfAttnMiError:
            finish()  # the reason may lie in a layer that waits: values that are not finite
            raise
        finish()
        return outputs


@dataclass
class PassReader:
    """What one method reads of a pass.

    Attributes:
        shared: the pass.
        statistics: collects statistics of the attention layers; None for none.
        observer: the method's own consumer; None for methods without one.
        has_read: whether the method has run the first pass or asked for its outputs.
    """

    shared: SharedPass
    statistics: PassConsumer | None = None
    observer: PassConsumer | None = None
    has_read: bool = False
    _repeated: Passes = field(default_factory=Passes)

    def run(self, arguments: Mapping[str, Any] | None = None) -> Any:
        """The outputs; see `SharedPass.run`.

        Raises:
            HfAttnMiError: what a consumer of this method raised, also where another method has run the pass.
        """
        self.has_read |= arguments is None or not self.shared.begun  # else a pass of the method's own
        before = self.shared.repeated
        outputs = self.shared.run(arguments)
        self._repeated = self._repeated.plus(self.shared.repeated.minus(before))
        for consumer in (self.statistics, self.observer):
            error = None if consumer is None else consumer.error
            if isinstance(error, HfAttnMiError):
                raise error
            if error is not None:
                what = f"what reads its attention raised {type(error).__name__}: {error}"
                raise UnsupportedModelError(f"{self.shared.runner.class_name}: {what}") from error
        return outputs

    def cost(self, counted_passes: Passes, *, ran: bool) -> tuple[Passes, Passes]:
        """What a method takes of its own, and for the passes over the unchanged inputs, whoever has run them.

        Args:
            counted_passes: what was counted while the method ran.
            ran: whether it has run the first pass.
        """
        own, taken, first = counted_passes, self._repeated, self.shared.cost
        if ran and first is not None:
            own = own.plus(Passes(-sum(one.seconds for one in self.shared.consumers))).minus(first)
        if self.has_read and first is not None:
            consumers = [one for one in (self.statistics, self.observer) if one is not None]
            taken = taken.plus(first).plus(Passes(sum(one.seconds for one in consumers)))
        return own.minus(self._repeated), taken
