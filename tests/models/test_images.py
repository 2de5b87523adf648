"""Images as PIL images, arrays and files: what is explained is what the model says of its processor's pixels."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DINOv3ViTConfig, DINOv3ViTModel, pipeline

from hf_attn_mi import InvalidInputError, certify, explain, minimal_attention
from hf_attn_mi.models.images import read_image
from tests.media_models import IMAGE_MODELS, PATCHES, image_processor, media_model, picture
from tests.sample_models import TEXTS, parameter_name, tiny_bert

PREFIX = {"vit": 1, "deit": 2, "beit": 1, "dinov2": 1, "dinov2 with registers": 5, "clip": 1}
GRID = {"swin": (8, 8)}


def logits(model, image):
    with torch.no_grad():
        return model(**image_processor()(images=image, return_tensors="pt")).logits[0].double()


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_the_explained_value_is_that_of_the_models_own_forward(name):
    model, processor = media_model(name), image_processor()
    images = [picture(0), picture(1, (40, 40)), picture(2)]
    together = explain(model, images, processor=processor)
    for image, one in zip(images, together):
        own = logits(model, image)
        assert one.target == int(own.argmax())
        assert one.probability == pytest.approx(float(own.softmax(0)[one.target]), abs=1e-5)
        assert one.completeness_gap < 1e-4
        assert sum(one.special) == PREFIX.get(name, 0)
        assert one.grid == GRID.get(name, (4, 4))
        alone = explain(model, image, processor=processor)
        assert torch.allclose(alone.scores, one.scores, atol=1e-5 * float(one.scores.abs().max()))


def test_a_model_without_a_head_is_explained_by_a_function():
    torch.manual_seed(0)
    model = DINOv3ViTModel(DINOv3ViTConfig(**PATCHES, num_register_tokens=4)).eval()
    one = explain(model, picture(), processor=image_processor(), target=lambda out: out.pooler_output[:, 3])
    assert one.tokens[:5] == ("[CLS]", "[REG 0]", "[REG 1]", "[REG 2]", "[REG 3]")
    assert one.grid == (4, 4)
    assert one.completeness_gap < 1e-4


def test_an_image_an_array_and_a_file_are_the_same_input(tmp_path):
    model, processor, image = media_model("vit"), image_processor(), picture()
    array = np.asarray(image)
    image.save(tmp_path / "image.png")
    expected = explain(model, image, processor=processor).scores
    forms = [
        array,
        array.transpose(2, 0, 1),
        torch.from_numpy(array.copy()),
        array.astype(np.float64) / 255,
        np.concatenate([array, np.full((*array.shape[:2], 1), 255, np.uint8)], 2),
        str(tmp_path / "image.png"),
        tmp_path / "image.png",
    ]
    for form in forms:
        assert torch.equal(explain(model, form, processor=processor, layers="none").scores, expected)
    assert len(explain(model, np.stack([array, array]), processor=processor)) == 2
    assert torch.equal(
        explain(model, {"pixel_values": processor(images=image, return_tensors="pt")["pixel_values"]}).scores, expected
    )


def test_gray_images_and_palettes_are_converted_to_rgb():
    model, processor = media_model("vit"), image_processor()
    gray = picture().convert("L")
    expected = explain(model, gray.convert("RGB"), processor=processor).scores
    assert torch.equal(explain(model, gray, processor=processor).scores, expected)
    assert torch.equal(explain(model, np.asarray(gray), processor=processor).scores, expected)


def test_the_processor_saved_beside_the_model_is_used(tmp_path):
    model = media_model("vit")
    model.save_pretrained(tmp_path)
    image_processor().save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert torch.equal(explain(loaded, picture()).scores, explain(model, picture(), processor=image_processor()).scores)


@pytest.mark.parametrize("settings", [{}, {"function_to_apply": "sigmoid"}, {"top_k": 1}], ids=str)
def test_an_image_classification_pipeline_is_explained_as_it_answers(settings):
    pipe = pipeline("image-classification", model=media_model("vit"), image_processor=image_processor(), **settings)
    answer, one = pipe(picture())[0], explain(pipe, picture())
    assert one.target_name == answer["label"]
    assert one.probability == pytest.approx(answer["score"], abs=1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((8, 8, 3), bool), "array of bool"),
        (np.full((8, 8, 3), np.nan), "finite"),
        (np.full((8, 8, 3), 300, np.int64), "from 300 to 300"),
        (np.full((8, 8, 3), -0.5), "normalized pixels"),
        (np.array("text"), "shape"),
        ("no/such/image.png", "no image file"),
        ("https://example.org/cat.png", "nothing is downloaded"),
        (12, "not int"),
        ("A film. " * 1000, "no image file"),
        ("nul\0", "no image file"),
        (None, "not NoneType"),
        ([], "empty list"),
        ([picture(), "no.png"], r"inputs\[1\]: there is no image file"),
    ],
    ids=parameter_name,
)
def test_what_is_no_image_is_refused_by_name(image, message):
    with pytest.raises(InvalidInputError, match=message):
        explain(media_model("vit"), image, processor=image_processor())


def test_a_damaged_file_is_refused_by_name(tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(InvalidInputError, match=r"cut\.png.*cannot be read as an image"):
        explain(media_model("vit"), tmp_path / "cut.png", processor=image_processor())


def test_images_for_a_model_of_texts_and_no_processor_are_refused():
    with pytest.raises(InvalidInputError, match="BertForSequenceClassification reads input_ids"):
        explain(tiny_bert(), picture())
    with pytest.raises(InvalidInputError, match="AutoImageProcessor"):
        explain(media_model("vit"), picture())
    with pytest.raises(InvalidInputError, match="processor must be an image processor"):
        explain(media_model("vit"), picture(), processor=3)
    with pytest.raises(InvalidInputError, match="no image file"):
        explain(media_model("vit"), TEXTS[0], processor=image_processor())


def test_images_of_other_sizes_have_other_grids():
    model = media_model("dinov2", **{**PATCHES})
    pixels = [torch.randn(1, 3, 48, 32), torch.randn(1, 3, 32, 64)]
    assert [explain(model, {"pixel_values": one}).grid for one in pixels] == [(6, 4), (4, 8)]


def test_half_precision_takes_images():
    one = explain(media_model("vit").bfloat16(), picture(), processor=image_processor())
    assert one.grid == (4, 4)
    assert one.completeness_gap < 0.02


def test_a_picture_turned_by_its_exif_entry_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    picture().save(tmp_path / "turned.jpg", exif=exif, quality=95)
    model, processor = media_model("vit"), image_processor()
    upright = np.asarray(Image.open(tmp_path / "turned.jpg").rotate(-90, expand=True))
    found = explain(model, tmp_path / "turned.jpg", processor=processor)
    assert torch.equal(found.scores, explain(model, upright, processor=processor).scores)


def test_an_image_that_cannot_be_read_is_skipped_on_request(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    found = explain(
        media_model("vit"),
        [picture(), tmp_path / "bad.png", np.zeros((4, 4))],
        processor=image_processor(),
        errors="skip",
    )
    assert [type(one).__name__ for one in found] == ["Explanation", "SkippedInput", "Explanation"]
    assert "cannot be read as an image" in found[1].reason


def test_every_class_of_an_image_is_explained_from_one_pass():
    model = media_model("vit")
    found = explain(model, picture(), processor=image_processor(), targets="all")
    assert [one.target_name for one in found] == ["cat", "dog", "bird"]
    for one in found:
        alone = explain(model, picture(), processor=image_processor(), target=one.target)
        assert torch.allclose(one.scores, alone.scores, atol=1e-5 * float(alone.scores.abs().max()))
        assert one.picture.uri == alone.picture.uri


def test_other_tasks_take_the_processor_too():
    model, processor = media_model("vit"), image_processor()
    tensors = dict(processor(images=picture(), return_tensors="pt"))
    given, wanted = certify(model, picture(), processor=processor), certify(model, tensors)
    assert given.outcome == wanted.outcome
    assert given.change == wanted.change
    subgraph = minimal_attention(model, picture(), processor=processor)
    assert subgraph.outcome == minimal_attention(model, tensors).outcome


@pytest.mark.parametrize(
    ("options", "message"),
    [({"processor": 3}, "processor must be an image processor"), ({"sampling_rate": "fast"}, "sampling_rate must be")],
    ids=parameter_name,
)
def test_options_that_are_none_are_refused_for_texts_too(demo, options, message):
    with pytest.raises(InvalidInputError, match=message):
        explain(demo[0], TEXTS[0], tokenizer=demo[1], **options)


def test_images_of_16_bits_are_scaled_and_of_32_bits_refused(tmp_path):
    values = np.arange(0, 65536, 4096, dtype=np.uint16).reshape(4, 4)
    image = Image.fromarray(values)
    assert image.mode == "I;16"
    wanted = np.round(values / 257).astype(np.uint8)
    assert np.array_equal(np.asarray(read_image(image, "inputs"))[..., 0], wanted)
    image.save(tmp_path / "deep.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "deep.png", "inputs"))[..., 2], wanted)
    for mode in ("I", "F"):
        with pytest.raises(InvalidInputError, match="whose range is not known"):
            read_image(Image.new(mode, (4, 4)), "inputs")
