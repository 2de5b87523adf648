"""Metrics and statistics on token scores: faithfulness, plausibility, rank agreement, intervals and tests.

Nothing here knows a model: metrics that remove tokens take a function that returns probabilities.
"""

from hf_attn_mi.evaluation.aopc import AopcLimits, aopc, aopc_limits, normalized_aopc
from hf_attn_mi.evaluation.faithfulness import (
    FAITHFULNESS,
    METRICS,
    Metric,
    MetricInputs,
    faithfulness,
    faithfulness_sets,
)
from hf_attn_mi.evaluation.hub_metrics import hub_metric, hub_metric_path
from hf_attn_mi.evaluation.plausibility import (
    PrecisionRecallF1,
    RationaleScores,
    SoftScores,
    auprc,
    average_precision,
    iou_f1,
    spans,
    token_f1,
)
from hf_attn_mi.evaluation.probabilities import Predict, Probabilities
from hf_attn_mi.evaluation.rank_agreement import Agreement, RankAgreement, Reliability, Stratum, rank_agreement
from hf_attn_mi.evaluation.rank_correlation import RankMatrix, rank_correlations, rank_matrix
from hf_attn_mi.evaluation.ranking import DECILES, ERASER_BINS, ORDERS, bin_counts, ranking, top_tokens
from hf_attn_mi.evaluation.removal_metrics import (
    RemovalCurve,
    comprehensiveness,
    deletion_area,
    infidelity,
    insertion_area,
    leave_one_out_correlation,
    monotonicity,
    sufficiency,
)
from hf_attn_mi.evaluation.sensitivity import completeness_gap, max_sensitivity, relative_change
from hf_attn_mi.evaluation.statistics import Estimate, PairedTest, estimate, holm, paired_tests, sign_flip_tests

__all__ = [
    "DECILES",
    "ERASER_BINS",
    "FAITHFULNESS",
    "METRICS",
    "ORDERS",
    "Agreement",
    "AopcLimits",
    "Estimate",
    "Metric",
    "MetricInputs",
    "PairedTest",
    "PrecisionRecallF1",
    "Predict",
    "Probabilities",
    "RankAgreement",
    "RankMatrix",
    "RationaleScores",
    "Reliability",
    "RemovalCurve",
    "SoftScores",
    "Stratum",
    "aopc",
    "aopc_limits",
    "auprc",
    "average_precision",
    "bin_counts",
    "completeness_gap",
    "comprehensiveness",
    "deletion_area",
    "estimate",
    "faithfulness",
    "faithfulness_sets",
    "holm",
    "hub_metric",
    "hub_metric_path",
    "infidelity",
    "insertion_area",
    "iou_f1",
    "leave_one_out_correlation",
    "max_sensitivity",
    "monotonicity",
    "normalized_aopc",
    "paired_tests",
    "rank_agreement",
    "rank_correlations",
    "rank_matrix",
    "ranking",
    "relative_change",
    "sign_flip_tests",
    "spans",
    "sufficiency",
    "token_f1",
    "top_tokens",
]
