"""The information of a linear probe at each token: the divergence of its posterior from the prior.

A backend is a function (states, directions, bias, log_prior: Tensor, outputs: Tensor | None) -> (divergence,
V-information or None), each (examples * tokens,): see `score_torch` for the arguments. `reference.py` defines the
result.
"""

from hf_attn_mi.kernels.probe.operation import probe_information

__all__ = ["probe_information"]
