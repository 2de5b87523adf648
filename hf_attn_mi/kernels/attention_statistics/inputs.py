"""The checked arguments of `attention_statistics`, which all of its backends take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.kernels.inputs import FLOATS, check_floats, is_finite

MASKED_BELOW = -5e3  # additive masks in use are -1e4, -65504, finfo.min or -inf; real logits stay far above
HEAD_DIM_LIMIT = 256
MASK_TILE = 1 << 20  # entries of a mask read at a time


@dataclass(frozen=True, eq=False)
class KernelInputs:
    """The checked arguments of one attention call. All entries are finite: those of masked places are zero if they
    were not finite.

    Attributes:
        query: (batch, heads, queries, qk_dim), None if the rows are passed.
        key: (batch, kv_heads, keys, qk_dim), likewise.
        value: (batch, kv_heads, keys, head_dim).
        output: (batch, heads, queries, head_dim) or None.
        rows: (batch, heads, queries, keys) or None.
        mask: bool or additive, four dimensions, each 1 or full; None if key and query flags say everything.
        scale: factor of the logits.
        is_causal: whether keys after the query are hidden.
        window: keys at this distance and beyond are hidden.
        keys: (batch, keys) bool, real keys that some real query may see.
        queries: (batch, queries) bool, real queries that see a key.
        per_query_mask: whether real queries of one example and head, or heads of one example, see different keys.
        heads: number of query heads.
    """

    query: Tensor | None
    key: Tensor | None
    value: Tensor
    output: Tensor | None
    rows: Tensor | None
    mask: Tensor | None
    scale: float
    is_causal: bool
    window: int | None
    keys: Tensor
    queries: Tensor
    per_query_mask: bool
    heads: int

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
        tensors = [x for x in (self.query, self.key, self.value, self.output, self.rows) if x is not None]
        return torch.float64 if all(x.dtype == torch.float64 for x in tensors) else torch.float32

    def allowed(self, example: slice, heads: slice, queries: slice, keys: slice) -> Tensor:
        """Which keys each query may see, bool (examples, heads or 1, queries, keys); padding queries see none."""
        allowed = self.keys[example, None, None, keys] & self.queries[example, None, queries, None]
        order = order_mask(queries, keys, self.is_causal, self.window, allowed.device)
        if order is not None:
            allowed = allowed & order
        if self.mask is not None:
            allowed = allowed & opened(mask_tile(self.mask, example, heads, queries, keys))
        return allowed

    def bias(self, example: slice, heads: slice, queries: slice, keys: slice) -> Tensor | None:
        """The additive mask of a tile, None if there is none."""
        if self.mask is None or self.mask.dtype == torch.bool:
            return None
        return mask_tile(self.mask, example, heads, queries, keys)


def read_kernel_inputs(
    tensors: tuple[Tensor | None, Tensor | None, Tensor, Tensor | None, Tensor | None],
    mask: Tensor | None,
    flags: tuple[Tensor | None, Tensor | None],
    *,
    scale: float | None,
    is_causal: bool,
    window: int | None,
) -> KernelInputs:
    """Return the checked arguments of a call.

    Args:
        tensors: query, key, value, output, rows.
        mask: bool or additive, broadcastable to (batch, heads, queries, keys).
        flags: key mask and query mask.
        scale: factor of the logits.
        is_causal: whether keys after the query are hidden.
        window: keys at this distance and beyond are hidden.

    Raises:
        InvalidInputError: anything that does not fit.
    """
    query, key, value, output, rows = tensors
    _check_order(is_causal, window)
    shape = batch, heads, queries, keys = _check_shapes(*tensors)
    mask = _read_mask(mask, shape, value.device)
    real_keys = _read_flags("key_mask", flags[0], batch, keys, value.device)
    real_queries = _read_flags("query_mask", flags[1], batch, queries, value.device)
    visible, alive, per_query_mask, adds = _visible_keys(mask, is_causal, window, real_keys, real_queries, heads)
    return KernelInputs(
        query=None if query is None else _finite_where("query", query, alive),
        key=None if key is None else _finite_where("key", key, visible),
        value=_finite_where("value", value, visible),
        output=None if output is None else _finite_where("output", output, alive),
        rows=rows,
        mask=mask if per_query_mask or adds else None,
        scale=_read_scale(scale, query),
        is_causal=is_causal and per_query_mask,
        window=window if per_query_mask else None,
        keys=visible,
        queries=alive,
        per_query_mask=per_query_mask,
        heads=heads,
    )


def mask_tile(mask: Tensor, *places: slice) -> Tensor:
    """Return a part of a mask; dimensions of size 1 are kept whole.

    Example:
        >>> mask_tile(torch.ones(1, 1, 3, 4), slice(2, 3), slice(0, 1), slice(0, 2), slice(0, 4)).shape
        torch.Size([1, 1, 2, 4])
    """
    return mask[tuple(place if size > 1 else slice(None) for place, size in zip(places, mask.shape))]


def order_mask(queries: slice, keys: slice, is_causal: bool, window: int | None, device: torch.device) -> Tensor | None:
    """Return (queries, keys) bool of causality and window, None if neither is asked for.

    Causal: j <= i. Window w: |i - j| < w.

    Example:
        >>> order_mask(slice(0, 3), slice(0, 3), True, 2, torch.device("cpu")).int().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    if not is_causal and window is None:
        return None
    i = torch.arange(queries.start, queries.stop, device=device)[:, None]
    j = torch.arange(keys.start, keys.stop, device=device)
    allowed = i >= j if is_causal else torch.ones(1, 1, dtype=torch.bool, device=device)
    return allowed if window is None else allowed & ((i - j).abs() < window)


