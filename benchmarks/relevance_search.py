"""Is there a better token score than relevance for a few forwards more? The search, and the test of what it found.

    python benchmarks/relevance_search.py development                          # every candidate, training texts
    python benchmarks/relevance_search.py confirmation --candidates A [B]      # at most two, test texts, once
    python benchmarks/relevance_search.py table                                # the tables of docs/methods/relevance.md

Protocol, written before any candidate was run, but for two changes: sizes were cut for cost after two texts had been
tried, and the clause on deletion was added after 10 to 20 development texts a set.

- Development: minilm-sentiment on 60 phrases of SST-2 train (8 words or more: train holds phrases, dev sentences) and
  on 40 reviews of IMDB train and dev (cut to 128 tokens), minilm-agnews on 60 texts of AG News train. Removal "delete".
- Confirmation: 200 texts each of SST-2 dev, IMDB test (cut to 256 tokens) and AG News test, run once, for at most two
  candidates; removal "delete" (judged) and "attention_mask" (must not contradict).
- Texts are drawn with seed 0. The predicted class is explained. Metrics: comprehensiveness (higher is better) and
  sufficiency (lower is better) over the ERASER bins. Differences to relevance are paired by text, with the 95 %
  bootstrap interval of `hf_attn_mi.evaluation`. No correction for the number of candidates on development data: the
  confirmation run is the only test.
- Choice on development data: the largest mean over the three sets of the difference in comprehensiveness (delete)
  among the candidates that cost at most 10 forwards ("plus"), and among those of at most 4 ("default"), without those
  that lose more than .005 sufficiency on any set; within .002 of the best the cheapest, then the first in the list.
  Candidates that delete are for comparison: a method has to mask keys, which most models take.
- Confirmed: the interval of the difference in comprehensiveness lies above 0 on AG News and on IMDB, and the intervals
  of all other differences, sufficiency too, exclude a loss of .01.
- Cost of an input: a pass of relevance is a forward and a backward to the activations alone, measured at about 2 plain
  forwards (`forwards`); by the convention that a backward counts as two it is 3 (`forwards_3`). A pass with deleted
  tokens counts by its share of the tokens. Limits are read in measured forwards.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from materials import load, load_tokenizer
from measuring import ROOT, provenance
from torch import Tensor, nn

from hf_attn_mi.evaluation import ERASER_BINS, Probabilities, comprehensiveness, estimate, sufficiency
from hf_attn_mi.evaluation.areas import top_sets
from hf_attn_mi.relevance import relevance

SHARED = ROOT.parent / "shared"
OUTPUT = ROOT / "benchmarks" / "results" / "relevance_search.jsonl"
REMOVALS = {"development": ("delete",), "confirmation": ("delete", "attention_mask")}
METRICS = ("comprehensiveness", "sufficiency")
SETS = {  # stage -> name -> model, files, texts, longest, fewest words
    "development": {
        "sst2": ("minilm-sentiment", ["sst2/train"], 60, 128, 8),
        "imdb": ("minilm-sentiment", ["imdb/train", "imdb/dev"], 40, 128, 0),
        "agnews": ("minilm-agnews", ["agnews/train"], 60, 128, 0),
    },
    "confirmation": {
        "sst2": ("minilm-sentiment", ["sst2/dev"], 200, 256, 0),
        "imdb": ("minilm-sentiment", ["imdb/test"], 200, 256, 0),
        "agnews": ("minilm-agnews", ["agnews/test"], 200, 256, 0),
    },
}
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


Pass = tuple[frozenset[int], str, Contrast]  # tokens that are gone; "mask" or "delete"; what is explained
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
            for contrast in dict.fromkeys(key[2] for key in fresh):
                self._score([key for key in fresh if key[2] is contrast])
            answers = {name: self._known[key] for name, key in asked.items()}
        sizes = {n: sum(1 - len(g) / len(self.ids) if how == "delete" else 1 for g, how, _ in passes[n]) for n in names}
        return found, {n: (2 * sizes[n] + PLAIN.get(n, 0), 3 * sizes[n] + PLAIN.get(n, 0)) for n in names}

    def _score(self, keys: list[Pass]) -> None:
        kept = [torch.tensor([i for i in range(len(self.ids)) if i not in gone]) for gone, _, _ in keys]
        at = [torch.arange(len(k)) if how == "delete" else k for k, (_, how, _) in zip(kept, keys)]
        inputs = compact([self.ids[k] for k in kept], at)
        found = relevance(self.model, inputs, lambda outputs: keys[0][2](outputs.logits, self.chosen)).scores
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


def asks(gone: Iterable[int] = (), how: str = "mask", contrast: Contrast = mean_contrast) -> Pass:
    """The pass without these tokens."""
    absent = frozenset(gone)
    return absent, how if absent else "mask", contrast


def descending(scores: Tensor, tokens: Iterable[int]) -> list[int]:
    """These tokens, the highest score first."""
    return sorted(tokens, key=lambda i: (-float(scores[i]), i))


def plain(text: Text, contrast: Contrast = mean_contrast) -> Ranking:
    """The order of relevance."""
    return descending((yield asks(contrast=contrast)), text.tokens)


def rescored(
    text: Text, schedule: Sequence[float], how: str = "mask", join: str = "above", contrast: Contrast = mean_contrast
) -> Ranking:
    """The top is taken out, the rest scored again, and so on; how the stages are joined:

    above: what was taken out first ranks first, in the order of its stage. raw, mean, largest: by the last, mean or
    largest score of a token over the stages that it took part in. positive: as above; only positive scores are taken.
    """
    found = yield asks(contrast=contrast)
    history: dict[int, list[float]] = {i: [float(found[i])] for i in text.tokens}
    gone: list[int] = []
    for share in schedule:
        rest = descending(found, set(text.tokens) - set(gone))
        more = rest[: max(0, text.count(share) - len(gone))]
        more = [i for i in more if join != "positive" or found[i] > 0]
        if more:
            gone += more
            found = yield asks(gone, how, contrast)
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
}
PLAIN = {"top 4 by leave-one-out": 5, "top 8 mixed with leave-one-out": 9}  # forwards without a backward
SEVERAL_CLASSES = {"log-softmax", "runner-up", "5/10/20, log-softmax", "5/10/20, runner-up"}  # of two: as without


def read(files: list[str], count: int, words: int) -> list[str]:
    """That many texts, drawn with seed 0."""
    texts = []
    for name in files:
        with gzip.open(SHARED / "data" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    return random.Random(0).sample([text for text in texts if len(text.split()) >= words], count)


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


def judged(text: Text, orders: dict[str, list[int]], removals: Sequence[str]) -> dict[tuple[str, str, str], Any]:
    """(removal, metric, candidate) -> value of this text."""
    values: dict[tuple[str, str, str], Any] = {}
    example = {"input_ids": text.ids, "attention_mask": torch.ones_like(text.ids)}
    scores = {}
    for name, order in orders.items():
        scores[name] = torch.zeros(len(text.ids))
        scores[name][order] = torch.arange(len(order), 0, -1).float()
    for removal in removals:
        found = Probabilities(predictor(text.model, text.chosen), example, text.special, removal)
        tops = [top for s in scores.values() for top in top_sets(found, s, ERASER_BINS, "signed")]
        found.removed([*tops, *(frozenset(found.tokens) - top for top in tops)])  # all at once
        for name, s in scores.items():
            values[removal, "comprehensiveness", name] = comprehensiveness(found, s).mean
            values[removal, "sufficiency", name] = sufficiency(found, s).mean
    return values


def run(stage: str, data: str, names: list[str], limit: int | None) -> list[dict[str, Any]]:
    """The rows of one data set."""
    folder, files, count, longest, words = SETS[stage][data]
    model, tokenizer = load(SHARED / "models" / folder), load_tokenizer(SHARED / "models" / folder)
    names = [name for name in names if model.config.num_labels > 2 or name not in SEVERAL_CLASSES]
    values: dict[tuple[str, str, str], list[Any]] = {}
    cost: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    lengths, began = list[int](), time.process_time()
    for raw in read(files, count, words)[:limit]:
        encoded = tokenizer(raw, truncation=True, max_length=longest, return_special_tokens_mask=True)
        text = Text(model, torch.tensor(encoded["input_ids"]), torch.tensor(encoded["special_tokens_mask"]).bool())
        if len(text.tokens) < 2:
            continue
        lengths.append(len(text.tokens))
        orders, costs = text.orders(names)
        assert all(sorted(order) == text.tokens for order in orders.values())
        for name in names:
            cost[name].append(costs[name])
        for key, value in judged(text, orders, REMOVALS[stage]).items():
            values.setdefault(key, []).append(value)
    about = dict(stage=stage, data=data, model=folder, texts=len(lengths), tokens=statistics.fmean(lengths))
    about |= {"seconds_in_all": time.process_time() - began, "candidates": len(names), **provenance()}
    return [_row(name, values, cost[name], about) for name in names]


def _row(name: str, values: Any, cost: list[tuple[float, float]], about: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(("forwards", "forwards_3"), map(statistics.fmean, zip(*cost))), name=name)
    for removal in REMOVALS[about["stage"]]:
        for metric in METRICS:
            mine, base = values[removal, metric, name], values[removal, metric, "relevance"]
            found = estimate([a - b for a, b in zip(mine, base)])
            mean = statistics.fmean(mine)
            row[f"{metric} {removal}"] = {"mean": mean, "difference": found.mean, "interval": found.interval}
    return row | about


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a row for each candidate: differences to relevance with their intervals."""
    lines, sets = list[str](), list(SETS["development"])
    for stage in SETS:
        mine = {(row["name"], row["data"]): row for row in rows if row["stage"] == stage}
        names = list(dict.fromkeys(name for name, _ in mine))
        for removal in REMOVALS[stage] if mine else ():
            titles = ["score", "forwards", *(f"{data} {short}" for data in sets for short in ("comp", "suff"))]
            lines += ["", f"{stage}, removal {removal}", "", f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
            for name in names:
                known = [mine[name, data] for data in sets if (name, data) in mine]
                cells = [name, f"{statistics.fmean(row['forwards'] for row in known):.1f}"]
                for data in sets:
                    cells += [_cell(mine.get((name, data)), f"{metric} {removal}") for metric in METRICS]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None, key: str) -> str:
    if row is None:
        return "same"
    if row["name"] == "relevance":
        return f"{row[key]['mean']:.3f}"
    low, high = row[key]["interval"]
    return f"{row[key]['difference']:+.3f} ({low:+.3f}, {high:+.3f})"


