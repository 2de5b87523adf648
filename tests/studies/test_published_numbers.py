"""Numbers of the study pages, computed again from the stored rows with code that shares nothing with the reports.

A number is looked up in the page by the heading of its table, its column and the cells that name its row. The rows of
the information study are not stored: there the verdicts are derived again from the published intervals.
"""

import gzip
import json
import re
import statistics

import numpy as np
import pytest

from benchmarks.common import ROOT
from benchmarks.studies.causal.suites import SUITES

STUDIES, METHODS = ROOT / "docs" / "studies", ROOT / "docs" / "methods"
FAITHFULNESS = ROOT / "benchmarks" / "studies" / "faithfulness" / "results"
CAUSAL = ROOT / "benchmarks" / "studies" / "causal" / "results"


def rows_of(path):
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [json.loads(line) for line in lines]


def tables_of(page):
    """(heading, list of rows by column) of every table; columns with one name are numbered from the second on."""
    heading, lines = "", [*page.splitlines(), ""]
    for place, line in enumerate(lines):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if line.startswith("|") and re.fullmatch(r"[| -]*---[| -]*", lines[place + 1]):
            names = []
            for name in cells_of(line):
                names.append(name if name not in names else f"{name} {names.count(name) + 1}")
            rows = []
            for row in lines[place + 2 :]:
                if not row.startswith("|"):
                    break
                rows.append(dict(zip(names, cells_of(row), strict=True)))
            yield heading, rows


def cells_of(line):
    return [cell.strip().strip("*") for cell in line.strip().strip("|").split("|")]


def cell(page, heading, column, **named):
    """The one cell of this column under this heading in the row with these cells (blanks of names as _)."""
    wanted = {name.replace("_", " "): value for name, value in named.items()}
    found = [
        row[column]
        for title, rows in tables_of(page)
        if title == heading
        for row in rows
        if column in row and all(row.get(name) == value for name, value in wanted.items())
    ]
    assert len(found) == 1, (heading, column, wanted, found)
    return found[0]


def number(text):
    return float(re.match(r"[-+]?[\d.]+(e[-+]?\d+)?", text)[0])


@pytest.fixture(scope="module")
def faithful():
    return rows_of(FAITHFULNESS / "faithfulness.jsonl"), (STUDIES / "faithfulness.md").read_text(encoding="utf-8")


def by_input(rows, name, method, metric, groups):
    """Values by the number of the input."""
    found = {}
    for row in rows:
        chosen = row["kind"] == "run" and row["set"] == name and row["group"] in groups and row["removal"] == "delete"
        if chosen and method in row["values"]:
            found |= dict(zip(row["judged"], row["values"][method][metric]))
    return {place: value for place, value in found.items() if value is not None}


@pytest.mark.parametrize(
    ("title", "name", "method", "groups"),
    [
        ("AG News", "agnews", "relevance", ("main",)),
        ("IMDB, 128 tokens", "imdb", "integrated_gradients", ("main",)),
        ("SST-2", "sst2", "lime", ("costly",)),
        ("SST-2", "sst2", "ferret gradient x input", ("peers",)),
    ],
)
def test_means_of_the_faithfulness_study(faithful, title, name, method, groups):
    rows, page = faithful
    for metric in ("comprehensiveness", "sufficiency"):
        values = by_input(rows, name, method, metric, groups)
        assert number(cell(page, title, metric, method=method)) == pytest.approx(
            np.mean(list(values.values())), abs=6e-4
        )
        assert number(cell(page, title, "inputs", method=method)) == len(values)


