"""`fit_information` and `explain(profile=)`: which states, whose information, and for which model."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import sys
import warnings

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from hf_attn_mi import Explanation, InformationProfile, InvalidInputError, explain, fit_information
from hf_attn_mi.data.reservoir import Reservoir
from hf_attn_mi.models.inspect_layers import inspect_layers
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.weights import fingerprint as fingerprint_of
from hf_attn_mi.tasks.sites import DRAWS
from hf_attn_mi.tasks.state_collection import StateCollection
from tests.mi.other_device import DEVICE, OtherDevice
from tests.sample_models import SIZES, distance, load_small, reads_its_padding, state_of, tiny_bert, zoo_model

ALL = ("tokens", "first", "positions", "attention", "types")
GOOD, BAD = ["brilliant", "moving", "funny", "beautiful"], ["dull", "boring", "awful", "worst"]
PLAIN = ["film", "story", "plot", "cast", "music", "and", "the", "long", "ending", "very"]


def sentences(count, seed=0):
    """Texts of 2 to 15 words, most of them for or against a film."""
    chance = random.Random(seed)
    return [
        " ".join(chance.choice(chance.choice([kind, PLAIN, PLAIN])) for _ in range(chance.randint(2, 15)))
        for kind in (chance.choice([GOOD, BAD]) for _ in range(count))
    ]


TEXTS = sentences(160)
NEW = ["A quietly moving film.", "dull", "The plot makes no sense, but the cast is brilliant and very funny in places."]


def fit(model, texts, tokenizer=None, **options):
    """A profile by the closed form, with few permutations."""
    return fit_information(
        model, texts, tokenizer=tokenizer, **{"estimator": "gaussian", "permutations": 20, **options}
    )


@pytest.fixture(scope="module")
def demo():
    """A small trained model and its tokenizer; tests leave both as they were."""
    return load_small()


@pytest.fixture
def fresh():
    """A copy of the small trained model that a test may change, and its tokenizer."""
    return load_small()


@pytest.fixture(scope="module")
def fitted():
    """The embedded model, its tokenizer and a profile of every site."""
    model, tokenizer = load_small()
    return model, tokenizer, fit(model, TEXTS, sites=ALL)


def own_states(model, tokenizer, text):
    """The model's own hidden states, attention rows, logits and the tokens of one text."""
    batch = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        out = model(**batch, output_hidden_states=True)
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        rows = eager(**batch, output_attentions=True).attentions
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    return torch.cat(out.hidden_states), [r[0] for r in rows], out.logits[0].double(), tokens


def alike(one, other):
    """Equal information but for rounding. The samples are compared state by state elsewhere."""
    assert one.sites == other.sites
    for name in ("nats", "interval", "p_value", "family_p_value"):
        wanted = getattr(other.information, name)
        torch.testing.assert_close(getattr(one.information, name), wanted, rtol=1e-3, atol=1e-3)


def sampled(model, tokenizer, size):
    """The sample of all sites by batches of this size."""
    run = StateCollection(EncoderRunner(model, tokenizer), ALL, None, 2**30, 0, len(TEXTS))
    for start in range(0, len(TEXTS), 80):
        run.take(TEXTS[start : start + 80], size)
    return run.sample


