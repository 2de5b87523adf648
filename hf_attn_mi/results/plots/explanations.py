"""The figures of an explanation: words, text, image or waveform, and the heads of its attention layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hf_attn_mi.figures import percent
from hf_attn_mi.results.plots.heads import draw_heads
from hf_attn_mi.results.plots.media import plot_picture, plot_sound
from hf_attn_mi.results.plots.words import TextPart, parts_of, plot_text, plot_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_attn_mi.results.explanation import Explanation


def explanation_plots(one: Explanation, most: int) -> dict[str, Callable[[Axes | None], Figure]]:
    """Return kind -> function that draws it; the first kind is the default.

    Args:
        one: the explanation.
        most: the number of bars of "words" and "tokens".
    """
    title, linked = explanation_title(one), bool(one.info.get("class_linked", True))

    def words(ax: Axes | None) -> Figure:
        largest = one.top(most)
        names, scores = [word.text for word in largest], [word.score for word in largest]
        return plot_words(names, scores, title=title, ax=ax, linked=linked)

    def tokens(ax: Axes | None) -> Figure:
        places = [word.tokens[0] for word in one.top(most, words=False)]
        scores = one.scores[places].tolist()
        return plot_words([one.tokens[i] for i in places], scores, title=title, ax=ax, linked=linked)

    def text(ax: Axes | None) -> Figure:
        rows = parts_of(one._pieces())
        return plot_text(rows, title=title, ax=ax, target=one.target_name, linked=linked)

    def heads(ax: Axes | None) -> Figure:
        return draw_heads(one.layers, ax)

    plots: dict[str, Callable[[Axes | None], Figure]] = {"words": words, "tokens": tokens, "text": text, "heads": heads}
    places = one._ordinary()
    sound, grid, scores = one.sound, one.grid, one.scores[places]
    if sound is not None:
        return {"sound": lambda ax: plot_sound(sound, scores, sound.seconds[places], grid, title=title, ax=ax), **plots}
    if grid is not None:
        return {"image": lambda ax: plot_picture(one.picture, scores, grid, title=title, ax=ax), **plots}
    return plots


def explanation_title(one: Explanation) -> str:
    """Return the explained target with its probability, and the method."""
    probability = "" if one.probability is None else f", {percent(one.probability)}"
    method = one.info.get("method")
    return f"{one.target_name}{probability}" + (f" ({method})" if method else "")


def marked_parts(one: Explanation, in_set: frozenset[int]) -> list[list[TextPart]]:
    """Return the parts of the texts, with the words of a set of tokens underlined."""
    words = one.to_words()
    marked = {(word.sequence, word.start, word.end) for word in words if in_set & set(word.tokens)}
    texts = {(word.sequence, word.text.strip()) for word in words if in_set & set(word.tokens)}
    rows = []
    for number, row in enumerate(one._pieces()):
        at, parts = 0, []
        for piece in row:
            start, at = at, at + len(piece.text)
            places = {(word.start, word.end) for word in words if (number, word.start, word.end) in marked}
            inside = any(low is not None and high is not None and low < at and start < high for low, high in places)
            outside = number >= len(one.texts) and (None, piece.text.strip()) in texts
            parts.append(TextPart(piece.text, piece.score, piece.score is not None and (inside or outside)))
        rows.append(parts)
    return rows