def main() -> None:
    """Run one stage, or print the tables."""
    parser = argparse.ArgumentParser(description="Search for a better token score than relevance.")
    parser.add_argument("stage", choices=[*SETS, "table"])
    parser.add_argument("--candidates", nargs="+", choices=list(CANDIDATES))
    parser.add_argument("--data", nargs="+", choices=list(SETS["development"]), default=list(SETS["development"]))
    parser.add_argument("--limit", type=int, help="texts a set, to try the script: nothing is written")
    arguments = parser.parse_args()
    known = [json.loads(line) for line in OUTPUT.read_text().splitlines()] if OUTPUT.exists() else []
    if arguments.stage == "table":
        return print(table(known))
    if arguments.stage == "confirmation" and len(arguments.candidates or []) not in (1, 2):
        parser.error("confirmation takes one or two --candidates.")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    names = list(dict.fromkeys(["relevance", *(arguments.candidates or CANDIDATES)]))
    for data in arguments.data:
        found = run(arguments.stage, data, names, arguments.limit)
        print(table(found), f"\n{data}: {found[0]['seconds_in_all']:.0f} s", flush=True)
        if arguments.limit is None:
            known = [row for row in known if (row["stage"], row["data"]) != (arguments.stage, data)] + found
            OUTPUT.write_text("".join(json.dumps(row) + "\n" for row in known), encoding="utf-8")


if __name__ == "__main__":
    main()
