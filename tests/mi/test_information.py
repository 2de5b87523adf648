"""`mutual_information` against closed forms, scikit-learn in one dimension, and real images with mixed labels."""

import dataclasses
import importlib.util
import json
import math

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from hf_attn_mi.kernels import dispatch, large_calls
from hf_attn_mi.kernels.calibration import operation as calibration
from hf_attn_mi.kernels.neighbors import operation as neighbors
from hf_attn_mi.kernels.permutations import operation as permuted
from hf_attn_mi.mi import mutual_information, output_ceiling

from .sample_data import exclusive_or, exclusive_or_information, shifted_classes, two_classes_information


@pytest.mark.parametrize("distance", [0.0, 0.7, 1.5, 3.0])
@pytest.mark.parametrize("estimator", ["auto", "gaussian"])
def test_two_gaussian_classes(estimator, distance):
    states, labels = shifted_classes(2000, 40, distance)
    truth = two_classes_information(distance)
    found = mutual_information(states, labels, estimator=estimator, permutations=40)
    assert float(found.nats) == pytest.approx(truth, abs=0.03)
    assert float(found.interval[0]) <= truth <= float(found.interval[1])
    assert distance == 0 or float(found.p_value) < 0.05


def test_probe_is_below_the_truth_and_its_interval_reaches_it():
    states, labels = shifted_classes(1500, 150, 1.5)
    truth = two_classes_information(1.5)
    found = mutual_information(states, labels, estimator="probe", permutations=10)
    assert float(found.interval[0]) <= float(found.nats) < truth - 0.01
    assert float(found.interval[1]) > truth


def test_one_dimension_is_scikit_learns():
    states, labels = shifted_classes(800, 3, 1.2, classes=3)
    one = states[:, :1]
    theirs = mutual_info_classif(one.numpy(), labels.numpy(), random_state=0)[0]
    assert float(mutual_information(one, labels, estimator="ksg").nats) == pytest.approx(theirs, abs=2e-3)
    assert float(mutual_information(one, labels).nats) == pytest.approx(theirs, abs=0.05)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
def test_vectors_are_the_closed_form_and_scikit_learns(correlation):
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(3000, 1, generator=draw)
    signal = correlation * states
    noise = math.sqrt(1 - correlation**2)
    found = mutual_information(states, signal, noise=noise, permutations=40)
    truth = -math.log(1 - correlation**2) / 2
    noisy = (signal[:, 0] + noise * torch.randn(3000, generator=draw)).numpy()
    theirs = mutual_info_regression(states.numpy(), noisy, random_state=0)[0]
    assert float(found.nats) == pytest.approx(truth, abs=0.04)
    assert float(found.nats) == pytest.approx(theirs, abs=0.08)
    assert found.ceiling is None
    assert found.share is None
    assert found.estimator == "auto_continuous"


def test_exclusive_or_is_seen_by_auto_and_not_by_means():
    states, labels = exclusive_or(2000, 100, 3.0)
    truth = exclusive_or_information(3.0)
    assert abs(float(mutual_information(states, labels, estimator="gaussian").nats)) < 0.03
    found = mutual_information(states, labels, permutations=40)
    assert float(found.nats) == pytest.approx(truth, abs=0.05)
    assert float(found.p_value) < 0.05


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
def test_digits_with_mixed_labels(kept):
    images, digit = load_digits(return_X_y=True)
    draw = torch.Generator().manual_seed(0)
    labels = torch.from_numpy(digit)
    other = torch.randint(10, labels.shape, generator=draw)
    labels = torch.where(torch.rand(len(labels), generator=draw) < kept, labels, other)
    right, wrong = kept + (1 - kept) / 10, (1 - kept) / 10
    truth = math.log(10) + right * math.log(right) + (9 * wrong * math.log(wrong) if wrong else 0.0)
    found = mutual_information(torch.from_numpy(images).float(), labels, permutations=10)
    assert float(found.nats) == pytest.approx(truth, abs=0.07)


@pytest.mark.parametrize("estimator", ["auto", "logistic"])
def test_the_state_the_classifier_reads_reaches_the_ceiling(estimator):
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(1500, 64, generator=draw)
    probabilities = (states @ torch.randn(64, 3, generator=draw) * 0.7).softmax(1)  # sharp: no Gaussian classes
    found = mutual_information(states, probabilities, estimator=estimator, permutations=10)
    assert 0.98 <= float(found.share) <= 1
    assert float(found.interval[1]) <= found.ceiling == output_ceiling(probabilities)


def test_states_that_repeat_are_counted():
    draw = torch.Generator().manual_seed(0)
    table = (torch.randn(10, 3, generator=draw, dtype=torch.float64) * 1.5).softmax(1)
    word = torch.randint(10, (4000,), generator=draw)
    labels = torch.multinomial(table[word], 1, generator=draw)[:, 0]
    mean = table.mean(0)
    truth = float(-(mean * mean.log()).sum() + (table * table.log()).sum(1).mean())
    found = mutual_information(torch.randn(10, 50, generator=draw)[word], labels, permutations=10)
    assert found.parts == ("counts",)
    assert float(found.nats) == pytest.approx(truth, abs=0.03)


def test_one_to_one_changes_of_coordinates_keep_the_information():
    states, labels = shifted_classes(2000, 30, 1.5)
    plain = mutual_information(states, labels, permutations=1)
    heavy = mutual_information(states.sub(3).pow(3), labels, permutations=1)
    scaled = mutual_information(states * torch.logspace(-2, 2, 30) - 5, labels, permutations=1)
    assert float(heavy.nats) == pytest.approx(float(plain.nats), abs=0.03)
    assert float(scaled.nats) == pytest.approx(float(plain.nats), abs=0.01)


