"""Files and folders that are written whole or not at all: every file of this package is written here.

The content is written under a temporary name in the same folder, flushed to the disk, and given its name in one step.
A full disk, an exception, Ctrl-C or the end of the process leaves what was there before. The temporary name is locked
while it is used: the next save of the same name removes what a killed process left, and touches no other writer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hf_attn_mi.errors import InvalidInputError

try:
    import fcntl
except ImportError:  # Windows: no lock; a temporary name is used once
    fcntl = None  # type: ignore[assignment,unused-ignore]

_LONGEST_NAME = 200  # bytes, of 255: the temporary name is longer
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_CURRENT_FOLDER = -100  # AT_FDCWD
_ATTEMPTS = 1000
_FREE_NUMBERS = 32  # in a row, after which no leftovers are expected: writers at the same time take as many numbers


class _NoLockError(Exception):
    """The system or the file system has no locks."""


def as_path(path: object, name: str = "path") -> Path:
    """Return a path given as a string or path.

    Args:
        path: what the user passed.
        name: the argument's name, for the message.

    Raises:
        InvalidInputError: another type, bytes, an empty string, or characters that no file name can have.

    Example:
        >>> as_path("scores.json").name
        'scores.json'
    """
    try:
        text = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise InvalidInputError(f"{name} must be a string or a pathlib.Path, not {type(path).__name__}")
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{name}={text!r} is not a file name: {error}") from error
    if not text or b"\0" in encoded:
        reason = "it contains a null character" if text else "it is empty"
        raise InvalidInputError(f"{name}={text!r} is not a file name: {reason}")
    return Path(text)


def write_file(content: bytes, path: str | Path, *, overwrite: bool) -> None:
    """Write a file in one step. Raises as `new_file`.

    Example:
        >>> write_file(b"{}", "scores.json", overwrite=True)    # doctest: +SKIP
    """
    with new_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


@contextmanager
def new_file(path: str | Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary, empty file to write; after the block it has the name `path`, after an exception it is gone.

    Args:
        path: the path of the file. With `overwrite` a link keeps pointing to its file, which is replaced and keeps its
            permissions.
        overwrite: replace an existing file. Without it the file is created exclusively: of two processes that write it
            at the same time, one is refused.

    Raises:
        InvalidInputError: not a path, a missing folder, a folder at `path`, or an existing file without `overwrite`.
        OSError: the file cannot be written.

    Example:
        >>> with new_file("scores.txt", overwrite=True) as temporary:    # doctest: +SKIP
        ...     temporary.write_text("0.5")
    """
    path = as_path(path)
    check_parent(path)
    if path.is_dir():
        raise InvalidInputError(f"path={str(path)!r} is a folder; name a file")
    if path.exists() and not overwrite:
        raise _exists(path)
    path = Path(os.path.realpath(path)) if overwrite else path
    with _temporary(path, folder=False) as temporary:
        yield temporary
        _sync(temporary)
        if overwrite:
            if path.exists():
                with suppress(OSError):
                    shutil.copymode(path, temporary)
            os.replace(temporary, path)
        else:
            _create(temporary, path)
    _sync(path.parent)


