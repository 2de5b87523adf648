"""Options that several commands share, and how their values are read and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NoReturn

import typer
from typer.core import TyperCommand

from hf_attn_mi.errors import InvalidInputError

if TYPE_CHECKING:
    from typer._click import Context  # typer's base class of contexts has no public name

ALL = "all"
input_option = partial(typer.Option, rich_help_panel="Input and model")
method_option = partial(typer.Option, rich_help_panel="Method")
output_option = partial(typer.Option, rich_help_panel="Output")


def complete_methods(incomplete: str) -> list[str]:
    """Return the names of methods that begin like this, for shell completion."""
    return [name for name in method_names() if name.startswith(incomplete)]


# What several commands take. Options without a default here have one in the command's signature.
Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Texts; '-' reads one on each line from standard input.", show_default=False),
]
TextFile = Annotated[
    Path | None,
    input_option(
        metavar="FILE",
        help="A file with one text on each line (blank lines are left out, with a warning), or a table with a column "
        "'text'.",
    ),
]
Pair = Annotated[str | None, input_option(metavar="TEXT", help="The second text, for models of sentence pairs.")]
SplitIntoWords = Annotated[
    bool,
    input_option(
        "--is-split-into-words",
        help="Texts are words with blanks between them, which the tokenizer gets one by one; in a table they may be "
        "lists in a column 'tokens' or 'words'.",
    ),
]
Choices = Annotated[
    list[str] | None,
    input_option(
        "--choice",
        metavar="TEXT",
        help="One of the choices of a multiple-choice model, for which TEXT is the prompt; repeat the option.",
        show_default=False,
    ),
]
Images = Annotated[
    list[Path] | None,
    input_option("--image", metavar="FILE", help="An image, instead of texts; may be repeated."),
]
Recordings = Annotated[
    list[Path] | None,
    input_option("--audio", metavar="FILE", help="A .wav file, instead of texts; may be repeated."),
]
Data = Annotated[
    str,
    input_option(
        metavar="FILE_OR_DATASET",
        help="A .txt, .jsonl, .json, .csv, .tsv (each also .gz), .arrow or .parquet file, a folder saved by "
        "`datasets`, or a Hub name such as name/config:split.",
    ),
]
Model = Annotated[
    str | None, input_option(metavar="NAME_OR_PATH", help="Hub name or folder (default: the embedded model).")
]
Truncate = Annotated[
    bool, input_option("--truncate", help="Cut texts that are too long for the model, with a warning.")
]
Stride = Annotated[
    int | None,
    input_option(metavar="N", help="Explain texts of any length by windows that share N tokens."),
]
Aggregation = Annotated[
    Literal["mean", "max"], input_option(help="How the logits of windows are combined, class by class.")
]
Targets = Annotated[
    list[str] | None,
    method_option(
        "--target",
        metavar="TARGET",
        help='What to explain: a label, a number, or a call such as \'token(word="Paris", label="B-LOC")\', '
        "'mask(\"paris\")' or 'similarity(\"another text\")'; repeat the option for several, or 'all' for every label, "
        "choice or entity (default: the predicted class, or what the model's head calls for).",
        show_default=False,
    ),
]
CandidateLabels = Annotated[
    list[str] | None,
    method_option(
        metavar="LABELS",
        help="Labels of zero-shot classification, separated by commas, or one each time the option is given.",
        show_default=False,
    ),
]
Errors = Annotated[
    Literal["raise", "skip"],
    input_option(help="skip: go on after an input that cannot be used; the output says why, and the status is 1."),
]
method_name = partial(method_option, metavar="METHOD", autocompletion=complete_methods)
BatchSize = Annotated[int, method_option(metavar="N", help="Maximum number of inputs in one forward pass.")]
Seed = Annotated[int, method_option(metavar="N", help="The random seed for every random draw.")]
Method = Annotated[str, method_name(help="How tokens are scored; `hf-attn-mi methods` lists the names.")]
MethodOptions = Annotated[
    str | None, method_option(metavar="JSON", help="Options of the method, such as '{\"steps\": 20}'.")
]
Budget = Annotated[float, method_option(metavar="N", help="Largest cost of a search, in forward passes of the text.")]
Json = Annotated[
    Path | None,
    output_option(metavar="FILE", help="Write the results as JSON; '-' prints JSON and nothing else."),
]
Html = Annotated[Path | None, output_option(metavar="FILE", help="Write one self-contained HTML page (.html).")]
Plot = Annotated[
    Path | None, output_option(metavar="FILE", help="Write the figure: .png, .svg or .pdf (extra 'plots').")
]
Quiet = Annotated[bool, output_option("--quiet", help="Print nothing but warnings and errors.")]


class ManyValues(TyperCommand):
    """A command without positional arguments whose list options take several values: `--methods lime random`.

    `--methods lime --methods random` means the same. An option of `implied` may stand without a value.
    """

    implied: ClassVar[dict[str, str]] = {}

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Repeat a list option before each of its values, add implied values, and parse."""
        repeated = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        result: list[str] = []
        current = ""  # the list option whose values are read
        for place, word in enumerate(args):
            bare = place + 1 == len(args) or args[place + 1].startswith("--")
            if word.startswith("--"):
                current = word if word in repeated else ""
            elif current and result[-1] != current:
                result.append(current)
            result.append(word)
            if bare and word in self.implied:
                result.append(self.implied[word])
        return super().parse_args(ctx, result)


