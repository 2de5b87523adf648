"""Checks that a capture is exact: each module on its first use, each forward pass at its end; else it is refused."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hf_attn_mi.capture.module_names import ModuleNames, is_attention, strip_digits
from hf_attn_mi.capture.module_walk import modules_of
from hf_attn_mi.capture.records import Projection
from hf_attn_mi.errors import UnsupportedModelError

SUPPORTED = (
    "Supported is every model whose attention is a softmax over keys times values, computed by PyTorch "
    "operations (`hf-attn-mi models` lists the types that were checked)."
)
HEAD_SUM_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to the largest entry of the output
RANK_MARGIN = 1e-3  # share of the largest eigenvalue of W W^T that float32 tells from zero, with room
REDUCED_TOLERANCE = 3e-2  # half precision, autocast, TF32; with the wrong rows of W_O the error is about 1
_NO_MATRIX = ("linear_attention", "mamba", "mamba2", "recurrent", "conv", "gated_deltanet", "lightning_attention")


@dataclass(frozen=True)
class ModuleCheck:
    """The result of checking an attention module when it ran for the first time.

    Attributes:
        features: (heads, head_dim) input features of W_O that the heads become; None without a linear W_O.
        ended_by: the operation between rows times values and W_O that is not linear, if any.
        error: |sum_h o_h W_O^h + b - projection output|, relative to its largest entry; None if not comparable.
        limit: the largest error that the precision of that output allows.
        deficient: heads whose slice of W_O has not full row rank: there the output of the layer sees less of the
            attention than the head's output does.
    """

    features: Tensor | None
    ended_by: str | None
    error: float | None
    limit: float = REDUCED_TOLERANCE
    deficient: tuple[int, ...] = ()


@dataclass
class CaptureValidation:
    """The checks of the modules of one model, which are kept, and the observations of the current forward pass.

    Attributes:
        names: the model and its module names.
        checks: module name -> result of its first check; kept between forward passes.
        problems: module name -> what it computes that the capture cannot follow.
        new_softmaxes: number of a softmax that nothing has used yet -> module name.
        unmultiplied: number of a softmax that was used, but not yet multiplied with values -> module name.
        called: names of the modules with an attention call in this pass.
        counter: softmaxes counted so far.
        skipped: names of layers that do not run in this pass, because the caller puts known outputs in their place.
    """

    names: ModuleNames
    checks: dict[str, ModuleCheck] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    new_softmaxes: dict[int, str] = field(default_factory=dict)
    unmultiplied: dict[int, str] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    counter: int = 0
    skipped: set[str] = field(default_factory=set)

    def start_pass(self) -> None:
        """Discard the observations of an earlier forward pass; keep the checks."""
        self.problems, self.new_softmaxes, self.unmultiplied, self.called = {}, {}, {}, set()

    def add_problem(self, module_name: str, reason: str) -> None:
        """Record that this module computes something that the capture does not follow."""
        self.problems.setdefault(module_name, reason)

    def add_softmax(self, module_name: str, dims: int) -> int:
        """Record a softmax over the last dimension, which must be multiplied with values; return its number."""
        self.counter += 1
        if dims >= 3:
            self.new_softmaxes[self.counter] = module_name
        return self.counter

    def softmax_used(self, number: int) -> None:
        """Record that an operation other than a product with values used this softmax."""
        if number in self.new_softmaxes:
            self.unmultiplied[number] = self.new_softmaxes.pop(number)

    def softmax_multiplied(self, number: int) -> None:
        """Record that this softmax was multiplied with values."""
        self.new_softmaxes.pop(number, None)
        self.unmultiplied.pop(number, None)

    def features(self, module_name: str) -> Tensor | None:
        """Return the input features of W_O that the heads of this module become, if they are known."""
        check = self.checks.get(module_name)
        return None if check is None else check.features

    def add_check(
        self,
        module_name: str,
        ended_by: str | None,
        projection: Projection | None,
        result: Tensor | None,
        error: float | None,
    ) -> None:
        """Keep the result of the first check of a module; `result` is the output of its projection."""
        features = None if projection is None else projection.features
        if ended_by in ("__setitem__", "index_put_"):
            self.add_problem(module_name, "the attention output is scattered into a larger tensor")
        if module_name in self.checks and self.checks[module_name].features is not None and features is None:
            self.add_problem(module_name, f"the attention output no longer reaches W_O (ended by {ended_by})")
        if module_name not in self.checks:
            deficient = () if projection is None else deficient_heads(projection)
            self.checks[module_name] = ModuleCheck(features, ended_by, error, _tolerance(result), deficient)

    def verify(self) -> None:
        """Raise `UnsupportedModelError` unless all attention of this forward pass was captured exactly."""
        kind = type(self.names.model).__name__
        reasons = [f"{name}: {reason}" for name, reason in self.problems.items()]
        reasons += [
            f"{name}: a softmax of this attention is not multiplied with values in one product"
            for name in dict.fromkeys(self.unmultiplied.values())
            if self._is_attention(name)
        ]
        if not self.called and not reasons:
            reasons.append("no softmax over keys was multiplied with values in this forward pass")
        siblings = {m for name in self.called for m in self.names.siblings(name)}
        missing = {name for name in siblings - self.called if not self._is_skipped(name)}
        reasons += [f"{name}: no attention call, but its sibling layers have one" for name in sorted(missing)]
        reasons += [f"{name}: attention without a softmax over keys" for name in self._layers_without_call()]
        for name in self.called:
            check = self.checks.get(name)
            if check is not None and check.error is not None and not check.error <= check.limit:
                reasons.append(f"{name}: the heads do not add up to the projection output ({check.error:.1e})")
        if reasons:
            shown = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
            raise UnsupportedModelError(f"The attention of {kind} cannot be captured exactly: {shown}. {SUPPORTED}")

    def _is_attention(self, name: str) -> bool:
        module = self.names.modules.get(name)
        return (module is not None and is_attention(module)) or "attention" in strip_digits(name).lower()

    def _is_skipped(self, name: str) -> bool:
        return any(name == layer or name.startswith(layer + ".") for layer in self.skipped)

    def _layers_without_call(self) -> list[str]:
        """Return the layers next to captured ones that contain an attention module without a call."""
        called = {id(self.names.modules[name]) for name in self.called if name in self.names.modules}
        lists: dict[str, list[nn.Module | None]] = {}
        for name in self.called:
            parts = name.split(".")
            for i in range(len(parts) - 1, 0, -1):
                owner = ".".join(parts[:i])
                if parts[i].isdigit() and isinstance(self.names.modules.get(owner), nn.ModuleList):
                    lists[owner] = list(self.names.modules[owner]._modules.values())
        without_call = []
        for owner, layers in lists.items():
            types = getattr(getattr(self.names.model, "config", None), "layer_types", None) or []
            for i, layer in enumerate(layers):
                prefix = f"{owner}.{i}"
                if i < len(types) and types[i] in _NO_MATRIX:
                    continue
                if layer is None or any(id(module) in called for module in modules_of(layer)):
                    continue  # also where the attention module is that of another layer
                if self._is_skipped(prefix):
                    continue
                if any(map(is_attention, modules_of(layer))):
                    without_call.append(prefix)
        return without_call


def head_sum_error(source: Tensor, projection: Projection, result: Tensor) -> float | None:
    """Return max |sum_h o_h W_O^h + b - projection output| / max |projection output|, None if it is not comparable.

    Args:
        source: (..., in_features), the input of W_O.
        projection: the head slices to check.
        result: (..., hidden), the output of W_O.
    """
    weight = projection.weight
    if weight.shape[0] != projection.features.numel():
        return None  # W_O has other input features, too
    with _unobserved(weight), torch.no_grad(), torch.autocast(source.device.type, enabled=False):
        heads, order = source.detach(), projection.features.flatten().to(source.device)
        if not _counts_up(order):
            heads, weight = heads[..., order], weight[order.to(weight.device)]
        total = heads.to(weight.dtype) @ weight  # the sum over heads and their coordinates
        if projection.bias is not None:
            total = total + projection.bias
        if total.shape != result.shape:
            return None
        return float((total - result).abs().max() / result.abs().max().clamp_min(1e-12))


def deficient_heads(projection: Projection) -> tuple[int, ...]:
    """Return the heads whose slice of W_O, (head_dim, hidden), has a rank below head_dim.

    For these heads the part of the attention that does not change the prediction is larger than the null space of the
    values.
    """
    with _unobserved(projection.weight), torch.no_grad():
        if not bool(_may_be_deficient(projection).any()):
            return ()
        weight = projection.per_head().detach().double()
        spectrum = torch.linalg.eigvalsh(weight @ weight.transpose(-1, -2))  # squared singular values, ascending
        tolerance = (max(weight.shape[1:]) * torch.finfo(torch.float32).eps) ** 2
        low = spectrum[:, 0] <= tolerance * spectrum[:, -1]
    return tuple(int(head) for head in low.nonzero()[:, 0])


def _may_be_deficient(projection: Projection) -> Tensor:
    """Return (heads,) whether a quick test does not show that the slice of W_O of a head has full rank.

    It is shown where W W^T - t I, with t above the rounding errors of this computation, has a Cholesky factor: the
    smallest eigenvalue of W W^T is above the tolerance of `deficient_heads` by orders of magnitude then.
    """
    weight, order = projection.weight.detach(), projection.features
    in_order = len(weight) == order.numel() and _counts_up(order.flatten())
    slices = weight.view(*order.shape, -1) if in_order else projection.per_head().detach()
    exact = slices.device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
    slices = slices.float() if exact else slices.double()  # elsewhere products of float32 may be rounded further
    gram = slices @ slices.transpose(-1, -2)
    largest = gram.abs().sum(-1).amax(-1)  # no eigenvalue is larger
    share = max(RANK_MARGIN, 8 * max(slices.shape[1:]) * torch.finfo(torch.float32).eps)
    gram.diagonal(dim1=-2, dim2=-1).sub_(share * largest[:, None])
    failed: Tensor = torch.linalg.cholesky_ex(gram).info != 0
    return failed


def _unobserved(weight: Tensor) -> AbstractContextManager[object]:
    """Inside, the modes that follow the model do not see what is computed; weights of other classes need theirs."""
    return torch._C.DisableTorchFunction() if type(weight) in (Tensor, nn.Parameter) else nullcontext()


def _counts_up(order: Tensor) -> bool:
    """Whether this is 0, 1, 2 ..., as where the heads enter W_O one after another."""
    return torch.equal(order, torch.arange(len(order), dtype=order.dtype, device=order.device))


def _tolerance(result: Tensor | None) -> float:
    """Return the tolerance for the precision of `result`; float32 may be TF32 except on a CPU."""
    if result is None or (result.dtype == torch.float32 and result.device.type != "cpu"):
        return REDUCED_TOLERANCE
    if result.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return REDUCED_TOLERANCE
    return HEAD_SUM_TOLERANCE.get(result.dtype, REDUCED_TOLERANCE)
