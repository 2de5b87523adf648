"""Is the capture exact? Every architecture is checked on its first use; what cannot be followed is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hf_attn_mi.capture.naming import ModuleNames, strip_digits
from hf_attn_mi.capture.records import Projection
from hf_attn_mi.errors import UnsupportedModelError

SUPPORTED = (
    "Supported is every model whose attention is a softmax over keys times values, computed by PyTorch "
    "operations (`hf-attn-mi models` lists the types that were checked)."
)
HEAD_SUM_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to the largest entry of the output
REDUCED_TOLERANCE = 3e-2  # half precision, autocast, TF32; heads that meet the wrong rows of W_O miss by about 1
_NO_MATRIX = ("linear_attention", "mamba", "mamba2", "recurrent", "conv", "gated_deltanet", "lightning_attention")


@dataclass(frozen=True)
class ModuleCheck:
    """What was found when an attention module ran for the first time."""

    features: Tensor | None  # (heads, head_dim) features of W_O's input, None without a linear W_O
    ended_by: str | None  # the operation between rows times values and W_O that is not linear
    error: float | None  # |sum_h o_h W_O^h + b - projection output|, relative to the largest entry
    limit: float = REDUCED_TOLERANCE  # how large the error may be in the precision of that output
    deficient: tuple[int, ...] = ()  # heads whose slice of W_O has not full row rank: more attention is invisible


@dataclass
class Findings:
    """What is known about one model: checks that last, and the observations of the current forward pass."""

    names: ModuleNames
    checks: dict[str, ModuleCheck] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    fresh: dict[int, str] = field(default_factory=dict)  # softmax results nothing has used yet
    unused: dict[int, str] = field(default_factory=dict)  # used, but not multiplied with values yet
    seen: set[str] = field(default_factory=set)
    counter: int = 0

    def start_pass(self) -> None:
        """Forget the observations of an earlier forward pass; the checks stay."""
        self.problems, self.fresh, self.unused, self.seen = {}, {}, {}, set()

    def problem(self, module_name: str, reason: str) -> None:
        """Note that this module computes something the capture does not follow."""
        self.problems.setdefault(module_name, reason)

    def softmax_seen(self, module_name: str, dims: int) -> int:
        """Note a softmax over the last dimension; it must later meet its values. Returns its number."""
        self.counter += 1
        if dims >= 3:
            self.fresh[self.counter] = module_name
        return self.counter

    def softmax_consumed(self, identity: int) -> None:
        """Note that something other than a product with values used softmax `identity`."""
        if identity in self.fresh:
            self.unused[identity] = self.fresh.pop(identity)

    def softmax_used(self, identity: int) -> None:
        """Note that softmax `identity` was multiplied with values."""
        self.fresh.pop(identity, None)
        self.unused.pop(identity, None)

    def call_seen(self, module_name: str) -> None:
        """Note one attention call."""
        self.seen.add(module_name)

    def is_settled(self, module_name: str) -> bool:
        """Whether this module was checked before."""
        return module_name in self.checks

    def features(self, module_name: str) -> Tensor | None:
        """Where the heads of this module meet W_O, if that is known."""
        check = self.checks.get(module_name)
        return None if check is None else check.features

    def settle(
        self,
        module_name: str,
        ended_by: str | None,
        projection: Projection | None,
        result: Tensor | None,
        error: float | None,
    ) -> None:
        """Keep the result of the first check of a module; `result` is what the projection returned."""
        features = None if projection is None else projection.features
        if ended_by in ("__setitem__", "index_put_"):
            self.problem(module_name, "the attention output is scattered into a larger tensor")
        if module_name in self.checks and self.checks[module_name].features is not None and features is None:
            self.problem(module_name, f"the attention output no longer reaches W_O (ended by {ended_by})")
        if module_name not in self.checks:
            deficient = () if projection is None else deficient_heads(projection)
            self.checks[module_name] = ModuleCheck(features, ended_by, error, _limit(result), deficient)

    def verify(self) -> None:
        """Raise `UnsupportedModelError` unless everything this forward pass computed was captured exactly."""
        kind = type(self.names.model).__name__
        reasons = [f"{name}: {reason}" for name, reason in self.problems.items()]
        reasons += [
            f"{name}: a softmax of this attention never meets its values in one product"
            for name in dict.fromkeys(self.unused.values())
            if _is_attention(self.names, name)
        ]
        if not self.seen and not reasons:
            reasons.append("no softmax over keys was multiplied with values in this forward pass")
        missing = {m for name in self.seen for m in self.names.siblings(name)} - self.seen
        reasons += [f"{name}: no attention was seen in it, but in its sibling layers" for name in sorted(missing)]
        reasons += [f"{name}: attention without a softmax over keys" for name in self._silent_layers()]
        for name in self.seen:
            check = self.checks.get(name)
            if check is not None and check.error is not None and not check.error <= check.limit:
                reasons.append(f"{name}: the heads do not add up to the projection output ({check.error:.1e})")
        if reasons:
            shown = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
            raise UnsupportedModelError(f"The attention of {kind} cannot be captured exactly: {shown}. {SUPPORTED}")

    def _silent_layers(self) -> list[str]:
        """Layers beside captured ones that hold an attention module which produced no call."""
        lists: dict[str, list[nn.Module]] = {}
        for name in self.seen:
            parts = name.split(".")
            for i in range(len(parts) - 1, 0, -1):
                owner = ".".join(parts[:i])
                if parts[i].isdigit() and isinstance(self.names.modules.get(owner), nn.ModuleList):
                    lists[owner] = list(self.names.modules[owner].children())
        silent = []
        for owner, layers in lists.items():
            types = getattr(getattr(self.names.model, "config", None), "layer_types", None) or []
            for i, layer in enumerate(layers):
                prefix = f"{owner}.{i}"
                if i < len(types) and types[i] in _NO_MATRIX:
                    continue
                if any(name == prefix or name.startswith(prefix + ".") for name in self.seen):
                    continue
                if any(_names_attention(module) for module in layer.modules()):
                    silent.append(prefix)
        return silent


def head_sum_error(source: Tensor, projection: Projection, result: Tensor) -> float | None:
    """max |sum_h o_h W_O^h + b - projection output| / max |projection output|; None where more is added in.

    Args:
        source: (..., in_features) what W_O consumed.
        projection: the head slices to check.
        result: (..., hidden) what W_O returned.
    """
    weight = projection.weight
    if weight.shape[0] != projection.features.numel():
        return None  # other features enter the same projection
    with torch.no_grad(), torch.autocast(source.device.type, enabled=False):
        heads = source.detach()[..., projection.features.to(source.device)].to(weight.dtype)  # (..., heads, head_dim)
        total = torch.einsum("...hd,hdo->...o", heads, projection.per_head())
        if projection.bias is not None:
            total = total + projection.bias
        if total.shape != result.shape:
            return None
        return float((total - result).abs().max() / result.abs().max().clamp_min(1e-12))


def deficient_heads(projection: Projection) -> tuple[int, ...]:
    """KernelInputs whose slice of W_O, (head_dim, hidden), has a rank below head_dim.

    There the part of attention that the prediction cannot see is larger than the null space of the values says.
    """
    with torch.no_grad():
        weight = projection.per_head().detach().double()
        spectrum = torch.linalg.eigvalsh(weight @ weight.transpose(-1, -2))  # squared singular values, ascending
        tolerance = (max(weight.shape[1:]) * torch.finfo(torch.float32).eps) ** 2
        low = spectrum[:, 0] <= tolerance * spectrum[:, -1]
    return tuple(int(head) for head in low.nonzero()[:, 0])


def _names_attention(module: nn.Module) -> bool:
    name = type(module).__name__.lower()
    return "attention" in name or "attn" in name


def _is_attention(names: ModuleNames, name: str) -> bool:
    module = names.modules.get(name)
    return (module is not None and _names_attention(module)) or "attention" in strip_digits(name).lower()


def _limit(result: Tensor | None) -> float:
    """Tolerance for the precision in which `result` was computed; float32 may mean TF32 except on a CPU."""
    if result is None or (result.dtype == torch.float32 and result.device.type != "cpu"):
        return REDUCED_TOLERANCE
    if result.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return REDUCED_TOLERANCE
    return HEAD_SUM_TOLERANCE.get(result.dtype, REDUCED_TOLERANCE)
