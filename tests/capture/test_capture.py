"""`capture_attention`: what a record says, what replaced rows do, and what is refused."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hf_attn_mi.capture import AttentionCall, capture_attention
from hf_attn_mi.errors import InvalidInputError, UnsupportedModelError
from tests.sample_models import captured, logits, parts
from tests.zoo import Built, Job, build


def tiny(model_type: str = "bert", implementation: str | None = None, auto: str = "seqcls") -> Built:
    """Two layers, a batch of two, the second input padded."""
    built = build(Job(auto, model_type, "encoder"))
    if implementation is not None:
        built.model.set_attn_implementation(implementation)
    return built


# --- records -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", ["bert", "t5", "llama"])
def test_outputs_are_bit_equal(model_type: str, implementation: str) -> None:
    built = tiny(model_type, implementation)
    before = logits(built.model, built.inputs)
    with capture_attention(built.model):
        assert torch.equal(logits(built.model, built.inputs), before)
    assert torch.equal(logits(built.model, built.inputs), before)


def test_a_layer_used_twice_counts_as_two() -> None:
    built = tiny("albert")
    calls = captured(built.model, built.inputs)
    assert [call.layer for call in calls] == [0, 1]
    assert len({call.module_name for call in calls}) == 1


def test_encoder_and_decoder_count_their_layers_apart() -> None:
    built = tiny("t5")
    places = [(c.module_name.split(".")[1], c.module_name.split(".")[-1], c.layer) for c in captured(*parts(built))]
    encoder = [("encoder", "SelfAttention", 0), ("encoder", "SelfAttention", 1)]
    decoder = [("decoder", kind, layer) for layer in (0, 1) for kind in ("SelfAttention", "EncDecAttention")]
    assert places == encoder + decoder


def test_two_products_of_one_module_belong_to_one_layer() -> None:
    calls = captured(*parts(tiny("diffllama")))
    assert [call.layer for call in calls] == [0, 0, 1, 1]
    assert [call.index for call in calls] == [0, 1, 2, 3]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_values_of_grouped_queries_come_once(implementation: str) -> None:
    built = tiny("llama", implementation)
    for call in captured(built.model, built.inputs):
        assert (call.heads, call.value.shape[1], call.key.shape[1]) == (4, 2, 2)
        output = torch.stack([call.attention()[:, h] @ call.value[:, h // 2] for h in range(4)], 1)
        reached = call.allowed().any(-1, keepdim=True)
        torch.testing.assert_close(output * reached, call.output * reached)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_query_key_scale_and_mask_give_the_models_own_attention(implementation: str) -> None:
    built = tiny("bert", implementation)
    calls = captured(built.model, built.inputs)
    built.model.set_attn_implementation("eager")
    with torch.no_grad():
        own = built.model(**built.inputs, output_attentions=True).attentions
    for call, rows in zip(calls, own, strict=True):
        scores = call.query @ call.key.transpose(-1, -2) * call.scale
        mask = call.mask
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        torch.testing.assert_close(scores.softmax(-1), rows)
        torch.testing.assert_close(call.attention(), rows)
        assert call.attention()[1, :, :, 12:].eq(0).all()  # the padding
        assert call.allowed().expand_as(rows)[1, 0, 0].tolist() == [True] * 12 + [False] * 4


def test_large_negative_logits_are_no_mask() -> None:
    """MobileBERT's logits reach -1e4 in this zoo, as low as some masks."""
    built = tiny("mobilebert", "eager")
    calls = captured(built.model, built.inputs)
    assert min(float(call.logits()[0].min()) for call in calls) < -5e3
    assert all(call.allowed()[0].all() for call in calls)


PROJECTIONS = [
    ("bert", "seqcls", "bert.encoder.layer.{}.attention.output.dense"),
    ("gpt2", "seqcls", "transformer.h.{}.attn.c_proj"),  # a weight that lies the other way round
    ("t5", "enc", "block.{}.layer.0.SelfAttention.o"),  # no bias
    ("wavlm", "audcls", "wavlm.encoder.layers.{}.attention"),  # inside multi_head_attention_forward
    ("squeezebert", "seqcls", "transformer.encoder.layers.{}.post_attention.conv1d"),  # a convolution, in groups
]


@pytest.mark.parametrize(("model_type", "auto", "name"), PROJECTIONS, ids=[row[0] for row in PROJECTIONS])
def test_heads_through_their_slices_of_w_o_add_up_to_the_projection(model_type: str, auto: str, name: str) -> None:
    built = tiny(model_type, auto=auto)
    results: list[Tensor] = []
    for layer in (0, 1):
        module = built.model.get_submodule(name.format(layer))
        module.register_forward_hook(lambda m, a, out: results.append(out if isinstance(out, Tensor) else out[0]))
    calls = captured(built.model, built.inputs)
    assert len(results) == len(calls) == 2
    for call, result in zip(calls, results, strict=True):
        total = torch.einsum("bhqd,hdo->bqo", call.output, call.output_weight)
        if call.projection.bias is not None:
            total = total + call.projection.bias
        result = result.transpose(1, 2) if model_type == "squeezebert" else result
        torch.testing.assert_close(total, result, rtol=1e-5, atol=1e-5)


def test_records_can_be_freed_before_the_next_one() -> None:
    built, earlier, alive = tiny("bert"), [], []

    def consume(call: AttentionCall) -> None:
        gc.collect()
        alive.append(sum(reference() is not None for reference in earlier))
        earlier.extend(weakref.ref(item) for item in (call, call.query, call.value, call.output))

    with torch.no_grad(), capture_attention(built.model, consume):
        built.model(**built.inputs)
    assert alive == [0, 0]


