"""The checks of W_O on the first pass: heads that lose rank, the sum over heads, and where each head enters."""

import pytest
import torch

from hf_attn_mi.capture.projection import resolve_projection
from hf_attn_mi.capture.records import Projection
from hf_attn_mi.capture.validation import deficient_heads, head_sum_error

HEADS, DIM, HIDDEN = 4, 8, 48


def weights(*, smallest=None, heads=()):
    """W_O, (HEADS * DIM, HIDDEN); in some heads the smallest singular value is this share of the largest."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(HEADS, DIM, HIDDEN, generator=generator, dtype=torch.float64)
    left, values, right = torch.linalg.svd(blocks, full_matrices=False)
    for head in heads:
        values[head, -1] = smallest * values[head, 0]
    return (left @ values.diag_embed() @ right).flatten(0, 1)


def orders():
    """The heads one after another, and mixed: the coordinates of all heads side by side."""
    in_order = torch.arange(HEADS * DIM).view(HEADS, DIM)
    return {"in order": in_order, "mixed": in_order.view(-1).view(DIM, HEADS).T.contiguous()}


def placed(weight, features):
    """The weight whose rows stand where these features say."""
    moved = torch.empty_like(weight)
    moved[features.flatten()] = weight
    return moved


@pytest.mark.parametrize("order", orders())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("smallest", "found"), [(0.0, True), (1e-7, True), (1e-4, False), (1e-2, False), (0.3, False)])
def test_heads_whose_slice_of_w_o_loses_rank_are_found(order, dtype, smallest, found):
    if dtype == torch.bfloat16 and 0 < smallest < 1e-2:
        pytest.skip("rounding to bfloat16 changes singular values of this size")
    features, bad = orders()[order], (1, 3)
    weight = placed(weights(smallest=smallest, heads=bad), features).to(dtype)
    if smallest == 0.0:  # rounding would restore the rank: two equal rows keep it low
        for head in bad:
            weight[features[head, 0]] = weight[features[head, 1]]
    wider = torch.cat([weight, weight])  # W_O of more than the heads
    for memory in (weight, weight.T.contiguous().T, wider):  # a linear layer holds the transpose
        assert deficient_heads(Projection(memory, None, features)) == (bad if found else ())


def test_weights_that_overflow_are_not_called_deficient():
    features = orders()["in order"]
    assert deficient_heads(Projection(weights() * 1e25, None, features)) == ()
    assert deficient_heads(Projection(weights().float() * 1e25, None, features)) == ()


@pytest.mark.parametrize("order", orders())
def test_the_sum_over_heads_is_the_output_only_with_the_rows_of_each_head(order):
    features, weight = orders()[order], weights()
    heads = torch.randn(2, 5, HEADS, DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bias = torch.arange(HIDDEN, dtype=torch.float64)
    wanted = torch.einsum("bnhd,hdo->bno", heads, weight.view(HEADS, DIM, HIDDEN)) + bias
    source = torch.empty(2, 5, HEADS * DIM, dtype=torch.float64)
    source[..., features.flatten()] = heads.flatten(-2)
    projection = Projection(placed(weight, features), bias, features)
    assert head_sum_error(source, projection, wanted) < 1e-12
    assert head_sum_error(source, Projection(projection.weight, None, features), wanted) > 0.1
    assert head_sum_error(source, Projection(weight[:-DIM], bias, features), wanted) is None
    torch.testing.assert_close(projection.per_head(), weight.view(HEADS, DIM, HIDDEN))


@pytest.mark.parametrize("order", orders())
def test_the_features_that_each_head_becomes_are_read_off_one_table(order):
    features = orders()[order]
    numbers = torch.empty(HEADS * DIM, dtype=torch.int32)
    numbers[features.flatten()] = torch.arange(HEADS * DIM, dtype=torch.int32)
    table = numbers.expand(2, 3, -1).clone()
    assert torch.equal(resolve_projection(table, HEADS, DIM), features)
    assert torch.equal(resolve_projection(torch.cat([table, torch.full_like(table, -1)], 1), HEADS, DIM), features)
    beside = torch.cat([torch.full((2, 3, 2), -1, dtype=torch.int32), table], -1)
    assert torch.equal(resolve_projection(beside, HEADS, DIM), features + 2)
    table[1, 2, :2] = table[1, 2, :2].flip(0)  # one token has another layout
    assert resolve_projection(table, HEADS, DIM) is None
    assert resolve_projection(numbers.repeat(2), HEADS, DIM) is None  # every coordinate occurs twice
