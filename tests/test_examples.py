"""The scripts in examples/ take Hub names: each runs with the name of its docstring, from a cache of tiny models."""

import re
import runpy
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers

from hf_attn_mi import explain
from tests.hub_cache import add_to_cache, use_cache
from tests.media_models import picture, tone, write_wav
from tests.sample_models import DEMO
from tests.test_documentation import HUB_MODELS, hub, hub_cache, hub_folders  # noqa: F401 - fixtures

EXAMPLES = Path(__file__).parents[1] / "examples"
SST2 = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
CALLS = {  # example -> Hub name and further arguments; image.png and tone.wav are made by `files`
    "attention_maps": ("google-bert/bert-base-uncased", []),
    "compare_methods": (SST2, ["--methods", "relevance", "random"]),
    "explain_answers": ("distilbert/distilbert-base-cased-distilled-squad", []),
    "explain_audio": ("superb/wav2vec2-base-superb-ks", ["tone.wav", "--output", "out.png"]),
    "explain_entities": ("dslim/bert-base-NER", []),
    "explain_image": ("google/vit-base-patch16-224", ["image.png", "--output", "out.png"]),
    "explain_pairs": ("typeform/distilbert-base-uncased-mnli", []),
    "explain_texts": (SST2, []),
    "information_over_layers": (SST2, ["--quick"]),
    "intervene": (SST2, []),
}
ELSEWHERE = {"train_attention_head"}  # tests/heads/test_head_training.py runs it


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A working folder with an image and a recording."""
    picture().save(tmp_path / "image.png")
    write_wav(tmp_path / "tone.wav", tone(0.2))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name, arguments, monkeypatch, capsys):
    """Run an example as the command line does and return what it prints."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(CALLS) | ELSEWHERE


@pytest.mark.parametrize("name", CALLS)
def test_an_example_takes_a_hub_name(name, hub, files, monkeypatch, capsys):  # noqa: F811
    model, arguments = CALLS[name]
    printed = run(name, ["--model", model, *arguments], monkeypatch, capsys)
    assert len(printed.splitlines()) >= 2
    assert ("out.png" in arguments) == (files / "out.png").exists()
    with pytest.raises(OSError, match=r"no-organization/no-model|offline|cached|connect"):
        run(name, ["--model", "no-organization/no-model", *arguments], monkeypatch, capsys)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_the_names_in_an_example_are_those_that_are_tested(path):
    names = re.findall(r"(?:--model|--encoder|MODEL =) \"?([\w.-]+/[\w.-]+)", path.read_text(encoding="utf-8"))
    assert set(names) <= set(HUB_MODELS)
    assert names or path.stem in ("information_over_layers",)


def test_what_an_example_prints_is_what_explain_says(hub, files, monkeypatch, capsys):  # noqa: F811
    printed = run("explain_texts", ["--model", SST2, "A fine film."], monkeypatch, capsys)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(SST2)
    explanation = explain(model, "A fine film.")
    words = ", ".join(f"{word.text} {word.score:+.2f}" for word in explanation.top(3))
    assert printed.splitlines()[0] == f"{explanation.target_name} ({explanation.probability:.3f}): {words}"


def test_the_cache_is_laid_out_as_huggingface_hub_lays_it_out(tmp_path, monkeypatch):
    snapshot = add_to_cache(tmp_path, "somebody/demo", DEMO)
    (repository,) = huggingface_hub.scan_cache_dir(tmp_path).repos
    assert (repository.repo_id, repository.repo_type) == ("somebody/demo", "model")
    (revision,) = repository.revisions
    assert (revision.snapshot_path, set(revision.refs)) == (snapshot, {"main"})
    assert {file.file_name for file in revision.files} == {path.name for path in DEMO.iterdir()}
    assert all(file.file_path.is_symlink() for file in revision.files)
    assert huggingface_hub.scan_cache_dir(tmp_path).warnings == []
    use_cache(tmp_path, monkeypatch)
    named = transformers.AutoModelForSequenceClassification.from_pretrained("somebody/demo")
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(DEMO)
    weights = loaded.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in named.state_dict().items())
