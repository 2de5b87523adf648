"""One pass over states: what every closed-form estimator of the information with a class needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.backends import choose
from hf_attn_mi.kernels.moments.inputs import positive, read_labels, read_permutations, read_states
from hf_attn_mi.kernels.threads import across_threads, sharing_threads


@dataclass(frozen=True, eq=False)
class ClassMoments:
    """Sums over the examples of each fold, of states minus `mean`. Label set 0 is as given, 1 ... B are permuted.

    Everything of all but one fold is the total minus that fold; the sum over folds is the whole.
    """

    mean: Tensor  # (..., d) what was subtracted: the mean over all examples
    grams: Tensor  # (..., folds, d, d) sum of x x^T
    sums: Tensor  # (..., 1 + B, folds, K, d) sum of P_ik x_i
    weights: Tensor  # (1 + B, folds, K) float64: sum of P_ik, the (soft) size of each class
    products: Tensor  # (1 + B, folds, K, K) float64: sum of P_ik P_il, diagonal for hard labels
    sizes: Tensor  # (folds,) long: examples
    fold_of: Tensor  # (n,) long
    backend: str


def class_moments(
    states: Tensor,
    outputs: Tensor,
    *,
    folds: int | Tensor = 10,
    permutations: Tensor | None = None,
    backend: str = "auto",
) -> ClassMoments:
    """Return fold-wise class sums and Gram matrices of each site, from one pass over its states.

    What follows without looking at the states again, with `factor_classes` and `class_separation`:
      * class means and pooled within-class covariance, G_within = G_total - sum_c s_c s_c^T / n_c, of all examples, of
        each fold, and of all but one fold: the cross-fitted, shrunk linear discriminant (`probe`);
      * the debiased Mahalanobis Gram of the class means, correct for soft labels, whose Gaussian mixture has the
        information that `gaussian` reports; with one fold left out, its jackknife;
      * the same under each permutation: permutations change class sums alone, so one factor of G_total serves them all.
    Not in it: held-out scores, which are one more product with the states; neighbors.

    States are centered before any product. float32, bfloat16 and float16 states are multiplied and summed in float32,
    float64 in float64; the moments of the outputs are float64. For S sites the result takes
    S * folds * d * (d + (1 + B) * K) numbers, more than the states if folds * d > n: pass a few sites at a time.

    Args:
        states: (..., n, d); leading dimensions are sites.
        outputs: (n,) classes as integers, or (n, K) probabilities, the same for all sites.
        folds: how many, assigned at random with a fixed seed, sizes equal within one; or (n,) the fold of each example.
        permutations: (B, n), each row a permutation of 0 ... n - 1: set b has outputs[permutations[b]].
        backend: "torch", "triton" or "auto", which takes triton on CUDA for all but float64 states.

    Raises:
        InvalidInputError: wrong shapes or dtypes, NaN or infinity, rows of probabilities that do not sum to one, more folds
            than examples, or an empty fold.
        BackendUnavailableError: triton was asked for and is not there, or the states are float64.

    Example:
        >>> states = torch.tensor([[1.0], [2.0], [4.0], [5.0]])
        >>> moments = class_moments(states, torch.tensor([0, 0, 1, 1]), folds=2)
        >>> moments.sums.sum(-3).flatten(), moments.grams.sum(-3).item()
        (tensor([-3.,  3.]), 10.0)
    """
    flat = read_states(states)
    n, d = flat.shape[1:]
    double = flat.dtype == torch.float64
    chosen = choose(backend, flat.device, "the kernel sums in float32, and states is float64" if double else None)
    probabilities = _read_outputs(outputs, n, flat.device)
    shuffled = read_permutations(permutations, n, flat.device)
    fold_of = _read_folds(folds, n, flat.device)
    sizes = torch.bincount(fold_of)
    dtype = torch.float64 if double else torch.float32
    label_sets = probabilities[None] if shuffled is None else torch.cat([probabilities[None], probabilities[shuffled]])
    order = torch.argsort(fold_of, stable=True)
    by_fold = label_sets[:, order].split(sizes.tolist(), dim=1)  # type: ignore[no-untyped-call]
    wide = [part.transpose(1, 2).flatten(0, 1).to(dtype) for part in by_fold]  # each ((1 + B) * K, examples)
    sets, classes, parts = len(label_sets), label_sets.shape[-1], len(sizes)
    if chosen == "triton":
        from hf_attn_mi.kernels.moments.by_triton import moments_triton

        mean, grams, sums = moments_triton(flat, torch.cat(wide, 1), order, sizes)
    else:
        mean, grams, sums = _moments_torch(flat, wide, order, sizes)
    with sharing_threads(flat.device, parts):  # small products: no operation is worth all threads
        products = torch.stack([part.transpose(1, 2) @ part for part in by_fold], 1)
    lead = states.shape[:-2]
    return ClassMoments(
        mean=mean.reshape(*lead, d),
        grams=grams.reshape(*lead, parts, d, d),
        sums=sums.reshape(*lead, parts, sets, classes, d).transpose(-4, -3),
        weights=torch.stack([part.sum(1) for part in by_fold], 1),
        products=products,
        sizes=sizes,
        fold_of=fold_of,
        backend=chosen,
    )


def _moments_torch(flat: Tensor, wide: list[Tensor], order: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return means (sites, d), Gram matrices (sites, folds, d, d) and class sums (sites, folds, labels, d).

    Args:
        flat: (sites, n, d) states.
        wide: of each fold (labels, examples), in the dtype of the sums.
        order: (n,) examples fold after fold.
        sizes: (folds,) examples of each fold.
    """
    sites, _, d = flat.shape
    dtype, parts = wide[0].dtype, len(sizes)
    mean = flat.new_empty(sites, d, dtype=dtype)
    members = order.split(sizes.tolist())  # type: ignore[no-untyped-call]
    grams = flat.new_empty(sites, parts, d, d, dtype=dtype)
    sums = flat.new_empty(sites, parts, len(wide[0]), d, dtype=dtype)

    def fill(piece: tuple[int, range]) -> None:
        site, folds = piece
        for fold in folds:  # the examples of one fold stay in cache from here to their products
            examples = flat[site].index_select(0, members[fold]).to(dtype).sub_(mean[site])
            torch.mm(examples.T, examples, out=grams[site, fold])
            torch.mm(wide[fold], examples, out=sums[site, fold])

    with sharing_threads(flat.device, sites * parts) as threads:  # sites where there are enough, else folds of one site
        for site in range(sites):
            mean[site] = flat[site].mean(0, dtype=dtype)
        groups = 1 if sites >= threads else min(threads, parts)
        deal = [range(parts)[first::groups] for first in range(groups)]
        across_threads(fill, [(site, folds) for site in range(sites) for folds in deal], threads)
    return mean, grams, sums


