"""The command line: `hf-attn-mi explain TEXT...`, `certify TEXT...`, `mi --data F` and `models`."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from importlib.resources import files
from pathlib import Path
from typing import Any

from hf_attn_mi import Background, __version__, explain, fit_background
from hf_attn_mi._cli_certify import add_certify, run_certify
from hf_attn_mi.api import METHODS
from hf_attn_mi.api.backgrounds.slots import SLOTS
from hf_attn_mi.errors import HfAttnMiError, InvalidInput
from hf_attn_mi.explanation import Explanation
from hf_attn_mi.heads import register_auto_classes
from hf_attn_mi.mi.information import ESTIMATORS
from hf_attn_mi.rendering import html_page
from hf_attn_mi.views import plot_information
from hf_attn_mi.views.information import check_figure_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 done, 1 refused, 2 wrong usage)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (HfAttnMiError, OSError) as error:
        print(f"hf-attn-mi: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def demo_model_path() -> Path:
    """Folder of the small sentiment model that comes with the package."""
    return Path(str(files("hf_attn_mi") / "demo_model"))


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hf-attn-mi",
        description="Which tokens and which attention weights made this prediction, and how do you know?",
    )
    parser.add_argument("--version", action="version", version=f"hf-attn-mi {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser(
        "explain", help="explain texts", description="Explain the prediction of a model on texts."
    )
    one.set_defaults(run=_explain)
    one.add_argument("texts", nargs="*", metavar="TEXT", help="texts to explain; '-' reads one a line from stdin")
    one.add_argument("--file", type=Path, metavar="F", help="a file with one text a line")
    one.add_argument("--pair", metavar="TEXT", help="second text, for models of sentence pairs")
    one.add_argument("--model", metavar="NAME_OR_PATH", help="Hub name or folder (default: the embedded model)")
    one.add_argument("--target", metavar="LABEL", help="class to explain, a label or a number (default: the predicted)")
    one.add_argument("--method", choices=list(METHODS), default="relevance", help="default: relevance")
    one.add_argument("--batch-size", type=int, default=16, metavar="N", help="texts in one forward pass (default 16)")
    one.add_argument("--truncate", action="store_true", help="cut texts too long for the model, with a warning")
    one.add_argument("--json", type=Path, metavar="F", help="write the explanations as JSON; '-' prints them instead")
    one.add_argument("--html", type=Path, metavar="F", help="write one self-contained HTML page")
    one.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    _add_information(commands)
    add_certify(commands, _certify)
    models = commands.add_parser("models", help="print what is supported", description="Model types that were checked.")
    models.add_argument("--all", action="store_true", help="also types that are refused or were not built, and why")
    models.set_defaults(run=_models)
    return parser


def _add_information(commands: Any) -> None:
    information = commands.add_parser(
        "mi", help="mutual information of layers and output over a data set",
        description="Mutual information between the states of each layer and the model's output, over a data set.",
    )  # fmt: skip
    information.set_defaults(run=_information)
    add = information.add_argument
    add("--data", required=True, metavar="FILE_OR_DATASET", help=".txt, .jsonl, .csv, .arrow ..., folder or Hub name")
    add("--model", metavar="NAME_OR_PATH", help="Hub name or folder (default: the embedded model)")
    add(
        "--layers", type=int, nargs="+", metavar="L", help="0 for the embeddings, i for layer i's output (default: all)"
    )
    add("--slots", nargs="+", choices=SLOTS, default=["tokens"], help="whose states (default: tokens, and the first)")
    add("--limit", type=int, metavar="N", help="most texts to read (default: all)")
    add("--batch-size", type=int, default=32, metavar="N", help="texts in one forward pass (default 32)")
    add("--estimator", choices=list(ESTIMATORS), default="auto", help="default: auto")
    add("--permutations", type=int, default=200, metavar="N", help="behind the p-values (default 200)")
    add("--seed", type=int, default=0, metavar="N", help="of every random draw (default 0)")
    add("--json", type=Path, metavar="F", help="write the numbers as JSON; '-' prints them instead")
    add("--plot", type=Path, metavar="F", help="write the curves over layers: .png, .svg or .pdf (extra 'plots')")
    add("--save", type=Path, metavar="DIR", help="save the background, for explain(..., background=...)")
    add("--quiet", action="store_true", help="print nothing but warnings and errors")


def _texts(options: argparse.Namespace) -> list[str | tuple[str, str]]:
    texts: list[str] = [text for text in options.texts if text != "-"]
    try:
        if options.file is not None:
            texts += _lines(options.file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--file {options.file}: {error}; a UTF-8 file with one text a line is needed.") from error
    try:
        if "-" in options.texts or (not options.texts and options.file is None and not sys.stdin.isatty()):
            texts += _lines(sys.stdin.read())
    except UnicodeDecodeError as error:
        raise InvalidInput(f"standard input: {error}; UTF-8 with one text a line is needed.") from error
    if not texts:
        raise InvalidInput("no text: pass TEXT, --file F, or lines on standard input.")
    return [(text, options.pair) for text in texts] if options.pair is not None else list(texts)


def _lines(text: str) -> list[str]:
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]  # splitlines() would cut at U+2028, too


def _explain(options: argparse.Namespace) -> int:
    texts = _texts(options)
    _check_folders(options.json, options.html)
    model, tokenizer = _load(options)
    with _warnings_as_lines():
        results = explain(
            model, texts, tokenizer=tokenizer, target=_target(options.target, model), method=options.method,
            batch_size=options.batch_size, truncation=options.truncate,
        )  # fmt: skip
    assert isinstance(results, list)
    _write(results, options)
    return 0


def _certify(options: argparse.Namespace) -> int:
    with _warnings_as_lines():
        return run_certify(options, _texts, _load, _print)


def _check_folders(*paths: Path | None) -> None:
    for path in paths:
        if path is not None and str(path) != "-" and not path.parent.is_dir():
            raise InvalidInput(f"{path}: the folder {path.parent} does not exist; make it first, or name another file.")


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print the warnings that come up inside as one line each, once it is done."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            print(f"hf-attn-mi: warning: {_one_line(warning.message)}", file=sys.stderr)


def _write(results: list[Explanation], options: argparse.Namespace) -> None:
    to_stdout = options.json is not None and str(options.json) == "-"
    if options.json is not None:
        text = json.dumps([result.to_dict() for result in results], allow_nan=False, ensure_ascii=False)
        _print(text) if to_stdout else options.json.write_text(text + "\n", encoding="utf-8")
    if not options.quiet and not to_stdout:
        color = (sys.stdout.isatty() and "NO_COLOR" not in os.environ) or bool(os.environ.get("FORCE_COLOR"))
        _print("\n\n".join(result.to_terminal(color=color) for result in results))
    if options.html is not None:
        page = html_page([result._repr_html_() for result in results], f"Explanation: {results[0].info['model']}")
        options.html.write_text(page, encoding="utf-8")
        if not options.quiet and not to_stdout:
            _print(f"\nHTML page: {options.html.resolve()}")


def _information(options: argparse.Namespace) -> int:
    _check_folders(options.json, options.save)  # before hours of work, not after
    if options.save is not None and options.save.exists():
        raise InvalidInput(f"--save {options.save}: it exists already; name another folder.")
    if options.plot is not None:
        check_figure_path(options.plot)
    model, tokenizer = _load(options)
    with _warnings_as_lines(), redirect_stderr(io.StringIO()) if options.quiet else nullcontext():  # no progress bar
        background = fit_background(
            model, options.data, tokenizer=tokenizer, layers=options.layers, slots=tuple(options.slots),
            batch_size=options.batch_size, estimator=options.estimator, permutations=options.permutations,
            limit=options.limit, seed=options.seed,
        )  # fmt: skip
    to_stdout = options.json is not None and str(options.json) == "-"
    if options.save is not None:
        background.save(options.save)
    if options.plot is not None:
        plot_information(background, options.plot)
    if options.json is not None:
        text = json.dumps(_numbers(background), allow_nan=False, ensure_ascii=False)
        _print(text) if to_stdout else options.json.write_text(text + "\n", encoding="utf-8")
    if not options.quiet and not to_stdout:
        _print(f"{background}\n{_ceiling_line(background.ceiling_check())}")
        if options.plot is not None:
            _print(f"Figure: {options.plot.resolve()}")
    return 0


def _numbers(background: Background) -> Any:
    """The background without its tensors, as strict JSON data: a number that is not finite is null."""
    found = background.information
    each = ("nats", "lower", "upper", "p_value", "family_p_value", "null_mean", "share")
    columns = {name: values.tolist() for name in each if (values := getattr(found, name)) is not None}
    slots = [
        {**vars(slot), **{name: values[place] for name, values in columns.items()}, "part": found.parts[place]}
        for place, slot in enumerate(background.slots)
    ]
    return _strict(
        {
            "unit": "nats", "n": background.n, "labels": background.labels, "prior": background.prior.tolist(),
            "ceiling": background.ceiling, "ceiling_check": background.ceiling_check(), "slots": slots,
            "fingerprint": background.fingerprint, "info": background.info,
        }
    )  # fmt: skip


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ceiling_line(check: dict[str, Any]) -> str:
    if check["share"] is None:
        return "ceiling check: not possible; it needs the last state of the one token that the output is computed from."
    low, high = check["interval"]
    verdict = "reached" if check["reached"] else f"NOT reached (wanted: {check['wanted']:.0%})"
    place = f"'{check['slot']}' of layer {check['layer']}"
    return f"ceiling check: {place} has {check['share']:.1%} [{low:.1%}, {high:.1%}] of the ceiling: {verdict}."


def _print(text: str) -> None:
    """Print; signs that this terminal cannot show become escapes such as \\u2603."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _target(given: str | None, model: Any) -> str | int | None:
    """A label where the model has one of this name, even a name of digits; else a number where it is one."""
    if given is None or given in map(str, model.config.id2label.values()):
        return given
    return int(given) if re.fullmatch(r"[+-]?[0-9]+", given) else given


def _load(options: argparse.Namespace) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    register_auto_classes()  # a saved attention head is loaded as every other model
    source = str(demo_model_path()) if options.model is None else options.model
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # its report on missing weights is ours to give, in one line
    if options.quiet or not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source, dtype="float32", output_loading_info=True
        )  # half precision is slower and less exact on a CPU
    except Exception as error:  # every library below has exceptions of its own
        raise InvalidInput(
            f"--model {source}: {error} A Hub name, or a folder with the model and its tokenizer, is needed."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
    missing = sorted(report["missing_keys"])
    if missing:
        raise InvalidInput(
            f"--model {source}: it has no weights for {', '.join(missing[:3])}, so its predictions would be random. "
            "Name a model that was trained for text classification."
        )
    return model, tokenizer


def _models(options: argparse.Namespace) -> int:
    rows = json.loads((files("hf_attn_mi") / "supported_models.json").read_text(encoding="utf-8"))
    for row in rows:
        if options.all or row["verdict"].startswith("exact"):
            print(f"{row['model_type']:<28} {row['task']:<10} {row['kind']:<16} {row['verdict']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
