"""What a comparison says in words: which method, how sure, at what cost. No claim beyond the inputs that were used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hf_attn_mi.evaluation import METRICS, PairedTest

LEVEL = 0.05  # of the adjusted p value below which two methods are said to differ
FLOOR = "random"


@dataclass(frozen=True)
class Verdict:
    """Who is ahead in the deciding metric.

    Attributes:
        best: the method of best mean, chance left out; None where no method has a value.
        beaten: methods that it is shown to beat.
        tied: methods that it is not shown to beat.
        able: of the best and the tied, those shown to beat chance (all of them where chance was not scored).
        recommended: the cheapest of these.
    """

    best: str | None
    beaten: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    able: tuple[str, ...] = ()
    recommended: str | None = None


def judged(made: Any) -> Verdict:
    """Return the verdict of a comparison by its deciding metric; every method is a candidate but chance."""
    ahead = leaders(made, made.deciding)
    if not ahead:
        return Verdict(None)
    best, *tied = ahead
    known = [name for name in made.methods if made.table[name][made.deciding].mean is not None]
    beaten = tuple(name for name in known if name not in ahead and name != FLOOR)
    able = [name for name in ahead if FLOOR not in known or beats(made, made.deciding, name, FLOOR)]
    return Verdict(best, beaten, tuple(tied), tuple(able), min(able, key=lambda name: price(made, name), default=None))


def leaders(made: Any, metric: str) -> list[str]:
    """Return the method of best mean and those it is not shown to beat; chance left out."""
    sign = 1 if METRICS[metric].higher else -1
    means = {name: made.table[name][metric].mean for name in made.methods if name != FLOOR}
    known = [name for name, mean in means.items() if mean is not None]
    if not known:
        return []
    best = max(known, key=lambda name: sign * means[name])
    return [best, *(name for name in known if name != best and not beats(made, metric, best, name))]


def beats(made: Any, metric: str, first: str, second: str) -> bool:
    """Return whether first is shown to be better: p after Holm's correction below .05, and an interval above zero."""
    test = test_of(made, metric, first, second)
    if test is None or test.adjusted is None or test.adjusted >= LEVEL:
        return False
    interval = gain(test, metric, first)[1]
    return interval is not None and interval[0] > 0


def test_of(made: Any, metric: str, first: str, second: str) -> PairedTest | None:
    """Return the test of these two methods, whichever comes first in it."""
    found: list[PairedTest] = [test for test in made.tests[metric] if {test.first, test.second} == {first, second}]
    return found[0] if found else None


def gain(test: PairedTest, metric: str, first: str) -> tuple[float | None, tuple[float, float] | None]:
    """Return by how much `first` is better, and the interval: positive is better, whatever the metric's direction."""
    mean, interval = test.difference.mean, test.difference.interval
    if (test.first == first) == METRICS[metric].higher:
        return mean, interval
    return None if mean is None else -mean, None if interval is None else (-interval[1], -interval[0])


def price(made: Any, method: str) -> tuple[float, float]:
    """Return passes and seconds an input; infinite for scores from outside, whose cost is not known."""
    cost = made.costs.get(method)
    return (float("inf"), float("inf")) if cost is None else (cost.passes, cost.seconds)


def recommendation(made: Any) -> str:
    """Return the sentences of a comparison."""
    found, metric = judged(made), made.deciding
    if found.best is None:
        return f"No method has a value of {metric} on {_inputs(made)}: nothing is recommended."
    own = with_interval(made.table[found.best][metric])
    lead = "is best in" if found.beaten and not found.tied else "has the best mean"
    parts = [f"{found.best} {lead} {metric} on {_inputs(made)}: {own}."]
    if found.beaten:
        parts.append(f"It is better than {_list([_against(made, found.best, other) for other in found.beaten])}.")
    if found.tied:
        others = [_apart(made, found.best, other) for other in found.tied]
        parts.append(f"It is not shown to differ from {_list(others)}.")
    parts += [_floor(made, found), _cost(made, found), _few(made)]
    parts.append(f"This holds for {_scope(made)}; it says nothing of others.")
    return " ".join(part for part in parts if part)


def with_interval(found: Any) -> str:
    """Return "0.540 [0.512, 0.570]"."""
    return f"{number(found.mean)}{bracket(found.interval)}"


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


def _inputs(made: Any) -> str:
    return "this one input" if made.inputs == 1 else f"these {made.inputs} inputs"


def _list(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _against(made: Any, best: str, other: str) -> str:
    test = test_of(made, made.deciding, best, other)
    assert test is not None
    mean, interval = gain(test, made.deciding, best)
    return f"{other} (by {number(mean)}{bracket(interval)}, p = {small(test.adjusted)})"


def _apart(made: Any, best: str, other: str) -> str:
    test = test_of(made, made.deciding, best, other)
    if test is None or test.difference.mean is None:
        return f"{other} (no input in common)"
    mean, interval = gain(test, made.deciding, best)
    return f"{other} (difference {number(mean)}{bracket(interval)}, p = {small(test.adjusted)})"


def _floor(made: Any, found: Verdict) -> str:
    """How the leaders stand to chance."""
    if FLOOR not in made.methods:
        return "Random scores were not compared: whether any of this is better than chance is not known."
    chance = made.table[FLOOR][made.deciding]
    if chance.mean is None:
        return f"Random scores have no {made.deciding}: whether any of this is better than chance is not known."
    if not found.able:
        return (
            f"Nothing beats random scores ({with_interval(chance)}) by {made.deciding} here: no method is recommended."
        )
    weak = [name for name in (str(found.best), *found.tied) if name not in found.able]
    text = f"Random scores reach {with_interval(chance)}"
    if weak:
        return f"{text}; {_list(weak)} {'is' if len(weak) == 1 else 'are'} not shown to beat them."
    return f"{text} and are beaten by {'all of these' if found.tied else 'it'}."


def _cost(made: Any, found: Verdict) -> str:
    """What the recommended method costs, and the others that could be taken."""
    if found.recommended is None:
        return ""
    passes, seconds = price(made, found.recommended)
    own = made.costs.get(found.recommended)
    if own is None:
        return f"Recommended: {found.recommended}; its cost is not known."
    lead = "Recommended, as the cheapest of these" if len(found.able) > 1 else "Recommended"
    ratios = [
        f"{name} {times(price(made, name)[0] / passes)} times"
        for name in made.methods
        if name != found.recommended and name in made.costs and passes and price(made, name)[0] > passes
    ]
    more = f"; {_list(ratios)} as many" if ratios else ""
    return (
        f"{lead}: {found.recommended}, which takes {times(own.forwards)} forward and {times(own.backwards)} backward "
        f"sequences an input ({seconds:.2g} s){more}."
    )


def _few(made: Any) -> str:
    """A sentence where so few inputs cannot show any difference at all."""
    tests = [test for test in made.tests[made.deciding] if test.p_value is not None]
    if not made.tests[made.deciding]:
        return "There is no second method to compare it with."
    most = max((test.difference.inputs for test in tests), default=0)
    if len(tests) * 2 / 2**most < LEVEL:
        return ""
    return (
        f"With {most} inputs and {len(tests)} pairs of methods no difference can reach p < {LEVEL:g}: take more inputs."
    )


def _scope(made: Any) -> str:
    model, removal = made.info.get("model"), made.info.get("removal")
    text = "these inputs" + (f" and the model {model}" if model else "")
    text += f", tokens being taken out by {removal!r}" if removal else ""
    tests = made.tests[made.deciding]
    return text + (f" (p values: Wilcoxon, after Holm's correction over {len(tests)} pairs)" if tests else "")
