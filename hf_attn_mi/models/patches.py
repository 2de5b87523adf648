"""The grid of patches that a vision model makes of an image, and the names of the prefix tokens in front of it."""

from __future__ import annotations

import math

from torch import Tensor

LARGEST_PREFIX = 16  # class token, distillation token and registers; more positions in front cannot be prefix tokens


def patch_grid(config: object, pixels: Tensor, count: int, shape: Tensor | None = None) -> tuple[int, int] | None:
    """(rows, columns) of the patches among `count` positions, row by row; None if they form no grid.

    The grid follows from the image and the patch size; what is left over in front of it are the prefix tokens. Without
    a patch size that fits, the positions are a grid if they have the proportions of the image.

    Args:
        config: the model's configuration; `patch_size` (or that of its `vision_config`) is read.
        pixels: (channels, height, width) of the image, or (patches, values).
        count: number of positions at the input of the first layer.
        shape: (2,) rows and columns of an image that is passed as patches; None for other images.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> patch_grid(SimpleNamespace(patch_size=4), torch.zeros(3, 8, 12), 7)
        (2, 3)
        >>> patch_grid(SimpleNamespace(), torch.zeros(3, 64, 32), 128)  # 4 x 4 pixels each
        (16, 8)
    """
    if shape is not None:
        rows, columns = (int(size) for size in shape.tolist())
        return (rows, columns) if 0 < rows * columns <= count else None
    if pixels.dim() != 3:
        return None
    height, width = int(pixels.shape[1]), int(pixels.shape[2])
    size = getattr(config, "patch_size", None) or getattr(getattr(config, "vision_config", None), "patch_size", None)
    sides = (size, size) if isinstance(size, int) else size
    if isinstance(sides, list | tuple) and len(sides) == 2 and all(isinstance(x, int) and x > 0 for x in sides):
        for rounded in (math.floor, math.ceil):  # what does not fill a patch is cut off, or padded
            rows, columns = rounded(height / sides[0]), rounded(width / sides[1])
            if rows * columns and 0 <= count - rows * columns <= LARGEST_PREFIX:
                return rows, columns
    rows = math.isqrt(count * height // width)
    if rows and count % rows == 0 and rows * width == count // rows * height:
        return rows, count // rows
    return None


def prefix_names(config: object, count: int) -> tuple[str, ...]:
    """Names of the positions in front of the patches: the class token, DeiT's distillation token, registers.

    Example:
        >>> prefix_names(None, 3)
        ('[CLS]', '[REG 0]', '[REG 1]')
    """
    distilled = getattr(config, "model_type", "") in DISTILLED and count == 2
    names = ["[CLS]", "[DIST]"] if distilled else ["[CLS]"]
    return tuple([*names, *(f"[REG {i}]" for i in range(count - len(names)))][:count])


DISTILLED = ("deit", "audio-spectrogram-transformer")
