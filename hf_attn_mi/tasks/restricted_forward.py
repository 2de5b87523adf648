"""`RestrictedForward`: run the model on one input with its attention rows restricted to some edges.

Many sets of edges run in one pass: the input is repeated, and each repetition gets its own mask in every layer. A set
that differs from a known one only above some layer runs from that layer on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from hf_attn_mi.capture import (
    AttentionCall,
    ReplacedAttention,
    capture_attention,
    layer_outputs,
    skipped_layers,
    stack_of_layers,
)
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.gradients import gradients as gradients_of
from hf_attn_mi.models.output_heads import ExplainedTarget
from hf_attn_mi.models.replays import Replays
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target
from hf_attn_mi.tasks.attention_edges import CallEdges, EdgeSpace, Selection
from hf_attn_mi.tasks.edge_removal import REMOVALS, Removal
from hf_attn_mi.tasks.restricted_output import Answer, PassOutput, read_pass
from hf_attn_mi.tasks.row_replacement import in_full_precision

BACKWARD = 3.0  # cost of a pass with gradients, in forward passes
# Two log-odds agree if they differ by at most this, times the larger of 1 and their size.
AGREEMENT = {torch.float64: 1e-9, torch.float32: 1e-4}
AGREEMENT_REDUCED = 5e-2
Rows = Callable[[AttentionCall, CallEdges], Tensor | ReplacedAttention]


@dataclass(frozen=True)
class Candidate:
    """A restriction to run.

    Attributes:
        selection: the edges that stay.
        base: the index of the shared restriction that it equals below `start`.
        start: the lowest layer in which it differs from that one.
    """

    selection: Selection
    base: int = 0
    start: int = 0


class RestrictedForward:
    """Runs one input under restrictions; a context manager that holds the model while it is open.

    Args:
        runner: runs the model.
        one: the input.
        target: the target of this one input; settled by `analyze`.
        batch_size: maximum number of restrictions in one forward pass; fewer where the input is long, and halved where
            memory runs out. See `Replays`.
        seed: the random seed for models that draw at random in evaluation.
        reference: another input, at least as long, whose values take the place of removed edges.

    Attributes:
        edges: the edges of the input; known after `analyze`.
        explained: the explained class or value; known after `analyze`.
        whole: the answer for all edges.
        sequences: restrictions run so far.
        forwards: their cost in forward passes of the whole input.
    """

    edges: EdgeSpace
    explained: ExplainedTarget
    whole: Answer

    def __init__(
        self,
        runner: EncoderRunner,
        one: EncodedInput,
        target: Target,
        batch_size: int,
        seed: int = 0,
        reference: EncodedInput | None = None,
    ) -> None:
        self.runner, self.input, self.target, self.seed = runner, one, target, seed
        self._replays: Replays[Answer] = Replays(runner.device, batch_size)
        self.reference, self.reference_values = reference, dict[tuple[str, int], Tensor]()
        self.sequences, self.forwards = 0, 0.0
        self.layers: tuple[str, ...] = ()
        self._predicted: int | None = None
        self.shared: dict[str, Any] = {}
        self._bases = 0
        self._rows: Rows | None = None
        self._calls: dict[tuple[str, int], CallEdges] = {}
        self._skipped: set[str] = set()
        self._repeats: Counter[str] = Counter()
        self._new: list[CallEdges] = []
        self._stack = ExitStack()

    @property
    def batch_size(self) -> int:
        """Maximum number of restrictions in one forward pass, after halving."""
        return self._replays.rows

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        """Set it: 1 for models whose rows depend on each other."""
        self._replays.rows = size

    @property
    def notes(self) -> list[str]:
        """Remarks for the reader of a result."""
        return self._replays.notes

    def __enter__(self) -> Self:
        self._stack.enter_context(self.runner.session())
        self._open()
        return self

    def _open(self) -> None:
        self._stack.enter_context(torch.no_grad())
        device = self.runner.device
        self._stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        self._stack.enter_context(
            capture_attention(self.runner.model, _ignore, replace=self._replace, skipped=self._skipped)
        )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, the model runs unchanged: without restrictions, recording or a fixed seed."""
        self._stack.close()
        self._stack = ExitStack()
        try:
            with self.runner.session():
                yield
        finally:
            self._stack.enter_context(self.runner.session())
            self._open()

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    # --- the whole input ---------------------------------------------------------------------------------------

    def analyze(self, *, gradients: bool = True) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Run the whole input: settles the target, numbers the edges, reads their weights.

        Args:
            gradients: take the gradient of the explained value with respect to every attention weight.

        Returns:
            By the number of the call: weights, and gradients ({} without, or where the model has none); each (windows,
            heads, queries, keys).

        Raises:
            UnsupportedModelError: rows times values are not what this model continues with.
            InvalidInputError: there is not a class with a probability, or no number is finite.
        """
        plain = self.outputs(1, None).answers[0]
        calls_and_weights: list[tuple[AttentionCall, Tensor]] = []

        def keep(call: AttentionCall, known: CallEdges | None) -> Tensor:
            rows = in_full_precision(call).attention()
            if gradients and not rows.requires_grad:
                rows = rows.detach().requires_grad_()
            calls_and_weights.append((call, rows))
            return rows

        with torch.enable_grad() if gradients else nullcontext():
            output = self.outputs(1, keep)
            slopes: Sequence[Tensor | None] = []
            if gradients and output.values.requires_grad:
                slopes = gradients_of(output.values, [rows for _, rows in calls_and_weights])
        self.forwards += 1 + (BACKWARD if gradients else 1.0)
        self.whole = output.answers[0]
        self._refuse_change(plain, self.whole, "with its own attention rows put in their place")
        self._number([(call, rows.detach()) for call, rows in calls_and_weights])
        weights = {number: rows.detach() for number, (_, rows) in enumerate(calls_and_weights)}
        gradient_of_call = {n: torch.zeros_like(weights[n]) if g is None else g.detach() for n, g in enumerate(slopes)}
        if self.reference is not None:
            self._read_reference()
        return weights, gradient_of_call

    def _number(self, calls_and_weights: Sequence[tuple[AttentionCall, Tensor]]) -> None:
        layers = stack_of_layers(self.runner.model)
        repeats: Counter[str] = Counter()
        calls, start = list[CallEdges](), 0
        for call, rows in calls_and_weights:
            name = call.module_name
            owners = [i for i, layer in enumerate(layers) if name == layer or name.startswith(layer + ".")]
            sums = bool(((rows.sum(-1) - 1).abs() > 1e-3).logical_and(rows.sum(-1) > 0).any())
            layers = layers if len(owners) == 1 else ()
            calls.append(CallEdges(call.layer, name, repeats[name], owners[0] if owners else 0, start, rows > 0, sums))
            repeats[name] += 1
            start = calls[-1].stop
        if start == 0:
            raise UnsupportedModelError(f"{self.runner.class_name}: there are no attention weights to restrict.")
        self.edges, self.layers = EdgeSpace(calls), layers
        self._calls = {call.key: call for call in calls}

    def _read_reference(self) -> None:
        """Keep the values of the reference at every place of the input."""
        assert self.reference is not None

        def keep(call: AttentionCall, known: CallEdges | None) -> Tensor:
            call = in_full_precision(call)
            rows = call.attention()
            values = call.values_per_head()
            place = (call.module_name, self._repeats[call.module_name] - 1)
            known = self._calls.get(place)
            if known is None or values.shape[0] != known.present.shape[0] or values.shape[2] < known.present.shape[3]:
                raise InvalidInputError(
                    f"reference: {call.module_name} has fewer keys for it than for the input; pass a reference that "
                    "is at least as long as every input."
                )
            self.reference_values[place] = values[:, :, : known.present.shape[3]]
            return rows

        self._forward(self.reference, 1, keep)

    def _refuse_change(self, plain: Answer, other: Answer, what: str) -> None:
        if self.differ(plain, other):
            raise UnsupportedModelError(
                f"{self.runner.class_name} cannot be restricted to some of its attention weights: {what} it gives the "
                f"probability {other.probability:.6f} in place of {plain.probability:.6f}."
            )

    def differ(self, first: Answer, second: Answer) -> bool:
        """Whether two answers are further apart than rounding explains."""
        allowed = AGREEMENT.get(self.runner.dtype, AGREEMENT_REDUCED)
        return not abs(first.odds - second.odds) <= allowed * max(1.0, abs(first.odds))

    # --- restrictions ------------------------------------------------------------------------------------------

    def run(self, candidates: Sequence[Candidate], removal: str = "renormalized") -> list[Answer]:
        """Return the model's answer under each restriction, in order.

        Args:
            candidates: restrictions; those with `start` above 0 run from the states of `share` on.
            removal: name of the kind of removal.
        """
        answers: dict[int, Answer] = {}
        order = sorted(range(len(candidates)), key=lambda i: candidates[i].start if self.shared else 0)

        def run(places: list[int]) -> None:
            batch = [candidates[i] for i in places]
            answers.update(zip(places, self.run_batch(batch, REMOVALS[removal])))

        size = self._replays.rows_of(self.input.token_count)
        self._replays.run_batches([order[i : i + size] for i in range(0, len(order), size)], run)
        return [answers[i] for i in range(len(candidates))]

    def share(self, selections: Sequence[Selection], removal: str = "renormalized") -> list[Answer]:
        """Run these restrictions in one pass and keep the states below every layer for `run`."""
        candidates = [Candidate(selection) for selection in selections]
        self.shared = {}
        if not self.layers:
            return self.run(candidates, removal)
        with layer_outputs(self.runner.model, self.layers) as kept:
            answers = self.run_batch(candidates, REMOVALS[removal])
        if all(len(outputs) == 1 and _has_rows(outputs[0], len(selections)) for outputs in kept.values()):
            self.shared, self._bases = {name: outputs[0] for name, outputs in kept.items()}, len(selections)
        else:
            self.layers = ()
        return answers

    def cost(self, start: int) -> float:
        """Return the cost of one restriction that runs from this layer on, in forward passes of the whole input."""
        return 1 - start / len(self.layers) if self.shared and self.layers else 1.0

    def run_batch(self, batch: Sequence[Candidate], removal: Removal) -> list[Answer]:
        """Return the answers of one batch, which starts at the lowest layer that one of its restrictions changes."""
        start = min(candidate.start for candidate in batch) if self.shared else 0
        numbers = {call.key: number for number, call in enumerate(self.edges.calls)}

        def rows(call: AttentionCall, known: CallEdges) -> Tensor | ReplacedAttention:
            kept = masks_of([one.selection for one in batch], known, numbers[known.key])
            return self.restrict(call, known, kept, removal)[0]

        skipped = {
            name: _take(self.shared[name], torch.tensor([one.base for one in batch]), self._bases)
            for name in self.layers[:start]
        }
        self._skipped.update(skipped)
        try:
            with skipped_layers(self.runner.model, skipped) if skipped else nullcontext():
                answers = self.outputs(len(batch), rows).answers
        finally:
            self._skipped.clear()
        self.sequences += len(batch)
        self.forwards += len(batch) * self.cost(start)
        return answers

    def restrict(
        self, call: AttentionCall, known: CallEdges, kept: Tensor, removal: Removal
    ) -> tuple[Tensor | ReplacedAttention, Tensor, Tensor]:
        """What the model continues with; the restricted rows; the attention rows before."""
        wide = in_full_precision(call)
        weights = wide.attention()
        if weights.shape != (kept.shape[0], *known.present.shape[1:]):
            raise UnsupportedModelError(
                f"{known.module_name} has attention rows of shape {tuple(weights.shape)}, not {tuple(kept.shape)}: "
                "they change with the states, so that edges of the whole input are not theirs."
            )
        present = known.present.repeat(kept.shape[0] // known.present.shape[0], 1, 1, 1)
        restricted = removal.restrict(weights, kept, present, known.sums)
        if restricted.lost is None:
            return restricted.rows, restricted.rows, weights
        values = self.reference_values[known.key].repeat(kept.shape[0] // known.present.shape[0], 1, 1, 1)
        output = restricted.rows @ wide.values_per_head() + restricted.lost @ values
        return ReplacedAttention(restricted.rows, output), restricted.rows, weights

    # --- passes ------------------------------------------------------------------------------------------------

    def outputs(self, count: int, rows: Any) -> PassOutput:
        """The result of one pass over `count` copies of the input."""
        outputs, target = self._forward(self.input, count, rows), self.target.select([0] * count)
        output, explained, predicted = read_pass(outputs, target, self.runner, self._predicted)
        if self._predicted is None:
            self.target.explained, self.target.bound = target.explained, target.bound
            self.explained, self._predicted = explained, predicted
        return output

    def _forward(self, one: EncodedInput, count: int, rows: Any) -> Any:
        self._rows, self._repeats = rows, Counter()
        arguments = self.runner.collate([one] * count)
        torch.manual_seed(self.seed)
        return self.runner.forward(arguments)

    def _replace(self, call: AttentionCall) -> Tensor | ReplacedAttention | None:
        place = (call.module_name, self._repeats[call.module_name])
        self._repeats[call.module_name] += 1
        if self._rows is None:
            return None
        known = self._calls.get(place)
        if self._calls and known is None:
            raise UnsupportedModelError(f"{call.module_name} runs under a restriction, but not on the whole input.")
        return self._rows(call, known)  # type: ignore[arg-type]  # None on the first pass only


def _ignore(call: AttentionCall) -> None:
    """Capture a pass for its checks: attention that cannot be captured exactly is refused."""


def masks_of(selections: Sequence[Selection], known: CallEdges, number: int) -> Tensor:
    """Return (batch * windows, heads, queries, keys) bool: what stays in each sequence."""
    return torch.cat([selection.kept(known, number).expand(known.present.shape) for selection in selections])


def _has_rows(output: Any, count: int) -> bool:
    """Whether every tensor of a layer's output has one row for each sequence, or one for all."""
    if isinstance(output, Tensor):
        return output.dim() > 0 and output.shape[0] in (1, count)
    if type(output) in (tuple, list):
        return all(_has_rows(part, count) for part in output)
    return output is None


def _take(output: Any, rows: Tensor, count: int) -> Any:
    """The rows of these sequences of a layer's output."""
    if isinstance(output, Tensor):
        return output if output.shape[0] == 1 and count != 1 else output[rows.to(output.device)]
    if isinstance(output, Mapping | type(None)):
        return output
    return type(output)(_take(part, rows, count) for part in output)
