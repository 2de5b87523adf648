"""The page of the information study: tables, intervals, a verdict for each claim, a figure; from the stored rows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import Row, processors
from benchmarks.studies.information.estimates import (
    ABOVE,
    BELOW,
    Decision,
    Difference,
    Estimate,
    Results,
    Term,
    adjusted_for,
    decide,
    estimate,
    number,
    verdict,
)
from benchmarks.studies.information.kinds import ENTROPY, FROZEN, GROUPS, SCORES, UNIFORM, Kind

LIMITS = {  # smaller differences count as absent
    "accuracy": 0.005,
    "share": 0.02,
    "tau-b": 0.02,
    "nats": 0.005,
    "H/ln n": 0.01,
    "Gini": 0.01,
    "largest weight": 0.01,
    "sign agreement": 0.02,
}
LOW = 0.1  # agreement of orders that do not agree
GROUP_TITLES = ("< .05", ".05 to .2", ".2 to 1", "> 1")
SHAPES = (("spread", "H/ln n", -1), ("gini", "Gini", 1), ("largest", "largest weight", 1))  # +1: more is more skewed
PREVIOUS = {  # verdicts of the version of this page with three seeds and one learning rate for all heads
    "(i)": "holds",
    "(ii)": "not decided",
    "(iii)": "does not hold",
    "(iv)": "not decided",
    "(v)": "does not hold",
}
COMMANDS = """```
python benchmarks/studies/information/run.py --data DATA --encoder ENCODER --output RESULTS
python benchmarks/studies/information/run.py --output RESULTS --collect
python benchmarks/studies/information/run.py --report docs/studies
```

