"""What the tests of the command line share."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

from hf_attn_mi.cli import main

ROOT = Path(__file__).parents[2]


def command(*arguments, stdin="", **environment):
    """Run the command in a process of its own; its standard streams are no terminals."""
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-m", "hf_attn_mi", *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **settings, **environment},
        timeout=120,
        check=False,
    )


def refused(capsys, *arguments):
    """The one line of a command that ends with status 2 and prints nothing else."""
    assert main(list(arguments)) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("hf-attn-mi: ")
    assert output.err.count("\n") == 1
    assert "Traceback" not in output.err
    return output.err


def marked(tmp_path, *rows):
    """The name of a file with these rows."""
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)
