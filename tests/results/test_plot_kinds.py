"""`.plot` of every result: what is drawn are the numbers of the record, in new axes and in given ones."""

import builtins
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib import rc_context
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch

from hf_attn_mi import Results, mutual_information
from hf_attn_mi.attention import identifiable_weights
from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.figures import AGAINST, FOR, NO_CLASS
from hf_attn_mi.results import SkippedInput
from hf_attn_mi.results.plots.words import MOST_LINES, TextPart, plot_text
from hf_attn_mi.results.words import level_colors, level_of
from tests.results import result_samples as samples

KINDS = {  # what each sample draws; the first kind is the default
    "explanation": ("words", "tokens", "text", "heads"),
    "layer": ("heads", "received"),
    "certificate": ("changes", "support"),
    "token set": ("probabilities",),
    "attention subgraph": ("flow", "heads", "units", "probabilities"),
    "comparison": ("metrics", "agreement"),
    "profile": ("layers",),
    "data set run": ("progress",),
    "summary": ("words", "errors"),
    "maps": ("matrix",),
    "report": ("text", "words", "tokens", "heads", "attention", "intervals", "token_set", "certificate", "subgraph"),
}
CASES = [(name, kind) for name, kinds in KINDS.items() for kind in kinds]


def test_every_kind_of_result_is_drawn():
    assert KINDS.keys() == samples.SAMPLES.keys()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_kind_is_drawn_into_new_and_into_given_axes(name, kind, tmp_path):
    record = samples.SAMPLES[name]
    figure = record.plot(tmp_path / "one.png", kind=kind)
    assert isinstance(figure, Figure)
    assert (tmp_path / "one.png").read_bytes()[:4] == b"\x89PNG"
    record.plot(tmp_path / "two.png", kind=kind)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    mine = Figure()
    left, right = mine.subplots(1, 2)
    assert record.plot(kind=kind, ax=right) is mine
    assert not left.has_data()
    assert right.get_children() != Figure().subplots().get_children()


@pytest.mark.parametrize("name", KINDS)
def test_what_cannot_be_drawn_is_refused(name):
    record, first = samples.SAMPLES[name], KINDS[name][0]
    with pytest.raises(InvalidInputError, match=f"kind must be one of '{first}'.*not 'pie'"):
        record.plot(kind="pie")
    with pytest.raises(InvalidInputError, match="ax must be a matplotlib Axes or None, not Figure; choose one of"):
        record.plot(ax=Figure())
    with pytest.raises(InvalidInputError, match=r"pass it by name: plot\(ax=\.\.\.\)"):
        record.plot(Figure().subplots())
    with pytest.raises(InvalidInputError, match="a figure can be written as"):
        record.plot("figure.doc")


