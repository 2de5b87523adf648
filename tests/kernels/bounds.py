"""The rule that every kernel is held to: at most twice the error of plain PyTorch in the same dtype."""

import torch

ABSOLUTE = {torch.float64: 1e-9, torch.float32: 3e-6, torch.bfloat16: 1e-3, torch.float16: 1e-3}


def assert_within_twice(name, computed, exact, plain, absolute):
    """Check error(kernel, float64) <= 2 error(plain PyTorch, float64) + absolute, for the largest and the mean error.

    Args:
        name: for the message.
        computed: the kernel's result.
        exact: the reference in float64.
        plain: the reference in the dtype of the kernel's arguments.
        absolute: in units of the largest exact value, where that exceeds one.
    """
    assert computed.shape == exact.shape, name
    assert torch.isfinite(computed).all(), name
    error = (computed.double().cpu() - exact).abs()
    allowed = (plain.double().cpu() - exact).abs()
    atol = absolute * max(1.0, float(exact.abs().max()))
    assert error.max() <= 2 * allowed.max() + atol, (name, float(error.max()), float(allowed.max()))
    assert error.mean() <= 2 * allowed.mean() + atol, (name, float(error.mean()), float(allowed.mean()))
