"""Bootstrap intervals and paired tests against scipy, closed forms and published numbers."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import estimate, holm, paired_tests, rank_matrix, sign_flip_tests
from hf_attn_mi.evaluation.statistics import percentile_interval, resampled_means


def test_the_interval_equals_students_for_normal_means():
    values = np.random.default_rng(3).standard_normal(8)
    means = resampled_means(torch.tensor(values)[:, None], torch.ones(8, 1), bootstrap=100_000, seed=1)
    low, high = percentile_interval(means[:, 0], 8)
    wanted = stats.t.interval(0.95, 7, values.mean(), values.std(ddof=1) / math.sqrt(8))
    assert (low, high) == (pytest.approx(wanted[0], abs=0.08), pytest.approx(wanted[1], abs=0.08))
    plain = np.quantile(means[:, 0].numpy(), [0.025, 0.975])
    assert high - low > 1.2 * (plain[1] - plain[0])


def test_resampled_means_have_the_mean_and_spread_of_the_sample_in_every_block(monkeypatch):
    sums, counts = torch.tensor(np.random.default_rng(0).random((2, 50, 3)))
    monkeypatch.setattr("hf_attn_mi.evaluation.statistics.WEIGHTS", 50 * 300)
    means = resampled_means(sums, counts + 1, bootstrap=5000, seed=0)
    assert means.shape == (5000, 3)
    wanted = stats.bootstrap(
        (sums[:, 0].numpy(), counts[:, 0].numpy() + 1),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=5000,
        random_state=0,
    ).standard_error
    assert float(means[:, 0].std()) == pytest.approx(wanted, rel=0.05)
    assert float(means[:, 0].mean()) == pytest.approx(float(sums[:, 0].sum() / (counts[:, 0] + 1).sum()), abs=0.002)


def test_the_interval_of_normal_values_is_students():
    values = np.random.default_rng(0).standard_normal(40)
    found = estimate(list(values), resamples=20_000)
    wanted = stats.t.interval(0.95, 39, values.mean(), values.std(ddof=1) / np.sqrt(40))
    assert found.mean == pytest.approx(values.mean())
    assert found.interval == (pytest.approx(wanted[0], abs=0.02), pytest.approx(wanted[1], abs=0.02))
    assert estimate(list(values)) == estimate(list(values), seed=0) != estimate(list(values), seed=1)


def test_undefined_values_are_left_out():
    assert estimate([None, 0.5, None]) == estimate([0.5])
    assert (estimate([0.5]).mean, estimate([0.5]).interval, estimate([0.5]).inputs) == (0.5, None, 1)
    assert (estimate([None]).mean, estimate([]).interval, estimate([]).inputs) == (None, None, 0)


def test_holm_equals_the_published_example_and_its_definition():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") is 0.03 0.06 0.06 0.02
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.04, 0.03, 0.005, None]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
        pytest.approx(0.02),
        None,
    ]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_paired_tests_equal_scipy():
    generator = np.random.default_rng(1)
    shared = generator.standard_normal(30)
    values = {name: shared + shift + 0.3 * generator.standard_normal(30) for name, shift in zip("abc", (0, 0, 0.4))}
    tests = paired_tests({name: list(column) for name, column in values.items()})
    assert [(test.first, test.second) for test in tests] == list(itertools.combinations("abc", 2))
    wanted = [stats.wilcoxon(values[t.first], values[t.second]).pvalue for t in tests]
    assert [test.p_value for test in tests] == pytest.approx(wanted)
    assert [test.adjusted for test in tests] == pytest.approx(holm(wanted))
    for test in tests:
        gap = values[test.first] - values[test.second]
        low, high = test.difference.interval
        assert test.difference.mean == pytest.approx(gap.mean())
        # Paired: about four times shorter than the interval of two independent means.
        assert high - low < 1.3 * 2 * 1.96 * gap.std(ddof=1) / np.sqrt(30)
    assert tests[0].adjusted > 0.05 > tests[1].adjusted


def test_wilcoxon_by_hand_and_where_it_is_undefined():
    # Three inputs without ties: all differences positive, 2 of the 2^3 sign patterns are as extreme.
    base = {"a": [1.0, 2.0, 3.5, None, 4.0], "b": [0.9, 1.7, 3.0, 9.0, None]}
    (test,) = paired_tests(base)
    assert (test.p_value, test.difference.inputs) == (pytest.approx(0.25), 3)
    same, *others = paired_tests({"a": [1.0, 2.0], "b": [1.0, 2.0], "c": [0.0, 0.0]})
    assert (same.p_value, same.adjusted, same.difference.mean, same.difference.interval) == (None, None, 0, (0, 0))
    assert [test.adjusted for test in others] == pytest.approx([1.0, 1.0])  # 2 of 2^2, times two tests
    (never,) = paired_tests({"a": [None, 1.0], "b": [1.0, None]})
    assert (never.p_value, never.difference.mean, never.difference.inputs) == (None, None, 0)


def test_sign_flips_of_few_inputs_equal_all_patterns_of_scipy():
    generator = np.random.default_rng(2)
    columns = {"a": generator.normal(0.4, 1, 9), "b": generator.normal(0, 1, 9), "equal": np.full(9, 0.3)}
    found = sign_flip_tests({name: [*column, 0.0, None] for name, column in columns.items()})
    for name, column in columns.items():
        wanted = stats.permutation_test((column,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
        assert found[name] == pytest.approx(wanted)
    assert found["equal"] == 2 / 2**9


def test_sign_flips_by_chance_agree_with_all_patterns():
    column = np.random.default_rng(3).normal(0.25, 1, 16)
    exact = sign_flip_tests({"a": list(column)}, flips=2**16)["a"]
    drawn = sign_flip_tests({"a": list(column), "b": [*column, 5.0]}, flips=20_000, seed=1)["a"]
    assert abs(drawn - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000)
    assert sign_flip_tests({"a": [1.0] * 60})["a"] == 1 / 10_000
    assert sign_flip_tests({"a": [1.0] * 60, "never": [None, None], "same": [0.0]})["never"] is None
    # A mean: one input that is far worse outweighs many that are a little better, which ranks would not show.
    torn = [0.01] * 15 + [-0.3]
    assert sign_flip_tests({"a": torn})["a"] > 0.3 > 0.05 > stats.wilcoxon(torn).pvalue


def test_bad_input():
    with pytest.raises(InvalidInputError, match=r"differences\['a'\] holds NaN"):
        sign_flip_tests({"a": [float("nan")]})
    with pytest.raises(InvalidInputError, match="flips must be"):
        sign_flip_tests({"a": [0.1]}, flips=5)
    with pytest.raises(InvalidInputError, match="NaN or infinite"):
        estimate([0.1, float("nan")])
    with pytest.raises(InvalidInputError, match="resamples must be"):
        estimate([0.1], resamples=5)
    with pytest.raises(InvalidInputError, match=r"every method needs a value.*'b': 1"):
        paired_tests({"a": [0.1, 0.2], "b": [0.1]})
    with pytest.raises(InvalidInputError, match=r"input 0 has different numbers of tokens: \{'a': 2, 'b': 3\}"):
        rank_matrix({"a": [torch.ones(2)], "b": [torch.ones(3)]})
    with pytest.raises(InvalidInputError, match=r"scores of \[1, 2\] inputs"):
        rank_matrix({"a": [torch.ones(2)], "b": [torch.ones(2)] * 2})
    with pytest.raises(InvalidInputError, match=r"scores\['a'\]\[0\] must be"):
        rank_matrix({"a": [torch.tensor([float("inf"), 1.0])]})
