"""Results as a data set, and its repository on the Hub: nothing is lost, and the card says what the results say."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import pytest
from datasets import load_dataset
from huggingface_hub.errors import EntryNotFoundError

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.weights import fingerprint
from hf_attn_mi.results import Record, Results, SkippedInput
from hf_attn_mi.results.hub import COLUMNS
from tests.results.result_samples import SAMPLES, explanation
from tests.sample_models import tiny_bert

RECORDS = {name: item for name, item in SAMPLES.items() if isinstance(item, Record)}
RESULTS = Results(
    [
        explanation(),
        SkippedInput(1, ("",), "InvalidInputError", "inputs[1] is an empty text"),
        explanation(texts=("Unbelievable  film?",), target_name="negative", scores=explanation().scores.double() / 3),
    ]
)


@pytest.mark.parametrize("name", RECORDS)
def test_every_kind_of_result_comes_back_as_it_was(name):
    results = Results([RECORDS[name]])
    dataset = results.to_dataset()
    assert Results.from_dataset(dataset) == results
    assert dataset.column_names == list(COLUMNS)


def test_the_schema_does_not_depend_on_the_results():
    features = RESULTS.to_dataset().features
    assert all(Results([item]).to_dataset().features == features for item in RECORDS.values())
    assert Results([]).to_dataset().features == features
    # What is stored on the Hub is read by these names: a change needs a new schema.
    assert list(features) == [
        *("input", "type", "text", "text_pair", "model", "method", "target", "probability", "outcome", "tokens"),
        *("scores", "skipped", "record"),
    ]


def test_the_columns_hold_what_the_results_say():
    dataset = RESULTS.to_dataset()
    first, skipped, last = dataset
    assert (first["input"], skipped["input"], last["input"]) == (0, 1, 2)
    assert first["tokens"] == list(RESULTS[0].tokens)
    assert last["scores"] == RESULTS[2].scores.tolist()
    assert (first["model"], first["method"], first["target"], first["probability"]) == (
        "m",
        "relevance",
        "positive",
        0.75,
    )
    assert (skipped["skipped"], skipped["scores"], skipped["type"]) == (
        "inputs[1] is an empty text",
        None,
        "hf_attn_mi.SkippedInput",
    )
    assert Results([SAMPLES["token set"]]).to_dataset()[0]["outcome"] == SAMPLES["token set"].outcome


def test_changed_data_sets_are_read(tmp_path):
    dataset = RESULTS.to_dataset()
    dataset.save_to_disk(str(tmp_path / "saved"))
    assert Results.from_dataset(datasets.load_from_disk(str(tmp_path / "saved"))) == RESULTS
    positive = dataset.filter(lambda row: row["target"] == "positive").add_column("note", ["good"])
    assert Results.from_dataset(positive) == Results([RESULTS[0]])
    assert Results.from_dataset(dataset.to_iterable_dataset()) == RESULTS
    assert Results.from_dataset(list(dataset)[::-1]) == Results(list(RESULTS)[::-1])


@pytest.mark.parametrize("kind", ["torch", "numpy", "pandas", "arrow"])
def test_the_format_of_a_data_set_does_not_matter(kind):
    dataset = RESULTS.to_dataset()
    assert Results.from_dataset(dataset.with_format(kind)) == RESULTS
    assert Results.from_dataset(dataset.with_format(kind, columns=["input"])) == RESULTS
    assert Results.from_dataset(dataset.to_pandas()) == RESULTS


def test_other_data_sets_are_refused():
    with pytest.raises(InvalidInputError, match=r"row 0 has no column 'record' with a result; it has \['text'\]"):
        Results.from_dataset(datasets.Dataset.from_dict({"text": ["a"]}))
    with pytest.raises(InvalidInputError, match="a DatasetDict: pass one of its splits"):
        Results.from_dataset(datasets.DatasetDict(train=RESULTS.to_dataset()))
    for text, reason in (("{", "row 0 is not strict JSON"), ("{}", "data is not a saved result")):
        with pytest.raises(InvalidInputError, match=f"dataset: row 0.*{reason}"):
            Results.from_dataset([{"record": text}])


class FakeHub:
    """`huggingface_hub.HfApi` on a folder."""

    def __init__(self, root):
        self.root, self.calls = root, []

    def __call__(self, token=None):
        self.calls.append(("token", token))
        return self

    def create_repo(self, repo_id, *, repo_type, private, exist_ok):
        assert (repo_type, exist_ok) == ("dataset", True)
        self.calls.append(("private", private))
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"somebody/{repo_id}")

    def hf_hub_download(self, repo_id, name, *, repo_type, revision):
        path = self.root / repo_id / name
        if not path.exists():
            raise EntryNotFoundError("none yet")
        return str(path)

    def upload_folder(self, *, repo_id, repo_type, folder_path, delete_patterns, **commit):
        self.calls.append(("commit", commit))
        for path in list((self.root / repo_id).glob(delete_patterns)):
            path.unlink()
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        # The card and the rows are one commit: nobody reads one without the other.
        return SimpleNamespace(commit_url=f"hub/{repo_id}/commit/1", pr_url=None)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub in a folder, and a cache of data sets beside it."""
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return fake


