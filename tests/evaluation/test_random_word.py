"""The test of a word against words drawn at random from the same inputs."""

import itertools

import numpy as np
import pytest
import scipy.stats

from hf_attn_mi.evaluation.random_word import RandomWordTest


def p_of(values, populations, occurrences=1):
    """The p value for a word with these values (less the mean) in inputs with these deviations."""
    test = RandomWordTest(sum(values), sum(value**2 for value in values))
    for deviations in populations:
        test.add(deviations, occurrences)
    return test.p_value


@pytest.mark.parametrize("occurrences", [1, 2])
def test_it_is_an_upper_bound_of_the_exact_p_value(occurrences):
    rng = np.random.default_rng(0)
    populations = rng.exponential(size=(5, 4)) * np.exp(rng.normal(size=(5, 1)))
    populations -= populations.mean(1, keepdims=True)
    draws = [[sum(pair) / occurrences for pair in itertools.combinations(row, occurrences)] for row in populations]
    outcomes = list(itertools.product(*draws))
    totals = np.array([sum(one) for one in outcomes])
    for index in rng.integers(len(outcomes), size=40):
        exact = min((totals >= totals[index] - 1e-12).mean(), (totals <= totals[index] + 1e-12).mean())
        bound = p_of(outcomes[index], populations, occurrences)
        assert min(1.0, 2 * exact) <= bound * (1 + 1e-9)


def test_strong_words_are_found_and_bounds_are_not_far_from_the_truth():
    rng = np.random.default_rng(1)
    populations = rng.normal(size=(60, 20))
    populations -= populations.mean(1, keepdims=True)
    for shift in (0.5, 1.0):  # in standard deviations
        values = populations[:, 0] + shift
        exact = 2 * scipy.stats.norm.sf(abs(values.sum()) / np.sqrt((populations**2).mean(1).sum()))
        assert exact <= p_of(values, populations) <= exact * 25


def test_skewed_scores_of_different_size_are_rejected_no_more_often_than_the_level():
    """Student's test rejects about a fifth of these words at the level 0.05."""
    rng = np.random.default_rng(2)
    p_values, student = [], []
    for _ in range(400):
        scores = (rng.random((10, 15)) < 0.15) * rng.exponential(size=(10, 15)) * np.exp(rng.normal(size=(10, 1)))
        scores += 1e-3 * rng.normal(size=scores.shape)
        scores -= scores.mean(1, keepdims=True)
        p_values.append(p_of(scores[:, 0], scores))
        student.append(scipy.stats.ttest_1samp(scores[:, 0], 0).pvalue)
    assert np.mean(np.array(student) < 0.05) > 0.1
    for level in (0.05, 0.01):
        assert np.mean(np.array(p_values) < level) <= level


def test_words_that_cannot_deviate_have_no_p_value():
    assert p_of([0.0, 0.0], [[0.0], [0.0, 0.0]]) is None
    assert p_of([0.0], [[1.0, -1.0]], occurrences=2) is None
    assert p_of([0.0, 0.0], [[1.0, -1.0]] * 2) == 1.0
