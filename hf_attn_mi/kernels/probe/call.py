"""What a linear probe says about a class at each token: the divergence of its posterior from the prior."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.kernels.backends import choose

ELEMENTS = 2**20  # logits, or widened states, held at a time: 4 MB in float32
MOST_CLASSES = 1024  # that a Triton program holds in registers


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
    the probe speaks against the outputs P. -inf where P gives weight to a class that the probe excludes.

    A class of prior zero has the posterior zero, whatever its logit, and takes no part in either sum.

    One matrix product and one pass over each chunk of logits. float32, bfloat16 and float16 states are multiplied
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
        InvalidInputError: wrong shapes or dtypes, prior or outputs that are no probabilities, NaN or infinity.
        BackendUnavailableError: triton was asked for and is not there, or cannot do this call.

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
    known = _read_probabilities("prior", prior, (classes,), [(classes,)], states.device)
    log_prior = known.log()
    bias = torch.where(known > 0, offsets.detach().to(known), -torch.inf)
    if not bool(torch.isfinite(bias).any()):
        raise InvalidInputError("offsets exclude every class of a prior above zero: one of them must be finite")
    given = None
    if outputs is not None:
        full = (*lead, classes)
        given = _read_probabilities("outputs", outputs, full, [(classes,), full], states.device)
        given = torch.where(known > 0, given, 0.0).reshape(-1, classes).to(dtype)
    flat = states.detach().reshape(-1, tokens, d)
    probe = directions.detach().to(dtype), bias.to(dtype), log_prior.to(dtype)
    if choose(backend, states.device, _refused(dtype, classes)) == "triton":
        from hf_attn_mi.kernels.probe.by_triton import score_triton

        kl, gained = score_triton(flat, *probe, given)
    else:
        kl, gained = _score(flat, *probe, given)
    if bool(kl.isnan().any()):
        raise InvalidInputError("states has NaN or infinite entries, or logits that overflow: leave such tokens out")
    shape = (*lead, tokens)
    return kl.view(shape), None if gained is None else gained.view(shape)


def _score(
    states: Tensor, directions: Tensor, bias: Tensor, log_prior: Tensor, outputs: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return (examples * tokens,) divergence and V-information of (examples, tokens, d) states, a chunk at a time."""
    classes, d = directions.shape
    tokens = states.shape[1]
    rows = states.reshape(-1, d)
    kl = directions.new_empty(len(rows))
    gained = None if outputs is None else directions.new_empty(len(rows))
    held = max(classes, d if rows.dtype != directions.dtype else 1)
    step = max(16, ELEMENTS // held)
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step].to(directions.dtype)
        log_q = torch.addmm(bias, chunk, directions.T).log_softmax(-1)
        ratio = log_q - log_prior  # NaN where both are -inf: prior zero
        q = log_q.exp_()
        kl[start : start + step] = torch.where(q > 0, q * ratio, 0.0).sum(-1).clamp_min(0) + 0 * q.sum(-1)
        if gained is not None and outputs is not None:
            example = torch.arange(start, start + len(chunk), device=rows.device) // tokens
            weights = outputs.expand(len(states), -1).index_select(0, example)
            gained[start : start + step] = torch.where(weights > 0, weights * ratio, 0.0).sum(-1)
    return kl, gained


def _refused(dtype: torch.dtype, classes: int) -> str | None:
    """Why the Triton kernel cannot score, None if it can."""
    if dtype == torch.float64:
        return "the kernel computes in float32, and the states are float64"
    return None if classes <= MOST_CLASSES else f"the kernel holds at most {MOST_CLASSES} classes, and K = {classes}"


def _read_states(states: Tensor) -> torch.dtype:
    """Return the dtype to compute in."""
    if not isinstance(states, Tensor) or not states.is_floating_point():
        kind = states.dtype if isinstance(states, Tensor) else type(states).__name__
        raise InvalidInputError(f"states is {kind}: it must be a real floating point tensor (..., tokens, d)")
    if states.dim() < 2 or 0 in states.shape:
        raise InvalidInputError(f"states has shape {tuple(states.shape)}: it must be (..., tokens, d), not empty")
    return torch.float64 if states.dtype == torch.float64 else torch.float32


def _read_probe(directions: Tensor, offsets: Tensor, states: Tensor) -> int:
    """Return the number of classes."""
    d = states.shape[-1]
    for name, given in (("directions", directions), ("offsets", offsets)):
        if not isinstance(given, Tensor) or not given.is_floating_point():
            kind = given.dtype if isinstance(given, Tensor) else type(given).__name__
            raise InvalidInputError(f"{name} is {kind}: it must be a real floating point tensor")
        if given.device != states.device:
            raise InvalidInputError(f"{name} is on {given.device}, states on {states.device}: move one to the other")
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


def _read_probabilities(
    name: str, given: Tensor, full: tuple[int, ...], allowed: list[tuple[int, ...]], device: torch.device
) -> Tensor:
    """Return float64 probabilities whose rows sum to one."""
    if not isinstance(given, Tensor) or not given.is_floating_point():
        kind = given.dtype if isinstance(given, Tensor) else type(given).__name__
        raise InvalidInputError(f"{name} is {kind}: it must be floating point probabilities {full}")
    if tuple(given.shape) not in allowed:
        shapes = " or ".join(map(str, dict.fromkeys(allowed)))
        raise InvalidInputError(f"{name} has shape {tuple(given.shape)}: it must be {shapes}")
    wide = given.detach().to(device).double()
    tolerance = 1e-4 if given.dtype in (torch.float32, torch.float64) else 0.05
    if not bool((wide >= 0).all()) or not bool(((wide.sum(-1) - 1).abs() <= tolerance).all()):
        raise InvalidInputError(f"{name} has rows that are no probabilities: none may be negative, and they sum to one")
    return wide / wide.sum(-1, keepdim=True)
