"""`Unwrapped`: a model that was taken out of what stands around it, with the settings that come with that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_attn_mi.models.output_heads import OutputHead


@dataclass(frozen=True, eq=False)
class Unwrapped:
    """The model inside a pipeline or another object.

    Attributes:
        model: the module, or whatever stood in its place.
        tokenizer: that comes with it; None without one.
        tokenizer_options: what is passed to the tokenizer, such as truncation and max_length.
        output_head: how logits become scores; None for the registered output heads.
        default_target: what is explained without a target, as a string of `hf_attn_mi.targets`; None for what the
            outputs call for.
        processor: for images and audio, that comes with it; None for texts.
        source: the object itself, for targets that read its answers; None for a bare model.
    """

    model: Any
    tokenizer: Any = None
    tokenizer_options: Mapping[str, Any] = field(default_factory=dict)
    output_head: OutputHead | None = None
    default_target: str | None = None
    source: Any = None
    processor: Any = None