@pytest.mark.parametrize(
    ("title", "name", "method", "group"),
    [
        ("AG News", "agnews", "attnlrp_iterative", "added"),
        ("IMDB, 128 tokens", "imdb", "random", "main"),
        ("IMDB, 128 tokens", "imdb", "attnlrp_iterative", "added"),
        ("SST-2", "sst2", "kernel_shap", "costly"),
    ],
)
def test_differences_and_p_values_of_the_faithfulness_study(faithful, title, name, method, group):
    rows, page = faithful
    for metric, column, sign in (
        ("comprehensiveness", "relevance is better by", 1),
        ("sufficiency", "relevance is better by 2", -1),
    ):
        ours = by_input(rows, name, "relevance", metric, ("main",))
        other = by_input(rows, name, method, metric, (group,))
        gaps = sign * np.array([ours[place] - other[place] for place in sorted(ours.keys() & other.keys())])
        text = cell(page, title, column, method=method)
        assert number(text) == pytest.approx(gaps.mean(), abs=6e-4)
        low, high = map(float, re.search(r"\[([-+.\d]+), ([-+.\d]+)\]", text).groups())
        error = gaps.std(ddof=1) / len(gaps) ** 0.5
        assert high - low == pytest.approx(2 * 2.0 * error, rel=0.15)
        flipped = np.random.default_rng(0).choice([-1.0, 1.0], (20_000, len(gaps))) @ gaps / len(gaps)
        p = float((np.abs(flipped) >= abs(gaps.mean()) - 1e-12).mean())
        shown = 0.0 if "p < .001" in text else float(re.search(r"p = ([\d.]+)", text)[1])
        assert shown >= p - 4 * (p * (1 - p) / 20_000) ** 0.5 - 6e-4  # Holm's correction makes it larger, never smaller


@pytest.fixture(scope="module")
def search():
    return rows_of(FAITHFULNESS / "score_search.jsonl"), (METHODS / "score_search.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("stage", "score", "data", "short", "removal"),
    [
        ("development", "5/10/20", "imdb", "comp", "delete"),
        ("confirmation", "10/30, positive scores", "agnews", "comp", "attention_mask"),
        ("second", "linear rows, 5/10/20", "sst2", "suff", "delete"),
        ("second", "linear rows, again without the top 10 %", "agnews", "comp", "delete"),
    ],
)
def test_differences_of_the_score_search(search, stage, score, data, short, removal):
    """From the means of the candidate and of relevance, not from the stored difference."""
    rows, page = search
    metric = {"comp": "comprehensiveness", "suff": "sufficiency"}[short] + f" {removal}"
    means = {
        row["name"]: row[metric]["mean"]
        for row in rows
        if row["stage"] == stage and row["data"] == data and metric in row
    }
    heading = f"{stage}, removal {removal}"
    column = f"{data} {short}"
    assert number(cell(page, heading, column, score="relevance")) == pytest.approx(means["relevance"], abs=6e-4)
    difference = means[score] - means["relevance"]
    assert number(cell(page, heading, column, score=score)) == pytest.approx(difference, abs=6e-4)


