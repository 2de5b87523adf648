"""Numbers of the study pages, computed again from the stored rows with code that shares nothing with the reports.

A number is looked up in the page by the heading of its table, its column and the cells that name its row.
"""

import gzip
import json
import re
import statistics
from collections import defaultdict

import numpy as np
import pytest
import scipy.stats

from benchmarks.common import ROOT
from benchmarks.studies.causal.suites import SUITES
from benchmarks.studies.faithfulness.rankings.registry import RANKINGS

STUDIES, METHODS = ROOT / "docs" / "studies", ROOT / "docs" / "methods"
FAITHFULNESS = ROOT / "benchmarks" / "studies" / "faithfulness" / "results"
INFORMATION = ROOT / "benchmarks" / "studies" / "information" / "results"
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
    return [cell.strip().strip("*") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


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


EVERY_GROUP = ("main", "added", "costly", "peers", "rankings", "starts", "judged", "sampled")


def methods_of(rows, name):
    runs = [row for row in rows if row["kind"] == "run" and row["set"] == name and row["group"] in EVERY_GROUP]
    return sorted({method for row in runs if row["removal"] == "delete" for method in row["values"]})


def better_by(rows, name, first, second, metric):
    """Paired differences on the inputs of both; positive where the first is better."""
    ours, other = (by_input(rows, name, method, metric, EVERY_GROUP) for method in (first, second))
    sign = 1 if metric == "comprehensiveness" else -1
    return sign * np.array([ours[place] - other[place] for place in sorted(ours.keys() & other.keys())])


def corrected(rows, name, first, metric):
    """p by flipping signs against every other method, corrected by Holm, with an allowance for random patterns."""
    gaps = {m: better_by(rows, name, first, m, metric) for m in methods_of(rows, name) if m != first}
    gaps = {method: column for method, column in gaps.items() if (column != 0).any()}
    drawn = np.random.default_rng(1)
    signs = drawn.integers(0, 2, (40_000, max(map(len, gaps.values()))), dtype=np.int8) * 2.0 - 1
    p_values = {
        method: float((np.abs(signs[:, : len(column)] @ column) >= abs(column.sum()) - 1e-9).mean())
        for method, column in gaps.items()
    }
    found, highest = {}, 0.0
    for rank, method in enumerate(sorted(p_values, key=p_values.get)):
        p, weight = p_values[method], len(p_values) - rank
        highest = max(highest, min(1.0, weight * p))
        found[method] = highest, 0.002 + 6 * weight * (max(p, 5e-5) / 40_000) ** 0.5
    return found


def shown_p(text):
    return 0.0 if "p < .001" in text else float(re.search(r"p = ([\d.]+)", text)[1])


@pytest.mark.parametrize(
    ("name", "title", "metric", "column"),
    [
        ("sst2", "SST-2", "sufficiency", "relevance is better by 2"),
        ("imdb", "IMDB, 128 tokens", "comprehensiveness", "relevance is better by"),
        ("mrpc", "MRPC", "comprehensiveness", "relevance is better by"),
    ],
)
def test_corrected_p_values_of_the_faithfulness_study(faithful, name, title, metric, column):
    """The whole column: every p after Holm's correction over all methods of the data set."""
    rows, page = faithful
    found = corrected(rows, name, "relevance", metric)
    assert len(found) >= 9
    for method, (p, allowance) in found.items():
        text = cell(page, title, column, method=method)
        assert shown_p(text) == pytest.approx(p, abs=allowance), method


def test_a_pair_has_one_p_and_one_interval_on_the_faithfulness_page(faithful):
    """The targets show what the tables of the data sets show."""
    _, page = faithful
    titles = {"agnews": "AG News", "imdb": "IMDB, 128 tokens", "sst2": "SST-2"}
    columns = {"comprehensiveness": "relevance is better by", "sufficiency": "relevance is better by 2"}
    (targets,) = [lines for title, lines in tables_of(page) if title == "Targets"]
    compared = 0
    for line in targets:
        found = re.fullmatch(r"(\w+): (\w+) (?:not worse by 0.01|significantly better)", line["target"])
        if found:
            difference, rival, p = re.fullmatch(r"(.+\]) against (\w+), (p .+), \d+ inputs", line["figure"]).groups()
            assert cell(page, titles[found[1]], columns[found[2]], method=rival) == f"{difference}, {p}"
            compared += 1
    assert compared == 10
    (worst,) = [lines for title, lines in tables_of(page) if title == "Worst: probability"]
    for line in worst:
        if line["data"] in titles.values() and line["method"] == "relevance":
            text = cell(page, line["data"], columns[line["metric"]], method=line["behind"])
            assert line["better by"] == text
    verdicts = [line["verdict"] for line in targets]
    assert verdicts == sorted(verdicts, key=lambda verdict: verdict != "missed")  # missed ones first


def test_worst_results_of_the_faithfulness_study(faithful):
    """On every data set: the method that is furthest ahead of ours, and that no significant loss is left out."""
    rows, page = faithful
    by_unit = {title: lines for title, lines in tables_of(page) if title.startswith("Worst: ")}
    worst = by_unit["Worst: probability"]
    for name, title in (("sst2", "SST-2"), ("agnews", "AG News"), ("snli", "SNLI"), ("mrpc", "MRPC")):
        for metric in ("comprehensiveness", "sufficiency"):
            for ours in ("relevance", "attnlrp_iterative"):
                key = {"data": title, "metric": metric, "method": ours}
                shown = {line["behind"]: line for line in worst if line.items() >= key.items()}
                means = {m: better_by(rows, name, ours, m, metric).mean() for m in methods_of(rows, name) if m != ours}
                rival = min(means, key=means.get)
                if means[rival] > -0.001:
                    assert not shown
                    continue
                assert number(shown[rival]["better by"]) == pytest.approx(means[rival], abs=6e-4)
                certain = {
                    method
                    for method, (p, allowance) in corrected(rows, name, ours, metric).items()
                    if p < 0.05 - allowance and means[method] <= -0.001
                }
                assert certain <= shown.keys()
                for method in means.keys() - shown.keys():  # nothing that is surely behind is left out
                    gaps = better_by(rows, name, ours, method, metric)
                    error = gaps.std(ddof=1) / len(gaps) ** 0.5
                    assert gaps.mean() > -0.001 or gaps.mean() + 2.6 * error > 0, (name, metric, ours, method)
    for lines in by_unit.values():
        losses = [number(line["better by"]) for line in lines]
        assert losses == sorted(losses)
    assert number(worst[0]["better by"]) < -0.19
    assert {line["metric"] for line in worst} == {"comprehensiveness", "sufficiency"}
    assert {line["metric"] for line in by_unit["Worst: log-odds, nats"]} == {"log-odds"}


def test_places_are_those_of_paired_means(faithful):
    rows, page = faithful
    for name, title in (("sst2", "SST-2"), ("imdb", "IMDB, 128 tokens")):
        for metric in ("comprehensiveness", "sufficiency"):
            for ours in ("relevance", "attnlrp_iterative"):
                others = [method for method in methods_of(rows, name) if method != ours]
                ahead = [method for method in others if better_by(rows, name, ours, method, metric).mean() < -1e-6]
                assert cell(page, "Places", ours, data=title, metric=metric) == str(len(ahead) + 1)
            assert cell(page, "Places", "of", data=title, metric=metric) == str(len(others) + 1)


def test_limits_of_the_faithfulness_study_are_those_of_its_rows(faithful):
    rows, page = faithful
    limits = page.split("\n## Limits\n")[1].split("\n## ")[0]
    assert page.index("\n## Limits\n") < page.index("\n## Faithfulness\n")
    for name, title in (
        ("cola", "CoLA"),
        ("rte", "RTE"),
        ("agnews_modernbert", "AG News, ModernBERT"),
        ("sst2_deberta", "DeBERTa-v2"),
    ):
        assert (title in limits) == (not methods_of(rows, name))
    for title, name in (("AG News", "agnews"), ("SST-2", "sst2"), ("IMDB, 128 tokens", "imdb")):
        for method in ("LIME, deleted", "kernel SHAP, deleted"):
            assert (f"{method} on {title}" in limits) == (method not in methods_of(rows, name))
    for name, title in (("snli", "SNLI"), ("mrpc", "MRPC")):
        count = len(by_input(rows, name, "relevance", "sufficiency", ("main",)))
        assert (f"all methods, {title}: {count} of 200" in limits) == (count < 200)


def test_agreement_with_the_code_of_authors(faithful):
    """Three numbers of every comparison, and that the limits name the methods without one, and no other."""
    _, page = faithful
    rows = rows_of(FAITHFULNESS / "authors.jsonl")
    heading = "Checked against the authors' code"
    assert len(rows) >= 10
    for row in rows:
        named = {"method": row["method"], "compared": row["setting"]}
        correlations = [value for value in row["spearman"] if value is not None]
        assert cell(page, heading, "inputs", **named) == str(len(row["difference"]))
        shown = number(cell(page, heading, "largest difference", **named))
        assert shown == pytest.approx(max(row["difference"]), rel=0.51, abs=1e-12)  # 1e-07 may stand for 1.5e-07
        assert number(cell(page, heading, "lowest Spearman", **named)) == pytest.approx(min(correlations), abs=5.1e-4)
        overlap = cell(page, heading, "lowest top-5 overlap", **named).removesuffix("%")
        assert float(overlap) == pytest.approx(100 * min(row["top"]), abs=0.51)
    compared = {row["method"] for row in rows}
    not_had = re.search(r"Not had: the authors' code of (.*?), in a form that runs on BERT", page)[1]
    assert set(re.split(", | and ", not_had)) == set(RANKINGS) - compared
    for name in ("AttCAT", "generic attention", "GIM", "transformer attribution", "LibraGrad"):  # to rounding
        best = min(max(row["difference"]) for row in rows if row["method"] == name)
        assert best < 1e-4, name


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


@pytest.mark.parametrize("stage", ["third development", "third confirmation"])
def test_differences_of_the_third_round_of_the_search(stage):
    rows = [row for row in rows_of(FAITHFULNESS / "further_search.jsonl") if row["stage"] == stage]
    page = (METHODS / "score_search.md").read_text(encoding="utf-8")
    values = {(row["name"], row["data"]): row["values"] for row in rows}
    for (name, data), found in values.items():
        for short, metric, reference, sign in (
            ("comp", "comprehensiveness", "attnlrp_iterative", 1),
            ("suff", "sufficiency", "attnlrp", -1),
        ):
            shown = number(cell(page, stage, f"{data} {short}", score=name))
            gap = sign * (np.mean(found[metric]) - np.mean(values[reference, data][metric]))
            assert shown == pytest.approx(np.mean(found[metric]) if name == reference else gap, abs=6e-4)


def test_the_verdict_of_the_third_round_of_the_search():
    """The rule of the protocol, and the losses of the two candidates that were confirmed."""
    rows = rows_of(FAITHFULNESS / "further_search.jsonl")
    page = " ".join((METHODS / "score_search.md").read_text(encoding="utf-8").split())

    def losses(stage, name):
        found = {(row["name"], row["data"]): row["values"] for row in rows if row["stage"] == stage}
        sets = {data for _, data in found}
        comp, suff = (
            np.mean([np.mean(found[name, d][metric]) - np.mean(found[other, d][metric]) for d in sets])
            for metric, other in (("comprehensiveness", "attnlrp_iterative"), ("sufficiency", "attnlrp"))
        )
        return -comp, suff

    passes = {row["name"]: row["passes"] for row in rows if row["stage"] == "third development"}
    by_name = {name: losses("third development", name) for name in passes if name != "attnlrp_iterative"}
    assert f"Of {len(passes)} orders on" in page
    assert all(comp >= 0.005 for name, (comp, _) in by_name.items() if passes[name] == 1)
    assert all(comp >= 0.002 or suff >= 0 for comp, suff in by_name.values())
    single, four = "values 3/4", "5/10/20, top in the first order"
    assert min((n for n in by_name if passes[n] == 1), key=lambda n: by_name[n][0]) == single
    near = [name for name, (comp, _) in by_name.items() if comp <= 0.005]
    assert min(near, key=lambda name: by_name[name][1]) == four
    assert f"the single pass {losses('third confirmation', single)[0]:.3f} of".replace(" 0.", " .") in page
    comp, suff = losses("third confirmation", four)
    expected = f"the four passes {comp:.4f} of comprehensiveness and {suff:.4f} of AttnLRP's sufficiency"
    assert expected.replace(" 0.", " .") in page
    assert f"loses {losses('third confirmation', 'attnlrp_iterative')[1]:.4f}.".replace(" 0.", " .") in page


@pytest.fixture(scope="module")
def causal():
    parts = {part: rows_of(CAUSAL / f"{part}.jsonl.gz") for part in ("certificates", "details", "tokens", "speed")}
    return parts, (STUDIES / "causal.md").read_text(encoding="utf-8")


def test_efficient_rows_of_the_causal_study(causal):
    """Every suite: kept predictions, accuracy, what uniform attention costs, and the median change of the logits."""
    parts, page = causal
    title = "(1) Efficient attention in the place of attention gives the same predictions."
    suites = list(dict.fromkeys(row["suite"] for row in parts["certificates"]))
    assert len(suites) >= 6
    for suite in suites:
        rows = [row for row in parts["certificates"] if row["suite"] == suite]
        assert int(cell(page, "Suites", "inputs", suite=suite)) == len(rows)
        kept = sum(row["kept"] for row in rows)
        assert cell(page, title, "predictions kept", suite=suite).startswith(f"{kept} / {len(rows)} ")
        right = np.array([row["predicted"] == row["label"] for row in rows], float)
        flat = np.array([row["uniform"] == row["label"] for row in rows], float)
        assert number(cell(page, "Suites", "accuracy", suite=suite)) == pytest.approx(right.mean(), abs=6e-4)
        text = cell(page, title, "lost by uniform", suite=suite)
        assert number(text) == pytest.approx((right - flat).mean(), abs=6e-4)
        low, high = map(float, re.search(r"\[([-.\d]+), ([-.\d]+)\]", text).groups())
        error = (right - flat).std(ddof=1) / len(rows) ** 0.5
        assert high - low == pytest.approx(2 * 1.97 * error, rel=0.2)
        changed = [row["relative"] for row in rows if row["changed"] > 0]
        if changed:
            shown = number(cell(page, title, "change of the logits there, median", suite=suite))
            assert shown == pytest.approx(np.median(changed), rel=0.06)
    some = [row for row in parts["certificates"] if row["changed"] > 0]
    kept, word = sum(row["kept"] for row in some), "met" if len(some) >= 2000 else "MISSED"
    target = r"\| predictions kept on every input with a changed row, 2,000 or more"
    assert re.search(rf"{target} \| {kept} / {len(some)} \(.+ \| {word} \|", page)
    firm = sum(bool(row["firm"]) for row in some)
    assert f"checked rows all firm on {firm} of {len(some)} inputs with a changed row" in page


def test_token_sets_and_costs_of_the_causal_study(causal):
    parts, page = causal
    tokens = parts["tokens"]
    for suite, ranking in dict.fromkeys((row["suite"], row["ranking"]) for row in tokens):
        rows = [row for row in tokens if (row["suite"], row["ranking"]) == (suite, ranking)]
        sets = [row for row in rows if row["defined"]]
        named = {"suite": suite, "ranking": ranking}
        title = "Minimal token sets of predictions"
        assert cell(page, title, "defined", **named).startswith(f"{len(sets)} / {len(rows)} ")
        for column, key in (("tokens of the set", "size"), ("search, forwards", "forwards")):
            shown = number(cell(page, title, column, **named))
            assert shown == pytest.approx(np.median([row[key] for row in sets]), rel=6e-3)
        true = sum(row["true"] for row in rows)
        assert cell(page, title, "re-checks true", **named).startswith(f"{true} / {len(rows)} ")
    title = "(3) Efficient attention is effectively computable."
    for suite in dict.fromkeys(row["suite"] for row in parts["speed"]):
        ratios = [row["certify"] / row["efficient"] for row in parts["speed"] if row["suite"] == suite]
        shown = number(cell(page, title, "certify / explain", suite=suite))
        assert shown == pytest.approx(np.median(ratios), rel=6e-3)
    title = "(2) Efficient attention is a probability distribution."
    for suite in dict.fromkeys(row["suite"] for row in parts["details"]):
        rows = [row["layers"] for row in parts["details"] if row["suite"] == suite]
        apart = np.mean([np.mean([layer["efficient"]["tv"] for layer in layers]) for layers in rows])
        text = cell(page, title, "efficient", suite=suite)
        assert float(re.search(r"TV ([\d.]+)", text)[1]) == pytest.approx(apart, abs=6e-4)


def test_what_the_causal_study_leaves_open_stands_on_its_page(causal):
    """Inputs of the plan, ratios whose interval contains the limit, families of encoders, missed targets first."""
    parts, page = causal
    head, runs = page.split("\n## ")[0], rows_of(CAUSAL / "runs.jsonl.gz")
    planned = runs[-1]["planned"]
    whole = len(parts["certificates"]) == sum(planned.values())
    assert (f"{sum(planned.values())} inputs in {len(planned)} suites were planned" in head) == (not whole)
    left_out = head.split("Not run: ")[1].split(".")[0].split("; ") if "Not run: " in head else []
    for suite, count in planned.items():
        done = sum(row["suite"] == suite for row in parts["certificates"])
        assert done == count or (f"{suite} {done} of {count}" in head) == (done > 0)
        assert (suite in left_out) == (done == 0)
    for name, part in (("details", "details"), ("speed", "speed"), ("token sets", "tokens")):
        inputs = {(row["suite"], row["index"]) for row in parts[part]}
        assert f"{name} of {len(inputs)} inputs in {len({suite for suite, _ in inputs})} suites" in head
    title = "(3) Efficient attention is effectively computable."
    for suite in {row["suite"] for row in parts["speed"]}:
        ratios = sorted(row["certify"] / row["efficient"] for row in parts["speed"] if row["suite"] == suite)
        assert len(ratios) == 30  # the order statistics 10 and 21 of 30 are an interval of 95.7 % for the median
        low, high = ratios[9], ratios[20]
        changed = sum(row["changed"] > 0 for row in parts["certificates"] if row["suite"] == suite)
        word = "holds" if high <= 3 else "fails" if low > 3 else "open"
        assert cell(page, title, "claim", suite=suite) == (word if changed >= 20 else "-")
    families = {
        next((f for f in ("modernbert", "deberta", "roberta") if SUITES[row["suite"]].model.startswith(f)), "bert")
        for row in rows_of(CAUSAL / "efficient_keys.jsonl")
    }
    assert f"Families of encoders in this table: {len(families)} (" in page
    (targets,) = [lines for heading, lines in tables_of(page) if heading == "Targets"]
    words = [line[""] for line in targets]
    assert words == sorted(words)  # "MISSED" is before "met"
    assert words[0] == "MISSED"


@pytest.fixture(scope="module")
def informed():
    return rows_of(INFORMATION / "information.jsonl.gz"), (STUDIES / "information.md").read_text(encoding="utf-8")


def decided_tables(page, claim):
    """The rows of the tables that decide a claim, each with a limit and how it is meant, in order."""
    section = next(part for part in page.split("\n## ") if part.startswith(claim))
    for words, body in re.findall(r"\((?:[^()]*); decides; ([^()]*)\):\n\n((?:\|.*\n)+)", section):
        lines = [cells_of(line) for line in body.splitlines()]
        kind, limit = words.split()
        for line in lines[2:]:
            for data, text in zip(lines[0][1:], line[1:], strict=True):
                yield line[0], data, kind, float(limit), text


def parsed(text):
    """(mean, low, high, p, word) of a cell of a table that decides."""
    found = re.fullmatch(r"(\S+) \[(\S+), (\S+)\], p (< )?(\S+), (\w+)", text)
    return float(found[1]), float(found[2]), float(found[3]), float(found[5]) if not found[4] else 0.0, found[6]


def crossed(rows, data, terms):
    """(mean, error, degrees of freedom) of weighted measures of kinds over seeds and texts, by hand."""
    heads = {(r["kind"], r["seed"]): r["means"] for r in rows if r["row"] == "head" and r["dataset"] == data}
    seeds = set.intersection(*({seed for kind, seed in heads if kind == term[0]} for term in terms))
    by_seed = [sum(weight * heads[kind, seed][measure] for kind, measure, weight in terms) for seed in sorted(seeds)]
    by_text = 0
    for kind, measure, weight in terms:
        blocks = [
            (len(r["seeds"]), np.array(r["values"], float))
            for r in rows
            if r["row"] == "texts" and (r["dataset"], r["kind"], r["measure"]) == (data, kind, measure)
            if set(r["seeds"]) <= seeds
        ]
        assert sum(count for count, _ in blocks) == len(seeds)
        by_text = by_text + weight * sum(count * values for count, values in blocks) / len(seeds)
    by_text = by_text[np.isfinite(by_text)]
    parts = [(statistics.variance(values) / len(values), len(values) - 1) for values in (by_seed, by_text.tolist())]
    variance = sum(part for part, _ in parts)
    return statistics.fmean(by_seed), variance**0.5, variance**2 / sum(part**2 / free for part, free in parts)


def additive(kind, measure="tau"):
    return [("none additive softmax 1 trained", measure, 1.0), (kind, measure, -1.0)]


SCORES = ("additive", "deep", "scaled_dot")


@pytest.mark.parametrize(
    ("claim", "name", "place", "terms"),
    [
        ("(ii)", "trained less frozen random", 1, additive("none additive softmax 1 frozen")),
        ("(ii)", "trained less uniform", 0, additive("none uniform", "correct")),
        ("(iv)", "Gumbel at .5 against softmax", 0, [
            term
            for score in SCORES
            for term in (
                (f"none {score} softmax 1 trained", "spread", 1 / 3),
                (f"none {score} gumbel 0.5 trained", "spread", -1 / 3),
            )
        ]),
    ],
)  # fmt: skip
def test_differences_of_the_information_study(informed, claim, name, place, terms):
    rows, page = informed
    for data in ("agnews", "imdb", "sst2"):
        text = [t for found, where, _, _, t in decided_tables(page, claim) if (found, where) == (name, data)][place]
        mean, low, high, _, _ = parsed(text)
        value, error, freedom = crossed(rows, data, terms)
        half = scipy.stats.t.ppf(0.975, freedom) * error
        assert [mean, low, high] == pytest.approx([value, value - half, value + half], abs=6e-4)


def test_shares_and_bounds_of_the_information_study(informed):
    """The share of the state with the largest weight at equal entropy, its interval, and its bounds in nats."""
    rows, page = informed
    for data in ("agnews", "imdb", "sst2"):
        heads = {
            score: {
                row["seed"]: row["mi"]
                for row in rows
                if row["row"] == "head"
                and (row["dataset"], row["kind"]) == (data, f"none {score} softmax 1 trained entropy 0.5")
            }
            for score in SCORES
        }
        share = {
            score: np.array([mi["nats"]["attended"] / mi["ceiling"] for _, mi in sorted(by_seed.items())])
            for score, by_seed in heads.items()
        }
        for score in SCORES[:2]:
            gap = share[score] - share["scaled_dot"]
            half = scipy.stats.t.ppf(0.975, len(gap) - 1) * scipy.stats.sem(gap)
            text = next(
                t for n, d, _, _, t in decided_tables(page, "(i)") if (n, d) == (f"{score} less scaled_dot", data)
            )
            assert parsed(text)[:3] == pytest.approx((gap.mean(), gap.mean() - half, gap.mean() + half), abs=6e-4)
        title = "(i) Additive and deep attention keep more information of states and output than scaled dot product."
        for column, name in (("lower bound", "lower_bound"), ("upper bound", "upper_bound"), ("estimate", "nats")):
            shown = cell(page, title, column, data=data, attention="H/ln n = 0.5", score="deep")
            values = [mi[name]["attended"] for mi in heads["deep"].values()]
            assert number(shown) == pytest.approx(np.mean(values), abs=6e-4)


def test_corrected_p_values_of_the_information_study(informed):
    """Claim (v): every p-value from the rows, corrected by Holm over the claim by code of this file."""
    rows, page = informed
    shown = list(decided_tables(page, "(v)"))
    p_values = []
    for name, data, _, _, _ in shown:
        first, score = re.fullmatch(r"BiLSTM \+ (\w+) less none \+ (\w+)", name).groups()
        terms = [
            (f"bilstm {first} softmax 1 trained", "tau", 1.0),
            (f"none {score} softmax 1 trained", "tau", -1.0),
        ]
        value, error, freedom = crossed(rows, data, terms)
        p_values.append(2 * scipy.stats.t.sf(abs(value) / error, freedom))
    highest = 0.0
    for rank, place in enumerate(np.argsort(p_values)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        assert parsed(shown[place][-1])[3] == pytest.approx(highest if highest >= 0.001 else 0.0, abs=6e-3)
    assert len(shown) == 27


def test_what_weakens_the_verdicts_of_the_information_study(informed):
    """Edges of the grid, bounds that disagree with estimates, open differences and seeds, before the tables."""
    rows, page = informed
    head = " ".join(page.split("\n## (i)")[0].split())
    tuned = [row for row in rows if row["row"] == "tuning"]
    edge = 0
    for row in tuned:
        accuracy = np.array(row["accuracy"])  # rates by epochs
        assert row["rate"] in row["rates"]
        edge += row["rate"] in (min(row["rates"]), max(row["rates"])) or row["epochs"] == accuracy.shape[1]
    assert f"{edge} of {len(tuned)} choices of learning rate and epochs lie on the edge of the grid" in head
    other = 0
    for data in ("agnews", "imdb", "sst2"):
        means = {}
        for score in SCORES:
            kind = f"none {score} softmax 1 trained entropy 0.5"
            mine = [r["mi"] for r in rows if r["row"] == "head" and (r["dataset"], r["kind"]) == (data, kind)]
            means[score] = [
                np.mean([mi[name]["attended"] / mi["ceiling"] for mi in mine]) for name in ("nats", "lower_bound")
            ]
        for score in SCORES[:2]:
            by_estimate, by_bound = np.subtract(means[score], means["scaled_dot"])
            other += by_estimate * by_bound < 0
    assert f"in {other} of 6 differences with matched entropy" in head
    words = [
        parsed(text)[-1]
        for claim in ("(i) ", "(ii) ", "(iii) ", "(iv) ", "(v) ")
        for _, _, _, _, text in decided_tables(page, claim)
    ]
    assert f"{words.count('open')} of {len(words)} differences that decide are open" in head


def test_verdicts_of_the_information_study_follow_from_its_differences(informed):
    """The words that p-values decide, and the verdict of each claim, by the rules on the page."""
    _, page = informed
    verdicts = dict(re.findall(r"^\| (\([ivx]+\)) [^|]+ \| ([A-Z ]+?)(?: \([^|]*)? \|$", page, re.MULTILINE))
    assert list(verdicts) == ["(i)", "(ii)", "(iii)", "(iv)", "(v)"]
    for claim, verdict in verdicts.items():
        words, by_combination = [], defaultdict(list)
        for name, _, kind, limit, text in decided_tables(page, f"{claim} "):
            mean, low, high, p, word = parsed(text)
            positive = mean < limit if kind == "below" else mean > 0
            if abs(p - 0.05) > 6e-4:
                assert (word in ("holds", "reversed")) == (p < 0.05), text
            if word in ("holds", "reversed"):
                assert (word == "holds") == positive, text
                assert kind == "below" or low > 0 or high < 0, text
            if word == "absent":
                assert max(-low, high) < limit + 6e-4
            words.append(word)
            by_combination[name.split(" less ")[0]].append(word)
        assert len(words) >= 6
        if claim == "(v)":  # about some combinations: one is enough
            found = {name: by_rule(some) for name, some in by_combination.items()}
            assert len(found) == 3
            best = next(word for word in ("holds", "not decided", "does not hold") if word in found.values())
            assert verdict.lower() == best
            assert f"({'; '.join(f'{name}: {word}' for name, word in found.items())}) |" in page
        else:
            assert verdict.lower() == by_rule(words)


def by_rule(words):
    """The verdict on differences that all have to hold."""
    wrong, all_hold = {"reversed", "absent"} & set(words), set(words) == {"holds"}
    return "holds" if all_hold else "does not hold" if wrong else "not decided"


def test_numbers_of_the_readme(faithful):
    """Each measured number of README.md, from the rows or the generated page that it stands for."""
    rows, _ = faithful
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    speed = rows_of(ROOT / "benchmarks" / "speed" / "results" / "against_captum.jsonl")
    ratio = {row["threads"]: row["ratio"]["median"] for row in speed if row["name"] == "against Captum/explain"}
    assert set(ratio) == {1, 2}
    assert f"`explain` is {ratio[1]:.0f} (one thread) and {ratio[2]:.0f} (two) times faster than Captum's" in readme
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
    peers = rows_of(ROOT / "benchmarks" / "speed" / "results" / "peers.jsonl")
    shares = {}
    for row in peers:
        if found := re.search(r"attnlrp against lxt AttnLRP, (\d+) tokens", row["name"]):
            shares[int(found[1])] = in_text(row["ratio"]["median"], 2)
    (short, first), (long, second) = sorted(shares.items())
    assert f"lxt's AttnLRP takes {first} ({short} tokens) and {second} ({long}) of our time" in readme
    comp, suff = "comprehensiveness", "sufficiency"
    rivals = [("LIME, deleted", comp), ("lime", comp), ("attnlrp", comp), ("integrated_gradients", comp)]
    rivals.append(("integrated_gradients", suff))
    loss = [in_text(-better_by(rows, "sst2", "relevance", rival, metric).mean()) for rival, metric in rivals]
    assert (
        f"on SST-2 LIME by deletion is {loss[0]} ahead, Captum's LIME {loss[1]}, AttnLRP {loss[2]}, integrated "
        f"gradients {loss[3]} (sufficiency {loss[4]})"
    ) in readme
    sets = ("snli", "mrpc", "cola")
    behind = {
        ours: ", ".join(in_text(-better_by(rows, name, ours, "feature_ablation", comp).mean()) for name in sets)
        for ours in ("relevance", "attnlrp_iterative")
    }
    assert (
        f"Captum's `feature_ablation` is ahead of it by {behind['relevance']}, of `attnlrp_iterative` by "
        f"{behind['attnlrp_iterative']}"
    ) in readme


def in_text(value, digits=3):
    return f"{value:.{digits}f}".replace("0.", ".", 1)


def ordinal(number):
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number if number < 20 else number % 10, 'th') }"


