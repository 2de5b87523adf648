"""The model and tokenizer that --model names."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_attn_mi.cli.deferred_imports import unused_parts_deferred
from hf_attn_mi.cli.exit_codes import INTERRUPTED
from hf_attn_mi.errors import InvalidInputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_EMBEDDED = "embedded_model"
_OF_MODELS = ("transformers.models.auto.modeling_auto", "transformers.masking_utils")


def embedded_model_path() -> Path:
    """Return the folder of the small sentiment model that comes with the package."""
    return Path(str(files("hf_attn_mi") / _EMBEDDED))


def names_missing_path(name: str, *, parts: int = 2) -> bool:
    """Return whether a name can only mean a file or folder, and there is none.

    What begins with "/", "." or "~", has more parts than a Hub name, or lies in a folder that exists here, is a path.

    Args:
        name: a Hub name or a path.
        parts: the number of parts of a Hub name: 2 for a model, "owner/name"; 3 for a data set,
            "owner/name/configuration".

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


class Process:
    """What this process is for.

    Attributes:
        ends_with_command: it runs one command and ends; set by `hf_attn_mi.cli.program.run`.
    """

    ends_with_command = False


@contextmanager
def collection_paused() -> Iterator[None]:
    """Inside, the garbage collector does not look for cycles: it would go through all that is imported again and again.

    In a process that ends with the command it does not go through what is imported afterwards either. Together this
    saves more than a second of a command on the embedded model.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if Process.ends_with_command:
            gc.freeze()
        if running:
            gc.enable()


def _light_start() -> AbstractContextManager[None]:
    """Inside, what no command needs of torch is not loaded; only in a process that ends with the command."""
    return unused_parts_deferred() if Process.ends_with_command else nullcontext()


def import_libraries(*, models: bool = True) -> None:
    """Import torch, transformers and the methods; Ctrl-C ends the process at once with the status of an interruption.

    Nothing has been started or written yet. A KeyboardInterrupt would not do: raised while an extension module is being
    loaded, it is lost or becomes an ImportError.

    Args:
        models: also import what every model of transformers needs; False for commands that load none.
    """
    main_thread = threading.current_thread() is threading.main_thread()  # others may not set handlers
    replaced = main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if replaced:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        with collection_paused(), _light_start():
            for module in ("hf_attn_mi.tasks.compare", "transformers.models.auto", *(_OF_MODELS if models else ())):
                import_module(module)
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


HEADS = {  # end of the name of an architecture -> class of transformers, and the task; every other one is a classifier
    "ForTokenClassification": ("AutoModelForTokenClassification", "token classification"),
    "ForQuestionAnswering": ("AutoModelForQuestionAnswering", "question answering"),
    "ForMaskedLM": ("AutoModelForMaskedLM", "masked language modeling"),
    "ForPreTraining": ("AutoModelForPreTraining", "pretraining"),
    "ForNextSentencePrediction": ("AutoModelForNextSentencePrediction", "next sentence prediction"),
    "ForMultipleChoice": ("AutoModelForMultipleChoice", "multiple choice"),
    "ForCausalLM": ("AutoModelForCausalLM", "causal language modeling"),
    "WithLMHeadModel": ("AutoModelForMaskedLM", "masked language modeling"),  # XLM and FlauBERT
    "LMHeadModel": ("AutoModelForCausalLM", "causal language modeling"),
    "ForConditionalGeneration": ("AutoModelForSeq2SeqLM", "text generation"),
    "ForCTC": ("AutoModelForCTC", "speech recognition"),
    "CLIPModel": ("AutoModel", "comparing images with texts"),
    "SiglipModel": ("AutoModel", "comparing images with texts"),
    "Siglip2Model": ("AutoModel", "comparing images with texts"),
}
STATES = ("AutoModel", "embeddings")
POOLER = "pooler"
SENTENCE_MODEL = "modules.json"  # the file by which sentence-transformers knows its models


def load_model(
    name: str | None, *, quiet: bool = False, classifier: bool = False, reads: Collection[str] = ()
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Return the model of this name or folder, in float32, and its tokenizer; the embedded classifier for None.

    Args:
        name: a Hub name or a folder.
        quiet: no progress bar.
        classifier: load a text classifier, whatever the model was trained for.
        reads: what the targets read beside the outputs of the head, as `reads_of` returns it. If there is any, the
            encoder is loaded without a head, and a model of sentence-transformers as one, with its own pooling.

    Raises:
        InvalidInputError: there is no such folder, it cannot be loaded, or its head was never trained.
    """
    source = str(embedded_model_path()) if name is None else name
    if reads and name is not None and not names_missing_path(source) and _is_sentence_model(source):
        return _load_sentence_model(source)
    kind = kind_of(source, "text", classifier=classifier, states=bool(reads))
    return load_of_kind(source, kind, quiet=quiet, unread=unread_modules(reads))


