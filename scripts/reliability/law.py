"""What is explained is what the model says: random models, texts, input forms and wrappers.

python -m scripts.reliability.law --count 2000 --seed 0

For each case the target and the probability of every explanation are compared with those of the caller's own call of
the model (or pipeline), to 1e-5. Then the same inputs are explained in another order and with another batch size, and
each row alone: no score may change. The state of the model is compared with the state before. tests/test_law.py draws
the same cases with hypothesis.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    pipeline,
)

from hf_attn_mi import HfAttnMiError, explain
from scripts.reliability.common import SIZES, _built, arguments, report, tokenizer, try_cases

WORDS = ("a", "film", "warm", "dull", "not", "very", "funny", "unforgettable", "plot", "cast", "!", "Café", "日本", "x")
PROBABILITY, SCORES = 1e-5, 2e-4  # absolute; relative to the largest score
MODELS = ("bert", "three classes", "multi-label", "regression", "distilbert", "roberta", "gpt2", "llama")
FORMS = (
    "text",
    "list of texts",
    "pair",
    "list of pairs",
    "padded on the right",
    "padded on the left",
    "mask with holes",
    "BatchEncoding",
    "labels",
    "extra keys",
    "one row",
)
WRAPPERS = ("bare", "module", "DataParallel", "compiled", "pipeline", "PEFT", "accelerate", "offloaded")
METHODS = ("relevance", "attention", "attnlrp", "input_x_gradient")
Choose = Callable[[Sequence[Any]], Any]


class Around(nn.Module):
    """A module of the caller around a model: it returns a plain tensor of logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        kwargs = {key: value for key, value in kwargs.items() if key == "token_type_ids"}
        logits: Tensor = self.model(input_ids, attention_mask=attention_mask, **kwargs).logits
        return logits


@cache
def bare(name: str) -> Any:
    """A random classifier of two layers."""
    sizes = {**SIZES, "num_attention_heads": 4, "max_position_embeddings": 64}
    builders: dict[str, Callable[[], Any]] = {
        "bert": lambda: BertForSequenceClassification(BertConfig(**sizes)),
        "three classes": lambda: BertForSequenceClassification(BertConfig(**sizes, num_labels=3)),
        "multi-label": lambda: BertForSequenceClassification(
            BertConfig(**sizes, num_labels=3, problem_type="multi_label_classification")
        ),
        "regression": lambda: BertForSequenceClassification(
            BertConfig(**sizes, num_labels=1, problem_type="regression")
        ),
        "distilbert": lambda: DistilBertForSequenceClassification(
            DistilBertConfig(vocab_size=8000, dim=32, hidden_dim=48, n_layers=2, n_heads=4)
        ),
        "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**sizes, pad_token_id=0)),
        "gpt2": lambda: GPT2ForSequenceClassification(
            GPT2Config(
                vocab_size=8000,
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=64,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=1,
            )
        ),
        "llama": lambda: LlamaForSequenceClassification(LlamaConfig(**sizes, num_key_value_heads=2)),
    }
    return _built(builders[name])


@cache
def wrapped(name: str, wrapper: str) -> Any:
    """A copy of the model in a wrapper."""
    model = copy.deepcopy(bare(name))
    if wrapper == "module":
        return Around(model).eval()
    if wrapper == "DataParallel":
        return nn.DataParallel(model)
    if wrapper == "compiled":
        return torch.compile(model, backend="eager")
    if wrapper == "pipeline":
        return pipeline("text-classification", model=model, tokenizer=tokenizer())
    if wrapper == "accelerate":
        from accelerate import Accelerator

        return Accelerator(cpu=True).prepare(model)
    if wrapper == "offloaded":
        from accelerate import cpu_offload

        return cpu_offload(model, execution_device=torch.device("cpu"))
    if wrapper == "PEFT":
        from peft import LoraConfig, get_peft_model

        layers = {"distilbert": ["q_lin"], "gpt2": ["c_attn"], "llama": ["q_proj"]}.get(name, ["query"])
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules=layers))
            for key, parameter in adapted.named_parameters():
                if "lora_B" in key:
                    nn.init.normal_(parameter, std=0.1)
        return adapted.eval()
    return model


