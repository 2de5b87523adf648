"""The interface of a token-scoring method, and the registry that every task, command and page looks methods up in.

A method is an object with the members of `TokenScorer`. Add one with `register_method`, or from another package with an
entry point of the group "hf_attn_mi.methods".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown

ENTRY_POINTS = "hf_attn_mi.methods"


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Token scores of one batch.

    Attributes:
        scores: (batch, tokens) floating point; 0 at padding.
        gaps: (batch,) share of the explained value (or difference) that the scores do not account for; None for a
            method whose scores do not add up to anything.
        space: the name of the space that the scores are defined on, such as "word embeddings".
        info: further facts for `Explanation.info`, JSON-like.
        notes: remarks for the reader of the scores.
        target_gaps: (batch,) the part of `gaps` that is due to the target function, not to the model; None if that
            is not known.
        other_inputs: (batch, entries) the part of the explained value that each entry of other arguments contributes,
            by the names of the arguments: of a siamese model, the other text; the tokens of a decoder.
        unfollowed: names of operations of the model that the method cannot propagate; they cause the gap.
        values: (batch,) the value f(x) that the scores add up to together with `bias`; None for a method whose scores
            do not add up to anything.
        bias: (batch,) the part of `values` that no token of the input accounts for: bias terms, or f(baseline).
    """

    scores: Tensor
    gaps: Tensor | None = None
    space: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    target_gaps: Tensor | None = None
    other_inputs: Mapping[str, Tensor] = field(default_factory=dict)
    unfollowed: tuple[str, ...] = ()
    values: Tensor | None = None
    bias: Tensor | None = None


@runtime_checkable
class TokenScorer(Protocol):
    """A token-scoring method.

    Five optional members are used if they exist: `check(runner, options)`, which raises an `HfAttnMiError`
    if the method does not support this model; `score_targets(runner, batch, targets, **options)`, which gives the
    scores of several targets of one batch in fewer passes than one `score` each; `statistics`, a frozenset of extra
    layer statistics that it reads from `batch.statistics` (see `methods.layer_statistics.LayerStatistics`);
    `observer(batch)`, a consumer of attention calls of its own, which `batch.observed(self.observer)` returns after the
    shared pass (methods with `statistics` or an `observer` are served by one pass together); and
    `needs_target`, False if the scores are the same whatever is explained, so that models without classes are supported
    (default: whether the method is linked to a class or needs gradients).

    Attributes:
        name: the name that users pass as `method=`.
        reference: the paper or definition.
        class_linked: the scores belong to the explained class: a positive score supports it.
        needs_gradients: the method differentiates the model, so that quantized weights are refused.
        additive: the scores add up to the explained value, or to a difference of values; `TokenScores.gaps` says by
            how much they miss it.
        cost: in passes of the model for one input of n tokens, such as "1 forward + 1 backward".
        options: name -> default of every option; values that users pass are given to `score` by name.
    """

    @property
    def name(self) -> str:
        """The name that users pass as `method=`."""

    @property
    def reference(self) -> str:
        """The paper or package that defines the method."""

    @property
    def class_linked(self) -> bool:
        """Whether the scores support or oppose the explained class."""

    @property
    def needs_gradients(self) -> bool:
        """Whether the method differentiates the model."""

    @property
    def additive(self) -> bool:
        """Whether the scores add up to the explained value."""

    @property
    def cost(self) -> str:
        """The cost of one input, in passes of the model."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Every option with its default."""

    @property
    def score(self) -> Callable[..., TokenScores]:
        """The method itself: `score(runner, batch, target, **options)` -> the scores of every input of the batch.

        Args:
            runner: an `EncoderRunner`; `runner.forward(arguments)` runs the model, which is in evaluation mode and
                locked for this thread.
            batch: a `ScoringBatch`: the inputs, the model's arguments, masks of real and special tokens;
                `batch.run()` is the forward pass of the unchanged inputs, shared with the layer statistics.
            target: a `Target`; `target(outputs)` gives the (batch,) explained values; `batch.settle(target)` settles
                the classes.
            options: the options named in `options`, with the user's values.

        Raises:
            InvalidInputError: the method does not support these inputs.
            UnsupportedModelError: the method does not support this model.
        """
        ...


_MEMBERS = ("name", "reference", "class_linked", "needs_gradients", "additive", "cost", "options", "score")
_methods: dict[str, TokenScorer] = {}
_entry_points_read = False


