"""`Presence`: the explained values of inputs of which some tokens are present and the others are not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.methods.captum.embedding_forward import EmbeddingForward
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.removal_predictor import RemovalPredictor, deleted, refuse_unmaskable
from hf_attn_mi.models.replays import MOST_ROWS

Asked = tuple[int, bytes]  # the number of an input, and which of its features are present


class Presence(Protocol):
    """What the explained value is when only some of the features of an input are present.

    The features are the tokens that may be removed.

    Attributes:
        name: what takes the place of a token.
        places: for each input the positions of its features, (features,).
        notes: what the reader of the scores should know.
    """

    name: str
    places: list[Tensor]

    @property
    def notes(self) -> list[str]:
        """See above."""

    def run(self, asked: list[Asked]) -> list[float]:
        """The explained value for each of these sets of features."""


class Answers:
    """The explained values of the sets of features that were asked for; each set is run once.

    Args:
        presence: runs them.

    Attributes:
        places: see `Presence`.
    """

    def __init__(self, presence: Presence) -> None:
        self.presence, self.places = presence, presence.places
        self._known: dict[Asked, float] = {}

    def values(self, example: int, present: Tensor) -> Tensor:
        """(n,) float64 explained values of one input.

        Args:
            example: its number in the batch.
            present: (n, features), not 0 where a feature is present.
        """
        asked = sets_of(example, present)
        self.gather(asked)
        return torch.tensor([self._known[one] for one in asked], dtype=torch.float64)

    def gather(self, asked: Iterable[Asked]) -> None:
        """Run these sets together, of whichever inputs they are."""
        new = [one for one in dict.fromkeys(asked) if one not in self._known]
        if new:
            self._known.update(zip(new, self.presence.run(new), strict=True))


class ReplacedTokens:
    """Features whose embedding is replaced by the baseline; see `Presence`.

    Args:
        network: the explained value as a function of the embeddings.
        special: (batch, tokens) bool, tokens that are never replaced.
        real: (batch, tokens) bool, False at padding.
        baseline: the choice of the baseline; see `EmbeddingForward.baseline`.

    Raises:
        InvalidInputError: the model has no token of the kind that the baseline asks for.
    """

    def __init__(self, network: EmbeddingForward, special: Tensor, real: Tensor, baseline: str | None) -> None:
        self.network = network
        self.removed, self.name = network.baseline(special | ~real, baseline)
        self.places = [(real[i] & ~special[i]).nonzero()[:, 0].cpu() for i in range(len(real))]

    @property
    def notes(self) -> list[str]:
        """See `Presence`."""
        return self.network.notes

    def run(self, asked: list[Asked]) -> list[float]:
        """See `Presence.run`."""
        lengths = [self.network.lengths[example] for example, _ in asked]

        def forward(chosen: list[int]) -> list[float]:
            rows, length = [asked[i][0] for i in chosen], max(lengths[i] for i in chosen)
            keep = torch.ones(len(chosen), length, dtype=torch.bool)
            for row, i in enumerate(chosen):
                keep[row, self.places[asked[i][0]]] = features_of(asked[i], len(self.places[asked[i][0]]))
            index, device = torch.tensor(rows), self.network.embeddings.device
            whole, removed = self.network.embeddings[index, :length], self.removed[index, :length]
            with torch.no_grad():
                values = self.network.forward(torch.where(keep[..., None].to(device), whole, removed), rows)
            return values.tolist()

        return self.network.replays.run(asked, lengths, forward, mixed=len(set(self.network.lengths)) > 1)


class _TokensLeftOut:
    """Features that have no embedding where they are missing; see `Presence`.

    Args:
        network: the inputs, the model and the target.
        special: (batch, tokens) bool, tokens that always stay.
        real: (batch, tokens) bool, False at padding.
        internal_batch: maximum number of rows in one pass; None for as many as the budget of tokens holds.

    Raises:
        InvalidInputError: images or audio, a mask by query, or an input of which no token always stays.
        UnsupportedModelError: the model cannot be run without some of its tokens.
    """

    choice: str  # of the option "baseline"
    name: str

    def __init__(self, network: EmbeddingForward, special: Tensor, real: Tensor, internal_batch: int | None) -> None:
        self.check(network)
        for one in network.inputs:
            mask = one.tensors.get("attention_mask")
            if one.length is None or (mask is not None and mask.dim() > 1):
                raise InvalidInputError(
                    f"options['baseline'] is {self.choice!r}, which is for texts with a mask of tokens; pass 'zero' or "
                    "leave it out."
                )
        anchors = [network.target.anchors(i) for i in range(len(network.inputs))]
        free = [real[i].cpu() & ~special[i].cpu() for i in range(len(real))]
        for i, of_one in enumerate(anchors):
            free[i][list(of_one)] = False
        self.places = [one.nonzero()[:, 0] for one in free]
        self._fixed = [(real[i].cpu() & ~one).nonzero()[:, 0].tolist() for i, one in enumerate(free)]
        if not all(self._fixed):
            raise InvalidInputError(
                f"options['baseline'] is {self.choice!r}, but no token of an input is known to be special, so that "
                "nothing would be left to run. Pass tokenizer=..., or the baseline 'pad' or 'zero'."
            )
        rows = MOST_ROWS if internal_batch is None else internal_batch
        self._predictor = RemovalPredictor(network.runner, network.inputs, network.target, rows)
        if any(map(len, self.places)):
            self.try_batches()

    def check(self, network: EmbeddingForward) -> None:
        """Refuse a model that cannot be run without some of its tokens."""

    def try_batches(self) -> None:
        """Find out which rows may share a pass."""
        raise NotImplementedError

    def variant(self, example: int, present: Tensor) -> EncodedInput:
        """The input of this number with these of its features, (features,) bool."""
        raise NotImplementedError

    @property
    def notes(self) -> list[str]:
        """See `Presence`."""
        return self._predictor.notes

    def run(self, asked: list[Asked]) -> list[float]:
        """See `Presence.run`."""
        variants = []
        for example, packed in asked:
            present = features_of((example, packed), len(self.places[example]))
            variants.append((example, self.variant(example, present)))
        return [one.value for one in self._predictor.predict(variants)]


class RemovedTokens(_TokensLeftOut):
    """Features that are masked as keys in every layer; for arguments and errors see `_TokensLeftOut`.

    Where the model says the same about the other tokens alone, with the positions that they have in the whole text,
    only these are run: `RemovalPredictor.try_token_dropping` tries it on the inputs.
    """

    choice = "removed"
    name = "no token: masked as a key in every layer"

    def check(self, network: EmbeddingForward) -> None:
        """Refuse a model that takes no attention mask."""
        refuse_unmaskable(network.runner, "options['baseline'] is 'removed', which needs one; pass 'pad' or 'zero'.")

    def try_batches(self) -> None:
        """See `RemovalPredictor.try_token_dropping`."""
        self._predictor.try_token_dropping(self._fixed, [one.tolist() for one in self.places])

    def variant(self, example: int, present: Tensor) -> EncodedInput:
        """The input with the other tokens as its only keys."""
        kept = self.places[example][present].tolist()
        return self._predictor.kept(example, {*self._fixed[example], *kept})


class DeletedTokens(_TokensLeftOut):
    """Features that are deleted, so that later tokens move up; for arguments and errors see `_TokensLeftOut`.

    The removal "delete" of `compare` and of the metrics of faithfulness: see `models.removal.remove_tokens`.
    """

    choice = "deleted"
    name = "no token: deleted, later tokens move up"

    def try_batches(self) -> None:
        """See `RemovalPredictor.try_shortened`."""
        self._predictor.try_shortened([one.tolist() for one in self.places])

    def variant(self, example: int, present: Tensor) -> EncodedInput:
        """The shorter input; the input itself where nothing is missing."""
        whole, missing = self._predictor.inputs[example], self.places[example][~present].tolist()
        return deleted(whole, missing) if missing else whole


LEFT_OUT = {kind.choice: kind for kind in (RemovedTokens, DeletedTokens)}  # by the option "baseline"


def sets_of(example: int, present: Tensor) -> list[Asked]:
    """The name of each row of (n, features), as `Answers` and `Presence` take it."""
    packed = np.packbits((present.detach() != 0).cpu().numpy(), axis=1)
    return [(example, row.tobytes()) for row in packed]


def features_of(asked: Asked, count: int) -> Tensor:
    """(features,) bool of a name: which features are present."""
    return torch.from_numpy(np.unpackbits(np.frombuffer(asked[1], dtype=np.uint8), count=count).astype(bool))
