"""Cards of repositories on the Hugging Face Hub: which text the package made, so that it never replaces another one."""

from __future__ import annotations

import hashlib
import re

_SEAL = re.compile(r"<!-- Made by hf_attn_mi; a text that somebody changed is kept. ([0-9a-f]{16}) -->\n")
_HEADER = re.compile(r"\A---\s*\n.*?\n---\s*\n", re.DOTALL)


def sealed(text: str) -> str:
    """Return the Markdown text of a card, below its header, with a comment that tells whether it was changed since.

    Example:
        >>> is_unchanged(sealed("# A card"))
        True
        >>> is_unchanged(sealed("# A card") + " of mine"), is_unchanged("# A card")
        (False, False)
    """
    return f"<!-- Made by hf_attn_mi; a text that somebody changed is kept. {_digest(text)} -->\n{text}"


def is_unchanged(card: str) -> bool:
    """Return whether the text of a card is what `sealed` returned; its header between lines of --- may be another."""
    body = _HEADER.sub("", card.replace("\r\n", "\n"))
    seal = _SEAL.search(body)
    return seal is not None and not body[: seal.start()].strip() and _digest(body[seal.end() :]) == seal[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]
