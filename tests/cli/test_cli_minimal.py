"""`hf-attn-mi minimal`: what it prints and writes is the token set; its status is the verdict."""

import io
import json
import sys

import hf_attn_mi
from hf_attn_mi.cli import main
from hf_attn_mi.cli.exit_codes import exit_code
from hf_attn_mi.results.token_set import TokenSet
from hf_attn_mi.tasks.minimal_tokens import minimal_tokens
from hf_attn_mi.tasks.recheck import Recheck, recheck
from tests.cli.command_line import refused
from tests.sample_models import TEXTS

DEFAULT_CLASS = "The."  # the special tokens alone give its class


def without_times(data):
    """A set's data without the seconds, which differ from run to run."""
    return {**data, "info": {name: value for name, value in data["info"].items() if name != "seconds"}}


def test_the_words_and_the_status(capsys, demo):
    assert main(["minimal", TEXTS[0]]) == 0
    output = capsys.readouterr()
    wanted = minimal_tokens(demo[0], TEXTS[0], tokenizer=demo[1])
    assert (wanted.defined, wanted.minimal) == (True, True)
    assert (output.out, output.err) == (wanted.to_text(color="none") + "\n", "")


def test_options_arrive_and_json_reloads(capsys, tmp_path, demo):
    path = tmp_path / "sets.json"
    call = ["minimal", *TEXTS[:3], "--keep", "0.8", "--strict", "--budget", "40", "--seed", "3", "--target", "positive"]
    status = main([*call, "--json", str(path)])
    wanted = minimal_tokens(
        demo[0], TEXTS[:3], tokenizer=demo[1], keep=0.8, strict=True, budget=40, seed=3, target="positive"
    )
    assert status == exit_code(one.outcome for one in wanted)
    data = json.loads(path.read_text(encoding="utf-8"))
    for found, one in zip(data, wanted, strict=True):
        assert without_times(found)["info"] == without_times(json.loads(json.dumps(one.to_dict())))["info"]
        made = TokenSet.from_dict(found)
        assert (made.indices, made.singles, made.p_all, made.target_name) == (
            one.indices,
            one.singles,
            one.p_all,
            "positive",
        )
        assert (made.keep, made.strict) == (0.8, True)
    printed = capsys.readouterr().out
    assert all(text in printed for text in TEXTS[:3])


def test_the_check_stands_beside_the_set(capsys, demo):
    assert main(["minimal", TEXTS[0], "--check"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Check: every number was reproduced (largest difference ")
    assert main(["minimal", TEXTS[0], "--check", "--json", "-"]) == 0
    (data,) = json.loads(capsys.readouterr().out)
    assert data["check"]["holds"] is True
    assert recheck(demo[0], TokenSet.from_dict(data), tokenizer=demo[1]).difference == data["check"]["difference"]


def test_a_check_that_fails_is_status_1(capsys, monkeypatch):
    failed = Recheck(False, 0.25, ("the set does not suffice", "the rest suffices"))
    monkeypatch.setattr(hf_attn_mi, "recheck", lambda *a, **k: failed)
    assert main(["minimal", TEXTS[0]]) == 0
    assert "FAILED" not in capsys.readouterr().out
    assert main(["minimal", TEXTS[0], "--check"]) == 1
    assert "Check: FAILED: the set does not suffice; the rest suffices." in capsys.readouterr().out
    assert main(["minimal", TEXTS[0], "--check", "--json", "-"]) == 1
    (data,) = json.loads(capsys.readouterr().out)
    assert data["check"] == {"holds": False, "difference": 0.25, "reasons": list(failed.reasons)}


def test_no_set_is_status_3_and_no_proof_status_1(capsys):
    assert main(["minimal", DEFAULT_CLASS]) == 3
    assert capsys.readouterr().out.startswith("Nothing to certify: no set of tokens for 'positive'. Default class")
    assert main(["minimal", TEXTS[0], DEFAULT_CLASS]) == 3  # one of two
    capsys.readouterr()
    assert main(["minimal", TEXTS[0], "--budget", "4"]) == 1
    assert "The budget of 4 forward passes ran out" in capsys.readouterr().out
    assert main(["minimal", TEXTS[0], DEFAULT_CLASS, "--budget", "4"]) == 1  # 1 before 3


def test_an_interrupted_check_keeps_the_sets(capsys, monkeypatch, tmp_path):
    path, checked = tmp_path / "sets.json", []

    def check(model, token_set, **options):
        if checked:
            raise KeyboardInterrupt
        checked.append(token_set)
        return Recheck(True, 0.0, ())

    monkeypatch.setattr(hf_attn_mi, "recheck", check)
    assert main(["minimal", *TEXTS[:2], "--check", "--json", str(path)]) == 130
    data = json.loads(path.read_text(encoding="utf-8"))
    assert ["check" in one for one in data] == [True, False]
    assert TokenSet.from_dict(data[0]).indices == checked[0].indices


def test_the_rankings_arrive(monkeypatch):
    calls = []

    def answer(model, inputs, **options):
        calls.append(options)
        return hf_attn_mi.Results([])

    monkeypatch.setattr(hf_attn_mi, "minimal_tokens", answer)
    assert main(["minimal", "dull", "--quiet"]) == 0
    assert main(["minimal", "dull", "--quiet", "--ranking", "random", "--second-ranking", "none"]) == 0
    assert main(["minimal", "dull", "--quiet", "--second-ranking", "rollout"]) == 0
    rankings = [(options["ranking"], options["second_ranking"]) for options in calls]
    assert rankings == [("relevance", "random"), ("random", None), ("relevance", "rollout")]


def test_refusals(capsys):
    assert "keep must be a number above 0" in refused(capsys, "minimal", "dull", "--keep", "0")
    assert "keep must be a number above 0" in refused(capsys, "minimal", "dull", "--keep", "nan")
    assert "budget must be" in refused(capsys, "minimal", "dull", "--budget", "1")
    assert "seed must be" in refused(capsys, "minimal", "dull", "--seed", "-1")
    assert "batch_size must be" in refused(capsys, "minimal", "dull", "--batch-size", "0")
    assert "is not a label" in refused(capsys, "minimal", "dull", "--target", "happy")
    assert "602 tokens" in refused(capsys, "minimal", "good " * 600)


def test_a_cut_text_is_named_once(capsys):
    text = "a charming, wise story " + "and so on " * 200
    assert main(["minimal", "dull", text, "--truncate", "--check", "--quiet", "--keep", "0.9", "--budget", "30"]) in (
        0,
        1,
    )
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("hf-attn-mi: warning: input 1 was cut from ")
    assert output.err.count("\n") == 1


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self):
        return True


def test_many_texts_show_progress_on_a_terminal(monkeypatch, demo):
    terminal, single, file = Terminal(), Terminal(), io.StringIO()
    for stream, texts in ((terminal, TEXTS[:3]), (single, TEXTS[:1]), (file, TEXTS[:3])):
        monkeypatch.setattr(sys, "stderr", stream)
        minimal_tokens(demo[0], texts, tokenizer=demo[1])
    assert "minimal tokens, ranking: 100%" in terminal.getvalue()
    assert "minimal tokens, second_ranking: 100%" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()  # the first text is searched alone, so that an interruption has a result
    assert single.getvalue() == file.getvalue() == ""


def test_quiet_hides_the_progress(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(["minimal", *TEXTS[:2], "--check", "--quiet"]) in (0, 1)
    assert stream.getvalue() == ""
