"""What holds for every method of `hf_attn_mi.methods.captum`, through `explain`."""

import json
import random

import numpy as np
import pytest
import torch

from hf_attn_mi import Explanation, explain
from hf_attn_mi.cli import main
from hf_attn_mi.methods import captum, controls, find_method
from hf_attn_mi.methods.captum.embedding_forward import EmbeddingForward
from hf_attn_mi.models.output_heads import Function
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target
from tests.methods.toys import FAST, WORDS, batch_of, column, score
from tests.sample_models import TEXTS, distance, load_demo, state_of, tiny_bert, zoo_model

ALL = [scorer.name for scorer in (*captum.SCORERS, *controls.SCORERS)]
PAIR = ("The film was long.", "Nobody liked it much.")


def run(model, inputs, method, **more):
    return explain(model, inputs, method=method, options={**FAST.get(method, {}), **more.pop("options", {})}, **more)


@pytest.fixture(scope="module")
def segments():
    """The embedded model with segments that matter."""
    model, tokenizer = load_demo()
    with torch.no_grad():
        model.bert.embeddings.token_type_embeddings.weight[1].normal_(generator=torch.Generator().manual_seed(0))
    return model, tokenizer


@pytest.mark.parametrize("method", ALL)
def test_batch_size_and_order_change_nothing_and_pairs_pass(segments, method):
    model, tokenizer = segments
    texts = [PAIR, ("dull", "An unforgettable comedy."), ("A moving film.", "One of the worst!")]
    alone = [run(model, text, method, tokenizer=tokenizer) for text in texts]
    for size in (2, 16):
        together = run(model, texts[::-1], method, tokenizer=tokenizer, batch_size=size)[::-1]
        for one, wanted in zip(together, alone, strict=True):
            assert distance(one.scores, wanted.scores) <= 1e-5
            assert one.info["warnings"] == wanted.info["warnings"]
    for one in alone:
        assert one.scores.shape == (len(one.tokens),)
        assert bool(torch.isfinite(one.scores).all())
        assert bool((one.scores != 0).any())
        assert one.layers
        assert one.info["method"] == method
        assert {"explained", "space", "options", "reference"} <= set(one.info)
        assert ("baseline" in one.info) == (method in WORDS)
        assert Explanation.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@pytest.mark.parametrize("method", ALL)
def test_padding_and_holes_in_the_mask_score_nothing(demo, method):
    model, tokenizer = demo
    settings = FAST.get(method, {})
    batch = dict(tokenizer(TEXTS[:2], padding=True, return_tensors="pt"))
    batch["attention_mask"][0, 3] = 0
    real = batch["attention_mask"].bool()
    special = torch.zeros_like(real)
    found = score(method, model, batch, column, special, **settings).scores
    moved = dict(batch, input_ids=batch["input_ids"].masked_fill(~real, 77))
    again = score(method, model, moved, column, special, **settings).scores
    assert found.dtype == torch.float32
    assert found.shape == real.shape
    assert found[~real].tolist() == [0.0] * int((~real).sum())
    assert distance(again, found) <= 1e-5  # what stands under the mask tells nothing


@pytest.mark.parametrize("method", ALL)
def test_the_seed_alone_decides(demo, method):
    torch.manual_seed(1)
    np.random.seed(1)
    first = run(demo[0], TEXTS[4], method)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    torch.manual_seed(2)
    np.random.seed(2)
    torch.rand(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    again = run(demo[0], TEXTS[4], method)
    assert torch.equal(first.scores, again.scores)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])  # the caller's own draws go on as if nothing had been drawn
    assert before[1] == after[1]
    assert random.getstate() == states[2]
    if "seed" in find_method(method).options:
        other = run(demo[0], TEXTS[4], method, options={"seed": 3})
        assert distance(other.scores, first.scores) > 1e-4


@pytest.mark.parametrize("method", ALL)
def test_the_model_is_as_before(fresh, method):
    model, _ = fresh
    model.train()
    model.bert.embeddings.requires_grad_(False)
    before = state_of(model)
    first = run(model, TEXTS[:2], method)
    assert state_of(model) == before
    for one, other in zip(run(model, TEXTS[:2], method), first, strict=True):
        assert torch.equal(one.scores, other.scores)  # no dropout inside, although the model is in training

    calls = []

    def broken(outputs):
        calls.append(0)
        if len(calls) > 1 or method in ("random", "value_norms"):
            raise RuntimeError("from the caller")
        return outputs.logits[:, 0]

    with pytest.raises(Exception, match="from the caller"):
        run(model, TEXTS[:1], method, target=broken)
    assert state_of(model) == before


