"""Models of images and texts (CLIP, SigLIP): the image tower as a classifier of texts, and each tower on its own."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError, shown
from hf_attn_mi.models.images import is_image
from hf_attn_mi.models.runner import EncoderRunner

TEMPLATE = "This is a photo of {}."  # the template of the pipeline of transformers
MOST_OF_A_PATH = 1000  # characters; longer texts are no paths
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


class TextTower(nn.Module):
    """The text tower of a model of images and texts: the embedding of a text.

    Args:
        model: the whole model.
        embed_other: returns the (width,) embedding of an image; None for what is not an image.
    """

    main_input_name = "input_ids"

    def __init__(self, model: Any, embed_other: Callable[[Any], Tensor | None]) -> None:
        super().__init__()
        self.parts, self._whole, self.embed_other = (
            _parts(model, "text_model", "text_projection"),
            (model,),
            embed_other,
        )
        self.config = _config_of(model, "text_config")
        self.training = False

    def get_input_embeddings(self) -> nn.Module:
        """The table of token embeddings."""
        table: nn.Module = self._whole[0].text_model.get_input_embeddings()
        return table

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """{"text_embeds": (batch, width), "last_hidden_state": (batch, tokens, width)}."""
        outputs = self._whole[0].get_text_features(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids
        )
        return {"text_embeds": outputs.pooler_output, "last_hidden_state": outputs.last_hidden_state}


class ImageTower(nn.Module):
    """The image tower of a model of images and texts: the embedding of an image.

    Args:
        model: the whole model.
        embed_other: returns the (width,) embedding of a text; None for what is not a text.
    """

    main_input_name = "pixel_values"

    def __init__(self, model: Any, embed_other: Callable[[Any], Tensor | None]) -> None:
        super().__init__()
        self.parts, self._whole, self.embed_other = (
            _parts(model, "vision_model", "visual_projection"),
            (model,),
            embed_other,
        )
        self.config = _config_of(model, "vision_config")
        self.training = False

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """{"image_embeds": (batch, width), "last_hidden_state": (batch, positions, width)}."""
        outputs = self._whole[0].get_image_features(pixel_values=pixel_values)
        return {"image_embeds": outputs.pooler_output, "last_hidden_state": outputs.last_hidden_state}


def tower_of(runner: EncoderRunner, inputs: object, *targets: object) -> EncoderRunner:
    """The runner of the tower that reads these inputs; for other models, tensors and images with labels `runner`.

    Texts are read by the text tower. Images are read by the image tower where they are explained by their similarity to
    something; without it they need candidate labels.

    Args:
        runner: runs the model, of any kind.
        inputs: as the caller passed them.
        targets: what is explained: targets, and lists of them.

    Raises:
        InvalidInputError: texts for a model whose text tower reads texts that are padded to one length.
    """
    if not is_dual_encoder(runner.model) or isinstance(inputs, Mapping):
        return runner
    first = inputs[0] if isinstance(inputs, list | tuple) and inputs else inputs
    if _is_picture(first):
        if not any(map(_is_similarity, targets)):
            return runner
        tower: nn.Module = ImageTower(runner.model, lambda other: _embed_text(runner, other))
    elif not isinstance(first, str | tuple):
        return runner
    elif _reads_padding(runner):
        raise InvalidInputError(
            f"inputs: {runner.class_name} reads texts that are padded to one length, so that the words of a text "
            "cannot be explained without its padding. Pass images, with candidate_labels=[...] or "
            "target=similarity('text')."
        )
    else:
        tower = TextTower(runner.model, lambda other: _embed_image(runner, other))
    inner = EncoderRunner(tower, runner.tokenizer)
    inner.processor, inner.source = runner.processor, runner.source
    return inner


def _parts(model: Any, *names: str) -> nn.ModuleDict:
    """The modules of one tower; the whole model is kept beside them, as an attribute that is no module."""
    return nn.ModuleDict({name: getattr(model, name) for name in names if hasattr(model, name)})


def _config_of(model: Any, part: str) -> Any:
    """A copy of the configuration of a tower, with the name of the whole model."""
    config = copy.deepcopy(getattr(model.config, part))
    config._name_or_path = getattr(model.config, "_name_or_path", "")
    return config


def _is_similarity(target: object) -> bool:
    """Whether this is the target `similarity`, as an object or as a call, or a list that holds it."""
    if isinstance(target, list | tuple):
        return any(map(_is_similarity, target))
    name = target.partition("(")[0].strip() if isinstance(target, str) else getattr(target, "kind", "")
    return bool(name == "similarity")


def _is_picture(value: object) -> bool:
    """Whether this is an image, an array of one, or the path of a file."""
    is_file = isinstance(value, str) and len(value) < MOST_OF_A_PATH and os.path.isfile(value)
    return is_image(value) or is_file or isinstance(value, os.PathLike) or hasattr(value, "ndim")


def _reads_padding(runner: EncoderRunner) -> bool:
    return "siglip" in getattr(runner.config, "model_type", "")


def _embed_image(runner: EncoderRunner, other: object) -> Tensor | None:
    """(width,) embedding of an image by the whole model; None for another object."""
    if not _is_picture(other) or isinstance(other, Tensor):
        return None
    tower = EncoderRunner(ImageTower(runner.model, lambda other: None), runner.tokenizer)
    tower.processor = runner.processor
    encoded, _ = tower.encode(other)
    with tower.session(), torch.no_grad():
        embedding: Tensor = tower.forward(tower.collate(encoded))["image_embeds"][0]
    return embedding


def _embed_text(runner: EncoderRunner, other: object) -> Tensor | None:
    """(width,) embedding of a text by the whole model; None for another object."""
    if not isinstance(other, str) or _is_picture(other):
        return None
    return _text_embeddings(runner, [other], {})[1][0]


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
    arguments, embeddings = _text_embeddings(runner, texts, settings.get("tokenizer_kwargs", {}))
    with runner.session(), torch.no_grad():
        embeddings = embeddings / embeddings.norm(p=2, dim=-1, keepdim=True)
        tower = ImageTextClassifier(runner.model, embeddings, labels, _reads_padding(runner))
        _check(runner.model, tower, arguments)
    inner = EncoderRunner(tower, runner.tokenizer)
    inner.processor, inner.source = runner.processor, runner.source
    return inner


def _text_embeddings(
    runner: EncoderRunner, texts: list[str], options: Mapping[str, Any]
) -> tuple[dict[str, Tensor], Tensor]:
    """The arguments of the text tower for these texts, padded as in training, and (texts, width) embeddings."""
    padding: dict[str, Any] = {"padding": True}
    if _reads_padding(runner):
        padding = {"padding": "max_length", "max_length": 64, "truncation": True}
    encoded = runner.require_tokenizer()(texts, return_tensors="pt", **padding, **options)
    arguments = {key: value.to(runner.device) for key, value in encoded.items() if key != "token_type_ids"}
    model: Any = runner.model
    with runner.session(), torch.no_grad():
        features = model.get_text_features(**arguments)
    return arguments, features if isinstance(features, Tensor) else features.pooler_output


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
