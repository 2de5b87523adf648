"""LibraGrad by the modules of NightMachinery/pytorch-image-models-libragrad-v1 (`timm/night/decomposition.py`) in BERT.

The repository is a version of timm for vision transformers and cannot load BERT. Here BERT of transformers gets its
parts: `LayerNormDecomposed` for every normalization, `GELUDecomposed` for the activation, and `fair_qkv` in front of
`scaled_dot_product_attention`, configured by `configure_gradient_modes(gradient_mode_brand="LX1")`, the brand of
LibraGrad in NightMachinery/decompv-libragrad-v1. The tanh of BERT's pooler, which the authors' models do not have, is
x times a constant, as their rule for GELU has it. Scores are the word embedding times its gradient, summed. It runs in
the environment of the project.

The file is loaded alone. What it imports beside torch and the standard library (plots, images, timm, pynight) is
replaced by empty stand-ins; written here are the three that the parts call: the object that holds the configuration,
the test whether inputs are decomposed (never), and `swap_backward`.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import exchange
import torch
from torch import nn
from torch.nn import functional

FILE = "timm/night/decomposition.py"
ABSENT = (
    "IPython",
    "PIL",
    "blend_modes",
    "decompv",
    "einops",
    "kornia",
    "matplotlib",
    "pynight",
    "pytz",
    "skimage",
    "timm",
    "torchvision",
)


class Settings:
    """Holds the configuration; what was not set is None."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.print_diag_enabled_groups: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return None

    def get(self, name: str) -> Any:
        return getattr(self, name)


def swap_backward(forward: Any, backward: Any) -> Any:
    """The values of the first with the gradient of the second."""
    return backward + (forward - backward).detach()


WRITTEN: dict[str, Any] = {
    "DynamicObject": Settings,
    "decomposed_inputs_p": lambda inputs: False,
    "swap_backward": swap_backward,
    "run_check_completeness_mode_p": False,
    "run_compute_completeness_mode_p": False,
}


class StandIn(types.ModuleType):
    """A module that has every name: classes without content, functions that do nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in WRITTEN:
            return WRITTEN[name]
        return type(name, (nn.Module,), {}) if name[0].isupper() else MagicMock()


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stand-ins."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] in ABSENT else None

    def create_module(self, spec: Any) -> Any:
        module = StandIn(spec.name)
        module.__path__ = []  # modules below it are found here as well
        return module

    def exec_module(self, module: Any) -> None:
        """Nothing is run."""


def authors_module() -> Any:
    """The module of the authors, from the first folder of the path that has its file."""
    path = next(Path(folder) / FILE for folder in sys.path if (Path(folder) / FILE).exists())
    spec = importlib.util.spec_from_file_location("decomposition", path)
    assert spec is not None
    assert spec.loader is not None
    finder, before = StandIns(), set(sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.configure_gradient_modes(gradient_mode_brand="LX1")
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.split(".")[0] in ABSENT:
                del sys.modules[name]
    return module


class Gate(nn.Module):
    """tanh as x times a constant."""

    def forward(self, x: Any) -> Any:
        return swap_backward(torch.tanh(x), x * (torch.tanh(x) / torch.where(x == 0, 1.0, x)).detach())


def replace(model: Any, parts: Any) -> None:
    """Put the authors' parts into transformers' BERT."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LayerNorm):
                norm = parts.LayerNormDecomposed(child.normalized_shape, eps=child.eps)
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, norm)
    for layer in model.bert.encoder.layer:
        layer.intermediate.intermediate_act_fn = parts.GELUDecomposed()
    model.bert.pooler.activation = Gate()


def fair_attention(parts: Any) -> Callable[..., Any]:
    """PyTorch's attention of what `fair_qkv` returns, in the mode that is configured."""
    original = functional.scaled_dot_product_attention

    def attention(q: Any, k: Any, v: Any, *args: Any, **options: Any) -> Any:
        mode = parts.dynamic_obj.attention_gradient_mode
        return original(*parts.fair_qkv(q, k, v, gradient_mode=mode), *args, **options)

    return attention


def make(name: str) -> dict[str, exchange.TokenExplainer]:
    """Their parts in BERT, and the value of ours."""
    model, _ = exchange.load(name)
    parts = authors_module()
    replace(model, parts)
    functional.scaled_dot_product_attention = fair_attention(parts)

    def explain(ids: Any, target: int) -> Any:
        words = model.get_input_embeddings()(torch.tensor([list(ids)])).detach().requires_grad_()
        logits = model(inputs_embeds=words).logits[0]
        value = logits[target] - (logits.sum() - logits[target]) / (len(logits) - 1)
        (gradient,) = torch.autograd.grad(value, words)
        return (words * gradient)[0].sum(-1).tolist()

    return {
        "logits": lambda ids, target: model(torch.tensor([list(ids)])).logits[0].tolist(),
        "equal value": explain,
    }


if __name__ == "__main__":
    exchange.serve(make, (), 'the modules of gradient_mode_brand "LX1" in BERT', reads_ids=True)
