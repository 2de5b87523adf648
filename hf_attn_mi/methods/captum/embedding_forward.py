"""The explained value as a function of the embeddings of tokens, or of the states of patches and frames.

The rest of the model's arguments stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.methods.batch import ScoringBatch
from hf_attn_mi.methods.captum.sites import FirstLayerStates, InputSite, TokenEmbeddings
from hf_attn_mi.models.gradients import gradients
from hf_attn_mi.models.memory import out_of_memory
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target


class EmbeddingForward:
    """The explained value of each input of a batch as a function of the embeddings of its tokens.

    Args:
        runner: runs the model, inside a `session`.
        batch: the inputs.
        target: the target, already settled; see `ScoringBatch.settle`.
        probability: explain the probability of the class where it has one, instead of the target's value.
        internal_batch: maximum number of rows in one pass; halved when memory runs out.

    Attributes:
        embeddings: (batch, tokens, hidden) of the inputs, float32 or wider, detached.
        space: the name of the space of these embeddings.
        grids: for each input (rows, columns) of its patches; None for other inputs.
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
        self.site: InputSite = TokenEmbeddings(runner, batch) if batch.is_text else FirstLayerStates(runner, batch)
        self.embeddings, self.space = self.site.embeddings, self.site.space
        self.grids = [one.grid for one in batch.inputs]

    def baseline(self, fixed: Tensor, choice: str | None) -> tuple[Tensor, str]:
        """Embeddings without the input, (batch, tokens, hidden), and their name.

        Args:
            fixed: (batch, tokens) bool, tokens that keep their own embedding: special tokens and padding.
            choice: "pad", "mask", "blank" or "zero"; None for "pad" where the model has such a token, else "zero"; for
                images and audio "blank".

        Raises:
            InvalidInputError: the model or its tokenizer has no such token.
        """
        removed, name = self.site.baseline(choice)
        return torch.where(fixed[..., None].to(removed.device), self.embeddings, removed), name

    def values(self, make: Callable[[slice], Tensor], count: int, example: int) -> Tensor:
        """(count,) float64 explained values, without gradients.

        Args:
            make: maps the rows of a slice to (n, tokens, hidden) embeddings; called once for each pass.
            count: number of rows.
            example: the index of the input that the rows are variants of.
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
                (gradient,) = gradients(value, [leaf])
                if gradient is None:
                    raise self.without_gradient()
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
        batch, index = self.embeddings.shape[0], torch.tensor(rows, device=self.embeddings.device)
        arguments = {
            key: value[index] if isinstance(value, Tensor) and value.dim() and value.shape[0] == batch else value
            for key, value in self.arguments.items()
        }
        outputs = self.site.run(arguments, embeddings)
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
        values, slopes = network.with_gradients(embeddings, rows)
        ctx.save_for_backward(slopes)
        return values

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return upstream[0][:, None, None].to(slopes.dtype) * slopes, None, None
