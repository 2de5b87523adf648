"""How the values of options are read: several values, names, targets, JSON; and where a missing path is recognized."""

import pytest

from hf_attn_mi.cli import embedded_model_path
from hf_attn_mi.cli.compare import CompareCommand
from hf_attn_mi.cli.loading import names_missing_path
from hf_attn_mi.cli.main import app
from hf_attn_mi.cli.options import did_you_mean, read_target
from tests.cli.command_line import refused


@pytest.mark.parametrize(
    ("arguments", "methods", "rationales", "n"),
    [
        ("--methods lime random", ["lime", "random"], None, 200),
        ("--methods lime --methods random --n 3", ["lime", "random"], None, 3),
        ("--methods lime random --n 3 --rationales", ["lime", "random"], "rationale", 3),
        ("--rationales --methods lime", ["lime"], "rationale", 200),
        ("--rationales mine --n 4", [], "mine", 4),
    ],
)
def test_an_option_takes_several_values(arguments, methods, rationales, n):
    import typer

    command = typer.main.get_command(app).commands["compare"]
    assert isinstance(command, CompareCommand)
    context = command.make_context("compare", ["--data", "f", *arguments.split()])
    values = context.params
    assert (list(values["methods"]), values["rationales"], values["n"]) == (methods, rationales, n)


def test_suggestions_ignore_case_and_need_some_likeness():
    assert did_you_mean("POSITIV", ["negative", "positive"]) == " Did you mean 'positive'?"
    assert did_you_mean("happy", ["negative", "positive"]) == ""


@pytest.mark.parametrize(
    ("target", "wanted"), [(None, None), ("negative", "negative"), ("Negative", "Negative"), ("1", 1), ("-1", -1)]
)
def test_a_target_is_a_label_or_a_number(demo, target, wanted):
    assert read_target(target, demo[0]) == wanted


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("bert-base-uncased", False),
        ("owner/name", False),
        ("./name", True),
        ("/no/such/folder", True),
        ("~/no-such-folder", True),
        ("owner/name/more", True),
        ("name/", True),
    ],
)
def test_what_can_only_be_a_path_is_not_looked_for_on_the_hub(name, missing):
    assert names_missing_path(name) is missing


def test_a_name_in_a_folder_that_exists_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not names_missing_path("models/mine")
    (tmp_path / "models").mkdir()
    assert names_missing_path("models/mine")
    (tmp_path / "models" / "mine").mkdir()
    assert not names_missing_path("models/mine")


def test_a_missing_path_is_said_to_be_missing(capsys, tmp_path):
    none = str(tmp_path / "none")
    assert f"--model {none}: there is no such folder" in refused(capsys, "explain", "dull", "--model", none)
    assert f"--profile {none}: there is no such folder" in refused(capsys, "explain", "dull", "--profile", none)
    for name in ("compare", "mi"):
        assert f"--data {none}: there is no file or folder" in refused(capsys, name, "--data", none)


def test_the_embedded_model_is_where_it_is_said_to_be():
    assert (embedded_model_path() / "model.safetensors").is_file()
