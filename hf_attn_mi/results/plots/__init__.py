"""Figures of results; matplotlib (extra `plots`) is imported when the first one is drawn."""

from hf_attn_mi.attention.interval_plots import plot_identifiable, plot_intervals
from hf_attn_mi.figures import COLORS, check_figure_path, new_figure, save_figure
from hf_attn_mi.results.plots.comparison import plot_comparison
from hf_attn_mi.results.plots.information import plot_information
from hf_attn_mi.results.plots.words import plot_text, plot_words

__all__ = [
    "COLORS",
    "check_figure_path",
    "new_figure",
    "plot_comparison",
    "plot_identifiable",
    "plot_information",
    "plot_intervals",
    "plot_text",
    "plot_words",
    "save_figure",
]
