"""How faithful and how plausible token scores are: relevance, other attention methods, Captum's and peers'.

    python benchmarks/faithfulness.py                            # every part that is not in the results yet
    python benchmarks/faithfulness.py --quick                    # embedded model, 5 texts, seconds; writes nothing
    python benchmarks/faithfulness.py --parts imdb --chunks 5    # the next 25 reviews, then stop
    python benchmarks/faithfulness.py --estimate                 # seconds of each part, from 5 texts of each
    python benchmarks/faithfulness.py --model NAME --data NAME:split --inputs 50      # any classifier and data set
    python benchmarks/faithfulness.py --report docs/studies      # write faithfulness.md from the results

Results are JSON lines of numbers, one for each chunk of inputs: a run that is cut off goes on where it stopped. Data
and models: faithfulness_data.py. Peers need environments of their own: peers/*.py say how to make them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from faithfulness_data import SETS, DataSet, Inputs, Missing, own_inputs, read_inputs
from faithfulness_report import best_captum, page, terminal
from faithfulness_runs import ADDED, COSTLY, FAITHFUL, MAIN, NORMALIZED, PLAUSIBILITY, peer_scores, run
from faithfulness_speed import speed
from faithfulness_training import train
from materials import load, load_tokenizer
from measuring import ROOT, RedCheck, provenance

from hf_attn_mi.errors import HfAttnMiError

Row = dict[str, Any]
RESULTS = ROOT / "benchmarks" / "results" / "faithfulness.jsonl"
MAIN_SETS = ("agnews", "imdb", "sst2")
RATIONALES = ("sst_tokens", "imdb_cad", "toxic_spans", "hatexplain")
TRAINED = ("toxic_spans", "hatexplain")
POINTED = (
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
SHORT = (20, 16)  # inputs whose AOPC is normalized, and the most tokens they have: 5 n^2 predictions each
PEERS = {  # script: the methods run together, and how many inputs of each data set
    "lxt_attnlrp": (((), {"sst2": 200, "agnews": 200, "imdb": 200}),),
    "interpret": (((), {"sst2": 40, "agnews": 40, "imdb": 10}),),
    "shap_partition": (((), {"sst2": 40, "agnews": 20, "imdb": 10}),),
    "ferret_xai": (
        (("ferret gradient", "ferret gradient x input", "ferret IG"), {"sst2": 40, "agnews": 40, "imdb": 10}),
        (("ferret LIME",), {"sst2": 20, "agnews": 10}),
    ),
}
QUICK = (
    ("A warm and quietly moving film.", [(2, 25)]),
    ("The plot is thin and the jokes are old.", [(12, 16), (35, 38)]),
    ("Nobody in it seems to know why they are there, and it is far too long.", [(57, 69)]),
    ("Two wonderful leads make it a joy to watch.", [(4, 13), (30, 33)]),
    ("It is dull.", [(6, 10)]),
)


@dataclass(frozen=True)
class Unit:
    """One line of the results still to be made."""

    part: str
    chosen: DataSet
    group: str
    places: tuple[int, ...]
    methods: tuple[str, ...] = ()
    metrics: tuple[str, ...] = FAITHFUL
    removal: str = "delete"
    script: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What a line of the results is known by."""
        return (
            self.chosen.name,
            self.group,
            self.removal,
            self.script,
            ",".join(self.methods if self.script else ()),
            ",".join(map(str, self.places)),
        )


def key_of(row: Row) -> tuple[str, ...]:
    """The key of a line of the results."""
    return (
        row["set"],
        row["group"],
        row["removal"],
        row.get("script", ""),
        ",".join(row.get("only", ())),
        ",".join(map(str, row["places"])),
    )


def units(part: str, rows: Sequence[Row]) -> Iterator[Unit]:
    """What a part consists of, the most important first."""
    if part in SETS and part not in RATIONALES:
        chosen = SETS[part]
        for start in range(0, chosen.inputs, chosen.chunk):
            yield Unit(part, chosen, "main", tuple(range(start, min(start + chosen.chunk, chosen.inputs))), MAIN)
        for start in range(0, chosen.inputs, 20):
            places = tuple(range(start, min(start + 20, chosen.inputs)))
            yield Unit(part, chosen, "added", places, ADDED)
        if part in MASKED_INPUTS:
            best = best_captum(rows, part)
            masked = tuple(dict.fromkeys(("relevance", best, "feature_ablation")))
            for start in range(0, MASKED_INPUTS[part], 20):
                places = tuple(range(start, min(start + 20, MASKED_INPUTS[part])))
                yield Unit(part, chosen, "masked", places, masked, removal="attention_mask")
        if part in COSTLY_INPUTS:
            for start in range(0, COSTLY_INPUTS[part], 5):
                yield Unit(part, chosen, "costly", tuple(range(start, start + 5)), COSTLY)
        if part == "sst2":
            yield Unit(part, chosen, "normalized", (), MAIN, NORMALIZED)
    elif part == "rationales":
        for name in RATIONALES:
            yield Unit(part, SETS[name], "rationales", (), POINTED, PLAUSIBILITY)
        for name in RATIONALES:
            yield Unit(part, SETS[name], "added", (), ADDED, PLAUSIBILITY)
    elif part == "peers":
        for script, runs in PEERS.items():
            for only, counts in runs:
                for name, count in counts.items():
                    yield Unit(part, SETS[name], "peers", tuple(range(count)), only, script=script)