def test_sites_are_estimated_as_if_alone_and_tested_together():
    states, labels = shifted_classes(400, 12, 1.5)
    noise = torch.randn(400, 12, generator=torch.Generator().manual_seed(3))
    stacked = torch.stack([states, noise, torch.ones(400, 12)])
    found = mutual_information(stacked, labels, permutations=99)
    alone = mutual_information(states, labels, permutations=99)
    assert found.nats[0] == alone.nats
    assert found.p_value[0] == alone.p_value == 0.01
    assert (found.family_p_value >= found.p_value).all()
    assert found.family_p_value[0] == 0.01
    assert found.family_p_value[1] > 0.05
    assert (found.nats[2], found.p_value[2], found.parts[2]) == (0, 1, "constant")
    assert any("site 2" in warning for warning in found.warnings)


def test_threads_change_nothing_and_are_given_back():
    states, labels = shifted_classes(300, 8, 1.5)
    stacked = torch.stack([states, states.flip(0), states * 2])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = mutual_information(stacked, labels, permutations=9)
        torch.set_num_threads(2)
        two = mutual_information(stacked, labels, permutations=9)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(one.nats, two.nats, atol=1e-6, rtol=0)
    assert torch.equal(one.p_value, two.p_value)


def test_half_precision_and_few_examples():
    states, labels = shifted_classes(300, 384, 3.0)
    found = mutual_information(states.half(), labels, permutations=9)
    assert any("75 principal components" in warning for warning in found.warnings)
    assert float(found.interval[1] - found.interval[0]) > 0.05
    assert float(found.interval[0]) < two_classes_information(3.0)


def test_result_is_plain_and_frozen():
    states, labels = shifted_classes(200, 4, 1.0)
    found = mutual_information(states, labels, permutations=9)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.n = 3
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["nats"] == float(found.nats)
    assert plain["bits"] == pytest.approx(float(found.nats) / math.log(2))
    assert plain["share"] == pytest.approx(float(found.nats) / found.ceiling)
    assert found.interval.tolist() == plain["interval"]


def test_text_names_bounds_before_the_estimate_of_every_site():
    states, labels = shifted_classes(200, 4, 1.0)
    found = mutual_information(torch.stack([states, states.flip(0)]), labels, permutations=9)
    lines = str(found).splitlines()
    assert "ceiling" in lines[0]
    assert "any distribution" in lines[1]
    for site, line in enumerate(lines[2:4]):
        lower, upper, nats = (getattr(found, name)[site] for name in ("lower_bound", "upper_bound", "nats"))
        assert line.startswith(f"site {site}: {lower:.3f} to {upper:.3f}; estimate {nats:.3f} [")
    assert [line.removeprefix("warning: ") for line in lines[4:]] == list(found.warnings)
    measured = mutual_information(states, states[:, 0] + torch.randn(200, generator=torch.Generator()), permutations=9)
    assert f"at least {measured.lower_bound:.3f}; estimate" in measured.to_text()
    assert "nan" not in measured.to_text()


def test_intervals_cover_the_truth():
    truth, inside = two_classes_information(1.5), 0
    for seed in range(60):
        found = mutual_information(*shifted_classes(400, 8, 1.5, seed=seed), estimator="gaussian", permutations=1)
        inside += float(found.interval[0]) <= truth <= float(found.interval[1])
    assert inside >= 52  # binomial of 95 %: 52 or more with probability 0.99


def record_backends(monkeypatch):
    """A dictionary that gets the backend of each operation that runs."""
    taken = {}

    def implementation(name, backend):
        assert taken.setdefault(name, backend) == backend
        return dispatch.implementation(name, backend)

    for module in (calibration, neighbors, permuted):
        monkeypatch.setattr(module, "implementation", implementation)
    return taken


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba (extra `fast`) is not installed")
def test_numba_changes_rounding_alone(monkeypatch):
    """The same estimates, bounds and p-values where the call is large enough for it and where it is not."""
    states, labels = shifted_classes(300, 12, 1.5, classes=3)
    states = torch.stack([states, *(states.roll(shift, 0) for shift in (1, 2, 3))])  # of which three say nothing
    found = []
    for pairs in (0, 2**62):
        monkeypatch.setattr(large_calls, "NUMBA_PAIRS", pairs)
        with monkeypatch.context() as watched:
            taken = record_backends(watched)
            found.append(mutual_information(states, labels, permutations=99))
        assert taken == dict.fromkeys(taken, "numba" if pairs == 0 else "torch")
        assert {"neighbor_counts", "agreeing_neighbors", "class_calibration"} <= taken.keys()
    for name in ("nats", "interval", "lower_bound", "p_value", "family_p_value", "null_mean"):
        torch.testing.assert_close(*(getattr(one, name) for one in found), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("estimator", ["ksg", "auto"])
def test_data_sorted_by_class_give_the_same_information(estimator):
    draw = torch.Generator().manual_seed(0)
    labels = (torch.rand(6000, generator=draw) < 0.15).long()
    states = torch.randn(6000, 2, generator=draw) + 2.0 * labels[:, None]
    order = labels.sort().indices  # the first 5,000, from which neighbors are taken, are of one class
    found, ordered = (
        mutual_information(states[one], labels[one], estimator=estimator, permutations=9)
        for one in (torch.arange(6000), order)
    )
    assert float(found.nats) > 0.15
    assert float(ordered.nats) == pytest.approx(float(found.nats), abs=0.02)
    assert float(ordered.lower_bound) == pytest.approx(float(found.lower_bound), abs=0.02)
