"""The page of the information study: tables, intervals, a verdict for each claim, and a figure; from its results."""

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from benchmarks.common import read_rows

Rows = list[dict[str, Any]]  # results of each cell, with its arrays under "texts"
LIMITS = {  # smaller differences count as absent
    "accuracy": 0.005,
    "share": 0.02,
    "tau": 0.02,
    "nats": 0.005,
    "spread": 0.01,
    "gini": 0.01,
    "largest": 0.01,
}
LOW_TAU = 0.1  # tau-b of orders that do not agree
COLUMNS = ("correct", "correct_permuted", "share", "tau", "spread", "gini", "largest")
SCORES = ("additive", "deep", "scaled_dot")
METHOD = """Each figure is a mean over heads and test texts. Intervals (95 %) are mean +- t sqrt(s_seeds^2 / S +
s_texts^2 / n) with Student's t for S - 1 degrees of freedom, because seeds and texts are crossed and both vary. Mutual
information is one number for each head, so that its intervals account for seeds only. A difference *holds* where its
interval lies above zero, is *reversed* where it lies below, is *absent* where the whole interval is nearer to zero
than the limit in the table, and is *open* otherwise. A claim **holds** if every difference holds on every data set;
it **does not hold** if one is reversed or absent on at least one data set; otherwise it is **not decided**."""


def load(folder: Path) -> Rows:
    """Return the measured cells of all complete seeds, those with as many cells as the largest."""
    rows = read_rows(folder / "measured.jsonl")
    counts: dict[int, int] = defaultdict(int)
    for row in rows:
        counts[row["cell"]["seed"]] += 1
    complete = {seed for seed, count in counts.items() if count == max(counts.values())}
    rows = [row for row in rows if row["cell"]["seed"] in complete]
    for row in rows:
        name = "_".join(map(str, row["cell"].values()))
        with np.load(folder / "texts" / f"{name}.npz") as arrays:
            row["texts"] = {key: arrays[key].astype(float) for key in arrays.files}
        row["texts"]["share"] = np.array([row["mi"]["share"][0]])
        row["texts"]["nats"] = np.array([row["mi"]["nats"][0]])
    return rows


def select(rows: Rows, **values: Any) -> Rows:
    """Return the rows whose cell has these values; a tuple allows several."""
    return [
        row
        for row in rows
        if all(row["cell"][k] in v if isinstance(v, tuple) else row["cell"][k] == v for k, v in values.items())
    ]


