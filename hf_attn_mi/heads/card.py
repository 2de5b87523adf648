"""The model card that goes to the Hub with a head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

GENERATED = "has been pushed on the Hub. This model card has been automatically generated"  # what transformers writes
TEMPLATE = """---
library_name: transformers
pipeline_tag: text-classification
tags: [attention, explainability, hf_attn_mi]
---
# {kind} on {encoder}

An encoder ({encoder}, {width} wide{frozen}) with an attention head of `hf_attn_mi`: {heads} head(s) with {queries}
learned query/queries, score `{score}`, normalizer `{normalizer}`, temperature `{temperature}`, hard `{hard}`,
recurrence `{recurrence}`. Labels: {labels}.

```python
from transformers import AutoTokenizer, pipeline
from hf_attn_mi import explain
from hf_attn_mi.heads import register_auto_classes

register_auto_classes()
classify = pipeline("text-classification", "{name}")
print(classify("..."))
print(explain(classify, "...", method="head"))  # the head's attention, token by token
```

## Training data, evaluation, limits
Not stated: to be filled in by the author.
"""


def model_card(config: Any, name: str) -> str:
    """Return a model card (Markdown with its YAML header) that states the head's options.

    Args:
        config: an `AttentionHeadConfig`.
        name: of the repository or folder, for the example in the card.
    """
    labels = ", ".join(f"{number} {label}" for number, label in sorted((config.id2label or {}).items()))
    return TEMPLATE.format(
        kind="Attention head",
        encoder=getattr(config.encoder, "_name_or_path", "") or config.encoder.model_type,
        width=config.hidden_size,
        frozen=", frozen in training" if config.freeze_encoder else "",
        heads=config.heads,
        queries=config.queries,
        score=config.score,
        normalizer=config.normalizer,
        temperature=config.head_temperature,
        hard=config.hard,
        recurrence=config.recurrence,
        labels=labels,
        name=name,
    )


def replace_generated_card(folder: Path, config: Any, name: str) -> None:
    """Put our card in the place of the one that says nothing; a card that somebody wrote stays."""
    path = folder / "README.md"
    if path.exists() and GENERATED not in path.read_text(encoding="utf-8"):
        return
    path.write_text(model_card(config, name), encoding="utf-8")
