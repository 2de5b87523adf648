"""One contract for every score, normalizer and recurrence: what padding, masks, noise and precision may do."""

import copy
import itertools

import pytest
import scipy.stats
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.heads import AttentionHead, gumbel_softmax, masked_softmax

WIDTH, TOKENS = 8, 5
GRID = list(itertools.product(("additive", "deep", "scaled_dot"), ("softmax", "gumbel"), (None, "bilstm")))
SHAPES = [(1, 1), (2, 3)]  # heads, queries
PADDINGS = {
    "right": [int(i < TOKENS) for i in range(9)],
    "left": [int(i >= 9 - TOKENS) for i in range(9)],
    "between": [1, 0, 1, 1, 0, 0, 1, 0, 1],
}


def make(score, normalizer, recurrence, **options):
    torch.manual_seed(0)
    return AttentionHead(WIDTH, 3, score=score, normalizer=normalizer, recurrence=recurrence, dropout=0.0, **options)


def inputs(mask, fill=0.0, seed=1):
    """States of TOKENS tokens, and the same among pads that hold `fill`."""
    states = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))
    mask = torch.tensor([mask], dtype=torch.bool)
    padded = torch.full((1, mask.shape[1], WIDTH), fill)
    padded[mask] = states[0]
    return states, padded, mask


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("where", PADDINGS)
@pytest.mark.parametrize(("score", "normalizer", "recurrence"), GRID)
def test_padding_changes_nothing_and_gets_no_weight(score, normalizer, recurrence, where, shape):
    head = make(score, normalizer, recurrence, heads=shape[0], queries=shape[1], temperature=0.7).eval()
    states, padded, mask = inputs(PADDINGS[where], fill=float("nan"))
    alone = head(states)
    other = torch.randn(1, 9, WIDTH, generator=torch.Generator().manual_seed(2))
    batch = head(torch.cat([padded, other]), torch.cat([mask, torch.ones_like(mask)]))
    assert batch.weights.shape == (2, *shape, 9)
    assert bool((batch.weights[0][..., ~mask[0]] == 0).all())
    assert float((batch.weights[0][..., mask[0]] - alone.weights[0]).abs().max()) <= 1e-6
    assert float((batch.logits[0] - alone.logits[0]).abs().max()) <= 1e-6
    assert float((batch.weights.sum(-1) - 1).abs().max()) <= 1e-6
    assert float((head(other).logits - batch.logits[1]).abs().max()) <= 1e-6


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("score", "normalizer", "recurrence"), GRID)
def test_gradients_are_finite_in_half_precision(score, normalizer, recurrence, kind):
    if recurrence and kind == torch.float16:
        pytest.skip("torch has no LSTM in float16 on the CPU")
    head = make(score, normalizer, recurrence, temperature=0.1).to(kind).train()
    _, padded, mask = inputs(PADDINGS["between"], fill=float("nan"))
    states = torch.cat([padded, padded * 300]).to(kind).requires_grad_()  # the second row's scores are huge
    out = head(states, mask.expand(2, -1))
    torch.nn.functional.cross_entropy(out.logits.float(), torch.tensor([0, 1])).backward()
    real = mask[0]
    assert bool(torch.isfinite(out.logits).all())
    assert bool(torch.isfinite(states.grad[:, real]).all())
    assert bool((states.grad[:, ~real] == 0).all())
    for name, parameter in head.named_parameters():
        assert bool(torch.isfinite(parameter.grad).all()), name
    if kind == torch.float16:  # the same in float64 is within what half precision rounds
        wide = copy.deepcopy(head).double().eval()
        expected = wide(states.detach().double(), mask.expand(2, -1)).weights
        found = copy.deepcopy(head).eval()(states.detach(), mask.expand(2, -1)).weights
        assert float((found[0].double() - expected[0]).abs().max()) <= 0.05


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_huge_scores_over_a_small_temperature_do_not_overflow(kind):
    scores = torch.tensor([[torch.finfo(kind).max, -torch.finfo(kind).max, 0.0], [3.0, 1.0, 2.0]], dtype=kind)
    scores.requires_grad_()
    mask = torch.tensor([[True, True, True], [True, True, False]])
    weights = masked_softmax(scores, mask, temperature=1e-3)
    assert weights.tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]  # differences of 2 and more over 0.001
    weights[:, 0].sum().backward()
    assert bool(torch.isfinite(scores.grad).all())


def test_masked_softmax_by_hand():
    weights = masked_softmax(torch.tensor([0.0, torch.tensor(3.0).log(), 9.0]), torch.tensor([True, True, False]))
    assert weights.tolist() == pytest.approx([0.25, 0.75, 0.0])
    tempered = masked_softmax(torch.tensor([0.0, torch.tensor(3.0).log()]), temperature=0.5)
    assert tempered.tolist() == pytest.approx([0.1, 0.9])  # odds 3 squared
    assert masked_softmax(torch.tensor([1.0, 2.0]), torch.tensor([False, False])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("score", "normalizer", "recurrence"), GRID)
def test_hard_is_one_hot_with_the_gradient_of_the_soft_weights(score, normalizer, recurrence):
    hard = make(score, normalizer, recurrence, hard=True, temperature=0.7)
    soft = make(score, normalizer, recurrence, temperature=0.7)
    _, padded, mask = inputs(PADDINGS["between"])
    seen = {}
    for name, head in (("hard", hard), ("soft", soft)):
        generator = torch.Generator().manual_seed(3)
        found = head(padded, mask, generator=generator).weights
        (found * torch.arange(9.0)).sum().backward()  # linear in the weights: the gradient does not depend on them
        seen[name] = found.detach(), {n: p.grad for n, p in head.score.named_parameters()}
    assert sorted(seen["hard"][0].flatten().tolist()) == [0.0] * 8 + [1.0]
    assert int(seen["hard"][0].argmax()) == int(seen["soft"][0].argmax())
    for name, gradient in seen["hard"][1].items():
        assert torch.allclose(gradient, seen["soft"][1][name], atol=1e-6), name
    assert any(bool(g.abs().sum() > 0) for g in seen["hard"][1].values())


