"""Mutual information between states and a model's output, on arrays: estimators, their registry, and probes."""

from hf_attn_mi.mi.boosted_probe import BoostedProbe, fit_boosted_probe
from hf_attn_mi.mi.estimator import Estimator, EstimatorSpec, SiteData, SiteEstimate
from hf_attn_mi.mi.folds import draw_folds
from hf_attn_mi.mi.information import mutual_information
from hf_attn_mi.mi.inputs import estimation_device, output_ceiling
from hf_attn_mi.mi.predictors import (
    Effort,
    check_effort,
    list_predictors,
    register_predictor,
    unregister_predictor,
)
from hf_attn_mi.mi.probe import Probe, fit_probe
from hf_attn_mi.mi.registry import get_estimator, list_estimators, register_estimator
from hf_attn_mi.mi.result import MutualInformation

__all__ = [
    "BoostedProbe",
    "Effort",
    "Estimator",
    "EstimatorSpec",
    "MutualInformation",
    "Probe",
    "SiteData",
    "SiteEstimate",
    "check_effort",
    "draw_folds",
    "estimation_device",
    "fit_boosted_probe",
    "fit_probe",
    "get_estimator",
    "list_estimators",
    "list_predictors",
    "mutual_information",
    "output_ceiling",
    "register_estimator",
    "register_predictor",
    "unregister_predictor",
]
