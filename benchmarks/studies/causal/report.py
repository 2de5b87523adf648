"""The page of the causal study: tables with intervals, targets, a verdict for each claim, and figures."""

import math
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import scipy.stats

from benchmarks.common import read_rows
from hf_attn_mi.evaluation import estimate

Lines = list[dict[str, Any]]
CONTROLS = ("null-space noise", "visible noise", "uniform", "permuted")
WORST, RESIDUAL, SUMS = 1e-3, 1e-6, 1e-6  # what a certificate allows of rounding in float32
TEETH = 100.0  # visible noise has to move the logits this much more than null-space noise
ROLE = 0.02  # an accuracy that uniform attention loses at most, where attention plays no role
KEEP = 0.9  # of the probability, by a token set
FEWEST = 20  # inputs with changed rows that decide for a suite
NEEDED = 4  # data sets that decide a claim
PROTOTYPE = {"sst2": 10, "agnews": 23, "imdb": 14}
HOW = f"""Every input is run with efficient rows in the place of attention, in all layers and heads, each layer's from
its own states. Means have 95 % bootstrap intervals over inputs, shares exact binomial ones (Clopper and Pearson) and
medians order statistics. Verdicts, fixed before the full run:

- claim 1 holds on a suite if every prediction is kept, no logit changes by more than {WORST:g} of the largest, and
  noise of the same norm that the outputs can see moves them at least {TEETH:g} times as much (median) as null-space
  noise;
- claim 2 if rows sum to one to {SUMS:g} and no weight is negative;
- claim 3 if every row was proved optimal and a certificate costs at most 3 times an explanation with efficient rows;
- claim 4 if residuals are at most {RESIDUAL:g}, no kept key of a checked row can go, and attention plays a role:
  uniform attention costs accuracy (the interval of the paired difference lies above zero). It plays no role where that
  interval lies below {ROLE:g}.

Suites with fewer than {FEWEST} inputs whose rows changed decide nothing: with n <= rank there is one row only. A claim
holds if it holds on all suites that decide and these are {NEEDED} data sets or more; it does not hold if it fails on
one; else it is not decided."""
FAMILIES = """MiniLM models are one pretrained BERT encoder (6 layers, 12 heads of 32), all weights fine-tuned. Other
families: the embedded model is a small BERT of this package, with a vocabulary of its own, distilled on SST-2 from
random layers; ModernBERT (rotary positions, every other layer with a sliding window of 32 tokens, gated feed-forward,
norms before the blocks) and DeBERTa-v2 (disentangled relative positions) are trained from scratch on one data set with
heads of 16 dimensions, so that short texts have something to replace, too. With heads of d dimensions, rows of d + 1 or
fewer keys are the only ones with their output."""
TOKENS = """Two-sided sets of tokens (docs/methods/minimal_tokens.md): the set suffices, the rest does not, and no
single token of the set can go; keep 0.9, a budget of 200 forwards. Cost in forwards of the whole input. A ranking
costs 1 (attention), 3 (relevance: a forward, and a backward that counts as two), 150 (integrated gradients, 50 steps),
a forward for each token and one more (feature_ablation, leave-one-out), or none (random). CPU of both: measured over
that of a plain forward, with the Python around the passes. Medians are over inputs with a set."""
COMMANDS = """```
cd benchmarks/studies/causal
python models.py --data DATA --encoder ENCODER --tokenizer MODELS/minilm-sentiment --output MORE
python run.py --data DATA --models MODELS MORE --output RESULTS
python run.py --output RESULTS --report ../../../docs/studies
```"""


def load(folder: Path, part: str) -> Lines:
    """Return the lines of a part."""
    return read_rows(folder / f"{part}.jsonl")


def of(lines: Lines, suite: str) -> Lines:
    """Return the lines of a suite."""
    return [line for line in lines if line["suite"] == suite]


def number(value: float) -> str:
    """Return a number in three digits; "-" where there is none."""
    if math.isnan(value):
        return "-"
    return f"{value:.1e}" if value and not 0.001 <= abs(value) < 1e5 else f"{value:.3g}"


