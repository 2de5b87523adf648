"""The data sets and models of the studies of attention weights, read in the same order by each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import EMBEDDED_MODEL, check
from benchmarks.inputs import load_classifier, load_tokenizer
from benchmarks.studies.causal.models import Row, read_split

SHORT: list[Row] = [
    ("One of the worst movies of the year!", 0),
    ("A quietly moving film that never lets its warm cast down.", 1),
]
QUICK = "quick"


@dataclass(frozen=True)
class Suite:
    """A data set and the model that classifies it.

    Attributes:
        title: the name in tables.
        model: the folder of the model among the models.
        dataset: the name of the data set.
        tokens: the length that inputs are cut to.
        planned: inputs of the main ranking that the study is planned with.
    """

    title: str
    model: str
    dataset: str
    tokens: int
    planned: int


EMBEDDED = "embedded_model"
SUITES = {
    "sst2": Suite("SST-2, MiniLM", "minilm-sentiment", "sst2", 64, 200),
    "agnews": Suite("AG News, MiniLM", "minilm-agnews", "agnews", 60, 200),
    "imdb": Suite("IMDB, MiniLM", "minilm-sentiment", "imdb", 128, 100),
    "embedded": Suite("SST-2, embedded model", EMBEDDED, "sst2", 64, 100),
    "snli": Suite("SNLI, MiniLM", "minilm-snli", "snli", 64, 100),
    "mrpc": Suite("MRPC, MiniLM", "minilm-mrpc", "mrpc", 96, 100),
    "modernbert": Suite("AG News, ModernBERT", "modernbert-agnews", "agnews", 60, 50),
    "deberta": Suite("SST-2, DeBERTa-v2", "deberta-sst2", "sst2", 64, 50),
    "roberta": Suite("SST-2, RoBERTa", "roberta-sst2", "sst2", 64, 50),
}


@dataclass(frozen=True, eq=False)
class LoadedSuite:
    """A model, its tokenizer, and its rows in a fixed random order."""

    model: nn.Module
    tokenizer: Any
    rows: list[Row]
    order: list[int]
    tokens: int

    def inputs(self, number: int) -> dict[str, Tensor]:
        """The tensors of one row."""
        texts, _ = self.rows[number]
        return self.encode(texts if isinstance(texts, tuple) else (texts,), self.tokens)

    def encode(self, parts: Sequence[str], tokens: int) -> dict[str, Tensor]:
        """The tensors of a text, or of a pair of texts, cut to so many tokens."""
        return dict(self.tokenizer(*parts, truncation=True, max_length=tokens, return_tensors="pt"))


def load_suite(name: str, data: Path | None, models: Sequence[Path]) -> LoadedSuite:
    """Load what a suite needs; "quick" is the embedded model on two texts."""
    suite = SUITES.get(name)
    if suite is None:
        rows, path, tokens = SHORT, EMBEDDED_MODEL, 64
    else:
        check(data is not None, "--data names the folder of the data sets")
        assert data is not None
        folders = [EMBEDDED_MODEL] if suite.model == EMBEDDED else [folder / suite.model for folder in models]
        path, rows, tokens = folder_of(suite.model, folders), read_split(data, suite.dataset)[1], suite.tokens
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return LoadedSuite(load_classifier(path), load_tokenizer(path), rows, order, tokens)


def folder_of(model: str, folders: Sequence[Path]) -> Path:
    """The first of these folders that exists."""
    there = [folder for folder in folders if folder.exists()]
    check(len(there) > 0, f"{model} is in none of the folders of --models")
    return there[0]
