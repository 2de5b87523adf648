"""`compare` on real models: its numbers are those of the evaluation's own functions, its costs are what was run."""

import builtins
import math
import re
from dataclasses import replace
from statistics import fmean

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import (
    AopcLimits,
    Probabilities,
    aopc,
    aopc_limits,
    comprehensiveness,
    infidelity,
    leave_one_out_correlation,
    monotonicity,
    normalized_aopc,
    relative_change,
    sufficiency,
)
from hf_attn_mi.methods import base, find_method, list_methods
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.tasks import compare_metrics
from hf_attn_mi.tasks.compare import DEFAULT_METHODS, compare
from hf_attn_mi.tasks.explain import explain
from hf_attn_mi.tasks.rationales import rationale_masks, rationale_spans
from tests.sample_models import ANY_MODEL, TEXTS, load_demo, reads_its_padding, state_of, tiny_bert

LONG = (
    "The first hour moves so slowly that half of the audience had left before the story found its feet, and yet the "
    "last twenty minutes are among the most gripping and surprising that any director has put on a screen this year."
)
SMALL = {"integrated_gradients": {"steps": 20}}
QUICK = {  # what a method takes at least, so that all of them run
    "integrated_gradients": {"steps": 5},
    "gradient_shap": {"samples": 3},
    "lime": {"samples": 9},
    "kernel_shap": {"samples": 9},
    "shapley_sampling": {"samples": 2},
}


def alone(model, tokenizer, text, removal="delete"):
    """Probabilities of one text by the most literal code: one version, one forward pass, no batch."""
    encoded = tokenizer(text, return_special_tokens_mask=True)
    special = torch.tensor(encoded.pop("special_tokens_mask")).bool()
    example = {name: torch.tensor(values) for name, values in encoded.items()}
    with torch.no_grad():
        target = int(model(**{name: x[None] for name, x in example.items()}).logits.argmax())

    def predict(examples):
        with torch.no_grad():
            logits = [model(**{name: x[None] for name, x in one.items()}).logits[0] for one in examples]
        return torch.stack(logits).softmax(-1)[:, target]

    mask = tokenizer.mask_token_id if removal == "mask" else None
    return Probabilities(predict, example, special, removal=removal, mask_id=mask)


def columns(found, metric):
    return {method: found.values[method][metric] for method in found.methods}


@pytest.mark.parametrize("removal", ["delete", "mask", "attention_mask"])
def test_the_numbers_are_those_of_the_metrics_by_hand(demo, removal):
    model, tokenizer = demo
    methods = ("relevance", "attention", "random")
    metrics = ("leave_one_out", "comprehensiveness", "sufficiency", "monotonicity", "infidelity")
    found = compare(
        model, [*TEXTS, LONG], tokenizer=tokenizer, methods=methods, metrics=metrics, removal=removal, batch_size=7
    )
    by_hand = (
        leave_one_out_correlation,
        lambda *a: comprehensiveness(*a).mean,
        lambda *a: sufficiency(*a).mean,
        monotonicity,
        infidelity,
    )
    for i, text in enumerate([*TEXTS, LONG]):
        shared = alone(model, tokenizer, text, removal)
        for method in methods:
            scores = explain(model, text, tokenizer=tokenizer, method=method).scores
            for metric, function in zip(metrics, by_hand):
                got, wanted = found.values[method][metric][i], function(shared, scores)
                assert got == (None if wanted is None else pytest.approx(wanted, abs=1e-5)), (text, method, metric)
    assert found.metrics == metrics
    assert found.deciding == "leave_one_out"
    assert found.info["removal"] == removal


def test_absolute_order(demo):
    model, tokenizer = demo
    texts = [TEXTS[2], LONG]
    found = compare(model, texts, tokenizer=tokenizer, methods=["relevance"], by="absolute")
    for i, text in enumerate(texts):
        scores = explain(model, text, tokenizer=tokenizer).scores
        wanted = comprehensiveness(alone(model, tokenizer, text), scores.abs()).mean
        assert found.values["relevance"]["comprehensiveness"][i] == pytest.approx(wanted, abs=1e-5)
        signed = comprehensiveness(alone(model, tokenizer, text), scores).mean
        assert abs(wanted - signed) > 1e-3  # it does matter here


