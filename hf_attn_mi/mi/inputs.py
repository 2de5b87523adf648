"""Reading what the caller passed: states of sites, outputs as probabilities, and the labels that neighbors need."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi.rng import stream

MOST_CLASSES = 10_000
LEAST_PER_CLASS = 20  # examples: below, no estimator here is worth its name


@dataclass(frozen=True, eq=False)
class Problem:
    """Class outputs of the examples."""

    probabilities: Tensor  # (n, K) float64, classes that never come left out
    present: Tensor  # bool: which of the given classes come
    labels: Tensor  # (n,) long: the classes; for probabilities one draw from each
    soft: bool

    @property
    def share(self) -> Tensor:
        """(K,) mean probabilities."""
        return self.probabilities.mean(0)


def read_problem(states: Tensor, outputs: Tensor, seed: int) -> Problem:
    """Return class outputs, checked against states (sites, n, d).

    Raises:
        InvalidInputError: wrong shapes or dtypes, NaN or infinity, other lengths, one class only, or fewer than
            20 examples a class.
    """
    probabilities = read_outputs(outputs)
    n = states.shape[1]
    if len(probabilities) != n:
        raise InvalidInputError(f"states has n = {n} examples, outputs has {len(probabilities)}: they must be the same")
    present = probabilities.sum(0) > 0
    probabilities = probabilities[:, present]
    classes = probabilities.shape[1]
    if classes < 2:
        raise InvalidInputError(f"outputs has one class only, {n} times: there is no information about a constant")
    if n < LEAST_PER_CLASS * classes:
        raise InvalidInputError(
            f"n = {n} examples for {classes} classes: at least {LEAST_PER_CLASS} a class are needed, "
            f"{LEAST_PER_CLASS * classes} in all; add examples or merge classes"
        )
    soft = bool(((probabilities > 0) & (probabilities < 1)).any())
    if soft:
        labels = torch.multinomial(probabilities, 1, generator=stream(seed, "labels"))[:, 0]
    else:
        labels = probabilities.argmax(1)
    return Problem(probabilities, present, labels, soft)


def small_classes(problem: Problem) -> tuple[str, ...]:
    """Return a warning for the classes with fewer than 20 examples."""
    sizes = problem.probabilities.sum(0)
    small = int((sizes < LEAST_PER_CLASS).sum())
    if small == 0:
        return ()
    return (
        f"{small} of {len(sizes)} classes have fewer than {LEAST_PER_CLASS} examples, the least "
        f"{float(sizes.min()):.1f}: what is known about them is little",
    )


def least_folds(folds: int, permutations: int, n: int) -> None:
    """Check folds and permutations.

    Raises:
        InvalidInputError: not ints, fewer than 4 folds or fewer than 5 examples a fold, no permutation.
    """
    for name, value, least, most in (("folds", folds, 4, n // 5), ("permutations", permutations, 1, 10**6)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InvalidInputError(
                f"{name} is {value!r}: with n = {n} examples it must be an int from {least} to {most}"
            )


def read_states(states: Tensor) -> Tensor:
    """Return (sites, n, d).

    Raises:
        InvalidInputError: not a floating point tensor (n, d) or (sites, n, d), NaN or infinity.
    """
    if not isinstance(states, Tensor) or not states.is_floating_point():
        kind = states.dtype if isinstance(states, Tensor) else type(states).__name__
        raise InvalidInputError(f"states is {kind}: it must be a floating point tensor (n, d) or (sites, n, d)")
    if states.dim() not in (2, 3) or 0 in states.shape:
        raise InvalidInputError(
            f"states has shape {tuple(states.shape)}: it must be (n, d) or (sites, n, d), none of them 0"
        )
    flat = states.detach().reshape(-1, *states.shape[-2:])
    for site, values in enumerate(flat):
        low, high = values.aminmax()  # they carry a NaN along, and need no copy
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            wrong = int(values.numel() - values.isfinite().sum())
            raise InvalidInputError(f"states has {wrong} NaN or infinite numbers in site {site}: remove these examples")
    return flat


def read_outputs(outputs: Tensor) -> Tensor:
    """Return (n, K) probabilities, float64; classes 0 ... max for integers.

    Raises:
        InvalidInputError: neither (n,) integers nor (n, K) probabilities.
    """
    if not isinstance(outputs, Tensor):
        raise InvalidInputError(f"outputs is {type(outputs).__name__}: it must be a tensor of classes or probabilities")
    if outputs.dim() == 1 and not outputs.is_floating_point() and not outputs.is_complex():
        return _read_classes(outputs.detach().long())
    if outputs.dim() != 2 or not outputs.is_floating_point() or 0 in outputs.shape:
        raise InvalidInputError(
            f"outputs is {outputs.dtype} {tuple(outputs.shape)}: it must be (n,) integer classes, (n, K) floating "
            "point probabilities, or (n, m) vectors together with noise="
        )
    wide = outputs.detach().double()
    if not bool(wide.isfinite().all()):
        raise InvalidInputError(f"outputs has {int((~wide.isfinite()).sum())} NaN or infinite numbers")
    tolerance = 1e-4 if outputs.dtype in (torch.float32, torch.float64) else 0.05
    total = wide.sum(1)
    off = ((total - 1).abs() > tolerance) | (wide < 0).any(1)
    if bool(off.any()):
        row = int(off.nonzero()[0, 0])
        raise InvalidInputError(
            f"outputs has {int(off.sum())} rows that are no probabilities, first row {row} with sum "
            f"{float(total[row]):.6g} and least entry {float(wide[row].min()):.6g}: pass softmax(logits), or noise= if "
            "outputs are vectors"
        )
    return wide / total[:, None]


def _read_classes(labels: Tensor) -> Tensor:
    if len(labels) == 0 or int(labels.min()) < 0:
        least = int(labels.min()) if len(labels) else "none"
        raise InvalidInputError(f"outputs has {len(labels)} classes, the least {least}: classes are 0 ... K - 1")
    if int(labels.max()) >= MOST_CLASSES:
        raise InvalidInputError(
            f"outputs has class {int(labels.max())}: classes are 0 ... K - 1, K at most {MOST_CLASSES}"
        )
    return torch.nn.functional.one_hot(labels).double()
