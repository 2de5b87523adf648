"""Any Hugging Face encoder with an attention head on top, as a transformers model; its loss and its registration."""

from __future__ import annotations

import inspect
import os
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    PreTrainedModel,
)
from transformers.utils import ModelOutput

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.heads.configuration import AttentionHeadConfig, write_card
from hf_attn_mi.heads.head import AttentionHead
from hf_attn_mi.heads.normalizers import read_schedule

ENCODERS = {"AutoModel": AutoModel, "AutoModelForTextEncoding": AutoModelForTextEncoding}
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
HEAD_OPTIONS = (
    "score",
    "normalizer",
    "temperature",
    "hard",
    "heads",
    "queries",
    "score_size",
    "recurrence",
    "recurrence_size",
    "head_dropout",
    "freeze_encoder",
    "problem_type",
)


@dataclass
class AttentionHeadOutput(ModelOutput):  # type: ignore[misc]
    """The output of the model.

    Attributes:
        loss: only with labels.
        logits: (batch, num_labels).
        weights: (batch, heads, queries, tokens), the attention of the head.
        hidden_states: the hidden states of the encoder, on request.
        attentions: the attention weights of the encoder, on request.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    weights: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class AttentionHeadForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    """An encoder, an `AttentionHead` and a loss: saved, loaded, trained and used as any transformers model.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> encoder = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9,
        ...                                intermediate_size=8))
        >>> model = AttentionHeadForSequenceClassification.from_encoder(encoder, num_labels=3, score="deep").eval()
        >>> tuple(model(torch.tensor([[1, 2, 3]])).weights.shape)
        (1, 1, 1, 3)
    """

    config_class = AttentionHeadConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _keys_to_ignore_on_load_missing = [r"encoder\.pooler\."]  # noqa: RUF012 - unused; some encoders have none

    def __init__(self, config: AttentionHeadConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.encoder = ENCODERS[config.encoder_class].from_config(config.encoder) if encoder is None else encoder
        # The encoder keeps its own configuration object: PreTrainedModel resets the attention implementation of the
        # nested one, and with None in it BERT would attend to padding.
        self.config.encoder = self.encoder.config
        self.head = AttentionHead(
            config.hidden_size,
            config.num_labels,
            score=config.score,
            normalizer=config.normalizer,
            temperature=config.head_temperature,
            hard=config.hard,
            heads=config.heads,
            queries=config.queries,
            score_size=config.score_size,
            recurrence=config.recurrence,
            recurrence_size=config.recurrence_size,
            dropout=config.head_dropout,
        )
        if config.freeze_encoder:
            self.encoder.requires_grad_(False)
            self.encoder.eval()
        self.post_init()

    @classmethod
    def from_encoder(
        cls, encoder: str | PreTrainedModel, num_labels: int, *, labels: list[str] | None = None, **options: Any
    ) -> AttentionHeadForSequenceClassification:
        """Return a model with a fresh head on an encoder.

        Args:
            encoder: a name on the Hub, a path, or a model (used itself, not copied).
            num_labels: classes, at least 1; 1 is a regression.
            labels: names of the classes.
            options: the options of `AttentionHead`: score, normalizer, temperature, hard, heads, queries, score_size,
                recurrence, recurrence_size, head_dropout (its dropout); and freeze_encoder, problem_type.

        Raises:
            InvalidInputError: num_labels below 1, another number of names, an unknown option, or a model that is not an
                encoder.
        """
        if isinstance(num_labels, bool) or not isinstance(num_labels, int) or num_labels < 1:
            raise InvalidInputError(f"num_labels is {shown(num_labels)}: an int of at least 1 is allowed")
        unknown = sorted(set(options) - set(HEAD_OPTIONS))
        if unknown:
            raise InvalidInputError(f"options {unknown} are not known; allowed are {', '.join(HEAD_OPTIONS)}")
        if labels is not None and len(labels) != num_labels:
            raise InvalidInputError(f"labels has {len(labels)} names for num_labels = {num_labels}")
        inner = AutoModel.from_pretrained(encoder) if isinstance(encoder, str) else encoder
        options["encoder_class"] = auto_class_of(inner)
        options["head_temperature"] = read_schedule(options.pop("temperature", 1.0)).to_dict()
        if labels is not None:
            options |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
        model = cls(AttentionHeadConfig(encoder=deepcopy(inner.config), num_labels=num_labels, **options), inner)
        model.head.to(device=inner.device, dtype=inner.dtype)
        return model

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        sample: bool = False,
        generator: torch.Generator | None = None,
        return_dict: bool | None = None,
    ) -> AttentionHeadOutput | tuple[Any, ...]:
        """Return logits and the head's weights, with the loss where there are labels.

        Args:
            input_ids: (batch, tokens); or inputs_embeds (batch, tokens, hidden).
            attention_mask: (batch, tokens), 1 for real tokens.
            token_type_ids: passed on if the encoder takes them.
            position_ids: passed on.
            inputs_embeds: embeddings instead of input_ids.
            labels: (batch,) classes, or floats for a regression, or (batch, num_labels) floats for a multi-label model.
            output_hidden_states, output_attentions: whether to return those of the encoder.
            sample: Gumbel noise also in evaluation.
            generator: the source of the noise.
            return_dict: False returns a tuple.

        Raises:
            InvalidInputError: an encoder without last_hidden_state, or an input without a real token.
        """
        arguments = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
            "output_hidden_states": output_hidden_states,
            "output_attentions": output_attentions,
        }
        for name in (
            "token_type_ids",
            "attention_mask",
        ):  # tokenizers return them whether the encoder takes them or not
            if name not in inspect.signature(self.encoder.forward).parameters:
                arguments.pop(name)
        # A frozen encoder still gives gradients in evaluation: explanations need those of the input embeddings.
        with torch.no_grad() if self.config.freeze_encoder and self.training else nullcontext():
            outputs = self.encoder(**{name: value for name, value in arguments.items() if value is not None})
        states = getattr(outputs, "last_hidden_state", None)
        if states is None:
            raise InvalidInputError(f"{type(self.encoder).__name__} returns no last_hidden_state: pass an encoder")
        head = self.head(states, attention_mask, sample=sample, generator=generator)
        loss = None if labels is None else classification_loss(head.logits, labels, self.config.problem_type)
        result = AttentionHeadOutput(
            loss=loss,
            logits=head.logits,
            weights=head.weights,
            hidden_states=getattr(outputs, "hidden_states", None),
            attentions=getattr(outputs, "attentions", None),
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return result if as_dict else result.to_tuple()

    def train(self, mode: bool = True) -> AttentionHeadForSequenceClassification:
        """Set the mode; a frozen encoder stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.config.freeze_encoder:
            self.encoder.eval()
            self.encoder.requires_grad_(False)  # again: from_pretrained creates new parameters and then calls eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's input embeddings."""
        embeddings: nn.Module = self.encoder.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Set the encoder's input embeddings."""
        self.encoder.set_input_embeddings(value)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> None:
        """Save as every model of transformers, with a card that states the head's options.

        Args:
            save_directory: the folder. A card in it that somebody else wrote or changed stays.
            options: as in `PreTrainedModel.save_pretrained`.
        """
        super().save_pretrained(save_directory, **options)
        folder = Path(save_directory)
        if folder.is_dir() and options.get("is_main_process", True):
            write_card(folder, self.config, folder.resolve().name, self.head.temperature)

    def _upload_modified_files(
        self, working_dir: str | os.PathLike[str], repo_id: str, files_timestamps: dict[str, float], **options: Any
    ) -> Any:
        """Upload with a card that states the head's options; `push_to_hub` of transformers ends here."""
        write_card(Path(working_dir), self.config, repo_id, self.head.temperature)
        return super()._upload_modified_files(working_dir, repo_id, files_timestamps, **options)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Called for each module with a missing weight; the nn.init functions leave loaded weights unchanged.
        if module is self.head:
            nn.init.zeros_(self.head.steps_seen)
        elif not any(module is part for part in self.head.modules()):
            self.encoder._init_weights(module)
        elif callable(reset := getattr(module, "reset_parameters", None)):
            reset()


