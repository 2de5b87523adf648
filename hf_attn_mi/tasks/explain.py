"""`explain`: which tokens made this prediction, and how do you know?"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from hf_attn_mi._version import library_versions
from hf_attn_mi.capture import capture_attention, model_lock, module_checks
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods.baseline_scores import baseline_scores, gap_note, read_settings, with_mask
from hf_attn_mi.methods.captum import Options
from hf_attn_mi.methods.head_attention import check_head, head_collector
from hf_attn_mi.methods.layer_statistics import LayerCollector, encoder_prefix
from hf_attn_mi.methods.registry import METHODS
from hf_attn_mi.methods.relevance_scores import relevance_scores
from hf_attn_mi.models.batching import batches, padding_id, real_tokens, stack
from hf_attn_mi.models.encode import read_inputs
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.loading import device_of, evaluation_mode, model_and_tokenizer, name_of
from hf_attn_mi.models.padding import ignores_padding
from hf_attn_mi.models.targets import Target, read_targets
from hf_attn_mi.models.weights import refuse_quantized
from hf_attn_mi.results.explanation import Explanation, LayerAttention
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.tasks.token_information import TokenInformation, read_background

FOLLOWED = 0.02  # largest completeness gap without a warning; half precision reaches 0.01


def explain(
    model: Any,
    inputs: Any,
    *,
    tokenizer: Any = None,
    target: Any = None,
    method: str = "relevance",
    profile: Any = None,
    batch_size: int = 16,
    truncation: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Explanation | list[Explanation]:
    """Scores the tokens of each input by their share in the model's prediction.

    Padding, batch size and order do not change a score; the model is left exactly as it was.

    Args:
        model: a PreTrainedModel, a transformers pipeline, or a model wrapped by torch.compile or accelerate.
        inputs: a text, a pair (tuple) of texts, a list of either, or a BatchEncoding / dict of tensors
            (input_ids, inputs_embeds, pixel_values, input_features, input_values).
        tokenizer: for texts; by default the pipeline's, or the one saved beside the model.
        target: None (the predicted class), a class number, a label name, one of these for each input, or a
            function from the outputs to (batch,) values for models without a class. The function sees one batch
            at a time, short inputs first: where it depends on the input, pass one input, or batch_size=1. Method
            "attnlrp_iterative" calls it at every stage: let it name a fixed class.
        method: "relevance" (gradient x input of the frozen network), "attnlrp" (the same through queries and keys),
            "attnlrp_iterative" (that in stages, at up to four times the cost), "attention", "rollout", "effective" or
            "efficient" (attention received by each token in the encoder), "head" (weights of the attention head of
            a model made with `hf_attn_mi.heads`), or one of docs/methods/baselines.md, such as "integrated_gradients".
        profile: of this model, from `fit_information`: fills `Explanation.information` with what each token tells
            about the output, in nats, layer by layer.
        batch_size: inputs in one forward pass.
        truncation: cut texts that are longer than the model's maximum, with a warning that names the cut.
        options: settings of a method of docs/methods/baselines.md, such as {"steps": 20}; the others take none.

    Returns:
        One `Explanation` for one input, a list for a list.

    Raises:
        InvalidInputError: an argument is wrong; the message names it.
        UnsupportedModelError: the attention of this model cannot be captured exactly.

    Example:
        >>> explanation = explain(model, "A quietly moving film.")     # doctest: +SKIP
        >>> explanation.top(2)                                         # doctest: +SKIP
    """
    if method not in METHODS:
        raise InvalidInputError(f"method {method!r} is not known; allowed are {', '.join(METHODS)}.")
    if not isinstance(truncation, bool):
        raise InvalidInputError(f"truncation must be True or False, not {truncation!r}.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidInputError(f"batch_size must be a positive whole number, not {batch_size!r}.")
    inner, tokenizer = model_and_tokenizer(model, tokenizer)
    check_head(method, inner, list(METHODS))
    settings = read_settings(method, options)
    profile = read_background(profile, inner)
    if METHODS[method].gradients:
        refuse_quantized(inner)
    results: list[Explanation | None] = []
    with torch.inference_mode(False):  # which would forbid gradients, whatever torch.enable_grad says
        examples, tokenizer, single = read_inputs(inputs, inner, tokenizer, truncation)
        wanted = read_targets(target, inner, len(examples))
        settings = with_mask(settings, tokenizer)
        results += [None] * len(examples)
        for positions in _progress(examples, batch_size, inner):
            mine = [examples[i] for i in positions]
            aims = wanted if callable(wanted) else [wanted[i] for i in positions]
            batch = stack(mine, padding_id(inner) or 0, device_of(inner))
            with model_lock(inner):  # threads take turns: hooks and training mode belong to the model
                found = _explain_batch(inner, batch, mine, aims, method, profile, settings=settings)
            for i, result in zip(positions, found):
                results[i] = result
    done = [result for result in results if result is not None]
    return done[0] if single else done


def _progress(examples: list[EncodedInput], size: int, model: nn.Module) -> Iterable[list[int]]:
    """Batches of positions, with a progress bar where there is more than one and somebody watches."""
    pad = padding_id(model)
    mixed = size > 1 and pad is not None and len({example.length for example in examples}) > 1
    plan = list(batches(examples, size, mixed=mixed and ignores_padding(model, examples, pad)))
    bar: Iterable[list[int]] = tqdm(
        plan, desc="explain", unit="batch", disable=len(plan) < 2 or not sys.stderr.isatty()
    )
    return bar


def _explain_batch(
    model: nn.Module,
    batch: dict[str, Tensor],
    examples: list[EncodedInput],
    wanted: Any,
    method: str,
    profile: InformationProfile | None,
    *,
    settings: Options,
) -> list[Explanation]:
    started = time.perf_counter()
    aim = Target(wanted, model)
    seen = _collector(model, batch, examples, method)
    told = None if profile is None else _told(profile, model, examples, batch)
    watch: AbstractContextManager[Any] = capture_attention(
        model, seen if seen is not None else _ignore, states=False if told is None else told
    )
    arguments: dict[str, Any] = dict(batch)
    if getattr(getattr(model, "config", None), "return_dict", True) is False:
        arguments["return_dict"] = True
    gaps: list[float | None] = [None] * len(examples)
    info: dict[str, Any] = {}
    notes: list[str] = []
    with evaluation_mode(model):
        if METHODS[method].baseline is not None:
            with torch.no_grad(), watch:
                outputs = model(**arguments)
                aim(outputs)
            table, about = baseline_scores(model, arguments, examples, aim, method, settings)
            scores, notes = list(table.scores), about.pop("notes")
            gaps = gaps if table.gap is None else table.gap.tolist()
            info |= about
        elif METHODS[method].gradients:
            found = relevance_scores(model, arguments, examples, aim, method, around=watch)
            scores, gaps, outputs, notes = found.scores, found.gaps, found.outputs, found.notes
            longest = max((e.length for e in examples if e.length is not None), default=None)
            if longest is not None and scores[0].shape[0] != longest:
                raise UnsupportedModelError(
                    f"{type(model).__name__}: its first layer has {scores[0].shape[0]} positions for {longest} "
                    "tokens, so the scores cannot be given to tokens."
                )
            info["space"] = found.space
        else:
            with torch.no_grad(), watch:
                outputs = model(**arguments)
                aim(outputs)
            score = METHODS[method].score
            watched = seen if seen is None or method != "head" else seen.head
            if seen is None or watched is None or not all(watched.layers) or score is None:
                raise InvalidInputError(
                    f"method {method!r} needs attention over the input's own tokens, which {type(model).__name__} does "
                    "not compute on this input (windows, patches or latents); use method='relevance'."
                )
            scores = [score(seen, i) for i in range(len(examples))]
            info["space"] = "attention received"
    if len(aim.explained) != len(examples):
        raise InvalidInputError(
            f"target: the function returned {len(aim.explained)} values for {len(examples)} inputs, not one for each."
        )
    information = None if told is None else told.results(outputs)
    seconds = (time.perf_counter() - started) / len(examples)
    info |= _provenance(model, method, seconds)
    info["warnings"] = [*_limits_seen(model, seen), *notes]
    return [_result(example, scores[i], seen, i, aim, gaps[i], info, information) for i, example in enumerate(examples)]


def _told(
    profile: InformationProfile, model: nn.Module, examples: list[EncodedInput], batch: dict[str, Tensor]
) -> TokenInformation:
    if examples[0].length is None:
        raise InvalidInputError(
            f"background is for sequences of tokens; inputs has {', '.join(examples[0].tensors)}. Pass profile=None."
        )
    return TokenInformation(profile, model, examples, real_tokens(batch))


def _ignore(call: Any) -> None:
    """Watch the pass for its checks only."""


def _collector(
    model: nn.Module, batch: dict[str, Tensor], examples: list[EncodedInput], method: str
) -> LayerCollector | None:
    if examples[0].length is None:
        return None
    lengths, masks = [int(example.length or 0) for example in examples], real_tokens(batch)
    return LayerCollector(
        lengths=lengths,
        masks=masks,
        encoder=encoder_prefix(model),
        efficient=method == "efficient",
        matrices=method == "rollout",
        by_row=method == "effective",
        head=head_collector(model, lengths, masks, method == "efficient"),
    )


def _provenance(model: nn.Module, method: str, seconds: float) -> dict[str, Any]:
    config = getattr(model, "config", None)
    return {
        "model": name_of(model),
        "model_type": getattr(config, "model_type", type(model).__name__),
        "method": method,
        "reference": METHODS[method].reference,
        "seconds": seconds,
        "attention_implementation": str(getattr(config, "_attn_implementation", "")),
        "dtype": str(next((p.dtype for p in model.parameters()), torch.float32)).removeprefix("torch."),
        "versions": library_versions(),
    }


def _limits_seen(model: nn.Module, seen: LayerCollector | None) -> list[str]:
    """What a reader of the attention statistics has to know about this model."""
    notes = []
    if seen is not None and seen.skipped:
        notes.append(f"{len(set(seen.skipped))} attention modules over other tokens are not in `layers`.")
    checks = module_checks(model)
    bent = sorted({check.ended_by for check in checks.values() if check.ended_by})
    if bent:
        notes.append(f"Between the heads and the output projection stands {', '.join(bent)}: there is no linear W_O.")
    for name, check in checks.items():
        if check.deficient:
            heads = ", ".join(map(str, check.deficient))
            notes.append(
                f"{name}: W_O of heads {heads} has not full rank; more attention is invisible than `difference` says."
            )
    return notes


def _layers(seen: LayerCollector | None, i: int) -> tuple[LayerAttention, ...]:
    """Those of the encoder, then the head's."""
    if seen is None:
        return ()
    return tuple(seen.layers[i]) if seen.head is None else (*seen.layers[i], *seen.head.layers[i])


def _result(
    example: EncodedInput,
    scores: Tensor,
    seen: LayerCollector | None,
    i: int,
    aim: Target,
    gap: float | None,
    info: dict[str, Any],
    information: list[dict[str, Any]] | None,
) -> Explanation:
    count = example.length if example.length is not None else scores.shape[0]
    tokens = example.tokens or tuple(f"{'patch' if example.length is None else 'token'} {j}" for j in range(count))
    notes = [*example.warnings, *info["warnings"]]
    if gap is not None and (not gap <= FOLLOWED or info["method"] == "deeplift"):
        notes.append(gap_note(info["method"], gap))
    explained = aim.explained[i]
    return Explanation(
        tokens=tokens,
        scores=scores[:count].float(),
        target=explained.target,
        target_name=explained.name,
        probability=explained.probability,
        texts=example.texts,
        offsets=example.offsets,
        sequence_ids=example.sequence_ids,
        word_ids=example.word_ids,
        special=example.special or (False,) * count,
        layers=_layers(seen, i),
        completeness_gap=gap,
        information=None if information is None else information[i],
        info={**info, "warnings": notes},
    )
