"""Is efficient attention the same prediction, a distribution, computable, and minimally necessary and sufficient?

The four claims of arXiv 2410.18541, as this package reads them (docs/methods/certificates.md), on several data sets and
models: efficient rows take the place of attention in every layer and head, controls take it too, and for the whole
model minimal token sets are searched with several rankings. Four parts, a line of JSON for each input:

    certificates   every input: `certify` with its controls; accuracy under uniform and permuted attention
    details        a random part: effective forms, distances between rows, tolerance curve, identifiable weights
    tokens         `minimal_tokens` with several rankings and their cost, and `recheck`
    speed          CPU time of certify, explain and a forward

    S=benchmarks/studies/causal
    python $S/models.py --data DATA --encoder ENCODER --tokenizer MODELS/minilm-sentiment --output MORE
    python $S/run.py --data DATA --models MODELS MORE --output RESULTS          # start or continue
    python $S/run.py --output RESULTS --collect                                 # store the rows
    python $S/run.py --report docs/studies                                      # the page, from the stored rows
    python $S/run.py --quick                                                    # embedded model

`--share 0/2` and `--share 1/2` divide a run between two processes. report.py makes the page.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # `benchmarks` is imported as a package

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.common import EMBEDDED_MODEL, append_row, provenance, read_rows
from benchmarks.studies.causal.models import read_split
from benchmarks.studies.causal.report import RESULTS, SPEED_INPUTS, collect, write_report
from hf_attn_mi import capture_attention, effective_attention, efficient_attention, explain
from hf_attn_mi.attention import identifiable_weights, tolerance_curve
from hf_attn_mi.capture import AttentionCall
from hf_attn_mi.results.certificate import Certificate
from hf_attn_mi.tasks.certify import certify
from hf_attn_mi.tasks.minimal_tokens import minimal_tokens
from hf_attn_mi.tasks.recheck import recheck

TOLERANCES = (0.01, 0.05, 0.1)
WIDTHS = (0.01, 0.05)  # largest widths of an interval that counts as identifiable
SAMPLED_ROWS, RANDOM_KEYS, TOP_KEYS = 6, 4, 2  # of each input: two linear programs for each key
CURVE_ROWS = 24  # rows of each layer, for the tolerance curve
RANKINGS = ("relevance", "random", "attention", "integrated_gradients", "feature_ablation")
BUDGET = 200.0


@dataclass(frozen=True)
class Suite:
    """A model and its inputs.

    Attributes:
        name: the name of the suite.
        model: folder, or "embedded_model".
        dataset: name of the data set.
        inputs: most inputs, in random order.
        longest: most tokens of an input.
        details: inputs of the part "details".
        tokens: inputs of minimal token sets with the ranking "relevance".
        others: the same with each other ranking.
        speed: inputs of the part "speed".
    """

    name: str
    model: str
    dataset: str
    inputs: int
    longest: int = 256
    details: int = 30
    tokens: int = 0
    others: int = 0
    speed: int = SPEED_INPUTS


SUITES = [
    Suite("SST-2", "minilm-sentiment", "sst2", 872, tokens=100, others=50),
    Suite("AG News", "minilm-agnews", "agnews", 900, tokens=100, others=30),
    Suite("IMDB", "minilm-sentiment", "imdb", 100, details=12, tokens=100, others=32),
    Suite("SNLI", "minilm-snli", "snli", 500),
    Suite("SST-2, embedded model", "embedded_model", "sst2", 200),
    Suite("AG News, ModernBERT", "modernbert-agnews", "agnews", 200),
    Suite("SST-2, DeBERTa", "deberta-sst2", "sst2", 200),
    Suite("MRPC", "minilm-mrpc", "mrpc", 408),
    Suite("CoLA", "minilm-cola", "cola", 526),
]
QUICK = [
    Suite("short texts", "embedded_model", "short", 8, details=2, tokens=4, others=2, speed=2),
    Suite("long texts", "embedded_model", "long", 8, details=2, tokens=4, others=2, speed=2),
]


@dataclass(frozen=True, eq=False)
class LoadedSuite:
    """The model of a suite, its tokenizer and its inputs with labels."""

    model: Any
    tokenizer: Any
    rows: list[tuple[Any, int]]


def built_in_rows(name: str) -> list[tuple[str, int]]:
    """Return made-up reviews: one sentence, or five."""
    good, bad = ["moving", "funny", "brilliant", "warm"], ["dull", "boring", "awful", "bland"]
    things = ["film", "story", "cast", "end"]
    rows = []
    for number in range(16):
        words, label = ((bad, 0), (good, 1))[number % 2]
        pairs = [(things[(number + i) % 4], words[(number // 2 + i) % 4]) for i in range(5 if name == "long" else 1)]
        text = " ".join(f"the {thing} was {word} and it went on for a while ." for thing, word in pairs)
        rows.append((text, label))
    return rows


def model_path(name: str, folders: list[Path]) -> Path | None:
    """Return the folder of a model, None where there is none."""
    if name == "embedded_model":
        return EMBEDDED_MODEL
    return next((folder / name for folder in folders if (folder / name / "config.json").exists()), None)


def load(suite: Suite, options: argparse.Namespace) -> LoadedSuite:
    """Return model, tokenizer and the inputs of a suite, in a random order that is always the same."""
    path = model_path(suite.model, options.models)
    assert path is not None
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    rows = built_in_rows(suite.dataset) if options.quick else read_split(options.data, suite.dataset)[1]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    chosen: list[tuple[Any, int]] = []
    for i in order:
        texts = rows[i][0] if isinstance(rows[i][0], tuple) else (rows[i][0],)
        if len(tokenizer(*texts, verbose=False)["input_ids"]) <= suite.longest:
            chosen.append(rows[i])
        if len(chosen) == min(suite.inputs, options.limit or suite.inputs):
            break
    return LoadedSuite(model, tokenizer, chosen)


def tensors_of(loaded: LoadedSuite, text: Any) -> dict[str, Tensor]:
    """Return the tensors of one input for the model."""
    tensors = dict(loaded.tokenizer(*(text if isinstance(text, tuple) else (text,)), return_tensors="pt"))
    if "token_type_ids" in tensors and getattr(loaded.model.config, "type_vocab_size", 0) < 2:
        del tensors["token_type_ids"]
    return tensors


@torch.no_grad()
def predict(loaded: LoadedSuite, text: Any, rows: Callable[[AttentionCall], Tensor] | None = None) -> int:
    """Return the predicted class, with other rows in the place of attention where given."""
    with capture_attention(loaded.model, lambda call: None, replace=rows):
        return int(loaded.model(**tensors_of(loaded, text)).logits[0].argmax())


def uniform(call: AttentionCall) -> Tensor:
    """Return equal weight on every allowed key."""
    rows = call.attention()
    allowed = call.allowed().expand(rows.shape).to(rows.dtype)
    return allowed / allowed.sum(-1, keepdim=True).clamp_min(1)


def permuted(call: AttentionCall) -> Tensor:
    """Return each row's weights on its allowed keys in a random order; the same order for the same shape."""
    rows = call.attention()
    generator = torch.Generator().manual_seed(call.index)
    allowed = call.allowed().expand(rows.shape)
    order = torch.rand(rows.shape, generator=generator).masked_fill(~allowed, 2.0).argsort(-1)
    keys = (~allowed).to(torch.uint8).argsort(dim=-1, stable=True)  # both: allowed keys first
    return torch.zeros_like(rows).scatter(-1, keys, rows.gather(-1, order))


