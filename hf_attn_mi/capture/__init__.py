"""Attention and hidden states of any Hugging Face encoder, streamed while the model runs."""

from hf_attn_mi.capture.attention_product import multi_head_call, rows_and_logits
from hf_attn_mi.capture.context import Capture, capture_attention, first_layer, module_checks
from hf_attn_mi.capture.layer_outputs import layer_outputs, skipped_layers, stack_of_layers
from hf_attn_mi.capture.model_reading import forget_readings, reading_once
from hf_attn_mi.capture.model_state import (
    attention_facts,
    eager_stance,
    is_compiled,
    model_lock,
    unwrap,
    visible_attention,
)
from hf_attn_mi.capture.records import AttentionCall, LayerStates, Projection, ReplacedAttention, repeat_heads
from hf_attn_mi.capture.states import hooks_restored
from hf_attn_mi.capture.torch_ops import is_attention_rows
from hf_attn_mi.capture.validation import ModuleCheck

__all__ = [
    "AttentionCall",
    "Capture",
    "LayerStates",
    "ModuleCheck",
    "Projection",
    "ReplacedAttention",
    "attention_facts",
    "capture_attention",
    "eager_stance",
    "first_layer",
    "forget_readings",
    "hooks_restored",
    "is_attention_rows",
    "is_compiled",
    "layer_outputs",
    "model_lock",
    "module_checks",
    "multi_head_call",
    "reading_once",
    "repeat_heads",
    "rows_and_logits",
    "skipped_layers",
    "stack_of_layers",
    "unwrap",
    "visible_attention",
]
