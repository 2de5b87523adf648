"""One rule of exit statuses for all commands, and `--help`, which states it."""

import argparse
import importlib
import os
import subprocess
import sys
import warnings

import pytest

from hf_attn_mi.cli import main
from hf_attn_mi.cli.output import headed, warnings_as_lines
from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError, UnsupportedModelError
from tests.cli.command_line import ROOT, refused

COMMANDS = ("explain", "certify", "minimal", "compare", "mi", "models")


def test_help_lists_every_command_and_every_command_states_the_statuses(capsys):
    for arguments in (["--help"], *([name, "--help"] for name in COMMANDS)):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "0 done, and what is claimed holds; 1 done, but a claim does not hold or a part is missing; 2 re" in text
        if arguments == ["--help"]:
            listed = [word for word in text.split("COMMAND", 2)[2].split() if word in COMMANDS]
            assert tuple(dict.fromkeys(listed)) == COMMANDS


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (InvalidInputError("two\nlines"), 2),
        (UnsupportedModelError("x"), 2),
        (BackendUnavailableError("x"), 2),
        (FileNotFoundError("x"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_a_command_raises_is_a_status_and_one_line(monkeypatch, capsys, raised, status):
    def run(options):
        raise raised

    class Parser:
        parse_args = staticmethod(lambda arguments: argparse.Namespace(run=run))

    monkeypatch.setattr(importlib.import_module("hf_attn_mi.cli.main"), "_parser", Parser)
    assert main([]) == status
    assert capsys.readouterr().err.count("\n") == (status == 2)


def test_a_fault_of_the_program_is_no_refusal(monkeypatch):
    monkeypatch.setattr(
        importlib.import_module("hf_attn_mi.cli.main"), "_parser", lambda: (_ for _ in ()).throw(ZeroDivisionError)
    )
    with pytest.raises(ZeroDivisionError):
        main([])


@pytest.mark.parametrize("name", ["explain", "certify", "minimal"])
def test_every_command_refuses_the_same_input_alike(capsys, tmp_path, name):
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    for arguments, words in (
        ([" "], "inputs[0] is an empty text"),
        (["--file", str(tmp_path / "none.txt")], "--file"),
        (["--file", str(tmp_path / "latin")], "UTF-8"),
        (["dull", "--json", str(tmp_path / "none" / "a.json")], "does not exist"),
        (["dull", "--json", str(tmp_path)], "is a directory"),
        (["dull", "--model", "nosuch/model"], "--model nosuch/model"),
        (["dull", "--model", str(tmp_path)], "--model"),
    ):
        assert words in refused(capsys, name, *arguments)


@pytest.mark.parametrize("arguments", [["models", "--all"], ["explain", "dull"]])  # more, and less, than a buffer holds
def test_a_reader_that_goes_away_ends_the_command_quietly(arguments):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "hf_attn_mi.cli", *arguments],
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_warnings_that_differ_by_numbers_are_counted(capsys):
    with warnings_as_lines():
        for number in range(9):
            warnings.warn(f"input {number} was cut from {300 + number} to 256 tokens", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert [line.split()[3] for line in lines[:3]] == ["0", "1", "2"]
    assert lines[3] == "hf-attn-mi: warning: 6 more of this kind."
    assert lines[4] == "hf-attn-mi: warning: something else"


def test_the_head_above_a_result_is_one_line_that_steers_no_terminal():
    text = headed([(("a\033[31m\nb",), "first"), (("x" * 500,), "second")])
    assert "\033" not in text
    lines = text.splitlines()
    assert lines[:4] == ["a [31m b", "first", "", f"{'x' * 300} ..."]
