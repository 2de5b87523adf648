"""The data of a report's page: plain JSON, which the script of the page reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hf_attn_mi.evaluation.rank_correlation import rank_correlations
from hf_attn_mi.results.attention_subgraph import AttentionSubgraph
from hf_attn_mi.results.certificate import Certificate, OutputChange
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.layer_attention import LayerAttention, identifiability
from hf_attn_mi.results.report_parts import AttentionDetail, HeadDetail
from hf_attn_mi.results.token_set import TokenSet
from hf_attn_mi.results.words import split_text

if TYPE_CHECKING:
    from hf_attn_mi.results.report import Report, ReportItem

DIGITS = 6  # significant digits of a number on the page
MOST_EDGES = 400  # attention weights of a set on the page, those of the largest contribution; more cannot be told apart
FEW_TOKENS = 2  # with fewer ordinary tokens there is no rank agreement


def page_data(report: Report) -> dict[str, Any]:
    """Return everything that the page shows, as strict JSON."""
    comparison = report.comparison
    return {
        "title": report._title(),
        "items": [_item(item) for item in report.items],
        "second": None if report.second is None else page_data(report.second),
        "comparison": None
        if comparison is None
        else {
            "recommendation": comparison.recommendation,
            "recommended": comparison.recommended,
            "metric": comparison.deciding,
            "inputs": comparison.inputs,
        },
        "info": {
            name: value
            for name, value in _plain(report.info).items()
            if isinstance(value, str | int | float | list) and name != "warnings"
        },
        "versions": _plain(report.info.get("versions", {})),
        "warnings": _plain(report.info.get("warnings", ())),
    }


def _item(item: ReportItem) -> dict[str, Any]:
    explanation = item.explanation
    words = explanation.to_words()
    prediction = item.prediction
    return {
        "texts": list(explanation.texts),
        "tokens": list(explanation.tokens),
        "special": [place for place, special in enumerate(explanation.special) if special],
        "words": [[word.text.strip(), *word.tokens] for word in words],
        "media": _media(explanation),
        "pieces": _pieces(explanation, [(i, word.sequence, word.start, word.end) for i, word in enumerate(words)]),
        "tokenPieces": _token_pieces(explanation),
        "sentence": {
            "target": explanation.target_name,
            "probability": _number(explanation.probability),
            "classLinked": bool(explanation.info.get("class_linked", True)),
            "method": str(explanation.info.get("method", "")),
            "because": [words.index(word) for word in item.because],
        },
        "anchors": list(item.anchors),
        "label": item.label,
        "prediction": None if prediction is None else prediction.name,
        "correct": item.correct,
        "classes": [[one.target, one.name, _number(one.probability), _number(one.value)] for one in item.classes],
        "explanations": [_explanation(one, item) for one in (*item.explanations, *item.methods)],
        "agreement": _agreement(item),
        "tokenSet": None if item.token_set is None else _token_set(item.token_set),
        "certificate": None if item.certificate is None else _certificate(item.certificate),
        "subgraph": None if item.subgraph is None else _subgraph(item.subgraph, explanation),
        "layers": [_layer(layer) for layer in explanation.layers],
        "identifiability": identifiability(explanation.layers) if explanation.layers else "",
        "attention": None if item.attention is None else _attention(item.attention),
        "information": _information(explanation.information),
        "notes": dict(item.notes),
    }


def _media(explanation: Explanation) -> dict[str, Any] | None:
    """The image or the recording of an explanation, and where each token lies in it; None for texts."""
    picture, sound, grid = explanation.picture, explanation.sound, explanation.grid
    if grid is None and sound is None:
        return None
    data: dict[str, Any] = {"grid": None if grid is None else list(grid)}
    if picture is not None:
        data |= {"uri": picture.uri, "height": picture.height, "width": picture.width}
    if sound is not None:
        data |= {
            "duration": _number(sound.duration),
            "seconds": [[_number(x, 5) for x in pair] for pair in sound.seconds.tolist()],
            "envelope": [[_number(x, 3) for x in pair] for pair in sound.envelope.tolist()],
        }
    return data


def _pieces(explanation: Explanation, spans: Sequence[tuple[int, int | None, int | None, int | None]]) -> list[Any]:
    """For each text its pieces: [text, number of the word or token], and plain strings between them.

    Args:
        explanation: the explanation, including the texts.
        spans: number, text, start and end of each word or token; what has no place in a text comes in one more row.
    """
    texts: list[list[tuple[int, int, float, str]]] = [[] for _ in explanation.texts]
    outside: list[Any] = []
    for number, sequence, start, end in spans:
        if sequence is None or start is None or end is None or sequence >= len(texts):
            outside.append(["", number])
        else:
            texts[sequence].append((start, end, float(number), ""))
    rows = []
    if explanation.offsets is not None:
        for text, words in zip(explanation.texts, texts):
            pieces = split_text(text, words)
            rows.append([piece.text if piece.score is None else [piece.text, int(piece.score)] for piece in pieces])
    return [*rows, outside] if outside else rows


def _token_pieces(explanation: Explanation) -> list[Any]:
    spans: list[tuple[int, int | None, int | None, int | None]] = []
    for index in explanation._ordinary():
        sequence = explanation._sequence(index)
        if explanation.offsets is None or sequence is None:
            spans.append((index, None, None, None))
        else:
            spans.append((index, sequence, *explanation.offsets[index]))
    return _pieces(explanation, spans)


def _explanation(one: Explanation, item: ReportItem) -> dict[str, Any]:
    value = next((output.value for output in item.classes if output.target == one.target), None)
    if any(one is same for same in (item.explanation, *item.methods)) and item.value is not None:
        value = item.value
    return {
        "target": one.target,
        "name": one.target_name,
        "method": str(one.info.get("method", "")),
        "probability": _number(one.probability),
        "classLinked": bool(one.info.get("class_linked", True)),
        "additive": bool(one.info.get("additive", True)) and one.completeness_gap is not None,
        "scores": [_number(score) for score in one.scores.tolist()],
        "wordScores": [_number(word.score) for word in one.to_words()],
        "value": _number(value),
        "gap": _number(one.completeness_gap),
        "reference": str(one.info.get("reference", "")),
        "warnings": list(one.info.get("warnings", ())),
    }


def _agreement(item: ReportItem) -> list[float | None] | None:
    """Kendall's tau-b of the target's explanation with itself and each further method; None without methods."""
    together = (item.explanation, *item.methods)
    ordinary = [place for place, special in enumerate(item.explanation.special) if not special]
    if not item.methods or len(ordinary) < FEW_TOKENS:
        return None
    scores = torch.stack([one.scores[ordinary].double() for one in together])
    tau, _ = rank_correlations(scores[0], scores)
    return [_number(x) for x in tau.tolist()]


def _token_set(token_set: TokenSet) -> dict[str, Any]:
    return {
        "outcome": token_set.outcome,
        "indices": list(token_set.indices),
        "words": [word.text for word in token_set.words],
        "total": len(token_set.indices) + len(token_set.rest),
        "target": token_set.target_name,
        "pAll": _number(token_set.p_all),
        "pSet": _number(token_set.p_set),
        "pRest": _number(token_set.p_rest),
        "pSpecial": _number(token_set.p_special),
        "keep": token_set.keep,
        "strict": token_set.strict,
        "reason": token_set.reason,
        "jaccard": _number(token_set.jaccard),
        "sequences": token_set.sequences,
        "singles": [
            [one.index, one.text, _number(one.p_set), _number(one.p_rest), one.fails] for one in token_set.singles
        ],
    }


def _certificate(certificate: Certificate) -> dict[str, Any]:
    layers = certificate.layers
    rows, changed = sum(layer.rows for layer in layers), sum(layer.changed for layer in layers)
    return {
        "outcome": certificate.outcome,
        "reasons": list(certificate.reasons),
        "form": certificate.form,
        "output": certificate.output,
        "rows": rows,
        "changed": changed,
        "heads": sum(layer.heads for layer in layers),
        "modules": len(layers),
        "support": _number(sum(layer.support_mean * layer.rows for layer in layers) / max(1, rows)),
        "keys": max(layer.keys for layer in layers),
        "dropped": _number(sum(layer.dropped * layer.rows for layer in layers) / max(1, rows)),
        "change": _change(certificate.change),
        "rounding": certificate.rounding,
        "necessity": _number(certificate.necessity),
        "checked": certificate.checked,
        "checkedKeys": certificate.checked_keys,
        "controls": [
            [name, None if change is None else _change(change)] for name, change in certificate.controls.items()
        ],
        "notes": list(certificate.notes),
    }


def _change(change: OutputChange) -> dict[str, Any]:
    return {
        "relative": _number(change.relative),
        "probability": _number(change.probability),
        "kept": change.kept,
    }


def _subgraph(subgraph: AttentionSubgraph, explanation: Explanation) -> dict[str, Any]:
    """The weights of the set; `place` of a module is its place in `Explanation.layers`, None if it has none."""
    removals = {removal.unit: removal for removal in subgraph.singles}
    family = subgraph.family
    modules: list[dict[str, Any]] = []
    for module in subgraph.attention:
        same = [i for i, layer in enumerate(explanation.layers) if layer.name == module.name]
        place = same[module.repeat] if module.repeat < len(same) else None
        modules.append({"layer": module.layer, "name": module.name, "place": place})
    edges = []
    weights = [number for number, unit in enumerate(subgraph.units) if unit.query is not None]
    largest = sorted(weights, key=lambda number: -abs(subgraph.units[number].contribution))[:MOST_EDGES]
    for number in sorted(largest):
        edge = subgraph.units[number]
        assert edge.query is not None
        removal = removals.get(number)
        edges.append(
            {
                "call": edge.call,
                "head": edge.head,
                "query": edge.query,
                "key": edge.key,
                "weight": _number(edge.weight),
                "contribution": _number(edge.contribution),
                "pSet": None if removal is None else _number(removal.p_set),
                "pRest": None if removal is None else _number(removal.p_rest),
                "fails": None if removal is None else removal.fails,
                "member": _number(
                    family.edges.get((edge.call or 0, edge.head or 0, edge.query, edge.key or 0), 1.0), 3
                ),
            }
        )
    return {
        "outcome": subgraph.outcome,
        "total": subgraph.edge_count,
        "size": len(weights),
        "target": subgraph.target_name,
        "pAll": _number(subgraph.p_all),
        "pSet": _number(subgraph.p_set),
        "pRest": _number(subgraph.p_rest),
        "pNone": _number(subgraph.p_none),
        "keep": subgraph.keep,
        "strict": subgraph.strict,
        "removal": subgraph.removal,
        "reason": subgraph.reason,
        "modules": modules,
        "edges": edges,
        "sets": len(family.sets),
        "core": len(family.core),
        "removals": [[one.removal, _number(one.p_set), _number(one.p_rest), one.stands] for one in subgraph.removals],
    }


def _layer(layer: LayerAttention) -> dict[str, Any]:
    fraction = layer.null_space_fraction
    return {
        "layer": layer.layer,
        "name": layer.name,
        "n": layer.n,
        "dim": layer.head_dim,
        "rank": layer.rank.tolist(),
        "invisible": None if fraction is None else [_number(x, 4) for x in fraction.tolist()],
        "entropy": [_number(x, 4) for x in layer.entropy.tolist()],
    }


def _attention(detail: AttentionDetail) -> dict[str, Any]:
    links = detail.links
    return {
        "heads": [_head(head) for head in detail.heads],
        "keys": [_pairs(*row) for row in zip(links.keys, links.key_weights)],
        "queries": [_pairs(*row) for row in zip(links.queries, links.query_weights)],
        "leftOut": detail.left_out,
        "contributionNote": detail.contribution_note,
    }


def _pairs(places: Tensor, weights: Tensor) -> list[list[Any]]:
    return [[place, _number(weight, 3)] for place, weight in zip(places.tolist(), weights.tolist())]


def _head(head: HeadDetail) -> dict[str, Any]:
    data: dict[str, Any] = {"layer": head.layer, "head": head.head}
    if head.contribution is not None:
        data |= {"contribution": _number(head.contribution), "query": head.query}
    if head.intervals:
        data["intervals"] = [
            [one.key, _number(one.weight), _number(one.low), _number(one.high)] for one in head.intervals
        ]
    if head.rows:
        whole = len(head.rows) > 1
        data |= {
            "rows": None if whole else list(head.rows),
            "scale": _number(head.scale),
            "support": list(head.support),
        }
        data |= {"raw": head.raw, "effective": head.effective, "efficient": head.efficient}
    return data


def _information(information: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if information is None or not information.get("layers"):
        return None
    layers = [
        {
            "layer": layer["layer"],
            "kl": [_number(x, 4) for x in layer["kl"]],
            "mi": {
                name: [
                    _number(x, 4)
                    for x in (site["nats"], *site["interval"], site.get("lower_bound"), site.get("upper_bound"))
                ]
                for name, site in layer.get("mi", {}).items()
            },
        }
        for layer in information["layers"]
    ]
    return {"ceiling": _number(information.get("ceiling")), "n": information.get("n"), "layers": layers}


def _number(value: float | None, digits: int = DIGITS) -> float | None:
    """The number with some significant digits; None if there is none, or JSON cannot represent it."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def _plain(value: Any) -> Any:
    """Frozen data as dictionaries and lists; numbers that JSON lacks become None."""
    if hasattr(value, "items"):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
