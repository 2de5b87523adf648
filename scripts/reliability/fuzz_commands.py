"""Random command lines for the fuzzer, with files that are right or damaged."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

from scripts.reliability import fuzz_inputs as draw

ROWS = b'{"text": "A quietly moving film.", "tokens": ["a", "film"], "rationale": [0, 1]}\n{"text": "dull"}\n'
TABLE = b"text,label\nA quietly moving film.,1\ndull,0\n"
METHODS = ("relevance", "attention", "random", "rollout", "rolout", "head")
VALUES: dict[str, tuple[str, ...]] = {  # right and nearly right values of options
    "--method": METHODS,
    "--methods": METHODS,
    "--ranking": METHODS,
    "--second-ranking": ("none", "random", "x"),
    "--metrics": ("sufficiency", "comprehensiveness", "all", "suficiency"),
    "--sites": ("tokens", "first", "positions", "token"),
    "--estimator": ("gaussian", "auto", "gausian"),
    "--layers": ("none", "summary", "full", "0", "1", "9"),
    "--form": ("efficient", "effective", "x"),
    "--removal": ("delete", "mask", "x"),
    "--target": ("LABEL_1", "0", "1", "9", "LABEL_2", "positive"),
    "--options": ("{}", '{"steps": 2}', "{", "[]", '{"random": {}}', '{"steps": NaN}'),
    "--rationales": ("rationale", "label"),
    "--model": ("none", "./none", "a/b/c", "/", ""),
    "--n": ("1", "2", "0", "-1"),
    "--limit": ("1", "3", "0"),
    "--permutations": ("1", "5", "0", "-3"),
    "--budget": ("2", "5", "0", "nan", "inf", "-1"),
    "--keep": ("0.9", "1", "0", "2", "nan"),
    "--tolerance": ("0", "0.5", "1", "-1", "nan"),
    "--checked-rows": ("1", "4", "0", "-1"),
    "--batch-size": ("1", "4", "0", "-1", "1.5"),
    "--seed": ("0", "1", "-1", "99999999999999999999"),
}
COMMANDS = {  # and how often each is drawn
    "explain": 30,
    "certify": 10,
    "minimal": 10,
    "subgraph": 6,
    "report": 5,
    "compare": 12,
    "mi": 12,
    "recheck": 3,
    "methods": 1,
    "models": 1,
    "explian": 1,
    "--version": 1,
    "--help": 1,
    "": 1,
}
OUTPUTS = ("--json", "--html", "--plot", "--save", "--markdown")


@cache
def options_of(command: str) -> tuple[tuple[str, bool], ...]:
    """The options of a command, and whether each takes a value."""
    import typer

    from hf_attn_mi.cli import app

    group: Any = typer.main.get_command(app)
    parameters = group.commands[command].params
    return tuple((option.opts[0], not option.is_flag) for option in parameters if option.opts[0].startswith("--"))


def data_file(rng: random.Random, folder: Path) -> str:
    """The name of a file with texts, which may be damaged, of another kind, or missing."""
    suffix = rng.choice(
        [".jsonl", ".json", ".csv", ".tsv", ".txt", ".arrow", ".parquet", ".jsonl.gz", ".csv.gz", "", ".xlsx"]
    )
    content = rng.choice([ROWS, TABLE, b"A quietly moving film.\ndull\n"]) * rng.choice([1, 2])
    path = folder / f"data{suffix}"
    if suffix == ".parquet" or suffix == ".arrow":
        content = table_file(suffix)
    if suffix.endswith(".gz"):
        import gzip

        content = gzip.compress(content, mtime=0)
    path.write_bytes(draw.damaged(rng, content) if rng.random() < 0.7 else content)
    return rng.choices([str(path), str(folder / "missing.csv"), str(folder), "none", "owner/none"], (12, 1, 1, 1, 1))[0]


@cache
def table_file(suffix: str) -> bytes:
    """The bytes of a table of two texts."""
    import io

    import pyarrow as pa
    from pyarrow import parquet

    table, file = pa.table({"text": ["A quietly moving film.", "dull"]}), io.BytesIO()
    if suffix == ".parquet":
        parquet.write_table(table, file)
    else:
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    return file.getvalue()


def commands(rng: random.Random, folder: Path) -> list[str]:
    """The arguments of a command line."""
    name = rng.choices(list(COMMANDS), weights=list(COMMANDS.values()))[0]
    line = [name]
    if name in ("explain", "certify", "minimal", "subgraph", "report"):
        line += [draw.text(rng) for _ in range(rng.choice([0, 1, 1, 2]))] or ["--file", data_file(rng, folder)]
    if name == "recheck":
        line += [data_file(rng, folder)]
    if name in ("subgraph", "report"):
        line += ["--budget", "5"] if name == "subgraph" else []
    if name in ("compare", "mi"):
        line += ["--data", data_file(rng, folder)] if rng.random() < 0.95 else []
        line += ["--limit", "4", "--permutations", "3"] if name == "mi" else ["--n", "2", "--methods", "random"]
    if name in ("explain", "certify", "minimal", "subgraph", "report", "compare", "mi", "recheck"):
        for _ in range(rng.choice([0, 1, 2, 4])):
            option, valued = rng.choice(options_of(name))
            if option in ("--data", "--help"):
                continue
            line.append(option)
            if valued:
                line.append(option_value(rng, option, folder))
    if rng.random() < 0.1:
        line.insert(rng.randrange(len(line) + 1), rng.choice(["--", "-", "--x", "-h", "\0", "\udcff", draw.text(rng)]))
    return ["explain", "--file", "none"] if "-" in line else line  # standard input is not ours


def option_value(rng: random.Random, option: str, folder: Path) -> str:
    """A value for an option."""
    if option in OUTPUTS:
        places = [
            folder / "a.json",
            folder / "a.html",
            folder / "a.png",
            folder / "none" / "a.json",
            folder,
            folder / ("n" * 300),
        ]
        return rng.choice([*map(str, places), "-", ""])
    if option in ("--file", "--profile"):
        return data_file(rng, folder)
    if rng.random() < 0.8 and option in VALUES:
        return rng.choice(VALUES[option])
    return draw.text(rng)
