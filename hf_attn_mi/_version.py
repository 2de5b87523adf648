"""The version of this package (the one place where it is written) and of the libraries that results depend on."""

from __future__ import annotations

import sys
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


@cache  # reading the metadata of a package takes milliseconds, and more in the first call of a process
def package_version(package: str) -> str:
    """Return the version of a package: what the imported module states, else that of its metadata."""
    stated = getattr(sys.modules.get(package), "__version__", None)
    return str(stated) if isinstance(stated, str) else version(package)
