"""What the studies of this folder write: JSON lines, one for each finished piece, and where they were made."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON lines file; none where it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, line: dict[str, Any]) -> None:
    """Add one row in one write, so that two processes can share the file."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def machine() -> dict[str, Any]:
    """Return what the run was made on."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        rows = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((row.partition(":")[2].strip() for row in rows if row.startswith("model name")), name)
    return {"cpu": name, "cores": os.cpu_count(), "torch": torch.__version__, "python": platform.python_version()}
