"""The information of a linear probe at each token: the divergence of its posterior from the prior."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.dispatch import choose_backend, implementation
from hf_attn_mi.kernels.inputs import check_real, read_probabilities

MOST_CLASSES = 1024  # classes that a Triton program can hold in registers


def probe_information(
    states: Tensor,
    directions: Tensor,
    offsets: Tensor,
    prior: Tensor,
    outputs: Tensor | None = None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Return what a linear probe reads from each token, in nats: its divergence from the prior, and V-information.

    log q(y | h) = log_softmax(h W^T + b). The divergence KL(q(. | h) || prior) = sum_y q(y | h) log(q(y | h) / prior_y)
    is zero or more. The pointwise V-information sum_y P_y log(q(y | h) / prior_y) is signed: below zero where
    the probe contradicts the outputs P. It is -inf where P gives weight to a class that the probe excludes.

    A class of prior zero has the posterior zero, whatever its logit, and takes no part in either sum.

    float32, bfloat16 and float16 states are multiplied
    and summed in float32, float64 in float64; the results have that dtype.

    Args:
        states: (..., tokens, d) any floating point dtype.
        directions: (K, d) W, for states as they come: a mean that was subtracted belongs in the offsets.
        offsets: (K,) b; -inf excludes a class.
        prior: (K,) class probabilities of the profile.
        outputs: (K,) or (..., K) the model's probabilities, one row for all tokens of an example.
        backend: "torch", "triton" or "auto", which takes triton on CUDA where it can.

    Returns:
        (..., tokens) divergence, and (..., tokens) V-information, None without outputs.

    Raises:
        InvalidInputError: wrong shapes or dtypes, prior or outputs that are not probabilities, NaN or infinity.
        BackendUnavailableError: the requested backend is not installed, or cannot do this call.

    Source: Y. Xu et al., "A Theory of Usable Information under Computational Constraints", arXiv 2002.10689;
    K. Ethayarajh et al., "Understanding Dataset Difficulty with V-Usable Information", arXiv 2110.08420 (pointwise).

    Example:
        >>> states = torch.tensor([[0.0], [2.0]])
        >>> kl, _ = probe_information(states, torch.tensor([[1.0], [-1.0]]), torch.zeros(2), torch.tensor([0.5, 0.5]))
        >>> [round(x, 3) for x in kl.tolist()]
        [0.0, 0.603]
    """
    dtype = _read_states(states)
    classes = _read_probe(directions, offsets, states)
    lead, tokens, d = states.shape[:-2], states.shape[-2], states.shape[-1]
    known = read_probabilities("prior", prior, [(classes,)], states.device)
    log_prior = known.log()
    bias = torch.where(known > 0, offsets.detach().to(known), -torch.inf)
    if not bool(torch.isfinite(bias).any()):
        raise InvalidInputError("offsets exclude every class of a prior above zero: one of them must be finite")
    weights = None
    if outputs is not None:
        weights = read_probabilities("outputs", outputs, [(classes,), (*lead, classes)], states.device)
        weights = torch.where(known > 0, weights, 0.0).reshape(-1, classes).to(dtype)
    flat = states.detach().reshape(-1, tokens, d)
    probe = directions.detach().to(dtype), bias.to(dtype), log_prior.to(dtype)
    refusals = {"triton": _triton_refusal(dtype, classes)}
    chosen = choose_backend("probe_information", backend, states.device, refusals=refusals)
    kl, gain = implementation("probe_information", chosen)(flat, *probe, weights)
    if bool(kl.isnan().any()):
        raise InvalidInputError("states has NaN or infinite entries, or logits that overflow: leave such tokens out")
    shape = (*lead, tokens)
    return kl.view(shape), None if gain is None else gain.view(shape)


def _triton_refusal(dtype: torch.dtype, classes: int) -> str | None:
    """Why the Triton kernel cannot score, None if it can."""
    if dtype == torch.float64:
        return "the kernel computes in float32, and the states are float64"
    return None if classes <= MOST_CLASSES else f"the kernel holds at most {MOST_CLASSES} classes, and K = {classes}"


def _read_states(states: Tensor) -> torch.dtype:
    """Return the dtype to compute in."""
    check_real("states", states)
    if states.dim() < 2 or 0 in states.shape:
        raise InvalidInputError(f"states has shape {tuple(states.shape)}: it must be (..., tokens, d), not empty")
    return torch.float64 if states.dtype == torch.float64 else torch.float32


def _read_probe(directions: Tensor, offsets: Tensor, states: Tensor) -> int:
    """Return the number of classes."""
    d = states.shape[-1]
    for name, tensor in (("directions", directions), ("offsets", offsets)):
        check_real(name, tensor)
        if tensor.device != states.device:
            raise InvalidInputError(f"{name} is on {tensor.device}, states on {states.device}: move one to the other")
    if directions.dim() != 2 or directions.shape[1] != d or directions.shape[0] < 1:
        raise InvalidInputError(
            f"directions has shape {tuple(directions.shape)}, states has d = {d}: it must be (K, {d})"
        )
    if tuple(offsets.shape) != (directions.shape[0],):
        raise InvalidInputError(f"offsets has shape {tuple(offsets.shape)}: it must be ({directions.shape[0]},)")
    if not bool(torch.isfinite(directions).all()) or bool((offsets.isnan() | (offsets == torch.inf)).any()):
        raise InvalidInputError(
            "directions must be finite and offsets finite or -inf: fit the probe again with shrinkage"
        )
    return int(directions.shape[0])
