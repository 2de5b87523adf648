"""The page of a report in a real browser: what it shows is the record, clicks do what they should, nothing leaves."""

import base64
import csv
import io
import json
import re
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tests.browser.samples import HOSTILE

PAGES = ("review", "short", "pair", "many", "long", "two", "image", "audio", "hostile", "information")


def shown(x):
    """A score as the page writes it."""
    text = "0" if x == 0 else f"{x:+.4g}"
    return text.replace("-", "\u2212")


def labels(visit):
    """What each word of the text is called for a screen reader: its text and score."""
    return [one.get_attribute("aria-label") for one in visit.page.locator("#text .w").all()]


def hover(visit, selector):
    """The text of the floating label over this element."""
    visit.page.locator(selector).first.hover()
    return visit.page.locator("#tip").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_without_a_fault_and_fits_narrow_windows(visit, name, scheme):
    opened = visit(name, width=400, scheme=scheme)
    assert opened.page.locator("h1").count() == 1
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert opened.page.locator("section.panel:visible").count() >= 7
    opened.page.locator("#text .menu summary").click()
    opened.page.wait_for_function("document.querySelector('#text .menu > div').getBoundingClientRect().left >= 0")


def test_hovering_over_a_word_shows_its_score_and_place(visit, records):
    opened, item = visit("review"), records["review"].items[0]
    words = item.explanation.to_words()
    assert labels(opened) == [
        f"{word.text}: {shown(float(f'{word.score:.6g}'))}"
        + (", in the minimal token set" if set(word.tokens) & set(item.token_set.indices) else "")
        for word in words
    ]
    place = next(i for i, word in enumerate(words) if word.text == "joy")
    text = hover(opened, f'#text .w[data-i="{place}"]')
    assert text.split("\n")[0] == f"joy\u2002{shown(words[place].score)}"
    assert f"word {place + 1}, token {words[place].tokens[0]}" in text
    in_set = {word.text for word in item.token_set.words}
    assert set(opened.page.locator("#text .w.in").all_inner_texts()) == in_set


def test_the_sentence_comes_first_and_names_the_words(visit, records):
    opened, item = visit("review"), records["review"].items[0]
    expected = item.sentence.replace("'", "").replace(" %", "\u202f%").rstrip(".")
    *first, last = [word.text for word in item.because]
    assert opened.text("h1") == expected.replace(f", {last}", f" and {last}") + "." or first == []
    assert "gold label positive: correct" in opened.text("#verdict")


def test_the_first_screen_says_which_words_which_weights_and_how_that_is_known(visit, records):
    opened, item = visit("short", height=760), records["short"].items[0]
    found, subgraph = item.token_set, item.subgraph
    words, weights, known = (opened.page.locator("#claims .claim").nth(i).inner_text() for i in range(3))
    for word in found.words:
        assert f"\u201c{word.text}\u201d" in words
    assert f"{len(subgraph.edges)} of {subgraph.edge_count:,} attention weights are enough for positive" in weights
    assert "All the rest together changes the prediction." in weights
    assert "All the rest together keeps less than 90\u202f% of its probability." in words
    for text, one in ((words, found), (weights, subgraph)):
        for probability in (one.p_set, one.p_rest):
            assert f"{100 * float(f'{probability:.6g}'):.1f}\u202f%" in text
    assert "without each single member" in known
    assert "less than 0.01\u202f% of it" in known
    assert "Too few tokens for a certificate" in known
    assert opened.page.evaluate("document.querySelector('#claims').getBoundingClientRect().bottom") <= 760
    for name, panel in (("Which words? See it", "tokenset"), ("Which attention weights? See it", "subgraph")):
        opened.page.get_by_role("button", name=name).click()
        assert opened.page.evaluate("document.activeElement.id") == panel
        place = opened.page.evaluate(f"document.getElementById('{panel}').getBoundingClientRect()")
        assert -1 < place["y"] < 760
    opened.page.get_by_role("button", name="Ten questions").click()
    assert opened.page.evaluate("document.activeElement.id") == "questions"
    assert opened.address == ""


