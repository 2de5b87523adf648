"""The units of work that the study consists of, and how each is run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.common import Row, provenance
from benchmarks.studies.faithfulness.data import SETS, DataSet, Inputs, MissingDataError, read_inputs
from benchmarks.studies.faithfulness.judge import WORDS, judge, judge_normalized
from benchmarks.studies.faithfulness.rankings.other_starts import STARTS
from benchmarks.studies.faithfulness.rankings.registry import RANKINGS
from benchmarks.studies.faithfulness.run import (
    ADDED,
    COSTLY,
    FAITHFUL,
    MAIN,
    NORMALIZED,
    PLAUSIBILITY,
    interpreter,
    run,
    run_peer,
)
from benchmarks.studies.faithfulness.tables import best_captum
from benchmarks.studies.faithfulness.training import train
from hf_attn_mi.errors import HfAttnMiError

MAIN_SETS = ("agnews", "imdb", "sst2")
RATIONALE_SETS = ("sst_tokens", "imdb_cad", "toxic_spans", "hatexplain")
TRAINED_SETS = ("toxic_spans", "hatexplain")
FURTHER_SETS = ("snli", "mrpc", "cola", "rte", "agnews_modernbert", "sst2_deberta", "sst2_roberta")
FURTHER = (  # methods of these sets: ours, and the best and the best known ones of the main sets
    "relevance",
    "attnlrp",
    "attnlrp_iterative",
    "integrated_gradients",
    "feature_ablation",
    "input_x_gradient",
    "saliency",
    "attention",
    "effective",
    "rollout",
    "random",
)
RATIONALE_METHODS = (
    "relevance",
    "integrated_gradients",
    "input_x_gradient",
    "saliency",
    "feature_ablation",
    "attention",
    "rollout",
    "effective",
    "value_norms",
    "random",
)
COSTLY_INPUTS = {"sst2": 40, "agnews": 20, "imdb": 5}
MASKED_INPUTS = {"sst2": 100, "agnews": 60, "imdb": 40}
SHORT_INPUTS, SHORT_TOKENS = 20, 16  # inputs with a normalized AOPC, and their largest length: 5 n^2 predictions each
PEERS = {  # script: the methods that run together (none: all), and the number of inputs of each data set
    "lxt_attnlrp": (((), {"sst2": 200, "agnews": 200, "imdb": 200}),),
    "interpret": (((), {"sst2": 40, "agnews": 40, "imdb": 10}),),
    "shap_partition": (((), {"sst2": 40, "agnews": 20, "imdb": 10}),),
    "ferret_xai": (
        (("ferret gradient", "ferret gradient x input", "ferret IG"), {"sst2": 40, "agnews": 40, "imdb": 10}),
        (("ferret LIME",), {"sst2": 20, "agnews": 10}),
    ),
}

LEAVE_ONE_OUT = "leave-one-out, deleted"
JUDGED = (  # group, data set, methods, number of inputs, inputs of a unit
    ("rankings", "sst2", (*RANKINGS, LEAVE_ONE_OUT), 100, 10),
    ("rankings", "agnews", (*(name for name in RANKINGS if name != "AtMan"), LEAVE_ONE_OUT), 60, 5),
    ("rankings", "imdb", tuple(name for name in RANKINGS if name != "AtMan"), 40, 2),
    ("starts", "sst2", tuple(STARTS), 100, 20),
    ("starts", "agnews", tuple(STARTS), 60, 10),
    ("starts", "imdb", tuple(STARTS), 40, 10),
)
UNTUNED = (  # methods that are judged by the metrics that nothing was tuned on
    "relevance",
    "attnlrp",
    "attnlrp_iterative",
    "integrated gradients, [MASK]",
    "leave-one-out, deleted",
    "leave-one-out, [MASK]",
    *(name for name in RANKINGS if name not in ("LibraGrad", "AtMan")),  # LibraGrad gives the scores of relevance
    "attention",
    "random",
)
UNTUNED_INPUTS = {"sst2": (100, 5), "agnews": (60, 3), "imdb": (40, 2)}  # number, and inputs of a unit
SAMPLED = {removal: (f"LIME, {word}", f"kernel SHAP, {word}") for removal, word in WORDS.items()}
SAMPLED["attention_mask"] = (f"leave-one-out, {WORDS['attention_mask']}", *SAMPLED["attention_mask"])
SAMPLED_INPUTS = {"sst2": (25, 5), "agnews": (10, 2), "imdb": (5, 1)}
BEAM = "normalized_beam"  # group of the inputs whose AOPC is normalized by a beam search
LONG_INPUTS = {"agnews": (10, 1, 5), "imdb": (5, 1, 1)}  # number, inputs of a unit, beam: about beam n^2 predictions
LONG_METHODS = tuple(dict.fromkeys((*UNTUNED, "integrated_gradients")))


@dataclass(frozen=True)
class Unit:
    """One row of the results that is still to be produced.

    Attributes:
        part: the option of --parts it belongs to.
        dataset: where the inputs come from.
        group: kind of run.
        positions: the positions of the inputs in the data set; empty for all of them.
        methods: methods of this package, or of a peer.
        metrics: the metrics that are computed.
        removal: how tokens are removed.
        script: the script of a peer; "" for this package's methods.
    """

    part: str
    dataset: DataSet
    group: str
    positions: tuple[int, ...]
    methods: tuple[str, ...] = ()
    metrics: tuple[str, ...] = FAITHFUL
    removal: str = "delete"
    script: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Identifies the row of the results."""
        return (
            self.dataset.name,
            self.group,
            self.removal,
            self.script,
            ",".join(self.methods if self.script else ()),
            ",".join(map(str, self.positions)),
        )