def summary(certificate: Certificate) -> dict[str, Any]:
    """Return the numbers of a certificate that the page reads."""
    layers = certificate.layers
    rows = sum(layer.rows for layer in layers)
    return {
        "holds": certificate.holds,
        "reasons": list(certificate.reasons),
        "kept": certificate.change.kept,
        "relative": certificate.change.relative,
        "largest": certificate.change.largest,
        "probability": certificate.change.probability,
        "rows": rows,
        "changed": sum(layer.changed for layer in layers),
        "unproved": sum(layer.unproved for layer in layers),
        "support": sum(layer.support_mean * layer.rows for layer in layers) / rows,
        "support_max": max(layer.support_max for layer in layers),
        "dropped": sum(layer.dropped * layer.rows for layer in layers) / rows,
        "residual": max(layer.residual for layer in layers),
        "sum_error": max(layer.sum_error for layer in layers),
        "smallest_weight": min(layer.smallest_weight for layer in layers),
        "relative_change": sum(layer.relative_change * layer.rows for layer in layers) / rows,
        "checked": certificate.checked,
        "checked_keys": certificate.checked_keys,
        "necessity": certificate.necessity,
        "necessity_median": certificate.necessity_median,
        "firm": not any(note.startswith("Not firm") for note in certificate.notes),
        "controls": {
            name: None if one is None else [one.relative, one.kept, one.probability]
            for name, one in certificate.controls.items()
        },
    }


