"""The third part of the page of the causal study: the attention weights that carry a prediction.

    python benchmarks/studies/causal/report_attention.py                  # writes the part into docs/studies/causal.md
    python benchmarks/studies/causal/report_attention.py --pack RESULTS   # after more rows were run

The rows are those of subgraphs.py, attention_weights.py, efficient_keys.py and planted.py, stored in results/.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # `benchmarks` is imported as a package

from benchmarks.common import ROOT, read_rows
from benchmarks.studies.causal import attention_weights, planted, planted_trained
from benchmarks.studies.causal.page_parts import Lines, exact_interval, mean, median, number, share, table
from benchmarks.studies.causal.suites import SUITES
from hf_attn_mi.results.attention_family import AttentionFamily

RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "studies" / "causal.md"
HEADING = "## The attention weights that carry a prediction"
PLAN = {"further": 50, "rankings": 30, "keys": 30}  # inputs that the study is planned with, beside Suite.planned
LEAST_FAMILIES = 3  # of encoders, on which claim (4) was to be tried
FAMILIES = {"ModernBERT": "modernbert", "DeBERTa-v2": "deberta", "RoBERTa": "roberta"}  # starts of names of models
FAILS = 0.05  # claim (4) fails on a data set where it surely fails on more than this share of the inputs
MIN_INPUTS = 20  # of a data set, for the claim to be decided on it
COMMANDS = """```
cd benchmarks/studies/causal                                        # every script continues where it stopped
python subgraphs.py --data DATA --models MODELS MORE --output RESULTS --parts sets --inputs 200
python subgraphs.py --data DATA --models MODELS MORE --output RESULTS --parts further --inputs 50
python subgraphs.py --data DATA --models MODELS MORE --output RESULTS --parts heads --inputs 200
python subgraphs.py --models MODELS MORE --output RESULTS --recheck # run every stored set again
python attention_weights.py --data DATA --models MODELS --output RESULTS --inputs 30
python efficient_keys.py --data DATA --models MODELS --output RESULTS --inputs 30
python planted.py --output RESULTS
python report_attention.py --pack RESULTS
```"""
METHOD = f"""Definitions and search: docs/methods/minimal_attention.md. Sets are strict (the rest changes the
prediction), keep = 0.9, and locally minimal where the tables say so: there every single removal was run. Cost is in
forward passes of the whole input. Medians have intervals by order statistics (from six inputs on), means bootstrap
intervals over inputs, shares exact binomial ones, all 95 %, as if the inputs of a suite were independent (pairs of SNLI
can share a premise); in brackets behind a median the smallest and the largest
value. Rows of sets are sorted with the worst figure first.

Verdict on claim (4) of arXiv 2410.18541, read for the *prediction*: no key of the efficient rows can be left out
without a change of the prediction. It fails on an input where the prediction is kept although the smallest key of
every efficient row with two keys or more is removed, in all layers and heads at once. On a data set with {MIN_INPUTS}
inputs or more it does not hold if the interval of the share of inputs on which it fails lies above {FAILS:.0%}, it
holds if the interval lies below, and it is not decided otherwise. The rule was written before these rows were run,
after a prototype had kept the prediction on each of a few inputs."""
PEERS = """`attattr`, `eap_ig`, `head`, `flow` (information flow routes), `masks` (learned with a factual and a
counterfactual loss), `gim` and `relp` follow papers that are named in attention_weights.py. They are written from these
papers and checked on examples computed by hand; none was compared with the code of its authors. The passes are those of
the search: the passes that a ranking itself needs (about 60 steps for `masks`, 20 for each layer for `attattr`) are not
counted. The search ranks again while the prefix grows only for `gradient`; compare the other rankings with
`gradient_once`. Sizes are medians over the inputs for which the ranking led to a set; with fewer than six inputs they
have no interval, and no order of the rankings is claimed."""
LEARNED = """Two encoders of two layers and four heads, trained on tasks whose label is decided by known tokens (the
sources): marked tokens, or a question and the record that it asks for. Recall is the share of the sources from which a
path of attention weights leads to [CLS], precision the share of the weights on such a path; a path can carry what
decides the label, and need not. Means over {inputs} inputs of each mechanism, so that small differences mean nothing;
an input without a set counts as 0. When they copy, the sets of `attattr`, `flow`, `masks` and `relp` hold hardly any
weight that cannot carry the label; those of `gradient`, the default, `relevance` and `head` do, and are larger. Why was
not studied. In the look-up no ranking is clearly ahead.

