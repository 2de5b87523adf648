"""Models with tiny random weights, and inputs for them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from .catalog import CANNOT_BUILD, NOTES, TEXT_ONLY, WHOLE_MODEL, Job
from .configs import tiny_config
from .inputs import make_inputs

MOST_PARAMETERS = 50_000_000
CLASSES = {
    "seqcls": AutoModelForSequenceClassification,
    "imgcls": AutoModelForImageClassification,
    "audcls": AutoModelForAudioClassification,
    "base": AutoModel,
    "enc": AutoModel,
}


class CannotBuild(Exception):
    """This architecture cannot be built here; the message says why in one line."""


@dataclass(frozen=True)
class Built:
    """A model in evaluation mode and float32, inputs for its forward, and notes on what is unusual, "" if nothing."""

    model: PreTrainedModel
    inputs: dict[str, Tensor]
    notes: str


def build(job: Job) -> Built:
    """The model and the inputs of `job`, the same on every call.

    Raises:
        CannotBuild: a package is missing, or no tiny version of the architecture exists.
    """
    if job.model_type in CANNOT_BUILD:
        raise CannotBuild(CANNOT_BUILD[job.model_type])
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _build(job)
    except ImportError as error:
        raise CannotBuild(str(error).strip().split(". ")[0]) from error


def _build(job: Job) -> Built:
    notes = [table[job.model_type] for table in (NOTES, TEXT_ONLY) if job.model_type in table]
    model = CLASSES[job.auto].from_config(tiny_config(job.model_type))
    if job.auto == "enc" and job.model_type not in WHOLE_MODEL:
        model = model.get_encoder()
    model = model.float().eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > MOST_PARAMETERS:
        raise CannotBuild(f"the tiny configuration still has {parameters / 1e6:.0f} million parameters")
    inputs = make_inputs(model, job.model_type, job.auto)
    default = {name: value.clone() for name, value in model.state_dict().items()}
    rescale(model)
    if not _is_finite(model, inputs):
        model.load_state_dict(default)
        notes.append("default initialization: rescaled weights give non-finite outputs")
    return Built(model, inputs, "; ".join(notes))


def rescale(model: nn.Module) -> None:
    """Redraw the matrices of `model` so large that attention is far from uniform and every layer matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                module.weight.fill_(1.0)  # some types start near zero, so that nothing would pass
            for parameter in module.parameters(recurse=False):
                scale = _scale(module, parameter)
                if scale:
                    drawn = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(scale * drawn)


def _scale(module: nn.Module, parameter: Tensor) -> float:
    """Standard deviation of the new weights, 0 where the old ones stay."""
    if parameter.dim() < 2 or not parameter.is_floating_point():
        return 0.0
    if isinstance(module, nn.Embedding):
        return 0.7
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return 1.6 / math.sqrt(parameter[0].numel())
    if parameter.dim() > 2 and parameter.shape[0] == 1:  # a learned token or position, broadcast over the batch
        return 0.0
    fan_in = parameter.shape[0] if isinstance(module, Conv1D) else parameter.shape[-1]
    return 1.6 / math.sqrt(fan_in)


def _is_finite(model: PreTrainedModel, inputs: dict[str, Tensor]) -> bool:
    with torch.no_grad():
        return all(torch.isfinite(tensor).all() for tensor in _tensors(model(**inputs)) if tensor.is_floating_point())


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for part in output.values():
            yield from _tensors(part)
    elif isinstance(output, (list, tuple)):
        for part in output:
            yield from _tensors(part)
