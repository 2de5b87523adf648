"""`minimal_tokens`: the search against brute force over all subsets, the certificate against plain forward passes."""

import json
import math
import pickle
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from transformers import RobertaConfig, RobertaForSequenceClassification

from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.removal_predictor import RemovalPredictor, masked, tokens_alone
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target
from hf_attn_mi.results.token_set import TokenSet
from hf_attn_mi.tasks.explain import explain
from hf_attn_mi.tasks.minimal_tokens import RestrictedInputs, minimal_tokens
from hf_attn_mi.tasks.recheck import recheck
from hf_attn_mi.tasks.spans import spans_of
from hf_attn_mi.tasks.token_search import SearchState, run_together, search
from tests.sample_models import SIZES, TEXTS, reads_its_padding, state_of, tiny_bert
from tests.zoo.building import rescale

MANY = [
    *TEXTS,
    "The acting is fine, the script is not.",
    "I laughed twice, both times at the wrong place.",
    "A tender, honest story with a wonderful lead.",
    "It is neither good nor bad.",
    "Boring from start to finish, and far too long.",
    "What a waste of a great cast!",
    "Charming, clever and warm; the best surprise of the season.",
]


# --- the search on functions of sets ------------------------------------------------------------------------------


def subsets(tokens):
    return [frozenset(some) for size in range(len(tokens) + 1) for some in combinations(sorted(tokens), size)]


def qualifies(table, tokens, everything, keep, strict):
    """The definition, written without the package: the set suffices, the rest does not."""

    def suffices(some):
        probability, same = table[some]
        return same and probability >= keep * table[everything][0]

    rest = everything - tokens
    return suffices(tokens) and not (table[rest][1] if strict else suffices(rest))


def minimal_sets(table, everything, keep, strict):
    """All sets that qualify and do not without any single token, by brute force."""
    good = {some for some in subsets(everything) if qualifies(table, some, everything, keep, strict)}
    return {some for some in good if not any(some - {token} in good for token in some)}, good


def made(kind, size, seed):
    """A table from every subset to (probability, prediction kept); all tokens always keep it."""
    generator = torch.Generator().manual_seed(seed)
    everything = frozenset(range(size))
    weights = torch.rand(size, generator=generator).tolist()
    table = {}
    for some in subsets(everything):
        if kind == "sum":  # monotone: saturating sum of positive weights
            probability = 0.95 * math.tanh(3 * sum(weights[i] for i in some)) / math.tanh(3 * sum(weights))
        elif kind == "mixed":  # weights of both signs: not monotone
            total = sum((weights[i] - 0.35) * (2 if i % 2 else 1) for i in some)
            probability = 1 / (1 + math.exp(-4 * total))
        else:  # "any": no structure at all
            probability = float(torch.rand((), generator=generator))
        same = probability > 0.5 if kind != "any" else bool(torch.rand((), generator=generator) > 0.4)
        table[some] = (probability, same)
    table[everything] = (max(0.6, table[everything][0]), True)
    return table


def searched(table, order, keep=0.9, strict=False, budget=math.inf):
    everything = frozenset(order)
    asked = []

    def oracle(sets):
        asked.extend(some for _, some in sets)
        return [table[some] for _, some in sets]

    ledger = SearchState(
        everything, keep, strict, lambda size: size / len(order), budget, {everything: table[everything]}, 1.0, 1
    )
    return run_together([search(order, ledger)], oracle)[0], ledger, asked


def shuffled(size, seed):
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", ["sum", "mixed", "any"])
def test_every_result_is_a_minimal_set_of_brute_force(kind, strict):
    defined = 0
    for seed in range(60):
        size = 1 + seed % 9
        table, order = made(kind, size, seed), shuffled(size, seed + 1)
        everything = frozenset(order)
        minimal, good = minimal_sets(table, everything, 0.9, strict)
        found, ledger, asked = searched(table, order, strict=strict)
        if everything not in good:  # exactly where the empty set already gives the answer
            assert found.kept is None
            continue
        defined += 1
        assert found.minimal
        assert frozenset(found.kept) in minimal
        assert all(ledger.knows(frozenset(found.kept) - {token}) for token in found.kept)  # the certificate is there
        assert len(asked) == len(set(asked)) == ledger.sequences - 1  # no set is run twice
        assert ledger.spent == pytest.approx(1 + sum(map(len, asked)) / size)
        if kind == "sum":  # monotone: minimal under single removals is minimal over all proper subsets
            assert not any(some < frozenset(found.kept) for some in good)
    assert defined >= 15


