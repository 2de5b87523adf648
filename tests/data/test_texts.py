"""Texts out of every kind of data set."""

import csv
import gzip
import json
import sys
import types

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, IterableDataset
from pyarrow import parquet

from hf_attn_mi import InvalidInputError
from hf_attn_mi.data.texts import read_texts_of

TEXTS = ["A quietly moving film.", 'dull, "and" long', "Une com\u00e9die dr\u00f4le", "one\ttab"]
PAIRS = [("A man sleeps.", "Nobody is awake."), ("a", "b")]


def write(path, text):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        file.write(text)
    return path


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\r\n".join(TEXTS) + "\r\n"),
        ("a.txt.gz", "\n".join(TEXTS)),
        ("a.jsonl", lines({"id": i, "text": text, "label": 0} for i, text in enumerate(TEXTS))),
        ("a.jsonl.gz", lines({"sentence": text} for text in TEXTS) + "\n"),
        ("b.jsonl", lines(TEXTS)),
        ("a.json", json.dumps([{"text": text} for text in TEXTS])),
        ("a.csv", "\ufefftext,label\r\n" + "".join(f"{quoted(text)},1\r\n" for text in TEXTS)),
        ("a.csv.gz", "sentence\n" + "".join(quoted(text) + "\n" for text in TEXTS)),
    ],
)
def test_files(tmp_path, name, content):
    path = write(tmp_path / name, content)
    assert list(read_texts_of(path)) == TEXTS
    assert list(read_texts_of(str(path), limit=2)) == TEXTS[:2]


def test_a_table_of_tabs(tmp_path):
    path = write(tmp_path / "a.tsv", 'label\tsentence\n1\t"some" quotes\n0\tdull\n')
    assert list(read_texts_of(path)) == ['"some" quotes', "dull"]


