"""The attention of a decoder to the input's tokens, against the cross-attentions that the model itself returns."""

import pytest
import torch
from transformers import BartConfig, BartForSequenceClassification, T5Config, T5ForConditionalGeneration

from hf_attn_mi import Explanation, explain
from hf_attn_mi.attention import effective_attention
from hf_attn_mi.capture import capture_attention
from tests.sample_models import TEXTS
from tests.zoo.building import rescale

BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
BART |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": 8000, "max_position_embeddings": 64}
BART |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3, "forced_eos_token_id": 3}


def bart():
    torch.manual_seed(0)
    model = BartForSequenceClassification(BartConfig(**BART, attn_implementation="eager"))
    rescale(model)
    return model.eval()


def t5():
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 8000}
    model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0, pad_token_id=0))
    rescale(model)
    return model.eval()


def cross(explanation):
    return [layer for layer in explanation.layers if layer.kind == "cross"]


def test_received_and_entropy_are_those_of_the_models_own_rows(demo):
    model, tokenizer = bart(), demo[1]
    both = explain(model, TEXTS[:2], tokenizer=tokenizer)  # of two lengths: one is padded
    for text, one in zip(TEXTS, both):
        encoded = tokenizer(text, return_tensors="pt")
        encoded.pop("token_type_ids", None)
        with torch.no_grad():
            returned = model(**encoded, output_attentions=True).cross_attentions
        layers = cross(one)
        assert [layer.name for layer in layers] == [f"model.decoder.layers.{i}.encoder_attn" for i in range(2)]
        assert [layer.kind for layer in one.layers] == ["self", "self", "cross", "cross"]
        for layer, rows in zip(layers, returned):
            assert layer.n == rows.shape[-1]
            assert torch.allclose(layer.received, rows[0].mean(1), atol=1e-5)
            assert torch.allclose(layer.entropy, torch.special.entr(rows[0]).sum(-1).mean(-1), atol=1e-5)


def test_a_decoder_of_another_length_reads_the_input(demo):
    model = t5()
    inputs = {
        "input_ids": torch.randint(5, 90, (2, 12)),
        "decoder_input_ids": torch.tensor([[0, 7, 8], [0, 9, 10]]),
    }
    both = explain(model, inputs, target=lambda out: out.logits[:, -1, 7])
    with torch.no_grad(), capture_attention(model) as capture:
        model(**inputs)
    calls = [call for call in capture.calls if "EncDecAttention" in call.module_name]
    for i, one in enumerate(both):
        for layer, call in zip(cross(one), calls):
            rows = call.attention()[i]
            assert rows.shape[1:] == (3, 12)
            assert torch.allclose(layer.received, rows.mean(1), atol=1e-5)
            effective = effective_attention(rows, call.values_per_head()[i]).attention
            assert torch.allclose(layer.received_effective, effective.mean(1).float(), atol=1e-4)


def test_the_length_of_the_decoder_may_be_that_of_the_input():
    model = t5()
    inputs = {"input_ids": torch.randint(5, 90, (1, 4)), "decoder_input_ids": torch.randint(5, 90, (1, 4))}
    one = explain(model, inputs, target=lambda out: out.logits[:, -1, 7])
    assert [layer.name.rpartition(".")[2] for layer in cross(one)] == ["EncDecAttention"] * 2


def test_one_token_of_a_decoder_has_attention_of_its_own():
    model = t5()
    inputs = {"input_ids": torch.randint(5, 90, (1, 6)), "decoder_input_ids": torch.tensor([[0]])}
    one = explain(model, inputs, target=lambda out: out.logits[:, -1, 7])
    assert len(cross(one)) == 2
    assert all(float(layer.received.sum(1).min()) == pytest.approx(1.0, abs=1e-5) for layer in cross(one))


def test_scores_by_attention_are_those_of_the_encoder(demo):
    """Cross-attention stands beside the layers of the encoder and is in no mean over them."""
    one = explain(bart(), TEXTS[0], tokenizer=demo[1], method="attention")
    own = torch.stack([layer.received for layer in one.layers if layer.kind == "self"])
    assert torch.allclose(one.scores, own.mean((0, 1)), atol=1e-6)


def test_the_table_names_cross_attention_and_the_file_keeps_it(demo, tmp_path):
    one = explain(bart(), TEXTS[0], tokenizer=demo[1])
    assert "0 (cross)" in one.to_html()
    one.save(tmp_path / "one.json")
    assert Explanation.load(tmp_path / "one.json") == one
    assert not any(
        layer.kind == "cross" for layer in explain(bart(), TEXTS[0], tokenizer=demo[1], layers="none").layers
    )
    assert cross(explain(bart(), TEXTS[0], tokenizer=demo[1], layers="summary"))[0].received_effective is None
