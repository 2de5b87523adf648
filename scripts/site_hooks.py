"""What `mkdocs build` adds to docs/: pages from elsewhere in the repository, and links to them (see mkdocs.yml).

In the repository a page links to `../examples/intervene.py`; on the site the same link leads to a page with the code.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # file of the repository -> page of the site
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "hf_attn_mi/embedded_model/README.md": "embedded_model.md",
    "examples/space/README.md": "examples/space.md",
    "examples/space/app.py": "examples/space_app.md",
}
PAGES |= {f"examples/{path.name}": f"examples/{path.stem}.md" for path in sorted((ROOT / "examples").glob("*.py"))}
TASKS = sorted((ROOT / "examples" / "tasks").glob("*.py"))
PAGES |= {f"examples/tasks/{path.name}": f"examples/tasks/{path.stem}.md" for path in TASKS}
PAGES |= {
    f"examples/notebooks/{path.name}": f"examples/notebooks/{path.stem}.md"
    for path in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
}
ASSETS = [source for source in PAGES if source.endswith(".ipynb")]  # to download
SOURCES = {page: source for source, page in PAGES.items()}
ALONE = ("index.md", "tutorial.md")  # pages without others beside them: no column of navigation
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?(?=\))")


def content(source: str) -> str:
    """Return the Markdown of a file of the repository; code becomes a block with its name as the title."""
    text = (ROOT / source).read_text(encoding="utf-8")
    if source.endswith(".ipynb"):
        return notebook(json.loads(text), Path(source).name)
    if source.endswith(".py"):
        return f"# {Path(source).name}\n\n```python\n{text.rstrip()}\n```\n"
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)  # without the front matter of a model card


def notebook(document: dict[str, Any], name: str) -> str:
    """Return the Markdown of an executed notebook: text, code, and what each cell displayed."""
    parts = []
    for cell in document["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        parts += [shown for output in cell["outputs"] if (shown := displayed(output))]
    head, _, rest = "\n\n".join(parts).partition("\n")
    return f'{head}\n\n<a href="{name}" download>Download the notebook</a>\n{rest}\n'


def displayed(output: dict[str, Any]) -> str:
    """Return one output of a cell: its figure, its HTML on white, or its text."""
    data = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
    if "image/png" in data:
        source = "".join(data["image/png"].split())
        return f'<img alt="the figure of this cell" src="data:image/png;base64,{source}">'
    if "text/html" in data:
        lines = [line.strip() for line in data["text/html"].splitlines() if line.strip()]
        return f'<div class="cell-output">{" ".join(lines)}</div>'
    text = data.get("text/plain") or "".join(output.get("text", ""))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


def with_separate_lists(markdown: str) -> str:
    """Return a page whose lists Python-Markdown reads as GitHub does: nested by four blanks, after an empty line."""
    lines: list[str] = []
    fenced = in_list = False
    for line in markdown.split("\n"):
        mark = re.match(r"([-*]|\d+\.) ", line)
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            line = re.sub(r"^ {2}(?=[-*] )", " " * 4, line)
            if mark and lines and lines[-1].strip() and not in_list:
                lines.append("")
            in_list = bool(mark) or (in_list and bool(line.strip()))
        lines.append(line)
    return "\n".join(lines)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and the notebooks."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=content(source)))
    for name in ASSETS:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave docs/, or that come from outside of it, into links between pages of the site."""
    here = page.file.src_uri
    if here in ALONE:
        page.meta["hide"] = ["navigation"]
    return for_site(markdown, here)


def for_site(markdown: str, here: str) -> str:
    """Return the Markdown of a page of the site; `here` is its path below docs/."""
    source = SOURCES.get(here, f"docs/{here}")

    def replaced(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if path.startswith("docs/") and source.startswith("docs/"):
            return match[0]
        target = path.removeprefix("docs/") if path.startswith("docs/") else PAGES.get(path, path)
        if path not in PAGES and path not in ASSETS and not path.startswith("docs/"):
            return match[0]  # strict mode reports it
        return posixpath.relpath(target, posixpath.dirname(here) or ".") + (match[2] or "")

    return LINK.sub(replaced, with_separate_lists(markdown))
