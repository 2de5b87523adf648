"""The explained value as a function of the token embeddings; the rest of the model's arguments stays as it is.

Token ids are passed unchanged and their embeddings are replaced where the model looks them up: whatever the model
reads off the ids (positions, masks, the last token) is that of the original text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods.batch import ScoringBatch
from hf_attn_mi.models.memory import out_of_memory
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target


class EmbeddingForward:
    """The explained value of each input of a batch as a function of the embeddings of its tokens.

    Args:
        runner: of the model, in a `session`.
        batch: the inputs.
        target: settled; see `ScoringBatch.settle`.
        probability: explain the probability of the class where it has one, in place of the target's value.
        internal_batch: most rows in one pass; halved when memory runs out.

    Attributes:
        embeddings: (batch, tokens, hidden) of the inputs, float32 or wider, detached.
        notes: what the reader of the scores should know.

    Raises:
        InvalidInputError: the arguments hold no tokens.
        UnsupportedModelError: the model names no table of token embeddings.
    """

    def __init__(
        self, runner: EncoderRunner, batch: ScoringBatch, target: Target, *, probability: bool, internal_batch: int
    ) -> None:
        self.runner, self.arguments, self.target = runner, batch.arguments, target
        self.size = internal_batch if runner.takes_batches(batch.inputs[0]) else 1
        self.probability, self.notes = probability, list[str]()
        key = next((key for key in ("inputs_embeds", "input_ids", "inputs") if key in batch.arguments), None)
        self.table = runner.input_embedding
        if key is None:
            raise InvalidInputError(
                "inputs: this method needs tokens (input_ids or inputs_embeds); use method='relevance'."
            )
        self.key, tokens = key, batch.arguments[key]
        if key == "inputs_embeds":
            embeddings = tokens.detach()
        elif self.table is None or tokens.is_floating_point():
            raise UnsupportedModelError(
                f"{runner.class_name} names no table of token embeddings (get_input_embeddings), where this method "
                "changes its input."
            )
        else:
            if self.table.weight.is_meta:
                raise UnsupportedModelError(
                    f"{runner.class_name}: its token embeddings are offloaded, so none can be taken from the table. "
                    "Load the model onto one device."
                )
            with torch.no_grad():
                embeddings = F.embedding(tokens, self.table.weight)
        self.embeddings: Tensor = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))

    def baseline(self, fixed: Tensor, choice: str | None) -> tuple[Tensor, str]:
        """Embeddings without the text, (batch, tokens, hidden), and their name.

        Args:
            fixed: (batch, tokens) bool, tokens that keep their own embedding: special tokens and padding.
            choice: "pad", "mask" or "zero"; None for "pad" where the model has such a token, else "zero".

        Raises:
            InvalidInputError: the model or its tokenizer has no such token.
        """
        ids = {"pad": getattr(self.runner.config, "pad_token_id", None), "mask": self.runner.mask_token_id}
        if choice is None:
            choice = "pad" if self._row(ids["pad"]) is not None else "zero"
        row = torch.zeros_like(self.embeddings[0, 0]) if choice == "zero" else self._row(ids[choice])
        if row is None:
            raise InvalidInputError(
                f"options['baseline'] is {choice!r}, but {self.runner.class_name} or its tokenizer has no such "
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
        values: Tensor = _Pieces.apply(embeddings, self, rows)  # type: ignore[no-untyped-call]
        return values

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
            f"{self.runner.class_name}: no gradient flows from the explained value to the token embeddings "
            "(quantized weights, or a target computed outside the graph). Use a method without gradients."
        )

    def forward(self, embeddings: Tensor, rows: list[int]) -> Tensor:
        """(n,) float64 explained values of one pass over (n, tokens, hidden) embeddings."""
        tokens = self.arguments[self.key]
        batch, index = tokens.shape[0], torch.tensor(rows, device=tokens.device)
        arguments = {
            key: value[index] if isinstance(value, Tensor) and value.dim() and value.shape[0] == batch else value
            for key, value in self.arguments.items()
        }
        if self.key == "inputs_embeds":
            outputs = self.runner.forward({**arguments, self.key: embeddings.to(tokens.dtype)})
        else:
            assert self.table is not None
            with _ReplacedEmbeddings(self.table.weight, arguments[self.key], embeddings) as replaced:
                outputs = self.runner.forward(arguments)
            if not replaced.done:
                raise UnsupportedModelError(
                    f"{self.runner.class_name} does not look the token ids up in its table of embeddings as they are "
                    "(permuted or cut input), so that no token can be replaced."
                )
        reading = self.target.select(rows).read(outputs)
        probabilities = [one.probability for one in reading.explained]
        if not self.probability or None in probabilities:
            return reading.values.double()
        return torch.tensor(probabilities, dtype=torch.float64, device=reading.values.device)

    def _in_pieces(self, run: Callable[[slice], Any], count: int) -> list[Any]:
        """The results of `run` on slices of `count` rows, in order; all slices are smaller once memory has run out."""
        results: list[Any] = []
        start = 0
        while start < count:
            end = min(start + self.size, count)
            try:
                results.append(run(slice(start, end)))
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
        return results


class _Pieces(torch.autograd.Function):
    """Values in the forward pass, with gradients kept for the backward pass; rows do not see one another."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, network: EmbeddingForward, rows: list[int]) -> Tensor:
        values, gradients = network.with_gradients(embeddings, rows)
        ctx.save_for_backward(gradients)
        return values

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return upstream[0][:, None, None].to(gradients.dtype) * gradients, None, None


class _ReplacedEmbeddings(TorchFunctionMode):
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

    def _placed(self, ids: Tensor, original: Tensor) -> Tensor:
        expected, new = self.ids, self.embeddings.to(original.dtype)
        count = expected.shape[1]
        if ids.shape == expected.shape and torch.equal(ids, expected):
            placed = new.clone()  # the model may scale its embeddings in place
        elif ids.dim() == 2 and ids.shape == expected.t().shape and torch.equal(ids, expected.t()):  # (tokens, n)
            placed = new.transpose(0, 1).clone()
        elif ids.shape == expected.shape and torch.equal(ids[:, 1:], expected[:, :-1]):  # decoder input, shifted right
            placed = torch.cat([original[:, :1], new[:, :-1]], 1)
        elif ids.dim() == 2 and ids.shape[1] > count and torch.equal(ids[:, :count], expected):  # the model padded it
            placed = torch.cat([new, original[:, count:]], 1)
        else:
            return original
        self.done = True
        return placed