@pytest.mark.parametrize("name", [name for name in PAGES if name != "hostile"])
def test_every_page_makes_its_three_claims(visit, records, name):
    opened, item = visit(name), records[name].items[0]
    words, weights, known = (opened.page.locator("#claims .claim").nth(i).inner_text() for i in range(3))
    if item.token_set is None or item.token_set.outcome == "nothing to certify":
        assert any(word.text.strip() in words for word in item.because) or "No score is above zero" in words
    if item.subgraph is None and item.attention is not None:
        first = max(item.attention.heads, key=lambda one: abs(one.contribution or 0.0))
        assert f"layer {item.explanation.layers[first.layer].layer} head {first.head}" in weights
    sets = [one for one in (item.token_set, item.subgraph) if one and one.outcome != "nothing to certify"]
    expected = 1 + bool(sets) + (item.certificate is not None)
    assert opened.page.locator("#claims .checks li").count() == expected
    assert "None" not in words + weights + known
    assert "undefined" not in words + weights + known


def test_choosing_a_class_shows_its_scores_and_the_address_keeps_the_choice(visit, records):
    opened, item = visit("review"), records["review"].items[0]
    other = item.explanations[1]
    opened.page.locator(f'#classes button[data-class="{other.target}"]').click()
    expected = [shown(float(f"{word.score:.6g}")) for word in other.to_words()]
    assert [label.split(": ")[1].split(",")[0] for label in labels(opened)] == expected
    assert opened.address == "view=1"
    again = visit("review", state=opened.address)
    assert labels(again) == labels(opened)
    total = again.page.locator("#sums .value.sum").inner_text()
    assert float(total.replace("\u2212", "-")) == pytest.approx(item.classes[other.target].value, abs=6e-4)


def test_words_and_tokens_own_and_shared_scale(visit, records):
    opened, item = visit("review"), records["review"].items[0]
    opened.page.get_by_role("button", name="tokens", exact=True).click()
    ordinary = [i for i, special in enumerate(item.explanation.special) if not special]
    assert len(labels(opened)) == len(ordinary)
    score = float(item.explanation.scores[ordinary[0]])
    assert labels(opened)[0] == f"{item.explanation.tokens[ordinary[0]]}: {shown(float(f'{score:.6g}'))}"
    opened.page.get_by_role("button", name="shared", exact=True).click()
    assert "unit=tokens" in opened.address
    assert "scale=shared" in opened.address


def test_the_bars_from_words_to_the_output_add_up(visit):
    opened = visit("review")
    texts = opened.page.locator("#sums .value").all_inner_texts()
    values = [float(text.replace("\u2212", "-")) for text in texts]
    assert sum(values[:-1]) == pytest.approx(values[-1], abs=0.01)
    assert len({len(text.partition(".")[2]) for text in texts}) == 1  # the points stand below each other


def test_clicking_a_word_shows_what_it_attends_to(visit, records):
    opened, item = visit("review"), records["review"].items[0]
    place = next(i for i, word in enumerate(item.explanation.to_words()) if word.text == "joy")
    opened.page.locator(f'#text .w[data-i="{place}"]').click()
    token = item.explanation.to_words()[place].tokens[0]
    links = item.attention.links
    weights = opened.page.locator("#text .links > div").first.locator(".value").all_inner_texts()
    assert weights == [f"{float(f'{x:.3g}'):.3f}" for x in links.key_weights[token].tolist()]
    assert opened.page.locator("#text .w.on").inner_text() == "joy"
    assert f"word={place}" in opened.address
    opened.page.get_by_role("button", name="clear").click()
    assert opened.page.locator("#text .links").count() == 0


def test_clicking_a_head_shows_its_three_matrices_and_their_weights(visit, records):
    opened, item = visit("review"), records["review"].items[0]
    detail = item.attention.heads[14]
    opened.page.locator(f'[data-head="{detail.layer}.{detail.head}"]').click()
    opened.page.locator("#head canvas").nth(2).wait_for()
    assert f"layer={detail.layer}" in opened.address
    assert shown(float(f"{detail.contribution:.6g}")) in opened.text("#facts")
    count = len(item.explanation.tokens)
    box = opened.page.locator("#head .map").first.bounding_box()
    query, key = 5, 7
    opened.page.mouse.move(
        box["x"] + box["width"] * (key + 0.5) / count, box["y"] + box["height"] * (query + 0.5) / count
    )
    text = opened.page.locator("#tip").inner_text().replace("\u2212", "-")
    for line in text.split("\n")[1:]:
        kind, value = line.split(" ")
        assert float(value) == pytest.approx(float(detail.matrix(kind)[query, key]), rel=0.01, abs=1e-4)
    assert len(text.split("\n")) == 4
    assert opened.page.locator("#head .map .v").first.is_visible()
    opened.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * (query + 0.5) / count)
    opened.page.wait_for_function("location.hash.includes('row=5')")
    opened.page.locator("#fan").wait_for()
    assert f"keeps {detail.support[query]} of {count} keys" in opened.text("#head")


