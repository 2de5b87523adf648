"""Scoring one batch by one method: the dispatch that `explain`, `compare` and `minimal_tokens` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.capture import LayerStates, forget_readings
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods.base import TokenScorer, TokenScores
from hf_attn_mi.methods.batch import ScoringBatch
from hf_attn_mi.methods.layer_statistics import LayerStatistics
from hf_attn_mi.methods.shared_pass import PassReader
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.model_probe import RepeatedLayersError
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import NothingToExplainError, Target
from hf_attn_mi.models.weights import refuse_quantized


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """The scores of one batch, input by input.

    Attributes:
        scores: for each input (tokens,) float32 on the CPU, special tokens included.
        gaps: for each input its completeness gap; None for methods without one.
        values, biases: for each input the value that its scores add up to together with the bias, and the bias; None
            for methods whose scores do not add up to anything.
        result: what the method returned.
        batch: the inputs and the pass that was shared.
    """

    scores: tuple[Tensor, ...]
    gaps: tuple[float | None, ...]
    values: tuple[float | None, ...]
    biases: tuple[float | None, ...]
    result: TokenScores
    batch: ScoringBatch


def check_method(runner: EncoderRunner, scorer: TokenScorer, options: Mapping[str, Any]) -> None:
    """Refuse a method that does not support this model, before anything runs.

    Raises:
        InvalidInputError, UnsupportedModelError: quantized weights for a method that needs gradients, or as the
            method's own `check` says.
    """
    if scorer.needs_gradients:
        refuse_quantized(runner.model)
    check = getattr(scorer, "check", None)
    if check is not None:
        check(runner, options)


def score_batch(
    runner: EncoderRunner,
    inputs: Sequence[EncodedInput],
    scorer: TokenScorer,
    target: Target,
    options: Mapping[str, Any],
    *,
    layers: str = "none",
    states: Callable[[LayerStates], None] | None = None,
    reader: PassReader | None = None,
) -> ScoredBatch:
    """The scores of some inputs by one method.

    Args:
        runner: runs the model.
        inputs: the inputs of one batch.
        scorer: the method.
        target: the target of these inputs; settled by this call.
        options: the options of the method, from `read_options`.
        layers: the kind of statistics of the attention layers to collect: "full", "summary" or "none".
        states: called with the hidden states of each layer of the unchanged inputs.
        reader: the pass of these inputs that other methods read, too, from `KeptPasses.reader`, which is given `layers`
            and `states`; None for a pass of its own.

    Raises:
        HfAttnMiError: the method does not support this model or input, or gives scores that are not finite or not
            one for each token.
    """
    return score_targets(runner, inputs, scorer, [target], options, layers=layers, states=states, reader=reader)[0]


def score_targets(
    runner: EncoderRunner,
    inputs: Sequence[EncodedInput],
    scorer: TokenScorer,
    targets: Sequence[Target],
    options: Mapping[str, Any],
    *,
    layers: str = "none",
    states: Callable[[LayerStates], None] | None = None,
    reader: PassReader | None = None,
) -> list[ScoredBatch]:
    """The scores of some inputs for each of several targets; see `score_batch`.

    The pass of the unchanged inputs and the layer statistics are shared. A method with a member
    `score_targets(runner, batch, targets, **options)` shares more: for relevance one forward pass, and one backward
    pass for each target.
    """
    run = partial(_score_targets, runner, inputs, scorer, targets, options, layers)
    if reader is None and states is None:
        try:
            return run(probes=True)
        except RepeatedLayersError:  # which of the calls reads the input has to be known before
            return run()
    return run(states=states, reader=reader)


def _score_targets(
    runner: EncoderRunner,
    inputs: Sequence[EncodedInput],
    scorer: TokenScorer,
    targets: Sequence[Target],
    options: Mapping[str, Any],
    layers: str,
    *,
    states: Callable[[LayerStates], None] | None = None,
    reader: PassReader | None = None,
    probes: bool = False,
) -> list[ScoredBatch]:
    extras = frozenset(getattr(scorer, "statistics", ()))
    with runner.session():
        if reader is not None:
            batch = ScoringBatch(runner, inputs, reader=reader)
        else:
            statistics = LayerStatistics.of(runner, inputs, level=layers, extras=extras)
            batch = ScoringBatch(runner, inputs, statistics=statistics, states=states, probes=probes)
        shared = getattr(scorer, "score_targets", None)
        if shared is not None:
            results = shared(runner, batch, targets, **options)
        else:
            results = [scorer.score(runner, batch, target, **options) for target in targets]
        for target in targets:
            if layers != "none" or states is not None or target.explained is None:
                batch.run()  # unless the method has run the unchanged inputs already
                _settle(batch, target, scorer)
    forget_readings()  # a target function is code of the caller
    return [_scored(result, inputs, scorer, runner, batch) for result in results]


def needs_target(scorer: TokenScorer) -> bool:
    """Whether the scores of this method depend on what is explained."""
    return bool(getattr(scorer, "needs_target", scorer.class_linked or scorer.needs_gradients))


def _settle(batch: ScoringBatch, target: Target, scorer: TokenScorer) -> None:
    """Settle the target; nothing is explained if the method needs no target and the model has no class."""
    try:
        batch.settle(target)
    except NothingToExplainError:
        if needs_target(scorer) or any(one is not None for one in target.targets):
            raise
        target.settle_without_class()


def _scored(
    result: TokenScores, inputs: Sequence[EncodedInput], scorer: TokenScorer, runner: EncoderRunner, batch: ScoringBatch
) -> ScoredBatch:
    """The values that a method returned, input by input."""
    scores = tuple(_of_input(result, i, one, scorer, runner) for i, one in enumerate(inputs))
    gaps = (None,) * len(inputs) if result.gaps is None else tuple(float(gap) for gap in result.gaps)
    values, biases = (_numbers(one, len(inputs)) for one in (result.values, result.bias))
    return ScoredBatch(scores, gaps, values, biases, result, batch)


def _numbers(values: Tensor | None, count: int) -> tuple[float | None, ...]:
    return (None,) * count if values is None else tuple(map(float, values))


def _of_input(result: TokenScores, i: int, one: EncodedInput, scorer: TokenScorer, runner: EncoderRunner) -> Tensor:
    """(tokens,) float32 scores of input `i`, checked."""
    scores = torch.as_tensor(result.scores[i])[: one.length].detach().float().cpu()
    if scores.dim() != 1 or (one.length is not None and scores.shape[0] != one.length):
        raise UnsupportedModelError(
            f"{runner.class_name}: method {scorer.name!r} gives scores of shape {tuple(scores.shape)} for "
            f"{one.length} tokens; they cannot be given to tokens."
        )
    if not bool(scores.isfinite().all()):
        raise InvalidInputError(f"method {scorer.name!r} gives scores that are NaN or infinite.")
    return scores