def certificate_line(loaded: LoadedSuite, text: Any, label: int, seed: int) -> dict[str, Any]:
    """Return the row of one input in the part certificates."""
    certificate = certify(loaded.model, text, tokenizer=loaded.tokenizer, seed=seed)
    return {
        "tokens": certificate.tokens,
        "label": label,
        "predicted": certificate.target,
        "uniform": predict(loaded, text, uniform),
        "permuted": predict(loaded, text, permuted),
        **summary(certificate),
    }


def divergence(first: Tensor, second: Tensor) -> float:
    """Return the Jensen-Shannon divergence of rows (..., keys) in nats, mean over rows."""
    middle = (first + second) / 2
    parts = [torch.special.xlogy(p, p) - torch.special.xlogy(p, middle) for p in (first, second)]
    return float((parts[0] + parts[1]).sum(-1).mean() / 2)


def compare_rows(call: AttentionCall, generator: torch.Generator) -> dict[str, Any]:
    """Return distances between the rows of one call, and how many keys some of them need."""
    attention, values = call.attention()[0], call.values_per_head()[0]
    mask = call.allowed().expand(call.output.shape[:3] + values.shape[1:2])[0]
    forms = {
        "efficient": efficient_attention(attention, values, mask).attention,
        "effective": effective_attention(attention, values, mask).attention,
        "effective_affine": effective_attention(attention, values, mask, affine=True).attention,
    }
    row: dict[str, Any] = {"support": float((forms["efficient"] > 0).sum(-1).double().mean()), "layer": call.layer}
    sample = torch.randperm(attention.shape[:2].numel(), generator=generator)[:CURVE_ROWS]
    head, query = sample // attention.shape[1], sample % attention.shape[1]
    curve = tolerance_curve(
        attention[head, query][:, None], values[head], mask[head, query][:, None], tolerances=(0.0, *TOLERANCES)
    )
    row["curve"] = [float(mean.mean()) for mean in curve.mean]
    for name, rows in forms.items():
        share = rows.double().abs()
        share = share / share.sum(-1, keepdim=True)  # effective rows have negative weights: compare absolute ones
        change = (rows.double() - attention.double()).abs().sum(-1)
        row[name] = {
            "js": divergence(attention.double(), share),
            "tv": float(change.mean() / 2),
            "negative": float(-rows.double().clamp_max(0).sum(-1).mean()),
        }
    return row


def intervals(calls: list[AttentionCall], generator: torch.Generator) -> dict[str, list[Any]]:
    """Return (width, forced, weight) of sampled weights: random keys, and the largest weights of the same rows."""
    weights: dict[str, list[Any]] = {"random": [], "top": []}
    for _ in range(SAMPLED_ROWS):
        call = calls[int(torch.randint(len(calls), (), generator=generator))]
        head = int(torch.randint(call.heads, (), generator=generator))
        query = int(torch.randint(call.output.shape[2], (), generator=generator))
        row, values = call.attention()[0, head, query], call.values_per_head()[0, head]
        mask = call.allowed().expand(call.output.shape[:3] + values.shape[:1])[0, head, query]
        allowed = mask.nonzero()[:, 0]
        random_keys = allowed[torch.randperm(len(allowed), generator=generator)[:RANDOM_KEYS]].tolist()
        top = row.topk(min(TOP_KEYS, len(allowed))).indices.tolist()
        result = identifiable_weights(row[None], values, [*random_keys, *top], mask, width=0.0)
        widths, forced = (result.upper - result.lower)[0].tolist(), result.forced[0].tolist()
        rows = list(zip(widths, forced, result.attention[0].tolist()))
        weights["random"] += rows[: len(random_keys)]
        weights["top"] += rows[len(random_keys) :]
    return weights


