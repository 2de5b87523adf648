"""Every example in a docstring of the package runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import hf_attn_mi

OPTIONAL = {"numba", "triton", "matplotlib"}  # extras: modules that import them at the top are skipped without them
SUBMODULES = (module.name for module in pkgutil.walk_packages(hf_attn_mi.__path__, "hf_attn_mi."))
MODULES = ["hf_attn_mi", *sorted(name for name in SUBMODULES if not name.endswith("__main__"))]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, tmp_path, monkeypatch):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name not in OPTIONAL:
            raise
        pytest.skip(f"{missing.name} is not installed")
    monkeypatch.chdir(tmp_path)  # examples may write files
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failures, _ = doctest.testmod(module, optionflags=flags, report=True)
    assert failures == 0
