"""`EncoderRunner`: the object that represents a model while it is run."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hf_attn_mi._version import library_versions
from hf_attn_mi.capture import eager_stance, is_compiled, model_lock, unwrap
from hf_attn_mi.capture.model_cache import cached, runs_own_code
from hf_attn_mi.capture.model_state import visible_attention
from hf_attn_mi.capture.module_walk import modules_of
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.models.encode import encode_tensors, encode_texts, forward_parameters
from hf_attn_mi.models.encoded_input import EncodedInput, EncodedInputs, batches_by_length, collate
from hf_attn_mi.models.loading import check_tokenizer, input_embedding, load_tokenizer
from hf_attn_mi.models.media import check_media_options, encode_media
from hf_attn_mi.models.model_call import call_model, has_hooks
from hf_attn_mi.models.model_probe import notes_of
from hf_attn_mi.models.multiple_choice import encode_choices, refuse_several_choices, takes_choices
from hf_attn_mi.models.output_heads import OutputHead
from hf_attn_mi.models.padding import padding_is_ignored, trim_padding
from hf_attn_mi.models.positions import with_positions_named
from hf_attn_mi.models.row_independence import agrees_with_rows_alone, answers_rows_alone, rows_as_answered
from hf_attn_mi.models.switched_attention import refuse_other_attention
from hf_attn_mi.models.tensor_inputs import with_positions
from hf_attn_mi.models.weights import fingerprint, holds_meta_weights, refuse_nonfinite_weights
from hf_attn_mi.models.wrappers import device_hook, refuse_default_device, refuse_scripted, unwrap_object

Value = TypeVar("Value")
SPECIAL_NEEDED = "special tokens are never removed, and it says which of the input's tokens these are"


class EncoderRunner:
    """A model together with everything that is needed to run it: tokenizer, padding, device, lock, caches.

    Every forward pass of the package goes through `forward`. The model is left as it was: `session` restores the
    training flags and lets only one thread at a time use the model.

    Args:
        model: the unwrapped module; use `EncoderRunner.of` for anything else.
        tokenizer: the tokenizer for texts; None if none was passed. See `require_tokenizer`.

    Attributes:
        model: the unwrapped module.
        tokenizer: as above.
        processor: the processor for images and audio; None if none was passed. See `models.media.find_processor`.
        sampling_rate: the rate of recordings that are passed as arrays.
        tokenizer_options: what a pipeline passes to its tokenizer, such as truncation and max_length.
        output_head: how a pipeline turns logits into scores; None for the registered output heads.
        default_target: the pipeline's answer, as a target string; None for the default of the outputs.
        source: the pipeline or other object that the model was taken from; None for a bare model.
        compiled: the model as the caller has compiled it, by torch.compile; None for other models. See `replay`.

    Example:
        >>> runner = EncoderRunner.of(model)                                      # doctest: +SKIP
        >>> inputs, _ = runner.encode(["A quietly moving film."])                 # doctest: +SKIP
        >>> with runner.session(), torch.no_grad():                               # doctest: +SKIP
        ...     outputs = runner.forward(runner.collate(inputs))
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.processor: Any = None
        self.sampling_rate: int | None = None
        self.tokenizer_options: dict[str, Any] = {}
        self.output_head: OutputHead | None = None
        self.default_target: str | None = None
        self.source: Any = None
        self.compiled: nn.Module | None = model if is_compiled(model) else None
        self._encoded: list[EncodedInput] = []
        self._notes: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls, model: Any, tokenizer: Any = None, *, processor: Any = None, sampling_rate: int | None = None
    ) -> EncoderRunner:
        """The runner of whatever a caller passes as `model`.

        Args:
            model: a module, a transformers pipeline, a model of sentence-transformers or SetFit, or a model wrapped by
                torch.compile, accelerate or data parallelism.
            tokenizer: the tokenizer for texts; by default that of the pipeline.
            processor: the processor for images and audio; by default that of the pipeline. One that holds a tokenizer
                serves texts too.
            sampling_rate: the rate of recordings that are passed as arrays.

        Raises:
            InvalidInputError: not a model, weights on the meta device, weights with NaN or infinite entries, or a
                default device of torch other than the CPU.
        """
        refuse_default_device()
        unwrapped = unwrap_object(model)
        tokenizer = unwrapped.tokenizer if tokenizer is None else tokenizer
        processor = unwrapped.processor if processor is None else processor
        if unwrapped.processor is not None:  # a pipeline takes arrays at the rate of its processor
            sampling_rate = sampling_rate or getattr(processor, "sampling_rate", None)
        check_tokenizer(tokenizer)
        check_media_options(processor, sampling_rate)
        module = unwrap(unwrapped.model)
        refuse_scripted(module)
        if holds_meta_weights(module) and device_hook(module) is None:
            raise InvalidInputError(
                f"model: the weights of {type(module).__name__} are on the meta device, so nothing can be computed. "
                "Load them with from_pretrained, or call model.to_empty(device=...) and load a state dict."
            )
        refuse_nonfinite_weights(module)
        runner = cls(module, getattr(processor, "tokenizer", None) if tokenizer is None else tokenizer)
        runner.processor, runner.sampling_rate = processor, sampling_rate
        runner.tokenizer_options, runner.output_head = dict(unwrapped.tokenizer_options), unwrapped.output_head
        runner.default_target, runner.source = unwrapped.default_target, unwrapped.source
        if is_compiled(unwrapped.model):
            runner.compiled = unwrapped.model
        return runner

    # --- what the model is -------------------------------------------------------------------------------------

    @property
    def config(self) -> Any:
        """The model's configuration; None if there is none."""
        return getattr(self.model, "config", None)

    @property
    def class_name(self) -> str:
        """Name of the model's class, for messages."""
        return type(self.model).__name__

    @property
    def name(self) -> str:
        """Hub name of the model or the last part of its path, else its class."""
        name = getattr(self.config, "_name_or_path", "") or ""
        if Path(name).is_absolute() or Path(name).exists():
            name = Path(name).name
        return name or self.class_name

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device on which accelerate runs an offloaded model, else that of the first weight."""
        hook = device_hook(self.model)
        device = getattr(hook, "execution_device", None)
        if device is not None:
            return torch.device(device)
        return next((p.device for p in self.model.parameters() if not p.is_meta), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The data type of the first floating-point parameter."""
        return next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)

    @property
    def pad_id(self) -> int | None:
        """The model's own id to pad with; None if it could not tell padding from tokens."""
        pad_id = getattr(self.config, "pad_token_id", None)
        return pad_id if isinstance(pad_id, int) and pad_id >= 0 else None

    @property
    def mask_token_id(self) -> int | None:
        """The tokenizer's id of the mask token; None if there is none."""
        mask_id = getattr(self.tokenizer, "mask_token_id", None)
        return int(mask_id) if isinstance(mask_id, int) else None

    @property
    def encoder_prefix(self) -> str:
        """Name of the encoder's module inside an encoder-decoder; "" for every other model."""
        if not getattr(self.config, "is_encoder_decoder", False):
            return ""
        return next((name for name, _ in self.model.named_modules() if name.rpartition(".")[2] == "encoder"), "")

    @property
    def input_embedding(self) -> nn.Embedding | None:
        """The table in which token ids are looked up; None if the model names none."""
        return input_embedding(self.model)

    def takes(self, *names: str) -> bool:
        """Whether the model's forward has an argument of this name, or of one of these names."""
        parameters = forward_parameters(self.model)
        return any(name in parameters for name in names)

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the configuration and of the weights; see `models.weights.fingerprint`."""
        return fingerprint(self.model)

    def cached(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value of `compute()`, kept until the model changes; see `capture.model_cache.cached`."""
        return cached(self.model, key, compute)

    def provenance(self) -> dict[str, Any]:
        """Facts about the model and the software versions that every result stores."""
        return {
            "model": self.name,
            "model_type": getattr(self.config, "model_type", self.class_name),
            "dtype": str(next((p.dtype for p in self.model.parameters()), torch.float32)).removeprefix("torch."),
            "versions": library_versions(),
        }

    # --- inputs ------------------------------------------------------------------------------------------------

    def require_tokenizer(self, need: str = "") -> Any:
        """The tokenizer; loaded from the model's own path where none was passed.

        Args:
            need: see `load_tokenizer`.

        Raises:
            InvalidInputError: the model does not name its path, or there is no tokenizer there.
        """
        if self.tokenizer is None:
            self.tokenizer = load_tokenizer(self.model, need)
        return self.tokenizer

    def encode(
        self, inputs: Any, *, truncation: bool = False, special_known: bool = False, is_split_into_words: bool = False
    ) -> tuple[list[EncodedInput], bool]:
        """The encoded inputs, and whether a single one was passed; see `encode_each`, which can skip inputs."""
        encoded = self.encode_each(
            inputs, truncation=truncation, special_known=special_known, is_split_into_words=is_split_into_words
        )
        return encoded.inputs, encoded.single

    def encode_each(
        self,
        inputs: Any,
        *,
        truncation: bool = False,
        special_known: bool = False,
        is_split_into_words: bool = False,
        skip: bool = False,
    ) -> EncodedInputs:
        """The encoded inputs, with their places in what the caller passed.

        Args:
            inputs: a text, a pair (tuple) of texts, a list of either, or a mapping of tensors.
            truncation: cut texts that are longer than the model's maximum, with a warning that names the cut.
            special_known: load the tokenizer for token ids, too, if that is needed to know which are special.
            is_split_into_words: texts are lists of words.
            skip: keep inputs of a list that cannot be encoded in `failures`, instead of raising.

        Raises:
            InvalidInputError: empty, of the wrong type, too long, or with ids that the model does not have.
        """
        encode = partial(
            self._encode_rows,
            truncation=truncation,
            special_known=special_known,
            is_split_into_words=is_split_into_words,
            skip=skip,
        )
        encoded = encode_choices(encode, inputs) if takes_choices(self.model) else encode(inputs)
        if encoded.inputs:
            refuse_other_attention(self, encoded.inputs[0])
            self._encoded = encoded.inputs[:1]
            self._notes = notes_of(self, self._encoded, run=False)  # here the state of the model was read anyway
        return encoded

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks that every result of this model must show; the model is probed if no pass has done so."""
        if self._notes is None and self._encoded:
            self._notes = notes_of(self, self._encoded) or ()
        return self._notes or ()

    def _encode_rows(
        self, inputs: Any, *, truncation: bool, special_known: bool, is_split_into_words: bool, skip: bool
    ) -> EncodedInputs:
        media = encode_media(self, inputs, skip=skip)
        if media is not None:
            return replace(media, inputs=[with_positions_named(self, one) for one in media.inputs])
        if not isinstance(inputs, Mapping) or isinstance(inputs.get("text"), str):
            return encode_texts(
                inputs,
                self.model,
                self.require_tokenizer,
                truncation=truncation,
                is_split_into_words=is_split_into_words,
                tokenizer_options=self.tokenizer_options,
                skip=skip,
            )
        if is_split_into_words:
            raise InvalidInputError("is_split_into_words=True is for lists of words; inputs is a mapping of tensors.")
        encoded = encode_tensors(inputs, self.model, self.tokenizer, skip=skip)
        if special_known and any(one.special is None and "input_ids" in one.tensors for one in encoded.inputs):
            encoded = encode_tensors(inputs, self.model, self.require_tokenizer(SPECIAL_NEEDED), skip=skip)
        trimmed = rows_as_answered(self, encoded.inputs, [trim_padding(self, one) for one in encoded.inputs])
        trimmed = [with_positions_named(self, one) for one in trimmed]
        if any("position_ids" in one.tensors for one in trimmed):  # every row states its positions, or none
            trimmed = [with_positions(one) for one in trimmed]
        return replace(encoded, inputs=trimmed)

    def collate(self, inputs: Sequence[EncodedInput]) -> dict[str, Tensor]:
        """The arguments of one forward pass over these inputs, padded on the right, on the model's device."""
        refuse_several_choices(inputs)
        arguments = collate(inputs, self.pad_id or 0, self.device)
        if "attention_mask" not in inputs[0].tensors and not self.takes("attention_mask", "kwargs"):
            arguments.pop("attention_mask", None)
        return arguments

    def batches(self, inputs: Sequence[EncodedInput], size: int) -> list[list[int]]:
        """Positions of the inputs of each batch; inputs of different length share one where padding changes nothing."""
        if size == 1 or len(inputs) < 2 or not self.takes_batches(inputs[0]):
            return [[i] for i in range(len(inputs))]  # in the caller's order
        return self.apart(inputs, batches_by_length(inputs, size, mixed=self.mixes_lengths(inputs)))

    def apart(self, inputs: Sequence[EncodedInput], batches: Iterable[list[int]]) -> list[list[int]]:
        """These batches of positions, taken apart where the model says something else about one of the inputs alone.

        Compared are the batches of models that run code of the caller: what it does may depend on what the inputs are.
        """
        own_code, found = runs_own_code(self.model), list[list[int]]()
        for batch in batches:
            whole = not own_code or agrees_with_rows_alone(self, [inputs[i] for i in batch])
            found += [batch] if whole else [[i] for i in batch]
        return found

    def mixes_lengths(self, inputs: Sequence[EncodedInput]) -> bool:
        """Whether inputs of different length may share a batch; False where all have the same length."""
        lengths = {one.length for one in inputs}
        return self.pad_id is not None and len(lengths) > 1 and self.ignores_padding(inputs)

    def takes_batches(self, one: EncodedInput) -> bool:
        """Whether the model takes more than one row in a pass, and answers each on its own; tried once.

        Decoders that classify by the last token refuse batches where they could not tell padding from tokens. For
        models whose rows depend on each other see `models.row_independence`.
        """

        def accepts() -> bool:
            if self.pad_id is None:
                try:
                    with self.session(), torch.no_grad():
                        self.forward(self.collate([one, one]))
                except UnsupportedModelError:
                    return False
            return answers_rows_alone(self, one)

        return self.cached("takes_batches", accepts)

    def ignores_padding(self, inputs: Sequence[EncodedInput]) -> bool:
        """Whether inputs of these lengths give the same outputs alone and padded on the right; see `models.padding`."""
        if self.pad_id is None or not self.takes("attention_mask", "kwargs") or inputs[0].length is None:
            return False
        return padding_is_ignored(self, inputs)

    # --- running -----------------------------------------------------------------------------------------------

    @contextmanager
    def session(self, *, visible: bool = True) -> Iterator[None]:
        """Inside, the model is in evaluation mode, compiled code runs eagerly, and this thread alone uses the model.

        The mode "inference" is switched off, since no gradient can be taken in it. Attention that cannot be traced is
        switched (`visible_attention`), so that every pass of a result runs the same attention.

        Args:
            visible: False leaves the attention as it is.
        """
        # inference_mode(False) switches gradients on, so it is entered only where it is needed.
        inference = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
        attention = visible_attention(self.model) if visible else nullcontext()
        with inference, attention, model_lock(self.model), eager_stance(self.model):
            training = [module for module in modules_of(self.model) if module.training]
            try:
                for module in training:
                    module.training = False
                yield
            finally:
                for module in training:
                    module.training = True

    def forward(self, arguments: Mapping[str, Any]) -> Any:
        """The outputs of one forward pass, with names where the model can give them.

        Call it inside `session`; gradients are the caller's choice. What the model's own code raises because of its
        arguments becomes an `UnsupportedModelError`; memory that ran out is raised as it is.

        Args:
            arguments: keyword arguments of the model's forward, such as `collate` makes them.
        """
        return call_model(self.model, arguments)

    def replay(self, arguments: Mapping[str, Any]) -> Any:
        """Like `forward`, by the compiled form of a model that the caller has compiled.

        For passes that only read the outputs. While a module has hooks, also those of the caller, the original model
        runs: a compiled graph may leave them out.
        """
        if self.compiled is None or any(map(has_hooks, modules_of(self.model))):
            return self.forward(arguments)
        with torch.compiler.set_stance("default"):  # `session` has chosen "force_eager"
            return call_model(self.model, arguments, self.compiled)
