"""Probe scores against their definition in float64, closed forms, and the errors they promise."""

import math

import pytest
import torch

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.kernels import class_moments, factor_classes, linear_discriminant, probe_information
from hf_attn_mi.kernels.probe import torch as probe_torch
from hf_attn_mi.kernels.probe.reference import reference_probe_information
from tests.kernels.bounds import assert_within_twice


def sample(tokens=63, d=24, classes=4, lead=(3,), dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(tokens)
    states = torch.randn(*lead, tokens, d, generator=generator).to(dtype)
    directions = 2 * torch.randn(classes, d, generator=generator) / math.sqrt(d)
    offsets = torch.randn(classes, generator=generator)
    prior = torch.rand(classes, generator=generator) + 0.1
    outputs = torch.randn(*lead, classes, generator=generator).softmax(-1)
    return [x.to(device) for x in (states, directions, offsets, prior / prior.sum(), outputs)]


def assert_agrees(found, arguments, dtype=torch.float32):
    exact, rough = reference_probe_information(*arguments), reference_probe_information(*arguments, dtype=dtype)
    for name, ours, expected, plain in zip(("divergence", "V-information"), found, exact, rough):
        assert ours.dtype == dtype
        assert_within_twice(name, ours, expected.cpu(), plain, 1e-12 if dtype == torch.float64 else 1e-6)
    assert (found[0] >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [1, 63, 100, 257])
@pytest.mark.usefixtures("nan_filled")
def test_equals_the_definition(tokens, dtype, backend, device):
    arguments = sample(tokens, dtype=dtype, device=device)
    found = probe_information(*arguments, backend=backend)
    assert found[0].shape == found[1].shape == (3, tokens)
    assert_agrees(found, arguments)


@pytest.mark.parametrize(("classes", "d"), [(1, 5), (2, 1), (17, 100), (70, 33), (300, 64)])
@pytest.mark.usefixtures("nan_filled")
def test_classes_and_widths(classes, d, backend, device):
    arguments = sample(40, d, classes, device=device)
    assert_agrees(probe_information(*arguments, backend=backend), arguments)


def test_float64():
    arguments = [x.double() for x in sample(100)]
    for place in (3, 4):  # float32 probabilities sum to one within 1e-7 only
        arguments[place] = arguments[place] / arguments[place].sum(-1, keepdim=True)
    assert_agrees(probe_information(*arguments), arguments, torch.float64)


@pytest.mark.usefixtures("nan_filled")
def test_layouts_and_leading_dimensions(backend, device):
    states, directions, offsets, prior, outputs = sample(50, lead=(2, 3), device=device)
    crooked = states.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)
    assert not crooked.is_contiguous()
    found = probe_information(crooked, directions.T.contiguous().T, offsets, prior, outputs, backend=backend)
    assert_agrees(found, (states, directions, offsets, prior, outputs))
    one = probe_information(states[1, 2], directions, offsets, prior, outputs[1, 2], backend=backend)
    for ours, theirs in zip(found, one):
        torch.testing.assert_close(ours[1, 2], theirs)
    shared = probe_information(states, directions, offsets, prior, outputs[0, 0], backend=backend)
    assert_agrees(shared, (states, directions, offsets, prior, outputs[0, 0].expand(2, 3, -1)))
    alone, missing = probe_information(states, directions, offsets, prior, backend=backend)
    assert missing is None
    torch.testing.assert_close(alone, found[0])


def test_chunks_change_nothing(monkeypatch):
    arguments = sample(100)
    whole = probe_information(*arguments)
    monkeypatch.setattr(probe_torch, "ELEMENTS", 70)  # 17 rows at a time: chunks that start inside of an example
    for ours, theirs in zip(probe_information(*arguments), whole):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_closed_forms(backend, device):
    # A probe that says the prior everywhere knows nothing; one that is certain of class y knows -log prior(y).
    states, directions, _, prior, outputs = sample(5, classes=3, device=device)
    kl, gained = probe_information(states, 0 * directions, prior.log(), prior, outputs, backend=backend)
    assert max(kl.abs().max(), gained.abs().max()) < 1e-6
    certain = torch.tensor([0.0, 200.0, 0.0], device=device)
    kl, gained = probe_information(
        states, 0 * directions, certain, prior, torch.tensor([0.0, 1.0, 0.0], device=device), backend=backend
    )
    torch.testing.assert_close(kl, (-prior[1].log()).expand(3, 5))
    torch.testing.assert_close(gained, kl)


