"""A comparison as data: made of values worked out by hand, put into words, tables, a page and a figure, and saved."""

import copy
import json
import pickle
import re
from dataclasses import replace
from statistics import fmean

import pytest
from scipy import stats

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import estimate, paired_tests
from hf_attn_mi.results import Comparison, MethodCost
from tests.results.result_samples import comparison

COUNT = 12
BASE = [0.5 + 0.01 * i for i in range(COUNT)]
WORSE = [x - 0.1 - 0.001 * i for i, x in enumerate(BASE)]  # by .1055 on average, on every input
EVEN = [x + 0.01 * (1 + i // 2) * (-1) ** i for i, x in enumerate(BASE)]  # better and worse by the same, by turns
FLOOR = [x - 0.3 - 0.002 * i for i, x in enumerate(BASE)]
CHEAP, DEAR = MethodCost(0.01, 1, 1), MethodCost(0.5, 90, 90)


def test_table_and_tests_are_those_of_the_evaluation():
    columns = {"a": BASE, "b": [None, *WORSE[1:]]}
    found = comparison(columns, seed=3)
    assert found.inputs == COUNT
    assert found.table["a"]["comprehensiveness"] == estimate(BASE, seed=3)
    assert found.table["b"]["comprehensiveness"].inputs == COUNT - 1
    assert found.tests["comprehensiveness"] == paired_tests(columns, seed=3)
    assert found.deciding == "comprehensiveness"


def test_a_clear_winner():
    found = comparison({"random": FLOOR, "b": WORSE, "a": BASE}, costs={"a": CHEAP, "b": DEAR})
    words = found.recommendation
    low, high = estimate(BASE).interval
    assert f"a is best in comprehensiveness on these 12 inputs: {fmean(BASE):.3f} [{low:.3f}, {high:.3f}]." in words
    # every input is better: p = 2 / 2^12 for each pair, times 3 by Holm
    assert stats.wilcoxon([x - y for x, y in zip(BASE, WORSE)]).pvalue == pytest.approx(2 / 2**12)
    low, high = estimate([x - y for x, y in zip(BASE, WORSE)]).interval
    mean = fmean(x - y for x, y in zip(BASE, WORSE))
    assert f"better than b (by {mean:.3f} [{low:.3f}, {high:.3f}], p = {6 / 2**12:.2g})" in words
    low, high = estimate(FLOOR).interval
    assert f"Random scores reach {fmean(FLOOR):.3f} [{low:.3f}, {high:.3f}] and are beaten by it." in words
    assert (
        "Recommended: a, which takes 1 forward and 1 backward sequences for each input (0.01 s); b 90 times as many"
        in words
    )
    assert "not shown" not in words
    assert found.recommended == "a"
    assert "it says nothing about others" in words


def test_lower_is_better_where_the_metric_says_so():
    found = comparison({"random": BASE, "b": WORSE, "a": FLOOR}, metric="sufficiency", costs={"a": CHEAP, "b": DEAR})
    assert found.recommended == "a"
    assert "a is best in sufficiency" in found.recommendation
    assert f"better than b (by {fmean(WORSE) - fmean(FLOOR):.3f} [" in found.recommendation  # a gain, not a loss


def test_ties_go_to_the_cheapest_and_say_so():
    found = comparison({"a": BASE, "b": EVEN, "random": FLOOR}, costs={"a": DEAR, "b": CHEAP})
    words = found.recommendation
    assert "not shown to differ from" in words
    assert re.search(r"difference -?0\.000 \[-0\.0\d\d, 0\.0\d\d\], p = ", words)
    assert "is best in" not in words
    assert found.recommended == "b"
    assert "Recommended, as the cheapest of these: b" in words
    assert "a 90 times as many" in words
    assert comparison({"a": BASE, "b": EVEN, "random": FLOOR}, costs={"a": CHEAP}).recommended == "a"  # b from outside


def test_what_does_not_beat_chance_is_not_recommended():
    found = comparison({"a": BASE, "b": WORSE, "random": EVEN}, costs={"a": CHEAP, "b": CHEAP})
    assert found.recommended is None
    assert f"Nothing beats random scores ({fmean(EVEN):.3f}" in found.recommendation
    assert "no method is recommended" in found.recommendation
    assert comparison({"a": WORSE, "b": FLOOR, "random": BASE}).recommended is None  # chance is shown to be better
    # Better on eleven of twelve inputs, p < .05, and far worse on one: the mean is not shown to be better.
    torn = [x - 0.01 * (i + 1) for i, x in enumerate(BASE)]
    torn[0] = BASE[0] + 0.5
    assert stats.wilcoxon([x - y for x, y in zip(BASE, torn)]).pvalue < 0.05
    assert comparison({"a": BASE, "random": torn}).recommended is None
    # The best is above chance, a cheaper one that it is not shown to beat is not: that one is no choice.
    noisy = [x + 0.6 * (-1) ** i - 0.1 for i, x in enumerate(BASE)]
    found = comparison({"a": BASE, "b": noisy, "random": WORSE}, costs={"a": DEAR, "b": CHEAP})
    assert "b is not shown to beat them" in found.recommendation
    assert found.recommended == "a"
    assert "were not compared" in comparison({"a": BASE, "b": WORSE}).recommendation
    assert "no comprehensiveness" in comparison({"a": BASE, "random": [None] * COUNT}).recommendation


def test_too_few_inputs_are_named():
    few = comparison({"a": BASE[:5], "b": WORSE[:5], "random": FLOOR[:5]})
    assert "With 5 inputs and 3 pairs of methods no difference can reach p < 0.05" in few.recommendation
    for count, said in ((6, True), (7, False)):  # 3 pairs: 3 x 2 / 2^6 = .094, 3 x 2 / 2^7 = .047
        found = comparison({"a": BASE[:count], "b": WORSE[:count], "random": FLOOR[:count]})
        assert ("no difference can reach" in found.recommendation) == said == (found.recommended is None)
    one = comparison({"a": BASE[:1], "random": FLOOR[:1]})
    assert one.table["a"]["comprehensiveness"].interval is None
    assert one.recommended is None
    assert "this one input" in one.recommendation
    assert "no second method" in comparison({"a": BASE}).recommendation
    empty = comparison({"a": [None, None]})
    assert empty.recommended is None
    assert "nothing is recommended" in empty.recommendation


@pytest.fixture
def whole():
    return comparison(
        {"a": BASE, "<i>|b": [None, *EVEN[1:]], "random": FLOOR},
        costs={"a": CHEAP},
        failures={"lime": "RuntimeError: <script> & \x1b[31m out"},
        info={"model": "<m>", "removal": "delete", "warnings": ["a: <note>"], "seed": 0},
    )


def test_saved_comparisons_come_back(whole, tmp_path):
    data = json.loads(json.dumps(whole.to_dict(), allow_nan=False))
    assert Comparison.from_dict(data) == whole
    for name in ("c.json", "c.json.gz"):
        whole.save(tmp_path / name)
        assert Comparison.load(tmp_path / name) == whole
    assert copy.deepcopy(whole) == whole == pickle.loads(pickle.dumps(whole))
    assert replace(whole, costs={}) != whole
    assert Comparison.from_dict({**data, "recommended": "random"}).recommended == whole.recommended  # not believed
    with pytest.raises(TypeError):
        whole.values["a"]["comprehensiveness"] = ()
    with pytest.raises(InvalidInputError, match="exists"):
        whole.save(tmp_path / "c.json")


@pytest.mark.parametrize(
    "spoil",
    [
        {"type": "hf_attn_mi.Explanation"},
        {"schema": 9},
        {"metrics": ["beauty"]},
        {"metrics": []},
        {"methods": ["a"]},
        {"values": {}},
        {"tests": {}},
        {"inputs": 3},
        {"costs": {"a": {"seconds": 1.0}}},
        {"agreement": None},
        {"table": {"a": {"comprehensiveness": {"mean": "x", "interval": None, "inputs": 1}}}},
    ],
)
def test_damaged_data_are_refused(whole, spoil):
    with pytest.raises(InvalidInputError):
        Comparison.from_dict({**whole.to_dict(), **spoil})


def test_the_terminal_table_has_the_numbers_and_nothing_that_steers(whole):
    lines = str(whole).splitlines()
    assert lines[0].split() == ["method", "comprehensiveness", "(higher)", "seconds", "forwards", "backwards"]
    low, high = estimate(BASE).interval
    assert lines[1].split() == ["a", f"{fmean(BASE):.3f}", f"[{low:.3f},", f"{high:.3f}]", "0.01", "1", "1"]
    assert "(n=11)" in lines[2]
    assert lines[2].split()[-3:] == ["-", "-", "-"]
    assert "failed: lime: RuntimeError" in str(whole)
    assert "note: a: <note>" in str(whole)
    assert "\x1b" not in str(whole)
    assert whole.recommendation.split() == " ".join(str(whole).splitlines()[8:]).split()


def test_markdown_has_every_part_and_escapes(whole):
    text = whole.to_markdown()
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables[:5]} == {6}
    assert "| a | **" in text
    assert "**" not in next(line for line in tables if line.startswith("| random"))
    assert "&lt;i>\\|b" in text
    assert "<script>" not in text
    assert f"| a - random | {fmean(BASE) - fmean(FLOOR):.3f} [" in text
    assert "Rank correlation" in text


def test_the_page_is_whole_and_safe(whole):
    text = whole.to_html()
    assert text.startswith("<!DOCTYPE html>")
    assert text.count("<section") == 1
    assert text.count('<div class="s"><table>') == text.count("<table") > 1  # a wide one stays inside
    for loaded in ("<script", "http:", "https:", "src=", "<i>", "<m>", "<note>"):
        assert loaded not in text
    for piece in ("&lt;i&gt;|b", "&lt;script&gt;", f"{fmean(BASE):.3f}", "<svg", "Rank correlation", "Note: a"):
        assert piece in text
    widths = [float(x) for x in re.findall(r'<line x1="([0-9.]+)"', text)]
    assert len(widths) == 3
    assert min(widths) == 4  # the lowest interval starts at the left edge
    comparison({"a": [None]}).to_html()  # nothing to draw


def test_the_figure_carries_the_numbers(whole, tmp_path):
    figure = whole.plot(tmp_path / "c.svg")
    (axes,) = figure.axes
    dots = [line for line in axes.get_lines() if line.get_marker() == "o"]
    bars = [line for line in axes.get_lines()[1:] if line.get_marker() != "o"]  # the first is the line at zero
    rows = [whole.table[name]["comprehensiveness"] for name in whole.methods]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [row.mean for row in rows]
    assert [tuple(map(float, bar.get_xdata())) for bar in bars] == [row.interval for row in rows]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(whole.methods)
    assert dots[0].get_color() == dots[1].get_color() != dots[2].get_color()  # chance is never among the best
    assert (tmp_path / "c.svg").read_bytes()[:5] == b"<?xml"
