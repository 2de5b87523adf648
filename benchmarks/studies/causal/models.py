"""Train the further classifiers of the causal study: short fine-tunes, and small models from scratch.

    python benchmarks/studies/causal/models.py --data FOLDER --encoder PATH --tokenizer PATH --output FOLDER

Fine-tuned encoder (all weights): SNLI, MRPC, CoLA, RTE. From scratch, small heads, other families of positions:
ModernBERT (rotary, some layers with a sliding window) on AG News, DeBERTa-v2 (disentangled relative positions) and
RoBERTa (a byte-level BPE vocabulary of its training texts, positions counted from the padding index) on SST-2.
A model that exists already is skipped. Each takes up to ten minutes on one CPU core.
"""

import argparse
import itertools
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaTokenizer,
)

from hf_attn_mi.data.files import read_file

Row = tuple[Any, int]  # a text or a pair of texts, and its label
ONE_FILE = {"snli": 8800, "rte": 2000}  # rows of the one file that train; the rest, with other premises, is judged
HEADS, HEAD_DIM = 8, 16
BPE_VOCABULARY = 8000


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. `kind`: "encoder" (fine-tuned), or a family trained from scratch."""

    kind: str
    dataset: str
    rows: int
    epochs: int
    rate: float
    longest: int = 96


RECIPES = {
    "minilm-snli": Recipe("encoder", "snli", 8800, 2, 8e-5, 64),
    "minilm-mrpc": Recipe("encoder", "mrpc", 3668, 3, 8e-5),
    "minilm-cola": Recipe("encoder", "cola", 8539, 2, 8e-5, 48),
    "minilm-rte": Recipe("encoder", "rte", 2000, 4, 8e-5, 128),
    "modernbert-agnews": Recipe("modernbert", "agnews", 8000, 5, 1e-3),
    "deberta-sst2": Recipe("deberta", "sst2", 20000, 3, 1e-3, 64),
    "roberta-sst2": Recipe("roberta", "sst2", 20000, 3, 1e-3, 64),
}


def read_split(folder: Path, name: str) -> tuple[list[Row], list[Row]]:
    """Return training and test rows of a data set."""
    files = {
        "sst2": ("train", "dev"),
        "agnews": ("train", "test"),
        "imdb": ("train", "test"),
        "mrpc": ("train", "dev"),
        "cola": ("train", "dev_in_domain"),
        "snli": ("official_dev", "official_dev"),
        "rte": ("train", "train"),
    }
    first, second = (read_rows(folder / name / f"{part}.jsonl.gz") for part in files[name])
    if name not in ONE_FILE:
        return first, second
    premises = sorted({texts[0] for texts, _ in first})
    order = torch.randperm(len(premises), generator=torch.Generator().manual_seed(0)).tolist()
    place = {premises[i]: number for number, i in enumerate(order)}
    first.sort(key=lambda row: place[row[0][0]])
    cut = ONE_FILE[name]
    while first[cut][0][0] == first[cut - 1][0][0]:  # no premise on both sides
        cut -= 1
    return first[:cut], first[cut:]


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a JSON lines file."""
    return [
        ((row["text_a"], row["text_b"]) if "text_a" in row else row["text"], int(row["label"]))
        for row in read_file(path)
    ]


def byte_bpe(rows: list[Row]) -> RobertaTokenizer:
    """Train a byte-level BPE tokenizer of RoBERTa's form on the texts of these rows."""
    trained = ByteLevelBPETokenizer()
    texts = [part for parts, _ in rows for part in (parts if isinstance(parts, tuple) else (parts,))]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(texts, vocab_size=BPE_VOCABULARY, min_frequency=2, special_tokens=special)
    model = json.loads(trained.to_str())["model"]
    return RobertaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])


def untrained(recipe: Recipe, encoder: str, tokenizer: Any, classes: int) -> Any:
    """Return the model before training."""
    torch.manual_seed(0)
    if recipe.kind == "encoder":
        return AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=classes, dtype=torch.float32)
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": HEADS * HEAD_DIM,
        "num_attention_heads": HEADS,
        "num_labels": classes,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if recipe.kind == "modernbert":
        ends = {
            "cls_token_id": tokenizer.cls_token_id,
            "sep_token_id": tokenizer.sep_token_id,
            "bos_token_id": tokenizer.cls_token_id,
            "eos_token_id": tokenizer.sep_token_id,
        }
        config = ModernBertConfig(
            **shape,
            **ends,
            num_hidden_layers=4,
            intermediate_size=256,
            global_attn_every_n_layers=2,
            local_attention=32,
            max_position_embeddings=512,
            reference_compile=False,
        )
        return ModernBertForSequenceClassification(config)
    if recipe.kind == "roberta":
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        config = RobertaConfig(
            **shape,
            **ends,
            num_hidden_layers=3,
            intermediate_size=512,
            max_position_embeddings=recipe.longest + 2,
            type_vocab_size=1,
        )
        return RobertaForSequenceClassification(config)
    config = DebertaV2Config(
        **shape,
        num_hidden_layers=3,
        intermediate_size=512,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=32,
        max_relative_positions=64,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        pooler_hidden_size=HEADS * HEAD_DIM,
    )
    return DebertaV2ForSequenceClassification(config)


