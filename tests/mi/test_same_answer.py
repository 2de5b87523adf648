"""The same seed and the same numbers give the same answer, whatever else the caller has set or done."""

import pytest
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi import fit_boosted_probe, fit_probe, mutual_information
from hf_attn_mi.mi.rng import make_rng, mark_of

DRAW = torch.Generator().manual_seed(0)
CLASSES = torch.randint(3, (300,), generator=DRAW)
STATES = torch.randn(300, 24, generator=DRAW) + 0.4 * CLASSES[:, None]


@pytest.fixture
def settings():
    """What a test may change: it is put back."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)


def measured():
    return mutual_information(STATES, CLASSES, permutations=4)


@pytest.mark.parametrize(("width", "shift"), [(24, 0.1), (8, 0.3)])
def test_rounding_of_another_number_of_threads_draws_no_other_numbers(settings, width, shift):
    """Random draws were once keyed by a number that is computed from the states: their noise changed with rounding."""
    draw = torch.Generator().manual_seed(0)
    classes = torch.randint(3, (300,), generator=draw)
    states = torch.randn(300, width, generator=draw) + shift * classes[:, None]
    rounded = states * (1 + 1e-6 * torch.rand(300, width, generator=draw))
    torch.set_num_threads(1)
    one, nearly = (mutual_information(x, classes, permutations=2) for x in (states, rounded))
    torch.set_num_threads(2)
    two = mutual_information(states, classes, permutations=2)
    assert one.nats.item() == pytest.approx(two.nats.item(), abs=1e-5)
    assert one.nats.item() == pytest.approx(nearly.nats.item(), abs=1e-4)
    assert one.lower_bound_normal.item() == pytest.approx(two.lower_bound_normal.item(), abs=1e-5)


def test_sites_and_orders_of_the_classes_have_marks_of_their_own():
    other = torch.randn(300, 24, generator=torch.Generator().manual_seed(1))
    marks = [mark_of(STATES, CLASSES), mark_of(other, CLASSES), mark_of(STATES, CLASSES.flip(0))]
    assert len(set(marks)) == 3
    assert mark_of(STATES.double() * 1e-30, CLASSES) == marks[0]


def test_default_dtype_and_autocast_change_nothing(settings):
    wanted, probe = measured(), fit_probe(STATES, CLASSES)
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        assert measured().to_dict() == wanted.to_dict()
        assert torch.equal(fit_probe(STATES, CLASSES).directions, probe.directions)
        assert torch.get_default_dtype() == dtype
        fit_boosted_probe(STATES, CLASSES)
    torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert measured().to_dict() == wanted.to_dict()
        assert torch.equal(fit_probe(STATES, CLASSES).directions, probe.directions)
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("seed", ["a", 1.5, -1, True, 2**32])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(InvalidInputError, match="seed must be a whole number from 0"):
        mutual_information(STATES, CLASSES, seed=seed)
    with pytest.raises(InvalidInputError, match="seed must be a whole number from 0"):
        make_rng(seed, "test")
