"""Makes saved attention heads loadable through transformers' auto classes, without importing transformers.

`import hf_attn_mi` calls `register_when_loaded`. The classes in `hf_attn_mi.heads` can only be registered after the
auto classes exist, and importing those takes seconds. So where they are not loaded yet, one finder is put on
`sys.meta_path`: it waits for `transformers.models.auto.modeling_auto`, registers once that module has run, and removes
itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

AUTO_CLASSES = "transformers.models.auto.modeling_auto"


def register_when_loaded() -> None:
    """Register the attention heads now if the auto classes are loaded, else as soon as they are."""
    module = sys.modules.get(AUTO_CLASSES)
    if module is not None and hasattr(module, "AutoModelForSequenceClassification"):
        _register()
    elif not any(isinstance(finder, AutoClassFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, AutoClassFinder())


def _register() -> None:
    import_module("hf_attn_mi.heads")  # registers its classes at its end, also where this is called during its import


class AutoClassFinder(MetaPathFinder):
    """Finds one module, the auto classes, and registers the attention heads after that module has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the ordinary spec of the auto classes, extended by the registration; None for any other module."""
        if fullname != AUTO_CLASSES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        loader = None if spec is None else spec.loader
        if loader is None:
            return None
        run = loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            del loader.exec_module  # the loader stays with the module: it must be what it was
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            run(module)
            _register()

        loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec
