"""The frozen result of `minimal_tokens`: an inclusion-minimal set of tokens and the numbers that prove it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.record import decode, encode, freeze, load_record, reading, same_fields, write_json

__all__ = ["Removal", "Span", "TokenSet"]

SCHEMA = 1
_SHOWN = 12  # single removals that are put into words one by one
_KIND = "hf_attn_mi.TokenSet"


@dataclass(frozen=True)
class Span:
    """A piece of the input.

    Attributes:
        text: the exact slice `texts[sequence][start:end]`; without offsets the token strings, joined as they are.
        start, end: characters of the text; None without offsets.
        sequence: which text it belongs to; None where the tokenizer does not say.
        tokens: indices of its tokens.
    """

    text: str
    start: int | None
    end: int | None
    sequence: int | None
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Removal:
    """What happens without one token of the set; it moves to the rest.

    Attributes:
        index: of the token.
        text: its characters.
        p_set: probability of the class with the set without this token.
        p_rest: probability with the rest and this token; None for an empty rest without special tokens.
        set_same: whether the set without this token keeps the prediction.
        rest_same: whether the rest with this token keeps the prediction.
        fails: "set" (it no longer suffices), "rest" (it now suffices, or, strict, keeps the prediction) or "both";
            "" where the token could go.
    """

    index: int
    text: str
    p_set: float | None
    p_rest: float | None
    set_same: bool
    rest_same: bool
    fails: str


@dataclass(frozen=True, eq=False)
class TokenSet:
    """Tokens that carry a prediction: they suffice, the rest does not, and none of them can go.

    "Alone" means that all other tokens are masked as keys in all layers by the attention mask; special tokens stay. The
    set is inclusion-minimal under removals of single tokens. It need be neither the least in number nor the only one:
    `jaccard` says how far the set from another start agrees.

    Attributes:
        tokens: the tokenizer's strings for the whole input.
        texts: the original texts, two for a sentence pair, () when the input was tensors.
        special: whether a token is special ([CLS], [SEP], ...).
        indices: tokens of the set in reading order; () where no set is defined.
        spans: one for each token of the set.
        words: the words that hold a token of the set.
        target: index of the class.
        target_name: its name.
        p_all, p_set, p_rest: probability of the class with all tokens, with the set, and with all others.
        p_special: with the special tokens alone; None where there are none.
        rest_same: whether the rest keeps the prediction of all tokens.
        singles: one for each token of the set whose removal was run; all of them where `minimal`.
        defined: False where the special tokens alone already give the answer.
        minimal: whether every single removal was run and broke one of the two conditions.
        reason: why no set is defined, or why it may not be minimal; "" otherwise.
        keep: share of `p_all` that the set has to keep.
        strict: whether the rest has to change the prediction; else it only must not suffice.
        forwards: cost of the search in forwards of the full input; its ranking is not counted.
        sequences: sequences run by the search.
        jaccard: of this set and that from the second start; None where there is none.
        second: the search from the second start: start, indices, minimal, forwards, sequences; empty without one.
        info: how it was made, JSON-like.

    Raises:
        InvalidInputError: indices that are not of this input, or `info` that is not JSON-like.

    Example:
        >>> made = TokenSet(
        ...     tokens=("[CLS]", "a", "joy", "[SEP]"), texts=("a joy",), special=(True, False, False, True),
        ...     indices=(2,), spans=(Span("joy", 2, 5, 0, (2,)),), words=(Span("joy", 2, 5, 0, (2,)),),
        ...     target=1, target_name="positive", p_all=0.95, p_set=0.94, p_rest=0.4, p_special=0.5, rest_same=False,
        ...     singles=(Removal(2, "joy", 0.5, 0.95, True, True, "both"),), defined=True, minimal=True, keep=0.9,
        ... )
        >>> [span.text for span in made.spans], made.rest, TokenSet.from_dict(made.to_dict()) == made
        (['joy'], (1,), True)
    """

    tokens: tuple[str, ...]
    texts: tuple[str, ...]
    special: tuple[bool, ...]
    indices: tuple[int, ...]
    spans: tuple[Span, ...]
    words: tuple[Span, ...]
    target: int
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
    second: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("second", "info"):
            object.__setattr__(self, name, freeze(getattr(self, name), name))
        if len(self.special) != len(self.tokens):
            raise InvalidInputError(f"special has {len(self.special)} entries for {len(self.tokens)} tokens")
        if any(not 0 <= i < len(self.tokens) or self.special[i] for i in self.indices):
            raise InvalidInputError(f"indices {self.indices} must be of tokens that are not special")

    @property
    def rest(self) -> tuple[int, ...]:
        """Indices of the tokens that are neither special nor in the set."""
        chosen = set(self.indices)
        return tuple(i for i, special in enumerate(self.special) if not special and i not in chosen)

    def to_words(self) -> str:
        """Return the result and its proof in plain words, one statement a line."""
        label = f"{self.target_name!r}"
        if not self.defined:
            return f"No set of tokens for {label}. {self.reason}"
        count, total = len(self.indices), len(self.indices) + len(self.rest)
        words = ", ".join(repr(word.text) for word in self.words)
        kind = "inclusion-minimal" if self.minimal else "not shown to be minimal"
        rest = "it changes the prediction" if self.strict else "it does not suffice"
        lines = [
            f"{count} of {total} tokens carry {label} ({kind}): {words}.",
            f"All tokens: {self.p_all:.4f}. The set alone: {_number(self.p_set)}; it keeps the prediction and at least "
            f"{self.keep:g} of the probability.",
            f"The rest alone: {_number(self.p_rest)}; {rest}. Special tokens alone: {_number(self.p_special)}.",
        ]
        told = {"set": "the set does not suffice", "rest": "the rest is enough", "both": "both fail", "": "it could go"}
        lines += [
            f"Without {one.text!r}: set {_number(one.p_set)}, rest {_number(one.p_rest)}: {told[one.fails]}."
            for one in self.singles[:_SHOWN]
        ]
        if hidden := Counter(told[one.fails] for one in self.singles[_SHOWN:]):
            counts = ", ".join(f"{what} ({count})" for what, count in hidden.most_common())
            lines.append(f"{hidden.total()} more were taken out one at a time: {counts}.")
        if self.jaccard is not None:
            index = f"(Jaccard index {self.jaccard:.2f})"
            alike = "found the same set" if self.jaccard == 1 else "found another set: this is not the only one"
            lines.append(f"A second start {alike} {index}.")
        lines.append(f"Found in {self.sequences} sequences, at the cost of {self.forwards:.1f} forwards of all tokens.")
        return "\n".join(lines + [self.reason] * bool(self.reason))

    def __str__(self) -> str:
        return self.to_words()

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON data from which `from_dict` makes an equal set."""
        data = {item.name: encode(getattr(self, item.name)) for item in fields(self)}
        for name in ("spans", "words", "singles"):
            data[name] = [encode(asdict(item)) for item in getattr(self, name)]
        return {"kind": _KIND, "schema": SCHEMA, **data}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TokenSet:
        """Return the set `to_dict` was called on. Other entries, such as the check of the command line, are not read.

        Raises:
            InvalidInputError: where `data` was not made by `to_dict`, or by another schema.
        """
        with reading(data, "token set", kind=_KIND, schema=SCHEMA):
            values = {item.name: decode(data[item.name]) for item in fields(cls)}
            for name, kind in (("spans", Span), ("words", Span), ("singles", Removal)):
                values[name] = tuple(kind(**item) for item in values[name])
            made = cls(**values)
            made.to_words()  # numbers where numbers are needed
        return made

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one .json or .json.gz file, whole or not at all; makes no folder.

        Raises:
            InvalidInputError: for another suffix, a missing folder, or an existing file without `overwrite=True`.
        """
        write_json(self.to_dict(), Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> TokenSet:
        """Return the set saved at `path`.

        Raises:
            InvalidInputError: where the file is no saved token set, or of another schema.
            OSError: where the file cannot be read.
        """
        return load_record(Path(path), cls.from_dict)

    def __repr__(self) -> str:
        texts = [span.text for span in self.spans]
        return (
            f"TokenSet(target_name={self.target_name!r}, tokens={texts}, minimal={self.minimal}, "
            f"defined={self.defined})"
        )

    def __eq__(self, other: object) -> bool:
        return same_fields(self, other) if isinstance(other, TokenSet) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only mapping cannot be pickled or deep-copied; the plain form is lossless and can.
        return type(self).from_dict, (self.to_dict(),)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