def method_names() -> list[str]:
    """Return the names of the token-scoring methods, those registered from other packages included."""
    from hf_attn_mi.methods import list_methods

    return list(list_methods())


def check_names(option: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuse names that are not allowed; the message suggests the closest one.

    Args:
        option: as it is written on the command line, for the message.
        names: what the user wrote.
        allowed: names that exist.

    Raises:
        InvalidInputError: a name that is not allowed.

    Example:
        >>> check_names("--method", ["rollout"], ["rollout", "lime"])
    """
    known = list(allowed)
    for name in names:
        if name not in known:
            raise InvalidInputError(
                f"{option}: {name!r} is not known.{did_you_mean(name, known)} Allowed are {', '.join(known)}."
            )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests names close to this one; "" if there is none.

    Example:
        >>> did_you_mean("postive", ["negative", "positive"])
        " Did you mean 'positive'?"
    """
    by_lower = {one.lower(): one for one in known}
    matches = [by_lower[match] for match in get_close_matches(name.lower(), by_lower)]
    return f" Did you mean {' or '.join(map(repr, matches))}?" if matches else ""


def read_target(target: str | None, model: Any, *, known: Iterable[str] | None = None) -> str | int | None:
    """Return a label where the model has one of this name, even a name of digits; else a number where it is one.

    Args:
        target: what the user wrote.
        model: whose labels are known.
        known: labels that take the place of the model's.

    Raises:
        InvalidInputError: not a label and not a number, but close to a label.
    """
    config = getattr(model, "config", None)
    labels = list(map(str, (getattr(config, "id2label", None) or {}).values() if known is None else known))
    if target is None or target in labels:
        return target
    if re.fullmatch(r"[+-]?[0-9]{1,18}", target):
        return int(target)
    if re.fullmatch(r"\s*[a-z_]+\s*\(.*\)\s*", target, re.DOTALL):  # a call, which the task reads
        return target
    hint = did_you_mean(target, labels)
    if hint and target.lower() not in map(str.lower, labels):
        raise InvalidInputError(f"target {target!r} is not a label of this model.{hint} Its labels are {labels}.")
    return target


def read_targets(targets: list[str] | None, model: Any, *, known: Iterable[str] | None = None) -> dict[str, Any]:
    """Return the arguments `target` or `targets` of `explain` for what was written as --target, once or repeatedly.

    Args:
        targets: what the user wrote.
        model: whose labels are known; a label "all" is a label.
        known: labels that take the place of the model's.

    Raises:
        InvalidInputError: "all" beside other targets, or as `read_target`.
    """
    known = None if known is None else list(known)
    values = [read_target(one, model, known=known) for one in targets or ()]
    config = getattr(model, "config", None)
    labels = list(map(str, (getattr(config, "id2label", None) or {}).values())) if known is None else known
    if ALL in values and ALL not in labels:
        if len(values) > 1:
            raise InvalidInputError("--target all: it stands for every label, choice or entity; pass it alone.")
        return {"targets": ALL}
    return {"targets": values} if len(values) > 1 else {"target": values[0] if values else None}


def read_labels(labels: list[str] | None) -> list[str] | None:
    """Return the candidate labels: those of a single option are separated by commas.

    Raises:
        InvalidInputError: an empty label, or one that stands twice.

    Example:
        >>> read_labels(["film, sports"]), read_labels(["film", "sports, other"])
        (['film', 'sports'], ['film', 'sports, other'])
    """
    if labels is None:
        return None
    names = [label.strip() for label in (labels[0].split(",") if len(labels) == 1 else labels)]
    if not all(names) or len(set(names)) != len(names):
        raise InvalidInputError(f"--candidate-labels: {labels} has an empty label, or one twice; name different ones.")
    return names


def read_options(text: str | None, example: str) -> dict[str, Any] | None:
    """Return the options of a method, which --options holds as a JSON object; None without any.

    Args:
        text: the value of the option.
        example: an allowed value, for the message.

    Raises:
        InvalidInputError: not a strict JSON object.

    Example:
        >>> read_options('{"steps": 20}', "")
        {'steps': 20}
    """
    if text is None:
        return None
    try:
        options = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"--options is not JSON: {error}; an object is needed, such as '{example}'.") from error
    if not isinstance(options, dict):
        raise InvalidInputError(
            f"--options is a JSON {type(options).__name__}; an object is needed, such as '{example}'."
        )
    return options


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice")
    return dict(pairs)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
