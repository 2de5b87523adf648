"""Which explanation to trust: faithfulness, plausibility, agreement, with intervals. Knows token ids, not models."""

from hf_attn_mi.evaluation.areas import Area, comprehensiveness, sufficiency
from hf_attn_mi.evaluation.curves import deletion_area, insertion_area, monotonicity
from hf_attn_mi.evaluation.disagreement import RankMatrix, rank_matrix
from hf_attn_mi.evaluation.faithfulness import (
    FAITHFULNESS,
    METRICS,
    Metric,
    Question,
    faithfulness,
    faithfulness_sets,
)
from hf_attn_mi.evaluation.fidelity import infidelity
from hf_attn_mi.evaluation.hub_metrics import hub_metric
from hf_attn_mi.evaluation.leave_one_out import leave_one_out_correlation
from hf_attn_mi.evaluation.limits import AopcLimits, aopc, aopc_limits, normalized_aopc
from hf_attn_mi.evaluation.plausibility import SoftScores, auprc, average_precision
from hf_attn_mi.evaluation.probabilities import Predict, Probabilities
from hf_attn_mi.evaluation.ranking import DECILES, ERASER_BINS, bin_counts, ranking, top_tokens
from hf_attn_mi.evaluation.rationales import RationaleScores, Score, iou_f1, spans, token_f1
from hf_attn_mi.evaluation.stability import completeness_gap, max_sensitivity, relative_change
from hf_attn_mi.evaluation.statistics import Estimate, PairedTest, estimate, holm, paired_tests
from hf_attn_mi.models.removal import remove_tokens

__all__ = [
    "DECILES",
    "ERASER_BINS",
    "FAITHFULNESS",
    "METRICS",
    "AopcLimits",
    "Area",
    "Estimate",
    "Metric",
    "PairedTest",
    "Predict",
    "Probabilities",
    "Question",
    "RankMatrix",
    "RationaleScores",
    "Score",
    "SoftScores",
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
    "infidelity",
    "insertion_area",
    "iou_f1",
    "leave_one_out_correlation",
    "max_sensitivity",
    "monotonicity",
    "normalized_aopc",
    "paired_tests",
    "rank_matrix",
    "ranking",
    "relative_change",
    "remove_tokens",
    "spans",
    "sufficiency",
    "token_f1",
    "top_tokens",
]