@pytest.mark.parametrize("name", KINDS)
def test_without_matplotlib_the_error_names_the_extra(name, monkeypatch):
    ask = builtins.__import__

    def refuse(module, *rest, **options):
        if module.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return ask(module, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(BackendUnavailableError, match=r"hf_attn_mi\[plots\]"):
        samples.SAMPLES[name].plot()


def test_the_background_is_light_in_a_dark_session():
    with rc_context({"figure.facecolor": "black", "axes.facecolor": "black", "text.color": "white"}):
        figure = samples.explanation().plot(kind="text")
    assert figure.get_facecolor() == to_rgba("white")
    assert figure.axes[0].get_facecolor() == to_rgba("white")
    assert to_rgba("white") not in [
        to_rgba(text.get_color()) for text in figure.axes[0].texts if text.get_text() == "!"
    ]


def bars(ax):
    """(length, color) of each horizontal bar."""
    return [(bar.get_width(), bar.get_facecolor()) for bar in ax.patches]


def test_bars_are_the_scores_of_the_strongest_words():
    one = samples.explanation()
    (ax,) = one.plot(most=1).axes
    assert bars(ax) == [(0.75, to_rgba(FOR))]
    (ax,) = one.plot().axes
    assert bars(ax) == [(0.75, to_rgba(FOR)), (-0.125, to_rgba(AGAINST))]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Unbelievable", "film"]
    assert [text.get_text() for text in ax.texts] == ["+0.75", "−0.125"]
    (ax,) = one.plot(kind="tokens").axes
    assert [width for width, _ in bars(ax)] == [0.5, 0.25, -0.125]
    (ax,) = samples.explanation(info={"method": "attention", "class_linked": False}).plot().axes
    assert {color for _, color in bars(ax)} == {to_rgba(NO_CLASS)}
    with pytest.raises(InvalidInputError, match="most must be an integer"):
        one.plot(most=0)


def boxes(ax):
    return [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]


def test_the_text_has_the_colors_of_the_page():
    one = samples.explanation()
    (ax,) = one.plot(kind="text").axes
    colors = [tuple(round(255 * part) for part in box.get_facecolor()[:3]) for box in boxes(ax)]
    assert colors == [level_colors(level_of(score, 0.75))[0] for score in (0.75, -0.125)]
    assert [text.get_text() for text in ax.texts[:3]] == ["Unbelievable", "film", "!"]
    assert any("0.75 for positive" in text.get_text() for text in ax.texts)
    underlined = samples.report().plot().axes[0]
    (line,) = underlined.get_lines()
    left = boxes(underlined)[0].get_x()
    assert left <= line.get_xdata()[0] < line.get_xdata()[1] <= left + boxes(underlined)[0].get_width()


def test_long_texts_are_broken_into_lines_and_cut_with_a_note():
    words = [part for i in range(2000) for part in (TextPart(f"word{i}", 0.1), TextPart(" "))]
    (ax,) = plot_text([words]).axes
    lines = {round(box.get_y()) for box in boxes(ax)}
    assert lines == set(range(MOST_LINES))
    note = next(text.get_text() for text in ax.texts if "not shown" in text.get_text())
    assert note == f"{2000 - len(boxes(ax))} more words are not shown."
    width = ax.get_xlim()[1]
    assert max(box.get_x() + box.get_width() for box in boxes(ax)) <= width
    (ax,) = plot_text([[TextPart("x" * 500, 1.0)]]).axes
    assert sum(len(text.get_text()) for text in ax.texts if set(text.get_text()) == {"x"}) == 500


@pytest.mark.parametrize("text", ["$x_1$ {", "\ud800\x00", "電影", "", "a\nb", "\\"])
def test_no_text_breaks_a_figure(text, tmp_path):
    one = samples.explanation(
        tokens=("[CLS]", text, "##believable", "film", "[SEP]"), offsets=None, texts=(), target_name=text
    )
    for kind in ("words", "tokens", "text"):
        one.plot(tmp_path / "a.svg", kind=kind)


def test_the_grid_of_heads_holds_the_shares_without_effect():
    one = samples.explanation()
    ax, bar = one.plot(kind="heads").axes
    (image,) = ax.get_images()
    assert np.allclose(image.get_array(), torch.stack([layer.null_space_fraction for layer in one.layers]))
    assert image.get_clim() == (0, 1)
    assert "without effect" in bar.get_ylabel()
    written = [int(text.get_text()) for text in ax.texts]
    assert written == [round(100 * float(x)) for layer in one.layers for x in layer.null_space_fraction]
    with pytest.raises(InvalidInputError, match="no statistics of attention layers"):
        samples.explanation(layers=()).plot(kind="heads")


def test_a_run_over_a_data_set_shows_its_shares():
    run = replace(samples.SAMPLES["data set run"], shards=1, missing=3, done=500, failed=10)
    (ax,) = run.plot().axes
    assert [bar.get_width() for bar in ax.patches] == [1, 0.25, 0, 1, 0.25, 0.005]


def test_matrices_stand_side_by_side_on_one_scale():
    maps = [samples.attention_maps(kind=kind) for kind in ("raw", "effective", "efficient")]
    maps[1] = replace(maps[1], matrices=tuple(matrix - 0.2 for matrix in maps[1].matrices))
    *panels, bar = Results(maps).plot(layer=3, head=1).axes
    assert [panel.get_title() for panel in panels] == ["raw", "effective", "efficient"]
    images = [panel.get_images()[0] for panel in panels]
    for image, one in zip(images, maps):
        assert np.allclose(image.get_array(), one[3][0])
    scale = max(float(one[3].abs().max()) for one in maps)
    assert {image.get_clim() for image in images} == {(-scale, scale)}
    assert bar.get_ylim() == pytest.approx((-scale, scale))
    assert [label.get_text() for label in panels[0].get_yticklabels()] == list(maps[0].tokens)
    with pytest.raises(InvalidInputError, match="head 0 does not exist"):
        maps[0].plot(head=0)
    with pytest.raises(InvalidInputError, match="layer 1 does not exist"):
        maps[0].plot(layer=1)


def test_a_report_draws_the_stored_weights_and_intervals_of_a_head():
    record = samples.report()
    detail = record.items[0].attention.heads[1]
    *panels, _ = record.plot(kind="attention").axes
    for panel, kind in zip(panels, ("raw", "effective", "efficient"), strict=True):
        assert np.allclose(panel.get_images()[0].get_array(), detail.matrix(kind))
    (ax,) = record.plot(kind="intervals").axes
    interval = detail.intervals[0]
    bar, weight = ax.get_lines()[:2]
    assert list(bar.get_xdata()) == [interval.low, interval.high]
    assert list(weight.get_xdata()) == [interval.weight]
    with pytest.raises(InvalidInputError, match=r"head=\(0, 0\): it is not among"):
        record.plot(kind="attention", head=(0, 0))
    with pytest.raises(InvalidInputError, match="input must be a whole number from 0 to 0"):
        record.plot(input=1)
    bare = replace(record.items[0], attention=None, token_set=None, notes={"token_set": "Not asked for."})
    with pytest.raises(InvalidInputError, match=r"kind='token_set': this report has none\. Not asked for\."):
        samples.report(items=(bare,)).plot(kind="token_set")
    with pytest.raises(InvalidInputError, match="holds no attention matrices"):
        samples.report(items=(bare,)).plot(kind="attention")


def test_the_flow_has_a_line_for_each_weight():
    found = samples.subgraph()
    (ax,) = found.plot().axes
    lines = [patch for patch in ax.patches if isinstance(patch, PathPatch)]
    assert len(lines) == len(found.edges)
    widths = [line.get_linewidth() for line in lines]  # drawn from the smallest contribution to the largest
    assert widths == sorted(widths)
    assert widths[0] == pytest.approx(0.8 + 4.2 * 1.5 / 2.0)
    assert [line.get_alpha() for line in lines] == pytest.approx([0.9, 0.25 + 0.65 / 2])  # in both sets; in one
    ends = [(line.get_path().vertices[0][0], line.get_path().vertices[-1][0]) for line in lines]
    assert ends == [(0.0, 1.0), (1.0, 2.0)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["[CLS]", "a", "joy"]
    assert "2 of 64 attention weights" in ax.get_title()
    (ax,) = found.plot(kind="heads").axes
    assert ax.get_images()[0].get_array().tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize("name", ["token set", "attention subgraph"])
def test_probabilities_of_a_set_its_rest_and_single_removals(name):
    found = samples.SAMPLES[name]
    (ax,) = found.plot(kind="probabilities").axes
    nothing = found.p_special if name == "token set" else found.p_none
    assert [width for width, _ in bars(ax)] == [found.p_all, found.p_set, found.p_rest, nothing]
    dots = [line for line in ax.get_lines() if line.get_marker() == "o" and len(line.get_xdata())]
    diamonds = [line for line in ax.get_lines() if line.get_marker() == "D" and len(line.get_xdata())]
    removals = (
        found.singles
        if name == "token set"
        else sorted(found.singles, key=lambda one: -found.units[one.unit].contribution)
    )
    assert [float(dot.get_xdata()[0]) for dot in dots] == [one.p_set for one in removals]
    assert [float(dot.get_xdata()[0]) for dot in diamonds] == [one.p_rest for one in removals]
    needed = next(line for line in ax.get_lines() if line.get_linestyle() == "--")
    assert needed.get_xdata()[0] == found.keep * found.p_all


def test_a_set_that_does_not_exist_says_why():
    nothing = samples.token_set(defined=False, indices=(), spans=(), words=(), singles=(), reason="default class")
    assert "nothing to certify" in nothing.plot().axes[0].get_title()
    needless = samples.subgraph(units=(), singles=(), family_members=(), needs_attention=False, reason="because")
    assert "nothing to certify. because" in needless.plot().axes[0].get_title()


def test_a_certificate_shows_its_change_and_the_controls():
    found = samples.certificate()
    (ax,) = found.plot().axes
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    expected = [found.change.relative, *(change.relative for change in found.controls.values())]
    assert ends == pytest.approx(expected)
    assert [bar.get_facecolor() for bar in ax.patches][-1] == to_rgba(AGAINST)  # the prediction changed
    assert ax.get_xscale() == "log"
    (ax,) = found.plot(kind="support").axes
    assert [bar.get_width() for bar in ax.patches] == [10, 10, 4.5, 4.5]


def test_certificates_of_several_tolerances_are_one_curve():
    found = [
        samples.certificate(tolerance=x, layers=(replace(samples.LAYER, support_mean=9 - 50 * x),)) for x in (0.1, 0.0)
    ]
    (ax,) = Results(found).plot().axes
    curve = next(line for line in ax.get_lines() if line.get_label() == "mean over rows")
    assert list(curve.get_ydata()) == [9.0, 4.0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0 (exact)", "0.1"]
    same = Results([samples.certificate(), samples.certificate()])
    assert len(same.plot().axes) == 2  # no tolerances that differ: a panel for each


def test_methods_and_metrics_have_a_zero_line_and_named_axes():
    comparison = samples.comparison()
    (ax,) = comparison.plot().axes
    zero = ax.get_lines()[0]
    assert list(zero.get_xdata()) == [0, 0]
    assert ax.get_xlim()[0] <= 0 <= ax.get_xlim()[1]
    assert ax.get_ylabel() == "method"
    assert ax.get_xlabel() == "mean, higher is better"
    (ax,) = comparison.plot(kind="agreement").axes
    assert len(ax.texts) == len(comparison.methods) ** 2


def test_information_stands_between_its_bounds():
    draw = torch.Generator().manual_seed(0)
    classes = torch.arange(200) % 2
    states = torch.randn(2, 200, 3, generator=draw) + torch.tensor([0.0, 1.0])[:, None, None] * classes[:, None]
    found = mutual_information(states, classes)
    (ax,) = found.plot(names=["none", "some"]).axes
    estimate, lower, upper, ceiling = ax.get_lines()[:4]
    assert list(estimate.get_xdata()) == found.nats.tolist()
    assert list(lower.get_xdata()) == found.lower_bound.tolist()
    assert upper.get_xdata()[0] == float(found.upper_bound.max())
    assert ceiling.get_xdata()[0] == found.ceiling
    (intervals,) = [one for one in ax.collections if isinstance(one, LineCollection)]
    assert np.allclose([line[:, 0] for line in intervals.get_segments()], found.interval)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["none", "some"]
    with pytest.raises(InvalidInputError, match="a name for each of the 2 sites"):
        found.plot(names=["one"])
    table = found._repr_html_()
    assert f"{float(found.nats[1]):.4g}" in table
    assert found.to_pandas()["low"].tolist() == found.interval[:, 0].tolist()


def test_identifiable_weights_draw_their_first_row():
    rows = torch.tensor([[[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]]])
    found = identifiable_weights(rows, torch.tensor([[[0.0], [1.0], [2.0]]]))
    (ax,) = found.plot(names=["a", "b", "c"]).axes
    assert list(ax.get_lines()[0].get_ydata()) == pytest.approx([0.2, 0.5, 0.3])
    with pytest.raises(InvalidInputError, match="row is 5"):
        found.plot(row=5)


def test_a_list_has_a_panel_for_each_result():
    record = samples.explanation()
    skipped = SkippedInput(1, ("",), "InvalidInputError", "empty")
    results = Results([record, skipped, *[record] * 7])
    figure = results.plot(kind="words")
    assert len(figure.axes) == 6
    assert figure.get_supxlabel() == "2 further results are not shown"
    assert len(results.plot(most=8).axes) == 8
    mine = Figure()
    ax = mine.subplots()
    Results([record, record]).plot(ax=ax)
    assert [bars(panel) for panel in ax.child_axes] == [bars(record.plot().axes[0])] * 2
    for wrong, message in (({"most": 0}, "most must be"), ({"depth": 2}, "plot has no option depth for Explanation")):
        with pytest.raises(InvalidInputError, match=message):
            results.plot(**wrong)
    for nothing in (Results([]), Results([skipped])):
        with pytest.raises(InvalidInputError, match="no result that could be drawn"):
            nothing.plot()
    with pytest.raises(InvalidInputError, match="A skipped input has nothing"):
        skipped.plot()


DRAWN = {
    **{f"{name}-{kind}": (samples.SAMPLES[name], {"kind": kind}) for name, kind in CASES},
    "weights": (identifiable_weights(torch.rand(1, 30).softmax(-1), torch.randn(30, 4)), {}),
    "list": (Results((samples.explanation(), samples.explanation())), {"kind": "text"}),
}


@pytest.mark.parametrize("name", DRAWN)
def test_no_label_leaves_the_figure(name):
    record, options = DRAWN[name]
    figure = record.plot(**options)
    figure.draw_without_rendering()
    labels = [figure.texts, *(legend.texts for legend in figure.legends)]
    for ax in figure.axes:
        labels += [[ax.title, ax.xaxis.label, ax.yaxis.label], ax.texts]
    for text in [one for group in labels for one in group if one.get_visible() and one.get_text().strip()]:
        box = text.get_window_extent()
        inside = box.x0 > -1 and box.y0 > -1 and box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1
        assert inside, (text.get_text(), box, figure.bbox.bounds)


def test_words_of_several_texts_are_as_wide_as_their_letters():
    explanations = Results(samples.explanation(texts=("Unbelievable  film!",)) for _ in range(3))
    figure = explanations.plot(kind="text")
    figure.draw_without_rendering()
    for ax in figure.axes:
        (left, _), (right, _) = ax.transData.transform([(0, 0), (1, 0)])
        assert 6.0 < (right - left) * 72 / figure.dpi < 6.9  # points of a letter, which are 6.02 in this font
