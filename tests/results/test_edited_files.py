"""Files that were edited, damaged or made to harm: refused when they are loaded, never an accident later."""

import copy
import gzip
import json
import random
import tracemalloc

import pytest

from hf_attn_mi import InvalidInputError, Results
from hf_attn_mi.results import Record
from hf_attn_mi.results.storage import MAX_DEPTH, read_json
from tests.results.result_samples import SAMPLES, certificate, comparison, explanation

EDITS = 60  # of each record
VALUES = [
    None,
    -1,
    0,
    3,
    10**6,
    2**62,
    10**400,
    1e308,
    "x",
    "",
    [],
    {},
    [[]],
    True,
    {"__float__": "nan"},
    {"__float__": "x"},
    {"__tensor__": "float32", "shape": [2], "values": [1.0, 2.0]},
    {"__tensor__": "int64", "shape": [], "values": [1]},
    {"__tensor__": "float32", "shape": [-1], "values": []},
    {"__tensor__": "none"},
]


def places(data, place=()):
    """The way to every value inside of JSON data; of lists the first two entries."""
    yield place
    if isinstance(data, dict):
        for key, value in data.items():
            yield from places(value, (*place, key))
    elif isinstance(data, list):
        for i, value in enumerate(data[:2]):
            yield from places(value, (*place, i))


def edited(data, generator):
    """The data with one value, list or dictionary changed."""
    data = copy.deepcopy(data)
    *way, last = generator.choice([place for place in places(data) if place])
    inside = data
    for key in way:
        inside = inside[key]
    old = inside[last]
    choices = list(VALUES)
    if isinstance(old, list):
        choices += [old[:-1], old + old[-1:], old[::-1], old * 2] * 3
    if isinstance(old, dict):
        choices += [{key: value for key, value in old.items() if key != gone} for gone in old] + [{**old, "more": 1}]
    inside[last] = generator.choice(choices)
    return data


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "report"])
def test_an_edited_record_is_refused_or_can_be_used(name):
    data = json.loads(json.dumps(SAMPLES[name].to_dict()))
    generator, loaded = random.Random(0), 0
    for _ in range(EDITS):
        change = edited(data, generator)
        try:
            record = Record.from_dict(change)
        except InvalidInputError:
            continue
        loaded += 1
        record.to_text(color="none")
        record.to_pandas()
        assert record._repr_html_()
        assert repr(record)
        assert Record.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False))) == record
        assert Results([record]).to_text()
        if hasattr(record, "top"):
            record.top(2)
            record.top(2, words=False)
    assert 0 < loaded < EDITS


def changed(record, **entries):
    return {**json.loads(json.dumps(record.to_dict())), **entries}


PROFILE = SAMPLES["profile"]
PRIOR = PROFILE.to_dict()["probe"]["prior"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(explanation(), target=2**70), "target must be a whole number of at most 64 bits"),
        (changed(explanation(), probability=10**400), "probability must be a number"),
        (changed(certificate(), necessity_median=None), "necessity and necessity_median must be numbers, or both None"),
        (changed(comparison(), inputs=2**62), "numbers for 4611686018427387904 inputs"),
        (
            changed(
                PROFILE,
                information={**PROFILE.to_dict()["information"], "interval": PROFILE.to_dict()["probe"]["prior"]},
            ),
            r"information.interval must have shape \(8, 2\)",
        ),
        (changed(PROFILE, labels=["one"]), r"probe.directions must have shape \(8, 1, 5\)"),
    ],
)
def test_numbers_that_do_not_fit_are_named(data, message):
    with pytest.raises(InvalidInputError, match=message):
        Record.from_dict(data)


def test_a_count_that_is_too_large_ends_at_once():
    data = changed(comparison())
    for test in data["tests"]["comprehensiveness"]:
        test["difference"]["inputs"] = 2**62  # once 2 to this power
    with pytest.raises(InvalidInputError, match="table and tests count"):
        Record.from_dict(data)


@pytest.mark.parametrize("warnings", [3, 0.5, True, None, {"a": 1}, ["two", 2]])
def test_warnings_that_are_no_sentences_are_refused(warnings):
    with pytest.raises(InvalidInputError, match=r"info\['warnings'\] must be a list of sentences"):
        explanation(info={"warnings": warnings})
    assert "Warning: one" in explanation(info={"warnings": "one"}).to_text(color="none")
    assert "Warning: two" in explanation(info={"warnings": ["one", "two"]}).to_text(color="none")


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_small_file_that_unpacks_to_a_large_one_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "bomb.json.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(9):
            file.write(b"[]," * (1 << 20))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    for load in (Record.load, Results.load):
        with pytest.raises(InvalidInputError, match=r"bomb.json.gz.* holds more than max_bytes=1000000 bytes"):
            load(path, max_bytes=10**6)
        with pytest.raises(InvalidInputError, match=r"bomb.json.gz.* holds 18874368 values, more than max_bytes / 32"):
            load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 27 * 2**20  # the text, and never the lists


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".json.gz"])
def test_a_plain_file_has_the_same_limit_which_can_be_raised(tmp_path, suffix):
    results = Results([explanation()] * 3)
    path = tmp_path / f"r{suffix}"
    results.save(path)
    with pytest.raises(InvalidInputError, match="pass a larger max_bytes to load it if you trust the file"):
        Results.load(path, max_bytes=500)
    assert Results.load(path, max_bytes=10**6) == results


def test_a_folder_has_the_limit_too(tmp_path):
    SAMPLES["profile"].save(tmp_path / "p")
    with pytest.raises(InvalidInputError, match="max_bytes=100 "):
        type(SAMPLES["profile"]).load(tmp_path / "p", max_bytes=100)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1000, 100_000])
@pytest.mark.parametrize("pair", ["[]", '{"a":}'])
def test_deep_files_are_refused(tmp_path, depth, pair):
    path = tmp_path / "deep.json"
    path.write_text((pair[:-1] * depth + "1" + pair[-1] * depth), encoding="utf-8")
    for load in (Record.load, Results.load):
        with pytest.raises(InvalidInputError, match=r"deep.json.*(more than 32 deep|recursion)"):
            load(path)


def test_the_deepest_result_is_far_below_the_limit(tmp_path):
    path = tmp_path / "all.json"
    path.write_text(json.dumps([[[[record.to_dict() for record in SAMPLES.values()]]]]), encoding="utf-8")
    assert read_json(path)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "1", None])
def test_other_limits_are_refused(tmp_path, limit):
    explanation().save(tmp_path / "r.json")
    with pytest.raises(InvalidInputError, match="max_bytes must be a positive whole number"):
        Record.load(tmp_path / "r.json", max_bytes=limit)
