"""Run the notebooks of examples/notebooks and store their outputs, or check that they still give these outputs.

    python scripts/run_notebooks.py            # run all and store the outputs
    python scripts/run_notebooks.py --check    # run all; compare with the stored outputs, numbers left out

They run without a network, on the embedded model, each in a kernel and a folder of its own. Needs nbclient and
ipykernel, which are in the extra `test`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "notebooks"
NUMBER = re.compile(r"[-+−]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def run(path: Path) -> Any:
    """The notebook with fresh outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised an exception.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata = nbformat.NotebookNode()
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def shape(notebook: Any) -> list[Any]:
    """What must stay the same: of every cell its source, the kinds of its outputs, and their text without numbers."""
    return [
        (
            cell.source,
            [(output.output_type, sorted(output.get("data", {})), _text(output)) for output in cell.get("outputs", [])],
        )
        for cell in notebook.cells
    ]


def _text(output: Any) -> str:
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return re.sub(r"\s+", " ", NUMBER.sub("#", text))


def main() -> int:
    """Run every notebook; the exit status is 1 where one differs from what is stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the stored outputs and write nothing")
    check = parser.parse_args().check
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # a warning of tqdm in a kernel without widgets
    os.environ |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    differ = []
    for path in sorted(FOLDER.glob("*.ipynb")):
        started = time.perf_counter()
        notebook = run(path)
        if not check:
            nbformat.write(notebook, path)
        elif shape(notebook) != shape(nbformat.read(path, as_version=4)):
            stored = shape(nbformat.read(path, as_version=4))
            first = next(i for i, (new, old) in enumerate(zip(shape(notebook), stored)) if new != old)
            print(f"{path.name}, cell {first}:\n  now    {shape(notebook)[first][1]}\n  stored {stored[first][1]}")
            differ.append(path.name)
        print(f"{path.name}: {time.perf_counter() - started:.1f} s, {path.stat().st_size // 1000} kB")
    if differ:
        print(f"differ from what is stored: {', '.join(differ)}; run scripts/run_notebooks.py", file=sys.stderr)
    return int(bool(differ))


if __name__ == "__main__":
    raise SystemExit(main())
