"""Checks of states and outputs that a caller passes, and the entropy of outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.kernels.inputs import check_tensor
from hf_attn_mi.mi.rng import draw_classes, draw_normal, make_rng

MAX_CLASSES = 10_000
AUTOCAST = {"cpu", "cuda", "xpu", "mps"}  # devices that have it
FEWEST_FOLDS, MIN_PER_FOLD = 4, 5
MIN_PER_CLASS = 20  # examples: with fewer no estimator is reliable
MANY_COPIES = 0.01  # share of examples that repeat others, from which on there is a warning
MANY_REPEATS = 0.1  # the same for the values of continuous outputs


@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs of the n examples.

    Attributes:
        values: (n, K) float64 probabilities of the classes that occur; or (n, m) continuous outputs with their noise.
        present: bool: which of the caller's classes occur; which columns vary for continuous outputs.
        labels: (n,) long: the classes, for probabilities one draw from each; zeros for continuous outputs.
        soft: whether there are probabilities other than 0 and 1.
    """

    values: Tensor
    present: Tensor
    labels: Tensor
    soft: bool

    def to(self, device: torch.device) -> Outputs:
        """Return the same on a device."""
        return Outputs(self.values.to(device), self.present, self.labels.to(device), self.soft)


def estimation_device(device: torch.device) -> torch.device:
    """Return where states of this device are estimated: there, or on the CPU where the device has no float64.

    Example:
        >>> estimation_device(torch.device("mps:0"))
        device(type='cpu')
    """
    return torch.device("cpu") if device.type == "mps" else device


def entropy(probabilities: Tensor) -> Tensor:
    """Return the Shannon entropy of each distribution over the last dimension, nats; 0 log 0 = 0."""
    return -(probabilities * probabilities.clamp_min(1e-300).log()).sum(-1)


def ceiling_of(probabilities: Tensor) -> float:
    """Return the information between input and class, nats: entropy of the mean less mean entropy of (n, K) rows."""
    return float(entropy(probabilities.mean(0)) - entropy(probabilities).mean())


def output_ceiling(outputs: Tensor) -> float:
    """Return I(input; output) = H(mean of P) - mean of H(P) in nats, exact for this sample of inputs.

    The output is drawn from P(. | input). By the data processing inequality no state of the network has more
    information about it; the state that the classifier reads has all of it. For integer classes it is their entropy.

    Args:
        outputs: (n,) integer classes, or (n, K) probabilities.

    Raises:
        InvalidInputError: neither, NaN, or rows that do not sum to one.

    Example:
        >>> import torch
        >>> output_ceiling(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))  # log 2
        0.6931471805599453
    """
    return ceiling_of(read_probabilities(outputs))


def read_classes(outputs: Tensor, n: int, seed: int) -> Outputs:
    """Return class outputs of n examples.

    Raises:
        InvalidInputError: wrong shapes or dtypes, NaN or infinity, other lengths, one class only, or fewer than
            20 examples a class.
    """
    probabilities = read_probabilities(outputs)
    if len(probabilities) != n:
        raise InvalidInputError(f"states has n = {n} examples, outputs has {len(probabilities)}: they must be the same")
    present = probabilities.sum(0) > 0
    probabilities = probabilities[:, present]
    classes = probabilities.shape[1]
    if classes < 2:
        raise InvalidInputError(f"outputs has one class only, {n} times: there is no information about a constant")
    if n < MIN_PER_CLASS * classes:
        raise InvalidInputError(
            f"n = {n} examples for {classes} classes: at least {MIN_PER_CLASS} for each class are needed, "
            f"{MIN_PER_CLASS * classes} in all; add examples or merge classes"
        )
    soft = bool(((probabilities > 0) & (probabilities < 1)).any())
    labels = draw_classes(probabilities, 1, make_rng(seed, "labels"))[:, 0] if soft else probabilities.argmax(1)
    return Outputs(probabilities, present, labels, soft)


