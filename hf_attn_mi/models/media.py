"""Which inputs are images or recordings, and the processor that prepares them for the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import transformers

from hf_attn_mi.errors import HfAttnMiError, InvalidInputError, shown
from hf_attn_mi.models.audio import check_rate, encode_recording, is_recording, split_recordings
from hf_attn_mi.models.encode import argument_names
from hf_attn_mi.models.encoded_input import EncodedInput, EncodedInputs, FailedInput
from hf_attn_mi.models.images import encode_image, is_image, split_images

if TYPE_CHECKING:
    from hf_attn_mi.models.runner import EncoderRunner

Encode = Callable[..., EncodedInput]
IMAGES, AUDIO = "pixel_values", ("input_values", "input_features")


def check_media_options(processor: Any, sampling_rate: object) -> None:
    """Refuse an invalid processor or sampling rate, whatever the inputs are.

    Raises:
        InvalidInputError: the value is invalid; the message names the argument.
    """
    parts = ("image_processor", "feature_extractor", "tokenizer")
    if processor is not None and not callable(processor) and not any(hasattr(processor, part) for part in parts):
        raise InvalidInputError(
            f"processor must be an image processor, a feature extractor or a processor of transformers, not "
            f"{shown(processor)}."
        )
    if sampling_rate is not None:
        check_rate(sampling_rate, "sampling_rate")


def encode_media(runner: EncoderRunner, inputs: Any, *, skip: bool = False) -> EncodedInputs | None:
    """The encoded inputs of images or recordings; None for other inputs.

    Args:
        runner: runs the model.
        inputs: as the caller passed them.
        skip: keep inputs of a list that cannot be encoded in `failures`, instead of raising.

    Raises:
        InvalidInputError: images for a model of texts or audio, and the like; or as the readers say.
    """
    if isinstance(inputs, Mapping) and not is_recording(inputs):
        return None
    main = main_input(runner)
    if main == IMAGES:
        items, single = split_images(inputs)
        processor = find_processor(runner, "image_processor")
        encode: Encode = partial(encode_image, processor=processor, accepted=argument_names(runner.model))
    elif main in AUDIO:
        items, single = split_recordings(inputs)
        processor = find_processor(runner, "feature_extractor")
        rate = runner.sampling_rate
        encode = partial(
            encode_recording, processor=processor, sampling_rate=rate, accepted=argument_names(runner.model)
        )
    else:
        _refuse_media(runner, inputs, main)
        return None
    encoded = EncodedInputs([], [], {}, single)
    for i, item in enumerate(items):
        try:
            one = encode(item, place="inputs" if single else f"inputs[{i}]")
        except HfAttnMiError as error:
            if single or not skip:
                raise
            encoded.failures[i] = FailedInput((), error)
        else:
            encoded.inputs.append(_with_decoder_start(runner, _in_precision(runner, one)))
            encoded.places.append(i)
    return encoded


def _refuse_media(runner: EncoderRunner, inputs: Any, main: str) -> None:
    first = inputs[0] if isinstance(inputs, list | tuple) and inputs else inputs
    if is_image(first) and runner.takes(IMAGES):
        raise InvalidInputError(
            f"inputs: {runner.class_name} compares images with texts, and there are no texts: pass "
            "candidate_labels=[...], or the tensors that its processor makes of both."
        )
    if is_image(first) or is_recording(first) or isinstance(first, os.PathLike):
        raise InvalidInputError(
            f"inputs: {runner.class_name} reads {main}, not a {type(first).__name__}; pass texts, or a model of images "
            "or audio. (A file of texts: read_texts_of in hf_attn_mi.data.)"
        )


def _in_precision(runner: EncoderRunner, one: EncodedInput) -> EncodedInput:
    """The input in the precision of the model's weights."""
    dtype = runner.dtype
    tensors = {key: value.to(dtype) if value.is_floating_point() else value for key, value in one.tensors.items()}
    return replace(one, tensors=tensors)


def _with_decoder_start(runner: EncoderRunner, one: EncodedInput) -> EncodedInput:
    """The input with the start token for a decoder that needs tokens to read, as generation begins."""
    start = getattr(runner.config, "decoder_start_token_id", None)
    if not isinstance(start, int) or "decoder_input_ids" in one.tensors or not runner.takes("decoder_input_ids"):
        return one
    return replace(one, tensors={**one.tensors, "decoder_input_ids": torch.tensor([start])})


def main_input(runner: EncoderRunner) -> str:
    """The model's main argument: "input_ids", "pixel_values", "input_values" or "input_features"."""
    names = ("input_ids", IMAGES, *AUDIO)
    stated = getattr(runner.model, "main_input_name", None)
    if stated in names and runner.takes(stated):
        return str(stated)
    return next((name for name in names if runner.takes(name)), "input_ids")


def find_processor(runner: EncoderRunner, part: str) -> Any:
    """The image processor or feature extractor: what was passed, a part of it, or the one saved with the model.

    Args:
        runner: runs the model.
        part: "image_processor" or "feature_extractor".

    Raises:
        InvalidInputError: there is none.
    """
    if runner.processor is None:
        runner.processor = _load(runner, part)
    processor = getattr(runner.processor, part, runner.processor)
    if not callable(processor):
        raise InvalidInputError(
            f"processor must be an {part.replace('_', ' ')} of transformers, not {type(processor).__name__}."
        )
    return processor


def _load(runner: EncoderRunner, part: str) -> Any:
    loaders: dict[str, Callable[..., Any]] = {
        "image_processor": transformers.AutoImageProcessor.from_pretrained,
        "feature_extractor": transformers.AutoFeatureExtractor.from_pretrained,
    }
    name = "AutoImageProcessor" if part == "image_processor" else "AutoFeatureExtractor"
    main = main_input(runner)
    fix = f"pass processor={name}.from_pretrained(...), or a dict with {main}."
    path = getattr(runner.config, "_name_or_path", "") or getattr(runner.model, "name_or_path", "")
    if not path:
        raise InvalidInputError(
            f"processor: {runner.class_name} does not name the folder or Hub repository it was loaded from; {fix}"
        )
    try:
        return loaders[part](path)
    except Exception as error:  # transformers and huggingface_hub raise errors of every kind
        raise InvalidInputError(
            f"processor: none could be loaded from the model's own path {path!r} ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}); {fix}"
        ) from error
