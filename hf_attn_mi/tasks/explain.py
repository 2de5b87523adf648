"""`explain`: scores of the tokens by their contribution to a prediction, with a measure of completeness."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from hf_attn_mi.capture import attention_facts, module_checks, reading_once
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.methods import TokenScorer, find_method, read_options
from hf_attn_mi.methods.batch import ScoringBatch
from hf_attn_mi.methods.kept_passes import KeptPasses
from hf_attn_mi.methods.layer_statistics import LEVELS
from hf_attn_mi.methods.scoring import ScoredBatch, check_method, score_targets
from hf_attn_mi.models.dual_encoders import by_text_labels, tower_of
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target, zero_shot
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.results.results import Results
from hf_attn_mi.tasks.arguments import check_choice, check_whole_number
from hf_attn_mi.tasks.decoder_tokens import decoder_tokens, other_inputs
from hf_attn_mi.tasks.each_input import (
    bind_targets,
    check_input_options,
    read_inputs,
    result_of_each,
    results_of_each,
)
from hf_attn_mi.tasks.media import picture_of, sound_of
from hf_attn_mi.tasks.several_targets import TargetPlan, plan_targets
from hf_attn_mi.tasks.token_information import TokenInformation, read_profile
from hf_attn_mi.tasks.windows import AGGREGATIONS, NO_LAYERS, WindowExplainer, refuse_with_stride

DEFAULT_LEVEL = "full"  # of `layers`
LARGEST_GAP = 0.02  # completeness gap from which on a warning is given; half precision reaches 0.01


def explain(
    model: Any,
    inputs: Any,
    *,
    target: Any = None,
    targets: Any = None,
    method: str = "relevance",
    options: Mapping[str, Any] | None = None,
    layers: str | None = None,
    profile: InformationProfile | None = None,
    tokenizer: Any = None,
    processor: Any = None,
    sampling_rate: int | None = None,
    batch_size: int = 16,
    truncation: bool = False,
    stride: int | None = None,
    aggregation: str = "mean",
    is_split_into_words: bool = False,
    errors: str = "raise",
    candidate_labels: Any = None,
) -> Explanation | Results[Explanation]:
    """Score the tokens of each input by their contribution to the model's prediction.

    Padding, batch size and order do not change a score; the model is left exactly as it was.

    Args:
        model: a PreTrainedModel, a transformers pipeline, or a model wrapped by torch.compile or accelerate.
        inputs: a text, a pair (tuple) of texts, a list of either, or a BatchEncoding / dict of tensors
            (input_ids, inputs_embeds, pixel_values, input_features, input_values). A list may be any container: a
            column of a data set or a table, an array, an iterator; of a data set the columns that hold texts are read.
            For models of images: a PIL image, an array or the path of a file, or a list of these; for models of audio:
            an array, a dict with array and sampling_rate, or the path of a .wav file, or a list of these.
        target: None (the predicted class), a class number, a label name, one of these for each input, or a
            function from the outputs to (batch,) values for models without a class. The function sees one input at
            a time, without padding, in the order of `inputs`. "attnlrp_iterative" calls it at every stage: let it
            name a fixed class.
        targets: several targets of each input, instead of `target`: a list, or "all" for all labels, all choices, or
            all entities that the model predicts. The forward pass is shared; the results are in the order of the
            inputs, and for each input in that of its targets.
        method: a name of `list_methods()`: "relevance" (gradient x input of the linearized model, the default),
            "attnlrp", "attnlrp_iterative", "attention", "rollout", "effective", "efficient", "head", a method of
            Captum such as "integrated_gradients", or one that was registered.
        options: options of the method, such as {"steps": 20}; see `list_methods()[method].options`.
        layers: statistics of each attention layer: "full"; "summary" for entropy, attention received and
            identifiability only; "none". None for "full", and with `stride` for "none": windows have attentions of
            their own.
        profile: the profile of this model, from `fit_information`: fills `Explanation.information` with what each token
            tells about the output, in nats, layer by layer.
        tokenizer: the tokenizer for texts; by default the pipeline's, or the one saved with the model.
        processor: the processor for images and audio; by default the pipeline's, or the one saved with the model.
        sampling_rate: samples per second of recordings that are passed as arrays.
        batch_size: maximum number of inputs in one forward pass.
        truncation: cut texts that are longer than the model's maximum, with a warning that names the cut.
        stride: explain texts of any length by windows that share so many tokens; see `aggregation`. None refuses, or
            with `truncation` cuts, what is longer than the model's maximum.
        aggregation: how the logits of windows become those that are explained, class by class: "mean" or "max". The
            result says it in `info["windows"]`.
        is_split_into_words: each text is a list of words; a list of them is one input, a list of lists several, and a
            tuple of two lists a pair. The words are those of the result.
        errors: "raise", or "skip": an input of a list that cannot be used comes back as a `SkippedInput` with the
            reason, in its place among the results.
        candidate_labels: the labels of zero-shot classification, as its pipeline takes them: the best label is
            explained unless `target` names one. With a model of images and texts (CLIP, SigLIP) and an image: the texts
            that it is compared with; one label alone explains their similarity.

    Returns:
        One `Explanation` for one input, `Results` of them for a list or with `targets`; see `Results.skipped` for
        errors="skip".

    Raises:
        InvalidInputError: an argument is wrong; the message names it.
        UnsupportedModelError: the attention of this model cannot be captured exactly.
        KeyboardInterrupt: Ctrl-C; its `results` are those of the inputs that were finished.

    Example:
        >>> explanation = explain(model, "A quietly moving film.")     # doctest: +SKIP
        >>> explanation.top(2)                                         # doctest: +SKIP
    """
    return explain_sharing(
        None,
        model,
        inputs,
        target=target,
        targets=targets,
        method=method,
        options=options,
        layers=layers,
        profile=profile,
        tokenizer=tokenizer,
        processor=processor,
        sampling_rate=sampling_rate,
        batch_size=batch_size,
        truncation=truncation,
        stride=stride,
        aggregation=aggregation,
        is_split_into_words=is_split_into_words,
        errors=errors,
        candidate_labels=candidate_labels,
    )


def explain_sharing(
    kept: KeptPasses | None,
    model: Any,
    inputs: Any,
    *,
    target: Any = None,
    targets: Any = None,
    method: str = "relevance",
    options: Mapping[str, Any] | None = None,
    layers: str | None = None,
    profile: InformationProfile | None = None,
    tokenizer: Any = None,
    processor: Any = None,
    sampling_rate: int | None = None,
    batch_size: int = 16,
    truncation: bool = False,
    stride: int | None = None,
    aggregation: str = "mean",
    is_split_into_words: bool = False,
    errors: str = "raise",
    candidate_labels: Any = None,
    of_each_input: bool = False,
) -> Explanation | Results[Explanation]:
    """`explain` whose passes over the unchanged inputs are read by further calls, too.

    Args:
        kept: the passes of this model; None to share none.
        model, inputs: as in `explain`; so are the other arguments.
        of_each_input: items of `targets` may be lists, with one target for each input.
    """
    scorer = find_method(method)
    values = read_options(scorer, options)
    if target is not None and targets is not None:
        raise InvalidInputError("target and targets: pass one of them.")
    layers = (DEFAULT_LEVEL if stride is None else NO_LAYERS) if layers is None else layers
    check_choice("layers", layers, LEVELS)
    check_input_options(errors, truncation, is_split_into_words)
    check_whole_number("batch_size", batch_size)
    # No gradient can be taken of tensors that are made in inference mode.
    with reading_once(), torch.inference_mode(False):
        runner = EncoderRunner.of(model, tokenizer, processor=processor, sampling_rate=sampling_rate)
        runner, candidate_labels = by_text_labels(runner, candidate_labels)
        runner = tower_of(runner, inputs, target, targets)
        profile = read_profile(profile, runner)
        check_choice("aggregation", aggregation, AGGREGATIONS)
        if stride is not None:
            refuse_with_stride(truncation=truncation, profile=profile, candidate_labels=candidate_labels, layers=layers)
            windows = WindowExplainer(
                runner, scorer, values, stride=stride, aggregation=aggregation, batch_size=batch_size
            )
            return windows.explain_each(
                inputs, target, targets=targets, errors=errors, is_split_into_words=is_split_into_words
            )
        encoded = read_inputs(
            runner, inputs, errors=errors, truncation=truncation, is_split_into_words=is_split_into_words
        )
        check_method(runner, scorer, values)
        if targets is not None:
            plan, encoded = plan_targets(
                targets, candidate_labels, runner, encoded, errors=errors, of_each_input=of_each_input
            )
            explained = partial(explain_several, runner, plan, scorer, values, layers, profile, batch_size, kept=kept)

            def several(positions: list[int]) -> list[list[Explanation]]:
                pairs = zip(positions, explained(positions), strict=True)
                return [[_of_input(record, encoded.places[i]) for record in records] for i, records in pairs]

            batches = runner.batches(encoded.inputs, 1 if plan.alone else batch_size) if encoded.inputs else []
            return results_of_each(encoded, batches, several, errors=errors, task="explain")
        bound, encoded = bind_targets(zero_shot(target, candidate_labels, runner), runner, encoded, errors=errors)

        def run(positions: list[int]) -> list[Explanation]:
            batch = [encoded.inputs[i] for i in positions]
            chosen = bound.select(positions)
            return explain_batch(runner, batch, scorer, [chosen], values, layers, profile, kept)[0]

        # A function sees one input at a time, without padding and in the caller's order.
        batches = runner.batches(encoded.inputs, 1 if bound.alone else batch_size)
        return result_of_each(encoded, batches, run, errors=errors, task="explain")


def explain_several(
    runner: EncoderRunner,
    plan: TargetPlan,
    scorer: TokenScorer,
    options: Mapping[str, Any],
    layers: str,
    profile: InformationProfile | None,
    batch_size: int,
    positions: list[int],
    *,
    kept: KeptPasses | None = None,
) -> list[list[Explanation]]:
    """The explanations of all targets of each of these inputs."""
    explanations: list[list[Explanation]] = [[] for _ in positions]
    if not any(plan.counts[i] for i in positions):
        return explanations
    if plan.shares_inputs:
        inputs = [plan.inputs[i] for i in positions]
        of_targets = explain_batch(runner, inputs, scorer, plan.of(positions), options, layers, profile, kept)
        return [[row[place] for row in of_targets[: plan.counts[i]]] for place, i in enumerate(positions)]
    pairs, target = plan.rows(positions)
    rows = list(target.inputs or ())
    records: dict[int, Explanation] = {}
    for places in runner.batches(rows, 1 if target.alone else batch_size):
        batch, chosen = [rows[i] for i in places], target.select(places)
        records.update(zip(places, explain_batch(runner, batch, scorer, [chosen], options, layers, profile)[0]))
    for row, (place, _) in enumerate(pairs):
        explanations[place].append(records[row])
    return explanations


def _of_input(record: Explanation, place: int) -> Explanation:
    """The explanation with the number of its input, which its place among the results does not say."""
    return replace(record, info={**record.info, "input": place})


def explain_batch(
    runner: EncoderRunner,
    inputs: Sequence[EncodedInput],
    scorer: TokenScorer,
    targets: Sequence[Target],
    options: Mapping[str, Any],
    layers: str,
    profile: InformationProfile | None,
    kept: KeptPasses | None = None,
) -> list[list[Explanation]]:
    """For each target the explanations of all inputs; their pass is read from `kept`, or kept there."""
    started = time.perf_counter()
    states = None if profile is None else TokenInformation(profile, runner, inputs)
    facts = {**runner.provenance(), **attention_facts(runner.model)}
    shares = kept is not None and kept.runner.model is runner.model
    reader = kept.reader(inputs, scorer, layers=layers, states=states) if kept is not None and shares else None
    of_targets = score_targets(runner, inputs, scorer, targets, options, layers=layers, states=states, reader=reader)
    information = None if states is None else states.results(of_targets[0].batch.run())
    seconds = (time.perf_counter() - started) / len(inputs) / len(targets)
    explanations = []
    for target, scored in zip(targets, of_targets):
        info = {
            **facts,
            "method": scorer.name,
            "reference": scorer.reference,
            "class_linked": scorer.class_linked,
            "additive": scorer.additive,
            "adds_up_to": getattr(scorer, "adds_up_to", ""),
            "seconds": seconds,
            "layers": layers,
            "space": scored.result.space,
            **scored.result.info,
        }
        notes = [*_model_notes(runner, scored.batch), *scored.result.notes]
        explanations.append(
            [
                _explanation(
                    one, scored, i, scorer, target, layers, info, notes, None if information is None else information[i]
                )
                for i, one in enumerate(inputs)
            ]
        )
    return explanations


def _explanation(
    one: EncodedInput,
    scored: ScoredBatch,
    i: int,
    scorer: TokenScorer,
    target: Target,
    layers: str,
    info: Mapping[str, Any],
    notes: Sequence[str],
    information: Mapping[str, Any] | None,
) -> Explanation:
    scores, gap = scored.scores[i], scored.gaps[i]
    count = scores.shape[0]
    tokens, special = one.tokens or tuple(f"token {j}" for j in range(count)), one.special or (False,) * count
    warnings = [*one.warnings, *notes]
    if gap is not None:
        of_target = scored.result.target_gaps
        share = 0.0 if of_target is None else float(of_target[i])
        warnings += gap_warning(scorer, gap, share, scored.result.unfollowed)
    shares = other_inputs(scored.result, i)
    others = {"other_inputs": shares} if shares else {}
    assert target.explained is not None
    explained = target.explained[i]
    statistics = scored.batch.statistics
    return Explanation(
        tokens=tokens,
        scores=scores,
        target=explained.target,
        target_name=explained.name,
        probability=explained.probability,
        texts=one.texts,
        offsets=one.offsets,
        sequence_ids=one.sequence_ids,
        word_ids=one.word_ids,
        special=special,
        layers=() if statistics is None or layers == "none" else statistics.of_input(i),
        completeness_gap=gap,
        value=scored.values[i],
        bias=scored.biases[i],
        grid=one.grid,
        picture=picture_of(scored.batch.runner, one),
        sound=sound_of(one),
        decoder=decoder_tokens(scored.batch.runner, one, scored.result, i),
        information=information,
        info={**info, **({} if (call := target.call(i)) is None else {"target": call}), **others, "warnings": warnings},
    )


def gap_warning(scorer: TokenScorer, gap: float, target_gap: float = 0.0, unfollowed: Sequence[str] = ()) -> list[str]:
    """Interpret a completeness gap of the scores: one sentence, or none where the gap is small.

    Args:
        scorer: the method.
        gap: the completeness gap of one input.
        target_gap: the part of it that is due to the target function.
        unfollowed: operations of the model that the method has no rule for.
    """
    always = bool(getattr(scorer, "gap_reason", ""))
    if gap <= LARGEST_GAP and not always:
        return []
    note = getattr(scorer, "gap_note", None)
    if note is not None:
        return [str(note(gap))]
    if target_gap > LARGEST_GAP:
        return [
            f"The scores miss {gap:.0%} of the explained value, {target_gap:.0%} because of the target: it is not "
            "linear in the model's outputs. Return a logit, a difference of logits or a similarity."
        ]
    operations = f" ({', '.join(unfollowed)})" if unfollowed else ""
    return [
        f"The scores miss {gap:.0%} of the explained value: part of this model{operations} is not followed exactly."
    ]


def _model_notes(runner: EncoderRunner, batch: ScoringBatch) -> list[str]:
    """Remarks about this model for the reader of the attention statistics."""
    notes, statistics = list(runner.notes), batch.statistics
    if statistics is not None and statistics.skipped:
        notes.append(f"{len(set(statistics.skipped))} attention modules over other tokens are not in `layers`.")
    checks = batch.reader.shared.checks or module_checks(runner.model)
    nonlinear = sorted({check.ended_by for check in checks.values() if check.ended_by})
    if nonlinear:
        notes.append(
            f"Between the heads and the output projection lies {', '.join(nonlinear)}: there is no linear W_O."
        )
    for name, check in checks.items():
        if check.deficient:
            heads = ", ".join(map(str, check.deficient))
            notes.append(
                f"{name}: W_O of heads {heads} does not have full rank; a larger part of the attention has no effect "
                "than `null_space_fraction` says."
            )
    return notes
