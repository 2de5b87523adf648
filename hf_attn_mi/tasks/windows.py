"""`explain(..., stride=...)`: windows over long texts, and one explanation of the logits that they give together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError, shown
from hf_attn_mi.methods import TokenScorer
from hf_attn_mi.methods.scoring import check_method, score_batch
from hf_attn_mi.models.encode import encode_texts
from hf_attn_mi.models.encoded_input import EncodedInput, EncodedInputs
from hf_attn_mi.models.loading import maximum_length
from hf_attn_mi.models.output_heads import ExplainedTarget, HeadReading, find_logits, find_output_head
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target, read_target
from hf_attn_mi.models.windows import Window, split_windows
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.results import Results
from hf_attn_mi.tasks.arguments import check_whole_number
from hf_attn_mi.tasks.each_input import result_of_each, results_of_each
from hf_attn_mi.tasks.several_targets import list_of_targets

AGGREGATIONS = ("mean", "max")
NO_LAYERS = "none"  # of `layers`: no statistics


class WindowLogits:
    """The share of each window in the value of the logits that the windows give together.

    Args:
        coefficients: (windows, classes); the value is the sum over windows of <coefficients, logits>.
        name: the name of the class that is explained.
    """

    name = "logits of windows"

    def __init__(self, coefficients: Tensor, name: str) -> None:
        self.coefficients, self.label = coefficients, name

    def accepts(self, outputs: object, config: object) -> bool:
        """Whether there are class logits."""
        return find_logits(outputs, config) is not None

    def read(self, outputs: object, targets: Sequence[int | None], config: object) -> HeadReading:
        """See `OutputHead.read`; a target is the number of a window."""
        logits = find_logits(outputs, config)
        assert logits is not None
        rows = self.coefficients[[number or 0 for number in targets]].to(logits.device)
        values = (rows * logits.double()).sum(1)
        explained = tuple(ExplainedTarget(number, self.label, None) for number in targets)
        return HeadReading(values, explained, None)


@dataclass(frozen=True, eq=False)
class Aggregated:
    """The combined result of the windows of one input.

    Attributes:
        explained: the class, its name and probability.
        value: the explained value of the aggregated logits.
        logits: (classes,) aggregated.
        coefficients: (windows, classes) float64; see `WindowLogits`.
        values: (windows,) share of each window in the value.
    """

    explained: ExplainedTarget
    value: float
    logits: Tensor
    coefficients: Tensor
    values: Tensor


def refuse_with_stride(*, truncation: bool, profile: object, candidate_labels: object, layers: str) -> None:
    """Refuse arguments that cannot be combined with windows.

    Raises:
        InvalidInputError: names them.
    """
    if truncation:
        raise InvalidInputError("truncation and stride exclude each other: windows cut nothing. Leave one of them out.")
    if profile is not None:
        raise InvalidInputError("profile and stride exclude each other: a profile knows whole inputs, not windows.")
    if candidate_labels is not None:
        raise InvalidInputError(
            "candidate_labels and stride exclude each other: the logits of zero-shot classification are those of pairs "
            "of a whole text and a hypothesis. Explain a part of the text, or pass truncation=True."
        )
    if layers != NO_LAYERS:
        raise InvalidInputError(
            f"layers={shown(layers)} and stride exclude each other: every window has an attention of its own, with "
            "other rows over other tokens, so that no layer has statistics over the whole text. Leave layers out, or "
            "explain the text of one window."
        )


def encode_long_texts(runner: EncoderRunner, inputs: Any, *, is_split_into_words: bool, skip: bool) -> EncodedInputs:
    """The encoded inputs of texts of any length.

    Raises:
        InvalidInputError: the inputs are not texts.
    """
    if isinstance(inputs, Mapping) and not isinstance(inputs.get("text"), str):
        raise InvalidInputError("stride= is for texts; inputs is a mapping of tensors.")
    if isinstance(inputs, Mapping):
        inputs = inputs["text"] if inputs.get("text_pair") is None else (inputs["text"], inputs["text_pair"])
    return encode_texts(
        inputs,
        runner.model,
        runner.require_tokenizer,
        is_split_into_words=is_split_into_words,
        skip=skip,
        unlimited=True,
    )


def window_limit(runner: EncoderRunner) -> int | None:
    """Most tokens of a window: the model's limit, or what a pipeline cuts its texts to where that is less."""
    limits = [maximum_length(runner.model, runner.tokenizer), runner.tokenizer_options.get("max_length")]
    return min((limit for limit in limits if isinstance(limit, int)), default=None)


def class_targets(runner: EncoderRunner, target: Any, encoded: EncodedInputs) -> list[int | None]:
    """The class of each encoded input, None for the predicted one.

    Raises:
        InvalidInputError: the target is not a class.
    """
    targets, _ = read_target(target, runner, encoded.inputs, places=encoded.places, count=encoded.count)
    if targets.is_function or not all(number is None or isinstance(number, int) for number in targets.targets):
        raise InvalidInputError(
            "target must be a class with stride=: windows are combined by their class logits, and a function or a "
            "token of one window has no value for the whole text. Pass a class number, a label name or None."
        )
    return [number if isinstance(number, int) else None for number in targets.targets]


