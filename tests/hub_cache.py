"""A cache of the Hugging Face Hub on disk, laid out as huggingface_hub lays it out, so that Hub names work offline.

    <cache>/models--<organization>--<name>/
        refs/main                     the commit that "main" stands for
        blobs/<SHA-256>               the content of each file
        snapshots/<commit>/<file>     links to the blobs

With `use_cache` every library in this process that looks up names by huggingface_hub finds the models of the cache;
another process finds them with the environment variable HF_HUB_CACHE. Other names fail as they do without a network.
"""

import hashlib
import shutil
from pathlib import Path

import huggingface_hub.constants


def add_to_cache(cache, name, folder):
    """Put the files of a folder into the cache as the model of this name; return the folder of its snapshot."""
    repository = Path(cache) / f"models--{name.replace('/', '--')}"
    commit = hashlib.sha1(name.encode()).hexdigest()
    snapshot = repository / "snapshots" / commit
    for path in sorted(Path(folder).rglob("*")):
        if path.is_dir():
            continue
        blob = repository / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * (len(link.relative_to(repository).parts) - 1)) / "blobs" / blob.name)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    return snapshot


def fill_cache(cache, folders):
    """Put models into the cache: name -> folder with its files."""
    for name, folder in folders.items():
        add_to_cache(cache, name, folder)
    return Path(cache)


def use_cache(cache, monkeypatch):
    """Let huggingface_hub look into this cache for the time of a test."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
