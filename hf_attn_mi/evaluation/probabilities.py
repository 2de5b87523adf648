"""The probability of the explained class with tokens removed: what every faithfulness metric is made of."""

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
    """What runs the model: examples of unequal length in, the probability of the explained class out.

    The class is fixed for all examples of one input: the one the model chose (or the user named) on the full text.
    """

    def __call__(self, examples: Sequence[dict[str, Tensor]], /) -> Tensor:
        """Return (examples,) probabilities, batched as the caller likes."""
        ...


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Probabilities of one input with sets of its tokens removed; each set is predicted once, however often asked for.

    Metrics and methods that share one of these share its predictions: the empty set, the set of all tokens and every
    set that two orders have in common.

    Attributes:
        predict: runs the model.
        example: one unpadded input: (tokens, ...) tensors by argument name.
        special: (tokens,) bool: tokens that are never removed. Tokens that the example's own attention mask hides are
            not removed either. None for none.
        removal: "delete", "mask" or "attention_mask"; see `remove_tokens`.
        mask_id: the mask token, for "mask".

    Raises:
        InvalidInputError: see `check_removal`, or `special` of another length.

    Example:
        >>> example = {"input_ids": torch.tensor([0, 3, 5, 0])}
        >>> found = Probabilities(
        ...     lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples]), example,
        ...     torch.tensor([True, False, False, True]),
        ... )
        >>> found.removed([(), (1,), (2, 1), (1, 2)]).tolist(), found.tokens, found.evaluated
        ([0.800000011920929, 0.5, 0.0, 0.0], (1, 2), 3)
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
        """How many versions of the input went through the model so far."""
        return len(self._known)

    def removed(self, sets: Sequence[Collection[int]]) -> Tensor:
        """Return the probability without each of these sets of positions, (sets,) float64.

        NaN for a set that leaves nothing of the input (every token, in a model without special tokens, unless
        removal is "mask"): there is no such input.

        Raises:
            InvalidInputError: a special token in a set, or predictions of the wrong shape or not finite.
        """
        wanted = [frozenset(positions) for positions in sets]
        fresh = [positions for positions in dict.fromkeys(wanted) if positions not in self._known]
        runnable, allowed = [], set(self.tokens)
        for positions in fresh:
            if not positions <= allowed:
                raise InvalidInputError(f"positions {sorted(positions - allowed)} are special or not in the text.")
            if self.removal == "mask" or len(positions) < self._present():
                runnable.append(positions)
        if runnable:
            examples = [remove_tokens(self.example, s, removal=self.removal, mask_id=self.mask_id) for s in runnable]
            found = torch.as_tensor(self.predict(examples)).detach().to("cpu", torch.float64)
            if found.shape != (len(examples),) or not bool(found.isfinite().all()):
                raise InvalidInputError(
                    f"predict returned shape {tuple(found.shape)} for {len(examples)} examples, or values that are not "
                    "finite; one probability an example is wanted."
                )
            self._known.update(zip(runnable, found.tolist()))
        return torch.tensor([self._known.get(positions, float("nan")) for positions in wanted], dtype=torch.float64)

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
                f"scores have shape {tuple(scores.shape)}, the example has {length} tokens: one score for each of its "
                "tokens is wanted, special ones too."
            )
        return scores

    def _present(self) -> int:
        mask = self.example.get("attention_mask")
        return token_count(self.example) if mask is None else int((mask != 0).sum())
