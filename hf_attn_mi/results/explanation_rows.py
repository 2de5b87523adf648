"""Explanations as rows of a table: the schema of the shards, and explanations read back from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hf_attn_mi.results.codec import decode, encode, read_field
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.layer_attention import LayerAttention

INFO_KEY = "hf_attn_mi.info"  # in the metadata of a table: JSON of the entries of `info` that its rows share
# These entries of `Explanation.info` are stored once. "seconds" is left out, so that equal runs give equal rows.
_OF_RUN = (
    *("model", "model_type", "dtype", "versions", "method", "reference", "class_linked", "additive", "adds_up_to"),
    *("attention_implementation", "layers", "space"),
)
_COLUMNS = ("warnings", "target", "seconds")
_RARE = ("grid", "picture", "sound", "decoder")
_LAYER_TENSORS = ("rank", "null_space_fraction", "entropy", "received", "received_effective", "support_size")


def schema() -> Any:
    """The pyarrow.Schema of a shard: one row for each explanation.

    `row` is the number of the input in the data set, `place` the number of the explanation among those of its input (0
    but for several targets). `offsets` are (start, end) characters of each token in its text. `details` is JSON of
    what has no column.
    """
    import pyarrow as pa

    per_head = pa.list_(pa.float32())
    layer = pa.struct(
        [
            ("layer", pa.int32()),
            ("name", pa.string()),
            ("kind", pa.string()),
            ("n", pa.int32()),
            ("head_dim", pa.int32()),
            ("rank", pa.list_(pa.int64())),
            ("null_space_fraction", per_head),
            ("entropy", per_head),
            ("received", pa.list_(per_head)),
            ("received_effective", pa.list_(per_head)),
            ("support_size", per_head),
        ]
    )
    return pa.schema(
        [
            ("row", pa.int64()),
            ("place", pa.int32()),
            ("id", pa.string()),
            ("text", pa.string()),
            ("text_pair", pa.string()),
            ("tokens", pa.list_(pa.string())),
            ("scores", pa.list_(pa.float32())),
            ("offsets", pa.list_(pa.list_(pa.int32()))),
            ("sequence_ids", pa.list_(pa.int8())),
            ("word_ids", pa.list_(pa.int32())),
            ("special", pa.list_(pa.bool_())),
            ("target", pa.int32()),
            ("target_name", pa.string()),
            ("target_call", pa.string()),
            ("probability", pa.float64()),
            ("label", pa.string()),
            ("label_name", pa.string()),
            ("correct", pa.bool_()),
            ("completeness_gap", pa.float64()),
            ("warnings", pa.list_(pa.string())),
            ("layers", pa.list_(layer)),
            ("information", pa.string()),
            ("details", pa.string()),
        ]
    )


def to_columns(explanations: Sequence[Explanation], common: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that come from the explanations themselves, as lists.

    Args:
        explanations: one for each row.
        common: entries of `info` that are stored once, from `common_info`; a row that has other values stores them.
    """
    texts = [one.texts for one in explanations]
    return {
        "text": [part[0] if part else None for part in texts],
        "text_pair": [part[1] if len(part) > 1 else None for part in texts],
        "tokens": [list(one.tokens) for one in explanations],
        "scores": [one.scores.float().numpy() for one in explanations],
        "offsets": [None if one.offsets is None else [list(pair) for pair in one.offsets] for one in explanations],
        "sequence_ids": [None if one.sequence_ids is None else list(one.sequence_ids) for one in explanations],
        "word_ids": [None if one.word_ids is None else list(one.word_ids) for one in explanations],
        "special": [list(one.special) for one in explanations],
        "target": [one.target for one in explanations],
        "target_name": [one.target_name for one in explanations],
        "target_call": [one.info.get("target") for one in explanations],
        "probability": [one.probability for one in explanations],
        "completeness_gap": [one.completeness_gap for one in explanations],
        "warnings": [list(one.info.get("warnings") or ()) for one in explanations],
        "layers": [[_layer_row(layer) for layer in one.layers] for one in explanations],
        "information": [None if one.information is None else _json(one.information) for one in explanations],
        "details": [_details(one, common) for one in explanations],
    }


def to_table(columns: Mapping[str, Sequence[Any]]) -> Any:
    """The pyarrow.Table of the columns of `schema`."""
    import pyarrow as pa

    wanted = schema()
    arrays = [pa.array(columns[field.name], field.type) for field in wanted]
    return pa.Table.from_arrays(arrays, schema=wanted)


def common_info(explanation: Explanation) -> dict[str, Any]:
    """The entries of `info` that all explanations of a run share; they are stored once."""
    encoded: dict[str, Any] = encode({key: explanation.info[key] for key in _OF_RUN if key in explanation.info})
    return encoded


def from_row(row: Mapping[str, Any], info: Mapping[str, Any]) -> Explanation:
    """The explanation of one row.

    Args:
        row: the values of the columns of `schema`.
        info: what `common_info` gave when the row was written.
    """
    details = json.loads(row["details"]) if row["details"] else {}
    target_field = {} if row["target_call"] is None else {"target": row["target_call"]}
    return Explanation(
        tokens=tuple(row["tokens"]),
        scores=torch.tensor(row["scores"], dtype=torch.float32),
        target=row["target"],
        target_name=row["target_name"],
        probability=row["probability"],
        texts=tuple(text for text in (row["text"], row["text_pair"]) if text is not None),
        offsets=_tuples(row["offsets"]),
        sequence_ids=_tuple(row["sequence_ids"]),
        word_ids=_tuple(row["word_ids"]),
        special=tuple(row["special"]),
        layers=tuple(map(_layer_of, row["layers"] or ())),
        completeness_gap=row["completeness_gap"],
        information=None if row["information"] is None else decode(json.loads(row["information"])),
        info={
            **decode(info),
            **decode(details.get("info", {})),
            **target_field,
            "warnings": list(row["warnings"] or ()),
        },
        **{
            name: read_field(Explanation, name, decode(value), saved=True)
            for name, value in details.get("fields", {}).items()
        },
    )


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _tuples(values: Sequence[Sequence[Any]] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(map(tuple, values))


def _details(one: Explanation, common: Mapping[str, Any]) -> str | None:
    """JSON of the facts that have no column; None without any."""
    fields = {name: encode(value) for name in _RARE if (value := getattr(one, name)) is not None}
    own_info = {key: encode(value) for key, value in one.info.items() if key not in _COLUMNS}
    info = {key: value for key, value in own_info.items() if key not in common or common[key] != value}
    details = {name: value for name, value in (("fields", fields), ("info", info)) if value}
    return json.dumps(details, allow_nan=False) if details else None


def _json(value: object) -> str:
    return json.dumps(encode(value), allow_nan=False)


def _layer_row(layer: LayerAttention) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(layer, name) for name in ("layer", "name", "kind", "n", "head_dim")}
    for name in _LAYER_TENSORS:
        value = getattr(layer, name)
        row[name] = None if value is None else value.tolist()
    return row


def _layer_of(row: Mapping[str, Any]) -> LayerAttention:
    fields = dict(row)
    for name in _LAYER_TENSORS:
        dtype = torch.int64 if name == "rank" else torch.float32
        fields[name] = None if row[name] is None else torch.tensor(row[name], dtype=dtype)
    return LayerAttention(**fields)
