"""The third search for an order of the tokens: its references are the package's methods, its texts are new ones."""

import random

import pytest
import torch

from benchmarks.studies.faithfulness import data
from benchmarks.studies.faithfulness import further_search as search
from hf_attn_mi import explain

TEXT = "The plot is thin and the jokes are old, but the two leads are a joy to watch, and nobody will mind the end."


@pytest.fixture(scope="module")
def passes(demo):
    model, tokenizer = demo[0], demo[1]
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"][0]
    target = int(model(input_ids=ids[None]).logits[0].argmax())
    return search.Passes(model, ids, target, list(range(1, len(ids) - 1)))


@pytest.mark.parametrize("method", ["relevance", "attnlrp", "attnlrp_iterative"])
def test_the_references_order_tokens_as_the_package_does(demo, passes, method):
    scores = explain(demo[0], TEXT, tokenizer=demo[1], method=method).scores
    assert search.CANDIDATES[method][1](passes) == search.descending(scores, passes.tokens)


def test_every_candidate_orders_all_tokens_within_its_passes(demo, passes):
    for name, (allowed, order) in search.CANDIDATES.items():
        fresh = search.Passes(passes.model, passes.ids, passes.target, passes.tokens)
        assert sorted(order(fresh)) == passes.tokens, name
        assert len(fresh._known) == allowed, name


def test_a_masked_token_is_not_read(passes):
    """The scores without a token are those of a text in which its key is hidden, and its own score is zero."""
    gone = passes.tokens[3]
    mask = torch.ones(1, len(passes.ids), dtype=torch.long)
    mask[0, gone] = 0
    with torch.no_grad():
        logits = passes.model(input_ids=passes.ids[None], attention_mask=mask).logits[0]
    hidden = torch.zeros(len(passes.ids))
    hidden[gone] = float("-inf")
    trace = search.run(passes.model, passes.ids, search.RULES["attnlrp"], change_scores=lambda s: s + hidden)
    assert torch.allclose(trace.logits[0], logits, atol=1e-5)
    assert float(passes("attnlrp", [gone])[gone]) == 0.0


@pytest.mark.parametrize("name", list(search.MODEL_OF))
def test_texts_of_the_confirmation_were_not_drawn_before(monkeypatch, name):
    texts = [f"text {number}" for number in range(1000)]
    monkeypatch.setattr(search, "texts_of", lambda *_: texts)
    study, first = set(data.sample(texts, 200)), set(random.Random(0).sample(texts, 200))
    left = [text for text in texts if text not in study | first]
    second = set(random.Random(0).sample(left, search.EARLIER[name]))
    fresh = search.fresh_texts(name)
    assert len(set(fresh)) == search.CONFIRMATION[name]
    assert not set(fresh) & (study | first | second)


def test_differences_are_to_the_better_side_and_by_text():
    def row(name, comp, suff):
        values = {"comprehensiveness": comp, "sufficiency": suff}
        return {"stage": search.STAGES[0], "name": name, "data": "sst2", "passes": 1, "values": values}

    rows = [
        row("attnlrp_iterative", [0.5, 0.3], [0.2, 0.1]),
        row("attnlrp", [0.4, 0.2], [0.1, 0.0]),
        row("other", [0.6, 0.35], [0.05, -0.05]),
    ]
    lines = [line.split(" | ") for line in search.tables(rows).splitlines()]
    found = {cells[0].strip("| "): [cell.split(" ")[0] for cell in cells[2:]] for cells in lines if len(cells) > 3}
    assert found["other"][:2] == ["+0.075", "+0.050"]
    assert found["attnlrp"][:2] == ["-0.100", "0.050"]
    assert found["attnlrp_iterative"][:2] == ["0.400", "-0.100"]
