"""Figures of identifiable weights: what is drawn is what was computed."""

import math

import pytest
import torch

from hf_attn_mi.attention import identifiable_weights
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.plots import plot_identifiable, plot_intervals

VALUES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.5, 0.4]], dtype=torch.double)
ROWS = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0], [0.0, 0.05, 0.0, 0.95, 0.0]], dtype=torch.double)


def drawn(axes):
    """(place, lower, upper) of each bar by its color's label."""
    return {
        bars.get_label().split(":")[0]: [
            (float(bar[0][0]), *sorted(float(y) for y in bar[:, 1])) for bar in bars.get_segments()
        ]
        for bars in axes.collections
    }


def test_bars_and_marks_carry_the_numbers():
    found = identifiable_weights(ROWS, VALUES, width=0.1)
    (axes,) = plot_intervals(found, row=(1,), names=["[CLS]", "a", "b$", "c", "[SEP]"]).axes
    bars = drawn(axes)
    kinds = {}
    for key in range(5):
        lower, upper = float(found.lower[1, key]), float(found.upper[1, key])
        wide = "forced, not identifiable" if lower > 1e-9 else "not identifiable"
        kind = "identifiable" if upper - lower <= 0.1 else wide
        kinds.setdefault(kind, []).append((float(key), lower, upper))
    assert {kind: bars[kind] for kind in kinds} == kinds
    own, efficient = axes.get_lines()
    assert list(own.get_ydata()) == ROWS[1].tolist()
    assert list(efficient.get_ydata()) == found.efficient[1].tolist()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["[CLS]", "a", r"b\$", "c", "[SEP]"]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert f"identifiable: {len(kinds['identifiable'])} of 5 weights" in labels


def test_only_the_largest_own_weights_where_there_are_many():
    found = identifiable_weights(ROWS, VALUES, keys=[4, 3, 0, 1])
    (axes,) = plot_intervals(found, most=2).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["3", "1"]  # .4 and .2 of .4, .3, .2, .1, 0
    assert list(axes.get_lines()[0].get_ydata()) == [0.4, 0.2]


def test_the_map_holds_the_shares():
    shares = torch.tensor([[1.0, 0.25, 0.5], [0.0, math.nan, 0.75]])
    axes, bar = plot_identifiable(shares).axes
    assert bar.get_ylabel() == "share of identifiable weights"
    (image,) = axes.get_images()
    drawn = image.get_array().filled(math.nan).tolist()
    assert drawn[0] == [1.0, 0.25, 0.5]
    assert [drawn[1][0], drawn[1][2]] == [0.0, 0.75]
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.25", "0.50", "0.00", "0.75"]


@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_files_are_the_same_each_time(tmp_path, name):
    found = identifiable_weights(ROWS, VALUES)
    for plot, what in ((plot_intervals, found), (plot_identifiable, torch.rand(2, 3))):
        contents = []
        for folder in ("one", "two"):
            path = tmp_path / plot.__name__ / folder / name
            path.parent.mkdir(parents=True)
            plot(what, path)
            contents.append(path.read_bytes())
        assert contents[0] == contents[1]
        assert len(contents[0]) > 2000


def test_wrong_arguments_are_named(tmp_path):
    found = identifiable_weights(ROWS, VALUES)
    for options, name in (
        ({"row": (2,)}, "row"),
        ({"row": (0, 0)}, "row"),
        ({"names": ["a"]}, "names"),
        ({"most": 0}, "most"),
    ):
        with pytest.raises(InvalidInputError, match=name):
            plot_intervals(found, **options)
    with pytest.raises(InvalidInputError, match="does not exist"):
        plot_intervals(found, tmp_path / "none" / "a.png")
    for shares in (torch.ones(3), torch.full((2, 2), 1.5)):
        with pytest.raises(InvalidInputError, match="shares"):
            plot_identifiable(shares)
