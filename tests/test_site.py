"""The documentation site: links and anchors, navigation, length and language of its pages, and what is generated."""

import inspect
import os
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

import hf_attn_mi
from hf_attn_mi.cli.main import app
from scripts import generate_cli, generate_studies, site_hooks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
ALL_PAGES = [*(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")), *PAGES]
GUIDES = [page for page in PAGES if page.parent.name in ("how_to", "concepts")]
GUIDES += [DOCS / name for name in ("index.md", "tutorial.md", "release_0_2_0.md", "studies/index.md")]
MOST_WORDS = 800
GENERATED_ELSEWHERE = {"contributing.md", "changelog.md", "embedded_model.md"}  # by scripts/site_hooks.py
# Pages that a reader meets on the way; tables of measurements stand on pages of their own.
READING = [*GUIDES, *(DOCS / "methods").glob("*.md"), DOCS / "scale.md", DOCS / "glossary.md", DOCS / "architecture.md"]
TABLES = ("accuracy", "coverage", "continuous", "score_search", "figures")
# Sentences that nobody but their author understood, and words of the same kind; each is a pattern.
RIDDLES = (
    r"somebody watches",
    r"dearer than",
    r"\bno Gaussian\b",
    r"lend their sum",
    r"where numbers are needed",
    r"mend the values",
    r"\bdearer\b",
    r"\bknows? no class\b",
    r"\bblind spot\b",
)


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def prose(text):
    """A page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)


def links(page):
    """Targets of the relative links and pictures of a page."""
    text = re.sub(r"`[^`\n]*`", "", prose(page.read_text(encoding="utf-8")))
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    return [one or other for one, other in found if not re.match(r"[a-z]+:", one or other)]


def anchors(page):
    """The anchors of the headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.+)$", prose(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles]
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in plain}


