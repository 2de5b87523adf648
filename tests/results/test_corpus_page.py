"""The page of a summary of a data set: what stands in it, alone and below explanations."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results import CorpusSummary, Report
from hf_attn_mi.results.corpus_words import Axis, marked, word_panels
from tests.results.corpus_samples import HOSTILE, class_word, corpus, hostile_corpus
from tests.results.result_samples import report

VOID = {"meta", "br", "line", "circle", "rect", "link", "img"}


class Page(HTMLParser):
    """The tags with their attributes and the text of a page; its elements are nested."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.stack = [], "", []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack[-1:] not in (["style"], ["script"]):
            self.text += data

    def ids(self):
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def flat(page):
    return re.sub(r"[ \n]+", " ", page.text)


def test_the_page_alone_has_no_script_and_loads_nothing():
    html = corpus().to_html()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', html)
    allowed = dict(part.split(" ", 1) for part in policy.replace("&#39;", "'").split("; "))
    assert (allowed["default-src"], allowed["script-src"]) == ("'none'", "'none'")
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert allowed["style-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"
    assert not re.search(r"<script|\son\w+=|style=|src=|https?:|@import|url\(", html)
    tags = Page(html).tags
    assert [tag for tag, _ in tags].count("h1") == 1
    links = {attributes["href"].removeprefix("#") for tag, attributes in tags if tag == "a"}
    assert links <= set(Page(html).ids())


def test_every_number_of_a_word_stands_on_the_page():
    summary = corpus(words=1)
    text = flat(Page(summary.to_html()))
    assert "What the model has learned from 2,000 inputs" in text
    assert "2,000 explanations of reviews.jsonl. 12 rows were skipped; the reasons are in out/errors." in text
    assert "4,321 pairs of a word and a class occur in 10 inputs or more" in text
    assert "87.5\u202f% of the predictions with a gold label are correct" in text
    one = summary.words[0]
    assert one.interval == (1.75, 2.25)
    for part in (
        "+2.00, 95 % +1.75 to +2.25",
        "+0.125, a word at random",
        "20, where it occurs 22 times",
        "0.002 (0.001 be",
    ):
        assert part in text, part
    for part in (
        "+0.750, 95 % +0.250 to +1.25",
        "+0.500 in 12 inputs",
        "\u22120.250 in 30 inputs",
        "0.02 (0.01 before)",
    ):
        assert part in text, part
    for part in (
        "\u22120.500, 95 % \u22120.750 to \u22120.250",
        "15; of all that hold it, 75\u202f% are",
        "0.4 (0.04 before)",
    ):
        assert part in text, part
    assert "<mark>BUT0</mark> dull" in summary.to_html()


def test_dots_and_lines_have_their_places_on_one_axis_for_all_classes():
    summary = corpus(words=2)
    first, second, errors, opposing = word_panels(summary, "corpus")
    assert first.axis is second.axis
    row = first.rows[0]
    axis = Axis([-1.0, 3.0])
    assert (axis.place(-1), axis.place(3)) == (2.5, 97.5)
    assert axis.place(1) == pytest.approx((2.5 + 97.5) / 2)
    assert [row.line[0], row.dot, row.line[1]] == [first.axis.place(x) for x in (1.75, 2.0, 2.25)]
    assert row.chance == first.axis.place(0.125)
    assert (row.kind, row.significant, opposing.rows[0].kind, opposing.rows[0].significant) == (
        "for",
        True,
        "against",
        False,
    )
    assert errors.rows[0].dot == errors.axis.place(0.75)
    drawn = re.findall(r'<circle class="(filled|hollow)" cx="([\d.]+)%"', summary.to_html())
    expected = [row for panel in (first, second, errors, opposing) for row in panel.rows]
    assert drawn == [("filled" if one.significant else "hollow", str(one.dot)) for one in expected]


@pytest.mark.parametrize("numbers", [[], [0.0], [float("nan"), float("inf"), 1.0], [1e-9, 2e-9], [-5e6, 1e7], [-0.3]])
def test_every_axis_holds_its_numbers_and_has_a_few_round_ticks(numbers):
    axis = Axis(numbers)
    known = [0.0, *(x for x in numbers if abs(x) < float("inf"))]
    assert all(2.5 <= axis.place(x) <= 97.5 for x in known)
    assert 2 <= len(axis.ticks) <= 7
    assert "0" in [tick.text for tick in axis.ticks]
    assert [tick.place for tick in axis.ticks] == sorted({tick.place for tick in axis.ticks})


@pytest.mark.parametrize("shown", [hostile_corpus, lambda: report(corpus=hostile_corpus())], ids=["alone", "beside"])
def test_hostile_words_are_text_and_never_markup(shown):
    html = shown().to_html()
    html.encode("utf-8")
    alone = isinstance(shown(), CorpusSummary)
    page = Page(html)
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == (0 if alone else 2)
    assert "img" not in names
    assert "<!--" not in html.split("</head>")[1]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert HOSTILE[1] in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert len(page.ids()) == len(set(page.ids()))


def test_the_most_important_come_first_and_the_rest_is_named():
    summary = corpus(classes=150, words=100)
    page = Page(summary.to_html())
    text = flat(page)
    assert len(summary.to_html()) < 600_000
    assert sum(identifier.startswith("corpus-class-") for identifier in page.ids()) == 8
    assert "80 further words: word20, word21," in text
    assert "word79 and 20 more." in text
    assert "class 8, 1,142word0, word1, word2" in text
    assert "and 82 more classes" in text
    assert "145 other classes" in text  # of the bars
    endless = [class_word(f"{i}{'x' * 10_000}", f"class {i % 8}", examples=("y" * 10_000,) * 3) for i in range(160)]
    assert len(replace(corpus(classes=8), words=tuple(endless)).to_html()) < 600_000


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"words": ()}, "No word of 10 or more inputs of this class contributes more than chance."),
        ({"missing": 1}, "1 row of the data set is not explained yet: run explain-dataset again, then summarize."),
        ({"unnamed": 3}, "3 gold labels name no class of the model (class 0, class 1...)"),
        ({"errors": ()}, "No word occurs in 10 wrong and 10 correct predictions of one class."),
        ({"errors": (), "accuracy": None}, "The data have no gold labels that name a class of the model"),
        ({"opposing": ()}, "There is no such word."),
        ({"skipped": 0}, "No row was skipped."),
        ({"skipped": 1}, "1 row was skipped; the reasons are in out/errors."),
        ({"rows": 1}, "What the model has learned from 1 input"),
        ({"info": {}}, "12 rows were skipped; the reasons are in the errors files."),
    ],
)
def test_what_is_missing_is_said(changes, sentence):
    assert sentence in flat(Page(replace(corpus(), **changes).to_html()))