@dataclass(frozen=True)
class Case:
    """One case: what is explained, how it is passed, and by what.

    Attributes:
        model, form, wrapper, method: names, see the constants of this module.
        texts: the texts of the inputs; pairs for the forms of pairs.
        batch_size: the batch size of the call.
        training: whether the model is in training mode when it is explained.
    """

    model: str
    form: str
    wrapper: str
    method: str
    texts: tuple[Any, ...]
    batch_size: int
    training: bool


def draw(choose: Choose) -> Case:
    """A case, from a function that chooses one of some values."""
    form = choose(FORMS)
    texts = tuple(" ".join(choose(WORDS) for _ in range(choose(range(1, 8)))) for _ in range(choose((1, 2, 3))))
    if "pair" in form:
        texts = tuple((text, choose(WORDS)) for text in texts)
    texts = texts[:1] if form in ("text", "pair", "one row") else texts
    wrapper = choose(WRAPPERS)
    if wrapper == "pipeline":
        form = {"one row": "text", "list of pairs": "pair"}.get(form, form)
        form, texts = ("pair", texts[:1]) if form == "pair" else ("list of texts" if len(texts) > 1 else "text", texts)
        if form != "pair":
            texts = tuple(text if isinstance(text, str) else text[0] for text in texts)
    return Case(choose(MODELS), form, wrapper, choose(METHODS), texts, choose((1, 2, 16)), choose((False, False, True)))


