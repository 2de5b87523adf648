"""The version of this package (the one place where it is written) and of the libraries that results depend on."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

__version__ = "0.1.0"


def library_versions() -> dict[str, str]:
    """Return the versions of hf_attn_mi, torch and transformers, as every stored result states them.

    Example:
        >>> sorted(library_versions())
        ['hf_attn_mi', 'torch', 'transformers']
    """
    return {"hf_attn_mi": __version__, "torch": _installed("torch"), "transformers": _installed("transformers")}


@cache  # reading the metadata of a package takes a millisecond
def _installed(package: str) -> str:
    return version(package)