def test_noise_only_where_it_belongs():
    states, _, _ = inputs(PADDINGS["right"])
    head, plain = make("additive", "gumbel", None), make("additive", "softmax", None)
    assert torch.equal(head.eval()(states).weights, plain.eval()(states).weights)  # none in evaluation
    assert not torch.equal(head(states, sample=True).weights, head(states).weights)
    assert not torch.equal(head.train()(states).weights, head(states).weights)
    assert torch.equal(plain.train()(states).weights, plain(states).weights)
    drawn = [head(states, generator=torch.Generator().manual_seed(seed)).weights for seed in (5, 5, 6)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_gumbel_draws_are_distributed_as_softmax_of_the_scores(temperature):
    scores = torch.tensor([0.0, 1.0, -0.5, 2.0, 7.0])
    mask = torch.tensor([True, True, True, True, False])
    draws = 20_000
    found = gumbel_softmax(
        scores.expand(draws, 5), mask, temperature=temperature, generator=torch.Generator().manual_seed(0)
    ).argmax(-1)
    counts = torch.bincount(found, minlength=5)
    assert int(counts[4]) == 0
    expected = draws * scores[:4].double().softmax(0)  # the temperature does not change which is largest
    statistic = float(((counts[:4] - expected) ** 2 / expected).sum())
    assert statistic <= scipy.stats.chi2.ppf(0.999, 3)


def test_lower_temperatures_give_more_skewed_weights():
    states, _, _ = inputs(PADDINGS["right"])
    heads = [make("additive", "softmax", None, temperature=temperature).eval() for temperature in (2, 1, 0.1)]
    largest = [float(head(states).weights.max().detach()) for head in heads]
    assert largest == sorted(largest)
    assert largest[0] < largest[2]


def test_the_context_is_the_weighted_sum_of_each_heads_slice():
    head = make("deep", "softmax", None, heads=2, queries=3).eval()
    states, _, _ = inputs(PADDINGS["right"])
    out = head(states)
    by_hand = torch.cat([out.weights[0, h, q] @ states[0, :, h * 4 : h * 4 + 4] for h in (0, 1) for q in range(3)])
    assert torch.allclose(out.context[0], by_hand, atol=1e-6)
    assert torch.allclose(out.logits[0], head.classifier.weight @ by_hand + head.classifier.bias, atol=1e-6)


def test_scores_by_hand():
    states, _, _ = inputs(PADDINGS["right"])
    dot = make("scaled_dot", "softmax", None)
    assert torch.allclose(dot.score(states[:, None])[0, 0, :, 0], states[0] @ dot.score.query[0, :, 0] / WIDTH**0.5)
    additive = make("additive", "softmax", None, score_size=3)
    inner = torch.tanh(states[0] @ additive.score.weight[0] + additive.score.bias[0])
    assert torch.allclose(additive.score(states[:, None])[0, 0], inner @ additive.score.query[0], atol=1e-6)


def test_bilstm_is_torchs_own_on_the_unpadded_input():
    head = make("additive", "softmax", "bilstm", recurrence_size=6)
    states, padded, mask = inputs(PADDINGS["between"])
    expected = head.recurrence.lstm(states)[0]
    found = head.recurrence(padded, mask)
    assert torch.allclose(found[mask], expected[0], atol=1e-6)
    assert bool((found[~mask] == 0).all())
    assert head.classifier.in_features == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0}, ["temperature is 0", "above 0"]),
        ({"temperature": -1.5}, ["-1.5", "above 0"]),
        ({"temperature": float("inf")}, ["inf"]),
        ({"temperature": {"kind": "cosine"}}, ["cosine", "constant, linear, exponential"]),
        ({"temperature": {"begin": 1}}, ["begin", "start"]),
        ({"temperature": {"kind": "linear", "steps": 0}}, ["steps is 0"]),
        ({"score": "dot"}, ["dot", "additive, deep, scaled_dot"]),
        ({"normalizer": "sparsemax"}, ["sparsemax", "softmax, gumbel"]),
        ({"recurrence": "gru"}, ["gru", "bilstm"]),
        ({"recurrence_size": 6}, ["6", "bilstm"]),
        ({"recurrence": "bilstm", "recurrence_size": 7}, ["7", "even"]),
        ({"heads": 3}, ["3", "divide", "8"]),
        ({"queries": 0}, ["queries is 0"]),
        ({"score_size": -1}, ["score_size is -1"]),
        ({"dropout": 1.0}, ["dropout is 1.0"]),
    ],
    ids=str,
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(InvalidInputError) as caught:
        AttentionHead(WIDTH, 2, **options)
    assert all(word in str(caught.value) for word in words), caught.value


def test_wrong_inputs_are_named():
    head = make("additive", "softmax", None)
    with pytest.raises(InvalidInputError, match=r"num_labels is 0"):
        AttentionHead(WIDTH, 0)
    with pytest.raises(InvalidInputError, match=r"\(2, 3, 5\).*8"):
        head(torch.zeros(2, 3, 5))
    with pytest.raises(InvalidInputError, match=r"\(2, 4\).*\(2, 3\)"):
        head(torch.zeros(2, 3, WIDTH), torch.ones(2, 4))
    with pytest.raises(InvalidInputError, match="input 1 without a real token"):
        head(torch.zeros(2, 3, WIDTH), torch.tensor([[1, 0, 0], [0, 0, 0]]))
