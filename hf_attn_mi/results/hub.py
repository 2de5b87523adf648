"""Results as a data set of `datasets`, and its repository on the Hugging Face Hub with a card."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_attn_mi._version import __version__
from hf_attn_mi.atomic_files import new_file, write_file
from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.hub_cards import is_unchanged, sealed
from hf_attn_mi.results.record import Record
from hf_attn_mi.results.skipped_input import SkippedInput
from hf_attn_mi.results.storage import dump_json, parse_json

# Column -> Arrow type and meaning. Changing them is a new schema: `from_dataset` reads "record" alone.
COLUMNS = {
    "input": ("int64", "number of the input; several results of one input share it"),
    "type": ("string", "class of the result"),
    "text": ("string", "the text; of a pair the first one"),
    "text_pair": ("string", "the second text of a pair"),
    "model": ("string", "name of the model"),
    "method": ("string", "method that scored the tokens"),
    "target": ("string", "name of the class or other target that is explained"),
    "probability": ("float64", "what the model gives to the target"),
    "outcome": ("string", "of results that make a claim: holds, does not hold, nothing to certify"),
    "tokens": ("list of string", "tokens of the input"),
    "scores": ("list of float64", "score of each token"),
    "skipped": ("string", "why the input has no result"),
    "record": ("large_string", "the whole result as strict JSON, from which `Results.from_dataset` makes it again"),
}
SPLIT = re.compile(r"\w+(\.\w+)*")
LIBRARIES = ("hf_attn_mi", "transformers", "torch")
BODY = """# {title}

{count} by hf_attn_mi, which explains predictions of Hugging Face transformers models.

| | |
|---|---|
{facts}

## Load

```python
from datasets import load_dataset
from hf_attn_mi import Results

results = Results.from_dataset(load_dataset("{repo_id}", split="{split}"))
print(results[0])
```

## Columns

| column | type | meaning |
|---|---|---|
{columns}

