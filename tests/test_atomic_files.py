"""Files and folders are written whole or not at all, whatever happens in between."""

import ast
import os
import resource
import stat
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hf_attn_mi import atomic_files
from hf_attn_mi.atomic_files import as_path, new_file, new_folder, whole_folder, write_file
from hf_attn_mi.cli.output import write_json, write_text
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.figures import new_figure, save_figure
from hf_attn_mi.results import Results
from tests.results.result_samples import explanation
from tests.tasks.sample_profile import made as profile

OLD, NEW = b"old " * 1000, b"new " * 2000
NAMES = {"a", "b"}


def put_file(path, content, overwrite=True):
    write_file(content, path, overwrite=overwrite)


def put_folder(path, content, overwrite=True):
    with new_folder(path, NAMES, "sample", overwrite=overwrite) as folder:
        for name in sorted(NAMES):
            (folder / name).write_bytes(content)


def get_file(path):
    return path.read_bytes() if path.exists() else None


def get_folder(path):
    path = whole_folder(path)
    if not path.exists():
        return None
    assert {item.name for item in path.iterdir()} == NAMES
    (content,) = {item.read_bytes() for item in path.iterdir()}
    return content


KINDS = pytest.mark.parametrize(
    ("put", "get"), [(put_file, get_file), (put_folder, get_folder)], ids=["file", "folder"]
)


class InterruptAt:
    """Raises KeyboardInterrupt at the n-th line that the module of atomic files runs."""

    def __init__(self, number):
        self.number, self.lines = number, 0

    def __enter__(self):
        sys.settrace(self.trace)

    def __exit__(self, *_):
        sys.settrace(None)

    def trace(self, frame, event, argument):
        return self.trace_line if frame.f_code.co_filename == atomic_files.__file__ else None

    def trace_line(self, frame, event, argument):
        if event == "line":
            self.lines += 1
            if self.lines == self.number:
                raise KeyboardInterrupt
        return self.trace_line


@KINDS
@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "rename"])
@pytest.mark.parametrize(
    ("before", "overwrite"), [(OLD, True), (None, True), (None, False)], ids=["replaced", "first", "exclusive"]
)
def test_an_interruption_at_any_line_leaves_the_old_or_the_new_content(
    tmp_path, monkeypatch, put, get, exchange, before, overwrite
):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # slow, and not what is tested
    if not exchange:
        monkeypatch.setattr(atomic_files, "_exchange", lambda left, right: False)
    path, seen = tmp_path / "a.json", set()
    for number in range(1, 400):
        if before is not None:
            put(path, before)
        interrupt = InterruptAt(number)
        with suppress(KeyboardInterrupt), interrupt:
            put(path, NEW, overwrite)
        seen.add(get(path))
        assert get(path) in (before, NEW)
        put(path, before or OLD)  # the next save removes what the interruption left
        assert list(tmp_path.iterdir()) == [path]
        if before is None:
            for item in path.iterdir() if path.is_dir() else ():
                item.unlink()
            path.rmdir() if path.is_dir() else path.unlink()
        if interrupt.lines < number:
            break
    assert interrupt.lines < number > 30  # every line was one of those
    assert seen == {before, NEW}


@KINDS
def test_a_leftover_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(tmp_path, put, get):
    path = tmp_path / "a"
    for number in (0, 1, 5, 30):  # with gaps, which writers leave that replace each other
        leftover = tmp_path / f".a.{number}.tmp"
        leftover.mkdir() if put is put_folder else leftover.write_bytes(b"part")
    put(path, OLD)
    assert list(tmp_path.iterdir()) == [path]

    manager = new_file(path, overwrite=True) if put is put_file else new_folder(path, NAMES, "sample", overwrite=True)
    with suppress(ZeroDivisionError), manager as temporary:
        put(path, NEW)  # another writer
        assert temporary.exists()
        assert get(path) == NEW
        raise ZeroDivisionError
    assert get(path) == NEW
    assert list(tmp_path.iterdir()) == [path]


