"""What cannot be estimated is refused, with the numbers in the message."""

import pytest
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi import fit_probe, mutual_information, output_ceiling

STATES = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(100) % 2
SOFT = torch.full((100, 2), 0.5)


def broken(position, value):
    states = STATES.clone()
    states[position] = value
    return states


@pytest.mark.parametrize(
    ("states", "outputs", "options", "message"),
    [
        (STATES[:, 0], CLASSES, {}, r"\(100,\)"),
        (STATES.long(), CLASSES, {}, "int64"),
        (broken((3, 1), float("nan")), CLASSES, {}, "1 NaN"),
        (STATES, CLASSES[:90], {}, "n = 100 examples, outputs has 90"),
        (STATES, torch.zeros(100, dtype=torch.long), {}, "one class only, 100 times"),
        (STATES, torch.arange(100) % 6, {}, "100 examples for 6 classes"),
        (STATES, CLASSES - 1, {}, "class -1 in 50 of 100 examples"),
        (STATES, SOFT * 1.2, {}, "sum 1[.]2"),
        (STATES, torch.cat([SOFT - 1, SOFT + 1], 1) / 2, {}, "least entry -0[.]25"),
        (STATES, broken((0, 0), float("inf")), {"noise": 1.0}, "1 NaN or infinite"),
        (STATES, STATES, {"noise": 0.0}, "positive"),
        (STATES, STATES, {"noise": torch.ones(3)}, "4, one for each column"),
        (STATES, STATES[:50], {"noise": 1.0}, "outputs has 50"),
        (STATES, STATES, {"estimator": "gaussian_continuous"}, "is for continuous outputs"),
        (STATES, STATES, {"estimator": "probe", "noise": 1.0}, "is for classes"),
        (STATES, CLASSES, {"estimator": "mine"}, "auto, gaussian, probe"),
        (STATES[:10], CLASSES[:10], {}, "n = 10 examples: at least 20 are needed"),
        (STATES, CLASSES, {"folds": 2}, "from 4 to 20"),
        (STATES, CLASSES, {"folds": 21}, "from 4 to 20"),
        (STATES, CLASSES, {"permutations": 0}, "from 1"),
        (STATES, CLASSES.float(), {}, "float32"),
        (STATES, CLASSES.float(), {}, r"outputs[.]long\(\) if they are classes"),
        (STATES, CLASSES[:, None], {}, r"Pass outputs\[:, 0\]"),
        (STATES, torch.nn.functional.one_hot(CLASSES, 2), {}, r"Pass outputs[.]float\(\)"),
        (STATES, CLASSES, {"continuous": True}, r"outputs[.]float\(\)"),
        (STATES, torch.where(CLASSES == 0, torch.inf, 1.0), {}, "50 NaN or infinite numbers: remove"),
        (STATES, CLASSES.numpy(), {}, r"ndarray: it must be a tensor, such as torch[.]as_tensor\(outputs\)"),
        (torch.stack([STATES, STATES], 1), CLASSES, {}, r"states has shape \(100, 2, 4\), read as \(sites, n, d\)"),
        (STATES, None, {}, "NoneType"),
    ],
)
def test_refused(states, outputs, options, message):
    with pytest.raises(InvalidInputError, match=message):
        mutual_information(states, outputs, **options)


def test_probe_and_ceiling_refuse_the_same():
    with pytest.raises(InvalidInputError, match="one class only"):
        fit_probe(STATES, torch.zeros(100, dtype=torch.long))
    with pytest.raises(InvalidInputError, match=r"sum 1[.]2"):
        output_ceiling(SOFT * 1.2)


def test_small_classes_are_warned_about():
    outputs = (torch.arange(100) < 8).long()
    found = mutual_information(STATES, outputs, permutations=9)
    assert "the least 8.0" in found.warnings[0]
    assert float(found.interval[1]) <= found.ceiling


def test_outputs_that_never_change_have_no_information():
    for estimator in ("auto", "gaussian", "probe", "ksg", "logistic"):
        found = mutual_information(STATES, SOFT, estimator=estimator, permutations=9)
        assert (float(found.nats), float(found.interval[1]), found.ceiling) == (0, 0, 0)
        assert "the same for all 100 examples" in found.warnings[0]


@pytest.mark.parametrize("estimator", ["auto", "gaussian", "probe", "logistic"])
def test_classes_wholly_apart_reach_their_entropy(estimator):
    states = CLASSES[:, None] * torch.tensor([1.0, -2.0, 0.5]) + torch.tensor([3.0, 0.0, 1.0])
    found = mutual_information(states, CLASSES, estimator=estimator, permutations=9)
    assert 0.97 * found.ceiling < float(found.nats) <= found.ceiling


@pytest.mark.parametrize("scale", [1e-30, 1e20, 1e30])
def test_units_of_the_states_do_not_matter(scale):
    """Squares of such float32 numbers overflow or vanish."""
    states = STATES + CLASSES[:, None]
    plain, scaled = (mutual_information(x, CLASSES, permutations=9) for x in (states, states * scale))
    assert scaled.nats.item() == pytest.approx(plain.nats.item(), abs=1e-3)
    assert plain.nats > 0.1
    assert scaled.warnings == plain.warnings == ()
    probes = [fit_probe(x, CLASSES).log_posterior(x) for x in (states, states * scale)]
    assert torch.allclose(*probes, atol=1e-3)


def test_a_huge_feature_does_not_hide_the_others():
    states = torch.cat([STATES[:, :3] + CLASSES[:, None], 1e20 * STATES[:, 3:]], 1)
    plain = mutual_information(STATES[:, :4] + CLASSES[:, None] * torch.tensor([1, 1, 1, 0]), CLASSES, permutations=9)
    assert mutual_information(states, CLASSES, permutations=9).nats.item() == pytest.approx(plain.nats.item(), abs=0.05)


def test_an_estimate_below_zero_is_no_violation_of_a_bound_of_zero():
    orders = [torch.randperm(100, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    found = [mutual_information(STATES, CLASSES[order], estimator="gaussian", permutations=9) for order in orders]
    assert min(float(one.nats) for one in found) < 0
    assert not any(one.warnings for one in found)
