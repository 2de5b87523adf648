"""The explanation of one input: token scores, statistics of each attention layer, and how they were computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.figures import draw
from hf_attn_mi.results.decoder import DecoderTokens
from hf_attn_mi.results.document import Block, Drawing, Facts, Heading, Table
from hf_attn_mi.results.drawings import picture_html, sound_html
from hf_attn_mi.results.explanation_checks import check_lengths, check_media, check_offsets, check_sum
from hf_attn_mi.results.layer_attention import LayerAttention, identifiability, layer_table
from hf_attn_mi.results.media import Picture, Sound, heatmap
from hf_attn_mi.results.plots.explanations import explanation_plots
from hf_attn_mi.results.record import Record
from hf_attn_mi.results.words import Piece, Words, format_score, magnitude_order, split_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DEFINITIONS = {  # docs/reading_results.md says more
    "score of a word": (
        "sum of its tokens' scores. {sign} With methods relevance and attnlrp in logits (class logit minus the mean of "
        "the others), with attnlrp_iterative in logits times the factor of its stage (only their order is "
        "meaningful), with the "
        "attention methods the attention that its tokens receive."
    ),
    "probability": "what the model gives to the class named above.",
    "completeness gap": "|value - sum of scores - bias terms| / max(|value|, sum of |scores|): the unexplained part.",
    "n, rank": "real tokens, and the rank of a head's values. Where n <= rank the output determines the attention.",
    "null-space fraction": "||A - A_eff|| / ||A||: the share of a head's attention that has no effect on its output.",
    "entropy": "of the attention rows, in nats, mean over queries: 0 for one token only, ln n for all tokens alike.",
}


@dataclass(frozen=True)
class Word:
    """A word of the input and its score.

    Attributes:
        text: the exact slice `texts[sequence][start:end]`; without offsets the token strings, joined as they are.
        score: sum of the scores of its tokens.
        start, end: characters of the text; None without offsets.
        sequence: the index of its text; None if the tokenizer does not say.
        tokens: indices of its tokens.
    """

    text: str
    score: float
    start: int | None
    end: int | None
    sequence: int | None
    tokens: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Record):
    """Which tokens of one input led to the model's output, and how reliable the scores are.

    `to_pandas` has a row for each token. No (tokens, tokens) matrix is kept.

    Attributes:
        tokens: the tokenizer's strings.
        scores: (tokens,) float, signed: positive supports the target where the method is linked to a class.
        target: index of the class explained; None when the target has none.
        target_name: its name.
        probability: the probability of the explained class; None when the target has none.
        texts: the original texts, two for a sentence pair, () when the input was tensors.
        offsets: characters (start, end) of each token in its text, without blanks at its ends; (0, 0) for special
            tokens. Also where the text itself is not known, as in a BatchEncoding.
        sequence_ids: the index of the text of each token; None for special tokens.
        word_ids: the number of the word within its text. `explain` takes the word segments of Unicode (UAX #29):
            "aren't" is one word, a token that spans several segments keeps them together, and in scripts without blanks
            (Chinese, Thai) tokens are words. Of a list of words and of tensors without text: the caller's words.
        special: whether a token is special ([CLS], [SEP], ...).
        layers: statistics of each attention layer.
        grid: (rows, columns) of the tokens that are not special, row by row: patches of an image, or (frequency bands,
            time) of a spectrogram; None for other inputs.
        picture: the image as the model sees it; None for other inputs.
        sound: the recording, and where each token lies in it; None for other inputs.
        decoder: the tokens that a decoder reads, with scores of their own; None for other models and methods, and where
            the decoder reads a copy of the input, whose words hold its part.
        completeness_gap: relative distance between the target's value and the sum of scores and bias terms.
        value: the number that the scores explain, f(x): `scores.sum() + bias == value`, up to `completeness_gap`. For
            "relevance" and "attnlrp" the explained value (see `hf_attn_mi.targets`), for the gradient methods of Captum
            the same, for its perturbation methods the probability of the class where there is one. None for methods
            whose scores do not add up.
        bias: the part of `value` that no token of the input accounts for: for "relevance" and "attnlrp" the bias terms
            of the linearized model (biases, positions and other constants, and the tokens of a decoder); for methods
            that explain f(x) - f(baseline) the value f(baseline). None where `value` is None.
        information: mutual information, JSON-like; None unless requested.
        info: how it was computed, JSON-like: model, method, versions, seconds, space, reference, warnings;
            "class_linked" (default True): whether the sign of a score refers to the class; "additive" (default True):
            whether the scores of the method are meant to sum to the target's value.

    Raises:
        InvalidInputError: lengths disagree, offsets leave their text or `info` is not JSON-like; names the field.

    Example:
        >>> import torch
        >>> explanation = Explanation(
        ...     tokens=("a", "fi", "##ne"), scores=torch.tensor([0.0, 0.5, 0.25]), target=1, target_name="positive",
        ...     probability=0.75, texts=("a fine",), offsets=((0, 1), (2, 4), (4, 6)), sequence_ids=(0, 0, 0),
        ...     word_ids=(0, 1, 1), special=(False, False, False),
        ... )
        >>> [(word.text, word.score) for word in explanation.top(1)]
        [('fine', 0.75)]
        >>> Explanation.from_dict(explanation.to_dict()) == explanation
        True
    """

    TYPE: ClassVar[str] = "hf_attn_mi.Explanation"
    NOUN: ClassVar[str] = "explanation"
    ADDED: ClassVar[frozenset[str]] = frozenset({"value", "bias"})

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
    grid: tuple[int, int] | None = None
    picture: Picture | None = None
    sound: Sound | None = None
    decoder: DecoderTokens | None = None
    value: float | None = None
    bias: float | None = None

    def heatmap(self, size: tuple[int, int] | None = None) -> np.ndarray[Any, Any]:
        """Return the scores as a map over the image (or over frequency and time), special tokens left out.

        Args:
            size: (height, width) to interpolate to, such as those of the image, bilinear; None for one entry a patch.

        Returns:
            (rows, columns) or `size`, float64.

        Raises:
            InvalidInputError: the tokens form no grid, or the size is invalid.
        """
        if self.grid is None:
            raise InvalidInputError(
                f"a map needs patches in rows and columns; these are {len(self.tokens)} tokens without a grid"
            )
        return heatmap(self.scores[self._ordinary()], self.grid, size)

    def plot(
        self, path: str | Path | None = None, *, kind: str | None = None, ax: Axes | None = None, most: int = 20
    ) -> Figure:
        """Return a matplotlib figure of the scores.

        Args:
            path, ax: as in `Record.plot`.
            kind: "words" (bars of the strongest words), "tokens", "text" (the text with a color behind each word) or
                "heads" (layers x heads, colored by the share of attention without effect); for an image also "image",
                for a recording "sound", which are their defaults.
            most: the number of bars of "words" and "tokens", 1 or more.

        Raises:
            BackendUnavailableError: matplotlib is not installed (extra `plots`).
            InvalidInputError: another kind, "heads" without layers, `most` below 1, or a path that cannot be written.
        """
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidInputError(f"most must be an integer of 1 or more, got {shown(most)}")
        return draw(explanation_plots(self, most), self.NOUN, path, kind, ax)

    def to_words(self) -> tuple[Word, ...]:
        """Return the words in reading order; a word's score is the sum of its tokens' scores.

        Words are numbered by `word_ids` within each text, never guessed from signs such as "##"; without `word_ids`
        every token is a word. Special tokens are left out. Text is cut from the original by offsets.
        """
        groups: dict[tuple[object, ...], list[int]] = {}
        for index in self._ordinary():
            word = None if self.word_ids is None else self.word_ids[index]
            key = ("token", index) if word is None else ("word", self._sequence(index), word)
            groups.setdefault(key, []).append(index)
        return tuple(self._word(tuple(indices)) for indices in groups.values())

    def top(self, k: int = 5, *, by: Literal["abs", "positive", "negative"] = "abs", words: bool = True) -> list[Word]:
        """Return at most `k` words (tokens with `words=False`), the strongest first; ties in reading order.

        Args:
            k: the number of words, 1 or more.
            by: "abs" ranks by magnitude, NaN last; "positive" and "negative" keep that sign only.
            words: False ranks the tokens that are not special, each as a `Word` of one token.

        Raises:
            InvalidInputError: another `by`, or `k` below 1.
        """
        if by not in ("abs", "positive", "negative"):
            raise InvalidInputError(f"by={shown(by)} is unknown; allowed: 'abs', 'positive', 'negative'")
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InvalidInputError(f"k must be an integer of 1 or more, got {shown(k)}")
        candidates = self.to_words() if words else tuple(self._word((index,)) for index in self._ordinary())
        sign = {"abs": 0, "positive": 1, "negative": -1}[by]
        kept = [word for word in candidates if sign == 0 or sign * word.score > 0]
        return sorted(kept, key=lambda word: magnitude_order(word.score))[:k]

    def _check(self) -> None:
        check_sum(self)
        check_lengths(self)
        check_media(self)
        check_offsets(self)

    def _blocks(self) -> list[Block]:
        details = {} if self.probability is None else {"probability": f"{self.probability:.4g}"}
        names = ("method", "model", "space", "reference")
        details |= {name: str(self.info[name]) for name in names if self.info.get(name) is not None}
        unit = "patch" if self.grid is not None else "word" if self.sound is None else "moment"
        words = Words(self._pieces(), self.target_name, bool(self.info.get("class_linked", True)), unit)
        blocks: list[Block] = [Heading(self.target_name, details), self._drawn(words), Facts(self._facts())]
        if self.decoder is not None:
            blocks.insert(2, self.decoder.table())
        if self.layers:
            blocks.append(replace(layer_table(self.layers), title="Attention per layer", folded=True))
        sign = (
            "Positive scores are evidence for the class named above."
            if words.class_linked
            else "It does not refer to a class."
        )
        rows = [[name, meaning.format(sign=sign)] for name, meaning in _DEFINITIONS.items()]
        return [*blocks, Table((), rows, title="What these numbers mean", folded=True)]

    def _drawn(self, words: Words) -> Block:
        """The words, drawn over the image or the waveform where there is one."""
        places = self._ordinary()
        scores, names = self.scores[places], [self.tokens[i] for i in places]
        if self.sound is not None and self.grid is None:
            return Drawing(sound_html(self.sound, scores, self.sound.seconds[places], names), words)
        if self.grid is not None:
            return Drawing(picture_html(self.picture, scores, self.grid, names, upward=self.sound is not None), words)
        return words

    def _columns(self) -> dict[str, list[Any]]:
        columns = {"token": list(self.tokens), "score": self.scores.tolist(), "special": list(self.special)}
        if self.value is not None:
            columns |= {"value": [self.value] * len(self.tokens), "bias": [self.bias] * len(self.tokens)}
        for name, values in (("sequence", self.sequence_ids), ("word", self.word_ids)):
            columns[name] = [None] * len(self.tokens) if values is None else list(values)
        for place, name in enumerate(("start", "end")):
            columns[name] = [None] * len(self.tokens) if self.offsets is None else [x[place] for x in self.offsets]
        if self.grid is not None:
            place_of = {index: place for place, index in enumerate(self._ordinary())}
            cells = [
                divmod(place_of[i], self.grid[1]) if i in place_of else (None, None) for i in range(len(self.tokens))
            ]
            columns |= {"row": [row for row, _ in cells], "column": [column for _, column in cells]}
        if self.sound is not None:
            columns |= {
                name: self.sound.seconds[:, i].tolist() for i, name in enumerate(("seconds_from", "seconds_to"))
            }
        return columns

    def _summary(self) -> dict[str, object]:
        return {
            "target_name": self.target_name,
            "probability": None if self.probability is None else float(f"{self.probability:.4g}"),
            "tokens": len(self.tokens),
            "layers": len(self.layers),
            "method": self.info.get("method"),
        }

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
        text = self.texts[sequence][start:end] if self.texts else "".join(self.tokens[i] for i in indices)
        return Word(text, score, start, end, sequence, indices)

    def _pieces(self) -> list[list[Piece]]:
        """The words in their texts, and a row of those in no text; the names of words that occur twice say where."""
        spans: list[list[tuple[int, int, float, str]]] = [[] for _ in self.texts]
        outside: list[Piece] = []
        words = self.to_words()
        times, numbers = Counter(word.text for word in words), Counter[int | None]()
        for word in words:
            numbers[word.sequence] += 1
            label = word.text if word.text.strip() else "".join(self.tokens[i] for i in word.tokens)
            if times[word.text] > 1:  # its number in its text says which of them it is
                text = f"text {(word.sequence or 0) + 1}, " if len(self.texts) > 1 else ""
                label = f"{label.strip()} ({text}word {numbers[word.sequence]})"
            if not self.texts or word.sequence is None or word.start is None or word.end is None:
                outside += [Piece(" ")] * bool(outside) + [Piece(word.text, word.score, label)]
            else:
                spans[word.sequence].append((word.start, word.end, word.score, label))
        texts = self.texts if self.offsets is not None else ()
        pieces = [split_text(text, words) for text, words in zip(texts, spans)]
        return [*pieces, outside] if outside else pieces

    def _sum(self) -> list[str]:
        """The sum from the scores to the value in one line; none where it is not known."""
        if self.value is None or self.bias is None:
            return []
        total = self._total(range(len(self.tokens)))
        rest = "f(baseline)" if self.info.get("adds_up_to") else "bias terms"
        return [f"Value {self.value:.4g} = sum of scores {total:.4g} + {rest} {self.bias:.4g}, up to the gap."]

    def _facts(self) -> list[str]:
        """One line each on how reliable the scores are."""
        if self.completeness_gap is not None:
            sides = "the target's value and the sum of scores and bias terms"
            if whole := self.info.get("adds_up_to"):
                sides = f"{whole} and the sum of scores"
            facts = [f"Completeness gap {self.completeness_gap:.2g}: relative distance between {sides}."]
            facts += self._sum()
        elif self.info.get("additive", True):
            facts = ["Completeness: not measured."]
        else:
            facts = [
                "Completeness: the scores of this method do not add up to the output; only their order is meaningful."
            ]
        if windows := self.info.get("windows"):
            facts.append(
                f"Explained over {windows['count']} windows of at most {windows['limit']} tokens, of which neighbors "
                f"share {windows['stride']}: the class is that of the {windows['aggregation']}."
            )
        if self.layers:
            facts.append(identifiability(self.layers))
        if outside := [index for index, special in enumerate(self.special) if special]:
            names = " ".join(dict.fromkeys(self.tokens[i] for i in outside))
            facts.append(f"Special tokens ({names}) hold {format_score(self._total(outside))} in sum, not shown.")
        warnings = self.info.get("warnings") or ()
        return facts + [f"Warning: {text}" for text in ((warnings,) if isinstance(warnings, str) else warnings)]