def test_normalized_areas_hold_between_shared_limits(demo):
    model, tokenizer = demo
    texts = [TEXTS[0], TEXTS[1], LONG]
    metrics = ("normalized_aopc", "normalized_aopc_ascending")
    found = compare(model, texts, tokenizer=tokenizer, methods=("relevance", "random"), metrics=metrics)
    shared = alone(model, tokenizer, TEXTS[0])
    limits = aopc_limits(shared)
    assert limits.exact
    for method in found.methods:
        scores = explain(model, TEXTS[0], tokenizer=tokenizer, method=method).scores
        for metric, ascending in zip(metrics, (False, True)):
            wanted = normalized_aopc(aopc(shared, scores, ascending=ascending), limits)
            assert found.values[method][metric][0] == pytest.approx(wanted, abs=1e-4)
            assert found.values[method][metric][1:] == (None, None)  # one token; more than 40
    assert "1 of 3 inputs are too long for the limits of AOPC" in found.info["warnings"][0]


def test_limits_of_a_beam_take_in_the_orders_compared(demo, monkeypatch):
    model, tokenizer = demo
    narrow = AopcLimits(0.4, 0.41, False, 3)  # as a beam may return: methods lie outside
    monkeypatch.setattr(compare_metrics, "aopc_limits", lambda found: narrow)
    metrics = ["normalized_aopc", "normalized_aopc_ascending"]
    found = compare(model, [TEXTS[2]], tokenizer=tokenizer, methods=["relevance", "random"], metrics=metrics)
    shared = alone(model, tokenizer, TEXTS[2])
    scores = {name: explain(model, TEXTS[2], tokenizer=tokenizer, method=name).scores for name in found.methods}
    areas = [aopc(shared, one, ascending=way) for one in scores.values() for way in (False, True)]
    low, high = min(0.4, *areas), max(0.41, *areas)
    assert (low, high) != (0.4, 0.41)
    got = [found.values[name][metric][0] for name in found.methods for metric in metrics]
    assert got == pytest.approx([(area - low) / (high - low) for area in areas], abs=1e-4)


def test_every_method_scores_as_explain_does(demo):
    model, tokenizer = demo
    names = [name for name in list_methods() if name != "head"]
    outside = {
        f"{name} outside": [
            one.scores for one in explain(model, TEXTS, tokenizer=tokenizer, method=name, options=QUICK.get(name))
        ]
        for name in names
    }
    found = compare(model, TEXTS, tokenizer=tokenizer, methods=names, scores=outside, options=QUICK)
    assert found.failures == {}
    places = {name: place for place, name in enumerate(found.agreement.methods)}
    for name in names:
        for metric in found.metrics:
            assert found.values[name][metric] == pytest.approx(found.values[f"{name} outside"][metric], abs=1e-6), name
        tau = found.agreement.tau[places[name]][places[f"{name} outside"]]
        assert tau.mean is None or tau.mean > 0.999
        assert f"{name} outside" not in found.costs
    assert found.info["outside"] == tuple(outside)
    assert set(ANY_MODEL) < set(names)


def counted_by_the_embeddings(model, run):
    """Sequences that pass the embedding layer, forwards and backwards, while `run` runs."""
    seen, scale = [0, 0], id(model.bert.embeddings.LayerNorm.weight)

    class Counted(TorchFunctionMode):  # a hook would be code of the caller, which is tested with every call
        def __torch_function__(self, function, types, args=(), kwargs=None):
            outputs = function(*args, **(kwargs or {}))
            if function is F.layer_norm and scale in (id(one) for one in (*args[2:], *(kwargs or {}).values())):
                seen[0] += outputs.shape[0]
                if outputs.requires_grad:
                    outputs.register_hook(lambda gradient: seen.__setitem__(1, seen[1] + gradient.shape[0]))
            return outputs

    with Counted():
        return run(), seen


