"""The report and its page: what stands in the file, before any browser opens it."""

import base64
import hashlib
import json
import re
from dataclasses import replace

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
    against = with_explanation(scores=-torch.ones(5))
    assert against.items[0].sentence == "positive, 75.0 %; no word speaks for it."
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
