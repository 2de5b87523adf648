"""Do rankings and sets of attention weights find mechanisms that were built into a BERT by hand?

The weights of `BertForSequenceClassification` are set so that the label of a marked token reaches the classifier
through chosen heads; the other heads are idle, and each looks sharply at a token that means nothing. Layer
normalization is close to the identity: two constant entries, C and -C, dominate the variance of every state, and every
feature stands beside its negative, so that the mean is zero. Feed-forward layers add zero.

For every mechanism and ranking: recall and precision of the k best weights (k as many as were planted), and of the
strict, locally minimal set that the search finds from this ranking. These mechanisms are easy; the second table is
of encoders that were trained (`planted_trained.py`).

    python benchmarks/studies/causal/planted.py                    # the table
    python benchmarks/studies/causal/planted.py --output RESULTS   # store the rows: planted.jsonl
    python benchmarks/studies/causal/planted.py --output RESULTS --rankings gim    # the rows of others are kept
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # `benchmarks` is imported as a package

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.common import Row, provenance, read_rows, write_rows
from benchmarks.studies.causal import planted_trained
from benchmarks.studies.causal.attention_weights import KEEP, RANKINGS, TIE
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from hf_attn_mi.tasks.attention_edges import EdgeSpace
from hf_attn_mi.tasks.edge_ranking import EdgeScores, order_of
from hf_attn_mi.tasks.edge_search import EdgeSearch, Rule
from hf_attn_mi.tasks.restricted_forward import RestrictedForward

FEATURES = ("first", "mark", "pointer", "idle", "label0", "label1", "copied0", "copied1", "read0", "read1")
PLACE = {name: 2 * i for i, name in enumerate(FEATURES)}  # its negative is one place further
FIRST, LABEL0, LABEL1, POINTER, IDLE, NOISE, MASK = range(7)  # token ids; from NOISE on they mean nothing
TOKENS = {
    FIRST: ("first",),
    LABEL0: ("mark", "label0"),
    LABEL1: ("mark", "label1"),
    POINTER: ("pointer",),
    IDLE: ("idle",),
}
HEADS, HIDDEN = 4, 24
CONSTANT = 300.0  # the entry that dominates the variance
SHARPNESS = 12.0  # of attention logits
Head = tuple[str, str, str, str]  # query feature, key feature, copied from, copied to
Place = tuple[int, int, int, int]  # layer, head, query, key

DIRECT: Head = ("first", "mark", "label", "read")
TO_POINTER: Head = ("pointer", "mark", "label", "copied")
FROM_POINTER: Head = ("first", "pointer", "copied", "read")
SHARP_BUT_IDLE: Head = ("first", "idle", "", "")
IDS = torch.tensor([[FIRST, NOISE, 8, LABEL0, 7, POINTER, 9, IDLE]])
MARK_AT, POINTER_AT = 3, 5
MECHANISMS: dict[str, tuple[list[dict[int, Head]], set[Place]]] = {  # heads of each layer; the weights that matter
    "one head copies the label": ([{1: DIRECT}, {}], {(0, 1, 0, MARK_AT)}),
    "a head of the second layer": ([{}, {1: DIRECT}], {(1, 1, 0, MARK_AT)}),
    "two redundant heads": ([{0: DIRECT, 2: DIRECT}, {}], {(0, 0, 0, MARK_AT), (0, 2, 0, MARK_AT)}),
    "redundant heads in two layers": ([{0: DIRECT}, {3: DIRECT}], {(0, 0, 0, MARK_AT), (1, 3, 0, MARK_AT)}),
    "a look-up through two layers": (
        [{0: TO_POINTER}, {1: FROM_POINTER}],
        {(0, 0, POINTER_AT, MARK_AT), (1, 1, 0, POINTER_AT)},
    ),
}


def planted_bert(layers: Sequence[dict[int, Head]]) -> BertForSequenceClassification:
    """A BERT with these heads; without attention it answers class 1.

    Args:
        layers: the heads of each layer by number; the others look at a token that means nothing.
    """
    config = BertConfig(
        vocab_size=10,
        hidden_size=HIDDEN,
        num_hidden_layers=len(layers),
        num_attention_heads=HEADS,
        intermediate_size=8,
        max_position_embeddings=16,
        num_labels=2,
        pad_token_id=None,
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        words = model.bert.embeddings.word_embeddings.weight
        words[:, HIDDEN - 2], words[:, HIDDEN - 1] = CONSTANT, -CONSTANT
        for token, names in TOKENS.items():
            for name in names:
                words[token, PLACE[name]], words[token, PLACE[name] + 1] = 1.0, -1.0
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(CONSTANT * math.sqrt(2 / HIDDEN))
        for layer, heads in zip(model.bert.encoder.layer, layers):
            for number in range(HEADS):
                _set_head(layer.attention, number, heads.get(number, SHARP_BUT_IDLE))
        model.bert.pooler.dense.weight[0, PLACE["read0"]] = 1.0
        model.bert.pooler.dense.weight[0, PLACE["read1"]] = -1.0
        model.classifier.weight[0, 0], model.classifier.weight[1, 0] = 3.0, -3.0
        model.classifier.bias[1] = 1.5
    return model


def _set_head(attention: Any, number: int, head: Head) -> None:
    """Set the weights of one head."""
    width, (query, key, source, goal) = HIDDEN // HEADS, head
    at, own = number * width, attention.self
    own.query.weight[at, PLACE[query]] = SHARPNESS * math.sqrt(width)
    own.key.weight[at, PLACE[key]] = 1.0
    for i, label in enumerate("01" if source else ""):
        own.value.weight[at + i, PLACE[source + label]] = 1.0
        attention.output.dense.weight[PLACE[goal + label], at + i] = 1.0
        attention.output.dense.weight[PLACE[goal + label] + 1, at + i] = -1.0


def recall_and_precision(found: set[Place], truth: set[Place]) -> tuple[float, float]:
    """Share of the truth that was found, and share of what was found that is true (0 if nothing was found)."""
    hits = len(found & truth)
    return hits / len(truth), hits / len(found) if found else 0.0


def places_of(space: EdgeSpace, numbers: Tensor) -> set[Place]:
    """(layer, head, query, key) of each edge."""
    return {(space.call_of(edge).layer, *space.call_of(edge).place(edge)) for edge in numbers.tolist()}


def rows_of(name: str, rankings: Sequence[str] = tuple(RANKINGS)) -> Iterator[Row]:
    """Recall and precision of each ranking on one mechanism."""
    layers, truth = MECHANISMS[name]
    runner = EncoderRunner.of(planted_bert(layers))
    target, (one,) = read_target(None, runner, runner.encode({"input_ids": IDS})[0])
    with RestrictedForward(runner, one, target, 16) as forward:
        scores = EdgeScores(forward, 0)
        for ranking in rankings:
            order = order_of(scores.flat(RANKINGS[ranking](scores, MASK)), forward.edges.present)
            rule, adaptive = Rule(forward.whole, KEEP, True, TIE), ranking == next(iter(RANKINGS))
            search = EdgeSearch(forward, order, rule, adaptive=adaptive)
            found = search.run()
            numbers = order[:0] if found.numbers is None else found.numbers
            best = recall_and_precision(places_of(forward.edges, order[: len(truth)]), truth)
            of_set = recall_and_precision(places_of(forward.edges, numbers), truth)
            row: Row = {"mechanism": name, "ranking": ranking, "planted": len(truth), "edges": forward.edges.count}
            row |= {"recall_best": best[0], "precision_best": best[1], "recall_set": of_set[0]}
            yield {**row, "precision_set": of_set[1], "size": len(numbers), "forwards": search.spent}


def table_of(rows: Sequence[Row]) -> str:
    """Recall and precision by mechanism and ranking."""
    lines = [
        "| mechanism | ranking | planted | recall of the best | of the set | its precision | size | forwards |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["mechanism"], row["ranking"], f"{row['planted']} of {row['edges']}"]
        cells += [f"{row[name]:.2f}" for name in ("recall_best", "recall_set", "precision_set")]
        lines.append(f"| {' | '.join([*cells, str(row['size']), format(row['forwards'], '.0f')])} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table; store the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder of the results")
    parser.add_argument("--inputs", type=int, default=20, help="for each mechanism that is learned")
    parser.add_argument("--rankings", nargs="*", choices=list(RANKINGS), default=list(RANKINGS))
    options = parser.parse_args()
    rows = [{**row, **provenance()} for name in MECHANISMS for row in rows_of(name, options.rankings)]
    learned = [{**row, **provenance()} for row in planted_trained.all_rows(options.inputs, options.rankings)]
    if options.output:
        output = options.output / "planted.jsonl"
        new = {(row["mechanism"], row["ranking"]): row for row in (*rows, *learned)}
        stored = {(row["mechanism"], row["ranking"]): row for row in read_rows(output)}
        write_rows((stored | new).values(), output)  # each at its place
    print(table_of(rows), planted_trained.table_of(learned), sep="\n\n")


if __name__ == "__main__":
    main()
