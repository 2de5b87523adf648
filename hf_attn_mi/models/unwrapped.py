"""`Unwrapped`: a model that was taken out of its wrapper, with the wrapper's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_attn_mi.models.output_heads import OutputHead


@dataclass(frozen=True, eq=False)
class Unwrapped:
    """The model inside a pipeline or another object.

    Attributes:
        model: the module, or the object that was found instead of one.
        tokenizer: the wrapper's tokenizer; None if there is none.
        tokenizer_options: what is passed to the tokenizer, such as truncation and max_length.
        output_head: how logits become scores; None for the registered output heads.
        default_target: the target that is explained by default, as a string of `hf_attn_mi.targets`; None for the
            default of the outputs.
        processor: the wrapper's processor for images and audio; None for texts.
        source: the object itself, for targets that read its answers; None for a bare model.
    """

    model: Any
    tokenizer: Any = None
    tokenizer_options: Mapping[str, Any] = field(default_factory=dict)
    output_head: OutputHead | None = None
    default_target: str | None = None
    source: Any = None
    processor: Any = None
