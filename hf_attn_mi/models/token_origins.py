"""Where the token ids that a model looks up come from: which entry of which argument each of them is.

Two texts of a siamese model may be equal, a model may shift, cut, pad, transpose or join its ids: so look-ups are
assigned to tokens by following the ids through the operations of the model, never by comparing them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hf_attn_mi.capture.torch_ops import CONCAT, SAME, SHAPE, both

MAIN = ("input_ids", "inputs")  # arguments with the token ids of the input
MOVES = SHAPE | both("split chunk tensor_split unbind repeat tile repeat_interleave roll flip index_select gather")
MOVES |= both("take_along_dim expand_as unfold t ravel swapaxes select")
JOINS = CONCAT | {torch.stack, torch.hstack, torch.vstack}
KEEPS = SAME | both("add __add__ sub __sub__ mul __mul__ remainder __mod__ clamp clamp_min clamp_max long int clip")
FILLS = both("masked_fill masked_fill_")
COPIES = {Tensor.copy_}


class TokenOrigins:
    """The origin of each entry of the whole-number tensors that a model computes from its arguments.

    Args:
        arguments: those of the forward pass; tensors of whole numbers are followed.

    Attributes:
        main: name of the argument with the token ids of the input; None if there is none.
        token_ids: (batch, tokens) that argument.
        known: the number of a tensor -> the tensor, kept alive, and the origins of its entries.

    Example:
        >>> ids = torch.tensor([[5, 6, 5]])
        >>> origins = TokenOrigins({"input_ids": ids})
        >>> with Following(origins):
        ...     moved = ids[:, 1:].clone()
        >>> origins.of_main(moved)  # entries 1 and 2 of the input
        tensor([[1, 2]])
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.main = next((key for key in MAIN if _is_ids(arguments.get(key))), None)
        self.token_ids: Tensor | None = None if self.main is None else arguments[self.main]
        self.known: dict[int, tuple[Tensor, Tensor]] = {}
        self._starts: dict[str, int] = {}
        start = 0
        for key in sorted(arguments, key=lambda key: key != self.main):  # the token ids first: they start at 0
            value = arguments[key]
            if _whole(value) and value.dim():
                self._starts[key] = start
                self._set(value, torch.arange(start, start + value.numel(), device=value.device).view(value.shape))
                start += value.numel()

    def of(self, tensor: object) -> Tensor | None:
        """Numbers of the entries, of the shape of the tensor, -1 for what is computed; None if nothing is known."""
        known = self.known.get(id(tensor))
        return None if known is None else known[1]

    def of_main(self, tensor: object) -> Tensor | None:
        """Places in the flattened token ids of the input, -1 for everything else; None if nothing is known."""
        origin = self.of(tensor)
        return None if origin is None else self._of_main(origin)

    def _of_main(self, origin: Tensor) -> Tensor:
        count = 0 if self.token_ids is None else self.token_ids.numel()
        return torch.where(origin < count, origin, -1)

    def others(self, tensor: object) -> dict[str, Tensor]:
        """Other arguments that entries come from: name -> place of each in the flattened argument, -1 elsewhere."""
        origin = self.of(tensor)
        if origin is None:
            return {}
        origins = {}
        for key, start in self._starts.items():
            stop = min((other for other in self._starts.values() if other > start), default=None)
            inside = (origin >= start) & ((origin < stop) if stop is not None else True)
            if key != self.main and bool(inside.any()):
                origins[key] = torch.where(inside, origin - start, -1)
        return origins

    def reads_input(self, ids: object) -> bool:
        """Whether these ids hold tokens of the input, unchanged."""
        places = self.of_main(ids)
        if places is None or self.token_ids is None or not isinstance(ids, Tensor):
            return False
        taken = places >= 0
        return bool(taken.any()) and torch.equal(ids[taken], self.token_ids.reshape(-1)[places[taken]])

    def observe(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note the origins of the result of one torch function."""
        if not self._concerned(args):
            return
        with torch._C.DisableTorchFunction(), torch.no_grad():
            try:
                self._follow(func, args, kwargs, result)
            except (
                RuntimeError,
                TypeError,
                ValueError,
                IndexError,
            ):  # a call that cannot be repeated on whole numbers
                return

    def _follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if func is Tensor.__setitem__:
            self._assign(args[0], args[1], args[2])
        elif func in COPIES:
            self._assign(args[0], ..., args[1])
        elif func in JOINS and isinstance(result, Tensor) and _whole(result):
            self._set(result, func([self._or_unknown(part) for part in args[0]], *args[1:], **kwargs))
        elif func in FILLS:
            origin = self.of(args[0])
            if origin is not None and _whole(result):
                self._set(result, origin.masked_fill(args[1], -1))
        elif func is torch.where and len(args) == 3 and _whole(result):
            chosen = torch.where(args[0], self._or_unknown(args[1]), self._or_unknown(args[2]))
            self._set(result, chosen.expand(result.shape))
        else:
            self._move(func, args, kwargs, result)

    def _concerned(self, args: tuple[Any, ...]) -> bool:
        for argument in args:
            if id(argument) in self.known:
                return True
            if isinstance(argument, tuple | list) and any(id(part) in self.known for part in argument):
                return True
        return False

    def _move(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if func in KEEPS and _whole(result):
            origins = [origin for a in args[:2] if (origin := self.of(a)) is not None and origin.shape == result.shape]
            of_input = [origin for origin in origins if bool((self._of_main(origin) >= 0).any())]
            if origins:
                self._set(result, (of_input or origins)[0].to(result.device))
            return
        origin = self.of(args[0])
        if origin is None:
            return
        if func in MOVES:
            moved = func(origin, *args[1:], **kwargs)
            pairs = zip(result, moved) if isinstance(result, tuple | list) else [(result, moved)]
            for tensor, places in pairs:
                if _whole(tensor):
                    self._set(tensor, places)
        elif func is F.pad and _whole(result):
            pad = args[1] if len(args) > 1 else kwargs["pad"]
            self._set(result, F.pad(origin, pad, value=-1))

    def _assign(self, target: Tensor, index: Any, value: Any) -> None:
        if not _whole(target):
            return
        origin = self._or_unknown(target).clone()
        places = self.of(value)
        origin[index] = -1 if places is None else places
        self._set(target, origin)

    def _or_unknown(self, value: Any) -> Tensor:
        origin = self.of(value)
        if origin is not None:
            return origin
        return torch.full(value.shape, -1, device=value.device) if isinstance(value, Tensor) else torch.tensor(-1)

    def _set(self, tensor: Tensor, origin: Tensor) -> None:
        self.known[id(tensor)] = tensor, origin


class Following(TorchFunctionMode):
    """Follows ids through what is run inside.

    Args:
        origins: the origins of the arguments; they are updated.

    Attributes:
        weights: tables in which tokens of the input were looked up, in order.
        has_generator: whether a function was given a generator of random numbers.
    """

    def __init__(self, origins: TokenOrigins) -> None:
        super().__init__()
        self.origins, self.weights, self.has_generator = origins, list[Tensor](), False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if "generator" in kwargs:
            self.has_generator |= kwargs["generator"] is not None
        result = func(*args, **kwargs)
        if func is F.embedding:
            if self.origins.reads_input(args[0] if args else kwargs["input"]):
                self.weights.append(args[1] if len(args) > 1 else kwargs["weight"])
        else:
            self.origins.observe(func, args, kwargs, result)
        return result


def _whole(value: object) -> bool:
    return isinstance(value, Tensor) and not value.is_floating_point() and value.dtype not in (torch.bool, torch.uint8)


def _is_ids(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 2 and _whole(value)