def test_what_the_readme_says_of_places(faithful):
    """Places among all methods by the inputs that both have, and the losses behind them."""
    rows, _ = faithful
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    comp, suff = "comprehensiveness", "sufficiency"
    places, counts, losses = {}, [], []
    for name in ("agnews", "imdb", "sst2"):
        methods = methods_of(rows, name)
        counts.append(len(methods))
        for ours, metric in [(one, metric) for one in ("attnlrp_iterative", "relevance") for metric in (comp, suff)]:
            gaps = [better_by(rows, name, ours, other, metric).mean() for other in methods if other != ours]
            places.setdefault((ours, metric), []).append(ordinal(1 + sum(gap < -1e-6 for gap in gaps)))
            if (ours, metric) == ("attnlrp_iterative", suff):
                losses.append(-min(gaps))

    def three(ours, metric):
        first, second, third = places[ours, metric]
        return f"{first}, {second} and {third}"

    assert f"of {min(counts)} to {max(counts)} methods on AG News, IMDB and SST-2" in readme
    gaps = [better_by(rows, "sst2", f"{m}, deleted", "attnlrp_iterative", comp) for m in ("LIME", "kernel SHAP")]
    assert {len(column) for column in gaps} == {25}
    assert (
        f"is {three('attnlrp_iterative', comp)} in comprehensiveness (SST-2: behind LIME and kernel SHAP by deletion "
        f"by {in_text(gaps[0].mean())} and {in_text(gaps[1].mean())}, 25 inputs) and "
        f"{three('attnlrp_iterative', suff)} in sufficiency, at most {in_text(max(losses))} behind"
    ) in readme
    assert f"is {three('relevance', comp)} (sufficiency {three('relevance', suff)}); on SST-2" in readme
    for name in ("snli", "mrpc"):
        for metric, sign, best in (("comprehensiveness", 1, "feature_ablation"), ("sufficiency", -1, "relevance")):
            methods = {
                method for row in rows if row["kind"] == "run" and row["set"] == name for method in row["values"]
            }
            columns = {method: list(by_input(rows, name, method, metric, ("main",)).values()) for method in methods}
            assert max(columns, key=lambda method: sign * np.mean(columns[method])) == best
    page, gaps = " ".join((METHODS / "relevance.md").read_text(encoding="utf-8").split()), []
    for name in ("snli", "mrpc"):
        methods = ("feature_ablation", "attnlrp_iterative")
        best, ours = (by_input(rows, name, method, "comprehensiveness", ("main",)) for method in methods)
        gaps.append(f"{np.mean([best[place] - ours[place] for place in ours]):.3f}".removeprefix("0"))
    assert re.search(rf"comprehensiveness that is higher by {gaps[0]} \[[^]]*\] and {gaps[1]} \[", page)