The last command alone writes this page from the stored rows (`benchmarks/studies/information/results`)."""
METHOD = """Each figure is a mean over heads and test texts. Seeds and texts are crossed and both vary, so that the
standard error is sqrt(s_seeds^2 / S + s_texts^2 / n), with the degrees of freedom of Welch and Satterthwaite. Mutual
information is one number for each head, so that its errors account for seeds only. Interval (95 %) and p-value are
those of the same statistic, mean / error with Student's t. The p-values in the tables are corrected by Holm over all
differences that decide a claim, those of all its tables and data sets together, for each claim apart. A difference
*holds* where it is above zero with p < .05, is *reversed* where it is below zero with p < .05, is *absent* where it
is nearer to zero than the limit in the table (two one-sided tests, each at .025, corrected by Holm as well), and is
*open* otherwise. A claim **holds** if every difference holds on every data set; it **does not hold** if one is
reversed or absent on at least one data set; otherwise it is **not decided**. For open differences a table shows the
smallest difference that would have been found with probability .8 (first step of Holm's correction). Tables say
whether they decide. Claim (v) is about some combinations and has a rule of its own."""


MATCHING = """The rules were changed once after a first look at five seeds: the temperatures were then set on training
texts, which left the entropies on the test texts unequal; for this page they are set on the test texts, for all
seeds. The second covariate table was added at the same time and does not decide."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def figure_text(value: float, digits: int = 3) -> str:
    """Return the number, "-" for none."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def estimate_text(value: Estimate) -> str:
    """Return "mean [low, high]"."""
    if math.isnan(value.error):
        return figure_text(value.mean)
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def p_text(p: float) -> str:
    """Return the p-value with three digits."""
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


@dataclass(frozen=True)
class Question:
    """One row of a table: its name and its terms, whose sum is claimed to be above zero."""

    name: str
    terms: tuple[Term, ...]


def between(
    name: str, measure: str, first: Sequence[Kind], second: Sequence[Kind], other: str | None = None
) -> Question:
    """Return the difference of two means over kinds, of a measure (the second of `other`)."""
    plus = [Term(kind, measure, 1 / len(first)) for kind in first]
    minus = [Term(kind, other or measure, -1 / len(second)) for kind in second]
    return Question(name, (*plus, *minus))


@dataclass(frozen=True)
class Part:
    """A table of one estimand: differences on each data set, and whether they decide the claim."""

    title: str
    measure: str  # a key of LIMITS
    rows: tuple[tuple[str, dict[str, Estimate]], ...]  # name, estimate on each data set
    decides: bool = True
    claim: str = ABOVE

    @property
    def differences(self) -> list[Difference]:
        """All of its differences."""
        limit = LOW if self.claim == BELOW else LIMITS[self.measure]
        return [
            Difference(name, dataset, limit, value, self.claim)
            for name, by_set in self.rows
            for dataset, value in by_set.items()
        ]


def part(results: Results, title: str, measure: str, questions: Sequence[Question], **fields: object) -> Part:
    """Return the table of these questions."""
    rows = [(q.name, {name: results.estimate(name, q.terms) for name in results.sets}) for q in questions]
    return Part(title, measure, tuple(rows), **fields)  # type: ignore[arg-type]


def claim_text(parts: Sequence[Part], sets: Sequence[str]) -> tuple[str, str]:
    """Return the tables of a claim with its power, and its verdict."""
    text, made = claim_tables(parts, sets)
    return text, verdict([decision for decisions in made for decision in decisions])


def claim_tables(parts: Sequence[Part], sets: Sequence[str]) -> tuple[str, list[list[Decision]]]:
    """Return the tables of a claim with its power, and the decisions of each table that decides."""
    decisions = iter(decide([item for one in parts if one.decides for item in one.differences]))
    by_part: list[list[Decision]] = []
    texts = []
    for one in parts:
        lines = []
        made: list[Decision] = []
        for name, by_set in one.rows:
            line = [name]
            for dataset in sets:
                text = estimate_text(by_set[dataset])
                if one.decides:
                    made.append(next(decisions))
                    text += f", {p_text(made[-1].p)}, {made[-1].word}"
                line.append(text)
            lines.append(line)
        if one.decides:
            by_part.append(made)
        limit = f"below {LOW:g}" if one.claim == BELOW else f"limit {LIMITS[one.measure]:g}"
        decides = f"decides; {limit}" if one.decides else "does not decide"
        texts.append(f"{one.title} ({one.measure}; {decides}):\n\n{table(['difference', *sets], lines)}")
    return "\n\n".join([*texts, power_text([one for made in by_part for one in made])]), by_part


def power_text(decisions: Sequence[Decision]) -> str:
    """Return the table of the open differences and what would have been found."""
    lines = []
    for one in decisions:
        item = one.difference
        if one.word == "open":
            found = [item.estimate.detectable(len(decisions)), item.estimate.detectable_with_any_seeds(len(decisions))]
            measured = [item.estimate.mean, *found]
            lines.append([item.name, item.dataset, str(item.estimate.seeds), *map(figure_text, measured)])
    if not lines:
        return "No difference is open."
    header = ["open difference", "data", "seeds", "measured", "found with probability .8", "with any number of seeds"]
    note = "The last column is for as many seeds as one likes, on these test texts; - where texts are not counted."
    return f"Power of the open differences. {note}\n\n{table(header, lines)}"


def share(row: Row, of: str = "nats") -> float:
    """Return the share of the output's information that the state with the largest weight has."""
    return number(row["mi"][of]["attended"]) / row["mi"]["ceiling"]


def proved(row: Row) -> float:
    """Return the same by the lower bound."""
    return share(row, "lower_bound")


def against_dot(results: Results, kinds: Sequence[Kind], value: object) -> list[Question]:
    """Return additive less scaled dot product, and deep less scaled dot product."""
    *others, dot = kinds
    return [
        Question(f"{one.score} less scaled_dot", (Term(one, "", 1.0, value), Term(dot, "", -1.0, value)))  # type: ignore[arg-type]
        for one in others
    ]


def adjusted_part(results: Results, kinds: Sequence[Kind], heads: str, *, decides: bool) -> Part:
    """Return the differences of the share at equal entropy, entropy as a covariate over the heads of these kinds."""
    by_name: dict[str, dict[str, Estimate]] = {f"{score} less scaled_dot": {} for score in SCORES[:2]}
    for dataset in results.sets:
        fits = []
        for seed in results.seeds(dataset, kinds):
            rows = [(kind.score, results.heads[dataset, kind.name][seed]) for kind in kinds]
            fits.append(adjusted_for([(score, row["means"]["spread"], share(row)) for score, row in rows], SCORES))
        for score in SCORES[:2]:
            by_name[f"{score} less scaled_dot"][dataset] = estimate(np.array([fit[score] for fit in fits]), None)
    title = f"Entropy as a covariate: share = constant + score + b H/ln n + c (H/ln n)^2 over {heads} of each seed"
    return Part(title, "share", tuple(by_name.items()), decides)


def claim_information(results: Results) -> tuple[str, str]:
    """(i) Additive and deep attention keep more information of states and output than scaled dot product."""
    free = [Kind(score) for score in SCORES]
    equal = [Kind(score, entropy=ENTROPY) for score in SCORES]
    trained = [kind for kind in GROUPS["main"] if kind.attention == "trained"]
    lines = []
    for dataset in results.sets:
        for title, kinds in (("as trained", free), (f"H/ln n = {ENTROPY:g}", equal)):
            for kind in kinds:
                lines.append([dataset, title, kind.score, *information_cells(results, dataset, kind)])
    header = ["data", "attention", "score", "lower bound", "upper bound", "estimate", "I(X; Y)", "H/ln n", "from", "to"]
    bounds = (
        "The state with the largest weight: bounds and estimate of its information about the head's output, nats, and "
        "the entropy of the attention (range over seeds); means over seeds. The bounds hold for any distribution; the "
        "upper one is that of the whole input, so that bounds alone cannot prove a difference between heads.\n\n"
        f"{table(header, lines)}"
    )
    parts = [
        part(
            results,
            f"Share I(h; Y) / I(X; Y) with the entropy matched: the temperature of each trained head is set so that "
            f"the mean of H/ln n is {ENTROPY:g} on the test texts, and its classifier is trained again",
            "share",
            against_dot(results, equal, share),
        ),
        adjusted_part(
            results,
            [kind for kind in trained if kind.entropy is None],
            "the 9 heads as trained [softmax, softmax at .5, Gumbel at .5]",
            decides=True,
        ),
        adjusted_part(results, trained, "the same 9 heads and the 3 with matched entropy", decides=False),
        part(results, "As trained, concentration not equal", "share", against_dot(results, free, share), decides=False),
        part(
            results,
            "Entropy matched, by the lower bounds in place of the estimates",
            "share",
            against_dot(results, equal, proved),
            decides=False,
        ),
    ]
    body, result = claim_text(parts, results.sets)
    text = f"{bounds}\n\n{MATCHING}\n\n{body}\n\n{signs_text(parts[0], parts[-1])}"
    return text, result + by_bounds(results, parts[0], parts[-1])


def opposite(by_estimate: Part, by_bound: Part) -> tuple[list[str], int]:
    """Return the differences where what is proved points another way than the estimate, and how many there are."""
    pairs = list(zip(by_estimate.differences, by_bound.differences, strict=True))
    return [f"{a.name} on {a.dataset}" for a, b in pairs if a.estimate.mean * b.estimate.mean < 0], len(pairs)


def by_bounds(results: Results, by_estimate: Part, by_bound: Part) -> str:
    """Return what a verdict by estimates of shares rests on, in parentheses, with what nats and bounds say."""
    other, count = opposite(by_estimate, by_bound)
    more, compared = more_nats(results)
    bounds = f"; {len(other)} of {count} lower bounds point the other way" if other else ""
    return f" (of the share; in nats {more} of {compared} means are higher{bounds})"


def more_nats(results: Results) -> tuple[int, int]:
    """Return in how many means over seeds additive and deep keep more nats than scaled dot product, and of how many."""
    gaps = []
    for entropy in (None, ENTROPY):
        kinds = [Kind(score, entropy=entropy) for score in SCORES]
        for dataset in results.sets:
            values = [
                mean(row["mi"]["nats"]["attended"] for row in results.heads[dataset, kind.name].values())
                for kind in kinds
            ]
            gaps += [value - values[-1] for value in values[:-1]]
    return sum(gap > 0 for gap in gaps), len(gaps)


def signs_text(by_estimate: Part, by_bound: Part) -> str:
    """Return in how many differences what is proved points another way than the estimate."""
    other, count = opposite(by_estimate, by_bound)
    if not other:
        return "Estimates and lower bounds point the same way in all differences with matched entropy."
    return (
        f"In {len(other)} of {count} differences with matched entropy ({', '.join(other)}) the lower bounds point "
        "the other way than the estimates.\nThe verdict on these rests on the estimator: the share of a head whose "
        "I(X; Y) is small is known less well, and its lower bound is a smaller part of it."
    )


def information_cells(results: Results, dataset: str, kind: Kind) -> list[str]:
    """Return bounds, estimate and ceiling in nats, and the entropy with its range over seeds."""
    rows = [results.heads[dataset, kind.name][seed] for seed in results.seeds(dataset, [kind])]
    names = ("lower_bound", "upper_bound", "nats")
    values = [mean(row["mi"][name]["attended"] for row in rows) for name in names]
    spread = [number(row["means"]["spread"]) for row in rows]
    values += [mean(row["mi"]["ceiling"] for row in rows), mean(spread), min(spread), max(spread)]
    return [figure_text(value) for value in values]


def claim_importance(results: Results) -> tuple[str, str]:
    """(ii) Additive attention learns to weigh its inputs by importance."""
    trained = [Kind("additive")]
    accuracy = [
        between("trained less frozen random", "correct", trained, [FROZEN]),
        between("trained less uniform", "correct", trained, [UNIFORM]),
        between("trained less permuted", "correct", trained, trained, "correct_permuted"),
    ]
    order = [between("trained less frozen random", "tau", trained, [FROZEN])]
    attended = [between("weighted by attention less mean of the tokens", "attended", trained, trained, "average")]
    parts = [
        part(results, "Accuracy", "accuracy", accuracy),
        part(results, "Kendall's tau-b of attention with the information of the tokens", "tau-b", order),
        part(results, "Information of the tokens", "nats", attended),
    ]
    return claim_text(parts, results.sets)


def claim_flat(results: Results) -> tuple[str, str]:
    """(iii) Where attention values are nearly the same, their order does not agree with the order of information."""
    kinds = [Kind(score) for score in SCORES]

    def means(measure: str) -> tuple[Term, ...]:
        return tuple(Term(kind, measure, 1 / len(kinds)) for kind in kinds)

    parts = [
        part(
            results,
            "Sign agreement in pairs of tokens whose log weights differ by less than .05",
            "sign agreement",
            [Question("nearly the same weights", means("pairs_0"))],
            claim=BELOW,
        ),
        part(
            results,
            "The same in pairs whose log weights differ by more than 1, less that in pairs below .05 of the same text",
            "sign agreement",
            [Question("different less nearly the same weights", means("far_less_near"))],
        ),
    ]
    lines, halves = [], []
    for dataset in results.sets:
        for rows, measure in ((lines, "pairs"), (halves, "halves")):
            values = [results.estimate(dataset, means(f"{measure}_{group}")) for group in range(4)]
            rows.append([dataset, *map(estimate_text, values)])
    for kind in kinds:
        for dataset in results.sets:
            values = [results.estimate(dataset, [Term(kind, f"pairs_{group}")]) for group in range(4)]
            lines.append([f"{dataset}, {kind.score} only", *map(estimate_text, values)])
    text = (
        "Pairs of tokens of a text are grouped by |ln a_i - ln a_j|. Sign agreement is the share of the pairs whose "
        f"order by attention\nis that by information, less the share of the others. Agreement below {LOW:g} counts as "
        f"none: the p-values of the first table are those of a mean of {LOW:g}.\nMeans over the three scores (softmax, "
        "trained)."
    )
    more = (
        f"Sign agreement by group (does not decide):\n\n{table(['data', *GROUP_TITLES], lines)}\n\n"
        "Sign agreement of the information by one half of the profile's texts with that by the other half: how far the "
        "order by information is known in the same pairs. Where it is as high in the first column as in the others, a "
        "low agreement above does not come from an unknown order (does not decide):\n\n"
        f"{table(['data', *GROUP_TITLES], halves)}"
    )
    body, result = claim_text(parts, results.sets)
    return f"{text}\n\n{body}\n\n{more}", result


def claim_skew(results: Results) -> tuple[str, str]:
    """(iv) Gumbel-softmax with a temperature below one gives more skewed attention than softmax."""
    parts = []
    noise = all(results.seeds(name, GROUPS["noise"]) for name in results.sets)

    def kinds(normalizer: str, temperature: float, scores: Sequence[str] = SCORES) -> list[Kind]:
        return [Kind(score, normalizer, temperature) for score in scores]

    for measure, title, sign in SHAPES:

        def skew(
            name: str, more: Sequence[Kind], less: Sequence[Kind], measure: str = measure, sign: int = sign
        ) -> Question:
            return between(name, measure, *((more, less) if sign > 0 else (less, more)))

        order = "more Gini, " if title == "Gini" else "larger largest weight, " if sign > 0 else "less entropy, "
        rows = [skew("Gumbel at .5 against softmax", kinds("gumbel", 0.5), kinds("softmax", 1.0))]
        parts.append(part(results, f"Skew ({order}positive: more skewed), mean over the three scores", title, rows))
        more = [
            skew(f"Gumbel at .5 against softmax, {s}", kinds("gumbel", 0.5, [s]), kinds("softmax", 1.0, [s]))
            for s in SCORES
        ]
        more.append(skew("softmax at .5 against softmax: no noise", kinds("softmax", 0.5), kinds("softmax", 1.0)))
        more.append(skew("Gumbel at .5 against softmax at .5: noise only", kinds("gumbel", 0.5), kinds("softmax", 0.5)))
        if noise:
            more.append(skew("Gumbel at 1 against softmax: noise only", kinds("gumbel", 1.0), kinds("softmax", 1.0)))
        parts.append(part(results, "Single scores and controls", title, more, decides=False))
    return claim_text(parts, results.sets)


def claim_combinations(results: Results) -> tuple[str, str]:
    """(v) Some combinations, such as BiLSTM with additive attention, keep the two orders closer."""
    plain, combined = ([Kind(score, recurrence=name) for score in SCORES] for name in ("none", "bilstm"))
    title = "Kendall's tau-b of attention with the information of the tokens"

    def less(one: Kind, others: Sequence[Kind], **fields: object) -> Part:
        name = f"BiLSTM + {one.score}"
        questions = [between(f"{name} less {x.recurrence} + {x.score}", "tau", [one], [x]) for x in others]
        return part(results, f"{title}, {name}", "tau-b", questions, **fields)

    parts = [less(one, plain) for one in combined]
    others = [one for one in combined if one.score != "additive"]
    parts.append(less(Kind("additive", recurrence="bilstm"), others, decides=False))
    body, made = claim_tables(parts, results.sets)
    by_name = {f"BiLSTM + {one.score}": verdict(decisions) for one, decisions in zip(combined, made, strict=True)}
    found = list(by_name.values())
    result = "holds" if "holds" in found else "not decided" if "not decided" in found else "does not hold"
    text = (
        "The claim is about some combinations. Each score with a BiLSTM is compared with every score without one, and "
        "the p-values are\ncorrected over all combinations together. The claim holds if all differences of at least "
        "one combination hold, and does not hold\nif one of each combination is reversed or absent. By combination: "
        f"{'; '.join(f'{name}: {word}' for name, word in by_name.items())}.\nAn earlier version of this page judged "
        "the claim by the example that it names, BiLSTM with additive attention, alone."
    )
    return f"{text}\n\n{body}", f"{result} ({'; '.join(f'{name}: {word}' for name, word in by_name.items())})"


CLAIMS = (claim_information, claim_importance, claim_flat, claim_skew, claim_combinations)


def mean(values: Iterable[float | None]) -> float:
    """Return the mean of what is finite; NaN where nothing is."""
    finite = [value for value in map(number, values) if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def grid_table(results: Results) -> str:
    """Return one line for each kind and data set, means over seeds and texts."""
    lines = []
    for (dataset, kind), by_seed in sorted(results.heads.items()):
        rows = list(by_seed.values())
        if not rows:
            continue
        figures = [mean(row["means"].get(name) for row in rows) for name in ("correct", "correct_permuted")]
        with_mi = [row["mi"] for row in rows if "mi" in row]
        figures += [mean(mi[name]["attended"] for mi in with_mi) for name in ("lower_bound", "upper_bound", "nats")]
        figures.append(mean(mi["ceiling"] for mi in with_mi))
        figures += [mean(row["means"].get(name) for row in rows) for name in ("tau", "spread", "gini", "largest")]
        lines.append([dataset, kind, str(len(rows)), *map(figure_text, figures)])
    header = ["data", "kind", "seeds", "accuracy", "permuted", "lower bound", "upper bound", "estimate", "I(X; Y)"]
    return table([*header, "tau-b", "H/ln n", "Gini", "largest"], lines)


def on_the_edge(rows: Sequence[Row]) -> int:
    """Return how many choices are the smallest or the largest rate, or the most epochs."""
    return sum(
        row["rate"] in (row["rates"][0], row["rates"][-1]) or row["epochs"] == len(row["accuracy"][0]) for row in rows
    )


def weakness_text(results: Results, sections: Sequence[str]) -> str:
    """Return what weakens the verdicts, counted in the rows and in the tables that decide."""
    equal = [Kind(score, entropy=ENTROPY) for score in SCORES]
    by_estimate, by_bound = (part(results, "", "share", against_dot(results, equal, one)) for one in (share, proved))
    other, count = opposite(by_estimate, by_bound)
    words = re.findall(r", p (?:< )?[\d.]+, (\w+)(?= \|)", "\n".join(sections))
    tuned = results.of("tuning")
    seeds = [f"{name} {len(results.seeds(name, GROUPS['main']))}" for name in results.sets]
    return (
        "What weakens these verdicts:\n\n"
        f"- {words.count('open')} of {len(words)} differences that decide are open: more seeds or texts are needed; "
        "the tables say how large a difference would have been found.\n"
        f"- {on_the_edge(tuned)} of {len(tuned)} choices of learning rate and epochs lie on the edge of the grid, "
        "where a wider grid may choose otherwise.\n"
        f"- Claim (i) rests on estimates of information: in {len(other)} of {count} differences with matched entropy "
        "the proved lower bounds point the other way. Its rules were changed once after a first look (below).\n"
        f"- One frozen encoder and {len(results.sets)} small data sets were used; "
        f"seeds: {', '.join(seeds)}."
    )


def tuning_text(results: Results) -> str:
    """Return the settings that were chosen, and what the others reached."""
    rows = sorted(results.of("tuning"), key=lambda row: (row["dataset"], row["kind"]))
    rates = rows[0]["rates"]
    lines, edge = [], on_the_edge(rows)
    for row in rows:
        best = [max(line) for line in row["accuracy"]]
        chosen = [f"{row['rate']:g}", str(row["epochs"]), figure_text(max(best))]
        lines.append([row["dataset"], row["kind"], *chosen, *map(figure_text, best)])
    header = ["data", "kind", "rate", "epochs", "held-out accuracy", *(f"best at {rate:g}" for rate in rates)]
    return (
        f"Every kind of head got the same budget on every data set: the rates {', '.join(f'{r:g}' for r in rates)}, "
        f"each for 1 to {len(rows[0]['accuracy'][0])} epochs, one seed\nthat the study does not use, chosen by "
        "accuracy on held-out texts. Heads with matched entropy use the setting of their kind. "
        f"{edge} of {len(rows)} choices lie on the edge of the grid\n(smallest or largest rate, or most epochs). The "
        "held-out rows of SST-2 are phrases, and may be parts of the sentences of training phrases.\n\n"
        f"{table(header, lines)}"
    )


def figure(results: Results, path: Path) -> None:
    """Save rank agreement over evenness of attention, a point for each trained head, a panel for each data set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure_, axes = pyplot.subplots(1, len(results.sets), figsize=(4 * len(results.sets), 3.4), squeeze=False)
    for axis, dataset in zip(axes[0], results.sets):
        for score, color in zip(SCORES, ("#0072b2", "#e69f00", "#009e73")):
            for recurrence, marker in (("none", "o"), ("bilstm", "^")):
                rows = results.heads.get((dataset, Kind(score, recurrence=recurrence).name), {}).values()
                points = [(number(row["means"]["spread"]), number(row["means"]["tau"])) for row in rows]
                x, y = zip(*points) if points else ((), ())
                axis.scatter(x, y, s=14, c=color, marker=marker, alpha=0.7, label=f"{score}, {recurrence}")
        axis.set(title=dataset, xlabel="H(attention) / ln n")
        axis.axhline(0, color="gray", linewidth=0.6)
    axes[0][0].set_ylabel("tau-b with token information")
    axes[0][-1].legend(fontsize=6)
    figure_.tight_layout()
    figure_.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure_)


def head_text(results: Results) -> str:
    """Return how many heads, on what machine, and the self-check."""
    heads = [row for row in results.rows if row["row"] == "head"]
    cpu = sum(sum(row["cpu_seconds"].values()) for row in heads)
    cpu += sum(row["cpu_seconds"] for row in results.of("tuning"))
    counts = []
    for dataset in results.sets:
        by_group = {name: len(results.seeds(dataset, kinds)) for name, kinds in GROUPS.items()}
        others = f"{by_group['recurrent']} with a BiLSTM, {by_group['noise']} with Gumbel at 1"
        counts.append(f"{dataset} {by_group['main']} ({others})")
    runs = results.of("run")
    machine = ""
    if runs:
        machine = f" ({', '.join(processors(runs))}, torch {runs[-1]['versions']['torch']}, one thread)"
    rows = [row["mi"] for row in heads if "mi" in row]
    lower, upper, estimates = (
        [number(mi[name]["context"]) / mi["ceiling"] for mi in rows] for name in ("lower_bound", "upper_bound", "nats")
    )
    return (
        f"{len(heads)} heads, {cpu / 3600:.1f} hours of one CPU core{machine}. Seeds: {'; '.join(counts)}.\n"
        "Mutual information: bounds of effort fast, estimator auto. Self-check: the context, which the classifier "
        f"reads, must have all of the\noutput's information; lower bounds of its share are {np.mean(lower):.3f} on "
        f"average ({np.min(lower):.3f} to {np.max(lower):.3f}), upper bounds {np.mean(upper):.3f}, estimates "
        f"{np.mean(estimates):.3f} ({np.min(estimates):.3f} to {np.max(estimates):.3f})."
    )


def changes_text(verdicts: dict[str, str]) -> str:
    """Return a sentence for each verdict that is another one than in the previous version."""
    changed = [f"{name} {PREVIOUS[name]} before, {now} now" for name, now in verdicts.items() if PREVIOUS[name] != now]
    what = f"Verdicts that changed against it: {'; '.join(changed)}." if changed else "No verdict changed against it."
    return (
        "An earlier version of this page had three seeds, one learning rate for all kinds, no bounds, and judged (iii) "
        f"by thirds of texts and (v) by one combination.\n{what}"
    )


def upper_first(result: str) -> str:
    """Return the verdict in capitals; what stands behind it in parentheses stays as it is."""
    word, *rest = result.split(" (", 1)
    return " (".join([word.upper(), *rest])


def write_report(stored: Path, folder: Path) -> str:
    """Write information.md and information.png into the folder; return the verdicts, a line each."""
    results = Results(stored)
    sections, verdicts = [], {}
    for claim in CLAIMS:
        body, result = claim(results)
        title = (claim.__doc__ or "").strip()
        sections.append(f"## {title}\n\n{body}\n\n**Verdict: {result}.**")
        verdicts[title] = result
    figure(results, folder / "information.png")
    shown = {title: upper_first(result) for title, result in verdicts.items()}
    lines = [[title.removesuffix("."), result] for title, result in shown.items()]
    parts = [
        "# Does attention keep information, and does its order follow information?",
        "Generated by `benchmarks/studies/information/run.py --report`; do not edit. "
        "What was done: docs/methods/heads.md.",
        COMMANDS,
        head_text(results),
        table(["claim (arXiv 2211.07714)", "verdict"], lines),
        weakness_text(results, sections),
        changes_text({title.split()[0]: result.split(" (")[0] for title, result in verdicts.items()}),
        METHOD,
        "![rank agreement over evenness of attention](information.png)",
        *sections,
        "## Learning rates and epochs",
        tuning_text(results),
        "## All kinds of heads",
        "Means over seeds and test texts. Bounds and estimate: information of the state with the largest weight about "
        "the output, nats. Tau-b is measured for the kinds that a claim needs.",
        grid_table(results),
    ]
    (folder / "information.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return "\n".join(f"{title} {result}" for title, result in shown.items())
