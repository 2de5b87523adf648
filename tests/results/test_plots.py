"""Figures: what is drawn is what the profile holds."""

import builtins

import pytest

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.results.plots import plot_information
from tests.tasks.sample_profile import CEILING, LAYERS, made


def of_slot(profile, name):
    return [place for place, site in enumerate(profile.sites) if site.name == name]


def test_curves_bands_and_ceiling_carry_the_numbers():
    profile = made()
    (axes,) = plot_information(profile).axes
    *lines, ceiling, upper, _ = axes.get_lines()
    curves, bounds = lines[::2], lines[1::2]
    assert [curve.get_label() for curve in curves] == list(LAYERS)
    for curve, band in zip(curves, axes.collections, strict=True):
        places = of_slot(profile, curve.get_label())
        assert tuple(curve.get_xdata()) == LAYERS[curve.get_label()]
        assert list(curve.get_ydata()) == profile.information.nats[places].tolist()
        (outline,) = (path.vertices for path in band.get_paths())
        for x, place in zip(curve.get_xdata(), places):
            ends = outline[outline[:, 0] == x, 1]
            assert ends.min() == profile.information.interval[place, 0]
            assert ends.max() == profile.information.interval[place, 1]
    for bound, curve in zip(bounds, curves, strict=True):
        places = of_slot(profile, curve.get_label())
        assert list(bound.get_ydata()) == profile.information.lower_bound[places].tolist()
    assert set(ceiling.get_ydata()) == {CEILING}
    assert ceiling.get_linestyle() == "--"
    assert set(upper.get_ydata()) == {float(profile.information.upper_bound.max())}
    assert "nats" in axes.get_ylabel()
    labels = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    bounds = [f"{end} bound, any distribution (97.5 %)" for end in ("upper", "lower")]
    assert labels == [*LAYERS, "ceiling: I(input; output)", *bounds]
    assert list(axes.get_xticks()) == [0, 3, 6]
    assert axes.get_ylim()[0] < float(profile.information.interval[:, 0].min())
    assert "400 inputs" in axes.get_title()
    assert "some-model" in axes.get_title()


def test_every_one_of_many_slots_can_be_told_apart():
    (axes,) = plot_information(made({f"position {i}": (0, 1) for i in range(20)})).axes
    looks = {(line.get_color(), line.get_marker()) for line in axes.get_lines()[:-3:2]}
    assert len(looks) == 20


def test_it_draws_in_given_axes():
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot_information(made(), ax=right) is figure
    assert (len(left.get_lines()), len(right.get_lines())) == (
        0,
        9,
    )


@pytest.mark.parametrize(("name", "sign"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_the_file_is_written_and_the_same_each_time(tmp_path, name, sign):
    contents = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        plot_information(made(), folder / name)
        contents.append((folder / name).read_bytes())
    assert contents[0][: len(sign)] == sign
    assert contents[0] == contents[1]
    assert 2_000 < len(contents[0]) < 150_000


def test_bad_paths(tmp_path):
    with pytest.raises(InvalidInputError, match=r"not as '\.doc'"):
        plot_information(made(), tmp_path / "a.doc")
    with pytest.raises(InvalidInputError, match="does not exist"):
        plot_information(made(), tmp_path / "none" / "a.png")


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    ask = builtins.__import__

    def refuse(name, *rest, **options):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return ask(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(BackendUnavailableError, match=r"hf_attn_mi\[plots\]"):
        plot_information(made())