def test_a_second_pass_starts_again_at_zero() -> None:
    built = tiny("albert")
    with torch.no_grad(), capture_attention(built.model) as capture:
        built.model(**built.inputs)
        built.model(**built.inputs)
    assert [(call.index, call.layer) for call in capture.calls] == [(0, 0), (1, 1)] * 2


# --- replacing attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", ["bert", "llama", "xlnet"])
def test_replaced_rows_are_used(model_type: str, implementation: str) -> None:
    if model_type == "xlnet" and implementation == "sdpa":
        pytest.skip("xlnet multiplies by einsum only")
    built = tiny(model_type, implementation if model_type != "xlnet" else None)
    before = logits(built.model, built.inputs)

    def with_rows(rows: Callable[[AttentionCall], Tensor | None]) -> Tensor:
        with capture_attention(built.model, lambda call: None, replace=rows):
            return logits(built.model, built.inputs)

    torch.testing.assert_close(with_rows(lambda call: call.attention()), before, rtol=1e-4, atol=1e-5)
    assert torch.equal(with_rows(lambda call: None), before)
    uniform = with_rows(lambda call: torch.ones_like(call.attention()) / call.attention().shape[-1])
    assert (uniform - before).abs().max() > 1e-2
    first_only = with_rows(lambda call: call.attention().flip(-1) if call.layer == 0 else None)
    assert (first_only - before).abs().max() > 1e-2


def test_records_say_what_was_used() -> None:
    built, given = tiny("bert"), []

    def uniform(call: AttentionCall) -> Tensor:
        given.append(torch.full_like(call.attention(), 1 / 16))
        return given[-1]

    with torch.no_grad(), capture_attention(built.model, replace=uniform) as capture:
        built.model(**built.inputs)
    for call, rows in zip(capture.calls, given, strict=True):
        torch.testing.assert_close(call.attention(), rows)
        torch.testing.assert_close(call.output, call.value.mean(-2, keepdim=True).expand_as(call.output))


def test_rows_of_another_shape_are_refused() -> None:
    built = tiny("bert")
    with (
        pytest.raises(
            InvalidInputError, match=r"replace must return rows of shape \(2, 4, 16, 16\), not \(2, 4, 16, 15\)"
        ),
        capture_attention(built.model, replace=lambda call: call.attention()[..., 1:]),
    ):
        logits(built.model, built.inputs)


def test_only_modules_are_taken() -> None:
    with pytest.raises(InvalidInputError, match="model must be"), capture_attention("bert-base"):  # type: ignore[arg-type]
        pass


# --- what is refused ---------------------------------------------------------------------------------------


class ToyAttention(nn.Module):
    """Two heads of width 4; `kind` says what happens to the rows."""

    def __init__(self, kind: str = "softmax") -> None:
        super().__init__()
        self.kind, self.num_heads = kind, 2
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        scores = query @ key.transpose(-1, -2) / 2
        if self.kind == "linear":  # no softmax over keys
            heads = query.relu() @ (key.relu().transpose(-1, -2) @ value)
        elif self.kind == "band":  # only some columns of the rows meet their values
            heads = scores.softmax(-1)[..., :3] @ value[..., :3, :]
        elif self.kind == "by hand":  # rows and values meet outside a matrix product
            heads = (scores.softmax(-1).unsqueeze(-1) * value.unsqueeze(2)).sum(3)
        elif self.kind == "scattered":  # some queries are overwritten
            heads = value.mean(2, keepdim=True).repeat(1, 1, x.shape[1], 1)
            heads[:, :, :2] = scores[:, :, :2].softmax(-1) @ value
        elif self.kind == "turned":  # queries and keys exchanged after the softmax, the shape the same
            heads = scores.softmax(-1).transpose(-1, -2) @ value
        elif self.kind == "twice":  # two matrices multiplied with one another
            heads = (scores.softmax(-1) @ scores.softmax(-1)) @ value
        else:
            heads = scores.softmax(-1) @ value
        return self.out(heads.transpose(1, 2).flatten(2))


class Toy(nn.Module):
    def __init__(self, *kinds: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ToyAttention(kind) for kind in kinds)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_any_module_with_softmax_attention_is_captured() -> None:
    torch.manual_seed(0)
    model, x = Toy("softmax", "softmax"), torch.randn(2, 5, 8)
    before = model(x)
    with capture_attention(model) as capture:
        assert torch.equal(model(x), before)
    assert [(call.layer, call.output_weight.shape) for call in capture.calls] == [(0, (2, 4, 8)), (1, (2, 4, 8))]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("linear", "no attention call, but its sibling layers have one"),
        ("band", "only a part of the attention rows is multiplied with values"),
        ("by hand", "a softmax of this attention is not multiplied with values"),
        ("scattered", "the attention output is scattered into a larger tensor"),
        ("turned", "a softmax enters a product with its queries and keys exchanged"),
        ("twice", "attention matrices are multiplied with one another"),
    ],
)
def test_attention_that_is_not_followed_is_refused(kind: str, reason: str) -> None:
    torch.manual_seed(0)
    model = Toy("softmax", kind)
    with pytest.raises(UnsupportedModelError, match=reason), capture_attention(model):
        model(torch.randn(2, 5, 8))


def test_a_model_without_attention_is_refused() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    with pytest.raises(UnsupportedModelError, match="no softmax over keys"), capture_attention(model):
        model(torch.randn(2, 5, 8))


def test_a_refusal_is_not_forgotten() -> None:
    torch.manual_seed(0)
    model, x = Toy("softmax", "scattered"), torch.randn(2, 5, 8)
    for _ in range(2):
        with pytest.raises(UnsupportedModelError), capture_attention(model):
            model(x)
