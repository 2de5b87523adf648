"""How a peer reads inputs and writes scores, as JSON lines; this file runs in the peer's interpreter.

An input is {"id", "text", "ids", "target"}: the text, the token ids the model gets, and the class that is explained.
A peer reads the text; the adapters of ../authors read the token ids.
An answer is {"id", "scores": {method: one number a token}, "seconds": {method: process time}}, or {"id", "reason"}.
The first line says what ran: {"versions", "settings"}.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol


class Explainer(Protocol):
    """Explains one text: (text, class) -> (the token ids that were scored, one score for each)."""

    def __call__(self, text: str, target: int, /) -> tuple[Sequence[int], Sequence[float]]: ...


class TokenExplainer(Protocol):
    """Explains one input: (its token ids, class) -> one score for each; one named `logits` returns the logits."""

    def __call__(self, ids: Sequence[int], target: int, /) -> Sequence[float]: ...


class Misaligned(Exception):
    """The peer scored other tokens than the model reads."""


def serve(
    make: Callable[[str], dict[str, Explainer]] | Callable[[str], dict[str, TokenExplainer]],
    packages: Sequence[str],
    settings: str,
    *,
    reads_ids: bool = False,
) -> None:
    """Answer every input on stdin; whatever the peer itself prints goes to stderr.

    Args:
        make: from the model's name to the methods by their names.
        packages: what is reported with its version, beside torch, transformers and numpy.
        settings: how the methods were called.
        reads_ids: the methods read token ids (`TokenExplainer`) in place of the text.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="folder or Hub name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="methods of the peer; default all")
    arguments = parser.parse_args()
    out, sys.stdout = sys.stdout, sys.stderr
    warnings.simplefilter("ignore")
    _quiet(arguments.threads)
    made: dict[str, Any] = dict(make(arguments.model))
    explainers = {name: one for name, one in made.items() if name in (arguments.only or [name])}
    say(out, {"versions": _versions(packages), "settings": settings})
    for line in sys.stdin:
        given = json.loads(line)
        answer: dict[str, Any] = {"id": given["id"], "scores": {}, "seconds": {}}
        for name, explainer in explainers.items():
            started = time.process_time()
            try:
                found: Any = explainer(given["ids" if reads_ids else "text"], given["target"])
                answer["seconds"][name] = time.process_time() - started
                answer["scores"][name] = [float(x) for x in found] if reads_ids else aligned(given["ids"], *found)
            except Exception as problem:
                answer.setdefault("reasons", {})[name] = _reason(problem)
        say(out, answer)


def aligned(ids: Sequence[int], found: Sequence[int], scores: Sequence[float]) -> list[float]:
    """The scores as plain numbers, if they are for these very tokens.

    Raises:
        Misaligned: the peer tokenized something else than the text it was given.
    """
    if list(map(int, found)) != list(ids):
        raise Misaligned(f"scores are for {len(found)} tokens that are not the model's {len(ids)}")
    return [float(score) for score in scores]


def say(out: Any, line: dict[str, Any]) -> None:
    """Write one line and flush it, since the reader may end the run early."""
    out.write(json.dumps(line) + "\n")
    out.flush()


def load(name: str) -> tuple[Any, Any]:
    """The classifier in float32 and its tokenizer."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    kind = transformers.AutoModelForSequenceClassification
    return kind.from_pretrained(name, torch_dtype=torch.float32).eval(), tokenizer


def _quiet(threads: int) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    import transformers

    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in (*packages, "torch", "transformers", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _reason(problem: Exception) -> str:
    """Type and message; never a text of the data, which an exception may quote."""
    if isinstance(problem, Misaligned):
        return str(problem)
    where = traceback.extract_tb(problem.__traceback__)[-1]
    return f"{type(problem).__name__} in {os.path.basename(where.filename)}, line {where.lineno}"
