"""How few attention weights carry a prediction, where do they lie, and do the sets stand under other removals?

`minimal_attention` on the inputs of each data set, in the same fixed random order as the other studies of attention
weights. A line of JSON for each input and part, with the whole record of the set, so that anybody can run it again.
What is there already is not run again.

    sets      the strict set of the main ranking, with its single removals
    further   the same under the other kinds of removal, a family of three further sets (another ranking, and with the
              weights found so far forbidden), and removals of pairs and random subsets
    heads     accuracy on further inputs without the heads that are in no set, or in few sets, of the data set, and
              without as many heads drawn at random

    S=benchmarks/studies/causal/subgraphs.py
    python $S --data DATA --models MODELS MORE --output RESULTS --inputs 40         # start or continue
    python $S --data DATA --models MODELS MORE --output RESULTS --parts further --inputs 12
    python $S --data DATA --models MODELS MORE --output RESULTS --parts heads --inputs 200
    python $S --models MODELS MORE --output RESULTS --recheck                       # run every stored set again
    python $S --quick                                                               # embedded model, two texts
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # `benchmarks` is imported as a package

import torch
from torch import Tensor

from benchmarks.common import EMBEDDED_MODEL, append_row, check, provenance, read_rows
from benchmarks.inputs import load_classifier, load_tokenizer
from benchmarks.studies.causal.suites import EMBEDDED, QUICK, SUITES, LoadedSuite, folder_of, load_suite
from hf_attn_mi import AttentionSubgraph, capture_attention, minimal_attention, recheck
from hf_attn_mi.capture import AttentionCall

REMOVALS = ("renormalized", "missing", "mean", "resample")
OTHERS = 3
BUDGET = 1000.0  # forward passes of each search of the part "further"
SHARES = (0.0, 0.05, 0.1)  # heads in at most this share of the sets are removed
RANDOM_DRAWS = 5
Head = tuple[int, int]


def the_set(suite: LoadedSuite, number: int) -> AttentionSubgraph:
    """The set of the main ranking."""
    found = minimal_attention(suite.model, suite.inputs(number), tokenizer=suite.tokenizer)
    assert isinstance(found, AttentionSubgraph)
    return found


def further(suite: LoadedSuite, number: int) -> AttentionSubgraph:
    """The set under all kinds of removal, with a family and deeper removals."""
    found = minimal_attention(
        suite.model,
        suite.inputs(number),
        tokenizer=suite.tokenizer,
        removals=REMOVALS,
        reference=reference_of(suite, number),
        others=OTHERS,
        deeper=True,
        budget=BUDGET,
    )
    assert isinstance(found, AttentionSubgraph)
    return found


def reference_of(suite: LoadedSuite, number: int) -> dict[str, Tensor]:
    """The next inputs of the order that have another label, one after the other, cut to the length of this one.

    Values of an input with the same label would carry the prediction by themselves.
    """
    length, label = suite.inputs(number)["input_ids"].shape[1], suite.rows[number][1]
    place = suite.order.index(number)
    after = [suite.rows[other] for other in [*suite.order[place + 1 :], *suite.order[:place]]]
    parts = [texts if isinstance(texts, tuple) else (texts,) for texts, other in after if other != label]
    check(len(parts) > 0, f"no input has another label than input {number}")
    count, inputs = 1, suite.encode(parts[0], length)
    while inputs["input_ids"].shape[1] < length:
        count *= 2
        inputs = suite.encode([" ".join(some) for some in zip(*islice(cycle(parts), count))], length)
    return inputs


PARTS: dict[str, Callable[[LoadedSuite, int], AttentionSubgraph]] = {"sets": the_set, "further": further}


def run_sets(part: str, name: str, suite: LoadedSuite, count: int, output: Path) -> None:
    """Search what is missing of one part of a data set."""
    there = {(row["suite"], row["input"]) for row in read_rows(output) if row["part"] == part}
    for number in suite.order[:count]:
        if (name, number) not in there:
            row = {"part": part, "suite": name, "input": number, "label": suite.rows[number][1]}
            append_row({**row, "record": PARTS[part](suite, number).to_dict(), **provenance()}, output)


# --- heads --------------------------------------------------------------------------------------------------------


def run_heads(name: str, suite: LoadedSuite, count: int, output: Path) -> None:
    """Measure what the model gets right without the heads that are in no set, or in few."""
    rows = [row for row in read_rows(output) if row["suite"] == name]
    sets = [row for row in rows if row["part"] == "sets" and row["record"]["units"]]
    there = {row["input"] for row in rows if row["part"] == "heads" and row["sets"] == len(sets)}
    used = Counter(head for row in sets for head in heads_of(row["record"]))
    all_heads = every_head(sets[0]["record"]) if sets else []
    without = {share: [head for head in all_heads if used[head] <= share * len(sets)] for share in SHARES}
    known = {row["input"] for row in rows if row["part"] == "sets"}
    for number in [one for one in suite.order if one not in known][:count] if sets else ():
        if number in there:
            continue
        results = {}
        for share, heads in without.items():
            drawn = [drawn_heads(all_heads, len(heads), seed) for seed in range(RANDOM_DRAWS)]
            results[str(share)] = {
                "heads": len(heads),
                "predicted": predicted_without(suite, number, heads),
                "random": [predicted_without(suite, number, one) for one in drawn],
            }
        row = {"part": "heads", "suite": name, "input": number, "label": suite.rows[number][1], "sets": len(sets)}
        row |= {"predicted": predicted_without(suite, number, []), "of": len(all_heads), "without": results}
        append_row({**row, **provenance()}, output)


def heads_of(record: dict[str, Any]) -> set[Head]:
    """The heads of a set, (call, head)."""
    return {(unit["call"], unit["head"]) for unit in record["units"]}


def every_head(record: dict[str, Any]) -> list[Head]:
    """All heads of the model, (call, head)."""
    return [(n, head) for n, module in enumerate(record["attention"]) for head in range(module["heads"])]


def drawn_heads(heads: list[Head], count: int, seed: int) -> list[Head]:
    """Some heads drawn at random."""
    order = torch.randperm(len(heads), generator=torch.Generator().manual_seed(seed)).tolist()
    return [heads[i] for i in order[:count]]


@torch.no_grad()
def predicted_without(suite: LoadedSuite, number: int, heads: list[Head]) -> int:
    """The class that the model predicts where these heads give no output."""

    def replace(call: AttentionCall) -> Tensor:
        rows = call.attention().clone()
        rows[:, [head for layer, head in heads if layer == call.index]] = 0
        return rows

    if not heads:
        return int(suite.model(**suite.inputs(number)).logits.argmax())
    with capture_attention(suite.model, lambda call: None, replace=replace):
        return int(suite.model(**suite.inputs(number)).logits.argmax())


# --- checks -------------------------------------------------------------------------------------------------------


def recheck_rows(rows: list[dict[str, Any]], folders: list[Path]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Run every stored set again, from its record alone."""
    stored = [row for row in rows if "record" in row]
    for name in dict.fromkeys(row["suite"] for row in stored):
        model = SUITES[name].model if name in SUITES else EMBEDDED
        path = folder_of(model, [EMBEDDED_MODEL] if model == EMBEDDED else [folder / model for folder in folders])
        classifier, tokenizer = load_classifier(path), load_tokenizer(path)
        for row in (row for row in stored if row["suite"] == name):
            yield row, recheck(classifier, AttentionSubgraph.from_dict(row["record"]), tokenizer=tokenizer)


