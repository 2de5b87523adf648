"""The result object: words, ranking, lossless saving, read-only data."""

import copy
import dataclasses
import json
import math
import pickle

import pytest
import torch

from hf_attn_mi import explain
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results import Explanation, Word
from tests.results.result_samples import explanation, layer_attention


def test_subwords_sum_into_a_word_cut_from_the_original_text():
    assert explanation().to_words() == (
        Word("Unbelievable", 0.75, 0, 12, 0, (1, 2)),
        Word("film", -0.125, 14, 18, 0, (3,)),
    )


def test_byte_level_tokens_with_leading_space_give_the_exact_slice():
    result = explanation(
        tokens=("<s>", "so", "Ġgo", "od", "</s>"),
        texts=("so good",),
        offsets=((0, 0), (0, 2), (2, 5), (5, 7), (0, 0)),
        word_ids=(None, 0, 1, 1, None),
    )
    assert [(word.text, word.start, word.end) for word in result.to_words()] == [("so", 0, 2), (" good", 2, 7)]


def test_signs_in_the_text_do_not_split_or_join_words():
    # "##a" and "Ġ" are what the user wrote here, each a word of its own by the tokenizer's numbering.
    result = explanation(
        tokens=("[CLS]", "b", "##a", "Ġ", "[SEP]"),
        texts=("b ##a Ġ",),
        offsets=((0, 0), (0, 1), (2, 5), (6, 7), (0, 0)),
        word_ids=(None, 0, 1, 2, None),
    )
    assert [word.text for word in result.to_words()] == ["b", "##a", "Ġ"]


def test_sentence_pair_keeps_equal_word_numbers_apart():
    result = explanation(
        tokens=("[CLS]", "yes", "[SEP]", "no", "[SEP]"),
        texts=("yes", "oh no"),
        offsets=((0, 0), (0, 3), (0, 0), (3, 5), (0, 0)),
        sequence_ids=(None, 0, None, 1, None),
        word_ids=(None, 0, None, 0, None),
        special=(True, False, True, False, True),
    )
    assert result.to_words() == (Word("yes", 0.25, 0, 3, 0, (1,)), Word("no", -0.125, 3, 5, 1, (3,)))
    html = result._repr_html_()
    assert "Text 1" in html
    assert "Text 2" in html


def test_emoji_split_into_bytes_is_one_word():
    result = explanation(
        tokens=("<s>", "ðŁ", "ĺ", "Ģ", "</s>"),
        texts=("😀",),
        offsets=((0, 0), (0, 1), (0, 1), (0, 1), (0, 0)),
        word_ids=(None, 0, 0, 0, None),
    )
    assert result.to_words() == (Word("😀", 0.625, 0, 1, 0, (1, 2, 3)),)


def test_without_word_ids_each_ordinary_token_is_a_word():
    assert [word.text for word in explanation(word_ids=None).to_words()] == ["Un", "believable", "film"]


def test_without_offsets_the_token_strings_are_the_text():
    assert explanation(**NO_TEXT).to_words()[1] == Word("##believable", 0.5, None, None, 0, (2,))
    assert explanation(offsets=None).to_words()[0].text == "un##believable"


def test_top_ranks_by_magnitude_or_one_sign():
    result = explanation()
    assert [word.text for word in result.top()] == ["Unbelievable", "film"]
    assert [word.text for word in result.top(1)] == ["Unbelievable"]
    assert [word.text for word in result.top(by="positive")] == ["Unbelievable"]
    assert [word.text for word in result.top(by="negative")] == ["film"]
    assert [word.text for word in result.top(words=False)] == ["believable", "Un", "film"]


def test_top_keeps_reading_order_for_equals_and_puts_nan_last():
    scores = torch.tensor([9.0, math.nan, -0.5, 0.5, 9.0])
    tops = explanation(scores=scores, word_ids=None).top()
    assert [word.tokens for word in tops] == [(2,), (3,), (1,)]
    assert [word.tokens for word in explanation(scores=scores, word_ids=None).top(by="positive")] == [(3,)]


