"""A real browser for the pages: Debian's chromium, driven by playwright. Without one of them the tests are skipped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hf_attn_mi import report
from tests.browser.samples import (
    LONG_REVIEW,
    PAIR,
    REVIEW,
    SHORT,
    a_recording,
    hostile_report,
    two_hundred,
    with_information,
)
from tests.sample_models import load_demo, load_small, zoo_model

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
AXE = "axe-core@4.10.3"  # checks accessibility; fetched by npm for the tests alone


@dataclass
class Visit:
    """An open page, and what it did that it must not do.

    Attributes:
        page: of playwright.
        faults: errors on the console and of scripts, requests, dialogs.
    """

    page: object
    faults: list[str] = field(default_factory=list)

    def text(self, selector):
        """The text of the first element, as it is read."""
        return self.page.locator(selector).first.inner_text()

    @property
    def data(self):
        """The data in the page."""
        return json.loads(self.page.locator("#data").inner_text() or self.page.locator("#data").text_content())

    @property
    def address(self):
        """The part of the address that keeps the state."""
        return self.page.url.partition("#")[2]


def sync_errors():
    """The exceptions of playwright, which may not be installed."""
    from playwright.sync_api import Error

    return Error


@pytest.fixture(scope="session")
def browser():
    """Chromium; skipped by name where it or playwright is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next((path for name in NAMES if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def records():
    """The reports that the tests look at, by name."""
    small, small_tokenizer = load_small()
    demo, tokenizer = load_demo()
    plain = {"methods": (), "token_set": False, "certificate": False, "subgraph": False}
    short = report(demo, SHORT, tokenizer=tokenizer, labels="negative")
    many = {"methods": ("attention",), "labels": [i % 2 for i in range(200)]}
    return {
        "review": report(demo, REVIEW, tokenizer=tokenizer, labels="positive"),
        "short": short,
        "pair": report(small, PAIR, tokenizer=small_tokenizer, **plain),
        "many": report(small, two_hundred(), tokenizer=small_tokenizer, **many),
        "long": report(small, LONG_REVIEW, tokenizer=small_tokenizer, truncation=True, attention="none", **plain),
        "two": short.beside(report(small, SHORT, tokenizer=small_tokenizer, **plain)),
        "image": report(*zoo_model("imgcls-vit"), **plain),
        "audio": a_recording(),
        "hostile": hostile_report(),
        "information": with_information(),
    }


@pytest.fixture(scope="session")
def files(records, tmp_path_factory):
    """The page of each report."""
    folder = tmp_path_factory.mktemp("pages")
    for name, record in records.items():
        record.save(folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in records}


@pytest.fixture
def visit(browser, files):
    """Opens a page in a context of its own; at the end of the test it must have done nothing it must not do."""
    yield from visiting(browser, files, "#provenance h2")


def visiting(browser, files, drawn):
    """Yield a function that opens one of the files; the page is there once `drawn` is.

    At the end nothing may have happened that must not.
    """
    contexts, visits = [], []

    def open_page(name, *, state="", width=1400, height=900, scheme="light", bypass_csp=False):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, bypass_csp=bypass_csp
        )
        contexts.append(context)
        opened = Visit(context.new_page())
        visits.append(opened)
        address = files[name].as_uri()
        note = opened.faults.append
        opened.page.on("console", lambda message: note(f"console: {message.text}"))
        opened.page.on("pageerror", lambda error: note(f"error: {error}"))
        opened.page.on("dialog", lambda dialog: (note(f"dialog: {dialog.message}"), dialog.dismiss()))
        allowed = (address, "blob:", "data:")
        opened.page.on("request", lambda one: None if one.url.startswith(allowed) else note(f"request: {one.url}"))
        opened.page.goto(address + (f"#{state}" if state else ""))
        opened.page.set_default_timeout(15_000)
        try:
            opened.page.locator(drawn).wait_for()
        except sync_errors() as error:
            raise AssertionError(f"{name}: the page was not drawn; {opened.faults}") from error
        return opened

    yield open_page
    for context in contexts:
        context.close()
    assert [fault for opened in visits for fault in opened.faults] == []


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """The source of axe-core, fetched by npm into a temporary folder; skipped where that is not possible."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed, which fetches axe-core")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(["npm", "pack", AXE, "--silent"], cwd=folder, capture_output=True, timeout=120, check=False)
    archives = list(folder.glob("*.tgz"))
    if done.returncode or not archives:
        pytest.skip(f"npm could not fetch {AXE}")
    with tarfile.open(archives[0]) as archive:
        return archive.extractfile("package/axe.min.js").read().decode("utf-8")


@pytest.fixture(scope="session")
def pictures():
    """Where screenshots are written: the folder that REPORT_PICTURES names, else out/pictures."""
    folder = Path(os.environ.get("REPORT_PICTURES") or Path(__file__).parents[2] / "out" / "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
