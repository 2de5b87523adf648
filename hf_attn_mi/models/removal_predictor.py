"""The probability of each input's class, on the input and on versions of it with tokens taken out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture import eager_stance, model_lock
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import Probabilities, remove_tokens
from hf_attn_mi.methods.captum import out_of_memory
from hf_attn_mi.models.batching import length_buckets, padding_id, stack
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.loading import device_of, evaluation_mode
from hf_attn_mi.models.padding import ignores_padding
from hf_attn_mi.models.targets import ExplainedTarget, Target


@dataclass
class RemovalPredictor:
    """Runs the model for the metrics.

    Attributes:
        model: the bare model.
        examples: the inputs, with `special` known.
        wanted: class number for each input (None: the predicted one), or the caller's function.
        batch_size: sequences in one forward; halved where memory runs out.
        removal: how tokens are taken out; see `remove_tokens`.
        mask_id: of the mask token, for removal="mask".
        mixed: whether sequences of different length may share a batch.
        classes: what is explained for each input.
        sequences: that were run so far.
        notes: what the reader should know.
    """

    model: nn.Module
    examples: list[EncodedInput]
    wanted: Any
    batch_size: int
    removal: str = "delete"
    mask_id: int | None = None
    mixed: bool = field(init=False)
    classes: list[ExplainedTarget] = field(init=False)
    sequences: int = 0
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.removal == "attention_mask":
            _refuse_unmaskable(self.model)
        for i, example in enumerate(self.examples):
            _check(example, i)
        self.mixed = _mixable(self.model, self.examples)
        found = self._run(self.examples, self.wanted if callable(self.wanted) else list(self.wanted))
        self.classes = [explained for _, explained in found]

    def probabilities(self, number: int) -> Probabilities:
        """Return the probabilities of this input, to be shared by all methods and metrics."""
        example = self.examples[number]
        special = torch.tensor(example.special)

        def predict(versions: Sequence[dict[str, Tensor]]) -> Tensor:
            cut = [replace(example, tensors=dict(x), length=int(x["input_ids"].shape[0])) for x in versions]
            aims = self.wanted if callable(self.wanted) else [self.classes[number].target] * len(cut)
            return torch.tensor([value for value, _ in self._run(cut, aims)], dtype=torch.float64)

        return Probabilities(predict, example.tensors, special, removal=self.removal, mask_id=self.mask_id)

    def _run(self, examples: list[EncodedInput], aims: Any) -> list[tuple[float, ExplainedTarget]]:
        """For each example the probability (or the value, where there is none) and what was explained."""
        found: dict[int, tuple[float, ExplainedTarget]] = {}
        queue = list(length_buckets([int(e.length or 0) for e in examples], self.batch_size, mixed=self.mixed))
        while queue:
            places = queue.pop(0)
            mine = aims if callable(aims) else [aims[i] for i in places]
            try:
                found.update(zip(places, self._batch([examples[i] for i in places], mine)))
                continue
            except RuntimeError as error:
                if not out_of_memory(error) or len(places) == 1:
                    raise
            # Outside `except`, where the error no longer holds the tensors of the failed pass.
            half = (len(places) + 1) // 2
            self.batch_size = min(self.batch_size, half)
            self.notes[:] = [f"Memory ran out: the batches of the metrics were halved to {self.batch_size}."]
            queue[:0] = [places[:half], places[half:]]
        return [found[i] for i in range(len(examples))]

    def _batch(self, examples: list[EncodedInput], aims: Any) -> list[tuple[float, ExplainedTarget]]:
        arguments: dict[str, Any] = dict(stack(examples, padding_id(self.model) or 0, device_of(self.model)))
        if getattr(getattr(self.model, "config", None), "return_dict", True) is False:
            arguments["return_dict"] = True
        aim = Target(aims, self.model)
        with torch.no_grad(), model_lock(self.model), eager_stance(self.model), evaluation_mode(self.model):
            values = aim(self.model(**arguments)).detach().double().cpu().tolist()
        if len(values) != len(examples):
            raise InvalidInputError(
                f"target: the function returned {len(values)} values for {len(examples)} inputs, not one for each."
            )
        self.sequences += len(examples)
        known = [explained.probability for explained in aim.explained]
        return [(v if p is None else p, e) for v, p, e in zip(values, known, aim.explained)]


def _check(example: EncodedInput, index: int) -> None:
    if example.length is None or "input_ids" not in example.tensors:
        raise InvalidInputError(
            f"inputs[{index}] has {', '.join(example.tensors)}: tokens are taken out by their ids. Pass texts, or "
            "input_ids and tokenizer=..."
        )
    if example.special is None:
        raise InvalidInputError(
            f"inputs[{index}]: which of its tokens are special is not known. Pass texts, or input_ids and tokenizer=..."
        )


def _mixable(model: nn.Module, examples: list[EncodedInput]) -> bool:
    """Whether padding on the right changes nothing; tried on the longest input beside a shortened one."""
    pad = padding_id(model)
    longest = max(examples, key=lambda example: int(example.length or 0))
    free = [i for i, special in enumerate(longest.special or ()) if not special]
    if pad is None or len(free) < 2:
        return False
    shorter = remove_tokens(longest.tensors, free[len(free) // 2 :])
    cut = replace(longest, tensors=shorter, length=int(shorter["input_ids"].shape[0]))
    return ignores_padding(model, [cut, longest], pad)


def _refuse_unmaskable(model: nn.Module) -> None:
    if "attention_mask" not in inspect.signature(model.forward).parameters:
        raise InvalidInputError(
            f"removal='attention_mask': {type(model).__name__}.forward has no attention_mask; use 'delete' or 'mask'."
        )
