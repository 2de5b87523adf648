"""The third search for a better order of the tokens: single passes, and four passes that win sufficiency too.

    S=benchmarks/studies/faithfulness/further_search.py
    python $S development                                  # every candidate, training texts only
    python $S confirmation --candidates A [B]              # once, on texts that no earlier run drew
    python $S                                              # prints the tables of docs/methods/score_search.md

`attnlrp_iterative` takes four passes, and loses .003 to .006 of sufficiency to one pass of AttnLRP. Wanted are a single
pass with its comprehensiveness, or at most four passes with its comprehensiveness and the sufficiency of AttnLRP.

Protocol, written before any candidate was run; after two texts of each set had been tried, sizes and four candidates
were cut for cost:

- Development: training texts, drawn with seed 1: phrases of SST-2 train (8 words or more) and reviews of IMDB train
  with minilm-sentiment, AG News train with minilm-agnews; texts are cut to 128 tokens. The predicted class is
  explained, tokens are deleted. Differences are paired by text, with the 95 % bootstrap interval.
- A single pass qualifies if the mean over the three sets of its difference to `attnlrp_iterative` in
  comprehensiveness is above -.005; the largest is chosen.
- Of the candidates of at most four passes those qualify whose mean difference to `attnlrp_iterative` in
  comprehensiveness is above -.002 and whose mean difference to `attnlrp` in sufficiency is better than zero; of these
  the one with the best sufficiency is chosen.
- If none qualifies, the one that is nearest (the largest comprehensiveness among single passes; the best sufficiency
  among those of four passes that lose at most .005 of comprehensiveness) is confirmed all the same, so that the page
  has a figure for what was missed.
- Confirmation, once: texts of SST-2 dev, IMDB test and AG News test that neither the study nor the two earlier
  confirmations drew (`fresh_texts` draws those again to leave them out). A single pass becomes a method if the
  interval of its difference to `attnlrp_iterative` in comprehensiveness excludes a loss of .005 on each set; four
  passes, if that holds and the interval of the difference to `attnlrp` in sufficiency excludes a loss of .002 on each
  set and lies above zero on one.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # `benchmarks` is imported as a package

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.common import Row, append_row, provenance, read_rows
from benchmarks.inputs import load_classifier, load_tokenizer
from benchmarks.studies.faithfulness.data import DATA, MODELS, Inputs, cut, read_data, sample
from benchmarks.studies.faithfulness.judge import Judged
from benchmarks.studies.faithfulness.rankings.bert import Rules, explained_value, frozen_norm, gate, run
from benchmarks.studies.faithfulness.rankings.gim import RULES as GIM
from benchmarks.studies.faithfulness.rankings.gim import SoftmaxAtTemperature, share
from benchmarks.studies.faithfulness.rankings.libragrad import RULES as RELEVANCE
from benchmarks.studies.faithfulness.rankings.position_lrp import ATTNLRP
from hf_attn_mi.evaluation import estimate

RESULTS = Path(__file__).parent / "results" / "further_search.jsonl"
STAGES = ("third development", "third confirmation")
MODEL_OF = {"sst2": "minilm-sentiment", "imdb": "minilm-sentiment", "agnews": "minilm-agnews"}
DEVELOPMENT = {"sst2": 40, "imdb": 10, "agnews": 30}
CONFIRMATION = {"sst2": 72, "imdb": 30, "agnews": 60}
EARLIER = {"sst2": 400, "imdb": 200, "agnews": 200}  # texts of the second confirmation
LONGEST, FEWEST_WORDS = 128, 8
METRICS = ("comprehensiveness", "sufficiency")
REFERENCE = {"comprehensiveness": "attnlrp_iterative", "sufficiency": "attnlrp"}
FRACTIONS = (0.05, 0.1, 0.2)


def weighted(values: float, queries: float) -> Rules:
    """AttnLRP's rules with other shares of a product of rows and values: of the value, and of each query and key."""
    return Rules(
        norm=frozen_norm,
        activation=gate(functional.gelu),
        tanh=gate(torch.tanh),
        query_key=lambda x: share(x, queries),
        mix=lambda rows, v: rows @ share(v, values),
    )


RULES = {
    "attnlrp": ATTNLRP,
    "relevance": RELEVANCE,
    "GIM": GIM,
    "temperature 2": Rules(
        norm=frozen_norm,
        softmax=SoftmaxAtTemperature.apply,
        activation=gate(functional.gelu),
        tanh=gate(torch.tanh),
        query_key=lambda x: share(x, 0.25),
        mix=lambda rows, v: rows @ share(v, 0.5),
    ),
    "values 3/4": weighted(0.75, 0.125),
    "queries and keys 1/2": weighted(0.5, 0.5),
}


