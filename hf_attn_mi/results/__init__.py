"""The frozen results that the tasks return: what they hold, their files, and how they are shown."""

from hf_attn_mi.results.attention_family import AttentionFamily, FamilyMember
from hf_attn_mi.results.attention_maps import AttentionMaps
from hf_attn_mi.results.attention_parts import (
    AttentionModule,
    AttentionUnit,
    DeeperRemovals,
    RemovalCheck,
    UnitRemoval,
)
from hf_attn_mi.results.attention_subgraph import AttentionSubgraph
from hf_attn_mi.results.certificate import Certificate, LayerCertificate, OutputChange
from hf_attn_mi.results.comparison import Comparison, MethodCost
from hf_attn_mi.results.corpus_summary import ClassWord, CorpusSummary, ErrorWord, OpposingWord
from hf_attn_mi.results.dataset_run import DatasetRun
from hf_attn_mi.results.explanation import Explanation, Word
from hf_attn_mi.results.information_profile import InformationProfile, Site
from hf_attn_mi.results.layer_attention import LayerAttention
from hf_attn_mi.results.outcome import Outcome
from hf_attn_mi.results.record import Record
from hf_attn_mi.results.report import Report, ReportItem
from hf_attn_mi.results.report_parts import AttentionDetail, AttentionLinks, ClassOutput, HeadDetail, WeightInterval
from hf_attn_mi.results.results import Results
from hf_attn_mi.results.skipped_input import SkippedInput
from hf_attn_mi.results.stored_results import StoredExplanation, StoredResults, load_results
from hf_attn_mi.results.token_set import Removal, Span, TokenSet

__all__ = [
    "AttentionDetail",
    "AttentionFamily",
    "AttentionLinks",
    "AttentionMaps",
    "AttentionModule",
    "AttentionSubgraph",
    "AttentionUnit",
    "Certificate",
    "ClassOutput",
    "ClassWord",
    "Comparison",
    "CorpusSummary",
    "DatasetRun",
    "DeeperRemovals",
    "ErrorWord",
    "Explanation",
    "FamilyMember",
    "HeadDetail",
    "InformationProfile",
    "LayerAttention",
    "LayerCertificate",
    "MethodCost",
    "OpposingWord",
    "Outcome",
    "OutputChange",
    "Record",
    "Removal",
    "RemovalCheck",
    "Report",
    "ReportItem",
    "Results",
    "Site",
    "SkippedInput",
    "Span",
    "StoredExplanation",
    "StoredResults",
    "TokenSet",
    "UnitRemoval",
    "WeightInterval",
    "Word",
    "load_results",
]