def test_only_what_the_tests_reject_stands_out():
    words = (class_word("plot", "class 0", 0.9, adjusted=0.6), class_word("warm", "class 0", 0.8))
    text = flat(Page(replace(corpus(words=1), words=words).to_html()))
    assert "warm contributes most to class 0: +0.800." in text
    assert "plot contributes most" not in text
    nothing = replace(corpus(), words=words[:1], errors=(), opposing=())
    assert "No word differs from chance or zero after the correction" in flat(Page(nothing.to_html()))
    assert "3 of 3 significant" in corpus().to_text(color="none")


def test_intervals_and_tests_may_be_missing():
    one = replace(class_word("odd", "class 0"), interval=None, p_value=None, adjusted=None, examples=())
    text = flat(Page(replace(corpus(), words=(one,)).to_html()))
    assert "not known: the values do not vary" in text
    assert not one.significant


@pytest.mark.parametrize(
    ("text", "word", "pieces"),
    [
        ("Art is artful art", "art", [("Art", True), (" is artful ", False), ("art", True)]),
        ("a c++ book", "c++", [("a ", False), ("c++", True), (" book", False)]),
        ("STRASSE", "stra\u00dfe", [("STRASSE", False)]),
        ("it's here", "'s", [("it", False), ("'s", True), (" here", False)]),
        ("a" * 100, "a" * 100_000, [("a" * 100, False)]),
        ("", "a", []),
        ("a", "", [("a", False)]),
    ],
)
def test_a_word_is_marked_where_it_stands_alone(text, word, pieces):
    assert marked(text, word) == pieces


def test_beside_explanations_the_panels_stand_below_and_the_file_keeps_them(tmp_path):
    page = report(corpus=corpus())
    html = page.to_html()
    assert html.index('<div id="panels">') < html.index('<section class="corpus" id="corpus"')
    assert '<a href="#corpus">what the model has learned from 2,000 inputs</a>' in html
    assert [tag for tag, _ in Page(html).tags].count("h1") == 1  # of readers without scripts
    assert "What the model has learned from 2,000 inputs" in str(page)
    page.save(tmp_path / "page.json")
    assert Report.load(tmp_path / "page.json") == page
    both = page.beside(report(corpus=corpus(rows=7)))
    found = Page(both.to_html())
    assert {"corpus", "corpus2", "corpus2-errors"} <= set(found.ids())
    assert len(found.ids()) == len(set(found.ids()))


def test_a_report_about_a_corpus_alone():
    page = Report((), corpus=corpus())
    assert "<script" not in page.to_html()
    assert str(page) == str(corpus())
    assert len(page.to_pandas()) == 0
    assert Report.from_dict(json.loads(json.dumps(page.to_dict()))) == page
    assert "<iframe" in page._repr_html_()
    for act in (page.plot, lambda: page.export("a.csv")):
        with pytest.raises(InvalidInputError, match=r"about a corpus alone: report\.corpus has its words and plots"):
            act()
    with pytest.raises(InvalidInputError, match="or about a corpus"):
        Report(())


def test_files_of_earlier_versions_are_read():
    for record in (report(), corpus(skipped=0)):
        data = record.to_dict()
        del data["corpus" if isinstance(record, Report) else "skipped"]
        assert type(record).from_dict(data) == record
