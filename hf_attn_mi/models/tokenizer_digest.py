"""A digest of a tokenizer: two tokenizers with the same digest make the same tokens."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of what decides about the tokens: of a fast tokenizer all of its parts, else class and vocabulary.

    What calls change (the current truncation and padding) and where it was loaded from are left out.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and hasattr(backend, "to_str"):
        parts = json.loads(backend.to_str())
        parts = {key: value for key, value in parts.items() if key not in ("truncation", "padding")}
    else:
        vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
        parts = {"vocabulary": vocabulary, "special": getattr(tokenizer, "all_special_tokens", [])}
    parts = {
        "class": type(tokenizer).__name__,
        "limit": getattr(tokenizer, "model_max_length", None),
        "sides": [getattr(tokenizer, name, None) for name in ("padding_side", "truncation_side")],
        **parts,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