@pytest.fixture(scope="module")
def relevance():
    return (METHODS / "relevance.md").read_text(encoding="utf-8")


def test_shares_of_the_value_on_the_page_of_relevance(relevance):
    """Every cell of the table, and what the page of relevance says of it, by Python's own quantiles."""
    rows = rows_of(FAITHFULNESS / "value_shares.jsonl")
    search_page, heading = (METHODS / "score_search.md").read_text(encoding="utf-8"), "Where the value stands"
    titles, upper, medians = {"sst2": "SST-2", "agnews": "AG News", "imdb": "IMDB"}, [], {}
    assert len(rows) == 6
    for row in rows:
        named = {"data": titles[row["set"]], "method": row["method"]}
        assert cell(search_page, heading, "inputs", **named) == str(len(row["places"]))
        for part, column in row["shares"].items():
            quarters = statistics.quantiles(column, n=4, method="inclusive")
            shown = [int(one) for one in re.findall(r"(-?\d+)%", cell(search_page, heading, part, **named))]
            low, middle, high = (100 * one for one in quarters)
            assert shown == pytest.approx([middle, low, high], abs=0.5001)
        medians.setdefault(row["method"], {})[row["set"]] = f"{100 * np.median(row['shares']['words']):.0f}"
        together = np.sum(list(row["shares"].values()), axis=0)
        assert together == pytest.approx(np.ones(len(row["places"])), abs=1e-5)
        if row["method"] == "relevance":
            assert np.abs(row["shares"]["constants of the softmax"]).max() < 1e-3
            if row["set"] == "sst2":
                assert (
                    f"a quarter of the texts hold less than {np.ceil(low_share(row)):.0f} % of the value" in relevance
                )
        else:
            assert np.median(row["shares"]["positions"]) < 0
            upper.append(100 * statistics.quantiles(row["shares"]["words"], n=4, method="inclusive")[2])
    page = " ".join(relevance.split())
    assert f"little (upper quartiles {min(upper):.0f} to {max(upper):.0f} %)" in page
    for method, shares in medians.items():
        assert f"{shares['sst2']}, {shares['agnews']} and {shares['imdb']} % under `{method}`" in page