def mean(values: Iterable[float | None]) -> str:
    """Return "mean [low, high]"."""
    found = estimate([None if value is None else float(value) for value in values])
    if found.mean is None:
        return "-"
    if found.interval is None:
        return f"{found.mean:.3f}"
    return f"{found.mean:.3f} [{found.interval[0]:.3f}, {found.interval[1]:.3f}]"


def exact(hits: int, count: int) -> tuple[float, float]:
    """Return the Clopper-Pearson 95 % interval of a share."""
    low = 0.0 if hits == 0 else float(scipy.stats.beta.ppf(0.025, hits, count - hits + 1))
    high = 1.0 if hits == count else float(scipy.stats.beta.ppf(0.975, hits + 1, count - hits))
    return low, high


def share(flags: Iterable[bool]) -> str:
    """Return "hits / count (share [low, high])"."""
    known = list(flags)
    if not known:
        return "-"
    low, high = exact(sum(known), len(known))
    return f"{sum(known)} / {len(known)} ({sum(known) / len(known):.1%} [{low:.1%}, {high:.1%}])"


def ends(values: Iterable[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median from order statistics; NaN for fewer than six values."""
    known = sorted(values)
    if len(known) < 6:
        return math.nan, math.nan
    low = int(scipy.stats.binom.ppf(0.025, len(known), 0.5))
    return known[max(0, low - 1)], known[min(len(known) - 1, len(known) - low)]


def median(values: Iterable[float]) -> str:
    """Return "median [low, high]"."""
    known = list(values)
    if not known:
        return "-"
    low, high = ends(known)
    middle = number(statistics.median(known))
    return middle if math.isnan(low) else f"{middle} [{number(low)}, {number(high)}]"


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]])


def control(lines: Lines, name: str, place: int) -> list[Any]:
    """Return one entry (relative change, kept, probability) of a control, where it was run."""
    return [line["controls"][name][place] for line in lines if line["controls"].get(name)]


def role(lines: Lines) -> tuple[str, str]:
    """Return the accuracy that uniform attention costs, and what that says."""
    lost = [float(line["predicted"] == line["label"]) - float(line["uniform"] == line["label"]) for line in lines]
    found = estimate(lost)
    if found.interval is None or found.inputs < FEWEST:
        return mean(lost), "open"
    low, high = found.interval
    return mean(lost), "plays a role" if low > 0 else "plays no role" if high < ROLE else "open"


def teeth(lines: Lines) -> float:
    """Return by how much more visible noise moves the logits than null-space noise, medians; NaN without noise."""
    unseen, seen = (control(lines, name, 0) for name in CONTROLS[:2])
    return statistics.median(seen) / max(statistics.median(unseen), 1e-300) if unseen and seen else math.nan


def deciding(lines: Lines) -> bool:
    """Whether enough inputs have rows that could be replaced."""
    return sum(line["changed"] > 0 for line in lines) >= FEWEST


def judge(parts: dict[str, str], facts: dict[str, Any]) -> str:
    """Return the verdict over suites: each is "holds", "fails" or "-" (decides nothing)."""
    if "fails" in parts.values():
        return "does not hold"
    sets = {facts[name]["dataset"] for name, found in parts.items() if found == "holds"}
    return "holds" if len(sets) >= NEEDED else "not decided"


class Study:
    """The lines of a run, by part, and the facts of its suites."""

    def __init__(self, folder: Path) -> None:
        self.certificates, self.details = load(folder, "certificates"), load(folder, "details")
        self.tokens, self.speed = load(folder, "tokens"), load(folder, "speed")
        self.runs = load(folder, "runs")
        self.facts = {name: fact for run in self.runs for name, fact in run["suites"].items()}
        there = {line["suite"] for line in self.certificates}
        self.suites = [name for name in self.facts if name in there]

    def each(self, lines: Lines) -> list[tuple[str, Lines]]:
        """Return the suites that have lines of a part."""
        return [(name, mine) for name in self.suites if (mine := of(lines, name))]


def suites_table(study: Study) -> str:
    """Return what was judged on what, and for how many inputs there was anything to replace."""
    rows = []
    for name, mine in study.each(study.certificates):
        fact, count = study.facts[name], len(mine)
        trained = fact["trained"]
        note = "given" if trained is None else f"{trained['epochs']} epochs, {trained['train']} rows"
        rows.append(
            [
                name,
                f"{fact['model']} ({fact['type']})",
                fact["shape"],
                note,
                str(count),
                f"{statistics.mean(line['tokens'] for line in mine):.0f} ({max(line['tokens'] for line in mine)})",
                mean([line["predicted"] == line["label"] for line in mine]),
                str(sum(line["changed"] > 0 for line in mine)),
                f"{sum(line['changed'] for line in mine) / sum(line['rows'] for line in mine):.0%}",
            ]
        )
    header = ["suite", "model", "shape", "training", "inputs", "tokens, mean (most)", "accuracy"]
    return table([*header, "inputs with a changed row", "rows changed"], rows)


def claim_same(study: Study) -> tuple[str, dict[str, str]]:
    """(1) Efficient attention in the place of attention gives the same predictions."""
    parts, rows, controls, roles = {}, [], [], []
    for name, mine in study.each(study.certificates):
        some = [line for line in mine if line["changed"] > 0]
        kept, worst = all(line["kept"] for line in mine), max(line["relative"] for line in mine)
        fine = kept and worst <= WORST
        parts[name] = "fails" if not fine else "holds" if deciding(mine) and teeth(mine) >= TEETH else "-"
        others = [line["forms"] for line in of(study.details, name)]
        rows.append(
            [
                name,
                share(line["kept"] for line in mine),
                f"{sum(line['kept'] for line in some)} / {len(some)}",
                median(line["relative"] for line in some),
                number(worst),
                *[
                    f"{sum(one[form]['kept'] for one in others)} / {len(others)}, "
                    f"{number(max((one[form]['relative'] for one in others), default=0.0))}"
                    for form in ("effective", "effective_affine")
                ],
                parts[name],
            ]
        )
        controls.append(
            [
                name,
                *[
                    f"{median(control(mine, one, 0))}; kept {statistics.mean(control(mine, one, 1)):.1%}"
                    if control(mine, one, 0)
                    else "-"
                    for one in CONTROLS
                ],
                number(teeth(mine)),
            ]
        )
        lost, word = role(mine)
        roles.append(
            [
                name,
                *[
                    mean([line[rows_] == line["label"] for line in mine])
                    for rows_ in ("predicted", "uniform", "permuted")
                ],
                lost,
                f"attention {word}" if word != "open" else "open",
            ]
        )
    header = ["suite", "predictions kept", "of inputs with a changed row", "change of the logits there, median"]
    body = table([*header, "worst", "effective: kept, worst", "affine: kept, worst", "claim"], rows)
    second = table(["suite", *CONTROLS, "visible / null-space noise"], controls)
    third = table(["suite", "accuracy", "uniform attention", "permuted", "lost by uniform", ""], roles)
    text = (
        f"{body}\n\nControls in the same places: median relative change of the logits, share of predictions kept. The "
        f"noise has the norm\nof (efficient row - row), row by row.\n\n{second}\n\nDoes attention play a role at all? "
        f"The same model with uniform rows, and with each row's weights permuted among its keys:\n\n{third}"
    )
    return text, parts


def claim_distribution(study: Study) -> tuple[str, dict[str, str]]:
    """(2) Efficient attention is a probability distribution."""
    parts, rows, apart = {}, [], []
    for name, mine in study.each(study.certificates):
        off, least = max(line["sum_error"] for line in mine), min(line["smallest_weight"] for line in mine)
        fine = off <= SUMS and least >= 0
        parts[name] = "fails" if not fine else "holds" if deciding(mine) else "-"
        rows.append([name, str(sum(line["rows"] for line in mine)), number(off), number(least), parts[name]])
    for name, mine in study.each(study.details):
        cells = []
        for form in ("efficient", "effective", "effective_affine"):
            layers = [[layer[form] for layer in line["layers"]] for line in mine]
            js, tv, negative = (
                [statistics.mean(layer[key] for layer in one) for one in layers] for key in ("js", "tv", "negative")
            )
            below = "" if form == "efficient" else f", negative {mean(negative)}"
            cells.append(f"JS {mean(js)}, TV {mean(tv)}{below}")
        apart.append([name, str(len(mine)), *cells])
    body = table(["suite", "rows", "largest error of a row sum", "smallest weight above zero", "claim"], rows)
    second = table(["suite", "inputs", "efficient", "effective", "affine"], apart)
    return (
        f"{body}\n\nHow far is each form from the model's own rows? Jensen-Shannon divergence in nats (at most ln 2 = "
        f"0.693) and half the L1\ndistance, mean over rows, heads, layers. Effective rows are no distributions: for JS "
        f"their absolute weights are divided\nby their sum; `negative` is the mass below zero of a row.\n\n{second}"
    ), parts


def claim_computable(study: Study) -> tuple[str, dict[str, str]]:
    """(3) Efficient attention is effectively computable."""
    parts, rows = {}, []
    for name, mine in study.each(study.speed):
        proved = of(study.certificates, name)
        unproved = sum(line["unproved"] for line in proved)
        ratios = [line["certify"] / line["efficient"] for line in mine]
        each = [1e6 * (line["efficient"] - line["attention"]) / line["rows"] for line in mine]
        fine = unproved == 0 and statistics.median(ratios) <= 3
        parts[name] = "fails" if not fine else "holds" if deciding(proved) else "-"
        forward, explained, certified = (
            1000 * statistics.mean(line[key] for line in mine) for key in ("forward", "efficient", "certify")
        )
        rows.append(
            [
                name,
                str(len(mine)),
                f"{statistics.mean(line['tokens'] for line in mine):.0f}",
                f"{forward:.0f}",
                f"{explained:.0f}",
                f"{certified:.0f}",
                median(ratios),
                f"{statistics.median(each):.0f}",
                f"{unproved} of {sum(line['rows'] for line in proved)}",
                parts[name],
            ]
        )
    header = ["suite", "inputs", "tokens", "forward, ms", "explain, efficient rows, ms", "certify, ms"]
    body = table([*header, "certify / explain", "us a row", "rows not proved optimal", "claim"], rows)
    return f"CPU time of one thread, models and tokenizer loaded, kernels compiled.\n\n{body}", parts


def claim_necessary(study: Study) -> tuple[str, dict[str, str]]:
    """(4) Efficient attention is minimally necessary and sufficient, for tasks that need context."""
    parts, rows = {}, []
    for name, mine in study.each(study.certificates):
        some = [line for line in mine if line["changed"] > 0 and line["necessity"] is not None]
        residual = max(line["residual"] for line in mine)
        least = min((line["necessity"] for line in some), default=math.nan)
        fine = residual <= RESIDUAL and all(line["necessity"] > 0 for line in some)
        word = role(mine)[1]
        parts[name] = "fails" if not fine else "holds" if deciding(mine) and word == "plays a role" else "-"
        rows.append(
            [
                name,
                mean([line["support"] for line in some]),
                str(max((line["support_max"] for line in some), default=0)),
                mean([line["dropped"] for line in some]),
                number(residual),
                str(sum(line["checked"] for line in some)),
                number(least),
                median(line["necessity_median"] for line in some),
                share(line["firm"] for line in some),
                word,
                parts[name],
            ]
        )
    header = ["suite", "keys with weight, mean", "most", "share of keys dropped", "largest residual", "rows checked"]
    header += ["smallest miss without a key", "median row's smallest miss", "inputs with firm rows only", "attention"]
    body = table([*header, "claim"], rows)
    text = (
        "Inputs with a changed row. Necessity: over all kept keys of the checked rows, how far the head's output is "
        "missed without\nthat key, relative to its size. A miss below the precision of float32 (1e-7) is not firm: "
        f"necessary for the exact output,\nand nobody would notice.\n\n{body}\n\n{identifiable_table(study)}\n\n"
        f"{curve_table(study)}"
    )
    return text, parts


def identifiable_table(study: Study) -> str:
    """Return which sampled weights the outputs determine."""
    rows = []
    for name, mine in study.each(study.details):
        cells = []
        for kind in ("random", "top"):
            found = [one["intervals"][kind] for one in mine]
            for width in (0.01, 0.05):
                cells.append(mean([statistics.mean(wide <= width for wide, _, _ in one) for one in found]))
            cells.append(mean([statistics.mean(forced for _, forced, _ in one) for one in found]))
        count = sum(len(one["intervals"]["random"]) + len(one["intervals"]["top"]) for one in mine)
        rows.append([name, f"{count} of {len(mine)} inputs", *cells])
    header = ["suite", "weights", "random keys: to .01", "to .05", "forced", "two largest of a row: to .01", "to .05"]
    return (
        "Identifiable weights, by linear programs: the share whose interval is at most so wide, and the share in "
        "every\nexplanation of the output (forced).\n\n" + table([*header, "forced"], rows)
    )


def curve_table(study: Study) -> str:
    """Return support against tolerance, by layer."""
    rows = []
    for name, mine in study.each(study.details):
        for layer in range(len(mine[0]["layers"])):
            curves = [line["layers"][layer]["curve"] for line in mine]
            rows.append([name, str(layer), *[mean(column) for column in zip(*curves)]])
    header = ["suite", "layer", "exact", "1 %", "5 %", "10 %"]
    return "Keys that a row needs to come within a share of ||o - mean v|| (mean over sampled rows):\n\n" + table(
        header, rows
    )


def tokens_table(study: Study) -> str:
    """Return minimal token sets from each start, with the cost of its ranking; starts compared on the same inputs."""
    rows = []
    for name, mine in study.each(study.tokens):
        starts = list(dict.fromkeys(line["start"] for line in mine))
        for start in starts:
            some = [line for line in mine if line["start"] == start]
            there = [line for line in some if line["defined"]]
            both = paired(mine, start)
            rows.append(
                [
                    name,
                    start,
                    share(line["defined"] for line in some),
                    share(line["minimal"] for line in there),
                    median([line["size"] for line in there]),
                    median([line["forwards"] for line in there]),
                    median([cost(line) for line in there]),
                    "-" if start == "relevance" else f"{median(both)} ({len(both)})",
                    median([line["ranking"] + line["search"] for line in there]),
                    mean([line["p_rest"] for line in there]),
                    share(line["true"] for line in some),
                ]
            )
    header = ["suite", "start", "defined", "inclusion-minimal", "tokens of the set", "search, forwards"]
    header += ["search and ranking", "the same less relevance's, same inputs (inputs)", "CPU of both, in forwards"]
    header += ["p(rest)", "re-checks true"]
    return table(header, rows)


def cost(line: dict[str, Any]) -> float:
    """Return the forwards of search and ranking together."""
    return float(line["forwards"] + line["passes"])


def paired(mine: Lines, start: str) -> list[float]:
    """Return by how many forwards this start costs more than relevance, on the inputs that both were run on."""
    base = {line["index"]: cost(line) for line in mine if line["start"] == "relevance" and line["defined"]}
    return [
        cost(line) - base[line["index"]]
        for line in mine
        if line["start"] == start and line["defined"] and line["index"] in base
    ]


def targets(study: Study) -> str:
    """Return what was aimed at, what was found, and whether that is met."""
    lines = study.certificates
    some = [line for line in lines if line["changed"] > 0]
    unseen, seen = control(some, CONTROLS[0], 0), control(some, CONTROLS[1], 0)
    middle = statistics.median([line["relative"] for line in some]) if some else math.nan
    rows: list[tuple[str, str, bool]] = [
        (
            "predictions kept on every input, 2,000 or more",
            share(line["kept"] for line in lines),
            all(line["kept"] for line in lines) and len(lines) >= 2000,
        ),
        ("median relative change of the logits <= 1e-5 (inputs with a changed row)", number(middle), middle <= 1e-5),
        (
            "worst <= 1e-3",
            number(max(line["relative"] for line in lines)),
            max(line["relative"] for line in lines) <= 1e-3,
        ),
        (
            "residual of rows <= 1e-6",
            number(max(line["residual"] for line in lines)),
            max(line["residual"] for line in lines) <= 1e-6,
        ),
        (
            "null-space noise moves the logits by <= 1e-4",
            f"{number(max(unseen, default=math.nan))}; {sum(x > 1e-4 for x in unseen)} of {len(unseen)} inputs above",
            max(unseen, default=math.nan) <= 1e-4,
        ),
        (
            "visible noise of the same norm: >= 100 times more (median)",
            number(statistics.median(seen) / statistics.median(unseen)) if seen else "-",
            bool(seen) and statistics.median(seen) >= 100 * statistics.median(unseen),
        ),
    ]
    ratios = [line["certify"] / line["efficient"] for line in study.speed]
    if ratios:
        found = statistics.median(ratios)
        rows.append(("certify <= 3 times explain with efficient rows (median)", number(found), found <= 3))
    for name, mine in study.each(study.tokens):
        main = [line for line in mine if line["start"] == "relevance"]
        there = [line for line in main if line["defined"]]
        default = sum(line["p_special"] >= KEEP * line["p_all"] for line in main if not line["defined"])
        rest = f"; on {default} of the others special tokens alone keep it" if len(there) < len(main) else ""
        rows += [
            (
                f"{name}: every token set re-checks true (all starts)",
                share(line["true"] for line in mine),
                all(line["true"] for line in mine),
            ),
            (
                f"{name}: defined on >= 90 % of 100",
                share(line["defined"] for line in main) + rest,
                len(main) >= 100 and len(there) >= 0.9 * len(main),
            ),
        ]
        limit = PROTOTYPE.get(study.facts[name]["dataset"])
        if limit and there:
            found = statistics.median(line["forwards"] for line in there)
            rows.append(
                (
                    f"{name}: search costs at most the prototype's {limit} forwards (median)",
                    number(found),
                    len(there) >= FEWEST and found <= limit,
                )
            )
        starts = [start for start in dict.fromkeys(line["start"] for line in mine) if start != "relevance"]
        more = {start: paired(mine, start) for start in starts}
        if starts and all(more.values()):
            least = min(starts, key=lambda start: statistics.median(more[start]))
            rows.append(
                (
                    f"{name}: relevance is the cheapest start, its ranking counted",
                    f"{least} is next: {median(more[least])} forwards more ({len(more[least])})",
                    len(more[least]) >= FEWEST and ends(more[least])[0] > 0,
                )
            )
    body = table(["target", "found", ""], [[what, found, "met" if met else "MISSED"] for what, found, met in rows])
    rule = f"A median of fewer than {FEWEST} inputs meets no target; cheapest: the whole interval lies above zero."
    return f"{rule}\n\n{body}"


def figure(study: Study, path: Path) -> None:
    """Save three panels: controls, support against tolerance, cost of token sets."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, (left, middle, right) = pyplot.subplots(1, 3, figsize=(15, 5), layout="constrained")
    names = ["efficient", *CONTROLS]
    colors = ["#0072b2", "#009e73", "#d55e00", "#e69f00", "#cc79a7"]
    parts = study.each(study.certificates)
    for number_, (_, mine) in enumerate(parts):
        some = [line for line in mine if line["changed"] > 0] or mine
        for place, (kind, color) in enumerate(zip(names, colors)):
            values = [line["relative"] for line in some] if kind == "efficient" else control(some, kind, 0)
            if values:
                left.boxplot(
                    [[max(value, 1e-9) for value in values]],
                    positions=[number_ + 0.16 * (place - 2)],
                    widths=0.13,
                    showfliers=False,
                    patch_artist=True,
                    boxprops={"facecolor": color},
                    medianprops={"color": "black"},
                )
    left.set_yscale("log")
    left.set_xticks(range(len(parts)), [name.replace(", ", "\n") for name, _ in parts], rotation=45, fontsize=7)
    left.set_ylabel("relative change of the logits")
    left.legend([pyplot.Rectangle((0, 0), 1, 1, facecolor=c) for c in colors], names, fontsize=7)
    for name, mine in study.each(study.details):
        means = [statistics.mean(layer["curve"][i] for line in mine for layer in line["layers"]) for i in range(4)]
        middle.plot(["exact", "1 %", "5 %", "10 %"], means, marker="o", markersize=3, label=name)
    middle.set_ylabel("keys with weight, mean over rows")
    middle.set_xlabel("tolerance")
    if study.details:
        middle.legend(fontsize=7)
    bars = [
        (name, start, costs)
        for name, mine in study.each(study.tokens)
        for start in dict.fromkeys(line["start"] for line in mine)
        if (costs := [cost(line) for line in mine if line["start"] == start and line["defined"]])
    ]
    if bars:
        right.boxplot([costs for _, _, costs in bars], showfliers=False)
        right.set_xticks(range(1, len(bars) + 1), [f"{name}: {s}" for name, s, _ in bars], rotation=90, fontsize=7)
        right.set_yscale("log")
    right.set_ylabel("forwards of a minimal token set")
    drawn.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(drawn)


CLAIMS: tuple[Callable[[Study], tuple[str, dict[str, str]]], ...] = (
    claim_same,
    claim_distribution,
    claim_computable,
    claim_necessary,
)


def write_report(results: Path, folder: Path) -> str:
    """Write causal.md and causal.png into the folder; return the verdicts, a line each."""
    study = Study(results)
    seconds = sum(
        line["seconds"] for part in ("certificates", "details", "tokens", "speed") for line in getattr(study, part)
    )
    sections, verdicts = [], []
    for claim in CLAIMS:
        body, parts = claim(study)
        found = judge(parts, study.facts)
        title = (claim.__doc__ or "").strip()
        silent = [name for name, part in parts.items() if part == "-"]
        more = f" Nothing decided by: {', '.join(silent)}." if silent else ""
        sections.append(f"## {title}\n\n{body}\n\n**Verdict: {found}.**{more}")
        verdicts.append(f"{title} {found.upper()}")
    figure(study, folder / "causal.png")
    last = study.runs[-1]
    head = (
        f"{len(study.certificates)} inputs in {len(study.suites)} suites, {seconds / 60:.0f} minutes of one CPU core "
        f"({last['hardware']['cpu']}, torch {last['versions']['torch']}), float32."
    )
    planned = sum(fact["inputs"] for fact in study.facts.values())
    if len(study.certificates) < planned:
        head += f" **A part of the run**: {planned} inputs were planned for these suites."
    if last.get("left_out"):
        head += f" Left out, as their models were not there: {', '.join(last['left_out'])}."
    summary = table(["claim (arXiv 2410.18541)", "verdict"], [v.rsplit(". ", 1) for v in verdicts])
    page = "\n\n".join(
        [
            "# Is efficient attention the same prediction, minimally necessary and sufficient?",
            "Generated by `benchmarks/studies/causal/run.py --report`; do not edit. "
            "Definitions: docs/methods/certificates.md.",
            COMMANDS,
            head,
            summary,
            HOW,
            "## Targets",
            targets(study),
            "## Suites",
            FAMILIES,
            suites_table(study),
            "![controls, tolerance, cost of token sets](causal.png)",
            *sections,
            "## Minimal token sets of predictions",
            TOKENS,
            tokens_table(study),
        ]
    )
    (folder / "causal.md").write_text(page + "\n", encoding="utf-8")
    return "\n".join(verdicts)
