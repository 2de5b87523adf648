"""What every kind of result has in common, tested on each: files, equality, pickling, tables, text and HTML."""

import copy
import dataclasses
import gzip
import json
import math
import os
import pickle
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results import Explanation, Record
from hf_attn_mi.results.codec import decode, encode, same
from tests.results.result_samples import SAMPLES, attention_maps, certificate, explanation, token_set

EVERY = pytest.mark.parametrize("record", SAMPLES.values(), ids=SAMPLES)
FILES = pytest.mark.parametrize("record", [x for x in SAMPLES.values() if not x.FOLDER], ids=lambda x: x.NOUN)
FOLDERS = pytest.mark.parametrize("record", [x for x in SAMPLES.values() if x.FOLDER], ids=lambda x: x.NOUN)
# These have pages of their own: tests/results/test_report_page.py, tests/results/test_corpus_page.py.
OWN_PAGES = ("report", "summary of a data set")
STATIC = pytest.mark.parametrize(
    "record", [x for x in SAMPLES.values() if x.NOUN not in OWN_PAGES], ids=lambda x: x.NOUN
)
OTHER = {  # a value of another record for one field of each kind
    "run over a data set": {"rows": 2001},
    "summary of a data set": {"rows": 101},
    "explanation": {"target": None},
    "attention layer": {"n": 7},
    "certificate": {"scale": 2.5},
    "token set": {"p_all": 0.96},
    "attention subgraph": {"p_all": 0.96},
    "comparison": {"info": {}},
    "information profile": {"labels": ("a", "b")},
    "attention maps": {"kind": "raw"},
    "report": {"info": {}},
}
RECORDS = list(SAMPLES.values())


def other_than(record):
    return dataclasses.replace(record, **OTHER[record.NOUN])


def place_of(record, folder, name="saved"):
    return folder / (name if record.FOLDER else f"{name}.json")


# --- data


@EVERY
def test_strict_json_round_trip_is_lossless(record):
    data = record.to_dict()
    assert (data["type"], data["schema"]) == (f"hf_attn_mi.{type(record).__name__}", 1)
    read = json.loads(json.dumps(data, allow_nan=False))
    again = type(record).from_dict(read)
    assert again == record
    assert again.to_dict() == data
    assert Record.from_dict(read) == record


@EVERY
def test_equality_is_by_data_and_there_is_no_hash(record):
    other = other_than(record)
    assert record == copy.deepcopy(record)
    assert record != other
    assert other == other_than(record)
    assert record != "text"
    assert record != RECORDS[RECORDS.index(record) - 1]
    with pytest.raises(TypeError):
        hash(record)


def test_nan_equals_nan_and_tensors_have_a_dtype():
    nan = float("nan")
    assert same((torch.tensor([nan, 1.0]), {"a": nan}), (torch.tensor([nan, 1.0]), {"a": nan}))
    assert not same(torch.tensor([nan]), torch.tensor([1.0]))
    assert not same(torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64))
    assert not same(torch.tensor([1.0]), torch.tensor([[1.0]]))
    assert not same(torch.tensor([1.0]), 1.0)
    assert not same((1,), (1, 2))
    assert certificate(necessity=nan) == certificate(necessity=nan) != certificate()


@EVERY
@pytest.mark.parametrize("copier", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_equal(record, copier):
    again = copier(record)
    assert again == record
    assert again is not record
    assert type(again) is type(record)


@EVERY
def test_nothing_can_be_changed(record):
    for item in dataclasses.fields(record):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, item.name, None)
    for name in ("info", "costs", "controls", "fingerprint"):
        if hasattr(record, name):
            with pytest.raises(TypeError):
                getattr(record, name)["model"] = "x"


@EVERY
def test_a_missing_broken_or_unknown_entry_is_refused_by_name(record):
    data = record.to_dict()
    for item in dataclasses.fields(record):
        without = {key: value for key, value in data.items() if key != item.name}
        if item.name not in record.ADDED:  # which older files lack
            with pytest.raises(InvalidInputError, match=item.name):
                type(record).from_dict(without)
        if data[item.name] is not None and not isinstance(data[item.name], str):
            with pytest.raises(InvalidInputError, match=f"not a saved {record.NOUN}"):
                type(record).from_dict({**data, item.name: "broken"})
    with pytest.raises(InvalidInputError, match="new_field unknown"):
        type(record).from_dict({**data, "new_field": 1})
    for spoiled in ([], {}, {**data, "type": "other"}):
        with pytest.raises(InvalidInputError, match=f"data is not a saved {record.NOUN}: its 'type' must be"):
            type(record).from_dict(spoiled)
        with pytest.raises(InvalidInputError, match=r"must be one of hf_attn_mi\.AttentionMaps"):
            Record.from_dict(spoiled)
    for schema in (2, True, None, "1"):
        with pytest.raises(InvalidInputError, match=f"schema {schema!r}; this version reads schema 1 only"):
            type(record).from_dict({**data, "schema": schema})


