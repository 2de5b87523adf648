"""`attention_maps`: the matrices themselves, against the model's own and against what defines each kind."""

import pytest
import torch

from hf_attn_mi import InvalidInputError, UnsupportedModelError, attention_maps, explain
from tests.sample_models import TEXTS, distance, state_of, zoo_model

LONG = "a quietly moving film , dull and boring in places . " * 5
KINDS = ["raw", "effective", "effective_affine", "efficient"]


@pytest.fixture(scope="module")
def own(request):
    """The model's own attentions and values on LONG, (heads, n, n) and (heads, n, head_dim) a layer."""
    from tests.sample_models import load_demo

    model, tokenizer = load_demo()
    model.set_attn_implementation("eager")
    values, handles = [], []
    for layer in model.bert.encoder.layer:
        handles.append(layer.attention.self.value.register_forward_hook(lambda m, a, out: values.append(out.detach())))
    with torch.no_grad():
        attentions = model(**tokenizer(LONG, return_tensors="pt"), output_attentions=True).attentions
    for handle in handles:
        handle.remove()
    return [a[0] for a in attentions], [v[0].unflatten(-1, (12, 32)).transpose(0, 1) for v in values]


def test_raw_maps_are_the_models_own_attention(demo, own):
    found = attention_maps(demo[0], LONG, kind="raw")
    assert (found.kind, found.layers, found.heads) == ("raw", (0, 1, 2), tuple(range(12)))
    assert len(found.tokens) == own[0][0].shape[-1] > 33
    for layer, wanted in enumerate(own[0]):
        assert distance(found[layer], wanted) < 1e-5
        assert float(found.residual[layer].max()) < 1e-6
        assert bool((found.support[layer] == len(found.tokens)).all())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_kind_reproduces_the_head_output(demo, own, kind):
    found = attention_maps(demo[0], LONG, kind=kind)
    for layer, (a, v) in enumerate(zip(*own, strict=True)):
        new = found[layer].double()
        outputs = a.double() @ v.double()
        assert distance(new @ v.double(), outputs) < 1e-4
        assert float(found.residual[layer].max()) < 1e-4
        assert distance(new, a) > 1e-2  # 52 tokens in 32 dimensions: the rows are not the model's own any more


def test_efficient_rows_are_small_distributions(demo, own):
    found = attention_maps(demo[0], LONG)
    assert found.kind == "efficient"
    for rows, support, v in zip(found.matrices, found.support, own[1], strict=True):
        torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]), atol=1e-6, rtol=0)
        assert bool((rows >= 0).all())
        rank = torch.linalg.matrix_rank(torch.cat([v.double(), torch.ones_like(v[..., :1]).double()], -1))
        assert bool((support <= rank[:, None]).all())
        assert torch.equal(support, (rows > 0).sum(-1))


def test_affine_rows_sum_to_one_and_plain_ones_are_the_projection(demo, own):
    affine = attention_maps(demo[0], LONG, kind="effective_affine")
    plain = attention_maps(demo[0], LONG, kind="effective")
    for layer, (a, v) in enumerate(zip(*own, strict=True)):
        torch.testing.assert_close(affine[layer].sum(-1), torch.ones_like(a[..., 0]), atol=1e-4, rtol=0)
        projected = a.double() @ v.double() @ torch.linalg.pinv(v.double())
        assert distance(plain[layer], projected) < 1e-3


def test_layers_and_heads_are_chosen(demo):
    every = attention_maps(demo[0], TEXTS[0], kind="raw")
    some = attention_maps(demo[0], TEXTS[0], kind="raw", layers=[2, 1], heads=[3, 0])
    assert (some.layers, some.heads) == ((1, 2), (3, 0))
    assert some.names == ("bert.encoder.layer.1.attention.self", "bert.encoder.layer.2.attention.self")
    assert torch.equal(some[2], every[2][[3, 0]])
    assert some.residual[0].shape == some.support[0].shape == (2, len(every.tokens))


def test_a_list_gives_a_list_and_padding_changes_nothing(demo):
    found = attention_maps(demo[0], TEXTS[:3], kind="raw")
    batch = demo[1](TEXTS[:3], padding=True, return_tensors="pt")
    from_batch = attention_maps(demo[0], batch, kind="raw")
    assert [one.tokens for one in from_batch] == [one.tokens for one in found]
    for one, text, other in zip(found, TEXTS, from_batch):
        single = attention_maps(demo[0], text, kind="raw")
        for layer in found[0].layers:
            assert torch.equal(one[layer], single[layer])
            assert torch.equal(other[layer], single[layer])


def test_an_encoder_decoder_shows_each_encoder_layer_once():
    for name in ("seqcls-bart", "seqcls-t5"):
        model, inputs = zoo_model(name)
        found = attention_maps(model, {"input_ids": inputs["input_ids"][:1]}, kind="raw")
        assert found.layers == (0, 1)
        assert all("encoder" in one for one in found.names)


@pytest.mark.parametrize("length", [4, 12])
def test_causal_masks_stay(length):
    model, inputs = zoo_model("seqcls-gpt2")  # 4 heads: a mask of 4 queries must not be taken for one of 4 heads
    batch = {"input_ids": inputs["input_ids"][:1, :length]}
    raw = attention_maps(model, batch, kind="raw")
    for kind in KINDS:
        found = attention_maps(model, batch, kind=kind)
        for layer in range(2):
            assert float(found[layer].triu(1).abs().max()) == 0.0
            assert float(found.residual[layer].max()) < 1e-4
            assert distance(found[layer][:, 0], raw[layer][:, 0]) < 1e-5
    explained = explain(model, batch, method="efficient")
    received = torch.stack([rows.mean((0, 1)) for rows in attention_maps(model, batch).matrices]).mean(0)
    assert distance(explained.scores, received) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kind": "efective"},
            "kind must be one of 'raw', 'effective', 'effective_affine', 'efficient', not 'efective'",
        ),
        ({"layers": [4]}, r"layers \[4\] do not exist; this model has layers \[0, 1, 2\]"),
        ({"layers": [-1, 0]}, r"layers \[-1\] do not exist"),
        ({"layers": []}, r"layers must be None \(all\) or a list of one or more whole numbers, not \[\]"),
        ({"layers": 3}, "layers must be None .* not 3"),
        ({"heads": [0, 12]}, r"heads \[12\] do not exist; this layer has heads 0 to 11"),
        ({"heads": []}, "heads must be None"),
        ({"heads": ["0"]}, "heads must be None"),
    ],
)
def test_errors_name_the_argument(demo, options, message):
    before = state_of(demo[0])
    with pytest.raises(InvalidInputError, match=message):
        attention_maps(demo[0], TEXTS[0], **options)
    assert state_of(demo[0]) == before


def test_windows_and_mixing_without_attention_are_refused_by_name():
    model, inputs = zoo_model("imgcls-swin")
    with pytest.raises(UnsupportedModelError, match=r"windows, patches or latents.*capture_attention"):
        attention_maps(model, inputs)
    model, inputs = zoo_model("seqcls-fnet")
    with pytest.raises(UnsupportedModelError, match="FNet"):
        attention_maps(model, {"input_ids": inputs["input_ids"]})


def test_the_model_is_as_before(fresh):
    model, _ = fresh
    model.train()
    before = state_of(model)
    attention_maps(model, TEXTS[:2], kind="raw")
    assert state_of(model) == before