Numbers are those of the model at these inputs: a token score says what the model used, not what is true of the world.
"""


def to_dataset(items: Sequence[Record], places: Sequence[int]) -> Any:
    """Return a `datasets.Dataset` with one row for each result and the columns of `COLUMNS`.

    Args:
        items: the results.
        places: the number of the input of each.
    """
    import datasets

    rows = [_row(item, place) for item, place in zip(items, places, strict=True)]
    features = datasets.Features({name: _feature(datasets, kind) for name, (kind, _) in COLUMNS.items()})
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    return datasets.Dataset.from_dict(columns, features=features)


def read_records(dataset: Any) -> list[Record]:
    """Return the results that `to_dataset` made the rows of.

    Args:
        dataset: a `datasets.Dataset` or `IterableDataset` in any format, a `pandas.DataFrame` of it, or its rows as
            mappings; further columns are ignored.

    Raises:
        InvalidInputError: rows without the column "record", or a record that cannot be read; the message names the row.
    """
    if isinstance(dataset, str | Mapping) or not isinstance(dataset, Iterable):
        what = "a DatasetDict: pass one of its splits" if isinstance(dataset, Mapping) else type(dataset).__name__
        raise InvalidInputError(f"dataset must be what Results.to_dataset returns, not {what}.")
    given: Any = dataset
    if hasattr(given, "with_format"):  # a format may give other things than mappings, or leave out columns
        dataset = given.with_format(None)
    elif hasattr(given, "iterrows"):  # a pandas.DataFrame, which iterates over the names of its columns
        dataset = given.to_dict("records")
    only_records = getattr(dataset, "select_columns", None)
    if only_records is not None and "record" in (getattr(dataset, "column_names", None) or ()):
        dataset = only_records(["record"])
    records = []
    for place, row in enumerate(dataset):
        text = row.get("record") if isinstance(row, Mapping) else None
        if not isinstance(text, str):
            columns = list(row) if isinstance(row, Mapping) else shown(row)
            raise InvalidInputError(f"dataset: row {place} has no column 'record' with a result; it has {columns}.")
        try:
            records.append(Record.from_dict(parse_json(text, f"dataset: row {place}")))
        except InvalidInputError as error:
            raise InvalidInputError(f"dataset: row {place}: {error}") from error
    return records


def dataset_card(items: Sequence[Record], repo_id: str, split: str, fingerprint: Mapping[str, str] | None) -> str:
    """Return the text below the header of the card: what the results say about themselves.

    Args:
        items: the results.
        repo_id: the name of the repository.
        split: the name of the split.
        fingerprint: SHA-256 of the "config" and "weights" of the model; None if it is not known.
    """
    kinds = Counter(item.NOUN for item in items)
    infos = [info for item in items if (info := getattr(item, "info", None))]
    versions = [info.get("versions") or {} for info in infos]
    facts = {
        "model": _named(info.get("model") for info in infos),
        "model type": _named(info.get("model_type") for info in infos),
        "data type of the weights": _named(info.get("dtype") for info in infos),
        **{f"SHA-256 of the model's {name}": f"`{digest}`" for name, digest in (fingerprint or {}).items()},
        "method": _named(info.get("method") for info in infos),
        "versions": ", ".join(
            f"{name} {found}" for name in LIBRARIES if (found := _named(one.get(name) for one in versions))
        ),
        "written by": f"hf_attn_mi {__version__}",
    }
    body = BODY.format(
        title=repo_id.partition("/")[2] or repo_id,
        count=", ".join(_counted(number, noun) for noun, number in kinds.items()) or "No result",
        facts="\n".join(f"| {name} | {value} |" for name, value in facts.items() if value),
        repo_id=repo_id,
        split=split,
        columns="\n".join(f"| `{name}` | {kind} | {meaning} |" for name, (kind, meaning) in COLUMNS.items()),
    )
    return sealed(body)


def push(
    items: Sequence[Record],
    dataset: Any,
    repo_id: str,
    *,
    split: str,
    fingerprint: Mapping[str, str] | None,
    private: bool | None,
    token: str | bool | None,
    **commit: Any,
) -> str:
    """Upload the rows as Parquet and the card in one commit, and return its address.

    Args:
        items: the results.
        dataset: what `to_dataset` made of them.
        repo_id, split, private, token: as in `Results.push_to_hub`.
        fingerprint: as in `dataset_card`.
        commit: further arguments of `huggingface_hub.HfApi.upload_folder`.

    Raises:
        InvalidInputError: a wrong name of the repository or of the split.
    """
    from huggingface_hub import HfApi

    if not isinstance(repo_id, str) or repo_id.count("/") > 1 or not repo_id.strip("/"):
        raise InvalidInputError(f"repo_id must be a name such as 'organization/explanations', not {shown(repo_id)}.")
    if not isinstance(split, str) or not SPLIT.fullmatch(split):
        raise InvalidInputError(f"split must be a name of letters, digits and underscores, not {shown(split)}.")
    api = HfApi(token=token)
    repo_id = str(api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        with new_file(folder / "data" / f"{split}-00000-of-00001.parquet", overwrite=False) as rows:
            dataset.to_parquet(str(rows))
        old = _existing_card(api, repo_id, commit.get("revision"))
        card = _card(old, split, dataset_card(items, repo_id, split, fingerprint))
        write_file(card.encode(), folder / "README.md", overwrite=False)
        done = api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=str(folder),
            delete_patterns=f"data/{split}-*",
            **{"commit_message": f"Upload {len(items)} results of hf_attn_mi", **commit},
        )
    return str(getattr(done, "pr_url", None) or done.commit_url)


def _counted(number: int, noun: str) -> str:
    """Such as "2 explanations"."""
    return f"{number} {noun}" + "s" * (number != 1 and not noun.endswith("s"))


def _row(item: Record, place: int) -> dict[str, Any]:
    info = getattr(item, "info", None) or {}
    texts: tuple[str, ...] = getattr(item, "texts", ())
    scores = getattr(item, "scores", None)
    return {
        "input": place,
        "type": item.TYPE,
        "text": texts[0] if texts else None,
        "text_pair": texts[1] if len(texts) > 1 else None,
        "model": info.get("model"),
        "method": info.get("method"),
        "target": getattr(item, "target_name", None),
        "probability": getattr(item, "probability", getattr(item, "p_all", None)),
        "outcome": getattr(item, "outcome", None),
        "tokens": _strings(getattr(item, "tokens", None)),
        "scores": None if scores is None else scores.double().tolist(),
        "skipped": item.reason if isinstance(item, SkippedInput) else None,
        "record": dump_json(item.to_dict()),
    }


def _strings(tokens: object) -> list[str] | None:
    """Tokens as a list; of a certificate they are a number."""
    return [str(token) for token in tokens] if isinstance(tokens, tuple) else None


def _feature(datasets: Any, kind: str) -> Any:
    inner = datasets.Value(kind.removeprefix("list of "))
    return datasets.Sequence(inner) if kind.startswith("list of ") else inner


def _named(values: Iterable[object]) -> str:
    """The values that occur, each once."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _existing_card(api: Any, repo_id: str, revision: str | None) -> Any:
    """The `huggingface_hub.DatasetCard` of the repository; None if it has none."""
    from huggingface_hub import DatasetCard
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RevisionNotFoundError

    try:
        return DatasetCard.load(api.hf_hub_download(repo_id, "README.md", repo_type="dataset", revision=revision))
    except LocalEntryNotFoundError:  # no connection, which says nothing about the card
        raise
    except (EntryNotFoundError, RevisionNotFoundError):
        return None


def _card(old: Any, split: str, body: str) -> str:
    """The card with its header; the header of an existing card is kept, and its text too if somebody wrote it."""
    from huggingface_hub import DatasetCard

    header: dict[str, Any] = {} if old is None else old.data.to_dict()
    header["tags"] = list(dict.fromkeys([*(header.get("tags") or []), "explainability", "hf_attn_mi"]))
    header["configs"] = _configs(header.get("configs") or [], split)
    header["dataset_info"] = _infos(header.pop("dataset_info", None))
    card = DatasetCard("---\n{}\n---\n")
    card.data = card.card_data_class(**header)
    own = old is None or is_unchanged(old.text) or not old.text.strip()
    card.text = body if own else old.text
    return str(card)


def _configs(configs: list[Any], split: str) -> list[Any]:
    """The configurations of the data set, in whose default one the split has its files."""
    default = next((one for one in configs if one.get("config_name") == "default"), None)
    listed = (default or {}).get("data_files") or []
    listed = listed if isinstance(listed, list) else [listed]
    if paths := [one for one in listed if isinstance(one, str)]:  # paths alone are those of the training split
        listed = [{"split": "train", "path": paths}, *(one for one in listed if not isinstance(one, str))]
    files = [one for one in listed if one.get("split") != split]
    mine = {**(default or {}), "config_name": "default"}
    mine["data_files"] = [*files, {"split": split, "path": f"data/{split}-*"}]
    return [mine, *(one for one in configs if one is not default)]


def _infos(infos: Any) -> list[Any] | None:
    """What the card states of the features and the rows of its configurations, but for the default one.

    `datasets` refuses rows of other numbers than are stated. Nothing stated is read off the files.
    """
    listed = infos if isinstance(infos, list) else [infos] if infos else []
    return [one for one in listed if one.get("config_name", "default") != "default"] or None
