"""Mutual information between states and a model's output. Knows arrays, not models."""

from hf_attn_mi.mi.entropy import output_ceiling
from hf_attn_mi.mi.information import mutual_information
from hf_attn_mi.mi.probe import Probe, fit_probe
from hf_attn_mi.mi.result import MutualInformation

__all__ = ["MutualInformation", "Probe", "fit_probe", "mutual_information", "output_ceiling"]
