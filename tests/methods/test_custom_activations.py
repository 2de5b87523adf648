"""Operations of single models that relevance has to follow: an autograd function as activation, a triangular system."""

import pytest
import torch
from torch import nn

from hf_attn_mi.methods.relevance.custom_activations import custom_functions, gated_activations
from hf_attn_mi.methods.relevance.linearized_forward import LinearizedForward
from tests.zoo.tasks import GAP_TOLERANCE, check_task, task_jobs


class Square(torch.autograd.Function):
    """x^2 sign(x), with f(0) = 0."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.abs()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x.abs() * grad


class OwnGelu(nn.Module):
    def forward(self, x):
        return Square.apply(x)


class Other(OwnGelu):
    """A module whose name says nothing about what it is."""


def gradient_times_input(module, x):
    leaf = x.clone().requires_grad_(True)
    with gated_activations(module):
        value = module(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient * x


def test_an_activation_with_a_function_of_its_own_adds_up():
    x = torch.tensor([1.0, -2.0, 3.0])
    value, shares = gradient_times_input(nn.Sequential(OwnGelu()), x)
    torch.testing.assert_close(shares, value)
    value, shares = gradient_times_input(nn.Sequential(nn.GELU(), Other()), x)  # left alone
    assert not torch.allclose(shares, value)


def test_what_is_not_followed_is_named():
    leaf = torch.ones(2, requires_grad=True)
    assert custom_functions(Square.apply(leaf * 2).sum()) == ["Square"]
    assert custom_functions((leaf * 2).sum()) == []


def test_no_hook_stays():
    module = OwnGelu()
    with gated_activations(module):
        assert len(module._forward_hooks) == 1
    assert not module._forward_hooks


def test_a_triangular_system_is_linear_in_its_right_hand_side():
    generator = torch.Generator().manual_seed(0)
    matrix, right = (torch.randn(1, 3, 3, generator=generator) for _ in range(2))
    leaf = torch.ones(1, requires_grad=True)
    with LinearizedForward(None, 1):
        solved = torch.linalg.solve_triangular(matrix * leaf, right * leaf, upper=False, unitriangular=True)
    (gradient,) = torch.autograd.grad(solved.sum(), leaf)
    torch.testing.assert_close(gradient[0], solved.sum().detach())


@pytest.mark.parametrize("model_type", ["bloom", "qwen3_5_text", "qwen3_next"])
def test_models_that_use_them_add_up(model_type):
    job = next(job for job in task_jobs() if (job.task, job.model_type) == ("classification", model_type))
    assert check_task(job).gap < GAP_TOLERANCE
