"""The model and tokenizer that --model names."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from hf_attn_mi.errors import InvalidInputError


def demo_model_path() -> Path:
    """Folder of the small sentiment model that comes with the package."""
    return Path(str(files("hf_attn_mi") / "demo_model"))


def load_model(name: str | None, *, quiet: bool = False) -> tuple[Any, Any]:
    """The text classifier of this name or folder, in float32, and its tokenizer; the embedded one for None.

    Raises:
        InvalidInputError: it cannot be loaded, or its head was never trained.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    from hf_attn_mi.heads import register_auto_classes

    register_auto_classes()  # a saved attention head is loaded as every other model
    source = str(demo_model_path()) if name is None else name
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # its report on missing weights is ours to give, in one line
    if quiet or not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source, dtype="float32", output_loading_info=True
        )  # half precision is slower and less exact on a CPU
    except Exception as error:  # every library below has exceptions of its own
        raise InvalidInputError(
            f"--model {source}: {error} A Hub name, or a folder with the model and its tokenizer, is needed."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
    missing = sorted(report["missing_keys"])
    if missing:
        raise InvalidInputError(
            f"--model {source}: it has no weights for {', '.join(missing[:3])}, so its predictions would be random. "
            "Name a model that was trained for text classification."
        )
    return model, tokenizer
