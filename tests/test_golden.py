"""The numbers of version 0.1.0, recorded before the restructuring; tests/golden/README.md says what and how."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.golden import cases, comparing, storage

GOLDEN, WIDER = storage.load(Path(__file__).parent / "golden" / "golden.npz")
NAMES = [(group, case) for group, records in GOLDEN.items() for case in records]


@cache
def produced(group: str) -> dict[str, dict[str, Any]]:
    """What this version says; one run for all cases of the group."""
    return cases.GROUPS[group]()


@pytest.mark.parametrize(("group", "case"), NAMES, ids=[f"{group} - {case}" for group, case in NAMES])
def test_numbers_are_those_of_version_0_1(group, case):
    wrong = {
        field: f"{distance:.3g} times the tolerance"
        for field, distance in comparing.distances(
            GOLDEN[group][case], produced(group)[case], WIDER.get(group, {}).get(case)
        )
        if not distance <= 1
    }
    assert not wrong


def test_every_method_has_forty_inputs():
    for method in cases.TINY:
        assert len(GOLDEN[f"explain, {method}"]) >= 40
    assert len(GOLDEN["minimal_tokens"]) >= 40


def test_a_number_that_is_off_by_more_than_the_tolerance_is_seen():
    wanted = GOLDEN["explain, relevance"][next(iter(GOLDEN["explain, relevance"]))]
    scores = wanted["scores"].copy()
    scores[1] += 1.1 * comparing.RELATIVE * abs(scores).max()
    assert max(distance for _, distance in comparing.distances(wanted, {**wanted, "scores": scores})) > 1
    assert max(distance for _, distance in comparing.distances(wanted, {**wanted, "target": None})) == float("inf")
    assert max(distance for _, distance in comparing.distances(wanted, {})) == float("inf")
    assert all(distance == 0 for _, distance in comparing.distances(wanted, wanted))
