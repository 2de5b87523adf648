"""Probe a model by one forward pass: token look-up, modules that are called repeatedly, randomness."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_attn_mi.capture.model_cache import LIBRARIES, is_known, model_state, of_known_package, runs_own_code
from hf_attn_mi.capture.model_state import visible_attention
from hf_attn_mi.capture.module_names import ModuleNames, layer_stacks, named_modules
from hf_attn_mi.capture.module_walk import modules_of, weights_of
from hf_attn_mi.errors import HfAttnMiError
from hf_attn_mi.models.output_tests import float_outputs
from hf_attn_mi.models.token_origins import Following, TokenOrigins

if TYPE_CHECKING:
    from hf_attn_mi.models.encoded_input import EncodedInput
    from hf_attn_mi.models.runner import EncoderRunner

# A model is random if two passes differ by more, relative to the largest output.
NOISE = {torch.float64: 1e-9, torch.float32: 1e-5}
NOISE_REDUCED = 2e-2  # for half precision


@dataclass(frozen=True)
class ModelProbe:
    """Properties of a model found by a forward pass over one input.

    Attributes:
        looks_up: whether an embedding looks the token ids of the input up.
        table: name of the module that turns the token ids of the input into embeddings: a table, or a wrapper around
            one; None if there is none, or several.
        repeated: names of the modules that hold a stack of layers and were called more than once.
        noise: largest difference of two passes over the same input, relative to the largest output; 0 if it is no
            larger than rounding.
    """

    looks_up: bool
    table: str | None
    repeated: tuple[str, ...]
    noise: float

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes that every result of this model must show."""
        if not self.noise:
            return ()
        return (
            f"The model is random in evaluation mode: two passes over the same input differ by {self.noise:.1%} of the "
            "largest output (dropout that stays on, or noise). Scores and probabilities are those of single passes and "
            "change from call to call; switch the noise off, or average over calls.",
        )


def probe(runner: EncoderRunner, arguments: Mapping[str, Any]) -> ModelProbe:
    """The probe of this model, called with arguments of these names; run once until a weight changes.

    Args:
        runner: runs the model.
        arguments: the keyword arguments of a forward pass; the first row is run.
    """
    return runner.cached(_key(arguments), lambda: _probe(runner, _first_row(arguments)))


class RepeatedLayersError(HfAttnMiError):
    """A stack of layers is called again in a pass that `probe_during` watches: what the pass is run for needs more."""


@contextmanager
def probe_during(runner: EncoderRunner, arguments: Mapping[str, Any], *, once: bool) -> Iterator[None]:
    """Probe the model in the pass that is run inside, which is needed anyway, where `can_probe_during`.

    Afterwards `probe` knows its answer, unless a second pass is needed to know whether the model is random.

    Args:
        runner: runs the model.
        arguments: the keyword arguments of the pass.
        once: stop the pass where a stack of layers is called again.

    Raises:
        RepeatedLayersError: a stack was called again.
    """
    if not can_probe_during(runner, arguments):
        yield
        return
    watched = _WatchedPass(runner, arguments, once=once)
    with watched.open():
        yield
    if not watched.may_be_random:
        found = watched.found(0.0)
        runner.cached(_key(arguments), lambda: found)


def is_probed(runner: EncoderRunner, arguments: Mapping[str, Any]) -> bool:
    """Whether `probe` knows its answer without a pass."""
    return is_known(runner.model, _key(arguments))


def notes_of(runner: EncoderRunner, inputs: Sequence[EncodedInput], *, run: bool = True) -> tuple[str, ...] | None:
    """The notes of a model that takes these inputs; None where they cannot be run, or were not and shall not be."""
    with suppress(HfAttnMiError):  # the pass that is run for the result raises it again
        arguments = runner.collate(inputs)
        if run or is_probed(runner, arguments):
            return probe(runner, arguments).notes
    return None


def can_probe_during(runner: EncoderRunner, arguments: Mapping[str, Any]) -> bool:
    """Whether the model was not probed before, and runs no code of the caller, of which one pass may not say enough."""
    return not is_probed(runner, arguments) and not runs_own_code(runner.model)


