"""`minimal_attention`: its sets against a masked attention written by hand and against `minimal_tokens`."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForQuestionAnswering, BertForTokenClassification

from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target
from hf_attn_mi.results import AttentionSubgraph, Results
from hf_attn_mi.tasks.attention_edges import Edges
from hf_attn_mi.tasks.edge_ranking import EdgeScores
from hf_attn_mi.tasks.edge_removal import REMOVALS
from hf_attn_mi.tasks.minimal_attention import minimal_attention
from hf_attn_mi.tasks.minimal_tokens import minimal_tokens
from hf_attn_mi.tasks.recheck import recheck
from hf_attn_mi.tasks.restricted_forward import Candidate, RestrictedForward
from hf_attn_mi.tasks.restricted_gradients import toggle_effects
from tests.sample_models import SIZES, TEXTS, state_of, tiny_bert, zoo_model
from tests.tasks.masked_attention import Hand, attention_by_hand
from tests.zoo.building import rescale

LONG = "The plot makes no sense, but the cast is brilliant and the story is very funny in places, again and again."
CLOSE = 1e-5


@pytest.fixture(scope="module")
def of_demo(demo):
    """The set of one text with the embedded model."""
    return minimal_attention(demo[0], LONG, tokenizer=demo[1])


@pytest.fixture(scope="module")
def of_short(demo):
    """The set of a short text."""
    return minimal_attention(demo[0], "A dull film.", tokenizer=demo[1])


def bert(name, demo):
    return (tiny_bert(), demo[1]) if name == "tiny" else (copy.deepcopy(demo[0]), demo[1])


def places(subgraph):
    return [(unit.layer, unit.head, unit.query, unit.key) for unit in subgraph.edges]


# --- the sets, run by other code ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "demo"])
@pytest.mark.parametrize("text", [TEXTS[0], LONG])
def test_the_set_suffices_the_rest_flips_and_no_weight_can_go_by_hand(name, text, demo):
    model, tokenizer = bert(name, demo)
    found = minimal_attention(model, text, tokenizer=tokenizer)
    hand = Hand(model, found.inputs)
    whole, none = hand(hand.mask([], rest=True)), hand(hand.mask([]))
    predicted = int(whole.argmax())
    assert (found.target, found.p_all) == (predicted, pytest.approx(float(whole[predicted]), abs=CLOSE))
    assert found.p_none == pytest.approx(float(none[predicted]), abs=CLOSE)
    if not found.needs_attention:
        assert int(none.argmax()) == predicted
        assert none[predicted] >= 0.9 * whole[predicted]
        return
    assert found.holds
    edges = places(found)

    def both(some):
        return hand(hand.mask(some)), hand(hand.mask(some, rest=True))

    def qualifies(chosen, rest):
        suffices = int(chosen.argmax()) == predicted and chosen[predicted] >= 0.9 * whole[predicted]
        return bool(suffices) and int(rest.argmax()) != predicted

    chosen, rest = both(edges)
    assert qualifies(chosen, rest)
    assert (found.p_set, found.p_rest) == pytest.approx((float(chosen[predicted]), float(rest[predicted])), abs=CLOSE)
    assert sorted(single.unit for single in found.singles) == list(range(len(edges)))
    for single in found.singles:
        left = [edge for i, edge in enumerate(edges) if i != single.unit]
        without = both(left)
        assert not qualifies(*without)
        assert [single.p_set, single.p_rest] == pytest.approx([float(one[predicted]) for one in without], abs=CLOSE)


def test_the_search_finds_a_set_on_a_random_model(demo):
    model = tiny_bert()
    found = [minimal_attention(model, text, tokenizer=demo[1]) for text in TEXTS]
    assert any(one.needs_attention and one.holds and len(one.edges) > 1 for one in found)


@pytest.mark.parametrize("kind", REMOVALS)
def test_every_kind_of_removal_is_its_definition(kind, demo):
    model, tokenizer = bert("demo", demo)
    needs = {"reference": LONG + " And then it ends."} if kind == "resample" else {}
    found = minimal_attention(
        model, LONG, tokenizer=tokenizer, removals=tuple(dict.fromkeys(("renormalized", kind))), **needs
    )
    edges = places(found)
    hand = Hand(model, found.inputs, kind, dict(found.reference) or None)
    probabilities = [
        float(hand(mask)[found.target]) for mask in (hand.mask(edges), hand.mask(edges, True), hand.mask([]))
    ]
    if kind == "renormalized":
        assert (found.p_set, found.p_rest, found.p_none) == pytest.approx(probabilities, abs=CLOSE)
    else:
        (check,) = found.removals
        assert check.removal == kind
        assert (check.p_set, check.p_rest, check.p_none) == pytest.approx(probabilities, abs=CLOSE)


@pytest.mark.parametrize("kind", ["missing", "mean", "resample"])
def test_a_set_can_be_found_under_each_kind_of_removal(kind, demo):
    needs = {"reference": LONG} if kind == "resample" else {}
    found = minimal_attention(demo[0], TEXTS[3], tokenizer=demo[1], removals=kind, **needs)
    assert found.removal == kind
    assert found.holds or not found.needs_attention or found.reason
    assert recheck(demo[0], found).holds


def test_contributions_are_the_centered_gradients_of_the_definition(demo, of_demo):
    model, found = copy.deepcopy(demo[0]), of_demo
    record = []
    hand = Hand(model, found.inputs)
    with torch.enable_grad(), attention_by_hand(model, lambda layer: None, record=record):
        logits = model(**hand.inputs).logits[0]
        value = logits[found.target] - logits[1 - found.target]
        slopes = torch.autograd.grad(value, [rows for rows, _ in record])
    for unit in found.edges:
        rows, slope = record[unit.layer][0][unit.head, unit.query], slopes[unit.layer][unit.head, unit.query]
        wanted = (rows[unit.key] * (slope[unit.key] - (rows * slope).sum())).detach()
        assert unit.contribution == pytest.approx(float(wanted), rel=1e-3, abs=1e-6)
        # by another order of float32 operations; on some processors the difference is 2.5e-6 of a weight
        assert unit.weight == pytest.approx(float(rows[unit.key].detach()), rel=1e-5, abs=1e-6)


def test_the_ranking_by_relevance_is_that_of_the_linearized_model(demo):
    """Where nothing but the last layer's values is between a row and the output, both rankings are the same."""
    runner = EncoderRunner.of(demo[0], demo[1])
    one = runner.encode(TEXTS[3])[0][0]
    with RestrictedForward(runner, one, Target([None], runner.model), 4) as forward:
        scores = EdgeScores(forward, 0)
        relevance = scores.relevance()
        last = max(relevance)
        assert all(bool(torch.isfinite(rows).all()) for rows in relevance.values())
        assert float(relevance[last].abs().max()) > 0
        sums = relevance[last].sum(-1)
        assert float(sums.abs().max()) < 1e-5  # centered: adding a constant to the values changes nothing


