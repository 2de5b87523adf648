"""Images and recordings on the command line."""

import json

import pytest

from hf_attn_mi import Explanation, explain
from hf_attn_mi.cli import main
from tests.cli.command_line import refused
from tests.media_models import feature_extractor, image_processor, media_model, picture, tone, write_wav
from tests.sample_models import load_demo


@pytest.fixture
def files(tmp_path):
    """Folders with a model of images and one of audio, an image and a recording."""
    media_model("vit").save_pretrained(tmp_path / "vit")
    image_processor().save_pretrained(tmp_path / "vit")
    media_model("wav2vec2").save_pretrained(tmp_path / "speech")
    feature_extractor("wav2vec2").save_pretrained(tmp_path / "speech")
    picture().save(tmp_path / "one.png")
    write_wav(tmp_path / "tone.wav", tone(0.2))
    return tmp_path


def test_an_image_is_explained_and_drawn(files, capsys):
    page = files / "page.html"
    arguments = ["explain", "--image", str(files / "one.png"), "--model", str(files / "vit"), "--html", str(page)]
    assert main(arguments) == 0
    wanted = explain(media_model("vit"), picture(), processor=image_processor())
    assert capsys.readouterr().out.startswith(f"{wanted.target_name} (probability {wanted.probability:.4g}")
    assert "data:image/" in page.read_text()


def test_several_images_are_one_list(files, capsys):
    image = str(files / "one.png")
    assert main(["explain", "--image", image, "--image", image, "--model", str(files / "vit"), "--json", "-"]) == 0
    first, second = map(Explanation.from_dict, json.loads(capsys.readouterr().out))
    assert first.grid == (4, 4)
    assert first.scores.tolist() == pytest.approx(second.scores.tolist())


def test_a_recording_is_explained_over_time(files, capsys):
    arguments = ["explain", "--audio", str(files / "tone.wav"), "--model", str(files / "speech"), "--target", "dog"]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert output.startswith("dog")
    assert " s " in output


def test_what_does_not_go_together_is_refused(files, capsys):
    image, vit = str(files / "one.png"), str(files / "vit")
    assert "needs --model" in refused(capsys, "explain", "--image", image)
    assert "one kind of input" in refused(capsys, "explain", "a text", "--image", image, "--model", vit)
    assert "no such file" in refused(capsys, "explain", "--image", "no.png", "--model", vit)
    assert "cannot be read as an image" in refused(
        capsys, "explain", "--image", str(files / "tone.wav"), "--model", vit
    )
    assert "feature extractor" in refused(capsys, "explain", "--audio", str(files / "tone.wav"), "--model", "./none")


def test_a_long_text_is_explained_over_windows(capsys):
    text = "A joy to watch. " * 200
    assert "stride" in refused(capsys, "explain", text, "--stride", "-1")
    assert main(["explain", text, "--stride", "32", "--aggregation", "max"]) == 0
    assert "windows of at most" in capsys.readouterr().out


def test_a_minimal_set_of_patches_and_of_moments(files, capsys):
    image = ["--image", str(files / "one.png"), "--model", str(files / "vit"), "--target", "cat"]
    assert main(["minimal", *image, "--check"]) == 0
    output = capsys.readouterr().out
    assert "patch" in output
    assert "every number was reproduced" in output
    sound = ["--audio", str(files / "tone.wav"), "--model", str(files / "speech"), "--target", "cat"]
    assert main(["minimal", *sound, "--check", "--quiet"]) == 0


def test_a_text_of_a_model_of_images_and_texts_needs_what_it_is_compared_with(capsys, tmp_path):
    from tests.models.test_dual_encoders import dual

    dual("clip").save_pretrained(tmp_path)
    load_demo()[1].save_pretrained(tmp_path)
    image_processor().save_pretrained(tmp_path)
    picture().save(tmp_path / "picture.png")
    call = ["explain", "a photo of a cat", "--model", str(tmp_path), "--layers", "none"]
    assert 'similarity("another text")' in refused(capsys, *call)
    for other in ("a dog", str(tmp_path / "picture.png")):
        assert main([*call, "--target", f"similarity({other!r})", "--json", "-"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["target_name"].startswith("similarity to '")
