"""`hf-attn-mi explain-dataset`: what it writes is what `explain_dataset` writes; refusals are one line."""

import json

import pytest

from hf_attn_mi import load_results
from hf_attn_mi.cli import main
from tests.cli import command_line


@pytest.fixture
def rows(tmp_path):
    """A file with three rows, the last of which fails."""
    texts = ["A quietly moving film.", "dull", ""]
    return command_line.marked(tmp_path, *({"review": text, "stars": i} for i, text in enumerate(texts)))


def test_it_explains_the_rows_of_a_file(capsys, tmp_path, rows):
    output, page = tmp_path / "out", tmp_path / "run.json"
    call = ["explain-dataset", "--data", rows, "--output", str(output), "--columns", "text=review"]
    call += ["--columns", "label=stars", "--shard-size", "2"]
    assert main([*call, "--dry-run"]) == 0
    assert "Dry run: 3 rows" in capsys.readouterr().out or not output.exists()
    assert main([*call, "--json", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "complete" in printed
    assert f"Next: hf-attn-mi summarize {output} --html learned.html" in printed
    assert json.loads(page.read_text())["failed"] == 1
    assert [(one.row, one.label) for one in load_results(output).with_rows()] == [(0, "0"), (1, "1")]
    assert main([*call, "--method", "attention"]) == 2
    assert "options.method was 'relevance', is now 'attention'" in capsys.readouterr().err


def test_refusals_are_one_line(capsys, tmp_path, rows):
    call = ["explain-dataset", "--data", rows, "--output", str(tmp_path / "out")]
    for options, words in {
        ("--columns", "review"): "ROLE=COLUMN is needed",
        ("--columns", "text=a", "--columns", "text=b"): "each role once",
        ("--columns", "text=such"): r"['such'] are not in the data",
        ("--batch-size", "none"): "'auto' or a positive whole number",
        ("--num-shards", "0", "--columns", "text=review"): "num_shards must be a positive whole number",
    }.items():
        assert words in command_line.refused(capsys, *call, *options)
    assert "no file or folder" in command_line.refused(capsys, *call[:2], "./missing.jsonl", *call[3:])
