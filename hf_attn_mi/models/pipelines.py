"""Pipelines of transformers: the pipeline's answer is explained. One function and one table row for each task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.output_heads import ClassLogits, MultiLabel, OutputHead, Regression
from hf_attn_mi.models.unwrapped import Unwrapped

HYPOTHESIS = "This example is {}."  # the template of zero-shot pipelines


def read_pipeline(pipeline: Any) -> Unwrapped:
    """The model of a pipeline and its settings.

    Raises:
        InvalidInputError: the package does not support the pipeline's task, or one of its settings.
    """
    read = TASKS.get(pipeline.task)
    if read is None:
        raise InvalidInputError(
            f"model is a pipeline for the task {pipeline.task!r}; the supported tasks are "
            f"{', '.join(TASKS)}. Pass its model: explain(pipe.model, inputs, tokenizer=pipe.tokenizer, target=...)."
        )
    _refuse_changed(pipeline)
    _refuse_left_padding(pipeline)
    return read(pipeline)


def zero_shot_target(labels: object, template: str = HYPOTHESIS, multi_label: bool = False) -> str:
    """The target of a zero-shot pipeline as a string: its best label among `labels`, as pipelines take them.

    Args:
        labels: a list of labels, or a text with commas between them.
        template: the template of the hypothesis, with {} for the label.
        multi_label: each label on its own, entailment against contradiction.

    Raises:
        InvalidInputError: no labels.

    Example:
        >>> zero_shot_target(["sports", "politics"])
        "entails(among=('sports', 'politics'), template='This example is {}.', multi_label=False)"
    """
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",") if label.strip()]
    if not isinstance(labels, list | tuple) or not labels or not all(isinstance(label, str) for label in labels):
        raise InvalidInputError(f"candidate_labels must be a list of one or more texts, not {shown(labels)}.")
    return f"entails(among={tuple(labels)!r}, template={template!r}, multi_label={bool(multi_label)!r})"


def _refuse_changed(pipeline: Any) -> None:
    """Refuse a pipeline whose steps are not those of transformers: what they do to texts and outputs is not known."""
    for name in ("__call__", "preprocess", "_forward", "forward", "postprocess"):
        step = getattr(type(pipeline), name, None)
        if name in vars(pipeline) or not str(getattr(step, "__module__", "")).startswith("transformers."):
            raise InvalidInputError(
                f"model is a {type(pipeline).__name__} with a {name} of its own, which is not supported. Pass its "
                "attribute .model with tokenizer=..., and target=function for outputs of another form."
            )


def _refuse_left_padding(pipeline: Any) -> None:
    """Refuse padding to a fixed length on the left, which moves the positions of a single text."""
    fixed = pipeline._preprocess_params.get("padding") == "max_length"
    if fixed and getattr(pipeline.tokenizer, "padding_side", "right") == "left":
        raise InvalidInputError(
            "model is a pipeline that pads every text on the left to a fixed length, which moves its positions. Build "
            "it without padding='max_length', or pass the padded tensors with the model inside."
        )


def _classification(pipeline: Any) -> Unwrapped:
    options = {k: v for k, v in pipeline._preprocess_params.items() if k not in ("padding", "return_tensors")}
    applied = pipeline._postprocess_params.get("function_to_apply")
    name = "" if applied is None else str(getattr(applied, "value", applied)).lower()
    config = pipeline.model.config
    if applied is None and config.num_labels == 1 and config.problem_type != "regression":
        name = "sigmoid"  # the pipeline's default for a single output
    heads: dict[str, OutputHead] = {"sigmoid": MultiLabel(), "softmax": ClassLogits(), "none": Regression()}
    return _unwrapped(pipeline, options, head=heads.get(name))


def _token_classification(pipeline: Any) -> Unwrapped:
    settings = pipeline._preprocess_params
    for name in ("is_split_into_words", "tokenizer_params"):
        if settings.get(name):
            raise InvalidInputError(
                f"model is a token-classification pipeline with {name.replace('tokenizer_params', 'stride')}, which is "
                "not supported; build it without this option, and pass whole texts within the model's limit."
            )
    return _unwrapped(pipeline, _truncated(pipeline.tokenizer), target="pipeline_entity()")


def _fill_mask(pipeline: Any) -> Unwrapped:
    options = dict(pipeline._preprocess_params.get("tokenizer_kwargs") or {})
    words = pipeline._postprocess_params.get("target_ids")
    target = "mask()" if words is None else f"mask(among={tuple(int(word) for word in words)!r})"
    return _unwrapped(pipeline, options, target=target)


def _feature_extraction(pipeline: Any) -> Unwrapped:
    options = {k: v for k, v in pipeline._preprocess_params.items() if k not in ("padding", "return_tensors")}
    return _unwrapped(pipeline, options)


def _zero_shot(pipeline: Any) -> Unwrapped:
    settings = pipeline._preprocess_params
    labels, multi_label = settings.get("candidate_labels"), pipeline._postprocess_params.get("multi_label", False)
    template = settings.get("hypothesis_template", HYPOTHESIS)
    target = "entails()" if labels is None else zero_shot_target(labels, template, multi_label)
    return _unwrapped(pipeline, _truncated(pipeline.tokenizer, "only_first"), target=target)


def _truncated(tokenizer: Any, way: str | bool = True) -> dict[str, Any]:
    """The options of a pipeline that cuts what is too long for the tokenizer's own maximum."""
    limit = getattr(tokenizer, "model_max_length", None)
    return {"truncation": way, "max_length": limit} if isinstance(limit, int) and limit < 1_000_000 else {}


def _unwrapped(
    pipeline: Any, options: Mapping[str, Any], *, head: OutputHead | None = None, target: str | None = None
) -> Unwrapped:
    parts = (getattr(pipeline, name, None) for name in ("image_processor", "feature_extractor", "processor"))
    processor = next((part for part in parts if part is not None), None)
    return Unwrapped(pipeline.model, pipeline.tokenizer, dict(options), head, target, pipeline, processor)


TASKS: dict[str, Callable[[Any], Unwrapped]] = {
    "text-classification": _classification,
    "image-classification": _classification,
    "audio-classification": _classification,
    "zero-shot-classification": _zero_shot,
    "zero-shot-image-classification": lambda pipeline: _unwrapped(pipeline, {}),
    "token-classification": _token_classification,
    "fill-mask": _fill_mask,
    "feature-extraction": _feature_extraction,
}
