"""A token set in words."""

from dataclasses import replace

import pytest

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results import Removal
from tests.results.result_samples import subgraph, token_set

TOKENS = token_set()


def test_the_text_says_whether_a_second_ranking_gives_the_same():
    assert "A second ranking gives the same set (Jaccard index 1.00)." in TOKENS.to_text(color="none")
    assert "gives another set: this is not the only one (Jaccard index 0.50)." in replace(TOKENS, jaccard=0.5).to_text(
        color="none"
    )
    assert "second ranking" not in replace(TOKENS, jaccard=None).to_text(color="none")


def test_one_token_determines_and_several_determine():
    assert "1 of 2 tokens determines 'positive' (holds: locally minimal): 'joy'." in TOKENS.to_text(color="none")
    assert (
        "1 of 64 attention weights carries 'positive' (" in subgraph(units=subgraph().units[:1], singles=()).to_text()
    )
    alone = subgraph(units=subgraph().units[:1], singles=subgraph().singles[:1]).to_text()
    assert "It lies in layer 0, head 1, query <- key: 'a' <- 'joy'." in alone
    assert "Without it: the set no longer suffices." in alone
    assert "2 of 64 attention weights carry 'positive' (" in subgraph().to_text()


def test_many_single_removals_are_counted_and_not_listed():
    fails = ["both"] * 12 + ["rest"] * 5 + ["set"] * 2
    numbers = {"both": (0.5, 0.95), "rest": (0.9, 0.95), "set": (0.5, 0.4)}
    singles = tuple(Removal(i + 1, f"w{i}", *numbers[why], True, True, why) for i, why in enumerate(fails))
    tokens = ("[CLS]", *(one.text for one in singles), "rest", "[SEP]")
    many = replace(
        TOKENS, tokens=tokens, special=(True, *[False] * 20, True), indices=tuple(range(1, 20)), singles=singles
    )
    words = many.to_text(color="none")
    assert words.count("Without 'w") == 12
    assert "7 more were removed one at a time: the rest suffices (5), the set does not suffice (2)." in words
    assert "more were removed" not in TOKENS.to_text(color="none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p_set": 0.2}, r"p_set is 0\.2, less than keep \* p_all"),
        ({"p_rest": 0.94, "rest_same": True}, r"p_rest is 0\.94 and rest_same is true"),
        ({"singles": (Removal(2, "joy", 0.94, 0.4, True, False, "both"),)}, "fails is 'both', which its probabilities"),
        ({"indices": (0,)}, r"indices \(0,\) must be of tokens that are not special"),
        ({"special": (True,)}, "special has 1 entries for 4 tokens"),
        ({"singles": (Removal(2, "joy", 0.5, 0.95, True, True, "none"),)}, "fails is one of"),
    ],
)
def test_what_cannot_be_a_set_is_refused(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        token_set(**changes)
