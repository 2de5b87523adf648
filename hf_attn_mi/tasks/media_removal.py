"""Removal of patches of an image and moments of a recording: their states are replaced by those of an empty input."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.methods.batch import ScoringBatch
from hf_attn_mi.methods.captum.sites import FirstLayerStates
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.removal_predictor import (
    Prediction,
    RemovalPredictor,
    predictions_of,
)
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target

BLANK = "states of an input of zeros"


@dataclass(frozen=True, eq=False)
class PartlyBlank(EncodedInput):
    """An image or recording of which only some positions are kept.

    Attributes:
        kept: these positions; the states of the others are those of an input of zeros.
    """

    kept: tuple[int, ...] = ()


class MediaRemovalPredictor(RemovalPredictor):
    """Runs images or recordings with some of their positions blank.

    The state of a removed position at the input of the first layer is that of the same position in an input of zeros
    (after the processor's normalization), as the baseline "blank" of occlusion: it keeps its position and its place as
    a key, and holds nothing of the picture or the sound. Arguments as `RemovalPredictor`.
    """

    removal = BLANK
    runs_nothing = True

    def __init__(self, runner: EncoderRunner, inputs: Sequence[EncodedInput], target: Target, batch_size: int) -> None:
        super().__init__(runner, inputs, target, batch_size)
        self._sites: dict[int, tuple[FirstLayerStates, Tensor]] = {}

    def kept(self, index: int, tokens: Collection[int]) -> EncodedInput:
        """The input with these positions alone; every other one is blank."""
        return _partly_blank(self.inputs[index], tokens)

    def masked(self, index: int, tokens: Collection[int]) -> EncodedInput:
        """See `kept`: an image has no shorter form."""
        return self.kept(index, tokens)

    def fixed_and_movable(
        self, index: int, place: int, anchors: Collection[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Class tokens, registers and anchors, which stay; and patches or moments."""
        one = self.inputs[index]
        special = one.special or (False,) * one.token_count
        fixed = tuple(i for i in range(one.token_count) if special[i] or i in anchors)
        movable = tuple(i for i in range(one.token_count) if i not in fixed)
        if not movable:
            raise InvalidInputError(
                f"inputs[{place}] has no patches or moments that could be removed; {self.runner.class_name} makes "
                f"{one.token_count} positions of it."
            )
        return fixed, movable

    def try_token_dropping(self, fixed: Sequence[Collection[int]], movable: Sequence[Sequence[int]]) -> None:
        """Nothing is tried: every position is run."""

    def refuse(self) -> None:
        """Nothing is refused: no attention mask is needed."""

    def _key(self, index: int, variant: EncodedInput) -> Hashable:
        return index, variant.kept if isinstance(variant, PartlyBlank) else None

    def _group(self, index: int) -> int:
        return index  # inputs of one number of positions may have other shapes

    def _forward(self, variants: Sequence[tuple[int, EncodedInput]]) -> list[Prediction]:
        indices, inputs = [index for index, _ in variants], [one for _, one in variants]
        target = self.target.select(indices, inputs)
        with self.runner.session(), torch.no_grad():
            rows = [self._states(index, one) for index, one in variants]
            site, _ = self._site(indices[0])
            reading = target.read(site.run(self.runner.collate(inputs), torch.stack(rows)))
        self.keep_bound(indices, target)
        self.sequences += len(variants)
        return predictions_of(reading)

    def _site(self, index: int) -> tuple[FirstLayerStates, Tensor]:
        """The states of the whole input and of one of zeros; two passes, once for each input."""
        if index not in self._sites:
            site = FirstLayerStates(self.runner, ScoringBatch(self.runner, [self.inputs[index]]))
            self._sites[index] = site, site.baseline(None)[0]
        return self._sites[index]

    def _states(self, index: int, one: EncodedInput) -> Tensor:
        """(positions, hidden) of one variant."""
        site, blank = self._site(index)
        keep = torch.ones(one.token_count, dtype=torch.bool)
        if isinstance(one, PartlyBlank):
            keep[:] = False
            keep[list(one.kept)] = True
        return torch.where(keep[:, None].to(blank.device), site.embeddings[0], blank[0])


def _partly_blank(one: EncodedInput, tokens: Collection[int]) -> PartlyBlank:
    values = {name: getattr(one, name) for name in EncodedInput.__dataclass_fields__}
    return PartlyBlank(**values, kept=tuple(sorted(tokens)))


def removal_predictor(
    runner: EncoderRunner, inputs: Sequence[EncodedInput], target: Target, batch_size: int
) -> RemovalPredictor:
    """What runs these inputs without some of their tokens: by an attention mask, or with blank patches and moments."""
    kind = MediaRemovalPredictor if inputs and inputs[0].length is None else RemovalPredictor
    return kind(runner, inputs, target, batch_size)
