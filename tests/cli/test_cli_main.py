"""What all commands share: help, exit statuses, errors as lines, suggestions, completion, and what is not imported."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib import import_module
from types import MappingProxyType
from typing import get_args

import pytest
import typer

from hf_attn_mi import Explanation
from hf_attn_mi.cli import main
from hf_attn_mi.cli.exit_codes import OF_OUTCOME, exit_code
from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods import TokenScores, register_method, unregister_method
from hf_attn_mi.results import Outcome
from tests.cli.command_line import ROOT, command, refused

COMMANDS = ("explain", "report", "certify", "minimal", "subgraph", "recheck", "compare", "mi", "methods", "models")
HELP = {  # how the line of each command begins
    "explain": "Explain",
    "report": "Write",
    "certify": "Certify",
    "minimal": "Find",
    "subgraph": "Find",
    "recheck": "Compute",
    "compare": "Compare",
    "mi": "Measure",
    "methods": "List the token",
    "models": "List the model",
}
CLAIMING = {"certify", "minimal", "subgraph"}  # commands whose result can be that there is nothing to certify


def help_of(capsys, *arguments):
    """The help of a command in one line, without the frames."""
    assert main([*arguments, "--help"]) == 0
    return " ".join(re.sub("[─│╭╮╰╯]", " ", capsys.readouterr().out).split())


def test_help_lists_every_command_with_an_example(capsys):
    text = help_of(capsys)
    first_words = [f" {name} {HELP[name]}" for name in COMMANDS]
    places = [text.index(words) for words in first_words]
    assert places == sorted(places)
    assert all(f"Examples hf-attn-mi {name}" in help_of(capsys, name) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_states_the_statuses_that_it_can_end_with(capsys, name):
    text = help_of(capsys, name)
    statuses = re.findall(r"(?:: |; )([0-9]+) ", text[text.index("Exit status:") :])
    wanted = [
        "0",
        *["1"] * (name in {"explain", "certify", "minimal", "subgraph", "recheck", "compare"}),
        "2",
        *["3"] * (name in CLAIMING),
        "130",
    ]
    assert statuses == wanted


@pytest.mark.parametrize("name", ["explain", "report", "certify", "minimal", "compare", "mi"])
def test_options_are_grouped(capsys, name):
    assert main([name, "--help"]) == 0
    panels = re.findall("╭─ (.*?) ─", capsys.readouterr().out)
    assert panels[-3:] == ["Input and model", "Method", "Output"]


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        (["holds", "holds"], 0),
        (["holds", "nothing to certify"], 3),
        (["nothing to certify", "does not hold", "holds"], 1),
        ([], 0),
    ],
)
def test_the_status_of_several_outcomes(outcomes, status):
    assert exit_code(outcomes) == status
    assert set(OF_OUTCOME) == set(get_args(Outcome))


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (InvalidInputError("two\nlines"), 2),
        (UnsupportedModelError("x"), 2),
        (BackendUnavailableError("x"), 2),
        (FileNotFoundError("x"), 2),
        (KeyboardInterrupt(), 130),
        (typer.Exit(3), 3),
    ],
)
def test_what_a_command_raises_is_a_status_and_one_line(monkeypatch, capsys, raised, status):
    def fail(name):
        raise raised

    monkeypatch.setattr("hf_attn_mi.cli.models.files", fail)
    assert main(["models"]) == status
    assert capsys.readouterr().err.count("\n") == (status == 2)


def test_a_defect_of_the_program_is_one_line_and_not_a_refusal(monkeypatch, capsys):
    monkeypatch.setattr("hf_attn_mi.cli.models.files", lambda name: 1 / 0)
    assert main(["models"]) == 70
    message = capsys.readouterr().err
    assert message.startswith("hf-attn-mi: a defect of this program: ZeroDivisionError: division by zero.")
    assert message.count("\n") == 1
    monkeypatch.setenv("HF_ATTN_MI_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["models"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explian", "dull"], "No such command 'explian'. Did you mean 'explain'? Try 'hf-attn-mi --help'."),
        (["explain", "--metod", "lime"], "No such option: --metod. Did you mean '--method'"),
        (["explain", "dull", "--method", "rolout"], "'rolout' is not known. Did you mean 'rollout'?"),
        (
            ["explain", "dull", "--target", "postive"],
            "'postive' is not a label of this model. Did you mean 'positive'?",
        ),
        (
            ["minimal", "dull", "--ranking", "Relevance"],
            "--ranking: 'Relevance' is not known. Did you mean 'relevance'?",
        ),
        (["compare", "--data", "f", "--methods", "lime", "randm"], "Did you mean 'random'?"),
        (["compare", "--data", "f", "--metrics", "suficiency"], "Did you mean 'sufficiency'"),
        (["mi", "--data", "f", "--sites", "token"], "Did you mean 'tokens'?"),
        (["mi", "--data", "f", "--estimator", "gausian"], "Did you mean 'gaussian' or"),
    ],
)
def test_a_typing_error_is_answered_with_the_closest_name(capsys, arguments, words):
    assert words in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["unknown"], "No such command 'unknown'. Try 'hf-attn-mi --help'."),
        (["explain", "a", "--method", "magic"], "Allowed are relevance"),
        (["explain", "--nonsense"], "No such option: --nonsense. Try 'hf-attn-mi explain --help'."),
        (["explain", "a", "--layers", "some"], "'some' is not one of 'full', 'summary', 'none'. Try"),
        (["certify", "a", "--form", "burn"], "Invalid value for '--form': 'burn' is not one of 'efficient'"),
        (["minimal", "dull", "--keep", "much"], "Invalid value for '--keep'"),
        (["minimal", "dull", "--budget"], "--budget"),
        (["compare"], "Missing option '--data'. Try 'hf-attn-mi compare --help'."),
        (["compare", "--data", "f", "--removal", "burn"], "--removal"),
        (["compare", "--data", "f", "--methods", "magic"], "--methods: 'magic' is not known"),
        (["mi"], "Missing option '--data'"),
        (["mi", "--data", "f", "--sites", "all"], "--sites: 'all' is not known"),
        (["mi", "--data", "f", "--estimator", "magic"], "--estimator: 'magic' is not known"),
        (["mi", "--data", "f", "--layers", "first"], "--layers"),
    ],
)
def test_wrong_usage_is_refused_in_one_line(capsys, arguments, words):
    assert words in refused(capsys, *arguments)


def test_without_a_command_the_help_is_printed_and_the_status_is_2(capsys):
    assert main([]) == 2
    output = capsys.readouterr()
    assert "Usage: hf-attn-mi" in output.out
    assert output.err == ""


@pytest.mark.parametrize("name", ["explain", "report", "certify", "minimal"])
def test_every_command_refuses_the_same_input_alike(capsys, tmp_path, name):
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    for arguments, words in (
        ([" "], "inputs[0] is an empty text"),
        (["--file", str(tmp_path / "none.txt")], "none.txt: there is no such file"),
        (["--file", str(tmp_path / "latin")], "UTF-8"),
        (["dull", "--json", str(tmp_path / "none" / "a.json")], "does not exist"),
        (["dull", "--json", str(tmp_path)], "is a directory"),
        (["dull", "--model", "nosuch/model"], "--model nosuch/model"),
        (["dull", "--model", str(tmp_path)], "--model"),
        (["dull", "--model", str(tmp_path / "none")], "there is no such folder"),
    ):
        assert words in refused(capsys, name, *arguments)


# --- what is imported -------------------------------------------------------------------------------------------------

HEAVY = {"torch", "transformers", "numpy", "pandas", "scipy", "sklearn", "datasets", "captum", "matplotlib"}
PROBE = """
import json, sys
from hf_attn_mi.cli import main
status = main(sys.argv[1:])
print(json.dumps([status, sorted({name.split(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["explain", "--help"], ["compare", "--help"], ["models"]]
)
def test_nothing_heavy_is_imported(arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120, check=True
    )
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == 0
    assert not HEAVY & set(modules)


def test_the_version_is_that_of_the_package(capsys):
    import hf_attn_mi

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hf-attn-mi {hf_attn_mi.__version__}\n"


# --- shell completion -------------------------------------------------------------------------------------------------


def completions(*words):
    """What the bash completion of the command proposes for the last word."""
    line = " ".join(["hf-attn-mi", *words])
    done = command(
        _HF_ATTN_MI_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words)), PYTHONWARNINGS="ignore"
    )
    return done.stdout.split()


def test_the_shell_completes_commands_options_and_methods():
    assert completions("m") == ["minimal", "mi", "methods", "models"]
    assert completions("compare", "--me") == ["--methods", "--metrics"]
    assert completions("explain", "--method", "rel") == ["relevance"]
    assert completions("certify", "--form", "effi") == ["efficient"]


# --- a method of another package --------------------------------------------------------------------------------------


class TextLength:
    """A method as another package would register it."""

    name, reference, cost = "text_length", "number of characters", "no pass"
    options = MappingProxyType({"power": 1.0})
    class_linked = needs_gradients = additive = False

    def score(self, runner, batch, target, power=1.0):
        return TokenScores(batch.real.float() * power)


@pytest.fixture
def text_length():
    yield register_method(TextLength())
    unregister_method("text_length")


def test_a_method_of_another_package_works_in_the_commands(capsys, text_length):
    assert main(["methods"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("text_length ")]
    assert row.split("  ")[-1] == "number of characters"
    assert '{"power": 1.0}' in row
    call = ["explain", "dull", "--method", "text_length", "--options", '{"power": 2.0}', "--json", "-"]
    assert main(call) == 0
    (data,) = json.loads(capsys.readouterr().out)
    assert data["info"]["method"] == "text_length"
    assert set(Explanation.from_dict(data).scores.tolist()) == {2.0}
    assert "Did you mean 'text_length'?" in refused(capsys, "explain", "dull", "--method", "text_lenght")


# --- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["models", "--all"], ["explain", "dull"]])  # more, and less, than a buffer holds
def test_a_reader_that_goes_away_ends_the_command_quietly(arguments):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "hf_attn_mi", *arguments],
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "closed", "status", "words"),
    [
        (["models"], ">&-", 2, "standard output is closed: pass --quiet to print nothing."),
        (["models"], "> /dev/full", 2, "No space left on device"),
        (["explain"], "<&-", 2, "standard input is closed: pass TEXT or --file FILE."),
        (["explain", "a", "--file", "none"], "<&- >&- 2>&-", 2, ""),
        (["models"], "2>&-", 0, ""),
    ],
)
def test_closed_streams_and_a_full_disk_end_the_command_in_one_line(arguments, closed, status, words):
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "hf_attn_mi", *arguments],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    assert done.returncode == status
    assert words in done.stderr
    assert done.stderr.count("\n") == bool(words)


