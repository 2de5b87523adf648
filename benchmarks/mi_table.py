"""Writes the tables of docs/methods/mutual_information.md from benchmarks/results/mi.jsonl.

python benchmarks/mi_table.py
"""

from __future__ import annotations

import json
from typing import Any

from measuring import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "mi.jsonl"
PAGE = ROOT / "docs" / "methods" / "mutual_information.md"
ESTIMATORS = ("auto", "gaussian", "probe", "ksg", "ksg_pca")


def families(rows: list[dict[str, Any]]) -> list[str]:
    """One line a family: errors of each estimator, tau and coverage of auto."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row.get("part") == "families":
            _, family, estimator = row["name"].split("/", 2) if row["name"].count("/") == 2 else _odd(row["name"])
            found.setdefault(family, {})[estimator] = row
    head = ["family", "kind", *ESTIMATORS, "worst of auto", "tau of auto", "tau of its noise"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for family, of in found.items():
        auto = of["auto"]
        errors = [f"{of[name]['ours']:.3f}" if name in of else "" for name in ESTIMATORS]
        errors[0] = f"**{errors[0]}**"
        cells = [family, auto["kind"], *errors, f"{auto['worst']:.3f}", f"{auto['tau']:.2f}"]
        cells.append(f"{auto['tau_of_noise']:.2f}" if "tau_of_noise" in auto else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _odd(name: str) -> tuple[str, str, str]:
    """A family may have a slash in its name."""
    head, rest = name.split("/", 1)
    family, estimator = rest.rsplit("/", 1)
    return head, family, estimator


def others(rows: list[dict[str, Any]]) -> list[str]:
    """One line a row of the other parts, peers by their worst family only."""
    lines = ["| what | figure | target | |", "|---|---:|---|---|"]
    for row in rows:
        skip = row.get("part") == "families" or (row.get("part") == "peers" and "worst" not in row["name"])
        if skip or "ours" not in row:
            continue
        verdict = {None: "", True: "met", False: "missed"}[row["met"]]
        name = row["name"].removeprefix("mi/")
        lines.append(f"| {name} | {row['ours']:.3g} {row['unit']} | {row['target'] or ''} | {verdict} |")
    return lines


def main() -> None:
    """Replace what stands between the marks."""
    rows = [json.loads(text) for text in RESULTS.read_text(encoding="utf-8").splitlines()]
    page = PAGE.read_text(encoding="utf-8")
    for mark, lines in (("families", families(rows)), ("others", others(rows))):
        start, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
        before, rest = page.split(start)
        after = rest.split(end)[1]
        page = f"{before}{start}\n" + "\n".join(lines) + f"\n{end}{after}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
