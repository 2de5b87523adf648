"""`certify`: against linear programs and hooks written by hand, closed forms, and attention that is known to differ."""

import json
import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn
from transformers import BertModel

from hf_attn_mi.attention import efficient_attention
from hf_attn_mi.capture import AttentionCall, capture_attention
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target
from hf_attn_mi.results.certificate import LayerCertificate
from hf_attn_mi.tasks.certify import certify
from hf_attn_mi.tasks.output_change import output_change, read_output
from hf_attn_mi.tasks.row_replacement import CONTROLS, RowReplacement, control, read_rows
from tests.sample_models import TEXTS, load_demo, load_small, logits, state_of, tiny_bert, zoo_model

REVIEW = (
    "The first hour moves so slowly that half of the audience had left before the story found its feet, and yet the "
    "last twenty minutes are among the most gripping and surprising that any director has put on a screen this year."
)
LONG = [
    REVIEW,
    f"{TEXTS[2]} {TEXTS[3]} {TEXTS[0]} {TEXTS[4]} I would watch it again, and then once more, with all of my friends.",
    f"{REVIEW} {TEXTS[4]} {TEXTS[2]}",
]


@cache
def certificates():
    """Those of the embedded model in float32, of the long texts."""
    model, tokenizer = load_demo()
    return certify(model, LONG, tokenizer=tokenizer)


def distance_to_affine_hull(point, others):
    """By least squares: independent of barycentric coordinates."""
    edges = (others[1:] - others[0]).T
    if edges.shape[1] == 0:
        return np.linalg.norm(point - others[0])
    steps = np.linalg.lstsq(edges, point - others[0], rcond=None)[0]
    return np.linalg.norm(point - others[0] - edges @ steps)


def test_the_prediction_of_a_trained_model_stands():
    for made in certificates():
        assert made.holds, str(made)
        assert made.change.kept is True
        assert made.change.relative <= 1e-4
        assert sum(layer.changed for layer in made.layers) > 0.9 * sum(layer.rows for layer in made.layers)
        assert all(layer.residual <= 1e-6 and layer.sum_error <= 1e-6 for layer in made.layers)
        assert all(layer.smallest_weight > 0 for layer in made.layers)
        assert all(layer.support_max <= 33 for layer in made.layers)  # rank of [V, 1]: head_dim + 1
        assert made.necessity > 0
        assert made.checked == 64


def test_invisible_noise_stays_invisible_and_the_same_norm_outside_is_seen():
    unseen = np.array([made.controls["null-space noise"].relative for made in certificates()])
    seen = np.array([made.controls["visible noise"].relative for made in certificates()])
    assert unseen.max() <= 1e-4
    assert np.median(seen / np.maximum(unseen, np.finfo(np.float32).eps)) >= 100  # below that nothing is measured
    for made in certificates():
        assert set(made.controls) == set(CONTROLS)
        assert made.controls["uniform"].relative > 100 * made.change.relative
        assert made.controls["permuted"].relative > 100 * made.change.relative


@pytest.mark.parametrize("form", ["efficient", "effective", "effective_affine"])
def test_in_float64_nothing_moves(fresh, form):
    model, tokenizer = fresh
    made = certify(model.double(), REVIEW, tokenizer=tokenizer, form=form)
    assert made.holds, str(made)
    assert made.change.relative <= 1e-9
    assert made.controls["null-space noise"].relative <= 1e-9
    assert made.controls["visible noise"].relative > 1e-3
    assert (made.necessity is None) == (form != "efficient")
    if form != "efficient":  # projections: weights of either sign on every key
        assert all(layer.smallest_weight < 0 and layer.support_max == layer.keys for layer in made.layers)
    sums = max(layer.sum_error for layer in made.layers)
    assert sums > 1e-3 if form == "effective" else sums < 1e-9


