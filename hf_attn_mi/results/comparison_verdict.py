"""The recommendation of a comparison: which method, how certain, at what cost; it refers to the inputs used only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_attn_mi.evaluation import METRICS, Estimate, PairedTest

if TYPE_CHECKING:
    from hf_attn_mi.results.comparison import Comparison

LEVEL = 0.05  # two methods are said to differ if the adjusted p value is below this
CHANCE = "random"  # the method whose scores are random: a baseline that is never recommended


@dataclass(frozen=True)
class Verdict:
    """Which methods are best in the deciding metric.

    Attributes:
        best: the method with the best mean, excluding chance; None if no method has a value.
        beaten: methods that it is shown to beat.
        tied: methods that it is not shown to beat.
        above_chance: those of the best and the tied methods shown to beat chance (all where chance was not scored).
        recommended: the cheapest of these; None where so few inputs cannot show any difference.
    """

    best: str | None
    beaten: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    above_chance: tuple[str, ...] = ()
    recommended: str | None = None


def judged(comparison: Comparison) -> Verdict:
    """Return the verdict of a comparison by its deciding metric; every method except chance is a candidate."""
    ahead = leaders(comparison, comparison.deciding)
    if not ahead:
        return Verdict(None)
    best, *tied = ahead
    known = [name for name in comparison.methods if comparison.table[name][comparison.deciding].mean is not None]
    beaten = tuple(name for name in known if name not in ahead and name != CHANCE)
    above_chance = [
        name for name in ahead if CHANCE not in known or beats(comparison, comparison.deciding, name, CHANCE)
    ]
    cheapest = min(above_chance, key=lambda name: price(comparison, name), default=None)
    recommended = None if _powerless(comparison) else cheapest
    return Verdict(best, beaten, tuple(tied), tuple(above_chance), recommended)


def _powerless(comparison: Comparison) -> bool:
    """Whether no difference can reach the level on so few inputs: the least p is 2 / 2^n, times the pairs."""
    tests, most = _tests(comparison)
    return tests > 0 and math.ldexp(2.0 * tests, -most) >= LEVEL


def _tests(comparison: Comparison) -> tuple[int, int]:
    """The number of tests in the deciding metric, and the most inputs of one."""
    tests = [test for test in comparison.tests[comparison.deciding] if test.p_value is not None]
    return len(tests), max((test.difference.inputs for test in tests), default=0)


def leaders(comparison: Comparison, metric: str) -> list[str]:
    """Return the method of best mean and those it is not shown to beat; chance left out."""
    sign = 1 if METRICS[metric].higher else -1
    candidates = {name: comparison.table[name][metric].mean for name in comparison.methods if name != CHANCE}
    means = {name: mean for name, mean in candidates.items() if mean is not None}
    if not means:
        return []
    best = max(means, key=lambda name: sign * means[name])
    return [best, *(name for name in means if name != best and not beats(comparison, metric, best, name))]


def beats(comparison: Comparison, metric: str, first: str, second: str) -> bool:
    """Return whether first is shown to be better: p after Holm's correction below .05, and an interval above zero."""
    test = test_of(comparison, metric, first, second)
    if test is None or test.adjusted is None or test.adjusted >= LEVEL:
        return False
    interval = gain(test, metric, first)[1]
    return interval is not None and interval[0] > 0


def test_of(comparison: Comparison, metric: str, first: str, second: str) -> PairedTest | None:
    """Return the test of these two methods, whichever comes first in it."""
    pair = {first, second}
    return next((test for test in comparison.tests[metric] if {test.first, test.second} == pair), None)


def gain(test: PairedTest, metric: str, first: str) -> tuple[float | None, tuple[float, float] | None]:
    """Return by how much `first` is better, and the interval: positive is better, whatever the metric's direction."""
    mean, interval = test.difference.mean, test.difference.interval
    if (test.first == first) == METRICS[metric].higher:
        return mean, interval
    return None if mean is None else -mean, None if interval is None else (-interval[1], -interval[0])


def price(comparison: Comparison, method: str) -> tuple[float, float]:
    """Return passes and seconds per input; infinite for scores passed by the caller, whose cost is not known."""
    cost = comparison.costs.get(method)
    return (float("inf"), float("inf")) if cost is None else (cost.passes, cost.seconds)


def recommendation(comparison: Comparison) -> str:
    """Return the sentences of a comparison."""
    verdict, metric = judged(comparison), comparison.deciding
    if verdict.best is None:
        return f"No method has a value of {metric} on {_inputs(comparison)}: nothing is recommended."
    value = with_interval(comparison.table[verdict.best][metric])
    lead = "is best in" if verdict.beaten and not verdict.tied else "has the best mean"
    parts = [f"{verdict.best} {lead} {metric} on {_inputs(comparison)}: {value}."]
    if verdict.beaten:
        parts.append(
            f"It is better than {_list([_against(comparison, verdict.best, other) for other in verdict.beaten])}."
        )
    if verdict.tied:
        others = [_apart(comparison, verdict.best, other) for other in verdict.tied]
        parts.append(f"It is not shown to differ from {_list(others)}.")
    parts += [_chance(comparison, verdict), _cost(comparison, verdict), _few(comparison)]
    parts.append(f"This holds for {_scope(comparison)}; it says nothing about others.")
    return " ".join(part for part in parts if part)


