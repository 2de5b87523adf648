"""Where the explained value stands under the rules of relevance and of AttnLRP: words, positions, biases, constants.

Both linearize the model, so that the value is a sum: <word embeddings, gradient> (the scores of the tokens), the same
for position and token type embeddings, <bias, gradient> for every bias, and, under AttnLRP, the constants of the
tangents of the softmax. Each part is divided by the value of its input.

    python benchmarks/studies/faithfulness/value_shares.py          # prints the table of docs/methods/score_search.md
    python benchmarks/studies/faithfulness/value_shares.py --run    # computes the stored rows anew: about two minutes
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # `benchmarks` is imported as a package

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import Row, provenance, read_rows, write_rows
from benchmarks.studies.faithfulness.data import SETS, read_inputs
from benchmarks.studies.faithfulness.rankings.bert import Rules, explained_value, run
from benchmarks.studies.faithfulness.rankings.libragrad import RULES as RELEVANCE
from benchmarks.studies.faithfulness.rankings.position_lrp import ATTNLRP

METHODS = {"relevance": RELEVANCE, "attnlrp": ATTNLRP}
PARTS = ("words", "positions", "token types", "biases of normalizations", "other biases", "constants of the softmax")
TITLES = {"sst2": "SST-2", "agnews": "AG News", "imdb": "IMDB"}
INPUTS = 40  # the first ones of each data set of the study
TRAINED = Path("out") / "trained"
RESULTS = Path(__file__).parent / "results" / "value_shares.jsonl"


def parts_of(model: Any, ids: Tensor, target: int, rules: Rules) -> dict[str, float]:
    """Each part of the value divided by the value; the parts add up to one.

    Args:
        model: a `BertForSequenceClassification`.
        ids: (n,) token ids.
        target: the class.
        rules: of the linearization.
    """
    trace = run(model, ids, rules)
    biases = {name: bias for name, bias in model.named_parameters() if name.endswith("bias")}
    value = explained_value(trace.logits, target).sum()
    leaves = [trace.words, trace.positions, trace.types, *biases.values()]
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    shares = dict.fromkeys(PARTS, 0.0)
    names = ["words", "positions", "token types"]
    names += ["biases of normalizations" if "LayerNorm" in name else "other biases" for name in biases]
    for name, leaf, gradient in zip(names, leaves, gradients):
        if gradient is not None:
            shares[name] += float((leaf.detach().double() * gradient).sum() / value.detach())
    shares["constants of the softmax"] = 1.0 - sum(shares.values())
    return shares


def shares_of(name: str, count: int) -> list[Row]:
    """One row a method with the share of every part on each of the first inputs of a data set."""
    inputs = read_inputs(SETS[name], TRAINED)
    shares: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for text in inputs.texts[:count]:
        ids = inputs.tokenizer(text, return_tensors="pt")["input_ids"][0]
        with torch.no_grad():
            target = int(inputs.model(input_ids=ids[None]).logits[0].argmax())
        for method, rules in METHODS.items():
            shares[method].append(parts_of(inputs.model, ids, target, rules))
    return [
        {
            "set": name,
            "method": method,
            "places": list(range(len(rows))),
            "shares": {part: [round(row[part], 6) for row in rows] for part in PARTS},
            **provenance(),
        }
        for method, rows in shares.items()
    ]


def table_of(rows: Sequence[Row]) -> str:
    """A Markdown table: medians over inputs with their quartiles."""
    lines = [f"| data | method | inputs | {' | '.join(PARTS)} |", "|---" * (3 + len(PARTS)) + "|"]
    for row in rows:
        cells = []
        for part in PARTS:
            low, middle, high = np.quantile(row["shares"][part], (0.25, 0.5, 0.75))
            cells.append(f"{_percent(middle)} ({_percent(low)} to {_percent(high)})")
        name = TITLES.get(row["set"], row["set"])
        lines.append(f"| {name} | {row['method']} | {len(row['places'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{round(100 * share) + 0}%"  # an integer, so that there is no -0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, from the stored rows or from new ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="compute the rows and store them")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.run:
        write_rows([row for name in TITLES for row in shares_of(name, INPUTS)], RESULTS)
    print(table_of(read_rows(RESULTS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