def test_classes_of_prior_zero_and_excluded_classes(backend, device):
    states, directions, offsets, prior, outputs = sample(20, classes=5, device=device)
    gone = torch.tensor([True, False, True, False, False], device=device)
    some = prior.masked_fill(gone, 0) / prior[~gone].sum()
    kl, gained = probe_information(states, directions, offsets, some, outputs, backend=backend)
    # The posterior and both sums over the classes that exist.
    left = states, directions[~gone], offsets[~gone], some[~gone], outputs[..., ~gone]
    for ours, theirs in zip((kl, gained), reference_probe_information(*left)):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-5)
    # Excluded by the probe, though the prior knows it: no posterior, and no bound on what the outputs lose.
    bias = offsets.masked_fill(gone, -math.inf)
    kl, gained = probe_information(states, directions, bias, prior, outputs, backend=backend)
    log_q = (states @ directions[~gone].T + offsets[~gone]).log_softmax(-1)
    torch.testing.assert_close(kl, (log_q.exp() * (log_q - prior[~gone].log())).sum(-1), atol=1e-5, rtol=1e-5)
    assert (gained == -math.inf).all()
    given = outputs.masked_fill(gone, 0) / outputs[..., ~gone].sum(-1, keepdim=True)
    gained = probe_information(states, directions, bias, prior, given, backend=backend)[1]
    expected = (given[..., None, ~gone] * (log_q - prior[~gone].log())).sum(-1)
    torch.testing.assert_close(gained, expected, atol=1e-5, rtol=1e-5)


def test_large_logits_stay_finite(backend, device):
    states, directions, offsets, prior, outputs = sample(20, device=device)
    kl, gained = probe_information(1e4 * states, directions, offsets, prior, outputs, backend=backend)
    assert torch.isfinite(kl).all()
    assert torch.isfinite(gained).all()
    assert (kl <= -prior.log().min() + 1e-5).all()


def test_a_discriminant_of_the_kernels_scores_its_own_states():
    # V-information of hard outputs, averaged: the cross-entropy gain of the discriminant, computed by hand.
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (200,), generator=generator)
    states = torch.randn(3, 8, generator=generator)[labels] + torch.randn(200, 8, generator=generator)
    moments = class_moments(states, labels)
    directions, offsets = linear_discriminant(factor_classes(moments))
    prior = torch.bincount(labels) / 200.0
    bias = offsets[0] - directions[0] @ moments.mean
    hot = torch.nn.functional.one_hot(labels, 3).float()
    gained = probe_information(states[:, None], directions[0], bias, prior, hot)[1]
    logits = (states - moments.mean).double() @ directions[0].double().T + offsets[0]
    expected = torch.nn.functional.cross_entropy(prior.double().log().expand(200, 3), labels)
    expected = expected - torch.nn.functional.cross_entropy(logits, labels)
    assert gained.mean().item() == pytest.approx(expected.item(), abs=1e-5)
    assert expected > 0.1


GOOD = sample(10)


def changed(place, value):
    return [value if number == place else given for number, given in enumerate(GOOD)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (changed(0, [[1.0]]), "states is list"),
        (changed(0, GOOD[0].long()), "states is torch.int64"),
        (changed(0, GOOD[0][0, 0]), "states has shape"),
        (changed(0, GOOD[0][:, :0]), "states has shape"),
        (changed(0, GOOD[0] * math.nan), "states has NaN"),
        (changed(0, GOOD[0] * math.inf), "states has NaN"),
        (changed(1, GOOD[1][:, :5]), "directions has shape"),
        (changed(1, GOOD[1] * math.nan), "directions must be finite"),
        (changed(1, GOOD[1].long()), "directions is torch.int64"),
        (changed(2, GOOD[2][:2]), "offsets has shape"),
        (changed(2, GOOD[2] + math.inf), "offsets finite"),
        (changed(2, GOOD[2] - math.inf), "offsets exclude every"),
        (changed(3, GOOD[3][:2]), "prior has shape"),
        (changed(3, 2 * GOOD[3]), "prior has rows"),
        (changed(3, GOOD[3] * math.nan), "prior has rows"),
        (changed(4, GOOD[4][:2]), "outputs has shape"),
        (changed(4, GOOD[4] - 0.5), "outputs has rows"),
        (changed(4, GOOD[4].long()), "outputs is torch.int64"),
    ],
)
def test_bad_input(arguments, message, backend):
    with pytest.raises(InvalidInputError, match=message):
        probe_information(*arguments, backend=backend)


def test_backends(monkeypatch, needs_triton):
    with pytest.raises(InvalidInputError, match="backend is 'cuda'"):
        probe_information(*GOOD, backend="cuda")
    with pytest.raises(BackendUnavailableError, match="float64"):
        probe_information(*changed(0, GOOD[0].double()), backend="triton")
    wide = sample(2, 3, 1025)
    with pytest.raises(BackendUnavailableError, match="1024 classes"):
        probe_information(*wide, backend="triton")
    assert_agrees(probe_information(*wide), wide)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(BackendUnavailableError, match="needs CUDA"):
        probe_information(*GOOD, backend="triton")
