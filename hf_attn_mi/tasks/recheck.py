"""`recheck`: every number of a token set again, by plain forwards of the whole input under a mask."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import nn

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encode import read_inputs
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.loading import model_and_tokenizer, own_tokenizer
from hf_attn_mi.models.masked_predictor import Seen, fixed_and_movable, masked, refuse_unmaskable, run_examples
from hf_attn_mi.results.token_set import TokenSet


@dataclass(frozen=True)
class Recheck:
    """Whether a token set is what it says.

    Attributes:
        holds: every number came out again and every condition it claims is met.
        difference: largest change of a probability.
        reasons: what does not hold, one sentence each; () where it holds.
    """

    holds: bool
    difference: float
    reasons: tuple[str, ...]


def recheck(
    model: Any, token_set: TokenSet, inputs: Any = None, *, tokenizer: Any = None, tolerance: float = 1e-5
) -> Recheck:
    """Runs the input under each mask of the certificate, one whole sequence at a time, and compares.

    Nothing of the search is used: no compaction, no batches, no saved answer.

    Args:
        model: the model of `minimal_tokens`.
        token_set: its result.
        inputs: the input, where it was not texts.
        tokenizer: as for `minimal_tokens`.
        tolerance: of a probability. Comparisons closer than this count as met: rounding decides them.

    Returns:
        What came out.

    Raises:
        InvalidInputError: another input than that of the set.

    Example:
        >>> recheck(model, minimal_tokens(model, "A quietly moving film.")).holds     # doctest: +SKIP
        True
    """
    inner, tokenizer = model_and_tokenizer(model, tokenizer)
    example = _example(inner, token_set, inputs, tokenizer)
    judge = _RecheckState(inner, example, token_set, tolerance)
    judge.number("all tokens", judge.full.probability, token_set.p_all)
    chosen, everything = set(token_set.indices), set(judge.movable)
    judge.number("special tokens", judge.seen(()).probability if judge.fixed else None, token_set.p_special)
    if not token_set.defined:
        judge.want(judge.dispensable((), -tolerance), "the special tokens alone do not give the answer")
        return judge.verdict()
    judge.number("the set", judge.seen(chosen).probability, token_set.p_set)
    judge.want(judge.sufficient(chosen, tolerance), "the set does not suffice")
    judge.number("the rest", judge.seen(everything - chosen).probability, token_set.p_rest)
    judge.want(not judge.dispensable(everything - chosen, -tolerance), "the rest is enough")
    if token_set.minimal:
        judge.want({one.index for one in token_set.singles} == chosen, "not every single removal is in it")
    for one in token_set.singles:
        left = chosen - {one.index}
        judge.number(f"the set without {one.text!r}", judge.seen(left).probability, one.p_set)
        judge.number(f"the rest with {one.text!r}", judge.seen(everything - left).probability, one.p_rest)
        short = not judge.sufficient(left, -tolerance)
        if token_set.minimal:
            enough = judge.dispensable(everything - left, tolerance)
            judge.want(short or enough, f"{one.text!r} could go")
    return judge.verdict()


def _example(model: nn.Module, token_set: TokenSet, inputs: Any, tokenizer: Any) -> EncodedInput:
    if inputs is None:
        if not token_set.texts:
            raise InvalidInputError("inputs is None, and the set was made of tensors: pass them as inputs.")
        inputs = token_set.texts if len(token_set.texts) == 2 else token_set.texts[0]
    examples, _, _ = read_inputs(inputs, model, tokenizer, True)  # a text of another length is refused below
    if len(examples) == 1 and examples[0].special is None and "input_ids" in examples[0].tensors:
        examples, _, _ = read_inputs(inputs, model, own_tokenizer(model), True)
    if len(examples) != 1 or examples[0].tokens != token_set.tokens or examples[0].special != token_set.special:
        raise InvalidInputError("inputs is not the one input that this token set was made of: its tokens differ.")
    refuse_unmaskable(model)
    return examples[0]


class _RecheckState:
    """Runs sets of tokens of one example and collects what does not hold."""

    def __init__(self, model: nn.Module, example: EncodedInput, token_set: TokenSet, tolerance: float) -> None:
        self.model, self.example, self.token_set, self.tolerance = model, example, token_set, tolerance
        self.fixed, self.movable = fixed_and_movable(example, 0)
        self.difference, self.reasons = 0.0, list[str]()
        self.runs: dict[frozenset[int], Seen] = {}
        self.full = self.seen(self.movable)

    def seen(self, tokens: Collection[int]) -> Seen:
        """What the model says under the mask of these tokens; of nothing where there is nothing to see."""
        if not self.fixed and not tokens:
            return Seen(0.0, self.token_set.target, "", -1)
        kept = frozenset((*self.fixed, *tokens))
        if kept not in self.runs:
            self.runs[kept] = run_examples(self.model, [masked(self.example, sorted(kept))], [self.token_set.target])[0]
        return self.runs[kept]

    def sufficient(self, tokens: Collection[int], slack: float) -> bool:
        one = self.seen(tokens)
        enough = one.probability >= self.token_set.keep * self.full.probability - slack
        return one.prediction == self.full.prediction and enough

    def dispensable(self, tokens: Collection[int], slack: float) -> bool:
        if self.token_set.strict:
            return self.seen(tokens).prediction == self.full.prediction
        return self.sufficient(tokens, slack)

    def number(self, what: str, found: float | None, said: float | None) -> None:
        """Compare a probability with that of the set; the difference is kept."""
        if found is None or said is None:
            nothing = found in (None, 0.0) and said in (None, 0.0)
            self.want(nothing, f"{what}: {said} is said, {found} came out")
            return
        self.difference = max(self.difference, abs(found - said))
        self.want(abs(found - said) <= self.tolerance, f"{what}: {said:.6f} is said, {found:.6f} came out")

    def want(self, holds: bool, otherwise: str) -> None:
        """Note this reason unless it holds."""
        self.reasons += [] if holds else [otherwise]

    def verdict(self) -> Recheck:
        return Recheck(not self.reasons, self.difference, tuple(self.reasons))