@pytest.mark.parametrize(("options", "name"), [({"by": "best"}, "by"), ({"k": 0}, "k"), ({"k": 1.5}, "k")])
def test_top_refuses_unknown_options(options, name):
    with pytest.raises(InvalidInputError, match=f"^{name}"):
        explanation().top(**options)


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
        ({"texts": ("Unbelievable",)}, r"offsets\[3\] is \(14, 18\), outside of texts\[0\]"),
        ({"texts": ("Unbelievable  film!", "b"), "sequence_ids": None}, "sequence_ids is None for 2 texts"),
        ({"sequence_ids": (None, 0, 0, 1, None)}, r"sequence_ids\[3\] is 1"),
        ({"layers": (layer_attention(tokens=4),)}, r"layers\[0\].received has 4 tokens"),
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
        explanation(**changes)


@pytest.mark.parametrize(
    "name", ["rank", "null_space_fraction", "entropy", "received", "received_effective", "support_size"]
)
def test_a_wrong_layer_shape_is_named(name):
    layer = layer_attention()
    with pytest.raises(InvalidInputError, match=name):
        dataclasses.replace(layer, **{name: torch.zeros(2, 3, 4, dtype=torch.long)})
    if name != "rank":
        with pytest.raises(InvalidInputError, match=name):
            dataclasses.replace(layer, **{name: torch.zeros(3)})


# --- frozen, equal, lean


def test_nothing_can_be_changed():
    result = explanation()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.target = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.layers[0].n = 2
    with pytest.raises(TypeError):
        result.info["model"] = "x"
    with pytest.raises(TypeError):
        result.info["versions"]["torch"] = "x"
    assert result.info["warnings"] == ()


def test_tensors_are_own_copies_without_graph_or_larger_storage():
    matrix = torch.rand(5, 5, requires_grad=True)
    result = explanation(scores=matrix[0])
    assert not result.scores.requires_grad
    assert result.scores.untyped_storage().nbytes() == 5 * 4
    before = result.scores.clone()
    with torch.no_grad():
        matrix.zero_()
    assert torch.equal(result.scores, before)


def test_tokenizer_values_become_plain():
    result = explanation(special=torch.tensor([1, 0, 0, 0, 1]), offsets=[[0, 0], [0, 2], [2, 12], [14, 18], [0, 0]])
    assert result == explanation()
    assert all(type(item) is bool for item in result.special)
    assert type(explanation(probability=torch.tensor(0.75)).probability) is float
    assert type(explanation(target=torch.tensor(1)).target) is int


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": torch.tensor([0.5, 0.25, 0.5, -0.125, 2.0])},
        {"scores": torch.tensor([0.5, 0.25, 0.5, -0.125, 1.0], dtype=torch.float64)},
        {"target": None},
        {"layers": (layer_attention(),)},
        {"layers": (layer_attention(), layer_attention(layer=1))},
        {"info": {"model": "other"}},
        {"information": None},
        {"probability": math.nan},
    ],
)
def test_equality_is_by_data(changes):
    assert explanation() == explanation()
    assert explanation() != explanation(**changes)
    assert explanation(**changes) == explanation(**changes)
    assert explanation() != "text"
    with pytest.raises(TypeError):
        hash(explanation())


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
    result = explanation(**changes)
    data = result.to_dict()
    assert data["schema"] == 1
    again = Explanation.from_dict(json.loads(json.dumps(data, allow_nan=False)))
    assert again == result
    assert again.to_dict() == data


