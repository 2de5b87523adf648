"""The explained value as a function of the token embeddings; the rest of the model's arguments stays as it is.

Token ids are passed unchanged and their embeddings are replaced where the model looks them up: whatever the model
reads off the ids (positions, masks, the last token) is that of the original text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hf_attn_mi.capture import eager_stance, unwrap
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods.captum.base import Aim, Options

Run = Callable[[Tensor, list[int]], Any]


class EmbeddedModel:
    """The model from the embeddings of its tokens on.

    Args:
        model: a PreTrainedModel in evaluation mode.
        arguments: keyword arguments of its forward, batch first.
        aim: (outputs, rows) -> (n,) explained values.
        options: of the method; `internal_batch` is the most rows in one pass and is halved when memory runs out.

    Attributes:
        embeddings: (batch, tokens, hidden) of the input, float32 or wider, detached.
        notes: what the reader of the scores should know.

    Raises:
        InvalidInputError: the arguments hold no tokens.
        UnsupportedModelError: the model names no table of token embeddings.
    """

    def __init__(self, model: nn.Module, arguments: dict[str, Any], aim: Aim, options: Options) -> None:
        self.model, self.arguments, self.aim, self.options = unwrap(model), arguments, aim, options
        self.size, self.notes = options.internal_batch, list[str]()
        self.key = next((key for key in ("inputs_embeds", "input_ids", "inputs") if key in arguments), None)
        self.table = _table(self.model)
        if self.key is None:
            raise InvalidInputError(
                "inputs: this method needs tokens (input_ids or inputs_embeds); use method='relevance'."
            )
        given = arguments[self.key]
        if self.key == "inputs_embeds":
            found = given.detach()
        elif self.table is None or given.is_floating_point():
            raise UnsupportedModelError(
                f"{type(self.model).__name__} names no table of token embeddings (get_input_embeddings), where this "
                "method changes its input."
            )
        else:
            if self.table.weight.is_meta:
                raise UnsupportedModelError(
                    f"{type(self.model).__name__}: its token embeddings are offloaded, so none can be taken from the "
                    "table. Load the model onto one device."
                )
            with torch.no_grad():
                found = F.embedding(given, self.table.weight)
        self.embeddings: Tensor = found.to(torch.promote_types(found.dtype, torch.float32))

    def baseline(self, fixed: Tensor) -> tuple[Tensor, str]:
        """Embeddings without the text, (batch, tokens, hidden), and their name.

        Args:
            fixed: (batch, tokens) bool, tokens that keep their own embedding: special tokens and padding.

        Raises:
            InvalidInputError: the model or its tokenizer has no such token.
        """
        config, choice = getattr(self.model, "config", None), self.options.baseline
        ids = {"pad": getattr(config, "pad_token_id", None), "mask": self.options.mask_id}
        if choice is None:
            choice = "pad" if self._row(ids["pad"]) is not None else "zero"
        row = torch.zeros_like(self.embeddings[0, 0]) if choice == "zero" else self._row(ids[choice])
        if row is None:
            raise InvalidInputError(
                f"options['baseline'] is {choice!r}, but {type(self.model).__name__} or its tokenizer has no such "
                "token; pass 'zero'."
            )
        name = "zero embedding" if choice == "zero" else f"embedding of the {choice} token (id {ids[choice]})"
        return torch.where(fixed[..., None].to(row.device), self.embeddings, row), name

    def _row(self, number: int | None) -> Tensor | None:
        if self.table is None or number is None or not 0 <= number < self.table.num_embeddings:
            return None
        return self.table.weight[number].detach().to(self.embeddings)

    def values(self, make: Callable[[slice], Tensor], count: int, example: int) -> Tensor:
        """(count,) float64 explained values, without gradients.

        Args:
            make: the rows of a slice -> (n, tokens, hidden) embeddings; called pass after pass.
            count: number of rows.
            example: which input of the batch they are variants of.
        """

        def run(piece: slice) -> Tensor:
            embeddings = make(piece)
            with torch.no_grad():
                return self.forward(embeddings, [example] * embeddings.shape[0])

        return torch.cat(self._in_pieces(run, count))

    def differentiable(self, embeddings: Tensor, rows: list[int]) -> Tensor:
        """(n,) float64 explained values, whose gradient is computed piece by piece in the same pass.

        Args:
            embeddings: (n, tokens, hidden), each row on its own.
            rows: the example that each row is a variant of.
        """
        found: Tensor = _Pieces.apply(embeddings, self, rows)  # type: ignore[no-untyped-call]
        return found

    def with_gradients(self, embeddings: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Values (n,) and their gradients (n, tokens, hidden)."""

        def run(piece: slice) -> tuple[Tensor, Tensor]:
            leaf = embeddings[piece].detach().clone().requires_grad_(True)
            with torch.enable_grad():
                value = self.forward(leaf, rows[piece])
                if not value.requires_grad:
                    raise self.without_gradient()
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
            return value.detach(), gradient

        pairs = self._in_pieces(run, len(rows))
        return torch.cat([value for value, _ in pairs]), torch.cat([gradient for _, gradient in pairs])

    def without_gradient(self) -> UnsupportedModelError:
        """The error for a value that no gradient reaches."""
        return UnsupportedModelError(
            f"{type(self.model).__name__}: no gradient flows from the explained value to the token embeddings "
            "(quantized weights, or a target computed outside the graph). Use a method without gradients."
        )

    def forward(self, embeddings: Tensor, rows: list[int]) -> Tensor:
        """(n,) float64 explained values of one pass over (n, tokens, hidden) embeddings."""
        assert self.key is not None
        given = self.arguments[self.key]
        batch, index = given.shape[0], torch.tensor(rows, device=given.device)
        arguments = {
            key: value[index] if isinstance(value, Tensor) and value.dim() and value.shape[0] == batch else value
            for key, value in self.arguments.items()
        }
        with eager_stance(self.model):
            if self.key == "inputs_embeds":
                outputs = self.model(**{**arguments, self.key: embeddings.to(given.dtype)})
            else:
                assert self.table is not None
                with _Replaced(self.table.weight, arguments[self.key], embeddings) as replaced:
                    outputs = self.model(**arguments)
                if not replaced.done:
                    raise UnsupportedModelError(
                        f"{type(self.model).__name__} does not look the token ids up in its table of embeddings as "
                        "they are (permuted or cut input), so that no token can be replaced."
                    )
        return self.aim(outputs, rows).double()

    def _in_pieces(self, run: Callable[[slice], Any], count: int) -> list[Any]:
        found: list[Any] = []
        start = 0
        while start < count:
            end = min(start + self.size, count)
            try:
                found.append(run(slice(start, end)))
                start = end
                continue
            except RuntimeError as error:
                if not out_of_memory(error) or end - start == 1:
                    raise
            # Outside `except`, where the error no longer holds the tensors of the failed pass.
            self.size = (end - start) // 2
            self.notes = [f"Memory ran out: the internal batch was halved to {self.size}."]
            if self.embeddings.is_cuda:
                torch.cuda.empty_cache()
        return found


