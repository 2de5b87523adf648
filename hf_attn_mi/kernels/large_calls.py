"""Whether numba is worth loading: decided for a whole call by its size, never by what ran before in the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

NUMBA_PAIRS = 16 * 2000**2  # pairs of points (16 sites of 2,000) for which it is worth a second or more to load numba
_inside: ContextVar[bool] = ContextVar("_inside", default=False)


def is_worth_loading(pairs: int = 0) -> bool:
    """Return whether numba is worth loading for these pairs of points, or for the call that this one is a part of."""
    return pairs >= NUMBA_PAIRS or _inside.get()


@contextmanager
def part_of_call(pairs: int) -> Iterator[None]:
    """Let operations with backend="auto" take numba where it is worth loading for these pairs of points together.

    The backend then depends on the data alone: numba and PyTorch differ in the rounding of sums, and in which of
    several equal neighbors they take.

    Args:
        pairs: of all sites of the call together; a single operation may have few of them.

    Example:
        >>> with part_of_call(10**9):
        ...     is_worth_loading(1)
        True
        >>> is_worth_loading(1)
        False
    """
    token = _inside.set(is_worth_loading(pairs))
    try:
        yield
    finally:
        _inside.reset(token)