Sets of the look-up often leave the question out: where the record is the only token that may be attended to, the
model needs no question to choose it. A set shows where the prediction comes from, not how the model chose it."""
DEFINITION = """Claims (1) and (2), and that a row keeps at most d + 1 keys, are consequences of how efficient rows
are defined: what the sections above measure there is the solver. The verdict on claim (4) above is about the outputs
of heads. It is not a verdict on the prediction, which is here."""


@dataclass
class Study:
    """The rows of the study."""

    folder: Path
    rows: Lines = field(init=False)
    rankings: Lines = field(init=False)
    keys: Lines = field(init=False)
    planted: Lines = field(init=False)
    checks: Lines = field(init=False)

    def __post_init__(self) -> None:
        self.rows = read_rows(self.folder / "subgraphs.jsonl.gz")
        self.rankings = read_rows(self.folder / "attention_weights.jsonl")
        self.keys = read_rows(self.folder / "efficient_keys.jsonl")
        self.planted = read_rows(self.folder / "planted.jsonl")
        self.checks = read_rows(self.folder / "subgraphs_recheck.jsonl")

    def each(self, part: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Title of each suite with its records of this part."""
        for name, suite in SUITES.items():
            mine = [row for row in self.rows if (row["part"], row["suite"]) == (part, name)]
            if mine:
                yield suite.title, [row.get("record", row) for row in mine]


def spread(values: list[float]) -> str:
    """Median with its interval, and the extremes."""
    return f"{median(values)} ({number(min(values))} to {number(max(values))})" if values else "-"


def sorted_by(rows: list[tuple[float, list[str]]]) -> list[list[str]]:
    """Rows with the largest figure first."""
    return [row for _, row in sorted(rows, key=lambda one: -one[0])]


