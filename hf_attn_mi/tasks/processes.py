"""The processes of a run: which of them this one is, and what they tell each other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

LONGEST = timedelta(days=30)  # time that a process waits for the others at most
SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # variables of torchrun and MPI


@dataclass(frozen=True)
class Processes:
    """The processes that share a run.

    They are those of `torch.distributed`: of `accelerate launch`, `torchrun` or a group that the caller has made.

    Attributes:
        rank: the number of this process.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def of_environment(cls) -> Processes:
        """The group that exists, or the one that the launcher's variables describe; one process without either."""
        if not dist.is_available():
            return cls()
        if not dist.is_initialized() and _launched() > 1:
            _state()
        if not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the files of which a run has only one."""
        return self.rank == 0

    def from_first(self, value: Any) -> Any:
        """The value of the first process, in all of them."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes in their order, in all of them."""
        if self.count == 1:
            return [value]
        gathered: list[Any] = [None] * self.count
        dist.all_gather_object(gathered, value)
        return gathered


def own_device() -> torch.device:
    """Where this process runs a model: the device that accelerate gives it, else a GPU if there is one."""
    if _launched() > 1:
        device: torch.device = _state().device
        return device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _launched() -> int:
    """How many processes the variables of a launcher name."""
    return max(int(os.environ.get(name) or 1) for name in SIZES)


def _state() -> Any:
    """accelerate's state; the first call makes the group of processes."""
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST)
