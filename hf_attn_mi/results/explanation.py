"""The frozen result of explaining one input: token scores, what was seen in each attention layer, how it was done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results import rendering
from hf_attn_mi.results.layer_attention import LayerAttention, identifiability, layer_rows
from hf_attn_mi.results.record import decode, encode, freeze, load_record, own_tensor, reading, same_fields, write_json

__all__ = ["Explanation", "LayerAttention", "Word"]

SCHEMA = 1
_KIND = "hf_attn_mi.Explanation"


@dataclass(frozen=True)
class Word:
    """A word of the input and its score.

    Attributes:
        text: the exact slice `texts[sequence][start:end]`; without offsets the token strings, joined as they are.
        score: sum of the scores of its tokens.
        start, end: characters of the text; None without offsets.
        sequence: which text it belongs to; None where the tokenizer does not say.
        tokens: indices of its tokens.
    """

    text: str
    score: float
    start: int | None
    end: int | None
    sequence: int | None
    tokens: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which tokens of one input made the model's output, and how well that is known.

    Frozen and lean: tensors are CPU copies, `info` and `information` are read-only, no (tokens, tokens) matrix is kept.
    Two explanations are equal when their data are (NaN equals NaN); there is no hash.

    Attributes:
        tokens: the tokenizer's strings.
        scores: (tokens,) float, signed: positive speaks for the target.
        target: index of the class explained; None when the target has none.
        target_name: its name.
        probability: of the class explained; None when the target has none.
        texts: the original texts, two for a sentence pair, () when the input was tensors.
        offsets: characters (start, end) of each token in `texts[sequence]`; (0, 0) for special tokens.
        sequence_ids: which text a token belongs to; None for special tokens.
        word_ids: the tokenizer's number of the word within its text.
        special: whether a token is special ([CLS], [SEP], ...).
        layers: one record an attention layer.
        completeness_gap: relative distance between the target's value and the sum of scores and bias terms.
        information: mutual information, JSON-like; None unless asked for.
        info: how it was made, JSON-like: model, method, versions, seconds, space, reference, warnings.

    Raises:
        InvalidInputError: where lengths disagree, offsets leave their text or `info` is not JSON-like; names the field.

    Example:
        >>> import torch
        >>> made = Explanation(
        ...     tokens=("a", "fi", "##ne"), scores=torch.tensor([0.0, 0.5, 0.25]), target=1, target_name="positive",
        ...     probability=0.75, texts=("a fine",), offsets=((0, 1), (2, 4), (4, 6)), sequence_ids=(0, 0, 0),
        ...     word_ids=(0, 1, 1), special=(False, False, False),
        ... )
        >>> [(word.text, word.score) for word in made.top(1)]
        [('fine', 0.75)]
        >>> Explanation.from_dict(made.to_dict()) == made
        True
    """

    tokens: tuple[str, ...]
    scores: Tensor
    target: int | None
    target_name: str
    probability: float | None
    texts: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...] | None
    sequence_ids: tuple[int | None, ...] | None
    word_ids: tuple[int | None, ...] | None
    special: tuple[bool, ...]
    layers: tuple[LayerAttention, ...] = ()
    completeness_gap: float | None = None
    information: Mapping[str, Any] | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        own_tensor(self, "scores")
        if self.scores.dim() != 1 or not self.scores.is_floating_point():
            raise InvalidInputError(
                f"scores must be floats of shape (tokens,), got {self.scores.dtype} {tuple(self.scores.shape)}"
            )
        for name, convert in _CONVERT.items():
            value = getattr(self, name)
            if value is None and name in ("offsets", "sequence_ids", "word_ids"):
                continue
            if isinstance(value, str) or not hasattr(value, "__iter__"):
                raise InvalidInputError(f"{name} must be a tuple, got {type(value).__name__}")
            object.__setattr__(self, name, tuple(map(convert, value)))
        if not isinstance(self.target_name, str):
            raise InvalidInputError(f"target_name must be a string, got {type(self.target_name).__name__}")
        object.__setattr__(self, "target", _integer(self.target))
        for name in ("probability", "completeness_gap"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))
        for name in ("information", "info"):
            value = getattr(self, name)
            if not (isinstance(value, Mapping) or (value is None and name == "information")):
                raise InvalidInputError(f"{name} must be a dictionary, got {type(value).__name__}")
            object.__setattr__(self, name, freeze(value, name))
        _check_lengths(self)
        _check_offsets(self)

    def to_words(self) -> tuple[Word, ...]:
        """Return the words in reading order; a word's score is the sum of its tokens' scores.

        Words are the tokenizer's own (`word_ids` within each text), never guessed from signs such as "##"; without
        `word_ids` every token is a word. Special tokens are left out. Text is cut from the original by offsets.
        """
        groups: dict[tuple[object, ...], list[int]] = {}
        for index in self._ordinary():
            word = None if self.word_ids is None else self.word_ids[index]
            key = ("token", index) if word is None else ("word", self._sequence(index), word)
            groups.setdefault(key, []).append(index)
        return tuple(self._word(tuple(indices)) for indices in groups.values())

    def top(self, k: int = 5, *, by: Literal["abs", "positive", "negative"] = "abs", words: bool = True) -> list[Word]:
        """Return at most `k` words (tokens with `words=False`), the strongest first; equals in reading order.

        Args:
            k: how many, 1 or more.
            by: "abs" ranks by magnitude, NaN last; "positive" and "negative" keep that sign only.
            words: False ranks the tokens that are not special, each as a `Word` of one token.

        Raises:
            InvalidInputError: for another `by` or `k` below 1.
        """
        if by not in ("abs", "positive", "negative"):
            raise InvalidInputError(f"by={by!r} is unknown; allowed: 'abs', 'positive', 'negative'")
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InvalidInputError(f"k must be an integer of 1 or more, got {k!r}")
        found = self.to_words() if words else tuple(self._word((index,)) for index in self._ordinary())
        sign = {"abs": 0, "positive": 1, "negative": -1}[by]
        kept = [word for word in found if sign == 0 or sign * word.score > 0]
        return sorted(kept, key=lambda word: math.inf if math.isnan(word.score) else -abs(word.score))[:k]

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON data (no NaN) from which `from_dict` makes an equal explanation."""
        data: dict[str, Any] = {item.name: encode(getattr(self, item.name)) for item in fields(self)}
        data["layers"] = [
            {item.name: encode(getattr(layer, item.name)) for item in fields(layer)} for layer in self.layers
        ]
        return {"kind": _KIND, "schema": SCHEMA, **data}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Explanation:
        """Return the explanation `to_dict` was called on.

        Raises:
            InvalidInputError: where `data` was not made by `to_dict`, or by another schema.
        """
        with reading(data, "explanation", kind=_KIND, schema=SCHEMA):
            values = {name: decode(value) for name, value in data.items() if name not in ("kind", "schema")}
            if missing := {item.name for item in fields(cls)} - values.keys():
                raise InvalidInputError(f"data is no saved explanation: {', '.join(sorted(missing))} missing")
            values["layers"] = tuple(LayerAttention(**layer) for layer in values["layers"])
            made = cls(**values)
        return made

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one .json or .json.gz file, whole or not at all; makes no folder.

        Raises:
            InvalidInputError: for another suffix, a missing folder, or an existing file without `overwrite=True`.
        """
        write_json(self.to_dict(), Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Return the explanation saved at `path`.

        Raises:
            InvalidInputError: where the file is no saved explanation, or of another schema.
            OSError: where the file cannot be read.
        """
        return load_record(Path(path), cls.from_dict)

    def to_terminal(self, color: bool = True) -> str:
        """Return lines for a terminal, with ANSI colors or none; `str()` gives the plain form."""
        return rendering.terminal_text(
            self._pieces(), label=self.target_name, details=self._details(), facts=self._facts(), color=color
        )

    def __str__(self) -> str:
        return self.to_terminal(color=False)

    def _repr_html_(self) -> str:
        return rendering.html_fragment(
            self._pieces(),
            label=self.target_name,
            details=self._details(),
            facts=self._facts(),
            layers=layer_rows(self.layers),
        )

    def __repr__(self) -> str:
        probability = "None" if self.probability is None else f"{self.probability:.4g}"
        return (
            f"Explanation(target_name={self.target_name!r}, probability={probability}, tokens={len(self.tokens)}, "
            f"layers={len(self.layers)}, method={self.info.get('method')!r})"
        )

    def __eq__(self, other: object) -> bool:
        return same_fields(self, other) if isinstance(other, Explanation) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only mapping cannot be pickled or deep-copied; the plain form is lossless and can.
        return type(self).from_dict, (self.to_dict(),)

    def _ordinary(self) -> list[int]:
        return [index for index, special in enumerate(self.special) if not special]

    def _sequence(self, index: int) -> int | None:
        if self.sequence_ids is None:
            return 0 if len(self.texts) <= 1 else None
        return self.sequence_ids[index]

    def _total(self, indices: Sequence[int]) -> float:
        return float(self.scores[list(indices)].double().sum())

    def _word(self, indices: tuple[int, ...]) -> Word:
        score = self._total(indices)
        sequence = self._sequence(indices[0])
        if self.offsets is None or sequence is None:
            return Word("".join(self.tokens[i] for i in indices), score, None, None, sequence, indices)
        start, end = min(self.offsets[i][0] for i in indices), max(self.offsets[i][1] for i in indices)
        return Word(self.texts[sequence][start:end], score, start, end, sequence, indices)

    def _pieces(self) -> list[list[rendering.Piece]]:
        """The words in their texts, and a row of the words no text has."""
        spans: list[list[tuple[int, int, float, str]]] = [[] for _ in self.texts]
        loose: list[rendering.Piece] = []
        for word in self.to_words():
            label = word.text if word.text.strip() else "".join(self.tokens[i] for i in word.tokens)
            if word.sequence is None or word.start is None or word.end is None:
                loose += [rendering.Piece(" ")] * bool(loose) + [rendering.Piece(word.text, word.score, label)]
            else:
                spans[word.sequence].append((word.start, word.end, word.score, label))
        texts = self.texts if self.offsets is not None else ()
        pieces = [rendering.split_text(text, found) for text, found in zip(texts, spans)]
        return [*pieces, loose] if loose else pieces

    def _details(self) -> dict[str, str]:
        details = {} if self.probability is None else {"probability": f"{self.probability:.4g}"}
        names = ("method", "model", "space", "reference")
        return details | {name: str(self.info[name]) for name in names if self.info.get(name) is not None}

    def _facts(self) -> list[str]:
        """One line each on how far the scores can be trusted."""
        if self.completeness_gap is None:
            staged = self.info.get("method") == "attnlrp_iterative"
            told = "scores of stages do not add up; read their order" if staged else "not measured"
            facts = [f"Completeness: {told}."]
        else:
            facts = [
                f"Completeness gap {self.completeness_gap:.2g}: relative distance between the target's value and the "
                "sum of scores and bias terms."
            ]
        if self.layers:
            facts.append(identifiability(self.layers))
        if outside := [index for index, special in enumerate(self.special) if special]:
            names = " ".join(dict.fromkeys(self.tokens[i] for i in outside))
            share = rendering.format_score(self._total(outside))
            facts.append(f"Special tokens ({names}) hold {share} in sum, not shown.")
        warnings = self.info.get("warnings") or ()
        return facts + [f"Warning: {text}" for text in ((warnings,) if isinstance(warnings, str) else warnings)]


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)


# Tokenizers hand out lists, 0/1 masks and numpy integers: the fields become tuples of plain Python values.
_CONVERT: dict[str, Callable[[Any], Any]] = {
    "tokens": str,
    "texts": str,
    "offsets": lambda span: (int(span[0]), int(span[1])),
    "sequence_ids": _integer,
    "word_ids": _integer,
    "special": bool,
    "layers": lambda layer: layer,
}


def _check_lengths(made: Explanation) -> None:
    count = len(made.tokens)
    if count == 0:
        raise InvalidInputError("tokens must not be empty")
    for name in ("scores", "offsets", "sequence_ids", "word_ids", "special"):
        value = getattr(made, name)
        if value is not None and len(value) != count:
            raise InvalidInputError(f"{name} has {len(value)} entries for {count} tokens; one for each token is needed")
    for index, layer in enumerate(made.layers):
        if not isinstance(layer, LayerAttention):
            raise InvalidInputError(f"layers[{index}] must be a LayerAttention, got {type(layer).__name__}")
        if layer.received.shape[1] != count:
            raise InvalidInputError(
                f"layers[{index}].received has {layer.received.shape[1]} tokens, tokens has {count}"
            )


def _check_offsets(made: Explanation) -> None:
    if made.offsets is not None and not made.texts:
        raise InvalidInputError("offsets need texts: pass the original texts, or offsets=None")
    if made.offsets is not None and len(made.texts) > 1 and made.sequence_ids is None:
        raise InvalidInputError(f"sequence_ids is None for {len(made.texts)} texts: offsets need to know their text")
    for index in made._ordinary():
        sequence = made._sequence(index)
        if sequence is not None and made.texts and not 0 <= sequence < len(made.texts):
            raise InvalidInputError(f"sequence_ids[{index}] is {sequence}, but there are {len(made.texts)} texts")
        if sequence is not None and made.offsets is not None:
            start, end = made.offsets[index]
            if not 0 <= start <= end <= len(made.texts[sequence]):
                raise InvalidInputError(
                    f"offsets[{index}] is ({start}, {end}), outside of texts[{sequence}] with "
                    f"{len(made.texts[sequence])} characters"
                )