@dataclass
class Passes:
    """Scores of one text by a set of rules, without some of its tokens; each pass is run once.

    Attributes:
        model: a `BertForSequenceClassification`.
        ids: (n,) token ids.
        target: the explained class.
        tokens: the places that may be removed.
    """

    model: Any
    ids: Tensor
    target: int
    tokens: list[int]
    _known: dict[tuple[str, frozenset[int]], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __call__(self, rules: str, gone: Sequence[int] = (), *, positions: bool = False) -> Tensor:
        """(n,) scores with these tokens masked as keys; `positions` adds those of the position embeddings."""
        key = (rules, frozenset(gone))
        if key not in self._known:
            hidden = torch.zeros(len(self.ids))
            hidden[list(gone)] = float("-inf")
            trace = run(self.model, self.ids, RULES[rules], change_scores=(lambda s: s + hidden) if gone else None)
            leaves = (trace.words, trace.positions)
            gradients = torch.autograd.grad(explained_value(trace.logits, self.target).sum(), leaves)
            words, places = ((leaf * g)[0].sum(-1).detach() for leaf, g in zip(leaves, gradients))
            self._known[key] = words, places
        words, places = self._known[key]
        return words + places if positions else words

    def count(self, fraction: float) -> int:
        """How many tokens are this share of those that may be removed; one always stays."""
        return min(-int(-round(fraction * len(self.tokens), 9) // 1), len(self.tokens) - 1)


Candidate = Callable[[Passes], list[int]]  # the tokens, the most relevant first


def descending(scores: Tensor, tokens: Sequence[int]) -> list[int]:
    """These tokens, the highest score first."""
    return sorted(tokens, key=lambda token: (-float(scores[token]), token))


def once(rules: str, positions: bool = False) -> Candidate:
    """One pass."""
    return lambda passes: descending(passes(rules, positions=positions), passes.tokens)


def stages(passes: Passes, rules: str, fractions: Sequence[float], positions: bool) -> tuple[list[int], list[Tensor]]:
    """The order of `attnlrp_iterative` by these rules, and the scores of each stage, NaN where a token is gone."""
    gone: list[int] = []
    scores = passes(rules, positions=positions)
    seen = [scores.clone()]
    for fraction in fractions:
        rest = descending(scores, [token for token in passes.tokens if token not in gone])
        top = [token for token in rest[: max(0, passes.count(fraction) - len(gone))] if scores[token] > 0]
        if top:
            gone += top
            scores = passes(rules, gone, positions=positions)
            seen.append(scores.clone().index_fill(0, torch.tensor(gone), float("nan")))
    return gone + descending(scores, [token for token in passes.tokens if token not in gone]), seen


def iterative(rules: str = "attnlrp", fractions: Sequence[float] = FRACTIONS, positions: bool = False) -> Candidate:
    """The highest scores are removed first, then the next, and so on."""
    return lambda passes: stages(passes, rules, fractions, positions)[0]


def mean_of_stages(passes: Passes) -> list[int]:
    """The mean over the stages of `attnlrp_iterative` that a token took part in."""
    seen = torch.stack(stages(passes, "attnlrp", FRACTIONS, False)[1])
    return descending(seen.nanmean(0), passes.tokens)


def mean_rank(passes: Passes) -> list[int]:
    """The mean of the places in the orders of `attnlrp_iterative` and of its first pass."""
    orders = (iterative()(passes), once("attnlrp")(passes))
    place = {token: sum(order.index(token) for order in orders) for token in passes.tokens}
    return sorted(passes.tokens, key=lambda token: (place[token], orders[1].index(token)))


def top_as_in_the_first_pass(passes: Passes) -> list[int]:
    """The 20 % that `attnlrp_iterative` removes, in the order of the first pass; then the others by the last pass."""
    order, first = iterative()(passes), passes("attnlrp")
    count = passes.count(FRACTIONS[-1])
    return descending(first, order[:count]) + order[count:]


def relevance_and_attnlrp(passes: Passes) -> list[int]:
    """The sum of both scores, each divided by the sum of its magnitudes."""
    parts = [passes(rules) for rules in ("relevance", "attnlrp")]
    return descending(sum(normal(part, passes.tokens) for part in parts), passes.tokens)  # type: ignore[arg-type]


def normal(scores: Tensor, tokens: Sequence[int]) -> Tensor:
    """The scores divided by the sum of their magnitudes over these tokens."""
    return scores / scores[list(tokens)].abs().sum().clamp_min(1e-12)


def parts_left_out(parts: int) -> Candidate:
    """The mean of the whole text and of the texts without every k-th token, over the passes a token took part in."""

    def order(passes: Passes) -> list[int]:
        total, times = passes("attnlrp").clone(), torch.ones(len(passes.ids))
        for part in range(parts if len(passes.tokens) > parts else 0):
            gone = passes.tokens[part::parts]
            present = torch.ones(len(passes.ids))
            present[gone] = 0
            total, times = total + passes("attnlrp", gone) * present, times + present
        return descending(total / times, passes.tokens)

    return order


def from_below(fractions: Sequence[float]) -> Candidate:
    """The lowest scores are removed first until these shares are left; what was removed last ranks higher."""

    def order(passes: Passes) -> list[int]:
        ranked, low = descending(passes("attnlrp"), passes.tokens), list[int]()
        for fraction in fractions:
            kept = max(1, passes.count(fraction))
            low = ranked[kept:] + low
            ranked = descending(passes("attnlrp", low), ranked[:kept])
        return ranked + low

    return order


def top_alone(fractions: Sequence[float], *, without: float | None = None) -> Candidate:
    """The mean of the whole text and of its top shares alone, each normalized; `without`: and without the top share."""

    def order(passes: Passes) -> list[int]:
        first = passes("attnlrp")
        ranked = descending(first, passes.tokens)
        total, times = normal(first, passes.tokens), torch.ones(len(first))
        sets = [ranked[max(1, passes.count(fraction)) :] for fraction in fractions]
        sets += [ranked[: passes.count(without)]] if without is not None else []
        for gone in sets:
            present = torch.ones(len(first))
            present[gone] = 0
            left = [token for token in passes.tokens if token not in gone]
            part = normal(passes("attnlrp", gone), left) * first[left].abs().sum() / first[passes.tokens].abs().sum()
            total, times = total + part * present, times + present
        return descending(total / times, passes.tokens)

    return order


CANDIDATES: dict[str, tuple[float, Candidate]] = {  # passes, order
    "attnlrp_iterative": (4, iterative()),
    "attnlrp": (1, once("attnlrp")),
    "relevance": (1, once("relevance")),
    "position-aware LRP": (1, once("attnlrp", positions=True)),
    "GIM": (1, once("GIM")),
    "temperature 2": (1, once("temperature 2")),
    "values 3/4": (1, once("values 3/4")),
    "queries and keys 1/2": (1, once("queries and keys 1/2")),
    "relevance and attnlrp": (2, relevance_and_attnlrp),
    "5/10/20, position-aware": (4, iterative(positions=True)),
    "5/10/20, temperature 2": (4, iterative("temperature 2")),
    "5/10/20, values 3/4": (4, iterative("values 3/4")),
    "10/20/40": (4, iterative(fractions=(0.1, 0.2, 0.4))),
    "5/20": (3, iterative(fractions=(0.05, 0.2))),
    "5/10/20, mean score": (4, mean_of_stages),
    "5/10/20, mean place with attnlrp": (4, mean_rank),
    "5/10/20, top in the first order": (4, top_as_in_the_first_pass),
    "thirds left out": (4, parts_left_out(3)),
    "from below, 50/20/10": (4, from_below((0.5, 0.2, 0.1))),
    "top 50 % alone": (2, top_alone((0.5,))),
    "top 50/20 % alone": (3, top_alone((0.5, 0.2))),
    "top 50/20 % alone, without top 10 %": (4, top_alone((0.5, 0.2), without=0.1)),
}


def texts_of(name: str, part: str) -> list[str]:
    """The texts of a file."""
    return [row["text"] for row in read_data(DATA / name / f"{part}.jsonl.gz")]


def development_texts(name: str) -> list[str]:
    """Training texts."""
    words = FEWEST_WORDS if name == "sst2" else 0
    texts = [text for text in texts_of(name, "train") if len(text.split()) >= words]
    return random.Random(1).sample(texts, DEVELOPMENT[name])


def fresh_texts(name: str) -> list[str]:
    """Test texts that neither the study nor the two earlier confirmations drew, which are drawn again to know them."""
    texts = texts_of(name, "dev" if name == "sst2" else "test")
    drawn = {*sample(texts, 200), *random.Random(0).sample(texts, 200)}  # the study, the first confirmation
    drawn |= {*random.Random(0).sample([text for text in texts if text not in drawn], EARLIER[name])}
    left = [text for text in texts if text not in drawn]
    return random.Random(1).sample(left, min(CONFIRMATION[name], len(left)))


def run_set(stage: str, name: str, candidates: Sequence[str], limit: int | None) -> list[Row]:
    """Judge the candidates on one data set; a row for each."""
    started = time.process_time()
    folder = MODELS / MODEL_OF[name]
    inputs = Inputs(load_classifier(folder), load_tokenizer(folder), [], None, None, str(folder))
    texts = (development_texts if stage == STAGES[0] else fresh_texts)(name)
    values: dict[str, dict[str, list[float]]] = {one: {metric: [] for metric in METRICS} for one in candidates}
    lengths: list[int] = []
    for text in texts[:limit]:
        judged = Judged(inputs, cut(text, inputs.tokenizer, LONGEST))
        tokens = list(judged.probabilities("delete").tokens)
        if len(tokens) < 2:
            continue
        lengths.append(len(tokens))
        passes = Passes(inputs.model, judged.ids, judged.target, tokens)
        scores = {}
        for one in candidates:
            order = CANDIDATES[one][1](passes)
            assert sorted(order) == tokens, one
            scores[one] = torch.zeros(len(judged.ids), dtype=torch.float64)
            scores[one][order] = torch.arange(len(order), 0, -1, dtype=torch.float64)
        judged.predict(list(scores.values()), "delete")
        for one, found in scores.items():
            for metric, value in judged.removed(found, "delete").items():
                assert value is not None
                values[one][metric].append(round(value, 6))
    about = {
        "stage": stage,
        "data": name,
        "model": MODEL_OF[name],
        "tokens": statistics.fmean(lengths),
        "candidates": len(candidates),
        "seconds_in_all": round(time.process_time() - started, 1),
        **provenance(),
    }
    return [{"name": one, "passes": CANDIDATES[one][0], "values": values[one], **about} for one in candidates]


def tables(rows: Sequence[Row]) -> str:
    """Markdown: the means of the two references, and the differences of every candidate to both, a table a stage."""
    lines: list[str] = []
    for stage in STAGES:
        by_key = {(row["name"], row["data"]): row["values"] for row in rows if row["stage"] == stage}
        passes = {row["name"]: row["passes"] for row in rows if row["stage"] == stage}
        if not passes:
            continue
        names = [name for name in MODEL_OF if any(data == name for _, data in by_key)]
        counts = [f"{len(by_key['attnlrp', data][METRICS[0]])} {data}" for data in names]
        titles = ["score", "passes", *(f"{data} {short}" for data in names for short in ("comp", "suff"))]
        titles += ["mean comp", "mean suff"]
        lines += ["", f"### {stage}", "", f"Texts: {', '.join(counts)}.", ""]
        lines += [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
        for one in passes:
            cells, means = [one, f"{passes[one]:g}"], {metric: [] for metric in METRICS}
            for data in names:
                for metric in METRICS:
                    gap = better_by(by_key, one, data, metric)
                    mean = statistics.fmean(by_key[one, data][metric])
                    if one == REFERENCE[metric]:
                        cells.append(f"{mean:.3f}")
                        continue
                    found = estimate(gap)
                    assert found.mean is not None
                    assert found.interval is not None
                    cells.append(f"{found.mean:+.3f} ({found.interval[0]:+.3f}, {found.interval[1]:+.3f})")
                    means[metric].append(found.mean)
            cells += [f"{statistics.fmean(means[metric]):+.4f}" if means[metric] else "" for metric in METRICS]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def better_by(by_key: dict[tuple[str, str], dict[str, list[float]]], one: str, data: str, metric: str) -> list[float]:
    """By how much a candidate is better than the reference of the metric, text by text."""
    sign = 1 if metric == METRICS[0] else -1
    reference = by_key[REFERENCE[metric], data][metric]
    return [sign * (a - b) for a, b in zip(by_key[one, data][metric], reference, strict=True)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a stage, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", nargs="?", choices=("development", "confirmation"))
    parser.add_argument("--candidates", nargs="+", choices=list(CANDIDATES), default=[])
    parser.add_argument("--data", nargs="+", choices=list(MODEL_OF), default=list(MODEL_OF))
    parser.add_argument("--limit", type=int, help="texts of each set, to try the script: nothing is written")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.stage is None:
        print(tables(read_rows(RESULTS)))
        return 0
    stage = f"third {options.stage}"
    if stage == STAGES[1] and len(options.candidates) not in (1, 2):
        parser.error("confirmation takes one or two --candidates")
    chosen = list(dict.fromkeys([*REFERENCE.values(), *(options.candidates or CANDIDATES)]))
    known = {(row["stage"], row["data"]) for row in read_rows(RESULTS)}
    rows: list[Row] = []
    for name in options.data:
        if (stage, name) in known and options.limit is None:
            print(f"{stage}: {name} is in the results", flush=True)
            continue
        rows += run_set(stage, name, chosen, options.limit)
        print(f"{stage}: {name}: {rows[-1]['seconds_in_all']} s of CPU", flush=True)
        for row in rows[-len(chosen) :] if options.limit is None else ():
            append_row(row, RESULTS)
    print(tables(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
