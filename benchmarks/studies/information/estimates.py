"""From stored rows to numbers: estimates over seeds and texts, tests, Holm's correction, power, verdicts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from benchmarks.common import Row, read_rows
from benchmarks.studies.information.kinds import Kind
from hf_attn_mi.evaluation import holm

LEVEL, POWER = 0.05, 0.8
ABOVE, BELOW = "above zero", "below the limit"
HeadValue = Callable[[Row], float]


@dataclass(frozen=True)
class Term:
    """A part of an estimand: weight times the mean of a measure over heads of a kind and test texts.

    `value` reads a figure of the head from its row where the measure has no values of single texts.
    """

    kind: Kind
    measure: str
    weight: float = 1.0
    value: HeadValue | None = None


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and texts with its standard error; interval and p-value are those of mean / error."""

    mean: float
    error: float
    freedom: float  # degrees of freedom of Student's t
    seeds: int
    error_of_texts: float  # the part of the error that more seeds would not reduce

    @property
    def half_width(self) -> float:
        """Of the 95 % interval."""
        return quantile(1 - LEVEL / 2, self.freedom) * self.error

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.mean + self.half_width

    @property
    def p(self) -> float:
        """Two-sided p-value of a mean of zero: below .05 where the interval excludes zero."""
        return 2 * tail(abs(self.mean), self.error, self.freedom)

    def p_absent(self, limit: float) -> float:
        """Twice the p-value of `abs(true mean) >= limit`: below .05 where the interval is inside of the limits."""
        return min(1.0, 2 * max(tail(limit + sign * self.mean, self.error, self.freedom) for sign in (1, -1)))

    def detectable(self, differences: int) -> float:
        """The smallest difference that the first step of Holm's correction would find with probability .8."""
        return (quantile(1 - LEVEL / 2 / differences, self.freedom) + quantile(POWER, self.freedom)) * self.error

    def detectable_with_any_seeds(self, differences: int) -> float:
        """The same with as many seeds as one likes, on these texts; NaN where texts are not counted."""
        normal = scipy.special.ndtri(1 - LEVEL / 2 / differences) + scipy.special.ndtri(POWER)
        return float(normal) * self.error_of_texts


def quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t."""
    return float(scipy.special.stdtrit(freedom, probability))


def tail(distance: float, error: float, freedom: float) -> float:
    """Probability that Student's t is above distance / error."""
    if error == 0:
        return float(distance <= 0) if distance else 0.5
    return float(scipy.special.stdtr(freedom, -distance / error))


def estimate(by_seed: np.ndarray, by_text: np.ndarray | None) -> Estimate:
    """Return the estimate of values whose means over texts are `by_seed`, and over seeds `by_text`.

    Seeds and texts are crossed and both vary: error^2 = s_seeds^2 / S + s_texts^2 / n, with the degrees of freedom of
    Welch and Satterthwaite. Without `by_text` the error is that of the seeds. NaN with fewer than two seeds.
    """
    seeds = len(by_seed)
    if seeds < 2:
        return Estimate(float(by_seed.mean()) if seeds else math.nan, math.nan, math.nan, seeds, math.nan)
    parts = [(float(by_seed.var(ddof=1)) / seeds, seeds - 1)]
    if by_text is not None:
        finite = by_text[np.isfinite(by_text)]
        parts.append((float(finite.var(ddof=1)) / len(finite), len(finite) - 1))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / count for part, count in parts) if variance > 0 else seeds - 1
    of_texts = math.sqrt(parts[1][0]) if by_text is not None else math.nan
    return Estimate(float(by_seed.mean()), math.sqrt(variance), freedom, seeds, of_texts)