def by_hand(model, inputs):
    """Logits, rows, and (head output, kept values) of each row, with plain hooks and SciPy: nothing of the package."""
    rows, kept, handles, state = [], [], [], {}

    def keep(name):
        def hook(module, args, output):
            state[name] = output[0].numpy()  # (tokens, hidden)

        return hook

    def context(module, args):
        heads = model.config.num_attention_heads
        query, key, value = (np.split(state[name], heads, axis=1) for name in ("query", "key", "value"))
        mixed, layer = [], []
        for q, k, v in zip(query, key, value):
            scores = q @ k.T / math.sqrt(q.shape[1])
            attention = np.exp(scores - scores.max(1, keepdims=True))
            attention /= attention.sum(1, keepdims=True)
            fixed = np.vstack([v.T, np.ones(len(v))])
            new = []
            for a in attention:
                tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
                answer = linprog(-a / a.max(), A_eq=fixed, b_eq=fixed @ a, method="highs", options=tight)
                assert answer.status == 0
                new.append(np.where(answer.x > 1e-9, answer.x, 0.0))
                kept.append((layer_number(), a @ v, v[new[-1] > 0]))
            layer.append(np.array(new))
            mixed.append(layer[-1] @ v)
        rows.append(np.array(layer))
        return (torch.from_numpy(np.concatenate(mixed, axis=1))[None], *args[1:])

    def layer_number():
        return len(rows)

    for layer in model.bert.encoder.layer:
        own = layer.attention.self
        handles += [getattr(own, name).register_forward_hook(keep(name)) for name in ("query", "key", "value")]
        handles.append(layer.attention.output.dense.register_forward_pre_hook(context))
    try:
        found = logits(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found, rows, kept


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "random"])
def test_a_certificate_checked_by_hand_written_code(trained):
    small, tokenizer = load_small()  # its weights are above HiGHS's tolerance
    model = (small if trained else tiny_bert()).double()
    inputs = tokenizer(REVIEW, return_tensors="pt")
    made = certify(model, REVIEW, tokenizer=tokenizer, checked_rows=None)
    own = logits(model, inputs)
    found, rows, kept = by_hand(model, inputs)
    assert made.scale == pytest.approx(float(own.abs().max()), rel=1e-12)
    assert float((found - own).abs().max()) <= 1e-6 * made.scale  # HiGHS is exact to 1e-10 a constraint
    assert int(found.argmax()) == int(own.argmax()) == made.target
    assert made.probability == pytest.approx(float(own.softmax(1)[0, made.target]), rel=1e-12)
    assert made.holds
    for number, (layer, wanted) in enumerate(zip(made.layers, rows)):
        support = (wanted > 0).sum(-1)
        assert layer.rows == support.size
        assert layer.support_mean == pytest.approx(support.mean(), abs=0.1)  # HiGHS drops weights below 1e-9
        assert layer.support_max == support.max()
        assert layer.dropped == pytest.approx(1 - support.mean() / wanted.shape[-1], abs=0.003)
        mine = [(output, values) for at, output, values in kept if at == number]
        if trained:  # every tenth row: its keys are firm, and the smallest of all rows is no larger
            mine = mine[::10]
        least = min(
            distance_to_affine_hull(output, np.delete(values, j, axis=0)) / np.linalg.norm(output)
            for output, values in mine
            for j in range(len(values))
        )
        assert layer.necessity <= least * (1 + 1e-3) + 1e-9
        if not trained:
            assert layer.necessity == pytest.approx(least, rel=1e-3, abs=1e-9)


def test_uniform_rows_are_those_of_a_model_without_queries(fresh):
    model, tokenizer = fresh
    texts = [REVIEW, "not good at all"]  # uniform attention turns the prediction of the second
    own = [logits(model, tokenizer(text, return_tensors="pt")).double() for text in texts]
    made = certify(model, texts, tokenizer=tokenizer)
    for layer in model.bert.encoder.layer:
        nn.init.zeros_(layer.attention.self.query.weight)
        nn.init.zeros_(layer.attention.self.query.bias)
    for text, before, one in zip(texts, own, made):
        after = logits(model, tokenizer(text, return_tensors="pt")).double()
        uniform, target = one.controls["uniform"], int(before.argmax())
        assert uniform.largest == pytest.approx(float((after - before).abs().max()), rel=1e-3)
        assert uniform.relative == pytest.approx(uniform.largest / float(before.abs().max()), rel=1e-6)
        moved = float((after.softmax(1) - before.softmax(1))[0, target])
        assert uniform.probability == pytest.approx(moved, rel=1e-3)
        assert uniform.kept is (int(after.argmax()) == target)
    assert [one.controls["uniform"].kept for one in made] == [True, False]