def test_sets_known_in_closed_form():
    everything = frozenset(range(10))
    votes = {some: (len(some) / 10, True) for some in subsets(everything)}
    # 6 of 10 suffice at keep 0.6 and leave 4, which do not; 5 do not suffice. Every minimal set has 6 tokens.
    assert len(searched(votes, shuffled(10, 0), keep=0.6)[0].kept) == 6
    # At keep 0.3, 3 suffice, but so does a rest of 7: the rest falls short at 2, so 8 are needed.
    assert len(searched(votes, shuffled(10, 0), keep=0.3)[0].kept) == 8
    either = {some: (0.9, True) if some & {3, 7} else (0.2, False) for some in subsets(everything)}
    assert sorted(searched(either, shuffled(10, 1))[0].kept) == [3, 7]  # one-sided, either alone would do
    both = {some: (0.9, True) if some >= {3, 7} else (0.2, False) for some in subsets(everything)}
    for seed in range(5):  # the rest fails without one of them, and that is why the set must hold both to suffice
        assert sorted(searched(both, shuffled(10, seed))[0].kept) == [3, 7]
    default = dict.fromkeys(subsets(everything), (0.9, True))
    assert searched(default, shuffled(10, 2))[0].kept is None
    needed = {some: (0.9, True) if some == everything else (0.2, False) for some in subsets(everything)}
    assert sorted(searched(needed, shuffled(10, 3))[0].kept) == sorted(everything)


def test_where_bisection_is_misled_the_answer_is_still_a_minimal_set():
    everything = frozenset(range(9))
    order = list(range(9))
    # Prefixes of 2 and of 7 to 9 tokens qualify, those of 3 to 6 do not: the middle of the search says "longer".
    table = dict.fromkeys(subsets(everything), (0.2, False))
    for length in (2, 7, 8, 9):
        table[frozenset(range(length))] = (0.9, True)
    found, _, _ = searched(table, order)
    assert found.minimal
    assert frozenset(found.kept) in minimal_sets(table, everything, 0.9, False)[0]
    assert len(found.kept) == 7  # not the least: {0, 1} qualifies too, and nothing says otherwise


@pytest.mark.parametrize("kind", ["mixed", "any"])
def test_the_budget_is_kept_and_what_it_buys_qualifies(kind):
    ended = 0
    for seed in range(20):
        table, order = made(kind, 9, seed), shuffled(9, seed)
        everything = frozenset(order)
        minimal, good = minimal_sets(table, everything, 0.9, False)
        for budget in (2, 3, 5, 8, 13, 21):
            found, ledger, _ = searched(table, order, budget=budget)
            assert ledger.spent <= budget
            if found.kept is not None:
                assert frozenset(found.kept) in (minimal if found.minimal else good)
                ended += not found.minimal
    assert ended >= 20


def test_searches_side_by_side_find_what_each_finds_alone():
    tables = [made("mixed", 3 + seed % 6, seed) for seed in range(12)]
    orders = [shuffled(3 + seed % 6, seed) for seed in range(12)]
    alone = [searched(table, order)[0] for table, order in zip(tables, orders)]
    calls = []

    def oracle(sets):
        calls.append(len(sets))
        return [tables[number][some] for number, some in sets]

    ledgers = [
        SearchState(frozenset(o), 0.9, False, float, math.inf, {frozenset(o): t[frozenset(o)]})
        for t, o in zip(tables, orders)
    ]
    assert run_together([search(o, ledger) for o, ledger in zip(orders, ledgers)], oracle) == alone
    assert len(calls) <= max(len(searched(t, o)[2]) for t, o in zip(tables, orders)) < sum(calls)


# --- the certificate against plain forward passes -----------------------------------------------------------------


def plain(model, tokenizer, text, kept):
    """(classes,) probabilities of the whole text with all but these tokens masked, by the model itself."""
    parts = (text,) if isinstance(text, str) else text
    encoded = tokenizer(*parts, return_tensors="pt", return_special_tokens_mask=True)
    stays = encoded.pop("special_tokens_mask")[0].clone()
    stays[list(kept)] = 1
    encoded["attention_mask"] = stays[None]
    with torch.no_grad():
        return model(**encoded).logits[0].double().softmax(0)