# --- what the search relies on ------------------------------------------------------------------------------------


def opened(model, text, tokenizer, batch_size=4):
    runner = EncoderRunner.of(model, tokenizer)
    return RestrictedForward(runner, runner.encode(text)[0][0], Target([None], runner.model), batch_size)


def test_shared_states_and_batches_give_what_whole_passes_give(demo):
    with opened(demo[0], LONG, demo[1]) as forward:
        scores = EdgeScores(forward, 0)
        assert len(forward.layers) == 3
        order = scores.flat(scores.gradient()).argsort(descending=True)[:40].sort().values
        forward.share([Edges(order), Edges(order, rest=True)])
        candidates = []
        for edge in order.tolist():
            layer = forward.edges.call_of(edge).stack_layer
            candidates += [Candidate(Edges(order[order != edge], rest), int(rest), layer) for rest in (False, True)]
        before = forward.forwards
        above = forward.run(candidates)
        assert forward.forwards - before < len(candidates)
        forward.layers, forward.shared = (), {}
        apart = [forward.run([Candidate(one.selection)])[0] for one in candidates]
        for one, other in zip(above, apart):
            assert one.odds == pytest.approx(other.odds, abs=1e-4)


def test_estimated_effects_of_single_edges_have_the_size_of_the_true_ones(demo):
    with opened(demo[0], LONG, demo[1], 16) as forward:
        scores = EdgeScores(forward, 0)
        order = scores.flat(scores.gradient()).argsort(descending=True)[:60].sort().values
        estimates = toggle_effects(forward, order)
        bases = forward.run([Candidate(Edges(order)), Candidate(Edges(order, rest=True))])
        for rest in (False, True):
            answers = forward.run([Candidate(Edges(order[order != edge], rest)) for edge in order])
            name = "margin" if rest else "odds"
            true = torch.tensor([getattr(one, name) - getattr(bases[rest], name) for one in answers])
            assert float(torch.corrcoef(torch.stack([true.double(), estimates[rest]]))[0, 1]) > 0.5


