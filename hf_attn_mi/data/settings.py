"""The settings of a run: compared before it is resumed, with the differences named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from hf_attn_mi.errors import InvalidInputError, shown


def settings_text(settings: Mapping[str, Any]) -> str:
    """The settings as JSON, equal for equal settings."""
    return json.dumps(settings, sort_keys=True, allow_nan=False)


def settings_id(settings: Mapping[str, Any]) -> str:
    """SHA-256 of the settings.

    Example:
        >>> settings_id({"a": 1, "b": 2}) == settings_id({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(settings_text(settings).encode()).hexdigest()


def check_same_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], output: str, names: Mapping[str, tuple[Any, Any]] | None = None
) -> None:
    """Refuse to go on with a run under other settings.

    Args:
        before, now: the settings.
        output: the folder.
        names: names of model and data before and now, which a reader knows and digests do not say.

    Raises:
        InvalidInputError: names every difference.

    Example:
        >>> check_same_settings({"method": "relevance"}, {"method": "relevance"}, "out")
    """
    now = json.loads(settings_text(now))  # tuples become lists, as in the file
    changes = list(_differences(before, now, ""))
    if changes:
        known = {key: pair for key, pair in (names or {}).items() if pair[0] != pair[1] and None not in pair}
        changes = [f"{key} was {shown(was)}, is now {shown(name)}" for key, (was, name) in known.items()] + changes
        raise InvalidInputError(
            f"output={output!r} holds a run with other settings: {'; '.join(changes)}. Finish it with the settings of "
            "its run.json, or name another folder."
        )


def _differences(before: Any, now: Any, place: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            yield from _differences(before.get(key), now.get(key), f"{place}.{key}" if place else str(key))
    elif before != now:
        yield f"{place} was {_short(before)}, is now {_short(now)}"


def _short(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else shown(value, 120)