def confirm(model, tokenizer, text, one):
    """Every number and every condition of a token set, by the definition."""
    own = [i for i, special in enumerate(one.special) if not special]
    whole = plain(model, tokenizer, text, own)
    c, winner = one.target, int(whole.argmax())

    def near(found, kept):
        assert found == pytest.approx(float(plain(model, tokenizer, text, kept)[c]), abs=1e-5)

    def suffices(kept):
        seen = plain(model, tokenizer, text, kept)
        return int(seen.argmax()) == winner and float(seen[c]) >= one.keep * float(whole[c])

    def enough(kept):
        return int(plain(model, tokenizer, text, kept).argmax()) == winner if one.strict else suffices(kept)

    near(one.p_all, own)
    near(one.p_special, [])
    if not one.defined:
        assert enough([])
        assert one.indices == ()
        return
    chosen = set(one.indices)
    rest = set(own) - chosen
    near(one.p_set, chosen)
    near(one.p_rest, rest)
    assert suffices(chosen)
    assert not enough(rest)
    assert not enough([])
    if one.minimal:
        assert [removal.index for removal in one.singles] == list(one.indices)
    for removal in one.singles:
        left = chosen - {removal.index}
        near(removal.p_set, left)
        near(removal.p_rest, set(own) - left)
        short, reached = not suffices(left), enough(set(own) - left)
        assert removal.fails == {(1, 1): "both", (1, 0): "set", (0, 1): "rest", (0, 0): ""}[short, reached]
        assert removal.fails or not one.minimal


@pytest.fixture(scope="module")
def many(demo):
    return minimal_tokens(demo[0], MANY, tokenizer=demo[1])


def test_every_certificate_is_confirmed_by_plain_forwards(demo, many):
    assert sum(one.defined for one in many) >= 8
    for text, one in zip(MANY, many):
        assert one.minimal == one.defined
        assert one.info["token_dropping"]
        confirm(*demo, text, one)


def test_strict_sets_change_the_class(demo):
    found = minimal_tokens(demo[0], MANY, tokenizer=demo[1], strict=True, second_ranking=None)
    assert 3 <= sum(one.defined for one in found) < len(MANY)
    for text, one in zip(MANY, found):
        confirm(*demo, text, one)
        assert one.rest_same is (False if one.defined else None)
        assert one.jaccard is None


@pytest.mark.parametrize("start", ["attention", "random", "reversed"])
def test_sets_from_other_starts_are_confirmed(demo, many, start):
    texts = MANY[2:5]
    scores = [torch.arange(len(one.tokens)).float() for one in many[2:5]] if start == "reversed" else start
    for text, one in zip(
        texts, minimal_tokens(demo[0], texts, tokenizer=demo[1], ranking=scores, seed=3, second_ranking=None)
    ):
        confirm(*demo, text, one)
        assert one.minimal


def test_the_start_ranks_the_tokens(demo):
    text = MANY[2]  # 20 tokens, of which one is enough
    scores = explain(demo[0], text, tokenizer=demo[1]).scores
    wanted = minimal_tokens(demo[0], text, tokenizer=demo[1], second_ranking=None)
    same, turned = [
        minimal_tokens(demo[0], text, tokenizer=demo[1], ranking=s, second_ranking=None) for s in (scores, -scores)
    ]
    assert (same.indices, same.sequences) == (wanted.indices, wanted.sequences)
    assert same.sequences < turned.sequences
    confirm(*demo, text, turned)


def test_the_jaccard_index_is_that_of_the_two_sets(demo, many):
    for text, one in zip(MANY[2:5], many[2:5]):
        again = minimal_tokens(demo[0], text, tokenizer=demo[1], ranking="random", seed=1, second_ranking=None)
        assert one.second_ranking["indices"] == again.indices
        assert one.jaccard == len({*one.indices} & {*again.indices}) / len({*one.indices} | {*again.indices})
        assert one.second_ranking["forwards"] == pytest.approx(again.forwards)
        assert one.second_ranking["sequences"] == again.sequences
    assert len({one.jaccard for one in many}) > 2