def key_of(row: Row) -> tuple[str, ...]:
    """Return the key of a row of the results."""
    return (
        row["set"],
        row["group"],
        row["removal"],
        row.get("script", ""),
        ",".join(row.get("only", ())),
        ",".join(map(str, row["places"])),
    )


def units_of(part: str, rows: Sequence[Row]) -> Iterator[Unit]:
    """Yield the units of a part, the most important first."""
    if part in SETS and part not in RATIONALE_SETS:
        yield from _units_of_data_set(part, rows)
    elif part == "further":
        queues = [
            [Unit(part, SETS[name], "main", positions, FURTHER) for positions in _chunks(SETS[name].inputs, size)]
            for name in FURTHER_SETS
            for size in (SETS[name].chunk,)
        ]
        yield from _in_turns(queues)
    elif part == "rationales":
        for name in RATIONALE_SETS:
            yield Unit(part, SETS[name], "rationales", (), RATIONALE_METHODS, PLAUSIBILITY)
        for name in RATIONALE_SETS:
            yield Unit(part, SETS[name], "added", (), ADDED, PLAUSIBILITY)
    elif part == "peers":
        for script, runs in PEERS.items():
            for methods, counts in runs:
                for name, count in counts.items():
                    yield Unit(part, SETS[name], "peers", tuple(range(count)), methods, script=script)
    elif part == "rankings":
        yield from _judged_units()


def _judged_units() -> Iterator[Unit]:
    """Units of all data sets in turns, so that a run that is stopped has inputs of each."""
    rankings = [
        [Unit("rankings", SETS[name], group, positions, methods) for positions in _chunks(count, size)]
        for group, name, methods, count, size in JUDGED
    ]
    further = [
        [Unit("rankings", SETS[name], "judged", positions, UNTUNED) for positions in _chunks(count, size)]
        for name, (count, size) in UNTUNED_INPUTS.items()
    ]
    further += [
        [Unit("rankings", SETS[name], "sampled", positions, methods, removal=removal) for positions in _chunks(*sizes)]
        for removal, methods in SAMPLED.items()
        for name, sizes in SAMPLED_INPUTS.items()
    ]
    further += [
        [Unit("rankings", SETS[name], BEAM, positions, LONG_METHODS, NORMALIZED) for positions in _chunks(count, size)]
        for name, (count, size, _) in LONG_INPUTS.items()
    ]
    yield from _in_turns(rankings)
    yield from _in_turns(further)


def _in_turns(queues: Sequence[Sequence[Unit]]) -> Iterator[Unit]:
    """The first unit of each queue, then the second of each, and so on."""
    for place in range(max(map(len, queues))):
        yield from (queue[place] for queue in queues if place < len(queue))


