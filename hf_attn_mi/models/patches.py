"""Names of the positions that a vision model makes of an image: prefix tokens, then patches by row and column."""

from __future__ import annotations

from torch import Tensor

LARGEST_PREFIX = 16  # class token, distillation token and registers; more positions are not explained by them


def patch_names(config: object, pixels: Tensor | None, count: int) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """A name for each of `count` positions, and whether it is special (a prefix token, no part of the image).

    The grid of patches follows from the image and the patch size; what is left over in front of it are the prefix
    tokens. Positions that do not fit such a grid are numbered.

    Args:
        config: of the model; `patch_size` (or that of its `vision_config`) is read.
        pixels: (channels, height, width) of the image; None for other inputs.
        count: number of positions at the input of the first layer.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> names, special = patch_names(SimpleNamespace(patch_size=4, model_type="vit"), torch.zeros(3, 8, 8), 5)
        >>> names
        ('[CLS]', 'patch 0,0', 'patch 0,1', 'patch 1,0', 'patch 1,1')
        >>> special
        (True, False, False, False, False)
    """
    size = getattr(config, "patch_size", None) or getattr(getattr(config, "vision_config", None), "patch_size", None)
    height, width = (
        (size, size) if isinstance(size, int) else (tuple(size) if isinstance(size, list | tuple) else (0, 0))
    )
    if pixels is not None and pixels.dim() == 3 and height and width:
        rows, columns = pixels.shape[1] // height, pixels.shape[2] // width
        prefix = count - rows * columns
        if rows * columns and 0 <= prefix <= LARGEST_PREFIX:
            grid = [f"patch {row},{column}" for row in range(rows) for column in range(columns)]
            return (*_prefix_names(config, prefix), *grid), (True,) * prefix + (False,) * len(grid)
    return tuple(f"patch {i}" for i in range(count)), (False,) * count


def _prefix_names(config: object, count: int) -> list[str]:
    distilled = getattr(config, "model_type", "") == "deit" and count == 2
    names = ["[CLS]", "[DIST]"] if distilled else ["[CLS]"]
    return [*names, *(f"[REG {i}]" for i in range(count - len(names)))][:count]