def test_pairs_and_a_named_class(demo):
    pair = ("The film was long.", "Nobody liked it much.")
    one = minimal_tokens(demo[0], pair, tokenizer=demo[1])
    confirm(*demo, pair, one)
    assert all(span.text == pair[span.sequence][span.start : span.end] for span in one.spans)
    other = minimal_tokens(demo[0], MANY[2], tokenizer=demo[1], target="negative")
    assert (other.target, other.target_name) == (0, "negative")
    confirm(*demo, MANY[2], other)  # the class explained is not the one predicted


def test_order_and_size_of_batches_do_not_matter(demo, many):
    turned = minimal_tokens(demo[0], MANY[::-1], tokenizer=demo[1], batch_size=5)[::-1]
    alone = [minimal_tokens(demo[0], text, tokenizer=demo[1], batch_size=1) for text in MANY[:4]]
    for one, other in [*zip(many, turned), *zip(many, alone)]:
        assert one.indices == other.indices
        assert one.jaccard == other.jaccard
        assert (one.sequences, one.forwards) == (other.sequences, pytest.approx(other.forwards))
        assert one.p_all == pytest.approx(other.p_all, abs=1e-6)


def test_a_small_budget_is_said(demo, many):
    for text, one in zip(MANY[3:5], many[3:5]):
        short = minimal_tokens(demo[0], text, tokenizer=demo[1], budget=3)
        assert short.forwards <= 3
        assert short.second_ranking["forwards"] <= 3
        confirm(*demo, text, short)  # what is returned still suffices and its rest does not
        assert short.minimal == (one.forwards <= 3)
    short = minimal_tokens(demo[0], MANY[4], tokenizer=demo[1], budget=3)
    assert not short.minimal
    assert "budget of 3 forward passes" in short.reason
    assert "not shown to be minimal" in str(short)


def test_the_cost_counts_kept_tokens(demo):
    one = minimal_tokens(demo[0], "dull", tokenizer=demo[1], second_ranking=None)
    # All tokens (3 of 3) and the special ones alone (2 of 3); without the only token nothing else is left to run.
    assert (one.sequences, one.forwards) == (2, pytest.approx(5 / 3))
    assert (one.indices, one.minimal, one.singles[0].fails) == ((1,), True, "both")


def test_default_class(demo):
    one = minimal_tokens(demo[0], TEXTS[0], tokenizer=demo[1], keep=0.5)
    alone = plain(*demo, TEXTS[0], [])
    assert float(alone[1]) >= 0.5 * one.p_all  # the reason, computed here
    assert (one.defined, one.indices, one.singles, one.p_set, one.jaccard) == (False, (), (), None, None)
    assert one.p_special == pytest.approx(float(alone[1]), abs=1e-6)
    assert one.reason.startswith("Default class")
    assert "Masking every token changed nothing" not in one.reason
    assert recheck(demo[0], one).holds


def test_a_model_that_ignores_its_mask_is_noticed(fresh):
    model, tokenizer = fresh
    run = model.bert.forward
    model.bert.forward = lambda *args, attention_mask=None, **rest: run(*args, **rest)
    one = minimal_tokens(model, [TEXTS[0]], tokenizer=tokenizer)[0]
    assert not one.defined
    assert "does this model read attention_mask" in one.reason


# --- token dropping -----------------------------------------------------------------------------------------------


def bare(ids, special):
    tensors, names = {"input_ids": torch.tensor(ids)}, tuple(map(str, ids))
    return EncodedInput(tensors=tensors, length=len(ids), special=special, tokens=names)


def an_example(n=40, seed=0):
    ids = torch.randint(5, 1000, (n,), generator=torch.Generator().manual_seed(seed)).tolist()
    return bare(ids, (True, *[False] * (n - 2), True))


def run_on(model, example):
    tensors = {key: value[None] for key, value in example.tensors.items()}
    with torch.no_grad():
        return model(**tensors).logits[0]


def restricted(model, examples, classes):
    """The model on some tokens of these inputs, for these classes."""
    runner = EncoderRunner(model)
    return RestrictedInputs(RemovalPredictor(runner, examples, Target(classes, model), 4))


def roberta():
    torch.manual_seed(0)
    model = RobertaForSequenceClassification(RobertaConfig(**SIZES, intermediate_size=64, max_position_embeddings=80))
    rescale(model)
    return model.eval()


