"""Unwrap a model: pipelines and their settings, accelerate's hooks, objects that hold a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.output_heads import ClassLogits, MultiLabel, OutputHead, Regression

CLASSIFICATION = ("text-classification", "image-classification", "audio-classification")


def pipeline_processor(pipeline: Any) -> Any:
    """The processor of a pipeline for images or audio; None for texts."""
    parts = (getattr(pipeline, name, None) for name in ("image_processor", "feature_extractor", "processor"))
    return next((part for part in parts if part is not None), None)


def pipeline_settings(pipeline: Any) -> tuple[dict[str, Any], OutputHead | None]:
    """The tokenizer's options and the output head of a pipeline that classifies texts, images or audio.

    Raises:
        InvalidInputError: a pipeline for another task.
    """
    if pipeline.task not in CLASSIFICATION:
        raise InvalidInputError(
            f"model is a pipeline for the task {pipeline.task!r}; only {', '.join(CLASSIFICATION)} are explained "
            "as the pipeline answers them. Pass its model: explain(pipe.model, inputs, tokenizer=pipe.tokenizer, "
            "target=...)."
        )
    options = {k: v for k, v in pipeline._preprocess_params.items() if k not in ("padding", "return_tensors")}
    applied = pipeline._postprocess_params.get("function_to_apply")
    name = "" if applied is None else str(getattr(applied, "value", applied)).lower()
    config = pipeline.model.config
    if applied is None and config.num_labels == 1 and config.problem_type != "regression":
        name = "sigmoid"  # the pipeline's default for a single output
    heads: dict[str, OutputHead] = {"sigmoid": MultiLabel(), "softmax": ClassLogits(), "none": Regression()}
    return options, heads.get(name)


def refuse_wrapper(model: object) -> None:
    """Raise `InvalidInputError` for objects that hold a model, with the attribute to pass."""
    for attribute in ("model", "model_body", "transformers_model"):
        inner = getattr(model, attribute, None)
        if isinstance(inner, nn.Module):
            raise InvalidInputError(
                f"model is a {type(model).__name__}, which is no torch.nn.Module; pass its attribute .{attribute} "
                f"({type(inner).__name__}), and tokenizer=..."
            )


def device_hook(model: nn.Module) -> object | None:
    """The hook with which accelerate runs this model or a part of it; None without one."""
    if not any(hasattr(module, "_hf_hook") for module in model.modules()):
        return None
    from accelerate.hooks import AlignDevicesHook, ModelHook, SequentialHook

    hooks: list[ModelHook] = []
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        hooks += hook.hooks if isinstance(hook, SequentialHook) else [hook] if isinstance(hook, ModelHook) else []
    aligned = [hook for hook in hooks if isinstance(hook, AlignDevicesHook) and hook.execution_device is not None]
    return next(iter([*aligned, *hooks]), None)