def register_method(scorer: TokenScorer, *, replace: bool = False) -> TokenScorer:
    """Add a token-scoring method under its name: explain, compare, the command line and the pages can then use it.

    Args:
        scorer: see `TokenScorer`.
        replace: allow a name that is taken.

    Returns:
        The scorer.

    Raises:
        InvalidInputError: a member is missing, the name is not an identifier-like string, or the name is taken.

    Example:
        >>> class Length:
        ...     name, reference, cost, options = "length", "number of characters", "no pass", {}
        ...     class_linked = needs_gradients = additive = False
        ...     def score(self, runner, batch, target):
        ...         return TokenScores(batch.real.float())
        >>> register_method(Length()).name
        'length'
        >>> "length" in list_methods()
        True
        >>> unregister_method("length")
    """
    missing = [member for member in _MEMBERS if not hasattr(scorer, member)]
    if missing:
        raise InvalidInputError(f"scorer: {type(scorer).__name__} has no {', '.join(missing)}; see TokenScorer.")
    name = scorer.name
    if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
        raise InvalidInputError(f"scorer: its name must be letters, digits, '_' and '-', not {shown(name)}.")
    if name in _methods and not replace:
        raise InvalidInputError(f"scorer: a method {name!r} exists already; pass replace=True to replace it.")
    _methods[name] = scorer
    return scorer


def unregister_method(name: str) -> None:
    """Take a method out of the registry.

    Raises:
        InvalidInputError: no method has this name.
    """
    if name not in _methods:
        raise InvalidInputError(f"method {shown(name)} is not known.")
    del _methods[name]


def list_methods() -> Mapping[str, TokenScorer]:
    """Name -> scorer of every method, those of installed packages (entry points) included; read-only.

    Example:
        >>> list_methods()["relevance"].cost
        '1 forward + 1 backward'
    """
    _read_entry_points()
    return MappingProxyType(_methods)


def find_method(name: object) -> TokenScorer:
    """Return the method of this name.

    Raises:
        InvalidInputError: no method has this name; the message lists all names.
    """
    if isinstance(name, str) and name in _methods:  # entry points cannot replace it, and reading them takes long
        return _methods[name]
    methods = list_methods()
    if not isinstance(name, str) or name not in methods:
        raise InvalidInputError(f"method {shown(name)} is not known; allowed are {', '.join(methods)}.")
    return methods[name]


def read_options(scorer: TokenScorer, options: object) -> dict[str, Any]:
    """The options of a method with the user's values, checked.

    A method may check values itself, in `check_options(options)`; otherwise a value must be of the type of its default.

    Raises:
        InvalidInputError: no mapping, a name that the method does not take, or a value that it refuses.
    """
    values = dict(scorer.options)
    if options is None:
        return values
    if not isinstance(options, Mapping):
        raise InvalidInputError(f"options must be a dict of names and values, not {type(options).__name__}.")
    for name, value in options.items():
        if name not in values:
            known = f"allowed are {', '.join(values)}" if values else "it takes none"
            raise InvalidInputError(f"options: method {scorer.name!r} has no option {name!r}; {known}.")
        default = values[name]
        checks_itself = hasattr(scorer, "check_options")
        if not checks_itself and default is not None and type(value) is not type(default):
            raise InvalidInputError(
                f"options[{name!r}] of method {scorer.name!r} must be {type(default).__name__}, not {shown(value)}."
            )
    if hasattr(scorer, "check_options"):
        scorer.check_options(options)
    return values | dict(options)


def describe_methods() -> Iterator[dict[str, Any]]:
    """One row for each method: its name and properties, for tables."""
    for name, scorer in list_methods().items():
        yield {
            "method": name,
            "class_linked": scorer.class_linked,
            "needs_gradients": scorer.needs_gradients,
            "additive": scorer.additive,
            "cost": scorer.cost,
            "options": dict(scorer.options),
            "reference": scorer.reference,
        }


def _read_entry_points() -> None:
    """Register the methods of installed packages, once; one that fails names its package and is left out."""
    global _entry_points_read
    if _entry_points_read:
        return
    _entry_points_read = True
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            loaded = entry.load()
            register_method(loaded() if isinstance(loaded, type) else loaded)
        except Exception as error:  # whatever code of another package raises
            warnings.warn(f"entry point {entry.name} of {ENTRY_POINTS} is left out: {error}", stacklevel=3)