def _read_outputs(outputs: Tensor, n: int, device: torch.device) -> Tensor:
    """Return (n, K) probabilities, float64; classes 0 ... max for integers."""
    if isinstance(outputs, Tensor) and outputs.dim() == 1:
        read_labels(outputs, n, device)
        if int(outputs.min()) < 0:
            raise InvalidInputError(f"outputs has class {int(outputs.min())}: classes are 0 ... K - 1")
        return torch.nn.functional.one_hot(outputs.to(device).long()).double()
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        kind = outputs.dtype if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InvalidInputError(
            f"outputs is {kind}: it must be (n,) integer classes or (n, K) floating point probabilities"
        )
    if outputs.dim() != 2 or outputs.shape[0] != n or outputs.shape[1] < 1:
        raise InvalidInputError(f"outputs has shape {tuple(outputs.shape)}, states has n = {n}: it must be ({n}, K)")
    wide = outputs.detach().to(device).double()
    tolerance = 1e-5 if outputs.dtype in (torch.float32, torch.float64) else 0.05
    if bool(((wide.sum(1) - 1).abs() > tolerance).any()) or not bool((wide >= 0).all()):
        raise InvalidInputError(
            "outputs has rows that are no probabilities: pass softmax(logits), whose rows sum to one"
        )
    return wide / wide.sum(1, keepdim=True)


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
    if positive("folds", folds) > n:
        raise InvalidInputError(f"folds is {folds}, states has only n = {n} examples")
    generator = torch.Generator().manual_seed(0)
    return (torch.randperm(n, generator=generator) % folds).to(device)