@pytest.mark.parametrize(("kind", "offset"), [("demo", 0), ("bert", 0), ("roberta", 2)])
def test_token_dropping_is_masking(demo, kind, offset):
    model = {"demo": lambda: demo[0], "bert": tiny_bert, "roberta": roberta}[kind]()
    example = an_example()
    runs = restricted(model, [example, an_example(23, 1)], [1, 1])
    assert (runs.predictor.position_offset, runs.predictor.mixed, runs.cost(0, 2)) == (offset, True, 4 / 40)
    for kept in ([0, 3, 17, 39], [0, 39], [0, *range(2, 38, 3), 39], list(range(40))):
        want = run_on(model, masked(example, kept))
        assert torch.allclose(run_on(model, tokens_alone(example, kept, offset)), want, rtol=0, atol=1e-5)
        if 3 in kept and kind != "demo":  # and the positions are what makes them equal
            assert not torch.allclose(run_on(model, tokens_alone(example, kept, offset + 1)), want, rtol=0, atol=1e-4)
    asked = [(0, (5, 9)), (1, (2,)), (0, tuple(range(1, 39))), (1, (7, 8, 9, 10, 11))]
    for (number, tokens), seen in zip(asked, runs.run(asked)):
        one = runs.predictor.inputs[number]
        logits = run_on(model, masked(one, [0, *tokens, one.length - 1]))
        assert seen.value == pytest.approx(float(logits.double().softmax(0)[1]), abs=1e-5)
        assert seen.predicted == int(logits.argmax())


@pytest.mark.parametrize("kind", ["xlnet", "convbert", "half", "gapped"])
def test_where_token_dropping_is_not_masking_it_is_not_used(kind):
    if kind == "gapped":  # positions that the model reads off the order, whatever ids it is given
        model = tiny_bert()
        run = model.forward

        def forward(input_ids=None, attention_mask=None, token_type_ids=None, position_ids=None):
            return run(input_ids=input_ids, attention_mask=attention_mask)

        model.forward = forward
    elif kind in ("xlnet", "convbert"):
        model = reads_its_padding(kind)
    else:
        model = tiny_bert().to(torch.bfloat16)
    runs = restricted(model, [an_example(), an_example(21, 1)], [0, 0])
    assert runs.predictor.position_offset is None
    assert runs.cost(0, 2) == 1.0
    if kind == "half":
        return
    asked = [(0, (5, 9)), (1, (2, 3)), (1, tuple(range(1, 20)))]
    for (number, tokens), seen in zip(asked, runs.run(asked)):
        one = runs.predictor.inputs[number]
        logits = run_on(model, masked(one, [0, *tokens, one.length - 1]))
        assert seen.value == pytest.approx(float(logits.double().softmax(0)[0]), abs=1e-5)


def test_masked_forwards_give_the_same_sets(demo, many, monkeypatch):
    monkeypatch.setattr(RemovalPredictor, "_offset", lambda *_: None)
    monkeypatch.setattr(EncoderRunner, "cached", lambda self, key, compute: compute())
    for text, one, other in zip(MANY, many, minimal_tokens(demo[0], MANY, tokenizer=demo[1])):
        assert not other.info["token_dropping"]
        assert other.indices == one.indices
        assert other.forwards == other.sequences == one.sequences
        confirm(*demo, text, other)


# --- recheck ------------------------------------------------------------------------------------------------------


def test_recheck_holds_and_sees_what_is_wrong(demo, many):
    model, tokenizer = demo
    assert all(recheck(model, one, tokenizer=tokenizer).holds for one in many)
    one = many[4]
    assert len(one.indices) > 1
    own = [i for i, special in enumerate(one.special) if not special]
    dropped = replace(one, indices=one.indices[1:], singles=one.singles[1:])
    wrong = {
        "the set": replace(one, p_set=one.p_set - 0.01),
        "the rest": replace(one, p_rest=one.p_rest + 0.01),
        "special": replace(one, p_special=one.p_special + 0.01),
        "can be left out": replace(
            one, indices=tuple(own), singles=tuple(replace(one.singles[0], index=i) for i in own)
        ),
        "the rest suffices": dropped,
        "every single removal": replace(one, singles=one.singles[:-1]),
        f"the set without {one.singles[0].text!r}": replace(
            one, singles=(replace(one.singles[0], p_set=(1 + one.singles[0].p_set) / 2), *one.singles[1:])
        ),
        "do not give": replace(one, defined=False),
    }
    for sign, bad in wrong.items():
        found = recheck(model, bad, tokenizer=tokenizer)
        assert not found.holds
        assert any(sign in reason for reason in found.reasons), (sign, found.reasons)
    assert recheck(model, wrong["the set"]).difference == pytest.approx(0.01, abs=1e-5)
    for text in ("another text", MANY[4].replace("comedy", "story")):
        with pytest.raises(InvalidInputError, match="tokens differ"):
            recheck(model, one, text, tokenizer=tokenizer)


