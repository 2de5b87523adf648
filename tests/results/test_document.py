"""Documents as text, HTML and Markdown: escaping, original text kept, colors, contrast, odd scores."""

import colorsys
import io
import math
import re
from html.parser import HTMLParser

import pytest

from hf_attn_mi.results.document import (
    WIDTH,
    Cell,
    Facts,
    Heading,
    Paragraph,
    Table,
    html_page,
    html_section,
    markdown_text,
    terminal_text,
)
from hf_attn_mi.results.words import Piece, Words, level_colors, level_of, split_text
from tests.results.result_samples import explanation

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
        if tag in ("meta", "br"):
            return
        self.stack.append((tag, attributes.get("class")))
        if (tag, attributes.get("class")) == ("div", "t"):
            self.texts.append("")
        if "tabindex" in attributes:
            self.words.append(attributes)

    def handle_endtag(self, tag):
        assert self.stack.pop()[0] == tag, "tags are nested"

    def handle_data(self, data):
        if ("div", "t") in self.stack:
            self.texts[-1] += data


def words(*pieces, label="positive", **options):
    return Words([list(pieces)], label, **options)


def fragment(*pieces, **options):
    return html_section([words(*pieces, **options)])


def printed(*pieces, color="none", **options):
    return terminal_text([words(*pieces, **options)], color)


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
    style = re.search("<style>(.*)</style>", fragment(Piece("x", 1.0)), re.DOTALL)[1]
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
    html = fragment(*pieces)
    assert Reader(html).texts == [text]
    assert 'dir="auto"' in html
    # A browser reads a bare carriage return as a line feed; Python's parser does not, so it is looked for here.
    assert "\r" not in html


def test_everything_is_escaped():
    blocks = [
        Heading(NASTY, {NASTY: NASTY}),
        words(Piece(NASTY, 0.5, NASTY), Piece(NASTY), label=NASTY),
        Facts([NASTY]),
        Paragraph(NASTY),
        Table([NASTY], [[NASTY]], title=NASTY, folded=True),
        Table([NASTY], [[Cell(NASTY, bold=True)]], title=NASTY),
    ]
    html = html_page([blocks], title=NASTY)
    read = Reader(html)
    tags = [tag for tag, _ in read.tags]
    assert "script" not in tags
    assert "<script" not in html
    assert tags.count("title") == 1
    assert tags.count("style") == 1
    assert read.words == [{**read.words[0], "title": f"{NASTY}: +0.5", "aria-label": f"{NASTY}: +0.5"}]
    assert read.texts == [NASTY + NASTY]
    # title, h1, h2, header (2), tooltip (2), text (2), legend, top word, fact, paragraph, tables with their titles (6)
    assert html.count("&lt;script&gt;") == 19


def test_page_is_one_self_contained_file():
    page = html_page([[words(Piece("a", 1.0))], [words(Piece("b", -1.0))]], title="Two")
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<style>") == 1
    assert page.count("<section") == 2
    assert not re.search(r"https?:|//|url\(|@import|\b(src|href)=|<script|<link", page)
    assert "default-src 'none'" in page
    assert 'charset="utf-8"' in page
    page.encode("utf-8")
    html_page([[words(Piece("\ud83d\x00", 1.0))]], title="\udfff").encode("utf-8")


def test_words_can_be_hovered_focused_and_heard():
    spans = Reader(fragment(Piece("good", 0.5), Piece(" "), Piece("bad", -0.25))).words
    assert [(word["title"], word["aria-label"], word["tabindex"], word["class"]) for word in spans] == [
        ("good: +0.5", "good: +0.5", "0", "c p10"),
        ("bad: -0.25", "bad: -0.25", "0", "c n5"),
    ]


def test_header_legend_and_lists():
    blocks = [
        Heading("positive", {"probability": "0.98", "method": "relevance"}),
        words(Piece("good", 0.5), Piece("bad", -0.75)),
        Facts(["gap 1e-6"]),
        Table(["layer", "rank"], [["0", "32"]], title="Attention per layer", folded=True),
    ]
    html = html_section(blocks)
    assert "<h2>positive</h2>" in html
    assert "probability <b>0.98</b> · method <b>relevance</b>" in html
    assert "Blue speaks for positive, orange with a dotted line against; scale: ±0.75" in html
    assert '<tr><td><bdi>bad</bdi></td><td class="n10">-0.75</td></tr>' in html
    assert html.index("<bdi>bad") < html.index("<bdi>good")  # the strongest first
    assert "<li>gap 1e-6</li>" in html
    folded = html.split("<summary>Attention per layer</summary>")[1]
    assert "<tr><th>layer</th><th>rank</th></tr><tr><td>0</td><td>32</td></tr>" in folded.replace("\n", "")


def test_the_list_of_the_strongest_is_short():
    pieces = [Piece(f"word{i}", i + 1.0) for i in range(30)]
    assert fragment(*pieces).count("<bdi>") == 8
    assert len(printed(*pieces).splitlines()) == 10 + 1  # and the legend


