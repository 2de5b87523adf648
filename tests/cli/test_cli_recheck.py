"""`hf-attn-mi recheck FILE`: saved results are computed again."""

import json

import pytest

from hf_attn_mi.cli import main
from hf_attn_mi.results import SkippedInput
from tests.cli.command_line import refused

TEXT = "A warm and funny film."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the JSON of token sets, of a subgraph of heads and of an explanation."""
    path = tmp_path_factory.mktemp("saved")
    assert main(["minimal", TEXT, "A dull film.", "--quiet", "--json", str(path / "sets.json")]) == 0
    assert main(["subgraph", TEXT, "--unit", "layer", "--quiet", "--json", str(path / "subgraph.json")]) in (0, 1, 3)
    assert main(["explain", TEXT, "--quiet", "--json", str(path / "explanation.json")]) == 0
    return path


def test_token_sets_and_subgraphs_are_reproduced(folder, capsys):
    assert main(["recheck", str(folder / "sets.json")]) == 0
    assert capsys.readouterr().out.count("every number was reproduced") == 2
    assert main(["recheck", str(folder / "subgraph.json"), "--json", "-"]) == 0
    (check,) = json.loads(capsys.readouterr().out)
    assert check["holds"]


def test_checks_have_the_numbers_of_their_results_in_the_file(folder, tmp_path, capsys):
    first, second = json.loads((folder / "sets.json").read_text())
    skipped = SkippedInput(0, ("",), "InvalidInputError", "inputs[0] is an empty text").to_dict()
    (tmp_path / "skipped.json").write_text(json.dumps([skipped, first, {**second, "p_rest": second["p_rest"] / 2}]))
    assert main(["recheck", str(tmp_path / "skipped.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Check of result 1", "Check of result 2"]
    assert "FAILED" in lines[1]
    (tmp_path / "wrong.json").write_text(json.dumps([skipped, {**first, "texts": ["a different film"]}]))
    assert "result 1: " in refused(capsys, "recheck", str(tmp_path / "wrong.json"))
    (tmp_path / "none.json").write_text(json.dumps([skipped]))
    assert "no result that could be checked" in refused(capsys, "recheck", str(tmp_path / "none.json"))


def test_a_single_result_and_lines_are_read(folder, tmp_path, capsys):
    data = json.loads((folder / "sets.json").read_text())
    (tmp_path / "one.json").write_text(json.dumps(data[0]))
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, data)))
    assert main(["recheck", str(tmp_path / "one.json")]) == 0
    assert main(["recheck", str(tmp_path / "lines.jsonl"), "--quiet"]) == 0
    assert capsys.readouterr().out.count("reproduced") == 1


def test_a_changed_number_does_not_hold(folder, tmp_path, capsys):
    data = json.loads((folder / "sets.json").read_text())
    data[1]["p_rest"] = data[1]["p_rest"] / 2
    (tmp_path / "edited.json").write_text(json.dumps(data))
    assert main(["recheck", str(tmp_path / "edited.json")]) == 1
    assert "FAILED: the rest" in capsys.readouterr().out


def test_what_has_no_check_is_refused(folder, tmp_path, capsys):
    assert "token sets (minimal) and attention subgraphs" in refused(
        capsys, "recheck", str(folder / "explanation.json")
    )
    assert "no such file" in refused(capsys, "recheck", str(tmp_path / "none.json"))
    (tmp_path / "empty.json").write_text("[]")
    assert "no result that could be checked" in refused(capsys, "recheck", str(tmp_path / "empty.json"))
    (tmp_path / "torn.json").write_text('{"type": ')
    assert "not a strict JSON file" in refused(capsys, "recheck", str(tmp_path / "torn.json"))
