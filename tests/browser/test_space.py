"""The app of examples/space, started in an environment with gradio and used in a real browser.

The variable HF_ATTN_MI_SPACE_PYTHON names the Python of an environment that has gradio and this package's dependencies;
without it the tests run where gradio can be imported, and are skipped elsewhere.
"""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from hf_attn_mi import report
from tests.hub_cache import add_to_cache
from tests.sample_models import DEMO, load_demo

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "examples" / "space"
HUB_NAME = "somebody/demo"  # in the cache of the app
WAIT = 90  # seconds until the app answers


def space_python():
    """The Python that runs the app; None where there is none."""
    named = os.environ.get("HF_ATTN_MI_SPACE_PYTHON")
    return named or (sys.executable if importlib.util.find_spec("gradio") else None)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The address of the running app, which starts with the embedded model."""
    python = space_python()
    if python is None:
        pytest.skip("gradio is not installed, and HF_ATTN_MI_SPACE_PYTHON names no Python that has it")
    port = free_port()
    environment = os.environ | {
        "MODEL": str(DEMO),
        "PYTHONPATH": str(ROOT),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
    }
    address = f"http://127.0.0.1:{port}/"
    folder = tmp_path_factory.mktemp("space")
    add_to_cache(folder / "cache", HUB_NAME, DEMO)
    environment["HF_HUB_CACHE"] = str(folder / "cache")
    log = folder / "log"
    with open(log, "w") as file:
        process = subprocess.Popen([python, "app.py"], cwd=SPACE, env=environment, stdout=file, stderr=file)
    try:
        ends = time.monotonic() + WAIT
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < ends, log.read_text()
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def page(app, browser):
    """The open app."""
    context = browser.new_context(viewport={"width": 1300, "height": 1500})
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    opened.goto(app)
    opened.locator("#explain").wait_for()
    yield opened
    context.close()


def explained(page):
    """Click the button and return the sentence and the frame of the report."""
    page.locator("#explain").click()
    frame = page.frame_locator("#report iframe")
    frame.locator("#provenance h2").wait_for()
    return page.locator("#sentence textarea").input_value(), frame


def test_text_in_report_out(page, pictures):
    sentence, frame = explained(page)
    text = page.locator("#text textarea").input_value()
    model, tokenizer = load_demo()
    assert sentence == report(model, text, tokenizer=tokenizer, subgraph=False).items[0].sentence
    assert "joy" in frame.locator("#text .w").all_inner_texts()
    page.screenshot(path=pictures / "space.png", full_page=True)


def test_an_example_replaces_the_text(page):
    page.get_by_text("It was not bad at all.").first.click()
    page.wait_for_function("document.querySelector('#text textarea').value.startsWith('It was not')")
    _, frame = explained(page)
    assert "bad" in frame.locator("#text .w").all_inner_texts()


def test_a_model_is_taken_by_its_name_on_the_hub(page):
    page.locator("#model textarea, #model input").first.fill(HUB_NAME)
    _, frame = explained(page)
    assert HUB_NAME in frame.locator("body").inner_text()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("#text", "  ", "Enter a text."),
        ("#model", "../space", "must be a name on the Hub"),
        ("#model", "app.py", "must be a name on the Hub"),
        ("#model", "no-organization/no-model", "could not be loaded"),
    ],
)
def test_what_cannot_be_explained_is_said(page, field, value, message):
    page.locator(f"{field} textarea, {field} input").first.fill(value)
    page.locator("#explain").click()
    page.get_by_text(re.compile(re.escape(message))).first.wait_for()


def test_the_folder_has_what_a_space_needs():
    header = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    entries = dict(line.split(": ", 1) for line in header.splitlines() if ": " in line)
    assert entries["sdk"] == "gradio"
    assert re.fullmatch(r"\d+\.\d+\.\d+", entries["sdk_version"])
    assert (SPACE / entries["app_file"]).is_file()
    assert "hf_attn_mi" in (SPACE / "requirements.txt").read_text().split()
    assert "- distilbert/distilbert-base-uncased-finetuned-sst-2-english" in header
