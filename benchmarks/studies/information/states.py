"""The cached states of the study's texts: data sets, the encoder's pass, and padded batches."""

from __future__ import annotations

import argparse
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from hf_attn_mi.data.files import read_file

SETS = {  # file of training rows, of test rows, how many for training, held out, for the test, most tokens
    "sst2": ("sst2/train.jsonl.gz", "sst2/dev.jsonl.gz", 3000, 1000, 872, 64),
    "agnews": ("agnews/train.jsonl.gz", "agnews/test.jsonl.gz", 1500, 1000, 1000, 96),
    "imdb": ("imdb/train.jsonl.gz", "imdb/test.jsonl.gz", 1300, 407, 999, 64),
}
SPLITS = ("train", "held_out", "test")
BATCH = 64


@dataclass(frozen=True, eq=False)
class Batch:
    """Padded states of some texts."""

    texts: Tensor  # (batch,) their numbers
    states: Tensor  # (batch, tokens, hidden) float32, zero at padding
    mask: Tensor  # (batch, tokens) bool
    labels: Tensor  # (batch,)


@dataclass(frozen=True, eq=False)
class Cached:
    """States of the texts of one split, without padding, one after the other."""

    states: Tensor  # (all tokens, hidden)
    starts: Tensor  # (texts + 1,) where each text begins
    labels: Tensor  # (texts,)

    def batch(self, texts: Tensor) -> Batch:
        """Return the padded batch of these texts."""
        lengths = self.starts[texts + 1] - self.starts[texts]
        places = torch.arange(int(lengths.max()))
        mask = places < lengths[:, None]
        index = (self.starts[texts][:, None] + places).clamp_max(len(self.states) - 1)
        return Batch(texts, self.states[index].float() * mask[..., None], mask, self.labels[texts])

    def batches(self, texts: Tensor | None = None, *, seed: int | None = None) -> list[Batch]:
        """Return batches of texts of about the same length; with a seed their composition is random."""
        chosen = torch.arange(len(self.labels)) if texts is None else texts
        lengths = (self.starts[chosen + 1] - self.starts[chosen]).double()
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            lengths = lengths + torch.rand(len(lengths), generator=generator, dtype=torch.double) * lengths.std()
        return [self.batch(chosen[chunk]) for chunk in lengths.argsort().split(BATCH)]


def built_in_texts() -> dict[str, list[tuple[str, int]]]:
    """Return tiny sets of made-up reviews, for a run that needs no files: (text, label)."""
    good, bad = ["moving", "funny", "brilliant", "warm", "clever"], ["dull", "boring", "awful", "stupid", "bland"]
    subjects = {"films": ["film", "story", "plot"], "casts": ["cast", "acting", "lead"]}
    sets = {}
    for name, things in subjects.items():
        rows = [
            (f"the {thing} was {word} and the {other} went on for a while", label)
            for thing, other in itertools.permutations(things, 2)
            for label, words in enumerate((bad, good))
            for word in words
        ]
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
        sets[name] = [rows[i] for i in order] * 3
    return sets


def read_labeled(path: Path, count: int) -> list[tuple[str, int]]:
    """Return `count` (text, label) rows in a random order that is always the same."""
    rows = [(row["text"], int(row["label"])) for row in read_file(path)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:count].tolist()
    return [rows[i] for i in order]


def read_splits(name: str, options: argparse.Namespace) -> tuple[list[list[tuple[str, int]]], int]:
    """Return the rows for training, held out, and for the test; and the most tokens of a text."""
    if options.quick:
        rows = built_in_texts()[name]
        return [rows[:90], rows[90:120], rows[120:]], 32
    train_file, test_file, count, held_out, tests, longest = SETS[name]
    rows = read_labeled(options.data / train_file, count + held_out)
    return [rows[:count], rows[count:], read_labeled(options.data / test_file, tests)], longest


@torch.no_grad()
def encode(rows: list[tuple[str, int]], encoder: Any, tokenizer: Any, longest: int) -> Cached:
    """Return the encoder's last states, in half precision to keep the files small."""
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


def cached_states(name: str, options: argparse.Namespace) -> dict[str, Cached]:
    """Return the states of the texts of each split, from a file where they were made before."""
    path = options.output / f"states_{name}.safetensors"
    if not path.exists():
        rows, longest = read_splits(name, options)
        encoder, tokenizer = AutoModel.from_pretrained(options.encoder), AutoTokenizer.from_pretrained(options.encoder)
        made = {split: encode(part, encoder.eval(), tokenizer, longest) for split, part in zip(SPLITS, rows)}
        parts = {f"{split}.{part}": value for split, data in made.items() for part, value in vars(data).items()}
        save_file(parts, path.with_suffix(f".{os.getpid()}"))
        path.with_suffix(f".{os.getpid()}").rename(path)  # so that the file is complete or absent
    parts = load_file(path)
    return {
        split: Cached(parts[f"{split}.states"].float(), parts[f"{split}.starts"], parts[f"{split}.labels"])
        for split in SPLITS
    }