def recheck_all(options: argparse.Namespace, output: Path) -> None:
    """Run every stored set again, note the answers beside the sets, and say how many are as stored."""
    answers = output.with_name("subgraphs_recheck.jsonl")
    there = {(row["part"], row["suite"], row["input"]) for row in read_rows(answers)}
    key = ("part", "suite", "input")
    missing = [row for row in read_rows(output) if "record" in row and tuple(row[k] for k in key) not in there]
    for row, result in recheck_rows(missing, options.models):
        answer = {k: row[k] for k in key} | {"holds": result.holds, "reasons": list(result.reasons)}
        append_row({**answer, **provenance()}, answers)
    rows = read_rows(answers)
    for row in rows:
        if not row["holds"]:
            print(f"{row['suite']} {row['part']} {row['input']}: {'; '.join(row['reasons'])}")
    print(f"{sum(row['holds'] for row in rows)} of {len(rows)} stored records hold when they are run again")
    check(all(row["holds"] for row in rows), "a stored set does not hold")


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", type=Path, nargs="*", default=[])
    parser.add_argument("--output", type=Path, help="folder of the results")
    parser.add_argument("--suites", nargs="*", choices=list(SUITES), default=list(SUITES))
    parser.add_argument("--parts", nargs="*", choices=[*PARTS, "heads"], default=["sets"])
    parser.add_argument("--inputs", type=int, default=40)
    parser.add_argument("--recheck", action="store_true", help="run every stored set again")
    parser.add_argument("--quick", action="store_true", help="the embedded model and two texts")
    options = parser.parse_args()
    if options.quick:
        options.suites, options.parts = [QUICK], [*PARTS, "heads"]
    runs: dict[str, Callable[..., None]] = {part: partial(run_sets, part) for part in PARTS}
    runs["heads"] = run_heads
    with tempfile.TemporaryDirectory() as folder:
        output = (options.output or Path(folder)) / "subgraphs.jsonl"
        if not options.recheck:
            for name in options.suites:
                suite = load_suite(name, options.data, options.models)
                for part in options.parts:
                    runs[part](name, suite, options.inputs, output)
        if options.recheck or options.quick:
            recheck_all(options, output)


if __name__ == "__main__":
    main()