@cache
def inputs_of(name: str, trained: Path) -> Inputs:
    """The inputs of a data set, read once."""
    return read_inputs(SETS[name], trained)


def made(unit: Unit, arguments: argparse.Namespace) -> Iterator[Row]:
    """The lines of one unit."""
    name = unit.chosen.name
    about = {"set": name, "group": unit.group, "removal": unit.removal, "places": list(unit.places)}
    if unit.script:
        about |= {"script": unit.script, "only": list(unit.methods)}
    try:
        if name in TRAINED and not (arguments.trained / name).exists():
            yield train(name, arguments.trained)
        inputs = inputs_of(name, arguments.trained)
        places = unit.places
        if unit.group == "normalized":
            lengths = [len(inputs.tokenizer(text)["input_ids"]) for text in inputs.texts]
            places = tuple([i for i, length in enumerate(lengths) if length <= SHORT[1]][: SHORT[0]])
        elif not places and not unit.script:
            places = tuple(range(len(inputs.texts)))
        if not unit.script:
            row = run(
                unit.chosen,
                inputs,
                places,
                group=unit.group,
                methods=unit.methods,
                metrics=unit.metrics,
                removal=unit.removal,
            )
            yield row | {"part": unit.part, "judged": list(places), "places": list(unit.places)}
            return
        python = arguments.peers / unit.script / "bin" / "python"
        python = python if python.exists() else Path(sys.executable)  # the extra "bench" has some of them
        scores, peer = peer_scores(unit.script, python, unit.chosen, inputs, places, unit.methods)
        yield peer | {"part": "peers", **about}
        if scores:
            row = run(unit.chosen, inputs, places, group="peers", methods=(), scores=scores)
            yield row | {"part": "peers", "judged": list(places), **about}
    except (Missing, HfAttnMiError) as problem:
        yield {"kind": "reason", "part": unit.part, **about, "reason": str(problem), **provenance()}


def quick() -> list[Row]:
    """The same ways on the embedded model."""
    folder = ROOT / "hf_attn_mi" / "demo_model"
    texts, spans = [text for text, _ in QUICK], [places for _, places in QUICK]
    inputs = Inputs(load(folder), load_tokenizer(folder), texts, spans, None, str(folder))
    chosen = DataSet("quick", str(folder), "", len(texts), 64, True, len(texts), "five sentences, the embedded model")
    methods = ("relevance", "integrated_gradients", "feature_ablation", "attention", "random")
    everything = tuple(range(len(texts)))
    rows = [
        run(chosen, inputs, everything, group="main", methods=methods, metrics=(*FAITHFUL, *PLAUSIBILITY)),
        run(chosen, inputs, everything, group="masked", methods=methods[:2], removal="attention_mask"),
        run(chosen, inputs, (0, 4), group="normalized", methods=methods, metrics=NORMALIZED),
    ]
    return [row | {"part": "quick", "judged": row["places"]} for row in rows]


def own(arguments: argparse.Namespace) -> list[Row]:
    """Any classifier on any data set, written nowhere but where --output says."""
    inputs = own_inputs(arguments.model, arguments.data, arguments.inputs, arguments.tokens)
    count = len(inputs.texts)
    name = Path(arguments.model).name
    chosen = DataSet(name, arguments.model, arguments.data, count, arguments.tokens, False, 25, "")
    methods = tuple(dict.fromkeys(("relevance", *arguments.methods))) if arguments.methods else MAIN
    rows = []
    for start in range(0, count, chosen.chunk):
        places = range(start, min(start + chosen.chunk, count))
        row = run(chosen, inputs, places, group="main", methods=methods)
        rows.append(row | {"part": "own", "judged": list(places)})
        print(f"{places.stop} of {count} inputs, {row['cpu_seconds']:.0f} s of CPU", flush=True)
    return rows


