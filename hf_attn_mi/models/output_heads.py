"""Output heads: from the outputs of a model to the value that is explained, its probability and its name.

A head is an object with `name`, `accepts` and `read` (see `OutputHead`). The first registered head that accepts the
outputs of a model reads them. Add one with `register_output_head`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError, shown
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.labels import label_name

SUM_ROUNDING = 1e-5  # rounding error of the sum of a row of probabilities
SUM_ROUNDING_REDUCED = 5e-3  # half precision
TARGET_FUNCTION = "pass target=function, a function from the model's outputs to one number per input, shape (batch,)"


@dataclass(frozen=True)
class ExplainedTarget:
    """The explained class or value of one input.

    Attributes:
        target: index of the class; None if the target has none.
        name: the name of the class, or of the target function.
        probability: the probability that the model gives the class; None if the target has none.
    """

    target: int | None
    name: str
    probability: float | None


@dataclass(frozen=True, eq=False)
class HeadReading:
    """The values that an output head reads from the outputs of one batch.

    Attributes:
        values: (batch,) float64 explained values, connected to the outputs by gradients.
        explained: what each value stands for.
        predictions: the prediction for each input (the class of the largest logit; for independent labels whether the
            explained label is assigned, 0 or 1); None if the head makes no prediction.
    """

    values: Tensor
    explained: tuple[ExplainedTarget, ...]
    predictions: tuple[int, ...] | None


class OutputHead(Protocol):
    """How the outputs of one kind of model are read.

    A head whose prediction consists of several numbers may have a method `predict(outputs, config)` as well, which
    returns all of them for the single input of these outputs (see `whole_predictions`).
    """

    name: str

    def accepts(self, outputs: object, config: object) -> bool:
        """Whether this head reads the outputs of a model with this configuration (None if there is none)."""

    def read(self, outputs: object, targets: Sequence[int | None], config: object) -> HeadReading:
        """The explained values.

        Args:
            outputs: the outputs of one forward pass, accepted by `accepts`.
            targets: one for each input, None for the predicted class.
            config: the model's configuration; None if there is none.

        Raises:
            InvalidInputError: a target that these outputs do not have.
        """


class ClassLogits:
    """Classes that exclude each other: logit of the class minus the mean of the other logits; softmax probability."""

    name = "class logits"
    is_linear = True

    def accepts(self, outputs: object, config: object) -> bool:
        """Whether there are logits (batch, classes) of two classes or more."""
        logits = find_logits(outputs, config)
        return logits is not None and logits.shape[1] > 1

    def read(self, outputs: object, targets: Sequence[int | None], config: object) -> HeadReading:
        """See `OutputHead.read`."""
        logits, classes, value = _chosen(outputs, targets, config)
        _refuse_probabilities(logits)
        probabilities = logits.detach().double().softmax(1)
        value = value - (logits.double().sum(1) - value) / (logits.shape[1] - 1)
        return HeadReading(value, _named(classes, probabilities, config), tuple(logits.detach().argmax(1).tolist()))


class MultiLabel:
    """Labels that do not exclude each other: the logit of the label; sigmoid probability."""

    name = "multi-label"
    is_linear = True

    def accepts(self, outputs: object, config: object) -> bool:
        """Whether config.problem_type says so."""
        return _problem_type(config) == "multi_label_classification" and find_logits(outputs, config) is not None

    def read(self, outputs: object, targets: Sequence[int | None], config: object) -> HeadReading:
        """See `OutputHead.read`; the prediction is whether this label is assigned (0 or 1)."""
        logits, classes, value = _chosen(outputs, targets, config)
        explained = _named(classes, logits.detach().double().sigmoid(), config)
        return HeadReading(value, explained, tuple(int((one.probability or 0.0) >= 0.5) for one in explained))

    def predict(self, outputs: object, config: object) -> tuple[int, ...]:
        """Whether each label is assigned (0 or 1), for the single input of these outputs."""
        logits = find_logits(outputs, config)
        assert logits is not None
        return tuple((logits.detach().double().sigmoid() >= 0.5).int().flatten().tolist())


class Regression:
    """A value without a class: the output itself; no probability."""

    name = "regression"
    is_linear = True

    def accepts(self, outputs: object, config: object) -> bool:
        """Whether config.problem_type is "regression", or the single output is not a label."""
        logits = find_logits(outputs, config)
        return logits is not None and (_problem_type(config) == "regression" or logits.shape[1] == 1)

    def read(self, outputs: object, targets: Sequence[int | None], config: object) -> HeadReading:
        """See `OutputHead.read`."""
        _, classes, value = _chosen(outputs, targets, config)
        return HeadReading(value, _named(classes, None, config), None)


class Function:
    """A caller's function from the outputs to (batch,) values.

    Args:
        function: called once for each batch.
        with_input: it takes the encoded input, too: `function(outputs, encoded)`.
    """

    def __init__(self, function: Callable[..., Tensor], *, with_input: bool = False) -> None:
        self.function, self.with_input = function, with_input
        name = getattr(function, "__name__", type(function).__name__)
        self.name = "function" if name == "<lambda>" else name

    def of_input(self, one: EncodedInput) -> Function:
        """The function of the outputs alone, for this input."""
        if not self.with_input:
            return self
        function = Function(lambda outputs: self.function(outputs, one))
        function.name = self.name
        return function

    def accepts(self, outputs: object, config: object) -> bool:
        """Always True: the function reads any outputs."""
        return True

    def read(self, outputs: object, targets: Sequence[int | None], config: object) -> HeadReading:
        """See `OutputHead.read`; targets are not looked at.

        Raises:
            InvalidInputError: the function returns no (batch,) tensor of finite values, one for each input.
        """
        value = self.function(outputs)
        if not isinstance(value, Tensor) or value.dim() != 1:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InvalidInputError(f"target: the function must return a tensor of shape (batch,), not {shape}.")
        if value.is_complex():
            raise InvalidInputError(f"target: the function must return real numbers, not {value.dtype}.")
        if value.shape[0] != len(targets):
            raise InvalidInputError(
                f"target: the function returned {value.shape[0]} values for {len(targets)} inputs, not one for each: "
                "it must treat each row on its own, however many there are."
            )
        explained = (ExplainedTarget(None, self.name, None),) * value.shape[0]
        return HeadReading(value.double(), explained, None)


_heads: list[OutputHead] = [MultiLabel(), Regression(), ClassLogits()]


def register_output_head(head: OutputHead) -> None:
    """Add an output head; it is asked before those already registered.

    Args:
        head: an object with the members of `OutputHead`.

    Raises:
        InvalidInputError: it lacks a member of the protocol.
    """
    missing = [name for name in ("name", "accepts", "read") if not hasattr(head, name)]
    if missing:
        raise InvalidInputError(f"head: {type(head).__name__} has no {', '.join(missing)}; see OutputHead.")
    _heads.insert(0, head)


def unregister_output_head(head: OutputHead) -> None:
    """Remove a registered head."""
    _heads.remove(head)


def find_output_head(outputs: object, config: object) -> OutputHead | None:
    """The head that reads these outputs; None if no registered one does."""
    return next((head for head in _heads if head.accepts(outputs, config)), None)


def whole_predictions(head: OutputHead, outputs: object, config: object) -> tuple[int, ...] | None:
    """Everything that a head predicts for the single input of these outputs; None if it makes no prediction.

    These are the numbers of `head.predict` where the head has this method, and otherwise `HeadReading.predictions` of
    a reading without a target.

    Example:
        >>> whole_predictions(ClassLogits(), {"logits": torch.tensor([[0.0, 2.0]])}, None)
        (1,)
        >>> whole_predictions(MultiLabel(), {"logits": torch.tensor([[3.0, -1.0]])}, None)
        (1, 0)
    """
    predict = getattr(head, "predict", None)
    if predict is not None:
        numbers: tuple[int, ...] = predict(outputs, config)
        return numbers
    return head.read(outputs, [None], config).predictions


def find_logits(outputs: object, config: object = None) -> Tensor | None:
    """The (batch, classes) logits of a model's outputs; None if they cannot be identified with certainty.

    Read are a member or entry "logits", a plain 2-dimensional tensor, and a tuple or list in which exactly one
    2-dimensional floating-point tensor has the width `config.num_labels`.

    Example:
        >>> find_logits({"logits": torch.zeros(1, 3)}).shape
        torch.Size([1, 3])
        >>> find_logits((torch.zeros(1, 8), torch.zeros(1, 16))) is None
        True
    """
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if logits is None and isinstance(outputs, Tensor):
        logits = outputs
    if logits is None and isinstance(outputs, tuple | list) and not hasattr(outputs, "_fields"):
        width = getattr(config, "num_labels", None)
        fits = [part for part in outputs if isinstance(part, Tensor) and part.dim() == 2 and part.shape[1] == width]
        logits = fits[0] if len(fits) == 1 else None
    if isinstance(logits, Tensor) and logits.dim() == 2 and logits.is_floating_point():
        return logits
    return None


def _refuse_probabilities(logits: Tensor) -> None:
    """Refuse outputs of which every row is a distribution: a softmax of them is not what the model says."""
    values = logits.detach().double()
    rounding = SUM_ROUNDING if logits.dtype in (torch.float32, torch.float64) else SUM_ROUNDING_REDUCED
    fractions = bool(((values > 0) & (values < 1)).all())
    if fractions and bool(((values.sum(1) - 1).abs() <= rounding).all()):
        raise UnsupportedModelError(
            "model: its logits are probabilities already (every row is positive and sums to one), so the model ends "
            "with a softmax. Return the logits before it from forward, or explain the probability itself: pass "
            "target=lambda outputs: ... with method='attnlrp' or a method of Captum."
        )


def _problem_type(config: object) -> str | None:
    return getattr(config, "problem_type", None)


def _chosen(outputs: object, targets: Sequence[int | None], config: object) -> tuple[Tensor, list[int], Tensor]:
    """The logits, the class of each input, and the logit of that class in float64."""
    logits = find_logits(outputs, config)
    assert logits is not None
    classes = logits.shape[1]
    for target in targets:
        if target is not None and not 0 <= target < classes:
            raise InvalidInputError(
                f"target {shown(target)} is out of range: this model has classes 0 to {classes - 1}."
            )
    predicted = logits.detach().argmax(1).tolist()
    chosen = [predicted[i] if target is None else target for i, target in enumerate(targets)]
    index = torch.tensor(chosen, device=logits.device)[:, None]
    return logits, chosen, logits.gather(1, index)[:, 0].double()


def _named(classes: Sequence[int], probabilities: Tensor | None, config: object) -> tuple[ExplainedTarget, ...]:
    named = [label_name(number, config) for number in classes]
    if probabilities is None:
        return tuple(ExplainedTarget(number, name, None) for number, name in zip(classes, named))
    places = torch.tensor(classes, dtype=torch.long, device=probabilities.device)[:, None]
    of_classes = probabilities.gather(1, places)[:, 0].tolist()  # in one step, not an operation for each input
    return tuple(map(ExplainedTarget, classes, named, of_classes))