def matrix(rows: Rows, name: str) -> np.ndarray:
    """Return (seeds, texts): the mean over the cells of each seed; NaN where no cell has a value."""
    by_seed: dict[int, list[np.ndarray]] = defaultdict(list)
    for row in rows:
        by_seed[row["cell"]["seed"]].append(row["texts"][name])
    with np.errstate(all="ignore"):
        arrays = [np.array(values) for _, values in sorted(by_seed.items())]
        return np.array(
            [
                np.where(np.isfinite(v).any(0), np.nansum(v, 0) / np.maximum(np.isfinite(v).sum(0), 1), math.nan)
                for v in arrays
            ]
        )


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return mean, low and high of (seeds, texts) values."""
    values = values[:, np.isfinite(values).all(0)]
    if values.size == 0:
        return math.nan, math.nan, math.nan
    seeds, texts = values.shape
    if seeds < 2:
        return float(values.mean()), math.nan, math.nan
    variance = values.mean(1).var(ddof=1) / seeds + (values.mean(0).var(ddof=1) / texts if texts > 1 else 0.0)
    half_width = float(scipy.special.stdtrit(seeds - 1, 0.975)) * math.sqrt(variance)
    mean = float(values.mean())
    return mean, mean - half_width, mean + half_width


def cell_text(estimate: tuple[float, float, float]) -> str:
    """Return "mean [low, high]"."""
    mean, low, high = estimate
    if math.isnan(mean):
        return "-"
    return f"{mean:.3f}" if math.isnan(low) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def classify(estimate: tuple[float, float, float], limit: float) -> str:
    """Return holds, reversed, absent or open for a difference that is claimed to be above zero."""
    _, low, high = estimate
    if math.isnan(low):
        return "open"
    if low > 0:
        return "holds"
    if high < 0:
        return "reversed"
    return "absent" if -limit < low and high < limit else "open"


def verdict(parts: list[str]) -> str:
    """Return the verdict of a claim from its differences on all data sets."""
    if parts and all(part == "holds" for part in parts):
        return "holds"
    return "does not hold" if {"reversed", "absent"} & set(parts) else "not decided"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]])


COMMANDS = """```
python benchmarks/studies/information/run.py --data DATA --encoder ENCODER --output RESULTS
python benchmarks/studies/information/run.py --output RESULTS --report docs/studies
```"""
Contrast = tuple[str, str, Callable[[Rows], tuple[np.ndarray, np.ndarray]]]  # what, measure, its two sides


def between(name: str, first: dict[str, Any], second: dict[str, Any], other: str = "") -> Any:
    """Return a function that gives the two sides of a difference: cells `first` less cells `second`."""
    return lambda rows: (matrix(select(rows, **first), name), matrix(select(rows, **second), other or name))


def differences(rows: Rows, contrasts: list[Contrast]) -> tuple[str, list[str]]:
    """Return a table of the differences on each data set, and the class of each."""
    sets = sorted({row["cell"]["dataset"] for row in rows})
    lines, parts = [], []
    for what, measure, sides in contrasts:
        line = [what, measure, f"{LIMITS[measure]:g}"]
        for name in sets:
            first, second = sides(select(rows, dataset=name))
            estimate = interval(first - second)
            parts.append(classify(estimate, LIMITS[measure]))
            line.append(f"{cell_text(estimate)} {parts[-1]}")
        lines.append(line)
    return table(["difference", "of", "limit", *sets], lines), parts


def claim_information(rows: Rows) -> tuple[str, str]:
    """(i) Additive and deep attention keep more information of states and output than scaled dot product."""
    dot = {"attention": "trained", "score": "scaled_dot"}
    body, more = [], []
    for score in SCORES[:2]:
        cells, what = {**dot, "score": score}, f"{score} less scaled_dot"
        body.append((what, "share", between("share", cells, dot)))
        more.append((f"{what}, information weighted by attention", "nats", between("attended", cells, dot)))
    first, parts = differences(rows, body)
    second, _ = differences(rows, more)
    text = (
        "The first table shows the share I(h; Y) / I(X; Y) of the output's information that the state with the largest "
        "weight has.\nThe second table, which is not part of the verdict, shows sum_i a_i KL(q(Y|h_i) || q(Y)) instead."
        "\n\n"
    )
    return f"{text}{first}\n\n{second}", verdict(parts)


def claim_importance(rows: Rows) -> tuple[str, str]:
    """(ii) Additive attention learns to weigh its inputs by importance."""
    trained = {"score": "additive", "attention": "trained"}
    frozen, uniform = {"score": "additive", "attention": "frozen"}, {"attention": "uniform"}
    body, parts = differences(
        rows,
        [
            ("trained less frozen random", "accuracy", between("correct", trained, frozen)),
            ("trained less uniform", "accuracy", between("correct", trained, uniform)),
            ("trained less permuted", "accuracy", between("correct", trained, trained, "correct_permuted")),
            ("tau-b with token information, trained less frozen random", "tau", between("tau", trained, frozen)),
            ("information attended less mean of the tokens", "nats", between("attended", trained, trained, "average")),
        ],
    )
    return body, verdict(parts)


def claim_flat(rows: Rows) -> tuple[str, str]:
    """(iii) Where attention values are nearly the same, their order does not agree with the order of information."""
    sets, lines, parts, pairs = sorted({row["cell"]["dataset"] for row in rows}), [], [], []
    for name in sets:
        some = select(rows, dataset=name, attention="trained")
        spread = np.array([row["texts"]["spread"] for row in some])
        tau = np.array([row["texts"]["tau"] for row in some])
        low, high = np.nanquantile(spread[np.isfinite(tau)], [1 / 3, 2 / 3])
        groups = []
        for inside in (spread <= low, (spread > low) & (spread <= high), spread > high):
            kept = [{**row, "texts": {"tau": np.where(i, t, math.nan)}} for row, i, t in zip(some, inside, tau)]
            groups.append(matrix(kept, "tau"))
        contrast = interval_of_groups(groups[0], groups[2])
        flattest = interval_with_gaps(groups[2])
        low_enough = "holds" if flattest[2] < LOW_TAU else "absent" if flattest[1] > LOW_TAU else "open"
        parts += [classify(contrast, LIMITS["tau"]), low_enough]
        lines.append(
            [
                name,
                f"{low:.2f}, {high:.2f}",
                *[cell_text(interval_with_gaps(g)) for g in groups],
                f"{cell_text(contrast)} {parts[-2]}",
                parts[-1],
            ]
        )
        sums = np.sum([row["texts"]["pairs"] for row in some], 0)
        pairs.append([name, *[f"{s / n:+.3f} ({n:.0f})" if n else "-" for s, n in sums.T]])
    header = ["data", "cut at H/ln n", "tau-b, uneven third", "middle", "flattest", "uneven less flattest", "below .1"]
    first = table(header, lines)
    second = table(["data", "< .05", ".05 to .2", ".2 to 1", "> 1"], pairs)
    text = (
        "Pairs of a trained head and a text are divided into thirds by how even the attention is. The claim requires "
        "that the\nagreement in the third with the most even attention is lower than in the third with the least even "
        "attention, and that\ntau-b there is below .1.\n\n"
    )
    more = (
        "\n\nThe next table groups pairs of tokens by |ln a_i - ln a_j| and shows the mean sign agreement with "
        "information (and the\nnumber of pairs).\n\n"
    )
    return f"{text}{first}{more}{second}", verdict(parts)


def interval_with_gaps(values: np.ndarray) -> tuple[float, float, float]:
    """Return the same as `interval` where some (seed, text) have no value: means of the others."""
    with np.errstate(all="ignore"):
        seeds = np.nansum(values, 1) / np.isfinite(values).sum(1)
        counts = np.isfinite(values).sum(0)
        texts = (np.nansum(values, 0) / counts)[counts > 0]
    if len(seeds) < 2 or len(texts) < 2 or not np.isfinite(seeds).all():
        return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan, math.nan, math.nan
    half_width = float(scipy.special.stdtrit(len(seeds) - 1, 0.975))
    half_width *= math.sqrt(seeds.var(ddof=1) / len(seeds) + texts.var(ddof=1) / len(texts))
    return float(seeds.mean()), float(seeds.mean() - half_width), float(seeds.mean() + half_width)


def interval_of_groups(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Return the difference of two groups that may have different texts."""
    left, right = interval_with_gaps(first), interval_with_gaps(second)
    mean, half_width = left[0] - right[0], math.hypot(left[0] - left[1], right[0] - right[1])
    return mean, mean - half_width, mean + half_width