@pytest.mark.parametrize("method", WORDS)
def test_special_tokens_are_never_replaced_and_all_else_reaches_the_model(segments, method):
    model, tokenizer = segments
    batch = tokenizer([PAIR], return_tensors="pt")
    ids, special = (
        batch["input_ids"],
        torch.tensor(
            tokenizer.get_special_tokens_mask(batch["input_ids"][0].tolist(), already_has_special_tokens=True)
        ).bool(),
    )
    assert int(special.sum()) == 3
    positions = torch.arange(ids.shape[1]).flip(0)[None]
    seen, kept = [], []

    def states(module, given):
        seen.append(given[0].detach())

    def passed(module, args, kwargs):
        kept.append(kwargs)

    handles = [
        model.bert.embeddings.LayerNorm.register_forward_pre_hook(states),
        model.register_forward_pre_hook(passed, with_kwargs=True),
    ]
    try:
        run(model, {**batch, "position_ids": positions}, method, tokenizer=tokenizer)  # tests the model with its hooks
        seen.clear()
        kept.clear()
        run(model, {**batch, "position_ids": positions}, method, tokenizer=tokenizer)
    finally:
        for handle in handles:
            handle.remove()
    table = model.bert.embeddings
    own = table.word_embeddings(ids) + table.position_embeddings(positions)
    own = (own + table.token_type_embeddings(batch["token_type_ids"])).detach()
    rows = torch.cat(seen[1:])  # the first pass is that of the input itself
    assert len(rows) > 1
    assert distance(rows[:, special], own[:, special].expand(len(rows), -1, -1)) <= 1e-6
    assert all(bool((rows[:, j] - own[:, j]).abs().max() > 1e-3) for j in (~special).nonzero()[:, 0].tolist())
    for kwargs in kept[1:]:
        wanted = {
            "input_ids": ids,
            "position_ids": positions,
            "token_type_ids": batch["token_type_ids"],
            "attention_mask": batch["attention_mask"],
        }
        assert all(torch.equal(kwargs[key], value.expand_as(kwargs[key])) for key, value in wanted.items())


@pytest.mark.parametrize("method", [name for name in ALL if find_method(name).needs_gradients or name in WORDS])
def test_what_is_explained(demo, method):
    """The class of the prediction, at the value the info names: other classes give other signs."""
    found, other = (run(demo[0], TEXTS[2], method, target=target) for target in (1, 0))
    wanted = (
        "the target's value, as for method 'relevance'"
        if find_method(method).needs_gradients
        else "probability of the class"
    )
    assert found.info["explained"] == wanted
    sign = 1 if method == "saliency" else -1
    assert distance(other.scores, sign * found.scores) <= 1e-4  # of two classes, one speaks against the other
    if found.completeness_gap is not None and method not in ("deeplift", "gradient_shap", "integrated_gradients"):
        assert found.completeness_gap <= 1e-4


def test_a_regression_and_a_function_are_explained_by_their_value():
    model, inputs = tiny_bert(num_labels=1), {"input_ids": torch.tensor([[2, 50, 60, 3]])}
    for method in ("feature_ablation", "integrated_gradients"):
        found = run(model, inputs, method)
        by_hand = run(model, inputs, method, target=lambda outputs: outputs.logits[:, 0])
        assert distance(found.scores, by_hand.scores) <= 1e-6
        assert "value" in found.info["explained"]


def test_random_draws_are_others_for_another_text(demo):
    first, second = run(demo[0], ["a good film", "a bad film"], "random")
    assert len(first.scores) == len(second.scores)
    assert distance(first.scores, second.scores) > 0.05
    assert 0 <= float(first.scores.min()) <= float(first.scores.max()) < 1


@pytest.mark.parametrize(
    "name",
    [
        "seqcls-bart",
        "seqcls-t5",
        "seqcls-xlnet",
        "seqcls-longformer",
        "seqcls-roberta",
        "seqcls-albert",
        "seqcls-deberta-v2",
        "seqcls-distilbert",
    ],
)
def test_replacing_an_embedding_equals_replacing_the_token(name):
    """In decoders that read the text, in models that pad it or turn it round, and with positions read off the ids."""
    model, inputs = zoo_model(name)
    model = model.eval()
    if name == "seqcls-longformer":  # pads the ids to a multiple of its window
        inputs = {key: value[:, :10] for key, value in inputs.items()}
    runner = EncoderRunner(model)
    batch = batch_of(runner, inputs, torch.zeros_like(inputs["input_ids"]).bool())
    target = Target([None] * len(batch), model, head=Function(column))
    network = EmbeddingForward(runner, batch, target, probability=False, internal_batch=32)
    with torch.no_grad():
        own = model(**inputs).logits[:1, 0].double()
        assert distance(network.values(network.embeddings[:1], [0]), own) <= 1e-5
        other = int(inputs["input_ids"][0, 2])
        changed = inputs["input_ids"].clone()
        changed[0, 1] = other
        assert int(inputs["input_ids"][0, 1]) != other
        wanted = model(**{**inputs, "input_ids": changed}).logits[:1, 0].double()
        swapped = network.embeddings[:1].clone()
        swapped[:, 1] = network.embeddings[0, 2]
        found = network.values(swapped, [0])
    assert distance(wanted, own) > 1e-5  # the premise: it matters
    assert float((found - wanted).abs()) <= 1e-5 * float(wanted.abs()) + 1e-6


def test_embeddings_are_inputs_too(demo):
    model, tokenizer = demo
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    embeds = model.get_input_embeddings()(ids).detach()
    for method in ("integrated_gradients", "feature_ablation", "random", "value_norms"):
        found = run(model, {"inputs_embeds": embeds}, method)
        if method == "random":
            continue
        wanted = run(model, {"input_ids": ids}, method)  # no tokenizer: no special tokens in either
        assert distance(found.scores, wanted.scores) <= 1e-5


@pytest.mark.parametrize("method", ["lime", "value_norms", "integrated_gradients"])
def test_the_command_line_takes_it(capsys, tmp_path, method):
    assert main(["explain", "dull", "--method", method, "--json", str(tmp_path / "found.json")]) == 0
    assert f"method {method}" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())[0]["info"]["method"] == method
