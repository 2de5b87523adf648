"""`hf-attn-mi subgraph`: what it prints and writes is the result of `minimal_attention`; its status is the outcome."""

import json

import pytest

from hf_attn_mi.cli import main
from hf_attn_mi.results import AttentionSubgraph
from hf_attn_mi.tasks.minimal_attention import minimal_attention
from hf_attn_mi.tasks.recheck import recheck
from tests.cli.command_line import refused
from tests.sample_models import TEXTS


def without_time(text):
    return [line for line in text.splitlines() if not line.startswith("Found in")]


def test_the_words_the_status_and_the_check(capsys, demo):
    assert main(["subgraph", TEXTS[0], "--check"]) == 0
    output = capsys.readouterr()
    wanted = minimal_attention(demo[0], TEXTS[0], tokenizer=demo[1])
    assert wanted.holds
    *lines, check = without_time(output.out)
    assert lines == without_time(wanted.to_text(color="none"))
    assert check.startswith("Check: every number was reproduced (largest difference ")
    assert output.err == ""


def test_options_arrive_and_json_reloads(capsys, tmp_path, demo):
    path, page = tmp_path / "sets.json", tmp_path / "page.html"
    options = [
        "--unit",
        "head",
        "--keep",
        "0.8",
        "--lenient",
        "--ranking",
        "relevance",
        "--budget",
        "300",
        "--seed",
        "3",
    ]
    status = main(["subgraph", TEXTS[0], TEXTS[3], *options, "--json", str(path), "--html", str(page)])
    wanted = minimal_attention(
        demo[0],
        [TEXTS[0], TEXTS[3]],
        tokenizer=demo[1],
        unit="head",
        keep=0.8,
        strict=False,
        ranking="relevance",
        seed=3,
    )
    assert status == (0 if all(one.holds for one in wanted) else 1)
    for data, one in zip(json.loads(path.read_text(encoding="utf-8")), wanted, strict=True):
        found = AttentionSubgraph.from_dict(data)
        assert (found.units, found.keep, found.strict, found.info["seed"]) == (one.units, 0.8, False, 3)
        assert recheck(demo[0], found).holds
    assert "<table" in page.read_text(encoding="utf-8")
    capsys.readouterr()


@pytest.mark.parametrize(("options", "status"), [(["--budget", "8"], 1), (["--unit", "token", "--lenient"], 3)])
def test_the_status_is_the_outcome(options, status, capsys):
    text = "The." if status == 3 else TEXTS[0]  # the special tokens alone give the class of the first
    assert main(["subgraph", text, "--quiet", *options]) == status
    assert capsys.readouterr().out == ""


def test_wrong_options_are_refused(capsys):
    assert "removals must be one or more of" in refused(capsys, "subgraph", "dull", "--removal", "gone")
    assert "keep must be a number above 0" in refused(capsys, "subgraph", "dull", "--keep", "0")
    assert "'--unit'" in refused(capsys, "subgraph", "dull", "--unit", "edges")