def loaded(hub, repo_id, split, cache):
    """What `load_dataset` reads from the repository."""
    return Results.from_dataset(load_dataset(str(hub.root / repo_id), split=split, cache_dir=str(cache)))


def test_what_is_pushed_is_what_load_dataset_reads(hub, tmp_path):
    model = tiny_bert()
    address = RESULTS.push_to_hub("explanations", model=model, private=True, token="secret", create_pr=False)
    assert address == "hub/somebody/explanations/commit/1"
    assert hub.calls == [
        ("token", "secret"),
        ("private", True),
        ("commit", {"commit_message": "Upload 3 results of hf_attn_mi", "create_pr": False}),
    ]
    assert loaded(hub, "somebody/explanations", "train", tmp_path / "a") == RESULTS
    card = huggingface_hub.DatasetCard.load(hub.root / "somebody/explanations/README.md")
    assert card.data.to_dict()["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}
    ]
    assert set(card.data.tags) == {"explainability", "hf_attn_mi"}
    lines = card.text.splitlines()
    assert "# explanations" in lines
    for line in ("| model | m |", "| method | relevance |", "| versions | torch 2 |"):
        assert line in lines
    for name, digest in fingerprint(model).items():
        assert f"| SHA-256 of the model's {name} | `{digest}` |" in lines
    assert "2 explanations, 1 skipped input by" in card.text
    assert all(f"| `{column}` |" in card.text for column in COLUMNS)
    block = card.text.split("```python")[1].split("```")[0]
    assert 'load_dataset("somebody/explanations", split="train")' in block


def test_splits_are_added_and_replaced_and_the_card_follows(hub, tmp_path):
    RESULTS.push_to_hub("org/two")
    other = Results([replace(RESULTS[0], info={**RESULTS[0].info, "method": "lime"})])
    other.push_to_hub("org/two", split="test")
    assert loaded(hub, "org/two", "train", tmp_path / "a") == RESULTS
    assert loaded(hub, "org/two", "test", tmp_path / "a") == other
    path = hub.root / "org/two/README.md"
    assert "| method | lime |" in path.read_text()  # the card of the results that were pushed last
    card = huggingface_hub.DatasetCard.load(path)
    card.data.license = "mit"
    card.text = "\nMy own words.\n"
    card.save(path)
    other.push_to_hub("org/two")
    assert loaded(hub, "org/two", "train", tmp_path / "b") == other
    card = huggingface_hub.DatasetCard.load(path)
    assert card.text.strip() == "My own words."  # a card that somebody wrote stays
    assert card.data.license == "mit"
    assert [one["split"] for one in card.data.to_dict()["configs"][0]["data_files"]] == ["test", "train"]


@pytest.mark.parametrize("files", ["data/train-*", ["data/train-*"], [{"split": "train", "path": "data/train-*"}]])
def test_a_split_is_added_to_what_another_program_has_pushed(hub, tmp_path, files):
    """A card as `datasets` and the site of the Hub write it: with paths of any form and the numbers of the rows."""
    folder = hub.root / "org/other"
    (folder / "data").mkdir(parents=True)
    dataset = Results([RESULTS[0]]).to_dataset()
    dataset.to_parquet(str(folder / "data" / "train-00000-of-00001.parquet"))
    info = {"features": [{"name": "note", "dtype": "string"}], "splits": [{"name": "train", "num_examples": 7}]}
    card = huggingface_hub.DatasetCard("---\n{}\n---\n")
    other_info = {"config_name": "other", "splits": [{"name": "train", "num_examples": 1}]}
    card.data = huggingface_hub.DatasetCardData(
        configs=[{"config_name": "default", "data_files": files, "default": True}], dataset_info=[info, other_info]
    )
    card.save(folder / "README.md")
    RESULTS.push_to_hub("org/other", split="test")
    assert loaded(hub, "org/other", "test", tmp_path / "a") == RESULTS
    assert loaded(hub, "org/other", "train", tmp_path / "b") == Results([RESULTS[0]])
    header = huggingface_hub.DatasetCard.load(folder / "README.md").data.to_dict()
    assert header["configs"][0]["default"] is True
    assert header["dataset_info"] == [other_info]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"repo_id": "a/b/c"}, "repo_id must be a name"),
        ({"repo_id": ""}, "repo_id must be a name"),
        ({"repo_id": Path("a")}, "repo_id must be a name"),
        ({"repo_id": "a/b", "split": "no blanks"}, "split must be a name"),
        ({"repo_id": "a/b", "model": "a name"}, "model must be a loaded model"),
    ],
)
def test_wrong_names_are_refused_before_anything_is_sent(hub, arguments, reason):
    with pytest.raises(InvalidInputError, match=reason):
        RESULTS.push_to_hub(**arguments)
    assert hub.calls == []