def test_the_weights_that_carry_the_prediction_are_a_flow_of_lines(visit, records):
    opened, item = visit("short"), records["short"].items[0]
    edges = item.subgraph.edges
    lines = opened.page.locator("#flow .edge")
    assert lines.count() == len(edges)
    edge = max(edges, key=lambda one: abs(one.contribution))
    line = opened.page.locator(f'#flow [data-edge="{edge.call}.{edge.head}.{edge.query}.{edge.key}"]')
    label = line.get_attribute("aria-label")
    assert f"layer {edge.layer}, head {edge.head}: " in label
    assert shown(float(f"{edge.contribution:.6g}")) in label
    removal = next(one for one in item.subgraph.singles if item.subgraph.units[one.unit] == edge)
    assert f"set {100 * removal.p_set:.1f}\u202f%, rest {100 * removal.p_rest:.1f}\u202f%" in label
    line.dispatch_event("click")
    assert f"head={edge.head}" in opened.address
    assert f"row={edge.query}" in opened.address or edge.query == 0
    assert f"Layer {edge.layer}, head {edge.head}" in opened.text("#attention")
    assert f"{len(edges)} of {item.subgraph.edge_count:,} attention weights" in opened.text("#subgraph .box")


def test_a_page_names_the_weights_that_it_leaves_out(visit, records, files, monkeypatch, tmp_path):
    monkeypatch.setattr("hf_attn_mi.results.report_data.MOST_EDGES", 10)
    count = len(records["short"].items[0].subgraph.edges)
    records["short"].save(tmp_path / "few.html")
    monkeypatch.setitem(files, "few", tmp_path / "few.html")
    opened = visit("few")
    assert opened.page.locator("#flow .edge").count() == 10
    assert f"{count} of " in opened.text("#subgraph .box")
    assert f"10 weights of the largest contribution; {count - 10} more of the set" in opened.text("#subgraph")
    assert "left out" not in visit("short").text("#subgraph").replace("None of them can be left out", "")


def test_images_and_recordings_are_hovered_and_clicked_like_words(visit, records):
    for name in ("image", "audio"):
        opened, item = visit(name), records[name].items[0]
        words = item.explanation.to_words()
        assert opened.page.locator("#text rect.w").count() == len(words)
        kept = () if item.token_set is None else [word.text for word in item.token_set.words]
        mark = ", in the minimal token set" if words[3].text in kept else ""
        assert labels(opened)[3] == f"{words[3].text}: {shown(float(f'{words[3].score:.6g}'))}{mark}"
        opened.page.locator("#text rect.w").nth(3).click()
        assert "word=3" in opened.address
        assert opened.page.locator("#text .links").count() == 1


def test_intervals_are_drawn_where_they_were_computed(visit, records):
    opened, item = visit("review"), records["review"].items[0]
    detail = max(item.attention.heads, key=lambda one: abs(one.contribution))
    opened.page.locator("#fan .interval").first.wait_for(state="attached")
    assert opened.page.locator("#fan .interval").count() == len(detail.intervals) == 5
    interval = detail.intervals[0]
    title = opened.page.locator(f'#fan [data-key="{interval.key}"] title').text_content()
    low, high = (f"{float(f'{x:.6g}'):.2g}" for x in (interval.low, interval.high))
    assert [float(x) for x in (low, high)] == [
        float(x) for x in title.split("can lie between ")[1].split(" without")[0].split(" and ")
    ]


def test_matrices_in_the_page_are_those_of_the_record(visit, records):
    head = records["review"].items[0].attention.heads[3]
    data = visit("review").data["items"][0]["attention"]["heads"][3]
    steps = np.frombuffer(zlib.decompress(base64.b64decode(data["efficient"])), dtype=np.int8)
    exact = head.matrix("efficient").flatten().numpy()
    assert np.abs(steps * (data["scale"] / 127) - exact).max() < 1e-5