def test_what_was_computed_is_written_where_standard_output_is_closed(capsys, tmp_path, monkeypatch):
    json_file, page = tmp_path / "a.json", tmp_path / "a.html"
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", None)  # as Python does for `>&-`
        assert main(["explain", "dull", "--json", str(json_file), "--html", str(page)]) == 2
        assert main(["explain", "dull", "--quiet"]) == 0
        assert main(["explain", "dull", "--json", "-"]) == 2
    assert "standard output is closed" in capsys.readouterr().err
    assert Explanation.from_dict(json.loads(json_file.read_text(encoding="utf-8"))[0]).texts == ("dull",)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


INTERRUPTED_AT = {
    "explain": "hf_attn_mi.tasks.explain.explain_batch",
    "certify": "hf_attn_mi.tasks.certify._certify",
    "minimal": "hf_attn_mi.tasks.minimal_tokens._token_sets",
    "subgraph": "hf_attn_mi.tasks.minimal_attention._Task",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", INTERRUPTED_AT)
def test_an_interruption_writes_the_results_so_far(capsys, tmp_path, monkeypatch, name, number):
    place, before = INTERRUPTED_AT[name], signal.getsignal(signal.SIGTERM)
    module, _, attribute = place.rpartition(".")
    original, calls = getattr(import_module(module), attribute), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            signal.raise_signal(number)  # Ctrl-C, or the end of a batch job
        return original(*arguments)

    monkeypatch.setattr(place, interrupted)
    path = tmp_path / "a.json"
    batch = ["--batch-size", "1"] if name in ("explain", "minimal") else []
    assert main([name, "one", "two two", "three three three", "four", "--json", str(path), *batch]) == 130
    output = capsys.readouterr()
    assert "interrupted: the output has 2 of 4 inputs, those that were finished." in output.err
    written = json.loads(path.read_text(encoding="utf-8"))
    assert len(written) == 2
    assert all(text in output.out for item in written for text in item["texts"])
    path.unlink()
    calls += [None] * 3
    monkeypatch.setattr(place, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main([name, "one", "two", "--json", str(path)]) == 130  # nothing was finished: nothing is written
    assert not path.exists()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("name", ["minimal", "certify", "subgraph"])
def test_an_input_that_cannot_be_used_is_skipped_on_request(capsys, tmp_path, name):
    path, limits = tmp_path / "a.json", [] if name == "certify" else ["--budget", "20", "--check"]
    long = "very " * 600
    assert main([name, "A warm film.", long, "dull", *limits]) == 2
    assert "inputs[1] has" in capsys.readouterr().err
    assert main([name, "A warm film.", long, "dull", *limits, "--errors", "skip", "--json", str(path)]) == 1
    written = json.loads(path.read_text(encoding="utf-8"))
    assert ["tokens" in item for item in written] == [True, False, True]
    assert ["check" in item for item in written] == ([False] * 3 if name == "certify" else [True, False, True])
    assert "inputs[1] has" in capsys.readouterr().out
