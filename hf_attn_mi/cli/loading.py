"""The model and tokenizer that --model names."""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_attn_mi.cli.exit_codes import INTERRUPTED
from hf_attn_mi.errors import InvalidInputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_EMBEDDED = "embedded_model"


def embedded_model_path() -> Path:
    """Return the folder of the small sentiment model that comes with the package."""
    return Path(str(files("hf_attn_mi") / _EMBEDDED))


def names_missing_path(name: str, *, parts: int = 2) -> bool:
    """Return whether a name can only mean a file or folder, and there is none.

    What begins with "/", "." or "~", has more parts than a Hub name, or lies in a folder that exists here, is a path.

    Args:
        name: a Hub name or a path.
        parts: of a Hub name: 2 for a model, "owner/name"; 3 for a data set, "owner/name/configuration".

    Example:
        >>> names_missing_path("./no-such-folder"), names_missing_path("google/electra-small-discriminator")
        (True, False)
    """
    path = Path(name).expanduser()
    if path.exists():
        return False
    names = name.replace(os.sep, "/").split("/")
    in_folder = len(names) > 1 and path.parent.is_dir()
    return name.startswith(("/", ".", "~")) or len(names) > parts or "" in names or in_folder


def import_libraries() -> None:
    """Import torch, transformers and the methods; Ctrl-C ends the process at once with the status of an interruption.

    Nothing has been started or written yet. A KeyboardInterrupt would not do: raised while an extension module is being
    loaded, it is lost or becomes an ImportError.
    """
    main_thread = threading.current_thread() is threading.main_thread()  # others may not set handlers
    replaced = main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if replaced:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        import_module("hf_attn_mi.tasks.compare")
        import_module("transformers.models.auto")
    finally:
        if replaced:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class ModelKind(NamedTuple):
    """The classes that load a model and prepare its inputs, for one kind of input.

    Attributes:
        model, preparer: names of classes of transformers.
        has: the files that a folder must hold in addition to the model.
        task: what the model must have been trained for.
    """

    model: str
    preparer: str
    has: str
    task: str


MODEL_KINDS = {
    "text": ModelKind("AutoModelForSequenceClassification", "AutoTokenizer", "tokenizer", "text classification"),
    "image": ModelKind(
        "AutoModelForImageClassification", "AutoImageProcessor", "image processor", "image classification"
    ),
    "audio": ModelKind(
        "AutoModelForAudioClassification", "AutoFeatureExtractor", "feature extractor", "audio classification"
    ),
}


TEXT_HEADS = {  # end of the name of an architecture -> class of transformers; every other one is a classifier
    "ForTokenClassification": ("AutoModelForTokenClassification", "token classification"),
    "ForQuestionAnswering": ("AutoModelForQuestionAnswering", "question answering"),
    "ForMaskedLM": ("AutoModelForMaskedLM", "masked language modeling"),
    "ForCausalLM": ("AutoModelForCausalLM", "causal language modeling"),
    "LMHeadModel": ("AutoModelForCausalLM", "causal language modeling"),
    "ForConditionalGeneration": ("AutoModelForSeq2SeqLM", "text generation"),
}


def load_model(
    name: str | None, *, quiet: bool = False, classifier: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model of this name or folder, in float32, and its tokenizer; the embedded classifier for None.

    Args:
        name: a Hub name or a folder.
        quiet: no progress bar.
        classifier: load a text classifier, whatever the model was trained for.

    Raises:
        InvalidInputError: there is no such folder, it cannot be loaded, or its head was never trained.
    """
    source, kind = str(embedded_model_path()) if name is None else name, MODEL_KINDS["text"]
    if name is not None and not classifier and not names_missing_path(source):
        model, task = _text_head(source)
        kind = kind._replace(model=model, task=task)
    return load_of_kind(source, kind, quiet=quiet)


def _text_head(source: str) -> tuple[str, str]:
    """The class that loads this model with the head that it was saved with, and its task; else a classifier."""
    from transformers import AutoConfig

    try:
        architectures = AutoConfig.from_pretrained(source).architectures or []
    except Exception:  # loading raises an error that names the problem
        architectures = []
    for end, head in TEXT_HEADS.items():
        if any(name.endswith(end) for name in architectures):
            return head
    return MODEL_KINDS["text"].model, MODEL_KINDS["text"].task


def load_of_kind(source: str, kind: ModelKind, *, quiet: bool = False) -> tuple[PreTrainedModel, Any]:
    """Return the classifier of this name or folder, in float32, and what prepares its inputs.

    Raises:
        InvalidInputError: as `load_model`.
    """
    if names_missing_path(source):
        raise InvalidInputError(
            f"--model {source}: there is no such folder. A Hub name, or a folder with the model and its {kind.has}, "
            "is needed."
        )
    import transformers
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # missing weights are reported below, in one line
    if quiet or not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        preparer = getattr(transformers, kind.preparer).from_pretrained(source)
        model, report = getattr(transformers, kind.model).from_pretrained(
            source, dtype="float32", output_loading_info=True
        )  # half precision is slower and less exact on a CPU
    except Exception as error:  # transformers, tokenizers, safetensors and huggingface_hub each have their own
        missing_here = "" if Path(source).exists() else "there is no folder of this name here. As a Hub name: "
        raise InvalidInputError(
            f"--model {source}: {missing_here}{error} A Hub name, or a folder with the model and its {kind.has}, is "
            "needed."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
    missing = sorted(report["missing_keys"])
    if missing:
        raise InvalidInputError(
            f"--model {source}: it has no weights for {', '.join(missing[:3])}, so its predictions would be random. "
            f"Name a model that was trained for {kind.task}."
        )
    return model, preparer
