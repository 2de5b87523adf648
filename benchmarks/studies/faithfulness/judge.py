"""Judge rankings of any origin, also by metrics that nothing in the package was tuned on.

The package's `attnlrp_iterative` was chosen by comprehensiveness and sufficiency with deleted tokens. Beside these two
there are: both with [MASK] in place of the tokens, the log-odds of the same removal, and soft comprehensiveness and
sufficiency, which erase part of every embedding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import Row, provenance
from benchmarks.studies.faithfulness.data import DataSet, Inputs
from benchmarks.studies.faithfulness.rankings.other_starts import STARTS
from benchmarks.studies.faithfulness.rankings.registry import RANKINGS
from benchmarks.studies.faithfulness.rankings.removal import METHODS as REMOVAL_METHODS
from benchmarks.studies.faithfulness.run import NORMALIZED
from hf_attn_mi import explain
from hf_attn_mi.evaluation import (
    MetricInputs,
    Probabilities,
    aopc,
    aopc_limits,
    comprehensiveness,
    faithfulness_sets,
    normalized_aopc,
    sufficiency,
)

WORDS = {"delete": "deleted", "mask": "[MASK]", "attention_mask": "attention mask"}
BY_REMOVAL = {  # name in tables: (removal, method); the removal of the metric is the first choice of a reader
    f"{name}, {WORDS[removal]}": (removal, method)
    for removal in ("delete", "mask", "attention_mask")
    for name, method in REMOVAL_METHODS.items()
}
PACKAGE = {  # name in tables: (method, options)
    "relevance": ("relevance", {}),
    "attnlrp": ("attnlrp", {}),
    "attnlrp_iterative": ("attnlrp_iterative", {}),
    "attention": ("attention", {}),
    "random": ("random", {}),
    "integrated gradients, [MASK]": ("integrated_gradients", {"baseline": "mask"}),
    "integrated_gradients": ("integrated_gradients", {}),
}
HIGHER = {"log_odds": False, "soft_comprehensiveness": True, "soft_sufficiency": False}  # beside METRICS
DRAWS = 2  # of the erased embeddings, the same ones for every method
BATCH = 32
Columns = dict[str, list[float | None]]  # by metric, one value for each input


class ClassProbability:
    """The probability of one class for versions of one input; each version is run once.

    Args:
        model: the classifier.
        target: the class.
    """

    def __init__(self, model: Any, target: int) -> None:
        self.model, self.target = model, target
        self._known: dict[bytes, float] = {}

    def __call__(self, examples: Sequence[dict[str, Tensor]], /) -> Tensor:
        """(examples,) probabilities."""
        keys = [b"|".join(example[name].numpy().tobytes() for name in sorted(example)) for example in examples]
        missing = {key: example for key, example in zip(keys, examples) if key not in self._known}
        by_length: dict[int, list[bytes]] = {}
        for key, example in missing.items():
            by_length.setdefault(len(example["input_ids"]), []).append(key)
        for group in by_length.values():
            for start in range(0, len(group), BATCH):
                part = group[start : start + BATCH]
                names = missing[part[0]]
                batch = {name: torch.stack([missing[key][name] for key in part]) for name in names}
                self._known.update(zip(part, self.of(**batch).tolist()))
        return torch.tensor([self._known[key] for key in keys], dtype=torch.float64)

    def of(self, **arguments: Tensor) -> Tensor:
        """(batch,) probabilities of a batch without padding."""
        with torch.no_grad():
            return self.model(**arguments).logits.double().softmax(-1)[:, self.target]


def judge(
    dataset: DataSet,
    inputs: Inputs,
    positions: Sequence[int],
    methods: Sequence[str],
    *,
    groups: Mapping[str, str],
) -> list[Row]:
    """Score some inputs by these methods and return a row of the results for each removal.

    Args:
        dataset: the data set.
        inputs: all inputs of it.
        positions: of the inputs that are run.
        methods: names of `RANKINGS`, `STARTS`, `BY_REMOVAL` or `PACKAGE`.
        groups: for each removal of the metrics the kind of run of its row. "mask" adds the metrics that nothing was
            tuned on.
    """
    started = time.process_time()
    seconds = dict.fromkeys(methods, 0.0)
    columns: dict[str, dict[str, Columns]] = {removal: {} for removal in groups}
    tokens = 0
    for position in positions:
        one = Judged(inputs, inputs.texts[position])
        tokens += len(one.ids)
        scores = one.timed_scores(methods, seconds)
        for removal in groups:
            one.predict(list(scores.values()), removal)
            for method in methods:
                values = one.removed(scores[method], removal)
                if removal == "mask":
                    values |= one.softly(scores[method])
                _append(columns[removal].setdefault(method, {}), values)
    row = _row(dataset, positions, tokens, seconds)
    rows = [row | {"group": group, "removal": name, "values": columns[name]} for name, group in groups.items()]
    return [one | {"cpu_seconds": 0.0} for one in rows[:-1]] + [
        rows[-1] | {"cpu_seconds": round(time.process_time() - started, 2)}
    ]


def judge_normalized(
    dataset: DataSet, inputs: Inputs, positions: Sequence[int], methods: Sequence[str], *, group: str, beam: int
) -> list[Row]:
    """Return one row of AOPC between the limits of a beam search, which the orders of the methods can widen.

    `compare` normalizes for inputs of at most 40 tokens. The search costs about beam n^2 predictions.

    Args:
        dataset: the data set.
        inputs: all inputs of it.
        positions: of the inputs that are run.
        methods: names of `RANKINGS`, `STARTS`, `BY_REMOVAL` or `PACKAGE`.
        group: kind of run.
        beam: subsets of each size that the search keeps.
    """
    started = time.process_time()
    seconds = dict.fromkeys(methods, 0.0)
    columns: dict[str, Columns] = {}
    widths, tokens = [], 0
    for position in positions:
        one = Judged(inputs, inputs.texts[position])
        tokens += len(one.ids)
        scores = one.timed_scores(methods, seconds)
        probabilities = one.probabilities("delete")
        areas = {
            method: [aopc(probabilities, values, ascending=ascending) for ascending in (False, True)]
            for method, values in scores.items()
        }
        found = aopc_limits(probabilities, exact=0, beam=beam)
        limits = found and found.widened([area for pair in areas.values() for area in pair])
        if limits:
            widths.append([round(limits.lower, 6), round(limits.upper, 6)])
        for method, pair in areas.items():
            values = {name: normalized_aopc(area, limits) for name, area in zip(NORMALIZED, pair)}
            _append(columns.setdefault(method, {}), values)
    row = _row(dataset, positions, tokens, seconds) | {"group": group, "removal": "delete", "values": columns}
    return [row | {"beam": beam, "limits": widths, "cpu_seconds": round(time.process_time() - started, 2)}]


def _append(columns: Columns, values: Mapping[str, float | None]) -> None:
    for metric, value in values.items():
        columns.setdefault(metric, []).append(None if value is None else round(value, 6))


def _row(dataset: DataSet, positions: Sequence[int], tokens: int, seconds: Mapping[str, float]) -> Row:
    return {
        "kind": "run",
        "set": dataset.name,
        "places": list(positions),
        "judged": list(positions),
        "tokens": tokens / len(positions),
        "costs": {},
        "failures": {},
        "seconds": {method: round(total / len(positions), 4) for method, total in seconds.items()},
        **provenance(),
    }


class Judged:
    """One text and its predicted class: scores of methods, and metrics of scores."""

    def __init__(self, inputs: Inputs, text: str) -> None:
        self.inputs, self.text = inputs, text
        tokenizer = inputs.tokenizer
        self.ids: Tensor = tokenizer(text, return_tensors="pt")["input_ids"][0]
        self.special = torch.tensor(
            tokenizer.get_special_tokens_mask(self.ids.tolist(), already_has_special_tokens=True)
        )
        with torch.no_grad():
            self.target = int(inputs.model(input_ids=self.ids[None]).logits[0].argmax())
        self.probability = ClassProbability(inputs.model, self.target)

    def probabilities(self, removal: str, function: Callable[[Tensor], Tensor] = lambda p: p) -> Probabilities:
        """The probabilities with tokens removed so, or a function of them."""
        example = {"input_ids": self.ids}
        if removal == "attention_mask":
            example["attention_mask"] = torch.ones_like(self.ids)
        mask = self.inputs.tokenizer.mask_token_id if removal == "mask" else None
        return Probabilities(
            lambda examples: function(self.probability(examples)), example, self.special.bool(), removal, mask
        )

    def scores(self, method: str) -> Tensor:
        """(n,) scores of a method."""
        if method in RANKINGS or method in STARTS:
            return (RANKINGS | STARTS)[method](self.inputs.model, self.ids, self.target)
        if method in BY_REMOVAL:
            removal, function = BY_REMOVAL[method]
            scores = torch.zeros(len(self.ids), dtype=torch.float64)
            probabilities = self.probabilities(removal)
            scores[list(probabilities.tokens)] = function(probabilities)
            return scores
        name, options = PACKAGE[method]
        found = explain(
            self.inputs.model,
            self.text,
            target=self.target,
            method=name,
            options=options,
            layers="none",
            tokenizer=self.inputs.tokenizer,
        )
        return found.scores

    def timed_scores(self, methods: Sequence[str], seconds: dict[str, float]) -> dict[str, Tensor]:
        """The scores of methods; adds the processor seconds of each to `seconds`."""
        scores: dict[str, Tensor] = {}
        for method in methods:
            begun = time.process_time()
            scores[method] = self.scores(method)
            seconds[method] += time.process_time() - begun
        return scores

    def predict(self, all_scores: Sequence[Tensor], removal: str) -> None:
        """Predict what the metrics need for all methods at once: large batches, since the bins have the same sizes."""
        probabilities = self.probabilities(removal)
        inputs = [MetricInputs(probabilities, scores) for scores in all_scores]
        sets = [tokens for one in inputs for tokens in faithfulness_sets(one, ("comprehensiveness", "sufficiency"))]
        probabilities.removed(sets)

    def removed(self, scores: Tensor, removal: str) -> dict[str, float | None]:
        """Comprehensiveness and sufficiency; with [MASK] also the log-odds, for which lower is better."""
        probabilities = self.probabilities(removal)
        values: dict[str, float | None] = {
            "comprehensiveness": comprehensiveness(probabilities, scores).mean,
            "sufficiency": sufficiency(probabilities, scores).mean,
        }
        if removal == "mask":
            fall = comprehensiveness(self.probabilities(removal, torch.log), scores).mean
            values["log_odds"] = None if fall is None else -fall
        return values

    def softly(self, scores: Tensor) -> dict[str, float | None]:
        """Soft comprehensiveness and sufficiency (Zhao and Aletras, ACL 2023, arXiv 2305.10496).

        Each entry of the embedding of a token is kept with probability 1 - a (comprehensiveness; higher is better) or a
        (sufficiency: the fall that is left; lower is better), a the score between 0 and 1: scores less the
        smallest, divided by their range over the tokens that may be removed. Special tokens stay. The mean over
        `DRAWS` draws of max(0, p(x) - p(x')); the paper also divides by a number that is the same for all methods.
        """
        ordinary = ~self.special.bool()
        chosen = scores[ordinary].double()
        span = float(chosen.max() - chosen.min()) if len(chosen) else 0.0
        if span == 0:
            return {"soft_comprehensiveness": None, "soft_sufficiency": None}
        share = torch.ones(len(self.ids), 1)
        share[ordinary, 0] = ((chosen - chosen.min()) / span).float()
        words = self.inputs.model.get_input_embeddings()(self.ids).detach()
        uniform = torch.rand(DRAWS, *words.shape, generator=torch.Generator().manual_seed(0))
        always = self.special.bool()[:, None]
        erased = [words * ((uniform < kept) | always) for kept in (1 - share, share)]
        falls = self.probability.of(input_ids=self.ids[None]) - self.probability.of(inputs_embeds=torch.cat(erased))
        comp, suff = falls.clamp_min(0).view(2, DRAWS).mean(1).tolist()
        return {"soft_comprehensiveness": comp, "soft_sufficiency": suff}


def higher_is_better(metric: str, known: Mapping[str, Any]) -> bool:
    """The direction of a metric of the package (`known`) or of this file."""
    return HIGHER[metric] if metric in HIGHER else bool(known[metric].higher)
