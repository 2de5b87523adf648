"""Recordings as arrays, dicts and .wav files: scores have a time, and belong to the model's own answer."""

import numpy as np
import pytest
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperForConditionalGeneration,
    pipeline,
)

from hf_attn_mi import Explanation, InvalidInputError, explain
from hf_attn_mi.targets import frame, generated
from tests.media_models import (
    AUDIO_MODELS,
    SPEECH,
    WHISPER,
    feature_extractor,
    media_model,
    picture,
    tone,
    write_wav,
)
from tests.sample_models import parameter_name

RATE = 16000


def explained(name, inputs, **options):
    options = {"sampling_rate": RATE, "processor": feature_extractor(name), **options}
    return explain(media_model(name), inputs, **options)


@pytest.mark.parametrize("name", AUDIO_MODELS)
def test_the_explained_value_is_that_of_the_models_own_forward(name):
    model, extractor = media_model(name), feature_extractor(name)
    recordings = [tone(0.5), tone(0.3), tone(0.5, pitch=900.0)]  # of two lengths
    together = explained(name, recordings)
    for samples, one in zip(recordings, together):
        with torch.no_grad():
            own = model(**extractor(samples, sampling_rate=RATE, return_tensors="pt")).logits[0].double()
        assert one.target == int(own.argmax())
        assert one.probability == pytest.approx(float(own.softmax(0)[one.target]), abs=1e-5)
        assert one.completeness_gap < 1e-4
        alone = explained(name, samples)
        assert torch.allclose(alone.scores, one.scores, atol=1e-5 * float(one.scores.abs().max()))


def test_a_position_lies_where_its_convolutions_begin():
    one = explained("wav2vec2", tone(0.5))
    assert one.tokens[:3] == ("0.000 s", "0.020 s", "0.040 s")  # one position in 320 samples
    assert torch.allclose(one.sound.seconds[:, 0], 0.02 * torch.arange(len(one.tokens)), atol=1e-6)
    assert one.sound.duration == 0.5
    assert one.grid is None
    table = one.to_pandas()
    assert table["seconds_to"].iloc[0] == pytest.approx(0.02)


def test_spectrogram_patches_are_bands_over_time():
    one = explained("ast", tone(0.5))
    assert one.tokens[:3] == ("[CLS]", "[DIST]", "0.000 s, band 0")
    assert one.special[:3] == (True, True, False)
    assert one.grid == (4, 8)  # 32 bins and 64 frames of 10 ms in patches of 8 x 8
    assert one.sound.seconds[3].tolist() == pytest.approx([0.08, 0.16])
    assert one.heatmap().shape == (4, 8)
    assert any("padding that the feature extractor appended" in note for note in one.info["warnings"])


def test_frames_of_whisper_are_20_milliseconds_each():
    one = explained("whisper", tone(0.5))
    assert len(one.tokens) == 50
    assert one.sound.seconds[10].tolist() == pytest.approx([0.2, 0.22])
    assert any("0.50 s" in note for note in one.info["warnings"])


def test_an_array_a_dict_and_a_file_are_the_same_input(tmp_path):
    samples = np.round(tone(0.3) * 32767) / 32768
    expected = explained("wav2vec2", samples).scores
    path = write_wav(tmp_path / "tone.wav", samples * 32768 / 32767)
    whole = (samples * 32768).astype(np.int16)
    recordings = [
        samples.astype(np.float64),
        torch.tensor(samples),
        samples.tolist(),
        whole,
        {"array": samples, "sampling_rate": RATE, "path": "x"},
        {"raw": samples, "sampling_rate": RATE},
        str(path),
        path,
    ]
    for form in recordings:
        found = explained("wav2vec2", form).scores
        assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_channels_of_a_file_are_averaged_and_said(tmp_path):
    left, right = tone(0.2), tone(0.2, pitch=700.0)
    path = write_wav(tmp_path / "two.wav", np.stack([left, right], 1).reshape(-1), channels=2)
    one = explained("wav2vec2", path)
    assert any("mean of 2 channels" in note for note in one.info["warnings"])
    mean = (np.round(left * 32767) + np.round(right * 32767)) / 2 / 32768
    wanted = explained("wav2vec2", mean.astype(np.float32)).scores
    assert torch.allclose(one.scores, wanted, atol=1e-3 * float(wanted.abs().max()))


def test_another_sampling_rate_is_resampled_and_said():
    one = explained("wav2vec2", tone(0.3, rate=48000), sampling_rate=48000)
    assert len(one.tokens) == len(explained("wav2vec2", tone(0.3)).tokens)
    assert any("resampled from 48000 to 16000" in note for note in one.info["warnings"])