def several_class_targets(runner: EncoderRunner, targets: Any, encoded: EncodedInputs) -> list[list[int | None]] | None:
    """For each target the class of every encoded input; None for all classes.

    Raises:
        InvalidInputError: no list, an empty one, or a target that is not a class.
    """
    listed = list_of_targets(targets)
    return None if listed is None else [class_targets(runner, item, encoded) for item in listed]


class WindowExplainer:
    """Explains inputs of any length by windows.

    Args:
        runner: runs the model.
        scorer: the method.
        options: the options of the method.
        stride: tokens that neighboring windows share.
        aggregation: "mean" or "max" of the windows' logits, class by class.
        batch_size: maximum number of windows in one forward pass.

    Raises:
        InvalidInputError: an invalid stride or aggregation.
    """

    def __init__(
        self,
        runner: EncoderRunner,
        scorer: TokenScorer,
        options: Mapping[str, Any],
        *,
        stride: int,
        aggregation: str,
        batch_size: int,
    ) -> None:
        check_whole_number("stride", stride, 0)
        self.runner, self.scorer, self.options = runner, scorer, options
        self.stride, self.aggregation, self.batch_size = stride, aggregation, batch_size
        self.limit = window_limit(runner)

    def explain_each(
        self, inputs: Any, target: Any, *, targets: Any = None, errors: str, is_split_into_words: bool
    ) -> Explanation | Results[Explanation]:
        """The explanations of all inputs; arguments as in `explain`."""
        skip = errors == "skip"
        encoded = encode_long_texts(self.runner, inputs, is_split_into_words=is_split_into_words, skip=skip)
        check_method(self.runner, self.scorer, self.options)
        batches = [[i] for i in range(len(encoded.inputs))]
        if targets is None:
            classes = class_targets(self.runner, target, encoded)

            def run(positions: list[int]) -> list[Explanation]:
                return [self.explain(encoded.inputs[i], classes[i], encoded.places[i]) for i in positions]

            return result_of_each(encoded, batches, run, errors=errors, task="explain")
        columns = several_class_targets(self.runner, targets, encoded)

        def several(positions: list[int]) -> list[list[Explanation]]:
            return [self.explain_several(encoded.inputs[i], columns, i, encoded.places[i]) for i in positions]

        return results_of_each(encoded, batches, several, errors=errors, task="explain")

    def explain_several(
        self, one: EncodedInput, columns: Sequence[Sequence[int | None]] | None, position: int, index: int
    ) -> list[Explanation]:
        """The explanations of several classes of one input; see `several_class_targets`.

        Args:
            one: the input, of any length.
            columns: for each target the class of every input; None for all classes.
            position: of the input among the encoded ones.
            index: of the input among the caller's.
        """
        windows = split_windows(one, self.limit, self.stride, index)
        table = self._logits(windows)
        chosen: Sequence[int | None] = range(table.shape[1]) if columns is None else [row[position] for row in columns]
        found = [self._explain(one, windows, table, target) for target in chosen]
        return [replace(record, info={**record.info, "input": index}) for record in found]

    def explain(self, one: EncodedInput, target: int | None, index: int) -> Explanation:
        """The explanation of one input.

        Args:
            one: the input, of any length.
            target: number of the class; None for the one that the windows predict together.
            index: the index of the input, for messages.

        Raises:
            InvalidInputError, UnsupportedModelError: no class logits, or as the method says.
        """
        windows = split_windows(one, self.limit, self.stride, index)
        return self._explain(one, windows, self._logits(windows), target)

    def _explain(self, one: EncodedInput, windows: Sequence[Window], table: Tensor, target: int | None) -> Explanation:
        """The explanation of one class, from the (windows, classes) logits."""
        started = time.perf_counter()
        together = self._aggregate(table, target)
        scores, gap, bias, notes, info = self._score(one, windows, together)
        return Explanation(
            tokens=one.tokens or tuple(map(str, range(one.token_count))),
            scores=scores,
            target=together.explained.target,
            target_name=together.explained.name,
            probability=together.explained.probability,
            texts=one.texts,
            offsets=one.offsets,
            sequence_ids=one.sequence_ids,
            word_ids=one.word_ids,
            special=one.special or (False,) * one.token_count,
            completeness_gap=gap,
            value=None if bias is None else together.value,
            bias=bias,
            info={
                **self.runner.provenance(),
                "method": self.scorer.name,
                "reference": self.scorer.reference,
                "class_linked": self.scorer.class_linked,
                "additive": self.scorer.additive,
                "adds_up_to": getattr(self.scorer, "adds_up_to", ""),
                "seconds": time.perf_counter() - started,
                "layers": NO_LAYERS,
                **info,
                "windows": self._described(windows, together),
                "warnings": [*one.warnings, *notes],
            },
        )

    def _described(self, windows: Sequence[Window], together: Aggregated) -> dict[str, Any]:
        return {
            "count": len(windows),
            "limit": self.limit,
            "stride": self.stride,
            "aggregation": f"{self.aggregation} of the logits",
            "value": together.value,
            "values": together.values.tolist(),
            "logits": together.logits.tolist(),
            "tokens": [_text_tokens(window) for window in windows],
        }

    def _logits(self, windows: Sequence[Window]) -> Tensor:
        """(windows, classes) float64."""
        parts: dict[int, Tensor] = {}
        inputs = [window.input for window in windows]
        for places in self.runner.batches(inputs, self.batch_size):
            with self.runner.session(), torch.no_grad():
                outputs = self.runner.forward(self.runner.collate([inputs[i] for i in places]))
            logits = find_logits(outputs, self.runner.config)
            if logits is None or logits.shape[0] != len(places):
                raise UnsupportedModelError(
                    f"{self.runner.class_name} gives no class logits of shape (batch, classes); stride= puts windows "
                    "together by them. Explain a part of the text, or pass truncation=True."
                )
            parts.update(zip(places, logits.double().cpu()))
        return torch.stack([parts[i] for i in range(len(windows))])

    def _aggregate(self, table: Tensor, target: int | None) -> Aggregated:
        """The logits of the windows, put together, and what is explained of them."""
        joined = (table.mean(0) if self.aggregation == AGGREGATIONS[0] else table.amax(0)).requires_grad_(True)
        outputs = {"logits": joined[None]}
        head = self.runner.output_head or find_output_head(outputs, self.runner.config)
        if head is None:
            raise UnsupportedModelError(f"{self.runner.class_name}: no output head reads its logits.")
        reading = head.read(outputs, [target], self.runner.config)
        (weights,) = torch.autograd.grad(reading.values.sum(), joined)
        value, joined = float(reading.values[0].detach()), joined.detach()
        if abs(value - float(weights @ joined)) > 1e-9 * max(1.0, abs(value)):
            raise UnsupportedModelError(
                f"The output head {head.name!r} is not linear in the logits, so that windows have no share in "
                "its value."
            )
        shares = torch.full_like(table, 1 / len(table))
        if self.aggregation != AGGREGATIONS[0]:
            shares = torch.zeros_like(table).scatter_(0, table.argmax(0, keepdim=True), 1.0)
        coefficients = weights * shares
        return Aggregated(reading.explained[0], value, joined, coefficients, (coefficients * table).sum(1))

    def _score(
        self, one: EncodedInput, windows: Sequence[Window], together: Aggregated
    ) -> tuple[Tensor, float | None, float | None, list[str], dict[str, Any]]:
        """The scores of the whole input, the gap, the bias, notes and further facts.

        Scores that are linked to the class are added up over windows, since the value is the sum of the windows'
        shares; attention received is averaged over the windows that hold the token.
        """
        head = WindowLogits(together.coefficients, together.explained.name)
        used = [i for i in range(len(windows)) if bool((together.coefficients[i] != 0).any())]
        if not self.scorer.class_linked:
            used = list(range(len(windows)))
        sums, counts = (
            torch.zeros(one.token_count, dtype=torch.float64),
            torch.zeros(one.token_count, dtype=torch.float32),
        )
        missing, notes, info = 0.0, list[str](), dict[str, Any]()
        biases: list[float | None] = []
        measured = True
        for chosen in self.runner.batches([windows[i].input for i in used], self.batch_size):
            places = [used[i] for i in chosen]
            target = Target(places, self.runner.model, head=head)
            scored = score_batch(self.runner, [windows[i].input for i in places], self.scorer, target, self.options)
            biases += scored.biases
            for i, scores, gap in zip(places, scored.scores, scored.gaps):
                sums.index_add_(0, windows[i].positions, scores.double())
                counts.index_add_(0, windows[i].positions, torch.ones(len(scores), dtype=torch.float32))
                measured = measured and gap is not None
                missing += (gap or 0.0) * max(abs(float(together.values[i])), float(scores.abs().sum()))
            notes += [note for note in scored.result.notes if note not in notes]
            info = {"space": scored.result.space, **scored.result.info}
        scores = sums if self.scorer.class_linked else sums / counts.clamp_min(1)
        size = max(abs(together.value), float(scores.abs().sum()), 1e-12)
        known = [bias for bias in biases if bias is not None]
        bias = sum(known) if used and len(known) == len(biases) else None
        return scores.float(), missing / size if measured and used else None, bias, notes, info


def _text_tokens(window: Window) -> list[int]:
    """The first and the last token of the text that a window holds, as places in the whole input."""
    special = window.input.special
    places = [int(place) for i, place in enumerate(window.positions) if not (special and special[i])]
    return [min(places), max(places)]
