"""Independent pieces of work on the CPU: a thread for each, rather than all threads for every operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def sharing_threads(device: torch.device, pieces: int) -> Iterator[int]:
    """Give the number of threads for `across_threads`; operations of the calling thread run alone in the meantime.

    An operation that all threads share ends when the slowest of them is done, and the others spin until then: with
    hundreds of short operations and another job on the machine that costs more than it saves, up to tenfold.

    PyTorch keeps the number of threads for each thread and gives new threads the last one set anywhere; the caller's is
    set again at the end, also after an exception. The number is one, and nothing is changed, for a single piece of
    work, where the caller has one thread, and on other devices than the CPU.

    Args:
        device: the device of the tensors that are processed.
        pieces: the number of independent pieces of work.

    Example:
        >>> with sharing_threads(torch.device("cpu"), 8) as threads:
        ...     torch.get_num_threads()
        1
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or min(threads, pieces) < 2:
        yield 1
        return
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def across_threads(task: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """Return [task(item) for item in items], computed by some threads whose operations each run alone.

    The tasks run in the caller's gradient and inference modes and with its context variables.

    Args:
        task: called once for each item; must not write where another one reads.
        items: in the order of the results.
        threads: at most this many; 1: a plain loop.

    Raises:
        Exception: the first that a task raised.

    Example:
        >>> across_threads(lambda part: part.sum().item(), torch.arange(6).split(2), 2)
        [1, 5, 9]
    """
    listed = list(items)
    if min(threads, len(listed)) < 2:
        return [task(item) for item in listed]
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def run(item: Item) -> Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return task(item)

    caller = copy_context()
    with ThreadPoolExecutor(min(threads, len(listed)), initializer=_alone) as pool:
        return list(pool.map(lambda item: caller.copy().run(run, item), listed))


def _alone() -> None:
    torch.get_num_threads()  # the first call in a thread takes over the last number set anywhere: not after ours
    torch.set_num_threads(1)
