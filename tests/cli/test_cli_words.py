"""`--is-split-into-words`: what stands on the command line and in files as words is explained as words."""

import json

import pytest

from hf_attn_mi import Certificate, certify, explain, load_results
from hf_attn_mi.cli import main
from tests.cli import command_line

WORDS = ["A", "(warm)", "film."]


@pytest.fixture
def written(capsys, tmp_path):
    def run(command, *arguments):
        path = tmp_path / "a.json"
        assert main([command, *map(str, arguments), "--json", str(path), "--quiet"]) in (0, 1, 3)
        capsys.readouterr()
        return json.loads(path.read_text(encoding="utf-8"))

    return run


def test_texts_are_explained_as_words(demo, written):
    whole = explain(*demo[:1], WORDS, is_split_into_words=True, tokenizer=demo[1])
    (found,) = written("explain", "A (warm)  film.", "--is-split-into-words")
    assert tuple(found["word_ids"]) == whole.word_ids
    assert found["texts"] == ["A (warm) film."]
    (plain,) = written("explain", "A (warm)  film.")
    assert plain["word_ids"] != found["word_ids"]
    (pair,) = written("explain", "A (warm)  film.", "--pair", "it's", "--is-split-into-words")
    assert pair["texts"] == ["A (warm) film.", "it's"]


@pytest.mark.parametrize("command", ["certify", "minimal", "subgraph", "report"])
def test_other_commands_take_words_too(monkeypatch, tmp_path, written, command):
    name = {"minimal": "minimal_tokens", "subgraph": "minimal_attention"}.get(command, command)
    calls = []

    def task(_, inputs, **options):
        calls.append((inputs, options["is_split_into_words"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(f"hf_attn_mi.{name}", task, raising=False)
    page = ["--html", str(tmp_path / "a.html")] if command == "report" else []
    assert main([command, "A (warm) film.", "--is-split-into-words", *page]) == 130
    assert calls == [([WORDS], True)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.txt", "rows.parquet"])
def test_a_file_holds_words_as_lists_or_between_blanks(demo, tmp_path, written, name):
    path, rows = tmp_path / name, [WORDS, ["dull"]]
    if name.endswith(".parquet"):
        import pandas as pd

        pd.DataFrame({"tokens": rows, "id": [1, 2]}).to_parquet(path)
    elif name.endswith(".txt"):
        path.write_text("\n".join(map(" ".join, rows)), encoding="utf-8")
    else:
        data = [{"id": 1, "tokens": row} for row in rows]
        text = json.dumps(data) if name.endswith(".json") else "\n".join(map(json.dumps, data))
        path.write_text(text, encoding="utf-8")
    found = written("explain", "--file", path, "--is-split-into-words")
    wanted = [explain(demo[0], row, is_split_into_words=True, tokenizer=demo[1]) for row in rows]
    assert [one["texts"] for one in found] == [list(one.texts) for one in wanted]
    assert [tuple(one["word_ids"]) for one in found] == [one.word_ids for one in wanted]


@pytest.mark.parametrize("command", ["explain", "compare", "explain-dataset"])
def test_a_table_of_words_alone_names_the_option_that_reads_it(capsys, tmp_path, command):
    path = command_line.marked(tmp_path, {"words": WORDS, "id": 1})
    source = "--file" if command == "explain" else "--data"
    output = ["--output", str(tmp_path / "out")] if command == "explain-dataset" else []
    line = command_line.refused(capsys, command, source, path, *output)
    assert "dataset has columns ['words', 'id']" in line
    assert line.endswith("The column 'words' is read with --is-split-into-words.\n")


def test_a_data_set_of_words_is_explained(tmp_path, demo):
    path = command_line.marked(tmp_path, {"tokens": WORDS, "text": "another"}, {"tokens": ["dull"], "text": "b"})
    call = ["explain-dataset", "--data", path, "--output", str(tmp_path / "out"), "--is-split-into-words", "--quiet"]
    assert main(call) == 0
    found = list(load_results(tmp_path / "out"))
    assert [one.texts for one in found] == [("A (warm) film.",), ("dull",)]
    wanted = explain(demo[0], WORDS, is_split_into_words=True, tokenizer=demo[1])
    assert found[0].word_ids == wanted.word_ids


@pytest.mark.parametrize("columns", ["tokens", "text", "rationale"])
def test_methods_are_compared_on_words(monkeypatch, tmp_path, columns):
    calls = []

    def task(_, inputs, **options):
        calls.append((inputs, options["is_split_into_words"], options["rationales"]))
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_attn_mi.compare", task, raising=False)
    rows = {
        "tokens": [{"tokens": WORDS}, {"tokens": []}, {"tokens": None}],
        "text": [{"text": "A (warm)  film."}, {"text": " "}],
        "rationale": [{"tokens": WORDS, "text": "A (warm)film.", "rationale": [0, 1, 1]}],
    }[columns]
    marks = ["--rationales"] if columns == "rationale" else []
    call = ["compare", "--data", command_line.marked(tmp_path, *rows), "--is-split-into-words", *marks]
    assert main(call) == 130
    assert calls == [([WORDS], True, [[(2, 8), (9, 14)]] if marks else None)]


@pytest.mark.parametrize("words", [3, "a b", [1]])
def test_rows_of_other_things_than_words_are_not_compared(capsys, tmp_path, words):
    path = command_line.marked(tmp_path, {"tokens": WORDS}, {"tokens": words})
    line = command_line.refused(capsys, "compare", "--data", path, "--is-split-into-words")
    assert "row 1: 'tokens' must be a list of one or more words" in line


def test_certificates_of_words_are_those_of_the_api(demo, written):
    (found,) = written("certify", "A (warm) film.", "--is-split-into-words")
    wanted = certify(demo[0], WORDS, is_split_into_words=True, tokenizer=demo[1])
    assert Certificate.from_dict(found).to_text(color="none") == wanted.to_text(color="none")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ('{"tokens": "a b"}', "row 0: 'tokens' must be a list of one or more words, not 'a b'"),
        ('{"tokens": ["a"]}\n{"tokens": []}', "row 1: 'tokens' must be a list"),
        ('{"tokens": ["a"]}\n{"tokens": [3]}', "row 1: 'tokens' must be a list"),
        ('{"tokens": ["a"]}\n{"text": "b"}', "row 1: 'tokens' must be a list"),
    ],
)
def test_rows_without_words_are_refused_by_number(capsys, tmp_path, rows, words):
    path = tmp_path / "rows.jsonl"
    path.write_text(rows, encoding="utf-8")
    assert main(["explain", "--file", str(path), "--is-split-into-words"]) == 2
    assert words in capsys.readouterr().err


def test_words_of_files_that_are_no_texts_are_refused(capsys, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    assert main(["explain", "--image", str(tmp_path / "a.png"), "--model", "m", "--is-split-into-words"]) == 2
    assert "--is-split-into-words: --image takes files" in capsys.readouterr().err
    assert main(["explain", "a", "--choice", "b", "--choice", "c", "--is-split-into-words"]) == 2
    assert "--choice takes whole texts" in capsys.readouterr().err