class _Pieces(torch.autograd.Function):
    """Values in the forward pass, with gradients kept for the backward pass; rows do not see one another."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, network: EmbeddedModel, rows: list[int]) -> Tensor:
        values, gradients = network.with_gradients(embeddings, rows)
        ctx.save_for_backward(gradients)
        return values

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return upstream[0][:, None, None].to(gradients.dtype) * gradients, None, None


class _Replaced(TorchFunctionMode):
    """Other embeddings wherever the model looks up these token ids.

    Args:
        weight: of the table.
        ids: (n, tokens).
        embeddings: (n, tokens, hidden) to use instead.
    """

    def __init__(self, weight: Tensor, ids: Tensor, embeddings: Tensor) -> None:
        super().__init__()
        self.weight, self.ids, self.embeddings, self.done = weight, ids, embeddings, False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is not F.embedding:
            return result
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        if weight.data_ptr() != self.weight.data_ptr() or weight.shape != self.weight.shape:
            return result
        return self._placed(args[0] if args else kwargs["input"], result)

    def _placed(self, ids: Tensor, own: Tensor) -> Tensor:
        mine, new = self.ids, self.embeddings.to(own.dtype)
        count = mine.shape[1]
        if ids.shape == mine.shape and torch.equal(ids, mine):
            placed = new.clone()  # the model may scale its embeddings in place
        elif ids.dim() == 2 and ids.shape == mine.t().shape and torch.equal(ids, mine.t()):  # (tokens, n)
            placed = new.transpose(0, 1).clone()
        elif ids.shape == mine.shape and torch.equal(ids[:, 1:], mine[:, :-1]):  # decoder input, shifted right
            placed = torch.cat([own[:, :1], new[:, :-1]], 1)
        elif ids.dim() == 2 and ids.shape[1] > count and torch.equal(ids[:, :count], mine):  # the model padded it
            placed = torch.cat([new, own[:, count:]], 1)
        else:
            return own
        self.done = True
        return placed


def _table(model: nn.Module) -> nn.Embedding | None:
    try:
        module = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return module if isinstance(module, nn.Embedding) else None


def out_of_memory(error: Exception) -> bool:
    """Whether an accelerator or the machine had no memory left.

    Example:
        >>> out_of_memory(torch.OutOfMemoryError()), out_of_memory(RuntimeError("shapes differ"))
        (True, False)
    """
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)  # the latter: a CPU
