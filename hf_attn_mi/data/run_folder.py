"""The folder of a run over a data set: numbered shards, their errors, `run.json`, and the lock of the run.

The finished shards and `run.json` are the only record of what is done. Every file is written whole or not at all, so
that a process that is killed leaves finished shards and nothing else that counts.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from hf_attn_mi.atomic_files import as_path, new_file, write_file
from hf_attn_mi.errors import InvalidInputError

DATA, ERRORS, RUN, LOCK = "data", "errors", "run.json", ".lock"
SCHEMA = 1
TYPE = "hf_attn_mi.Run"
_KEY = b"hf_attn_mi"  # key of the entry in the metadata of a shard
_SHARD = re.compile(r"shard-(\d{5,})\.parquet")


@dataclass(frozen=True)
class ShardInfo:
    """What the footer of a shard says.

    Attributes:
        number: the number of the shard.
        start, stop: its rows in the data set.
        rows: rows of the file.
        failed: rows of the data set that are in the errors file instead.
        digest: the digest of the rows of the data set.
        run: identifier of the settings; see `settings_id`.
        statistics: seconds and peak memory of the process that wrote it.
    """

    number: int
    start: int
    stop: int
    rows: int
    failed: int
    digest: str
    run: str
    statistics: Mapping[str, float]


class RunFolder:
    """The folder of one run; see the module.

    Args:
        path: the folder; it need not exist.

    Example:
        >>> RunFolder("out").shard_path(3).name
        'shard-00003.parquet'
    """

    def __init__(self, path: object) -> None:
        self.path = as_path(path, "output")

    def shard_path(self, number: int) -> Path:
        """The path of a shard."""
        return self.path / DATA / f"shard-{number:05d}.parquet"

    def errors_path(self, number: int) -> Path:
        """The path of the errors of a shard."""
        return self.path / ERRORS / f"shard-{number:05d}.jsonl"

    def create(self) -> None:
        """Make the folder.

        Raises:
            InvalidInputError: it holds other files than those of a run, or its parent does not exist.
            OSError: it cannot be made.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InvalidInputError(f"output={str(self.path)!r} is a file; name a folder.")
        if not self.path.absolute().parent.is_dir():
            raise InvalidInputError(f"output={str(self.path)!r}: its parent folder does not exist; create it first.")
        foreign = sorted(item.name for item in self.path.iterdir()) if self.path.exists() else []
        foreign = [name for name in foreign if name not in (DATA, ERRORS, RUN, LOCK) and not name.startswith(".")]
        if foreign and not (self.path / RUN).exists():
            raise InvalidInputError(
                f"output={str(self.path)!r} holds {', '.join(foreign[:3])} and no {RUN}: it is not the folder of a "
                "run. Name an empty or a new folder."
            )
        self._refuse_foreign()
        for name in (DATA, ERRORS):
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def _refuse_foreign(self) -> None:
        """Refuse to write over files of other programs that have the names of files of a run.

        In a folder with `run.json` or a shard of a run, and where a file cannot be read, it is taken for a damaged one.
        """
        import pyarrow.parquet

        foreign = []
        try:
            run = json.loads((self.path / RUN).read_bytes())
            if _describes_run(run):
                return
            foreign.append(self.path / RUN)
        except (OSError, ValueError, RecursionError):
            pass
        for number in self.shard_numbers():
            try:
                with pyarrow.parquet.ParquetFile(self.shard_path(number)) as file:
                    if _KEY in (file.metadata.metadata or {}):
                        return
                foreign.append(self.shard_path(number))
            except Exception:  # damaged; pyarrow has many
                continue
        if foreign:
            raise InvalidInputError(
                f"output={str(self.path)!r}: {str(foreign[0])!r} was not written by a run, and would be written over. "
                "Move it away, or name another folder."
            )

    # --- the lock ----------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self, run_id: str) -> Iterator[None]:
        """Hold the lock of the folder; it ends with the process, however that ends.

        Args:
            run_id: the identifier of this run, which the refusal of another one names.

        Raises:
            InvalidInputError: another run has the lock.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK, timeout=0, thread_local=False)
        owner = self.path / f"{LOCK}.owner"
        try:
            lock.acquire()
        except Timeout:
            try:
                known = owner.read_text(encoding="utf-8").strip()
            except OSError:
                known = "an unknown process"
            raise InvalidInputError(
                f"output={str(self.path)!r} is being written by run {known}; run {run_id} is refused. Wait until it "
                "ends, or name another folder."
            ) from None
        try:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            owner.write_text(f"{run_id} (process {os.getpid()} on {socket.gethostname()}, since {since})\n", "utf-8")
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    # --- run.json ----------------------------------------------------------------------------------------------------

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        content = json.dumps({"type": TYPE, "schema": SCHEMA, **run}, indent=1, allow_nan=False)
        with self._writing(RUN):
            write_file(content.encode(), self.path / RUN, overwrite=True)

    def read_run(self) -> dict[str, Any] | None:
        """What `run.json` says; None if there is no such file.

        Raises:
            DamagedRunError: it is no JSON object of a run.
            InvalidInputError: it has another schema.
        """
        try:
            content = (self.path / RUN).read_bytes()
        except FileNotFoundError:
            return None
        try:
            run = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DamagedRunError(f"{str(self.path / RUN)!r} is damaged: {error}") from error
        if not _describes_run(run):
            raise DamagedRunError(f"{str(self.path / RUN)!r} does not describe a run")
        if run.get("schema") != SCHEMA:
            raise InvalidInputError(
                f"{str(self.path / RUN)!r} has schema {run.get('schema')!r}; this version reads schema {SCHEMA} only."
            )
        return run

    # --- shards ------------------------------------------------------------------------------------------------------

    def write_shard(self, table: Any, errors: Sequence[Mapping[str, Any]], info: ShardInfo, settings: str) -> None:
        """Write the errors of a shard and then the shard, each in one step.

        Args:
            table: a pyarrow.Table.
            errors: one record for each row that failed.
            info: what the footer says.
            settings: JSON of the settings of the run; also in the footer, so that a lost `run.json` can be restored.

        Raises:
            OSError: a file cannot be written; the shard is then not there.
        """
        import pyarrow.parquet

        lines = "".join(json.dumps(error, allow_nan=False) + "\n" for error in errors)
        metadata_fields = {name: getattr(info, name) for name in ShardInfo.__dataclass_fields__} | {"schema": SCHEMA}
        metadata = {**(table.schema.metadata or {}), _KEY: json.dumps(metadata_fields), _KEY + b".settings": settings}
        with self._writing(f"shard {info.number}"):
            if errors:
                write_file(lines.encode(), self.errors_path(info.number), overwrite=True)
            else:
                self.errors_path(info.number).unlink(missing_ok=True)
            with new_file(self.shard_path(info.number), overwrite=True) as temporary:
                pyarrow.parquet.write_table(
                    table.replace_schema_metadata(metadata), temporary, compression="zstd", write_page_checksum=True
                )

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Say what cannot be written, and what to do."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                error.errno,
                f"{what} cannot be written ({reason}). The finished shards stay: make room and run the same call again",
                str(self.path),
            ) from error

    def shard_numbers(self) -> list[int]:
        """The numbers of the shards that have a file, sorted."""
        folder = self.path / DATA
        names = [item.name for item in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(match[1]) for name in names if (match := _SHARD.fullmatch(name)))

    def read_shard_info(self, number: int) -> tuple[ShardInfo, str] | None:
        """The footer of a shard and the settings of its run; None for a file that is not a whole shard.

        A shard is whole if its footer can be read, agrees with the number of rows, and every failed row has its line
        in the errors file.
        """
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.shard_path(number)) as file:
                metadata, rows = file.metadata.metadata or {}, file.metadata.num_rows
            metadata_fields = json.loads(metadata[_KEY])
            settings = metadata[_KEY + b".settings"].decode()
            if metadata_fields.pop("schema") != SCHEMA:
                return None
            info = ShardInfo(**metadata_fields)
            errors = len(self.read_errors(number)) if info.failed else 0
        except Exception:  # pyarrow has many; whatever is wrong with it, the shard is written anew
            return None
        whole = info.number == number and info.rows == rows and errors == info.failed
        return (info, settings) if whole else None

    def read_shard(self, number: int, columns: Sequence[str] | None = None) -> Any:
        """The pyarrow.Table of a shard; the checksums of its pages are verified.

        Raises:
            InvalidInputError: the file is damaged; says what to do.
        """
        import pyarrow.parquet

        path = self.shard_path(number)
        try:
            return pyarrow.parquet.read_table(
                path, columns=None if columns is None else list(columns), page_checksum_verification=True
            )
        except Exception as error:
            raise InvalidInputError(
                f"{str(path)!r} is damaged ({error}). Delete it and run explain_dataset again: only this shard is done."
            ) from error

    def read_errors(self, number: int) -> list[dict[str, Any]]:
        """The records of the rows of a shard that failed.

        Raises:
            InvalidInputError: the file is damaged.
        """
        path = self.errors_path(number)
        if not path.exists():
            return []
        try:
            records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
            if not all(isinstance(record, dict) for record in records):
                raise ValueError("a line is no JSON object")
            return records
        except ValueError as error:
            raise InvalidInputError(
                f"{str(path)!r} is damaged ({error}). Delete it and run explain_dataset again: this shard is done anew."
            ) from error


def _describes_run(run: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(run, dict) and run.get("type") == TYPE and isinstance(run.get("settings"), dict)


class DamagedRunError(InvalidInputError):
    """`run.json` cannot be read."""


def new_run_id() -> str:
    """A short identifier of a run, new with each call."""
    return uuid.uuid4().hex[:8]
