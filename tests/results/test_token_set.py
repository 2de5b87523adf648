"""A token set as data: saved, loaded, put into words."""

import gzip
import json
from dataclasses import replace

import pytest

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.token_set import Removal, Span, TokenSet

MADE = TokenSet(
    tokens=("[CLS]", "a", "joy", "[SEP]"),
    texts=("a joy",),
    special=(True, False, False, True),
    indices=(2,),
    spans=(Span("joy", 2, 5, 0, (2,)),),
    words=(Span("joy", 2, 5, 0, (2,)),),
    target=1,
    target_name="positive",
    p_all=0.95,
    p_set=0.94,
    p_rest=0.4,
    p_special=0.5,
    rest_same=False,
    singles=(Removal(2, "joy", 0.5, 0.95, True, True, "both"),),
    defined=True,
    minimal=True,
    keep=0.9,
    jaccard=1.0,
    second={"start": "random", "indices": [2]},
    info={"seconds": [0.25, 1.5]},
)


@pytest.mark.parametrize("name", ["set.json", "set.json.gz"])
def test_a_saved_set_comes_back(tmp_path, name):
    path = tmp_path / name
    MADE.save(path)
    assert TokenSet.load(path) == MADE
    content = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    assert json.loads(content) == MADE.to_dict()
    with pytest.raises(InvalidInputError, match="exists"):
        MADE.save(path)
    other = replace(MADE, p_all=0.96)
    other.save(path, overwrite=True)
    assert TokenSet.load(path) == other != MADE


def test_what_is_no_saved_set_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"must end in \.json"):
        MADE.save(tmp_path / "set.txt")
    with pytest.raises(InvalidInputError, match="does not exist"):
        MADE.save(tmp_path / "none" / "set.json")
    with pytest.raises(FileNotFoundError):
        TokenSet.load(tmp_path / "none.json")
    good = MADE.to_dict()
    spoilt_ones = (
        [],
        {**good, "kind": "hf_attn_mi.Certificate"},
        {**good, "schema": 2},
        {**good, "schema": True},
        {**good, "p_all": "much"},
        {**good, "indices": [0]},
        {**good, "spans": [{"text": "joy"}]},
        {name: value for name, value in good.items() if name != "keep"},
    )
    for number, spoilt in enumerate(spoilt_ones):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(spoilt))
        with pytest.raises(InvalidInputError, match=f"cannot load .*{number}.json"):
            TokenSet.load(path)


def test_entries_of_others_are_not_read():
    assert TokenSet.from_dict({**MADE.to_dict(), "check": {"holds": False}}) == MADE


def test_the_words_say_whether_a_second_start_found_the_same():
    assert "A second start found the same set (Jaccard index 1.00)." in MADE.to_words()
    assert "found another set: this is not the only one (Jaccard index 0.50)." in replace(MADE, jaccard=0.5).to_words()
    assert "second start" not in replace(MADE, jaccard=None).to_words()


def test_many_single_removals_are_counted_and_not_listed():
    fails = ["both"] * 12 + ["rest"] * 5 + ["set"] * 2
    singles = tuple(Removal(i + 1, f"w{i}", 0.5, 0.95, True, True, why) for i, why in enumerate(fails))
    tokens = ("[CLS]", *(one.text for one in singles), "rest", "[SEP]")
    many = replace(
        MADE, tokens=tokens, special=(True, *[False] * 20, True), indices=tuple(range(1, 20)), singles=singles
    )
    words = many.to_words()
    assert words.count("Without 'w") == 12
    assert "7 more were taken out one at a time: the rest is enough (5), the set does not suffice (2)." in words
    assert "more were taken out" not in MADE.to_words()
