"""The page of a text of 2,000 tokens: after the text itself it is drawn in steps that are too short to block it."""

import copy
from itertools import pairwise

import pytest

from hf_attn_mi import report
from tests.browser.samples import REVIEW
from tests.sample_models import load_demo, tiny_bert

MOST_ADDED, MOST_CHANGED = 500, 50  # elements that one step may add, and places where it may change the page
AT_ONCE = 3  # panels that are drawn with the text, which stands above the fold
WATCH = """
window.steps = []; // of the script, after the file was read: the elements added and the places changed
window.filled = []; // the number of panels that are drawn, after each step
const size = (node) => 1 + (node.querySelectorAll ? node.querySelectorAll("*").length : 0);
const added = (change) => [...change.addedNodes].reduce((sum, node) => sum + size(node), 0);
new MutationObserver((changes) => {
  window.filled.push(document.querySelectorAll("#panels > section:not(:empty)").length);
  if (document.readyState !== "complete") return;
  window.steps.push([changes.reduce((sum, change) => sum + added(change), 0), changes.length]);
}).observe(document, {childList: true, subtree: true, attributes: true, characterData: true});
"""


@pytest.fixture(scope="module")
def long_page(tmp_path_factory):
    """The page of 2,000 tokens by a tiny model, and its record."""
    names = {0: "negative", 1: "positive"}
    label_options = {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    model = tiny_bert(max_position_embeddings=2048, **label_options)
    tokenizer = copy.deepcopy(load_demo()[1])
    tokenizer.model_max_length = 2048
    plain = {"token_set": False, "certificate": False, "subgraph": False}
    record = report(model, " ".join([REVIEW] * 23), tokenizer=tokenizer, methods=("attention",), **plain)
    path = tmp_path_factory.mktemp("long") / "long.html"
    record.save(path)
    return record, path


@pytest.fixture
def page(browser, long_page):
    """The page, opened and drawn."""
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(long_page[1].as_uri())
    page.locator("#provenance h2").wait_for()
    yield page
    context.close()


def check_steps(page):
    steps = page.evaluate("window.steps")
    assert steps
    for added, changed in steps:
        assert added <= MOST_ADDED
        assert changed <= MOST_CHANGED


def test_a_page_of_two_thousand_tokens_is_drawn_in_short_steps(page, long_page):
    assert 2000 <= len(long_page[0].items[0].explanation.tokens) <= 2048
    assert page.evaluate("document.querySelectorAll('*').length") > 4 * MOST_ADDED
    check_steps(page)
    filled = page.evaluate("window.filled.filter((count) => count > 0)")
    assert filled[0] <= AT_ONCE < filled[-1]
    assert all(later - earlier <= 1 for earlier, later in pairwise(filled))


def test_a_click_on_one_of_two_thousand_words_is_answered_in_short_steps(page):
    page.evaluate("window.steps.length = 0")
    page.locator("#text .w").nth(900).dispatch_event("click")
    page.locator("#text .links").wait_for()
    page.wait_for_timeout(200)
    assert page.locator("#text .w.on").count() == 1
    check_steps(page)


def test_every_word_of_a_long_text_is_on_the_page(page, long_page):
    explanation = long_page[0].items[0].explanation
    assert page.locator("#text .w").count() == len(explanation.to_words())
    assert " ".join(page.locator("#text .text").inner_text().split()) == " ".join(explanation.texts[0].split())
