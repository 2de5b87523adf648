"""Pictures of results; matplotlib (extra `plots`) is imported when the first one is drawn."""

from hf_attn_mi.views.information import plot_information

__all__ = ["plot_information"]
