"""Work shared out to threads: the same results, errors and modes, and the caller's number of threads after it."""

import threading

import pytest
import torch

from hf_attn_mi.kernels import class_moments, neighbor_counts
from hf_attn_mi.kernels.threads import across_threads, sharing_threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def problem():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (257,), generator=generator)
    return torch.randn(5, 257, 9, generator=generator), labels


@pytest.mark.parametrize("sites", [1, 2, 5])
def test_results_are_those_of_one_thread(sites):
    states, labels = problem()
    states = states[:sites]
    moments = class_moments(states, labels)
    single = neighbor_counts(states, labels)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    expected = class_moments(states, labels)
    for name in ("mean", "grams", "sums", "weights", "products"):
        torch.testing.assert_close(getattr(moments, name), getattr(expected, name))
    assert torch.equal(single.within, neighbor_counts(states, labels).within)


def test_tasks_run_at_once_each_on_one_thread_and_in_order():
    together = threading.Barrier(3, timeout=30)  # passes only when three tasks run at the same time

    def task(number):
        together.wait()
        return number, torch.get_num_threads()

    with sharing_threads(CPU, 6) as threads:
        assert (threads, torch.get_num_threads()) == (3, 1)
        assert across_threads(task, range(6), threads) == [(number, 1) for number in range(6)]
    assert torch.get_num_threads() == 3
    fresh = []
    other = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert fresh == [3]  # new threads of the caller get what the caller had


def test_after_an_exception():
    def task(number):
        if number == 1:
            raise ZeroDivisionError("one")

    with pytest.raises(ZeroDivisionError, match="one"), sharing_threads(CPU, 4) as threads:
        across_threads(task, range(4), threads)
    assert torch.get_num_threads() == 3


def test_nothing_changes_for_one_piece_or_one_thread():
    with sharing_threads(CPU, 1) as threads:
        assert (threads, torch.get_num_threads()) == (1, 3)
    with sharing_threads(torch.device("meta"), 8) as threads:
        assert (threads, torch.get_num_threads()) == (1, 3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_modes_of_the_caller(mode):
    states, labels = problem()
    with mode():
        assert across_threads(lambda _: torch.is_grad_enabled(), range(2), 2) == [False, False]
        # In inference mode the results are inference tensors, which nothing outside of it may write to.
        found = class_moments(states.clone(), labels)
        counts = neighbor_counts(states.clone(), labels)
    torch.testing.assert_close(found.grams, class_moments(states, labels).grams)
    assert torch.equal(counts.within, neighbor_counts(states, labels).within)
