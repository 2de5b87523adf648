"""The methods of this package, registered in the order in which they are listed: one line a family."""

from hf_attn_mi.methods import attention, captum, controls, relevance
from hf_attn_mi.methods.base import TokenScorer, register_method

FAMILIES: tuple[tuple[TokenScorer, ...], ...] = (
    relevance.SCORERS,
    attention.SCORERS,
    captum.SCORERS,
    controls.SCORERS,
)
for _family in FAMILIES:
    for _scorer in _family:
        register_method(_scorer, replace=True)
