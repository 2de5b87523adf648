"""The progress of a long run: a bar on a terminal, else one line a minute in the log."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from tqdm import tqdm

from hf_attn_mi.errors import counted
from hf_attn_mi.results.dataset_run import duration

LOGGER = logging.getLogger("hf_attn_mi")
INTERVAL = 60.0  # seconds between two lines


class Progress:
    """Counts rows and says how many there are, how fast it goes and how long it will take.

    Args:
        total: rows that this process will do; None if that is not known.
        rank, count: the number of this process and how many there are.
    """

    def __init__(self, total: int | None, rank: int = 0, count: int = 1) -> None:
        self.total, self.rows = total, 0
        self.name = "explain_dataset" if count == 1 else f"process {rank} of {count}"
        self.started = self._said = time.perf_counter()
        terminal = bool(sys.stderr and sys.stderr.isatty())
        self.bar: Any = tqdm(total=total, desc=self.name, unit="row", position=rank) if terminal else None

    def update(self, count: int) -> None:
        """Add rows."""
        self.rows += count
        if self.bar is not None:
            self.bar.update(count)
        elif (now := time.perf_counter()) - self._said >= INTERVAL:
            self._said = now
            LOGGER.info("%s: %s", self.name, self.line(now - self.started))

    def line(self, seconds: float) -> str:
        """What a line of the log says after so many seconds."""
        rate = self.rows / max(seconds, 1e-9)
        if self.total is None:
            return f"{counted(self.rows, 'row')}, {rate:,.4g} rows/s"
        left = "" if self.rows == 0 else f", {duration((self.total - self.rows) / rate)} left"
        return f"{self.rows:,} of {counted(self.total, 'row')}, {rate:,.4g} rows/s{left}"

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()
