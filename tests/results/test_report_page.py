"""The report and its page: what stands in the file, before any browser opens it."""

import base64
import csv
import hashlib
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results import HeadDetail, Report
from hf_attn_mi.results.report_data import page_data
from hf_attn_mi.results.report_parts import KINDS, pack_matrices
from tests.results.result_samples import explanation, report

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--",
    "<img src=x onerror=alert(1)>",
    "\u2028\u2029",
    "\ud800",
    "&lt;",
)


def data_of(page):
    """The data of a page, as its script reads it."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def with_explanation(**changes):
    item = report().items[0]
    return report(items=(replace(item, explanations=(explanation(**changes),), methods=()),))


def test_the_policy_allows_this_style_and_this_script_and_nothing_else():
    page = report().to_html()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)
    allowed = dict(part.split(" ", 1) for part in policy.replace("&#39;", "'").split("; "))
    assert allowed["default-src"] == "'none'"
    for tag, name in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed[name] == f"'sha256-{digest}'"
    assert "unsafe" not in policy
    assert not re.search(r"\son\w+=|style=|src=|@import|url\(|eval\(|innerHTML|\.write\(", page)
    assert set(re.findall(r"https?://[^\s\"'`]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_the_page_holds_the_numbers_of_the_record():
    record = report()
    item, data = record.items[0], data_of(record.to_html())
    assert data == json.loads(json.dumps(page_data(record)))
    shown = data["items"][0]
    assert shown["explanations"][0]["scores"] == item.explanation.scores.tolist()
    assert shown["explanations"][0]["wordScores"] == [word.score for word in item.explanation.to_words()]
    assert [row[3] for row in shown["classes"]] == [one.value for one in item.classes]
    assert shown["certificate"]["outcome"] == item.certificate.outcome
    assert shown["tokenSet"]["indices"] == [1, 2]
    assert shown["agreement"][0] == 1.0


def test_the_weights_of_the_subgraph_stand_in_the_page_with_their_membership():
    item = report().items[0]
    shown = data_of(report().to_html())["items"][0]["subgraph"]
    assert (shown["total"], shown["pRest"], shown["outcome"]) == (64, 0.4, "holds")
    assert [module["place"] for module in shown["modules"]] == [0, 1]
    for edge, data in zip(item.subgraph.edges, shown["edges"], strict=True):
        assert (edge.call, edge.head, edge.query, edge.key) == tuple(data[x] for x in ("call", "head", "query", "key"))
        assert (edge.weight, edge.contribution) == (data["weight"], data["contribution"])
    assert [data["member"] for data in shown["edges"]] == [1.0, 0.5]
    assert [data["fails"] for data in shown["edges"]] == ["set", "rest"]
    assert "2 of 64 attention weights carry 'positive' (holds): alone they have 94.0 %" in str(report())


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_tokens_are_data_and_never_markup(hostile):
    record = with_explanation(tokens=("[CLS]", hostile, hostile, "film", "[SEP]"), offsets=None, texts=(hostile,))
    page = record.to_html()
    page.encode("utf-8")
    assert page.count("<script") == 2
    assert page.count("</script") == 2
    assert "<!--" not in page.split("</head>")[1]
    assert "<img" not in page
    assert data_of(page)["items"][0]["tokens"][1] == hostile


def test_in_a_notebook_the_page_stands_in_a_frame_of_its_own():
    frame = report()._repr_html_()
    assert frame.startswith("<iframe ")
    assert frame.count("<") == 2
    assert "allow-same-origin" not in frame


def test_the_sentence_names_the_strongest_words_that_speak_for_the_class():
    assert report().items[0].sentence == "positive, 75.0 %, because of 'Unbelievable'."
    twice = with_explanation(word_ids=None, offsets=None, tokens=("[CLS]", "joy", "Joy", "film", "[SEP]"), texts=())
    assert twice.items[0].sentence == "positive, 75.0 %, because of 'Joy'."
    point = with_explanation(tokens=("[CLS]", "...", "joy", "!", "[SEP]"), word_ids=None, offsets=None, texts=())
    assert point.items[0].sentence == "positive, 75.0 %, because of 'joy'."
    against = with_explanation(scores=-torch.ones(5))
    assert against.items[0].sentence == "positive, 75.0 %; no word supports it."
    blind = with_explanation(info={"method": "attention", "class_linked": False})
    assert blind.items[0].sentence == "positive, 75.0 %; attention puts most weight on 'Unbelievable'."
    value = with_explanation(target=None, target_name="score", probability=None)
    assert value.items[0].sentence == "score, because of 'Unbelievable'."


def test_the_suffix_decides_between_page_and_data(tmp_path):
    record = report()
    record.save(tmp_path / "page.html")
    record.save(tmp_path / "data.json")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == record.to_html()
    assert Report.load(tmp_path / "data.json") == record
    with pytest.raises(InvalidInputError, match="exists"):
        record.save(tmp_path / "page.html")
    with pytest.raises(InvalidInputError, match=r"\.json or \.json\.gz \(the data\) or in \.html"):
        record.save(tmp_path / "page.pdf")


def test_the_label_is_compared_with_the_prediction():
    item = report().items[0]
    assert item.prediction.name == "positive"
    assert item.correct is False
    assert replace(item, label="positive").correct
    assert replace(item, label=None).correct is None
    assert "the prediction is wrong" in str(report())


def test_stored_weights_are_within_half_a_step_of_the_weights():
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.rand(7, 9, generator=generator), torch.randn(7, 9, generator=generator), torch.zeros(7, 9)]
    scale, texts = pack_matrices(matrices)
    assert scale == max(float(matrix.abs().max()) for matrix in matrices)
    head = HeadDetail(0, 0, rows=tuple(range(7)), scale=scale, **texts)
    for kind, matrix in zip(KINDS, matrices):
        assert float((head.matrix(kind) - matrix).abs().max()) <= scale / 254 * (1 + 1e-5)
    assert HeadDetail(0, 0).matrix("raw") is None
    with pytest.raises(InvalidInputError, match="kind must be one of 'raw', 'effective', 'efficient', not 'A'"):
        head.matrix("A")


def test_a_report_needs_an_input_and_each_input_an_explanation():
    with pytest.raises(InvalidInputError, match="items is empty"):
        report(items=())
    with pytest.raises(InvalidInputError, match=r"items\[0\]\.explanations is empty"):
        report(items=(replace(report().items[0], explanations=()),))


def test_the_words_are_exported_as_table_latex_and_pictures(tmp_path):
    record = report()
    for suffix in (".csv", ".tex", ".svg", ".png"):
        record.export(tmp_path / f"words{suffix}")
        with pytest.raises(InvalidInputError, match="exists"):
            record.export(tmp_path / f"words{suffix}")
    rows = list(csv.reader((tmp_path / "words.csv").read_text().splitlines()))
    assert rows[0] == ["word", "relevance:positive", "relevance:negative", "attention:positive", "in_minimal_set"]
    assert rows[1:] == [
        ["Unbelievable", "0.75", "0.75", "0.75", "1"],
        ["film", "-0.125", "-0.125", "-0.125", "0"],
    ]
    latex = (tmp_path / "words.tex").read_text()
    assert r"\colorbox{for!100}{\textcolor{white}{\underline{Unbelievable}}}  \colorbox{against!17}{film}!" in latex
    svg = ElementTree.fromstring((tmp_path / "words.svg").read_text())
    assert [one.text for one in svg if one.tag.endswith("text")] == ["Unbelievable", "film", "!"]
    assert (tmp_path / "words.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidInputError, match=r"must end in \.svg, \.png, \.tex, \.csv"):
        record.export(tmp_path / "words.pdf")
    for wrong in (1, -1, True, "0"):
        with pytest.raises(InvalidInputError, match="input must be a whole number from 0 to 0"):
            record.export(tmp_path / "more.csv", input=wrong)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_exports_of_hostile_tokens_are_well_formed(tmp_path, hostile):
    record = with_explanation(tokens=("[CLS]", hostile, "$x_1$", "film", "[SEP]"), offsets=None, texts=(hostile,))
    for suffix in (".csv", ".tex", ".svg", ".png"):
        record.export(tmp_path / f"words{suffix}")
    ElementTree.fromstring((tmp_path / "words.svg").read_bytes())
    assert r"\$x\_1\$" in (tmp_path / "words.tex").read_text()


def test_two_reports_on_the_same_texts_stand_side_by_side():
    record = report()
    both = record.beside(report(info={"model": "other"}))
    data = data_of(both.to_html())
    assert [data["info"]["model"], data["second"]["info"]["model"]] == ["m", "other"]
    assert "model other" in str(both)
    assert Report.from_dict(json.loads(json.dumps(both.to_dict()))) == both
    with pytest.raises(InvalidInputError, match="at most two can be shown side by side"):
        record.beside(both)
    with pytest.raises(InvalidInputError, match="second is about other inputs"):
        record.beside(with_explanation(texts=("Another film!",), offsets=None))
    with pytest.raises(InvalidInputError, match="second must be a Report, not str"):
        record.beside("report")