def test_the_index_searches_filters_and_sorts(visit, records):
    opened, items = visit("many"), records["many"].items
    rows = opened.page.locator("#index li")
    assert rows.count() == 200
    opened.page.get_by_label("Search the texts").fill("DULL")
    assert rows.count() == sum("dull" in item.explanation.texts[0].lower() for item in items)
    opened.page.get_by_label("Search the texts").fill("")
    opened.page.get_by_label("Which inputs").select_option("wrong")
    wrong = [item for item in items if item.correct is False]
    assert rows.count() == len(wrong)
    opened.page.get_by_label("Explained class").select_option("negative")
    assert rows.count() == sum(item.explanation.target_name == "negative" for item in wrong)
    opened.page.get_by_label("Which inputs").select_option("")
    opened.page.get_by_label("Explained class").select_option("")
    opened.page.get_by_label("Order").select_option("unsure")
    least = min(range(200), key=lambda i: items[i].explanation.probability)
    assert rows.first.locator("button").get_attribute("data-input") == str(least)
    rows.first.locator("button").click()
    assert opened.address == f"input={least + 1}"
    assert opened.text("#verdict h1").startswith(items[least].explanation.target_name)


def test_two_models_stand_side_by_side(visit, records):
    opened, record = visit("two"), records["two"]
    second = record.second.items[0]
    assert opened.text(".other").startswith(f"{record.second.info['model']}: {second.explanation.target_name}")
    words = [one.inner_text() for one in opened.page.locator("#second .w").all()]
    assert words == [word.text for word in second.explanation.to_words()]
    opened.page.get_by_role("button", name=record.second.info["model"]).click()
    assert opened.address == "model=1"
    assert labels(opened)[1].startswith(f"warm: {shown(float(f'{second.explanation.to_words()[1].score:.6g}'))}")


def test_information_stands_between_its_bounds(visit, records):
    opened = visit("information")
    sites = [layer["mi"]["first"] for layer in records["information"].items[0].explanation.information["layers"]]
    text = hover(opened, "#information circle >> nth=2")
    site = sites[2]
    assert f"{site['nats']:.3g} nats, interval {site['interval'][0]:.3g} to {site['interval'][1]:.3g}" in text
    assert f"at least {site['lower_bound']:.3g}, at most {site['upper_bound']:.3g}" in text
    upper = float(opened.page.locator("#information .upper").get_attribute("y1"))
    lower = opened.page.locator("#information .lower").get_attribute("d")
    points = [float(point.split(" ")[1]) for point in lower.replace("M", "L").split("L")[1:]]
    zero, height = points[0], upper - points[0]  # pixels go down; the lower bound of the first layer is zero
    assert [(point - zero) / height for point in points] == pytest.approx([x["lower_bound"] / 0.625 for x in sites])


def test_ten_questions_are_answered_on_the_page(visit, records):
    opened, item = visit("short"), records["short"].items[0]
    asked = opened.page.locator("#questions summary").all_inner_texts()
    documented = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    assert len(asked) == 10
    for question in asked:
        assert f". {question}" in documented, question
    for one in opened.page.locator("#questions summary").all():
        one.click()
    answers = dict(zip(asked, opened.page.locator("#questions details > p").all_inner_texts(), strict=True))
    assert all(len(answer) > 40 for answer in answers.values())
    subgraph, found = item.subgraph, item.token_set
    edge = max(subgraph.edges, key=lambda one: abs(one.contribution))
    carried = answers["Which attention weights made it?"]
    assert f"{len(subgraph.edges)} of {subgraph.edge_count:,} weights carry positive" in carried
    assert f"layer {edge.layer}, head {edge.head}: " in carried
    known = answers["How is that known?"]
    for probability in (found.p_set, found.p_rest, subgraph.p_set, subgraph.p_rest):
        assert f"{100 * float(f'{probability:.6g}'):.1f}\u202f%" in known
    assert "no row can be replaced" in known  # nothing to certify in so short a text
    shown = re.sub(r"e-(\d)\b", r"e-0\1", known.replace("\u2212", "-"))
    assert f"{item.explanation.completeness_gap:.2g}" in shown


