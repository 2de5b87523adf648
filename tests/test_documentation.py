"""The Python blocks of README.md and docs/ run.

The blocks of a page run one after the other in one namespace and in one folder of their own. Blocks in other languages
(bash, text, none) are not run.

- A page starts without names and without files, as its reader does: what a block uses, a block before it makes.
- Hub names: `hub` is a cache of the Hub in which the names of `HUB_MODELS` are tiny models of the same type with random
  weights and the embedded model's tokenizer. Any other name fails, as it does without a network.
"""

import contextlib
import inspect
import io
import re
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoTokenizer

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
    "openai/clip-vit-base-patch32": ("CLIPModel", {"text_config": CLIP_TEXT, "vision_config": VIT}),
    "superb/wav2vec2-base-superb-ks": ("Wav2Vec2ForSequenceClassification", MEDIA | SPEECH),
}
IMAGE_PROCESSOR = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})


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
        if "pixel_values" in inspect.signature(model.forward).parameters:
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


def pages():
    for page in PAGES:
        if blocks(page):
            reason = EXPECTED_FAILURES.get(name_of(page))
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            yield pytest.param(page, id=name_of(page), marks=marks)


@pytest.mark.parametrize("page", pages())
def test_python_blocks_run(page, hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
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
