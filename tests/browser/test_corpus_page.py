"""The page of a summary of a data set in a real browser: it needs no script, fits narrow windows, and can be read."""

import random
from dataclasses import replace

import pytest

from hf_attn_mi import explain_dataset, summarize
from tests.browser.conftest import visiting
from tests.results.corpus_samples import HOSTILE, corpus, hostile_corpus
from tests.results.result_samples import report
from tests.sample_models import load_demo

OPEN_ALL = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
GOOD = ("warm", "funny", "lovely", "moving", "charming", "brilliant", "fresh", "witty", "touching", "delightful")
BAD = ("dull", "boring", "cheap", "empty", "tedious", "clumsy", "stale", "awful", "lifeless", "pointless")
NOUNS = ("film", "story", "comedy", "drama", "script", "cast", "ending", "music")
PAGES = ("alone", "many", "beside", "hostile", "empty")


@pytest.fixture(scope="module")
def corpus_files(tmp_path_factory):
    """The pages that are looked at."""
    folder = tmp_path_factory.mktemp("corpora")
    shown = {
        "alone": corpus(words=12),
        "many": corpus(classes=9, words=2),
        "beside": report(corpus=corpus(words=5)),
        "hostile": hostile_corpus(),
        "empty": replace(corpus(), words=(), errors=(), opposing=(), accuracy=None, info={}),
    }
    for name, record in shown.items():
        (folder / f"{name}.html").write_text(record.to_html(), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in shown}


def reviews(count):
    """Short reviews of both classes with their labels, some of which are wrong."""
    rng = random.Random(0)
    rows = []
    for _ in range(count):
        label = rng.randrange(2)
        first, second = (rng.choice((BAD, GOOD)[label if rng.random() < 0.9 else 1 - label]) for _ in range(2))
        nouns = rng.sample(NOUNS, 2)
        how = rng.choice(("so", "not", "very", "a little"))
        text = f"The {nouns[0]} is {how} {first}, but the {nouns[1]} is {second}."
        rows.append({"text": text, "label": label})
    return rows


@pytest.fixture
def visit(browser, corpus_files):
    """Opens one of these pages."""
    yield from visiting(browser, corpus_files, "#corpus-provenance :is(h2, h3)")


@pytest.mark.parametrize(("name", "width", "scheme"), [("many", 400, "dark"), ("beside", 1400, "light")])
def test_no_serious_fault_of_accessibility(visit, axe, name, width, scheme):
    opened = visit(name, width=width, scheme=scheme, bypass_csp=True)
    if name == "beside":
        opened.page.locator("#provenance h2").wait_for()
    opened.page.evaluate(OPEN_ALL)
    opened.page.evaluate(axe)
    found = opened.page.evaluate("axe.run('.corpus', {resultTypes: ['violations']})")
    serious = [
        (one["id"], one["nodes"][0]["target"], one["nodes"][0]["failureSummary"])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("name", PAGES)
def test_every_page_fits_narrow_windows(visit, name):
    opened = visit(name, width=400)
    opened.page.evaluate(OPEN_ALL)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert opened.page.locator("h1").count() == 1


def test_a_click_on_a_word_shows_its_numbers_and_texts_without_scripts(browser, corpus_files):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.goto(corpus_files["alone"].as_uri())
    word = page.locator("#corpus-class-1 details.word").nth(2)
    assert not word.locator(".more").is_visible()
    word.locator("summary").click()
    text = word.locator(".more").inner_text()
    assert "+1.83, 95 % +1.58 to +2.08" in text
    assert word.locator("mark").inner_text() == "word2"
    page.locator("#corpus-errors .what").click()
    assert "Welch's test after Holm's correction" in page.locator("#corpus-errors .meaning").inner_text()
    context.close()


def test_dots_stand_above_the_numbers_of_the_axis(visit):
    for width in (1400, 400):
        opened = visit("alone", width=width)
        panel = opened.page.locator("#corpus-class-1")
        ticks = {
            one.text_content(): box["x"] + box["width"] / 2
            for one in panel.locator(".axis text").all()
            if (box := one.bounding_box())
        }
        zero, two = ticks["0"], ticks["2"]
        rows = [one for one in corpus(words=12).words if one.target_name == "class 0"]
        for place in (0, 7):
            box = panel.locator("details.word circle").nth(place).bounding_box()
            value = (box["x"] + box["width"] / 2 - zero) / (two - zero) * 2
            assert value == pytest.approx(rows[place].mean, abs=0.03)


def test_links_lead_to_the_panels_and_keep_the_state_of_the_explanation(visit):
    opened = visit("beside", state="view=1")
    opened.page.locator("#provenance h2").wait_for()
    chosen = opened.page.locator("#classes button[aria-pressed=true]").inner_text()
    opened.page.locator("#corpus .claim a").last.click()
    opened.page.wait_for_function("location.hash === '#corpus-errors'")
    assert opened.page.locator("#classes button[aria-pressed=true]").inner_text() == chosen
    assert opened.page.locator("#corpus-errors").bounding_box()["y"] < 900


def test_hostile_words_stay_text(visit):
    opened = visit("hostile")
    assert opened.page.locator("img, script").count() == 0
    assert HOSTILE[1] in opened.page.locator("#corpus").text_content()


def test_a_picture_for_the_documentation(visit, corpus_files, pictures, tmp_path):
    model, tokenizer = load_demo()
    explain_dataset(model, reviews(240), output=tmp_path / "reviews", tokenizer=tokenizer)
    summary = summarize(tmp_path / "reviews", words=10, least=6, resamples=500)
    corpus_files["reviews"] = tmp_path / "reviews.html"
    shown = replace(summary, info={**summary.info, "data": "reviews.jsonl", "folder": "reviews"})
    corpus_files["reviews"].write_text(shown.to_html(), encoding="utf-8")
    opened = visit("reviews", width=1120, height=960)
    opened.page.locator("#corpus-class-1 details.word > summary").nth(1).click()
    opened.page.mouse.move(0, 0)
    opened.page.screenshot(path=pictures / "report_corpus.png")
    assert (pictures / "report_corpus.png").stat().st_size < 300_000
