"""From the lines of the results to numbers: chunks put together, means, paired tests, targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.common import Row
from benchmarks.studies.faithfulness.run import CAPTUM, FAITHFUL
from hf_attn_mi.evaluation import METRICS, Estimate, PairedTest, estimate, holm, paired_tests

Values = dict[str, dict[str, list[float | None]]]  # by method and metric, one an input
OURS = "relevance"
ENOUGH = 0.5  # share of the inputs of relevance below which a method cannot be the best of its kind
LOSS = 0.01


def values_of(rows: Sequence[Row], name: str, groups: Sequence[str], removal: str = "delete") -> Values:
    """The values of all chunks put together; None where a method was not run on an input."""
    mine = [row for row in rows if row["kind"] == "run" and row["set"] == name and row["group"] in groups]
    mine = [row for row in mine if row["removal"] == removal]
    count = 1 + max((place for row in mine for place in row["judged"]), default=-1)
    found: Values = {}
    for row in mine:
        for method, columns in row["values"].items():
            for metric, column in columns.items():
                kept = found.setdefault(method, {}).setdefault(metric, [None] * count)
                for place, value in zip(row["judged"], column):
                    kept[place] = value
    return found


def costs_of(rows: Sequence[Row], name: str, groups: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Forward and backward passes an input of each method, mean over the inputs."""
    sums: dict[str, list[float]] = {}
    for row in rows:
        if row["kind"] == "run" and row["set"] == name and row["group"] in groups:
            for method, cost in row["costs"].items():
                total = sums.setdefault(method, [0.0, 0.0, 0.0])
                for i, value in enumerate((1.0, cost["forwards"], cost["backwards"])):
                    total[i] += value * len(row["judged"])
    return {method: (forwards / n, backwards / n) for method, (n, forwards, backwards) in sums.items()}


def against_ours(values: Values, metric: str, first: str = OURS) -> dict[str, PairedTest]:
    """By how much `first` is better than each other method (positive: it is), p by Holm over these."""
    sign = 1 if METRICS[metric].higher else -1
    ours = [None if x is None else sign * x for x in values[first][metric]]
    found = {}
    for method, columns in values.items():
        if method != first and metric in columns:
            column = [None if x is None else sign * x for x in columns[metric]]
            (found[method],) = paired_tests({first: ours, method: column})
    adjusted = holm([test.p_value for test in found.values()])
    return {
        method: PairedTest(test.first, test.second, test.difference, test.p_value, p)
        for (method, test), p in zip(found.items(), adjusted)
    }


def means(values: Values, metric: str) -> dict[str, Estimate]:
    """Mean over inputs of each method that has the metric."""
    return {method: estimate(columns[metric]) for method, columns in values.items() if metric in columns}


def best_captum(rows: Sequence[Row], name: str, metric: str = FAITHFUL[0]) -> str:
    """The Captum method with the best mean, among those run on enough inputs; integrated gradients before any ran."""
    found = means(values_of(rows, name, ("main", "costly")), metric)
    least = ENOUGH * found[OURS].inputs if OURS in found else 1
    enough = {m: one.mean for m, one in found.items() if m in CAPTUM and one.mean is not None and one.inputs >= least}
    sign = 1 if METRICS[metric].higher else -1
    return max(enough, key=lambda m: sign * enough[m]) if enough else "integrated_gradients"


@dataclass(frozen=True)
class Verdict:
    """A target, what was found, whether it is met (None: not measured), and whether all inputs were run."""

    target: str
    found: str
    met: bool | None
    complete: bool = True


def verdicts(rows: Sequence[Row], sets: Mapping[str, int], better: Sequence[str]) -> Iterator[Verdict]:
    """Relevance against the best Captum method of each set (named with its planned inputs), and the speed targets."""
    for name, planned in sets.items():
        values = values_of(rows, name, ("main", "costly"))
        for metric in FAITHFUL:
            rival = best_captum(rows, name, metric)
            known = OURS in values and rival in values
            test = against_ours(values, metric)[rival] if known else None
            low = None if test is None or test.difference.interval is None else test.difference.interval[0]
            told = "not measured"
            if test is not None:
                count = f"{test.difference.inputs} inputs"
                told = f"{signed(test.difference)} against {rival}, {p_text(test.adjusted)}, {count}"
            complete = test is None or test.difference.inputs >= planned
            yield Verdict(f"{name}: {metric} not worse by {LOSS}", told, None if low is None else low > -LOSS, complete)
            if name in better:
                met = None if low is None or test is None else low > 0 and (test.adjusted or 0.0) < 0.05
                yield Verdict(f"{name}: {metric} significantly better", told, met, complete)
    for row in rows:
        if row["kind"] == "speed" and row["target"] is not None:
            ratio = row["ratio"]
            told = f"{ratio['median']:.0f} times ({ratio['min']:.0f} to {ratio['max']:.0f})"
            yield Verdict(f"speed: {row['name'].replace('/', ', ')}, {row['target']} times", told, row["met"])


def signed(found: Estimate) -> str:
    """A difference with its interval."""
    if found.mean is None:
        return "-"
    low, high = found.interval or (float("nan"), float("nan"))
    return f"{found.mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def plain(found: Estimate) -> str:
    """A mean with its interval."""
    if found.mean is None:
        return "-"
    if found.interval is None:
        return f"{found.mean:.3f}"
    return f"{found.mean:.3f} [{found.interval[0]:.3f}, {found.interval[1]:.3f}]"


def p_text(p: float | None) -> str:
    """A p value."""
    return "no p" if p is None else "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)
