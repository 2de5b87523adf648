"""A certificate as data: saved, judged, put into words; and the command that prints it."""

import copy
import json
import math
from dataclasses import replace

import pytest

from hf_attn_mi.cli import main
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.certificate import Certificate
from hf_attn_mi.tasks.certify import certify
from tests.sample_models import TEXTS

REVIEW = (  # close to the decision: a tolerance of 0.9 turns it
    "The first hour moves so slowly that half of the audience had left before the story found its feet, and yet the "
    "last twenty minutes are among the most gripping and surprising that any director has put on a screen this year."
)


@pytest.fixture(scope="module")
def made(demo):
    return certify(demo[0], REVIEW, tokenizer=demo[1])


def test_saved_certificates_come_back(made, tmp_path):
    made.save(tmp_path / "certificate.json")
    assert Certificate.load(tmp_path / "certificate.json") == made
    assert len(json.dumps(made.to_dict())) < 6000
    assert copy.deepcopy(made) == made
    alone = replace(made, necessity=math.inf)  # rows of one key: JSON has no such number
    assert Certificate.from_dict(json.loads(json.dumps(alone.to_dict(), allow_nan=False))) == alone != made
    for spoilt in (
        {},
        {"kind": "hf_attn_mi.Explanation"},
        {**made.to_dict(), "schema": 9},
        {**made.to_dict(), "layers": []},
    ):
        with pytest.raises(InvalidInputError):
            Certificate.from_dict(spoilt)
    for layers in ((), ({"layer": 1},)):
        with pytest.raises(InvalidInputError, match="layers"):
            replace(made, layers=layers)
    claimed = {**made.to_dict(), "holds": True, "reasons": []}
    claimed["change"] = {**claimed["change"], "kept": False}
    assert not Certificate.from_dict(claimed).holds  # what a file says of itself is not believed


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"kept": False}, "prediction changed"),
        ({"relative": 0.01}, "logits changed"),
        ({"relative": math.nan}, "logits changed"),
        ({"residual": 2e-6}, "misses its head's output"),
        ({"sum_error": 2e-6}, "sum of a row"),
        ({"smallest_weight": -1e-9}, "negative"),
        ({"necessity": 0.0}, "can go"),
    ],
)
def test_each_broken_promise_is_a_reason(made, spoil, reason):
    name, value = next(iter(spoil.items()))
    if name in ("kept", "relative"):
        broken = replace(made, change=replace(made.change, **spoil))
    elif name == "necessity":
        broken = replace(made, necessity=value)
    else:
        broken = replace(made, layers=(replace(made.layers[0], **spoil), *made.layers[1:]))
    assert made.holds
    assert not broken.holds
    assert len(broken.reasons) == 1
    assert reason in broken.reasons[0]
    assert reason in broken.to_words()
    assert "does NOT hold" in str(broken)


def test_the_words_name_the_numbers(made):
    words = made.to_words()
    for piece in (
        "HOLDS",
        f"{made.change.relative:.1e}",
        f"{made.necessity:.1e}",
        "The prediction is kept",
        made.target_name,
        f"{made.controls['visible noise'].relative:.1e}",
        f"{sum(layer.changed for layer in made.layers)} of",
    ):
        assert piece in words


def test_the_command_prints_the_words_and_its_status_is_the_verdict(capsys, tmp_path, made):
    assert main(["certify", REVIEW]) == 0
    output = capsys.readouterr()
    assert output.out == made.to_words() + "\n"
    assert output.err == ""
    path = tmp_path / "c.json"
    assert main(["certify", REVIEW, TEXTS[0], "--tolerance", "0.9", "--json", str(path)]) == 1
    output = capsys.readouterr().out
    saved = [Certificate.from_dict(one) for one in json.loads(path.read_text(encoding="utf-8"))]
    assert [one.holds for one in saved] == [False, True]
    assert saved[0].change.kept is False
    assert "does NOT hold" in output
    assert REVIEW in output
    assert TEXTS[0] in output
    assert main(["certify", TEXTS[0], "--json", "-", "--form", "effective"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["form"] == "effective"


@pytest.mark.parametrize(
    "arguments",
    [
        ["certify", ""],
        ["certify", TEXTS[0], "--tolerance", "2"],
        ["certify", TEXTS[0], "--tolerance", "nan"],
        ["certify", TEXTS[0], "--tolerance", "0.1", "--form", "effective"],
        ["certify", TEXTS[0], "--json", "no/such/folder/c.json"],
        ["certify", TEXTS[0], "--model", "no/such/model/here"],
        ["certify", TEXTS[0], "--file", "no_such_file.txt"],
    ],
)
def test_the_command_refuses_wrong_input_with_status_two(capsys, arguments):
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("hf-attn-mi: ")
    assert output.err.count("\n") == 1
