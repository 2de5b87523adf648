"""The notebooks of examples/notebooks: executed, small, and without a trace of the machine that ran them.

`.ci/run` executes them again and compares (scripts/run_notebooks.py --check).
"""

import ast
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 400_000
PATH = re.compile(r"(?<![\w.:/])/(?:[a-z_]+/)+[\w.]+|\\\\Users\\\\|file://")  # of a file system; web addresses are none
DISPLAYED = ("text/html", "image/png")


def cells(path, kind="code"):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def outputs(path):
    return [output for cell in cells(path) for output in cell["outputs"]]


def test_there_is_one_for_each_subject():
    assert [path.stem for path in NOTEBOOKS] == [
        "1_first_steps",
        "2_attention",
        "3_certificates_and_subgraph",
        "4_comparing_methods",
        "5_information",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_was_run_from_top_to_bottom_without_an_error(path):
    assert [cell["execution_count"] for cell in cells(path)] == list(range(1, len(cells(path)) + 1))
    assert not [output for output in outputs(path) if output["output_type"] == "error"]
    assert not [output for output in outputs(path) if output.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_small_and_names_no_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    shown = re.sub(r'"image/png": "[^"]*"', "", text)
    assert PATH.findall(re.sub(r"</?\w+[^>]*>", "", shown)) == []
    assert json.loads(text)["metadata"].keys() == {"kernelspec", "language_info"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_results_display_as_tables_and_pictures(path):
    found = [kind for output in outputs(path) for kind in output.get("data", {})]
    assert {kind for kind in found if kind in DISPLAYED} == set(DISPLAYED)
    for cell in cells(path):
        last = ast.parse("".join(cell["source"])).body[-1]
        if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
            name = getattr(last.value.func, "attr", "")
            kinds = [kind for output in cell["outputs"] for kind in output.get("data", {})]
            assert name != "plot" or "image/png" in kinds, f"{path.stem}: a figure was not displayed"
