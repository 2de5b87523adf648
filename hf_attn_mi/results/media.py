"""The picture or the sound that an explanation is about, in a form small enough to be kept with the scores."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError, shown

LONGEST_SIDE = 448  # pixels of the picture that is kept
ENVELOPE = 1000  # intervals of a waveform that are kept


@dataclass(frozen=True, eq=False)
class Picture:
    """The image as the model sees it: resized and cropped by its processor.

    Attributes:
        height, width: the size in pixels, as the model sees it.
        uri: the image as a data URI (PNG or JPEG), its longer side at most 448 pixels.
    """

    height: int
    width: int
    uri: str

    @classmethod
    def of(cls, pixels: Tensor, mean: Any = None, std: Any = None) -> Picture:
        """The picture of normalized pixel values.

        Args:
            pixels: (channels, height, width); the first three channels, or the first one, are shown.
            mean, std: the normalization to be undone, one number for each channel; None stretches the values to
                the full range.

        Example:
            >>> Picture.of(torch.zeros(3, 2, 4)).uri[:15]
            'data:image/png;'
        """
        shown = pixels[: 3 if pixels.shape[0] >= 3 else 1].detach().float().cpu()
        if mean is not None and std is not None and len(mean) >= len(shown) <= len(std):
            shown = shown * torch.tensor(std[: len(shown)])[:, None, None]
            shown = shown + torch.tensor(mean[: len(shown)])[:, None, None]
        else:
            shown = (shown - shown.min()) / (shown.max() - shown.min()).clamp_min(1e-12)
        factor = LONGEST_SIDE / max(shown.shape[1:])
        if factor < 1:
            size = [max(1, round(side * factor)) for side in shown.shape[1:]]
            shown = F.interpolate(shown[None], size=size, mode="area")[0]
        array = (shown.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy()
        return cls(int(pixels.shape[1]), int(pixels.shape[2]), _data_uri(array))

    def array(self) -> np.ndarray[Any, Any]:
        """(height, width, 3) uint8 of the kept image.

        Raises:
            BackendUnavailableError: Pillow is not installed.
        """
        try:
            from PIL import Image
        except ImportError as error:
            raise BackendUnavailableError(
                'a picture is read by Pillow, which is not installed: pip install "hf_attn_mi[vision]"'
            ) from error
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(self.uri.partition(",")[2]))).convert("RGB"))


@dataclass(frozen=True, eq=False)
class Sound:
    """The recording: its length, where each position lies in it, and the outline of its waveform.

    Attributes:
        duration: the length in seconds.
        seconds: (positions, 2) start and end of each position; zeros for special positions.
        envelope: (intervals, 2) lowest and highest sample of equal parts of the recording; (0, 2) where only a
            spectrogram is known.
    """

    duration: float
    seconds: Tensor
    envelope: Tensor

    @classmethod
    def of(cls, seconds: Tensor, waveform: Tensor | None, sampling_rate: int | None) -> Sound:
        """The sound of a waveform.

        Args:
            seconds: (positions, 2).
            waveform: (samples,); None if it is not known.
            sampling_rate: samples per second; None if it is not known.

        Example:
            >>> sound = Sound.of(torch.tensor([[0.0, 0.5]]), torch.tensor([0.0, 1.0, -1.0, 0.0]), 8)
            >>> sound.duration, sound.envelope.shape
            (0.5, torch.Size([4, 2]))
        """
        if waveform is None or sampling_rate is None:
            return cls(float(seconds.max()), seconds, torch.zeros(0, 2, dtype=torch.float32))
        parts = torch.tensor_split(waveform.float(), min(ENVELOPE, len(waveform)))
        envelope = torch.tensor([[float(part.min()), float(part.max())] for part in parts])
        return cls(len(waveform) / sampling_rate, seconds, envelope)


def heatmap(scores: Tensor, grid: tuple[int, int], size: Any = None) -> np.ndarray[Any, Any]:
    """The map of scores.

    Args:
        scores: (rows x columns,) in the order of rows.
        grid: (rows, columns).
        size: (height, width) to interpolate to, bilinear; None for the grid itself.

    Returns:
        (rows, columns), or `size`, float64.

    Raises:
        InvalidInputError: the size is not a pair of whole numbers of 1 or more.

    Example:
        >>> heatmap(torch.tensor([0.0, 1.0]), (1, 2), (1, 4)).tolist()
        [[0.0, 0.25, 0.75, 1.0]]
    """
    array = scores.double().reshape(grid)
    if size is not None:
        whole = isinstance(size, tuple | list) and len(size) == 2
        if not whole or not all(isinstance(x, int) and not isinstance(x, bool) and x >= 1 for x in size):
            raise InvalidInputError(
                f"size must be (height, width) in pixels, whole numbers of 1 or more, not {shown(size)}."
            )
        array = F.interpolate(array[None, None], size=tuple(size), mode="bilinear", align_corners=False)[0, 0]
    result: np.ndarray[Any, Any] = array.numpy()
    return result


def png_uri(pixels: np.ndarray[Any, Any]) -> str:
    """The PNG of (height, width, 3 or 4) uint8 as a data URI, without another library.

    Example:
        >>> png_uri(np.zeros((1, 1, 4), dtype=np.uint8))[:15]
        'data:image/png;'
    """
    height, width, channels = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in np.ascontiguousarray(pixels))
    header = struct.pack(">IIBBBBB", width, height, 8, 6 if channels == 4 else 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _data_uri(pixels: np.ndarray[Any, Any]) -> str:
    """PNG, or JPEG where that is smaller and Pillow is installed."""
    png = png_uri(pixels)
    try:
        from PIL import Image
    except ImportError:
        return png
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    jpeg = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return png if len(png) <= len(jpeg) else jpeg
