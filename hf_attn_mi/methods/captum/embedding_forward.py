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
from hf_attn_mi.models.encoded_input import PER_TOKEN
from hf_attn_mi.models.gradients import gradients
from hf_attn_mi.models.replays import Replays
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target


class EmbeddingForward:
    """The explained value of each input of a batch as a function of the embeddings of its tokens.

    Args:
        runner: runs the model, inside a `session`.
        batch: the inputs.
        target: the target, already settled; see `ScoringBatch.settle`.
        probability: explain the probability of the class where it has one, instead of the target's value.
        internal_batch: maximum number of rows in one pass; None for as many as fit into the budget of tokens. Fewer
            where the inputs are long, and halved where memory runs out; see `Replays`.

    Attributes:
        embeddings: (batch, tokens, hidden) of the inputs, float32 or wider, detached.
        space: the name of the space of these embeddings.
        grids: for each input (rows, columns) of its patches; None for other inputs.
        inputs: the inputs.
        lengths: for each input its tokens without the padding of the batch.
        replays: runs the passes without gradients.

    Raises:
        InvalidInputError: the arguments hold no tokens.
        UnsupportedModelError: the model names no table of token embeddings.
    """

    def __init__(
        self,
        runner: EncoderRunner,
        batch: ScoringBatch,
        target: Target,
        *,
        probability: bool,
        internal_batch: int | None,
    ) -> None:
        self.runner, self.arguments, self.target = runner, batch.arguments, target
        self.inputs = batch.inputs
        rows = internal_batch if runner.takes_batches(batch.inputs[0]) else 1
        self.replays: Replays[float] = Replays(runner.device, rows)
        self.probability = probability
        self.site: InputSite
        if batch.is_text:
            self.site = TokenEmbeddings(runner, batch, compiled=probability)
        else:
            self.site = FirstLayerStates(runner, batch)
        self.embeddings, self.space = self.site.embeddings, self.site.space
        self.grids = [one.grid for one in batch.inputs]
        by_query = any(key == "attention_mask" and value.dim() > 2 for key, value in self.arguments.items())
        whole = by_query or not batch.is_text
        self.lengths = [self.embeddings.shape[1] if whole else one.token_count for one in batch.inputs]

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

    def values(self, embeddings: Tensor, rows: list[int]) -> Tensor:
        """(n,) float64 explained values, without gradients.

        Args:
            embeddings: (n, tokens, hidden).
            rows: the input that each row is a variant of.
        """

        def run(piece: slice) -> Tensor:
            with torch.no_grad():
                return self.forward(embeddings[piece], rows[piece])

        return torch.cat(self._in_pieces(run, len(rows)))

    @property
    def notes(self) -> list[str]:
        """What the reader of the scores should know."""
        return [*self.site.notes, *self.replays.notes]

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
        """(n,) float64 explained values of one pass over (n, tokens, hidden) embeddings.

        Embeddings of fewer tokens than the batch has are those of the first ones; the others are padding.
        """
        outputs = self.site.run(self._arguments(rows, embeddings.shape[1]), embeddings)
        reading = self.target.select(rows).read(outputs)
        values = reading.values.double()
        if not self.probability:
            return values
        probabilities = [one.probability for one in reading.explained]
        numbers = [float("nan") if one is None else one for one in probabilities]
        known = torch.tensor([one is not None for one in probabilities], device=values.device)
        return torch.where(known, torch.tensor(numbers, dtype=torch.float64, device=values.device), values)

    def _arguments(self, rows: list[int], length: int) -> dict[str, Any]:
        """The arguments of a pass over variants of these inputs, cut to this many tokens."""
        batch, index = self.embeddings.shape[0], torch.tensor(rows, device=self.embeddings.device)
        arguments = dict[str, Any]()
        for key, value in self.arguments.items():
            if isinstance(value, Tensor) and value.dim() and value.shape[0] == batch:
                per_token = key in PER_TOKEN and value.dim() > 1 and value.shape[1] == self.embeddings.shape[1]
                arguments[key] = (value[:, :length] if per_token else value)[index]
            else:
                arguments[key] = value
        return arguments

    def _in_pieces(self, run: Callable[[slice], Any], count: int) -> list[Any]:
        """The results of `run` on slices of rows, in order."""
        size, results = self.replays.rows_of(self.embeddings.shape[1]), dict[int, Any]()

        def one(places: list[int]) -> None:
            results[places[0]] = run(slice(places[0], places[-1] + 1))

        self.replays.run_batches([list(range(i, min(i + size, count))) for i in range(0, count, size)], one)
        return [results[start] for start in sorted(results)]


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