# --- which states ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7])
def test_the_sample_holds_the_states_of_its_tokens(demo, size):
    model, tokenizer = demo
    texts = TEXTS[:45]
    run = StateCollection(EncoderRunner(model, tokenizer), ALL, None, 2**30, 0)
    run.take(texts, size)
    names = run.plan.names
    assert run.layers == (0, 1, 2, 3, 4)
    for row, text in enumerate(texts):
        states, rows, logits, tokens = own_states(model, tokenizer, text)
        found, present = run.sample.states[:, :, row], run.sample.present[:, :, row]
        torch.testing.assert_close(run.sample.outputs[row], logits.softmax(0), rtol=1e-5, atol=1e-6)

        def holds(pick, place, found=found, states=states):
            return torch.allclose(found[:, pick], states[:, place], rtol=1e-4, atol=1e-5)

        ordinary = range(1, len(tokens) - 1)
        drawn = [next(place for place in ordinary if holds(pick, place)) for pick in range(DRAWS)]
        assert len({tokens[i] for i in drawn}) >= min(DRAWS, len({tokens[i] for i in ordinary})) - 3
        assert holds(names.index("first"), 0)
        assert holds(names.index("type [SEP]"), len(tokens) - 1)
        assert holds(names.index("type [CLS]"), 0)
        assert any(holds(names.index("type text A"), place) for place in ordinary)
        for place in range(1, 8):
            pick = names.index(f"position {place}")
            assert bool(present[:, pick].all()) == (place < len(tokens)) == bool(present[:, pick].any())
            assert place >= len(tokens) or holds(pick, place)
        assert not present[0, names.index("attention rank 1") :].any()  # no attention made the embeddings
        for layer in range(1, 5):
            received = rows[layer - 1].mean((0, 1))[1:-1]
            for rank, place in enumerate(received.argsort(descending=True)[:5].tolist(), 1):
                pick = names.index(f"attention rank {rank}")
                torch.testing.assert_close(found[layer, pick], states[layer, 1 + place], rtol=1e-4, atol=1e-5)
            assert int(present[layer, names.index("attention rank 1") :].sum()) == min(5, len(ordinary))


def test_draws_are_random_tokens_without_repetition(demo):
    run = StateCollection(EncoderRunner(*demo), ("tokens",), [4], 2**30, 0)
    run.take(["the film and the music are long and very moving"] * 400, 64)
    first = run.sample.states[0, 0, :400]
    counts = torch.unique(first, dim=0, return_counts=True)[1]
    kinds, _, tokens = len(counts), 0, 10
    assert kinds == tokens  # every token is drawn, about as often: 40 +- 4 sqrt(40 (1 - 1/10))
    assert int((counts - 40).abs().max()) <= 24
    for row in range(400):
        assert len(torch.unique(run.sample.states[0, :DRAWS, row], dim=0)) == DRAWS


@pytest.mark.parametrize("kind", ["demo", "convbert"])  # which reads its padding
def test_batches_and_padding_change_nothing(demo, kind):
    model = demo[0] if kind == "demo" else reads_its_padding(kind)
    wanted = sampled(model, demo[1], 1)
    for size in (5, 64):
        found = sampled(model, demo[1], size)
        assert torch.equal(found.present, wanted.present)
        kept = wanted.present[:, :, : len(TEXTS), None]
        one, other = (torch.where(kept, sample.states[:, :, : len(TEXTS)], 0) for sample in (found, wanted))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.outputs, wanted.outputs, rtol=1e-4, atol=1e-6)
    profile, same = (fit(model, TEXTS, demo[1], batch_size=size) for size in (1, 32))
    alike(profile, same)