def check(case: Case) -> None:
    """Check one case; an AssertionError says what differs."""
    model = wrapped(case.model, case.wrapper)
    module = model.model if case.wrapper == "pipeline" else model
    inputs = _inputs(case)
    expected = _answers(case, model, module, inputs)
    module.train(case.training)
    before = _state(module)
    options = {"method": case.method, "tokenizer": tokenizer(), "layers": "none"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = explain(model, inputs, batch_size=case.batch_size, **options)
            found = [found] if hasattr(found, "scores") else list(found)
            alone = [explain(model, _row(inputs, i, len(found)), batch_size=1, **options) for i in range(len(found))]
            turned = [explain(model, inputs[::-1], batch_size=2, **options)] if isinstance(inputs, list) else []
    except HfAttnMiError as error:
        raise AssertionError(f"refused what the model answers: {error}") from error
    finally:
        after = _state(module)
        module.eval()
    assert before == after, f"the state of the model changed: {[k for k in before if before[k] != after[k]]}"
    assert len(found) == len(expected), "another number of explanations than of inputs"
    for one, (target, probability) in zip(found, expected, strict=True):
        assert one.target == target, f"target {one.target}, the model says {target}"
        assert (one.probability is None) == (probability is None), f"probability {one.probability}: {probability}"
        if probability is not None:
            assert abs(one.probability - probability) <= PROBABILITY, f"{one.probability}: {probability}"
    _same_scores(found, alone, "alone")
    for other in turned:
        _same_scores(found, list(other)[::-1], "in another order and batch size")


def _same_scores(found: Sequence[Any], others: Sequence[Any], what: str) -> None:
    for one, other in zip(found, others, strict=True):
        assert one.tokens == other.tokens, f"other tokens {what}"
        largest = max(float(other.scores.abs().max()), 1e-6)
        difference = float((one.scores - other.scores).abs().max()) / largest
        assert difference <= SCORES, f"scores differ by {difference:.2g} of the largest {what}"


def _inputs(case: Case) -> Any:
    """The inputs in their form."""
    texts = list(case.texts)
    if case.form in ("text", "pair"):
        return texts[0]
    if case.form in ("list of texts", "list of pairs"):
        return texts
    side = "left" if case.form == "padded on the left" else "right"
    keep = {"return_token_type_ids": "token_type_ids" in _arguments(case.model)}
    if case.form == "extra keys":
        keep |= {"return_special_tokens_mask": True, "return_offsets_mapping": True}
    encoded = tokenizer()(texts, padding=True, padding_side=side, return_tensors="pt", **keep)
    if case.form == "BatchEncoding":
        return encoded
    inputs = dict(encoded)
    if case.form == "mask with holes" and inputs["input_ids"].shape[1] > 3:
        inputs["attention_mask"][:, 2] = 0
    if case.form == "labels":
        inputs["labels"] = torch.zeros(len(texts), dtype=torch.long)
    return inputs


def _row(inputs: Any, i: int, count: int) -> Any:
    """Input `i` alone, in the same form."""
    if isinstance(inputs, list):
        return inputs[i]
    if count == 1 or not hasattr(inputs, "items"):
        return inputs
    return {key: value[i : i + 1] for key, value in inputs.items()}


def _answers(case: Case, model: Any, module: nn.Module, inputs: Any) -> list[tuple[int, float | None]]:
    """Target and probability by the caller's own call."""
    module.eval()
    if case.wrapper == "pipeline":
        given = {"text": inputs[0], "text_pair": inputs[1]} if isinstance(inputs, tuple) else inputs
        answers = model(given)
        answers = answers if isinstance(answers, list) else [answers]
        names = module.config.label2id
        applies = case.model != "regression"
        return [(names[one["label"]], float(one["score"]) if applies else None) for one in answers]
    if hasattr(inputs, "items"):
        taken = {k: v for k, v in inputs.items() if k in _arguments(case.model)}
        rows = [taken]
        if case.model == "llama":  # it names no padding token and takes one row in a pass
            rows = [_row(taken, i, len(case.texts)) for i in range(len(case.texts))]
        with torch.no_grad():
            return [answer for row in rows for answer in _read(case.model, module(**row))]
    answers = []
    for one in inputs if isinstance(inputs, list) else [inputs]:
        parts = one if isinstance(one, tuple) else (one,)
        encoded = {k: v for k, v in tokenizer()(*parts, return_tensors="pt").items() if k in _arguments(case.model)}
        with torch.no_grad():
            answers += _read(case.model, module(**encoded))
    return answers


def _arguments(name: str) -> set[str]:
    return {"input_ids", "attention_mask"} | ({"token_type_ids"} if name not in ("distilbert", "llama") else set())


def _read(name: str, outputs: Any) -> list[tuple[int, float | None]]:
    logits = (outputs if isinstance(outputs, Tensor) else outputs.logits).double()
    targets = logits.argmax(1).tolist()
    if name == "regression":
        return [(target, None) for target in targets]
    values = logits.sigmoid() if name == "multi-label" else logits.softmax(1)
    return [(target, float(row[target])) for target, row in zip(targets, values)]


def _state(model: nn.Module) -> dict[str, Any]:
    """What a call must leave alone."""
    return {
        "training": [module.training for module in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "config": str(getattr(model, "config", None)),
        "weights": [(p.requires_grad, p.grad is None, p._version) for p in model.parameters()],
        "modes": (torch.is_grad_enabled(), torch._C._len_torch_function_stack()),
    }


def run(count: int, seed: int) -> dict[str, Any]:
    """Try `count` random cases."""
    cases, figures = try_cases(count, seed, draw, check)
    return {
        "models": list(MODELS),
        "input_forms": list(FORMS),
        "wrappers": list(WRAPPERS),
        "methods": list(METHODS),
        "combinations": len({(case.model, case.form, case.wrapper) for case in cases}),
        **figures,
    }


def main() -> int:
    """Run, print and perhaps keep the result; exit status 1 where the law was violated."""
    options = arguments(__doc__ or "", 2000).parse_args()
    result = run(options.count, options.seed)
    outcomes = result["outcomes"]
    sentence = (
        f"{result['count']} cases, {result['combinations']} combinations of {len(MODELS)} models x {len(FORMS)} input "
        f"forms x {len(WRAPPERS)} wrappers tried: {outcomes.get('equal', 0)} equal, violations: "
        f"{outcomes.get('violated', 0)}."
    )
    report("law", result, sentence, write=options.write)
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
