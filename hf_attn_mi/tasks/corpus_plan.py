"""What is to do in the folder of a run: its settings are checked, and its finished shards are found."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_attn_mi.data.run_folder import DamagedRunError, RunFolder, ShardInfo
from hf_attn_mi.data.settings import check_same_settings, settings_id, settings_text
from hf_attn_mi.errors import InvalidInputError, counted

LOGGER = logging.getLogger("hf_attn_mi")


@dataclass(frozen=True)
class CorpusPlan:
    """The state of a folder before a run.

    Attributes:
        run_id: of this run.
        settings: JSON of its settings.
        finished: the footers of the shards that are finished, by number.
        size: rows of a shard.
        rows: rows of the data set; None if that is not known.
    """

    run_id: str
    settings: str
    finished: Mapping[int, ShardInfo]
    size: int
    rows: int | None

    @property
    def settings_id(self) -> str:
        """The identifier of the settings, as footers have it."""
        return settings_id(json.loads(self.settings))

    @property
    def shards(self) -> int | None:
        """How many shards there will be; None if that is not known."""
        return None if self.rows is None else -(-self.rows // self.size)

    @property
    def missing(self) -> int | None:
        """How many shards are not finished; None if that is not known."""
        return None if self.shards is None else self.shards - len(self.finished)

    @property
    def missing_rows(self) -> int | None:
        """How many rows are not in a finished shard."""
        return None if self.rows is None else self.rows - sum(one.stop - one.start for one in self.finished.values())


def open_run(
    folder: RunFolder, run_id: str, settings: Mapping[str, Any], size: int, rows: int | None, about: Mapping[str, Any]
) -> CorpusPlan:
    """Check the folder, write `run.json` for a new run, and find the finished shards.

    Args:
        folder: its lock is held by this process.
        run_id: of this run.
        settings: what the numbers depend on.
        size: rows of a shard.
        rows: rows of the data set; None if that is not known.
        about: further facts for a new `run.json`.

    Raises:
        InvalidInputError: the folder holds a run with other settings, or shards of another run; names the difference.
    """
    plan = read_plan(folder, run_id, settings, size, rows, about)
    try:
        known = folder.read_run()
    except DamagedRunError as error:
        LOGGER.warning("%s; it is written anew from the finished shards.", error)
        known = None
    if known is None:
        created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        folder.write_run({**about, "created": created, "settings": dict(settings), "rows": rows, "runs": []})
    return plan


def read_plan(
    folder: RunFolder, run_id: str, settings: Mapping[str, Any], size: int, rows: int | None, about: Mapping[str, Any]
) -> CorpusPlan:
    """The state of the folder; nothing is written. Arguments and errors as `open_run`."""
    finished = dict[int, ShardInfo]()
    known: dict[str, Any] | None = None
    try:
        known = folder.read_run()
    except DamagedRunError:
        known = None
    if known is not None:
        names = {key: (known.get(key), about.get(key)) for key in ("model", "data")}
        check_same_settings(known["settings"], settings, str(folder.path), names)
    identifier = settings_id(settings)
    for number in folder.shard_numbers():
        shard_info = folder.read_shard_info(number)
        if shard_info is None and rows is not None and number * size >= rows:
            raise InvalidInputError(
                f"{str(folder.shard_path(number))!r} is no shard of this run, which has {counted(rows, 'row')} in "
                f"{counted(-(-rows // size), 'shard')}. Move it away."
            )
        if shard_info is None:
            LOGGER.warning("%s is damaged; it is done again.", folder.shard_path(number))
            continue
        info, written_with = shard_info
        if info.run != identifier:
            check_same_settings(json.loads(written_with), settings, str(folder.path))
            raise InvalidInputError(
                f"{str(folder.shard_path(number))!r} is not a shard of this run. Move it away, or name another folder."
            )
        finished[number] = info
    plan = CorpusPlan(run_id, settings_text(settings), finished, size, rows)
    if plan.shards is not None and finished and max(finished) >= plan.shards:
        raise InvalidInputError(
            f"{str(folder.shard_path(max(finished)))!r} holds rows from {max(finished) * size} on, but the data set "
            f"has {counted(rows or 0, 'row')}: it has changed. Name another folder."
        )
    return plan
