"""The result object: words, ranking, lossless saving, read-only data."""

import copy
import dataclasses
import gzip
import json
import math
import pickle

import pytest
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.explanation import Explanation, LayerAttention, Word


def make_layer(heads=2, tokens=5, *, n=5, rank=5, support=None, layer=0):
    generator = torch.Generator().manual_seed(layer)
    return LayerAttention(
        layer=layer,
        name=f"bert.encoder.layer.{layer}.attention.self",
        n=n,
        head_dim=32,
        rank=torch.full((heads,), rank),
        difference=torch.rand(heads, generator=generator),
        entropy=torch.rand(heads, generator=generator),
        received=torch.rand(heads, tokens, generator=generator),
        received_effective=torch.randn(heads, tokens, generator=generator),
        support=support,
    )


def make(**changes):
    """Two pieces of one word, then another word, between special tokens."""
    values = {
        "tokens": ("[CLS]", "un", "##believable", "film", "[SEP]"),
        "scores": torch.tensor([0.5, 0.25, 0.5, -0.125, 1.0]),
        "target": 1,
        "target_name": "positive",
        "probability": 0.75,
        "texts": ("Unbelievable  film!",),
        "offsets": ((0, 0), (0, 2), (2, 12), (14, 18), (0, 0)),
        "sequence_ids": (None, 0, 0, 0, None),
        "word_ids": (None, 0, 0, 1, None),
        "special": (True, False, False, False, True),
        "layers": (make_layer(), make_layer(layer=1, support=torch.tensor([2.5, 3.0]))),
        "completeness_gap": 1e-6,
        "information": {"mi": [0.5, None]},
        "info": {"model": "m", "method": "relevance", "versions": {"torch": "2"}, "warnings": []},
    }
    return Explanation(**{**values, **changes})


def test_subwords_sum_into_a_word_cut_from_the_original_text():
    assert make().to_words() == (
        Word("Unbelievable", 0.75, 0, 12, 0, (1, 2)),
        Word("film", -0.125, 14, 18, 0, (3,)),
    )


def test_byte_level_tokens_with_leading_space_give_the_exact_slice():
    made = make(
        tokens=("<s>", "so", "Ġgo", "od", "</s>"),
        texts=("so good",),
        offsets=((0, 0), (0, 2), (2, 5), (5, 7), (0, 0)),
        word_ids=(None, 0, 1, 1, None),
    )
    assert [(word.text, word.start, word.end) for word in made.to_words()] == [("so", 0, 2), (" good", 2, 7)]


def test_signs_in_the_text_do_not_split_or_join_words():
    # "##a" and "Ġ" are what the user wrote here, each a word of its own by the tokenizer's numbering.
    made = make(
        tokens=("[CLS]", "b", "##a", "Ġ", "[SEP]"),
        texts=("b ##a Ġ",),
        offsets=((0, 0), (0, 1), (2, 5), (6, 7), (0, 0)),
        word_ids=(None, 0, 1, 2, None),
    )
    assert [word.text for word in made.to_words()] == ["b", "##a", "Ġ"]


def test_sentence_pair_keeps_equal_word_numbers_apart():
    made = make(
        tokens=("[CLS]", "yes", "[SEP]", "no", "[SEP]"),
        texts=("yes", "oh no"),
        offsets=((0, 0), (0, 3), (0, 0), (3, 5), (0, 0)),
        sequence_ids=(None, 0, None, 1, None),
        word_ids=(None, 0, None, 0, None),
        special=(True, False, True, False, True),
    )
    assert made.to_words() == (Word("yes", 0.25, 0, 3, 0, (1,)), Word("no", -0.125, 3, 5, 1, (3,)))
    html = made._repr_html_()
    assert "Text 1" in html
    assert "Text 2" in html


def test_emoji_split_into_bytes_is_one_word():
    made = make(
        tokens=("<s>", "ðŁ", "ĺ", "Ģ", "</s>"),
        texts=("😀",),
        offsets=((0, 0), (0, 1), (0, 1), (0, 1), (0, 0)),
        word_ids=(None, 0, 0, 0, None),
    )
    assert made.to_words() == (Word("😀", 0.625, 0, 1, 0, (1, 2, 3)),)