def low_share(row):
    return 100 * statistics.quantiles(row["shares"]["words"], n=4, method="inclusive")[0]


def test_differences_on_the_page_of_relevance(faithful, relevance):
    """The three methods of the package: differences, intervals and p-values, and lxt's beside ours."""
    rows, _ = faithful
    page, comp, suff = " ".join(relevance.split()), "comprehensiveness", "sufficiency"
    gaps = {name: better_by(rows, name, "attnlrp", "relevance", comp) for name in ("sst2", "imdb", "agnews")}
    p_values = {name: corrected(rows, name, "relevance", comp)["attnlrp"] for name in gaps}
    assert f"its comprehensiveness is higher by {in_text(gaps['sst2'].mean())} [.016, .034]" in page
    assert p_values["sst2"][0] < 0.001
    found = re.search(r"On IMDB it is (\S+) higher \[(.+?), (.+?)\], on AG News (\S+) lower \[(.+?), (.+?)\]", page)
    for sign, name, shown in ((1, "imdb", found.group(1, 2, 3)), (-1, "agnews", found.group(4, 5, 6))):
        mean, low, high = map(float, shown)
        error = gaps[name].std(ddof=1) / len(gaps[name]) ** 0.5
        assert mean == pytest.approx(sign * gaps[name].mean(), abs=6e-4)
        assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.15 * error + 6e-4)
    better = [better_by(rows, name, "attnlrp", "relevance", suff) for name in gaps]
    means = [column.mean() for column in better]
    assert f"Sufficiency is better by {in_text(min(means))} to {in_text(max(means))} on the three sets" in page
    assert all(column.mean() > 1.96 * column.std(ddof=1) / len(column) ** 0.5 for column in better)
    assert all(corrected(rows, name, "relevance", suff)["attnlrp"][0] > 0.05 for name in gaps)
    behind = [better_by(rows, name, "attnlrp", "attnlrp_iterative", suff).mean() for name in gaps]
    assert f"behind `attnlrp` in sufficiency by {in_text(min(behind))} to {in_text(max(behind))}" in page
    position = better_by(rows, "sst2", "position-aware LRP", "attnlrp_iterative", suff)
    assert f"behind position-aware LRP by {in_text(position.mean())} (SST-2, {len(position)} inputs)" in page
    for name in gaps:
        for metric in (comp, suff):
            assert abs(better_by(rows, name, "attnlrp", "lxt AttnLRP", metric).mean()) < 0.0015
    speed = {row["name"]: row["ratio"]["median"] for row in rows if row["kind"] == "speed"}
    once, often = (
        [r for n, r in speed.items() if n.startswith(f"{m} over relevance")] for m in ("attnlrp", "attnlrp_iterative")
    )
    assert len(once) == len(often) == 2
    assert {f"{ratio:.1f}" for ratio in once} == set(re.findall(r"which is ([\d.]+) times as long", page))
    assert f"takes {min(often):.1f} to {max(often):.1f} times as long" in page


