"""The probability of the explained class with tokens removed: the input of every faithfulness metric."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation.ranking import ranking, token_scores
from hf_attn_mi.models.removal import check_removal, remove_tokens, token_count


class Predict(Protocol):
    """A function that runs the model on examples of unequal length and returns the probability of the explained class.

    The class is the same for all examples of one input: the predicted class of the full text, or one the user chose.
    """

    def __call__(self, examples: Sequence[dict[str, Tensor]], /) -> Tensor:
        """Return (examples,) probabilities; batching is up to the function."""
        ...


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Probabilities of one input with sets of its tokens removed; each set is predicted only once.

    Metrics and methods that share such an object share its predictions: those of the empty set, of all tokens, and of
    every set that two orders have in common.

    Attributes:
        predict: runs the model.
        example: one unpadded input: (tokens, ...) tensors by argument name.
        special: (tokens,) bool: tokens that are never removed; None: all tokens may be. Tokens that the attention mask
            of the example hides are never removed.
        removal: "delete", "mask" or "attention_mask"; see `remove_tokens`.
        mask_id: the mask token, for "mask".

    Raises:
        InvalidInputError: see `check_removal`, or `special` of another length.

    Example:
        >>> example = {"input_ids": torch.tensor([0, 3, 5, 0])}
        >>> probabilities = Probabilities(
        ...     lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples]), example,
        ...     torch.tensor([True, False, False, True]),
        ... )
        >>> probabilities.removed([(), (1,), (2, 1), (1, 2)]).tolist()
        [0.800000011920929, 0.5, 0.0, 0.0]
        >>> probabilities.tokens, probabilities.evaluated
        ((1, 2), 3)
    """

    predict: Predict
    example: Mapping[str, Tensor]
    special: Tensor | None = None
    removal: str = "delete"
    mask_id: int | None = None
    tokens: tuple[int, ...] = field(init=False)  # positions that may be removed
    _known: dict[frozenset[int], float] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_removal(self.example, self.removal, self.mask_id)
        length = token_count(self.example)
        fixed = torch.zeros(length, dtype=torch.bool) if self.special is None else self.special.bool().cpu()
        if fixed.shape != (length,):
            raise InvalidInputError(f"special has shape {tuple(fixed.shape)}, the example has {length} tokens.")
        if "attention_mask" in self.example:
            fixed = fixed | (self.example["attention_mask"].cpu() == 0)
        object.__setattr__(self, "tokens", tuple((~fixed).nonzero()[:, 0].tolist()))

    @property
    def evaluated(self) -> int:
        """Number of versions of the input that were predicted so far."""
        return len(self._known)

    def removed(self, sets: Sequence[Collection[int]]) -> Tensor:
        """Return the probability without each of these sets of positions, (sets,) float64.

        NaN for a set that leaves no token of the input (all tokens of a model without special tokens, unless
        removal is "mask"): the model cannot be run on it.

        Raises:
            InvalidInputError: a special token in a set, or predictions of the wrong shape or not finite.
        """
        requested = [frozenset(positions) for positions in sets]
        missing = [positions for positions in dict.fromkeys(requested) if positions not in self._known]
        runnable, allowed = [], set(self.tokens)
        for positions in missing:
            if not positions <= allowed:
                raise InvalidInputError(f"positions {sorted(positions - allowed)} are special or not in the text.")
            if self.removal == "mask" or len(positions) < self._present():
                runnable.append(positions)
        if runnable:
            examples = [remove_tokens(self.example, s, removal=self.removal, mask_id=self.mask_id) for s in runnable]
            predicted = torch.as_tensor(self.predict(examples)).detach().to("cpu", torch.float64)
            if predicted.shape != (len(examples),) or not bool(predicted.isfinite().all()):
                raise InvalidInputError(
                    f"predict returned shape {tuple(predicted.shape)} for {len(examples)} examples, or values that are "
                    "not finite; it must return one probability for each example."
                )
            self._known.update(zip(runnable, predicted.tolist()))
        return torch.tensor([self._known.get(positions, float("nan")) for positions in requested], dtype=torch.float64)

    def kept(self, sets: Sequence[Collection[int]]) -> Tensor:
        """Return the probability with only these tokens and the special ones left, (sets,) float64."""
        everything = frozenset(self.tokens)
        return self.removed([everything - frozenset(positions) for positions in sets])

    def full(self) -> float:
        """Return the probability of the whole input."""
        return float(self.removed([()])[0])

    def ranked(self, scores: Tensor, *, by: str = "signed") -> list[int]:
        """Return the tokens that may be removed in the order of these scores; see `ranking`.

        Raises:
            InvalidInputError: scores of another length or not finite, or another `by`.
        """
        return ranking(self._checked(scores), self.tokens, by=by)

    def values(self, scores: Tensor, tokens: Sequence[int] | None = None, *, by: str = "signed") -> Tensor:
        """Return the scores of the tokens that may be removed (or of these), (tokens,) float64.

        Raises:
            InvalidInputError: see `ranked`.
        """
        return token_scores(self._checked(scores), self.tokens if tokens is None else tokens, by=by)

    def _checked(self, scores: Tensor) -> Tensor:
        length = token_count(self.example)
        if tuple(scores.shape) != (length,):
            raise InvalidInputError(
                f"scores have shape {tuple(scores.shape)}, the example has {length} tokens: pass one score for each of "
                "its tokens, including special tokens."
            )
        return scores

    def _present(self) -> int:
        mask = self.example.get("attention_mask")
        return token_count(self.example) if mask is None else int((mask != 0).sum())
