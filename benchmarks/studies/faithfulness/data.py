"""The inputs of the study: which texts of which data set, for which model, with which rationales.

Texts are cut at the end of a word, so that every method and every peer reads the same tokens without truncation.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.common import SHARED
from benchmarks.inputs import load_classifier, load_tokenizer
from benchmarks.studies.causal.models import read_split
from hf_attn_mi.data.texts import read_texts_of
from hf_attn_mi.heads import AttentionHeadForSequenceClassification
from hf_attn_mi.tasks.rationales import rationale_spans

DATA = SHARED / "data"
MODELS = SHARED / "models"
Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class DataSet:
    """A data set and the model that is explained on it.

    Attributes:
        name: the name in tables.
        model: folder below ../shared/models or among the trained models (../causal/models.py); None for a classifier
            that training.py makes.
        data: file below ../shared/data; without a slash, the test rows of ../causal/models.py, texts or pairs.
        inputs: number of inputs.
        tokens: longest input, special tokens included.
        rationales: compare with human rationales; then the labeled class is explained, not the predicted one.
        chunk: inputs of one run, which is written before the next starts.
        what: description for the page.
    """

    name: str
    model: str | None
    data: str
    inputs: int
    tokens: int
    rationales: bool
    chunk: int
    what: str


SETS = {
    dataset.name: dataset
    for dataset in (
        DataSet("sst2", "minilm-sentiment", "sst2/dev", 200, 256, False, 20, "SST-2 dev, 200 of 872 sentences"),
        DataSet("agnews", "minilm-agnews", "agnews/test", 200, 256, False, 10, "AG News test, 200 of 2,000"),
        DataSet("imdb", "minilm-sentiment", "imdb/test", 200, 128, False, 5, "IMDB test, 200 of 999, 128 tokens"),
        DataSet("imdb_256", "minilm-sentiment", "imdb/test", 40, 256, False, 5, "IMDB test, 40 of 999, 256 tokens"),
        DataSet("snli", "minilm-snli", "snli", 200, 256, False, 20, "SNLI, 200 pairs with premises not trained on"),
        DataSet("mrpc", "minilm-mrpc", "mrpc", 200, 256, False, 20, "MRPC dev, 200 of 408 pairs"),
        DataSet("cola", "minilm-cola", "cola", 200, 256, False, 20, "CoLA in-domain dev, 200 of 526 sentences"),
        DataSet("rte", "minilm-rte", "rte", 200, 256, False, 20, "RTE, 200 pairs with premises not trained on"),
        DataSet("agnews_modernbert", "modernbert-agnews", "agnews", 200, 128, False, 20, "AG News test, 200 of 2,000"),
        DataSet("sst2_deberta", "deberta-sst2", "sst2", 200, 128, False, 20, "SST-2 dev, 200 of 872 sentences"),
        DataSet("sst2_roberta", "roberta-sst2", "sst2", 200, 64, False, 20, "SST-2 dev, 200 of 872 sentences"),
        DataSet("imdb_cad", "minilm-sentiment", "imdb_cad/dev", 60, 128, True, 60, "IMDB, words a person changed"),
        DataSet("sst_tokens", "minilm-sentiment", "sst_tokens/dev", 200, 256, True, 200, "SST, labels of words"),
        DataSet("toxic_spans", None, "toxic_spans/trial", 100, 128, True, 100, "Toxic Spans trial"),
        DataSet("hatexplain", None, "hatexplain/val", 100, 128, True, 100, "HateXplain val, the half not trained on"),
    )
}


@dataclass(frozen=True)
class Inputs:
    """The inputs of a data set and the model that is explained.

    Attributes:
        model: the model, in float32 and evaluation mode.
        tokenizer: the tokenizer of the model.
        texts: the texts, or pairs of texts, in random order (seed 0).
        spans: character spans of each text's rationale; None where the data set has none.
        targets: class of each text, for rationales; None for the predicted one.
        folder: the folder of the model, for peers.
    """

    model: nn.Module
    tokenizer: Any
    texts: list[Any]
    spans: list[Spans] | None
    targets: list[int] | None
    folder: str


class MissingDataError(Exception):
    """The data or the model is missing; the message says which."""


def read_inputs(dataset: DataSet, trained: Path) -> Inputs:
    """Read the inputs of a data set.

    Args:
        dataset: which one.
        trained: folder of the classifiers that training.py and ../causal/models.py make.

    Raises:
        MissingDataError: the file or the model is missing.
    """
    folder = folder_of(dataset, trained)
    file = DATA / f"{dataset.data}.jsonl.gz" if "/" in dataset.data else DATA / dataset.data
    for path in (folder, file):
        if not path.exists():
            raise MissingDataError(f"{path.name} is missing")
    tokenizer = load_tokenizer(folder)
    rows = read_data(file) if "/" in dataset.data else held_out_rows(dataset.data)
    if dataset.name == "hatexplain":
        rows = halves(rows)[1]
    if dataset.rationales:
        rows = [row for row in rows if any(row["rationale"])]
    texts, spans, targets = [], [], []
    for row in sample(rows, len(rows)):
        text, row_spans = text_and_spans(row)
        if isinstance(text, str):  # pairs are short, and are not cut
            text = cut(text, tokenizer, dataset.tokens)
        row_spans = [(start, min(end, len(text))) for start, end in row_spans if start < len(text)]
        if row_spans or not dataset.rationales:
            texts.append(text)
            spans.append(row_spans)
            targets.append(row["label"])
        if len(texts) == dataset.inputs:
            break
    if dataset.model is None:
        model: nn.Module = AttentionHeadForSequenceClassification.from_pretrained(folder).eval()
    else:
        model = load_classifier(folder)
    if not dataset.rationales:
        return Inputs(model, tokenizer, texts, None, None, str(folder))
    return Inputs(model, tokenizer, texts, spans, targets, str(folder))


def folder_of(dataset: DataSet, trained: Path) -> Path:
    """Return the folder of the model, whether or not it exists."""
    if dataset.model is None:
        return trained / dataset.name
    return MODELS / dataset.model if (MODELS / dataset.model).exists() else trained / dataset.model


def held_out_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows that models of the causal study were not trained on; the text of a pair is a tuple."""
    return [{"text": text, "label": label} for text, label in read_split(DATA, name)[1]]


