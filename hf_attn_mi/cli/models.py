"""`hf-attn-mi models`: the model types that were checked."""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from typing import Any

from hf_attn_mi.cli.arguments import add_command
from hf_attn_mi.cli.exit_codes import DONE
from hf_attn_mi.cli.output import show


def add_models(commands: Any) -> None:
    """Add the command to the parser's `commands`."""
    parser = add_command(commands, "models", "print what is supported", "Model types that were checked.")
    parser.set_defaults(run=_run)
    parser.add_argument("--all", action="store_true", help="also types that are refused or were not built, and why")


def _run(options: argparse.Namespace) -> int:
    rows = json.loads((files("hf_attn_mi") / "supported_models.json").read_text(encoding="utf-8"))
    for row in rows:
        if options.all or row["verdict"].startswith("exact"):
            show(f"{row['model_type']:<28} {row['task']:<10} {row['kind']:<16} {row['verdict']}")
    return DONE