@contextmanager
def new_folder(path: str | Path, names: set[str], kind: str, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary, empty folder to write; after the block it has the name `path`, after an exception it is gone.

    Where the system can exchange two names (Linux), there is a whole folder at `path` at every moment. Elsewhere the
    old folder is moved aside first; `whole_folder` finds it if the process is killed at that moment.

    Args:
        path: the path of the folder.
        names: the names of the files that the block writes. A folder with other files is not replaced.
        kind: what the folder is, for messages.
        overwrite: replace an existing folder of this kind.

    Raises:
        InvalidInputError: not a path, a missing parent folder, or something at `path` that is not to be replaced.
        OSError: the folder cannot be written.
    """
    path = as_path(path).absolute()
    check_parent(path)
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise _exists(path)
    path = Path(os.path.realpath(path))
    if path.exists() and not (path.is_dir() and {item.name for item in path.iterdir()} <= names):
        raise InvalidInputError(f"path={str(path)!r} is not a saved {kind} and is not replaced; choose another name")
    with _temporary(path, folder=True) as temporary:
        yield temporary
        for item in temporary.iterdir():
            _sync(item)
        _sync(temporary)
        _rename_folder(temporary, path, overwrite=overwrite)
    _sync(path.parent)


def whole_folder(path: Path) -> Path:
    """Return `path`, or the folder that a process which was killed while replacing it had moved aside."""
    aside = _aside(path)
    return aside if not path.exists() and aside.is_dir() else path


def check_parent(path: Path) -> None:
    """Refuse a path in a folder that does not exist.

    Raises:
        InvalidInputError: there is no such folder.
    """
    if not path.parent.is_dir():
        raise InvalidInputError(f"path={str(path)!r}: the folder {str(path.parent)!r} does not exist; create it first")


def _exists(path: Path) -> InvalidInputError:
    return InvalidInputError(f"path={str(path)!r} exists; choose another name or pass overwrite=True")


# --- temporary names --------------------------------------------------------------------------------------------------
#
# The temporary names of a path are numbered. Who holds the lock of the file (or folder) that has such a name may use or
# remove it; the lock ends with the process. A name without a lock is what a killed process left.


class _Lock:
    """The lock of an open file or folder, until it is released or the object is gone."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.release = weakref.finalize(self, os.close, descriptor)  # also after an interruption at any moment

    def is_of(self, path: Path) -> bool:
        """Whether what is locked still has this name."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.lstat(path))
        except FileNotFoundError:
            return False


@contextmanager
def _temporary(path: Path, *, folder: bool) -> Iterator[Path]:
    """Make an empty file or folder with a temporary name, locked; afterwards remove what was not renamed."""
    temporary: Path | None = None
    lock: _Lock | None = None
    created = False
    try:
        for number in range(_ATTEMPTS):
            temporary = _name(path, f"{number}.tmp")
            try:
                if not _remove_leftover(temporary):
                    continue
                _make(temporary, folder)
                created = True
                lock = _lock(temporary)
            except FileExistsError:  # another writer was faster
                continue
            except _NoLockError:  # then use a name that is unique; leftover files cannot be recognized
                if created:
                    _remove(temporary)
                temporary = _name(path, f"{uuid.uuid4().hex}.tmp")
                _make(temporary, folder)
                created = True
                break
            if lock is not None:
                _remove_leftovers(path, number + 1)
                break
            created = False  # another writer took it for a leftover
        else:
            raise OSError(errno.EBUSY, "too many processes write this name at the same time", str(path))
        yield temporary
    finally:
        if lock is not None and temporary is not None:
            if lock.is_of(temporary):
                _remove(temporary)
            lock.release()
            if folder:  # the one that was replaced
                _remove_leftover(temporary)
        elif temporary is not None and created:
            _remove(temporary)


def _make(path: Path, folder: bool) -> None:
    """Make an empty file or folder, exclusively."""
    if folder:
        path.mkdir()
    else:
        path.touch(exist_ok=False)


def _name(path: Path, suffix: str) -> Path:
    """A hidden name in the folder of the path."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = uuid.uuid5(uuid.NAMESPACE_URL, name).hex
    return path.with_name(f".{name}.{suffix}")


def _lock(path: Path) -> _Lock | None:
    """Lock a file or folder; None if another has the lock or it no longer has this name.

    Raises:
        _NoLockError: there are no locks here.
    """
    if fcntl is None:
        raise _NoLockError
    try:
        lock = _Lock(os.open(path, os.O_RDONLY))
    except OSError:
        return None
    try:
        fcntl.flock(lock.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        raise _NoLockError from error
    return lock if lock.is_of(path) else None


def _remove_leftover(path: Path) -> bool:
    """Remove what a killed process left under this name; False if a writer uses it."""
    if not os.path.lexists(path):
        return True
    lock = _lock(path)
    if lock is None:
        return False
    _remove(path)
    lock.release()
    return not os.path.lexists(path)


def _remove_leftovers(path: Path, first: int) -> None:
    """Remove what several writers left that were killed or replaced each other's folders at the same time.

    Numbers between may be free again, or be in use: the search ends where many in a row are free.
    """
    free = 0
    for number in range(first, _ATTEMPTS):
        leftover = _name(path, f"{number}.tmp")
        free = 0 if os.path.lexists(leftover) else free + 1
        if free == _FREE_NUMBERS:
            return
        if free == 0:
            _remove_leftover(leftover)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


# --- giving the name --------------------------------------------------------------------------------------------------


def _create(temporary: Path, path: Path) -> None:
    """Give the file its name unless that name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # a file system without hard links: reserve the name, then replace the empty file
        try:
            path.open("xb").close()
        except FileExistsError:
            raise _exists(path) from None
        try:
            os.replace(temporary, path)
        except BaseException:
            if temporary.exists():
                path.unlink(missing_ok=True)
            raise


def _rename_folder(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Give the folder its name; afterwards `temporary` is the old folder or nothing."""
    aside = _aside(path)
    try:
        if not path.exists():
            try:
                os.rename(temporary, path)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        if not overwrite:  # another process made it in the meantime
            raise _exists(path)
        if not _exchange(temporary, path):
            _remove(aside)
            os.rename(path, aside)
            os.rename(temporary, path)
    finally:
        if aside.exists():
            if path.exists():
                _remove(aside)
            else:
                os.rename(aside, path)


def _aside(path: Path) -> Path:
    return _name(path, "old")


def _exchange(left: Path, right: Path) -> bool:
    """Exchange two names in one step; False if the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    here = ctypes.c_int(_CURRENT_FOLDER)
    return bool(rename(here, os.fsencode(left), here, os.fsencode(right), ctypes.c_uint(_EXCHANGE)) == 0)


def _sync(path: Path) -> None:
    """Ask the system to write a file or a folder to the disk.

    A folder that cannot be opened or synchronized (Windows, some network file systems) is left to the system.
    """
    folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        if not folder:
            raise