def test_a_leftover_that_is_linked_to_the_file_is_not_written(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(OLD)  # killed between the link and the removal of the temporary name
    os.link(path, tmp_path / ".a.0.tmp")
    with suppress(ZeroDivisionError), new_file(path, overwrite=True) as temporary:
        temporary.write_bytes(b"part")
        raise ZeroDivisionError
    assert path.read_bytes() == OLD


@KINDS
@pytest.mark.parametrize("locks", ["flock", "no flock", "no fcntl"])
def test_of_many_writers_exactly_one_wins_without_overwrite(tmp_path, monkeypatch, put, get, locks):
    if locks == "no flock":
        monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(37, "No locks available")))
    if locks == "no fcntl":
        monkeypatch.setattr(atomic_files, "fcntl", None)
    path, won, refused = tmp_path / "a", [], []
    barrier = threading.Barrier(8)

    def write(number):
        barrier.wait()
        try:
            put(path, NEW + bytes([number]), overwrite=False)
            won.append(number)
        except InvalidInputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(refused) == 7
    assert get(path) == NEW + bytes(won)
    assert list(tmp_path.iterdir()) == [path]


@KINDS
def test_many_writers_that_overwrite_leave_one_whole_content_and_nothing_else(tmp_path, put, get):
    path, errors = tmp_path / "a", []

    def write(number):
        try:
            for _ in range(20):
                put(path, NEW + bytes([number]))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert get(path)[:-1] == NEW
    put(path, OLD)
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_and_links_stay(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_bytes(OLD)
    path.chmod(0o640)
    link.symlink_to(path)
    write_file(NEW, link, overwrite=True)
    assert link.is_symlink()
    assert path.read_bytes() == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(InvalidInputError, match="exists"):
        write_file(OLD, link, overwrite=False)
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    with pytest.raises(InvalidInputError, match="exists"):
        write_file(OLD, tmp_path / "nowhere", overwrite=False)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a", "link", "nowhere"]


@pytest.mark.parametrize("length", [199, 230, 255])
def test_the_longest_names_can_be_written(tmp_path, length):
    write_file(NEW, tmp_path / ("n" * length), overwrite=False)
    assert [len(item.name) for item in tmp_path.iterdir()] == [length]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (5, "path must be a string or a pathlib.Path, not int"),
        (b"a", "not bytes"),
        (None, "not NoneType"),
        ("", "it is empty"),
        ("a\0b", "null character"),
        ("\ud800", "surrogates not allowed"),
    ],
)
def test_what_is_no_file_name_is_refused(path, words):
    with pytest.raises(InvalidInputError, match=words):
        as_path(path)


# --- every writer -----------------------------------------------------------------------------------------------------

WRITERS = {
    "record": ("a.json", lambda path: explanation().save(path, overwrite=True)),
    "compressed record": ("a.json.gz", lambda path: explanation().save(path, overwrite=True)),
    "results": ("a.jsonl", lambda path: Results([explanation()] * 9).save(path, overwrite=True)),
    "--json": ("a.json", lambda path: write_json(["text"] * 1000, path)),
    "--html": ("a.html", lambda path: write_text(explanation().to_html(), path)),
    "png": ("a.png", lambda path: save_figure(new_figure(), path)),
    "svg": ("a.svg", lambda path: save_figure(new_figure(), path)),
    "profile": ("profile", lambda path: profile().save(path, overwrite=True)),
}


@contextmanager
def files_of_at_most(size):
    """As on a full disk: a write that makes a file longer than this fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder):
    return {str(item.relative_to(folder)): item.read_bytes() for item in folder.rglob("*") if item.is_file()}


@pytest.mark.parametrize(("name", "write"), WRITERS.values(), ids=WRITERS)
def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, name, write):
    path = tmp_path / name
    write(path)
    before = contents(tmp_path)
    with files_of_at_most(100), pytest.raises(Exception, match=r"File too large|os error 27"):
        write(path)
    assert contents(tmp_path) == before
    write(path)
    assert contents(tmp_path) == before  # equal results give equal files, and nothing else is there


def test_every_file_of_the_package_is_written_by_this_module():
    writing = {"write_text", "write_bytes", "savefig", "save_file", "dump", "rename", "replace", "to_csv", "to_parquet"}
    for path in sorted(Path(atomic_files.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            node.func.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and (node.func.attr != "replace" or getattr(node.func.value, "id", "") == "os")
        }
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        known = path == Path(atomic_files.__file__) or "hf_attn_mi.atomic_files" in modules
        in_memory = {"savefig"} if "BytesIO" in names else set()  # a figure for a page
        assert known or not (names & writing) - in_memory, f"{path} writes files: {names & writing}"
