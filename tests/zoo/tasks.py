"""Tasks of the architectures of the zoo: what is explained against the model's own outputs.

`task_jobs()` lists pairs of a task and a model type, `check_task(job)` checks one. A task is one line in `TASKS`: the
class that is built, its inputs, the target, and the value and probability that follow from the outputs of the model
for one row as it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel
from transformers.models.auto import modeling_auto

from hf_attn_mi import explain, targets
from hf_attn_mi.errors import HfAttnMiError
from hf_attn_mi.models.encode import argument_names
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target

from .building import MOST_PARAMETERS, CannotBuild, _is_finite, rescale
from .catalog import CANNOT_BUILD, TEXT_ONLY, Kind, jobs
from .configs import tiny_config
from .inputs import make_inputs

VALUE_TOLERANCE = 1e-5  # explained value against the model's own, relative to the largest logit or 1
GAP_TOLERANCE = 1e-5  # completeness gap of relevance
BATCH_TOLERANCE = 1e-4  # scores in a batch of two against each input alone, relative to the largest
METHODS: dict[str, dict[str, Any]] = {  # and their options
    "attnlrp": {},
    "attention": {},
    "rollout": {},
    "efficient": {},
    "integrated_gradients": {"steps": 2},
    "occlusion": {},
}
SPECIAL = (0, 2, 3)  # of the embedded model's tokenizer
MASK = 4
WRITTEN = "a b"  # what decoders write
SAMPLE = "bert roberta distilbert electra albert modernbert deberta-v2 xlm-roberta bart gpt2 llama mbart qwen2 opt"
Inputs = dict[str, Tensor]
Reading = tuple[Tensor, float | None]


@dataclass(frozen=True)
class Task:
    """A task: `read` gives the explained value and its probability from the outputs for one row."""

    auto: str  # class of transformers
    mapping: str  # of model types to classes
    read: Callable[[Any, Inputs], Reading]
    target: Any = None
    make_target: Callable[[PreTrainedModel, Inputs], Any] | None = None  # in place of `target`
    prepare: Callable[[PreTrainedModel, Inputs], Inputs] | None = None
    config: dict[str, Any] | None = None
    types: frozenset[str] | None = None  # a sample of the model types; None for all
    modality: str = "text"


@dataclass(frozen=True)
class TaskJob:
    """One task of one model type."""

    task: str
    model_type: str
    kind: Kind


@dataclass(frozen=True)
class TaskCheck:
    """The results of one job.

    The verdict is "right", "refused: ...", "not built: ...", or, for a defect, "wrong: ..." or "crashed: ...".
    """

    job: TaskJob
    verdict: str = ""
    value_error: float | None = None
    gap: float | None = None
    batch_difference: float | None = None
    methods: tuple[str, ...] = ()
    gap_note: str = ""  # why the gap is larger than rounding
    notes: tuple[str, ...] = ()


def check_task(job: TaskJob) -> TaskCheck:
    """Build the model of a job and compare what is explained with its own outputs."""
    result = TaskCheck(job)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, inputs = _build(job)
    except (ImportError, CannotBuild) as error:
        return replace(result, verdict=f"not built: {str(error).strip().splitlines()[0]}")
    except Exception as error:
        return replace(result, verdict=f"not built: {type(error).__name__}: {str(error).strip().splitlines()[0][:80]}")
    torch.manual_seed(0)
    try:
        return _compared(result, model, inputs)
    except HfAttnMiError as error:
        return replace(result, verdict=f"refused: {error}")
    except Exception as error:
        return replace(result, verdict=f"crashed: {type(error).__name__}: {str(error)[:200]}")


def task_jobs() -> tuple[TaskJob, ...]:
    """Every task of every type of the zoo that transformers has a class for."""
    kinds = {job.model_type: job.kind for job in jobs() if job.auto != "enc"}
    kinds |= {job.model_type: "encoder-decoder" for job in jobs() if job.auto == "enc"}
    found = []
    for name, task in TASKS.items():
        listed = getattr(modeling_auto, task.mapping)
        for model_type, kind in kinds.items():
            if model_type in listed and (task.types is None or model_type in task.types) and task_fits(task, kind):
                found.append(TaskJob(name, model_type, kind))
    return tuple(found)


def task_fits(task: Task, kind: Kind) -> bool:
    """Next tokens are for decoders, embeddings for encoders."""
    wanted = {"AutoModelForCausalLM": "decoder", "AutoModel": "encoder"}.get(task.auto)
    return wanted is None or kind == wanted


def _build(job: TaskJob) -> tuple[PreTrainedModel, Inputs]:
    task = TASKS[job.task]
    if job.model_type in CANNOT_BUILD:
        raise CannotBuild(CANNOT_BUILD[job.model_type])
    config = tiny_config(job.model_type)
    for key, value in (task.config or {}).items():
        setattr(config, key, value)
    if task.auto == "NextSentencePrediction":
        name = modeling_auto.MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES[job.model_type]
        model = getattr(transformers, name)(config)
    else:
        model = getattr(transformers, task.auto).from_config(config)
    model = model.float().eval()
    if sum(parameter.numel() for parameter in model.parameters()) > MOST_PARAMETERS:
        raise CannotBuild("the tiny configuration is still large")
    inputs = make_inputs(model, job.model_type, "seqcls")
    inputs = {key: value for key, value in inputs.items() if key in argument_names(model)}
    inputs = inputs if task.prepare is None else task.prepare(model, inputs)
    default = {name: value.clone() for name, value in model.state_dict().items()}
    rescale(model)
    if not _is_finite(model, _row(inputs, 0) | _decoder(task, model)):
        model.load_state_dict(default)
    return model, inputs


def _compared(result: TaskCheck, model: PreTrainedModel, inputs: Inputs) -> TaskCheck:
    task = TASKS[result.job.task]
    words = {"tokenizer": tokenizer()} if task.modality == "text" else {}
    target = _target(task, model, inputs)
    error = _value_error(task, model, inputs, words, target)
    both = explain(model, inputs, target=target, layers="none", **words)
    alone = [explain(model, _row(inputs, i), target=target, layers="none", **words) for i in range(2)]
    difference = max(_relative(a.scores - b.scores, b.scores) for a, b in zip(both, alone, strict=True))
    gap = max(one.completeness_gap for one in both)
    methods, notes = ["relevance"], []
    for method, options in METHODS.items():
        try:
            explain(model, _row(inputs, 1), target=target, method=method, options=options, layers="none", **words)
        except HfAttnMiError as refusal:
            notes.append(f"{method}: {str(refusal).split('. ')[0]}")
        else:
            methods.append(method)
    defects = [
        f"{name} {value:.0e}"
        for name, value, limit in (
            ("value", error, VALUE_TOLERANCE),
            ("batch", difference, BATCH_TOLERANCE),
        )
        if not value <= limit
    ]
    verdict = f"wrong: {', '.join(defects)}" if defects else "right"
    return replace(
        result,
        verdict=verdict,
        value_error=error,
        gap=gap,
        batch_difference=difference,
        gap_note="" if gap <= GAP_TOLERANCE else _gap_note(task, model, inputs, words),
        methods=tuple(methods),
        notes=tuple(notes),
    )


def _gap_note(task: Task, model: PreTrainedModel, inputs: Inputs, words: dict[str, Any]) -> str:
    """Whether a gap is rounding: the gap of the same model and inputs in float64, which is put back to float32."""
    doubled = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    try:
        target = _target(task, model.double(), doubled)
        exact = explain(model, doubled, target=target, layers="none", **words)
    except Exception as error:
        return f"gap not explained: {type(error).__name__} in float64"
    finally:
        model.float()
    gap = max(one.completeness_gap for one in exact)
    return f"gap in float64: {gap:.0e}" + ("" if gap > GAP_TOLERANCE else ", so it is rounding")


def _target(task: Task, model: PreTrainedModel, inputs: Inputs) -> Any:
    return task.target if task.make_target is None else task.make_target(model, inputs)


def _value_error(task: Task, model: PreTrainedModel, inputs: Inputs, words: dict[str, Any], asked: Any) -> float:
    """How far the explained values and probabilities of the batch are from those of each row alone."""
    runner = EncoderRunner.of(model, words.get("tokenizer"))
    encoded, _ = runner.encode(inputs)
    target, encoded = read_target(asked, runner, encoded)
    worst = 0.0
    for places in runner.batches(encoded, 1 if target.alone else 2):
        with runner.session(), torch.no_grad():
            reading = target.select(places).read(runner.forward(runner.collate([encoded[i] for i in places])))
        for i, value, explained in zip(places, reading.values.tolist(), reading.explained):
            row = _row(inputs, i)
            with torch.no_grad():
                outputs = model(**row, **_decoder(task, model))
            wanted, probability = task.read(outputs, row)
            worst = max(worst, abs(value - float(wanted)) / max(1.0, _largest(outputs)))
            if (probability is None) != (explained.probability is None):
                return float("inf")
            if probability is not None:
                worst = max(worst, abs(probability - (explained.probability or 0.0)))
    return worst


def _row(inputs: Inputs, i: int) -> Inputs:
    """One input as a batch of one, as it was given."""
    return {key: value[i : i + 1] for key, value in inputs.items()}


def _real(row: Inputs) -> Tensor:
    """(tokens,) bool, False at padding."""
    ids = row.get("input_ids", row.get("inputs"))
    assert ids is not None
    mask = row.get("attention_mask", torch.ones_like(ids))
    return mask[0].bool()


def _decoder(task: Task, model: PreTrainedModel) -> Inputs:
    """What a decoder reads while it writes the text."""
    if task.auto != "AutoModelForSeq2SeqLM":
        return {}
    labels = torch.tensor([tokenizer()(text_target=WRITTEN)["input_ids"]])
    if not hasattr(model, "prepare_decoder_input_ids_from_labels"):
        start = torch.tensor([[model.config.decoder_start_token_id]])
        return {"decoder_input_ids": torch.cat([start, labels[:, :-1]], 1)}
    return {"decoder_input_ids": model.prepare_decoder_input_ids_from_labels(labels=labels)}


@cache
def tokenizer() -> Any:
    """The embedded model's tokenizer: the first of its ids fit the vocabulary of the zoo."""
    return AutoTokenizer.from_pretrained(Path(__file__).parents[2] / "hf_attn_mi" / "embedded_model")


