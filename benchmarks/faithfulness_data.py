"""What faithfulness.py runs on: which inputs of which data set, for which model, with which rationales.

Texts are cut at the end of a word, so that every method and every peer reads the same tokens without truncating.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from materials import load, load_tokenizer
from measuring import ROOT
from torch import nn

from hf_attn_mi.data.texts import read_texts_of
from hf_attn_mi.heads import AttentionHeadForSequenceClassification
from hf_attn_mi.tasks.rationales import rationale_spans

SHARED = ROOT.parent / "shared"
DATA = SHARED / "data"
MODELS = SHARED / "models"
Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class DataSet:
    """A data set and the model that is explained on it.

    Attributes:
        name: in the tables.
        model: folder below ../shared/models; None for one that faithfulness_training.py makes.
        data: file below ../shared/data.
        inputs: how many are drawn.
        tokens: longest input, special tokens included.
        rationales: whether human rationales are judged: of the class the data set names, not of the predicted one.
        chunk: inputs in one run, which is written down before the next starts.
        what: for the page.
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
    one.name: one
    for one in (
        DataSet("sst2", "minilm-sentiment", "sst2/dev", 200, 256, False, 20, "SST-2 dev, 200 of 872 sentences"),
        DataSet("agnews", "minilm-agnews", "agnews/test", 200, 256, False, 10, "AG News test, 200 of 2,000"),
        DataSet("imdb", "minilm-sentiment", "imdb/test", 200, 128, False, 5, "IMDB test, 200 of 999, 128 tokens"),
        DataSet("imdb_256", "minilm-sentiment", "imdb/test", 40, 256, False, 5, "IMDB test, 40 of 999, 256 tokens"),
        DataSet("imdb_cad", "minilm-sentiment", "imdb_cad/dev", 60, 128, True, 60, "IMDB, words a person changed"),
        DataSet("sst_tokens", "minilm-sentiment", "sst_tokens/dev", 200, 256, True, 200, "SST, labels of words"),
        DataSet("toxic_spans", None, "toxic_spans/trial", 100, 128, True, 100, "Toxic Spans trial"),
        DataSet("hatexplain", None, "hatexplain/val", 100, 128, True, 100, "HateXplain val, the half not trained on"),
    )
}


@dataclass(frozen=True)
class Inputs:
    """What is explained.

    Attributes:
        model: in float32 and evaluation mode.
        tokenizer: of the model.
        texts: in the order drawn.
        spans: character spans of each text's rationale; None where the data set has none.
        targets: class of each text, for rationales; None for the predicted one.
        folder: of the model, for peers.
    """

    model: nn.Module
    tokenizer: Any
    texts: list[str]
    spans: list[Spans] | None
    targets: list[int] | None
    folder: str


class Missing(Exception):
    """The data or the model is not there; the message says which."""


def read_inputs(chosen: DataSet, trained: Path) -> Inputs:
    """The inputs of a data set.

    Args:
        chosen: which.
        trained: folder of the models that faithfulness_training.py makes.

    Raises:
        Missing: no such file or model.
    """
    folder = trained / chosen.name if chosen.model is None else MODELS / chosen.model
    file = DATA / f"{chosen.data}.jsonl.gz"
    for path in (folder, file):
        if not path.exists():
            raise Missing(f"{path.name} is not there")
    tokenizer = load_tokenizer(folder)
    rows = read_rows(file)
    if chosen.name == "hatexplain":
        rows = halves(rows)[1]
    if chosen.rationales:
        rows = [row for row in rows if any(row["rationale"])]
    texts, spans, targets = [], [], []
    for row in drawn(rows, len(rows)):
        text, mine = text_and_spans(row)
        text = cut(text, tokenizer, chosen.tokens)
        mine = [(start, min(end, len(text))) for start, end in mine if start < len(text)]
        if mine or not chosen.rationales:
            texts.append(text)
            spans.append(mine)
            targets.append(row["label"])
        if len(texts) == chosen.inputs:
            break
    ours = AttentionHeadForSequenceClassification.from_pretrained(folder).eval() if chosen.model is None else None
    model = load(folder) if ours is None else ours
    known = chosen.rationales
    return Inputs(model, tokenizer, texts, spans if known else None, targets if known else None, str(folder))


def own_inputs(model: str, data: str, count: int, tokens: int) -> Inputs:
    """Inputs of any classifier and data set: names on the Hub, folders or files."""
    tokenizer = load_tokenizer(Path(model))
    reader = read_texts_of(data)
    rows = drawn([text for text in reader if isinstance(text, str)], count)
    return Inputs(load(Path(model)), tokenizer, [cut(text, tokenizer, tokens) for text in rows], None, None, model)


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl.gz file."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def drawn(rows: Sequence[Any], count: int) -> list[Any]:
    """As many of the rows, in an order that only the seed 0 decides."""
    mixed = list(rows)
    random.Random(0).shuffle(mixed)
    return mixed[:count]


def halves(rows: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """A half to train on and a half to judge."""
    mixed = drawn(rows, len(rows))
    return mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]


def text_and_spans(row: dict[str, Any]) -> tuple[str, Spans]:
    """The text of a row, and the character spans of its rationale."""
    if "rationale" not in row:
        return row["text"], []
    if "offsets" in row:  # its words do not make the text: their places in it are given
        flagged = [tuple(place) for place, flag in zip(row["offsets"], row["rationale"]) if flag]
        return row["text"], [(start, end) for start, end in flagged]
    return " ".join(row["tokens"]), rationale_spans(row["tokens"], row["rationale"])


def cut(text: str, tokenizer: Any, tokens: int) -> str:
    """The text, or its longest beginning of whole words with at most this many tokens, special ones included."""
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
