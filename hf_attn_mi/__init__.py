"""Which tokens and which attention weights made this prediction, and how do you know?

The public names are loaded when they are first used (PEP 562): `import hf_attn_mi` alone imports neither torch nor
transformers. Its only effect is that `AutoModelForSequenceClassification.from_pretrained` can load a saved attention
head (`hf_attn_mi.heads`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hf_attn_mi._auto_registration import register_when_loaded
from hf_attn_mi._version import __version__ as __version__

if TYPE_CHECKING:
    from hf_attn_mi.attention import attention_interval, effective_attention, efficient_attention, rollout
    from hf_attn_mi.capture import capture_attention
    from hf_attn_mi.errors import BackendUnavailableError, HfAttnMiError, InvalidInputError, UnsupportedModelError
    from hf_attn_mi.methods import list_methods, register_method
    from hf_attn_mi.mi import mutual_information
    from hf_attn_mi.results import (
        AttentionMaps,
        AttentionSubgraph,
        Certificate,
        Comparison,
        CorpusSummary,
        DatasetRun,
        Explanation,
        InformationProfile,
        Report,
        Results,
        SkippedInput,
        TokenSet,
        load_results,
    )
    from hf_attn_mi.tasks.attention_maps import attention_maps
    from hf_attn_mi.tasks.certify import certify
    from hf_attn_mi.tasks.compare import compare
    from hf_attn_mi.tasks.explain import explain
    from hf_attn_mi.tasks.explain_dataset import explain_dataset
    from hf_attn_mi.tasks.explainer import Explainer
    from hf_attn_mi.tasks.fit_information import fit_information
    from hf_attn_mi.tasks.minimal_attention import minimal_attention
    from hf_attn_mi.tasks.minimal_tokens import minimal_tokens
    from hf_attn_mi.tasks.recheck import recheck
    from hf_attn_mi.tasks.report import report
    from hf_attn_mi.tasks.summarize import summarize
    from hf_attn_mi.tasks.training_callback import ExplanationCallback

__all__ = [
    "AttentionMaps",
    "AttentionSubgraph",
    "BackendUnavailableError",
    "Certificate",
    "Comparison",
    "CorpusSummary",
    "DatasetRun",
    "Explainer",
    "Explanation",
    "ExplanationCallback",
    "HfAttnMiError",
    "InformationProfile",
    "InvalidInputError",
    "Report",
    "Results",
    "SkippedInput",
    "TokenSet",
    "UnsupportedModelError",
    "attention_interval",
    "attention_maps",
    "capture_attention",
    "certify",
    "compare",
    "effective_attention",
    "efficient_attention",
    "explain",
    "explain_dataset",
    "fit_information",
    "list_methods",
    "load_results",
    "minimal_attention",
    "minimal_tokens",
    "mutual_information",
    "recheck",
    "register_method",
    "report",
    "rollout",
    "summarize",
]
_NAMES_OF_MODULE = {  # the imports above, once more for the run time; a test compares the two
    "attention": ("attention_interval", "effective_attention", "efficient_attention", "rollout"),
    "capture": ("capture_attention",),
    "errors": ("BackendUnavailableError", "HfAttnMiError", "InvalidInputError", "UnsupportedModelError"),
    "methods": ("list_methods", "register_method"),
    "mi": ("mutual_information",),
    "results": (
        "AttentionMaps",
        "AttentionSubgraph",
        "Certificate",
        "Comparison",
        "CorpusSummary",
        "DatasetRun",
        "Explanation",
        "InformationProfile",
        "Report",
        "Results",
        "SkippedInput",
        "TokenSet",
        "load_results",
    ),
    "tasks.attention_maps": ("attention_maps",),
    "tasks.certify": ("certify",),
    "tasks.compare": ("compare",),
    "tasks.explain": ("explain",),
    "tasks.explain_dataset": ("explain_dataset",),
    "tasks.explainer": ("Explainer",),
    "tasks.fit_information": ("fit_information",),
    "tasks.minimal_attention": ("minimal_attention",),
    "tasks.minimal_tokens": ("minimal_tokens",),
    "tasks.recheck": ("recheck",),
    "tasks.report": ("report",),
    "tasks.summarize": ("summarize",),
    "tasks.training_callback": ("ExplanationCallback",),
}
_MODULE_OF_NAME = {name: f"{__name__}.{module}" for module, names in _NAMES_OF_MODULE.items() for name in names}

register_when_loaded()


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULE_OF_NAME[name]), name)
    globals()[name] = value  # from now on, the name is found without a call of this function
    return value


def __dir__() -> list[str]:
    """The public names also before they are loaded."""
    return sorted({*globals(), *__all__})