def test_long_input_stays_light():
    pieces = [piece for i in range(512) for piece in (Piece(f"word{i}", math.sin(i)), Piece(" "))]
    rows = [[str(i), "bert.encoder.layer.0.attention.self", "64"] for i in range(24)]
    page = html_page([[words(*pieces), Table(["layer", "name", "rank"], rows)]], title="long")
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
    for color in ("truecolor", "256", "16", "none"):
        text = printed(*pieces, color=color)
        assert all(show(score) in text for score in scores)
    if not any(math.isfinite(score) and score for score in scores):
        assert "No word has a score other than zero." in html
    assert ('class="c u"' in html) == any(map(math.isnan, scores))


def show(score):
    return "NaN" if math.isnan(score) else "0" if score == 0 else f"{score:+g}"


def test_empty_words_have_a_mark_and_a_name():
    spans = Reader(fragment(Piece("", 0.5), Piece("", 0.25, "▁"), Piece(" ", 0.1))).words
    assert [word["title"] for word in spans] == ["(blank): +0.5", "▁: +0.25", "(blank): +0.1"]
    assert all(word["class"].endswith(" e") for word in spans)


# --- terminal


def test_plain_terminal_text_exactly():
    pieces = [Piece("good", 0.5), Piece(" "), Piece("日本", -0.25), Piece(" "), Piece("so", 0.0)]
    heading = Heading("positive", {"probability": "0.98", "method": "relevance"})
    text = terminal_text([heading, words(*pieces), Facts(["gap 1e-6"]), Table(["a"], [["b"]], folded=True)])
    assert text.splitlines() == [
        "positive (probability 0.98, method relevance)",
        "  good   +0.5  ++++++++++++++++++++",
        "  日本  -0.25  ----------",
        "  so        0",
        "+ speaks for positive, - against; scale: ±0.5, the largest word.",
        "gap 1e-6",
    ]


COLORED = {
    # (33, 102, 172) and white; (0, 95, 175) is 16 + 6 + 3 = 25 of the cube and white is 231; 4 is blue and 15 white
    "truecolor": "\x1b[38;2;255;255;255;48;2;33;102;172mgood\x1b[0m so",
    "256": "\x1b[38;5;231;48;5;25mgood\x1b[0m so",
    "16": "\x1b[97;44mgood\x1b[0m so",
}


@pytest.mark.parametrize("color", COLORED)
def test_colored_terminal_text_exactly(color):
    text = printed(Piece("good", 1.0), Piece(" "), Piece("so", 0.0), color=color)
    assert text.splitlines()[0] == COLORED[color]
    paint = COLORED[color].split("good")[0]
    # Off before a line break, or the color fills the rest of the row.
    assert f"{paint}a\x1b[0m\n{paint}b\x1b[0m" in printed(Piece("a\nb", 1.0), color=color)


CUBE = (0, 95, 135, 175, 215, 255)


