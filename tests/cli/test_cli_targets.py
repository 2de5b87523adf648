"""`--target` writes what is explained as a call; `--model` loads a model with the head that it was saved with."""

import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import BertConfig

import hf_attn_mi
from hf_attn_mi import explain
from hf_attn_mi.cli import main
from hf_attn_mi.cli.options import read_targets
from tests.cli.command_line import refused
from tests.sample_models import SIZES, load_demo
from tests.zoo.building import rescale

LABELS = {"id2label": {0: "O", 1: "B-LOC"}, "label2id": {"O": 0, "B-LOC": 1}}
TEXT = "The film was made by Tom."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """From the name of a class of transformers to the folder of a random model and a tokenizer."""
    root = tmp_path_factory.mktemp("models")

    def save(name):
        path = root / name
        if not path.exists():
            torch.manual_seed(0)
            labels = LABELS if "Token" in name else {}
            model = getattr(transformers, name)(BertConfig(**SIZES, intermediate_size=64, **labels))
            rescale(model)
            model.save_pretrained(path)
            load_demo()[1].save_pretrained(path)
        return str(path)

    return save


CASES = [
    ("BertForTokenClassification", [TEXT], 'token(word="film", label="B-LOC")', "B-LOC of 'film'"),
    ("BertForTokenClassification", [TEXT], None, None),
    ("BertForMaskedLM", ["The film was [MASK]."], 'mask("dull")', "'dull' for mask"),
    ("BertForQuestionAnswering", ["Who made it?", "--pair", TEXT], 'answer("Tom")', "answer 'Tom'"),
]


