"""Triton kernels are compiled for GPUs that are not there: what the page states comes from these programs."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "methods" / "kernel_figures.md"
SCRIPT = ROOT / "scripts" / "generate_kernel_resources.py"


def kernels():
    for path in sorted((ROOT / "hf_attn_mi" / "kernels").rglob("triton.py")):
        yield from re.findall(r"^def (\w+_kernel)\(", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_has_a_row_of_every_kernel():
    stated = re.findall(r"^\|[^|]*\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(stated) == set(kernels())
    assert len(set(stated)) > 4


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton (extra `gpu`) is not installed")
@pytest.mark.skipif(sys.platform != "linux", reason="ptxas comes with Triton for Linux")
def test_a_kernel_is_compiled_without_a_device():
    # A fresh interpreter: the other tests run the kernels in Triton's own interpreter, which is chosen at import.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--check", "--only", "probe"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    (row,) = re.findall(r"^\| probe_information.*$", done.stdout, re.MULTILINE)
    _, kernel, warps, *cells = (cell.strip() for cell in row.strip("|").split("|"))
    assert (kernel, warps) == ("`_probe_kernel`", "4")
    registers, shared = [int(cells[i]) for i in (0, 3)], [float(cells[i]) for i in (1, 4)]
    assert all(16 <= count <= 255 for count in registers)
    # a tile of 64 x 32 states and one of 16 x 32 directions in float32 take 10 KiB at least
    assert all(8 <= size <= 163 for size in shared)