def test_without_word_ids_each_ordinary_token_is_a_word():
    assert [word.text for word in make(word_ids=None).to_words()] == ["Un", "believable", "film"]


def test_without_offsets_the_token_strings_are_the_text():
    assert make(**NO_TEXT).to_words()[1] == Word("##believable", 0.5, None, None, 0, (2,))
    assert make(offsets=None).to_words()[0].text == "un##believable"


def test_top_ranks_by_magnitude_or_one_sign():
    made = make()
    assert [word.text for word in made.top()] == ["Unbelievable", "film"]
    assert [word.text for word in made.top(1)] == ["Unbelievable"]
    assert [word.text for word in made.top(by="positive")] == ["Unbelievable"]
    assert [word.text for word in made.top(by="negative")] == ["film"]
    assert [word.text for word in made.top(words=False)] == ["believable", "Un", "film"]


def test_top_keeps_reading_order_for_equals_and_puts_nan_last():
    scores = torch.tensor([9.0, math.nan, -0.5, 0.5, 9.0])
    tops = make(scores=scores, word_ids=None).top()
    assert [word.tokens for word in tops] == [(2,), (3,), (1,)]
    assert [word.tokens for word in make(scores=scores, word_ids=None).top(by="positive")] == [(3,)]


@pytest.mark.parametrize(("options", "name"), [({"by": "best"}, "by"), ({"k": 0}, "k"), ({"k": 1.5}, "k")])
def test_top_refuses_unknown_options(options, name):
    with pytest.raises(InvalidInputError, match=f"^{name}"):
        make().top(**options)


# --- validation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": torch.zeros(4)}, "scores has 4 entries for 5 tokens"),
        ({"scores": torch.zeros(5, dtype=torch.long)}, "scores must be floats"),
        ({"scores": [0.0] * 5}, "scores must be a tensor"),
        ({"offsets": ((0, 0),)}, "offsets has 1 entries"),
        ({"sequence_ids": (0,)}, "sequence_ids has 1"),
        ({"word_ids": (0,)}, "word_ids has 1"),
        ({"special": ()}, "special has 0"),
        ({"tokens": (), "scores": torch.zeros(0)}, "tokens must not be empty"),
        ({"tokens": "abcde"}, "tokens must be a tuple"),
        ({"texts": None}, "texts must be a tuple"),
        ({"texts": ()}, "offsets need texts"),
        ({"texts": ("Unbelievable",)}, r"offsets\[3\] is \(14, 18\), outside of texts\[0\]"),
        ({"texts": ("Unbelievable  film!", "b"), "sequence_ids": None}, "sequence_ids is None for 2 texts"),
        ({"sequence_ids": (None, 0, 0, 1, None)}, r"sequence_ids\[3\] is 1"),
        ({"layers": (make_layer(tokens=4),)}, r"layers\[0\].received has 4 tokens"),
        ({"layers": ({},)}, r"layers\[0\] must be a LayerAttention"),
        ({"info": {"a": [torch.zeros(1)]}}, r"info\['a'\]\[0\] is a Tensor"),
        ({"target_name": None}, "target_name must be a string"),
        ({"info": None}, "info must be a dictionary"),
        ({"information": 0.5}, "information must be a dictionary"),
        ({"info": {1: 2}}, "info: key 1"),
        ({"information": {"__float__": "nan"}}, "information: key '__float__'"),
    ],
)
def test_a_wrong_field_is_named(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        make(**changes)


@pytest.mark.parametrize("name", ["rank", "difference", "entropy", "received", "received_effective", "support"])
def test_a_wrong_layer_shape_is_named(name):
    layer = make_layer()
    with pytest.raises(InvalidInputError, match=name):
        dataclasses.replace(layer, **{name: torch.zeros(2, 3, 4, dtype=torch.long)})
    if name != "rank":
        with pytest.raises(InvalidInputError, match=name):
            dataclasses.replace(layer, **{name: torch.zeros(3)})


# --- frozen, equal, lean


def test_nothing_can_be_changed():
    made = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.target = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.layers[0].n = 2
    with pytest.raises(TypeError):
        made.info["model"] = "x"
    with pytest.raises(TypeError):
        made.info["versions"]["torch"] = "x"
    assert made.info["warnings"] == ()


def test_tensors_are_own_copies_without_graph_or_larger_storage():
    matrix = torch.rand(5, 5, requires_grad=True)
    made = make(scores=matrix[0])
    assert not made.scores.requires_grad
    assert made.scores.untyped_storage().nbytes() == 5 * 4
    before = made.scores.clone()
    with torch.no_grad():
        matrix.zero_()
    assert torch.equal(made.scores, before)


def test_tokenizer_values_become_plain():
    made = make(special=torch.tensor([1, 0, 0, 0, 1]), offsets=[[0, 0], [0, 2], [2, 12], [14, 18], [0, 0]])
    assert made == make()
    assert all(type(item) is bool for item in made.special)
    assert type(make(probability=torch.tensor(0.75)).probability) is float
    assert type(make(target=torch.tensor(1)).target) is int


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": torch.tensor([0.5, 0.25, 0.5, -0.125, 2.0])},
        {"scores": torch.tensor([0.5, 0.25, 0.5, -0.125, 1.0], dtype=torch.float64)},
        {"target": None},
        {"layers": (make_layer(),)},
        {"layers": (make_layer(), make_layer(layer=1))},
        {"info": {"model": "other"}},
        {"information": None},
        {"probability": math.nan},
    ],
)
def test_equality_is_by_data(changes):
    assert make() == make()
    assert make() != make(**changes)
    assert make(**changes) == make(**changes)
    assert make() != "text"
    with pytest.raises(TypeError):
        hash(make())