def test_the_seed_changes_the_draws_and_nothing_else_does(demo):
    model, _ = demo
    sites = ("tokens", "attention", "types")
    wanted, again, other = (fit(model, TEXTS, sites=sites, layers=[0, 4], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(again.information.nats, wanted.information.nats)
    assert torch.equal(again.probe.directions, wanted.probe.directions)
    place = wanted.find(0, "tokens")
    assert abs(float(other.information.nats[place] - wanted.information.nats[place])) > 1e-4
    alone = fit(model, TEXTS, layers=[0, 4])  # other sites beside it change no draw of "tokens"
    assert torch.equal(alone.information.nats[alone.find(0, "tokens")], wanted.information.nats[place])


# --- what is computed --------------------------------------------------------------------------------------------


def test_ceiling_prior_and_slots(fitted):
    model, tokenizer, profile = fitted
    p = torch.stack([own_states(model, tokenizer, text)[2].softmax(0) for text in TEXTS])

    def entropy(q):
        return -(q * q.log()).sum(-1)

    assert profile.ceiling == pytest.approx(float(entropy(p.mean(0)) - entropy(p).mean()), rel=1e-5)
    torch.testing.assert_close(profile.prior.double(), p.mean(0), rtol=1e-4, atol=1e-5)
    assert (profile.n, profile.layers, profile.labels) == (160, (0, 1, 2, 3, 4), ("negative", "positive"))
    assert {site.stack for site in profile.sites} == {"bert"}
    lengths = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
    for site in profile.sites:
        if site.name.startswith("position "):
            assert site.n == sum(length > int(site.name.split()[1]) for length in lengths)
            assert 2 * site.n >= 160
        elif site.name.startswith("attention rank"):
            assert site.n == sum(length - 2 >= int(site.name.split()[2]) for length in lengths)
            assert site.layer > 0
        else:
            assert site.n == 160
    table = profile.table()
    assert table[0][:3] == ["layer", "tokens", "first"]
    assert [row[0] for row in table[1:]] == ["0", "1", "2", "3", "4"]
    place = profile.find(4, "first")
    information = profile.information
    bounds = f"{float(information.lower_bound[place]):.3f} to {float(information.upper_bound[place]):.3f}; "
    assert table[5][2].startswith(f"{bounds}{float(information.nats[place]):.3f} [")
    assert table[1][table[0].index("attention rank 1")] == "-"
    assert "ceiling" in str(profile)
    with pytest.raises(InvalidInputError, match=r"no site 'last' of layer 2: there are layers \[0, 1, 2, 3, 4\]"):
        profile.find(2, "last")


def test_positions_that_most_inputs_lack_are_no_slot(demo):
    texts = [*sentences(60, seed=1), *["a film", "so dull"] * 40]  # 4 tokens with [CLS] and [SEP]
    names = {site.name for site in fit(demo[0], texts, sites="positions").sites}
    assert names == {"tokens", "first", "position 1", "position 2", "position 3"}


def test_tokens_are_scored_by_the_probes(fitted):
    model, tokenizer, profile = fitted
    for found, text in zip(explain(model, NEW, profile=profile), NEW):
        states, _, logits, tokens = own_states(model, tokenizer, text)
        information = found.information
        assert len(information["layers"]) == 5
        assert (information["unit"], information["n"]) == ("nats", 160)
        assert information["labels"] == ("negative", "positive")
        for layer, told in enumerate(information["layers"]):
            assert told["layer"] == layer
            wanted = []
            for probe in (profile.probe, *profile.halves):
                prior = probe.prior.double().log()
                gains = []
                for i in range(len(tokens)):
                    place = profile.find(layer, "first" if i == 0 else "tokens")
                    w, b = probe.directions[place].double(), probe.offsets[place].double()
                    gains.append((w @ states[layer, i].double() + b).log_softmax(0) - prior)
                gain = torch.stack(gains)
                wanted.append((((gain + prior).exp() * gain).sum(1), (logits.softmax(0) * gain).sum(1)))
            for told_values, values in zip((told["kl"], told["v_information"]), wanted[0]):
                assert len(told_values) == len(tokens)
                torch.testing.assert_close(torch.tensor(told_values).double(), values, rtol=1e-3, atol=1e-4)
            for half, (kl, _) in zip(told["split_half"], wanted[1:], strict=True):
                torch.testing.assert_close(torch.tensor(half).double(), kl, rtol=1e-3, atol=1e-4)
            place = profile.find(layer, "tokens")
            assert told["mi"]["tokens"]["nats"] == float(profile.information.nats[place])
            assert told["mi"]["tokens"]["interval"] == tuple(profile.information.interval[place].tolist())
        assert Explanation.from_dict(found.to_dict()) == found
    assert explain(model, NEW[0]).information is None


@pytest.mark.parametrize("method", ["relevance", "attention"])
def test_information_does_not_depend_on_method_batch_or_padding(fitted, method):
    model, tokenizer, profile = fitted
    alone = [explain(model, text, profile=profile) for text in NEW]
    encoded = dict(tokenizer(NEW, padding=True, return_tensors="pt"))
    for inputs in (NEW, encoded):
        for found, wanted in zip(explain(model, inputs, method=method, profile=profile), alone):
            for told, same in zip(found.information["layers"], wanted.information["layers"], strict=True):
                assert told["kl"] == pytest.approx(same["kl"], rel=1e-3, abs=1e-5)
                assert told["v_information"] == pytest.approx(same["v_information"], rel=1e-3, abs=1e-5)


def test_masked_tokens_count_as_nothing(fitted):
    model, tokenizer, profile = fitted
    ids = tokenizer(NEW[0], return_tensors="pt")["input_ids"]
    mask = torch.ones_like(ids)
    mask[0, 3] = 0
    found = explain(model, {"input_ids": ids, "attention_mask": mask}, profile=profile)
    for told in found.information["layers"]:
        assert (told["kl"][3], told["v_information"][3]) == (0.0, 0.0)
        assert told["kl"][2] > 0


def test_halves_are_disjoint_and_differ(fitted):
    profile = fitted[2]
    first, second = profile.halves
    place = profile.find(4, "tokens")
    assert distance(first.directions[place], second.directions[place]) > 0.05
    merged = (first.prior.double() + second.prior.double()) / 2  # 80 inputs each: their mean is that of all
    torch.testing.assert_close(merged, profile.prior.double(), rtol=1e-4, atol=1e-5)


def test_estimation_runs_on_the_device_of_the_model(demo, monkeypatch):
    model, tokenizer = demo
    profile = fit(model, TEXTS[:60], tokenizer, layers=[1], permutations=3)
    assert profile.info["estimated_on"] == "cpu"
    monkeypatch.setattr(sys.modules["hf_attn_mi.tasks.fit_information"], "estimation_device", lambda device: DEVICE)
    with OtherDevice() as device:
        found = fit(model, TEXTS[:60], tokenizer, layers=[1], permutations=3)
    assert found.info["estimated_on"] == str(DEVICE)
    # nothing with a number for each example comes back but the draw of a class and the mark of a site (comparisons);
    # `_fit` returns the probes
    assert {name for name, count in device.copies if count >= found.n} <= {"draw_classes", "mark_of", "_fit"}
    for name in ("lower_bound", "upper_bound", "nats", "interval", "p_value"):
        value = getattr(found.information, name)
        torch.testing.assert_close(value, getattr(profile.information, name), rtol=0, atol=1e-6)
    for one, other in zip((found.probe, *found.halves), (profile.probe, *profile.halves), strict=True):
        torch.testing.assert_close(one.directions, other.directions, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(one.offsets, other.offsets, rtol=1e-4, atol=1e-6)


# --- which model -------------------------------------------------------------------------------------------------


def test_profiles_of_another_model_are_refused(fitted, fresh):
    model, _ = fresh
    profile = fitted[2]
    assert explain(model, NEW[0], profile=profile).information is not None  # a copy is the same model
    with torch.no_grad():
        model.bert.encoder.layer[2].output.dense.bias[3] += 1e-3
    with pytest.raises(InvalidInputError) as caught:
        explain(model, NEW[0], profile=profile)
    for fingerprint in (profile.fingerprint, fingerprint_of(model)):
        assert fingerprint["weights"][:12] in str(caught.value)
    with pytest.raises(InvalidInputError, match=r"profile was fitted for demo_model .*this model is BertForSequence"):
        explain(tiny_bert(), {"input_ids": torch.tensor([[2, 5, 3]])}, profile=profile)
    with pytest.raises(InvalidInputError, match="profile must be an InformationProfile"):
        explain(model, NEW[0], profile=["a"])


def test_fingerprints(tmp_path):
    model = tiny_bert()
    own = fingerprint_of(model)
    model.save_pretrained(tmp_path)
    loaded = BertForSequenceClassification.from_pretrained(tmp_path, attn_implementation="eager")
    assert fingerprint_of(loaded) == own
    assert fingerprint_of(loaded.half())["weights"] != own["weights"]
    model.config.layer_norm_eps *= 2
    changed = fingerprint_of(model)
    assert (changed["config"] != own["config"], changed["weights"]) == (True, own["weights"])


def test_layers_of_another_pass_are_refused(fitted):
    model, _, profile = fitted
    moved = tuple(dataclasses.replace(site, layer=site.layer + 3) for site in profile.sites)
    with pytest.raises(InvalidInputError, match=r"profile has layers \[3, 4, 5, 6, 7\] of 'bert'; .* has \[3, 4\]"):
        explain(model, NEW[0], profile=dataclasses.replace(profile, sites=moved))


def test_chosen_layers(fitted):
    model, _, whole = fitted
    some = fit(model, TEXTS, layers=[4, 1])
    assert some.layers == (1, 4)
    for layer in (1, 4):
        one, other = (
            some.information.nats[some.find(layer, "first")],
            whole.information.nats[whole.find(layer, "first")],
        )
        assert float(one) == pytest.approx(float(other), abs=1e-5)
    assert [told["layer"] for told in explain(model, NEW[0], profile=some).information["layers"]] == [1, 4]
    assert fit(model, TEXTS, layers=[1]).ceiling_check()["reached"] is None  # the last layer is not there


@pytest.mark.parametrize(
    ("name", "stack", "reads"),
    [
        ("seqcls-bert", "bert", "first"),
        ("seqcls-modernbert", "model", "first"),
        ("seqcls-ctrl", "transformer", "last"),
        ("seqcls-gpt2", "transformer", "last"),
        ("seqcls-bart", "model.encoder", None),
        ("seqcls-xlnet", "", None),
    ],
)
def test_what_the_output_reads(name, stack, reads):
    model, inputs = zoo_model(name)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = state_of(model)
    found = inspect_layers(EncoderRunner(model), EncoderRunner(model).encode(inputs)[0][0])
    assert (found.stack, found.reads, found.layers[0]) == (stack, reads, 0)
    assert state_of(model) == before


def test_a_model_that_reads_its_last_token_gets_that_site(demo):
    model, _ = zoo_model("seqcls-gpt2")
    model.resize_token_embeddings(8000)
    model.config.pad_token_id = 0
    profile = fit(model, TEXTS, demo[1])
    assert profile.ceiling_check()["site"] == "last"
    run = StateCollection(EncoderRunner(model, demo[1]), ("tokens",), None, 2**30, 0)
    run.take(TEXTS[:45], 8)
    pick = run.plan.names.index("last")
    for row, text in enumerate(TEXTS[:5]):
        with torch.no_grad():
            states = model(**demo[1](text, return_tensors="pt"), output_hidden_states=True).hidden_states
        torch.testing.assert_close(run.sample.states[-1, pick, row], states[-1][0, -1], rtol=1e-4, atol=1e-5)


def test_the_model_is_left_as_it_was(fresh):
    model, _ = fresh
    model.train()
    model.bert.encoder.layer[1].eval()
    before = state_of(model)
    with torch.inference_mode():
        profile = fit(model, TEXTS, sites=ALL, layers=[1])
    assert state_of(model) == before
    explain(model, NEW, profile=profile)
    assert state_of(model) == before


# --- which texts -------------------------------------------------------------------------------------------------


def test_texts_are_counted(demo):
    texts = [*TEXTS, "", "\u200b", "a film " * 300]
    with pytest.warns(UserWarning, match="1 of 162 texts were cut to the model's maximum length"):
        profile = fit(demo[0], texts)
    assert dict(profile.info["texts"]) == {"seen": 162, "kept": 161, "empty": 1, "without_tokens": 1, "truncated": 1}
    assert fit(demo[0], TEXTS, limit=100).n == 100


def test_copies_are_named(demo):
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS)]
    with pytest.warns(UserWarning, match="80 of 160 inputs are equal to others. Bounds, intervals and p-values hold"):
        profile = fit(demo[0], texts[:80] * 2)
    assert "80 of 160 inputs are equal" in profile.info["warnings"][0]
    assert "warning: 80 of 160 inputs are equal" in profile.to_text()
    assert fit(demo[0], [*texts, texts[0]]).info["warnings"] == ()  # one in a hundred changes nothing


def test_warnings_of_sites_have_their_names_and_are_shown(demo):
    """The first token has the same embedding in every input; its layer stands in the table, and so in the warning."""
    profile = fit(demo[0], TEXTS)
    place = profile.find(0, "first")
    assert profile.information.names[place] == "layer 0, first"
    assert profile.information.nats[place] == 0
    assert any("layer 0, first: all 160 states" in text for text in profile.information.warnings)
    lines = [line for line in profile.to_text().splitlines() if line.startswith("warning: ")]
    assert [line.removeprefix("warning: ") for line in lines] == profile.warnings()
    few = [text for text in profile.information.warnings if "examples are too few" in text]
    shown = [text for text in profile.warnings() if "examples are too few" in text]
    assert len(few) > 1 == len(shown)
    assert f"(and {len(few) - 1} more of this kind)" in shown[0]
    assert "valid for independent inputs of any distribution" in profile.to_text()


def test_memory_holds_a_random_sample(demo):
    model, _ = demo
    each = 5 * (DRAWS + 1) * 128 * 4  # layers, picks, width, bytes
    with pytest.warns(
        UserWarning, match=rf"100 of 160 inputs were kept.* memory={100 * each + 5} bytes \({each} for each input\)"
    ):
        some = fit(model, TEXTS, memory=100 * each + 5)
    assert (some.n, some.info["texts"]["kept"], some.info["memory"]["states"]) == (100, 100, 100 * each)
    assert "100 of 160" in some.info["warnings"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alike(fit(model, TEXTS, memory=100 * each, batch_size=3), some)
    run = StateCollection(EncoderRunner(*demo), ("tokens",), None, 50 * each, 0)
    run.take(TEXTS[:100], 16)
    run.take(TEXTS[100:], 16)
    assert sorted(run.sample.owner) == list(range(50))
    for row, number in run.sample.owner.items():  # inputs that lost their row left nothing in it
        states = own_states(*demo, TEXTS[number])[0]
        torch.testing.assert_close(run.sample.states[1:, DRAWS, row], states[1:, 0], rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidInputError, match=r"memory=1000 bytes holds 0 inputs of 12800 bytes"):
        fit(model, TEXTS, memory=1000)


def test_the_sample_is_uniform():
    counts = torch.zeros(30)
    for seed in range(400):
        sample = Reservoir(10, (1, 1, 1), 2, seed=seed)
        for number in range(30):
            sample.offer(number)
        counts[list(sample.owner.values())] += 1
        assert len(set(sample.owner.values())) == 10
    # Each input is kept in a third of the draws: 133 +- 4 sqrt(400 * 1/3 * 2/3).
    assert float((counts - 400 / 3).abs().max()) < 38


def test_pairs_have_their_own_types(demo):
    chance = random.Random(3)
    pairs = [(text, chance.choice(TEXTS)) for text in TEXTS]
    profile = fit(demo[0], pairs, sites="types")
    names = {site.name for site in profile.sites}
    assert names == {"tokens", "first", "type [CLS]", "type [SEP]", "type text A", "type text B"}
    mixed = [*pairs[:10], *TEXTS[10:]]
    with pytest.warns(UserWarning, match="type text B: left out, 10 examples: .* n = 10 "):
        some = fit(demo[0], mixed, sites="types")
    assert "type text B" not in {site.name for site in some.sites}
    with pytest.warns(UserWarning, match=r"type text B: left out, since it has 1 examples and needs at least two"):
        fit(demo[0], [pairs[0], *TEXTS[1:]], sites="types")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sites": "words"}, "sites must be one or several of tokens, first, positions, attention, types; not 'words'"),
        ({"sites": ()}, "sites must be one or several"),
        ({"layers": [5]}, r"layers \[5\] do not exist; this model has \[0, 1, 2, 3, 4\]"),
        ({"layers": 3}, "layers must be None"),
        ({"batch_size": 0}, "batch_size must be a positive whole number, not 0"),
        ({"memory": 1.5}, "memory must be a positive whole number"),
        ({"seed": "a"}, "seed must be a whole number"),
        ({"dataset": TEXTS[:39]}, "dataset has 39 texts with tokens; a profile needs 20 for each class"),
        ({"dataset": []}, "dataset has 0 texts"),
        ({"dataset": 3}, "dataset must be a list of texts"),
        ({"estimator": "magic"}, "estimator"),
    ],
)
def test_wrong_arguments(demo, options, message):
    with pytest.raises(InvalidInputError, match=message):
        fit(demo[0], **{"texts": options.pop("dataset", TEXTS), **options})


