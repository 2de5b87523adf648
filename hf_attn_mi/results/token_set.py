"""The result of `minimal_tokens`: a locally minimal set of tokens, and the numbers that prove it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.document import Block, Facts, Paragraph, Table, Tone
from hf_attn_mi.results.outcome import DOES_NOT_HOLD, HOLDS, NOTHING_TO_CERTIFY, Outcome, check_probabilities
from hf_attn_mi.results.plots.sets import token_set_plots
from hf_attn_mi.results.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HALF = 0.5  # a class with more probability is the prediction
_LISTED = 12  # single removals that the text lists one by one
_FAILURES = {
    "set": "the set does not suffice",
    "rest": "the rest suffices",
    "both": "both fail",
    "": "it can be left out",
}


@dataclass(frozen=True)
class Span:
    """A part of the input.

    Attributes:
        text: the exact slice `texts[sequence][start:end]`; without offsets the token strings, joined as they are.
        start, end: characters of the text; None without offsets.
        sequence: the index of its text; None if the tokenizer does not say.
        tokens: indices of its tokens.
    """

    text: str
    start: int | None
    end: int | None
    sequence: int | None
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Removal:
    """The effect of moving one token of the set to the rest.

    Attributes:
        index: the index of the token.
        text: its characters.
        p_set: probability of the class with the set without this token.
        p_rest: probability with the rest and this token; None for an empty rest without special tokens.
        set_same: whether the set without this token keeps the prediction.
        rest_same: whether the rest with this token keeps the prediction.
        fails: "set" (it no longer suffices), "rest" (it now suffices, or, strict, keeps the prediction) or "both";
            "" if the token can be left out.
    """

    index: int
    text: str
    p_set: float | None
    p_rest: float | None
    set_same: bool
    rest_same: bool
    fails: str


@dataclass(frozen=True, eq=False, repr=False)
class TokenSet(Record):
    """Tokens that determine a prediction: they suffice, the rest does not, and each of them is needed.

    "Alone" means that all other tokens are masked as keys in all layers by the attention mask; special tokens stay. The
    set is locally minimal: no single token can be removed. It is not necessarily the smallest set, nor the only one:
    `jaccard` says how far the set found with a second ranking agrees. `to_pandas` has a row for each token.

    Attributes:
        tokens: the tokenizer's strings for the whole input.
        texts: the original texts, two for a sentence pair, () when the input was tensors.
        special: whether a token is special ([CLS], [SEP], ...).
        indices: tokens of the set in reading order; () if no set is defined.
        spans: one for each token of the set.
        words: the words that contain a token of the set.
        target: index of the class; None if the target has none (the span of an answer).
        target_name: its name.
        p_all, p_set, p_rest: probability of the class with all tokens, with the set, and with all others.
        p_special: with the special tokens alone; None if there are none.
        rest_same: whether the rest keeps the prediction of all tokens.
        singles: one for each token of the set whose removal was run; all of them where `minimal`.
        defined: False if the special tokens alone already give the answer.
        minimal: whether every single removal was run and broke one of the two conditions.
        reason: why no set is defined, or why it may not be minimal; "" otherwise.
        keep: share of `p_all` that the set has to keep.
        strict: whether the rest has to change the prediction; else it only must not suffice.
        forwards: cost of the search in forward passes of the whole input; its ranking is not counted.
        sequences: sequences run by the search.
        jaccard: Jaccard index of this set and the one found with the second ranking; None if there is none.
        second_ranking: the search with the second ranking: ranking, indices, minimal, forwards, sequences; empty
            without one.
        info: how it was computed, JSON-like.

    Raises:
        InvalidInputError: indices that are not of this input, or `info` that is not JSON-like.

    Example:
        >>> token_set = TokenSet(
        ...     tokens=("[CLS]", "a", "joy", "[SEP]"), texts=("a joy",), special=(True, False, False, True),
        ...     indices=(2,), spans=(Span("joy", 2, 5, 0, (2,)),), words=(Span("joy", 2, 5, 0, (2,)),),
        ...     target=1, target_name="positive", p_all=0.95, p_set=0.94, p_rest=0.4, p_special=0.5, rest_same=False,
        ...     singles=(Removal(2, "joy", 0.5, 0.95, True, True, "both"),), defined=True, minimal=True, keep=0.9,
        ... )
        >>> [span.text for span in token_set.spans], token_set.rest, token_set.outcome
        (['joy'], (1,), 'holds')
    """

    TYPE: ClassVar[str] = "hf_attn_mi.TokenSet"
    NOUN: ClassVar[str] = "token set"
    IGNORED: ClassVar[frozenset[str]] = frozenset({"outcome", "holds", "check"})  # check: written by the command line

    tokens: tuple[str, ...]
    texts: tuple[str, ...]
    special: tuple[bool, ...]
    indices: tuple[int, ...]
    spans: tuple[Span, ...]
    words: tuple[Span, ...]
    target: int | None
    target_name: str
    p_all: float
    p_set: float | None
    p_rest: float | None
    p_special: float | None
    rest_same: bool | None
    singles: tuple[Removal, ...]
    defined: bool
    minimal: bool
    keep: float
    strict: bool = False
    reason: str = ""
    forwards: float = 0.0
    sequences: int = 0
    jaccard: float | None = None
    second_ranking: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """The outcome of the search.

        "holds": the set is defined and locally minimal. "does not hold": the budget ran out before that was shown.
        "nothing to certify": the special tokens alone keep the prediction.
        """
        if not self.defined:
            return NOTHING_TO_CERTIFY
        return HOLDS if self.minimal else DOES_NOT_HOLD

    @property
    def holds(self) -> bool:
        """Whether `outcome` is "holds"."""
        return self.outcome == HOLDS

    @property
    def rest(self) -> tuple[int, ...]:
        """Indices of the tokens that are neither special nor in the set."""
        chosen = set(self.indices)
        return tuple(i for i, special in enumerate(self.special) if not special and i not in chosen)

    def _check(self) -> None:
        if len(self.special) != len(self.tokens):
            raise InvalidInputError(f"special has {len(self.special)} entries for {len(self.tokens)} tokens")
        if any(not 0 <= i < len(self.tokens) or self.special[i] for i in self.indices):
            raise InvalidInputError(f"indices {self.indices} must be of tokens that are not special")
        if unknown := {removal.fails for removal in self.singles} - _FAILURES.keys():
            raise InvalidInputError(f"singles: fails is one of {', '.join(map(repr, _FAILURES))}, not {unknown}")
        if self.defined:
            sides = (self.p_all, self.p_set, self.p_rest, self.rest_same)
            check_probabilities(*sides, self.singles, keep=self.keep, strict=self.strict)

    def _computed(self) -> dict[str, Any]:
        return {"outcome": self.outcome, "holds": self.holds}

    def _named(self, text: str, tokens: tuple[int, ...]) -> str:
        """A part of the input for a sentence: its text, and its first token where the same tokens occur twice."""
        if not tokens:
            return repr(text)
        part = self.tokens[tokens[0] : tokens[-1] + 1]
        places = range(len(self.tokens) - len(part) + 1)
        twice = sum(self.tokens[i : i + len(part)] == part for i in places) > 1
        return repr(text) + (f" (token {tokens[0]})" if twice else "")

    def _plots(self) -> dict[str, Callable[[Axes | None], Figure]]:
        return token_set_plots(self)

    def _columns(self) -> dict[str, list[Any]]:
        removals = {removal.index: removal for removal in self.singles}
        numbers = {
            name: [getattr(removals.get(i), name, None) for i in range(len(self.tokens))]
            for name in ("p_set", "p_rest", "fails")
        }
        in_set = [i in set(self.indices) for i in range(len(self.tokens))]
        return {"token": list(self.tokens), "special": list(self.special), "in_set": in_set, **numbers}

    def _summary(self) -> dict[str, object]:
        texts = [span.text for span in self.spans]
        return {"target_name": self.target_name, "tokens": texts, "outcome": self.outcome}

    def _blocks(self) -> list[Block]:
        tones: dict[Outcome, Tone] = {"holds": "good", "does not hold": "bad", "nothing to certify": "neutral"}
        tone = tones[self.outcome]
        if not self.defined:
            return [Paragraph(f"Nothing to certify: no set of tokens for {self.target_name!r}. {self.reason}", tone)]
        words = ", ".join(self._named(word.text, word.tokens) for word in self.words)
        kind = "holds: locally minimal" if self.minimal else "does not hold: not shown to be minimal"
        rest = "it changes the prediction" if self.strict else "it does not suffice"
        if not self.strict and self.p_rest is not None and self.p_rest > HALF:
            rest += ", but the prediction stays without the set: strict=True asks for one without which it changes"
        count = len(self.indices)
        blocks: list[Block] = [
            Paragraph(
                f"{count} of {count + len(self.rest)} tokens determine{'s' * (count == 1)} {self.target_name!r} "
                f"({kind}): {words}.",
                tone,
            )
        ]
        names = [self._named(removal.text, (removal.index,)) for removal in self.singles]
        stays = " (they alone keep the prediction)" if self.p_special is not None and self.p_special > HALF else ""
        lines = [
            f"All tokens: {self.p_all:.4f}. The set alone: {_number(self.p_set)}; it keeps the prediction and at least "
            f"{self.keep:g} of the probability.",
            f"The rest alone: {_number(self.p_rest)}; {rest}. Special tokens alone: {_number(self.p_special)}{stays}.",
            *(_removal_sentence(removal, name) for removal, name in list(zip(self.singles, names))[:_LISTED]),
        ]
        if others := Counter(_FAILURES[removal.fails] for removal in self.singles[_LISTED:]):
            counts = ", ".join(f"{what} ({count})" for what, count in others.most_common())
            lines.append(f"{others.total()} more were removed one at a time: {counts}.")
        if self.jaccard is not None:
            agreement = "gives the same set" if self.jaccard == 1 else "gives another set: this is not the only one"
            lines.append(f"A second ranking {agreement} (Jaccard index {self.jaccard:.2f}).")
        cost = f"at the cost of {self.forwards:.1f} forward passes of all tokens"
        lines.append(f"Found in {self.sequences} sequences, {cost}.")
        blocks.append(Facts(lines + [self.reason] * bool(self.reason)))
        rows = [
            [name, _number(removal.p_set), _number(removal.p_rest), _FAILURES[removal.fails]]
            for removal, name in zip(self.singles, names)
        ]
        header = ("without", "probability with the set", "with the rest", "what fails")
        return [*blocks, Table(header, rows, title="Single removals", folded=True)]


def _removal_sentence(removal: Removal, name: str) -> str:
    return f"Without {name}: set {_number(removal.p_set)}, rest {_number(removal.p_rest)}: {_FAILURES[removal.fails]}."


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
