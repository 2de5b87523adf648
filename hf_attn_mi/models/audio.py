"""Recordings as inputs: arrays with a sampling rate and files, through the feature extractor of the model."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # scipy.io and scipy.signal are loaded when they are first used
import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.images import is_list

ALLOWED = (
    "an array of shape (samples,) with sampling_rate=, a dict with array (or raw) and sampling_rate, the path of a "
    ".wav file, a list of these, or a dict with input_values or input_features"
)
LONGEST = 3600 * 48_000  # samples: an hour
Samples = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Recording:
    """One channel of sound.

    Attributes:
        samples: (samples,) float32.
        sampling_rate: samples per second.
        notes: what was changed while reading.
    """

    samples: Samples
    sampling_rate: int
    notes: tuple[str, ...] = ()


def is_recording(value: object) -> bool:
    """Whether this is a dict as the data sets and pipelines of Hugging Face pass sound."""
    return isinstance(value, Mapping) and "sampling_rate" in value and ("array" in value or "raw" in value)


def split_recordings(inputs: Any) -> tuple[list[Any], bool]:
    """The items of what a caller passed, and whether it is a single recording.

    Raises:
        InvalidInputError: there is no recording.

    Example:
        >>> split_recordings([0.5, -0.5])[1], split_recordings(["one.wav", "two.wav"])[1]
        (True, False)
    """
    numbers = isinstance(inputs, list | tuple) and inputs and all(isinstance(x, int | float) for x in inputs)
    several = is_list(inputs) and not numbers
    items = list(inputs) if several else [inputs]
    if not items:
        raise InvalidInputError(f"inputs is an empty {type(inputs).__name__}; allowed is {ALLOWED}.")
    return items, not several


def encode_recording(
    item: Any, *, processor: Any, sampling_rate: object, accepted: Set[str], place: str
) -> EncodedInput:
    """The encoded input of one recording, at the sampling rate of the processor and not padded to the length of others.

    Args:
        item: one of the kinds in `ALLOWED`. Integers are divided by their largest value.
        processor: the feature extractor; its `sampling_rate` is what the model was trained on.
        sampling_rate: the rate of arrays; None if each input has its own.
        accepted: the argument names of the model.
        place: how error messages refer to the recording, such as "inputs[3]".

    Raises:
        InvalidInputError: not a recording, a sampling rate that is missing or wrong, or one that the processor refuses.
    """
    if sampling_rate is not None:
        check_rate(sampling_rate, "sampling_rate")
    wanted = getattr(processor, "sampling_rate", None)
    one = _resampled(_read(item, sampling_rate, wanted, place), wanted, place)
    try:
        features = processor(one.samples, sampling_rate=one.sampling_rate, return_tensors="pt")
    except Exception as error:  # feature extractors raise errors of every kind
        raise InvalidInputError(
            f"{place}: {type(processor).__name__} refuses the recording of {len(one.samples)} samples "
            f"({type(error).__name__}: {' '.join(str(error).split())[:300]}). Pass another recording, or the feature "
            "extractor of this model as processor=."
        ) from error
    return EncodedInput(
        {key: torch.as_tensor(np.asarray(value))[0] for key, value in features.items() if key in accepted},
        None,
        waveform=torch.from_numpy(one.samples),
        sampling_rate=one.sampling_rate,
        warnings=one.notes,
    )


def _read(item: Any, sampling_rate: Any, wanted: Any, place: str) -> Recording:
    if isinstance(item, str | os.PathLike):
        return _read_file(Path(item), place)
    if isinstance(item, Mapping):
        if not is_recording(item):
            raise InvalidInputError(f"{place} is a dict with {list(item)[:8]}; allowed is {ALLOWED}.")
        rate = item["sampling_rate"]
        check_rate(rate, f"{place}['sampling_rate']")
        return Recording(_samples(item["array"] if "array" in item else item["raw"], place), int(rate))
    samples = _samples(item, place)
    if sampling_rate is None:
        raise InvalidInputError(
            f"{place} is an array, and sampling_rate is missing: pass sampling_rate={wanted or 16000} if there are so "
            "many samples a second."
        )
    return Recording(samples, int(sampling_rate))


def check_rate(rate: object, place: str) -> None:
    """Raise `InvalidInputError` unless the value is a sampling rate.

    Raises:
        InvalidInputError: the message begins with `place`.

    Example:
        >>> check_rate(16000, "sampling_rate")
    """
    whole = isinstance(rate, int | np.integer) and not isinstance(rate, bool)
    if not whole or not 1000 <= int(rate) <= 768_000:  # type: ignore[call-overload]
        raise InvalidInputError(
            f"{place} must be a whole number from 1000 to 768000 samples a second, not {shown(rate)}."
        )


def _samples(value: Any, place: str) -> Samples:
    """(samples,) float32, checked."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{place} is not an array of samples ({error}); allowed is {ALLOWED}.") from error
    if array.dtype.kind not in "if" or array.dtype.kind == "b":
        raise InvalidInputError(f"{place} must be {ALLOWED}; not {type(value).__name__} of {array.dtype}.")
    if array.ndim != 1 or array.size == 0:
        raise InvalidInputError(
            f"{place} is an array of shape {array.shape}; one channel of shape (samples,) is needed: take one channel, "
            "or the mean over channels."
        )
    if array.size > LONGEST:
        raise InvalidInputError(f"{place} has {array.size} samples, more than an hour; pass shorter parts of it.")
    if array.dtype.kind == "i":
        array = array / float(np.iinfo(array.dtype).max + 1)
    if not bool(np.isfinite(array).all()):
        raise InvalidInputError(f"{place} holds NaN or infinite samples; every sample must be finite.")
    return np.ascontiguousarray(array, dtype=np.float32)