def read_any_inputs(model: str, data: str, count: int, tokens: int) -> Inputs:
    """Read inputs for any classifier and data set: Hub names, folders or files."""
    tokenizer = load_tokenizer(model)
    reader = read_texts_of(data)
    texts = sample([text for text in reader if isinstance(text, str)], count)
    texts = [cut(text, tokenizer, tokens) for text in texts]
    return Inputs(load_classifier(model), tokenizer, texts, None, None, model)


def read_data(file: Path) -> list[dict[str, Any]]:
    """Read the rows of a .jsonl.gz file."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def sample(rows: Sequence[Any], count: int) -> list[Any]:
    """Draw this many rows without replacement, with seed 0."""
    shuffled = list(rows)
    random.Random(0).shuffle(shuffled)
    return shuffled[:count]


def halves(rows: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return a half for training and a half for the study."""
    shuffled = sample(rows, len(rows))
    return shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :]


def text_and_spans(row: dict[str, Any]) -> tuple[Any, Spans]:
    """Return the text of a row and the character spans of its rationale."""
    if "rationale" not in row:
        return row["text"], []
    if "offsets" in row:  # joining its words does not give the text, so the row has their character spans
        flagged = [tuple(span) for span, flag in zip(row["offsets"], row["rationale"]) if flag]
        return row["text"], [(start, end) for start, end in flagged]
    return " ".join(row["tokens"]), rationale_spans(row["tokens"], row["rationale"])


def cut(text: str, tokenizer: Any, tokens: int) -> str:
    """Return the longest prefix of whole words with at most this many tokens, special tokens included."""
    words = tokenizer(text, return_offsets_mapping=True, verbose=False)
    if len(words["input_ids"]) <= tokens:
        return text
    numbers = words.word_ids()
    after = len(numbers) - 1 - max(i for i, number in enumerate(numbers) if number is not None)  # special ones behind
    ends = [
        end
        for i, ((_, end), number) in enumerate(zip(words["offset_mapping"], numbers))
        if number is not None and number != numbers[i + 1] and i + 1 + after <= tokens
    ]
    return text[: ends[-1]] if ends else text