def unread_modules(reads: Collection[str]) -> tuple[str, ...]:
    """Return the modules that nothing reads where targets read these parts of the outputs of an encoder.

    Many checkpoints have no weights for the pooler, which transformers then fills at random.

    Example:
        >>> unread_modules({"states"}), unread_modules({"states", "pooler"}), unread_modules(())
        (('pooler',), (), ())
    """
    return (POOLER,) if reads and POOLER not in reads else ()


def reads_of(targets: Sequence[str], source: str | None) -> frozenset[str]:
    """Return what these targets read beside the outputs of a model's head, such as the states of the encoder.

    Args:
        targets: as they are written on the command line; a label of the model is a label, whatever it looks like.
        source: the name of the model; None for the embedded one.

    Raises:
        InvalidInputError: a call that cannot be read.
    """
    from transformers import AutoConfig

    from hf_attn_mi.models.target_kinds.registry import looks_like_call, parse_target, reads_beside_head

    calls = [target for target in targets if looks_like_call(target)]
    if not calls:
        return frozenset()
    try:
        config = AutoConfig.from_pretrained(source or str(embedded_model_path()))
    except Exception:  # loading raises an error that names the problem
        return frozenset()
    labels = set(map(str, (getattr(config, "id2label", None) or {}).values()))
    return frozenset().union(*(reads_beside_head(parse_target(call)) for call in calls if call not in labels))


def kind_of(source: str, kind: str, *, classifier: bool = False, states: bool = False) -> ModelKind:
    """Return the classes that load this model with the head that it was saved with; without it for `states`.

    Args:
        source: a Hub name or a folder.
        kind: the name of one of `MODEL_KINDS`.
        classifier: a classifier, whatever the model was trained for.
        states: the model without a head.
    """
    plain = MODEL_KINDS[kind]
    if states:
        return plain._replace(model=STATES[0], task=STATES[1])
    if classifier or names_missing_path(source):
        return plain
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source)
    except Exception:  # loading raises an error that names the problem
        return plain
    for end, (model, task) in HEADS.items():
        if any(name.endswith(end) for name in getattr(config, "architectures", None) or []):
            towers = hasattr(config, "vision_config") and hasattr(config, "text_config")
            preparer, has = ("AutoProcessor", "processor") if towers else (plain.preparer, plain.has)
            return ModelKind(model, preparer, has, task)
    return plain


def _is_sentence_model(source: str) -> bool:
    """Whether sentence-transformers saved this model; a file that cannot be looked up is not there."""
    if Path(source).is_dir():
        return (Path(source) / SENTENCE_MODEL).is_file()
    from transformers.utils import cached_file

    try:
        return cached_file(source, SENTENCE_MODEL) is not None
    except OSError:
        return False


def _load_sentence_model(source: str) -> tuple[Any, PreTrainedTokenizerBase]:
    try:
        library = import_module("sentence_transformers")
    except ImportError as error:
        raise InvalidInputError(
            f"--model {source}: it is a model of sentence-transformers, which is not installed: "
            "pip install sentence-transformers."
        ) from error
    try:
        model = library.SentenceTransformer(source, device="cpu")
    except Exception as error:  # as in load_of_kind
        raise InvalidInputError(
            f"--model {source}: sentence-transformers cannot load it ({type(error).__name__}: {error})."
        ) from error
    return model, model.tokenizer


def load_of_kind(
    source: str, kind: ModelKind, *, quiet: bool = False, unread: Sequence[str] = ()
) -> tuple[PreTrainedModel, Any]:
    """Return the model of this name or folder, in float32, and what prepares its inputs.

    Args:
        source: a Hub name or a folder.
        kind: the classes that load it.
        quiet: no progress bar.
        unread: names of modules whose weights may be missing, since nothing that is explained reads their outputs.

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
        with _light_start():
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
    missing = [key for key in missing if not any(part in key.split(".") for part in unread)]
    if missing:
        raise InvalidInputError(
            f"--model {source}: it has no weights for {', '.join(missing[:3])}, so its predictions would be random. "
            f"Name a model that was trained for {kind.task}, or, to compare the embeddings of an encoder, pass "
            "--target 'similarity(\"another text\")' to explain."
        )
    return model, preparer
