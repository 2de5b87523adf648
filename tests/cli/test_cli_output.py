"""What the commands print and write: lines, warnings, files that are whole or not there."""

import json
import os
import stat
import warnings
from pathlib import Path

import pytest

from hf_attn_mi.cli import main
from hf_attn_mi.cli.output import check_files, complain, show, warnings_as_lines, write_json, write_text
from hf_attn_mi.errors import InvalidInputError


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


def test_an_error_is_one_line_without_control_characters_or_markup(capsys):
    complain("a\033[31m\nb [red]" + "x" * 500)
    assert capsys.readouterr().err == f"hf-attn-mi: a [31m b [red]{'x' * 500}\n"


def test_output_is_printed_as_it_is(capsys):
    text = "[bold]a[/bold] :smile: \033[1mb\033[0m " + "x" * 300
    show(text)
    assert capsys.readouterr().out == text + "\n"


def test_json_is_strict_and_ascii_where_the_output_is(capsys, monkeypatch, tmp_path):
    data = {"a": (1.0, float("nan"), float("inf")), "b": "\u2603 \U0001f600"}
    write_json(data, tmp_path / "a.json")
    content = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "\u2603" in content
    assert json.loads(content) == {"a": [1.0, None, None], "b": data["b"]}
    write_json(None, None)
    assert capsys.readouterr().out == ""


def test_an_interruption_leaves_no_half_written_file(monkeypatch, tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old", encoding="utf-8")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text("new", path)
    assert path.read_text(encoding="utf-8") == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]
    monkeypatch.undo()
    write_text("new", path)
    assert path.read_text(encoding="utf-8") == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_devices_and_links_are_written_and_not_replaced(tmp_path):
    write_text("x", tmp_path.__class__(os.devnull))
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    (tmp_path / "link.json").symlink_to(tmp_path / "file.json")
    write_text("x", tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "file.json").read_text(encoding="utf-8") == "x"


@pytest.mark.parametrize("name", ["page.png", "page", "page.html.txt"])
def test_a_page_must_be_named_as_one(tmp_path, name):
    with pytest.raises(InvalidInputError, match=r"its name must end in \.html or \.htm"):
        check_files(html=tmp_path / name)
    check_files(html=tmp_path / "page.HTML")


def test_two_outputs_of_one_name_are_refused_before_the_work(tmp_path):
    (tmp_path / "link.html").symlink_to(tmp_path / "a.html")
    for first, second in (("a.html", "a.html"), ("./x/../a.html", "a.html"), ("link.html", "a.html")):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(InvalidInputError, match="two outputs have this name"):
            check_files(tmp_path / first, html=tmp_path / second)
    check_files(Path("/dev/null"), Path("/dev/null"), Path("-"), Path("-"), html=tmp_path / "a.html")


def test_options_that_name_an_option_twice_are_refused(capsys):
    call = ["explain", "dull", "--method", "integrated_gradients", "--options", '{"steps": 2, "steps": 3}']
    assert main(call) == 2
    assert "'steps' stands twice" in capsys.readouterr().err