def test_costs_are_the_sequences_that_were_run(demo):
    model, tokenizer = demo
    ordinary = [len(tokenizer(text)["input_ids"]) - 2 for text in TEXTS]
    wanted = {
        "relevance": (1, 1),
        "attention": (1, 0),
        "effective": (1, 0),
        "value_norms": (1, 0),
        "random": (0, 0),
        "saliency": (1, 1),
        "input_x_gradient": (1, 1),
        "integrated_gradients": (20 + 2, 20),  # and both ends, for the gap
        "feature_ablation": (fmean(ordinary) + 1, 0),
    }
    for batch_size in (1, 8):
        found = compare(model, TEXTS, tokenizer=tokenizer, methods=list(wanted), options=SMALL, batch_size=batch_size)
        for method, (forwards, backwards) in wanted.items():
            cost = found.costs[method]
            assert (cost.forwards, cost.backwards) == pytest.approx((forwards, backwards)), method
            assert cost.seconds > 0
    for method in ("lime", "deeplift", "gradient_shap", "occlusion", "shapley_sampling", "kernel_shap"):
        run, options = TEXTS[2:3], {method: QUICK[method]} if method in QUICK else None
        one, seen = counted_by_the_embeddings(
            model, lambda m=method, o=options, r=run: compare(model, r, tokenizer=tokenizer, methods=[m], options=o)
        )
        judged = one.info["sequences"]
        padding = 3  # the trial whether padding matters, once for a model
        assert one.costs[method].forwards in (seen[0] - judged, seen[0] - judged - padding), method
        assert one.costs[method].backwards == seen[1], method


def test_batches_and_repetitions_change_nothing(demo):
    model, tokenizer = demo
    texts = [*TEXTS, LONG]
    methods = [*DEFAULT_METHODS, "lime"]
    options = {**SMALL, "lime": {"samples": 9}}
    runs = [
        compare(model, texts, tokenizer=tokenizer, methods=methods, options=options, batch_size=size, seed=5)
        for size in (32, 32, 1)
    ]
    assert runs[0].values == runs[1].values
    assert runs[0].tests == runs[1].tests
    assert runs[0].table == runs[1].table
    for method in methods:
        for metric in runs[0].metrics:
            assert runs[2].values[method][metric] == pytest.approx(runs[0].values[method][metric], abs=1e-6)
    # Versions share their batches with those of other methods: equal but for rounding.
    other = compare(model, texts, tokenizer=tokenizer, methods=["random", "relevance"], seed=6)
    own = compare(model, texts, tokenizer=tokenizer, methods=["random"], options={"random": {"seed": 5}}, seed=6)
    for metric in runs[0].metrics:
        assert other.values["random"][metric] != pytest.approx(runs[0].values["random"][metric], abs=1e-3)
        assert other.values["relevance"][metric] == pytest.approx(runs[0].values["relevance"][metric], abs=1e-6)
        assert own.values["random"][metric] == pytest.approx(runs[0].values["random"][metric], abs=1e-6)


def test_a_model_that_reads_its_padding(demo):
    model = reads_its_padding("convbert")
    runs = [
        compare(model, TEXTS, tokenizer=demo[1], methods=["relevance", "random"], batch_size=size) for size in (1, 9)
    ]
    for method in runs[0].methods:
        for metric in runs[0].metrics:
            assert runs[1].values[method][metric] == pytest.approx(runs[0].values[method][metric], abs=1e-6)


