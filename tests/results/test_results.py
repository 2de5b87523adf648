"""`Results`: a sequence that saves, shows and slices."""

import copy
import json
import pickle

import pytest

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results import Results
from tests.results.result_samples import SAMPLES, explanation, token_set

ITEMS = [explanation(), explanation(target=0, target_name="negative"), explanation(texts=("Unbelievable  film?",))]
RESULTS = Results(ITEMS)


def test_it_is_a_sequence():
    assert len(RESULTS) == 3
    assert RESULTS[1] is ITEMS[1]
    assert RESULTS[-1] is ITEMS[2]
    assert list(RESULTS) == ITEMS
    assert ITEMS[1] in RESULTS
    assert RESULTS.index(ITEMS[1]) == 1
    assert list(reversed(RESULTS)) == ITEMS[::-1]
    part = RESULTS[1:]
    assert isinstance(part, Results)
    assert list(part) == ITEMS[1:]
    with pytest.raises(IndexError):
        RESULTS[3]
    with pytest.raises(TypeError):
        RESULTS[0] = ITEMS[0]


def test_equality_with_results_and_lists():
    assert RESULTS == Results(ITEMS) == ITEMS
    assert ITEMS == RESULTS
    assert tuple(ITEMS) == RESULTS
    assert RESULTS[:2] != RESULTS
    assert [*ITEMS[:2], explanation(target=None)] != RESULTS
    assert Results([]) == []
    assert RESULTS != "text"
    assert copy.deepcopy(RESULTS) == RESULTS == pickle.loads(pickle.dumps(RESULTS))


@pytest.mark.parametrize("items", [[explanation(), token_set()], [1], [explanation(), None]])
def test_other_items_are_refused(items):
    with pytest.raises(InvalidInputError, match=rf"items\[{len(items) - 1}\] is a"):
        Results(items)


def test_repr_is_short():
    assert repr(RESULTS).startswith("Results(3 x Explanation: [Explanation(")
    assert repr(Results([])) == "Results([])"
    assert repr(Results(ITEMS * 5)).endswith(", ...])")


def test_text_and_pages_hold_every_result():
    text = str(RESULTS)
    assert text == RESULTS.to_text(color="none")
    assert text.count("Completeness gap") == 3
    assert text.splitlines()[0] == "Unbelievable film!"  # each below its text
    assert RESULTS[:1].to_text(color="none") == str(ITEMS[0])
    assert "\x1b[" in RESULTS.to_text(color="256")
    page = RESULTS.to_html("Three <reviews>")
    assert page.count("<section") == 3
    assert page.count("<style>") == 1
    assert page.count("Three &lt;reviews&gt;") == 2
    assert "Explanation: m" in RESULTS.to_html()
    assert RESULTS._repr_html_().count("<style>") == 1
    assert RESULTS._repr_html_().count("<section") == 3
    assert "No results" in Results([]).to_html()


def test_results_that_do_not_show_their_texts_stand_below_them():
    for form in ("_repr_html_", "to_html"):
        sets = getattr(Results([token_set(texts=("a <b> joy",)), token_set()]), form)()
        first, second = (sets.index(f'<p class="m">{text}</p>') for text in ("a &lt;b&gt; joy", "a joy"))
        assert first < sets.index("determines") < second
        assert '<p class="m">a joy</p>' not in getattr(Results([token_set()]), form)()
        assert '<p class="m">Unbelievable' not in getattr(RESULTS, form)()


def test_texts_above_results_cannot_steer_the_terminal():
    results = Results([token_set(texts=("a\033[31m\nb " + "x" * 500,)), token_set()])
    first = results.to_text(color="none").splitlines()[0]
    assert "\x1b" not in str(results)
    assert len(first) < 320
    assert first.endswith(" ...")


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz", "a.jsonl.gz"])
def test_save_and_load(tmp_path, kind, name):
    results, path = Results([SAMPLES[kind]] * 2), tmp_path / name
    results.save(path)
    assert Results.load(str(path)) == results
    assert [file.name for file in tmp_path.iterdir()] == [name]
    with pytest.raises(InvalidInputError, match="overwrite=True"):
        results.save(path)
    results[:1].save(path, overwrite=True)
    assert len(Results.load(path)) == 1


def test_json_lines_have_a_line_for_each_result(tmp_path):
    RESULTS.save(tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == RESULTS.to_dicts()
    RESULTS.save(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == RESULTS.to_dicts()
    with pytest.raises(InvalidInputError, match=r"must end in \.json, \.jsonl"):
        RESULTS.save(tmp_path / "a.txt")
    Results([]).save(tmp_path / "empty.jsonl")
    assert Results.load(tmp_path / "empty.jsonl") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "holds no list of results"),
        ("[1]", "result 0: data is not a saved result"),
        ("[", "not a strict JSON file"),
        ('[{"type": "hf_attn_mi.Explanation", "schema": 2}]', "result 0: data has schema 2"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InvalidInputError, match=f"a.json.*{message}"):
        Results.load(tmp_path / "a.json")
    mixed = [explanation().to_dict(), token_set().to_dict()]
    (tmp_path / "b.json").write_text(json.dumps(mixed))
    with pytest.raises(InvalidInputError, match=r"items\[1\] is a TokenSet"):
        Results.load(tmp_path / "b.json")


def test_pandas_numbers_the_inputs():
    table = RESULTS.to_pandas()
    assert table["input"].tolist() == [place for place in range(3) for _ in range(5)]
    assert table.columns[0] == "input"
    assert table["token"].tolist() == list(ITEMS[0].tokens) * 3
    assert table.index.tolist() == list(range(15))
    assert len(Results([]).to_pandas()) == 0