def test_numbers_of_the_overview_of_studies(faithful, causal, informed):
    """Three numbers of each study on docs/studies/index.md, from the rows."""
    page = " ".join((STUDIES / "index.md").read_text(encoding="utf-8").split())
    rows, _ = faithful
    for title, name, rival, metric in (
        ("SST-2", "sst2", "integrated_gradients", "comprehensiveness"),
        ("SST-2", "sst2", "integrated_gradients", "sufficiency"),
        ("AG News", "agnews", "gradient_shap", "sufficiency"),
    ):
        gap = better_by(rows, name, "relevance", rival, metric).mean()
        place = ("comprehensiveness", "sufficiency").index(metric) + 1
        cells = page[page.index(f"| {title} |") :].split(" | ")
        assert re.match(rf"{re.escape(f'{gap:+.3f}')} \[\S+, \S+\] {rival}", cells[place])
    by_unit = [lines for title, lines in tables_of(faithful[1]) if title.startswith("Worst: ")]
    assert len(by_unit) == 4
    for worst in by_unit:
        certain = [one for one in worst if shown_p(one["better by"]) < 0.05]
        line = min(certain, key=lambda one: number(one["better by"]))
        where = f"({line['metric']}, {line['data']}, {line['inputs']} inputs)"
        assert f"`{line['method']}` {number(line['better by']):+.3f} to {line['behind']} {where}" in page
    gaps = better_by(rows, "mrpc", "attnlrp_iterative", "feature_ablation", "comprehensiveness")
    assert f"`attnlrp_iterative` {gaps.mean():+.3f} to feature_ablation (comprehensiveness, MRPC" in page
    others = [method for method in methods_of(rows, "sst2") if method != "relevance"]
    places = [
        1 + sum(better_by(rows, "sst2", "relevance", other, metric).mean() < -1e-6 for other in others)
        for metric in ("comprehensiveness", "sufficiency")
    ]
    assert f"SST-2 {places[0]} and {places[1]} of {len(others) + 1}" in page
    for method in ("lime", "shapley_sampling", "kernel_shap"):  # of Captum, ahead on fewer inputs
        gaps = better_by(rows, "sst2", "relevance", method, "comprehensiveness")
        assert re.search(rf"SST-2, {len(gaps)} inputs: [^;]*{method} {re.escape(f'{gaps.mean():+.3f}')}, p = ", page)
    certificates = causal[0]["certificates"]
    some = [row["kept"] for row in certificates if row["changed"] > 0]
    assert f"Predictions kept: {sum(some)} / {len(some)} inputs with a changed row" in page
    assert f"of {len({row['suite'] for row in certificates})} pairs of model and data set" in page
    changes = [row["relative"] for row in certificates if row["changed"] > 0]
    assert float(re.search(r"Median relative change of the logits: (\S+)\. ", page)[1]) == pytest.approx(
        np.median(changes), rel=0.06
    )
    heads = [row for row in informed[0] if row["row"] == "head"]
    assert f"{len(heads)} heads with additive, deep" in page
    assert len({row["kind"] for row in heads}) == 20
    for data, least in (("agnews", 10), ("imdb", 5), ("sst2", 10)):
        assert len({row["seed"] for row in heads if row["dataset"] == data}) >= least


