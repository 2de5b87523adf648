"""Tables of the torch functions that a linearized pass has rules for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_attn_mi.methods.relevance import rules

T = Tensor
GATED = {
    F.gelu,
    F.relu,
    torch.relu,
    T.relu,
    torch.relu_,
    F.silu,
    F.leaky_relu,
    F.elu,
    F.selu,
    F.celu,
    F.mish,
    F.hardswish,
    F.relu6,
    F.softsign,
    F.hardtanh,
    F.tanh,
    torch.tanh,
    T.tanh,
    T.relu_,
    torch.square,
    T.square,
    F.tanhshrink,
}
CONSTANT = {  # functions with f(0) other than 0, and scales: their result is a factor, not a signal
    F.softmax,
    torch.softmax,
    T.softmax,
    torch.sigmoid,
    T.sigmoid,
    F.sigmoid,
    F.hardsigmoid,
    F.softplus,
    torch.exp,
    T.exp,
    torch.rsqrt,
    T.rsqrt,
    torch.sqrt,
    T.sqrt,
    torch.erf,
    T.erf,
    torch.norm,
    T.norm,
    torch.linalg.norm,
    torch.linalg.vector_norm,
    T.std,
    torch.std,
    T.reciprocal,
    torch.reciprocal,
    T.__rtruediv__,
    F.logsigmoid,
    torch.linalg.inv,
    torch.inverse,
}
WITHOUT_RULE = {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
WITHOUT_RULE |= {"prod", "cumprod", "log", "log1p", "log_softmax", "logsumexp", "sin", "cos", "sinh", "cosh", "atan"}
SOLVE = {torch.linalg.solve_triangular, torch.linalg.solve}  # linear in the right-hand side, for a given matrix
POWER = {torch.pow, T.pow, T.__pow__}
BIASED = {F.linear: 2, F.conv1d: 2, torch.conv1d: 2, F.conv2d: 2, torch.conv2d: 2, F.conv3d: 2, torch.addmm: 0}
NORMS: dict[Any, Callable[..., Tensor]] = {
    F.group_norm: rules.group_norm,
    F.rms_norm: rules.rms_norm,
    F.normalize: rules.normalize,
}