def test_models_without_a_distribution_over_classes(demo):
    bare = BertModel(BertConfig(**SIZES, intermediate_size=64)).eval()
    for model, message in [
        (tiny_bert(num_labels=1), r"logits of shape \(1, 1\)"),
        (tiny_bert(num_labels=3, problem_type="regression"), "problem_type 'regression' gives no distribution"),
        (tiny_bert(num_labels=3, problem_type="multi_label_classification"), "'multi_label_classification'"),
        (bare, "BertModel has logits of shape none"),
    ]:
        with pytest.raises(InvalidInputError, match=message + ".*num_labels >= 2"):
            fit(model, TEXTS, demo[1])


def test_one_class_only_says_nothing(fresh):
    model, tokenizer = fresh
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([400.0, -400.0]))  # exp(-800) is 0: the other class never comes
    with pytest.raises(InvalidInputError, match="one class only"):
        fit(model, TEXTS, tokenizer)


# --- files -------------------------------------------------------------------------------------------------------


def test_saved_and_loaded(fitted, tmp_path):
    model, _, profile = fitted
    profile.save(tmp_path / "saved")
    assert sorted(file.name for file in (tmp_path / "saved").iterdir()) == ["profile.json", "profile.safetensors"]
    assert [file.name for file in tmp_path.iterdir()] == ["saved"]
    loaded = InformationProfile.load(tmp_path / "saved")
    for name in ("sites", "labels", "fingerprint", "info"):
        assert getattr(loaded, name) == getattr(profile, name)
    for one, other in zip(
        (loaded.information, loaded.probe, *loaded.halves),
        (profile.information, profile.probe, *profile.halves),
    ):
        for item in dataclasses.fields(one):
            value, wanted = getattr(one, item.name), getattr(other, item.name)
            same = (
                torch.equal(value, wanted) and value.dtype == wanted.dtype
                if torch.is_tensor(value)
                else value == wanted
            )
            assert same, item.name
    assert loaded.ceiling_check() == profile.ceiling_check()
    assert explain(model, NEW[0], profile=loaded).information == explain(model, NEW[0], profile=profile).information


