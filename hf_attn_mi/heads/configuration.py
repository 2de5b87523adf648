"""Configuration of an encoder with an attention head, and the model card that states it on the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from hf_attn_mi.atomic_files import write_file
from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.hub_cards import is_unchanged, sealed

SCHEMA = 1
ENCODER_CLASSES = ("AutoModel", "AutoModelForTextEncoding")
# A sentence of the card that transformers generates:
GENERATED = "has been pushed on the Hub. This model card has been automatically generated"
HEADER = """---
library_name: transformers
pipeline_tag: text-classification
tags: [attention, explainability, hf_attn_mi]
---
"""
CARD = """# Attention head on {encoder}

An encoder ({encoder}, {width} wide{frozen}) with an attention head of `hf_attn_mi`: {heads} head(s) with {queries}
learned query/queries. Labels: {labels}.

| attention | |
|---|---|
| kind (score) | `{score}`: {formula} |
| normalizer | `{normalizer}` |
| temperature | {temperature} |
| hard | `{hard}` |
| recurrence | `{recurrence}` |

```python
from transformers import AutoTokenizer, pipeline
from hf_attn_mi import explain  # makes the auto classes of transformers load this model

classify = pipeline("text-classification", "{name}")
print(classify("..."))
print(explain(classify, "...", method="head"))  # the head's attention, token by token
```

## Study
The study of hf_attn_mi (docs/studies/information.md in its repository; it tests claims of arXiv 2211.07714) measures
for heads with score `{score}` how much information about the output is kept by the token with the largest weight, and
whether the order of the weights is that of the information.

## Training data, evaluation, limits
Not stated: to be filled in by the author.
"""
FORMULAS = {
    "additive": "v^T tanh(W h + b)",
    "deep": "v^T gelu(W2 gelu(W1 h + b1) + b2)",
    "scaled_dot": "<h, q> / sqrt(d)",
}


class AttentionHeadConfig(PreTrainedConfig):  # type: ignore[misc]
    """The encoder's own configuration and the head's options, so that loading needs no network.

    Args:
        encoder: configuration of the encoder, or its dictionary.
        score: "additive", "deep" or "scaled_dot".
        normalizer: "softmax" or "gumbel".
        head_temperature: a number above 0, or the dictionary of a `TemperatureSchedule`. (A configuration may not hold
            `temperature`: transformers keeps that name for generation.)
        hard: one-hot weights, straight-through gradient.
        heads, queries, score_size, recurrence, recurrence_size, head_dropout: as in `AttentionHead`.
        freeze_encoder: the encoder stays in evaluation mode and is never trained.
        encoder_class: the transformers class that builds the encoder from its configuration: "AutoModel", or
            "AutoModelForTextEncoding" for the encoder half of T5 and similar models.
        states_size: width of the states that the head was built for, by default the encoder's.
        schema: version of this layout.

    Raises:
        InvalidInputError: a checkpoint of a newer schema, or an encoder of another width than the head.
    """

    model_type = "attention_head"
    sub_configs = {"encoder": AutoConfig}  # noqa: RUF012
    keys_to_ignore_at_inference = ["weights", "hidden_states", "attentions"]  # noqa: RUF012

    def __init__(
        self,
        encoder: PreTrainedConfig | Mapping[str, Any] | None = None,
        score: str = "additive",
        normalizer: str = "softmax",
        head_temperature: float | Mapping[str, Any] = 1.0,
        hard: bool = False,
        heads: int = 1,
        queries: int = 1,
        score_size: int | None = None,
        recurrence: str | None = None,
        recurrence_size: int | None = None,
        head_dropout: float = 0.1,
        freeze_encoder: bool = False,
        encoder_class: str = "AutoModel",
        states_size: int | None = None,
        schema: int = SCHEMA,
        **kwargs: Any,
    ) -> None:
        if not isinstance(schema, int) or schema > SCHEMA:
            raise InvalidInputError(
                f"this head has schema {shown(schema)}, this version reads schemas up to {SCHEMA}: upgrade hf_attn_mi"
            )
        if isinstance(encoder, Mapping):
            values = dict(encoder)
            encoder = AutoConfig.for_model(values.pop("model_type", "bert"), **values)
        self.encoder: Any = encoder
        self.score, self.normalizer, self.head_temperature, self.hard = score, normalizer, head_temperature, hard
        self.heads, self.queries, self.score_size = heads, queries, score_size
        self.recurrence, self.recurrence_size = recurrence, recurrence_size
        self.head_dropout, self.freeze_encoder, self.schema = head_dropout, freeze_encoder, schema
        if encoder_class not in ENCODER_CLASSES:
            raise InvalidInputError(
                f"encoder_class is {shown(encoder_class)}: one of {', '.join(ENCODER_CLASSES)} is allowed"
            )
        self.encoder_class = encoder_class
        width = getattr(encoder, "hidden_size", None)
        if states_size is not None and width is not None and states_size != width:
            kind = getattr(encoder, "model_type", type(encoder).__name__)
            raise InvalidInputError(
                f"states_size is {states_size}, but the hidden_size of the encoder ({kind}) is {width}: "
                "a saved head fits only an encoder of the width that it was built for"
            )
        self.states_size = states_size if width is None else width
        if kwargs.get("pad_token_id") is None:
            kwargs["pad_token_id"] = getattr(encoder, "pad_token_id", None)
        super().__init__(**kwargs)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The encoder's configuration: where transformers reads and writes the size of the vocabulary."""
        if self.encoder is None:
            return self
        text_config: PreTrainedConfig = self.encoder.get_text_config(decoder=decoder, encoder=encoder)
        return text_config

    @property
    def hidden_size(self) -> int:
        """Width of the encoder's states."""
        return int(self.encoder.hidden_size)


