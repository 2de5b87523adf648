"""`hf-attn-mi models`: the model types that were checked."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Annotated

import typer

from hf_attn_mi.cli.exit_codes import DONE
from hf_attn_mi.cli.output import show


def models(
    every: Annotated[
        bool, typer.Option("--all", help="Also show types that are refused or were not built, with the reason.")
    ] = False,
) -> int:
    """List the model types that were checked."""
    rows = json.loads((files("hf_attn_mi") / "supported_models.json").read_text(encoding="utf-8"))
    lines = [
        f"{row['model_type']:<28} {row['task']:<10} {row['kind']:<16} {row['verdict']}"
        for row in rows
        if every or row["verdict"].startswith("exact")
    ]
    show("\n".join(lines))
    return DONE