@pytest.mark.parametrize("name", ["seqcls-bert", "seqcls-gpt_neo", "imgcls-donut-swin"])
def test_permuted_rows_have_the_same_weights_on_allowed_keys(name):
    model, inputs = zoo_model(name)
    seen = []

    def rows(call):
        given = read_rows(call)
        new = permuted(call).flatten(0, 1)
        assert torch.equal(new.sort(-1).values, given.rows.sort(-1).values)
        assert not bool((new.bool() & ~given.allowed).any())
        seen.append(bool((new != given.rows).any()))
        return new.view(given.shape)

    permuted = control("permuted", {i: torch.zeros(0) for i in range(50)}, True, 0)
    with torch.no_grad(), capture_attention(model, lambda call: None, replace=rows):
        model(**inputs)
    assert seen
    assert any(seen)


def test_a_tolerance_shortens_rows_and_is_met(demo):
    exact = certificates()[0]
    made = certify(demo[0], REVIEW, tokenizer=demo[1], tolerance=0.05)
    assert made.holds
    for loose, tight in zip(made.layers, exact.layers):
        assert 1e-6 < loose.residual <= 0.05 + 1e-6
        assert loose.support_mean < tight.support_mean
    assert exact.change.relative < made.change.relative < 0.5


def test_only_the_chosen_layers_are_replaced(demo):
    made = certify(demo[0], REVIEW, tokenizer=demo[1], layers=[0, 2])
    assert [layer.layer for layer in made.layers] == [0, 2]
    assert "Only layers [0, 2]" in str(made)
    assert made.checked == 64


def test_short_texts_have_nothing_to_replace(demo):
    made = certify(demo[0], TEXTS[1], tokenizer=demo[1])
    assert (made.outcome, made.holds) == ("nothing to certify", False)
    assert all(layer.changed == 0 and layer.relative_change == 0 for layer in made.layers)
    assert made.controls["null-space noise"] is None
    assert made.controls["visible noise"] is None
    assert made.controls["uniform"].relative > 0.1
    assert "nothing to replace" in str(made)


def test_an_encoder_without_a_head_is_compared_by_its_last_state(demo):
    torch.manual_seed(0)
    model = BertModel(tiny_bert().config).eval()
    made = certify(model, REVIEW, tokenizer=demo[1])
    assert made.output == "last_hidden_state"
    with torch.no_grad():
        states = model(**demo[1](REVIEW, return_tensors="pt")).last_hidden_state
    assert made.scale == pytest.approx(float(states.abs().max()), rel=1e-5)
    assert made.change.kept is None
    assert made.target is None
    assert made.holds
    assert made.change.relative < 1e-4 < 1e-3 < made.controls["visible noise"].relative
    followed = certify(model, REVIEW, tokenizer=demo[1], target=lambda outputs: outputs.last_hidden_state[:, 0, 0])
    assert abs(followed.change.value) < 1e-4 < abs(followed.controls["visible noise"].value)


@pytest.mark.parametrize(
    ("kind", "own", "new", "kept"),
    [
        ("single_label_classification", {"logits": [[1.0, 2.0, 0.0]]}, {"logits": [[1.9, 2.0, 0.0]]}, True),
        ("single_label_classification", {"logits": [[1.0, 2.0, 0.0]]}, {"logits": [[2.1, 2.0, 0.0]]}, False),
        ("multi_label_classification", {"logits": [[1.0, 2.0, -1.0]]}, {"logits": [[2.1, 2.0, -1.0]]}, True),
        ("multi_label_classification", {"logits": [[1.0, 2.0, -1.0]]}, {"logits": [[1.0, 2.0, 0.1]]}, False),
        ("regression", {"logits": [[1.0]]}, {"logits": [[-1.0]]}, None),
        ("regression", {"logits": [[1.0, 2.0]]}, {"logits": [[2.0, 1.0]]}, None),
        (None, {"logits": [[1.0]]}, {"logits": [[-1.0]]}, None),
        (None, {"logits": [[[1.0, 2.0], [4.0, 3.0]]]}, {"logits": [[[1.0, 2.0], [3.0, 3.5]]]}, False),  # of one token
        (
            None,
            {"start_logits": [[1.0, 2.0]], "end_logits": [[2.0, 1.0]]},
            {"start_logits": [[1.0, 2.5]], "end_logits": [[0.5, 1.0]]},
            False,
        ),
        (None, {"last_hidden_state": [[[1.0, 2.0]]]}, {"last_hidden_state": [[[2.0, 1.0]]]}, None),
    ],
)
def test_what_counts_as_the_prediction(kind, own, new, kept):
    model = tiny_bert(problem_type=kind)
    runner = EncoderRunner(model)
    runs = [
        read_output(
            SimpleNamespace(**{name: torch.tensor(value) for name, value in run.items()}), Target([None], model), runner
        )
        for run in (own, new)
    ]
    found = output_change(*runs)
    assert found.kept is kept
    entries = [np.concatenate([np.ravel(value) for value in run.values()]) for run in (own, new)]
    assert found.largest == pytest.approx(np.abs(entries[1] - entries[0]).max(), rel=1e-6)
    assert runs[0].name == ", ".join(own)