def test_keys_move_between_words_and_inputs(visit):
    opened = visit("many")
    opened.page.keyboard.press("j")
    assert opened.address == "input=2"
    opened.page.keyboard.press("k")
    assert opened.address == ""
    opened.page.locator('#text .w[tabindex="0"]').focus()
    opened.page.keyboard.press("ArrowRight")
    assert opened.page.evaluate("document.activeElement.dataset.i") == "1"
    opened.page.keyboard.press("End")
    last = opened.page.locator("#text .w").count() - 1
    assert opened.page.evaluate("document.activeElement.dataset.i") == str(last)
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#text .w.on").count() == 1


def test_hostile_tokens_stay_text(visit):
    opened = visit("hostile")
    for part in HOSTILE:
        assert part.split("\u2028")[0] in opened.page.locator("#text").text_content()
    assert HOSTILE[1] in opened.text("h1")
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("script").count() == 2
    hover(opened, "#text .w")
    opened.page.locator("#text .w").first.click()
    opened.page.locator("#attention button.strong, #attention .heads button").first.click()
    assert opened.page.locator("img, script:not(#data) ~ script").count() == 0


def test_every_number_has_its_meaning_one_click_away(visit):
    opened = visit("review")
    asks = opened.page.locator("#panels .what")
    assert asks.count() >= 7
    for ask in asks.all():
        ask.click()
        text = opened.page.locator(f"#{ask.get_attribute('aria-controls')}")
        assert text.is_visible()
        assert text.inner_text().count(". ") + text.inner_text().endswith(".") >= 2
    answers = opened.page.locator("#questions details")
    assert answers.count() == 10
    for answer in answers.all():
        answer.locator("summary").click()
        assert len(answer.locator("p").inner_text()) > 40


def download(opened, name, panel="text"):
    opened.page.locator(f"#{panel} .menu summary").click()
    with opened.page.expect_download() as waiting:
        opened.page.locator(f"#{panel} .menu").get_by_role("button", name=name, exact=True).click()
    return waiting.value.path().read_bytes()


def test_scores_are_exported_as_csv_latex_svg_and_png(visit, records):
    opened, item = visit("review"), records["review"].items[0]
    rows = list(csv.reader(io.StringIO(download(opened, "CSV").decode("utf-8"))))
    words = item.explanation.to_words()
    assert rows[0][:2] == ["word", "relevance:positive"]
    assert [row[0] for row in rows[1:]] == [word.text for word in words]
    assert [float(row[1]) for row in rows[1:]] == pytest.approx([word.score for word in words], rel=1e-5)
    latex = download(opened, "LaTeX").decode("utf-8")
    assert "\\colorbox{for!" in latex
    assert "\\underline{smiling}" in latex or "underline" in latex
    svg = download(opened, "SVG").decode("utf-8")
    assert svg.startswith("<svg")
    assert svg.count("<rect") == len(words) + 1
    assert download(opened, "PNG").startswith(b"\x89PNG")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_exported_with_their_own_colors(visit, records, scheme):
    opened, item = visit("short", scheme=scheme), records["short"].items[0]
    opened.page.locator("#fan").wait_for()
    for panel, name in (("subgraph", "SVG"), ("head", "SVG of this row")):
        figure = ElementTree.fromstring(download(opened, name, panel))
        assert all("var(" not in value for part in figure.iter() for value in part.attrib.values())
        assert {text.get("fill") for text in figure.iter("{http://www.w3.org/2000/svg}text")} >= {
            "#1c2026" if scheme == "light" else "#e9e9e6"
        }
    edges = [one for one in ElementTree.fromstring(download(opened, "SVG", "subgraph")).iter() if one.get("data-edge")]
    assert len(edges) == len(item.subgraph.edges)
    assert download(opened, "PNG", "subgraph").startswith(b"\x89PNG")
    maps = Image.open(io.BytesIO(download(opened, "PNG of the maps", "head"))).convert("RGBA")
    assert maps.getchannel("A").getextrema() == (255, 255)  # readable on any background
    assert maps.width > 3 * 8 * 50


def test_the_graph_is_exported_as_the_documented_json(visit, records):
    opened, subgraph = visit("short"), records["short"].items[0].subgraph
    graph = json.loads(download(opened, "JSON", "subgraph"))
    documented = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    table = documented.split("## The graph as JSON")[1].split("## In the data")[0]
    for name in [*graph, *graph["edges"][0], *graph["modules"][0]]:
        assert f"`{name}`" in table, name
    assert [(edge["call"], edge["head"], edge["query"], edge["key"]) for edge in graph["edges"]] == list(
        subgraph.places
    )