def _key(arguments: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    return "probe", tuple(sorted(arguments))


def _probe(runner: EncoderRunner, arguments: Mapping[str, Any]) -> ModelProbe:
    watched = _WatchedPass(runner, arguments)
    devices = [runner.device] if runner.device.type == "cuda" else []
    own_numbers = torch.random.fork_rng(devices=devices)
    with runner.session(), torch.no_grad(), visible_attention(runner.model), own_numbers:
        with watched.open():
            first = runner.forward(arguments)
        again = watched.may_be_random or runs_own_code(runner.model)
        second = runner.forward(arguments) if again else first
    return watched.found(_difference(float_outputs(first), float_outputs(second)))


class _WatchedPass:
    """What is seen of a model in one pass.

    Args:
        runner: runs the model.
        arguments: of the pass.
        once: raise where a stack of layers is called again.

    Attributes:
        may_be_random: whether a second pass of a model without code of the caller may give other outputs: the state of
            a generator of random numbers or of the model is another one than before the pass, a function was given a
            generator of its own, or a function of the caller takes the place of one of a library.
    """

    def __init__(self, runner: EncoderRunner, arguments: Mapping[str, Any], *, once: bool = False) -> None:
        self.runner, self.once, self.may_be_random = runner, once, True
        self.owners = list(layer_stacks(ModuleNames(runner.model)))
        self.calls, self.tables = Counter[str](), list[str]()
        self.following = Following(TokenOrigins(arguments))

    @contextmanager
    def open(self) -> Iterator[None]:
        """Watch the pass that is run inside."""
        model = self.runner.model
        own = _holds_functions(model) or _runs_replaced_functions(model)
        before = None if own else _state(self.runner)
        counted = _counted(model, self.owners, self.calls, once=self.once)
        with counted, _tables_watched(model, self.following.origins, self.tables), self.following:
            yield
        self.may_be_random = self.following.has_generator or before is None or _state(self.runner) != before

    def found(self, noise: float) -> ModelProbe:
        """What is known now."""
        outer = [name for name in dict.fromkeys(self.tables) if not any(_inside(name, one) for one in self.tables)]
        return ModelProbe(
            looks_up=bool(self.following.weights),
            table=outer[0] if len(outer) == 1 else None,
            repeated=tuple(name for name in self.owners if self.calls[name] > 1),
            noise=noise,
        )


def _state(runner: EncoderRunner) -> tuple[object, ...] | None:
    """The state of the model and of the generators that its outputs may depend on; None if a device has others."""
    kinds = {weight.device.type for weight in weights_of(runner.model)} - {"meta"} | {runner.device.type}
    if not kinds <= {"cpu", "cuda"}:
        return None
    states: list[object] = [model_state(runner.model), random.getstate(), torch.get_rng_state().numpy().tobytes()]
    if "numpy.random" in sys.modules:
        kind, keys, *rest = sys.modules["numpy.random"].get_state()
        states += [kind, keys.tobytes(), *rest]
    if "cuda" in kinds:
        states += [one.numpy().tobytes() for one in torch.cuda.get_rng_state_all()]
    return tuple(states)


def _holds_functions(model: nn.Module) -> bool:
    """Whether a module has a function of the caller as an attribute, such as an activation."""
    for module in modules_of(model):
        for value in vars(module).values():
            if callable(value) and not isinstance(value, nn.Module):
                home = getattr(value, "__module__", None) or type(value).__module__
                if not str(home).startswith((*LIBRARIES, "torch", "builtins")):
                    return True
    return False


def _runs_replaced_functions(model: nn.Module) -> bool:
    """Whether hooks of all modules are set, or a function that a library's modules call is not of a library."""
    if nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks:
        return True
    kinds = {type(module) for module in modules_of(model)}
    homes = {kind.__module__ for kind in kinds} | {"torch.nn.functional"}
    spaces = [vars(kind) for kind in kinds] + [vars(sys.modules[home]) for home in homes if home in sys.modules]
    functions = (value for space in spaces for value in space.values() if isinstance(value, FunctionType))
    # By where a function was written: `functools.wraps` copies the other names.
    return not all(of_known_package(str(one.__globals__.get("__name__", ""))) for one in functions)


def token_tables(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that may turn token ids into embeddings: tables, and what parts of the model name as theirs."""
    modules = named_modules(model)
    names = {id(module): name for name, module in modules.items()}
    tables: dict[str, nn.Module] = {}
    for name, module in modules.items():
        if isinstance(module, nn.Embedding):
            tables[name] = module
        try:
            stated = module.get_input_embeddings()  # type: ignore[operator]
        except (AttributeError, NotImplementedError, TypeError):
            continue
        if isinstance(stated, nn.Module) and id(stated) in names:
            tables[names[id(stated)]] = stated
    return tables


@contextmanager
def _tables_watched(model: nn.Module, origins: TokenOrigins, lookups: list[str]) -> Iterator[None]:
    """Append the name of every table that is called with token ids of the input."""

    def watch(name: str) -> Any:
        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            looked_up = args[0] if args else next(iter(kwargs.values()), None)
            if origins.reads_input(looked_up):
                lookups.append(name)

        return before

    with _hooks({name: watch(name) for name in token_tables(model)}, model):
        yield


@contextmanager
def _counted(model: nn.Module, names: list[str], calls: Counter[str], *, once: bool) -> Iterator[None]:
    def count(name: str) -> Any:
        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            calls[name] += 1
            if once and calls[name] > 1:
                raise RepeatedLayersError(f"{name or 'the model'} is called again in the same pass.")

        return before

    with _hooks({name: count(name) for name in names}, model):
        yield


@contextmanager
def _hooks(before: Mapping[str, Any], model: nn.Module) -> Iterator[None]:
    modules = named_modules(model)
    with ExitStack() as stack:
        for name, hook in before.items():
            stack.callback(modules[name].register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _inside(name: str, other: str) -> bool:
    return name != other and name.startswith(f"{other}." if other else "")


def _first_row(arguments: Mapping[str, Any]) -> dict[str, Any]:
    main = next((value for value in arguments.values() if isinstance(value, Tensor) and value.dim()), None)
    rows = None if main is None else main.shape[0]
    return {
        key: value[:1] if isinstance(value, Tensor) and value.dim() and value.shape[0] == rows else value
        for key, value in arguments.items()
    }


def _difference(first: list[Tensor], second: list[Tensor]) -> float:
    """Largest difference relative to the largest entry, 0 if it is no larger than rounding."""
    largest = 0.0
    for a, b in zip(first, second):
        if a.shape != b.shape or not a.numel():
            continue
        difference = float((a.double() - b.double()).abs().nan_to_num(0.0, 0.0, 0.0).max())
        relative = difference / max(float(a.double().abs().nan_to_num(0.0, 0.0, 0.0).max()), 1e-12)
        if relative > NOISE.get(a.dtype, NOISE_REDUCED):
            largest = max(largest, relative)
    return largest