def test_the_target_is_followed(demo):
    inputs = demo[1](REVIEW, return_tensors="pt")
    chances = logits(demo[0], inputs).double().softmax(1)[0]
    for target, number in (("negative", 0), (1, 1), (None, int(chances.argmax()))):
        made = certify(demo[0], REVIEW, tokenizer=demo[1], target=target, checked_rows=1)
        assert made.target == number
        assert made.probability == pytest.approx(float(chances[number]), rel=1e-6)
        assert made.controls["uniform"].probability == pytest.approx(  # of two classes, one gains what the other loses
            (1 if number == certificates()[0].target else -1) * certificates()[0].controls["uniform"].probability,
            rel=1e-6,
        )


@pytest.mark.parametrize(
    "name", ["seqcls-qwen3_5", "seqcls-gpt_oss", "imgcls-donut-swin", "enc-bart", "seqcls-modernbert"]
)
def test_other_architectures_hold_and_say_what_is_special(name):
    model, inputs = zoo_model(name)
    for made in certify(model, dict(inputs), checked_rows=16):
        assert made.holds, str(made)
        assert made.change.relative < 1e-4 < 1e-3 < made.controls["visible noise"].relative
        words = str(made)
        assert ("no linear W_O" in words) == (name == "seqcls-qwen3_5")  # a gate stands between heads and W_O
        assert ("do not sum to one" in words) == (name == "seqcls-gpt_oss")  # attention sinks


class Restless(nn.Module):
    """Dropout that does not know of evaluation."""

    def forward(self, states):
        return nn.functional.dropout(states, 0.2, training=True)


def test_a_model_that_draws_in_evaluation_is_certified_at_fixed_draws(demo):
    model = tiny_bert()
    for layer in model.bert.encoder.layer:
        layer.output.dropout = Restless()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    made = certify(model, REVIEW, tokenizer=demo[1])
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's own draws go on as they would have
    assert "random numbers in evaluation mode" in str(made)
    assert made.holds
    assert made.change.relative < 1e-4
    assert "draws at random" not in str(certificates()[0])


def test_a_key_with_almost_no_weight_is_not_firm(demo):
    single = certify(demo[0], TEXTS[2], tokenizer=demo[1], checked_rows=None)
    for made in (*certificates(), single):
        floor = max(torch.finfo(torch.float32).eps, *(layer.residual for layer in made.layers))
        assert ("Not firm" in str(made)) == (made.necessity < floor)
    model, inputs = zoo_model("seqcls-mt5")  # unscaled logits: near one-hot rows
    made = certify(model, {name: value[:1] for name, value in inputs.items()}, checked_rows=None)
    assert 0 < made.necessity < torch.finfo(torch.float32).eps
    assert "Not firm" in str(made)
    assert made.holds


