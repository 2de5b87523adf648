"""The metric for `evaluate.load`; the numbers are computed by `hf_attn_mi.evaluation`."""

from hf_attn_mi.evaluation.hub_metrics import metric_class

Metric = metric_class("comprehensiveness")
