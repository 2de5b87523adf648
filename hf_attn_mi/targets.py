"""What to explain, in words: `targets.token(word="Paris", label="B-LOC")`, `targets.mask("paris")` and so on.

Pass one as `target=`, or write it as a string: `target='mask("paris")'`, `--target 'mask("paris")'`. Every name is a
class; its arguments and the value that it explains stand in its docstring.

Example:
    >>> from hf_attn_mi import targets
    >>> targets.token(word="Paris", label="B-LOC")
    Token(word='Paris', label='B-LOC', occurrence=0, position=None, span=None, tokens='first')
"""

from __future__ import annotations

from typing import Any

from hf_attn_mi.models.target_kinds.alternatives import Choice, Entails
from hf_attn_mi.models.target_kinds.answer import Answer, AnswerEnd, AnswerStart
from hf_attn_mi.models.target_kinds.classes import Label, Margin, Value
from hf_attn_mi.models.target_kinds.frame import Frame
from hf_attn_mi.models.target_kinds.generated import Generated
from hf_attn_mi.models.target_kinds.mask import Mask
from hf_attn_mi.models.target_kinds.next_token import NextToken
from hf_attn_mi.models.target_kinds.pipeline_entity import PipelineEntity
from hf_attn_mi.models.target_kinds.registry import TARGET_KINDS
from hf_attn_mi.models.target_kinds.registry import parse_target as parse
from hf_attn_mi.models.target_kinds.registry import register_target as register_target
from hf_attn_mi.models.target_kinds.similarity import Similarity
from hf_attn_mi.models.target_kinds.token import Entity, Token

answer = Answer
answer_end = AnswerEnd
answer_start = AnswerStart
choice = Choice
entails = Entails
entity = Entity
frame = Frame
generated = Generated
label = Label
margin = Margin
mask = Mask
next_token = NextToken
pipeline_entity = PipelineEntity
similarity = Similarity
token = Token
value = Value

__all__ = [
    "answer",
    "answer_end",
    "answer_start",
    "choice",
    "entails",
    "entity",
    "frame",
    "generated",
    "label",
    "margin",
    "mask",
    "next_token",
    "parse",
    "pipeline_entity",
    "register_target",
    "similarity",
    "token",
    "value",
]


def __getattr__(name: str) -> Any:
    """Targets that were registered from elsewhere."""
    if name not in TARGET_KINDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(TARGET_KINDS)}")
    return TARGET_KINDS[name]
