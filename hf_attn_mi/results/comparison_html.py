"""A comparison as one self-contained page."""

from __future__ import annotations

import html as escaping
from collections.abc import Sequence
from typing import Any

from hf_attn_mi.evaluation import METRICS, Estimate
from hf_attn_mi.results import comparison_tables as tables
from hf_attn_mi.results.comparison_verdict import recommendation
from hf_attn_mi.results.rendering import html_page

WIDTH, HEIGHT = 120, 14  # pixels of an interval


def html(made: Any) -> str:
    """Return the page: recommendation, main table with drawn intervals, failures, differences, rank correlations."""
    parts = [f"<p>{_escape(recommendation(made))}</p>", _main(made), f'<p class="m">{_escape(tables.BOLD_MEANS)}</p>']
    if made.failures:
        parts.append(_table(["failed", "why"], list(map(list, made.failures.items()))))
    parts += [f"<p>Note: {_escape(str(note))}</p>" for note in made.info.get("warnings", ())]
    for metric in made.metrics:
        found = tables.differences(made, metric)
        if found:
            head = ["first - second", "first is better by", "p", "p adjusted", "inputs"]
            parts.append(_folded(f"Pairs of methods: {METRICS[metric].title}", _table(head, found)))
    if made.agreement.methods:
        matrix = _table(["", *made.agreement.methods], tables.correlations(made))
        parts.append(_folded("Rank correlation of the scores (tau-b)", matrix))
    facts = [[name, str(value)] for name, value in made.info.items() if isinstance(value, str | int | float)]
    parts += [_folded("How it was made", _table(["", ""], facts))] if facts else []
    model = made.info.get("model")
    title = f"{made.inputs} inputs" + (f", {model}" if model else "") + ": which explanation to trust"
    return html_page([f'<section class="hf-attn-mi">{"".join(parts)}</section>'], title)


def _main(made: Any) -> str:
    bold, scales = tables.ahead(made), {name: _scale(made, name) for name in made.metrics}
    lines = []
    for method, texts in zip(made.methods, tables.rows(made)):
        cells = [f"<td>{_escape(method)}</td>"]
        for name, text in zip(made.metrics, texts[1:]):
            mark = "b" if method in bold[name] else "span"
            drawn = _interval(made.table[method][name], scales[name])
            cells.append(f'<td style="white-space:nowrap"><{mark}>{_escape(text)}</{mark}><br>{drawn}</td>')
        cells += [f"<td>{_escape(text)}</td>" for text in texts[-3:]]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{_escape(name)}</th>" for name in tables.header(made))
    return _scrolling(f"<table><tr>{head}</tr>{''.join(lines)}</table>")


def _scale(made: Any, metric: str) -> tuple[float, float]:
    """The least and the most that the intervals of a metric reach."""
    found = [made.table[name][metric] for name in made.methods]
    ends = [x for one in found if one.mean is not None for x in (one.interval or (one.mean, one.mean))]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _interval(found: Estimate, scale: tuple[float, float]) -> str:
    """A dot with its interval."""
    if found.mean is None:
        return ""
    low, high = found.interval or (found.mean, found.mean)
    start, middle, end = (
        round(4 + (WIDTH - 8) * (x - scale[0]) / ((scale[1] - scale[0]) or 1), 1) for x in (low, found.mean, high)
    )
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="presentation" stroke="currentColor" fill="currentColor">'
        f'<line x1="{start}" x2="{end}" y1="7" y2="7" stroke-width="2"/><circle cx="{middle}" cy="7" r="3"/></svg>'
    )


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{_escape(summary)}</summary>{content}</details>"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{_escape(name)}</th>" for name in head)
    rest = "".join(f"<tr>{''.join(f'<td>{_escape(x)}</td>' for x in line)}</tr>" for line in lines)
    return _scrolling(f"<table><tr>{first}</tr>{rest}</table>")


def _scrolling(table: str) -> str:
    """A wide table scrolls in a box of its own: it does not leave the page."""
    return f'<div style="overflow-x:auto">{table}</div>'


def _escape(text: str) -> str:
    """HTML-escaped; lone surrogates, which no file can hold, replaced."""
    return escaping.escape(text).encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")
