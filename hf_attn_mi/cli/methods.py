"""`hf-attn-mi methods`: the token-scoring methods, those of other packages included."""

from __future__ import annotations

import json

from hf_attn_mi.cli.exit_codes import DONE
from hf_attn_mi.cli.loading import import_libraries
from hf_attn_mi.cli.output import show


def methods() -> int:
    """List the token-scoring methods, those of other packages included, with their cost, options and references."""
    import_libraries(models=False)
    from hf_attn_mi.methods import list_methods

    rows = [
        (name, scorer.cost, json.dumps(dict(scorer.options), default=str), scorer.reference)
        for name, scorer in list_methods().items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    show("\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows))
    return DONE