def _units_of_data_set(part: str, rows: Sequence[Row]) -> Iterator[Unit]:
    dataset = SETS[part]
    for positions in _chunks(dataset.inputs, dataset.chunk):
        yield Unit(part, dataset, "main", positions, MAIN)
    for positions in _chunks(dataset.inputs, 20):
        yield Unit(part, dataset, "added", positions, ADDED)
    if part in MASKED_INPUTS:
        methods = tuple(dict.fromkeys(("relevance", best_captum(rows, part), "feature_ablation")))
        for positions in _chunks(MASKED_INPUTS[part], 20):
            yield Unit(part, dataset, "masked", positions, methods, removal="attention_mask")
    for positions in _chunks(COSTLY_INPUTS.get(part, 0), 5):
        yield Unit(part, dataset, "costly", positions, COSTLY)
    if part == "sst2":
        yield Unit(part, dataset, "normalized", (), MAIN, NORMALIZED)


def _chunks(count: int, size: int) -> Iterator[tuple[int, ...]]:
    return (tuple(range(start, min(start + size, count))) for start in range(0, count, size))


def pending_units(part: str, rows: Sequence[Row]) -> list[Unit]:
    """Return the units of a part that the results do not hold yet."""
    known = {key_of(row) for row in rows if "group" in row and row["kind"] in ("run", "peer", "reason")}
    return [unit for unit in units_of(part, rows) if unit.key not in known]


@cache
def inputs_of(name: str, trained: Path) -> Inputs:
    """Return the inputs of a data set, read once."""
    return read_inputs(SETS[name], trained)


def run_unit(unit: Unit, trained: Path, peers: Path) -> Iterator[Row]:
    """Run a unit and yield its rows; a row with the reason where data, model or method are missing.

    Args:
        unit: what to run.
        trained: folder of the classifiers that training.py makes.
        peers: folder of the environments of other packages.
    """
    name = unit.dataset.name
    fields = {"set": name, "group": unit.group, "removal": unit.removal, "places": list(unit.positions)}
    if unit.script:
        fields |= {"script": unit.script, "only": list(unit.methods)}
    try:
        if name in TRAINED_SETS and not (trained / name).exists():
            yield train(name, trained)
        inputs = inputs_of(name, trained)
        if unit.script:
            python = interpreter(unit.script, peers)
            scores, row = run_peer(unit.script, python, unit.dataset, inputs, unit.positions, unit.methods)
            yield row | {"part": "peers", **fields}
            if scores:
                row = run(unit.dataset, inputs, unit.positions, group="peers", methods=(), scores=scores)
                yield row | {"part": "peers", "judged": list(unit.positions), **fields}
            return
        if unit.part == "rankings":
            yield from (row | {"part": unit.part} for row in _judged_rows(unit, inputs))
            return
        positions = _positions(unit, inputs)
        options = {"methods": unit.methods, "metrics": unit.metrics, "removal": unit.removal}
        row = run(unit.dataset, inputs, positions, group=unit.group, **options)
        row |= trained_facts(Path(inputs.folder))
        yield row | {"part": unit.part, "judged": list(positions), "places": list(unit.positions)}
    except (MissingDataError, HfAttnMiError) as reason:
        yield {"kind": "reason", "part": unit.part, **fields, "reason": str(reason), **provenance()}


def _judged_rows(unit: Unit, inputs: Inputs) -> list[Row]:
    of = (unit.dataset, inputs, unit.positions, unit.methods)
    if unit.group == BEAM:
        return judge_normalized(*of, group=BEAM, beam=LONG_INPUTS[unit.dataset.name][2])
    untuned = {"mask": "untuned"} if unit.group == "judged" else {}
    return judge(*of, groups={**untuned, unit.removal: unit.group})


def trained_facts(folder: Path) -> Row:
    """What ../causal/models.py stored about the model that it trained, under "trained"; empty for other models."""
    path = folder / "facts.json"
    if not path.exists():
        return {}
    facts = json.loads(path.read_text(encoding="utf-8"))
    return {"trained": {key: facts[key] for key in ("name", "accuracy", "most_common", "test", "train")}}


def _positions(unit: Unit, inputs: Inputs) -> tuple[int, ...]:
    """Positions of a unit, with those that depend on the data filled in."""
    if unit.group == "normalized":
        lengths = [len(inputs.tokenizer(text)["input_ids"]) for text in inputs.texts]
        return tuple([i for i, length in enumerate(lengths) if length <= SHORT_TOKENS][:SHORT_INPUTS])
    return unit.positions or tuple(range(len(inputs.texts)))
