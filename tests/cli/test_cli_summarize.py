"""`hf-attn-mi summarize` and `report --corpus`: from the folder of `explain-dataset` to a page."""

import json

import pytest

from hf_attn_mi import CorpusSummary, Report, summarize
from hf_attn_mi.cli import main
from tests.cli.command_line import marked, refused
from tests.results.corpus_samples import corpus

TEXTS = ("A warm film.", "A dull film.", "A warm story.", "A dull story.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `explain-dataset` writes for twelve rows."""
    root = tmp_path_factory.mktemp("cli")
    data = marked(root, *({"text": text, "label": i % 2} for i, text in enumerate(TEXTS * 3)))
    assert main(["explain-dataset", "--data", data, "--output", str(root / "out"), "--quiet"]) == 0
    return root / "out"


def test_the_summary_is_printed_and_written(capsys, tmp_path, folder):
    page, data, figure = tmp_path / "page.html", tmp_path / "summary.json", tmp_path / "words.png"
    call = ["summarize", str(folder), "--least", "5", "--words", "3", "--resamples", "200", "--seed", "1"]
    assert main([*call, "--html", str(page), "--json", str(data), "--plot", str(figure)]) == 0
    summary = summarize(folder, least=5, words=3, resamples=200, seed=1)
    printed = capsys.readouterr().out
    assert printed.startswith(summary.to_text(color="none"))
    assert f"Written: {page.resolve()}" in printed
    assert CorpusSummary.load(data) == summary
    assert page.read_text(encoding="utf-8") == summary.to_html()
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert main([*call, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 12
    assert main([*call, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_a_report_shows_the_corpus_alone_or_below_texts(capsys, tmp_path, folder):
    page, data, saved = tmp_path / "page.html", tmp_path / "report.json", tmp_path / "summary.json"
    corpus().save(saved)
    assert main(["report", "--corpus", str(saved), "--html", str(page), "--json", str(data)]) == 0
    assert Report.load(data) == Report((), info={"model": "m", "method": "relevance"}, corpus=corpus())
    assert "What the model has learned from 2,000 inputs" in capsys.readouterr().out
    assert "<script" not in page.read_text(encoding="utf-8")
    call = ["report", TEXTS[0], "--corpus", str(folder), "--attention", "none", "--also", "attention", "--quiet"]
    assert main([*call, "--html", str(page), "--json", str(data)]) == 0
    assert Report.load(data).corpus == summarize(folder)
    assert '<section class="corpus" id="corpus"' in page.read_text(encoding="utf-8")


def test_what_is_no_folder_of_a_run_is_refused(capsys, tmp_path):
    file = tmp_path / "a.json"
    file.write_text("{}")
    page = ["--html", str(tmp_path / "page.html")]
    for call, words in (
        (["summarize", str(tmp_path / "missing")], "missing: there is no such folder; 'hf-attn-mi explain-dataset"),
        (["summarize", str(file)], "a.json: it is a file"),
        (["summarize", str(tmp_path)], "is not the folder of a run"),
        (["summarize", str(tmp_path), "--html", "page.txt"], "must end in .html"),
        (["report", "--corpus", str(tmp_path / "missing"), *page], "--corpus"),
        (["report", "--corpus", str(file), *page], "cannot load"),
    ):
        assert words in refused(capsys, *call)
    assert not (tmp_path / "page.html").exists()
