"""The scores of one method on all inputs, without the statistics that `explain` adds; and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture import capture_attention, model_lock
from hf_attn_mi.errors import BackendUnavailableError, HfAttnMiError, InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods.baseline_scores import baseline_scores, read_settings, with_mask
from hf_attn_mi.methods.captum import BASELINES, Options, out_of_memory
from hf_attn_mi.methods.head_attention import check_head, head_collector
from hf_attn_mi.methods.layer_statistics import LayerCollector, encoder_prefix
from hf_attn_mi.methods.registry import METHODS
from hf_attn_mi.methods.relevance_scores import relevance_scores
from hf_attn_mi.models.batching import batches, padding_id, real_tokens, stack
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.loading import device_of, evaluation_mode
from hf_attn_mi.models.pass_counter import Passes, counted
from hf_attn_mi.models.targets import ExplainedTarget, Target
from hf_attn_mi.models.weights import refuse_quantized

MEMORY = "Memory ran out: inputs were scored in smaller batches."
TRIES = 3  # inputs that a method may fail on, with none done, before it is given up
FAILURES = (HfAttnMiError, RuntimeError, AssertionError, ImportError)  # ours, torch's and Captum's


@dataclass
class MethodRun:
    """What one method said.

    Attributes:
        scores: for each input (tokens,) float32, or None where it failed.
        gaps: completeness gap of each input, where the method has one.
        passes: seconds and sequences of the inputs that were scored.
        reasons: why inputs failed, by their number.
        notes: what the reader should know.
    """

    scores: list[Tensor | None]
    gaps: list[float | None]
    passes: Passes = field(default_factory=Passes)
    reasons: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many inputs have scores."""
        return sum(scores is not None for scores in self.scores)

    @property
    def failure(self) -> str | None:
        """Why not all inputs have scores, in one sentence; None where all have."""
        missing = len(self.scores) - self.done
        if not missing:
            return None
        reason = next(iter(self.reasons.values()))
        return reason if not self.done else f"{missing} of {len(self.scores)} inputs: {reason}"


def settings_of(
    methods: tuple[str, ...], options: Mapping[str, Any] | None, tokenizer: Any, seed: int
) -> dict[str, Options]:
    """The options of each method, checked, those with draws seeded.

    Raises:
        InvalidInputError: options of a method that is not compared, or that it does not take.
    """
    given = {} if options is None else options
    if not isinstance(given, Mapping) or any(name not in methods for name in given):
        unknown = [name for name in given if name not in methods] if isinstance(given, Mapping) else given
        raise InvalidInputError(
            f"options must be a dict from method to its options, such as {{'integrated_gradients': {{'steps': 20}}}}, "
            f"for methods among {', '.join(methods)}; not {unknown!r}."
        )
    found = {}
    for name in methods:
        row = BASELINES.get(name)
        drawn = {"seed": seed} if row is not None and "seed" in row.allowed else {}
        own = given.get(name)
        if own is None or isinstance(own, Mapping):
            own = {**drawn, **(own or {})}
        found[name] = with_mask(read_settings(name, own), tokenizer)
    return found


def score(
    method: str,
    model: nn.Module,
    examples: list[EncodedInput],
    classes: list[ExplainedTarget],
    *,
    wanted: Any,
    options: Options,
    batch_size: int,
    mixed: bool,
    advance: Callable[[int], Any],
) -> MethodRun:
    """Score every input by this method; one that fails does not stop the others.

    The shortest input is scored once before the clock starts, so that what is compiled or loaded at first use counts
    for nobody. A batch that fails is tried input by input, or in halves where memory ran out.

    Args:
        method: name of a row of METHODS.
        model: the bare model.
        examples: the inputs.
        classes: what is explained for each.
        wanted: class numbers, or the caller's function.
        options: of the method.
        batch_size: inputs in one pass.
        mixed: whether lengths may differ within a batch.
        advance: called with the number of inputs that are done.
    """
    found = MethodRun([None] * len(examples), [None] * len(examples))
    queue = list(batches(examples, batch_size, mixed=mixed))

    def run(places: list[int]) -> None:
        mine, settled = [examples[i] for i in places], [classes[i] for i in places]
        aims = wanted if callable(wanted) else [one.target for one in settled]
        with counted(model) as passes:
            scores, gaps, notes = scores_of(method, model, mine, settled, wanted=aims, options=options)
        found.passes = found.passes.plus(passes)
        for i, one, gap in zip(places, scores, gaps):
            found.scores[i], found.gaps[i] = one, gap
        found.notes += [note for note in notes if note not in found.notes]

    if len(examples) > 1 and _tried(run, queue[0][:1]) is None:
        found = MethodRun([None] * len(examples), [None] * len(examples))
    while queue:
        places = queue.pop(0)
        failure = _tried(run, places)
        if failure is not None and len(places) > 1 and not failure.final:
            size = (len(places) + 1) // 2 if failure.memory else 1
            found.notes += [MEMORY] * (failure.memory and MEMORY not in found.notes)
            queue[:0] = [places[start : start + size] for start in range(0, len(places), size)]
            continue
        advance(len(places))
        if failure is not None:
            found.reasons |= dict.fromkeys(places, failure.text)
            if not found.done and (failure.final or len(found.reasons) >= TRIES):
                advance(sum(map(len, queue)))
                break
    return found