def test_the_batch_size_changes_no_set(demo):
    model = tiny_bert()
    found = [minimal_attention(model, LONG, tokenizer=demo[1], batch_size=size) for size in (1, 5, 64)]
    assert len({tuple(places(one)) for one in found}) == 1


def test_the_model_is_left_as_it_was(demo):
    model = copy.deepcopy(demo[0]).train()
    before = state_of(model)
    minimal_attention(model, TEXTS[3], tokenizer=demo[1], others=1, ranking="relevance")
    assert state_of(model) == before
    model.classifier.register_forward_hook(lambda *_: 1 / 0)
    before = state_of(model)
    with pytest.raises(UnsupportedModelError, match="division by zero"):
        minimal_attention(model, TEXTS[3], tokenizer=demo[1])
    assert state_of(model) == before
    assert torch.is_grad_enabled()


# --- units --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranking", ["relevance", "random"])
def test_tokens_as_units_are_minimal_tokens(ranking, demo):
    for text in TEXTS:
        tokens = minimal_tokens(demo[0], text, tokenizer=demo[1], ranking=ranking, second_ranking=None)
        found = minimal_attention(demo[0], text, tokenizer=demo[1], unit="token", strict=False, ranking=ranking)
        assert found.needs_attention == tokens.defined
        assert tuple(unit.key for unit in found.units) == tokens.indices
        assert (found.minimal, found.outcome) == (tokens.minimal, tokens.outcome)
        numbers = (found.p_all, found.p_none, *((found.p_set, found.p_rest) if tokens.defined else ()))
        wanted = (tokens.p_all, tokens.p_special, *((tokens.p_set, tokens.p_rest) if tokens.defined else ()))
        assert numbers == pytest.approx(wanted, abs=1e-6)
        assert [one.fails for one in found.singles] == [one.fails for one in tokens.singles]
        assert recheck(demo[0], found).holds


@pytest.mark.parametrize("unit", ["head", "layer"])
def test_heads_and_layers_hold_by_hand(unit, demo):
    model, tokenizer = bert("tiny", demo)
    found = minimal_attention(model, LONG, tokenizer=tokenizer, unit=unit, strict=False)
    hand = Hand(model, found.inputs)
    mask = hand.mask([])
    for one in found.units:
        mask[one.layer, slice(None) if unit == "layer" else one.head] = True
    predicted, whole = found.target, hand(hand.mask([], rest=True))
    assert found.unit_count == (hand.layers if unit == "layer" else hand.layers * hand.heads)
    if found.needs_attention:
        assert found.holds
        chosen, rest = hand(mask), hand(~mask)
        assert (found.p_set, found.p_rest) == pytest.approx(
            (float(chosen[predicted]), float(rest[predicted])), abs=CLOSE
        )
        assert chosen[predicted] >= 0.9 * whole[predicted]
    assert recheck(model, found).holds


# --- models -------------------------------------------------------------------------------------------------------

ARCHITECTURES = [  # class and `keep`, such that attention is needed for it
    ("seqcls-bart", 2, 0.9),
    ("seqcls-albert", 1, 0.9),
    ("seqcls-deberta-v2", 0, 1.0),
    ("seqcls-t5", 0, 0.95),
    ("seqcls-modernbert", 1, 0.9),
    ("seqcls-gpt_oss", 0, 0.9),
    ("seqcls-xlnet", 0, 0.9),
    ("imgcls-swin", 1, 0.9),
]


