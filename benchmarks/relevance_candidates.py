"""The candidates of relevance_search.py: ways to order the tokens of a text from passes of relevance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from hf_attn_mi.methods.relevance import Rows, relevance

Contrast = Callable[[Tensor, int], Tensor]  # (1, classes) logits, class -> (1,) explained value


def mean_contrast(logits: Tensor, chosen: int) -> Tensor:
    """The logit minus the mean of the others: what `explain` explains."""
    own = logits[:, chosen]
    return own - (logits.sum(1) - own) / (logits.shape[1] - 1)


def log_softmax(logits: Tensor, chosen: int) -> Tensor:
    """The logit minus the mean of the others weighted by their probability, held fixed."""
    weights = logits.detach().double().softmax(1)
    weights[:, chosen] = 0
    return logits[:, chosen] - (logits * weights / weights.sum(1, keepdim=True)).sum(1)


def runner_up(logits: Tensor, chosen: int) -> Tensor:
    """The logit minus the largest of the others."""
    return logits[:, chosen] - logits.index_fill(1, torch.tensor([chosen]), -math.inf).max(1).values


Pass = tuple[frozenset[int], str, Contrast, Rows]  # tokens that are gone; "mask" or "delete"; what is explained
Ranking = Generator[Pass, Tensor, list[int]]  # asks for passes of relevance, ends with tokens, the most relevant first


@dataclass
class Text:
    """One text without some of its tokens: probabilities, and relevance in batches over what all candidates ask for."""

    model: nn.Module
    ids: Tensor  # (tokens,)
    special: Tensor  # (tokens,) bool
    chosen: int = field(init=False)
    tokens: list[int] = field(init=False)  # without the special ones
    _known: dict[Pass, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with torch.no_grad():
            self.chosen = int(self.model(input_ids=self.ids[None]).logits.argmax())
        self.tokens = (~self.special).nonzero().flatten().tolist()

    def orders(self, names: Sequence[str]) -> tuple[dict[str, list[int]], dict[str, tuple[float, float]]]:
        """The order of each candidate, and its cost: in forwards, and with a backward as two forwards."""
        found, passes = {}, {name: set[Pass]() for name in names}
        running = {name: CANDIDATES[name](self) for name in names}
        answers: dict[str, Tensor | None] = dict.fromkeys(names)
        while running:
            asked: dict[str, Pass] = {}
            for name in list(running):
                try:
                    asked[name] = running[name].send(answers[name])  # type: ignore[arg-type]
                    passes[name].add(asked[name])
                except StopIteration as end:
                    found[name] = end.value
                    del running[name]
            fresh = [key for key in dict.fromkeys(asked.values()) if key not in self._known]
            for kind in dict.fromkeys(key[2:] for key in fresh):
                self._score([key for key in fresh if key[2:] == kind])
            answers = {name: self._known[key] for name, key in asked.items()}
        return found, {n: self._cost(passes[n], PLAIN.get(n, 0)) for n in names}

    def _cost(self, passes: set[Pass], plain: int) -> tuple[float, float]:
        size = sum(1 - len(gone) / len(self.ids) if how == "delete" else 1 for gone, how, *_ in passes)
        return 2 * size + plain, 3 * size + plain

    def _score(self, keys: list[Pass]) -> None:
        kept = [torch.tensor([i for i in range(len(self.ids)) if i not in gone]) for gone, *_ in keys]
        at = [torch.arange(len(k)) if how == "delete" else k for k, (_, how, *_) in zip(kept, keys)]
        inputs = compact([self.ids[k] for k in kept], at)
        _, _, contrast, rows = keys[0]
        found = relevance(self.model, inputs, lambda o: contrast(o.logits, self.chosen), rows=rows).scores
        for key, places, row in zip(keys, kept, found):
            self._known[key] = torch.zeros(len(self.ids)).index_copy(0, places, row[: len(places)])

    def count(self, share: float) -> int:
        """Tokens in this share: shares of 1 and more are numbers of tokens."""
        wanted = int(share) if share >= 1 else math.ceil(round(share * len(self.tokens), 9))
        return min(wanted, len(self.tokens) - 1)


def compact(ids: Sequence[Tensor], positions: Sequence[Tensor]) -> dict[str, Tensor]:
    """A padded batch. Tokens at their own positions without the masked ones: what BERT computes under that mask."""
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    mask = pad([torch.ones_like(row) for row in ids])
    return {"input_ids": pad(list(ids)), "position_ids": pad(list(positions)), "attention_mask": mask}


def asks(
    gone: Iterable[int] = (), how: str = "mask", contrast: Contrast = mean_contrast, rows: Rows = "constant"
) -> Pass:
    """The pass without these tokens."""
    absent = frozenset(gone)
    return absent, how if absent else "mask", contrast, rows


def descending(scores: Tensor, tokens: Iterable[int]) -> list[int]:
    """These tokens, the highest score first."""
    return sorted(tokens, key=lambda i: (-float(scores[i]), i))


def plain(text: Text, contrast: Contrast = mean_contrast, rows: Rows = "constant") -> Ranking:
    """The order of relevance."""
    return descending((yield asks(contrast=contrast, rows=rows)), text.tokens)


def rescored(
    text: Text,
    schedule: Sequence[float],
    how: str = "mask",
    join: str = "above",
    contrast: Contrast = mean_contrast,
    rows: Rows = "constant",
) -> Ranking:
    """The top is taken out, the rest scored again, and so on; how the stages are joined:

    above: what was taken out first ranks first, in the order of its stage. raw, mean, largest: by the last, mean or
    largest score of a token over the stages that it took part in. positive: as above; only positive scores are taken.
    """
    found = yield asks(contrast=contrast, rows=rows)
    history: dict[int, list[float]] = {i: [float(found[i])] for i in text.tokens}
    gone: list[int] = []
    for share in schedule:
        rest = descending(found, set(text.tokens) - set(gone))
        more = rest[: max(0, text.count(share) - len(gone))]
        more = [i for i in more if join != "positive" or found[i] > 0]
        if more:
            gone += more
            found = yield asks(gone, how, contrast, rows)
            for i in set(text.tokens) - set(gone):
                history[i].append(float(found[i]))
    if join in ("above", "positive"):
        return gone + descending(found, set(text.tokens) - set(gone))
    by = {"raw": lambda seen: seen[-1], "mean": statistics.fmean, "largest": max}[join]
    return sorted(text.tokens, key=lambda i: (-by(history[i]), i))


def from_below(text: Text, schedule: Sequence[float], then: Sequence[float] = ()) -> Ranking:
    """The bottom is masked, the rest scored again, and so on; `then` the top is taken out and the others scored."""
    found, low = (yield asks()), list[int]()
    for share in schedule:
        rest = descending(found, set(text.tokens) - set(low))
        low = rest[len(rest) - max(0, text.count(share) - len(low)) :] + low
        found = yield asks(low)
    order = descending(found, set(text.tokens) - set(low)) + low
    for share in then:
        top = order[: text.count(share)]
        order = top + descending((yield asks(top)), set(text.tokens) - set(top))
    return order


def averaged(text: Text, kept: float) -> Ranking:
    """Relevance of the text plus that of its top share alone, each divided by its sum of magnitudes."""
    first = yield asks()
    second = yield asks(descending(first, text.tokens)[text.count(kept) :])
    first, second = (s / s[text.tokens].abs().sum().clamp_min(1e-12) for s in (first, second))
    return descending(first + second, text.tokens)


def corrected(text: Text, top: int, mixed: bool = False) -> Ranking:
    """The top few in the order of their leave-one-out (or, `mixed`, of the sum of both after division by their sum)."""
    first = yield asks()
    order = descending(first, text.tokens)
    head = order[:top]
    masks = torch.ones(len(head) + 1, len(text.ids), dtype=torch.long)
    masks[range(len(head)), head] = 0  # the last row stays whole
    found = predictor(text.model, text.chosen)([{"input_ids": text.ids, "attention_mask": mask} for mask in masks])
    falls = torch.zeros_like(first).index_copy(0, torch.tensor(head), (found[-1] - found[:-1]).float())
    if mixed:
        falls = falls / falls.abs().sum().clamp_min(1e-12) + first / first[head].abs().sum().clamp_min(1e-12)
    return descending(falls, head) + order[top:]


R = rescored
CANDIDATES: dict[str, Callable[[Text], Ranking]] = {
    "relevance": plain,
    **{f"again without the top {100 * s:g} %": partial(R, schedule=[s]) for s in (0.05, 0.1, 0.2, 0.3, 0.5)},
    "again without the top token": partial(R, schedule=[1]),
    "top 10 %, deleted": partial(R, schedule=[0.1], how="delete"),
    "top 20 %, last score": partial(R, schedule=[0.2], join="raw"),
    "5/20": partial(R, schedule=[0.05, 0.2]),
    "10/30": partial(R, schedule=[0.1, 0.3]),
    "10/30, positive scores": partial(R, schedule=[0.1, 0.3], join="positive"),
    "10/30, deleted": partial(R, schedule=[0.1, 0.3], how="delete"),
    "5/10/20": partial(R, schedule=[0.05, 0.1, 0.2]),
    "5/10/20, deleted": partial(R, schedule=[0.05, 0.1, 0.2], how="delete"),
    "5/10/20, last score": partial(R, schedule=[0.05, 0.1, 0.2], join="raw"),
    "5/10/20, mean score": partial(R, schedule=[0.05, 0.1, 0.2], join="mean"),
    "5/10/20, largest score": partial(R, schedule=[0.05, 0.1, 0.2], join="largest"),
    "5/10/20, positive scores": partial(R, schedule=[0.05, 0.1, 0.2], join="positive"),
    "10/20/40": partial(R, schedule=[0.1, 0.2, 0.4]),
    "1, 2, 3 tokens": partial(R, schedule=[1, 2, 3]),
    "5/10/20/40": partial(R, schedule=[0.05, 0.1, 0.2, 0.4]),
    "5/10/20/40, deleted": partial(R, schedule=[0.05, 0.1, 0.2, 0.4], how="delete"),
    "10/20/30/40": partial(R, schedule=[0.1, 0.2, 0.3, 0.4]),
    "from below, 50 %": partial(from_below, schedule=[0.5]),
    "from below, 50 %, then top 10 %": partial(from_below, schedule=[0.5], then=[0.1]),
    "from below, 50 %, then 5/10/20": partial(from_below, schedule=[0.5], then=[0.05, 0.1, 0.2]),
    "mean with top 50 % alone": partial(averaged, kept=0.5),
    "mean with top 20 % alone": partial(averaged, kept=0.2),
    "top 4 by leave-one-out": partial(corrected, top=4),
    "top 8 mixed with leave-one-out": partial(corrected, top=8, mixed=True),
    "log-softmax": partial(plain, contrast=log_softmax),
    "runner-up": partial(plain, contrast=runner_up),
    "5/10/20, log-softmax": partial(R, schedule=[0.05, 0.1, 0.2], contrast=log_softmax),
    "5/10/20, runner-up": partial(R, schedule=[0.05, 0.1, 0.2], contrast=runner_up),
    "linear rows": partial(plain, rows="linear"),
    "linear rows, again without the top 10 %": partial(R, schedule=[0.1], join="positive", rows="linear"),
    "linear rows, 10/30": partial(R, schedule=[0.1, 0.3], join="positive", rows="linear"),
    "linear rows, 5/10/20": partial(R, schedule=[0.05, 0.1, 0.2], join="positive", rows="linear"),
    "linear rows, 10/20/40": partial(R, schedule=[0.1, 0.2, 0.4], join="positive", rows="linear"),
}
PLAIN = {"top 4 by leave-one-out": 5, "top 8 mixed with leave-one-out": 9}  # forwards without a backward
SEVERAL_CLASSES = {"log-softmax", "runner-up", "5/10/20, log-softmax", "5/10/20, runner-up"}  # of two: as without


def predictor(model: nn.Module, chosen: int) -> Callable[[Sequence[dict[str, Tensor]]], Tensor]:
    """Examples of unequal length -> probabilities, without the masked tokens and with little padding."""

    def predict(examples: Sequence[dict[str, Tensor]]) -> Tensor:
        kept = [example["attention_mask"].nonzero()[:, 0] for example in examples]
        order = sorted(range(len(examples)), key=lambda i: len(kept[i]))
        found = torch.zeros(len(examples), dtype=torch.float64)
        while order:
            mine = [i for i in order[:32] if len(kept[i]) <= 1.25 * len(kept[order[0]]) + 4]
            order = order[len(mine) :]
            batch = compact([examples[i]["input_ids"][kept[i]] for i in mine], [kept[i] for i in mine])
            with torch.no_grad():
                found[mine] = model(**batch).logits.double().softmax(1)[:, chosen]
        return found

    return predict
