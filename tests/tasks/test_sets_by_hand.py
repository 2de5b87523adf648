"""Saved sets run again by code that shares nothing with the package: the JSON of a file and a hand-written BERT."""

import copy
import gzip
import json
from itertools import combinations

import pytest
import torch

from hf_attn_mi.results import AttentionSubgraph
from hf_attn_mi.tasks.minimal_attention import minimal_attention
from hf_attn_mi.tasks.recheck import recheck
from tests.sample_models import TEXTS, tiny_bert
from tests.tasks.masked_attention import Hand

KINDS = ("renormalized", "missing", "mean", "resample")
REFERENCE = "The cast is brilliant, the story is very funny in places, and the plot makes no sense, again and again."
CLOSE = 2e-5


class Saved:
    """A saved record as plain JSON, and the model by hand."""

    def __init__(self, model, record):
        self.model, self.record = model, record
        self.inputs = {name: torch.tensor(one["values"]) for name, one in record["inputs"].items()}
        self.reference = {name: torch.tensor(one["values"]) for name, one in record["reference"].items()}
        self.hands = {}
        everything = self.hand(record["removal"]).mask([], rest=True)
        self.whole = self.hand(record["removal"])(everything)
        self.edges = [(one["call"], one["head"], one["query"], one["key"]) for one in record["units"]]

    def hand(self, kind):
        if kind not in self.hands:
            self.hands[kind] = Hand(self.model, self.inputs, kind, self.reference or None)
        return self.hands[kind]

    def run(self, edges, kind=None, rest=False):
        """Probability of the class, and whether the prediction is kept."""
        hand = self.hand(kind or self.record["removal"])
        found = hand(hand.mask(edges, rest))
        return float(found[self.record["target"]]), bool(found.argmax() == self.whole.argmax())

    def carries(self, edges, kind=None):
        """Whether these edges suffice and the rest changes the prediction."""
        (p_set, same), (_, rest_same) = self.run(edges, kind), self.run(edges, kind, rest=True)
        return same and p_set >= self.record["keep"] * float(self.whole[self.record["target"]]) and not rest_same

    def check_set(self):
        """Every number of the set and of its single removals."""
        record, edges = self.record, self.edges
        assert record["strict"]
        assert int(self.whole.argmax()) == record["target"]
        assert float(self.whole[record["target"]]) == pytest.approx(record["p_all"], abs=CLOSE)
        assert self.run([])[0] == pytest.approx(record["p_none"], abs=CLOSE)
        p_rest, rest_same = self.run(edges, rest=True)
        assert [self.run(edges)[0], p_rest] == pytest.approx([record["p_set"], record["p_rest"]], abs=CLOSE)
        assert (record["rest_same"], rest_same) == (False, False)
        assert self.carries(edges)
        assert [one["unit"] for one in record["singles"]] == list(range(len(edges)))
        for one in record["singles"]:
            left = [edge for i, edge in enumerate(edges) if i != one["unit"]]
            (p_set, set_same), (p_rest, rest_same) = self.run(left), self.run(left, rest=True)
            assert [p_set, p_rest] == pytest.approx([one["p_set"], one["p_rest"]], abs=CLOSE)
            assert (set_same, rest_same) == (one["set_same"], one["rest_same"])
            short = not (set_same and p_set >= record["keep"] * record["p_all"])
            assert one["fails"] == {(True, True): "both", (True, False): "set", (False, True): "rest"}[short, rest_same]

    def check_removals(self):
        """The same set under the other kinds of removal."""
        for one in self.record["removals"]:
            kind = one["removal"]
            (p_set, set_same), (p_rest, rest_same) = self.run(self.edges, kind), self.run(self.edges, kind, rest=True)
            wanted = [one["p_set"], one["p_rest"], one["p_none"]]
            assert [p_set, p_rest, self.run([], kind)[0]] == pytest.approx(wanted, abs=CLOSE)
            assert (set_same, rest_same) == (one["set_same"], one["rest_same"])
            assert self.carries(self.edges, kind) == one["stands"]


def saved(subgraph, folder):
    """The record of a file, read without the package, and the record that the package reads."""
    subgraph.save(folder / "set.json.gz")
    with gzip.open(folder / "set.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file), AttentionSubgraph.load(folder / "set.json.gz")


@pytest.mark.parametrize(
    ("name", "text", "kind"), [*(("demo", 3, kind) for kind in KINDS), *(("tiny", 4, kind) for kind in KINDS[:2])]
)
def test_a_saved_set_of_each_kind_of_removal_holds_by_hand(name, text, kind, demo, tmp_path):
    model = tiny_bert() if name == "tiny" else copy.deepcopy(demo[0])
    others = tuple(other for other in KINDS if other != kind)
    found = minimal_attention(model, TEXTS[text], tokenizer=demo[1], removals=(kind, *others), reference=REFERENCE)
    assert found.holds
    record, again = saved(found, tmp_path)
    hand = Saved(model, record)
    hand.check_set()
    hand.check_removals()
    assert len(record["removals"]) == 3
    assert recheck(model, again).holds


def test_the_family_and_the_deeper_removals_of_a_saved_set_hold_by_hand(demo, tmp_path):
    model = tiny_bert()
    found = minimal_attention(model, TEXTS[3], tokenizer=demo[1], others=2, deeper=True)
    record, _ = saved(found, tmp_path)
    hand = Saved(model, record)
    first, second = record["family_members"]
    assert first["edges"] != second["edges"]
    for member in (first, second):
        places = [tuple(place) for place in member["edges"]]
        assert hand.carries(places)
        numbers = [hand.run(places)[0], hand.run(places, rest=True)[0]]
        assert numbers == pytest.approx([member["p_set"], member["p_rest"]], abs=CLOSE)
    taken = {*hand.edges, *map(tuple, first["edges"])}
    assert not taken & set(map(tuple, second["edges"]))  # found with all weights of the others forbidden
    assert second["forbidden"] == len(taken)
    pairs = list(combinations(range(len(hand.edges)), 2))
    free = sum(hand.carries([edge for i, edge in enumerate(hand.edges) if i not in pair]) for pair in pairs)
    deeper = record["deeper"]
    assert (deeper["pairs"], deeper["all_pairs"], deeper["free_pairs"]) == (len(pairs), True, free)


def test_the_hand_notices_a_number_or_a_weight_that_was_changed(demo, tmp_path):
    model = copy.deepcopy(demo[0])
    record, _ = saved(minimal_attention(model, TEXTS[3], tokenizer=demo[1], removals=KINDS[:2]), tmp_path)
    Saved(model, record).check_set()
    for name in ("p_set", "p_rest", "p_none"):
        with pytest.raises(AssertionError):
            Saved(model, {**record, name: record[name] + 1e-3}).check_set()
    with pytest.raises(AssertionError):
        Saved(model, {**record, "units": record["units"][1:], "singles": record["singles"][:-1]}).check_set()
    with pytest.raises(AssertionError):
        Saved(model, {**record, "removals": [{**record["removals"][0], "removal": "mean"}]}).check_removals()