def shown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, or that there is nothing to show."""
    return table(header, rows) if rows else "Not run yet."


def heads_of(record: dict[str, Any]) -> set[tuple[int, int]]:
    """The heads of a set."""
    return {(unit["call"], unit["head"]) for unit in record["units"]}


def sets_table(study: Study) -> str:
    """How large the sets are."""
    planned = {suite.title: suite.planned for suite in SUITES.values()}
    rows = []
    for title, records in study.each("sets"):
        sets = [one for one in records if one["units"]]
        sizes = [float(len(one["units"])) for one in sets]
        shares = [len(one["units"]) / one["edge_count"] for one in sets]
        heads = [float(len(heads_of(one))) for one in sets]
        total = sum(module["heads"] for module in records[0]["attention"])
        layers = [float(len({unit["layer"] for unit in one["units"]})) for one in sets]
        cells = [
            title,
            f"{len(records)} of {planned[title]}",
            str(sum(not one["needs_attention"] for one in records)),
            str(sum(one["needs_attention"] and not one["units"] for one in records)),
            str(sum(bool(one["minimal"]) for one in sets)),
            number(statistics.median(len(one["tokens"]) for one in records)),
            number(statistics.median(one["edge_count"] for one in records)),
            spread(sizes),
            f"{statistics.median(shares):.3%}",
            f"{spread(heads)} of {total}",
            f"{number(statistics.median(layers))} of {len(records[0]['attention'])}",
        ]
        rows.append((statistics.median(shares), cells))
    header = [
        "data",
        "inputs, of planned",
        "need no attention",
        "without a set",
        "locally minimal",
        "tokens",
        "weights",
    ]
    header += ["weights of the set", "share", "heads with a weight", "layers with a weight"]
    return shown(header, sorted_by(rows))


def cost_table(study: Study) -> str:
    """What the sets cost, and what fails without a single weight."""
    rows = []
    for title, records in study.each("sets"):
        sets = [one for one in records if one["units"]]
        beside = [one["forwards"] - one["single_forwards"] for one in sets]
        fails = Counter(single["fails"] for one in sets for single in one["singles"])
        cells = [title, spread(beside), spread([one["single_forwards"] for one in sets])]
        cells += [spread([one["seconds"] for one in sets])]
        cells += [f"{fails[side] / max(1, fails.total()):.1%}" for side in ("rest", "set", "both")]
        rows.append((max(beside, default=0.0), cells))
    header = ["data", "forward passes beside the single removals", "of the single removals", "seconds, busy machine"]
    return shown([*header, "the rest becomes enough", "the set falls short", "both"], sorted_by(rows))


def layers_table(study: Study) -> str:
    """In which layers the weights lie."""
    rows = []
    for title, records in study.each("sets"):
        sets = [one for one in records if one["units"]]
        layers = range(max(module["layer"] for module in records[0]["attention"]) + 1)
        shares = [
            [sum(unit["layer"] == layer for unit in one["units"]) / len(one["units"]) for one in sets]
            for layer in layers
        ]
        rows.append([title, *(f"{statistics.mean(some):.0%}" for some in shares)])
    width = max((len(row) for row in rows), default=1)
    header = ["data", *(f"layer {i}" for i in range(width - 1))]
    return shown(header, [row + [""] * (width - len(row)) for row in rows])


def removals_table(study: Study) -> str:
    """Under which kinds of removal the sets stand."""
    rows = []
    for title, records in study.each("further"):
        sets = [one for one in records if one["units"]]
        for kind in dict.fromkeys(one["removal"] for record in sets for one in record["removals"]):
            checks = [one for record in sets for one in record["removals"] if one["removal"] == kind]
            stands = [bool(one["stands"]) for one in checks]
            enough = [
                one["set_same"] and one["p_set"] >= record["keep"] * record["p_all"]
                for record in sets
                for one in record["removals"]
                if one["removal"] == kind
            ]
            cells = [title, kind, share(stands), share(enough), share([not one["rest_same"] for one in checks])]
            rows.append((-sum(stands) / len(stands), cells))
    return shown(["data", "removal", "the set stands", "it suffices", "the rest changes the class"], sorted_by(rows))


def family_table(study: Study) -> str:
    """How much sets of one input overlap."""
    rows = []
    for title, records in study.each("further"):
        jaccard: dict[str, list[float | None]] = {"edges": [], "heads": [], "pairs": []}
        found, core, tried = [], [], 0
        for record in (one for one in records if one["units"]):
            sets = [[(u["call"], u["head"], u["query"], u["key"]) for u in record["units"]]]
            sets += [[tuple(edge) for edge in member["edges"]] for member in record["family_members"]]
            tried += len(record["family_members"])
            family = AttentionFamily(tuple(tuple(one) for one in sets if one))
            found.append(len(family.sets) - 1)
            core.append(len(family.core) / len(family.sets[0]))
            for name, values in family.jaccard.items():
                jaccard[name].append(statistics.mean(values) if values else None)
        cells = [title, str(len(found)), f"{sum(found)} of {tried}", *(mean(values) for values in jaccard.values())]
        known = [value for value in jaccard["edges"] if value is not None]
        rows.append((-statistics.mean(known) if known else 0.0, [*cells, mean(core)]))
    header = ["data", "inputs", "further sets found", "Jaccard index of weights", "of heads", "of token pairs"]
    return shown([*header, "share of the set in all sets"], sorted_by(rows))


def deeper_table(study: Study) -> str:
    """How many pairs and random subsets of a set can go."""
    rows = []
    for title, records in study.each("further"):
        deeper = [one["deeper"] for one in records if one["deeper"]]
        pairs, subsets = sum(one["pairs"] for one in deeper), sum(one["subsets"] for one in deeper)
        free = [sum(one[name] for one in deeper) for name in ("free_pairs", "free_subsets")]
        rows.append(
            (free[0] / max(1, pairs), [title, str(len(deeper)), f"{free[0]} of {pairs}", f"{free[1]} of {subsets}"])
        )
    return shown(["data", "sets", "pairs that can go", "random subsets that can go"], sorted_by(rows))


def heads_table(study: Study) -> str:
    """Accuracy without the heads that the sets do not use."""
    rows = []
    for title, lines in study.each("heads"):
        newest = max(line["sets"] for line in lines)
        lines = [line for line in lines if line["sets"] == newest]
        own = [float(line["predicted"] == line["label"]) for line in lines]
        for limit, first in lines[0]["without"].items():
            parts = [line["without"][limit] for line in lines]
            left = [float(part["predicted"] == line["label"]) for part, line in zip(parts, lines)]
            drawn = [
                statistics.mean(float(one == line["label"]) for one in part["random"])
                for part, line in zip(parts, lines)
            ]
            used = "no set" if float(limit) == 0 else f"at most {float(limit):.0%} of the sets"
            cells = [title, str(newest), used, f"{first['heads']} of {lines[0]['of']}", str(len(lines)), mean(own)]
            lost = [a - b for a, b in zip(own, left)]
            rows.append((statistics.mean(lost), [*cells, mean(left), mean(drawn), mean(lost)]))
    header = ["data", "sets", "heads in", "removed heads", "inputs", "accuracy", "without these heads"]
    return shown([*header, "without as many random heads", "loss of accuracy"], sorted_by(rows))


def rankings_table(study: Study) -> str:
    """The same promise from each ranking."""
    rows = []
    first = next(iter(attention_weights.RANKINGS))
    for name, suite in SUITES.items():
        mine = [row for row in study.rankings if row["suite"] == name and row["needs_attention"]]
        base = {row["input"]: row["size"] for row in mine if row["ranking"] == first and row["size"]}
        for ranking in attention_weights.RANKINGS:
            lines = [row for row in mine if row["ranking"] == ranking]
            if not lines:
                continue
            sets = [row for row in lines if row["size"]]
            ratios = [row["size"] / base[row["input"]] for row in sets if row["input"] in base]
            cells = [suite.title, ranking, str(len(lines)), str(len(sets)), str(sum(row["minimal"] for row in sets))]
            cells += [spread([float(row[key]) for row in sets]) for key in ("prefix", "size")]
            cells += [median(ratios), number(statistics.median(row["forwards"] for row in lines))]
            size = statistics.median(row["size"] for row in sets) if sets else float("inf")
            rows.append((size, cells))
    header = [
        "data",
        "ranking",
        "inputs",
        "with a set",
        "locally minimal",
        "prefix that qualifies",
        "weights of the set",
    ]
    return shown([*header, "size over that of `gradient`", "forward passes"], sorted_by(rows))


def keys_table(study: Study) -> str:
    """Predictions kept when keys of the efficient rows go."""
    rows = []
    for name, suite in SUITES.items():
        mine = [row for row in study.keys if row["suite"] == name]
        for removal in dict.fromkeys(row["removal"] for row in mine):
            lines = [row for row in mine if row["removal"] == removal]
            kept = [bool(row["kept"]) for row in lines]
            change = mean([row["p_new"] - row["p"] for row in lines])
            rows.append([suite.title, removal, share(kept), change])
    return shown(["data", "removed from every row", "prediction kept", "change of its probability"], rows)


def claim_four(study: Study) -> tuple[str, str]:
    """The verdict on claim (4) at the level of the prediction, and the table that it rests on."""
    rows, parts = [], []
    for name, suite in SUITES.items():
        fails = [bool(row["kept"]) for row in study.keys if (row["suite"], row["removal"]) == (name, "the smallest")]
        if not fails:
            continue
        low, high = exact_interval(sum(fails), len(fails))
        part = "does not hold" if low > FAILS else "holds" if high < FAILS else "not decided"
        part = part if len(fails) >= MIN_INPUTS else f"not decided: fewer than {MIN_INPUTS} inputs"
        parts.append(part)
        rows.append([suite.title, share(fails), part])
    verdict = "not decided"
    if "does not hold" in parts:
        verdict = "does not hold"
    elif parts and all(part == "holds" for part in parts):
        verdict = "holds"
    body = table(["data", "inputs on which the claim fails", "claim (4) for the prediction"], rows)
    return verdict, f"{body}\n\n{families_line(study)}"


def family_of(model: str) -> str:
    """The family of encoders of a model, by its name."""
    return next((name for name, start in FAMILIES.items() if model.startswith(start)), "BERT")


def families_line(study: Study) -> str:
    """On how many families of encoders claim (4) was tried."""
    found = sorted({family_of(SUITES[row["suite"]].model) for row in study.keys})
    few = "" if len(found) >= LEAST_FAMILIES else f"; {LEAST_FAMILIES} were planned"
    return f"Families of encoders in this table: {len(found)} ({', '.join(found)}){few}."


def recheck_line(study: Study) -> str:
    """How many stored sets hold when they are run again."""
    stored = sum("record" in row for row in study.rows)
    holds: dict[tuple[str, int], bool] = {}
    for row in study.checks:
        holds[row["suite"], row["input"]] = holds.get((row["suite"], row["input"]), True) and bool(row["holds"])
    return (
        f"Of {stored} stored records {len(study.checks)} were run again from the record alone, one whole sequence at a "
        f"time (`subgraphs.py --recheck`): {sum(bool(row['holds']) for row in study.checks)} hold. Every record of an "
        f"input holds on {sum(holds.values())} of {len(holds)} inputs of a suite (without an interval: suites "
        "share texts)."
    )


def tried(study: Study) -> str:
    """On how many inputs and families claim (4) for the prediction was tried, in a few words."""
    counts = Counter(row["suite"] for row in study.keys if row["removal"] == "the smallest")
    inputs = sum(count for count in counts.values() if count >= MIN_INPUTS)
    models = {SUITES[name].model for name, count in counts.items() if count >= MIN_INPUTS}
    return f"{inputs} inputs, {len(models)} models, families: {', '.join(sorted(set(map(family_of, models))))}"


def section_of(study: Study) -> str:
    """The third part of the page."""
    verdict, claim = claim_four(study)
    counts = Counter(row["part"] for row in study.rows)
    missing = [suite.title for name, suite in SUITES.items() if not any(row["suite"] == name for row in study.rows)]
    ranked, removed = (len({(row["suite"], row["input"]) for row in some}) for some in (study.rankings, study.keys))
    by_hand = [row for row in study.planted if "planted" in row]
    learned = [row for row in study.planted if "planted" not in row]
    plan = (
        f"**A part of the run.** Sets of the main ranking: {counts['sets']} inputs (planned: the table below). "
        f"Families, other kinds of removal and deeper removals: {counts['further']} (planned: {PLAN['further']} of "
        f"each data set). Other rankings and peers: {ranked} (planned: {PLAN['rankings']} of each). Removals from "
        f"efficient rows: {removed} (planned: {PLAN['keys']} of each). Accuracy without heads: {counts['heads']}. "
        f"Planned, but without any input so far: {'; '.join(missing) or 'none'}."
    )
    parts = [
        HEADING,
        COMMANDS,
        plan,
        DEFINITION,
        METHOD,
        f"### Claim (4) for the prediction: {verdict}",
        claim,
        keys_table(study),
        "### How few weights carry a prediction",
        sets_table(study),
        cost_table(study),
        "Mean share of the weights of a set in each layer:",
        layers_table(study),
        recheck_line(study),
        "### Under which kinds of removal do the sets stand?",
        "Each set was found under `renormalized`. The reference of `resample` is text with another label, cut to the "
        "length of the input. A set stands if it suffices and the rest changes the class.",
        removals_table(study),
        "### One set is not the only one",
        "Three further sets of each input: by the ranking `relevance`, by the main ranking with all weights found so "
        "far forbidden, and by the attention weight; at most 1,000 forward passes each.",
        family_table(study),
        deeper_table(study),
        "### Heads that the sets do not use",
        "Accuracy on inputs that no set was searched for. Five draws of random heads.",
        heads_table(study),
        "### Rankings and peers at the same promise",
        f"The same strict search from every ranking, at most 1,000 forward passes, on {ranked} inputs; the number of "
        "each data set and ranking is in the table. Controls: attention, random.",
        PEERS,
        rankings_table(study),
        "### Planted mechanisms",
        "A BERT whose weights were set by hand; the idle heads have sharp rows. Recall of the k best weights, k as "
        "many as were planted, and recall and precision of the set that the search finds from the ranking.",
        planted.table_of(by_hand),
        "### Learned mechanisms",
        LEARNED.format(inputs=max((row["inputs"] for row in learned), default=0)),
        planted_trained.table_of(learned) if learned else "Not run yet.",
    ]
    return "\n\n".join(parts)


def with_section(page: str, section: str) -> str:
    """The page with this section in the place of the earlier one, or at its end."""
    before, heading, rest = page.partition(f"\n{HEADING}\n")
    after = rest.partition("\n## ")[2] if heading else ""
    more = f"\n## {after}" if after else ""
    return f"{before.rstrip()}\n\n{section}\n{more}"


def pack(folder: Path) -> None:
    """Copy the rows of a run into results/, the large file packed."""
    RESULTS.mkdir(exist_ok=True)
    for name in ("attention_weights", "efficient_keys", "planted", "subgraphs_recheck"):
        shutil.copyfile(folder / f"{name}.jsonl", RESULTS / f"{name}.jsonl")
    with (RESULTS / "subgraphs.jsonl.gz").open("wb") as file:
        file.write(gzip.compress((folder / "subgraphs.jsonl").read_bytes(), mtime=0))


def main() -> None:
    """Write the section into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, help="first copy the rows of a run from this folder into results/")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    if options.pack:
        pack(options.pack)
    study = Study(RESULTS)
    page = options.page.read_text(encoding="utf-8")
    options.page.write_text(with_section(page, section_of(study)), encoding="utf-8")
    print(f"claim (4) for the prediction: {claim_four(study)[0]}")


if __name__ == "__main__":
    main()
