"""The Python blocks of README.md and docs/ run.

The blocks of a page run one after the other in one namespace and in one folder of their own. Blocks in other languages
(bash, text, none) are not run.

- Names that a page may use without defining them: those of `namespace` below (`model`, `tokenizer`, `text`, ...).
- Files that a page may read: those of `folder` below (`reviews.jsonl.gz`, `my_head`).
- Hub names: `hub` is a cache of the Hub in which the names of `HUB_MODELS` are tiny models of the same type with random
  weights and the embedded model's tokenizer. Any other name fails, as it does without a network.
"""

import contextlib
import gzip
import inspect
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoTokenizer

import hf_attn_mi
from tests.hub_cache import fill_cache, use_cache
from tests.sample_models import DEMO

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```python[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# Page -> why its blocks do not run. The aim is an empty table; a page that runs must not stand in it.
EXPECTED_FAILURES: dict[str, str] = {}

SIZES = {"vocab_size": 8000, "num_labels": 2, "id2label": {0: "NEGATIVE", 1: "POSITIVE"}}
BERT = {**SIZES, "hidden_size": 48, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 64}
DISTILBERT = {**SIZES, "dim": 48, "n_layers": 6, "n_heads": 12, "hidden_dim": 64}
ENTITIES = {0: "O", 1: "B-PER", 2: "B-LOC"}
NLI = {"num_labels": 3, "id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}}
NLI["label2id"] = {name: number for number, name in NLI["id2label"].items()}
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "decoder_start_token_id": 2}
BART = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
BART |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
GPT2 = {"vocab_size": 8000, "n_embd": 32, "n_layer": 2, "n_head": 4, **SPECIAL}
T5 = {"vocab_size": 8000, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
MEDIA = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SPEECH = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "conv_dim": (32, 32, 32)}
SPEECH |= {"conv_stride": (5, 2, 2), "conv_kernel": (10, 3, 3), "num_feat_extract_layers": 3}
VIT = {**MEDIA, "image_size": 32, "patch_size": 8}
NINE_ENTITIES = {
    "num_labels": 9,
    "id2label": dict(enumerate(["O", "B-MISC", "I-MISC", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"])),
}
CLIP_TEXT = {"vocab_size": 8000, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CLIP_TEXT |= {"intermediate_size": 64, "eos_token_id": 3, "pad_token_id": 0}
HUB_MODELS = {  # Hub name -> class of the model and options of its configuration
    "distilbert/distilbert-base-uncased-finetuned-sst-2-english": ("DistilBertForSequenceClassification", DISTILBERT),
    "sentence-transformers/all-MiniLM-L6-v2": ("BertModel", BERT),
    "google-bert/bert-base-uncased": ("BertForMaskedLM", BERT),
    "dslim/bert-base-NER": ("BertForTokenClassification", BERT | NINE_ENTITIES),
    "distilbert/distilbert-base-cased-distilled-squad": ("DistilBertForQuestionAnswering", DISTILBERT),
    "typeform/distilbert-base-uncased-mnli": ("DistilBertForSequenceClassification", DISTILBERT | NLI),
    "openai-community/gpt2": ("GPT2LMHeadModel", GPT2),
    "facebook/bart-base": ("BartForConditionalGeneration", {"vocab_size": 8000, "d_model": 32, **BART, **SPECIAL}),
    "google-t5/t5-small": ("T5ForConditionalGeneration", T5),
    "google/vit-base-patch16-224": ("ViTForImageClassification", VIT),
    "superb/wav2vec2-base-superb-ks": ("Wav2Vec2ForSequenceClassification", MEDIA | SPEECH),
}
IMAGE_PROCESSOR = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
TEXTS = [
    "A quietly moving film.",
    "The plot is thin and the jokes are old.",
    "The story is very funny in places, but the cast is dull.",
    "One of the worst movies of the year!",
]


def blocks(page: Path) -> list[tuple[int, str]]:
    """(line number, code) of every Python block of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        code = re.sub(rf"^{match[1]}", "", match[2], flags=re.MULTILINE)
        found.append((text[: match.start(2)].count("\n") + 1, code))
    return found


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def tiny(class_name: str, **options: object) -> transformers.PreTrainedModel:
    """A model of this class with random weights."""
    torch.manual_seed(0)
    model_class = getattr(transformers, class_name)
    return model_class(model_class.config_class(**options)).eval()


def saved(model: transformers.PreTrainedModel, path: Path) -> transformers.PreTrainedModel:
    """The model as loaded from a folder that holds a tokenizer, too: `explain` finds it there."""
    model.save_pretrained(path)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    taken = [name for name in names if name in inspect.signature(model.forward).parameters]
    AutoTokenizer.from_pretrained(DEMO, model_input_names=taken or names).save_pretrained(path)
    return type(model).from_pretrained(path)


@pytest.fixture(scope="module")
def hub_folders(tmp_path_factory):
    """Hub name -> folder with a tiny model of the same type and a tokenizer."""
    root = tmp_path_factory.mktemp("hub")
    for name, (class_name, options) in HUB_MODELS.items():
        model = saved(tiny(class_name, **options), root / name)
        if model.main_input_name == "pixel_values":
            IMAGE_PROCESSOR.save_pretrained(root / name)
        if model.main_input_name == "input_values":
            transformers.Wav2Vec2FeatureExtractor().save_pretrained(root / name)
    return {name: str(root / name) for name in HUB_MODELS}


@pytest.fixture(scope="module")
def hub_cache(hub_folders, tmp_path_factory):
    """The models of `HUB_MODELS` in a cache as huggingface_hub lays it out; see `tests.hub_cache`."""
    return fill_cache(tmp_path_factory.mktemp("cache"), hub_folders)


@pytest.fixture
def hub(hub_cache, monkeypatch):
    """Hub names of `HUB_MODELS` are found in the cache."""
    use_cache(hub_cache, monkeypatch)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder but for what a page may read: labeled reviews, and a saved attention head."""
    from hf_attn_mi.heads import AttentionHeadForSequenceClassification

    lines = [json.dumps({"text": f"{TEXTS[i % 4]} {i}", "label": i % 2}) for i in range(80)]
    (tmp_path / "reviews.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    head = AttentionHeadForSequenceClassification.from_encoder(
        tiny("BertModel", **BERT), num_labels=2, labels=["negative", "positive"]
    )
    saved(head, tmp_path / "my_head")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def namespace(folder):
    """What a page may use without defining it: the public names, torch, and models with their inputs."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    labels = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    model = saved(tiny("BertForSequenceClassification", **(BERT | labels)), folder / "model")
    encoder = saved(tiny("BertModel", **BERT), folder / "encoder")
    ids = tokenizer(TEXTS[1], return_tensors="pt")
    public = {name: getattr(hf_attn_mi, name) for name in hf_attn_mi.__all__}
    return public | {
        "torch": torch,
        "transformers": transformers,
        "model": model,
        "tokenizer": tokenizer,
        "text": TEXTS[1],
        "texts": TEXTS[:3],
        "other_texts": [f"{text} Really." for text in TEXTS],
        "inputs": ids,
        "batch": tokenizer(TEXTS, padding=True, return_tensors="pt"),
        "labels": torch.tensor([1, 0, 0, 0]),
        "embeds": model.get_input_embeddings()(ids["input_ids"]).detach(),
        "mask": ids["attention_mask"],
        "encoder": encoder,
        "qa_model": tiny("BertForQuestionAnswering", **BERT),
        "ner_model": tiny("BertForTokenClassification", **BERT | {"num_labels": 3, "id2label": ENTITIES}),
        "nli_model": tiny("BertForSequenceClassification", **BERT | NLI),
        "choice_model": tiny("BertForMultipleChoice", **BERT),
        "mlm_model": tiny("BertForMaskedLM", **BERT),
        "causal_model": tiny("GPT2LMHeadModel", **GPT2),
        "seq2seq_model": tiny("BartForConditionalGeneration", vocab_size=8000, d_model=32, **BART, **SPECIAL),
        "question": "Who is dull?",
        "context": " ".join(TEXTS * 4),
        "clip": tiny("CLIPModel", text_config=CLIP_TEXT, vision_config=VIT),
        "vit": tiny("ViTForImageClassification", **VIT),
        "processor": IMAGE_PROCESSOR,
        "image": np.zeros((32, 32, 3), dtype=np.uint8),
        "wav2vec2": tiny("Wav2Vec2ForSequenceClassification", **MEDIA, **SPEECH),
        "audio": torch.randn(1, 4000, generator=torch.Generator().manual_seed(0)),
    }


def pages():
    for page in PAGES:
        if blocks(page):
            reason = EXPECTED_FAILURES.get(name_of(page))
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            yield pytest.param(page, id=name_of(page), marks=marks)


@pytest.mark.parametrize("page", pages())
def test_python_blocks_run(page, hub, namespace):
    for line, code in blocks(page):
        source = "\n" * (line - 1) + code  # so that tracebacks name the line of the page
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, str(page), "exec"), namespace)


def test_expected_failures_are_pages():
    assert set(EXPECTED_FAILURES) <= {name_of(page) for page in PAGES}


def test_a_hub_name_gives_a_tiny_model_of_its_type(hub):
    name = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(name)
    assert model.config.model_type == "distilbert"
    assert model.config.id2label[1] == "POSITIVE"
    assert transformers.AutoTokenizer.from_pretrained(name)("a film")["input_ids"]
    assert transformers.pipeline("text-classification", model=name)("a film")[0]["label"] in ("NEGATIVE", "POSITIVE")
    with pytest.raises(OSError, match=r"offline|cached|connect"):
        transformers.AutoModel.from_pretrained("no-organization/no-model")
