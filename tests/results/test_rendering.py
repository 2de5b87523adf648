"""HTML and terminal forms: escaping, original text kept, contrast, odd scores."""

import math
import re
from html.parser import HTMLParser

import pytest

from hf_attn_mi.results.rendering import (
    Piece,
    html_fragment,
    html_page,
    level_colors,
    level_of,
    split_text,
    terminal_text,
)

NASTY = "<script>alert(\"1\")</script> & 'x' </title></style>"


class Reader(HTMLParser):
    """Collects tags, the text inside of the text blocks, and the attributes of words."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.words, self.stack = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "meta":
            return
        self.stack.append((tag, attributes.get("class")))
        if tag == "div":
            self.texts.append("")
        if "tabindex" in attributes:
            self.words.append(attributes)

    def handle_endtag(self, tag):
        assert self.stack.pop()[0] == tag, "tags are nested"

    def handle_data(self, data):
        if any(tag == "div" for tag, _ in self.stack):
            self.texts[-1] += data


def fragment(*pieces, **options):
    return html_fragment([list(pieces)], **{"label": "positive", "details": {}, **options})


def contrast(one, two):
    """WCAG 2 contrast ratio, written from its definition."""

    def luminance(color):
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in color)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# --- colors


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("level", range(-10, 11))
def test_every_level_is_readable_and_in_the_style(level, dark):
    profile, text = level_colors(level, dark=dark)
    assert contrast(profile, text) >= 4.5
    name = "z" if level == 0 else f"{'p' if level > 0 else 'n'}{abs(level)}"
    style = fragment(Piece("x", 1.0)).split("prefers-color-scheme:dark")[dark]
    assert f".hf-attn-mi .{name}{{background:#%02x%02x%02x;color:#%02x%02x%02x}}" % (*profile, *text) in style


def test_every_color_pair_of_the_style_is_readable():
    style = re.search("<style>(.*)</style>", fragment(Piece("x", 1.0)))[1]
    pairs = re.findall(r"background:#(\w+);color:#(\w+)", style)
    assert len(pairs) >= 2 * 21 + 4

    def rgb(text):
        text = text if len(text) == 6 else "".join(2 * c for c in text)
        return tuple(bytes.fromhex(text))

    assert min(contrast(rgb(a), rgb(b)) for a, b in pairs) >= 4.5


@pytest.mark.parametrize("dark", [False, True])
def test_blue_is_positive_and_orange_negative(dark):
    (red, _, blue), (red_minus, _, blue_minus) = level_colors(10, dark=dark)[0], level_colors(-10, dark=dark)[0]
    assert blue > red + 80
    assert red_minus > blue_minus + 80
    assert level_colors(0, dark=dark)[0] in ((255, 255, 255), (27, 28, 32))


@pytest.mark.parametrize(
    ("score", "scale", "level"),
    [(1, 1, 10), (-1, 1, -10), (0.5, 1, 5), (0.01, 1, 0), (0, 0, 0), (1, 0, 0), (math.inf, 1, 10), (math.nan, 1, None)],
)
def test_level_of(score, scale, level):
    assert level_of(score, scale) == level


# --- the text


def test_split_text_gives_the_text_back():
    text = "  so good\r\n\tשלום 👩‍👩‍👧 end "
    words = [(2, 4, 0.1, "so"), (4, 9, 0.2, "good"), (12, 16, 0.3, "hi"), (12, 16, 0.3, "hi"), (17, 22, 0.4, "e")]
    pieces = split_text(text, reversed(words))
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.text for piece in pieces if piece.score is not None] == ["so", "good", "שלום", "", "👩‍👩‍👧"]


@pytest.mark.parametrize("text", ["", " ", "a\n\n  b\t", "a\r\nb", "مرحبا 👩‍👩‍👧", NASTY, "naïve &amp; &lt;"])
def test_html_keeps_the_original_text(text):
    pieces = split_text(text, [(i, i + 1, 0.1 * i, "x") for i in range(len(text))])
    assert Reader(html_fragment([pieces], label="a", details={})).texts == [text]
    assert 'dir="auto"' in html_fragment([pieces], label="a", details={})
    # A browser reads a bare carriage return as a line feed; Python's parser does not, so it is looked for here.
    assert "\r" not in html_fragment([pieces], label="a", details={})


def test_everything_is_escaped():
    html = html_page(
        [
            fragment(
                Piece(NASTY, 0.5, NASTY),
                Piece(NASTY),
                label=NASTY,
                details={NASTY: NASTY},
                facts=[NASTY],
                layers=[[NASTY], [NASTY]],
            )
        ],
        title=NASTY,
    )
    read = Reader(html)
    tags = [tag for tag, _ in read.tags]
    assert "script" not in tags
    assert "<script" not in html
    assert tags.count("title") == 1
    assert tags.count("style") == 1
    assert read.words == [{**read.words[0], "title": f"{NASTY}: +0.5", "aria-label": f"{NASTY}: +0.5"}]
    assert read.texts == [NASTY + NASTY]
    # title, h1, h2, header (2), tooltip (2), text (2), legend, top word, fact, layer table (2)
    assert html.count("&lt;script&gt;") == 14


def test_page_is_one_self_contained_file():
    page = html_page([fragment(Piece("a", 1.0)), fragment(Piece("b", -1.0))], title="Two")
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<style>") == 1
    assert page.count("<section") == 2
    assert not re.search(r"https?:|//|url\(|@import|\b(src|href)=|<script|<link", page)
    assert "default-src 'none'" in page
    assert 'charset="utf-8"' in page
    page.encode("utf-8")
    html_page([fragment(Piece("\ud83d\x00", 1.0))], title="\udfff").encode("utf-8")


def test_words_can_be_hovered_focused_and_heard():
    words = Reader(fragment(Piece("good", 0.5), Piece(" "), Piece("bad", -0.25))).words
    assert [(word["title"], word["aria-label"], word["tabindex"], word["class"]) for word in words] == [
        ("good: +0.5", "good: +0.5", "0", "c p10"),
        ("bad: -0.25", "bad: -0.25", "0", "c n5"),
    ]


def test_header_legend_and_lists():
    html = fragment(
        Piece("good", 0.5),
        Piece("bad", -0.75),
        details={"probability": "0.98", "method": "relevance"},
        facts=["gap 1e-6"],
        layers=[["layer", "rank"], ["0", "32"]],
        top=1,
    )
    assert "<h2>positive</h2>" in html
    assert "probability <b>0.98</b> · method <b>relevance</b>" in html
    assert "Blue speaks for positive, orange with a dotted line against; scale: ±0.75" in html
    assert '<tr><td><bdi>bad</bdi></td><td class="n10">-0.75</td></tr>' in html
    assert "<bdi>good" not in html
    assert "<li>gap 1e-6</li>" in html
    assert "<tr><th>layer</th><th>rank</th></tr><tr><td>0</td><td>32</td></tr>" in html


def test_long_input_stays_light():
    pieces = [piece for i in range(512) for piece in (Piece(f"word{i}", math.sin(i)), Piece(" "))]
    rows = [["layer", "name", "rank"]] + [[str(i), "bert.encoder.layer.0.attention.self", "64"] for i in range(24)]
    page = html_page([html_fragment([pieces], label="a", details={}, layers=rows)], title="long")
    assert len(page.encode()) < 100_000


# --- odd scores


ODD = {
    "zeros": [0.0, 0.0],
    "one": [0.3],
    "negative": [-0.5, -0.1],
    "nan": [math.nan, 0.5],
    "only nan": [math.nan],
    "inf": [math.inf, -1.0],
    "none": [],
}


@pytest.mark.parametrize("scores", ODD.values(), ids=ODD.keys())
def test_odd_scores_are_shown(scores):
    pieces = [Piece("word", score) for score in scores]
    html = fragment(*pieces)
    assert [word["title"].removeprefix("word: ") for word in Reader(html).words] == [show(score) for score in scores]
    for color in (True, False):
        text = terminal_text([pieces], label="a", details={}, color=color)
        assert all(show(score) in text for score in scores)
    if not any(math.isfinite(score) and score for score in scores):
        assert "No word has a score other than zero." in html
    assert ('class="c u"' in html) == any(map(math.isnan, scores))


def show(score):
    return "NaN" if math.isnan(score) else "0" if score == 0 else f"{score:+g}"


def test_empty_words_have_a_mark_and_a_name():
    words = Reader(fragment(Piece("", 0.5), Piece("", 0.25, "▁"), Piece(" ", 0.1))).words
    assert [word["title"] for word in words] == ["(blank): +0.5", "▁: +0.25", "(blank): +0.1"]
    assert all(word["class"].endswith(" e") for word in words)


# --- terminal


def test_plain_terminal_text_exactly():
    text = terminal_text(
        [[Piece("good", 0.5), Piece(" "), Piece("日本", -0.25), Piece(" "), Piece("so", 0.0)]],
        label="positive",
        details={"probability": "0.98"},
        facts=["gap 1e-6"],
        color=False,
    )
    assert text.splitlines() == [
        "positive (probability 0.98)",
        "  good   +0.5  ++++++++++++++++++++",
        "  日本  -0.25  ----------",
        "  so        0",
        "+ speaks for positive, - against; scale: ±0.5, the largest word.",
        "gap 1e-6",
    ]


def test_colored_terminal_text_exactly():
    text = terminal_text([[Piece("good", 1.0), Piece(" "), Piece("so", 0.0)]], label="a", details={}, top=1)
    # Blue (33, 102, 172) is nearest to step (0, 1, 3) of the cube, (0, 95, 175): 16 + 6 + 3 = 25; white stands out.
    assert text.splitlines()[1] == "\x1b[38;5;231;48;5;25mgood\x1b[0m so"

    # One fifth of the way from white to orange-red: (245, 219, 208) is nearest to step (5, 4, 4); black stands out.
    pale = terminal_text([[Piece("bad", -0.2), Piece("good", 1.0)]], label="a", details={})
    assert "\x1b[38;5;16;48;5;224mbad\x1b[0m" in pale
    paint = "\x1b[38;5;231;48;5;25m"
    assert f"{paint}a\x1b[0m\n{paint}b\x1b[0m" in terminal_text([[Piece("a\nb", 1.0)]], label="a", details={})


@pytest.mark.parametrize("color", [True, False])
def test_input_cannot_steer_the_terminal(color):
    evil = "a\x1b[31mb\x9bc\x07\rd\ud800"
    text = terminal_text([[Piece(evil, 1.0), Piece(evil)]], label=evil, details={evil: evil}, facts=[evil], color=color)
    ours = re.compile(r"\x1b\[38;5;\d+;48;5;\d+m|\x1b\[0m")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", ours.sub("", text))
    assert bool(ours.search(text)) == color
    text.encode("utf-8")


def test_long_and_wide_words_keep_the_columns():
    pieces = [Piece("x" * 100_000, 1.0), Piece("漢" * 50, 0.5), Piece("e\u0301", 0.25)]
    lines = terminal_text([pieces], label="a", details={}, color=False).splitlines()[1:4]
    assert lines[0].startswith("  " + "x" * 23 + "…  ")
    assert lines[1].startswith("  " + "漢" * 11 + "… " + "  ")
    assert lines[2].startswith("  e\u0301" + " " * 23 + "  +0.25")


def test_every_number_of_a_report_is_explained_one_click_away() -> None:
    page = html_fragment([[Piece("good", 0.5)]], label="positive", details={"probability": "0.9"})
    folded = page.split("<summary>What these numbers mean</summary>")[1]
    for number in ("score of a word", "probability", "completeness gap", "n, rank", "difference", "entropy"):
        assert f"<dt>{number}</dt><dd>" in folded
