"""Maps over pictures and scores over time: arrays, figures and pages."""

import base64
import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from hf_attn_mi import BackendUnavailableError, Explanation, InvalidInputError, explain
from hf_attn_mi.results.media import Picture, Sound, heatmap, png_uri
from tests.media_models import image_processor, media_model, picture
from tests.sample_models import TEXTS


@pytest.fixture(scope="module")
def explained():
    return explain(media_model("vit"), picture(), processor=image_processor())


def decoded(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_map_holds_the_scores_of_the_patches_row_by_row(explained):
    scores = explained.scores[1:].double().numpy()
    assert np.array_equal(explained.heatmap(), scores.reshape(4, 4))
    large = explained.heatmap((50, 70))
    assert large.shape == (50, 70)
    expected = torch.nn.functional.interpolate(torch.tensor(scores).reshape(1, 1, 4, 4), size=(50, 70), mode="bilinear")
    assert np.allclose(large, expected[0, 0].numpy())


@pytest.mark.parametrize("size", [5, (0, 3), (2.0, 3), (1, 2, 3), (True, 2), "ab"])
def test_a_size_that_is_none_is_refused(explained, size):
    with pytest.raises(InvalidInputError, match="size must be"):
        explained.heatmap(size)


def test_texts_have_no_map(demo):
    model, tokenizer = demo
    with pytest.raises(InvalidInputError, match="without a grid"):
        explain(model, TEXTS[0], tokenizer=tokenizer).heatmap()


def test_a_saved_explanation_of_an_image_is_read_back(explained, tmp_path):
    explained.save(tmp_path / "one.json")
    loaded = Explanation.load(tmp_path / "one.json")
    assert loaded == explained
    assert loaded.grid == (4, 4)
    assert loaded.picture.uri == explained.picture.uri
    table = explained.to_pandas()
    assert table.loc[1, ["row", "column"]].tolist() == [0, 0]
    assert table.loc[16, ["row", "column"]].tolist() == [3, 3]
    assert table["row"].isna().tolist() == [True] + [False] * 16


def test_a_grid_that_does_not_fit_is_refused(explained):
    data = explained.to_dict()
    with pytest.raises(InvalidInputError, match="grid is"):
        Explanation.from_dict({**data, "grid": [3, 4]})


def test_the_kept_picture_is_what_the_model_sees(explained):
    pixels = image_processor()(images=picture(), return_tensors="pt")["pixel_values"][0]
    expected = ((pixels * 0.5 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    shown = decoded(explained.picture.uri).astype(int)
    assert (explained.picture.height, explained.picture.width) == (32, 32)
    assert np.abs(shown - expected).mean() < 12  # JPEG is lossy
    large = Picture.of(torch.rand(3, 900, 600))
    assert decoded(large.uri).shape == (448, 299, 3)


def test_without_pillow_the_error_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(BackendUnavailableError, match=r'pip install "hf_attn_mi\[vision\]"'):
        Picture(1, 1, png_uri(np.zeros((1, 1, 3), dtype=np.uint8))).array()


def test_a_png_of_our_own_is_read_by_pillow():
    pixels = np.random.RandomState(0).randint(0, 255, (3, 5, 4), dtype=np.uint8)
    assert np.array_equal(decoded(png_uri(pixels)), pixels)


def test_the_page_shows_picture_and_map_and_loads_nothing(explained):
    page = explained.to_html()
    assert explained.picture.uri in page
    assert page.count("data:image/png") >= 1
    assert "img-src data:" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "patch 3,3: " in page
    assert "<script" not in page
    assert len(page) < 60_000
    assert "patch 0,0" in str(explained)
    assert "strongest patches" in page
    assert "the largest patch." in str(explained)


def test_the_map_in_the_page_has_the_strongest_color_at_the_largest_score(explained):
    overlay = explained.to_html().split('alt="map of the scores"')[1].split('src="')[1].split('"')[0]
    colors = decoded(overlay)
    scores = explained.scores[1:].reshape(4, 4)
    place = divmod(int(scores.abs().argmax()), 4)
    assert colors[place][3] == colors[..., 3].max() == round(255 * 0.75)
    blue = colors[..., 2].astype(int) > colors[..., 0].astype(int)
    assert np.array_equal(blue, (scores >= 0).numpy())


def test_figures_are_drawn_for_every_kind_of_input(explained, demo, tmp_path):
    figure = explained.plot(tmp_path / "image.png")
    assert Image.open(tmp_path / "image.png").size[0] > 100
    assert len(figure.axes[0].images) == 2
    figure = explain(demo[0], TEXTS[2], tokenizer=demo[1]).plot()
    assert figure.axes[0].get_xlabel() == "score"
    with pytest.raises(InvalidInputError, match="figure can be written"):
        explained.plot(tmp_path / "image.text")


def test_a_waveform_is_kept_as_its_outline():
    waveform = torch.linspace(-1, 1, 100_000)
    sound = Sound.of(torch.tensor([[0.0, 1.0]]), waveform, 50_000)
    assert sound.duration == 2.0
    assert sound.envelope.shape == (1000, 2)
    assert float(sound.envelope.min()), float(sound.envelope.max()) == (-1.0, 1.0)
    assert bool((sound.envelope[:, 0] <= sound.envelope[:, 1]).all())


def test_a_map_of_one_patch_is_flat():
    assert heatmap(torch.tensor([2.0]), (1, 1), (3, 3)).tolist() == [[2.0] * 3] * 3
