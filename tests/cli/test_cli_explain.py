"""The command line, in this process and as a command of its own."""

import io
import json
import os
import sys
import warnings
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from hf_attn_mi import Explanation, explain, fit_information
from hf_attn_mi.cli import main
from tests.cli import command_line
from tests.cli.command_line import command
from tests.sample_models import ANY_MODEL, DEMO, TEXTS, distance, tiny_bert


def words_of(output):
    """The words in the first column, without the lines around them."""
    return [line.split()[0] for line in output.splitlines() if line.startswith("  ")]


def refused(capsys, *arguments):
    """The one line of an `explain` that is refused."""
    return command_line.refused(capsys, "explain", *arguments)


def test_a_text_is_explained_by_the_embedded_model(capsys, demo):
    assert main(["explain", TEXTS[0]]) == 0
    output = capsys.readouterr()
    wanted = explain(demo[0], TEXTS[0])
    assert output.err == ""
    assert output.out.startswith(
        f"positive (probability {wanted.probability:.4g}, method relevance, model embedded_model"
    )
    assert set(words_of(output.out)) == {"A", "quietly", "moving", "film", "."}
    assert words_of(output.out)[0] == wanted.top(1)[0].text
    assert "\033" not in output.out  # no colors where the output is not a terminal


def test_texts_come_from_arguments_file_and_stdin(capsys, tmp_path, monkeypatch):
    lines = tmp_path / "texts.txt"
    lines.write_bytes("\ufeffdull film\r\n\r\nbrilliant\u2028film\r\n".encode())
    monkeypatch.setattr(sys, "stdin", io.StringIO("a mess\n\n  \nvery funny\n"))
    assert main(["explain", "wonderful", "-", "--file", str(lines), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    texts = [one["texts"][0] for one in found]
    assert texts == ["wonderful", "dull film", "brilliant\u2028film", "a mess", "very funny"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("boring\n"))
    assert main(["explain"]) == 0
    assert "negative" in capsys.readouterr().out


def test_a_pair(capsys, demo):
    assert main(["explain", "The film was long.", "--pair", "Nobody liked it.", "--json", "-"]) == 0
    (data,) = json.loads(capsys.readouterr().out)
    wanted = explain(demo[0], ("The film was long.", "Nobody liked it."))
    assert distance(Explanation.from_dict(data).scores, wanted.scores) < 1e-6


@pytest.mark.parametrize("method", ANY_MODEL)
def test_every_method_writes_json_that_reloads(capsys, tmp_path, method, demo):
    target = tmp_path / "out.json"
    assert main(["explain", *TEXTS[:2], "--method", method, "--json", str(target)]) == 0
    assert f"method {method}" in capsys.readouterr().out
    loaded = [Explanation.from_dict(data) for data in json.loads(target.read_text(encoding="utf-8"))]
    for one, wanted in zip(loaded, explain(demo[0], TEXTS[:2], method=method), strict=True):
        assert distance(one.scores, wanted.scores) < 1e-6
        assert one.tokens == wanted.tokens


@pytest.mark.parametrize(("target", "name"), [("negative", "negative"), ("Positive", "positive"), ("0", "negative")])
def test_targets(capsys, target, name):
    assert main(["explain", TEXTS[0], "--target", target]) == 0
    assert capsys.readouterr().out.startswith(name)


def test_a_label_that_is_a_number_is_meant_before_the_class_of_this_number(capsys, tmp_path, demo):
    model = tiny_bert(id2label={0: "1", 1: "0"})
    model.save_pretrained(tmp_path)
    demo[1].save_pretrained(tmp_path)
    assert main(["explain", "dull film", "--model", str(tmp_path), "--target", "1", "--json", "-"]) == 0
    (data,) = json.loads(capsys.readouterr().out)
    assert (data["target"], data["target_name"]) == (0, "1")


def test_html_is_one_page_with_escaped_text(capsys, tmp_path):
    page = tmp_path / "page.html"
    text = "<script>alert('x')</script> a good & moving film"
    assert main(["explain", text, TEXTS[1], "--html", str(page)]) == 0
    assert str(page) in capsys.readouterr().out
    content = page.read_text(encoding="utf-8")
    assert content.lower().startswith("<!doctype html>")
    assert "<script>alert" not in content
    assert not [sign for sign in ("http://", "https://", "src=", "<link", "@import", "url(") if sign in content]
    assert "moving" in content
    assert "dull" in content


def test_quiet_prints_nothing(capsys, tmp_path):
    files = ["--html", str(tmp_path / "a.html"), "--json", str(tmp_path / "a.json")]
    assert main(["explain", TEXTS[0], "--quiet", *files]) == 0
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"a.html", "a.json"}


def test_refusals_are_one_line(capsys, tmp_path, monkeypatch):
    assert "target 'happy' is not a label" in refused(capsys, TEXTS[0], "--target", "happy")
    assert "target 7 is out of range" in refused(capsys, TEXTS[0], "--target", "7")
    assert "target '--7'" in refused(capsys, TEXTS[0], "--target=--7")
    assert "inputs[0] is an empty text" in refused(capsys, " ")
    assert "602 tokens" in refused(capsys, "good " * 600)
    assert "batch_size" in refused(capsys, TEXTS[0], "--batch-size", "0")
    assert "--file" in refused(capsys, "--file", str(tmp_path / "none.txt"))
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    assert "UTF-8" in refused(capsys, "--file", str(tmp_path / "latin"))
    assert "does not exist" in refused(capsys, TEXTS[0], "--html", str(tmp_path / "none" / "a.html"))
    assert "its name must end in .html" in refused(capsys, TEXTS[0], "--html", str(tmp_path / "a.png"))
    assert "directory" in refused(capsys, TEXTS[0], "--quiet", "--json", str(tmp_path)).lower()
    assert "--model" in refused(capsys, TEXTS[0], "--model", str(tmp_path))
    assert "--model nosuch/model" in refused(capsys, TEXTS[0], "--model", "nosuch/model")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert "no text: pass TEXT, --file FILE" in refused(capsys)


def test_a_model_without_a_trained_head_is_refused(capsys, tmp_path, demo):
    AutoModel.from_pretrained(DEMO, local_files_only=True).save_pretrained(tmp_path)
    demo[1].save_pretrained(tmp_path)
    message = refused(capsys, TEXTS[0], "--model", str(tmp_path))
    assert "no weights for classifier.bias, classifier.weight, so its predictions would be random" in message


def test_long_texts_are_cut_on_request(capsys):
    assert main(["explain", "good " * 600, "--truncate"]) == 0
    output = capsys.readouterr()
    assert output.err.startswith("hf-attn-mi: warning: input 0 was cut from 602 to 512 tokens; the rest was not seen")
    assert output.err.count("\n") == 1
    assert "Warning: input 0 was cut" in output.out


def test_as_a_command_it_shows_no_progress_bar_and_no_noise():
    done = command("explain", "--batch-size", "1", stdin="\n".join(TEXTS))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Completeness gap") == len(TEXTS)


def test_as_a_command_it_refuses_without_a_traceback():
    done = command("explain", TEXTS[0], "--target", "happy")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_a_terminal_that_lacks_a_sign_gets_an_escape():
    done = command("explain", "a \u2603 film", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2603" in done.stdout


def test_a_hub_name_works_offline_from_the_cache(tmp_path):
    folder, sha = tmp_path / "hub" / "models--org--tiny-sentiment", "0123456789abcdef0123456789abcdef01234567"
    snapshot = folder / "snapshots" / sha
    for part in (snapshot, folder / "refs", folder / "blobs"):
        part.mkdir(parents=True)
    (folder / "refs" / "main").write_text(sha)
    for number, source in enumerate(path for path in sorted(DEMO.iterdir()) if path.is_file()):
        blob = folder / "blobs" / f"{number:040x}"
        blob.write_bytes(source.read_bytes())
        (snapshot / source.name).symlink_to(Path("..", "..", "blobs", blob.name))
    done = command(
        "explain",
        TEXTS[0],
        "--model",
        "org/tiny-sentiment",
        "--json",
        "-",
        HF_HOME=str(tmp_path),
        HF_HUB_CACHE=str(tmp_path / "hub"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    (data,) = json.loads(done.stdout)
    assert data["info"]["model"] == "org/tiny-sentiment"
    assert main(["explain", TEXTS[0], "--quiet"]) == 0
    assert Explanation.from_dict(data).target_name == "positive"


def test_models_prints_what_is_supported(capsys):
    if not (files("hf_attn_mi") / "supported_models.json").is_file():
        pytest.skip("hf_attn_mi/supported_models.json is missing: it is generated by the sweep over all model types")
    assert main(["models"]) == 0
    some = capsys.readouterr().out.splitlines()
    assert any(line.split()[0] == "bert" for line in some)
    assert all("exact" in line for line in some)
    assert main(["models", "--all"]) == 0
    every = capsys.readouterr().out.splitlines()
    assert set(some) < set(every)
    assert any(line.split()[0] == "fnet" for line in every)


def test_the_process_is_left_as_it_was(capsys):
    from transformers.utils import logging

    logging.enable_progress_bar()
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled(), dict(os.environ), torch.get_default_dtype())
    assert main(["explain", TEXTS[0], "--quiet"]) == 0
    after = (logging.get_verbosity(), logging.is_progress_bar_enabled(), dict(os.environ), torch.get_default_dtype())
    logging.disable_progress_bar()  # as in conftest
    assert after == before


# --- options of methods, profiles, layers ----------------------------------------------------------------------------

WORDS = ["a", "warm", "funny", "wise", "dull", "slow", "film", "story", "of", "with", "charm", "joy", "but", "never"]


def test_options_reach_the_method(capsys, demo):
    call = ["explain", TEXTS[0], "--method", "integrated_gradients", "--json", "-"]
    assert main([*call, "--options", '{"steps": 3, "baseline": "mask"}']) == 0
    (data,) = json.loads(capsys.readouterr().out)
    found = Explanation.from_dict(data).scores
    wanted = explain(demo[0], TEXTS[0], method="integrated_gradients", options={"steps": 3, "baseline": "mask"})
    plain = explain(demo[0], TEXTS[0], method="integrated_gradients")
    assert distance(found, wanted.scores) < 1e-6
    assert distance(plain.scores, wanted.scores) > 1e-3


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("lime", '{"steps": 20}', "method 'lime' has no option 'steps'"),
        ("relevance", '{"steps": 20}', "relevance"),
        ("integrated_gradients", '{"steps": "many"}', "steps"),
        ("integrated_gradients", "{'steps': 20}", "--options is not JSON"),
        ("integrated_gradients", "[20]", "--options is a JSON list; an object is needed, such as '{\"steps\": 20}'"),
        ("integrated_gradients", "20", "--options is a JSON int"),
        ("integrated_gradients", '{"steps": NaN}', "NaN is not JSON"),
        ("integrated_gradients", "[" * 100000, "--options is not JSON"),
    ],
)
def test_wrong_options_are_refused_in_one_line(capsys, method, options, words):
    assert words in refused(capsys, "dull", "--method", method, "--options", options)


@pytest.fixture(scope="module")
def saved(demo, tmp_path_factory):
    """A profile of the embedded model, and its folder."""
    generator = torch.Generator().manual_seed(0)
    texts = [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (9,), generator=generator)) for _ in range(60)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few texts have no split halves
        profile = fit_information(
            demo[0], texts, tokenizer=demo[1], layers=[0, 2], estimator="probe", permutations=20, seed=0
        )
    path = tmp_path_factory.mktemp("saved") / "profile"
    profile.save(path)
    return profile, path