def test_what_follows_from_the_numbers_is_not_read():
    data = certificate().to_dict()
    assert (data["holds"], data["outcome"], data["reasons"]) == (True, "holds", [])
    data["change"] = {**data["change"], "kept": False}
    assert not type(certificate()).from_dict(data).holds  # the file still says that it holds
    assert type(token_set()).from_dict({**token_set().to_dict(), "check": {"holds": False}}) == token_set()


def test_a_wrong_number_deep_inside_is_named():
    data = certificate().to_dict()
    data["layers"][1]["residual"] = "much"
    with pytest.raises(InvalidInputError, match=r"layers\[1\]\.residual must be a number, got 'much'"):
        type(certificate()).from_dict(data)
    data = token_set().to_dict()
    del data["spans"][0]["start"]
    with pytest.raises(InvalidInputError, match=r"spans\[0\] is not a saved Span: start missing or unknown"):
        type(token_set()).from_dict(data)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "bool"])
def test_tensors_of_every_dtype_survive(dtype):
    tensor = torch.tensor([[0.0, 1.0], [3.0, -2.5]]).to(getattr(torch, dtype))
    assert same(decode(json.loads(json.dumps(encode(tensor)))), tensor)
    with pytest.raises(InvalidInputError, match="dtype complex64 cannot be saved"):
        encode(torch.zeros(1, dtype=torch.complex64))


# --- files


