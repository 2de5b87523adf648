"""The page of coverage: what efforts cost and how tight their bounds are is computed from the repeats that all have."""

from scripts.generate_mi_coverage import cost_and_tightness, summary_of


def row(family, effort, repeat, truth, lower, seconds):
    return {
        "family": family,
        "effort": effort,
        "repeat": repeat,
        "truth": truth,
        "lower": lower,
        "seconds": seconds,
    }


def test_efforts_are_compared_over_the_repeats_that_all_have():
    rows = [
        row("lin", "fast", 0, 0.0, 0.0, 1.0),
        row("lin", "fast", 1, 0.4, 0.1, 3.0),
        row("annulus", "fast", 0, 0.5, 0.0, 2.0),
        row("annulus", "fast", 1, 0.5, 0.5, 900.0),  # no repeat of another effort
        row("lin", "default", 0, 0.0, 0.0, 10.0),
        row("lin", "default", 1, 0.4, 0.2, 30.0),
        row("annulus", "default", 0, 0.5, 0.4, 20.0),
    ]
    lines = cost_and_tightness(rows)
    assert "3 repeats of 2 families" in lines[1]
    assert "of the 2 repeats with more than" in lines[1]
    fast, default = lines[-2:]
    assert fast == "| fast | 2.0 | 3.0 | 0.267 | 0.500 | 12% |  |  |"
    assert default == "| default | 20.0 | 30.0 | 0.100 | 0.200 | 65% | 2 of 2 | annulus (+0.400) |"


def test_without_shared_repeats_nothing_is_compared():
    alone = [row("lin", "fast", 0, 0.4, 0.1, 1.0)]
    assert "No repeat" in cost_and_tightness(alone)[1]
    assert "No repeat" in cost_and_tightness([*alone, row("lin", "default", 1, 0.4, 0.1, 1.0)])[1]
    without = [row("lin", effort, 0, 0.0, 0.0, 1.0) for effort in ("fast", "default")]
    assert "none of them has information" in cost_and_tightness(without)[1]


def test_repeats_count_as_without_information_by_their_truth_not_by_their_strength():
    more = {"nats": 0.1, "interval": [0.0, 0.2], "upper": 0.3}
    weakest = [row("curve", "fast", n, 0.08, 0.0, 1.0) | more | {"level": 0.0, "p_value": 0.01} for n in range(3)]
    nothing = [
        row("lin", "fast", n, 0.0, 0.0, 1.0) | more | {"level": 0.0, "p_value": p} for n, p in enumerate((0.01, 0.5))
    ]
    assert (summary_of(weakest)["rejected"], summary_of(weakest)["null"]) == (0, 0)
    assert (summary_of(nothing)["rejected"], summary_of(nothing)["null"]) == (1, 2)
