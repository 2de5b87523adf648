"""One pass over states: what every closed-form estimator of the information with a class needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.dispatch import choose_backend, implementation
from hf_attn_mi.kernels.inputs import read_labels, read_positive, read_probabilities, read_states
from hf_attn_mi.kernels.threads import sharing_threads


@dataclass(frozen=True, eq=False)
class ClassMoments:
    """Sums over the examples of each fold, of states minus `mean`.

    The sums over all but one fold are the total minus that fold; the total is the sum over folds.
    """

    mean: Tensor  # (..., d) what was subtracted: the mean over all examples
    grams: Tensor  # (..., folds, d, d) sum of x x^T
    sums: Tensor  # (..., folds, K, d) sum of P_ik x_i
    weights: Tensor  # (folds, K) float64: sum of P_ik, the (soft) size of each class
    products: Tensor  # (folds, K, K) float64: sum of P_ik P_il, diagonal for hard labels
    sizes: Tensor  # (folds,) long: examples
    fold_of: Tensor  # (n,) long
    backend: str


def class_moments(states: Tensor, outputs: Tensor, *, folds: int | Tensor = 10, backend: str = "auto") -> ClassMoments:
    """Return fold-wise class sums and Gram matrices of each site, from one pass over its states.

    The following needs no further pass over the states, with `factor_classes` and `class_separation`:
      * class means and pooled within-class covariance, G_within = G_total - sum_c s_c s_c^T / n_c, of all examples, of
        each fold, and of all but one fold: the cross-fitted, shrunk linear discriminant (`probe`);
      * the debiased Mahalanobis Gram of the class means, correct for soft labels, whose Gaussian mixture has the
        information that `gaussian` reports; with one fold left out, its jackknife.
    Held-out scores need one more product with the states, and neighbor counts are a separate operation.

    States are centered before any product. float32, bfloat16 and float16 states are multiplied and summed in float32,
    float64 in float64; the moments of the outputs are float64. For S sites the result takes S * folds * d * (d + K)
    numbers, more than the states if folds * d > n: pass a few sites at a time.

    Args:
        states: (..., n, d); leading dimensions are sites.
        outputs: (n,) classes as integers, or (n, K) probabilities, the same for all sites.
        folds: how many, assigned at random with a fixed seed, sizes equal within one; or (n,) the fold of each example.
        backend: "torch", "triton" or "auto", which takes triton on CUDA for all but float64 states.

    Raises:
        InvalidInputError: wrong shapes or dtypes, NaN or infinity, rows of probabilities that do not sum to one, more
            folds than examples, or an empty fold.
        BackendUnavailableError: the requested backend is not installed, or cannot do this call.

    Example:
        >>> states = torch.tensor([[1.0], [2.0], [4.0], [5.0]])
        >>> moments = class_moments(states, torch.tensor([0, 0, 1, 1]), folds=2)
        >>> moments.sums.sum(-3).flatten(), moments.grams.sum(-3).item()
        (tensor([-3.,  3.]), 10.0)
    """
    flat = read_states(states)
    n, d = flat.shape[1:]
    double = flat.dtype == torch.float64
    refusals = {"triton": "the kernel sums in float32, and states is float64" if double else None}
    chosen = choose_backend("class_moments", backend, flat.device, refusals=refusals)
    probabilities = _read_outputs(outputs, n, flat.device)
    fold_of = _read_folds(folds, n, flat.device)
    sizes = torch.bincount(fold_of)
    order = torch.argsort(fold_of, stable=True)
    sorted_outputs = probabilities[order]
    labels = sorted_outputs.T.to(torch.float64 if double else torch.float32).contiguous()
    mean, grams, sums = implementation("class_moments", chosen)(flat, labels, order, sizes)
    by_fold = sorted_outputs.split(sizes.tolist())  # type: ignore[no-untyped-call]
    with sharing_threads(flat.device, len(sizes)):  # the products are too small for several threads to share one
        products = torch.stack([part.T @ part for part in by_fold])
    lead, parts = states.shape[:-2], len(sizes)
    return ClassMoments(
        mean=mean.reshape(*lead, d),
        grams=grams.reshape(*lead, parts, d, d),
        sums=sums.reshape(*lead, parts, len(labels), d),
        weights=torch.stack([part.sum(0) for part in by_fold]),
        products=products,
        sizes=sizes,
        fold_of=fold_of,
        backend=chosen,
    )


def _read_outputs(outputs: Tensor, n: int, device: torch.device) -> Tensor:
    """Return (n, K) probabilities, float64; classes 0 ... max for integers."""
    if isinstance(outputs, Tensor) and outputs.dim() == 1:
        read_labels(outputs, n, device)
        if int(outputs.min()) < 0:
            raise InvalidInputError(f"outputs has class {int(outputs.min())}: classes are 0 ... K - 1")
        return torch.nn.functional.one_hot(outputs.to(device).long()).double()
    classes = outputs.shape[-1] if isinstance(outputs, Tensor) and outputs.dim() == 2 else 1
    return read_probabilities("outputs", outputs, [(n, classes)], device)


def _read_folds(folds: int | Tensor, n: int, device: torch.device) -> Tensor:
    """Return (n,) the fold of each example."""
    if isinstance(folds, Tensor):
        if folds.dtype not in (torch.int32, torch.int64) or tuple(folds.shape) != (n,):
            raise InvalidInputError(
                f"folds is {folds.dtype} {tuple(folds.shape)}: it must be an int or ({n},) integers"
            )
        if int(folds.min()) < 0 or bool((torch.bincount(folds.long()) == 0).any()):
            raise InvalidInputError("folds must number the folds 0, 1, ... and give each at least one example")
        return folds.to(device).long()
    if read_positive("folds", folds) > n:
        raise InvalidInputError(f"folds is {folds}, states has only n = {n} examples")
    generator = torch.Generator().manual_seed(0)
    return (torch.randperm(n, generator=generator) % folds).to(device)
