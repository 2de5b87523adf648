"""What the scripts share: tiny models, the state of the process and of a model, printing and keeping a result."""

from __future__ import annotations

import argparse
import copy
import gc
import hashlib
import json
import os
import platform
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from hf_attn_mi._version import library_versions

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
TOKENIZER = ROOT / "hf_attn_mi" / "embedded_model"
TEXTS = ("A quietly moving film.", "dull", "The plot makes no sense, but the cast is brilliant.", "very funny")
SIZES = {"vocab_size": 8000, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


# --- models -----------------------------------------------------------------------------------------------------------


@cache
def tokenizer() -> Any:
    """The tokenizer of the embedded model, which every text model here takes."""
    return AutoTokenizer.from_pretrained(TOKENIZER, local_files_only=True)


def bert(**options: Any) -> Any:
    """A random BERT classifier of two layers."""
    return _built(
        lambda: BertForSequenceClassification(
            BertConfig(**SIZES, num_attention_heads=4, max_position_embeddings=64, **options)
        )
    )


def models() -> dict[str, Any]:
    """Random models of two layers: classifiers of texts and images, an encoder alone, a decoder without padding."""
    return {
        "bert": bert(),
        "distilbert": _built(
            lambda: DistilBertForSequenceClassification(
                DistilBertConfig(vocab_size=8000, dim=32, hidden_dim=48, n_layers=2, n_heads=4)
            )
        ),
        "llama": _built(
            lambda: LlamaForSequenceClassification(
                LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)
            )
        ),
        "encoder": _built(lambda: BertModel(BertConfig(**SIZES, num_attention_heads=4, max_position_embeddings=64))),
        "vit": _built(
            lambda: ViTForImageClassification(
                ViTConfig(
                    hidden_size=32,
                    intermediate_size=48,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    image_size=8,
                    patch_size=4,
                )
            )
        ),
    }


def media_models() -> dict[str, tuple[Any, Any]]:
    """By kind of input: a random classifier of two layers, and its processor."""
    audio = _built(
        lambda: Wav2Vec2ForSequenceClassification(
            Wav2Vec2Config(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                conv_dim=(16, 16),
                conv_kernel=(10, 8),
                conv_stride=(8, 8),
                num_feat_extract_layers=2,
                num_conv_pos_embeddings=4,
                num_conv_pos_embedding_groups=2,
                classifier_proj_size=16,
            )
        )
    )
    with torch.no_grad():
        audio(input_values=torch.zeros(1, 4000))  # transformers marks this model at its first forward pass
    images = ViTImageProcessorPil(size={"height": 8, "width": 8})
    return {"images": (models()["vit"], images), "audio": (audio, Wav2Vec2FeatureExtractor())}


def _built(build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model.eval()


# --- state ------------------------------------------------------------------------------------------------------------


def model_state(model: torch.nn.Module) -> dict[str, Any]:
    """Everything about a model that a call must leave alone."""
    hooks = ["_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks"]
    weights = hashlib.sha256()
    for value in model.state_dict().values():
        weights.update(value.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return {
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": {name: [len(getattr(module, hook)) for hook in hooks] for name, module in model.named_modules()},
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "forward": {name: vars(module).get("forward") for name, module in model.named_modules()},
        "config": copy.deepcopy(vars(model.config)),
        "parameters": {name: (p.requires_grad, p.grad is None) for name, p in model.named_parameters()},
        "weights": weights.hexdigest(),
    }


def process_state() -> dict[str, Any]:
    """Everything about this process that a call must leave alone."""
    gc.collect()
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "descriptors": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "modes": torch._C._len_torch_function_stack(),
        "torch_threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "attention": str(torch.nn.functional.scaled_dot_product_attention),
        "call": str(torch.nn.Module.__call__),
        "folder": os.getcwd(),
        "recursion": sys.getrecursionlimit(),
        "verbosity": transformers.utils.logging.get_verbosity(),
    }


@contextmanager
def quick_collections() -> Iterator[None]:
    """Let collections pass over everything that exists already (the imported libraries); else each takes a second."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what differs between two states."""
    return sorted(name for name in before if before[name] != after[name])


def live_tensors() -> int:
    """Tensors that are alive."""
    gc.collect()
    return sum(1 for item in gc.get_objects() if type(item) in (torch.Tensor, torch.nn.Parameter))


def resident_mib() -> float:
    """Resident memory of this process in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def locks_free(checked: dict[str, Any]) -> bool:
    """Whether another thread can run every model: no lock was left locked."""
    from hf_attn_mi.capture import model_lock

    free: list[str] = []

    def take() -> None:
        for name, model in checked.items():
            with model_lock(model):
                free.append(name)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(5)
    return len(free) == len(checked)


# --- results ----------------------------------------------------------------------------------------------------------


def try_cases(
    count: int, seed: int, draw: Callable[[Callable[[Any], Any]], Any], check: Callable[[Any], str | None]
) -> tuple[list[Any], dict[str, Any]]:
    """Draw and check random cases.

    Args:
        count: how many.
        seed: of every choice.
        draw: a function that chooses one of several values -> a case.
        check: names the outcome of a case ("equal" without a name), or raises where it is violated.

    Returns:
        The cases, and the figures: count, seed, outcomes, seconds and failures.
    """
    choose, started = random.Random(seed), time.perf_counter()
    cases, failures = [], []
    outcomes: Counter[str] = Counter()
    for number in range(count):
        case = draw(lambda values: choose.choice(list(values)))
        cases.append(case)
        try:
            outcomes[check(case) or "equal"] += 1
        except Exception as error:
            outcomes["violated"] += 1
            failures.append(f"case {number}: {case}: {type(error).__name__}: {str(error).splitlines()[0]}")
    seconds = time.perf_counter() - started
    figures = {"count": count, "seed": seed, "outcomes": dict(outcomes), "seconds": seconds, "failures": failures}
    return cases, figures


def arguments(description: str, count: int) -> argparse.ArgumentParser:
    """The options that every script has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=count, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="keep the result for docs/reliability.md")
    return parser


def report(name: str, result: dict[str, Any], sentence: str, *, write: bool) -> dict[str, Any]:
    """Print one JSON line and one sentence; keep the line where `write` is set.

    Args:
        name: the name of the script, such as "fuzz".
        result: figures; `failures` is a list of what went wrong, empty where nothing did.
        sentence: what the figures say.
        write: keep the line in scripts/reliability/results/NAME.json.
    """
    row = {
        "script": name,
        "command": f"python -m scripts.reliability.{name} --count {result['count']} --seed {result['seed']}",
        **result,
        "sentence": sentence,
        "python": platform.python_version(),
        "versions": dict(library_versions()),
    }
    line = json.dumps(row, ensure_ascii=True, sort_keys=False, default=str)
    print(line)
    print(sentence)
    if write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(line + "\n", encoding="utf-8")
    return row
