"""Where the input of a model can be replaced: its token embeddings, or the states that enter its first layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_attn_mi.capture import first_layer
from hf_attn_mi.capture.function_mode import FunctionMode
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.methods.batch import ScoringBatch
from hf_attn_mi.methods.captum.options import WITHOUT_TOKEN
from hf_attn_mi.models.output_tests import float_outputs, same_tokens
from hf_attn_mi.models.positions import channels_last
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.token_origins import TokenOrigins
from hf_attn_mi.models.token_table import TokenTable, find_table


class InputSite(Protocol):
    """A place at which every token of the input has a vector that can be replaced.

    Attributes:
        embeddings: (batch, tokens, hidden) of the unchanged inputs, float32 or wider, detached.
        space: the name of the space that the scores are defined on.
        notes: what the reader of the scores should know.
    """

    embeddings: Tensor
    space: str
    notes: list[str]

    def baseline(self, choice: str | None) -> tuple[Tensor, str]:
        """The replacement of a removed token, broadcast to (batch, tokens, hidden), and its name.

        Raises:
            InvalidInputError: the model has no such baseline.
        """

    def run(self, arguments: Mapping[str, Any], embeddings: Tensor) -> Any:
        """The outputs of a pass over the arguments with these (rows, tokens, hidden) embeddings instead."""


class TokenEmbeddings:
    """The embeddings of tokens: replaced where the model looks the token ids up, or as the argument inputs_embeds.

    Whatever the model reads off the ids (positions, masks, the last token) is that of the original text.

    Args:
        runner: runs the model, inside a `session`.
        batch: a batch with input_ids, inputs or inputs_embeds.
        compiled: run the compiled form of a model that the caller has compiled; for methods without gradients.

    Raises:
        InvalidInputError: the arguments hold no tokens.
        UnsupportedModelError: the model looks the ids up in no table of embeddings, or in several.
    """

    space = "word embeddings"

    def __init__(self, runner: EncoderRunner, batch: ScoringBatch, *, compiled: bool = False) -> None:
        self.runner, self.arguments, self.compiled = runner, batch.arguments, compiled
        key = next((key for key in ("inputs_embeds", "input_ids", "inputs") if key in batch.arguments), None)
        if key is None:
            raise InvalidInputError(
                "inputs: this method needs tokens (input_ids or inputs_embeds); use method='relevance'."
            )
        self.key, tokens = key, batch.arguments[key]
        self.table = None if tokens.is_floating_point() else find_table(runner, batch.arguments)
        if key == "inputs_embeds":
            embeddings = tokens.detach()
        elif self.table is None:
            raise UnsupportedModelError(
                f"{runner.class_name} looks its token ids up in no table of embeddings, or in several, so this method "
                "has no input to change. Use method='relevance', or pass inputs_embeds."
            )
        else:
            with torch.no_grad():
                embeddings = self.table.rows(tokens)
            if not isinstance(embeddings, Tensor):  # I-BERT: with a scale of quantization
                raise UnsupportedModelError(
                    f"{runner.class_name}: its table of embeddings gives a {type(embeddings).__name__}, so this method "
                    "has no input to change. Use method='relevance'."
                )
        self.embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        self.notes = list[str]()
        self._by_argument: bool | None = None

    def baseline(self, choice: str | None) -> tuple[Tensor, str]:
        """The embedding of the pad or mask token, or zero; None for "pad" where the model has such a token."""
        if choice in WITHOUT_TOKEN:
            raise InvalidInputError(
                f"options['baseline'] is {choice!r}, which leaves tokens out: only methods that run the model on sets "
                "of tokens can do that, and not those that take gradients. Pass 'pad', 'mask' or 'zero'."
            )
        ids = {"pad": getattr(self.runner.config, "pad_token_id", None), "mask": self.runner.mask_token_id}
        if choice is None:
            choice = "pad" if self._row(ids["pad"]) is not None else "zero"
        row = torch.zeros_like(self.embeddings[0, 0]) if choice == "zero" else self._row(ids.get(choice))
        if row is None:
            raise InvalidInputError(
                f"options['baseline'] is {choice!r}, but {self.runner.class_name} or its tokenizer has no such "
                "token; pass 'zero'."
            )
        return row, "zero embedding" if choice == "zero" else f"embedding of the {choice} token (id {ids[choice]})"

    def _row(self, number: int | None) -> Tensor | None:
        table = self.table or find_table(self.runner, self.arguments)
        if table is None or number is None or not 0 <= number < table.size:
            return None
        with torch.no_grad():
            row: Tensor = table.rows(torch.tensor([[number]], device=self.runner.device))[0, 0]
        return row.to(self.embeddings)

    def run(self, arguments: Mapping[str, Any], embeddings: Tensor) -> Any:
        """See `InputSite.run`.

        Raises:
            UnsupportedModelError: the model does not look the ids up.
        """
        tokens = arguments[self.key]
        if self.key == "inputs_embeds":
            forward = self.runner.replay if self.compiled else self.runner.forward
            return forward({**arguments, self.key: embeddings.to(tokens.dtype)})
        if self.compiled and self.runner.compiled is not None and self._takes_argument():
            return self._run_by_argument(arguments, embeddings)
        return self._run_replaced(arguments, embeddings)

    def _run_by_argument(self, arguments: Mapping[str, Any], embeddings: Tensor) -> Any:
        """A pass of the compiled model, with inputs_embeds in place of the ids."""
        others = {key: value for key, value in arguments.items() if key != self.key}
        return self.runner.replay({**others, "inputs_embeds": embeddings.to(self.runner.dtype)})

    def _takes_argument(self) -> bool:
        """Whether the compiled model says the same about inputs_embeds as the model whose embeddings are replaced.

        Tried once for each batch, on its inputs with every other embedding set to zero. Models that read more off the
        ids (positions, the end of the text) may differ; there the original model runs, and a note says so.
        """
        if self._by_argument is None:
            changed = self.embeddings.clone()
            changed[:, 1::2] = 0
            try:
                pair = [run(self.arguments, changed) for run in (self._run_replaced, self._run_by_argument)]
                outputs = [float_outputs(one) for one in pair]
                same = len(outputs[0]) == len(outputs[1]) and all(same_tokens(a, b, 0, 0) for a, b in zip(*outputs))
                self._by_argument = self.key == "input_ids" and same
            except UnsupportedModelError:
                self._by_argument = False
            if not self._by_argument:
                self.notes.append(
                    "The compiled model was not used: it does not take embeddings in place of ids with the same "
                    "outputs. The model that it was made from was run."
                )
        return self._by_argument

    def _run_replaced(self, arguments: Mapping[str, Any], embeddings: Tensor) -> Any:
        assert self.table is not None
        replaced = _ReplacedEmbeddings(self.table, arguments, embeddings)
        with replaced, replaced.hooked():
            outputs = self.runner.forward(arguments)
        if not replaced.done:
            raise UnsupportedModelError(
                f"{self.runner.class_name} does not look the token ids up in its table of embeddings, so that no "
                "token can be replaced."
            )
        return outputs


class FirstLayerStates:
    """The states that enter the first layer, one for each patch of an image or frame of a recording.

    Args:
        runner: runs the model, inside a `session`.
        batch: a batch of images or recordings.

    Raises:
        UnsupportedModelError: the model has no layers, or its first layer does not see these positions.
    """

    space = "input of the first layer"

    def __init__(self, runner: EncoderRunner, batch: ScoringBatch) -> None:
        self.runner, self.batch, self.notes = runner, batch, list[str]()
        self.layer = first_layer(runner.model)
        states = self._states(batch.arguments)
        self.shape, self.last = states.shape[1:], states.dim() != 4 or channels_last(states, runner.config)
        flat = self._flat(states)
        count = batch.inputs[0].token_count
        if flat.shape[:2] != (len(batch), count):
            raise UnsupportedModelError(
                f"{runner.class_name}: its first layer sees states of shape {tuple(states.shape)}, not {count} "
                f"positions of {len(batch)} inputs, so that none can be replaced. Use method='relevance'."
            )
        self.embeddings = flat.to(torch.promote_types(flat.dtype, torch.float32))

    def baseline(self, choice: str | None) -> tuple[Tensor, str]:
        """The states of an input of zeros ("blank", the default), which keep their positions; or zero states."""
        if choice == "zero":
            return torch.zeros_like(self.embeddings[0, 0]), "zero state"
        if choice not in (None, "blank"):
            raise InvalidInputError(
                f"options['baseline'] is {choice!r}, which is for tokens; for images and audio pass 'blank' (an input "
                "of zeros, after the processor's normalization) or 'zero'."
            )
        blank = {
            key: torch.zeros_like(value) if key in MEDIA and value.is_floating_point() else value
            for key, value in self.batch.arguments.items()
        }
        return self._flat(self._states(blank)).to(self.embeddings), "states of an input of zeros"

    def run(self, arguments: Mapping[str, Any], embeddings: Tensor) -> Any:
        """See `InputSite.run`."""
        shaped = embeddings
        if len(self.shape) == 3:
            if self.last:
                shaped = embeddings.reshape(-1, *self.shape)
            else:
                shaped = embeddings.transpose(1, 2).reshape(-1, *self.shape)
        done: list[bool] = []

        def replace(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if done:
                return None
            done.append(True)
            if args:
                return (shaped.to(args[0].dtype), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": shaped.to(kwargs["hidden_states"].dtype)}

        handle = self.layer.register_forward_pre_hook(replace, with_kwargs=True)
        try:
            return self.runner.forward(arguments)
        finally:
            handle.remove()

    def _states(self, arguments: Mapping[str, Any]) -> Tensor:
        embeddings: list[Tensor] = []

        def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
            embeddings.append((args[0] if args else kwargs["hidden_states"]).detach())

        handle = self.layer.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            with torch.no_grad():
                self.runner.forward(arguments)
        finally:
            handle.remove()
        return embeddings[0]

    def _flat(self, states: Tensor) -> Tensor:
        """(batch, positions, hidden) of states or of a feature map with channels first or last."""
        if states.dim() != 4:
            return states
        return states.flatten(1, 2) if self.last else states.flatten(2).transpose(1, 2)


MEDIA = ("pixel_values", "input_values", "input_features", "inputs", "pixel_values_videos")


class _ReplacedEmbeddings(FunctionMode):
    """Other embeddings wherever the model looks up the token ids of the input.

    Args:
        table: where it looks them up.
        arguments: the keyword arguments of the forward pass.
        embeddings: (n, tokens, hidden) to use instead.
    """

    def __init__(self, table: TokenTable, arguments: Mapping[str, Any], embeddings: Tensor) -> None:
        super().__init__()
        self.table, self.embeddings, self.done = table, embeddings, False
        self.origins = TokenOrigins(arguments)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Replace the result of the table's module where its weight cannot be recognized."""
        if self.table.weight is not None:
            yield
            return

        def after(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
            return self._placed(args[0] if args else next(iter(kwargs.values())), output)

        handle = self.table.module.register_forward_hook(after, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is not F.embedding:
            self.origins.observe(func, args, kwargs, result)
            return result
        table_weight, weight = self.table.weight, args[1] if len(args) > 1 else kwargs["weight"]
        if table_weight is None or weight.data_ptr() != table_weight.data_ptr() or weight.shape != table_weight.shape:
            return result
        return self._placed(args[0] if args else kwargs["input"], result)

    def _placed(self, ids: Tensor, original: Tensor) -> Tensor:
        places = self.origins.of_main(ids)
        if places is None:
            return original
        mine = places >= 0
        if not bool(mine.any()):
            return original
        self.done = True
        rows = self.embeddings.to(original.dtype).flatten(0, 1)[places.clamp_min(0)]
        return torch.where(mine[..., None], rows, original)
