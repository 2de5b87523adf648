"""`--target` writes what is explained as a call; `--model` loads a model with the head that it was saved with."""

import json

import pytest
import torch
import transformers
from transformers import BertConfig

from hf_attn_mi import explain
from hf_attn_mi.cli import main
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