def test_the_model_is_left_alone_and_neighbors_do_not_matter(fresh):
    model, tokenizer = fresh
    model.train()
    before = state_of(model)
    together = certify(model, [REVIEW, TEXTS[0]], tokenizer=tokenizer, checked_rows=16)
    with pytest.raises(InvalidInputError):
        certify(model, REVIEW, tokenizer=tokenizer, layers=[9])
    assert state_of(model) == before
    alone = certify(model, TEXTS[0], tokenizer=tokenizer, checked_rows=16)
    strip = {"seconds": 0.0}
    assert replace(together[1], info={**together[1].info, **strip}) == replace(alone, info={**alone.info, **strip})
    assert alone.change.relative == pytest.approx(0, abs=1e-6)


def test_half_precision_is_measured_by_its_own_rounding(demo):
    model = load_demo()[0].to(torch.bfloat16)
    made = certify(model, REVIEW, tokenizer=demo[1])
    assert made.rounding == 5e-2
    assert all(layer.residual <= 1e-6 for layer in made.layers)  # of the rows before they are rounded
    assert made.change.relative < made.rounding


def test_wrong_options_are_named(demo):
    model, tokenizer = demo
    wrong = {
        "form": ["raw", None],
        "tolerance": [-0.1, 1, 1.5, math.nan, "0", True, None],
        "layers": [[], [9], [-1], [0.5], 3, "all"],
        "checked_rows": [0, -1, 2.5, "64", True],
        "seed": [0.5, None, "0"],
        "target": ["no such label", 7, 1.5],
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(InvalidInputError, match=name):
                certify(model, TEXTS[0], tokenizer=tokenizer, **{name: value})
    with pytest.raises(InvalidInputError, match="tolerance"):
        certify(model, TEXTS[0], tokenizer=tokenizer, tolerance=0.1, form="effective")
    for inputs in ("", [], 3, None):
        with pytest.raises(InvalidInputError):
            certify(model, inputs, tokenizer=tokenizer)


def test_every_row_can_be_checked(demo):
    model, tokenizer = demo
    made = certify(model, TEXTS[2], tokenizer=tokenizer, checked_rows=None)
    assert made.checked == sum(layer.rows for layer in made.layers) == sum(layer.checked for layer in made.layers)
    assert made.necessity == min(layer.necessity for layer in made.layers)
    assert isinstance(made.layers[0], LayerCertificate)
    some = certify(model, TEXTS[2], tokenizer=tokenizer, checked_rows=20)
    assert some.checked == 20
    assert made.necessity <= some.necessity
    alone = certify(model, {"input_ids": torch.tensor([[101]])})  # one key: it cannot go
    assert alone.outcome == "nothing to certify"
    assert alone.necessity == math.inf
    assert "inf" in str(json.dumps(alone.to_dict(), allow_nan=False))


def test_a_direction_as_small_as_rounding_is_kept_where_it_shows_in_the_output():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1, 1, 40, 4, generator=generator)
    values[..., 3] *= 1e-7  # below 40 float32 roundings of the largest: efficient rows ignore it
    values[..., :3] -= values[..., :3].mean(2, keepdim=True)
    flat = torch.tensor([0.003, 5.0])[:, None]  # the first row is nearly uniform: its output all but vanishes
    rows = (flat * torch.rand(1, 1, 2, 40, generator=generator)).softmax(-1)
    plain = efficient_attention(rows, values)
    assert plain.residual[0, 0, 0] < 1e-9  # solved again with every digit
    assert 1e-12 < plain.residual[0, 0, 1] < 5e-7
    call = AttentionCall(
        index=0,
        layer=0,
        module_name="self",
        query=None,
        key=None,
        value=values,
        mask=None,
        scale=None,
        is_causal=False,
        output=rows @ values,
        projection=None,
        rows=rows,
        raw_logits=None,
    )
    replacement = RowReplacement("efficient", 0.0, {0: torch.arange(2)})
    new = replacement(call).double()[0, 0]
    wanted = rows.double()[0, 0] / rows.double()[0, 0].sum(-1, keepdim=True) @ values.double()[0, 0]
    missed = (new @ values.double()[0, 0] - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    assert missed[0] < 1e-6  # by hand, not by the record
    (layer,) = replacement.layers
    assert layer.residual < 1e-6
    assert layer.necessity > 0
    assert [int((row > 0).sum()) for row in new] == [5, 4]  # four dimensions and the sum; three and the sum
    torch.testing.assert_close(new[1], plain.attention.double()[0, 0, 1])
