"""`hf-attn-mi minimal`: what it prints and writes is the token set; its status is the verdict."""

import io
import json
import sys

import pytest

from hf_attn_mi.cli import main
from hf_attn_mi.results.token_set import TokenSet
from hf_attn_mi.tasks.minimal_tokens import minimal_tokens
from hf_attn_mi.tasks.recheck import Recheck, recheck
from tests.cli.command_line import refused
from tests.sample_models import TEXTS

DEFAULT_CLASS = "A quietly moving film, though dull in places."  # the special tokens alone give its class


def without_times(data):
    """A set's data without the seconds, which differ from run to run."""
    return {**data, "info": {name: value for name, value in data["info"].items() if name != "seconds"}}


def test_the_words_and_the_status(capsys, demo):
    assert main(["minimal", TEXTS[0]]) == 0
    output = capsys.readouterr()
    wanted = minimal_tokens(demo[0], TEXTS[0], tokenizer=demo[1])
    assert (wanted.defined, wanted.minimal) == (True, True)
    assert (output.out, output.err) == (wanted.to_words() + "\n", "")


def test_options_arrive_and_json_reloads(capsys, tmp_path, demo):
    path = tmp_path / "sets.json"
    call = ["minimal", *TEXTS[:3], "--keep", "0.8", "--strict", "--budget", "40", "--seed", "3", "--target", "positive"]
    status = main([*call, "--json", str(path)])
    wanted = minimal_tokens(
        demo[0], TEXTS[:3], tokenizer=demo[1], keep=0.8, strict=True, budget=40, seed=3, target="positive"
    )
    assert status == (0 if all(one.defined and one.minimal for one in wanted) else 1)
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
    assert last.startswith("Checked: every number came out again (largest difference ")
    assert main(["minimal", TEXTS[0], "--check", "--json", "-"]) == 0
    (data,) = json.loads(capsys.readouterr().out)
    assert data["check"]["holds"] is True
    assert recheck(demo[0], TokenSet.from_dict(data), tokenizer=demo[1]).difference == data["check"]["difference"]


def test_a_check_that_fails_is_status_1(capsys, monkeypatch):
    failed = Recheck(False, 0.25, ("the set does not suffice", "the rest is enough"))
    monkeypatch.setattr("hf_attn_mi.cli.minimal.recheck", lambda *a, **k: failed)
    assert main(["minimal", TEXTS[0]]) == 0
    assert "FAILED" not in capsys.readouterr().out
    assert main(["minimal", TEXTS[0], "--check"]) == 1
    assert "The check FAILED: the set does not suffice; the rest is enough." in capsys.readouterr().out
    assert main(["minimal", TEXTS[0], "--check", "--json", "-"]) == 1
    (data,) = json.loads(capsys.readouterr().out)
    assert data["check"] == {"holds": False, "difference": 0.25, "reasons": list(failed.reasons)}


def test_no_set_and_no_proof_are_status_1(capsys):
    assert main(["minimal", DEFAULT_CLASS]) == 1
    assert capsys.readouterr().out.startswith("No set of tokens for 'positive'. Default class")
    assert main(["minimal", TEXTS[0], DEFAULT_CLASS]) == 1  # one of two
    capsys.readouterr()
    assert main(["minimal", TEXTS[0], "--budget", "4"]) == 1
    assert "The budget of 4 forwards ran out" in capsys.readouterr().out


def test_refusals(capsys):
    assert "keep must be a number above 0" in refused(capsys, "minimal", "dull", "--keep", "0")
    assert "keep must be a number above 0" in refused(capsys, "minimal", "dull", "--keep", "nan")
    assert "budget must be" in refused(capsys, "minimal", "dull", "--budget", "1")
    assert "seed must be" in refused(capsys, "minimal", "dull", "--seed", "-1")
    assert "batch_size must be" in refused(capsys, "minimal", "dull", "--batch-size", "0")
    assert "is not a label" in refused(capsys, "minimal", "dull", "--target", "happy")
    assert "302 tokens" in refused(capsys, "minimal", "good " * 300)


def test_a_cut_text_is_named_once(capsys):
    text = "a charming, wise story " + "and so on " * 100
    assert main(["minimal", "dull", text, "--truncate", "--check", "--quiet", "--keep", "0.5", "--budget", "30"]) < 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("hf-attn-mi: warning: input 1 was cut from ")
    assert output.err.count("\n") == 1


class Watched(io.StringIO):
    """Standard error that somebody looks at."""

    def isatty(self):
        return True


def test_many_texts_show_progress_where_somebody_watches(monkeypatch, demo):
    watched, alone, away = Watched(), Watched(), io.StringIO()
    for stream, texts in ((watched, TEXTS[:3]), (alone, TEXTS[:1]), (away, TEXTS[:3])):
        monkeypatch.setattr(sys, "stderr", stream)
        minimal_tokens(demo[0], texts, tokenizer=demo[1])
    assert "minimal tokens, start: 100%" in watched.getvalue()
    assert "minimal tokens, second: 100%" in watched.getvalue()
    assert "3/3" in watched.getvalue()
    assert alone.getvalue() == away.getvalue() == ""


def test_quiet_hides_the_progress(monkeypatch):
    stream = Watched()
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(["minimal", *TEXTS[:2], "--check", "--quiet"]) in (0, 1)
    assert stream.getvalue() == ""


def test_wrong_usage_exits_with_2(capsys):
    for arguments in (["--keep", "much"], ["--nonsense"], ["--budget"]):
        with pytest.raises(SystemExit) as caught:
            main(["minimal", "dull", *arguments])
        assert caught.value.code == 2
        assert "usage: hf-attn-mi" in capsys.readouterr().err