def estimate(parts: Sequence[str], rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    """Print what is left of each part, from 5 of its inputs (1 where methods are costly)."""
    for part in parts:
        left: dict[tuple[str, str], list[Unit]] = {}
        for unit in [one for one in pending(part, rows) if arguments.groups is None or one.group in arguments.groups]:
            left.setdefault((unit.chosen.name, unit.group), []).append(unit)
        for (name, group), members in left.items():
            if group == "peers" or (name in TRAINED and not (arguments.trained / name).exists()):
                print(f"{name:<12} {group:<10} not estimated", flush=True)
                continue
            inputs, first = inputs_of(name, arguments.trained), members[0]
            few = range(1 if group == "costly" else 5)
            row = run(
                first.chosen,
                inputs,
                few,
                group=group,
                methods=first.methods,
                removal=first.removal,
                metrics=FAITHFUL if group == "normalized" else first.metrics,
            )
            count = sum(len(unit.places) for unit in members)
            count = count or (SHORT[0] if group == "normalized" else len(inputs.texts))
            each = row["cpu_seconds"] / len(few)
            told = f"{count} inputs, {each:.1f} s each, {each * count / 60:.1f} min of CPU"
            print(f"{name:<12} {group:<10} {told}", flush=True)


def pending(part: str, rows: Sequence[Row]) -> list[Unit]:
    """Units of a part that the results do not hold yet."""
    known = {key_of(row) for row in rows if "group" in row and row["kind"] in ("run", "peer", "reason")}
    return [unit for unit in units(part, rows) if unit.key not in known]


def main() -> int:
    """Run what is missing, write it line by line, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    allowed = [*MAIN_SETS, "imdb_256", "rationales", "peers", "speed"]
    parser.add_argument("--parts", nargs="+", choices=allowed, default=allowed)
    parser.add_argument(
        "--groups", nargs="+", choices=["main", "added", "masked", "costly", "normalized"], help="of the sets"
    )
    parser.add_argument("--chunks", type=int, help="stop after so many lines of results")
    parser.add_argument("--again", action="store_true", help="run the parts anew")
    parser.add_argument("--estimate", action="store_true", help="only print how long the parts would take")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, help="default benchmarks/results/faithfulness.jsonl")
    parser.add_argument("--report", type=Path, help="folder for faithfulness.md, from the results; runs nothing")
    parser.add_argument("--peers", type=Path, default=ROOT / "out" / "peers", help="environments, named as peers/*.py")
    parser.add_argument("--trained", type=Path, default=ROOT / "out" / "trained", help="for the two trained models")
    parser.add_argument("--turns", type=int, default=3, help="of the part speed")
    parser.add_argument("--model", help="with --data: any classifier, by name or folder")
    parser.add_argument("--data", help="a file, a folder saved by datasets, or a Hub name:split")
    parser.add_argument("--inputs", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--methods", nargs="+", help="with --model; default the cheaper ones")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    output = arguments.output or RESULTS
    if arguments.quick or arguments.model:
        rows = quick() if arguments.quick else own(arguments)
        print(terminal(rows))
        if arguments.output:
            append(output, rows)
        return 0
    rows = read(output)
    if arguments.report:
        arguments.report.mkdir(parents=True, exist_ok=True)
        (arguments.report / "faithfulness.md").write_text(page(rows), encoding="utf-8")
        return 0
    if arguments.again:
        rows = [row for row in rows if row.get("part") not in arguments.parts]
        output.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if arguments.estimate:
        estimate(arguments.parts, rows, arguments)
        return 0
    work(arguments, rows, output)
    print(terminal(rows))
    return 0


def work(arguments: argparse.Namespace, rows: list[Row], output: Path) -> None:
    """Make the missing lines one after another; each is written before the next starts."""
    done = 0
    for part in arguments.parts:
        if part == "speed" and not any(row.get("part") == "speed" for row in rows):
            try:
                for row in speed(arguments.turns):
                    rows.append(row | {"kind": "speed", "part": "speed"})
                    append(output, rows[-1:])
            except RedCheck as problem:
                print(f"speed: RED, no figure: {problem}", flush=True)
        while True:
            left = [one for one in pending(part, rows) if arguments.groups is None or one.group in arguments.groups]
            if not left:
                break
            if arguments.chunks is not None and done >= arguments.chunks:
                return
            for row in made(left[0], arguments):
                rows.append(row)
                append(output, [row])
                what = row.get("reason") or f"{json.dumps(row['cpu_seconds'])} s of CPU"
                print(f"{part}: {row['set']} {row.get('group', row['kind'])}: {what}", flush=True)
            done += 1


def read(output: Path) -> list[Row]:
    """The lines of the results."""
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()] if output.exists() else []


def append(output: Path, rows: Sequence[Row]) -> None:
    """Add lines."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