@pytest.mark.parametrize(("name", "words", "target", "explained"), CASES, ids=lambda value: str(value)[:30])
def test_a_target_is_written_as_a_call(capsys, folder, name, words, target, explained):
    path = folder(name)
    call = [] if target is None else ["--target", target]
    assert main(["explain", *words, "--model", path, "--json", "-", "--layers", "none", *call]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    model = getattr(transformers, name).from_pretrained(path)
    inputs = (words[0], words[2]) if "--pair" in words else words[0]
    wanted = explain(model, inputs, tokenizer=load_demo()[1], target=target, layers="none")
    assert found["target_name"] == wanted.target_name == (explained or wanted.target_name)
    assert found["scores"] == wanted.to_dict()["scores"]


def test_choices_are_those_of_a_multiple_choice_model(capsys, folder, tmp_path):
    path = folder("BertForMultipleChoice")
    choices = ["funny.", "dull.", "long."]
    options = [word for choice in choices for word in ("--choice", choice)]
    call = ["explain", "The story was", *options, "--model", path, "--json", "-", "--layers", "none"]
    model = transformers.BertForMultipleChoice.from_pretrained(path)
    given = {"tokenizer": load_demo()[1], "layers": "none"}
    for words, wanted in (
        ([], {}),
        (["--target", "choice(1)"], {"target": "choice(1)"}),
        (["--target", "all"], {"targets": "all"}),
    ):
        assert main([*call, *words]) == 0
        found = json.loads(capsys.readouterr().out)
        expected = explain(model, [("The story was", choices)], **given, **wanted)
        assert [one["scores"] for one in found] == [one.to_dict()["scores"] for one in expected]
        assert [one["target_name"] for one in found] == [one.target_name for one in expected]
    page = tmp_path / "page.html"
    arguments = [*options, "--model", path, "--html", str(page), "--attention", "none", "--also", "attention"]
    assert main(["report", "The story was", *arguments]) == 0
    assert "choice" in capsys.readouterr().out
    for words, message in (
        (["--choice", "one"], "--choice: there is one choice"),
        ([*options, "--pair", "x"], "--choice is a second text; leave out --pair"),
    ):
        assert message in refused(capsys, "explain", "The story was", "--model", path, *words)


def test_other_commands_take_the_same_targets(capsys, folder):
    call = [
        TEXT,
        "--model",
        folder("BertForTokenClassification"),
        "--target",
        "token(word='film', label=1)",
        "--json",
        "-",
    ]
    assert main(["certify", *call]) in (0, 3)
    assert json.loads(capsys.readouterr().out)[0]["target_name"] == "B-LOC of 'film'"
    assert main(["minimal", *call, "--check"]) in (0, 3)
    assert json.loads(capsys.readouterr().out)[0]["target_name"] == "B-LOC of 'film'"


def test_wrong_calls_end_in_one_line(capsys, folder):
    path = folder("BertForTokenClassification")
    for target, words in (
        ("token(word='Rome')", "'Rome' is not in the text"),
        ("token(word=film)", "film is neither a text in quotes nor a number"),
        ("tokens(1)", "is not a label"),
        ("token(__import__('os').getcwd())", "is none of the targets"),
    ):
        assert words in refused(capsys, "explain", TEXT, "--model", path, "--target", target)


def found(capsys, *arguments):
    """The target names and scores of a command that prints JSON and ends well."""
    assert main([*arguments, "--json", "-", "--layers", "none"]) == 0
    return json.loads(capsys.readouterr().out)


def test_several_targets_are_those_of_python(capsys, folder):
    model, tokenizer = load_demo()
    results = found(capsys, "explain", "A warm film.", "--target", "negative", "--target", "1")
    wanted = explain(model, "A warm film.", tokenizer=tokenizer, targets=["negative", 1], layers="none")
    assert [one["target_name"] for one in results] == ["negative", "positive"]
    assert [one["scores"] for one in results] == [one.to_dict()["scores"] for one in wanted]
    names = [one["target_name"] for one in found(capsys, "explain", "A warm film.", "--target", "all")]
    assert names == ["negative", "positive"]
    assert "pass it alone" in refused(capsys, "explain", "A film.", "--target", "all", "--target", "negative")


def test_a_label_of_the_name_all_is_a_label():
    model = SimpleNamespace(config=SimpleNamespace(id2label={0: "all", 1: "similarity('x')"}))
    assert read_targets(["all"], model) == {"target": "all"}
    assert read_targets(["similarity('x')"], model) == {"target": "similarity('x')"}
    assert read_targets(["all"], model, known=["film"]) == {"targets": "all"}


def test_similarity_loads_the_encoder_without_its_head(capsys, folder):
    call = 'similarity("A dull film.")'
    (result,) = found(capsys, "explain", TEXT, "--model", folder("BertForTokenClassification"), "--target", call)
    encoder = transformers.AutoModel.from_pretrained(folder("BertForTokenClassification"))
    wanted = explain(encoder, TEXT, tokenizer=load_demo()[1], target=call, layers="none")
    assert result["target_name"] == "similarity to 'A dull film.'"
    assert result["scores"] == wanted.to_dict()["scores"]
    pooled = 'similarity("A dull film.", pooling="pooler")'
    message = refused(capsys, "explain", TEXT, "--model", folder("BertForTokenClassification"), "--target", pooled)
    assert "no weights for pooler" in message


def test_a_sentence_transformer_keeps_its_pooling(capsys, folder, tmp_path):
    modules = pytest.importorskip("sentence_transformers.models")
    body = modules.Transformer(folder("BertModel"))
    pooling = modules.Pooling(SIZES["hidden_size"], "cls")
    pytest.importorskip("sentence_transformers").SentenceTransformer(
        modules=[body, pooling], device="cpu"
    ).save_pretrained(str(tmp_path / "sentence"))
    (result,) = found(
        capsys, "explain", TEXT, "--model", str(tmp_path / "sentence"), "--target", "similarity('A dull film.')"
    )
    encoder = transformers.AutoModel.from_pretrained(folder("BertModel"))
    wanted = explain(
        encoder, TEXT, tokenizer=load_demo()[1], target="similarity('A dull film.', pooling='cls')", layers="none"
    )
    assert torch.tensor(result["scores"]["values"]).tolist() == pytest.approx(wanted.scores.tolist(), abs=1e-5)


def test_candidate_labels_make_a_zero_shot_classifier(capsys, folder, tmp_path):
    labels = {"id2label": {0: "entailment", 1: "neutral", 2: "contradiction"}}
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(BertConfig(**SIZES, intermediate_size=64, **labels))
    rescale(model)
    model.save_pretrained(tmp_path)
    load_demo()[1].save_pretrained(tmp_path)
    arguments = ["explain", TEXT, "--model", str(tmp_path), "--candidate-labels", "film, sports"]
    wanted = explain(model, TEXT, tokenizer=load_demo()[1], candidate_labels=["film", "sports"], targets="all")
    assert [one["target_name"] for one in found(capsys, *arguments, "--target", "all")] == [
        one.target_name for one in wanted
    ]
    (sports,) = found(capsys, *arguments, "--target", "sports")
    assert sports["scores"]["values"] == pytest.approx(wanted[1].scores.tolist(), abs=1e-6)
    assert "none of the candidate labels" in refused(capsys, *arguments, "--target", "music")
    assert "empty label" in refused(capsys, *arguments[:-1], "film,,sports")


def test_skipped_inputs_are_named_and_give_status_1(capsys):
    assert main(["explain", "A warm film.", "", "--errors", "skip", "--layers", "none"]) == 1
    assert "Input 1 was skipped" in capsys.readouterr().out
    assert main(["explain", "A warm film.", "", "--errors", "skip", "--layers", "none", "--json", "-"]) == 1
    assert [one["type"] for one in json.loads(capsys.readouterr().out)][1] == "hf_attn_mi.SkippedInput"


def test_messages_speak_of_options(capsys):
    message = refused(capsys, "explain", "a warm film " * 300)
    assert "pass --truncate to" in message
    assert "truncation=True" not in message


LISTS = ["--target", "token(word='film', label=1)", "--target", "token(word='Tom')"]


@pytest.mark.parametrize("command", ["certify", "minimal", "subgraph"])
def test_several_targets_in_every_command(capsys, folder, command):
    path = folder("BertForTokenClassification")
    settings = {"subgraph": ["--unit", "layer", "--check"], "minimal": ["--check"]}.get(command, [])
    assert main([command, TEXT, "--model", path, *LISTS, *settings, "--json", "-"]) in (0, 1, 3)
    results = json.loads(capsys.readouterr().out)
    model, tokenizer = transformers.BertForTokenClassification.from_pretrained(path), load_demo()[1]
    run = {"certify": hf_attn_mi.certify, "minimal": hf_attn_mi.minimal_tokens}.get(
        command, hf_attn_mi.minimal_attention
    )
    options = {"unit": "layer"} if command == "subgraph" else {}
    wanted = run(model, [TEXT], tokenizer=tokenizer, targets=LISTS[1::2], **options)
    assert [one["target_name"] for one in results] == [one.target_name for one in wanted]
    assert len({one["target_name"] for one in results}) == 2
    if settings:
        assert all(one["check"]["holds"] for one in results)
        assert main([command, TEXT, "--model", path, *LISTS, *settings]) in (0, 1, 3)
        assert "Check of result 1: every number" in capsys.readouterr().out
    assert "pass it alone" in refused(capsys, command, TEXT, "--model", path, "--target", "all", *LISTS)


@pytest.mark.parametrize("command", ["certify", "minimal", "subgraph"])
def test_choices_in_every_command(capsys, folder, command):
    path = folder("BertForMultipleChoice")
    call = [command, "The story was", "--choice", "funny.", "--choice", "dull.", "--model", path, "--json", "-"]
    settings = ["--unit", "layer"] if command == "subgraph" else []
    for words, names in (
        (["--target", "choice(1)"], ["choice 1: 'dull.'"]),
        (["--target", "1", "--target", "0"], ["choice 1: 'dull.'", "choice 0: 'funny.'"]),
        (["--target", "all"], ["choice 0: 'funny.'", "choice 1: 'dull.'"]),
    ):
        assert main([*call, *settings, *words]) in (0, 1, 3)
        assert [one["target_name"] for one in json.loads(capsys.readouterr().out)] == names
    assert "there is one choice" in refused(capsys, command, "The story was", "--model", path, "--choice", "one")


def test_several_targets_of_a_comparison(capsys, tmp_path):
    data = tmp_path / "texts.txt"
    data.write_text("A warm film.\nA dull film.\n", encoding="utf-8")
    files = {name: tmp_path / f"table.{name}" for name in ("json", "md", "html", "png")}
    call = ["compare", "--data", str(data), "--methods", "relevance", "random", "--target", "negative", "positive"]
    outputs = ["--markdown", files["md"], "--html", files["html"], "--plot", files["png"], "--json", files["json"]]
    assert main([*call, *map(str, outputs)]) == 0
    printed = capsys.readouterr().out
    model, tokenizer = load_demo()
    methods = ("relevance", "random")
    texts = ["A warm film.", "A dull film."]
    wanted = hf_attn_mi.compare(model, texts, tokenizer=tokenizer, methods=methods, targets=["negative", "positive"])
    saved = json.loads(files["json"].read_text(encoding="utf-8"))
    assert [one["info"]["target"] for one in saved] == ["negative", "positive"]
    assert [one["data"]["drawn"] for one in saved] == [2, 2]
    loaded = hf_attn_mi.Results.load(files["json"])
    assert [one.values for one in loaded] == [one.values for one in wanted]
    for name in ("negative", "positive"):
        assert f"target {name}" in printed
        assert f"# {name}" in files["md"].read_text(encoding="utf-8")
        assert f"target: {name}" in files["html"].read_text(encoding="utf-8")
    assert files["png"].stat().st_size > 1000
    message = refused(capsys, *call[:3], "--target", "all", "negative")
    assert "pass it alone" in message


def test_several_targets_of_a_data_set(capsys, tmp_path):
    data = tmp_path / "texts.txt"
    data.write_text("A warm film.\nA dull film.\n", encoding="utf-8")
    call = ["explain-dataset", "--data", str(data), "--quiet", "--target", "positive", "--target", "0"]
    assert main([*call, "--output", str(tmp_path / "run")]) == 0
    names = [one.target_name for one in hf_attn_mi.load_results(tmp_path / "run")]
    assert names == ["positive", "negative"] * 2
    call = [*call, "--output", str(tmp_path / "other"), "--targets", "all"]
    assert "--target and --targets: pass one of them" in refused(capsys, *call)
