"""The settings of a run over a data set: everything that its numbers depend on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hf_attn_mi._version import library_versions, package_version
from hf_attn_mi.data.corpus_columns import CorpusColumns
from hf_attn_mi.data.row_source import RowSource
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.tokenizer_digest import tokenizer_digest
from hf_attn_mi.results.codec import encode
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.tasks.batch_explainer import BatchExplainer


def corpus_settings(
    runner: EncoderRunner,
    explainer: BatchExplainer,
    source: RowSource,
    columns: CorpusColumns,
    *,
    shard_size: int,
    limit: int | None,
) -> dict[str, Any]:
    """Model, tokenizer, data, options and versions, as JSON data.

    Batch size, number of processes and what is done with errors are not among them: no number depends on them.
    """
    options = explainer.options
    return {
        "model": runner.fingerprint(),
        "tokenizer": tokenizer_digest(runner.require_tokenizer()),
        "data": {
            "rows": source.size,
            "digest": source.digest(lambda row, number: _content(row, columns, number), limit),
        },
        "columns": columns.to_dict(),
        "options": {
            "method": options.method,
            "options": encode(dict(explainer.settings)),
            "layers": options.layers,
            "profile": None if explainer.profile is None else _profile_digest(explainer.profile),
            "target": _target_text(options.target),
            "targets": _target_text(options.targets),
            "truncation": options.truncation,
            "stride": options.stride,
            "aggregation": options.aggregation,
            "is_split_into_words": options.is_split_into_words,
            "limit": limit,
        },
        "shard_size": shard_size,
        "versions": {**library_versions(), "tokenizers": package_version("tokenizers")},
    }


def _content(row: Any, columns: CorpusColumns, number: int) -> object:
    """What is read of a row, for its digest."""
    try:
        return row if columns.text is None else [row.get(name) for name in columns.names]
    except AttributeError:  # no mapping: a row that will be refused
        return row


def _profile_digest(profile: InformationProfile) -> str:
    return hashlib.sha256(json.dumps(encode(profile), sort_keys=True).encode()).hexdigest()


def _target_text(target: Any) -> Any:
    """A target as JSON data: functions by their name and code, since they cannot be written otherwise."""
    if target is None or isinstance(target, str | int):
        return target
    if isinstance(target, list | tuple):
        return [_target_text(item) for item in target]
    code = getattr(target, "__code__", None)
    if code is not None:
        constants = [value for value in code.co_consts if not hasattr(value, "co_code")]  # whose repr has an address
        digest = hashlib.sha256(code.co_code + repr((constants, code.co_names)).encode()).hexdigest()
        return f"function {target.__module__}.{target.__qualname__} {digest[:16]}"
    return repr(target)