def test_rationales_in_each_form_are_the_same_tokens(demo):
    model, tokenizer = demo
    words = ["a", "quietly", "unforgettable", "film", "."]
    text, flags = " ".join(words), [0, 1, 1, 0, 0]
    assert rationale_spans(words, flags) == [(2, 23)]
    assert rationale_spans(words, [1, 0, 1, 0, 1]) == [(0, 1), (10, 23), (29, 30)]
    explained = explain(model, text, tokenizer=tokenizer)
    marked = [  # by hand: the tokens within "quietly unforgettable"
        not special and start >= 2 and end <= 23 for special, (start, end) in zip(explained.special, explained.offsets)
    ]
    assert 2 <= sum(marked) < len(marked) - 2
    truth = torch.tensor(marked)
    forms = [rationale_spans(words, flags), marked, [int(x) for x in marked], truth, truth.long().numpy()]
    scores = {"perfect": [truth.double()], "inverse": [1 - truth.double()]}
    for form in forms:
        found = compare(model, [text], tokenizer=tokenizer, methods=(), scores=scores, rationales=[form])
        assert found.metrics == ("comprehensiveness", "sufficiency", "token_f1", "iou_f1", "auprc", "average_precision")
        assert [found.values["perfect"][name][0] for name in found.metrics[2:]] == pytest.approx([1, 1, 1, 1])
        # With as many tokens chosen as are true, all of the wrong ones come first.
        true, count = sum(marked), len(marked) - 2
        hits = max(0, true - (count - true)) / true
        assert found.values["inverse"]["token_f1"][0] == pytest.approx(hits)
        assert found.values["inverse"]["average_precision"][0] == pytest.approx(true / count)
    special = [1, *[0] * (len(marked) - 2), 1]  # marks on special tokens do not count
    found = compare(model, [text], tokenizer=tokenizer, methods=(), scores=scores, rationales=[special])
    assert found.values["perfect"]["auprc"] == (None,)
    # Both texts of a pair; the second by its number.
    pair = ("a dull film", "a quiet film")
    found = compare(
        model, [pair], tokenizer=tokenizer, methods=["relevance"], rationales=[[(2, 6), (2, 7, 1)]], metrics=["auprc"]
    )
    seen = explain(model, pair, tokenizer=tokenizer)
    both = [
        not special and pair[number][start:end] in ("dull", "quiet")
        for special, number, (start, end) in zip(seen.special, seen.sequence_ids, seen.offsets)
    ]
    assert sum(both) == 2
    again = compare(model, [pair], tokenizer=tokenizer, methods=["relevance"], rationales=[both], metrics=["auprc"])
    assert found.values == again.values


def test_the_share_of_hard_rationales_and_erasers_averages(demo):
    model, tokenizer = demo
    texts = ["a dull film .", "very funny , very good"]
    counts = [len(tokenizer(text)["input_ids"]) for text in texts]
    truths = [[0] * n for n in counts]
    truths[0][2] = truths[1][1] = truths[1][4] = 1
    share = fmean([1 / (counts[0] - 2), 2 / (counts[1] - 2)])
    scores = {"order": [list(range(n, 0, -1)) for n in counts]}  # the first tokens first
    found = compare(
        model, texts, tokenizer=tokenizer, methods=(), scores=scores, rationales=truths, metrics=["token_f1"]
    )
    chosen = [set(range(1, 1 + math.ceil(share * (n - 2)))) for n in counts]
    true = [{i for i, x in enumerate(row) if x} for row in truths]
    by_hand = [2 * len(c & t) / (len(c) + len(t)) for c, t in zip(chosen, true)]
    assert found.values["order"]["token_f1"] == pytest.approx(by_hand)
    hits, taken, wanted = (sum(map(len, x)) for x in ([c & t for c, t in zip(chosen, true)], chosen, true))
    assert found.info["eraser"]["order"]["token_f1"]["micro"] == pytest.approx(2 * hits / (taken + wanted))
    none = compare(
        model, texts, tokenizer=tokenizer, methods=(), scores=scores, rationales=[None, truths[1]], metrics=["token_f1"]
    )
    assert none.values["order"]["token_f1"][0] is None
    assert none.values["order"]["token_f1"][1] is not None


def test_rationale_lengths_that_differ_are_named(demo):
    tokenizer, ids = demo[1], demo[1](TEXTS[0])["input_ids"]
    for rationales, words in (
        ([[0, 1]], f"rationales[0] has 2 entries, inputs[0] has {len(ids)} tokens"),
        ([[0] * len(ids)] * 2, "rationales has 2 entries for 1 inputs"),
        ([[0.5] * len(ids)], "it must be 0 or 1"),
        ([[(0, 999)]], f"with [{len(TEXTS[0])}] characters"),
        ([[(0, 1, 1)]], "(0, 1, 1)"),
        (["a"], "str"),
        ("a", "str"),
        (5, "int"),
    ):
        with pytest.raises(InvalidInputError, match=re.escape(words)):
            compare(demo[0], [TEXTS[0]], tokenizer=tokenizer, rationales=rationales)
    with pytest.raises(InvalidInputError, match="3 entries for 2 words"):
        rationale_spans(["a", "b"], [0, 1, 0])
    with pytest.raises(InvalidInputError, match="no offsets"):
        rationale_masks([[(0, 1)]], [replace(examples(demo)[0], offsets=None)])