def encode(rows: list[Row], tokenizer: Any, longest: int) -> list[dict[str, list[int]]]:
    """Return the tensors of each row as lists, without padding."""
    encoded = []
    for texts, _ in rows:
        parts = texts if isinstance(texts, tuple) else (texts,)
        encoded.append(dict(tokenizer(*parts, truncation=True, max_length=longest)))
    return encoded


def pad(rows: list[dict[str, list[int]]], tokenizer: Any, model: Any) -> dict[str, Tensor]:
    """Return one batch; token types only where the model has them."""
    batch = dict(tokenizer.pad(rows, return_tensors="pt"))
    if getattr(model.config, "type_vocab_size", 0) < 2:
        batch.pop("token_type_ids", None)
    return batch


@torch.no_grad()
def accuracy(model: Any, tokenizer: Any, rows: list[Row], longest: int) -> float:
    """Return the share of rows that are classified right."""
    encoded, hits = encode(rows, tokenizer, longest), 0
    order = sorted(range(len(rows)), key=lambda i: len(encoded[i]["input_ids"]))
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        classes = model(**pad([encoded[i] for i in batch], tokenizer, model)).logits.argmax(1)
        hits += int((classes == torch.tensor([rows[i][1] for i in batch])).sum())
    return hits / len(rows)


def train(model: Any, tokenizer: Any, rows: list[Row], recipe: Recipe) -> None:
    """Train all weights with AdamW, warm-up and linear decay, in batches of similar length."""
    generator = torch.Generator().manual_seed(0)
    encoded = encode(rows, tokenizer, recipe.longest)
    lengths = torch.tensor([len(row["input_ids"]) for row in encoded], dtype=torch.double)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=0.01)
    steps = recipe.epochs * -(-len(rows) // 32)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.06 * steps + 1), max(0.0, 1 - step / steps))
    )
    model.train()
    for _ in range(recipe.epochs):
        near = (lengths + torch.rand(len(rows), generator=generator, dtype=torch.double) * lengths.std()).argsort()
        chunks = near.split(32)
        for number in torch.randperm(len(chunks), generator=generator).tolist():
            batch = chunks[number].tolist()
            labels = torch.tensor([rows[i][1] for i in batch])
            loss = model(**pad([encoded[i] for i in batch], tokenizer, model), labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.eval()


def tokenizer_for(recipe: Recipe, rows: list[Row], encoder: str, tokenizer_path: str) -> Any:
    """Return the tokenizer of a recipe: the encoder's, the one of this path, or one trained on the rows."""
    if recipe.kind == "roberta":
        return byte_bpe(rows)
    return AutoTokenizer.from_pretrained(encoder if recipe.kind == "encoder" else tokenizer_path)


def make_model(name: str, data: Path, encoder: str, tokenizer_path: str, folder: Path) -> None:
    """Train the model of this name and save it with its accuracy on the test rows."""
    recipe, started = RECIPES[name], time.process_time()
    rows, test = read_split(data, recipe.dataset)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: recipe.rows].tolist()
    rows = [rows[i] for i in order]
    tokenizer = tokenizer_for(recipe, rows, encoder, tokenizer_path)
    model = untrained(recipe, encoder, tokenizer, len({label for _, label in rows}))
    train(model, tokenizer, rows, recipe)
    facts = {
        "name": name,
        "accuracy": accuracy(model, tokenizer, test, recipe.longest),
        "test": len(test),
        "train": len(rows),
        "epochs": recipe.epochs,
        "minutes": (time.process_time() - started) / 60,
        "parameters": model.num_parameters(),
        "most_common": most_common(test),
    }
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    (folder / name / "facts.json").write_text(json.dumps(facts), encoding="utf-8")  # last: the folder is whole
    print(json.dumps(facts), flush=True)


def most_common(rows: list[Row]) -> float:
    """Return the share of the most common label: the accuracy of a constant prediction."""
    labels = sorted(label for _, label in rows)
    return max(len(list(group)) for _, group in itertools.groupby(labels)) / len(rows)


def main() -> None:
    """Train the models that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--encoder", required=True, help="pretrained BERT encoder to fine-tune")
    parser.add_argument("--tokenizer", required=True, help="tokenizer of the models from scratch")
    parser.add_argument("--output", type=Path, required=True, help="folder of the models")
    parser.add_argument("--only", nargs="*", choices=list(RECIPES), default=list(RECIPES))
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        if not (options.output / name / "facts.json").exists():
            make_model(name, options.data, options.encoder, options.tokenizer, options.output)


if __name__ == "__main__":
    main()