@contextmanager
def usual_settings(device: torch.device) -> Iterator[None]:
    """Run the block with float32 as default type and without autocast, whatever the caller has set."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32)
        with ExitStack() as stack:
            for kind in {"cpu", device.type} & AUTOCAST:
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        torch.set_default_dtype(before)


def read_names(names: Sequence[str] | None, states: Tensor) -> tuple[str, ...]:
    """Return the names of the sites; () for None.

    Raises:
        InvalidInputError: no sequence with a name for each site.
    """
    if names is None:
        return ()
    count = len(states) if states.dim() == 3 else 1
    if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != count:
        raise InvalidInputError(f"names is {shown(names)}: it must be a list with a name for each of the {count} sites")
    return tuple(str(name) for name in names)


def repeated_examples(flat: Tensor, outputs: Tensor) -> tuple[str, ...]:
    """Return a warning where examples repeat others in the states of every site and in their outputs.

    Whole numbers, such as counts and codes, repeat by chance. Other numbers seldom do.

    Args:
        flat: (sites, n, d) states.
        outputs: (n, K) probabilities, or (n, m) continuous outputs.
    """
    n = len(outputs)
    group = torch.unique(outputs, dim=0, return_inverse=True)[1].to(flat.device)
    whole = True
    for states in flat:
        values = states.detach()
        if len(torch.unique(values[:, 0])) > (1 - MANY_COPIES) * n:
            return ()
        found, codes = torch.unique(values, dim=0, return_inverse=True)
        group = torch.unique(torch.stack([group, codes], 1), dim=0, return_inverse=True)[1]
        whole = whole and bool((found == found.round()).all())
        if int(group.max()) + 1 > (1 - MANY_COPIES) * n:
            return ()
    if whole:
        return ()
    return (
        f"{n - int(group.max()) - 1} of {n} examples have the states and the outputs of another one. Bounds, interval "
        "and p-values hold for independent examples: if these are copies, leave them out",
    )


def rounded_away(states: Tensor, divisors: Tensor) -> str:
    """Return a warning for features whose variation has the size of rounding errors; "" if there are none.

    Args:
        states: (n, d).
        divisors: (d,) of `balance`: infinite for features that are taken as constant.
    """
    constant = states[:, divisors.isinf()]
    varying = int((constant != constant[:1]).any(0).sum())
    if varying == 0:
        return ""
    return (
        f"{varying} of {states.shape[1]} features vary by less than a millionth of their size, as rounding does, and "
        "count as constant; subtract their mean if that is not rounding"
    )


def repeated_outputs(values: Tensor) -> tuple[str, ...]:
    """Return a warning for continuous outputs of which many are equal."""
    n, most = len(values), 0
    distinct = n
    for column in values.T:
        counts = torch.unique(column, return_counts=True)[1]
        repeated = int(counts[counts > 1].sum())
        if repeated > most:
            most, distinct = repeated, len(counts)
    if most < MANY_REPEATS * n:
        return ()
    return (
        f"outputs: a column takes {distinct} values in {n} examples, {most} of which share theirs with others: "
        "estimates of continuous outputs are too large or too small where values repeat, the bounds hold if the "
        "examples are independent; pass integer classes where outputs are classes",
    )


def small_classes(outputs: Outputs) -> tuple[str, ...]:
    """Return a warning for the classes with fewer than 20 examples."""
    sizes = outputs.values.sum(0)
    small = int((sizes < MIN_PER_CLASS).sum())
    if small == 0:
        return ()
    return (
        f"{small} of {len(sizes)} classes have fewer than {MIN_PER_CLASS} examples, the least "
        f"{float(sizes.min()):.1f}: their part of the information is poorly estimated",
    )


def check_lengths(states: Tensor, outputs: Tensor) -> None:
    """Refuse states (sites, n, d) whose first dimension is that of the examples.

    Raises:
        InvalidInputError: they have the shape (n, sites, d).
    """
    if states.dim() == 3 and isinstance(outputs, Tensor) and outputs.dim() > 0:
        sites, n, _ = states.shape
        if len(outputs) != n and len(outputs) == sites:
            raise InvalidInputError(
                f"states has shape {tuple(states.shape)}, read as (sites, n, d) with n = {n} examples, and outputs has "
                f"{len(outputs)}: pass states.transpose(0, 1) if the first dimension is that of the examples"
            )


def check_folds(folds: int, permutations: int, n: int) -> None:
    """Check folds and permutations.

    Raises:
        InvalidInputError: not ints, fewer than 4 folds or fewer than 5 examples a fold, no permutation.
    """
    if n < FEWEST_FOLDS * MIN_PER_FOLD:
        raise InvalidInputError(
            f"states has n = {n} examples: at least {FEWEST_FOLDS * MIN_PER_FOLD} are needed, {MIN_PER_FOLD} in each "
            f"of {FEWEST_FOLDS} folds; add examples"
        )
    for name, value, low, high in (
        ("folds", folds, FEWEST_FOLDS, n // MIN_PER_FOLD),
        ("permutations", permutations, 1, 10**6),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidInputError(
                f"{name} is {shown(value)}: with n = {n} examples it must be an int from {low} to {high}"
            )


def read_states(states: Tensor) -> Tensor:
    """Return (sites, n, d).

    Raises:
        InvalidInputError: not a floating point tensor (n, d) or (sites, n, d), NaN or infinity.
    """
    check_tensor("states", states)
    if not states.is_floating_point():
        raise InvalidInputError(f"states is {states.dtype}: it must be a floating point tensor (n, d) or (sites, n, d)")
    if states.dim() not in (2, 3) or 0 in states.shape:
        raise InvalidInputError(
            f"states has shape {tuple(states.shape)}: it must be (n, d) or (sites, n, d), each of them 1 or more"
        )
    flat = states.detach().reshape(-1, *states.shape[-2:])
    for site, values in enumerate(flat):
        low, high = values.aminmax()  # propagates NaN, and needs no copy
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            wrong = int(values.numel() - values.isfinite().sum())
            raise InvalidInputError(f"states has {wrong} NaN or infinite numbers in site {site}: remove these examples")
    return flat


def read_probabilities(outputs: Tensor) -> Tensor:
    """Return (n, K) probabilities, float64; classes 0 ... max for integers.

    Raises:
        InvalidInputError: neither (n,) integers nor (n, K) probabilities.
    """
    check_tensor("outputs", outputs)
    if outputs.dim() == 1 and not outputs.is_floating_point() and not outputs.is_complex():
        return _one_hot(outputs.detach().long())
    if outputs.dim() != 2 or not outputs.is_floating_point() or 0 in outputs.shape:
        _check_finite(outputs)
        raise InvalidInputError(
            f"outputs is {outputs.dtype} {tuple(outputs.shape)}: it must be (n,) integer classes, (n, K) floating "
            "point probabilities, or with continuous=True (n,) or (n, m) floating point numbers" + _hint(outputs)
        )
    wide = outputs.detach().double()
    _check_finite(wide)
    tolerance = 1e-4 if outputs.dtype in (torch.float32, torch.float64) else 0.05
    total = wide.sum(1)
    off = ((total - 1).abs() > tolerance) | (wide < 0).any(1)
    if bool(off.any()):
        row = int(off.nonzero()[0, 0])
        raise InvalidInputError(
            f"outputs has {int(off.sum())} rows that are not probabilities, first row {row} with sum "
            f"{float(total[row]):.6g} and least entry {float(wide[row].min()):.6g}: pass softmax(logits), or "
            "continuous=True if outputs are not probabilities"
        )
    return wide / total[:, None]


def _check_finite(outputs: Tensor) -> None:
    """Refuse NaN and infinity."""
    if not bool(outputs.isfinite().all()):
        raise InvalidInputError(
            f"outputs has {int((~outputs.isfinite()).sum())} NaN or infinite numbers: remove these examples"
        )


def _hint(outputs: Tensor) -> str:
    """Return what may be meant by outputs of no known kind, or ""."""
    if outputs.dim() == 1 and outputs.is_floating_point():
        return ". These are whole numbers: outputs.long() if they are classes, continuous=True if they were measured"
    if outputs.dim() == 2 and outputs.shape[1] == 1:
        return ". Pass outputs[:, 0]"
    if outputs.dim() == 2 and not outputs.is_floating_point() and not outputs.is_complex():
        return ". Pass outputs.float() for one column a class"
    return ""


def _one_hot(labels: Tensor) -> Tensor:
    if len(labels) == 0:
        raise InvalidInputError("outputs is empty: it must have a class for each example")
    if int(labels.min()) < 0:
        raise InvalidInputError(
            f"outputs has class {int(labels.min())} in {int((labels < 0).sum())} of {len(labels)} examples: classes "
            "are 0 ... K - 1; remove examples without a class, and number the others from 0"
        )
    if int(labels.max()) >= MAX_CLASSES:
        raise InvalidInputError(
            f"outputs has class {int(labels.max())}: classes are 0 ... K - 1, K at most {MAX_CLASSES}"
        )
    return torch.nn.functional.one_hot(labels).double()


def read_vectors(outputs: Tensor, noise: float | Tensor | None, n: int, seed: int) -> Outputs:
    """Return continuous outputs, float64, with independent normal noise of the declared standard deviation, if any.

    Raises:
        InvalidInputError: outputs that are not an (n,) or (n, m) floating point tensor, not finite or constant, or
            noise that is not positive.
    """
    check_tensor("outputs", outputs)
    if not outputs.is_floating_point() or outputs.dim() not in (1, 2) or 0 in outputs.shape:
        kind = f"{outputs.dtype} {tuple(outputs.shape)}"
        raise InvalidInputError(
            f"outputs is {kind}: with continuous=True or noise= it must be (n,) or (n, m) floating point numbers"
            + (": outputs.float()" if outputs.dim() in (1, 2) and not outputs.is_complex() else "")
        )
    if len(outputs) != n:
        raise InvalidInputError(f"states has n = {n} examples, outputs has {len(outputs)}: they must be the same")
    wide = outputs.detach().double().reshape(n, -1)
    _check_finite(wide)
    if noise is not None:
        deviation = _read_noise(noise, wide.shape[1])
        wide = wide + deviation * draw_normal(wide.shape, make_rng(seed, "noise"), wide)
    varying = (wide != wide[:1]).any(0)
    if not bool(varying.any()):
        raise InvalidInputError(f"outputs has the same values {n} times: there is no information about a constant")
    return Outputs(wide[:, varying], varying, torch.zeros(n, dtype=torch.long), False)


def _read_noise(noise: float | Tensor, columns: int) -> Tensor:
    """Return the standard deviation of the noise, one number or one for each column."""
    try:
        deviation = torch.as_tensor(noise, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"noise is {shown(noise)}: it must be a number or a tensor of numbers") from error
    if deviation.dim() > 1 or (deviation.dim() == 1 and len(deviation) != columns):
        raise InvalidInputError(
            f"noise has shape {tuple(deviation.shape)}: one number, or {columns}, one for each column"
        )
    if not bool((deviation > 0).all()) or not bool(deviation.isfinite().all()):
        raise InvalidInputError(
            f"noise is {deviation.tolist()}: it must be positive. Without noise the information of a deterministic "
            "network's vectors is infinite"
        )
    return deviation


def are_continuous(outputs: Tensor, noise: float | Tensor | None, continuous: bool | None) -> bool:
    """Return whether outputs are read as continuous: said so, with noise, or numbers that are no classes.

    Raises:
        InvalidInputError: `continuous` is not True, False or None, or False together with noise.
    """
    if continuous is not None and not isinstance(continuous, bool):
        raise InvalidInputError(f"continuous is {shown(continuous)}: True, False, or None to read it from the outputs")
    if noise is not None:
        if continuous is False:
            raise InvalidInputError("continuous is False and noise is given: only continuous outputs have noise")
        return True
    if continuous is None:
        floats = isinstance(outputs, Tensor) and outputs.dim() == 1 and outputs.is_floating_point()
        return floats and bool((outputs != outputs.round()).any())
    return continuous