def classification_loss(logits: Tensor, labels: Tensor, problem: str | None = None) -> Tensor:
    """Return the mean cross-entropy (nats) or squared error of a batch.

    Args:
        logits: (batch, num_labels).
        labels: (batch,) integers; floats (batch,) or (batch, 1) for a regression; floats (batch, num_labels) for a
            multi-label model.
        problem: one of `PROBLEM_TYPES`. None decides by the shapes, as transformers does: one logit is a regression,
            floating-point labels are multi-label.

    Raises:
        InvalidInputError: another `problem`.

    Example:
        >>> round(float(classification_loss(torch.zeros(1, 4), torch.tensor([2]))), 4)  # log 4
        1.3863
    """
    if problem is None:
        problem = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
        problem = "regression" if logits.shape[1] == 1 else problem
    if problem not in PROBLEM_TYPES:
        raise InvalidInputError(f"problem_type is {shown(problem)}: one of {', '.join(PROBLEM_TYPES)} is allowed")
    if problem == "regression":
        return functional.mse_loss(logits.flatten(), labels.to(logits.dtype).flatten())
    if problem == "multi_label_classification":
        return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return functional.cross_entropy(logits, labels.long().flatten())


def auto_class_of(encoder: Any) -> str:
    """Return the name of the auto class that builds such an encoder from its configuration.

    Raises:
        InvalidInputError: the model is not an encoder (no hidden_size, or a classification head of its own, hence no
            last_hidden_state), or no auto class would build it again when the saved head is loaded.
    """
    kind, config = type(encoder).__name__, getattr(encoder, "config", None)
    if not isinstance(getattr(config, "hidden_size", None), int):
        raise InvalidInputError(f"{kind} has no config.hidden_size: pass an encoder such as BertModel")
    for name, auto_class in ENCODERS.items():
        mapping = auto_class._model_mapping
        if type(config) not in mapping:
            continue
        classes = mapping[type(config)]
        if isinstance(encoder, classes if isinstance(classes, tuple) else (classes,)):
            return name
    if encoder.base_model is not encoder:
        raise InvalidInputError(
            f"{kind} has a head of its own and returns no last_hidden_state: pass its encoder "
            f"(model.{encoder.base_model_prefix})"
        )
    raise InvalidInputError(
        f"{kind} is not what {' or '.join(ENCODERS)} builds from a {type(config).__name__}, so that a saved head could "
        "not be loaded: pass the encoder that they build, or register the class with AutoModel.register"
    )


def register_auto_classes() -> None:
    """Register the classes with `AutoConfig` and `AutoModelForSequenceClassification`, so that saved heads are loaded.

    Importing `hf_attn_mi` does this (see `hf_attn_mi._auto_registration`); calling it again has no effect.
    """
    AutoConfig.register(AttentionHeadConfig.model_type, AttentionHeadConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(
        AttentionHeadConfig, AttentionHeadForSequenceClassification, exist_ok=True
    )