def details_line(loaded: LoadedSuite, text: Any, label: int, seed: int) -> dict[str, Any]:
    """Return the row of one input in the part details."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad(), capture_attention(loaded.model) as capture:
        loaded.model(**tensors_of(loaded, text))
    forms = {
        form: summary(certify(loaded.model, text, tokenizer=loaded.tokenizer, form=form, seed=seed))
        for form in ("effective", "effective_affine")
    }
    return {
        "tokens": capture.calls[0].output.shape[2],
        "forms": forms,
        "layers": [compare_rows(call, generator) for call in capture.calls],
        "intervals": intervals(capture.calls, generator),
    }


def cpu(work: Callable[[], Any], times: int = 1) -> float:
    """Return the median CPU seconds of a call."""
    seconds = []
    for _ in range(times):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def ranking_passes(ranking: str, tokens: int) -> float:
    """Return the cost of ranking this many tokens in forward passes, a backward counted as two."""
    return {
        "random": 0,
        "attention": 1,
        "relevance": 3,
        "integrated_gradients": 50 * 3,
        "feature_ablation": tokens + 1,
    }[ranking]


def token_line(loaded: LoadedSuite, text: Any, ranking: str, seed: int) -> dict[str, Any]:
    """Return the row of one input and one ranking in the part tokens; costs are CPU time over that of a forward."""
    tensors = tensors_of(loaded, text)
    scores: list[Tensor] = []

    def rank() -> None:
        count = tensors["input_ids"].shape[1]
        if ranking == "random":
            scores.append(torch.rand(count, generator=torch.Generator().manual_seed(seed)))
        else:
            scores.append(explain(loaded.model, text, tokenizer=loaded.tokenizer, method=ranking).scores)

    with torch.no_grad():
        forward = cpu(lambda: loaded.model(**tensors), 5)
    ranking_seconds, started = cpu(rank), time.process_time()
    result = minimal_tokens(
        loaded.model,
        text,
        tokenizer=loaded.tokenizer,
        ranking=scores[0],
        second_ranking=None,
        budget=BUDGET,
        seed=seed,
    )
    search_seconds = time.process_time() - started
    check = recheck(loaded.model, result, tokenizer=loaded.tokenizer)
    return {
        "ranking": ranking,
        "tokens": len(result.tokens),
        "defined": result.defined,
        "minimal": result.minimal,
        "size": len(result.indices),
        "indices": list(result.indices),
        "forwards": result.forwards,
        "sequences": result.sequences,
        "p_all": result.p_all,
        "p_set": result.p_set,
        "p_rest": result.p_rest,
        "p_special": result.p_special,
        "compacted": result.info["token_dropping"],
        "ranking_cost": ranking_seconds / forward,
        "search_cost": search_seconds / forward,
        "passes": ranking_passes(ranking, sum(not special for special in result.special)),
        "true": check.holds,
        "difference": check.difference,
        "reasons": list(check.reasons),
    }


def speed_line(loaded: LoadedSuite, text: Any, label: int, seed: int) -> dict[str, Any]:
    """Return the CPU seconds of one input, the row of the part speed."""
    tensors, tokenizer = tensors_of(loaded, text), loaded.tokenizer

    def explained(method: str) -> float:
        return cpu(lambda: explain(loaded.model, text, tokenizer=tokenizer, method=method), 2)

    with torch.no_grad():
        forward = cpu(lambda: loaded.model(**tensors), 3)
    shapes = []
    with torch.no_grad(), capture_attention(loaded.model, lambda call: shapes.append(call.output.shape[:3].numel())):
        loaded.model(**tensors)
    return {
        "tokens": tensors["input_ids"].shape[1],
        "rows": sum(shapes),
        "forward": forward,
        "certify": cpu(lambda: certify(loaded.model, text, tokenizer=tokenizer), 2),
        "efficient": explained("efficient"),
        "attention": explained("attention"),
    }


PARTS: dict[str, Callable[[LoadedSuite, Any, int, int], dict[str, Any]]] = {
    "certificates": certificate_line,
    "tokens": lambda *_: {},
    "details": details_line,
    "speed": speed_line,
}


def plan(part: str, suite: Suite, limit: int | None) -> Iterator[tuple[int, str]]:
    """Yield (number of the input, ranking) of a part; the ranking is "" outside of the part tokens."""
    most = limit or suite.inputs
    if part != "tokens":
        count = {"certificates": suite.inputs, "details": suite.details, "speed": suite.speed}[part]
        yield from ((i, "") for i in range(min(count, most, suite.inputs)))
        return
    for ranking in RANKINGS:
        count = suite.tokens if ranking == RANKINGS[0] else suite.others
        yield from ((i, ranking) for i in range(min(count, most)))


def run_part(part: str, suites: list[Suite], options: argparse.Namespace, deadline: float) -> None:
    """Compute the rows that are missing, one for each input."""
    path = options.output / f"{part}.jsonl"
    done = {(line["suite"], line["index"], line.get("ranking", "")) for line in read_rows(path)}
    share, shares = map(int, options.share.split("/"))
    for suite in suites:
        todo = [
            (i, ranking)
            for i, ranking in plan(part, suite, options.limit)
            if (suite.name, i, ranking) not in done and i % shares == share
        ]
        if not todo or time.perf_counter() > deadline:
            continue
        loaded, started, count = load(suite, options), time.process_time(), 0
        certify(loaded.model, loaded.rows[0][0], tokenizer=loaded.tokenizer)  # compiles the kernels
        for i, ranking in todo:
            if i >= len(loaded.rows) or time.perf_counter() > deadline:
                continue
            text, label = loaded.rows[i]
            began = time.process_time()
            row = token_line(loaded, text, ranking, i) if part == "tokens" else PARTS[part](loaded, text, label, i)
            row |= {"suite": suite.name, "index": i, "seconds": time.process_time() - began}
            append_row(row, path)
            count += 1
        print(f"{part}: {suite.name}: {count} in {time.process_time() - started:.0f} CPU seconds", flush=True)


def run(options: argparse.Namespace) -> None:
    """Compute, or write the page."""
    if options.quick or not (options.report or options.collect):
        suites, left_out = [], []
        for suite in QUICK if options.quick else SUITES:
            if options.suites and suite.name not in options.suites:
                continue
            if model_path(suite.model, options.models) is None:
                print(f"{suite.name} is left out: no {suite.model} in --models; models.py in this folder trains it")
                left_out.append(suite.name)
                continue
            suites.append(suite)
        options.output.mkdir(parents=True, exist_ok=True)
        facts = {suite.name: model_facts(suite, options) for suite in suites}
        planned = {suite.name: suite.inputs for suite in (QUICK if options.quick else SUITES)}
        row = {"suites": facts, "left_out": left_out, "planned": planned, **provenance()}
        append_row(row, options.output / "runs.jsonl")
        deadline = time.perf_counter() + 60 * options.minutes
        for part in options.parts:
            run_part(part, suites, options, deadline)
    if options.collect:
        print(collect(options.output, RESULTS))
    if options.report is not None or options.quick:
        folder = options.report if options.report is not None else options.output
        folder.mkdir(parents=True, exist_ok=True)
        print(write_report(options.output if options.output is not None else RESULTS, folder))


def model_facts(suite: Suite, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the page says of a suite's model."""
    path = model_path(suite.model, options.models)
    assert path is not None
    config = json.loads((path / "config.json").read_text())
    facts = path / "facts.json"
    layers = config.get("num_hidden_layers", 0)
    shape = f"{layers} layers, {config.get('num_attention_heads')} heads"
    width = config.get("hidden_size", 0) // max(1, config.get("num_attention_heads", 1))
    return {
        **asdict(suite),
        "type": config.get("model_type", ""),
        "shape": f"{shape} of {width}",
        "head_dim": width,
        "trained": json.loads(facts.read_text()) if facts.exists() else None,
    }


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="folders that hold the models by name")
    parser.add_argument("--output", type=Path, help="folder of the run; needed to run and to collect")
    parser.add_argument("--collect", action="store_true", help="only store the rows of the run, packed")
    parser.add_argument(
        "--report", type=Path, help="only write the page and its figures into this folder (default: of the stored rows)"
    )
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--suites", nargs="*", help="run only these suites")
    parser.add_argument("--limit", type=int, help="most inputs of a suite")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no input after so many minutes")
    parser.add_argument("--share", default="0/1", help="0/2 and 1/2 divide the run between two processes")
    parser.add_argument("--quick", action="store_true", help="the embedded model on built-in texts")
    options = parser.parse_args()
    if options.output is None and not options.quick and (options.collect or options.report is None):
        parser.error("--output is needed")
    if options.data is None and not (options.quick or options.collect or options.report):
        parser.error("--data is needed")
    return options


def main() -> None:
    """Run the study."""
    options = parse()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if options.quick and options.output is None:
        with tempfile.TemporaryDirectory() as folder:
            options.output = Path(folder)
            run(options)
    else:
        run(options)


if __name__ == "__main__":
    main()