@EVERY
def test_save_and_load(record, tmp_path):
    path = place_of(record, tmp_path)
    record.save(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert type(record).load(str(path)) == record
    with pytest.raises(InvalidInputError, match="exists; choose another name or pass overwrite=True"):
        other_than(record).save(path)
    assert type(record).load(path) == record
    other_than(record).save(path, overwrite=True)
    assert type(record).load(path) == other_than(record)
    with pytest.raises(InvalidInputError, match="does not exist; create it first"):
        record.save(tmp_path / "none" / path.name)
    with pytest.raises(InvalidInputError if record.FOLDER else FileNotFoundError):
        type(record).load(tmp_path / f"other{path.suffix}")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@FILES
def test_gzip_and_other_suffixes(record, tmp_path):
    record.save(tmp_path / "a.json.gz")
    assert json.loads(gzip.decompress((tmp_path / "a.json.gz").read_bytes())) == record.to_dict()
    assert Record.load(tmp_path / "a.json.gz") == record
    assert (tmp_path / "a.json.gz").read_bytes()[4:8] == bytes(4)  # no time: equal data, equal bytes
    for name in ("a.txt", "json", ""):
        with pytest.raises(InvalidInputError, match=r"must end in \.json or \.json\.gz"):
            record.save(tmp_path / name)
    (tmp_path / "b.json").mkdir()
    with pytest.raises(InvalidInputError, match="is a folder"):
        record.save(tmp_path / "b.json", overwrite=True)


@FILES
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "not a saved"),
        (b'{"schema": 1}', "not a saved"),
        (b'{"a": NaN}', "NaN is not strict JSON"),
        (b'{"a": -Infinity}', "-Infinity is not strict JSON"),
        (b"{", "not a strict JSON file"),
        (b"\xff\xfe", "not a strict JSON file"),
        (gzip.compress(b"{}" * 100, mtime=0)[:-9], "not a strict JSON file"),
        (b"[" * 100_000, "not a strict JSON file"),
    ],
)
def test_a_damaged_file_is_refused_by_name(record, tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for record_type in (type(record), Record):
        with pytest.raises(InvalidInputError, match=f"cannot load .*a.json.*{message}"):
            record_type.load(path)


@FILES
@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(record, tmp_path, monkeypatch, step):
    path = tmp_path / "a.json"
    record.save(path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="disk full"):
        other_than(record).save(path, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    assert type(record).load(path) == record


def test_a_failed_first_save_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        explanation().save(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("links", [True, False])
def test_of_many_writers_of_one_name_exactly_one_wins(tmp_path, monkeypatch, links):
    if not links:  # as on file systems that have no hard links
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(PermissionError("no links")))
    path, results, refusals = tmp_path / "a.json", [], []
    monkeypatch.setattr("pathlib.Path.exists", lambda self: False)  # all of them are past the friendly check

    def write(target):
        try:
            explanation(target=target).save(path)
            results.append(target)
        except InvalidInputError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=write, args=(target,)) for target in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 1
    assert len(refusals) == 7
    assert all("exists; choose another name" in message for message in refusals)
    assert Explanation.load(path).target == results[0]
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@FOLDERS
def test_a_folder_holds_strict_json_and_safetensors(record, tmp_path):
    path, stem = tmp_path / "saved", record.FOLDER
    record.save(path)
    assert sorted(file.name for file in path.iterdir()) == [f"{stem}.json", f"{stem}.safetensors"]
    text = (path / f"{stem}.json").read_text()
    assert "values" not in text  # no tensor is written as numbers
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(InvalidInputError, match=f"is not a saved {stem} and is not replaced"):
        record.save(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
    for name, message in ((f"{stem}.json", "strict JSON"), (f"{stem}.safetensors", "SafetensorError")):
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[:-9])
        with pytest.raises(InvalidInputError, match=message):
            type(record).load(path)
        (path / name).unlink()
        with pytest.raises(InvalidInputError, match=f"a folder with {stem}.json and {stem}.safetensors is needed"):
            type(record).load(path)
        (path / name).write_bytes(content)
    data = json.loads(text)
    data["info"]["lost"] = {"__tensor__": "no such tensor"}
    (path / f"{stem}.json").write_text(json.dumps(data))
    with pytest.raises(InvalidInputError, match="KeyError: 'no such tensor'"):
        type(record).load(path)


@FOLDERS
@pytest.mark.parametrize("step", ["hf_attn_mi.results.storage.save_file", "os.rename"])
def test_a_failed_save_leaves_the_old_folder_and_nothing_else(record, tmp_path, monkeypatch, step):
    path = tmp_path / "saved"
    record.save(path)
    rename, calls = os.rename, []

    def fail(*arguments):
        calls.append(arguments)
        if step.endswith("rename") and len(calls) != 2:  # the second one gives the new folder its name
            return rename(*arguments)
        raise OSError("disk full")

    monkeypatch.setattr("hf_attn_mi.atomic_files._exchange", lambda left, right: False)
    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="disk full"):
        other_than(record).save(path, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    assert type(record).load(path) == record


# --- forms


class Checker(HTMLParser):
    """Fails where tags are not nested."""

    def __init__(self, html):
        super().__init__()
        self.stack, self.tags = [], []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


@EVERY
def test_text_has_no_escape_sequence_unless_asked_for(record, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    plain = str(record)
    assert plain == record.to_text(color="none") == record.to_text()
    assert "\x1b" not in plain
    assert plain.strip()
    assert all(line == line.rstrip() for line in plain.splitlines())
    colored = re.sub(r"\x1b\[[0-9;]*m", "", record.to_text(color="truecolor"))
    assert set(plain.split()) <= set(colored.split())


@STATIC
def test_the_page_is_whole_and_loads_nothing(record):
    page, section = record.to_html(), record._repr_html_()
    assert page.startswith("<!DOCTYPE html>")
    for html in (page, section):
        tags = Checker(html).tags
        assert tags.count("style") == tags.count("section") == 1
        assert "script" not in tags
        assert not re.search(r"https?:|url\(|@import|\b(src|href)=", html)
    assert "default-src 'none'" in page
    page.encode("utf-8")


@EVERY
def test_repr_is_one_line(record):
    assert repr(record).startswith(f"{type(record).__name__}(")
    assert "\n" not in repr(record)
    assert len(repr(record)) < 200


ROWS = {
    "explanation": 5,
    "layer": 2,
    "certificate": 2,
    "data set run": 1,
    "summary": 2,
    "token set": 4,
    "attention subgraph": 2,
    "comparison": 2,
    "profile": 8,
    "maps": 18,
    "report": 1,
}


@pytest.mark.parametrize("name", SAMPLES)
def test_pandas_tables_have_the_documented_rows(name):
    table = SAMPLES[name].to_pandas()
    assert isinstance(table, pd.DataFrame)
    assert len(table) == ROWS[name]


def test_pandas_tables_carry_the_numbers():
    assert SAMPLES["explanation"].to_pandas()["score"].tolist() == [0.5, 0.25, 0.5, -0.125, 1.0]
    assert SAMPLES["certificate"].to_pandas()["relative_change"].tolist() == [0.4, 0.4]
    assert SAMPLES["token set"].to_pandas()["in_set"].tolist() == [False, False, True, False]
    assert SAMPLES["comparison"].to_pandas()["mean"].tolist() == pytest.approx([0.6, 0.1])
    profile, maps = SAMPLES["profile"], attention_maps()
    assert profile.to_pandas()["nats"].tolist() == profile.information.nats.tolist()
    assert profile.to_pandas()["low"].tolist() == profile.information.interval[:, 0].tolist()
    cell = maps.to_pandas().query("layer == 3 and head == 1 and query == 2 and key == 1")
    assert cell["weight"].item() == pytest.approx(float(maps[3][0, 2, 1]))


def test_libraries_for_text_html_and_tables_are_imported_when_they_are_used():
    probe = (
        "import sys, hf_attn_mi.results; "
        "print([name for name in ('rich', 'jinja2', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "[]\n"


def test_attention_maps_are_read_by_layer():
    maps = attention_maps()
    assert torch.equal(maps[3], maps.matrices[1])
    with pytest.raises(InvalidInputError, match=r"layer 1 does not exist; there are layers \[0, 3\]"):
        maps[1]
    with pytest.raises(InvalidInputError, match=r"matrices\[0\] must have shape \(1, 3, 3\)"):
        attention_maps(matrices=(torch.rand(3, 3),) * 2)
    with pytest.raises(InvalidInputError, match="names has 1 entries for 2 layers"):
        attention_maps(names=("layer.0",))


def test_numbers_that_json_lacks_come_back():
    alone = certificate(necessity=math.inf)  # rows of one key
    assert type(alone).from_dict(json.loads(json.dumps(alone.to_dict(), allow_nan=False))) == alone != certificate()
