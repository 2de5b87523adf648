"""The command line for heads of every kind: next tokens, generated texts, frames of speech, images and their labels."""

import json

import pytest
import torch
import transformers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
    LongformerConfig,
    LongformerForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
)

from hf_attn_mi import InvalidInputError, UnsupportedModelError, certify, explain
from hf_attn_mi.cli import main
from tests.media_models import PATCHES, SPEECH, feature_extractor, image_processor, picture, tone, write_wav
from tests.sample_models import SIZES, load_demo
from tests.zoo.building import rescale

TEXT = "The film was made by Tom."
SMALL = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
BART = {**SMALL, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}


def saved(model, folder, *preparers):
    rescale(model)
    model.save_pretrained(folder)
    for one in preparers:
        one.save_pretrained(folder)
    return str(folder)


def result(capsys, *arguments):
    assert main([*arguments, "--json", "-", "--layers", "none"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    return one


def test_the_next_token_and_a_generated_text(capsys, tmp_path):
    torch.manual_seed(0)
    tokenizer = load_demo()[1]
    size = len(tokenizer)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=64))
    bart = BartForConditionalGeneration(BartConfig(vocab_size=size, **BART, **SPECIAL))
    for name, model, target in (("gpt2", gpt2, 'next_token("film")'), ("bart", bart, 'generated("A film.")')):
        folder = saved(model.eval(), tmp_path / name, tokenizer)
        found = result(capsys, "explain", TEXT, "--model", folder, "--target", target)
        wanted = explain(model, TEXT, tokenizer=tokenizer, target=target, layers="none")
        assert found["target_name"] == wanted.target_name
        assert found["scores"] == wanted.to_dict()["scores"]
        assert wanted.completeness_gap < 1e-5
        assert wanted.value == pytest.approx(float(wanted.scores.sum()) + wanted.bias, abs=1e-4)


def test_a_frame_of_speech(capsys, tmp_path):
    torch.manual_seed(0)
    extractor = feature_extractor("wav2vec2")
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**SPEECH, vocab_size=12)).eval()
    folder, file = saved(model, tmp_path / "ctc", extractor), write_wav(tmp_path / "tone.wav", tone(0.2))
    found = result(capsys, "explain", "--audio", str(file), "--model", folder, "--target", "frame(3, 5)")
    wanted = explain(model, str(file), processor=extractor, target="frame(3, 5)", layers="none")
    assert found["target_name"] == wanted.target_name
    assert found["scores"] == wanted.to_dict()["scores"]


def test_an_image_and_its_candidate_labels(capsys, tmp_path):
    torch.manual_seed(0)
    tokenizer, pictures = load_demo()[1], image_processor()
    text = {**SIZES, "intermediate_size": 64, "vocab_size": len(tokenizer), "eos_token_id": 3}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=PATCHES, projection_dim=16)).eval()
    both = transformers.CLIPProcessor(pictures, tokenizer)
    folder = saved(model, tmp_path / "clip", both)
    picture().save(tmp_path / "one.png")
    image = str(tmp_path / "one.png")
    found = result(capsys, "explain", "--image", image, "--model", folder, "--candidate-labels", "cat, dog")
    wanted = explain(model, image, processor=both, candidate_labels=["cat", "dog"], layers="none")
    assert found["target_name"] == wanted.target_name in ("cat", "dog")
    values = found["scores"]["values"]  # of the loaded model: equal to the last bit or two
    assert values == pytest.approx(wanted.scores.tolist(), abs=1e-5 * float(wanted.scores.abs().max()))
    assert tuple(found["grid"]) == (4, 4)


def test_models_with_an_attention_of_their_own_are_refused_with_the_reason(capsys, tmp_path):
    tokenizer = load_demo()[1]
    sizes = {**SIZES, "intermediate_size": 64, "vocab_size": len(tokenizer), "attention_window": 8}
    model = LongformerForSequenceClassification(LongformerConfig(**sizes, pad_token_id=0)).eval()
    folder = saved(model, tmp_path / "longformer", tokenizer)
    for task in (explain, certify):
        with pytest.raises((UnsupportedModelError, InvalidInputError), match="cannot be captured exactly"):
            task(model, TEXT, tokenizer=tokenizer, **({"layers": "full"} if task is explain else {}))
    assert main(["certify", TEXT, "--model", folder]) == 2
    assert "cannot be captured exactly" in capsys.readouterr().err