def test_a_profile_adds_what_single_states_tell(capsys, saved, demo):
    profile, path = saved
    assert main(["explain", TEXTS[0], "--profile", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("Information of single states about the output"))
    assert f"60 texts, largest possible mean {profile.ceiling:.3g}" in lines[head]
    wanted = explain(demo[0], TEXTS[0], profile=profile)
    for line, layer in zip(lines[head + 1 :], wanted.information["layers"], strict=True):
        ranked = sorted((-kl, place) for place, kl in enumerate(layer["kl"]) if not wanted.special[place])[:3]
        assert line == f"  layer {layer['layer']}: " + ", ".join(
            f"{wanted.tokens[place]!r} {-kl:.3g}" for kl, place in ranked
        )
    assert main(["explain", TEXTS[0], "--profile", str(path), "--json", "-"]) == 0
    (data,) = json.loads(capsys.readouterr().out)
    found = Explanation.from_dict(data).information
    assert found["layers"][1]["kl"] == pytest.approx(wanted.information["layers"][1]["kl"], rel=1e-5)


def test_without_a_profile_nothing_is_said_of_information(capsys):
    assert main(["explain", TEXTS[0]]) == 0
    assert "single states" not in capsys.readouterr().out


def test_a_profile_that_does_not_fit_is_refused(capsys, saved, tmp_path, demo):
    assert "there is no such folder" in refused(capsys, "dull", "--profile", str(tmp_path / "none"))
    assert "is not a saved" in refused(capsys, "dull", "--profile", str(tmp_path))
    tiny_bert().save_pretrained(tmp_path)
    demo[1].save_pretrained(tmp_path)
    message = refused(capsys, "dull", "--profile", str(saved[1]), "--model", str(tmp_path))
    assert "was fitted for" in message


@pytest.mark.parametrize("layers", ["full", "summary", "none"])
def test_the_layers_are_as_wanted(capsys, demo, layers):
    assert main(["explain", TEXTS[0], "--layers", layers, "--json", "-"]) == 0
    (data,) = json.loads(capsys.readouterr().out)
    wanted = explain(demo[0], TEXTS[0], layers=layers)
    assert Explanation.from_dict(data).layers == wanted.layers