def with_interval(estimate: Estimate) -> str:
    """Return "0.540 [0.512, 0.570]"."""
    return f"{number(estimate.mean)}{bracket(estimate.interval)}"


def number(value: float | None) -> str:
    """Return three digits after the point, "-" for None; never minus zero."""
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}"


def bracket(interval: tuple[float, float] | None) -> str:
    """Return " [low, high]", or nothing."""
    return "" if interval is None else f" [{number(interval[0])}, {number(interval[1])}]"


def small(p: float | None) -> str:
    """Return a p value: two digits, "-" for None."""
    return "-" if p is None else f"{p:.2g}"


def times(value: float) -> str:
    """Return a number of passes or a ratio: whole above ten, one digit below."""
    return f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def _inputs(comparison: Comparison) -> str:
    return "this one input" if comparison.inputs == 1 else f"these {comparison.inputs} inputs"


def _list(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _against(comparison: Comparison, best: str, other: str) -> str:
    test = test_of(comparison, comparison.deciding, best, other)
    assert test is not None
    mean, interval = gain(test, comparison.deciding, best)
    return f"{other} (by {number(mean)}{bracket(interval)}, p = {small(test.adjusted)})"


def _apart(comparison: Comparison, best: str, other: str) -> str:
    test = test_of(comparison, comparison.deciding, best, other)
    if test is None or test.difference.mean is None:
        return f"{other} (no input in common)"
    mean, interval = gain(test, comparison.deciding, best)
    return f"{other} (difference {number(mean)}{bracket(interval)}, p = {small(test.adjusted)})"


def _chance(comparison: Comparison, verdict: Verdict) -> str:
    """How the best methods compare with chance."""
    if CHANCE not in comparison.methods:
        return "Random scores were not compared: whether any of this is better than chance is not known."
    chance = comparison.table[CHANCE][comparison.deciding]
    if chance.mean is None:
        return f"Random scores have no {comparison.deciding}: whether any of this is better than chance is not known."
    if not verdict.above_chance:
        value = with_interval(chance)
        return f"Nothing beats random scores ({value}) by {comparison.deciding} here: no method is recommended."
    weak = [name for name in (str(verdict.best), *verdict.tied) if name not in verdict.above_chance]
    text = f"Random scores reach {with_interval(chance)}"
    if weak:
        return f"{text}; {_list(weak)} {'is' if len(weak) == 1 else 'are'} not shown to beat them."
    return f"{text} and are beaten by {'all of these' if verdict.tied else 'it'}."


def _cost(comparison: Comparison, verdict: Verdict) -> str:
    """The cost of the recommended method and of the alternatives."""
    if verdict.recommended is None:
        return ""
    passes, seconds = price(comparison, verdict.recommended)
    cost = comparison.costs.get(verdict.recommended)
    if cost is None:
        return f"Recommended: {verdict.recommended}; its cost is not known."
    lead = "Recommended, as the cheapest of these" if len(verdict.above_chance) > 1 else "Recommended"
    ratios = [
        f"{name} {times(price(comparison, name)[0] / passes)} times"
        for name in comparison.methods
        if name != verdict.recommended and name in comparison.costs and passes and price(comparison, name)[0] > passes
    ]
    more = f"; {_list(ratios)} as many" if ratios else ""
    return (
        f"{lead}: {verdict.recommended}, which takes {times(cost.forwards)} forward and {times(cost.backwards)} "
        f"backward sequences for each input ({seconds:.2g} s){more}."
    )


def _few(comparison: Comparison) -> str:
    """A sentence where so few inputs cannot show any difference at all."""
    if not comparison.tests[comparison.deciding]:
        return "There is no second method to compare it with."
    tests, most = _tests(comparison)
    if not _powerless(comparison):
        return ""
    return (
        f"With {most} inputs and {tests} pairs of methods no difference can reach p < {LEVEL:g}, so that none is "
        "recommended: take more inputs."
    )


def _scope(comparison: Comparison) -> str:
    model, removal = comparison.info.get("model"), comparison.info.get("removal")
    text = "these inputs" + (f" and the model {model}" if model else "")
    text += f", with tokens removed by {removal!r}" if removal else ""
    tests = comparison.tests[comparison.deciding]
    return text + (f" (p values: Wilcoxon, after Holm's correction over {len(tests)} pairs)" if tests else "")