@pytest.mark.parametrize(("name", "target", "keep"), ARCHITECTURES)
def test_other_architectures_give_a_set_that_rechecks_from_its_file(name, target, keep, tmp_path):
    model, inputs = zoo_model(name)
    alone = {key: value[:1] for key, value in inputs.items()}
    found = minimal_attention(model, alone, target=target, keep=keep, strict=False, budget=400)
    assert found.units
    assert found.minimal or found.reason.startswith("The budget of 400 forward passes ")
    found.save(tmp_path / "set.json.gz")
    again = AttentionSubgraph.load(tmp_path / "set.json.gz")
    assert again == found
    result = recheck(model, again)
    assert result.holds, result.reasons


def test_cross_attention_is_a_kind_of_edge():
    model, inputs = zoo_model("seqcls-bart")
    found = minimal_attention(model, {key: value[:1] for key, value in inputs.items()}, unit="layer", strict=False)
    kinds = {module.name.split(".")[-1] for module in found.attention}
    assert kinds == {"self_attn", "encoder_attn"}
    assert len(found.attention) == 3 * model.config.decoder_layers  # encoder, decoder and between them


@pytest.mark.parametrize(
    ("kind", "inputs", "target"),
    [
        (BertForMaskedLM, "A quietly [MASK] film.", None),
        (BertForQuestionAnswering, ("Which film?", "A quietly moving film it is."), None),
        (BertForTokenClassification, "A quietly moving film.", "token(position=3)"),
    ],
)
def test_targets_that_are_no_class_of_the_input(kind, inputs, target, demo):
    torch.manual_seed(0)
    model = kind(BertConfig(**SIZES, intermediate_size=64)).eval()
    rescale(model)
    found = minimal_attention(model, inputs, tokenizer=demo[1], target=target)
    assert found.outcome in ("holds", "nothing to certify")
    assert found.target_name
    assert recheck(model, found, tokenizer=demo[1]).holds


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, demo):
    model = copy.deepcopy(demo[0]).to(dtype)
    found = minimal_attention(model, TEXTS[0], tokenizer=demo[1])
    assert found.holds or not found.needs_attention
    assert recheck(model, found).holds


def test_a_model_that_needs_no_attention(demo):
    model = copy.deepcopy(demo[0])
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 3.0]))
    found = minimal_attention(model, LONG, tokenizer=demo[1])
    assert (found.needs_attention, found.units, found.outcome) == (False, (), "nothing to certify")
    assert found.p_none == pytest.approx(found.p_all)
    assert "needs no attention" in found.to_text()
    assert recheck(model, found).holds


# --- the result ---------------------------------------------------------------------------------------------------


def test_a_family_names_what_its_sets_share(demo):
    found = minimal_attention(demo[0], TEXTS[2], tokenizer=demo[1], others=3)
    assert [member.ranking for member in found.family_members] == ["relevance", "gradient", "attention"]
    first, second, _ = found.family_members
    assert (first.forbidden, second.forbidden) == (0, len({*found.places, *first.edges}))
    assert not set(second.edges) & {*found.places, *first.edges}
    family = found.family
    sets = [set(one) for one in family.sets]
    assert sets[0] == set(found.places)
    assert set(family.core) == set.intersection(*sets)
    for edge, share in family.edges.items():
        assert share == sum(edge in one for one in sets) / len(sets)
    assert family.jaccard["edges"][0] == len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert recheck(demo[0], found).holds


