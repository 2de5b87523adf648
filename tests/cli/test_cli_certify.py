"""`hf-attn-mi certify`: it prints and writes the certificates; its status is their outcome."""

import json
import typing
from dataclasses import replace

import pytest

import hf_attn_mi
from hf_attn_mi import Certificate, Results, certify
from hf_attn_mi.cli import main
from hf_attn_mi.cli.certify import Form
from hf_attn_mi.tasks.certify import FORMS
from tests.cli.command_line import refused
from tests.results.result_samples import certificate
from tests.sample_models import TEXTS

REVIEW = (  # more tokens than a head has dimensions
    "The first hour moves so slowly that half of the audience had left before the story found its feet, and yet the "
    "last twenty minutes are among the most gripping and surprising that any director has put on a screen this year."
)
NOTHING = "dull"  # so few tokens that no row could change


def test_the_text_is_printed_and_the_status_is_the_outcome(capsys, demo):
    wanted = certify(demo[0], REVIEW, tokenizer=demo[1])
    assert main(["certify", REVIEW]) == 0
    output = capsys.readouterr()
    assert (output.out, output.err) == (wanted.to_text(color="none") + "\n", "")
    assert main(["certify", REVIEW, "--json", "-", "--form", "effective"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["form"] == "effective"


def test_a_certificate_that_does_not_hold_is_status_1(capsys, monkeypatch, tmp_path):
    good = certificate()
    bad = replace(good, change=replace(good.change, kept=False), texts=("another text",))
    monkeypatch.setattr(hf_attn_mi, "certify", lambda *a, **k: Results([bad, good]))
    path = tmp_path / "c.json"
    assert main(["certify", "another text", *good.texts, "--json", str(path)]) == 1
    output = capsys.readouterr().out
    saved = [Certificate.from_dict(data) for data in json.loads(path.read_text(encoding="utf-8"))]
    assert saved == [bad, good]
    assert [one.holds for one in saved] == [False, True]
    assert "does NOT hold" in output
    assert all(one.texts[0] in output for one in saved)


def test_the_status_follows_the_outcomes_of_all_texts(capsys, monkeypatch, demo):
    class Outcome:
        def __init__(self, outcome):
            self.outcome = outcome

    class Certificates(list):
        to_dicts = list
        to_text = str

    for outcomes, status in (
        (["holds"], 0),
        (["nothing to certify"], 3),
        (["holds", "nothing to certify"], 3),
        (["nothing to certify", "does not hold"], 1),
    ):
        made = Certificates(map(Outcome, outcomes))
        monkeypatch.setattr(hf_attn_mi, "certify", lambda *a, made=made, **k: made)
        assert main(["certify", "dull", "--quiet"]) == status


def test_a_text_without_a_row_that_could_change_is_status_3(capsys, demo):
    (wanted,) = certify(demo[0], [NOTHING], tokenizer=demo[1])
    assert wanted.outcome == "nothing to certify"
    assert main(["certify", NOTHING]) == 3
    assert capsys.readouterr().out == wanted.to_text(color="none") + "\n"


def test_the_options_arrive(monkeypatch):
    calls = []

    def answer(model, inputs, **options):
        calls.append((inputs, options))
        return Results([])

    monkeypatch.setattr(hf_attn_mi, "certify", answer)
    given = "--form effective_affine --tolerance 0.5 --checked-rows 7 --seed 3 --target 1 --truncate --quiet"
    assert main(["certify", "a", "b", *given.split()]) == 0
    ((inputs, options),) = calls
    assert inputs == ["a", "b"]
    assert options.pop("tokenizer").vocab_size == 8000
    assert options == {
        "target": 1,
        "form": "effective_affine",
        "tolerance": 0.5,
        "checked_rows": 7,
        "truncation": True,
        "seed": 3,
        "errors": "raise",
        "is_split_into_words": False,
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([""], "inputs[0] is an empty text"),
        ([TEXTS[0], "--tolerance", "2"], "tolerance must be"),
        ([TEXTS[0], "--tolerance", "nan"], "tolerance must be"),
        ([TEXTS[0], "--tolerance", "0.1", "--form", "effective"], "form 'effective'"),
        ([TEXTS[0], "--checked-rows", "0"], "checked_rows must be"),
    ],
)
def test_wrong_input_is_refused(capsys, arguments, words):
    assert words in refused(capsys, "certify", *arguments)


def test_the_forms_are_those_of_the_task():
    assert set(typing.get_args(Form)) == set(FORMS)