def test_line_breaks_inside_quotes_belong_to_the_text(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\r\n"one\r\ntwo",1\r\n')
    assert list(read_texts_of(path)) == ["one\r\ntwo"]


def rows_of(texts):
    return [{"idx": i, "text": text} for i, text in enumerate(texts)]


def test_lists_and_datasets(tmp_path):
    data = Dataset.from_list(rows_of(TEXTS))
    streamed = IterableDataset.from_generator(lambda: iter(rows_of(TEXTS)))
    assert streamed.column_names is None  # known when the first row is read
    for held in (TEXTS, tuple(TEXTS), iter(TEXTS), rows_of(TEXTS), data, data.to_iterable_dataset(), streamed):
        assert list(read_texts_of(held)) == TEXTS
    data.save_to_disk(tmp_path / "saved")
    assert list(read_texts_of(tmp_path / "saved")) == TEXTS
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    assert list(read_texts_of(str(arrow))) == TEXTS
    DatasetDict({"test": data}).save_to_disk(tmp_path / "one_split")
    assert list(read_texts_of(tmp_path / "one_split")) == TEXTS
    assert list(read_texts_of(read_texts_of(TEXTS), limit=3)) == TEXTS[:3]


@pytest.mark.parametrize(
    "names",
    [
        ("text_a", "text_b"),
        ("sentence1", "sentence2"),
        ("premise", "hypothesis"),
        ("question", "sentence"),
        ("question1", "question2"),
        ("question", "context"),
    ],
)
def test_pairs(names):
    rows = [{"label": 1, names[1]: b, names[0]: a} for a, b in PAIRS]
    for held in (rows, Dataset.from_list(rows), Dataset.from_list(rows).to_iterable_dataset()):
        assert list(read_texts_of(held)) == PAIRS
    assert list(read_texts_of([[a, b] for a, b in PAIRS])) == PAIRS


def test_a_column_by_name():
    rows = [{"title": "fine", "body": "dull", "text": "x"}]
    assert list(read_texts_of(rows, text_field="body")) == ["dull"]
    assert list(read_texts_of(Dataset.from_list(rows), text_field=("title", "body"))) == [("fine", "dull")]
    with pytest.raises(InvalidInputError, match=r"text_field \['nothing'\] is not in the data; its columns are"):
        read_texts_of(Dataset.from_list(rows), text_field="nothing")


def test_empty_texts_are_passed_over_and_counted():
    reader = read_texts_of(["a", "", " \n", None, "b", ("a", " "), "c", "d"], limit=3)
    assert (list(reader), reader.seen, reader.empty) == (["a", "b", "c"], 3, 4)
    assert (reader.size, read_texts_of(iter(["a"])).size) == (3, None)


def test_hub_names(monkeypatch):
    asked = []

    def load_dataset(name, config=None, split=None):
        asked.append((name, config, split))
        if name == "glue/sst2":
            raise FileNotFoundError("no such repository")
        data = {"validation": ["v"], "train": TEXTS}
        return data if split is None else data[split.partition("[")[0]]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert list(read_texts_of("imdb")) == TEXTS
    assert list(read_texts_of("owner/name:validation")) == ["v"]
    assert list(read_texts_of("owner/name/config:train[:10%]")) == TEXTS
    assert list(read_texts_of("glue/sst2:train")) == TEXTS
    assert asked == [
        ("imdb", None, None),
        ("owner/name", None, "validation"),
        ("owner/name", "config", "train[:10%]"),
        ("glue/sst2", None, "train"),
        ("glue", "sst2", "train"),
    ]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (None, "dataset must be a list of texts"),
        (7, "not int"),
        ({"train": TEXTS}, r"dataset is a dict of \['train'\]; pass one of these, dataset\['train'\]"),
        ("A quietly moving film.", "is neither a file, a folder nor a Hub name"),
        ("missing.jsonl", "there is no file or folder 'missing.jsonl'"),
        ([3], "row 0 must be a text or a pair of texts, not int: 3"),
        ([("a", "b", "c")], "row 0 must be a text or a pair of texts, not tuple"),
        (
            [{"label": 1, "body": "x"}],
            r"dataset has columns \['label', 'body'\]; the texts are looked for in text, text_a",
        ),
        ([{"text": "x"}, {"body": "x"}], r"row 1 has no \['text'\]; its columns are \['body'\]"),
        (Dataset.from_list([{"label": 1}]), r"dataset has columns \['label'\]"),
    ],
)
def test_other_data_is_refused(dataset, message):
    with pytest.raises(InvalidInputError, match=message):
        list(read_texts_of(dataset))


def flipped(content, place):
    """The gzipped content with one byte changed."""
    data = bytearray(gzip.compress(content, mtime=0))
    data[place] ^= 0xFF
    return bytes(data)