def test_deeper_removals_are_counted_and_checked_again(demo):
    model = tiny_bert()
    found = minimal_attention(model, TEXTS[0], tokenizer=demo[1], deeper=True)
    size = len(found.units)
    assert found.deeper is not None
    assert found.deeper.pairs == (size * (size - 1) // 2 if size <= 12 else 200)
    assert found.deeper.all_pairs == (size <= 12)
    assert recheck(model, found).holds


def test_a_changed_record_does_not_recheck(demo, of_demo):
    found = of_demo
    assert recheck(demo[0], found).holds
    smaller = replace(found, units=found.units[1:], singles=())
    for wrong in (replace(found, p_set=found.p_set - 0.01), replace(found, p_rest=found.p_rest + 0.01), smaller):
        result = recheck(demo[0], wrong)
        assert not result.holds
        assert result.reasons
    for edited in ({"keep": 1.0, "p_set": 0.1}, {"rest_same": True}):
        with pytest.raises(InvalidInputError, match=r"such a set does not suffice|the set is not necessary"):
            replace(found, **edited)
    with pytest.raises(InvalidInputError, match="does not hold its input"):
        recheck(demo[0], replace(found, inputs={}))
    first = found.units[0]
    for wrong, message in (
        ({"head": 99}, "head 99 is not there"),
        ({"call": 7}, "call must be an index"),
        ({"key": None}, "goes with unit 'edge'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            replace(found, units=(replace(first, **wrong), *found.units[1:]))
    with pytest.raises(InvalidInputError, match="was made with another model"):
        recheck(tiny_bert(), found)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("units", 0, "weight"), lambda weight: weight / 2),
        (("units", 0, "name"), lambda name: name.replace("layer", "layer 1")),
        (("units", 0, "layer"), lambda layer: layer + 1),
        (("attention", 0, "layer"), lambda layer: layer + 5),
        (("edge_count",), lambda count: count + 1),
        (("unit_count",), lambda count: count + 1),
        (("target_name",), lambda name: f"not {name}"),
        (("tokens",), lambda tokens: ["x"] * len(tokens)),
        (("singles", 0, "set_same"), lambda same: not same),
        (("singles", 0, "rest_same"), lambda same: not same),
        (("singles", 0, "fails"), lambda fails: "set" if fails != "set" else "rest"),
    ],
    ids=lambda place: ".".join(map(str, place)) if isinstance(place, tuple) else "",
)
def test_every_fact_of_a_saved_file_that_is_changed_by_hand_is_found(place, value, demo, of_short, tmp_path):
    of_short.save(tmp_path / "saved.json")
    saved = json.loads((tmp_path / "saved.json").read_text())
    part = saved
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value(part[place[-1]])
    (tmp_path / "edited.json").write_text(json.dumps(saved))
    assert not recheck(demo[0], AttentionSubgraph.load(tmp_path / "edited.json"), tokenizer=demo[1]).holds


def test_the_record_of_an_input_of_embeddings_rechecks(demo):
    model, tokenizer = demo
    ids = tokenizer("A dull film.", return_tensors="pt")["input_ids"]
    found = minimal_attention(model, {"inputs_embeds": model.get_input_embeddings()(ids).detach()})
    result = recheck(model, found)
    assert result.holds, result.reasons


def test_the_budget_ends_the_search_with_the_reason(demo):
    model = tiny_bert()
    whole = minimal_attention(model, LONG, tokenizer=demo[1])
    assert whole.holds
    assert len(whole.edges) > 4
    for budget in (2, 12, whole.forwards - whole.single_forwards, whole.forwards - 6):
        found = minimal_attention(model, LONG, tokenizer=demo[1], budget=budget)
        assert found.forwards <= budget + 8  # the ranking and the pass without attention come on top
        assert not found.minimal or len(found.singles) == len(found.units)
        if not found.minimal:
            assert (found.outcome, found.holds) == ("does not hold", False)
            assert found.reason.startswith(f"The budget of {budget:g} forward passes ")
            assert recheck(model, found).holds  # what it says is true all the same


def test_groups_are_removed_where_the_budget_does_not_allow_for_single_removals(demo):
    model = tiny_bert()
    whole = minimal_attention(model, LONG, tokenizer=demo[1])
    sizes = set()
    for share in (0.3, 0.5, 0.7):
        budget = whole.forwards - share * whole.single_forwards
        found = minimal_attention(model, LONG, tokenizer=demo[1], budget=budget)
        sizes.add(found.group_size)
        if found.group_size > 1:
            assert not found.minimal
            assert f"no group of {found.group_size} edges can be left out" in found.reason
    assert max(sizes) > 1