def examples(demo):
    return EncoderRunner(*demo).encode([TEXTS[0]])[0]


def breaking(name, broken, monkeypatch):
    """Let this method raise on inputs for which `broken` is true."""
    scorer = find_method(name)

    def attribution(network, *rest):
        if broken(network.arguments["input_ids"]):
            raise RuntimeError("one of the variables is gone\nand more")
        return scorer.attribution(network, *rest)

    monkeypatch.setitem(base._methods, name, replace(scorer, attribution=attribution))


def test_what_fails_is_reported_and_the_rest_kept(demo, monkeypatch):
    model, tokenizer = demo
    before = state_of(model)
    whole = compare(model, TEXTS, tokenizer=tokenizer, methods=["relevance", "random", "saliency"])
    breaking("saliency", lambda ids: True, monkeypatch)
    found = compare(model, TEXTS, tokenizer=tokenizer, methods=["saliency", "head", "relevance", "random"])
    assert found.failures["saliency"] == "RuntimeError: one of the variables is gone"
    assert "head made with hf_attn_mi.heads" in found.failures["head"]
    assert found.methods == ("relevance", "random")
    for name in found.methods:  # in other batches without saliency, so that sums may round differently
        assert found.values[name].keys() == whole.values[name].keys()
        for metric, column in found.values[name].items():
            assert column == pytest.approx(whole.values[name][metric], abs=1e-6)
    assert "saliency" not in found.costs
    assert state_of(model) == before
    with pytest.raises(InvalidInputError, match=r"none of them could be run.*variables"):
        compare(model, TEXTS, tokenizer=tokenizer, methods=["saliency"])