def test_figures_of_concepts_and_limits_are_those_of_rows_and_generated_pages(relevance):
    """The worst bias on the page of information, and the gaps among the limits of relevance."""
    concept = (ROOT / "docs" / "concepts" / "information.md").read_text(encoding="utf-8")
    biases = {}
    for row in rows_of(ROOT / "benchmarks" / "accuracy" / "results" / "mi_coverage.jsonl"):
        if row["effort"] == "fast":
            biases.setdefault(row["family"], []).append(row["nats"] - row["truth"])
    worst = min(np.mean(values) for values in biases.values())
    assert worst == min((np.mean(values) for values in biases.values()), key=lambda bias: -abs(bias))
    assert f"that was tried it is about {-worst:.1f} nats too low" in concept
    assert f"counted in each of {len(biases)} families" in concept
    models = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    (types,) = [table for title, table in tables_of(models) if title == "Table"]
    gaps = {row["Type"].strip("`"): float(row["Gap"]) for row in types if row["Gap"] not in ("", "-")}
    limits = relevance.split("## Known limits")[1]
    assert f"({gaps['bloom']:.1f} in the table of" in limits
    linear = max(gap for name, gap in gaps.items() if name.startswith(("qwen3_5", "qwen3_next")))
    assert f"up to {linear:.0e} in the table of".replace("e-0", "e-") in limits
    others = {name for name, gap in gaps.items() if gap > 1e-4 and not name.startswith(("bloom", "qwen3"))}
    assert others == {"mobilebert"}  # rounding: docs/tasks.md says so


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
