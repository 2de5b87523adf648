"""The texts that a command works on: samples of a data set, and their rationales."""

import io
import json
import os
import random
from collections import Counter

import pytest

from hf_attn_mi.cli.inputs import draw_texts, read_texts
from hf_attn_mi.tasks.rationales import rationale_spans
from tests.cli.command_line import marked, refused


@pytest.fixture
def data(tmp_path):
    """A file of 40 texts and two rows without one."""
    path = tmp_path / "texts.jsonl"
    rows = [{"text": f"text {i}"} for i in range(40)] + [{"text": " "}, {"text": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_draw_is_in_order_repeatable_and_even(data):
    first = draw_texts(str(data), 7, seed=1)
    numbers = [int(text.split()[1]) for text in first.texts]
    assert numbers == sorted(set(numbers))
    assert draw_texts(str(data), 7, seed=1) == first != draw_texts(str(data), 7, seed=2)
    assert (first.available, first.empty, first.rationales) == (40, 2, None)
    everything = draw_texts(str(data), 40)
    assert everything.texts == [f"text {i}" for i in range(40)] == draw_texts(str(data), 1000).texts
    times = Counter(text for seed in range(400) for text in draw_texts(str(data), 10, seed=seed).texts)
    assert len(times) == 40
    # Each text is in a draw with probability 1/4: 100 times expected, standard deviation 8.7.
    assert max(abs(count - 100) for count in times.values()) < 4.5 * 8.7


def test_rationales_are_the_characters_of_the_marked_words(tmp_path):
    generator = random.Random(0)
    words = ["a", "rather", "don't", "film", ",", "naïve", "\U0001f600"]
    rows = []
    for _ in range(30):
        tokens = generator.choices(words, k=generator.randint(1, 9))
        gaps = generator.choices(["", " ", "  ", "\n"], k=len(tokens))
        text = "".join(gap + word for gap, word in zip(gaps, tokens))
        rows.append({"text": text, "tokens": tokens, "marks": [generator.randint(0, 1) for _ in tokens]})
    sample = draw_texts(marked(tmp_path, *rows), 30, rationales="marks")
    assert sample.texts == [row["text"] for row in rows]
    for row, spans in zip(rows, sample.rationales, strict=True):
        wanted = [word for word, flag in zip(row["tokens"], row["marks"]) if flag]
        assert [row["text"][start:end] for start, end in spans] == wanted


def test_without_a_text_the_words_are_joined_as_rationale_spans_has_it(tmp_path):
    tokens, flags = ["a", "quietly", "moving", "film"], [0, 1, 1, 0]
    sample = draw_texts(marked(tmp_path, {"tokens": tokens, "rationale": flags}), 5, rationales="rationale")
    assert sample.texts == ["a quietly moving film"]
    covered = {i for start, end in sample.rationales[0] for i in range(start, end)}
    ((start, end),) = rationale_spans(tokens, flags)
    assert covered == set(range(start, end)) - {sample.texts[0].index(" moving")}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"tokens": ["a", "b"], "rationale": [1]}, "0 or 1 for each of 2 words is needed, not 1 entries"),
        ({"tokens": ["a", "b"], "rationale": [1, 2]}, "0 or 1 for each of 2 words"),
        ({"tokens": ["a", "b"], "rationale": "01"}, "not str"),
        ({"tokens": ["a", " "], "rationale": [0, 1]}, "words that are not empty"),
        ({"tokens": "ab", "rationale": [0, 1]}, "'tokens' must be a list of words"),
        ({"tokens": ["a", "b"], "rationale": [0, 1], "text": "a c"}, "character 2 of its text does not begin"),
        ({"tokens": ["a", "b"]}, "row 1 of the data has no ['rationale']"),
        ("a b", "row 1 of the data has no ['tokens', 'rationale'], but str"),
    ],
)
def test_rationales_that_do_not_fit_are_refused(capsys, tmp_path, row, words):
    good = {"tokens": ["a", "b"], "rationale": [0, 1]}
    message = refused(capsys, "compare", "--data", marked(tmp_path, good, row), "--rationales")
    assert words in message
    assert "row 1" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("texts.txt", "A good film.\nA bad film.\n"),
        ("texts.jsonl", '{"text": "A good film.", "label": 1}\n{"text": "A bad film.", "label": 0}\n'),
        ("texts.csv", "text,label\nA good film.,1\nA bad film.,0\n"),
        ("texts.json", '[{"text": "A good film."}, {"text": "A bad film."}]'),
        ("texts", "A good film.\nA bad film.\n"),
    ],
)
def test_a_file_is_read_by_its_suffix(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert read_texts([], path, None) == ["A good film.", "A bad film."]


@pytest.mark.parametrize("name", ["explain", "certify", "minimal"])
def test_text_that_is_not_utf8_is_refused_by_its_place(tmp_path, capsys, monkeypatch, name):
    stdin = io.TextIOWrapper(io.BytesIO(b"fine\n\ncaf\xe9\n"))
    monkeypatch.setattr("sys.stdin", stdin)
    assert "standard input: line 3: 'utf-8' codec can't decode byte 0xe9" in refused(capsys, name)
    (tmp_path / "a.txt").write_bytes(b"fine\ncaf\xe9\n")
    assert "a.txt: line 2: 'utf-8' codec" in refused(capsys, name, "--file", str(tmp_path / "a.txt"))
    invalid = os.fsdecode(b"caf\xe9")
    assert "TEXT 2: character 3 is not UTF-8" in refused(capsys, name, "fine", invalid)
    assert "--pair: character 3 is not UTF-8" in refused(capsys, name, "fine", "--pair", invalid)


def test_folders_and_missing_files_are_said_to_be_that(tmp_path, capsys):
    assert "it is a folder; name a file" in refused(capsys, "explain", "--file", str(tmp_path))
    assert "there is no folder of this name here. As a Hub name:" in refused(
        capsys, "explain", "a", "--model", "no/such"
    )
    assert "no file or folder 'none.parquet'" in refused(capsys, "mi", "--data", "none.parquet")
    assert "there is no such file" in refused(capsys, "explain", "--file", "no-such-file")


def test_a_number_of_thousands_of_digits_is_no_label(capsys):
    message = refused(capsys, "explain", "a", "--target", "1" * 5000)
    assert "is not a label" in message
    assert len(message) < 3000


def test_blank_lines_are_named(tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("one\n\ntwo\n  \n")
    assert read_texts([], tmp_path / "texts.txt", None) == ["one", "two"]
    assert "2 blank lines were left out, the first is line 2" in capsys.readouterr().err.replace("\n", " ")
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    assert read_texts([], tmp_path / "texts.txt", None) == ["one", "two"]
    assert capsys.readouterr().err == ""
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": ""}\n')
    assert read_texts([], tmp_path / "rows.jsonl", None) == ["one"]
    assert "1 row without a text was left out" in capsys.readouterr().err
