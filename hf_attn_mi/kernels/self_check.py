"""Small problems on which a backend is compared with its operation's reference before "auto" uses it on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hf_attn_mi.kernels.attention_statistics import attention_statistics
from hf_attn_mi.kernels.attention_statistics.reference import (
    reference_allowed,
    reference_attention_statistics,
    reference_rows,
)
from hf_attn_mi.kernels.calibration import class_calibration
from hf_attn_mi.kernels.calibration.reference import reference_class_calibration
from hf_attn_mi.kernels.efficient import efficient_rows
from hf_attn_mi.kernels.efficient.reference import reference_efficient_rows
from hf_attn_mi.kernels.moments import class_moments
from hf_attn_mi.kernels.moments.reference import reference_class_moments
from hf_attn_mi.kernels.neighbors import neighbor_counts
from hf_attn_mi.kernels.neighbors.reference import reference_neighbor_counts
from hf_attn_mi.kernels.permutations import agreeing_neighbors, permuted_sums
from hf_attn_mi.kernels.permutations.reference import reference_agreeing_neighbors, reference_permuted_sums
from hf_attn_mi.kernels.probe import probe_information
from hf_attn_mi.kernels.probe.reference import reference_probe_information

SINGLE, HALF = 1e-4, 2e-2  # relative errors allowed to float32 and to half precision: a wrong kernel exceeds both
Comparison = tuple[str, Tensor, Tensor, float]  # what is compared, the backend's, the reference's, error allowed


def disagreement(operation: str, backend: str, device: torch.device) -> str | None:
    """Return in what a backend disagrees with the reference on a small problem, or how it fails; None if it agrees.

    Args:
        operation: a key of `dispatch.TABLE`.
        backend: one of its backends; it is selected by its name.
        device: where it computes.
    """
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for what, computed, expected, allowed in PROBLEMS[operation](backend, device):
                if computed.shape != expected.shape:
                    return f"{what} has shape {tuple(computed.shape)} in place of {tuple(expected.shape)}"
                exact = expected.double().cpu()
                error = float((computed.double().cpu() - exact).abs().max() / exact.abs().max().clamp_min(1))
                if not error <= allowed:  # NaN, too
                    return f"on a small problem its {what} is off by {error:.1e} (relative; allowed: {allowed:.0e})"
    except Exception as error:  # whatever a compiler or driver raises
        return f"it fails on a small problem with {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return None


def _attention_statistics(backend: str, device: torch.device) -> Iterator[Comparison]:
    """Grouped queries, padding, an additive mask and both precisions."""
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 70, 16, generator=generator), torch.randn(2, 2, 70, 16, generator=generator)
    value, bias = torch.randn(2, 2, 70, 16, generator=generator), torch.randn(2, 1, 1, 70, generator=generator)
    real = torch.ones(2, 70, dtype=torch.bool)
    real[1, 50:] = False
    allowed = reference_allowed((2, 4, 70, 70), key_mask=real, query_mask=real)
    for dtype, error in ((torch.float32, SINGLE), (torch.bfloat16, HALF)):
        tensors = [x.to(dtype) for x in (query, key, value, bias)]
        wide = [x.double() for x in tensors]
        rows = reference_rows(wide[0], wide[1], allowed, bias=wide[3])
        expected = reference_attention_statistics(rows, wide[2], allowed, 2.0**-23)
        q, k, v, mask, flags = (x.to(device) for x in (*tensors, real))
        for effective in (True, False):
            statistics = attention_statistics(
                q, k, v, None, mask=mask, key_mask=flags, query_mask=flags, effective=effective, backend=backend
            )
            for name, exact in expected.items():
                computed = getattr(statistics, name)
                if computed is not None:
                    yield f"{name} in {dtype}", computed, exact, error


def _class_calibration(backend: str, device: torch.device) -> Iterator[Comparison]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 200, generator=generator, dtype=torch.float64)
    target = (1.5 * scores + torch.randn(3, 200, generator=generator, dtype=torch.float64)).softmax(0)
    parameters, loss, posterior = class_calibration(scores.to(device), target.to(device), backend=backend)
    exact = reference_class_calibration(scores, target)
    yield "parameters", parameters, exact[0], SINGLE
    yield "loss", torch.tensor([loss]), exact[1][None], SINGLE
    yield "posterior", posterior, exact[2], SINGLE


def _class_moments(backend: str, device: torch.device) -> Iterator[Comparison]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 90, 70, generator=generator) + 3
    outputs = torch.randn(90, 3, generator=generator).softmax(1)
    for dtype in (torch.float32, torch.bfloat16):
        rounded = states.to(dtype)
        moments = class_moments(rounded.to(device), outputs.to(device), folds=torch.arange(90) % 4, backend=backend)
        exact = [reference_class_moments(site, outputs, torch.arange(90) % 4, 4) for site in rounded]
        yield f"sums in {dtype}", moments.sums, torch.stack([site[2] for site in exact]), SINGLE
        yield f"grams in {dtype}", moments.grams, torch.stack([site[3] for site in exact]), SINGLE


def _efficient_rows(backend: str, device: torch.device) -> Iterator[Comparison]:
    generator = torch.Generator().manual_seed(0)
    attention = torch.randn(2, 3, 9, generator=generator, dtype=torch.float64).softmax(-1)
    values = torch.randn(2, 9, 3, generator=generator, dtype=torch.float64)
    rows = efficient_rows(attention.to(device), values.to(device), backend=backend)
    yield "rows", rows.attention, reference_efficient_rows(attention, values), 1e-7


def _neighbor_counts(backend: str, device: torch.device) -> Iterator[Comparison]:
    """One site without ties, and one with duplicates and ties, in many dimensions and in few."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 90, 20, generator=generator)
    states[1] = states[1].round()
    states[1, 60:] = states[1, :30]
    labels = torch.arange(90) % 4
    for some in (states, states[:, :, :5]):
        counts = neighbor_counts(some.to(device), labels.to(device), backend=backend)
        expected = torch.stack([reference_neighbor_counts(site, labels, 3)[0] for site in some])
        yield f"counts in {some.shape[2]} dimensions", counts.within, expected, 0.0


