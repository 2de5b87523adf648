"""Numbers of the study pages, computed again from the stored rows with code that shares nothing with the reports.

A number is looked up in the page by the heading of its table, its column and the cells that name its row.
"""

import gzip
import json
import re
import statistics

import numpy as np
import pytest
import scipy.stats

from benchmarks.common import ROOT
from benchmarks.studies.causal.suites import SUITES

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
    kept, count = sum(row["kept"] for row in parts["certificates"]), len(parts["certificates"])
    assert f"| predictions kept on every input, 2,000 or more | {kept} / {count} (" in page


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
        recurrence, score = re.fullmatch(r"BiLSTM \+ additive less (\w+) \+ (\w+)", name).groups()
        terms = [
            ("bilstm additive softmax 1 trained", "tau", 1.0),
            (f"{recurrence} {score} softmax 1 trained", "tau", -1.0),
        ]
        value, error, freedom = crossed(rows, data, terms)
        p_values.append(2 * scipy.stats.t.sf(abs(value) / error, freedom))
    highest = 0.0
    for rank, place in enumerate(np.argsort(p_values)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        assert parsed(shown[place][-1])[3] == pytest.approx(highest if highest >= 0.001 else 0.0, abs=6e-3)
    assert len(shown) == 15


def test_verdicts_of_the_information_study_follow_from_its_differences(informed):
    """The words that p-values decide, and the verdict of each claim, by the rules on the page."""
    _, page = informed
    verdicts = dict(re.findall(r"^\| (\([ivx]+\)) [^|]+ \| ([A-Z ]+) \|$", page, re.MULTILINE))
    assert list(verdicts) == ["(i)", "(ii)", "(iii)", "(iv)", "(v)"]
    for claim, verdict in verdicts.items():
        words = []
        for _, _, kind, limit, text in decided_tables(page, f"{claim} "):
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
        wrong, all_hold = {"reversed", "absent"} & set(words), set(words) == {"holds"}
        assert len(words) >= 6
        assert verdict.lower() == ("holds" if all_hold else "does not hold" if wrong else "not decided")


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
    for metric, sign, words in (
        ("comprehensiveness", 1, "is behind integrated gradients on SST-2 by {}"),
        ("sufficiency", -1, "(sufficiency: {})."),
    ):
        ours, other = (
            by_input(rows, "sst2", method, metric, ("main",)) for method in ("relevance", "integrated_gradients")
        )
        behind = -sign * np.mean([ours[place] - other[place] for place in ours])
        assert words.format(f"{behind:.3f}".removeprefix("0")) in readme


def test_what_the_readme_says_of_attnlrp_iterative(faithful):
    """The best comprehensiveness of all methods with every input, and the largest loss of sufficiency to AttnLRP."""
    rows, _ = faithful
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    groups, losses = ("main", "added", "peers"), []
    for name in ("agnews", "imdb", "sst2"):
        methods = {method for row in rows if row["kind"] == "run" and row["set"] == name for method in row["values"]}
        means = {}
        for method in methods:
            values = by_input(rows, name, method, "comprehensiveness", groups)
            if len(values) == 200:
                means[method] = np.mean(list(values.values()))
        assert len(means) >= 15
        assert max(means, key=means.get) == "attnlrp_iterative"
        ours, other = (by_input(rows, name, m, "sufficiency", groups) for m in ("attnlrp_iterative", "attnlrp"))
        losses.append(np.mean([ours[place] - other[place] for place in ours]))
    assert f"AttnLRP has up to {max(losses):.3f} better sufficiency".replace(" 0.", " .") in readme
    for name in ("snli", "mrpc"):
        for metric, sign, best in (("comprehensiveness", 1, "feature_ablation"), ("sufficiency", -1, "relevance")):
            methods = {
                method for row in rows if row["kind"] == "run" and row["set"] == name for method in row["values"]
            }
            columns = {method: list(by_input(rows, name, method, metric, ("main",)).values()) for method in methods}
            assert re.search(rf"\({name.upper()} {len(columns[best])},|, {name.upper()} {len(columns[best])}\)", readme)
            assert max(columns, key=lambda method: sign * np.mean(columns[method])) == best
    page, gaps = " ".join((METHODS / "relevance.md").read_text(encoding="utf-8").split()), []
    for name in ("snli", "mrpc"):
        methods = ("feature_ablation", "attnlrp_iterative")
        best, ours = (by_input(rows, name, method, "comprehensiveness", ("main",)) for method in methods)
        gaps.append(f"{np.mean([best[place] - ours[place] for place in ours]):.3f}".removeprefix("0"))
    assert re.search(rf"comprehensiveness that is higher by {gaps[0]} \[[^]]*\] and {gaps[1]} \[", page)


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
