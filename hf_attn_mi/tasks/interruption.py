"""Ctrl-C and SIGTERM during a long run: note them, so that the run can stop at a good place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class StopRequest:
    """A request to stop.

    Attributes:
        signal: the signal that came; None if none did.
    """

    signal: int | None = None

    @property
    def made(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Inside, the first SIGINT or SIGTERM is noted; the second raises KeyboardInterrupt.

    Afterwards the handlers that were there are put back and get the signal that came: it is delayed, not lost. Outside
    of the main thread nothing is changed, since handlers can only be set there.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.made:
            raise KeyboardInterrupt
        request.signal = number

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if request.signal is not None:
        signal.raise_signal(request.signal)