def _permuted_sums(backend: str, device: torch.device) -> Iterator[Comparison]:
    """More rows and columns than are added at a time."""
    points, labels = _points_and_orders()
    members = labels.T.argsort(dim=1, stable=True).int()
    ends = [0, *torch.bincount(labels[:, 0].long()).cumsum(0).tolist()]
    sums = permuted_sums(points.to(device), members.to(device), ends, backend=backend)
    yield "sums", sums, reference_permuted_sums(points, members, ends), SINGLE


def _agreeing_neighbors(backend: str, device: torch.device) -> Iterator[Comparison]:
    points, labels = _points_and_orders()
    found = agreeing_neighbors(points.to(device), labels.to(device), 10, backend=backend)
    yield "numbers", found, reference_agreeing_neighbors(points, labels, 10), 0.0


def _points_and_orders() -> tuple[Tensor, Tensor]:
    """Return (150, 70) points and (150, 3) classes in three orders."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(150, 70, generator=generator)
    classes = (torch.arange(150) % 7 % 3).char()
    return points, torch.stack([classes[torch.randperm(150, generator=generator)] for _ in range(3)], 1)


def _probe_information(backend: str, device: torch.device) -> Iterator[Comparison]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 40, 50, generator=generator)
    directions, offsets = torch.randn(5, 50, generator=generator) / 5, torch.randn(5, generator=generator)
    prior, outputs = torch.full((5,), 0.2), torch.randn(2, 5, generator=generator).softmax(1)
    for dtype in (torch.float32, torch.bfloat16):
        arguments = states.to(dtype), directions, offsets, prior, outputs
        kl, gain = probe_information(*(x.to(device) for x in arguments), backend=backend)
        exact_kl, exact_gain = reference_probe_information(*arguments)
        assert gain is not None
        yield f"divergence in {dtype}", kl, exact_kl, SINGLE
        yield f"V-information in {dtype}", gain, exact_gain, SINGLE


PROBLEMS: dict[str, Callable[[str, torch.device], Iterator[Comparison]]] = {
    "attention_statistics": _attention_statistics,
    "class_calibration": _class_calibration,
    "class_moments": _class_moments,
    "efficient_rows": _efficient_rows,
    "neighbor_counts": _neighbor_counts,
    "permuted_sums": _permuted_sums,
    "agreeing_neighbors": _agreeing_neighbors,
    "probe_information": _probe_information,
}
