"""The calls that the golden numbers come from: the only file here that knows the package's API.

Each
`run_*` returns plain dictionaries {name: number, string, None, list or numpy array}, one for each input.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from hf_attn_mi import (
    Results,
    attention_interval,
    attention_maps,
    certify,
    compare,
    effective_attention,
    efficient_attention,
    explain,
    minimal_tokens,
    mutual_information,
    recheck,
    rollout,
)
from hf_attn_mi import fit_information as fit

Record = dict[str, Any]
MODELS = Path(__file__).parent / "models"


@cache
def load(name: str) -> tuple[Any, Any]:
    """The stored model of this name in evaluation mode, and its tokenizer (None for the tiny models)."""
    kind = AutoModelForImageClassification if name == "vit" else AutoModelForSequenceClassification
    model = kind.from_pretrained(MODELS / name, local_files_only=True).eval()
    has_tokenizer = (MODELS / name / "tokenizer.json").exists()
    return model, AutoTokenizer.from_pretrained(MODELS / name, local_files_only=True) if has_tokenizer else None


@cache
def words() -> Any:
    """A tokenizer for the tiny models: 0 [PAD], 1 [CLS], 2 [SEP], 3 [UNK], 4 [MASK], and words w5 to w99."""
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *(f"w{number}" for number in range(5, 100))]
    inner = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    inner.pre_tokenizer = WhitespaceSplit()
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )


def run_explain(
    name: str,
    inputs: Any,
    method: str,
    *,
    options: dict[str, Any] | None = None,
    target: Any = None,
    batch_size: int = 16,
    profile: Any = None,
    layers: bool = False,
) -> list[Record]:
    """Scores and probabilities; with `layers` the statistics of each layer, with `profile` the information."""
    model, tokenizer = load(name)
    if tokenizer is None and not isinstance(inputs, dict):
        tokenizer = words()
    found = explain(
        model,
        inputs,
        tokenizer=tokenizer,
        method=method,
        options=options,
        target=target,
        batch_size=batch_size,
        profile=profile,
    )
    return [_explanation(one, layers) for one in _each(found)]


def run_maps(name: str, inputs: Any, *, kind: str, layers: list[int] | None, heads: list[int] | None) -> list[Record]:
    """Attention matrices."""
    model, tokenizer = load(name)
    found = attention_maps(model, inputs, tokenizer=tokenizer, kind=kind, layers=layers, heads=heads)
    records = []
    for one in _each(found):
        record: Record = {"layers": list(one.layers), "heads": list(one.heads)}
        for place, layer in enumerate(one.layers):
            record[f"{layer}/matrices"] = one.matrices[place].numpy()
            record[f"{layer}/residual"] = one.residual[place].numpy()
            record[f"{layer}/support_size"] = one.support[place].numpy()
        records.append(record)
    return records


def run_certify(
    name: str,
    inputs: Any,
    *,
    form: str = "efficient",
    tolerance: float = 0.0,
    layers: list[int] | None = None,
    checked_rows: int | None = 64,
    seed: int = 0,
) -> list[Record]:
    """Certificates: what changed, in each layer and under the controls."""
    model, tokenizer = load(name)
    found = certify(
        model,
        inputs,
        tokenizer=tokenizer,
        form=form,
        tolerance=tolerance,
        layers=layers,
        checked_rows=checked_rows,
        seed=seed,
    )
    records = []
    for one in _each(found):
        record: Record = {
            field: getattr(one, field)
            for field in (
                "output",
                "scale",
                "rounding",
                "tokens",
                "target",
                "target_name",
                "probability",
                "checked",
                "checked_keys",
                "necessity",
                "necessity_median",
            )
        }
        # 0.1.0 called it "holds", too, where no row could change; that is an outcome of its own now.
        record["holds"] = one.outcome != "does not hold"
        record |= _change("change", one.change)
        for control, change in one.controls.items():
            record |= _change(f"controls/{control}", change)
        for layer in one.layers:
            prefix = f"layers/{layer.name}"
            for field in (
                "layer",
                "heads",
                "rows",
                "changed",
                "keys",
                "support_mean",
                "support_max",
                "dropped",
                "residual",
                "sum_error",
                "own_sum_error",
                "smallest_weight",
                "unproved",
                "checked",
                "necessity",
            ):
                record[f"{prefix}/{field}"] = getattr(layer, field)
            record[f"{prefix}/relative_change"] = layer.relative_change
        records.append(record)
    return records


def run_minimal_tokens(
    name: str,
    inputs: Any,
    *,
    ranking: Any = "relevance",
    second_ranking: Any = "random",
    keep: float = 0.9,
    strict: bool = False,
    budget: float = 200.0,
    batch_size: int = 32,
    seed: int = 0,
    check: bool = False,
) -> list[Record]:
    """Token sets; with `check` also what `recheck` says of each."""
    model, tokenizer = load(name)
    tokenizer = tokenizer or words()
    found = minimal_tokens(
        model,
        inputs,
        tokenizer=tokenizer,
        keep=keep,
        strict=strict,
        budget=budget,
        batch_size=batch_size,
        seed=seed,
        ranking=ranking,
        second_ranking=second_ranking,
    )
    records = []
    for one in _each(found):
        record: Record = {
            field: getattr(one, field)
            for field in (
                "target",
                "target_name",
                "p_all",
                "p_set",
                "p_rest",
                "p_special",
                "rest_same",
                "defined",
                "minimal",
                "keep",
                "strict",
                "forwards",
                "sequences",
                "jaccard",
            )
        }
        record["indices"] = list(one.indices)
        record["words"] = [word.text for word in one.words]
        for single in one.singles:
            for field in ("p_set", "p_rest", "set_same", "rest_same", "fails"):
                record[f"singles/{single.index}/{field}"] = getattr(single, field)
        if one.second_ranking:
            record["second/indices"] = list(one.second_ranking["indices"])
            record["second/minimal"] = one.second_ranking["minimal"]
            record["second/sequences"] = one.second_ranking["sequences"]
        if check:
            again = recheck(model, one, tokenizer=tokenizer)
            record |= {"recheck/holds": again.holds, "recheck/difference": again.difference}
        records.append(record)
    return records


def fit_information(name: str, texts: Sequence[Any], **options: Any) -> Any:
    """The profile itself. Options: sites, layers, estimator, permutations, limit, batch_size, seed."""
    model, tokenizer = load(name)
    tokenizer = tokenizer or words()
    return fit(model, texts, tokenizer=tokenizer, **{"batch_size": 32, **options})  # 32: the default of 0.1.0


def profile_record(profile: Any) -> Record:
    """The numbers of an information profile."""
    check = profile.ceiling_check()
    record: Record = {
        "sites": [f"{site.layer} {site.name}" for site in profile.sites],
        "n_of_sites": [site.n for site in profile.sites],
        "reads": profile.info["reads"],
        "prior": profile.prior.numpy(),
        "ceiling_check/share": check["share"],
        "ceiling_check/reached": check["reached"],
    }
    for i, site in enumerate(record["sites"]):
        record[f"{site}/directions"] = profile.probe.directions[i].numpy()
        record[f"{site}/offsets"] = profile.probe.offsets[i].numpy()
    return record | _information(profile.information, record["sites"])


def run_compare(name: str, inputs: Any, *, methods: Sequence[str], metrics: Any, **options: Any) -> Record:
    """One comparison of methods. Options: rationales, removal, by, options, batch_size, seed."""
    model, tokenizer = load(name)
    found = compare(model, inputs, tokenizer=tokenizer, methods=list(methods), metrics=metrics, **options)
    record: Record = {
        "methods": list(found.methods),
        "metrics": list(found.metrics),
        "recommended": found.recommended,
        "failures": sorted(found.failures),
    }
    for method, row in found.table.items():
        for metric, estimate in row.items():
            record[f"values/{method}/{metric}"] = _numbers(found.values[method][metric])
            record |= _estimate(f"table/{method}/{metric}", estimate)
    for metric, tests in found.tests.items():
        for test in tests:
            pair = f"{test.first} - {test.second}"
            record |= _estimate(f"tests/{metric}/{pair}/difference", test.difference)
            record[f"tests/{metric}/{pair}/p_value"] = test.p_value
            record[f"tests/{metric}/{pair}/adjusted"] = test.adjusted
    record["agreement/tau"] = np.array([_numbers([cell.mean for cell in row]) for row in found.agreement.tau])
    for method, cost in found.costs.items():
        record |= {f"costs/{method}/forwards": cost.forwards, f"costs/{method}/backwards": cost.backwards}
    return record


def run_effective(attention: Tensor, values: Tensor, mask: Tensor | None = None, **options: Any) -> Record:
    """`effective_attention` of tensors. Options: affine, query_mask."""
    found = effective_attention(attention, values, mask, **options)
    return {
        "attention": found.attention.numpy(),
        "rank": found.rank.numpy(),
        "n": found.n.numpy(),
        "null_space_fraction": found.null_space_fraction.numpy(),
    }


def run_efficient(attention: Tensor, values: Tensor, mask: Tensor | None = None, **options: Any) -> Record:
    """`efficient_attention` of tensors. Options: tolerance, objective, query_mask, backend."""
    found = efficient_attention(attention, values, mask, **options)
    return {
        "attention": found.attention.numpy(),
        "support_size": found.support_size.numpy(),
        "residual": found.residual.numpy(),
        "gap": found.gap.numpy(),
        "smallest_weight": found.smallest_weight.numpy(),
        "smallest_singular": found.smallest_singular.numpy(),
        "optimal": found.optimal.numpy(),
    }


def run_interval(rows: Tensor, values: Tensor, keys: Sequence[int], mask: Tensor | None = None) -> Record:
    """`attention_interval` of tensors."""
    return {"interval": attention_interval(rows, values, keys, mask).numpy()}


def run_rollout(attentions: Sequence[Tensor], mask: Tensor | None = None, **options: Any) -> Record:
    """`rollout` of tensors. Options: residual, head_dimension."""
    return {"rollout": rollout(attentions, mask, **options).numpy()}


def run_mutual_information(states: Tensor, outputs: Tensor, **options: Any) -> Record:
    """`mutual_information` of tensors. Options: estimator, folds, permutations, seed, noise."""
    return _information(mutual_information(states, outputs, **options))


def _each(found: Any) -> list[Any]:
    """The results of one input or of several."""
    return list(found) if isinstance(found, Results) else [found]


def _names(tokens: Sequence[str]) -> list[str]:
    """Positions of images were numbered in 0.1.0; they have a row and a column now, prefix tokens a name."""
    if any(token.startswith("patch ") for token in tokens):
        return [f"patch {i}" for i in range(len(tokens))]
    return list(tokens)


def _explanation(one: Any, layers: bool) -> Record:
    record: Record = {
        "scores": one.scores.numpy(),
        "target": one.target,
        "target_name": one.target_name,
        "probability": one.probability,
        "completeness_gap": one.completeness_gap,
        "tokens": _names(one.tokens),
    }
    for layer in one.layers if layers else ():
        prefix = f"layers/{layer.name}"
        record |= {f"{prefix}/layer": layer.layer, f"{prefix}/n": layer.n, f"{prefix}/head_dim": layer.head_dim}
        for field in ("rank", "null_space_fraction", "entropy", "received", "received_effective", "support_size"):
            value = getattr(layer, field)
            record[f"{prefix}/{field}"] = None if value is None else value.numpy()
    if one.information is not None:
        information = one.information
        record |= {"information/ceiling": information["ceiling"], "information/n": information["n"]}
        for layer in information["layers"]:
            for field in ("kl", "v_information", "split_half"):
                record[f"information/{layer['layer']}/{field}"] = np.array(layer[field])
            for site, mi in layer["mi"].items():
                record[f"information/{layer['layer']}/mi/{site}"] = np.array(
                    [mi["nats"], *mi["interval"], mi["p_value"], mi["family_p_value"], mi["n"]]
                )
    return record


def _information(found: Any, sites: Sequence[str] | None = None) -> Record:
    """A `MutualInformation`, site by site."""
    names = sites or [f"site {i}" for i in range(found.nats.numel())]
    record: Record = {"ceiling": found.ceiling, "n": found.n, "estimator": found.estimator}
    for i, site in enumerate(names):
        for field in ("nats", "interval", "p_value", "family_p_value", "null_mean"):
            value = getattr(found, field).numpy()
            record[f"{site}/{field}"] = value if found.nats.dim() == 0 else value[i]
        record[f"{site}/part"] = found.parts[i]
    return record


def _change(prefix: str, change: Any) -> Record:
    if change is None:
        return {prefix: None}
    return {
        f"{prefix}/{field}": getattr(change, field) for field in ("largest", "relative", "probability", "value", "kept")
    }


def _estimate(prefix: str, estimate: Any) -> Record:
    interval = None if estimate.interval is None else np.array(estimate.interval)
    return {f"{prefix}/mean": estimate.mean, f"{prefix}/interval": interval, f"{prefix}/inputs": estimate.inputs}


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    """NaN where there is none."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