# --- readings by hand ------------------------------------------------------------------------------------------------


def _contrast(logits: Tensor, chosen: int) -> Reading:
    logits = logits.double()
    others = torch.cat([logits[:chosen], logits[chosen + 1 :]])
    return logits[chosen] - others.mean(), float(logits.softmax(0)[chosen])


def _class(outputs: Any, row: Inputs) -> Reading:
    return _contrast(outputs.logits[0], int(outputs.logits[0].argmax()))


def _output(outputs: Any, row: Inputs) -> Reading:
    return outputs.logits[0, 0], None


def _second_label(outputs: Any, row: Inputs) -> Reading:
    return outputs.logits[0, 1], float(outputs.logits[0, 1].double().sigmoid())


def _ordinary(row: Inputs) -> list[int]:
    ids = row.get("input_ids", row.get("inputs"))
    assert ids is not None
    real = _real(row).tolist()
    return [i for i, token in enumerate(ids[0].tolist()) if token not in SPECIAL and real[i]]


def _entity(outputs: Any, row: Inputs) -> Reading:
    probabilities = outputs.logits[0].double().softmax(1)
    place = max(_ordinary(row), key=lambda i: float(probabilities[i].max()))
    return _contrast(outputs.logits[0, place], int(probabilities[place].argmax()))


