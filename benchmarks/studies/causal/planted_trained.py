"""Do rankings and sets of attention weights find what small encoders were trained to read?

Two BERTs of two layers are trained here, with fixed seeds, on tasks of which it is known by construction which
tokens decide the label. [CLS] is read, and nothing else of the input depends on the label:

    copy        one or two of ten tokens are marked by their token type; the label is the letter of the marked tokens.
                All other letters are distractors.
    look-up     a question names one of six keys; each of eight records holds a key and a letter. The label is the
                letter of the record with this key; no two records have the same key, and two tokens mean nothing.

The truth is about paths, since it is not known which head or layer learns to move what. The sources are the tokens
that decide the label (the marked tokens; the question and the record). Their information reaches [CLS] only along
attention weights: a path is a chain of them, one layer after the other, from a source to [CLS]; in a layer without a
weight of the chain the information stays in the residual stream. Hence for a set of weights

    recall      share of the sources from which a path of weights of the set leads to [CLS]
    precision   share of its weights that lie on such a path; the others cannot carry what decides the label

of the best weights of a ranking, and of the strict, locally minimal set that the search finds from it; means over
inputs that the model gets right and whose class it does not keep without any attention; where the search finds no set
within its budget, recall, precision and size count as 0. What a path could carry, it need not carry: full precision
does not show that every weight is used.

    python benchmarks/studies/causal/planted.py         # trains, and shows both tables
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.common import Row
from benchmarks.studies.causal.attention_weights import KEEP, RANKINGS, TIE
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from hf_attn_mi.tasks.attention_edges import Edges, EdgeSpace
from hf_attn_mi.tasks.edge_ranking import EdgeScores, order_of
from hf_attn_mi.tasks.edge_search import EdgeSearch, Rule
from hf_attn_mi.tasks.restricted_forward import Candidate, RestrictedForward

LAYERS, HEADS, HIDDEN = 2, 4, 32
LETTERS, KEYS, NOISE = 4, 6, 4
BATCH, RATE = 128, 3e-3
BEST = 8  # weights of a ranking whose recall and precision are shown
BUDGET = 400.0  # forward passes for one search
CLS = 0
FIRST_LETTER = 1
FIRST_NOISE = FIRST_LETTER + LETTERS
FIRST_QUESTION = FIRST_NOISE + NOISE
FIRST_RECORD = FIRST_QUESTION + KEYS
MASK = FIRST_RECORD + KEYS * LETTERS
Place = tuple[int, int, int, int]  # layer, head, query, key


@dataclass(frozen=True)
class Batch:
    """Inputs of a task.

    Attributes:
        ids: (batch, tokens) token ids.
        types: (batch, tokens) token types.
        labels: (batch,) letters.
        sources: (batch, tokens) bool, the tokens that decide the label.
    """

    ids: Tensor
    types: Tensor
    labels: Tensor
    sources: Tensor


def copy_batch(count: int, generator: torch.Generator, marked: int | None = None) -> Batch:
    """Inputs of the task `copy`, with so many marked tokens; one or two at random if None."""
    length = 10
    letters = torch.randint(LETTERS, (count, length), generator=generator)
    noise = torch.randint(NOISE, (count, length), generator=generator)
    is_letter = torch.rand(count, length, generator=generator) < 0.7
    order = torch.rand(count, length, generator=generator).argsort(1)  # places of the tokens in a random order
    number = torch.randint(1, 3, (count, 1), generator=generator) if marked is None else torch.full((count, 1), marked)
    sources = torch.zeros(count, length, dtype=torch.bool).scatter_(1, order, torch.arange(length) < number)
    labels = torch.randint(LETTERS, (count,), generator=generator)
    ids = torch.where(is_letter, FIRST_LETTER + letters, FIRST_NOISE + noise)
    ids = torch.where(sources, FIRST_LETTER + labels[:, None], ids)
    return _with_cls(ids, sources.long(), labels, sources)


def look_up_batch(count: int, generator: torch.Generator) -> Batch:
    """Inputs of the task `look-up`."""
    rows = torch.arange(count)
    records = torch.rand(count, KEYS, generator=generator).argsort(1)  # the key of each record
    letters = torch.randint(LETTERS, (count, KEYS), generator=generator)
    asked = torch.randint(KEYS, (count,), generator=generator)
    noise = FIRST_NOISE + torch.randint(NOISE, (count, 2), generator=generator)
    question = FIRST_QUESTION + records[rows, asked]
    ids = torch.cat([question[:, None], FIRST_RECORD + records * LETTERS + letters, noise], 1)
    sources = torch.zeros(ids.shape, dtype=torch.bool)
    sources[:, 0], sources[rows, 1 + asked] = True, True
    order = torch.rand(ids.shape, generator=generator).argsort(1)
    ids, sources = ids.gather(1, order), sources.gather(1, order)
    return _with_cls(ids, torch.zeros_like(ids), letters[rows, asked], sources)


def _with_cls(ids: Tensor, types: Tensor, labels: Tensor, sources: Tensor) -> Batch:
    first = torch.zeros(len(ids), 1, dtype=torch.long)
    padded = [torch.cat([first.to(one.dtype), one], 1) for one in (ids, types, sources)]
    return Batch(padded[0], padded[1], labels, padded[2])


@dataclass(frozen=True)
class Task:
    """A task: how its inputs are drawn, and for how many steps its encoder is trained."""

    draw: Callable[[int, torch.Generator], Batch]
    steps: int


TASKS = {"copy": Task(copy_batch, 500), "look-up": Task(look_up_batch, 2500)}
LEARNED = {  # mechanism -> task, and how the inputs are drawn that it is measured on
    "copy, one marked token": ("copy", lambda count, generator: copy_batch(count, generator, 1)),
    "copy, two marked tokens": ("copy", lambda count, generator: copy_batch(count, generator, 2)),
    "look-up of a key": ("look-up", look_up_batch),
}


def trained_bert(name: str, steps: int | None = None) -> BertForSequenceClassification:
    """Train the encoder of a task."""
    task = TASKS[name]
    steps = task.steps if steps is None else steps
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=MASK + 1,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * HIDDEN,
        max_position_embeddings=16,
        num_labels=LETTERS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
        pad_token_id=None,
    )
    model = BertForSequenceClassification(config).train()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(steps):
        batch = task.draw(BATCH, generator)
        loss = model(input_ids=batch.ids, token_type_ids=batch.types, labels=batch.labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: BertForSequenceClassification, batch: Batch) -> float:
    """Share of these inputs that are classified right."""
    predicted = model(input_ids=batch.ids, token_type_ids=batch.types).logits.argmax(1)
    return float((predicted == batch.labels).float().mean())


# --- the truth -------------------------------------------------------------------------------------------------------


def paths_to_cls(weights: set[Place], sources: Sequence[int]) -> set[Place]:
    """The weights that lie on a path from one of the sources to [CLS].

    Example:
        >>> chain = {(0, 0, 5, 3), (1, 2, 0, 5)}  # 3 to 5 in the first layer, 5 to [CLS] in the second
        >>> paths_to_cls(chain | {(1, 0, 0, 7)}, [3]) == chain, paths_to_cls({(1, 0, 5, 3), (0, 2, 0, 5)}, [3])
        (True, set())
    """
    carrying = [set(sources)]  # the tokens whose states may hold it, below each layer
    for layer in range(LAYERS):
        moved = {query for number, _, query, key in weights if number == layer and key in carrying[-1]}
        carrying.append(carrying[-1] | moved)
    needed = [{CLS}]  # the tokens whose states can still reach [CLS], above each layer, from the last one downwards
    for layer in reversed(range(LAYERS)):
        needed.append(
            needed[-1] | {key for number, _, query, key in weights if number == layer and query in needed[-1]}
        )
    needed.reverse()
    return {one for one in weights if one[3] in carrying[one[0]] and one[2] in needed[one[0] + 1]}


def recall_and_precision(weights: set[Place], sources: Sequence[int]) -> tuple[float, float]:
    """Share of the sources with a path to [CLS], and share of the weights on a path from one of them."""
    reached = sum(bool(paths_to_cls(weights, [source])) for source in sources)
    return reached / len(sources), len(paths_to_cls(weights, sources)) / len(weights) if weights else 0.0


def places_of(space: EdgeSpace, numbers: Tensor) -> set[Place]:
    """(layer, head, query, key) of each edge."""
    return {(space.call_of(edge).layer, *space.call_of(edge).place(edge)) for edge in numbers.tolist()}


# --- the study -------------------------------------------------------------------------------------------------------


def all_rows(count: int, rankings: Sequence[str] = tuple(RANKINGS)) -> Iterator[Row]:
    """Train the encoders; the rows of every mechanism."""
    models = {task: trained_bert(task) for task in TASKS}
    for name, (task, _) in LEARNED.items():
        yield from rows_of(name, models[task], count, rankings)


def rows_of(
    name: str, model: BertForSequenceClassification, count: int, rankings: Sequence[str] = tuple(RANKINGS)
) -> list[Row]:
    """Mean recall and precision of each ranking over this many inputs."""
    runner, draw = EncoderRunner.of(model), LEARNED[name][1]
    generator, drawn, results = torch.Generator().manual_seed(1), 0, list[list[Row]]()
    while len(results) < count:
        drawn += 1
        batch = draw(1, generator)
        found = list(_of_input(runner, batch, rankings))
        if found:
            results.append(found)
    test = accuracy(model, draw(1000, torch.Generator().manual_seed(2)))
    rows = []
    for place, ranking in enumerate(rankings):
        mine = [one[place] for one in results]
        row: Row = {"mechanism": name, "ranking": ranking, "inputs": count, "drawn": drawn, "accuracy": test}
        row |= {"best": BEST, "edges": mine[0]["edges"], "sets": sum(one["size"] > 0 for one in mine)}
        for key in ("recall_best", "precision_best", "recall_set", "precision_set", "prefix", "size", "forwards"):
            row[key] = statistics.mean(one[key] for one in mine)
        rows.append(row)
    return rows


def _of_input(runner: EncoderRunner, batch: Batch, rankings: Sequence[str]) -> Iterator[Row]:
    """Recall and precision of each ranking on one input; nothing if there is nothing to find."""
    encoded, _ = runner.encode({"input_ids": batch.ids, "token_type_ids": batch.types})
    target, (one,) = read_target(None, runner, encoded)
    sources = batch.sources[0].nonzero()[:, 0].tolist()
    with RestrictedForward(runner, one, target, 16) as forward:
        scores = EdgeScores(forward, 0)
        rule = Rule(forward.whole, KEEP, True, TIE)
        wrong = forward.explained.target != int(batch.labels[0])
        if wrong or rule.sufficient(forward.run([Candidate(Edges.of([]))])[0]):
            return
        for ranking in rankings:
            order = order_of(scores.flat(RANKINGS[ranking](scores, MASK)), forward.edges.present)
            adaptive = ranking == next(iter(RANKINGS))
            search = EdgeSearch(forward, order, rule, budget=BUDGET, adaptive=adaptive)
            found = search.run()
            numbers = order[:0] if found.numbers is None else found.numbers
            best = recall_and_precision(places_of(forward.edges, order[:BEST]), sources)
            of_set = recall_and_precision(places_of(forward.edges, numbers), sources)
            row: Row = {"edges": forward.edges.count, "size": len(numbers), "prefix": found.prefix}
            row |= {"recall_best": best[0], "precision_best": best[1], "recall_set": of_set[0]}
            yield {**row, "precision_set": of_set[1], "forwards": search.spent}


def table_of(rows: Sequence[Row]) -> str:
    """Means by mechanism and ranking."""
    lines = [
        f"| learned mechanism | ranking | recall of the best {BEST} | their precision | with a set | recall of the "
        "set | its precision | prefix | size | forwards |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["mechanism"], row["ranking"]]
        cells += [f"{row[name]:.2f}" for name in ("recall_best", "precision_best")]
        cells += [f"{row['sets']} of {row['inputs']}"]
        cells += [f"{row[name]:.2f}" for name in ("recall_set", "precision_set")]
        cells += [f"{row[name]:.1f}" for name in ("prefix", "size", "forwards")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