def scores_of(
    method: str,
    model: nn.Module,
    examples: list[EncodedInput],
    classes: list[ExplainedTarget],
    *,
    wanted: Any,
    options: Options,
) -> tuple[list[Tensor], list[float | None], list[str]]:
    """Return (tokens,) scores of each example of one batch, their completeness gaps, and notes.

    Raises:
        HfAttnMiError: the method does not serve this model or these inputs, or gives scores that are not finite.
    """
    check_head(method, model, list(METHODS))
    row = METHODS[method]
    if row.gradients:
        refuse_quantized(model)
    aim = Target(wanted, model)
    aim.explained = list(classes)
    arguments: dict[str, Any] = dict(stack(examples, padding_id(model) or 0, device_of(model)))
    if getattr(getattr(model, "config", None), "return_dict", True) is False:
        arguments["return_dict"] = True
    gaps: list[float | None] = [None] * len(examples)
    notes: list[str] = []
    with torch.inference_mode(False), model_lock(model), evaluation_mode(model):
        if row.baseline is not None:
            table, about = baseline_scores(model, arguments, examples, aim, method, options)
            scores, notes = list(table.scores), about["notes"]
            gaps = gaps if table.gap is None else table.gap.tolist()
        elif row.gradients:  # watched, as in `explain`, for the checks of the capture
            watch = capture_attention(model, _ignore, states=False)
            found = relevance_scores(model, arguments, examples, aim, method, around=watch)
            scores, gaps, notes = found.scores, found.gaps, found.notes
        else:
            scores = _attention(method, model, arguments, examples)
    cut = [own[: example.length].detach().float().cpu() for own, example in zip(scores, examples)]
    for example, own in zip(examples, cut):
        if own.shape != (example.length,):
            raise UnsupportedModelError(
                f"{type(model).__name__}: {own.shape[0]} scores for {example.length} tokens cannot be given to tokens."
            )
        if not bool(own.isfinite().all()):
            raise InvalidInputError(f"method {method!r} gives scores that are NaN or infinite.")
    return cut, gaps, notes


@dataclass(frozen=True)
class _Failed:
    text: str
    final: bool = False  # true of every input
    memory: bool = False


def _tried(run: Callable[[list[int]], None], places: list[int]) -> _Failed | None:
    try:
        run(places)
    except ImportError as error:
        return _Failed(f"{error}; install it to use this method.", final=True)
    except HfAttnMiError as error:
        return _Failed(str(error), final=isinstance(error, BackendUnavailableError))
    except FAILURES as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        return _Failed(f"{type(error).__name__}: {first}", memory=out_of_memory(error))
    return None


def _attention(method: str, model: nn.Module, arguments: dict[str, Any], examples: list[EncodedInput]) -> list[Tensor]:
    """Scores read off the attention of one forward pass."""
    lengths, masks = [int(example.length or 0) for example in examples], real_tokens(arguments)
    seen = LayerCollector(
        lengths=lengths,
        masks=masks,
        encoder=encoder_prefix(model),
        efficient=method == "efficient",
        matrices=method == "rollout",
        by_row=method == "effective",
        head=head_collector(model, lengths, masks, method == "efficient"),
    )
    with torch.no_grad(), capture_attention(model, seen, states=False):
        model(**arguments)
    watched = seen.head if method == "head" else seen
    read = METHODS[method].score
    if watched is None or read is None or not all(watched.layers):
        raise InvalidInputError(
            f"method {method!r} needs attention over the input's own tokens, which {type(model).__name__} does not "
            "compute on this input."
        )
    return [read(seen, i) for i in range(len(examples))]


def _ignore(call: Any) -> None:
    """Watch the pass for its checks only."""
