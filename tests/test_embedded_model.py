"""The model in `hf_attn_mi/embedded_model`: its files, its shape, its precision and what it can do."""

import gzip
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

FOLDER = Path(__file__).parents[1] / "hf_attn_mi" / "embedded_model"
SHARED = Path(os.environ.get("HF_ATTN_MI_SHARED", Path(__file__).parents[2] / "shared"))
DATA = SHARED / "data"
OBVIOUS = [
    ("A wonderful, moving and beautifully acted film.", 1),
    ("One of the best movies of the year.", 1),
    ("The cast is brilliant and the story is very funny.", 1),
    ("a warm , charming and intelligent comedy", 1),
    ("A dull, stupid and boring mess.", 0),
    ("One of the worst movies of the year.", 0),
    ("The acting is terrible and the plot makes no sense.", 0),
    ("This film isn't funny, it is a waste of time.", 0),
    ("The plot is thin and the jokes are old, but the two leads are a joy to watch.", 1),
]


@pytest.fixture(scope="module")
def model():
    return AutoModelForSequenceClassification.from_pretrained(FOLDER, local_files_only=True).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


def predict(model, tokenizer, texts: list[str]) -> torch.Tensor:
    """Return the class of each text, (texts,)."""
    found = []
    for start in range(0, len(texts), 64):
        inputs = tokenizer(texts[start : start + 64], padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            found.append(model(**inputs).logits.argmax(-1))
    return torch.cat(found)


def test_the_files_are_there_and_small():
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir() if path.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"} <= set(files)
    assert sum(files.values()) <= 20_000_000


def test_weights_are_stored_in_half_and_load_in_float32(model):
    with safe_open(FOLDER / "model.safetensors", framework="pt") as stored:
        kinds = {stored.get_slice(name).get_dtype() for name in stored.keys()}  # noqa: SIM118 (not a dict)
    assert kinds == {"F16"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_the_architecture_is_the_stated_one(model, tokenizer):
    config = model.config
    assert isinstance(model, BertForSequenceClassification)
    assert (config.num_hidden_layers, config.num_attention_heads) == (3, 12)
    assert (config.hidden_size, config.intermediate_size) == (384, 1536)
    assert config.id2label == {0: "negative", 1: "positive"}
    assert config.vocab_size == len(tokenizer) == 8000
    assert config.max_position_embeddings == tokenizer.model_max_length == 512


def test_the_tokenizer_is_a_lower_casing_fast_bert_tokenizer(tokenizer):
    assert tokenizer.is_fast
    one = tokenizer("A GOOD Film")
    assert one["input_ids"] == tokenizer("a good film")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(one["input_ids"]) == ["[CLS]", "a", "good", "film", "[SEP]"]
    pair = tokenizer("good", "bad")
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1]
    assert tokenizer.pad_token_id == 0
    assert len(tokenizer("good " * 600, truncation=True)["input_ids"]) == 512


@pytest.mark.parametrize(("text", "label"), OBVIOUS)
def test_an_obvious_sentence_is_classified(model, tokenizer, text, label):
    assert predict(model, tokenizer, [text]).item() == label


def test_a_text_of_full_length_keeps_its_class(model, tokenizer):
    good, bad = "a wonderful and moving film . " * 80, "a dull and boring mess . " * 80
    assert predict(model, tokenizer, [good, bad]).tolist() == [1, 0]


def test_the_card_states_the_accuracy_and_its_limits():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for needed in ("SST-2 dev", "IMDB dev", "Socher et al.", "Not for decisions", "Apache-2.0"):
        assert needed in card


@pytest.mark.skipif(not DATA.exists(), reason="no data sets: set HF_ATTN_MI_SHARED to the folder with data/sst2")
@pytest.mark.parametrize(("name", "count", "least"), [("sst2", 872, 0.84), ("imdb", 245, 0.82)])
def test_accuracy_on_the_development_sets(model, tokenizer, name, count, least):
    with gzip.open(DATA / name / "dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    predicted = predict(model, tokenizer, [row["text"] for row in rows])
    accuracy = (predicted == torch.tensor([row["label"] for row in rows])).float().mean().item()
    assert len(rows) == count
    assert accuracy >= least
    assert f"{accuracy:.1%}" in (FOLDER / "README.md").read_text(encoding="utf-8")
