"""`ScoringBatch`: the inputs of one batch as token-scoring methods see them, with the pass that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.capture import LayerStates
from hf_attn_mi.errors import HfAttnMiError, InvalidInputError
from hf_attn_mi.methods.layer_statistics import LayerStatistics
from hf_attn_mi.models.encoded_input import EncodedInput, real_positions, special_tokens
from hf_attn_mi.models.input_pass import capture_input
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target


class ScoringBatch:
    """Some encoded inputs, the arguments of one forward pass over them, and that pass.

    The pass of the unchanged inputs is run at most once (`run`), whoever needs it first: the method, the layer
    statistics, or the target.

    Args:
        runner: runs the model.
        inputs: inputs of one kind; padded on the right if their lengths differ.
        statistics: collects the statistics of each attention layer during the shared pass; None for none.
        states: called with the hidden states of each layer during the shared pass; None for none.

    Attributes:
        inputs: as above.
        arguments: keyword arguments of the model's forward, batch first.
        statistics: as above.
        is_text: whether the inputs are sequences of tokens (not images or audio).
    """

    def __init__(
        self,
        runner: EncoderRunner,
        inputs: Sequence[EncodedInput],
        *,
        statistics: LayerStatistics | None = None,
        states: Callable[[LayerStates], None] | None = None,
    ) -> None:
        self.runner, self.inputs = runner, tuple(inputs)
        self.arguments: dict[str, Tensor] = runner.collate(inputs)
        self.statistics, self._states = statistics, states
        self._outputs: Any = None
        self._observed = False

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.inputs)

    @property
    def is_text(self) -> bool:
        """Whether the inputs are sequences of tokens (not images or audio)."""
        return self.inputs[0].length is not None

    @property
    def real(self) -> Tensor:
        """(batch, tokens) bool, False at padding and masked tokens."""
        return real_positions(self.inputs, self.arguments)

    @property
    def special(self) -> Tensor:
        """(batch, tokens) bool, True for special tokens; False if that is not known."""
        return special_tokens(self.inputs, self.real)

    @property
    def special_known(self) -> bool:
        """Whether it is known of every input which of its tokens are special."""
        return all(one.special is not None for one in self.inputs)

    def require_text(self, method: str) -> None:
        """Raise `InvalidInputError` if the inputs are not sequences of tokens."""
        if not self.is_text:
            raise InvalidInputError(
                f"method {method!r} is for sequences of tokens; inputs has {', '.join(self.inputs[0].tensors)}. Use "
                "method='relevance'."
            )

    def require_positions(self, method: str) -> None:
        """Raise `InvalidInputError` if it is not known which positions the model makes of images or audio."""
        if not self.is_text and not self.inputs[0].token_count:
            raise InvalidInputError(
                f"method {method!r}: {self.runner.class_name} has no layers with attention whose positions could be "
                f"scored; inputs has {', '.join(self.inputs[0].tensors)}."
            )

    def run(self, arguments: Mapping[str, Any] | None = None) -> Any:
        """The outputs of the unchanged inputs.

        Without `arguments` the pass is run without gradients, once; further calls return the same outputs. With
        `arguments` it is run anew, with gradients as the caller has set them: for a method that needs a graph, and
        passes the same values by other means (embeddings instead of ids). The layer statistics are taken from the
        first pass of either kind.
        """
        if arguments is None and self._outputs is not None:
            return self._outputs
        if arguments is not None:
            outputs = self._forward(arguments)
        else:
            with torch.no_grad():
                outputs = self._forward(self.arguments)
        self._outputs = outputs
        return outputs

    def settle(self, target: Target) -> Target:
        """The target with its classes settled; runs the shared pass if the classes are not yet known."""
        if target.explained is None:
            target(self.run())
        return target.settled()

    def _forward(self, arguments: Mapping[str, Any]) -> Any:
        if self._observed:
            return self.runner.forward(arguments)
        self._observed = True
        finish = None if self.statistics is None else self.statistics.finish
        try:
            with capture_input(self.runner, arguments, self.statistics, states=self._states):
                outputs = self.runner.forward(arguments)
        except HfAttnMiError:
            if finish is not None:
                finish()  # the reason may lie in a layer that waits: values that are not finite
            raise
        if finish is not None:
            finish()
        return outputs