# --- the result ---------------------------------------------------------------------------------------------------


def test_spans_and_words_are_slices_of_the_text(many):
    for text, one in zip(MANY, many):
        assert [span.tokens for span in one.spans] == [(i,) for i in one.indices]
        assert all(text[span.start : span.end] == span.text for span in (*one.spans, *one.words))
        assert {i for word in one.words for i in word.tokens} >= set(one.indices)
        assert {*one.indices, *one.rest} == {i for i, special in enumerate(one.special) if not special}


def test_a_part_of_a_word_has_its_own_characters(demo):
    text = "An unflinchingly bleak film."
    (example,), _ = EncoderRunner(*demo).encode(text)
    parts = [i for i, word in enumerate(example.word_ids) if word == 1]
    assert len(parts) > 1
    spans, words = spans_of(example, parts[1:2])
    assert [(span.text, span.tokens) for span in spans] == [(text[slice(*example.offsets[parts[1]])], (parts[1],))]
    assert [(word.text, word.start, word.tokens) for word in words] == [("unflinchingly", 3, tuple(parts))]


def test_saved_and_loaded(many):
    for one in many:
        assert TokenSet.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False))) == one
        assert pickle.loads(pickle.dumps(one)) == one
    assert many[0] != many[1]
    with pytest.raises(InvalidInputError, match="type"):
        TokenSet.from_dict({"type": "other"})
    with pytest.raises(InvalidInputError, match="special"):
        replace(many[1], indices=(0,))


def test_words_say_minimal_and_never_smallest(many):
    for one in many:
        told = str(one)
        assert "smallest" not in told
        assert ("locally minimal" in told) == one.defined
        assert all(repr(word.text) in told for word in one.words)
        assert f"{one.p_special:.4f}" in told


# --- forms of input, and what is refused --------------------------------------------------------------------------


def test_tensors_give_the_sets_of_their_texts(demo, many):
    model, tokenizer = demo
    encoded = tokenizer(MANY[:4], padding=True, return_tensors="pt")
    for inputs, options in ((encoded, {}), (dict(encoded), {"tokenizer": tokenizer}), (dict(encoded), {})):
        found = minimal_tokens(model, inputs, **options)  # without one, the tokenizer saved beside the model is taken
        assert [one.indices for one in found] == [one.indices for one in many[:4]]
    assert recheck(model, found[0], {key: value[:1] for key, value in encoded.items()}).holds
    with pytest.raises(InvalidInputError, match="made of tensors"):
        recheck(model, found[0])


def test_without_special_tokens_the_empty_set_is_never_run(demo):
    model, tokenizer = demo
    encoded = tokenizer(MANY[2], add_special_tokens=False, return_tensors="pt")
    one = minimal_tokens(model, encoded)
    assert one.p_special is None
    assert one.defined
    assert recheck(model, one, dict(encoded), tokenizer=tokenizer).holds
    single = minimal_tokens(model, tokenizer("dull", add_special_tokens=False, return_tensors="pt"))
    assert (single.indices, single.p_rest, single.singles[0].p_set) == ((0,), None, None)
    assert (single.sequences, single.forwards) == (1, 1.0)
    assert "Special tokens alone: none" in str(single)


@pytest.mark.parametrize("hidden", [3, 6])  # a token and the special one between the texts
def test_hidden_tokens_are_in_neither_side(demo, hidden):
    model, tokenizer = demo
    encoded = dict(tokenizer("The film was long.", "Nobody liked it much.", return_tensors="pt"))
    encoded["attention_mask"][0, hidden] = 0
    one = minimal_tokens(model, encoded, tokenizer=tokenizer)
    assert one.special[6]
    assert hidden not in one.indices
    with torch.no_grad():
        whole = model(**encoded).logits[0].double().softmax(0)
    assert one.p_all == pytest.approx(float(whole[one.target]), abs=1e-5)
    assert recheck(model, one, encoded, tokenizer=tokenizer).holds


