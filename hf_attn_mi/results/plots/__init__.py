"""Figures of results; matplotlib (extra `plots`) is imported when the first one is drawn."""

from hf_attn_mi.results.plots.comparison import plot_comparison
from hf_attn_mi.results.plots.figure import COLORS, check_figure_path, new_figure, save_figure
from hf_attn_mi.results.plots.information import plot_information
from hf_attn_mi.results.plots.intervals import plot_identifiable, plot_intervals

__all__ = [
    "COLORS",
    "check_figure_path",
    "new_figure",
    "plot_comparison",
    "plot_identifiable",
    "plot_information",
    "plot_intervals",
    "save_figure",
]
