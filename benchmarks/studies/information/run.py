"""Does attention keep information, and does its order follow information? The experiment behind arXiv 2211.07714.

Attention heads are trained on the cached states of a frozen encoder: {additive, deep, scaled dot product} x {softmax,
softmax at temperature .1 / .5, Gumbel at .1 / .5 / 1 / 2} x {no recurrence, BiLSTM} x {trained, frozen random,
uniform, permuted attention}, on several data sets with several seeds. Each head's attention is then compared with the
information that each state has about the head's own output, and five claims get a table and a verdict.

    S=benchmarks/studies/information
    python $S/run.py --data FOLDER --encoder PATH --output RESULTS       # train and measure, or continue
    python $S/run.py --output RESULTS --report docs/studies              # the page
    python $S/run.py --quick                                             # minutes, built-in data

FOLDER holds sst2/{train,dev}, agnews/{train,test} and imdb/{train,test}.jsonl.gz (`text`, `label`). A run that was
stopped continues where it was; `--share 0/2` and `--share 1/2` divide one run between two processes. report.py makes
the page.
"""

import argparse
import functools
import itertools
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # `benchmarks` is imported as a package

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from benchmarks.common import EMBEDDED_MODEL, append_row, provenance, read_rows
from benchmarks.studies.information.report import write_report
from hf_attn_mi.data.files import read_file
from hf_attn_mi.evaluation import rank_correlations
from hf_attn_mi.heads import AttentionHead
from hf_attn_mi.mi import fit_probe, mutual_information

SETS = {  # file of training rows, of test rows, how many of each, most tokens
    "sst2": ("sst2/train.jsonl.gz", "sst2/dev.jsonl.gz", 6000, 872, 64),
    "agnews": ("agnews/train.jsonl.gz", "agnews/test.jsonl.gz", 2000, 1000, 96),
    "imdb": ("imdb/train.jsonl.gz", "imdb/test.jsonl.gz", 1707, 999, 96),
}
NORMALIZERS = [
    ("softmax", 1.0),
    ("softmax", 0.1),
    ("softmax", 0.5),
    ("gumbel", 0.1),
    ("gumbel", 0.5),
    ("gumbel", 1.0),
    ("gumbel", 2.0),
]
SCORES = ("additive", "deep", "scaled_dot")
SCORE_SIZE = RECURRENCE_SIZE = 128
BATCH, RATE = 64, 3e-3
EPOCHS = {"none": 8, "bilstm": 3}  # a recurrent head learns more from an epoch, and costs more
PROFILE_TEXTS, TOKENS_EACH = 1000, 8  # training texts, and tokens of each, that the token probe is fitted on
PAIR_BOUNDS = (0.05, 0.2, 1.0)  # |ln a_i - ln a_j| between pairs of tokens


@dataclass(frozen=True)
class Cell:
    """One head to train. `attention`: "trained", "frozen" (random scores), or "uniform"."""

    dataset: str
    seed: int
    score: str
    normalizer: str
    temperature: float
    recurrence: str
    attention: str

    @property
    def key(self) -> str:
        """A name for files."""
        return "_".join(map(str, asdict(self).values()))


