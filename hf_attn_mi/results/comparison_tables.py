"""A comparison as a table for a terminal, and in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from hf_attn_mi.evaluation import METRICS, Estimate
from hf_attn_mi.results.comparison_verdict import (
    bracket,
    gain,
    leaders,
    number,
    recommendation,
    small,
    times,
    with_interval,
)

WIDE = 118  # columns of a terminal
BOLD_MEANS = (
    "Bold: the best mean of a column, and every method it is not shown to beat (p < 0.05 after Holm's correction). "
    "Brackets: 95 % intervals over inputs. Passes are sequences, mean over inputs."
)


def header(made: Any) -> list[str]:
    """Return the names of the columns of the main table."""
    metrics = [f"{name} ({'higher' if METRICS[name].higher else 'lower'} is better)" for name in made.metrics]
    return ["method", *metrics, "seconds", "forwards", "backwards"]


def rows(made: Any) -> list[list[str]]:
    """Return the cells of the main table, a method a row."""
    return [
        [m, *(cell(made.table[m][name], made.inputs) for name in made.metrics), *costs(made, m)] for m in made.methods
    ]


def cell(found: Estimate, inputs: int) -> str:
    """Return mean and interval, and the number of inputs where it is not all of them."""
    return with_interval(found) + (f" (n={found.inputs})" if found.inputs != inputs else "")


def costs(made: Any, method: str) -> list[str]:
    """Return seconds, forwards and backwards an input."""
    cost = made.costs.get(method)
    return ["-"] * 3 if cost is None else [f"{cost.seconds:.2g}", times(cost.forwards), times(cost.backwards)]


def differences(made: Any, metric: str) -> list[list[str]]:
    """Return a row for each pair of methods: who, by how much the first is better, p, p adjusted."""
    found = []
    for test in made.tests[metric]:
        mean, interval = gain(test, metric, test.first)
        better = f"{number(mean)}{bracket(interval)}"
        count = str(test.difference.inputs)
        found.append([f"{test.first} - {test.second}", better, small(test.p_value), small(test.adjusted), count])
    return found


def correlations(made: Any) -> list[list[str]]:
    """Return the rows of the rank-correlation matrix."""
    matrix = made.agreement
    return [[name, *(number(found.mean) for found in row)] for name, row in zip(matrix.methods, matrix.tau)]


def ahead(made: Any) -> dict[str, set[str]]:
    """Return for each metric the methods in bold."""
    return {name: set(leaders(made, name)) for name in made.metrics}


def terminal(made: Any) -> str:
    """Return the main table in columns of equal width, in blocks that a terminal can hold; failures; recommendation."""
    names = [f"{name} ({'higher' if METRICS[name].higher else 'lower'})" for name in made.metrics]
    lines = [["method", *names, "seconds", "forwards", "backwards"], *rows(made)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    blocks, used = [[0]], widths[0]
    for i in range(1, len(widths)):
        used += 2 + widths[i]
        if used > WIDE and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0] + 2 + widths[i]
        blocks[-1].append(i)
    text: list[str] = []
    for block in blocks:
        text += ["  ".join(line[i].ljust(widths[i]) for i in block).rstrip() for line in lines] + [""]
    text += [f"failed: {name}: {reason}" for name, reason in made.failures.items()]
    text += [f"note: {note}" for note in made.info.get("warnings", ())]
    text += [""] * bool(text[-1]) + textwrap.wrap(recommendation(made), WIDE)
    # Names and reasons come from outside and must not steer the terminal.
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in text)


def markdown(made: Any) -> str:
    """Return recommendation, main table, failures, paired differences and rank correlations."""
    bold = ahead(made)
    marked = [
        [_safe(line[0]), *(f"**{x}**" if line[0] in bold[m] else x for m, x in zip(made.metrics, line[1:])), *line[-3:]]
        for line in rows(made)
    ]
    parts = [f"**Recommendation.** {_safe(recommendation(made))}", _table(header(made), marked), BOLD_MEANS]
    told = [f"- failed: {_safe(name)}: {_safe(reason)}" for name, reason in made.failures.items()]
    told += [f"- note: {_safe(note)}" for note in made.info.get("warnings", ())]
    parts += ["\n".join(told)] if told else []
    for metric in made.metrics:
        found = differences(made, metric)
        if found:
            caption = f"{metric}: by how much the first method is better (negative: worse), on the same inputs."
            parts += [
                caption,
                _table(["pair", "better by", "p", "p adjusted", "inputs"], [_safe_row(x) for x in found]),
            ]
    if made.agreement.methods:
        names = [_safe(name) for name in made.agreement.methods]
        parts += [
            "Rank correlation of the scores (tau-b).",
            _table(["", *names], [_safe_row(x) for x in correlations(made)]),
        ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def _safe_row(line: Sequence[str]) -> list[str]:
    return [_safe(line[0]), *line[1:]]


def _safe(text: str) -> str:
    """Names and reasons come from outside: what would break a table or start a tag is escaped."""
    flat = " ".join(text.split())
    for sign in ("\\", "|", "<", "`", "*"):
        flat = flat.replace(sign, f"\\{sign}" if sign != "<" else "&lt;")
    return flat