def test_a_method_that_fails_on_one_input_keeps_the_others(demo, monkeypatch):
    model, tokenizer = demo
    whole = compare(model, TEXTS, tokenizer=tokenizer, methods=["saliency", "random"])
    longest = max(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    breaking("saliency", lambda ids: ids.shape[1] == longest, monkeypatch)
    found = compare(model, TEXTS, tokenizer=tokenizer, methods=["saliency", "random"])
    assert found.failures["saliency"] == "1 of 5 inputs: RuntimeError: one of the variables is gone"
    values = found.values["saliency"]["comprehensiveness"]
    assert values[2] is None
    kept = whole.values["saliency"]["comprehensiveness"]
    assert [x for i, x in enumerate(values) if i != 2] == pytest.approx([x for i, x in enumerate(kept) if i != 2])
    assert found.table["saliency"]["comprehensiveness"].inputs == 4
    assert found.tests["comprehensiveness"][0].difference.inputs == 4
    assert found.costs["saliency"].forwards == pytest.approx(1)  # of those that were done


def test_without_captum_its_methods_fail_alone(demo, monkeypatch):
    ask = builtins.__import__

    def refuse(name, *rest, **options):
        if name.split(".")[0] == "captum":
            raise ModuleNotFoundError("No module named 'captum'")
        return ask(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    methods = ["relevance", "integrated_gradients", "value_norms"]
    found = compare(demo[0], TEXTS, tokenizer=demo[1], methods=methods)
    assert found.methods == ("relevance", "value_norms")
    assert "No module named 'captum'" in found.failures["integrated_gradients"]


@pytest.mark.parametrize("most", [3, 1])
def test_where_memory_runs_out_batches_get_smaller_and_it_is_said(fresh, most, monkeypatch):
    model, tokenizer = fresh
    wanted = compare(model, TEXTS, tokenizer=tokenizer, methods=["relevance", "attention"])
    inner = model.forward

    def small(*args, **kwargs):
        if kwargs["input_ids"].shape[0] > most:
            raise torch.OutOfMemoryError("out of memory")
        return inner(*args, **kwargs)

    monkeypatch.setattr(model, "forward", small)
    found = compare(model, TEXTS, tokenizer=tokenizer, methods=["relevance", "attention"], batch_size=6)
    assert found.failures == {}
    for name in found.methods:
        for metric in found.metrics:
            assert found.values[name][metric] == pytest.approx(wanted.values[name][metric], abs=1e-6)
    notes = " ".join(found.info["warnings"])
    assert re.search(r"the batches were halved to [123]\.", notes)
    # Where two rows do not fit, the replaced forward cannot be tested with padding, and no method runs a batch.
    assert ("relevance: Memory ran out: inputs were scored in smaller batches." in notes) == (most > 1)


def test_targets(demo):
    model, tokenizer = demo
    names = model.config.id2label
    by_label = compare(model, TEXTS, tokenizer=tokenizer, methods=["relevance"], target=names[0])
    by_number = compare(model, TEXTS, tokenizer=tokenizer, methods=["relevance"], target=[0] * len(TEXTS))
    function = compare(
        model,
        TEXTS,
        tokenizer=tokenizer,
        methods=["relevance", "feature_ablation"],
        target=lambda outputs: outputs.logits[:, 0] - outputs.logits[:, 1],
    )
    assert by_label.values == by_number.values
    assert function.failures == {}
    # Two classes: the logit difference explains the same tokens, but removal is judged in logits, not probabilities.
    assert abs(function.table["relevance"]["comprehensiveness"].mean) > 1
    assert abs(by_label.table["relevance"]["comprehensiveness"].mean) < 1
    regression = tiny_bert(num_labels=1, problem_type="regression")
    assert compare(regression, TEXTS, tokenizer=tokenizer, methods=["relevance", "attention"]).failures == {}


def test_constant_scores_have_no_rank_correlation(demo):
    model, tokenizer = demo
    flat = [[1.0] * len(tokenizer(text)["input_ids"]) for text in TEXTS]
    found = compare(
        model,
        TEXTS,
        tokenizer=tokenizer,
        methods=["random"],
        scores={"flat": flat},
        metrics=["leave_one_out", "comprehensiveness"],
    )
    assert found.values["flat"]["leave_one_out"] == (None,) * len(TEXTS)
    assert found.table["flat"]["leave_one_out"].mean is None
    assert found.agreement.tau[0][1].mean is None
    assert found.agreement.tau[1][1].mean is None
    assert found.table["flat"]["comprehensiveness"].inputs == len(TEXTS)
    found.to_html(), found.to_markdown(), str(found)


def test_sensitivity_and_gaps(demo):
    model, tokenizer = demo
    text = TEXTS[0]
    metrics = ["max_sensitivity", "completeness_gap"]
    found = compare(
        model,
        [text],
        tokenizer=tokenizer,
        methods=["relevance", "attention", "integrated_gradients", "random"],
        options=SMALL,
        metrics=metrics,
        scores={"given": [torch.ones(len(tokenizer(text)["input_ids"]))]},
        seed=2,
    )
    encoded = tokenizer(text, return_tensors="pt")
    embeddings = model.get_input_embeddings()(encoded.pop("input_ids")).detach()
    generator = torch.Generator().manual_seed(2)
    noise = (torch.rand((10, *embeddings.shape[1:]), generator=generator, dtype=torch.float64) * 2 - 1) * 0.02
    for method in ("relevance", "attention"):
        seen = explain(model, text, tokenizer=tokenizer, method=method)
        moved = [
            explain(model, {**encoded, "inputs_embeds": embeddings + delta.float()}, target=seen.target, method=method)
            for delta in noise
        ]
        wanted = relative_change(seen.scores, torch.stack([one.scores for one in moved]))
        assert found.values[method]["max_sensitivity"][0] == pytest.approx(wanted, rel=1e-3), method
    assert found.values["random"]["max_sensitivity"] == (None,)  # it draws by the ids
    assert found.values["given"]["max_sensitivity"] == (None,)
    for method, options in (("relevance", None), ("integrated_gradients", SMALL["integrated_gradients"])):
        gap = explain(model, text, tokenizer=tokenizer, method=method, options=options).completeness_gap
        assert found.values[method]["completeness_gap"][0] == pytest.approx(gap, abs=1e-6)
    assert found.values["attention"]["completeness_gap"] == (None,)


def test_all_metrics_and_a_saved_comparison(demo, tmp_path, capsys):
    from hf_attn_mi.results.comparison import Comparison

    model, tokenizer = demo
    found = compare(
        model,
        TEXTS[:3],
        tokenizer=tokenizer,
        methods=["relevance", "random"],
        metrics="all",
        rationales=[[(2, 9)], [], None],
    )
    assert "max_sensitivity" not in found.metrics
    assert {"normalized_aopc", "completeness_gap", "auprc", "infidelity"} < set(found.metrics)
    found.save(tmp_path / "c.json")
    assert Comparison.load(tmp_path / "c.json") == found
    assert capsys.readouterr().err == ""  # no bar where nobody watches


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"methods": ["saliency", "magic"]}, "['magic'] are not known; allowed are relevance"),
        ({"methods": "relevance"}, "methods must be a list"),
        ({"methods": []}, "methods is empty"),
        ({"methods": ["random", "random"]}, "name one twice"),
        ({"metrics": ["beauty"]}, "['beauty'] is not known; allowed are 'all'"),
        ({"metrics": []}, "allowed are"),
        ({"metrics": ["auprc"]}, "need human rationales"),
        ({"metrics": ["sufficiency", "sufficiency"]}, "one twice"),
        ({"removal": "burn"}, "'delete', 'mask', 'attention_mask'"),
        ({"by": "size"}, "'signed', 'absolute'"),
        ({"options": {"lime": {"samples": 5}}}, "['lime']"),
        ({"options": {"random": {"steps": 5}}}, "no option 'steps'"),
        ({"options": 5}, "options must be a dict"),
        ({"batch_size": 0}, "batch_size"),
        ({"truncation": 1}, "truncation"),
        ({"seed": -1}, "seed"),
        ({"scores": [1]}, "scores must be a dict"),
        ({"scores": {"random": []}}, "name one twice"),
        ({"scores": {"a": []}}, "0 entries for 1 inputs"),
        ({"scores": {"a": [[1.0, 2.0]]}}, "shape (2,), its input has 7 tokens"),
        ({"scores": {"a": [[float("nan")] * 7]}}, "NaN or infinite"),
        ({"scores": {"a": ["text"]}}, "must be numbers"),
        ({"target": "no label"}, "not a label"),
        ({"inputs": []}, "empty"),
        ({"inputs": {"pixel_values": torch.ones(1, 3, 4, 4)}}, "pixel_values"),
    ],
)
def test_bad_input_is_named(demo, arguments, words):
    model, tokenizer = demo
    texts = arguments.pop("inputs", [TEXTS[0]])
    assert len(tokenizer(TEXTS[0])["input_ids"]) == 7
    with pytest.raises(InvalidInputError, match=re.escape(words)):
        compare(model, texts, tokenizer=tokenizer, **{"methods": ["random"], **arguments})