@dataclass(frozen=True, eq=False)
class Cached:
    """States of the texts of one split, without padding, one after the other."""

    states: Tensor  # (all tokens, hidden)
    starts: Tensor  # (texts + 1,) where each text begins
    labels: Tensor  # (texts,)

    def batch(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Return padded states (batch, tokens, hidden) and mask (batch, tokens) of these texts."""
        lengths = self.starts[texts + 1] - self.starts[texts]
        places = torch.arange(int(lengths.max()))
        mask = places < lengths[:, None]
        index = (self.starts[texts][:, None] + places).clamp_max(len(self.states) - 1)
        return self.states[index].float() * mask[..., None], mask


def built_in_texts() -> dict[str, tuple[list[tuple[str, int]], list[tuple[str, int]]]]:
    """Return tiny sets of made-up reviews, for a run that needs no files: (text, label) for training and test."""
    good, bad = ["moving", "funny", "brilliant", "warm", "clever"], ["dull", "boring", "awful", "stupid", "bland"]
    subjects = {
        "films": ["film", "story", "plot"],
        "casts": ["cast", "acting", "lead"],
        "scenes": ["scene", "end", "start"],
    }
    sets = {}
    for name, things in subjects.items():
        rows = [
            (f"the {thing} was {word} and the {other} went on for a while", label)
            for thing, other in itertools.permutations(things, 2)
            for label, words in enumerate((bad, good))
            for word in words
        ]
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
        rows = [rows[i] for i in order] * 3
        sets[name] = (rows[:120], rows[120:])
    return sets


def read_labeled(path: Path, count: int) -> list[tuple[str, int]]:
    """Return `count` (text, label) rows, drawn evenly by a fixed permutation."""
    rows = [(row["text"], int(row["label"])) for row in read_file(path)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count].tolist()
    return [rows[i] for i in sorted(order)]


@torch.no_grad()
def encode(rows: list[tuple[str, int]], encoder: Any, tokenizer: Any, longest: int) -> Cached:
    """Return the encoder's last states, in half precision to keep three data sets in memory."""
    ids = tokenizer([text for text, _ in rows], truncation=True, max_length=longest)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    states: list[Tensor] = [torch.empty(0)] * len(ids)
    for start in range(0, len(order), 32):
        texts = order[start : start + 32]
        batch = tokenizer.pad({"input_ids": [ids[i] for i in texts]}, return_tensors="pt")
        hidden = encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        for i, state in zip(texts, hidden):
            states[i] = state[: len(ids[i])].half()
    starts = torch.tensor([0, *itertools.accumulate(map(len, states))])
    return Cached(torch.cat(states), starts, torch.tensor([label for _, label in rows]))


def cached_states(name: str, options: argparse.Namespace) -> tuple[Cached, Cached]:
    """Return the states of training and test texts, from a file where they were made before."""
    path = options.output / f"states_{name}.safetensors"
    if not path.exists():
        if options.quick:
            (train, test), longest = built_in_texts()[name], 32
        else:
            train_file, test_file, count, tests, longest = SETS[name]
            train = read_labeled(options.data / train_file, count)
            test = read_labeled(options.data / test_file, tests)
        encoder, tokenizer = AutoModel.from_pretrained(options.encoder), AutoTokenizer.from_pretrained(options.encoder)
        splits = [encode(rows, encoder.eval(), tokenizer, longest) for rows in (train, test)]
        parts = {f"{i}.{part}": value for i, split in enumerate(splits) for part, value in vars(split).items()}
        save_file(parts, path.with_suffix(f".{os.getpid()}"))
        path.with_suffix(f".{os.getpid()}").rename(path)  # so that the file is complete or absent
    parts = load_file(path)
    train, test = (Cached(parts[f"{i}.states"], parts[f"{i}.starts"], parts[f"{i}.labels"]) for i in (0, 1))
    return train, test


def make_head(cell: Cell, train: Cached) -> AttentionHead:
    """Return the cell's head, untrained."""
    torch.manual_seed(cell.seed)
    recurrent = cell.recurrence == "bilstm"
    head = AttentionHead(
        train.states.shape[1],
        int(train.labels.max()) + 1,
        score=cell.score,
        normalizer=cell.normalizer,
        temperature=cell.temperature,
        score_size=SCORE_SIZE,
        recurrence="bilstm" if recurrent else None,
        recurrence_size=RECURRENCE_SIZE if recurrent else None,
    )
    if cell.attention != "trained":
        head.score.requires_grad_(False)
    if cell.attention == "uniform":
        torch.nn.init.zeros_(head.score.query)  # all scores zero: every token has the same weight
    return head


def batches(data: Cached, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Batches of texts of about the same length; with a generator in random order and composition."""
    lengths = (data.starts[1:] - data.starts[:-1]).double()
    if generator is not None:
        lengths = lengths + torch.rand(len(lengths), generator=generator, dtype=torch.double) * lengths.std()
    chunks = lengths.argsort().split(BATCH)
    order = range(len(chunks)) if generator is None else torch.randperm(len(chunks), generator=generator).tolist()
    return (chunks[i] for i in order)


def fit(head: AttentionHead, train: Cached, epochs: int, seed: int) -> None:
    """Train the head with AdamW and a rate that falls to zero."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW([p for p in head.parameters() if p.requires_grad], lr=RATE, weight_decay=0.01)
    steps = epochs * math.ceil(len(train.labels) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    head.train()
    for _ in range(epochs):
        for texts in batches(train, generator):
            states, mask = train.batch(texts)
            loss = functional.cross_entropy(head(states, mask).logits, train.labels[texts])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    head.eval()


@torch.no_grad()
def accuracy(head: AttentionHead, test: Cached) -> float:
    """Return the accuracy on the test texts."""
    hits = 0
    for texts in batches(test, None):
        hits += int((head(*test.batch(texts)).logits.argmax(1) == test.labels[texts]).sum())
    return hits / len(test.labels)


def train_cell(cell: Cell, options: argparse.Namespace, train: Cached, test: Cached) -> None:
    """Train the head; it goes to a file, a line about it to trained.jsonl."""
    started = time.process_time()
    head = make_head(cell, train)
    fit(head, train, EPOCHS[cell.recurrence], cell.seed)
    line = {"cell": asdict(cell), "accuracy": accuracy(head, test), "cpu_seconds": time.process_time() - started}
    path = options.output / "heads" / f"{cell.key}.safetensors"
    save_file(head.state_dict(), path.with_suffix(".part"))
    append_row(line, options.output / "trained.jsonl")
    path.with_suffix(".part").rename(path)  # so that the file is complete or absent


@dataclass(frozen=True, eq=False)
class HeadOutputs:
    """Outputs of a head on the texts of a split."""

    probabilities: Tensor  # (texts, classes)
    permuted: Tensor  # (texts, classes) with the weights of each text permuted among its tokens
    context: Tensor  # (texts, width)
    weights: list[Tensor]  # (tokens,) of each text
    states: list[Tensor]  # (tokens, width) of each text: the states that attention weights apply to


@torch.no_grad()
def head_outputs(head: AttentionHead, data: Cached, texts: Tensor, seed: int) -> HeadOutputs:
    """Return the outputs of the head on these texts, without noise."""
    generator = torch.Generator().manual_seed(seed)
    by_text: dict[int, tuple[Tensor, ...]] = {}
    for chunk in texts.split(BATCH):
        states, mask = data.batch(chunk)
        out = head(states, mask)
        attended = states if head.recurrence is None else head.recurrence(states, mask)
        for i, text in enumerate(chunk.tolist()):
            weights, tokens = out.weights[i, 0, 0][mask[i]], attended[i][mask[i]]
            shuffled = weights[torch.randperm(len(weights), generator=generator)]
            by_text[text] = (out.logits[i], head.classifier(shuffled @ tokens), out.context[i], weights, tokens)
    columns = list(zip(*(by_text[text] for text in texts.tolist())))
    probabilities, permuted = (torch.stack(columns[i]).double().softmax(1) for i in (0, 1))
    return HeadOutputs(probabilities, permuted, torch.stack(columns[2]), list(columns[3]), list(columns[4]))


def token_information(profile: HeadOutputs, test: HeadOutputs, seed: int) -> list[Tensor]:
    """Return KL(q(Y | h_i) || q(Y)) in nats for each token of each test text; q from the profile's tokens."""
    generator = torch.Generator().manual_seed(seed)
    sampled = [torch.randperm(len(s), generator=generator)[:TOKENS_EACH] for s in profile.states]
    states = torch.cat([s[d] for s, d in zip(profile.states, sampled)])
    outputs = profile.probabilities.repeat_interleave(torch.tensor([len(d) for d in sampled]), 0)
    probe = fit_probe(states, outputs, folds=5, seed=seed)
    lengths = [len(s) for s in test.states]
    log_posterior = probe.log_posterior(torch.cat(test.states)).double()
    divergence = (log_posterior.exp() * (log_posterior - probe.prior.double().log())).sum(1)
    return list(divergence.split(lengths))


def shape_of(weights: Tensor) -> tuple[float, float, float]:
    """Return H(a) / ln n, Gini = 1 - sum_i a_(i) (2 (n - i) + 1) / n (a in rising order, i from 1) and the largest."""
    count = len(weights)
    rising = weights.double().sort().values
    places = torch.arange(1, count + 1, dtype=torch.double)
    gini = 1 - float((rising * (2 * (count - places) + 1)).sum()) / count
    spread = float(torch.special.entr(rising).sum()) / math.log(count) if count > 1 else 0.0
    return spread, gini, float(rising[-1])


def pair_agreement(weights: Tensor, information: Tensor) -> np.ndarray:
    """Return (2, bounds + 1): sum of agreements (+1, -1) and number of pairs, by the distance of the log weights."""
    first, second = torch.triu_indices(len(weights), len(weights), 1)
    logs = weights.double().clamp_min(1e-12).log()
    distance, order = logs[first] - logs[second], information[first] - information[second]
    group = torch.bucketize(distance.abs(), torch.tensor(PAIR_BOUNDS, dtype=torch.double))
    differs, groups = distance != 0, len(PAIR_BOUNDS) + 1
    agree = torch.bincount(group[differs], (distance * order).sign()[differs], groups)
    return torch.stack([agree, torch.bincount(group[differs], minlength=groups).double()]).numpy()


def sites(test: HeadOutputs, seed: int) -> Tensor:
    """Return (3, texts, width): the state attended most, a random state, and the context, which has all information."""
    generator = torch.Generator().manual_seed(seed)
    most = torch.stack([s[int(w.argmax())] for s, w in zip(test.states, test.weights)])
    chance = torch.stack([s[int(torch.randint(len(s), (), generator=generator))] for s in test.states])
    return torch.stack([most, chance, test.context])


def measure(cell: Cell, options: argparse.Namespace, train: Cached, test: Cached) -> dict[str, Any]:
    """Return the figures of a trained head; those of each test text go to a file."""
    head = make_head(cell, train).eval()
    head.load_state_dict(load_file(options.output / "heads" / f"{cell.key}.safetensors"))
    texts = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0))[:PROFILE_TEXTS]
    profile = head_outputs(head, train, texts, cell.seed)
    outputs = head_outputs(head, test, torch.arange(len(test.labels)), cell.seed)
    information = token_information(profile, outputs, cell.seed)
    estimate = mutual_information(
        sites(outputs, cell.seed),
        outputs.probabilities,
        estimator=options.estimator,
        permutations=options.permutations,
        seed=cell.seed,
    )
    taus = [
        float(rank_correlations(w.double(), i)[0]) if len(w) > 2 else math.nan
        for w, i in zip(outputs.weights, information)
    ]
    shapes = np.array([shape_of(w) for w in outputs.weights])
    per_text = {
        "correct": (outputs.probabilities.argmax(1) == test.labels).numpy(),
        "correct_permuted": (outputs.permuted.argmax(1) == test.labels).numpy(),
        "tau": np.array(taus),
        "spread": shapes[:, 0],
        "gini": shapes[:, 1],
        "largest": shapes[:, 2],
        "attended": np.array([float((w.double() * i).sum()) for w, i in zip(outputs.weights, information)]),
        "average": np.array([float(i.mean()) for i in information]),
    }
    pairs = sum(pair_agreement(w, i) for w, i in zip(outputs.weights, information))
    assert isinstance(pairs, np.ndarray)
    arrays = {name: values.astype(np.float32) for name, values in per_text.items()}
    np.savez_compressed(options.output / "texts" / f"{cell.key}.npz", pairs=pairs, **arrays)
    with np.errstate(invalid="ignore"):
        means = {name: float(np.nanmean(v)) if np.isfinite(v).any() else None for name, v in arrays.items()}
    return {"cell": asdict(cell), "mi": estimate.to_dict(), "means": means}


def run_cells(cells: list[Cell], options: argparse.Namespace) -> None:
    """Train and measure the cells that are missing; a row for each goes to measured.jsonl."""
    path = options.output / "measured.jsonl"
    done = {Cell(**line["cell"]) for line in read_rows(path)}
    data = functools.cache(lambda name: cached_states(name, options))
    for number, cell in enumerate(cells):
        if cell in done:
            continue
        started = time.process_time()
        if not (options.output / "heads" / f"{cell.key}.safetensors").exists():
            train_cell(cell, options, *data(cell.dataset))
        trained = time.process_time()
        line = measure(cell, options, *data(cell.dataset))
        append_row(line | {"cpu_seconds": time.process_time() - trained}, path)
        seconds = f"{trained - started:.1f} + {time.process_time() - trained:.1f} s"
        print(f"{number + 1}/{len(cells)} {cell.key} {line['means']['correct']:.4f} {seconds}", flush=True)


def grid(options: argparse.Namespace) -> list[Cell]:
    """Return the cells of this process, seed after seed, so that a stopped run has whole seeds."""
    sets = list(built_in_texts())[:2] if options.quick else list(SETS)
    quick = [("softmax", 1.0), ("softmax", 0.5), ("gumbel", 0.5)]
    normalizers = quick if options.quick else NORMALIZERS
    cells = []
    for seed, name, recurrence in itertools.product(range(options.seeds), sets, ("none", "bilstm")):
        base = Cell(name, seed, "scaled_dot", "softmax", 1.0, recurrence, "uniform")
        cells.append(base)  # uniform attention has no scores: one cell for all
        for score, (normalizer, temperature), attention in itertools.product(
            SCORES, normalizers, ("trained", "frozen")
        ):
            cells.append(
                replace(base, score=score, normalizer=normalizer, temperature=temperature, attention=attention)
            )
    share, shares = map(int, options.share.split("/"))
    return [cell for number, cell in enumerate(cells) if number % shares == share]


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument(
        "--encoder", default=str(EMBEDDED_MODEL), help="Hub name or path (default: the embedded demo model)"
    )
    parser.add_argument("--output", type=Path, help="folder of the results; needed unless --quick")
    parser.add_argument("--report", type=Path, help="only write the page and its figure into this folder")
    parser.add_argument("--seeds", type=int, help="default: 3, with --quick 2")
    parser.add_argument("--estimator", default="auto", help="estimator of mutual information")
    parser.add_argument("--permutations", type=int, default=50)
    parser.add_argument("--share", default="0/1", help="0/2 and 1/2 divide the run between two processes")
    parser.add_argument("--quick", action="store_true", help="the embedded model on built-in texts, a smaller grid")
    options = parser.parse_args()
    options.seeds = options.seeds or (2 if options.quick else 3)
    if options.output is None and not options.quick:
        parser.error("--output is needed")
    if options.report is None and not options.quick and options.data is None:
        parser.error("--data is needed")
    return options


def run(options: argparse.Namespace) -> None:
    """Train, measure, or write the page."""
    if options.report is None or options.quick:
        for name in ("heads", "texts"):
            (options.output / name).mkdir(parents=True, exist_ok=True)
        cells, started = grid(options), time.perf_counter()
        run_cells(cells, options)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        minutes = (time.perf_counter() - started) / 60
        line = {"share": options.share, "minutes": minutes, "peak_gib": peak, **provenance()}
        append_row(line, options.output / "runs.jsonl")
    if options.report is not None or options.quick:
        folder = options.report if options.report is not None else options.output
        folder.mkdir(parents=True, exist_ok=True)
        print(write_report(options.output, folder))


def main() -> None:
    """Run the study."""
    options = parse()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if options.quick and options.output is None:
        with tempfile.TemporaryDirectory() as folder:
            options.output = Path(folder)
            run(options)
    else:
        run(options)


if __name__ == "__main__":
    main()
