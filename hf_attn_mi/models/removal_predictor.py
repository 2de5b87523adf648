"""`RemovalPredictor`: what the model says when some tokens of its inputs are removed.

One object serves everything that runs a model again on changed inputs or masks: the metrics of `compare`, the search of
`minimal_tokens`, `recheck`, and the perturbation methods with the baseline "removed". `Replays` batches its passes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.capture.model_cache import runs_own_code
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from hf_attn_mi.models.encoded_input import EncodedInput, per_token
from hf_attn_mi.models.output_heads import ExplainedTarget, HeadReading, find_logits
from hf_attn_mi.models.removal import remove_tokens
from hf_attn_mi.models.replays import Replays
from hf_attn_mi.models.row_independence import agrees_with_rows_alone
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.target_kinds.base import BoundTarget
from hf_attn_mi.models.targets import Target

# Difference of logits, relative to the largest. Half precision is too coarse to tell a wrong position from rounding, so
# such models are run with masks.
TOKEN_DROPPING_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@dataclass(frozen=True)
class Prediction:
    """The model's answer for one sequence.

    Attributes:
        value: the value of the target: its probability, or the explained value where the target has no probability.
        explained: the target.
        predicted: the class of the largest logit; for independent labels whether this label is assigned (0 or 1);
            None if the output head makes no prediction.
    """

    value: float
    explained: ExplainedTarget
    predicted: int | None


class RemovalPredictor:
    """Runs variants of some inputs and reads the target of each input off them.

    In a variant tokens are masked as keys, or left out.

    Args:
        runner: runs the model.
        inputs: the whole inputs.
        target: one entry for each input; it is settled by the first run over the whole inputs.
        batch_size: maximum number of sequences in one forward pass; fewer where they are long, and halved if memory
            runs out. See `Replays`.

    Attributes:
        sequences: number of sequences run so far; equal variants are run once.
        mixed: whether sequences of different length may share a batch.
        position_offset: position id of the first token where the kept tokens may be run alone instead of masking
            the others; None if all tokens are run with a mask. See `try_token_dropping`.
    """

    removal = "attention mask"  # how tokens are removed
    runs_nothing = False  # whether an input without any of its tokens can be run

    def __init__(self, runner: EncoderRunner, inputs: Sequence[EncodedInput], target: Target, batch_size: int) -> None:
        self.runner, self.inputs, self.target = runner, list(inputs), target
        self._replays: Replays[Prediction] = Replays(runner.device, batch_size)
        self.sequences = 0
        self._bound: dict[int, BoundTarget] = {}
        self.mixed = False
        self.position_offset: int | None = None

    # --- running -----------------------------------------------------------------------------------------------

    def predict(self, variants: Sequence[tuple[int, EncodedInput]]) -> list[Prediction]:
        """The model's answer for each variant, in order.

        Args:
            variants: (index of the input, a variant of it).

        Raises:
            InvalidInputError: outputs that the target cannot be read from.
        """

        def forward(places: list[int]) -> list[Prediction]:
            batch, found = [variants[i] for i in places], list[Prediction]()
            for part in [batch] if self._rows_alone(batch) else [[one] for one in batch]:
                found += self._forward(part)
            return found

        # A function sees one row at a time, without padding.
        alone = self.target.alone or not self.runner.takes_batches(self.inputs[0])
        return self._replays.run(
            [self._key(index, variant) for index, variant in variants],
            [variant.token_count for _, variant in variants],
            forward,
            groups=[self._group(index) for index, _ in variants],
            mixed=self.mixed,
            most=1 if alone else None,
        )

    @property
    def batch_size(self) -> int:
        """Maximum number of sequences in one forward pass, after halving."""
        return self._replays.rows

    @property
    def notes(self) -> list[str]:
        """Remarks for the reader of a result."""
        return self._replays.notes

    def _key(self, index: int, variant: EncodedInput) -> Hashable:
        """The name of a variant: the input, and what was changed of it."""
        whole = self.inputs[index]
        if variant is whole:
            return index
        digest = hashlib.blake2b(repr(variant.origin).encode(), digest_size=16)
        for name, value in sorted(variant.tensors.items()):
            if value is not whole.tensors.get(name):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return index, digest.digest()

    def _rows_alone(self, variants: Sequence[tuple[int, EncodedInput]]) -> bool:
        """Whether the model answers each row of this batch on its own; tried where it runs code of the caller.

        Compared are the rows that are whole inputs, and the shortest, which has the most padding.
        """
        if len(variants) < 2 or not runs_own_code(self.runner.model):
            return True
        rows = [variant for _, variant in variants]
        places = {i for i, (index, variant) in enumerate(variants) if variant is self.inputs[index]}
        places.add(min(range(len(rows)), key=lambda i: rows[i].token_count))
        return agrees_with_rows_alone(self.runner, rows, sorted(places))

    def _forward(self, variants: Sequence[tuple[int, EncodedInput]]) -> list[Prediction]:
        target = self.target.select([index for index, _ in variants], [variant for _, variant in variants])
        arguments = self.runner.collate([variant for _, variant in variants])
        with self.runner.session(), torch.no_grad():
            reading = target.read(self.runner.replay(arguments))
        self.keep_bound([index for index, _ in variants], target)
        self.sequences += len(variants)
        return predictions_of(reading)

    def keep_bound(self, indices: Sequence[int], target: Target) -> None:
        """Keep what the first run of these inputs has settled."""
        if self.target.bound is None and target.bound is not None:
            self._bound.update(zip(indices, target.bound))

    def _group(self, index: int) -> int:
        """Variants of inputs with the same number may share a batch."""
        return 0

    def settle(self, predictions: Sequence[Prediction]) -> None:
        """Keep the targets that were explained for the whole inputs: later runs follow the same classes."""
        self._replays.forget()
        self.target.explained = tuple(one.explained for one in predictions)
        if self._bound:
            self.target.bound = tuple(self._bound[i] for i in range(len(self.inputs)))

    def settle_tokens(self) -> None:
        """Settle targets that read the outputs of single tokens, which have to stay where others are removed.

        Targets that are classes are settled by the first run over the whole inputs.
        """
        if self.target.is_function or self.target.explained is not None:
            return
        stated = self.target.head is not None or any(target is not None for target in self.target.targets)
        key = ("reads_classes", tuple(sorted(self.inputs[0].tensors)))
        if not self.target.reads_rows and (stated or self.runner.cached(key, self._reads_classes)):
            return
        self.settle(self.predict(list(enumerate(self.inputs))))

    def _reads_classes(self) -> bool:
        """Whether the model gives class logits where no target is stated, tried on the first input."""
        first = self.target.select([0]).unsettled()
        with self.runner.session(), torch.no_grad():
            first.read(self.runner.forward(self.runner.collate(self.inputs[:1])))
        return first.bound is None

    # --- variants by attention masks ---------------------------------------------------------------------------

    def kept(self, index: int, tokens: Collection[int]) -> EncodedInput:
        """The input with these tokens as the only keys: by a mask, or run alone where that is the same."""
        ordered = sorted(tokens)
        if self.position_offset is None:
            return masked(self.inputs[index], ordered)
        return tokens_alone(self.inputs[index], ordered, self.position_offset)

    def masked(self, index: int, tokens: Collection[int]) -> EncodedInput:
        """The whole input with these tokens as the only keys."""
        return masked(self.inputs[index], sorted(tokens))

    def fixed_and_movable(
        self, index: int, place: int, anchors: Collection[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """See the function of this name; `place` is the number of the input for messages."""
        return fixed_and_movable(self.inputs[index], place, anchors)

    def refuse(self) -> None:
        """Refuse a model that takes no attention mask.

        Raises:
            UnsupportedModelError: there is no such argument.
        """
        refuse_unmaskable(
            self.runner,
            "It cannot be restricted to some of its tokens: minimal_tokens needs a classifier that takes one.",
        )

    def try_token_dropping(self, fixed: Sequence[Collection[int]], movable: Sequence[Sequence[int]]) -> None:
        """Choose the cheapest form that gives the logits of masking: tested on the model, never assumed.

        The longest input is cut to three sets of its tokens and run alone, both ways. It is tried again when a longer
        input comes (a sliding window shows itself only beyond its width), and separately for inputs whose first or
        last token may be left out: there a classifier that reads the state of that position would read another token.
        Sets `position_offset` and `mixed`.

        Args:
            fixed: for each input the tokens that always stay.
            movable: for each input the tokens that may be left out.
        """
        groups: dict[tuple[bool, bool], list[int]] = {}
        for i, one in enumerate(self.inputs):
            groups.setdefault((0 in fixed[i], one.token_count - 1 in fixed[i]), []).append(i)
        offsets = set()
        for kind, group in groups.items():
            longest = max(group, key=lambda i: self.inputs[i].token_count)
            by_row = self.target.bound is not None
            known = self.runner.cached(("token dropping", by_row, kind), dict[str, tuple[int, int | None]])
            length, _ = known.get("tried", (0, None))
            if length < self.inputs[longest].token_count:
                offset = self._offset(longest, fixed[longest], movable[longest])
                known["tried"] = (self.inputs[longest].token_count, offset)
            offsets.add(known["tried"][1])
        self.position_offset = offsets.pop() if len(offsets) == 1 else None
        if self.position_offset is not None:
            longest = max(range(len(self.inputs)), key=lambda i: self.inputs[i].token_count)
            few = () if fixed[longest] else movable[longest][:1]
            ends = [self.kept(longest, {*fixed[longest], *some}) for some in (few, movable[longest])]
            self.mixed = self._may_mix(ends)
            if not self.mixed:
                self.position_offset = None  # nearly every length would need its own batch
        if self.position_offset is None:
            self.mixed = self._may_mix(self.inputs)

    def try_shortened(self, movable: Sequence[Sequence[int]]) -> None:
        """Set `mixed`: whether padding changes nothing, tried on the longest input beside a shortened one."""
        longest = max(range(len(self.inputs)), key=lambda i: self.inputs[i].token_count)
        whole, free = self.inputs[longest], movable[longest]
        self.mixed = False
        if self.runner.pad_id is not None and len(free) >= 2:
            shorter = deleted(whole, free[len(free) // 2 :])
            self.mixed = self.runner.ignores_padding([shorter, whole])

    def _may_mix(self, inputs: Sequence[EncodedInput]) -> bool:
        if self.runner.pad_id is None or len({one.length for one in inputs}) < 2:
            return False  # nothing to test it on: batches of equal length are always correct
        return self.runner.ignores_padding(inputs)

    def _offset(self, index: int, fixed: Collection[int], movable: Sequence[int]) -> int | None:
        """Position id of the first token, for the first choice that gives the logits of masking on every set."""
        one = self.inputs[index]
        tolerance = TOKEN_DROPPING_TOLERANCE.get(self.runner.dtype)
        if not self.runner.takes("position_ids") or tolerance is None:
            return None
        pad_id = getattr(self.runner.config, "pad_token_id", None)
        offsets = [0] if not isinstance(pad_id, int) or "position_ids" in one.tensors else [0, pad_id + 1]
        sets = [sorted({*fixed, *some}) for some in (movable[1::3], movable[-2:], movable[: len(movable) // 2])]
        sets = [tokens for tokens in sets if tokens]
        references = [self._logits(index, masked(one, tokens)) for tokens in sets]
        for offset in offsets:
            for tokens, reference in zip(sets, references):
                logits = self._logits(index, tokens_alone(one, tokens, offset))
                if not bool(((logits - reference).abs() <= tolerance * reference.abs().max()).all()):
                    break
            else:
                return offset
        return None

    def _logits(self, index: int, one: EncodedInput) -> Tensor:
        """(1, classes) logits of a pass without gradients; (1,) the explained value of targets that are not classes."""
        with self.runner.session(), torch.no_grad():
            outputs = self.runner.forward(self.runner.collate([one]))
            if self.target.bound is not None:
                return self.target.select([index], [one])(outputs)
            Target([None], self.runner.model)(outputs)  # refuses what cannot be read
        logits = find_logits(outputs, self.runner.config)
        assert logits is not None
        return logits.detach()


def masked(one: EncodedInput, kept: Sequence[int]) -> EncodedInput:
    """The whole input, with all tokens but these masked as keys."""
    mask = torch.zeros(one.token_count, dtype=torch.long)
    mask[list(kept)] = 1
    return replace(one, tensors={**one.tensors, "attention_mask": mask})


def tokens_alone(one: EncodedInput, kept: Sequence[int], offset: int) -> EncodedInput:
    """These tokens alone, each with the position id that it has in the whole input."""
    length = one.token_count
    tensors = {"position_ids": torch.arange(length) + offset, **one.tensors}
    places = torch.tensor(list(kept), dtype=torch.long)
    cut = {k: v[places.to(v.device)] if per_token(k, v, length) else v for k, v in tensors.items()}
    cut["attention_mask"] = torch.ones(len(places), dtype=torch.long)
    return replace(one, tensors=cut, length=len(places), origin=tuple(kept))


def deleted(one: EncodedInput, tokens: Collection[int]) -> EncodedInput:
    """The input without these tokens; see `remove_tokens`."""
    tensors: dict[str, Any] = remove_tokens(one.tensors, tokens)
    origin = tuple(i for i in range(one.token_count) if i not in set(tokens))
    return replace(one, tensors=tensors, length=len(origin), origin=origin)


def fixed_and_movable(
    one: EncodedInput, index: int, anchors: Collection[int] = ()
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Special tokens and anchors, and the others; tokens that the input's own mask hides are in neither.

    Args:
        one: the input.
        index: its position among the caller's inputs, for messages.
        anchors: tokens whose outputs are read.

    Raises:
        InvalidInputError: no tokens, special tokens not known, no other tokens, or a mask by query.
    """
    if one.length is None:
        raise InvalidInputError(
            f"inputs[{index}] has {', '.join(one.tensors)}: sets of tokens are for texts. Of images and audio, "
            "explain(..., method='occlusion') removes patches and moments."
        )
    if one.special is None:
        raise InvalidInputError(
            f"inputs[{index}]: which of its tokens are special is not known. Pass texts, or input_ids and tokenizer=..."
        )
    mask = one.tensors.get("attention_mask", torch.ones(one.length))
    if mask.dim() != 1:
        raise InvalidInputError(f"inputs['attention_mask'] must be (batch, tokens), not {mask.dim() + 1}-dimensional.")
    real = mask.bool().tolist()
    fixed = tuple(i for i, special in enumerate(one.special) if (special or i in anchors) and real[i])
    movable = tuple(i for i, special in enumerate(one.special) if not (special or i in anchors) and real[i])
    if not movable:
        beside = "special ones" if not anchors else "special ones and those whose output is explained"
        raise InvalidInputError(f"inputs[{index}] has no tokens other than the {beside}.")
    return fixed, movable


def predictions_of(reading: HeadReading) -> list[Prediction]:
    """What the outputs of a pass say about each of its inputs."""
    values, predicted = reading.values.detach().cpu().tolist(), reading.predictions
    return [
        Prediction(
            value if one.probability is None else one.probability, one, None if predicted is None else predicted[i]
        )
        for i, (value, one) in enumerate(zip(values, reading.explained))
    ]


def refuse_unmaskable(runner: EncoderRunner, purpose: str) -> None:
    """Raise `UnsupportedModelError` if no attention mask can be passed to the model.

    Args:
        runner: runs the model.
        purpose: a sentence that says what needs the mask.
    """
    if not runner.takes("attention_mask"):
        raise UnsupportedModelError(f"{runner.class_name}.forward has no attention_mask. {purpose}")