def test_long_texts_are_cut_and_that_is_said(fresh):
    model, tokenizer = load_demo()
    limit = model.config.max_position_embeddings
    text = "very good " * limit
    with pytest.raises(InvalidInputError, match="truncation=True"):
        compare(model, [text, TEXTS[0]], tokenizer=tokenizer, methods=["random"])
    with pytest.warns(UserWarning, match="was cut"):
        found = compare(model, [text, TEXTS[0]], tokenizer=tokenizer, methods=["random"], truncation=True)
    assert "1 of 2 inputs were cut to what the model takes." in found.info["warnings"]


def test_tensors_with_a_tokenizer_are_the_texts(demo):
    model, tokenizer = demo
    encoded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    texts = compare(model, TEXTS, tokenizer=tokenizer, methods=["relevance", "random"])
    tensors = compare(model, encoded, tokenizer=tokenizer, methods=["relevance", "random"])
    for method in texts.methods:
        for metric in texts.metrics:
            assert tensors.values[method][metric] == pytest.approx(texts.values[method][metric], abs=1e-6)
    bare = compare(model, dict(encoded), methods=["random"])  # the tokenizer saved beside the model is found
    assert bare.values["random"]["sufficiency"] == pytest.approx(texts.values["random"]["sufficiency"], abs=1e-6)
