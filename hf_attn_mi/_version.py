"""The version of this package (the one place where it is written) and of the libraries that results depend on."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

__version__ = "0.2.0"


def library_versions() -> dict[str, str]:
    """Return the versions of hf_attn_mi, torch and transformers, as every stored result states them.

    Example:
        >>> sorted(library_versions())
        ['hf_attn_mi', 'torch', 'transformers']
    """
    return {"hf_attn_mi": __version__, **{name: package_version(name) for name in ("torch", "transformers")}}


@cache  # reading the metadata of a package takes a millisecond
def package_version(package: str) -> str:
    """Return the installed version of a package."""
    return version(package)