def test_float32_bits_survive():
    bits = torch.randint(-(2**31), 2**31 - 1, (2000,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    scores = bits.view(torch.float32)
    empty = {**NO_TEXT, "tokens": ("x",) * 2000, "special": (False,) * 2000, "scores": scores}
    again = Explanation.from_dict(json.loads(json.dumps(explanation(**empty).to_dict(), allow_nan=False)))
    number = ~scores.isnan()
    assert torch.equal(again.scores.view(torch.int32)[number], bits[number])
    assert torch.equal(again.scores.isnan(), ~number)


@pytest.mark.parametrize("copier", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("changes", [{}, HARD])
def test_copy_and_pickle(copier, changes):
    result = explanation(**changes)
    again = copier(result)
    assert again == result
    assert again is not result
    with pytest.raises(TypeError):
        again.info["model"] = "x"


def test_repr_is_short_and_str_has_no_escape_sequence():
    result = explanation()
    assert repr(result) == (
        "Explanation(target_name='positive', probability=0.75, tokens=5, layers=2, method='relevance')"
    )
    assert len(repr(result.layers[0])) < 100
    assert "\x1b" not in str(result)
    assert str(result) == result.to_text(color="none")
    assert "\x1b[" in result.to_text(color="256")
    assert str(result).splitlines()[:3] == [
        "positive (probability 0.75, method relevance, model m)",
        "  Unbelievable   +0.75  ++++++++++++++++++++",
        "  film          -0.125  ----",
    ]


def test_facts_say_what_can_be_known():
    assert "n = 5 tokens <= rank 5 in every head (head_dim 32): effective attention equals" in str(explanation())
    long = dataclasses.replace(layer_attention(n=100, rank=32), null_space_fraction=torch.tensor([0.5, 0.75]))
    text = str(explanation(layers=(long,), info={"warnings": ["slow"]}))
    assert "n = 100 tokens > rank in 2 of 2 heads (rank 32, head_dim 32)" in text
    assert "62.5% of the norm on average, 75.0% at most" in text
    assert "Completeness gap 1e-06" in text
    assert "Special tokens ([CLS] [SEP]) hold +1.5 in sum, not shown." in text
    assert "Warning: slow" in text
    assert "not measured" in str(explanation(completeness_gap=None))
    assert "do not add up to the output; only their order is meaningful" in str(
        explanation(completeness_gap=None, info={"additive": False})
    )


def test_only_a_class_linked_method_speaks_for_or_against_the_class():
    linked, other = explanation(), explanation(info={"class_linked": False})
    for form in (str, Explanation.to_html):
        assert "speaks for positive" in form(linked)
        assert "speaks for" not in form(other)
        assert "not evidence for or against positive" in form(other)
    assert "Positive scores are evidence for the class named above." in linked.to_html()


def test_layer_table_in_html():
    layer = dataclasses.replace(
        layer_attention(rank=4), null_space_fraction=torch.tensor([0.25, 0.75]), entropy=torch.ones(2)
    )
    html = explanation(layers=(layer,))._repr_html_()
    assert "<td>4</td><td>0.5, 0.75</td><td>1, 1 to 1</td>" in html
    assert "support" not in html
    assert "<th>support size (mean)</th>" in explanation()._repr_html_()


def test_gaps_words_and_loose_tokens_are_all_shown():
    html = explanation()._repr_html_()
    assert ">Unbelievable</span>  <span" in html
    assert "film</span>!</div>" in html
    assert "Text 1" not in html
    assert "film!" not in explanation(offsets=None)._repr_html_().replace("</span>", "")
    loose = explanation(**NO_TEXT)._repr_html_()
    assert ">un</span> <span" in loose


def test_the_gap_line_names_what_the_scores_add_up_to(demo):
    lines = {}
    for method in ("relevance", "integrated_gradients"):
        found = explain(demo[0], "A warm film.", tokenizer=demo[1], method=method, layers="none")
        lines[method] = next(line for line in found.to_text(color="none").splitlines() if "Completeness gap" in line)
    assert "the target's value and the sum of scores and bias terms" in lines["relevance"]
    assert "f(x) - f(baseline) and the sum of scores" in lines["integrated_gradients"]
