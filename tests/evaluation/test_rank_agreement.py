"""Rank agreement against scipy, closed forms of the bivariate normal, and intervals that cover."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import rank_agreement


def normal_pairs(r, shape, generator):
    """Two arrays of this shape whose entries are bivariate normal with correlation r."""
    first, noise = generator.standard_normal((2, *shape))
    return first, r * first + math.sqrt(1 - r * r) * noise


def expected_tau(r):
    """E[tau] of any number of pairs (Greiner's relation)."""
    return 2 / math.pi * math.asin(r)


def expected_rho(r, n):
    """E[rho] of n pairs (Moran 1948)."""
    return 6 / (math.pi * (n + 1)) * (math.asin(r) + (n - 2) * math.asin(r / 2))


def test_means_over_inputs_of_unequal_length_equal_scipy_and_what_has_no_order_is_left_out():
    generator = np.random.default_rng(0)
    lengths, heads = [2, 9, 30, 9, 3, 12, 0, 21], 4
    attention = [generator.random((heads, n)) for n in lengths]
    information = [generator.random(n) for n in lengths]
    information[3][:] = 0.25  # no order in any head
    attention[5][2] = 1 / 12  # no order in head 2
    found = rank_agreement([torch.tensor(x) for x in attention], [torch.tensor(x) for x in information])
    for head in range(heads):
        used = [i for i in range(8) if lengths[i] >= 3 and i != 3 and not (i == 5 and head == 2)]
        tau = [stats.kendalltau(attention[i][head], information[i]).statistic for i in used]
        rho = [stats.spearmanr(attention[i][head], information[i]).statistic for i in used]
        one = found.heads[head]
        assert (one.tau, one.rho) == (pytest.approx(np.mean(tau)), pytest.approx(np.mean(rho)))
        assert (one.inputs, one.pairs, one.left_out) == (len(used), len(used), 8 - len(used))
    pairs = sum(head.pairs for head in found.heads)
    assert found.overall.tau == pytest.approx(sum(head.tau * head.pairs for head in found.heads) / pairs)
    assert (found.overall.pairs, found.overall.left_out, found.inputs) == (pairs, 32 - pairs, 8)
    assert "13 of 32 pairs" in found.warnings[0]
    assert "5 inputs are too few" in found.warnings[1]


def test_nothing_measured_is_none():
    flat, text = torch.full((5,), 0.2), torch.rand(5)
    for found in (rank_agreement([flat] * 4, [text] * 4), rank_agreement([text[:2]], [text[:2]])):
        assert (found.overall.tau, found.overall.tau_interval, found.overall.rho_interval) == (None, None, None)
        assert (found.strata, found.contrast, found.reliability) == ((), None, None)
        assert found.table()[1] == ["all heads", "0", "none", "none"]
    halves = rank_agreement([text] * 4, [text] * 4, halves=[torch.stack([text, flat])] * 4).reliability
    assert (halves.halves.rho, halves.full, halves.full_interval, halves.index) == (None,) * 4
    one = rank_agreement([text], [text]).overall
    assert (one.tau, one.tau_interval, one.inputs) == (1.0, None, 1)


@pytest.mark.parametrize("r", [0.0, 0.6])
@pytest.mark.parametrize("inputs", [12, 40])
def test_intervals_cover_the_expected_tau_and_rho(r, inputs):
    generator = np.random.default_rng(7)
    repeats, tokens, heads = 400, 7, 3
    inside = np.zeros(2)
    for _ in range(repeats):
        first, second = normal_pairs(r, (inputs, tokens), generator)
        # Each input has three equal heads: counted as independent, intervals would be 1.7 times too short.
        found = rank_agreement(
            list(torch.tensor(first)[:, None].expand(-1, heads, -1)), list(torch.tensor(second)), bootstrap=400
        ).overall
        for number, (interval, truth) in enumerate(
            ((found.tau_interval, expected_tau(r)), (found.rho_interval, expected_rho(r, tokens)))
        ):
            inside[number] += interval[0] <= truth <= interval[1]
    # 400 repeats at 95 %: standard deviation .011
    assert (np.abs(inside / repeats - 0.95) < 0.03).all(), inside / repeats


def test_split_halves_and_the_step_up_to_a_full_background():
    generator = np.random.default_rng(5)
    inputs, tokens, noise = 400, 60, 1.0
    truth = generator.standard_normal((inputs, tokens))
    halves = truth[:, None] + noise * generator.standard_normal((inputs, 2, tokens))
    again = truth + noise / math.sqrt(2) * generator.standard_normal((inputs, tokens))  # by a full profile
    full = torch.tensor(halves.mean(1))
    found = rank_agreement(list(torch.tensor(again)), list(full), halves=list(torch.tensor(halves)))
    r = 1 / (1 + noise**2)
    assert found.reliability.halves.tau == pytest.approx(expected_tau(r), abs=0.01)
    assert found.reliability.halves.rho == pytest.approx(expected_rho(r, tokens), abs=0.01)
    # What it promises: two full profiles agree as `full` says, and the truth reaches `index`.
    assert found.reliability.full == pytest.approx(found.overall.rho, abs=0.02)
    exact = rank_agreement(list(torch.tensor(truth)), list(full)).overall.rho
    assert found.reliability.index == pytest.approx(exact, abs=0.02)
    low, high = found.reliability.full_interval
    assert low < found.reliability.full < high < low + 0.03
    assert found.reliability.index_interval == (pytest.approx(low**0.5, abs=1e-3), pytest.approx(high**0.5, abs=1e-3))


def strata_example(inputs=60, tokens=10):
    """Uneven attention follows the information exactly, flat attention is unrelated to it."""
    generator = np.random.default_rng(2)
    attention, information = [], []
    for number in range(inputs):
        nats = generator.random(tokens)
        sharp = 3 * (number % 3)
        order = nats.argsort().argsort() if sharp else generator.permutation(tokens)
        logits = (0.001 + sharp) * order / tokens
        heads = np.stack([logits, 1.01 * logits])
        attention.append(torch.tensor(np.exp(heads) / np.exp(heads).sum(1, keepdims=True)))
        information.append(torch.tensor(nats))
    return attention, information


def test_strata_are_terciles_of_the_normalized_entropy():
    attention, information = strata_example()
    found = rank_agreement(attention, information)
    spread = np.array([stats.entropy(x.numpy(), axis=1) / math.log(10) for x in attention]).ravel()
    tau = np.array([[stats.kendalltau(h, y).statistic for h in x] for x, y in zip(attention, information)]).ravel()
    order = spread.argsort()
    for stratum, wanted in zip(found.strata, np.split(order, 3), strict=True):
        assert (stratum.low, stratum.high) == (pytest.approx(spread[wanted].min()), pytest.approx(spread[wanted].max()))
        assert stratum.agreement.tau == pytest.approx(tau[wanted].mean())
        assert stratum.agreement.pairs == 40
        assert stratum.agreement.inputs == 20
    assert [round(stratum.agreement.tau, 6) for stratum in found.strata[:2]] == [1, 1]
    low, high = found.strata[2].agreement.tau_interval
    assert low < 0 < high < 0.5
    assert found.contrast.tau == pytest.approx(1 - found.strata[2].agreement.tau)
    assert found.contrast.tau_interval == (pytest.approx(1 - high, abs=1e-9), pytest.approx(1 - low, abs=1e-9))


def test_equal_spread_stays_in_one_stratum_and_an_empty_one_is_none():
    text = torch.tensor([0.1, 0.2, 0.3, 0.4])
    found = rank_agreement([text, text.flip(0), text, text], [text] * 4)
    assert [stratum.agreement.pairs for stratum in found.strata] == [4, 0, 0]
    assert (found.strata[1].low, found.strata[1].agreement.tau, found.contrast.tau) == (None, None, None)
    assert rank_agreement([text] * 4, [text] * 4, strata=1).strata == ()


def test_the_seed_decides_and_json_holds_all():
    attention, information = strata_example()
    halves = [torch.stack([x, x.flip(0)]) for x in information]
    first, second, other = (rank_agreement(attention, information, halves=halves, seed=s) for s in (0, 0, 1))
    assert first == second
    assert first.overall.tau_interval != other.overall.tau_interval
    assert first.overall.tau == other.overall.tau
    data = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert data["strata"][2]["agreement"]["tau"] == first.strata[2].agreement.tau
    assert data["reliability"]["halves"]["rho_interval"] == list(first.reliability.halves.rho_interval)
    rows = first.table()
    assert {len(row) for row in rows} == {4}
    assert [row[0] for row in rows[:4]] == ["", "all heads", "head 0", "head 1"]
    assert rows[4][0] == f"spread {first.strata[0].low:.2f} to {first.strata[0].high:.2f}"
    tau, (low, high) = first.overall.tau, first.overall.tau_interval
    assert rows[1][2] == f"{tau:+.3f} [{low:+.3f}, {high:+.3f}]"


def test_signed_weights_are_spread_by_their_magnitude():
    attention = [torch.tensor([-1.0, 1.0, 0.0, 0.0]), torch.tensor([0.3, 0.4, 0.2, 0.1])]
    found = rank_agreement(attention, [torch.arange(4.0)] * 2, strata=2)
    assert found.strata[0].low == found.strata[0].high == pytest.approx(0.5)  # two tokens of four


def test_bad_input():
    text, heads = torch.rand(5), torch.rand(2, 5)
    with pytest.raises(InvalidInputError, match="attention has 1 inputs and information has 2"):
        rank_agreement([text], [text, text])
    with pytest.raises(InvalidInputError, match="information is empty"):
        rank_agreement([], [])
    with pytest.raises(InvalidInputError, match=r"attention\[1\] has shape \(1, 5\), not \(2, 5\)"):
        rank_agreement([heads, text], [text, text])
    with pytest.raises(InvalidInputError, match=r"attention\[0\] has shape \(1, 4\), not \(1, 5\)"):
        rank_agreement([text[:4]], [text])
    with pytest.raises(InvalidInputError, match=r"information\[0\] has shape \(2, 5\)"):
        rank_agreement([heads], [heads])
    with pytest.raises(InvalidInputError, match=r"halves\[0\] has shape \(5,\), not \(2, 5\)"):
        rank_agreement([heads], [text], halves=[text])
    with pytest.raises(InvalidInputError, match=r"information\[0\] has entries that are NaN"):
        rank_agreement([text], [text * math.nan])
    for name, value in (("strata", 0), ("bootstrap", 10), ("bootstrap", 1e3)):
        with pytest.raises(InvalidInputError, match=f"{name} must be a whole number"):
            rank_agreement([text], [text], **{name: value})
