"""From the rows of the results to numbers: values of all chunks, means, paired tests, targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.common import Row
from benchmarks.studies.faithfulness.judge import higher_is_better
from benchmarks.studies.faithfulness.run import CAPTUM, FAITHFUL
from hf_attn_mi.evaluation import METRICS, Estimate, PairedTest, estimate, holm, sign_flip_tests

Values = dict[str, dict[str, list[float | None]]]  # by method and metric, one value for each input
OURS = "relevance"
MIN_SHARE = 0.5  # share of the inputs of relevance that the best Captum method must have been run on
SAME = 1e-6  # nearer means are equal: values are stored with six digits
LOSS = 0.01  # loss of a metric that still counts as not worse
ALL = ("main", "added", "costly", "peers", "rankings", "starts", "judged", "sampled")  # groups of the runs of one table
FLIPS = 99_999  # random sign patterns of a test: the smallest p before Holm's correction is 1e-5


def values_of(rows: Sequence[Row], name: str, groups: Sequence[str], removal: str = "delete") -> Values:
    """Return the values of all chunks by input; None where a method was not run on an input."""
    runs = [row for row in rows if row["kind"] == "run" and row["set"] == name and row["group"] in groups]
    runs = [row for row in runs if row["removal"] == removal]
    count = 1 + max((place for row in runs for place in row["judged"]), default=-1)
    values: Values = {}
    for row in runs:
        for method, columns in row["values"].items():
            for metric, column in columns.items():
                by_input = values.setdefault(method, {}).setdefault(metric, [None] * count)
                for place, value in zip(row["judged"], column):
                    by_input[place] = value
    return values


def costs_of(rows: Sequence[Row], name: str, groups: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the forward and backward passes of each method for an input, mean over inputs."""
    sums: dict[str, list[float]] = {}
    for row in rows:
        if row["kind"] == "run" and row["set"] == name and row["group"] in groups:
            for method, cost in row["costs"].items():
                total = sums.setdefault(method, [0.0, 0.0, 0.0])
                for i, value in enumerate((1.0, cost["forwards"], cost["backwards"])):
                    total[i] += value * len(row["judged"])
    return {method: (forwards / n, backwards / n) for method, (n, forwards, backwards) in sums.items()}


def against_ours(values: Values, metric: str, first: str = OURS) -> dict[str, PairedTest]:
    """Return how much better `first` is than each other method (positive: better).

    Interval and p-value are about the same mean: a bootstrap interval, and a test by flipping signs. The p-values are
    adjusted by Holm over the methods.
    """
    sign = 1 if higher_is_better(metric, METRICS) else -1
    ours = values[first][metric]
    gaps = {
        method: [None if a is None or b is None else sign * (a - b) for a, b in zip(ours, columns[metric])]
        for method, columns in values.items()
        if method != first and metric in columns
    }
    p_values = sign_flip_tests(gaps, flips=FLIPS)
    adjusted = holm(list(p_values.values()))
    return {
        method: PairedTest(first, method, estimate(column), p_values[method], p)
        for (method, column), p in zip(gaps.items(), adjusted)
    }


def means(values: Values, metric: str) -> dict[str, Estimate]:
    """Return the mean over inputs of each method that has the metric."""
    return {method: estimate(columns[metric]) for method, columns in values.items() if metric in columns}


def ahead_of(values: Values, metric: str, method: str) -> list[str]:
    """Return the methods with a better mean on the inputs that they share with `method`, the furthest ahead first."""
    sign = 1 if higher_is_better(metric, METRICS) else -1
    ours, leads = values[method][metric], {}
    for other, columns in values.items():
        gaps = [sign * (b - a) for a, b in zip(ours, columns.get(metric, ())) if a is not None and b is not None]
        if other != method and gaps:
            leads[other] = sum(gaps) / len(gaps)
    return sorted((other for other, lead in leads.items() if lead > SAME), key=lambda other: -leads[other])


def versions_of(rows: Sequence[Row]) -> str:
    """Return the versions that rows were made with, all of them where they differ."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, number in row["versions"].items():
            found.setdefault(name, {})[str(number)] = None
    return ", ".join(f"{name} {' and '.join(sorted(numbers))}" for name, numbers in found.items())


def best_captum(rows: Sequence[Row], name: str, metric: str = FAITHFUL[0]) -> str:
    """Return the Captum method with the best mean among those run on enough inputs, else integrated gradients."""
    estimates = means(values_of(rows, name, ("main", "costly")), metric)
    least = MIN_SHARE * estimates[OURS].inputs if OURS in estimates else 1
    candidates = {
        method: estimate.mean
        for method, estimate in estimates.items()
        if method in CAPTUM and estimate.mean is not None and estimate.inputs >= least
    }
    sign = 1 if METRICS[metric].higher else -1
    return max(candidates, key=lambda method: sign * candidates[method]) if candidates else "integrated_gradients"


@dataclass(frozen=True)
class Verdict:
    """A target, the figure, whether it is met (None: not measured), and whether all inputs were run."""

    target: str
    figure: str
    met: bool | None
    complete: bool = True


def verdicts(rows: Sequence[Row], sets: Mapping[str, int], better: Sequence[str]) -> Iterator[Verdict]:
    """Yield the verdicts on relevance against the best Captum method of each data set, and on speed.

    Args:
        rows: the rows of the results.
        sets: planned inputs of each data set.
        better: data sets on which relevance has to be significantly better.
    """
    for name, planned in sets.items():
        values = values_of(rows, name, ALL)  # those of the table of the data set: a pair has one p-value on the page
        for metric in FAITHFUL:
            rival = best_captum(rows, name, metric)
            known = OURS in values and rival in values
            test = against_ours(values, metric)[rival] if known else None
            low = None if test is None or test.difference.interval is None else test.difference.interval[0]
            figure = "not measured"
            if test is not None:
                count = f"{test.difference.inputs} inputs"
                figure = f"{signed(test.difference)} against {rival}, {p_text(test.adjusted)}, {count}"
            complete = test is None or test.difference.inputs >= planned
            yield Verdict(
                f"{name}: {metric} not worse by {LOSS}", figure, None if low is None else low > -LOSS, complete
            )
            if name in better:
                met = None if low is None or test is None else low > 0 and (test.adjusted or 0.0) < 0.05
                yield Verdict(f"{name}: {metric} significantly better", figure, met, complete)
    for row in rows:
        if row["kind"] == "speed" and row["target"] is not None:
            ratio = row["ratio"]
            figure = f"{ratio['median']:.0f} times ({ratio['min']:.0f} to {ratio['max']:.0f})"
            yield Verdict(f"speed: {row['name'].replace('/', ', ')}, {row['target']} times", figure, row["met"])


def signed(estimate: Estimate) -> str:
    """Format a difference with its interval."""
    if estimate.mean is None:
        return "-"
    low, high = estimate.interval or (float("nan"), float("nan"))
    return f"{estimate.mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def unsigned(estimate: Estimate) -> str:
    """Format a mean with its interval."""
    if estimate.mean is None:
        return "-"
    if estimate.interval is None:
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f} [{estimate.interval[0]:.3f}, {estimate.interval[1]:.3f}]"


def p_text(p: float | None) -> str:
    """Format a p-value."""
    return "no p" if p is None else "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)