def test_long_texts_are_cut_only_when_asked(demo):
    model, tokenizer = demo
    long = "dull and boring , a quietly moving film . " * 70
    with pytest.raises(InvalidInputError, match="truncation=True"):
        minimal_tokens(model, long, tokenizer=tokenizer)
    with pytest.warns(UserWarning, match="was cut") as seen:
        one = minimal_tokens(model, long, tokenizer=tokenizer, truncation=True, second_ranking=None, budget=20)
    assert (len(seen), len(one.tokens), len(one.info["warnings"])) == (1, 512, 1)
    with pytest.warns(UserWarning, match="was cut"):
        assert recheck(model, one, tokenizer=tokenizer).holds


def test_independent_labels(demo):
    model = tiny_bert(num_labels=3, problem_type="multi_label_classification")
    one = minimal_tokens(model, MANY[2], tokenizer=demo[1], target=1, second_ranking=None)
    with torch.no_grad():
        logits = model(**demo[1](MANY[2], return_tensors="pt")).logits[0]
    assert one.p_all == pytest.approx(float(logits[1].sigmoid()), abs=1e-5)
    runs = restricted(model, [an_example(12)] * 3, [0, 1, 2])
    seen = runs.run([(label, (i,)) for i in range(1, 11) for label in range(3)])
    assert [one.predicted for one in seen] == [int(one.value >= 0.5) for one in seen]
    assert {one.predicted for one in seen[1::3]} | {one.predicted for one in seen[::3]} == {0, 1}
    assert recheck(model, one, tokenizer=demo[1]).holds


def test_the_model_is_left_as_it_was(fresh):
    model, tokenizer = fresh
    model.train()
    before = state_of(model)
    first = minimal_tokens(model, MANY[:2], tokenizer=tokenizer)
    assert state_of(model) == before
    again = minimal_tokens(model, MANY[:2], tokenizer=tokenizer)  # dropout is off inside
    assert [one.p_set for one in first] == [one.p_set for one in again]


BAD = [
    ({"keep": 0}, "keep must be"),
    ({"keep": 1.01}, "keep must be"),
    ({"keep": float("nan")}, "keep must be"),
    ({"keep": True}, "keep must be"),
    ({"strict": 1}, "strict"),
    ({"budget": 1}, "budget"),
    ({"budget": float("nan")}, "budget"),
    ({"batch_size": 0}, "batch_size"),
    ({"seed": -1}, "seed"),
    ({"ranking": "best"}, "ranking='best'"),
    ({"second_ranking": "best"}, "second_ranking='best'"),
    ({"truncation": 1}, "truncation"),
    ({"ranking": torch.ones(3)}, r"ranking\[0\]"),
    ({"ranking": 3}, "ranking must be"),
    ({"ranking": torch.full((7,), float("inf"))}, r"ranking\[0\]"),
    ({"target": lambda outputs: outputs.logits[:, 0]}, "target is a function"),
    ({"target": 5}, "out of range"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_arguments(demo, options, message):
    with pytest.raises(InvalidInputError, match=message):
        minimal_tokens(demo[0], TEXTS[0], tokenizer=demo[1], **options)


def test_models_without_class_probabilities(demo):
    model, tokenizer = demo
    with pytest.raises(InvalidInputError, match="no class logits"):
        minimal_tokens(model.bert, TEXTS[0], tokenizer=tokenizer)
    with pytest.raises(InvalidInputError, match="regression"):
        minimal_tokens(tiny_bert(num_labels=1), TEXTS[0], tokenizer=tokenizer)
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    with pytest.raises(InvalidInputError, match="no tokens other than the special ones"):
        minimal_tokens(model, {"input_ids": ids[:, [0, -1]]}, tokenizer=tokenizer)
    with pytest.raises(InvalidInputError, match="special"):
        minimal_tokens(model, {"inputs_embeds": torch.randn(1, 4, 384)}, tokenizer=tokenizer)


def test_a_model_without_a_mask_is_refused(fresh):
    model, tokenizer = fresh
    run = model.forward
    model.forward = lambda input_ids=None, token_type_ids=None: run(input_ids=input_ids)
    with pytest.raises(UnsupportedModelError, match="attention_mask"):
        minimal_tokens(model, TEXTS[0], tokenizer=tokenizer)