def claim_skew(rows: Rows) -> tuple[str, str]:
    """(iv) Gumbel-softmax with a temperature below one gives more skewed attention than softmax."""
    softmax = {"attention": "trained", "normalizer": "softmax", "temperature": 1.0}
    temperatures = sorted({row["cell"]["temperature"] for row in select(rows, normalizer="gumbel")})

    def sides(measure: str, noise: dict[str, Any], other: dict[str, Any]) -> Any:
        if measure != "spread":
            return between(measure, noise, other)
        return lambda data: between(measure, noise, other)(data)[::-1]  # less entropy is more skew

    contrasts: dict[str, list[Contrast]] = {"claim": [], "control": []}
    for temperature in temperatures:
        noisy = {"attention": "trained", "normalizer": "gumbel", "temperature": temperature}
        tempered = {**softmax, "temperature": temperature}
        for measure in ("spread", "gini", "largest"):
            name = "H/ln n, softmax less Gumbel" if measure == "spread" else f"{measure}, Gumbel less softmax"
            kind = "claim" if temperature < 1 else "control"
            contrasts[kind].append((f"{name} at {temperature:g}", measure, sides(measure, noisy, softmax)))
            if temperature < 1 and select(rows, **tempered):
                contrasts["control"].append(
                    (f"{name} both at {temperature:g}", measure, sides(measure, noisy, tempered))
                )
                name = name.replace("Gumbel", "tempered softmax")
                contrasts["control"].append((f"{name} at {temperature:g}", measure, sides(measure, tempered, softmax)))
    first, parts = differences(rows, contrasts["claim"])
    second, _ = differences(rows, contrasts["control"])
    note = "The controls are a temperature without noise, and noise at temperatures of one and above."
    return f"{first}\n\n{note}\n\n{second}", verdict(parts)


def claim_combinations(rows: Rows) -> tuple[str, str]:
    """(v) Some combinations, such as BiLSTM with additive attention, keep the two orders closer."""
    bilstm = {"attention": "trained", "score": "additive", "recurrence": "bilstm"}
    body, parts = differences(
        rows,
        [
            (
                f"BiLSTM + additive less {recurrence} + {score}",
                "tau",
                between("tau", bilstm, {"attention": "trained", "score": score, "recurrence": recurrence}),
            )
            for recurrence in ("none", "bilstm")
            for score in SCORES
            if (recurrence, score) != ("bilstm", "additive")
        ],
    )
    return body, verdict(parts)


CLAIMS = (claim_information, claim_importance, claim_flat, claim_skew, claim_combinations)