def _read_file(path: Path, place: str) -> Recording:
    """The recording of a .wav file; its channels are averaged."""
    if str(path).startswith(("http:", "https:")):
        raise InvalidInputError(f"{place} is an address, and nothing is downloaded: download it, and pass the path.")
    if not os.path.isfile(path):  # False also for names that no file can have
        raise InvalidInputError(f"{place}: there is no audio file {str(path)[:200]!r}; allowed is {ALLOWED}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.io.wavfile.WavFileWarning)  # chunks of other programs
            rate, samples = scipy.io.wavfile.read(path)
    except Exception as error:  # scipy raises ValueError, struct.error and others on damaged files
        raise InvalidInputError(
            f"{place}: {str(path)[:200]!r} cannot be read as a .wav file ({type(error).__name__}: {error}). Convert it "
            "to .wav, or pass its samples as an array with sampling_rate=."
        ) from error
    if samples.dtype == np.uint8:  # the format defines 8-bit samples as unsigned
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples / float(np.iinfo(samples.dtype).max + 1)
    notes: tuple[str, ...] = ()
    if samples.ndim == 2:
        notes = (f"{place}: the mean of {samples.shape[1]} channels was taken.",) if samples.shape[1] > 1 else ()
        samples = samples.mean(1)
    check_rate(rate, f"{place}: the sampling rate of {path.name}")
    return Recording(_samples(samples, f"{place} ({path.name})"), int(rate), notes)


def _resampled(one: Recording, wanted: Any, place: str) -> Recording:
    """The recording at the sampling rate that the model was trained on, with a note if its rate was different."""
    if not isinstance(wanted, int) or one.sampling_rate == wanted:
        return one
    divisor = math.gcd(wanted, one.sampling_rate)
    up, down = wanted // divisor, one.sampling_rate // divisor
    samples = scipy.signal.resample_poly(one.samples.astype(np.float64), up, down)
    note = f"{place} was resampled from {one.sampling_rate} to {wanted} samples a second, as the model needs it."
    return Recording(samples.astype(np.float32), wanted, (*one.notes, note))
