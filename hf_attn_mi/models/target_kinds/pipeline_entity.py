"""The target `pipeline_entity`: what a token-classification pipeline finds, grouped as the pipeline groups it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.labels import label_name
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.base import Bound, BoundTarget, OutputRow, TargetReading, call_text
from hf_attn_mi.models.target_kinds.places import text_of
from hf_attn_mi.models.target_kinds.token import BoundLabels, Part

SHOWN = 60  # characters of a text in messages


@dataclass(frozen=True)
class PipelineEntity:
    """An entity as the pipeline answers it, by its aggregation strategy; the default of such pipelines.

    The explained value is the mean over the entity's words of the logit of the word's label minus the mean of the other
    logits, read at the tokens that the strategy reads ("simple": each token, "first": the first of each word, "max":
    the most certain of each word, "average": all of each word); the probability is the pipeline's score.

    Args:
        n: the number of the entity, the most probable first.
    """

    n: int = 0
    kind: ClassVar[str] = "pipeline_entity"

    def bind(self, one: EncodedInput, runner: EncoderRunner) -> BoundTarget:
        """See `TargetKind.bind`."""
        pipeline = runner.source
        if pipeline is None or not hasattr(pipeline, "gather_pre_entities"):
            raise InvalidInputError("target pipeline_entity: pass a token-classification pipeline as the model.")
        if not one.texts:
            raise InvalidInputError("target pipeline_entity: a pipeline takes texts; for tensors use token(...).")
        return _BoundPipelineEntity(one, runner, self.n)


@dataclass(frozen=True, eq=False)
class _BoundPipelineEntity(Bound):
    n: int

    @property
    def call(self) -> str:
        return call_text("pipeline_entity", self.n)

    def settle(self, row: OutputRow) -> BoundLabels:  # type: ignore[override]
        entities = pipeline_entities(row, self.runner)
        if self.n >= len(entities):
            text = self.one.texts[0]
            raise InvalidInputError(
                f"target: the pipeline finds {len(entities) or 'no'} entities in the text "
                f"{text[:SHOWN]!r}{'...' if len(text) > SHOWN else ''}; name a token: target=targets.token(word=..., "
                "label=...)."
            )
        return entities[self.n]

    def read(self, row: OutputRow) -> TargetReading:
        return self.settle(row).read(row)


@dataclass(frozen=True)
class _Word:
    label: int
    score: float
    parts: tuple[Part, ...]
    tokens: tuple[int, ...]  # all of the word, also those that the strategy does not read


def pipeline_entities(row: OutputRow, runner: EncoderRunner) -> list[BoundLabels]:
    """The entities that the pipeline answers for this text, the most probable first."""
    pipeline, one = runner.source, row.one
    settings = pipeline._postprocess_params
    strategy = str(getattr(settings.get("aggregation_strategy"), "value", "none")).lower()
    ignored = settings.get("ignore_labels")
    ignored = ["O"] if ignored is None else ignored
    scores = row.token_logits("token").detach().float().softmax(1).cpu().numpy()
    pieces = pipeline.gather_pre_entities(
        one.texts[0],
        one.tensors["input_ids"].numpy(),
        scores,
        one.offsets,
        np.array(one.special),
        settings.get("aggregation_strategy"),
    )
    grouped = strategy != "none"
    entities = []
    words_found = _words(pieces, strategy)
    for words in _groups(words_found, pipeline, runner.config) if grouped else ([word] for word in words_found):
        name = label_name(words[0].label, runner.config)
        name = name.split("-", 1)[-1] if grouped else name
        if name in ignored:
            continue
        parts = tuple((token, label, weight / len(words)) for word in words for token, label, weight in word.parts)
        score = sum(word.score for word in words) / len(words)
        text = text_of(one, range(words[0].tokens[0], words[-1].tokens[-1] + 1))
        entities.append((score, BoundLabels(one, runner, parts, text, name if grouped else "")))
    return [entity for _, entity in sorted(entities, key=lambda pair: -pair[0])]


def _words(pieces: Sequence[dict[str, Any]], strategy: str) -> Iterator[_Word]:
    """The words with their labels; single tokens where the strategy knows no words."""
    groups: list[list[dict[str, Any]]] = []
    for piece in pieces:
        if groups and piece["is_subword"] and strategy in ("first", "max", "average"):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    for group in groups:
        tokens = tuple(int(piece["index"]) for piece in group)
        if strategy == "average":
            mean = np.mean([piece["scores"] for piece in group], axis=0)
            label = int(mean.argmax())
            parts = tuple((token, label, 1 / len(group)) for token in tokens)
            yield _Word(label, float(mean[label]), parts, tokens)
            continue
        piece = max(group, key=lambda piece: piece["scores"].max()) if strategy == "max" else group[0]
        label = int(piece["scores"].argmax())
        yield _Word(label, float(piece["scores"][label]), ((int(piece["index"]), label, 1.0),), tokens)


def _groups(words: Iterator[_Word], pipeline: Any, config: object) -> Iterator[list[_Word]]:
    """Neighbors with the same kind of entity, but for a word that begins a new one ("B-")."""
    current: list[_Word] = []
    for word in words:
        if current:
            begins, tag = pipeline.get_tag(label_name(word.label, config))
            _, last = pipeline.get_tag(label_name(current[-1].label, config))
            if tag == last and begins != "B":
                current.append(word)
                continue
            yield current
        current = [word]
    if current:
        yield current