def test_the_weights_of_a_head_are_exported_as_csv(visit, records):
    opened, item = visit("short"), records["short"].items[0]
    head = max(item.attention.heads, key=lambda one: abs(one.contribution))
    opened.page.locator("#fan").wait_for()
    first, *rows = csv.reader(io.StringIO(download(opened, "CSV of the weights", "head").decode("utf-8")))
    assert first == ["query", "query_token", "key", "key_token", "raw", "effective", "efficient"]
    for place, kind in enumerate(("raw", "effective", "efficient"), 4):
        found = np.array([float(row[place]) for row in rows])
        assert found == pytest.approx(head.matrix(kind).flatten().numpy(), rel=6e-3, abs=1e-6)


def test_in_a_notebook_the_frame_works_and_keeps_to_itself(browser, records, tmp_path):
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!DOCTYPE html><body>{records['short']._repr_html_()}</body>", encoding="utf-8")
    context = browser.new_context()
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.goto(notebook.as_uri())
    frame = page.frame_locator("iframe")
    frame.locator("#provenance h2").wait_for()
    frame.locator("#text .w").nth(1).click()
    assert frame.locator("#text .links").count() == 1
    assert page.url == notebook.as_uri()
    context.close()
    assert faults == []


def test_heads_show_their_statistics_where_no_matrix_is_kept(visit, records):
    opened, item = visit("many"), records["many"].items[0]
    opened.page.locator('[data-head="1.2"]').click()
    assert opened.address == "layer=1&head=2"
    assert f"{item.explanation.layers[1].rank[2]} of " in opened.text("#facts")
    assert "attention='top' computes it" in opened.text("#attention")


def test_without_scripts_the_sentences_are_there(browser, files, records):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(files["review"].as_uri())
    assert records["review"].items[0].sentence in page.locator("noscript, main").first.inner_text()
    context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (1400, "dark"), (400, "light"), (400, "dark")])
@pytest.mark.parametrize("name", PAGES)
def test_no_serious_fault_of_accessibility(visit, axe, name, width, scheme):
    opened = visit(name, width=width, scheme=scheme, bypass_csp=True)
    if name in ("review", "image"):
        opened.page.locator("#text .w").nth(5).click()
        opened.page.locator("#fan").wait_for()
    for one in opened.page.locator("details:not(.menu) > summary").all():
        one.click()  # what is folded is checked too
    opened.page.evaluate(axe)
    found = opened.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [
        (one["id"], one["nodes"][0]["target"], one["nodes"][0]["failureSummary"])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_printing_shows_everything_without_controls(visit):
    opened = visit("review")
    opened.page.emulate_media(media="print")
    assert not opened.page.locator(".switch, .see, .menu, .quiet").first.is_visible()
    assert opened.page.locator("#text .w").first.is_visible()
    folded = opened.page.locator("details:not(.menu)")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.count() == opened.page.locator("details[open]").count() > 10
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.page.locator("details[open]").count() == 0
    assert opened.page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("picture", "name", "width", "height", "scheme", "state"),
    [
        ("report.png", "review", 1120, 760, "light", ""),
        ("report_dark.png", "review", 1120, 760, "dark", ""),
        ("report_narrow.png", "review", 400, 760, "light", ""),
        ("report_index.png", "many", 1400, 760, "light", ""),
    ],
)
def test_pictures_for_the_documentation(visit, pictures, picture, name, width, height, scheme, state):
    opened = visit(name, width=width, height=height, scheme=scheme, state=state)
    opened.page.screenshot(path=pictures / picture)
    assert (pictures / picture).stat().st_size < 300_000


@pytest.mark.parametrize(("name", "panel"), [("review", "attention"), ("short", "subgraph")])
def test_a_picture_of_a_panel(visit, pictures, name, panel):
    opened = visit(name, width=1120)
    opened.page.locator("#fan").wait_for()
    opened.page.locator(f"#{panel}").screenshot(path=pictures / f"report_{panel}.png")
    assert (pictures / f"report_{panel}.png").stat().st_size < 300_000