class Results:
    """The stored rows: figures of heads by data set, kind and seed; of texts by data set, kind and measure."""

    def __init__(self, path: Path) -> None:
        self.rows = read_rows(path)
        self.heads: dict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
        self.texts: dict[tuple[str, str, str], list[tuple[list[int], np.ndarray]]] = defaultdict(list)
        for row in self.rows:
            if row["row"] == "head":
                self.heads[row["dataset"], row["kind"]][row["seed"]] = row
            elif row["row"] == "texts":
                values = np.array([math.nan if v is None else v for v in row["values"]], float)
                self.texts[row["dataset"], row["kind"], row["measure"]].append((row["seeds"], values))
        self.sets = sorted({name for name, _ in self.heads})

    def of(self, kind: str) -> list[Row]:
        """Return the rows of this sort."""
        return [row for row in self.rows if row["row"] == kind]

    def seeds(self, dataset: str, kinds: Sequence[Kind]) -> list[int]:
        """Return the seeds that have all of these kinds."""
        found = [set(self.heads.get((dataset, kind.name), {})) for kind in kinds]
        return sorted(set.intersection(*found)) if found else []

    def seed_values(self, dataset: str, terms: Sequence[Term]) -> np.ndarray:
        """Return (seeds,): the sum of the terms of each seed that has all of them."""
        seeds = self.seeds(dataset, [term.kind for term in terms])
        total = np.zeros(len(seeds))
        for term in terms:
            heads = self.heads[dataset, term.kind.name]
            read = term.value or (lambda row, name=term.measure: row["means"][name])
            total += term.weight * np.array([number(read(heads[seed])) for seed in seeds])
        return total

    def text_values(self, dataset: str, terms: Sequence[Term]) -> np.ndarray | None:
        """Return (texts,): the sum of the terms, each a mean over the seeds that have all of them."""
        if any(term.value is not None for term in terms):
            return None
        seeds = set(self.seeds(dataset, [term.kind for term in terms]))
        total: np.ndarray | float = 0.0
        for term in terms:
            blocks = self.texts[dataset, term.kind.name, term.measure]
            inside = [(len(known), values) for known, values in blocks if set(known) <= seeds]
            if not inside:
                return None
            finite = [(np.isfinite(values) * count, np.nan_to_num(values)) for count, values in inside]
            counts = sum(count for count, _ in finite)
            with np.errstate(invalid="ignore", divide="ignore"):
                total = total + term.weight * sum(count * values for count, values in finite) / counts
        return total if isinstance(total, np.ndarray) else None

    def estimate(self, dataset: str, terms: Sequence[Term]) -> Estimate:
        """Return the estimate of the sum of the terms."""
        return estimate(self.seed_values(dataset, terms), self.text_values(dataset, terms))


def number(value: float | None) -> float:
    """NaN in place of None."""
    return math.nan if value is None else value


@dataclass(frozen=True)
class Difference:
    """A difference on one data set, and what is claimed of it.

    One that is claimed to be above zero is absent where it is smaller than the limit. The other claim is that a mean is
    below the limit.
    """

    name: str
    dataset: str
    limit: float
    estimate: Estimate
    claim: str = ABOVE


@dataclass(frozen=True)
class Decision:
    """A difference with its p-values after Holm's correction and the word for it."""

    difference: Difference
    p: float
    p_absent: float

    @property
    def word(self) -> str:
        """Holds, reversed, absent or open."""
        value, limit = self.difference.estimate.mean, self.difference.limit
        below = self.difference.claim == BELOW
        if self.p < LEVEL:
            return "holds" if (value < limit if below else value > 0) else "reversed"
        return "absent" if self.p_absent < LEVEL else "open"


def decide(differences: Sequence[Difference]) -> list[Decision]:
    """Return the decisions on all differences of a claim: p-values are corrected by Holm over them."""
    below = [item.claim == BELOW for item in differences]
    tests = [(shifted(i.estimate, i.limit) if b else i.estimate).p for i, b in zip(differences, below)]
    absent = [math.nan if b else item.estimate.p_absent(item.limit) for item, b in zip(differences, below)]
    adjusted = [holm([None if math.isnan(p) else p for p in values]) for values in (tests, absent)]
    filled: list[list[float]] = [[1.0 if p is None else p for p in values] for values in adjusted]
    return [Decision(item, p, q) for item, p, q in zip(differences, *filled)]


def shifted(value: Estimate, limit: float) -> Estimate:
    """Return the estimate less the limit."""
    return Estimate(value.mean - limit, value.error, value.freedom, value.seeds, value.error_of_texts)


def verdict(decisions: Sequence[Decision]) -> str:
    """Return the verdict of a claim from its decisions on all data sets."""
    words = [decision.word for decision in decisions]
    if words and all(word == "holds" for word in words):
        return "holds"
    return "does not hold" if {"reversed", "absent"} & set(words) else "not decided"


def adjusted_for(points: Sequence[tuple[str, float, float]], kinds: Sequence[str]) -> dict[str, float]:
    """Return how much each of the other kinds is above the last one at equal entropy, by least squares.

    value = constant + kind + b entropy + c entropy^2.

    Args:
        points: kind, entropy and value of each head.
        kinds: the kinds; the last is the one that the others are compared with.
    """
    design = np.array([[1.0, x, x * x, *(float(kind == name) for name in kinds[:-1])] for kind, x, _ in points])
    solution: Any = np.linalg.lstsq(design, np.array([value for _, _, value in points]), rcond=None)[0]
    return dict(zip(kinds[:-1], solution[3:].tolist()))
