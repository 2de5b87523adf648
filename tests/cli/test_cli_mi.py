"""`hf-attn-mi mi`: what it prints and writes is the profile; refusals are one line."""

import json
import math
import sys
import warnings

import pytest
import torch

import hf_attn_mi
from hf_attn_mi import InformationProfile
from hf_attn_mi.cli import main
from tests.cli import command_line
from tests.tasks.sample_profile import CEILING, made

WORDS = (
    "a",
    "warm",
    "funny",
    "wise",
    "dull",
    "slow",
    "clumsy",
    "film",
    "story",
    "cast",
    "hour",
    "of",
    "with",
    "without",
    "any",
    "charm",
    "joy",
    "and",
    "but",
    "never",
)


@pytest.fixture
def received(monkeypatch):
    """The calls that `fit_information` receives; it answers with the profile written by hand."""
    calls = []

    def answer(model, dataset, **options):
        calls.append({"model": model, "dataset": dataset, **options})
        warnings.warn("three texts\nwere cut", stacklevel=2)
        print("progress", file=sys.stderr)
        return made()

    monkeypatch.setattr(hf_attn_mi, "fit_information", answer)
    return calls


def refused(capsys, *arguments):
    """The one line of an `mi` that is refused."""
    return command_line.refused(capsys, "mi", *arguments)


def test_the_table_has_every_number_and_the_ceiling(capsys, received):
    profile = made()
    assert main(["mi", "--data", "f.txt"]) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert "ceiling 0.6250 nats (0.9017 bits)" in output.out
    head = next(i for i, line in enumerate(lines) if line.startswith("layer "))
    assert lines[head].split("  ")[0] == "layer"
    for row, layer in enumerate((0, 3, 6), start=1):
        assert lines[head + row].split()[0] == str(layer)
        for name in ("first", "tokens"):
            place, found = profile.find(layer, name), profile.information
            cell = f"{found.nats[place]:.3f} [{found.interval[place, 0]:.3f}, {found.interval[place, 1]:.3f}] p = 0.01"
            assert cell in lines[head + row]
    share = float(profile.information.nats[profile.find(6, "first")]) / CEILING
    assert f"ceiling check: 'first' of layer 6 has {share:.1%} [" in lines[-1]
    proved = float(profile.information.lower_bound[profile.find(6, "first")]) / CEILING
    most = float(profile.information.upper_bound[profile.find(6, "first")]) / CEILING
    assert f"(bounds {proved:.1%} to {most:.1%} for any distribution) of the ceiling" in lines[-1]
    assert lines[-1].endswith("NOT reached (required: 95%).")
    assert output.err.splitlines() == ["progress", "hf-attn-mi: warning: three texts were cut"]