def mean_of(values: Any) -> float:
    """Return the mean of what is finite; NaN where nothing is."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else math.nan


def grid_table(rows: Rows) -> str:
    """Return one line for each combination, over data sets and seeds, means only."""
    groups: dict[tuple[Any, ...], Rows] = defaultdict(list)
    for row in rows:
        cell = row["cell"]
        score = "-" if cell["attention"] == "uniform" else cell["score"]
        normalizer = f"{cell['normalizer']} {cell['temperature']:g}"
        groups[(cell["dataset"], cell["recurrence"], score, normalizer, cell["attention"])].append(row)
    lines = []
    for key, members in groups.items():
        means = [mean_of([value for row in members for value in row["texts"][name]]) for name in COLUMNS]
        lines.append([*key, *["-" if math.isnan(mean) else f"{mean:.3f}" for mean in means]])
    header = ["data", "recurrence", "score", "normalizer", "attention", "accuracy", "permuted"]
    header += ["MI kept", "tau-b", "H/ln n", "Gini", "largest"]
    return table(header, sorted(lines))


def figure(rows: Rows, path: Path) -> None:
    """Save rank agreement over evenness of attention, a point for each trained head, a panel for each data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets = sorted({row["cell"]["dataset"] for row in rows})
    figure_, axes = pyplot.subplots(1, len(sets), figsize=(4 * len(sets), 3.4), sharey=True, squeeze=False)
    for axis, name in zip(axes[0], sets):
        for score, color in zip(SCORES, ("#0072b2", "#e69f00", "#009e73")):
            for recurrence, marker in (("none", "o"), ("bilstm", "^")):
                some = select(rows, dataset=name, score=score, recurrence=recurrence, attention="trained")
                x, y = ([mean_of(row["texts"][key]) for row in some] for key in ("spread", "tau"))
                axis.scatter(x, y, s=14, c=color, marker=marker, alpha=0.7, label=f"{score}, {recurrence}")
        axis.set(title=name, xlabel="H(attention) / ln n")
        axis.axhline(0, color="gray", linewidth=0.6)
    axes[0][0].set_ylabel("tau-b with token information")
    axes[0][-1].legend(fontsize=6)
    figure_.tight_layout()
    figure_.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure_)


def made_on(results: Path) -> str:
    """Return hardware, duration and memory of the runs; "" before the first has ended."""
    runs = read_rows(results / "runs.jsonl")
    if not runs:
        return ""
    hardware = runs[-1]["hardware"]
    peak, longest = (max(run[name] for run in runs) for name in ("peak_gib", "minutes"))
    took = f"{len(runs)} processes, the longest {longest:.0f} minutes, at most {peak:.1f} GiB each"
    return f" ({hardware['cpu']}, {hardware['cores']} cores, torch {runs[-1]['versions']['torch']}; {took})"


def write_report(results: Path, folder: Path) -> str:
    """Write information.md and information.png into the folder; return the verdicts, a line each."""
    rows = load(results)
    seeds = sorted({row["cell"]["seed"] for row in rows})
    ceilings = [share for row in rows if math.isfinite(share := row["mi"]["share"][2])]
    trained = read_rows(results / "trained.jsonl")
    cpu = sum(line["cpu_seconds"] for line in [*trained, *rows]) / 3600
    sections, verdicts = [], []
    for claim in CLAIMS:
        body, result = claim(rows)
        title = (claim.__doc__ or "").strip()
        sections.append(f"## {title}\n\n{body}\n\n**Verdict: {result}.**")
        verdicts.append(f"{title} {result.upper()}")
    figure(rows, folder / "information.png")
    check = f"{np.mean(ceilings):.3f} on average ({np.min(ceilings):.3f} to {np.max(ceilings):.3f})"
    head = (
        f"{len(rows)} heads, {len(seeds)} seeds, {cpu:.1f} hours of one CPU core{made_on(results)}.\n"
        f"Estimator of mutual information: {rows[0]['mi']['estimator']}. Self-check: the context, which the\n"
        f"classifier reads, must have all of the output's information; its share is {check}."
    )
    summary = table(["claim (arXiv 2211.07714)", "verdict"], [v.rsplit(". ", 1) for v in verdicts])
    parts = [
        "# Does attention keep information, and does its order follow information?",
        "Generated by `benchmarks/studies/information/run.py --report`; do not edit. "
        "What was done: docs/methods/heads.md.",
        COMMANDS,
        head,
        summary,
        METHOD,
        "![rank agreement over evenness of attention](information.png)",
        *sections,
        "## All combinations",
        "Means over seeds and test texts.",
        grid_table(rows),
    ]
    page = "\n\n".join(parts)
    (folder / "information.md").write_text(page + "\n", encoding="utf-8")
    return "\n".join(verdicts)