def opened(mask: Tensor) -> Tensor:
    """Return which entries of a bool or additive mask let a query see a key.

    Example:
        >>> opened(torch.tensor([0.5, -1e4, -torch.inf])).tolist()
        [True, False, False]
    """
    return mask if mask.dtype == torch.bool else mask > MASKED_BELOW


def _check_shapes(
    query: Tensor | None, key: Tensor | None, value: Tensor, output: Tensor | None, rows: Tensor | None
) -> tuple[int, int, int, int]:
    """Return (batch, heads, queries, keys) on which the tensors agree.

    Raises:
        InvalidInputError: they do not agree, or a dtype or size is not allowed.
    """
    tensors = {"query": query, "key": key, "value": value, "output": output, "rows": rows}
    for name, tensor in tensors.items():
        if tensor is not None:
            check_floats(name, tensor, 4)
    if (query is None) != (key is None):
        raise InvalidInputError("query and key come together: pass both or neither")
    if query is not None and rows is not None:
        raise InvalidInputError("pass either query and key or rows, not both: rows are the attention itself")
    leader = query if query is not None else rows
    if leader is None:
        raise InvalidInputError("attention_statistics needs query and key, or rows")
    batch, heads, queries = leader.shape[:3]
    kv_heads, keys, dim = value.shape[1:]
    expected = {
        "query": (batch, heads, queries, query.shape[3] if query is not None else 0),
        "key": (batch, kv_heads, keys, query.shape[3] if query is not None else 0),
        "value": (batch, kv_heads, keys, dim),
        "output": (batch, heads, queries, dim),
        "rows": (batch, heads, queries, keys),
    }
    for name, tensor in tensors.items():
        if tensor is not None and tuple(tensor.shape) != expected[name]:
            raise InvalidInputError(
                f"{name} has shape {tuple(tensor.shape)}, expected {expected[name]} from the others"
            )
    if heads % kv_heads:
        raise InvalidInputError(f"heads = {heads} is not a multiple of the {kv_heads} heads of value")
    widest = max(dim, query.shape[3] if query is not None else 0)
    if widest > HEAD_DIM_LIMIT:
        raise InvalidInputError(f"head_dim = {widest}: at most {HEAD_DIM_LIMIT} is allowed")
    devices = {str(tensor.device) for tensor in tensors.values() if tensor is not None}
    if len(devices) > 1:
        raise InvalidInputError(f"tensors are on several devices: {sorted(devices)}")
    return batch, heads, queries, keys


def _read_mask(mask: Tensor | None, shape: tuple[int, int, int, int], device: torch.device) -> Tensor | None:
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


def _read_flags(name: str, flags: Tensor | None, batch: int, size: int, device: torch.device) -> Tensor:
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


def _finite_where(name: str, tensor: Tensor, real: Tensor) -> Tensor:
    """Return the tensor with what is masked zeroed, if it holds NaN or infinity there; unchanged if all is finite.

    Args:
        name: the name of the argument, for the message.
        tensor: (batch, heads, n, dim).
        real: (batch, n) bool.

    Raises:
        InvalidInputError: NaN or infinite at real places.
    """
    if is_finite(tensor):
        return tensor
    tensor = tensor.where(real[:, None, :, None], torch.zeros((), dtype=tensor.dtype, device=tensor.device))
    if not is_finite(tensor):
        raise InvalidInputError(
            f"{name} has NaN or infinite entries at real tokens: the forward pass overflows (try float32 in place of "
            "half precision), or these tokens are to be masked by key_mask or query_mask"
        )
    return tensor


def _visible_keys(
    mask: Tensor | None, is_causal: bool, window: int | None, real_keys: Tensor, real_queries: Tensor, heads: int
) -> tuple[Tensor, Tensor, bool, bool]:
    """Return visible keys, queries that see a key, whether rows or heads differ, whether the mask adds to logits.

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
            allowed = allowed & opened(tile)
            if tile.dtype != torch.bool:
                if not bool(tile.amax() < torch.inf):
                    raise InvalidInputError("mask has NaN or +inf: additive masks hold finite biases and -inf")
                adds = adds | ((tile != 0) & opened(tile)).any()
        allowed = allowed.expand(batch, lead, -1, keys)
        real = real_queries[:, part]
        alive[:, part] = real & allowed.any(3).any(1)
        lives = (real[:, None] & allowed.any(3))[..., None]
        lives = lives.any(2, keepdim=True) if same_rows else lives
        union |= (allowed & lives).any(2)
        shared &= (allowed | ~lives).all(2)
    per_query_mask = bool((union & ~shared).any()) or bool((union != union[:, :1]).any())
    return union.any(1), alive, per_query_mask, bool(adds)


def _check_order(is_causal: bool, window: int | None) -> None:
    """Raise InvalidInputError unless the window is a positive number of keys."""
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise InvalidInputError(f"window is {shown(window)}: a positive number of keys is needed, |i - j| < window")
    if not isinstance(is_causal, bool):
        raise InvalidInputError(f"is_causal is {shown(is_causal)}: it must be True or False")


def _read_scale(scale: float | None, query: Tensor | None) -> float:
    """Return the factor of the product of query and key, by default 1 / sqrt(qk_dim)."""
    if scale is None:
        return 1.0 if query is None else float(query.shape[3]) ** -0.5
    if not abs(float(scale)) < float("inf"):
        raise InvalidInputError(f"scale is {shown(scale)}: a finite number is needed")
    return float(scale)
