"""`ScoringBatch`: the inputs of one batch as token-scoring methods see them, with the pass that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from hf_attn_mi.capture import LayerStates
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.methods.layer_statistics import LayerStatistics
from hf_attn_mi.methods.shared_pass import CallConsumer, PassConsumer, PassReader, SharedPass
from hf_attn_mi.models.encoded_input import EncodedInput, real_positions, special_tokens
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target


class ScoringBatch:
    """Some encoded inputs, the arguments of one forward pass over them, and that pass.

    The pass of the unchanged inputs is run at most once (`run`), whoever needs it first: the method, the layer
    statistics, or the target. Batches of the same inputs, one for each method, may share it (`reader`).

    Args:
        runner: runs the model.
        inputs: inputs of one kind; padded on the right if their lengths differ.
        statistics: collects the statistics of each attention layer during the shared pass; None for none.
        states: called with the hidden states of each layer during the shared pass; None for none.
        reader: the pass of these inputs that other batches read, too, instead of `statistics` and `states`; see
            `methods.kept_passes`.
        probes: the shared pass may probe the model; see `models.input_pass.capture_input`.

    Attributes:
        runner, inputs: as above.
        arguments: keyword arguments of the model's forward, batch first.
        reader: the pass, and what is collected during it for this batch.
    """

    def __init__(
        self,
        runner: EncoderRunner,
        inputs: Sequence[EncodedInput],
        *,
        statistics: LayerStatistics | None = None,
        states: Callable[[LayerStates], None] | None = None,
        reader: PassReader | None = None,
        probes: bool = False,
    ) -> None:
        if reader is None:
            consumer = None if statistics is None else PassConsumer(statistics)
            shared = SharedPass(runner, inputs, [] if consumer is None else [consumer], states=states, probes=probes)
            reader = PassReader(shared, consumer)
        self.runner, self.inputs = runner, tuple(inputs)
        self.arguments: dict[str, Tensor] = reader.shared.arguments
        self.reader = reader

    @property
    def statistics(self) -> LayerStatistics | None:
        """The collector of the statistics of each attention layer; None if none are collected."""
        consumer = self.reader.statistics
        return None if consumer is None else cast(LayerStatistics, consumer.receive)

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
        return self.reader.run(arguments)

    def observed(self, observer: Callable[[ScoringBatch], CallConsumer | None]) -> Any:
        """What a method's own consumer has collected in the shared pass, which is run if it was not.

        Args:
            observer: returns the consumer; called unless the pass was prepared for this method.
        """
        if self.reader.observer is None:
            shared = self.reader.shared
            if shared.begun:  # nothing of it can be seen any more
                shared = SharedPass(self.runner, self.inputs)
            consumer = observer(self)
            assert consumer is not None
            self.reader = PassReader(shared, self.reader.statistics, shared.add(consumer))
        self.reader.run()
        assert self.reader.observer is not None
        return self.reader.observer.receive

    def settle(self, target: Target) -> Target:
        """The target with its classes settled; runs the shared pass if the classes are not yet known."""
        if target.explained is None:
            target(self.run())
        return target.settled()
