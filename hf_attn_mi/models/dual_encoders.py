"""Models of images and texts (CLIP, SigLIP): the image tower as a classifier whose classes are texts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError, shown
from hf_attn_mi.models.runner import EncoderRunner

TEMPLATE = "This is a photo of {}."  # the template of the pipeline of transformers
TOLERANCE = 1e-4  # relative difference of the logits of the two towers here from those of the model's own forward


class ImageTextClassifier(nn.Module):
    """The image tower with the embeddings of some texts: logits are the model's similarities of image and text.

    Args:
        model: a model with a `vision_model`, a `logit_scale` and, unless the pooled output is the embedding, a
            `visual_projection`.
        texts: (texts, width) normalized embeddings.
        labels: a name for each text.
        sigmoid: whether each label has a probability of its own.
    """

    main_input_name = "pixel_values"

    def __init__(self, model: Any, texts: Tensor, labels: Sequence[str], sigmoid: bool) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.visual_projection = getattr(model, "visual_projection", None) or nn.Identity()
        self.register_buffer("texts", texts, persistent=False)
        self.scale = float(model.logit_scale.detach().exp())
        bias = getattr(model, "logit_bias", None)
        self.bias = 0.0 if bias is None else float(bias.detach())
        self.config = copy.deepcopy(model.config.vision_config)
        self.config._name_or_path = getattr(model.config, "_name_or_path", "")
        self.config.id2label = dict(enumerate(labels))
        self.config.label2id = {label: number for number, label in enumerate(labels)}
        self.config.problem_type = "multi_label_classification" if sigmoid else None
        self.training = False

    def forward(self, pixel_values: Tensor, **arguments: Any) -> dict[str, Tensor]:
        """{"logits": (batch, texts)}: scale x cosine similarity + bias."""
        pooled = self.vision_model(pixel_values=pixel_values, **arguments).pooler_output
        images = self.visual_projection(pooled)
        images = images / images.norm(p=2, dim=-1, keepdim=True)
        texts: Tensor = self.texts  # type: ignore[assignment]
        return {"logits": self.scale * (images @ texts.t()) + self.bias}


def is_dual_encoder(model: nn.Module) -> bool:
    """Whether this is a model of images and texts with one embedding of each."""
    parts = ("vision_model", "text_model", "logit_scale", "get_text_features")
    return all(hasattr(model, part) for part in parts) and hasattr(getattr(model, "config", None), "vision_config")


def by_text_labels(runner: EncoderRunner, labels: object) -> tuple[EncoderRunner, Any]:
    """The runner of the image tower with these labels as classes, and None; for other models both arguments, unchanged.

    Args:
        runner: runs the model, of any kind.
        labels: a list of labels or a text with commas between them; None for those of a pipeline.

    Raises:
        InvalidInputError: no labels.
        UnsupportedModelError: the model combines its towers in another way.
    """
    if not is_dual_encoder(runner.model):
        return runner, labels
    settings: Mapping[str, Any] = getattr(runner.source, "_preprocess_params", {})
    labels = settings.get("candidate_labels") if labels is None else labels
    if labels is None:
        return runner, None
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",") if label.strip()]
    names = list(labels) if isinstance(labels, list | tuple) else []
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise InvalidInputError(f"candidate_labels must be a list of one or more different texts, not {shown(labels)}.")
    template = settings.get("hypothesis_template", TEMPLATE)
    return _image_tower(runner, names, [template.format(name) for name in names], settings), None


def _image_tower(
    runner: EncoderRunner, labels: list[str], texts: list[str], settings: Mapping[str, Any]
) -> EncoderRunner:
    model: Any = runner.model
    sigmoid = "siglip" in getattr(runner.config, "model_type", "")
    options: dict[str, Any] = {"padding": True}
    if sigmoid:
        options = {"padding": "max_length", "max_length": 64, "truncation": True}
    encoded = runner.require_tokenizer()(texts, return_tensors="pt", **options, **settings.get("tokenizer_kwargs", {}))
    arguments = {key: value.to(runner.device) for key, value in encoded.items() if key != "token_type_ids"}
    with runner.session(), torch.no_grad():
        features = model.get_text_features(**arguments)
        embeddings = features if isinstance(features, Tensor) else features.pooler_output
        embeddings = embeddings / embeddings.norm(p=2, dim=-1, keepdim=True)
        tower = ImageTextClassifier(model, embeddings, labels, sigmoid)
        _check(model, tower, arguments)
    inner = EncoderRunner(tower, runner.tokenizer)
    inner.processor, inner.source = runner.processor, runner.source
    return inner


def _check(model: Any, tower: ImageTextClassifier, arguments: Mapping[str, Tensor]) -> None:
    """Refuse a model whose own logits differ from those of the tower on an image of noise."""
    size = getattr(tower.config, "image_size", 224)
    height, width = size if isinstance(size, list | tuple) else (size, size)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, getattr(tower.config, "num_channels", 3), height, width, generator=generator)
    pixels = pixels.to(tower.texts.device, tower.texts.dtype)  # type: ignore[arg-type]
    try:
        logits = model(**arguments, pixel_values=pixels).logits_per_image
        ours = tower(pixels)["logits"]
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"{type(model).__name__}: its image tower cannot be run on its own ({type(error).__name__}: {error})."
        ) from error
    if logits.shape != ours.shape or float((logits - ours).abs().max()) > TOLERANCE * float(logits.abs().max()) + 1e-6:
        raise UnsupportedModelError(
            f"{type(model).__name__} compares images and texts in another way than by a scaled cosine similarity of "
            "its towers, so that candidate_labels are not supported."
        )