def test_saving_replaces_nothing_else(fitted, tmp_path):
    profile = fitted[2]
    profile.save(tmp_path / "saved")
    with pytest.raises(InvalidInputError, match="exists; choose another name or pass overwrite=True"):
        profile.save(tmp_path / "saved")
    profile.save(tmp_path / "saved", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(InvalidInputError, match="is not a saved profile and is not replaced"):
        profile.save(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"
    with pytest.raises(InvalidInputError, match="does not exist; create it first"):
        profile.save(tmp_path / "none" / "saved")


def test_a_failing_save_leaves_what_was_there(fitted, tmp_path, monkeypatch):
    profile = fitted[2]
    profile.save(tmp_path / "saved")
    before = (tmp_path / "saved" / "profile.json").read_bytes()

    def full(*args, **options):
        raise OSError("disk full")

    monkeypatch.setattr("hf_attn_mi.results.storage.save_file", full)
    with pytest.raises(OSError, match="disk full"):
        profile.save(tmp_path / "saved", overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["saved"]
    assert (tmp_path / "saved" / "profile.json").read_bytes() == before


def test_damaged_files_are_refused(fitted, tmp_path):
    profile = fitted[2]
    profile.save(tmp_path / "saved")
    path = tmp_path / "saved" / "profile.json"
    data = json.loads(path.read_text())
    cases = {
        "must be 'hf_attn_mi.InformationProfile'": {**data, "type": "other"},
        "has schema 99; this version reads schema 1 only": {**data, "schema": 99},
        "is not a saved information profile: probe missing": {
            key: value for key, value in data.items() if key != "probe"
        },
        "is not a saved information profile: information has": {**data, "sites": data["sites"][1:]},
    }
    for message, changed in cases.items():
        path.write_text(json.dumps(changed))
        with pytest.raises(InvalidInputError, match=message):
            InformationProfile.load(tmp_path / "saved")
    path.write_text(json.dumps(data))
    tensors = tmp_path / "saved" / "profile.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-9])
    with pytest.raises(InvalidInputError, match="is damaged: SafetensorError"):
        InformationProfile.load(tmp_path / "saved")
    with pytest.raises(InvalidInputError, match="is not a saved profile: a folder with"):
        InformationProfile.load(tmp_path)
