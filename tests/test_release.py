"""What a release needs: metadata, an entry in the changelog, the citation, and all that the sdist has to hold."""

import re
import tomllib
from pathlib import Path

import yaml

import hf_attn_mi

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_metadata_is_complete():
    project = PROJECT["project"]
    for field in ("name", "description", "readme", "license", "authors", "requires-python", "keywords", "classifiers"):
        assert project[field], field
    assert (ROOT / project["readme"]).exists()
    assert all((ROOT / name).exists() for name in project["license-files"])
    oldest = re.fullmatch(r">=3\.(\d+)", project["requires-python"])[1]
    listed = [int(n) for n in re.findall(r"Python :: 3\.(\d+)", "\n".join(project["classifiers"]))]
    assert min(listed) == int(oldest)
    assert listed == list(range(listed[0], listed[-1] + 1))


def test_every_classifier_is_known_to_the_index():
    from trove_classifiers import classifiers

    assert set(PROJECT["project"]["classifiers"]) <= classifiers


def test_the_changelog_has_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^\]]+)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)
    assert versions[0] == ("Unreleased", "")
    assert versions[1][0] == hf_attn_mi.__version__
    assert versions[1][1]
    assert (ROOT / "docs" / f"release_{hf_attn_mi.__version__.replace('.', '_')}.md").exists()


def test_the_citation_names_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "license", "references"} <= set(citation)
    for reference, paper in zip(citation["references"], ("2410.18541", "2211.07714"), strict=True):
        assert {"type", "title", "authors", "year"} <= set(reference)
        assert reference["url"].endswith(paper)
        readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
        assert reference["title"] in readme
        assert all(author["family-names"] in readme for author in reference["authors"])


def test_the_sdist_holds_what_its_tests_and_its_site_read():
    included = set(PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    needed = {"hf_attn_mi", "tests", "docs", "scripts", "examples", "benchmarks", "mkdocs.yml", "constraints.txt"}
    assert needed <= included
    assert all((ROOT / name).exists() for name in included)
