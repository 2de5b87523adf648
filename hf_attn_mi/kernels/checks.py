"""Checks the arguments of the fused routine and brings them to one shape."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError

MASKED_BELOW = -5e3  # additive masks in use are -1e4, -65504, finfo.min or -inf; real logits stay far above
HEAD_DIM_LIMIT = 256
MASK_TILE = 1 << 20  # entries of a mask read at a time
STATISTICS = ("all", "summary", "raw", "received")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class KernelInputs:
    """The checked arguments. Finite everywhere: what masked keys and queries held is zero where it was not finite."""

    query: Tensor | None  # (batch, heads, queries, qk_dim)
    key: Tensor | None  # (batch, kv_heads, keys, qk_dim)
    value: Tensor  # (batch, kv_heads, keys, head_dim)
    output: Tensor | None  # (batch, heads, queries, head_dim)
    rows: Tensor | None  # (batch, heads, queries, keys)
    mask: Tensor | None  # bool or additive, four dimensions, each 1 or full
    scale: float
    is_causal: bool
    window: int | None
    keys: Tensor  # (batch, keys) bool, real keys that some real query may see
    queries: Tensor  # (batch, queries) bool, real queries that see a key
    by_row: bool  # whether real queries of one example and head, or heads of one example, see different keys
    heads: int
    sinks: Tensor | None = None  # (batch, heads) finite: the logit of no key that each row of a head has, too

    @property
    def groups(self) -> int:
        """Query heads that share one key and value head."""
        return self.heads // self.value.shape[1]

    @property
    def per_head(self) -> bool:
        """Whether heads of one example have masks of their own."""
        return self.mask is not None and self.mask.shape[1] > 1

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the computation: float32, or float64 where every tensor is float64."""
        given = [x for x in (self.query, self.key, self.value, self.output, self.rows) if x is not None]
        return torch.float64 if all(x.dtype == torch.float64 for x in given) else torch.float32

    def allowed(self, example: slice, heads: slice, queries: slice, keys: slice) -> Tensor:
        """Which keys each query may see, bool (examples, heads or 1, queries, keys); pad queries see none."""
        seen = self.keys[example, None, None, keys] & self.queries[example, None, queries, None]
        order = order_mask(queries, keys, self.is_causal, self.window, seen.device)
        if order is not None:
            seen = seen & order
        if self.mask is not None:
            tile = mask_tile(self.mask, example, heads, queries, keys)
            seen = seen & (tile if tile.dtype == torch.bool else tile > MASKED_BELOW)
        return seen

    def bias(self, example: slice, heads: slice, queries: slice, keys: slice) -> Tensor | None:
        """The additive mask of a tile, None where there is none."""
        if self.mask is None or self.mask.dtype == torch.bool:
            return None
        return mask_tile(self.mask, example, heads, queries, keys)


def read_heads(
    tensors: tuple[Tensor | None, Tensor | None, Tensor, Tensor | None, Tensor | None],
    mask: Tensor | None,
    flags: tuple[Tensor | None, Tensor | None],
    *,
    scale: float | None,
    is_causal: bool,
    window: int | None,
    sinks: Tensor | None = None,
) -> KernelInputs:
    """Return the checked arguments of a call.

    Args:
        tensors: query, key, value, output, rows.
        mask: bool or additive, broadcastable to (batch, heads, queries, keys).
        flags: key mask and query mask.
        scale: factor of the logits.
        is_causal: whether keys after the query are hidden.
        window: keys at this distance and beyond are hidden.
        sinks: (heads,) or (batch, heads).

    Raises:
        InvalidInputError: anything that does not fit.
    """
    query, key, value, output, rows = tensors
    read_order(is_causal, window)
    shape = batch, heads, queries, keys = check_shapes(*tensors)
    mask = read_mask(mask, shape, value.device)
    real_keys = read_flags("key_mask", flags[0], batch, keys, value.device)
    real_queries = read_flags("query_mask", flags[1], batch, queries, value.device)
    seen, alive, by_row, adds = see_keys(mask, is_causal, window, real_keys, real_queries, heads)
    return KernelInputs(
        query=None if query is None else finite_where("query", query, alive),
        key=None if key is None else finite_where("key", key, seen),
        value=finite_where("value", value, seen),
        output=None if output is None else finite_where("output", output, alive),
        rows=rows,
        mask=mask if by_row or adds else None,
        scale=read_scale(scale, query),
        is_causal=is_causal and by_row,
        window=window if by_row else None,
        keys=seen,
        queries=alive,
        by_row=by_row,
        heads=heads,
        sinks=read_sinks(sinks, query, batch, heads),
    )