def model_card(config: AttentionHeadConfig, name: str, temperature: float | None = None) -> str:
    """Return a model card (Markdown with its YAML header) that states the head's options.

    Args:
        config: the model's configuration.
        name: the name of the repository or folder, for the example in the card.
        temperature: that of the head after the training so far; None if it is not known.
    """
    labels = ", ".join(f"{number} {label}" for number, label in sorted((config.id2label or {}).items()))
    text = CARD.format(
        encoder=_encoder_name(config),
        width=config.hidden_size,
        frozen=", frozen in training" if config.freeze_encoder else "",
        heads=config.heads,
        queries=config.queries,
        score=config.score,
        formula=FORMULAS[config.score],
        normalizer=config.normalizer,
        temperature=_temperature(config.head_temperature, temperature),
        hard=config.hard,
        recurrence=config.recurrence,
        labels=labels,
        name=name,
    )
    return HEADER + sealed(text)


def _encoder_name(config: AttentionHeadConfig) -> str:
    """The Hub name of the encoder, or its type: a path says nothing on another machine."""
    name = str(getattr(config.encoder, "_name_or_path", "") or "")
    local = not name or Path(name).is_absolute() or Path(name).exists()
    return str(config.encoder.model_type) if local else name


def _temperature(schedule: float | Mapping[str, Any], latest: float | None) -> str:
    """The temperature in words; of a schedule its ends, and the latest one if it is known."""
    if not isinstance(schedule, Mapping):
        return f"{schedule:g}"
    if schedule.get("kind", "constant") == "constant":
        return f"{schedule['start']:g}"
    words = "{kind}, from {start:g} to {end:g} in {steps} training steps".format(**schedule)
    return words if latest is None else f"{words}; {latest:g} when it was saved"


def write_card(folder: Path, config: AttentionHeadConfig, name: str, temperature: float | None = None) -> None:
    """Write the model card into a folder; a card that somebody else wrote or changed stays.

    Args:
        folder: the folder of a saved model.
        config, name, temperature: as in `model_card`.
    """
    path = folder / "README.md"
    if path.exists():
        card = path.read_text(encoding="utf-8")
        if GENERATED not in card and not is_unchanged(card):
            return
    write_file(model_card(config, name, temperature).encode(), path, overwrite=True)
