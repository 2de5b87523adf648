"""Images and recordings on the command line: which files are explained, and the model that takes them."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_attn_mi.cli.inputs import Text, read_texts
from hf_attn_mi.cli.loading import kind_of, load_model, load_of_kind, unread_modules
from hf_attn_mi.errors import InvalidInputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Inputs:
    """What a command explains.

    Attributes:
        kind: the name of one of `MODEL_KINDS`.
        items: texts, the paths of files, or prompts with their choices.
    """

    kind: str
    items: list[Text] | list[Path] | list[tuple[str, list[str]]]


def read_inputs(
    texts: list[str] | None,
    file: Path | None,
    pair: str | None,
    images: list[Path] | None = None,
    audio: list[Path] | None = None,
    choices: list[str] | None = None,
    *,
    is_split_into_words: bool = False,
) -> Inputs:
    """Return the texts, each with the choices where there are some, or the files of --image or --audio.

    Args:
        texts, file, pair, images, audio, choices: what the user wrote.
        is_split_into_words: texts are words; see `read_texts`.

    Raises:
        InvalidInputError: more than one kind of input, a file that does not exist, a single choice, or nothing.
    """
    media = {"image": images or [], "audio": audio or []}
    kinds = [kind for kind, paths in media.items() if paths]
    if is_split_into_words and (kinds or choices):
        other = f"--{kinds[0]} takes files" if kinds else "--choice takes whole texts"
        raise InvalidInputError(f"--is-split-into-words: {other}; leave it out.")
    if choices and (kinds or pair is not None):
        raise InvalidInputError(f"--choice is a second text; leave out --{kinds[0] if kinds else 'pair'}.")
    if choices:
        return Inputs("text", _questions(read_texts(texts, file, None), choices))
    if not kinds:
        return Inputs("text", read_texts(texts, file, pair, is_split_into_words=is_split_into_words))
    if len(kinds) > 1 or texts or file is not None or pair is not None:
        raise InvalidInputError(f"--{kinds[0]} takes files instead of texts; pass one kind of input.")
    for path in media[kinds[0]]:
        if not os.path.isfile(path):
            raise InvalidInputError(f"--{kinds[0]} {path}: there is no such file.")
    return Inputs(kinds[0], media[kinds[0]])


def _questions(prompts: list[Text], choices: list[str]) -> list[tuple[str, list[str]]]:
    """Every prompt with all choices."""
    if len(choices) < 2:
        raise InvalidInputError("--choice: there is one choice; repeat the option for each of two or more.")
    if any(not isinstance(prompt, str) for prompt in prompts):
        raise InvalidInputError("--choice: the rows of --file are pairs already; a prompt is one text.")
    return [(prompt, list(choices)) for prompt in prompts if isinstance(prompt, str)]


def load_for(
    inputs: Inputs, name: str | None, *, quiet: bool, reads: Collection[str] = ()
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return the model of this name or folder for these inputs, and the option of `explain` that prepares them.

    Args:
        inputs: what a command explains.
        name: a Hub name or a folder; None for the embedded model.
        quiet: no progress bar.
        reads: see `load_model`.

    Raises:
        InvalidInputError: images or audio without --model, or as `load_model`.
    """
    if inputs.kind == "text":
        model, tokenizer = load_model(name, quiet=quiet, reads=reads)
        parts = getattr(tokenizer, "tokenizer", None)  # a processor of images and texts holds a tokenizer
        return model, {"tokenizer": tokenizer} if parts is None else {"tokenizer": parts, "processor": tokenizer}
    if name is None:
        raise InvalidInputError(f"--{inputs.kind} needs --model: the embedded model reads texts.")
    kind = kind_of(name, inputs.kind, states=bool(reads))
    model, processor = load_of_kind(name, kind, quiet=quiet, unread=unread_modules(reads))
    return model, {"processor": processor}
