"""The program: what is done before the process ends without freeing its memory, and with which status."""

import gc
import subprocess
import sys
from contextlib import suppress

import pytest

from hf_attn_mi.cli.loading import Process, collection_paused
from tests.cli.command_line import ROOT, command

LIBRARY = """
import atexit, sys
from hf_attn_mi.cli import program

class Freed:
    def __del__(self):
        print("freed")

def command():
    kept.append(Freed())  # a library's object that Python would free at the end
    kept.append(kept)
    atexit.register(print, "handler of a library")
    sys.stdout.write("without a line break")
    {end}

kept = []
program.main = command
program.run()
"""


def ended(end):
    """The process in which the command ends like this."""
    source = LIBRARY.format(end=end)
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("status", [0, 3])
def test_output_is_flushed_and_handlers_run_but_nothing_is_freed(status):
    done = ended(f"return {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, "without a line breakhandler of a library\n", "")


def test_a_command_that_is_left_by_an_exception_ends_as_python_ends_it():
    done = ended("raise RuntimeError('a defect')")
    assert done.returncode == 1
    assert done.stdout == "without a line breakhandler of a library\nfreed\n"
    assert done.stderr.endswith("RuntimeError: a defect\n")


def test_the_module_is_the_program():
    done = command("methods", "--nothing")
    assert done.returncode == 2
    assert done.stderr.startswith("hf-attn-mi: ")


@pytest.mark.parametrize("running", [True, False])
def test_the_garbage_collector_is_left_as_it_was(running):
    """Also after an error."""
    before = gc.isenabled()
    try:
        (gc.enable if running else gc.disable)()
        with suppress(ZeroDivisionError), collection_paused():
            inside = gc.isenabled()
            1 / 0  # noqa: B018
        assert (inside, gc.isenabled()) == (False, running)
    finally:
        (gc.enable if before else gc.disable)()


def test_what_is_imported_is_frozen_only_in_a_process_that_ends_with_the_command(monkeypatch):
    frozen = gc.get_freeze_count()
    with collection_paused():
        pass
    assert gc.get_freeze_count() == frozen
    monkeypatch.setattr(Process, "ends_with_command", True)
    try:
        with collection_paused():
            kept = [[]]
        assert gc.get_freeze_count() > frozen
        assert all(one is not kept for one in gc.get_objects())
    finally:
        gc.unfreeze()
