"""The targets by name, and how a string such as 'token(word="Paris")' becomes one."""

from __future__ import annotations

import ast
import re
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any

from hf_attn_mi.errors import HfAttnMiError, InvalidInputError, shown
from hf_attn_mi.models.target_kinds.alternatives import Choice, Entails
from hf_attn_mi.models.target_kinds.answer import Answer, AnswerEnd, AnswerStart
from hf_attn_mi.models.target_kinds.base import TargetKind
from hf_attn_mi.models.target_kinds.classes import Label, Margin, Value
from hf_attn_mi.models.target_kinds.frame import Frame
from hf_attn_mi.models.target_kinds.generated import Generated
from hf_attn_mi.models.target_kinds.mask import Mask
from hf_attn_mi.models.target_kinds.next_token import NextToken
from hf_attn_mi.models.target_kinds.pipeline_entity import PipelineEntity
from hf_attn_mi.models.target_kinds.similarity import Similarity
from hf_attn_mi.models.target_kinds.token import Entity, Token

_kinds: dict[str, type[TargetKind]] = {
    "label": Label,
    "margin": Margin,
    "value": Value,
    "token": Token,
    "entity": Entity,
    "mask": Mask,
    "next_token": NextToken,
    "answer": Answer,
    "answer_start": AnswerStart,
    "answer_end": AnswerEnd,
    "generated": Generated,
    "similarity": Similarity,
    "frame": Frame,
    "choice": Choice,
    "entails": Entails,
    "pipeline_entity": PipelineEntity,
}
TARGET_KINDS = MappingProxyType(_kinds)
SUMMARY = (
    'label("positive"), margin("positive", "negative") for classifiers; value() for regression; token(word="Paris", '
    'label="B-LOC") for token classifiers; mask("paris") for masked, next_token(" Paris") for causal language models; '
    'answer("span text"), answer_start(), answer_end() for question answering; generated("text") for encoder-decoders; '
    'similarity("another text") for embedding models; choice(0) for multiple choice; entails("sports", '
    'among=["sports", "politics"]) for zero-shot; frame(12, "a") for CTC; or a function of the outputs'
)
CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*\(.*\)\s*", re.DOTALL)


def register_target(kind: type[TargetKind]) -> type[TargetKind]:
    """Add a target under its `kind`: `hf_attn_mi.targets` and target strings know it from then on.

    Args:
        kind: a class with the members of `TargetKind`.

    Returns:
        The class.

    Raises:
        InvalidInputError: a member is missing, the name is not an identifier, or it is taken.
    """
    name = getattr(kind, "kind", None)
    if not isinstance(name, str) or not name.isidentifier() or not hasattr(kind, "bind"):
        raise InvalidInputError(f"kind: {shown(kind)} has no identifier `kind`, or no `bind`; see TargetKind.")
    if name in _kinds:
        raise InvalidInputError(f"kind: a target {name!r} exists already.")
    _kinds[name] = kind
    return kind


def unregister_target(name: str) -> None:
    """Remove a registered target."""
    del _kinds[name]


def looks_like_call(text: str) -> bool:
    """Whether a string calls one of the targets by name."""
    match = CALL.fullmatch(text)
    return match is not None and match[1] in _kinds


def reads_beside_head(kind: TargetKind) -> frozenset[str]:
    """The parts of a model's outputs that a target reads and that a model with a task's head does not return.

    Args:
        kind: the target; those among its arguments are included.

    Example:
        >>> sorted(reads_beside_head(parse_target('similarity("a film", pooling="pooler")')))
        ['pooler', 'states']
        >>> reads_beside_head(parse_target('label("positive")'))
        frozenset()
    """
    names_read = frozenset(getattr(kind, "reads", ()))
    inner: list[object] = [getattr(kind, one.name) for one in fields(kind)] if is_dataclass(kind) else []
    return names_read.union(*(reads_beside_head(one) for one in inner if isinstance(one, TargetKind)))


def parse_target(text: str) -> TargetKind:
    """The target that a string writes as a call: names, texts, numbers, tuples and further targets, nothing else.

    Args:
        text: such as 'token(word="Paris", label="B-LOC")'.

    Raises:
        InvalidInputError: not a call of a target, other expressions in it, or arguments that it does not take.

    Example:
        >>> parse_target('mask("paris", n=1)')
        Mask(word='paris', n=1, among=None)
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidInputError(f"target {text!r} is not a call: {error}. Targets are {SUMMARY}.") from error
    return _build(tree, text)


def _build(node: ast.expr, text: str) -> TargetKind:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in _kinds:
        raise InvalidInputError(f"target {text!r} is none of the targets: {SUMMARY}.")
    if any(keyword.arg is None for keyword in node.keywords):
        raise InvalidInputError(f"target {text!r}: '**' is not allowed; write each argument.")
    values = [_argument(one, text) for one in node.args]
    named = {str(keyword.arg): _argument(keyword.value, text) for keyword in node.keywords}
    try:
        return _kinds[node.func.id](*values, **named)
    except HfAttnMiError:
        raise
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"target {text!r}: {error}. Targets are {SUMMARY}.") from error


def _argument(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call):
        return _build(node, text)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise InvalidInputError(
            f"target {text!r}: {ast.unparse(node)} is neither a text in quotes nor a number; write texts in quotes."
        ) from error