def broken(page):
    """The links of a page that lead nowhere."""
    wrong = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_links_and_anchors_lead_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# One title: `code`\n")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#one-title-code) [b](other.md#gone) [c](gone.md) ![d](gone.png) [e](https://x.org)\n")
    assert broken(page) == ["other.md#gone", "gone.md", "gone.png"]


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_a_guide_has_at_most_800_words(page):
    assert len(page.read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_the_readme_has_at_most_900_words():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def nav_pages(entry):
    """The pages of an entry of the navigation."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in nav_pages(part)]


def test_every_page_is_in_the_navigation_once():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = nav_pages(yaml.safe_load(text.partition("\nnav:\n")[2]))
    assert len(listed) == len(set(listed))
    there = {page.relative_to(DOCS).as_posix() for page in PAGES}
    assert set(listed) - GENERATED_ELSEWHERE == there


def test_links_out_of_the_docs_lead_to_pages_of_the_site():
    text = "[a](../../examples/intervene.py) [b](../../CONTRIBUTING.md#set-up) [c](gpu.md) [d](../../pyproject.toml)"
    site = "[a](../examples/intervene.md) [b](../contributing.md#set-up) [c](gpu.md) [d](../../pyproject.toml)"
    assert site_hooks.for_site(text, "how_to/any.md") == site
    assert site_hooks.for_site("[a](docs/how_to/gpu.md)", "changelog.md") == "[a](how_to/gpu.md)"


def test_every_link_of_the_docs_leads_to_a_page_of_the_site():
    there = {*(page.relative_to(DOCS).as_posix() for page in PAGES), *site_hooks.PAGES.values(), *site_hooks.ASSETS}
    for page in PAGES:
        here = page.relative_to(DOCS)
        for link in re.findall(
            r"\]\(([^)\s#]+\.(?:md|py|ipynb))", site_hooks.for_site(prose(page.read_text()), str(here))
        ):
            target = os.path.normpath(here.parent / link)
            assert link.startswith("http") or target in there, f"{here}: {link}"


def test_lists_are_read_as_github_reads_them():
    text = "Words:\n- one\n  - two\n  more\n\n```\nx\n- y\n```\n- three\nlazy\n- four\n"
    assert site_hooks.with_separate_lists(text) == (
        "Words:\n\n- one\n    - two\n  more\n\n```\nx\n- y\n```\n\n- three\nlazy\n- four\n"
    )


def documented():
    """What the pages of the API describe."""
    return {name for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)}


def test_every_public_name_is_in_the_reference():
    assert {f"hf_attn_mi.{name}" for name in hf_attn_mi.__all__} - documented() == set()


@pytest.mark.parametrize("module", ["attention", "evaluation", "heads", "kernels", "methods", "mi", "results"])
def test_the_public_names_of_the_packages_are_in_the_reference(module):
    names = set(__import__(f"hf_attn_mi.{module}", fromlist=["x"]).__all__)
    known = {name.rpartition(".")[2] for name in documented()}
    assert names - known == set()


def test_every_target_is_in_the_reference():
    from hf_attn_mi import targets

    described = {name.rpartition(".")[2] for name in documented()}
    missing = {name for name in targets.__all__ if not {name, getattr(targets, name).__name__} & described}
    assert missing == set()


def test_what_the_reference_describes_has_a_docstring_and_its_options():
    """Every argument of a public function stands in its docstring."""
    missing = []
    for name in hf_attn_mi.__all__:
        value = getattr(hf_attn_mi, name)
        if inspect.isfunction(value):
            missing += [(name, one) for one in inspect.signature(value).parameters if one not in (value.__doc__ or "")]
    assert missing == []


def test_the_page_of_the_command_line_is_what_the_application_says():
    assert generate_cli.PAGE.read_text(encoding="utf-8") == generate_cli.page()


def test_the_page_of_the_studies_is_what_the_studies_say():
    assert generate_studies.PAGE.read_text(encoding="utf-8") == generate_studies.page()


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_no_page_has_a_riddle(page):
    text = " ".join(prose(page.read_text(encoding="utf-8")).split())
    assert [pattern for pattern in RIDDLES if re.search(pattern, text, re.IGNORECASE)] == []


def test_no_docstring_or_message_has_a_riddle():
    files = sorted((ROOT / "hf_attn_mi").rglob("*.py"))
    found = []
    for path in files:
        text = " ".join(path.read_text(encoding="utf-8").split())
        found += [(path.name, pattern) for pattern in RIDDLES[:6] if re.search(pattern, text, re.IGNORECASE)]
    assert found == []


def command_lines(text):
    """(command, arguments) of each `hf-attn-mi` in the blocks of a page."""
    for block in re.findall(r"^ *```bash\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.match(r"\w+=", words[0]):
                del words[0]
            if words[:1] == ["hf-attn-mi"]:
                end = next((i for i, word in enumerate(words) if word in ("&&", "|", "||", ">")), len(words))
                yield words[1], words[2:end]


def not_understood(text):
    """The command lines of a page that the application refuses before it runs, with its reason."""
    known, wrong = typer.main.get_command(app).commands, []
    for name, arguments in command_lines(text):
        if name not in known:
            wrong.append(f"{name}: no such command")
            continue
        try:
            known[name].make_context(name, list(arguments))
        except typer.TyperException as error:
            wrong.append(f"{name}: {error.format_message()}")
    return wrong


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_the_command_lines_of_a_page_are_understood(page):
    assert not_understood(page.read_text(encoding="utf-8")) == []


def test_a_wrong_command_line_is_found():
    text = '```bash\nhf-attn-mi explain --gone "TEXT"\nhf-attn-mi lost\nhf-attn-mi methods && echo done\n```\n'
    assert [one.partition(":")[0] for one in not_understood(text)] == ["explain", "lost"]


def numeric_rows(text):
    """Rows of tables of which most cells are numbers."""
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if sum(bool(re.match(r"\s*[*+-]?\**[\d.]+", cell)) for cell in row) > len(row) / 2]


@pytest.mark.parametrize("page", READING, ids=name_of)
def test_tables_of_measurements_are_off_the_reading_path(page):
    if any(name in page.stem for name in TABLES):
        return
    text = page.read_text(encoding="utf-8")
    assert len(numeric_rows(text)) < 6
    assert not re.search(r"\d+ registers", text)
    assert "## development" not in text


@pytest.mark.parametrize("page", [DOCS / "index.md", DOCS / "tutorial.md", *GUIDES], ids=name_of)
def test_a_page_has_one_title(page):
    assert len(re.findall(r"^# ", prose(page.read_text(encoding="utf-8")), re.MULTILINE)) == 1


def test_nothing_of_the_site_is_loaded_from_another_host():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in text
    assets = [path.read_text(encoding="utf-8") for path in (DOCS / "assets").iterdir()]
    pictures = [
        link for page in PAGES for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert not any("http" in one for one in [*assets, *pictures])


def test_a_notebook_is_a_page_with_its_outputs():
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "Text."]},
        {"cell_type": "code", "source": ["1 + 1"], "outputs": [{"data": {"text/plain": ["2"]}}]},
        {"cell_type": "code", "source": ["plot()"], "outputs": [{"data": {"image/png": ["AA", "BB\n"]}}]},
        {"cell_type": "code", "source": ["show()"], "outputs": [{"data": {"text/html": ["<p>\n\n  a</p>"]}}]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": [{"text": ["1\n"]}]},
    ]
    page = site_hooks.notebook({"cells": cells}, "n.ipynb")
    assert page.startswith('# Title\n\n<a href="n.ipynb" download>')
    shown = [
        "```text\n2\n```",
        "data:image/png;base64,AABB",
        '<div class="cell-output"><p> a</p></div>',
        "```text\n1\n```",
    ]
    assert [page.count(one) for one in shown] == [1, 1, 1, 1]
