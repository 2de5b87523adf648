"""Models and comparisons that several tests need; everything is built offline."""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    ConvBertConfig,
    ConvBertForSequenceClassification,
    PreTrainedModel,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from hf_attn_mi.capture import AttentionCall, capture_attention, unwrap
from hf_attn_mi.methods import list_methods
from hf_attn_mi.methods.relevance import Relevance, relevance
from hf_attn_mi.models.runner import EncoderRunner
from tests.zoo import Built, build, jobs
from tests.zoo.building import rescale

DEMO = Path(__file__).parents[1] / "hf_attn_mi" / "embedded_model"
SIZES = {"vocab_size": 8000, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ATTENTION_AND_RELEVANCE = {
    "relevance",
    "attnlrp",
    "attnlrp_iterative",
    "attention",
    "rollout",
    "effective",
    "efficient",
}
# Methods that need no model of hf_attn_mi.heads; Captum's and the controls have a suite of their own.
ANY_MODEL = [name for name in list_methods() if name in ATTENTION_AND_RELEVANCE]
TEXTS = [
    "A quietly moving film.",
    "dull",
    "The plot makes no sense, but the cast is brilliant and the story is very funny in places.",
    "One of the worst movies of the year!",
    "An unforgettable, beautifully acted and written comedy.",
]


@cache
def _demo() -> tuple[PreTrainedModel, Any]:
    model = AutoModelForSequenceClassification.from_pretrained(DEMO, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(DEMO, local_files_only=True)


@cache
def _small() -> tuple[PreTrainedModel, Any]:
    folder = Path(__file__).parent / "golden" / "models" / "demo_model"
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def load_small() -> tuple[PreTrainedModel, Any]:
    """A trained classifier of four layers and 128 channels, and its tokenizer: the embedded model of version 0.1.0."""
    model, tokenizer = _small()
    return copy.deepcopy(model), tokenizer


def load_demo() -> tuple[PreTrainedModel, Any]:
    """A copy of the embedded model, and its tokenizer."""
    model, tokenizer = _demo()
    return copy.deepcopy(model), tokenizer


def zoo_model(name: str) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """The tiny random model of this job of the zoo (such as "seqcls-roberta") and a padded batch of two."""
    built = build(next(job for job in jobs() if job.name == name))
    return built.model, dict(built.inputs)


def reads_its_padding(kind: str) -> PreTrainedModel:
    """A tiny model, for the embedded model's tokenizer, whose output changes with the padding: "xlnet", "convbert"."""
    torch.manual_seed(0)
    if kind == "xlnet":
        config = XLNetConfig(vocab_size=8000, d_model=32, n_layer=2, n_head=4, d_inner=64, pad_token_id=0)
        model: PreTrainedModel = XLNetForSequenceClassification(config)
    else:
        config = ConvBertConfig(**SIZES, intermediate_size=64, embedding_size=32)
        model = ConvBertForSequenceClassification(config)
    rescale(model)
    return model.eval()


def tiny_bert(**options: Any) -> PreTrainedModel:
    """A random BERT classifier for the embedded model's tokenizer; `options` go to its configuration."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**{**SIZES, "intermediate_size": 64, **options}))
    rescale(model)
    return model.eval()


def distance(found: Tensor, wanted: Tensor) -> float:
    """Largest difference relative to the largest wanted entry."""
    assert found.shape == wanted.shape
    return float((found.double() - wanted.double()).abs().max() / wanted.double().abs().max())


def state_of(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that an explanation must leave alone."""
    hooks = ["_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks"]
    return {
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": {name: [len(getattr(module, hook)) for hook in hooks] for name, module in model.named_modules()},
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "forward": {name: vars(module).get("forward") for name, module in model.named_modules()},
        "config": copy.deepcopy(vars(model.config)),
        "grad": {name: (p.requires_grad, p.grad is None, p._version) for name, p in model.named_parameters()},
        "modes": torch.overrides._len_torch_function_stack()
        if hasattr(torch.overrides, "_len_torch_function_stack")
        else torch._C._len_torch_function_stack(),
        "grad_mode": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
    }


def parts(built: Built) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """A built model and its inputs."""
    return built.model, built.inputs


def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """The logits of a plain forward pass."""
    with torch.no_grad():
        return model(**inputs).logits


def captured(model: nn.Module, inputs: dict[str, Tensor]) -> list[AttentionCall]:
    """The attention calls of one forward pass."""
    with torch.no_grad(), capture_attention(model) as capture:
        model(**inputs)
    return capture.calls


def run_relevance(model: nn.Module, inputs: dict[str, Tensor], target: Any, **options: Any) -> Relevance:
    """`relevance` of a bare model."""
    runner = EncoderRunner(unwrap(model))
    with runner.session():
        return relevance(runner, inputs, target, **options)


def parameter_name(value):
    """A value as part of the name of a test, without memory addresses: test processes compare these names."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))
