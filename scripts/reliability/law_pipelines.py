"""What a pipeline answers is what is explained: random pipelines of every supported task, settings and inputs.

python -m scripts.reliability.law_pipelines --count 500 --seed 0

The cases of the tasks beyond text classification, which `scripts.reliability.law` covers; tests/test_law_pipelines.py
draws them with hypothesis. For each case the target and the probability of the explanation are those of `pipeline(x)`,
for a list of inputs in both orders and for each input alone.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    pipeline,
)

from hf_attn_mi import InvalidInputError, explain
from scripts.reliability.common import SIZES, _built, arguments, media_models, model_state, report, tokenizer, try_cases
from scripts.reliability.law import PROBABILITY, WORDS, _same_scores

Choose = Callable[[Sequence[Any]], Any]
LABELS = ("film", "sports", "long news")
NLI = ("contradiction", "neutral", "entailment")
ENTITIES = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
SETTINGS: dict[str, dict[str, tuple[Any, ...]]] = {  # of each task: the settings of its pipelines
    "zero-shot-classification": {
        "candidate_labels": (LABELS, LABELS[:2], LABELS[:1], "film, sports"),
        "multi_label": (False, True),
        "hypothesis_template": ("This example is {}.", "About {}!"),
    },
    "token-classification": {
        "aggregation_strategy": ("none", "simple", "first", "average", "max"),
        "ignore_labels": (["O"], [], ["O", "B-PER"]),
    },
    "fill-mask": {"top_k": (1, 5), "targets": (None, ("film", "dull"), ("plot",))},
    "image-classification": {"top_k": (1, 2), "function_to_apply": (None, "sigmoid", "softmax")},
    "audio-classification": {"top_k": (1, 2), "function_to_apply": (None, "sigmoid", "softmax")},
    "feature-extraction": {},
}


@dataclass(frozen=True)
class PipelineCase:
    """One case.

    Attributes:
        task: a name of `SETTINGS`.
        settings: the settings of the pipeline.
        inputs: texts; for images and recordings the seeds of random ones, each with its size.
        batch_size: the batch size of the call.
    """

    task: str
    settings: tuple[tuple[str, Any], ...]
    inputs: tuple[Any, ...]
    batch_size: int


def draw(choose: Choose) -> PipelineCase:
    """A case, from a function that chooses one of some values."""
    task = choose(tuple(SETTINGS))
    settings = tuple((name, choose(values)) for name, values in SETTINGS[task].items())
    count = choose((1, 2, 3))
    if task in ("image-classification", "audio-classification"):
        inputs: tuple[Any, ...] = tuple((choose(range(50)), choose((8, 13, 30))) for _ in range(count))
    else:
        inputs = tuple(" ".join(choose(WORDS) for _ in range(choose(range(1, 8)))) for _ in range(count))
    if task == "fill-mask":
        inputs = tuple(f"{text} [MASK] {choose(WORDS)}" for text in inputs)
    return PipelineCase(task, settings, inputs, choose((1, 2, 16)))


@cache
def _model(task: str) -> Any:
    sizes = {**SIZES, "num_attention_heads": 4, "max_position_embeddings": 64}
    names = {"zero-shot-classification": NLI, "token-classification": ENTITIES}.get(task, ())
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    kinds = {
        "zero-shot-classification": BertForSequenceClassification,
        "token-classification": BertForTokenClassification,
        "fill-mask": BertForMaskedLM,
        "feature-extraction": BertModel,
    }
    if task in kinds:
        return _built(lambda: kinds[task](BertConfig(**sizes, **(labels if names else {})))), None
    return media_models()["images" if task.startswith("image") else "audio"]


def _pipeline(case: PipelineCase) -> Any:
    model, processor = _model(case.task)
    settings = {name: value for name, value in case.settings if value is not None}
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    if case.task == "image-classification":
        return pipeline(case.task, model=model, image_processor=processor, **settings)
    if case.task == "audio-classification":
        return pipeline(case.task, model=model, feature_extractor=processor, **settings)
    return pipeline(case.task, model=model, tokenizer=tokenizer(), **settings)


def _inputs(case: PipelineCase) -> list[Any]:
    """The inputs as the pipeline takes them."""
    if case.task == "image-classification":
        from PIL import Image

        pixels = [np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8) for seed, size in case.inputs]
        return [Image.fromarray(values) for values in pixels]
    if case.task == "audio-classification":
        waves = [np.random.default_rng(seed).normal(size=40 * size) for seed, size in case.inputs]
        return [wave.astype(np.float32) for wave in waves]
    return list(case.inputs)


def check(case: PipelineCase) -> str:
    """Check one case; an AssertionError says what differs.

    Returns:
        "equal", or "nothing to explain" where the pipeline finds no entity and the refusal says so.
    """
    pipe, inputs = _pipeline(case), _inputs(case)
    before = model_state(pipe.model)
    answers = [_answer(case, pipe, one) for one in inputs]
    options: dict[str, Any] = {"layers": "none", "batch_size": case.batch_size}
    if case.task == "feature-extraction":
        options["target"] = 'similarity("a warm film")'
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if None in answers:
            _refused(pipe, inputs[answers.index(None)], options)
            return "nothing to explain"
        found = list(explain(pipe, inputs, **options))
        turned = list(explain(pipe, inputs[::-1], **options))[::-1]
        alone = [explain(pipe, one, **options) for one in inputs]
    assert model_state(pipe.model) == before, "the state of the model changed"
    assert len(found) == len(answers), "another number of explanations than of inputs"
    for one, answer in zip(found, answers):
        _same_answer(case, one, answer)
    _same_scores(found, turned, "in the other order")
    _same_scores(found, alone, "alone")
    return "equal"


def _refused(pipe: Any, one: Any, options: dict[str, Any]) -> None:
    try:
        explain(pipe, one, **options)
    except InvalidInputError as error:
        if "the pipeline finds no entities" in str(error):
            return
        raise AssertionError(f"refused for another reason: {error}") from error
    raise AssertionError("the pipeline finds no entity, and something was explained")


def _answer(case: PipelineCase, pipe: Any, one: Any) -> Any:
    """The best answer of the pipeline: (name, score); None where it finds no entity; states for features."""
    if case.task == "feature-extraction":
        return torch.tensor(pipe(one)[0]).double()
    if case.task == "audio-classification":
        one = {"raw": one, "sampling_rate": pipe.feature_extractor.sampling_rate}
    found = pipe(one)
    if case.task == "zero-shot-classification":
        return found["labels"][0], found["scores"][0]
    if case.task == "token-classification":
        return max((float(item["score"]) for item in found), default=None)
    best = found[0]
    return (best["token"] if case.task == "fill-mask" else best["label"]), best["score"]


def _same_answer(case: PipelineCase, one: Any, answer: Any) -> None:
    if case.task == "feature-extraction":
        value = _similarity(answer, case)
        assert abs(one.value - value) <= PROBABILITY, f"similarity {one.value}, of the pipeline's states {value}"
        return
    if case.task == "token-classification":
        name, score = None, answer
    else:
        name, score = answer
    if case.task == "fill-mask":
        assert one.target == name, f"token {one.target} ({one.target_name}), the pipeline says {name}"
    elif name is not None:
        assert one.target_name == name, f"{one.target_name!r}, the pipeline says {name!r}"
    assert one.probability is not None, "no probability"
    assert abs(one.probability - score) <= PROBABILITY, f"{one.probability}: {score}"


def _similarity(states: torch.Tensor, case: PipelineCase) -> float:
    """Cosine of the means of the pipeline's states of two texts."""
    other = torch.tensor(_pipeline(case)("a warm film")[0]).double()
    return float(torch.nn.functional.cosine_similarity(states.mean(0), other.mean(0), dim=0))


def run(count: int, seed: int) -> dict[str, Any]:
    """Try `count` random cases."""
    cases, figures = try_cases(count, seed, draw, check)
    return {"tasks": dict(Counter(case.task for case in cases)), **figures}


def main() -> int:
    """Run, print and perhaps keep the result; exit status 1 where an answer differs."""
    options = arguments(__doc__ or "", 500).parse_args()
    result = run(options.count, options.seed)
    outcomes = result["outcomes"]
    sentence = (
        f"{result['count']} cases of {len(SETTINGS)} tasks: {outcomes.get('equal', 0)} equal, "
        f"{outcomes.get('nothing to explain', 0)} refused because the pipeline finds no entity, violations: "
        f"{outcomes.get('violated', 0)}."
    )
    report("law_pipelines", result, sentence, write=options.write)
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