def _span(outputs: Any, row: Inputs) -> Reading:
    starts, ends, places = outputs.start_logits[0].double(), outputs.end_logits[0].double(), _ordinary(row)
    start, end = max(
        ((i, j) for i in places for j in places if i <= j), key=lambda pair: float(starts[pair[0]] + ends[pair[1]])
    )
    hidden = ~_real(row)
    of_start, of_end = (logits.masked_fill(hidden, -torch.inf).softmax(0) for logits in (starts, ends))
    return starts[start] + ends[end], float(of_start[start] * of_end[end])


def _masked(outputs: Any, row: Inputs) -> Reading:
    logits = outputs.logits[0, 3]
    return _contrast(logits, int(logits.argmax()))


def _last(outputs: Any, row: Inputs) -> Reading:
    logits = outputs.logits[0, int(_real(row).nonzero()[-1, 0])]
    return _contrast(logits, int(logits.argmax()))


def _best_choice(outputs: Any, row: Inputs) -> Reading:
    best = int(outputs.logits[0].argmax())
    return outputs.logits[0, best], float(outputs.logits[0].double().softmax(0)[best])


def _written(outputs: Any, row: Inputs) -> Reading:
    labels = tokenizer()(text_target=WRITTEN)["input_ids"]
    pairs = [_contrast(outputs.logits[0, i], labels[i]) for i in (1, 2)]
    return pairs[0][0] + pairs[1][0], (pairs[0][1] or 0) * (pairs[1][1] or 0)


