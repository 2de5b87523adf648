"""The scripts of examples/tasks: each runs without a network, takes a model by name and is linked from a guide."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
import transformers

from hf_attn_mi import explain
from tests.sample_models import SIZES, load_demo
from tests.zoo.building import rescale

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "tasks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name != "tiny_models.py")
NLI = {"id2label": {0: "contradiction", 1: "entailment"}, "label2id": {"contradiction": 0, "entailment": 1}}
PAIR = ("Who wrote it?", "Anna wrote it and Tom read it.")
GPT2 = {"vocab_size": 8000, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 2, "eos_token_id": 3}
# script -> class and configuration of a model, its arguments, and what `explain` takes for the same
CASES = {
    "masks.py": ("BertForMaskedLM", {}, ["The {mask} is warm."], "The [MASK] is warm.", {}),
    "next_token.py": ("GPT2LMHeadModel", GPT2, ["Anna lives in"], "Anna lives in", {}),
    "reranking.py": ("BertForSequenceClassification", {"num_labels": 1}, list(PAIR), PAIR, {}),
    "similarity.py": ("BertModel", {}, list(PAIR), PAIR[0], {"target": f"similarity({PAIR[1]!r})"}),
    "zero_shot.py": (
        "BertForSequenceClassification",
        NLI,
        ["A warm film.", "--labels", "film", "sports"],
        "A warm film.",
        {"candidate_labels": ["film", "sports"], "targets": "all"},
    ),
}


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script in this process and returns what it printed."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def script(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(FOLDER / name), run_name="__main__")
        return capsys.readouterr().out

    yield script
    sys.modules.pop("tiny_models", None)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_without_a_network_and_draws(run, name, tmp_path):
    pytest.importorskip("matplotlib")
    printed = run(name, "--plot", tmp_path / "picture.png")
    assert re.search(r"[+-]\d+\.\d\d", printed)  # a score
    assert (tmp_path / "picture.png").stat().st_size > 1000


@pytest.mark.parametrize("name", CASES)
def test_a_script_takes_a_model_by_name(run, name, tmp_path):
    class_name, settings, arguments, inputs, options = CASES[name]
    model_class = getattr(transformers, class_name)
    torch.manual_seed(3)
    base = {**SIZES, "intermediate_size": 64} if class_name.startswith("Bert") else {}
    model = model_class(model_class.config_class(**base, **settings)).eval()
    rescale(model)
    model.save_pretrained(tmp_path)
    tokenizer = load_demo()[1]
    tokenizer.save_pretrained(tmp_path)
    printed = run(name, *arguments, "--model", tmp_path)
    explained = explain(model, [inputs], tokenizer=tokenizer, **options)
    for one in explained:
        word = one.top(1)[0]
        line = next(line for line in printed.splitlines() if f"{word.text} {word.score:+.2f}" in line)
        assert (one.target_name in line) or (one.texts[-1] in line)
    assert len(printed.splitlines()) == len(explained) > 0


def test_every_script_is_linked_from_a_guide():
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "how_to").glob("*.md"))
    assert [name for name in SCRIPTS if f"(../../examples/tasks/{name})" not in pages] == []
    assert set(CASES) <= set(SCRIPTS)


def test_wrong_numbers_of_texts_are_named(run, capsys):
    with pytest.raises(SystemExit):
        run("similarity.py", "one text")
    assert "2 texts are needed, not 1" in capsys.readouterr().err