def shown_colors(score, color):
    """(text, background) of a word of this score beside one of score 1, as RGB."""
    parts = re.search(r"\x1b\[([0-9;]+)mword", printed(Piece("word", score), Piece("x", 1.0), color=color))
    numbers = list(map(int, parts[1].split(";")))
    if color == "truecolor":
        return tuple(numbers[2:5]), tuple(numbers[7:10])
    if color == "256":
        return tuple(tuple(CUBE[(n - 16) // 6**i % 6] for i in (2, 1, 0)) for n in (numbers[2], numbers[5]))
    xterm = {30: (0, 0, 0), 97: (255, 255, 255), 44: (0, 0, 238), 104: (92, 92, 255), 41: (205, 0, 0), 101: (255, 0, 0)}
    return tuple(xterm[number] for number in numbers)


def hue(color):
    return 360 * colorsys.rgb_to_hsv(*(channel / 255 for channel in color))[0]


@pytest.mark.parametrize("color", ["truecolor", "256", "16"])
@pytest.mark.parametrize("level", range(1, 11))
def test_every_level_has_its_hue_and_is_readable_in_every_depth(color, level):
    for sign, (low, high) in ((1, (195, 245)), (-1, (0, 40))):  # blue; red to orange
        text, background = shown_colors(sign * level / 10, color)
        assert low <= hue(background) <= high
        assert contrast(text, background) >= 4.5


@pytest.mark.parametrize("color", ["truecolor", "256", "16"])
@pytest.mark.parametrize("sign", [1, -1])
def test_stronger_is_never_lighter(color, sign):
    white = [contrast((255, 255, 255), shown_colors(sign * level / 10, color)[1]) for level in range(1, 11)]
    assert white == sorted(white)
    assert len(set(white)) >= (2 if color == "16" else 4)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environment", "terminal", "sign"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, True, "[38;2;"),
        ({"TERM": "xterm-256color"}, True, "[38;5;"),
        ({"TERM": "xterm"}, True, "[97;44m"),
        ({"TERM": "dumb"}, True, None),
        ({"TERM": "xterm-256color"}, False, None),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, True, None),
        ({"TERM": "xterm-256color", "FORCE_COLOR": "1"}, False, "[38;5;"),
    ],
)
def test_without_a_choice_the_terminal_and_the_environment_decide(monkeypatch, environment, terminal, sign):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", Terminal() if terminal else io.StringIO())
    text = printed(Piece("good", 1.0), color=None)
    assert ("\x1b" in text) == (sign is not None)
    assert sign is None or sign in text
    assert "\x1b[38;5;" in printed(Piece("good", 1.0), color="256")  # an explicit choice wins
    assert "\x1b" not in printed(Piece("good", 1.0), color="none")


@pytest.mark.parametrize("color", ["256", "none"])
def test_input_cannot_steer_the_terminal(color):
    evil = "a\x1b[31mb\x9bc\x07\rd\ud800"
    blocks = [
        Heading(evil, {evil: evil}),
        words(Piece(evil, 1.0), Piece(evil), label=evil),
        Facts([evil]),
        Paragraph(evil),
        Table([evil], [[evil]], title=evil),
    ]
    text = terminal_text(blocks, color)
    ours = re.compile(r"\x1b\[38;5;\d+;48;5;\d+m|\x1b\[[01]m")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", ours.sub("", text))
    assert bool(ours.search(text)) == (color == "256")
    text.encode("utf-8")


def test_markup_and_emoji_codes_of_the_text_stay():
    assert "[bold]a[/bold] :smile:" in printed(Piece("[bold]a[/bold] :smile:", 1.0))
    assert "[red]x[/red]" in terminal_text([Facts(["[red]x[/red]"]), Table(["a"], [["[red]x[/red]"]])])


def test_long_and_wide_words_keep_the_columns():
    pieces = [Piece("x" * 100_000, 1.0), Piece("漢" * 50, 0.5), Piece("e\u0301", 0.25)]
    lines = printed(*pieces).splitlines()
    assert lines[0].startswith("  " + "x" * 23 + "…  ")
    assert lines[1].startswith("  " + "漢" * 11 + " …" + "  ")
    assert lines[2].startswith("  e\u0301" + " " * 23 + "  +0.25")


def test_wide_tables_are_cut_into_groups_of_columns():
    header = ["method", *(f"metric {i} " + "x" * 30 for i in range(5))]
    lines = terminal_text([Table(header, [["first", *"12345"], ["second", *"67890"]])]).splitlines()
    assert max(map(len, lines)) <= WIDTH
    groups = "\n".join(lines).split("\n\n")
    assert [group.split()[0] for group in groups] == ["method"] * len(groups)
    assert all(f"metric {i}" in "\n".join(lines) for i in range(5))
    assert [group.splitlines()[1].split()[0] for group in groups] == ["first"] * len(groups)
    assert terminal_text([Paragraph("word " * 60, wrapped=True)]).count("\n") == 2


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_in_a_terminal_lines_are_broken_between_words(monkeypatch, columns):
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    statement = "Every number of this statement is long-winded and 99.5 % of it is repeated. " * 4
    pieces = [piece for word in statement.split() for piece in (Piece(word, 0.5), Piece(" "))]
    blocks = [
        Heading("positive", {"reference": statement}),
        words(*pieces),
        Paragraph(statement, "good"),
        Facts([statement, f"  - {statement}"]),
        Table([f"metric {i}" for i in range(20)], [["0.123"] * 20]),
    ]
    text = re.sub(r"\x1b\[[\d;]*m", "", terminal_text(blocks, None))
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    assert " ".join(text.split()).count(statement.strip()) == 5  # no word is broken, none is lost
    dashed = lines.index(next(line for line in lines if line.startswith("  - Every")))
    assert lines[dashed + 1].startswith("    ")
    assert not lines[dashed + 1].startswith("     ")
    assert lines[dashed - 1].startswith("  ")
    unbroken = terminal_text([Facts([statement])], "none")
    assert unbroken == statement.rstrip()


def test_markdown_escapes_what_would_break_a_table():
    text = markdown_text([Paragraph("a < b"), Table(["x|y"], [[Cell("<i>`*", bold=True)]], title="t"), Facts(["one"])])
    assert text == "a &lt; b\n\nt\n\n| x\\|y |\n| --- |\n| **&lt;i>\\`\\*** |\n\n- one\n"


def test_the_page_of_an_explanation_defines_every_number():
    page = explanation().to_html()
    folded = page.split("<summary>What these numbers mean</summary>")[1]
    names = ("score of a word", "probability", "completeness gap", "n, rank", "null-space fraction", "entropy")
    for number in names:
        assert f"<td>{number}</td><td>" in folded


def test_in_a_notebook_the_lines_are_returned_and_not_displayed(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    lines = terminal_text([Paragraph("one"), Facts(["two"])], color=None)
    assert lines == "one\ntwo"