def test_many_inputs_and_their_text(demo, of_demo):
    found = minimal_attention(demo[0], TEXTS[1:3], tokenizer=demo[1], target="positive")
    assert isinstance(found, Results)
    assert {one.target_name for one in found} == {"positive"}
    first = of_demo
    text = str(first)
    assert text.startswith(f"{len(first.edges)} of {first.edge_count:,} attention weights carry")
    unit = first.edges[0]
    assert f"{first.tokens[unit.query]!r} <- {first.tokens[unit.key]!r}" in text
    assert len(first.to_pandas()) == len(first.units)
    assert "Single removals" in first.to_html()


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "edges"}, "unit must be one of 'edge', 'head', 'layer', 'token', not 'edges'"),
        ({"keep": 0}, "keep must be a number above 0 and at most 1, not 0"),
        ({"keep": math.nan}, "keep must be a number above 0 and at most 1, not nan"),
        ({"keep": True}, "keep must be a number"),
        ({"strict": 1}, "strict must be True or False"),
        ({"deeper": "yes"}, "deeper must be True or False"),
        ({"ranking": "lime"}, "ranking must be one of 'gradient', .* a method that scores tokens cannot rank"),
        ({"ranking": None}, "ranking must be one of"),
        ({"others": -1}, "others must be a whole number of 0 or more"),
        ({"others": 2, "unit": "head"}, "others=2 needs unit='edge'"),
        ({"removals": ("gone",)}, "removals must be one or more of 'renormalized', 'missing', 'mean', 'resample'"),
        ({"removals": ()}, "removals must be one or more"),
        ({"removals": ("mean", "mean")}, "each once"),
        ({"removals": 3}, "removals must be one or more"),
        ({"removals": ("missing",), "unit": "token"}, "removals must be .* with unit='token'"),
        ({"removals": ("resample",)}, "pass reference=TEXT"),
        ({"removals": ("resample",), "reference": "short"}, "reference has 3 tokens, but an input has"),
        ({"removals": ("resample",), "reference": [LONG, LONG]}, "reference must be one input, not 2"),
        ({"removals": ("resample",), "reference": ""}, "^reference: .* is an empty text"),
        ({"reference": LONG}, "reference is read only by removals"),
        ({"budget": 1}, "budget must be a number of forward passes, 2 or more, not 1"),
        ({"budget": math.nan}, "budget must be a number"),
        ({"batch_size": 0}, "batch_size must be a positive whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"target": 7}, "target 7 is out of range"),
        ({"target": len}, "target is a function; a set is defined for a class"),
    ],
)
def test_wrong_arguments_are_refused_by_name(options, message, demo):
    with pytest.raises(InvalidInputError, match=message):
        minimal_attention(demo[0], TEXTS[2], tokenizer=demo[1], **options)


def test_models_without_a_class_or_with_nan_are_refused(demo):
    regression = tiny_bert(num_labels=1)
    with pytest.raises(InvalidInputError, match="has no probability that a set"):
        minimal_attention(regression, TEXTS[0], tokenizer=demo[1])
    with pytest.raises(InvalidInputError, match="has no class logits"):
        minimal_attention(demo[0].bert, TEXTS[0], tokenizer=demo[1])
    broken = tiny_bert()
    with torch.no_grad():
        broken.classifier.weight[0, 0] = math.nan
    with pytest.raises(InvalidInputError, match=r"classifier\.weight"):
        minimal_attention(broken, TEXTS[0], tokenizer=demo[1])
    for name, reason in (
        ("seqcls-fnet", "no softmax over keys"),
        ("seqcls-longformer", "scattered into a larger tensor"),
    ):
        model, inputs = zoo_model(name)
        with pytest.raises(UnsupportedModelError, match=reason):
            minimal_attention(model, {"input_ids": inputs["input_ids"][:1]})


def test_too_many_edges_are_refused(monkeypatch, demo):
    monkeypatch.setattr("hf_attn_mi.tasks.attention_edges.MOST_EDGES", 1000)
    with pytest.raises(InvalidInputError, match=r"attention weights are more than the 2\*\*31"):
        minimal_attention(demo[0], LONG, tokenizer=demo[1])
