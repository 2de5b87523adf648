"""The functions of tensors refuse what is no plain tensor by the name of the argument."""

import pytest
import torch
from torch import nn

from hf_attn_mi import (
    InvalidInputError,
    attention_interval,
    effective_attention,
    efficient_attention,
    mutual_information,
    rollout,
)

ROWS, VALUES = torch.full((1, 4, 4), 0.25), torch.arange(8.0).reshape(1, 4, 2)
STATES, CLASSES = torch.randn(60, 3), torch.arange(60) % 2
ODD = {
    "list": [[0.25] * 4] * 4,
    "module": nn.Linear(2, 2),
    "number": 0.25,
    "sparse": ROWS.to_sparse(),
    "nested": torch.nested.nested_tensor([torch.ones(2, 2), torch.ones(3, 2)]),
    "meta": ROWS.to("meta"),
}
CALLS = {
    "attention": [
        lambda odd: effective_attention(odd, VALUES),
        lambda odd: efficient_attention(odd, VALUES),
        lambda odd: attention_interval(odd, VALUES, [0]),
        lambda odd: rollout([ROWS, odd]),
    ],
    "values": [
        lambda odd: effective_attention(ROWS, odd),
        lambda odd: efficient_attention(ROWS, odd),
        lambda odd: attention_interval(ROWS, odd, [0]),
    ],
    "mask": [
        lambda odd: effective_attention(ROWS, VALUES, odd),
        lambda odd: efficient_attention(ROWS, VALUES, odd),
        lambda odd: attention_interval(ROWS, VALUES, [0], odd),
        lambda odd: rollout([ROWS], odd),
    ],
    "outputs": [
        lambda odd: effective_attention(ROWS, VALUES, outputs=odd),
        lambda odd: mutual_information(STATES, odd, estimator="gaussian"),
    ],
    "states": [lambda odd: mutual_information(odd, CLASSES, estimator="gaussian")],
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in CALLS.items() for call in calls])
def test_what_is_no_plain_tensor_is_refused(name, call, odd):
    with pytest.raises(InvalidInputError, match=rf"^{name}.* (is|has|must|holds) "):
        call(odd)


@pytest.mark.parametrize("attentions", [5, None, torch.tensor(1.0), {ROWS}, "rows", ROWS.to("meta")])
def test_the_layers_of_a_rollout_are_a_list_of_tensors(attentions):
    with pytest.raises(InvalidInputError, match=r"^attentions is"):
        rollout(attentions)


@pytest.mark.parametrize("value", [None, "0.5", {}, torch.tensor([1, 2]), True, float("nan")])
def test_options_of_rollout_and_efficient_attention_are_numbers(value):
    with pytest.raises(InvalidInputError, match="residual is"):
        rollout([ROWS], residual=value)
    with pytest.raises(InvalidInputError, match="tolerance is"):
        efficient_attention(ROWS, VALUES, tolerance=value)
    if value is not None:
        with pytest.raises(InvalidInputError, match="head_dimension is"):
            rollout([ROWS], head_dimension=value)


@pytest.mark.parametrize("keys", [5, None, "01", [0.5], [None], {0}, torch.tensor([0.5]), torch.ones(2).to("meta")])
def test_keys_of_an_interval_are_whole_numbers(keys):
    with pytest.raises(InvalidInputError, match=r"^keys is"):
        attention_interval(ROWS, VALUES, keys)


@pytest.mark.parametrize("noise", ["much", {}, [None], nn.Linear(1, 1)])
def test_noise_is_a_number(noise):
    with pytest.raises(InvalidInputError, match="noise is"):
        mutual_information(STATES, STATES, noise=noise, estimator="gaussian_continuous")


def test_long_numbers_are_refused_too():
    with pytest.raises(InvalidInputError, match="there is no dimension <int>"):
        rollout([torch.full((1, 4, 4), 0.25)], head_dimension=-(10**5000))
    with pytest.raises(InvalidInputError, match=r"keys is <list>: every key must lie between 0 and 3"):
        attention_interval(ROWS, VALUES, [10**5000])


@pytest.mark.parametrize("value", [None, {}, [1], torch.tensor([1.0, 2.0])])
def test_options_of_the_kernels_are_checked(value):
    with pytest.raises(InvalidInputError, match="affine is"):
        effective_attention(ROWS, VALUES, affine=value)
    with pytest.raises(InvalidInputError, match="backend is"):
        efficient_attention(ROWS, VALUES, backend=value)
