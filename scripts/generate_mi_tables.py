"""Write the tables of docs/methods/mutual_information_accuracy.md from the results of the benchmark of accuracy.

python scripts/generate_mi_tables.py
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.common import ROOT, Row, read_rows

RESULTS = ROOT / "benchmarks" / "accuracy" / "results" / "mutual_information.jsonl"
PAGE = ROOT / "docs" / "methods" / "mutual_information_accuracy.md"
ESTIMATORS = ("auto", "gaussian", "probe", "ksg", "ksg_pca")


def families(rows: list[Row]) -> list[str]:
    """Return one line for each family: errors of each estimator, tau and coverage of auto."""
    by_family: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.get("part") == "families":
            family, _, estimator = row["name"].removeprefix("mi/").rpartition("/")
            by_family.setdefault(family, {})[estimator] = row
    head = ["family", "kind", *ESTIMATORS, "worst of auto", "tau of auto", "tau of its noise"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for family, results in by_family.items():
        auto = results["auto"]
        errors = [f"{results[name]['ours']:.3f}" if name in results else "" for name in ESTIMATORS]
        errors[0] = f"**{errors[0]}**"
        cells = [family, auto["kind"], *errors, f"{auto['worst']:.3f}", f"{auto['tau']:.2f}"]
        cells.append(f"{auto['tau_of_noise']:.2f}" if "tau_of_noise" in auto else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def others(rows: list[Row]) -> list[str]:
    """Return one line for each row of the other parts; of peers only the worst family."""
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
    """Replace the text between the markers of the page."""
    rows = read_rows(RESULTS)
    page = PAGE.read_text(encoding="utf-8")
    for mark, lines in (("families", families(rows)), ("others", others(rows))):
        start, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
        before, rest = page.split(start)
        after = rest.split(end)[1]
        page = f"{before}{start}\n" + "\n".join(lines) + f"\n{end}{after}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
