"""What the scripts of this folder share: their arguments, and models that need no network.

Without `--model` a script takes a tiny model with random weights and the tokenizer of the embedded model, so that every
call can be tried offline; the scores of such a model mean nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import transformers

import hf_attn_mi

EMBEDDED_MODEL = Path(hf_attn_mi.__file__).parent / "embedded_model"  # trained: sentiment of film reviews
BERT = {"vocab_size": 8000, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
BERT |= {"intermediate_size": 64, "initializer_range": 0.3}
GPT2 = {"vocab_size": 8000, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
GPT2 |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
NLI = {"id2label": {0: "entailment", 1: "neutral", 2: "contradiction"}}
NLI["label2id"] = {name: number for number, name in NLI["id2label"].items()}
TINY: dict[str, tuple[str, dict[str, Any]]] = {  # class that loads a model -> class and configuration of a tiny one
    "AutoModelForMaskedLM": ("BertForMaskedLM", {}),
    "AutoModelForCausalLM": ("GPT2LMHeadModel", GPT2),
}


def read_options(description: str | None, *texts: str, count: int | None = None) -> argparse.Namespace:
    """The arguments of a script: `texts`, `model` (None without one) and `plot`.

    Args:
        description: of the script.
        texts: what is explained where the command line names nothing.
        count: how many texts are needed; None for any number.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", default=list(texts), help="what is explained")
    parser.add_argument("--model", help="Hub name or folder (default: a model that needs no network)")
    parser.add_argument("--plot", type=Path, help="file of a picture: .png, .svg or .pdf")
    options = parser.parse_args()
    if count is not None and len(options.texts) != count:
        parser.error(f"{count} texts are needed, not {len(options.texts)}")
    return options


def load(auto_class: Any, name: str | None, **configuration: Any) -> Any:
    """The model of this name; without one a tiny model with random weights.

    Args:
        auto_class: the class of transformers that loads such models.
        name: a Hub name or a folder; None for the tiny model.
        configuration: settings of the tiny model beside those of `TINY`.
    """
    if name is not None:
        return auto_class.from_pretrained(name)
    default = ("BertForSequenceClassification", {})
    class_name, settings = TINY.get(auto_class.__name__, default)
    model_class = getattr(transformers, class_name)
    base = BERT if class_name.startswith("Bert") else {}
    torch.manual_seed(3)
    return model_class(model_class.config_class(**{**base, **settings, **configuration})).eval()


def load_tokenizer(name: str | None) -> Any:
    """The tokenizer of this model; that of the embedded model without a name."""
    return transformers.AutoTokenizer.from_pretrained(name or EMBEDDED_MODEL)