HARD = {
    "scores": torch.tensor([math.nan, math.inf, -math.inf, 0.1, 1e-45]),
    "probability": math.nan,
    "completeness_gap": math.inf,
    "tokens": ("[CLS]", 'qu"ote', "\ud800", "עברית", "\x00"),
    "info": {"nested": ({"x": (1, 2.5, math.nan, None, True)},), "infinite": -math.inf},
    "target": None,
}
NO_TEXT = {"texts": (), "offsets": None, "sequence_ids": None, "word_ids": None, "information": None, "layers": ()}
CASES = [{}, HARD, NO_TEXT, {"scores": torch.tensor([0.1, 1 / 3, 2e-300, -0.0, 5.0], dtype=torch.float64)}]
CASES += [{"scores": torch.tensor([0.1, 1 / 3, 2.0, -0.0, 5.0], dtype=dtype)} for dtype in (torch.half, torch.bfloat16)]


@pytest.mark.parametrize("changes", CASES)
def test_strict_json_round_trip_is_lossless(changes):
    made = make(**changes)
    data = made.to_dict()
    assert data["schema"] == 1
    again = Explanation.from_dict(json.loads(json.dumps(data, allow_nan=False)))
    assert again == made
    assert again.to_dict() == data


def test_float32_bits_survive():
    bits = torch.randint(-(2**31), 2**31 - 1, (2000,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    scores = bits.view(torch.float32)
    empty = {**NO_TEXT, "tokens": ("x",) * 2000, "special": (False,) * 2000, "scores": scores}
    again = Explanation.from_dict(json.loads(json.dumps(make(**empty).to_dict(), allow_nan=False)))
    number = ~scores.isnan()
    assert torch.equal(again.scores.view(torch.int32)[number], bits[number])
    assert torch.equal(again.scores.isnan(), ~number)


@pytest.mark.parametrize("copier", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("changes", [{}, HARD])
def test_copy_and_pickle(copier, changes):
    made = make(**changes)
    again = copier(made)
    assert again == made
    assert again is not made
    with pytest.raises(TypeError):
        again.info["model"] = "x"


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_save_and_load(tmp_path, name):
    path = tmp_path / name
    make().save(path)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    assert Explanation.load(str(path)) == make()
    with pytest.raises(InvalidInputError, match="overwrite=True"):
        make(target=None).save(path)
    assert Explanation.load(path) == make()
    make(target=None).save(path, overwrite=True)
    assert Explanation.load(path).target is None


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    make().save(path)

    def fail(*_):
        raise OSError("disk")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk"):
        make(target=None).save(path, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    assert Explanation.load(path) == make()


@pytest.mark.parametrize(("name", "message"), [("a.txt", "json"), ("no/a.json", "folder"), ("", "json")])
def test_save_refuses_bad_paths(tmp_path, name, message):
    with pytest.raises(InvalidInputError, match=message):
        make().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "no saved explanation"),
        (b'{"schema": 1}', "no saved explanation"),
        (b'{"kind": "hf_attn_mi.Explanation", "schema": 2}', "schema 2"),
        (b'{"kind": "hf_attn_mi.Explanation", "schema": true}', "schema True"),
        (b'{"kind": "hf_attn_mi.Explanation", "schema": 1}', "scores"),
        (b'{"a": NaN}', "NaN is not strict JSON"),
        (b"{", "not a strict JSON file"),
        (b"\xff\xfe", "not a strict JSON file"),
        (gzip.compress(b"{}" * 100)[:-9], "not a strict JSON file"),
    ],
)
def test_load_refuses_what_is_not_ours(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        Explanation.load(path)


@pytest.mark.parametrize("name", [item.name for item in dataclasses.fields(Explanation)])
def test_from_dict_refuses_a_missing_or_broken_field(name):
    data = make().to_dict()
    without = {key: value for key, value in data.items() if key != name}
    with pytest.raises(InvalidInputError, match=name):
        Explanation.from_dict(without)
    if name != "target_name":
        with pytest.raises(InvalidInputError):
            Explanation.from_dict({**data, name: "broken"})
    for odd in ({"new_field": 1}, {"kind": "other"}):
        with pytest.raises(InvalidInputError, match="no saved explanation"):
            Explanation.from_dict({**data, **odd})


def test_repr_is_short_and_str_has_no_escape_sequence():
    made = make()
    assert repr(made) == (
        "Explanation(target_name='positive', probability=0.75, tokens=5, layers=2, method='relevance')"
    )
    assert len(repr(made.layers[0])) < 100
    assert "\x1b" not in str(made)
    assert str(made) == made.to_terminal(color=False)
    assert "\x1b[" in made.to_terminal(color=True)
    assert str(made).splitlines()[:3] == [
        "positive (probability 0.75, method relevance, model m)",
        "  Unbelievable   +0.75  ++++++++++++++++++++",
        "  film          -0.125  ----",
    ]


def test_facts_say_what_can_be_known():
    assert "n = 5 tokens <= rank 5 in every head (head_dim 32): effective attention equals" in str(make())
    long = dataclasses.replace(make_layer(n=100, rank=32), difference=torch.tensor([0.5, 0.75]))
    text = str(make(layers=(long,), info={"warnings": ["slow"]}))
    assert "n = 100 tokens > rank in 2 of 2 heads (rank 32, head_dim 32)" in text
    assert "62.5% of the norm on average, 75.0% at most" in text
    assert "Completeness gap 1e-06" in text
    assert "Special tokens ([CLS] [SEP]) hold +1.5 in sum, not shown." in text
    assert "Warning: slow" in text
    assert "not measured" in str(make(completeness_gap=None))


def test_layer_table_in_html():
    layer = dataclasses.replace(make_layer(rank=4), difference=torch.tensor([0.25, 0.75]), entropy=torch.ones(2))
    html = make(layers=(layer,))._repr_html_()
    assert "<td>4</td><td>0.5, 0.75</td><td>1, 1 to 1</td>" in html
    assert "support" not in html
    assert "<th>support (mean)</th>" in make()._repr_html_()


def test_gaps_words_and_loose_tokens_are_all_shown():
    html = make()._repr_html_()
    assert ">Unbelievable</span>  <span" in html
    assert "film</span>!</div>" in html
    assert "Text 1" not in html
    assert "film!" not in make(offsets=None)._repr_html_().replace("</span>", "")
    loose = make(**NO_TEXT)._repr_html_()
    assert ">un</span> <span" in loose
