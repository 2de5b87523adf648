"""Tuples that are taken as they are give what reading each of their entries gives."""

import pytest

from hf_attn_mi.results import codec


class Name(str):
    """A subclass of str, which becomes the plain type."""


ANNOTATIONS = (
    tuple[int, ...],
    tuple[int | None, ...],
    tuple[str, ...],
    tuple[float, ...],
    tuple[float | None, ...],
    tuple[bool, ...],
    tuple[tuple[int, int], ...],
    tuple[tuple[str, ...], ...],
)
VALUES = (
    [],
    [1, 2],
    [True, False],
    [1, None, 3],
    [0.5, 2.0],
    [0.5, None],
    [0, 1.5],
    ["a", "b"],
    [Name("a")],
    [2**63 - 1, -(2**63)],
    [2**63],
    [(0, 1), (2, 3)],
    [(0, 2**63)],
    [[0, 1], (2, 3)],
    [(0, 1), (2, 3, 4)],
    [("a",), ("b", "c")],
)


def outcome(reader, values):
    try:
        result = reader(values)
    except codec.MismatchError as error:
        return str(error)
    return result, [type(item) for item in result], [type(x) for item in result if type(item) is tuple for x in item]


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=str)
def test_values_and_errors_are_those_of_reading_every_entry(annotation, monkeypatch):
    fast = [outcome(codec._reader(annotation, False), values) for values in VALUES]
    monkeypatch.setattr(codec, "_is_exact", lambda values, exact: False)
    assert fast == [outcome(codec._reader(annotation, False), values) for values in VALUES]


def test_entries_of_plain_types_are_not_read_one_by_one(monkeypatch):
    calls = []
    monkeypatch.setitem(codec._PLAIN, int, lambda value: calls.append(value) or value)
    values = tuple((i, i + 1) for i in range(100))
    assert codec._reader(tuple[tuple[int, int], ...], False)(values) == values
    assert calls == []