def test_the_verdict_on_the_ceiling(capsys, monkeypatch):
    high, unread = made(), made()
    high.information.nats[:] = 0.6
    unread = InformationProfile(**{**vars(unread), "info": {**unread.info, "reads": None}})
    monkeypatch.setattr(hf_attn_mi, "fit_information", lambda *a, **k: high)
    assert main(["mi", "--data", "f.txt"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("of the ceiling: reached.")
    monkeypatch.setattr(hf_attn_mi, "fit_information", lambda *a, **k: unread)
    assert main(["mi", "--data", "f.txt"]) == 0
    assert "ceiling check: not possible" in capsys.readouterr().out


def test_the_options_arrive(received, capsys):
    given = (
        "--data name:split --layers 0 3 --sites tokens types --limit 50 --batch-size 8 --estimator probe "
        "--effort default --permutations 20 --seed 4"
    )
    assert main(["mi", *given.split()]) == 0
    (call,) = received
    assert type(call.pop("model")).__name__ == "BertForSequenceClassification"
    assert call.pop("tokenizer").vocab_size == 8000
    assert call == {
        "dataset": "name:split",
        "layers": [0, 3],
        "sites": ("tokens", "types"),
        "limit": 50,
        "batch_size": 8,
        "estimator": "probe",
        "effort": "default",
        "permutations": 20,
        "seed": 4,
    }
    assert main(["mi", "--data", "f.txt"]) == 0
    defaults = received[1]
    assert (defaults["layers"], defaults["sites"], defaults["limit"]) == (None, ("tokens",), None)
    assert (defaults["estimator"], defaults["permutations"], defaults["seed"]) == ("auto", 200, 0)


def equals(data, profile):
    """Whether the JSON holds the numbers of the profile."""
    found = profile.information
    for name in ("nats", "p_value", "family_p_value", "null_mean", "share"):
        assert [site[name] for site in data["sites"]] == pytest.approx(getattr(found, name).tolist(), nan_ok=True)
    assert [x for site in data["sites"] for x in site["interval"]] == pytest.approx(found.interval.flatten().tolist())
    for name in ("layer", "stack", "name", "pooled", "n"):
        assert [site[name] for site in data["sites"]] == [getattr(site, name) for site in profile.sites]
    assert [site["part"] for site in data["sites"]] == list(found.parts)
    assert (data["n"], data["ceiling"], data["unit"]) == (profile.n, profile.ceiling, "nats")
    assert (data["labels"], data["fingerprint"]) == (list(profile.labels), dict(profile.fingerprint))
    assert data["ceiling_check"] == profile.ceiling_check()
    assert data["prior"] == profile.prior.tolist()
    assert data["info"]["model"] == profile.info["model"]
    return True


def test_json_figure_and_folder_hold_the_profile(tmp_path, received, capsys):
    files = {name: tmp_path / name for name in ("out.json", "out.png", "out")}
    assert (
        main(
            [
                "mi",
                "--data",
                "f",
                "--json",
                str(files["out.json"]),
                "--plot",
                str(files["out.png"]),
                "--save",
                str(files["out"]),
            ]
        )
        == 0
    )
    assert str(files["out.png"]) in capsys.readouterr().out
    assert equals(json.loads(files["out.json"].read_text(encoding="utf-8")), made())
    assert files["out.png"].read_bytes().startswith(b"\x89PNG")
    assert torch.equal(InformationProfile.load(files["out"]).information.nats, made().information.nats)
    assert main(["mi", "--data", "f", "--json", "-"]) == 0
    assert equals(json.loads(capsys.readouterr().out), made())


def test_a_number_that_is_not_finite_is_null_in_json(monkeypatch, capsys):
    broken = made()
    broken.information.interval[2, 1] = math.inf
    monkeypatch.setattr(hf_attn_mi, "fit_information", lambda *a, **k: broken)
    assert main(["mi", "--data", "f", "--json", "-"]) == 0
    sites = json.loads(capsys.readouterr().out)["sites"]
    assert [site["interval"][1] is None for site in sites] == [place == 2 for place in range(len(sites))]


def test_quiet_prints_warnings_only(received, capsys):
    assert main(["mi", "--data", "f", "--quiet"]) == 0
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "hf-attn-mi: warning: three texts were cut\n")


def test_refusals_are_one_line_and_come_before_the_work(tmp_path, received, capsys):
    (tmp_path / "there").mkdir()
    for arguments, words in (
        (["--plot", "a.doc"], "not as '.doc'"),
        (["--plot", str(tmp_path / "none" / "a.png")], "does not exist"),
        (["--json", str(tmp_path / "none" / "a.json")], "does not exist"),
        (["--save", str(tmp_path / "none" / "a")], "does not exist"),
        (["--save", str(tmp_path / "there")], "exists already"),
        (["--model", str(tmp_path / "there")], "--model"),
    ):
        assert words in refused(capsys, "--data", "f", *arguments)
    assert received == []


def test_data_that_cannot_be_read_or_fitted_is_refused(tmp_path, capsys):
    assert "no file" in refused(capsys, "--data", str(tmp_path / "none.txt"))
    few = tmp_path / "few.txt"
    few.write_text("a film\n" * 3, encoding="utf-8")
    assert "3" in refused(capsys, "--data", str(few))
    assert "limit" in refused(capsys, "--data", str(few), "--limit", "0")
    assert "layers" in refused(capsys, "--data", str(few), "--layers", "99")


def test_the_embedded_model_from_a_file_to_the_figure(tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    data = tmp_path / "texts.jsonl"
    rows = [[WORDS[i] for i in torch.randint(len(WORDS), (9,), generator=generator)] for _ in range(160)]
    data.write_text("".join(json.dumps({"text": " ".join(row)}) + "\n" for row in rows), encoding="utf-8")
    arguments = ["--data", str(data), "--estimator", "probe", "--permutations", "20", "--layers", "0", "2"]
    assert (
        main(["mi", *arguments, "--json", "-", "--save", str(tmp_path / "saved"), "--plot", str(tmp_path / "a.svg")])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert equals(found, InformationProfile.load(tmp_path / "saved"))
    assert (found["n"], {site["layer"] for site in found["sites"]}) == (160, {0, 2})
    assert found["info"]["model"] == "embedded_model"
    assert all(site["nats"] <= found["ceiling"] + 1e-6 for site in found["sites"])
    assert (tmp_path / "a.svg").is_file()
