"""Certificates: the change of the output against controls, and the keys that rows need at each tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_attn_mi.figures import (
    AGAINST,
    FOR,
    LINE,
    PLAIN,
    SOFT,
    WIDTH,
    figure_of,
    label,
    legend_below,
    own_axes,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_attn_mi.results.certificate import Certificate

LEAST = 1e-9  # smaller changes are drawn here: they are rounding


def draw_changes(certificate: Certificate, ax: Axes | None) -> Figure:
    """Draw how far the output moves by the certified rows and by each control, on a logarithmic axis."""
    rows = [("certified rows", certificate.change), *certificate.controls.items()]
    new = ax is None
    ax = own_axes(ax, WIDTH, 1.35 + 0.26 * max(2, len(rows)))
    for place, (name, change) in enumerate(rows):
        if change is None:
            ax.text(LEAST * 1.3, place, "nothing to add: no row changed", va="center", fontsize=7.5, color=SOFT)
            continue
        color = FOR if name == "certified rows" else AGAINST if change.kept is False else PLAIN
        size = max(change.relative, LEAST)
        ax.barh([place], [size - LEAST], left=LEAST, color=color, height=0.66)
        kept = ", prediction changed" if change.kept is False else ""
        text = f"{change.relative:.1e}{kept}" if change.relative else f"0{kept}"
        ax.annotate(text, (size, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5)
    ax.axvline(max(certificate.rounding, LEAST), color=SOFT, linestyle="--", linewidth=1)
    ax.plot([], [], color=SOFT, linestyle="--", linewidth=1, label=f"explained by rounding: {certificate.rounding:.0e}")
    ax.set_xscale("log")
    ax.set_xlim(LEAST, 1e3)
    ax.set_xticks([10.0**power for power in range(-9, 2, 2)])
    ax.minorticks_off()
    ax.set_yticks(range(len(rows)), [label(name) for name, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"change of the {label(certificate.output)}, relative to their size")
    legend_below(ax, new, 1)
    set_title(ax, f"certificate of {certificate.form} attention: {certificate.outcome}")
    return figure_of(ax)


def draw_support(certificate: Certificate, ax: Axes | None) -> Figure:
    """Draw for each attention module the keys with weight in a row, mean and largest, of those it could attend to."""
    layers = certificate.layers
    places = list(range(len(layers)))
    new = ax is None
    ax = own_axes(ax, WIDTH, max(2.0, 1.1 + 0.24 * len(layers)))
    ax.barh(places, [layer.keys for layer in layers], color="#e8e9ea", height=0.7, label="keys of a row")
    ax.barh(places, [layer.support_mean for layer in layers], color=FOR, height=0.7, label="with weight, mean")
    ax.plot([layer.support_max for layer in layers], places, "|", color="black", markersize=10, label="largest")
    ax.set_yticks(places, [f"layer {layer.layer}" for layer in layers])
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("keys")
    set_title(ax, f"keys that {certificate.form} attention needs: {certificate.outcome}")
    legend_below(ax, new, 3)
    return figure_of(ax)


def draw_tolerances(certificates: Sequence[Certificate], ax: Axes | None) -> Figure:
    """Draw the keys that a row needs against the tolerance, with what becomes of the prediction.

    Args:
        certificates: certificates of one input, with different tolerances.
        ax: where to draw; None for a new figure.
    """
    ordered = sorted(certificates, key=lambda one: one.tolerance)
    places = list(range(len(ordered)))
    means = [_mean_support(one) for one in ordered]
    new = ax is None
    ax = own_axes(ax, WIDTH, 3.4)
    ax.axhline(max(layer.keys for one in ordered for layer in one.layers), color=LINE, linewidth=1.2, label="all keys")
    largest = [max(layer.support_max for layer in one.layers) for one in ordered]
    ax.plot(places, largest, color=PLAIN, linestyle=":", linewidth=1.3, label="largest of a row")
    ax.plot(places, means, color=FOR, linewidth=1.5, label="mean over rows")
    for place, mean, one in zip(places, means, ordered):
        changed = one.change.kept is False
        color, style = AGAINST if changed else FOR, "full" if one.holds else "none"
        ax.plot([place], [mean], "o", color=color, markersize=6, fillstyle=style)
        at: Any = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
        ax.annotate(f"{mean:.1f}", (place, mean), fontsize=7.5, color=SOFT, **at)
    ax.set_xticks(places, ["0 (exact)" if one.tolerance == 0 else f"{one.tolerance:g}" for one in ordered])
    ax.set_ylim(0, None)
    ax.margins(x=0.08)
    ax.set_xlabel("tolerance: distance of a row's output, relative to its distance from the mean value")
    ax.set_ylabel("keys with weight in a row")
    hollow = "hollow: does not hold, or nothing to certify"
    ax.plot([], [], "o", color=FOR, fillstyle="none", markersize=6, label=hollow)
    ax.plot([], [], "o", color=AGAINST, markersize=6, label="orange: the prediction changed")
    legend_below(ax, new, 2)
    ax.set_title("how few keys suffice")
    return figure_of(ax)


def _mean_support(certificate: Certificate) -> float:
    rows = sum(layer.rows for layer in certificate.layers) or 1
    return sum(layer.support_mean * layer.rows for layer in certificate.layers) / rows
