"""Images as inputs: PIL images, arrays and files, through the image processor of the model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.models.encoded_input import EncodedInput

ALLOWED = (
    "a PIL image, an array of shape (height, width), (height, width, 3 or 4) or (3, height, width), the path of an "
    "image file, a list of these, or a dict with pixel_values"
)


def is_image(value: object) -> bool:
    """Whether this is a PIL image, without importing Pillow."""
    return any(kind.__name__ == "Image" and kind.__module__ == "PIL.Image" for kind in type(value).__mro__)


def split_images(inputs: Any) -> tuple[list[Any], bool]:
    """The items of what a caller passed, and whether it is a single image.

    Raises:
        InvalidInputError: there is no image.

    Example:
        >>> items, single = split_images(np.zeros((2, 4, 6, 3), dtype=np.uint8))
        >>> len(items), single
        (2, False)
    """
    several = is_list(inputs) or (_is_array(inputs) and inputs.ndim == 4)
    items = list(inputs) if several else [inputs]
    if not items:
        raise InvalidInputError(f"inputs is an empty {type(inputs).__name__}; allowed is {ALLOWED}.")
    return items, not several


def is_list(inputs: object) -> bool:
    """Whether this holds several images or recordings: a list, a column of a data set, an iterator."""
    if isinstance(inputs, str | bytes | os.PathLike | Mapping) or _is_array(inputs) or is_image(inputs):
        return False
    return isinstance(inputs, Iterable)


def encode_image(item: Any, *, processor: Any, accepted: Set[str], place: str) -> EncodedInput:
    """The encoded input of one image.

    Args:
        item: one of the kinds in `ALLOWED`. Arrays hold 0 to 255 as integers, or 0 to 1 as floating-point numbers.
        processor: the image processor of the model.
        accepted: the argument names of the model.
        place: how error messages refer to the image, such as "inputs[3]".

    Raises:
        InvalidInputError: not an image, or one that the processor refuses.
        BackendUnavailableError: Pillow is not installed.
    """
    image = read_image(item, place)
    try:
        features = processor(images=image, return_tensors="pt")
    except Exception as error:  # processors raise errors of every kind
        raise InvalidInputError(
            f"{place}: {type(processor).__name__} refuses the image of {image.size[0]} x {image.size[1]} pixels "
            f"({type(error).__name__}: {' '.join(str(error).split())[:300]}). Pass another image, or the processor of "
            "this model as processor=."
        ) from error
    return EncodedInput({key: _row(value) for key, value in features.items() if key in accepted}, None)


def _row(value: Any) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    return tensor[0]


def read_image(item: Any, place: str) -> Any:
    """The PIL image of one item, in RGB, rotated as its EXIF entry says.

    Raises:
        InvalidInputError: not an image; the message begins with `place`.
        BackendUnavailableError: Pillow is not installed.

    Example:
        >>> image = read_image(np.zeros((4, 6), dtype=np.uint8), "inputs")
        >>> image.size, image.mode
        ((6, 4), 'RGB')
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise BackendUnavailableError(
            f'{place}: images need Pillow, which is not installed: pip install "hf_attn_mi[vision]". A dict with '
            "pixel_values works without it."
        ) from error
    if isinstance(item, str | os.PathLike):
        path = Path(item)
        if str(item).startswith(("http:", "https:", "http://", "https://", "data:")):
            raise InvalidInputError(
                f"{place} is the address {str(item)[:80]!r}, and nothing is downloaded: download it, and pass the path."
            )
        if not os.path.isfile(path):  # False also for names that no file can have
            raise InvalidInputError(f"{place}: there is no image file {str(item)[:200]!r}; allowed is {ALLOWED}.")
        try:
            with Image.open(path) as image:
                item = _in_bytes(ImageOps.exif_transpose(image), place).convert("RGB")
        except InvalidInputError:
            raise
        except Exception as error:  # Pillow raises its own, OSError, SyntaxError and ValueError for damaged files
            raise InvalidInputError(
                f"{place}: {str(item)[:200]!r} cannot be read as an image ({type(error).__name__}: {error})."
            ) from error
        return item
    if is_image(item):
        if 0 in item.size:
            raise InvalidInputError(f"{place} is an image of {item.size[0]} x {item.size[1]} pixels; it is empty.")
        try:
            return _in_bytes(ImageOps.exif_transpose(item), place).convert("RGB")
        except InvalidInputError:
            raise
        except (OSError, ValueError, SyntaxError) as error:
            raise InvalidInputError(f"{place}: this image cannot be converted to RGB ({error}).") from error
    if _is_array(item):
        return Image.fromarray(_bytes_of(np.asarray(item), place))
    raise InvalidInputError(f"{place} must be {ALLOWED}; not {type(item).__name__}.")


def _in_bytes(image: Any, place: str) -> Any:
    """The image with 8 bits a channel: 16 bits are scaled, since Pillow would cut off every value above 255.

    Raises:
        InvalidInputError: 32 bits a pixel, whose range is not known.
    """
    if image.mode.startswith("I;16"):
        from PIL import Image

        return Image.fromarray(np.round(np.asarray(image).astype(np.float64) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InvalidInputError(
            f"{place} is an image of mode {image.mode!r} (32 bits a pixel), whose range is not known. Pass an array of "
            "integers from 0 to 255, or of floating-point numbers from 0 to 1."
        )
    return image


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray | Tensor)


def _bytes_of(array: np.ndarray[Any, Any], place: str) -> np.ndarray[Any, Any]:
    """(height, width, 3) of uint8."""
    shape = array.shape
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InvalidInputError(f"{place} is an array of shape {shape}; allowed is {ALLOWED}.")
    if array.dtype.kind == "b" or array.dtype.kind not in "uif":
        raise InvalidInputError(
            f"{place} is an array of {array.dtype}; integers from 0 to 255, or floating-point numbers from 0 to 1, are "
            "needed."
        )
    largest = 255 if array.dtype.kind in "ui" else 1.0
    if not bool(np.isfinite(array).all()) or array.min() < 0 or array.max() > largest:
        raise InvalidInputError(
            f"{place} is an array of {array.dtype} with entries from {array.min()} to {array.max()}; they must be "
            f"finite and from 0 to {largest:g}. Pass normalized pixels as {{'pixel_values': tensor}}."
        )
    if array.dtype.kind == "f":
        array = np.round(array * 255)
    array = array.astype(np.uint8)
    return np.ascontiguousarray(np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., :3])