def _cosine(outputs: Any, row: Inputs) -> Reading:
    pooled = outputs.last_hidden_state[0][_real(row)].mean(0)
    return F.cosine_similarity(pooled, OTHER[: len(pooled)], dim=0), None


def _similarity(model: PreTrainedModel, inputs: Inputs) -> Any:
    with torch.no_grad():
        width = model(**inputs).last_hidden_state.shape[-1]
    return targets.similarity(OTHER[:width].to(model.dtype))


def _frame(outputs: Any, row: Inputs) -> Reading:
    logits = outputs.logits[0, 2]
    return _contrast(logits, int(logits.argmax()))


def _largest(outputs: Any) -> float:
    names = ("logits", "start_logits", "end_logits")
    found = [getattr(outputs, name, None) for name in names]
    return max((float(value.abs().max()) for value in found if isinstance(value, Tensor)), default=1.0)


def _relative(difference: Tensor, reference: Tensor) -> float:
    return float(difference.abs().max() / reference.abs().max().clamp_min(1e-9))


# --- inputs ----------------------------------------------------------------------------------------------------------


def _with_mask(model: PreTrainedModel, inputs: Inputs) -> Inputs:
    key = "input_ids" if "input_ids" in inputs else "inputs"
    ids = inputs[key].clone()
    ids[:, 3] = MASK
    return {**inputs, key: ids}


def _two_choices(model: PreTrainedModel, inputs: Inputs) -> Inputs:
    """Two prompts of two choices each: the rows of the batch, and the rows with other tokens in the middle."""
    other = {key: value.clone() for key, value in inputs.items()}
    other["input_ids"][:, 4:8] = torch.tensor([11, 22, 33, 44])
    return {key: torch.stack([inputs[key], other[key]], dim=1) for key in inputs}


OTHER = torch.randn(256, generator=torch.Generator().manual_seed(2))
CLASSIFIERS = "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"
_SAMPLE = frozenset(SAMPLE.split())
TASKS: dict[str, Task] = {
    "classification": Task("AutoModelForSequenceClassification", CLASSIFIERS, _class),
    "regression": Task(
        "AutoModelForSequenceClassification", CLASSIFIERS, _output, config={"num_labels": 1}, types=_SAMPLE
    ),
    "independent labels": Task(
        "AutoModelForSequenceClassification",
        CLASSIFIERS,
        _second_label,
        target=1,
        config={"problem_type": "multi_label_classification"},
        types=_SAMPLE,
    ),
    "entities": Task("AutoModelForTokenClassification", "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES", _entity),
    "answers": Task("AutoModelForQuestionAnswering", "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES", _span, "answer()"),
    "masks": Task("AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING_NAMES", _masked, "mask()", prepare=_with_mask),
    "next token": Task("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", _last, "next_token()"),
    "next sentence": Task("NextSentencePrediction", "MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES", _class),
    "multiple choice": Task(
        "AutoModelForMultipleChoice", "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES", _best_choice, prepare=_two_choices
    ),
    "generated text": Task(
        "AutoModelForSeq2SeqLM",
        "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
        _written,
        targets.generated(WRITTEN),
    ),
    "similarity": Task("AutoModel", "MODEL_FOR_MASKED_LM_MAPPING_NAMES", _cosine, make_target=_similarity),
    "CTC": Task("AutoModelForCTC", "MODEL_FOR_CTC_MAPPING_NAMES", _frame, targets.frame(2), modality="audio"),
}
__all__ = ["TASKS", "TEXT_ONLY", "TaskCheck", "TaskJob", "check_task", "task_jobs"]
