"""The table of operations and backends: registration from outside, missing extras, and the check before first use."""

import importlib.util
import warnings

import pytest
import torch

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.kernels import dispatch, probe_information, register_backend, self_check
from hf_attn_mi.kernels.dispatch import TABLE, agrees, choose_backend, implementation
from hf_attn_mi.kernels.probe.torch import score_torch

CPU = torch.device("cpu")
OPERATION = "probe_information"


@pytest.fixture(autouse=True)
def own_table(monkeypatch):
    """Each test has a copy of the table and of the verdicts."""
    for operation, entries in TABLE.items():
        monkeypatch.setitem(TABLE, operation, dict(entries))
    monkeypatch.setattr(dispatch, "_verdicts", {})


def problem():
    generator = torch.Generator().manual_seed(0)
    states, directions = torch.randn(2, 7, 5, generator=generator), torch.randn(3, 5, generator=generator)
    return states, directions, torch.zeros(3), torch.full((3,), 1 / 3), torch.full((3,), 1 / 3)


class Counted:
    """A backend of probe_information that counts its calls; `change` is applied to its divergence."""

    def __init__(self, change=lambda kl: kl):
        self.calls, self.change = 0, change

    def __call__(self, *arguments):
        self.calls += 1
        kl, gain = score_torch(*arguments)
        return self.change(kl), gain


def broken(*arguments):
    raise RuntimeError("no such instruction\n(second line)")


def test_a_backend_from_outside_is_one_registration():
    ours = Counted()
    register_backend(OPERATION, "ours", ours)
    found, expected = probe_information(*problem(), backend="ours"), probe_information(*problem())
    assert ours.calls == 1
    assert all(torch.equal(x, y) for x, y in zip(found, expected))
    with pytest.raises(InvalidInputError, match="auto, torch, triton, ours"):
        probe_information(*problem(), backend="other")


def test_a_backend_may_be_named_as_text():
    register_backend(OPERATION, "ours", "hf_attn_mi.kernels.probe.torch:score_torch")
    assert implementation(OPERATION, "ours") is score_torch


@pytest.mark.parametrize(("operation", "backend"), [("sort", "ours"), (OPERATION, "auto"), (OPERATION, "torch")])
def test_registrations_that_are_refused(operation, backend):
    with pytest.raises(InvalidInputError, match=r"operation is 'sort'|a name that is taken"):
        register_backend(operation, backend, score_torch)


@pytest.mark.parametrize(
    ("package", "message"),
    [("triton", r'pip install "hf_attn_mi\[gpu\]"'), ("numba", r'pip install "hf_attn_mi\[fast\]"')],
)
def test_a_missing_extra_is_an_error_that_names_the_command(package, message, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match=message):
        choose_backend("efficient_rows", package, CPU)
    register_backend("efficient_rows", "ours", score_torch, package="somebody")
    with pytest.raises(BackendUnavailableError, match="pip install somebody"):
        choose_backend("efficient_rows", "ours", CPU)


def test_auto_takes_a_registered_backend_on_its_device_once_it_agrees():
    ours = Counted()
    register_backend(OPERATION, "ours", ours, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe_information(*problem())
        checking = ours.calls - 1
        assert checking >= 1
        probe_information(*problem())
    assert ours.calls == checking + 2  # the check ran once
    assert choose_backend(OPERATION, "auto", torch.device("meta")) == "torch"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (Counted(lambda kl: kl * 1.01), r"divergence in torch.float32 is off by .*e-0"),
        (Counted(lambda kl: kl * torch.nan), "fails on a small problem with InvalidInputError: states has NaN"),
        (broken, "fails on a small problem with RuntimeError: no such instruction"),
    ],
    ids=["wrong", "nan", "raising"],
)
def test_a_backend_that_is_wrong_or_fails_is_named_once_and_not_used(function, reason):
    expected = probe_information(*problem())
    register_backend(OPERATION, "ours", function, device="cpu")
    with pytest.warns(RuntimeWarning, match=f"ours kernel of {OPERATION} is not used on cpu .*{reason}") as caught:
        first, second = probe_information(*problem()), probe_information(*problem())
    assert len(caught) == 1
    for found in (first, second):
        assert all(torch.equal(x, y) for x, y in zip(found, expected))


def test_a_backend_asked_for_by_name_runs_unchecked():
    wrong = Counted(lambda kl: kl + 1)
    register_backend(OPERATION, "ours", wrong, device="cpu")
    found, expected = (
        probe_information(*problem(), backend="ours")[0],
        probe_information(*problem(), backend="torch")[0],
    )
    torch.testing.assert_close(found, expected + 1)
    assert wrong.calls == 1


def test_the_verdict_is_kept_for_each_device_and_version(monkeypatch):
    asked = []
    monkeypatch.setattr(self_check, "disagreement", lambda *arguments: asked.append(arguments))
    for _ in range(2):
        assert agrees(OPERATION, "triton", CPU)
    assert asked == [(OPERATION, "triton", CPU)]
    assert agrees(OPERATION, "triton", torch.device("cuda", 1))
    monkeypatch.setattr(dispatch, "_version", lambda name: "0")
    assert agrees(OPERATION, "triton", CPU)
    assert len(asked) == 3


@pytest.mark.parametrize("operation", [name for name, entries in TABLE.items() if "triton" in entries])
def test_every_triton_kernel_is_checked_and_agrees(operation, needs_triton):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*kernel of.*")
        assert TABLE[operation]["triton"].checked
        assert agrees(operation, "triton", device)


@pytest.mark.parametrize("operation", TABLE)
def test_the_check_finds_a_change_in_any_operation(operation, monkeypatch):
    function = implementation(operation, "torch")

    def changed(*arguments):
        result = function(*arguments)
        if operation == "attention_statistics":
            result.received[0, 0, 0] += 0.01
        elif operation == "efficient_rows":
            result.weights[0] = result.weights[0].flip(0)
        elif operation == "neighbor_counts":
            result[1, 3] += 1
        elif operation == "agreeing_neighbors":
            result += 1
        else:
            result[1 if operation == "class_moments" else 0].mul_(1.001)
        return result

    register_backend(operation, "ours", changed)
    assert "off by" in self_check.disagreement(operation, "ours", CPU)
    assert self_check.disagreement(operation, "torch", CPU) is None