def test_numbers_of_the_causal_study():
    page = (STUDIES / "causal.md").read_text(encoding="utf-8")
    keys = rows_of(CAUSAL / "efficient_keys.jsonl")
    heading = next(title for title, _ in tables_of(page) if title.startswith("Claim (4) for the prediction"))
    for suite, removal in (("agnews", "the largest"), ("sst2", "all but the 1 largest"), ("embedded", "the smallest")):
        rows = [row for row in keys if (row["suite"], row["removal"]) == (suite, removal)]
        named = {"data": SUITES[suite].title, "removed_from_every_row": removal}
        kept = sum(row["kept"] for row in rows)
        assert cell(page, heading, "prediction kept", **named).startswith(f"{kept} / {len(rows)} ")
        change = statistics.fmean(row["p_new"] - row["p"] for row in rows)
        assert number(cell(page, heading, "change of its probability", **named)) == pytest.approx(change, abs=6e-4)
    records = [row for row in rows_of(CAUSAL / "subgraphs.jsonl.gz") if row["part"] == "sets" and "record" in row]
    for suite in {row["suite"] for row in records}:
        sizes = [len(row["record"]["units"]) for row in records if row["suite"] == suite and row["record"]["units"]]
        text = cell(page, "How few weights carry a prediction", "weights of the set", data=SUITES[suite].title)
        assert number(text) == pytest.approx(statistics.median(sizes), rel=6e-3)
    planted = [row for row in rows_of(CAUSAL / "planted.jsonl") if "planted" in row]  # the others were learned
    for row in planted[:: len(planted) // 3]:
        named = {"mechanism": row["mechanism"], "ranking": row["ranking"]}
        assert number(cell(page, "Planted mechanisms", "forwards", **named)) == pytest.approx(row["forwards"], abs=0.5)


def test_verdicts_of_the_information_study_follow_from_its_intervals():
    """Each word of a difference, and the verdict of each claim, by the rules on the page."""
    page = (STUDIES / "information.md").read_text(encoding="utf-8")
    found, checked = {}, 0
    for heading, rows in tables_of(page):
        if not rows or "limit" not in rows[0] or "information weighted" in rows[0]["difference"]:
            continue
        if heading in found and heading.startswith("(iv)"):
            continue  # the second table of this claim has controls
        words = found.setdefault(heading, [])
        for row in rows:
            for data in ("agnews", "imdb", "sst2"):
                mean, low, high, word = re.fullmatch(r"(\S+) \[(\S+), (\S+)\] (\w+)", row[data]).groups()
                low, high, limit = float(low), float(high), float(row["limit"])
                assert low <= float(mean) <= high
                if min(abs(low), abs(high), abs(max(-low, high) - limit)) > 6e-4:  # not within rounding of a rule
                    wanted = (
                        "holds"
                        if low > 0
                        else "reversed"
                        if high < 0
                        else "absent"
                        if max(-low, high) < limit
                        else "open"
                    )
                    assert word == wanted, (row["difference"], data)
                    checked += 1
                words.append(word)
    assert checked > 50
    verdicts = dict(re.findall(r"^## (\([ivx]+\) .+?)\n(?:(?!^## ).*\n)*?\*\*Verdict: (.+?)\.\*\*", page, re.MULTILINE))
    assert len(found) == 4  # claim (iii) has another table
    for heading, words in found.items():
        wrong, all_hold = {"reversed", "absent"} & set(words), set(words) == {"holds"}
        assert verdicts[heading] == ("holds" if all_hold else "does not hold" if wrong else "not decided")


def test_numbers_of_the_readme(faithful):
    """Each measured number of README.md, from the rows or the generated page that it stands for."""
    rows, _ = faithful
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    speed = rows_of(ROOT / "benchmarks" / "speed" / "results" / "against_captum.jsonl")
    ratios = [row["ratio"]["median"] for row in speed if row["name"] == "against Captum/explain"]
    assert f"`explain` is {min(ratios):.0f} to {max(ratios):.0f} times faster than Captum" in readme
    models = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    (counts,) = [table for title, table in tables_of(models) if title == "Counts"]
    total = {row["Verdict"]: int(row["encoders and encoder-decoders"]) + int(row["decoders"]) for row in counts}
    exact = total["exact"] + total["exact, no linear W_O"]
    assert (
        f"of {sum(total.values())} architectures {exact} are captured exactly, {total['refused']} are refused" in readme
    )
    assert f"{total['no attention']} have no attention, {total['not built']} could not be built" in readme
    card = (ROOT / "hf_attn_mi" / "embedded_model" / "README.md").read_text(encoding="utf-8")
    for data, accuracy in re.findall(r"(SST-2 dev|IMDB dev) ([\d.]+) %", readme):
        assert re.search(rf"\| {data} \| \d+ \| {accuracy}% \|", card)
    ours, other = (
        by_input(rows, "sst2", method, "comprehensiveness", ("main",))
        for method in ("relevance", "integrated_gradients")
    )
    behind = -np.mean([ours[place] - other[place] for place in ours])
    assert f"behind by {behind:.3f}".replace(" 0.", " .") in readme


def test_a_changed_number_of_a_page_is_seen(faithful):
    rows, page = faithful
    text = cell(page, "AG News", "comprehensiveness", method="relevance")
    changed = page.replace(text, f"{number(text) + 0.002:.3f}", 1)
    assert cell(changed, "AG News", "comprehensiveness", method="relevance") != text
    values = by_input(rows, "agnews", "relevance", "comprehensiveness", ("main",))
    assert (
        abs(number(cell(changed, "AG News", "comprehensiveness", method="relevance")) - np.mean(list(values.values())))
        > 6e-4
    )
