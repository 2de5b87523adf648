"""Token-scoring methods: the interface (`base`), the registry, and one file or folder a family."""

from hf_attn_mi.methods.base import (
    TokenScorer,
    TokenScores,
    find_method,
    list_methods,
    read_options,
    register_method,
    unregister_method,
)
from hf_attn_mi.methods.batch import ScoringBatch
from hf_attn_mi.methods.layer_statistics import LayerStatistics
from hf_attn_mi.methods.registry import FAMILIES

__all__ = [
    "FAMILIES",
    "LayerStatistics",
    "ScoringBatch",
    "TokenScorer",
    "TokenScores",
    "find_method",
    "list_methods",
    "read_options",
    "register_method",
    "unregister_method",
]
