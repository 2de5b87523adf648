"""Longformer and LED: windows with global attention are refused, with the module, where it must be followed."""

import pytest
import torch
from transformers import LEDConfig, LEDForConditionalGeneration, LongformerConfig, LongformerForSequenceClassification

from hf_attn_mi import UnsupportedModelError, certify, explain, minimal_attention, minimal_tokens, targets
from tests.sample_models import TEXTS
from tests.zoo.building import rescale

SIZES = {"vocab_size": 8000, "attention_window": 8, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
LED = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4}
LED |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "decoder_start_token_id": 2}
LED |= {"max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64}
LONGFORMER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def led():
    torch.manual_seed(0)
    model = LEDForConditionalGeneration(LEDConfig(**SIZES, **LED))
    rescale(model)
    return model.eval()


def longformer():
    torch.manual_seed(0)
    config = LongformerConfig(**SIZES, **LONGFORMER, max_position_embeddings=80, type_vocab_size=2)
    model = LongformerForSequenceClassification(config)
    rescale(model)
    return model.eval()


def with_global_attention(tokenizer, text):
    """The tensors of a text whose first token attends to all others and is attended by them."""
    inputs = dict(tokenizer(text, return_tensors="pt"))
    inputs.pop("token_type_ids")
    inputs["global_attention_mask"] = torch.zeros_like(inputs["input_ids"])
    inputs["global_attention_mask"][:, 0] = 1
    return inputs


@pytest.mark.parametrize("method", ["relevance", "attention", "efficient", "rollout", "occlusion"])
def test_methods_that_follow_the_attention_name_the_module(demo, method):
    inputs = with_global_attention(demo[1], TEXTS[2])
    with pytest.raises(UnsupportedModelError, match=r"encoder\.layers\.0\.self_attn\.longformer_self_attn"):
        explain(led(), inputs, tokenizer=demo[1], target=targets.generated("a film"), method=method)
    with pytest.raises(UnsupportedModelError, match=r"longformer\.encoder\.layer\.0\.attention\.self"):
        explain(longformer(), inputs, tokenizer=demo[1], method=method)


@pytest.mark.parametrize("task", [certify, minimal_attention])
def test_tasks_that_replace_attention_name_the_module(demo, task):
    inputs = with_global_attention(demo[1], TEXTS[0])
    with pytest.raises(UnsupportedModelError, match=r"longformer_self_attn"):
        task(led(), inputs, tokenizer=demo[1], target=targets.generated("a film"))
    with pytest.raises(UnsupportedModelError, match=r"longformer\.encoder\.layer\.0\.attention\.self"):
        task(longformer(), inputs, tokenizer=demo[1])


def test_removing_tokens_needs_no_capture_and_keeps_the_global_attention(demo):
    model, inputs = longformer(), with_global_attention(demo[1], TEXTS[0])
    with torch.no_grad():
        logits = model(**inputs).logits[0].double()
        everywhere = torch.ones_like(inputs["input_ids"])
        other = model(**{**inputs, "global_attention_mask": everywhere}).logits[0].double()
    one = minimal_tokens(model, inputs, tokenizer=demo[1], ranking="random", second_ranking=None)
    assert one.p_all == pytest.approx(float(logits.softmax(0).max()), abs=1e-6)
    assert float((other.softmax(0) - logits.softmax(0)).abs().max()) > 1e-4  # losing the mask would show
    with pytest.raises(UnsupportedModelError, match=r"longformer\.encoder\.layer\.0\.attention\.self"):
        minimal_tokens(model, inputs, tokenizer=demo[1], ranking="relevance")