ROW = b'{"text": "a fine film"}\n'
DAMAGED = {
    "a.jsonl": (b'{"text": "x"}\n\n{"text":\n', "line 3 of .*a.jsonl' is not JSON"),
    "deep.jsonl": (ROW + b"[" * 100_000, "line 2 of .*deep.jsonl' is not JSON: it is nested too deeply"),
    "long.jsonl": (ROW + b'{"n": ' + b"1" * 5000 + b"}", "line 2 of .* is not JSON: Exceeds the limit .4300 digits"),
    "latin.jsonl": (ROW * 2 + b'{"text": "caf\xe9"}', "line 3 of .* is not JSON: byte 0xe9 is not UTF-8"),
    "flipped.jsonl.gz": (flipped(ROW * 900, 30), r"line [0-9]+ of .*flipped.jsonl.gz' cannot be read"),
    "short.jsonl.gz": (gzip.compress(ROW * 9, mtime=0)[:-9], r"line 10 of .* cannot be read: EOFError"),
    "a.json": (b'{"text": "x"}', "holds a dict; a list of texts or rows is needed"),
    "b.json": (b"[1,", "b.json' is not JSON: JSONDecodeError"),
    "deep.json": (b"[" * 100_000, "deep.json' is not JSON: it is nested too deeply"),
    "long.json": (b"[" + b"1" * 5000 + b"]", "long.json' is not JSON: Exceeds the limit"),
    "a.csv.gz": (b"\xff\xfe\x00", "row 0 of .* cannot be read: BadGzipFile"),
    "latin.csv": (b"text\nfine\ncaf\xe9\n", "row 1 of .*latin.csv' cannot be read: byte 0xe9 is not UTF-8"),
    "wide.csv": ("text\nfine\n".encode("utf-16"), "row 0 of .* cannot be read: byte 0xff is not UTF-8"),
    "twice.csv": (b"text,text\na,b\n", "several columns of the name 'text'; rename them"),
    "a.txt": (b"fine\n\xff\xfe\x00", "line 2 of .* cannot be read: byte 0xff is not UTF-8"),
    "a.arrow": (b"\xff\xfe\x00", "is no Arrow file"),
    "a.parquet": (b"\xff\xfe\x00", "is no Parquet file"),
    "a.xlsx": (b"\xff\xfe\x00", "must end in one of .txt, .jsonl"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_by_row(tmp_path, name):
    content, message = DAMAGED[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        list(read_texts_of(path))


def text_with_bad_bytes():
    """An Arrow table whose second text is not UTF-8."""
    ends = b"".join(end.to_bytes(4, "little") for end in (0, 4, 8))
    texts = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(ends), pa.py_buffer(b"fine\xff\xfe\xfd\xfc")])
    return pa.table({"text": texts})


def test_tables_with_a_text_that_is_not_utf8_are_refused_by_row(tmp_path):
    table = text_with_bad_bytes()
    parquet.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    for dataset in (tmp_path / "a.parquet", tmp_path / "a.arrow", Dataset(table)):
        rows = iter(read_texts_of(dataset))
        assert next(rows) == "fine"
        with pytest.raises(InvalidInputError, match=r"row 1 of .* cannot be read: UnicodeDecodeError"):
            next(rows)


def test_a_parquet_file_is_read(tmp_path):
    parquet.write_table(pa.table({"label": [0] * len(TEXTS), "text": TEXTS}), tmp_path / "a.parquet")
    reader = read_texts_of(tmp_path / "a.parquet")
    assert reader.size == len(TEXTS)
    assert list(reader) == TEXTS


def test_cells_longer_than_the_csv_module_allows_are_read(tmp_path):
    text = "long " * 40_000
    path = write(tmp_path / "a.csv", f"text,label\n{text},1\nfine,0\n")
    limit = csv.field_size_limit()
    assert list(read_texts_of(path)) == [text, "fine"]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("content", [b"{bad", b"[1, 2]", b'{"features": {"text": {"_type": "Nope"}}}'])
@pytest.mark.parametrize("file", ["dataset_info.json", "state.json", "data-00000-of-00001.arrow"])
def test_a_folder_with_a_damaged_file_is_refused_by_name(tmp_path, file, content):
    Dataset.from_list(rows_of(TEXTS)).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / file).write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"saved' was not saved by datasets \(save_to_disk\), or is damaged: "):
        list(read_texts_of(tmp_path / "saved"))


def test_folders_without_one_data_set_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="was not saved by datasets"):
        read_texts_of(tmp_path)
    Dataset.from_list(rows_of(TEXTS)).save_to_disk(tmp_path / "train")
    DatasetDict({n: Dataset.from_list(rows_of(TEXTS)) for n in "ab"}).save_to_disk(tmp_path / "two")
    with pytest.raises(InvalidInputError, match=r"has the splits \['a', 'b'\]; name one"):
        read_texts_of(tmp_path / "two")


@pytest.mark.parametrize("limit", [0, -1, 2.0, True])
def test_limits_that_are_none(limit):
    with pytest.raises(InvalidInputError, match="limit must be None"):
        read_texts_of(TEXTS, limit=limit)