@pytest.mark.parametrize("settings", [{}, {"function_to_apply": "sigmoid"}], ids=str)
def test_an_audio_classification_pipeline_is_explained_as_it_answers(settings):
    extractor = feature_extractor("wav2vec2")
    pipe = pipeline("audio-classification", model=media_model("wav2vec2"), feature_extractor=extractor)
    answer = pipe(tone(0.3), **settings)[0]
    if settings:
        pipe._postprocess_params |= settings
    one = explain(pipe, tone(0.3))  # the pipeline takes arrays at the rate of its model
    assert one.target_name == answer["label"]
    assert one.probability == pytest.approx(answer["score"], abs=1e-5)


@pytest.mark.parametrize(
    ("recording", "rate", "message"),
    [
        (tone(0.1), None, "sampling_rate is missing: pass sampling_rate=16000"),
        (tone(0.1), 0, "sampling_rate must be a whole number"),
        (tone(0.1), 16000.0, "not 16000.0"),
        (tone(0.1), True, "not True"),
        ({"array": tone(0.1), "sampling_rate": "16k"}, None, r"inputs\['sampling_rate'\] must be"),
        (np.zeros((2, 100)), 16000, "one channel"),
        (np.zeros(0), 16000, "one channel"),
        (np.array([0.0, np.nan]), 16000, "NaN or infinite"),
        (np.array(["a"]), 16000, "not ndarray of"),
        ("no.wav", 16000, "no audio file"),
        ("https://example.org/a.wav", 16000, "nothing is downloaded"),
        ([], 16000, "empty list"),
        (picture(), 16000, "must be an array"),
        (None, 16000, "must be an array"),
        (tone(0.001), 16000, "16 samples; is it too short"),
    ],
    ids=parameter_name,
)
def test_what_is_no_recording_is_refused_by_name(recording, rate, message):
    with pytest.raises(InvalidInputError, match=message):
        explained("wav2vec2", recording, sampling_rate=rate)


def test_a_file_that_is_no_sound_is_refused_by_name(tmp_path):
    (tmp_path / "text.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(InvalidInputError, match=r"text\.wav.*cannot be read as a \.wav file"):
        explained("wav2vec2", tmp_path / "text.wav")
    with pytest.raises(InvalidInputError, match="AutoFeatureExtractor"):
        explain(media_model("wav2vec2"), tone(0.1), sampling_rate=RATE)


def test_the_page_and_the_figure_have_seconds_on_the_axis(tmp_path):
    one = explained("wav2vec2", tone(0.5))
    assert one.plot(tmp_path / "sound.png").axes[0].get_xlabel() == "seconds"
    page = one.to_html()
    assert "<path" in page
    assert "0.25 s" in page
    assert "0.020 s: " in page
    one.save(tmp_path / "sound.json")
    assert Explanation.load(tmp_path / "sound.json") == one
    bands = explained("ast", tone(0.5))
    figure = bands.plot()
    assert figure.axes[0].get_ylabel() == "frequency band"
    assert figure.axes[0].get_xlim() == (0.0, 0.5)
    assert "map of the scores" in bands.to_html()


def test_tensors_have_times_where_the_sampling_rate_is_known():
    values = {"input_values": torch.from_numpy(tone(0.3))[None]}
    assert explain(media_model("hubert"), values, sampling_rate=RATE).tokens[1] == "0.020 s"
    assert explain(media_model("hubert"), values).tokens[1] == "position 1"
    assert explain(media_model("hubert"), values).sound is None


def test_a_frame_of_a_speech_recognizer_is_explained_over_time():
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**SPEECH, vocab_size=30)).eval()
    extractor = feature_extractor("wav2vec2")
    one = explain(model, tone(0.3), sampling_rate=RATE, processor=extractor, target=frame(3, 5))
    with torch.no_grad():
        own = model(**extractor(tone(0.3), sampling_rate=RATE, return_tensors="pt")).logits[0, 3].double()
    assert one.probability == pytest.approx(float(own.softmax(0)[5]), abs=1e-5)
    assert one.completeness_gap < 1e-4
    assert one.sound is not None


def test_words_that_a_speech_model_writes_are_explained_over_time(demo):
    torch.manual_seed(0)
    sizes = {name: value for name, value in WHISPER.items() if name != "classifier_proj_size"}
    config = WhisperConfig(**sizes, vocab_size=8000, pad_token_id=0, eos_token_id=3, decoder_start_token_id=2)
    model, extractor = WhisperForConditionalGeneration(config).eval(), feature_extractor("whisper")
    options = {"sampling_rate": RATE, "processor": extractor, "tokenizer": demo[1]}
    one = explain(model, tone(0.3), target=generated("a film"), **options)
    assert one.tokens[1] == "0.020 s"
    assert one.completeness_gap < 1e-4
    assert [layer.kind for layer in one.layers] == ["self", "self", "cross"]
    first = explain(model, tone(0.3), target=lambda out: out.logits[:, 0, 7], **options)
    features = extractor(tone(0.3), sampling_rate=RATE, return_tensors="pt")
    start = torch.tensor([[2]])
    given = explain(model, {**features, "decoder_input_ids": start}, target=lambda out: out.logits[:, 0, 7])
    assert torch.allclose(first.scores, given.scores, atol=1e-6)