def mask_tile(mask: Tensor, *places: slice) -> Tensor:
    """Return a part of a mask; dimensions of size 1 are kept whole.

    Example:
        >>> mask_tile(torch.ones(1, 1, 3, 4), slice(2, 3), slice(0, 1), slice(0, 2), slice(0, 4)).shape
        torch.Size([1, 1, 2, 4])
    """
    return mask[tuple(place if size > 1 else slice(None) for place, size in zip(places, mask.shape))]


def order_mask(queries: slice, keys: slice, is_causal: bool, window: int | None, device: torch.device) -> Tensor | None:
    """Return (queries, keys) bool of causality and window, None where neither is asked for.

    Causal: j <= i. Window w: |i - j| < w.

    Example:
        >>> order_mask(slice(0, 3), slice(0, 3), True, 2, torch.device("cpu")).int().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    if not is_causal and window is None:
        return None
    first = torch.arange(queries.start, queries.stop, device=device)[:, None]
    second = torch.arange(keys.start, keys.stop, device=device)
    seen = first >= second if is_causal else torch.ones(1, 1, dtype=torch.bool, device=device)
    return seen if window is None else seen & ((first - second).abs() < window)


def check_floats(name: str, tensor: Tensor, dimensions: int = 4) -> None:
    """Raise InvalidInputError unless the tensor is floating point, has these dimensions and none is empty."""
    if tensor.dtype not in FLOATS:
        raise InvalidInputError(f"{name} has dtype {tensor.dtype}: float16, bfloat16, float32 and float64 are allowed")
    if tensor.dim() != dimensions or 0 in tensor.shape:
        raise InvalidInputError(f"{name} has shape {tuple(tensor.shape)}: it needs {dimensions} dimensions, none empty")


def check_shapes(
    query: Tensor | None, key: Tensor | None, value: Tensor, output: Tensor | None, rows: Tensor | None
) -> tuple[int, int, int, int]:
    """Return (batch, heads, queries, keys) on which the tensors agree.

    Raises:
        InvalidInputError: they do not agree, or a dtype or size is not allowed.
    """
    given = {"query": query, "key": key, "value": value, "output": output, "rows": rows}
    for name, tensor in given.items():
        if tensor is not None:
            check_floats(name, tensor)
    if (query is None) != (key is None):
        raise InvalidInputError("query and key come together: pass both or neither")
    if query is not None and rows is not None:
        raise InvalidInputError("pass either query and key or rows, not both: rows are the attention itself")
    leader = next((tensor for tensor in (query, rows, output) if tensor is not None), None)
    if leader is None:
        raise InvalidInputError("nothing to attention_statistics: pass query and key, or rows, or output")
    batch, heads, queries = leader.shape[:3]
    kv_heads, keys, dim = value.shape[1:]
    wanted = {
        "query": (batch, heads, queries, query.shape[3] if query is not None else 0),
        "key": (batch, kv_heads, keys, query.shape[3] if query is not None else 0),
        "value": (batch, kv_heads, keys, dim),
        "output": (batch, heads, queries, dim),
        "rows": (batch, heads, queries, keys),
    }
    for name, tensor in given.items():
        if tensor is not None and tuple(tensor.shape) != wanted[name]:
            raise InvalidInputError(f"{name} has shape {tuple(tensor.shape)}, expected {wanted[name]} from the others")
    if heads % kv_heads:
        raise InvalidInputError(f"heads = {heads} is not a multiple of the {kv_heads} heads of value")
    widest = max(dim, query.shape[3] if query is not None else 0)
    if widest > HEAD_DIM_LIMIT:
        raise InvalidInputError(f"head_dim = {widest}: at most {HEAD_DIM_LIMIT} is allowed")
    devices = {str(tensor.device) for tensor in given.values() if tensor is not None}
    if len(devices) > 1:
        raise InvalidInputError(f"tensors are on several devices: {sorted(devices)}")
    return batch, heads, queries, keys


def read_mask(mask: Tensor | None, shape: tuple[int, int, int, int], device: torch.device) -> Tensor | None:
    """Return the mask with four dimensions, each 1 or full; dimensions that were expanded are 1 again.

    Raises:
        InvalidInputError: a dtype or shape that does not fit.
    """
    if mask is None:
        return None
    if mask.dtype != torch.bool and mask.dtype not in FLOATS:
        raise InvalidInputError(
            f"mask has dtype {mask.dtype}: bool (True = attend) or additive floating point is allowed"
        )
    if not 2 <= mask.dim() <= 4:
        raise InvalidInputError(
            f"mask has shape {tuple(mask.shape)}: it must broadcast to {shape} with 2 to 4 dimensions"
        )
    mask = mask[(None,) * (4 - mask.dim())].to(device)
    if any(size not in (1, full) for size, full in zip(mask.shape, shape)) or mask.shape[3] != shape[3]:
        raise InvalidInputError(
            f"mask has shape {tuple(mask.shape)}: it must broadcast to {shape}, its last size is keys"
        )
    for dim, stride in enumerate(mask.stride()[:3]):
        if stride == 0 and mask.shape[dim] > 1:
            mask = mask.narrow(dim, 0, 1)
    return mask


def read_flags(name: str, flags: Tensor | None, batch: int, size: int, device: torch.device) -> Tensor:
    """Return (batch, size) bool, all True where None was given.

    Raises:
        InvalidInputError: not bool, or a shape other than (batch, size) or (size,).
    """
    if flags is None:
        return torch.ones(batch, size, dtype=torch.bool, device=device)
    if flags.dtype != torch.bool:
        raise InvalidInputError(f"{name} has dtype {flags.dtype}: it must be bool, True where the token is real")
    if tuple(flags.shape) not in ((batch, size), (1, size), (size,)):
        raise InvalidInputError(f"{name} has shape {tuple(flags.shape)}: it must be {(batch, size)} or {(size,)}")
    return flags.to(device).expand(batch, size)


def finite_where(name: str, tensor: Tensor, real: Tensor) -> Tensor:
    """Return the tensor with what is masked zeroed, if it holds NaN or infinity there; unchanged if all is finite.

    Args:
        name: for the message.
        tensor: (batch, heads, n, dim).
        real: (batch, n) bool.

    Raises:
        InvalidInputError: NaN or infinite at real places.
    """
    if _finite(tensor):
        return tensor
    tensor = tensor.where(real[:, None, :, None], torch.zeros((), dtype=tensor.dtype, device=tensor.device))
    if not _finite(tensor):
        raise InvalidInputError(
            f"{name} has NaN or infinite entries at real tokens: the forward pass overflows (try float32 in place of "
            "half precision), or these tokens are to be masked by key_mask or query_mask"
        )
    return tensor


def _finite(tensor: Tensor) -> bool:
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    low, high = torch.aminmax(tensor.detach().permute(order))  # in memory order, which saves a copy
    return bool(torch.isfinite(low) & torch.isfinite(high))


def see_keys(
    mask: Tensor | None, is_causal: bool, window: int | None, real_keys: Tensor, real_queries: Tensor, heads: int
) -> tuple[Tensor, Tensor, bool, bool]:
    """Return keys that are seen, queries that see, whether rows or heads differ, whether the mask adds to logits.

    Tiles of queries, so that nothing of size queries x keys is formed.

    Raises:
        InvalidInputError: an additive mask with NaN or +inf.
    """
    batch, queries = real_queries.shape
    keys, device = real_keys.shape[1], real_keys.device
    lead = 1 if mask is None else mask.shape[1]
    union = torch.zeros(batch, lead, keys, dtype=torch.bool, device=device)
    shared = torch.ones_like(union)
    alive = torch.zeros_like(real_queries)
    adds = torch.zeros((), dtype=torch.bool, device=device)
    same_rows = not is_causal and window is None and (mask is None or mask.shape[2] == 1)
    step = queries if same_rows else max(1, MASK_TILE // (batch * lead * keys))
    for start in range(0, queries, step):
        part = slice(start, min(start + step, queries))
        rows = slice(0, 1) if same_rows else part
        allowed = real_keys[:, None, None, :]
        order = None if same_rows else order_mask(rows, slice(0, keys), is_causal, window, device)
        if order is not None:
            allowed = allowed & order
        if mask is not None:
            tile = mask_tile(mask, slice(0, batch), slice(0, heads), rows, slice(0, keys))
            open_ = tile if tile.dtype == torch.bool else tile > MASKED_BELOW
            allowed = allowed & open_
            if tile.dtype != torch.bool:
                if not bool(tile.amax() < torch.inf):
                    raise InvalidInputError("mask has NaN or +inf: additive masks hold finite biases and -inf")
                adds = adds | ((tile != 0) & open_).any()
        allowed = allowed.expand(batch, lead, -1, keys)
        real = real_queries[:, part]
        alive[:, part] = real & allowed.any(3).any(1)
        lives = (real[:, None] & allowed.any(3))[..., None]
        lives = lives.any(2, keepdim=True) if same_rows else lives
        union |= (allowed & lives).any(2)
        shared &= (allowed | ~lives).all(2)
    by_row = bool((union & ~shared).any()) or bool((union != union[:, :1]).any())
    return union.any(1), alive, by_row, bool(adds)


def read_order(is_causal: bool, window: int | None) -> None:
    """Raise InvalidInputError unless the window is a positive number of keys."""
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise InvalidInputError(f"window is {window!r}: a positive number of keys is needed, |i - j| < window")
    if not isinstance(is_causal, bool):
        raise InvalidInputError(f"is_causal is {is_causal!r}: it must be True or False")


def read_sinks(sinks: Tensor | None, query: Tensor | None, batch: int, heads: int) -> Tensor | None:
    """Return the sinks as (batch, heads), float32 or float64.

    Raises:
        InvalidInputError: a dtype or shape that does not fit, NaN or infinity, or sinks without query and key.
    """
    if sinks is None:
        return None
    if query is None:
        raise InvalidInputError("sinks come with query and key: rows and output that are given hold them already")
    if sinks.dtype not in FLOATS or tuple(sinks.shape) not in ((heads,), (batch, heads)):
        raise InvalidInputError(
            f"sinks is {sinks.dtype} {tuple(sinks.shape)}: floating point {(heads,)} or {(batch, heads)} is needed"
        )
    if not bool(torch.isfinite(sinks).all()):
        raise InvalidInputError("sinks has NaN or infinite entries: leave sinks out (None) where the model has none")
    wide = sinks.detach().to(query.device)
    return (wide if wide.dtype == torch.float64 else wide.float()).expand(batch, heads)


def read_scale(scale: float | None, query: Tensor | None) -> float:
    """Return the factor of the product of query and key, by default 1 / sqrt(qk_dim)."""
    if scale is None:
        return 1.0 if query is None else float(query.shape[3]) ** -0.5
    if not abs(float(scale)) < float("inf"):
        raise InvalidInputError(f"scale is {scale!r}: a finite number is needed")
    return float(scale)


def check_output(given: Tensor, expected: Tensor, values: Tensor, call: KernelInputs) -> None:
    """Raise InvalidInputError where the sums of outputs over queries are not those of rows times values.

    Args:
        given: (kv heads, groups, head_dim) outputs summed over real queries.
        expected: the same of rows times values.
        values: (kv heads, keys, head_dim).
        call: for the number of queries and the precision of the output.
    """
    assert call.output is not None
    wrong = mean_output_error(given, expected, values, call.queries.sum(1).amax(), call.output.dtype)
    if wrong is not None:
        raise InvalidInputError(
            f"output is not rows times values: its mean is off by {wrong:.3g}. Masked keys or "
            "dropout in the model, or a wrong scale or mask? Pass the output of this attention, or None."
        )


def mean_output_error(
    given: Tensor, expected: Tensor, values: Tensor, queries: Tensor | int, dtype: torch.dtype
) -> float | None:
    """Return by how much the mean over queries is off, None where that is rounding.

    Args:
        given: (heads, groups, head_dim) outputs summed over queries.
        expected: the same of rows times values.
        values: (heads, keys, head_dim).
        queries: how many there are.
        dtype: the outputs came in.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    limit = (5e-2 if half else 1e-3) * queries * values.abs().amax(dim=(1, 2))
    worst = (given - expected).abs().amax(dim=(1, 2))
    return None if bool((worst <= limit + 1e-30).all()) else float((worst / queries).max())
