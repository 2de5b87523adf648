"""`recheck`: compute every number of a token set or an attention subgraph again, by plain forward passes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.removal_predictor import Prediction
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from hf_attn_mi.results.attention_subgraph import AttentionSubgraph
from hf_attn_mi.results.token_set import TokenSet
from hf_attn_mi.tasks.media_removal import removal_predictor
from hf_attn_mi.tasks.recheck_attention import TOKEN, SubgraphCheck, as_token_set, saved_input

TOLERANCE, TOLERANCE_REDUCED = 1e-5, 2e-2  # differences of a probability; the second for half precision


@dataclass(frozen=True)
class Recheck:
    """The result of checking a token set or an attention subgraph.

    Attributes:
        holds: whether every number was reproduced and every condition that the set claims is met.
        difference: largest change of a probability.
        reasons: what does not hold, one sentence each; () if it holds.
    """

    holds: bool
    difference: float
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        if self.holds:
            return f"Holds: every number was reproduced (largest difference {self.difference:.1e})."
        return "\n  ".join([f"Does not hold (largest difference {self.difference:.1e}):", *self.reasons])


def recheck(
    model: Any,
    token_set: TokenSet | AttentionSubgraph,
    inputs: Any = None,
    *,
    tokenizer: Any = None,
    processor: Any = None,
    sampling_rate: int | None = None,
    tolerance: float | None = None,
) -> Recheck:
    """Run the input under each restriction of the result, one whole sequence at a time, and compare.

    The check is independent of the search: no dropped tokens, no batches, no shared states, no saved answer.

    Args:
        model: the model of `minimal_tokens` or `minimal_attention`.
        token_set: the result of one of them.
        inputs: the input of a `TokenSet`, where it was not texts (an image, a recording, tensors); an
            `AttentionSubgraph` holds its input.
        tokenizer, processor, sampling_rate: as for `minimal_tokens`.
        tolerance: the largest change of a probability; None for 1e-5, and 2e-2 in half precision. Conditions that
            are violated by less than this count as met, since rounding decides them.

    Returns:
        The result of the check.

    Raises:
        InvalidInputError: another input or another model than that of the result.

    Example:
        >>> recheck(model, minimal_tokens(model, "A quietly moving film.")).holds     # doctest: +SKIP
        True
    """
    if not isinstance(token_set, TokenSet | AttentionSubgraph):
        raise InvalidInputError(
            f"token_set must be a TokenSet of minimal_tokens or an AttentionSubgraph of minimal_attention, not "
            f"{type(token_set).__name__}."
        )
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if tolerance is not None and not (number and 0 <= tolerance < 1):
        raise InvalidInputError(f"tolerance must be a number of 0 or more and below 1, not {shown(tolerance)}.")
    runner = EncoderRunner.of(model, tokenizer, processor=processor, sampling_rate=sampling_rate)
    if tolerance is None:
        tolerance = TOLERANCE if runner.dtype in (torch.float32, torch.float64) else TOLERANCE_REDUCED
    if isinstance(token_set, TokenSet):
        return _recheck_tokens(_Checker(runner, _encode(runner, token_set, inputs), token_set, tolerance))
    if inputs is not None:
        raise InvalidInputError("inputs must be None for an AttentionSubgraph, which holds its input.")
    return _recheck_attention(runner, token_set, tolerance)


def _recheck_attention(runner: EncoderRunner, subgraph: AttentionSubgraph, tolerance: float) -> Recheck:
    if subgraph.unit == TOKEN:
        checker = _Checker(runner, saved_input(subgraph), as_token_set(subgraph), tolerance)
        return _recheck_tokens(checker)
    difference, reasons = SubgraphCheck(runner, subgraph, tolerance).run()
    return Recheck(not reasons, difference, tuple(reasons))


def _recheck_tokens(checker: _Checker) -> Recheck:
    token_set, tolerance = checker.token_set, checker.tolerance
    chosen, everything = set(token_set.indices), set(checker.movable)
    checker.compare("all tokens", checker.original.value, token_set.p_all)
    special_only = checker.predict(()).value if checker.fixed or checker.predictor.runs_nothing else None
    checker.compare("special tokens", special_only, token_set.p_special)
    if not token_set.defined:
        checker.require(checker.dispensable((), -tolerance), "the special tokens alone do not give the answer")
        return checker.result()
    checker.compare("the set", checker.predict(chosen).value, token_set.p_set)
    checker.require(checker.sufficient(chosen, tolerance), "the set does not suffice")
    checker.compare("the rest", checker.predict(everything - chosen).value, token_set.p_rest)
    checker.require(not checker.dispensable(everything - chosen, -tolerance), "the rest suffices")
    checker.check_same("the rest", everything - chosen, token_set.rest_same)
    if token_set.minimal:
        checker.require({one.index for one in token_set.singles} == chosen, "not every single removal is in it")
    for one in token_set.singles:
        left = chosen - {one.index}
        checker.compare(f"the set without {one.text!r}", checker.predict(left).value, one.p_set)
        checker.compare(f"the rest with {one.text!r}", checker.predict(everything - left).value, one.p_rest)
        checker.check_same(f"the set without {one.text!r}", left, one.set_same)
        checker.check_same(f"the rest with {one.text!r}", everything - left, one.rest_same)
        short = not checker.sufficient(left, -tolerance)
        if token_set.minimal:
            enough = checker.dispensable(everything - left, tolerance)
            checker.require(short or enough, f"{one.text!r} can be left out")
    return checker.result()


def _encode(runner: EncoderRunner, token_set: TokenSet, inputs: Any) -> EncodedInput:
    if inputs is None:
        if not token_set.texts:
            raise InvalidInputError("inputs is None, and the set was made of tensors: pass them as inputs.")
        inputs = token_set.texts if len(token_set.texts) == 2 else token_set.texts[0]
    # A text that was cut to another length is refused below.
    encoded, _ = runner.encode(inputs, truncation=True, special_known=True)
    if len(encoded) != 1:
        raise InvalidInputError(f"inputs holds {len(encoded)} inputs; pass the one that this token set was made of.")
    return encoded[0]


class _Checker:
    """Runs sets of tokens of one input, one sequence at a time, and collects what does not hold."""

    def __init__(self, runner: EncoderRunner, one: EncodedInput, token_set: TokenSet, tolerance: float) -> None:
        called = token_set.info.get("target", token_set.target)
        target, (one,) = read_target(called, runner, [one])
        if one.tokens != token_set.tokens or (one.special or ()) != token_set.special:
            raise InvalidInputError("inputs is not the one input that this token set was made of: its tokens differ.")
        self.predictor = removal_predictor(runner, [one], target, 1)
        self.predictor.refuse()
        self.predictor.settle_tokens()
        self.token_set, self.tolerance = token_set, tolerance
        self.fixed, self.movable = self.predictor.fixed_and_movable(0, 0, target.anchors(0))
        self.difference, self.reasons = 0.0, list[str]()
        self.predictions: dict[frozenset[int], Prediction] = {}
        self.original = self.predict(self.movable)

    def predict(self, tokens: Collection[int]) -> Prediction:
        """The model's answer under the mask of these tokens and the special ones."""
        kept = frozenset((*self.fixed, *tokens))
        if not kept and not self.predictor.runs_nothing:  # there is no such input
            return Prediction(0.0, self.original.explained, None)
        if kept not in self.predictions:
            (self.predictions[kept],) = self.predictor.predict([(0, self.predictor.masked(0, kept))])
        return self.predictions[kept]

    def sufficient(self, tokens: Collection[int], slack: float) -> bool:
        """Whether these tokens keep the prediction and enough of its probability."""
        one = self.predict(tokens)
        enough = one.value >= self.token_set.keep * self.original.value - slack
        return one.predicted == self.original.predicted and enough

    def dispensable(self, tokens: Collection[int], slack: float) -> bool:
        """Whether these tokens, as the rest, show that the set is not needed."""
        if self.token_set.strict:
            return self.predict(tokens).predicted == self.original.predicted
        return self.sufficient(tokens, slack)

    def compare(self, what: str, value: float | None, stated: float | None) -> None:
        """Compare a probability with that of the set; the difference is kept."""
        if value is None or stated is None:
            nothing = value in (None, 0.0) and stated in (None, 0.0)
            self.require(nothing, f"{what}: {stated} is stated, {value} was computed")
            return
        self.difference = max(self.difference, abs(value - stated))
        close = abs(value - stated) <= self.tolerance
        self.require(close, f"{what}: {stated:.6f} is stated, {value:.6f} was computed")

    def check_same(self, what: str, tokens: Collection[int], stated: bool | None) -> None:
        """Whether these tokens keep the prediction, as is stated."""
        same = self.predict(tokens).predicted == self.original.predicted
        self.require(same == stated, f"{what}: that it keeps the prediction is said to be {stated}")

    def require(self, holds: bool, otherwise: str) -> None:
        """Note this reason unless the condition holds."""
        self.reasons += [] if holds else [otherwise]

    def result(self) -> Recheck:
        """Whether everything held."""
        return Recheck(not self.reasons, self.difference, tuple(self.reasons))
