"""The text of a run over a data set reads correctly for one and for many."""

from dataclasses import replace

import pytest

from hf_attn_mi.results import DatasetRun

ONE = DatasetRun("out", "1f2e", 1, 1, 1, 1, 1, 0.5, 2**20, 2**20, 1)


@pytest.mark.parametrize("many", [False, True])
def test_numbers_and_nouns_agree(many):
    changes = dict.fromkeys(("rows", "failed", "shards", "missing", "done", "processes"), 2000)
    run = replace(ONE, **changes) if many else ONE
    text = str(run)
    rows, shards, processes = ("2,000 rows", "2,000 shards", "2,000 processes") if many else (
        "1 row", "1 shard", "1 process"
    )  # fmt: skip
    assert f"{rows}, not complete" in text
    assert f"out: {shards}, 1.0 MiB. {shards} {'are' if many else 'is'} missing: run the same command again." in text
    assert f"{rows} in 0.5 s" in text
    assert f"rows/s in {processes};" in text
    assert f"{rows} failed; the reasons are in out/errors." in text
    dry = str(replace(run, dry_run=True))
    assert f"Dry run: {rows}" in dry
    assert f"To do: {shards}; {'2,000 are' if many else '1 is'} finished." in dry
    assert f"rows/s in {processes}, " in dry
