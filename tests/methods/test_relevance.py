"""Frozen relevance against a second implementation, its completeness, and what it leaves alone."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from hf_attn_mi import explain
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.methods.relevance import LinearizedForward, relevance, rules
from hf_attn_mi.methods.relevance.rules import attention_rule, taylor_rule
from hf_attn_mi.models.runner import EncoderRunner
from tests.sample_models import TEXTS, distance, load_demo, run_relevance, tiny_bert, zoo_model

COMPLETE = [
    "seqcls-bert",
    "seqcls-roberta",
    "seqcls-deberta-v2",
    "seqcls-modernbert",
    "seqcls-t5",
    "seqcls-gpt2",
    "seqcls-xlnet",
    "seqcls-bart",
    "seqcls-distilbert",
    "seqcls-electra",
    "seqcls-albert",
]


def difference(outputs):
    """Logit 1 minus logit 0, which for two classes is the class minus the mean of the others."""
    return outputs.logits[:, 1] - outputs.logits[:, 0]


def normalized(x, norm):
    std = (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt().detach()
    return (x - x.mean(-1, keepdim=True)) / std * norm.weight + norm.bias


def halved(x):
    """x, with half of its gradient."""
    return x / 2 + (x / 2).detach()


def frozen_bert(model, ids, mask, softmax_rule="detach"):
    """Scores and value of a BERT classifier, written out by hand: every frozen factor is detached where it stands."""
    bert, heads = model.bert, model.config.num_attention_heads
    embeddings = bert.embeddings
    x = embeddings.word_embeddings.weight[ids].detach().requires_grad_(True)
    constants = embeddings.position_embeddings.weight[: ids.shape[1]] + embeddings.token_type_embeddings.weight[0]
    h = normalized(x + constants, embeddings.LayerNorm)
    bias = (1.0 - mask[:, None, None, :].double()) * -1e9

    def split(t):
        return t.unflatten(-1, (heads, -1)).transpose(1, 2)

    for layer in bert.encoder.layer:
        own = layer.attention.self
        q, k, v = split(own.query(h)), split(own.key(h)), split(own.value(h))
        if softmax_rule == "taylor":
            a = (halved(q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1]) + bias).softmax(-1)
            o = halved(a @ v).transpose(1, 2).flatten(2)
        else:
            a = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias).softmax(-1).detach()
            o = (a @ v).transpose(1, 2).flatten(2)
        h = normalized(h + layer.attention.output.dense(o), layer.attention.output.LayerNorm)
        f = layer.intermediate.dense(h)
        gate = (0.5 * (1 + torch.erf(f / math.sqrt(2)))).detach()
        h = normalized(h + layer.output.dense(gate * f), layer.output.LayerNorm)
    t = bert.pooler.dense(h[:, 0])
    logits = model.classifier(t * (torch.tanh(t) / t).detach())
    value = logits[:, 1] - logits[:, 0]
    (grad,) = torch.autograd.grad(value.sum(), x)
    return (grad * x).sum(-1).detach(), value.detach()


@pytest.fixture(scope="module")
def double():
    model, tokenizer = load_demo()
    return model.double(), tokenizer(TEXTS, padding=True, return_tensors="pt")


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("softmax_rule", ["detach", "taylor"])
def test_scores_equal_a_frozen_bert_written_by_hand(double, softmax_rule, implementation):
    model, inputs = double
    scores, value = frozen_bert(model, inputs["input_ids"], inputs["attention_mask"], softmax_rule)
    model = copy.deepcopy(model)
    model.set_attn_implementation(implementation)
    found = run_relevance(model, dict(inputs), difference, softmax_rule=softmax_rule)
    torch.testing.assert_close(found.value.double(), value, rtol=1e-6, atol=1e-6)
    assert distance(found.scores, scores) < 1e-6
    assert float(found.scores.abs().max()) > 0.1


def test_explain_gives_the_same_scores_in_float32(demo, double):
    model, inputs = double
    scores, _ = frozen_bert(model, inputs["input_ids"], inputs["attention_mask"])
    for found, wanted in zip(explain(demo[0], TEXTS, target=1), scores):
        assert distance(found.scores, wanted[: len(found.tokens)]) < 1e-4


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_explain_lets_relevance_through_queries_and_keys(demo, double, implementation):
    model, inputs = double
    scores, _ = frozen_bert(model, inputs["input_ids"], inputs["attention_mask"], "taylor")
    watched = copy.deepcopy(demo[0])
    watched.set_attn_implementation(implementation)
    for found, wanted in zip(explain(watched, TEXTS, target=1, method="attnlrp", tokenizer=demo[1]), scores):
        assert distance(found.scores, wanted[: len(found.tokens)]) < 1e-4
        assert found.completeness_gap < 1e-5


@pytest.mark.parametrize("name", ["seqcls-bert", "seqcls-deberta-v2", "seqcls-t5"])
def test_constants_of_the_tangents_belong_to_their_example(name):
    model, inputs = zoo_model(name)
    model = model.double()
    found = run_relevance(model, inputs, difference, softmax_rule="taylor")
    assert float((found.bias[0] - found.bias[1]).abs()) > 1e-3
    for i in range(2):
        single = {key: value[i : i + 1] for key, value in inputs.items()}
        torch.testing.assert_close(
            found.bias[i], run_relevance(model, single, difference, softmax_rule="taylor").bias[0]
        )


def test_constants_of_heads_within_the_batch_are_added_up():
    frozen = LinearizedForward(None, 2, "taylor")
    frozen._collect(torch.arange(6.0))  # 2 examples of 3 heads
    assert frozen.bias.tolist() == [0.0 + 1 + 2, 3.0 + 4 + 5]
    frozen._collect(torch.ones(3))  # no number of examples: spread evenly
    assert frozen.bias.tolist() == [4.5, 13.5]


class OneHead(nn.Module):
    """Attention of which the query, the keys and values, or all depend on the input; written out, or by torch."""

    def __init__(self, query, others, written):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.words = nn.Embedding(9, 4, dtype=torch.float64)
        weights = [torch.randn(4, 4, dtype=torch.float64, generator=generator) for _ in range(3)]
        self.words.weight = nn.Parameter(torch.randn(9, 4, dtype=torch.float64, generator=generator))
        self.constant = torch.randn(1, 5, 4, dtype=torch.float64, generator=generator)
        self.weights, self.query, self.others, self.written = weights, query, others, written

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids):
        x = self.words(input_ids)
        constant = self.constant.expand_as(x)
        q, k, v = ((x if own else constant) @ w for own, w in zip((self.query, self.others, self.others), self.weights))
        if self.written:
            mask = torch.zeros(5, 5, dtype=torch.float64)
            mask[:, 4] = -math.inf
            found = (q @ k.transpose(-1, -2) / 2 + mask).softmax(dim=-1) @ v
        else:
            seen = torch.ones(5, 5, dtype=torch.bool)
            seen[:, 4] = False
            found = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], attn_mask=seen)[:, 0]
        return (found + x).sum(1)


def test_operands_of_einsum_may_stand_in_a_list():
    model, inputs = zoo_model("imgcls-cvt")
    model = model.double()
    inputs = {"pixel_values": inputs["pixel_values"].double()}
    assert float(run_relevance(model, inputs, difference, softmax_rule="taylor").gap.max()) <= 1e-10


@pytest.mark.parametrize(("query", "others"), [(True, True), (True, False), (False, True)])
def test_a_product_with_a_constant_is_not_halved(query, others):
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 1, 2]])
    by_hand, by_torch = (
        run_relevance(OneHead(query, others, written), {"input_ids": ids}, lambda out: out[:, 0], softmax_rule="taylor")
        for written in (True, False)
    )
    assert float(by_hand.gap.max()) <= 1e-10
    assert float(by_torch.gap.max()) <= 1e-10
    assert distance(by_torch.scores, by_hand.scores) <= 1e-6
    torch.testing.assert_close(by_torch.bias, by_hand.bias)
    frozen = run_relevance(OneHead(query, others, True), {"input_ids": ids}, lambda out: out[:, 0])
    assert distance(by_hand.scores, frozen.scores) > 1e-3  # the premise


def test_a_learned_query_of_torchs_own_attention_module():
    model, inputs = zoo_model("base-siglip_vision_model")
    model = model.double()
    inputs = {"pixel_values": inputs["pixel_values"].double()}
    found = run_relevance(model, inputs, lambda out: out.pooler_output[:, 0], softmax_rule="taylor")
    assert float(found.gap.max()) <= 1e-10


def test_the_tangent_of_softmax_by_hand():
    logits = torch.tensor([[1.0, 0.0, -math.inf]], dtype=torch.float64, requires_grad=True)
    collected = []
    taylor_rule(lambda z: z.softmax(-1), [logits], collected.append)[0, 0].backward()
    p = math.e / (1 + math.e)
    slope = p * (1 - p)
    torch.testing.assert_close(logits.grad, torch.tensor([[slope, -slope, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(sum(collected), torch.tensor([p - slope], dtype=torch.float64))  # masked: not NaN


@pytest.mark.parametrize("tracked", [(0, 1, 2), (0, 1), (0,), (1, 2), (2,)])
def test_the_rule_of_attention_is_that_of_its_tangent(tracked):
    generator = torch.Generator().manual_seed(0)
    plain = [torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64) for _ in range(3)]
    shares, totals, gradients = tuple(0.25 * (i + 1) * (i in tracked) for i in range(3)), [], []
    for rule in (
        lambda qkv, collect: taylor_rule(F.scaled_dot_product_attention, qkv, collect, shares),
        lambda qkv, collect: attention_rule(F.scaled_dot_product_attention, qkv, shares, collect),
    ):
        qkv = [x.clone().requires_grad_(i in tracked) for i, x in enumerate(plain)]
        collected = []
        rule(qkv, collected.append).pow(2).sum().backward()
        totals.append(sum(collected))
        gradients.append([qkv[i].grad for i in tracked])
    torch.testing.assert_close(totals[1], totals[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_a_tensor_that_a_tangent_needs_must_not_change_in_place():
    leaf = torch.ones(2, 3, requires_grad=True)
    x = leaf * 1
    result = taylor_rule(lambda z: 2 * z, [x], [].append)
    x.add_(1)  # which the gradient of 2 z does not need, but its constant does
    with pytest.raises(RuntimeError, match="inplace operation"):
        result.sum().backward()


def test_padding_gets_nothing(double):
    model, inputs = double
    found = run_relevance(model, dict(inputs), difference)
    assert float(found.scores[inputs["attention_mask"] == 0].abs().max()) == 0.0


@pytest.mark.parametrize("softmax_rule", ["detach", "taylor"])
@pytest.mark.parametrize("name", COMPLETE)
def test_scores_and_bias_terms_add_up_to_the_value(name, softmax_rule):
    model, inputs = zoo_model(name)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # biases and gains start at 0 and 1 in a random model, where a forgotten bias would not show
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    single = run_relevance(model, inputs, difference, softmax_rule=softmax_rule)
    assert float(single.gap.max()) <= 1e-5
    model = model.double()
    found = run_relevance(model, inputs, difference, softmax_rule=softmax_rule)
    with torch.no_grad():
        torch.testing.assert_close(found.value, difference(model(**inputs)))
    single_softmax = softmax_rule == "taylor" and name == "seqcls-modernbert"  # its softmax stays in float32
    assert float(found.gap.max()) <= (1e-7 if single_softmax else 1e-10)
    assert distance(single.scores, found.scores) < 1e-3
    assert float(found.scores.abs().max()) > 1e-3


@pytest.mark.parametrize("softmax_rule", ["detach", "taylor"])
def test_bias_terms_of_torchs_own_attention_module_are_counted(softmax_rule):
    """WavLM calls torch's multi-head attention, tokens first, which adds the bias of its values itself."""
    model, inputs = zoo_model("audcls-wavlm")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    model = model.double()
    inputs = {**inputs, "input_values": inputs["input_values"].double()}
    found = run_relevance(model, inputs, difference, softmax_rule=softmax_rule)
    assert float(found.gap.max()) <= 1e-10
    for i in range(2):  # each example has its own bias terms
        alone = run_relevance(
            model, {key: value[i : i + 1] for key, value in inputs.items()}, difference, softmax_rule=softmax_rule
        )
        torch.testing.assert_close(found.bias[i], alone.bias[0])
        assert distance(found.scores[i], alone.scores[0]) < 1e-6


def test_without_bias_terms_the_scores_alone_add_up():
    model, inputs = zoo_model("seqcls-modernbert")
    model = model.double()
    with torch.no_grad():  # no bias, no position table: nothing but the tokens speaks
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    found = run_relevance(model, inputs, difference)
    torch.testing.assert_close(found.scores.sum(1).double(), found.value, rtol=1e-5, atol=1e-6)
    assert float(found.bias.abs().max()) < 1e-6


class Gated(nn.Module):
    """w3 (silu(w1 x) * w2 x), the gated feed-forward layer."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w1, self.w2, self.w3 = (
            nn.Parameter(torch.randn(6, 6, generator=generator, dtype=torch.float64)) for _ in range(3)
        )

    def forward(self, x):
        return (F.silu(x @ self.w1) * (x @ self.w2)) @ self.w3


def test_a_gated_layer_shares_its_product_equally():
    layer, x = Gated(), torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    leaf = x.clone().requires_grad_(True)
    with LinearizedForward(None, 2):
        value = layer(leaf)[:, 0]
    (grad,) = torch.autograd.grad(value.sum(), leaf)
    u, v, w = x @ layer.w1, x @ layer.w2, layer.w3[:, 0]
    wanted = 0.5 * ((w * v * u.sigmoid()) @ layer.w1.t() + (w * u * u.sigmoid()) @ layer.w2.t())
    torch.testing.assert_close(grad, wanted.detach())
    torch.testing.assert_close((grad * x).sum(1), value)


@pytest.mark.parametrize(
    "name", ["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "mish", "tanh"]
)
def test_an_activation_passes_its_input_by_its_gate(name):
    x = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    leaf = x.clone().requires_grad_(True)
    with LinearizedForward(None, 1):
        value = ACT2FN[name](leaf)
    (grad,) = torch.autograd.grad(value.sum(), leaf)
    torch.testing.assert_close(grad, ACT2FN[name](x) / x, rtol=1e-9, atol=1e-12)


def test_rms_norm_written_out_is_linear_with_a_frozen_scale():
    x = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    leaf = x.clone().requires_grad_(True)
    with LinearizedForward(None, 2):
        value = leaf * torch.rsqrt(leaf.pow(2).mean(-1, keepdim=True) + 1e-6)
    (grad,) = torch.autograd.grad(value.sum(), leaf)
    torch.testing.assert_close(grad, (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt().expand_as(x))


def test_embeddings_passed_in_get_the_scores_of_their_tokens(double):
    model, inputs = double
    embeds = model.bert.embeddings.word_embeddings(inputs["input_ids"]).detach()
    by_ids = run_relevance(model, dict(inputs), difference)
    by_embeds = run_relevance(model, {"inputs_embeds": embeds, "attention_mask": inputs["attention_mask"]}, difference)
    assert by_embeds.space == "inputs_embeds"
    assert distance(by_embeds.scores, by_ids.scores) < 1e-6


def test_parameters_keep_their_gradients_and_flags(demo):
    model = copy.deepcopy(demo[0])
    kept = torch.ones_like(model.classifier.bias)
    model.classifier.bias.grad = kept
    model.bert.embeddings.requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    explain(model, TEXTS)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert model.classifier.bias.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))
    assert all(p.grad is None for p in model.parameters() if p is not model.classifier.bias)


def ranks(values):
    return values.argsort().argsort().double()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_order(demo, dtype):
    text = TEXTS[2] + " " + TEXTS[4]
    half = copy.deepcopy(demo[0]).to(dtype)
    found, wanted = explain(half, text, target=1), explain(demo[0], text, target=1)
    assert bool(torch.isfinite(found.scores).all())
    assert torch.corrcoef(torch.stack([ranks(found.scores), ranks(wanted.scores)]))[0, 1] > 0.95
    assert found.info["dtype"] == str(dtype).removeprefix("torch.")
    assert found.completeness_gap < 0.02


@pytest.mark.parametrize("softmax_rule", ["detach", "taylor"])
def test_bias_terms_of_one_example_are_those_of_the_same_example_in_a_batch(softmax_rule):
    model = tiny_bert()
    ids = torch.tensor([[1, 5, 6, 2], [1, 9, 8, 2]])

    def of(rows):
        runner = EncoderRunner.of(model)
        with runner.session():
            return relevance(runner, {"input_ids": rows}, lambda o: o.logits[:, 1], softmax_rule=softmax_rule)

    both, alone = of(ids), [of(ids[i : i + 1]) for i in range(2)]
    assert torch.allclose(both.bias, torch.cat([one.bias for one in alone]), atol=1e-6)
    assert torch.allclose(both.scores, torch.cat([one.scores for one in alone]), atol=1e-6)
    assert max(float(one.gap) for one in alone) < 1e-5


PRODUCTS_OF_SIGNALS = {
    "positions": lambda a, b, c: torch.matmul(a, b),
    "keywords": lambda a, b, c: torch.matmul(input=a, other=b),
    "three factors": lambda a, b, c: torch.einsum("ij,jk,ik->i", a, b, c),
    "a list": lambda a, b, c: torch.einsum("ij,jk->ik", [a, b]),
    "one factor twice": lambda a, b, c: a @ a,
}


@pytest.mark.parametrize("softmax_rule", ["detach", "taylor"])
@pytest.mark.parametrize("name", PRODUCTS_OF_SIGNALS)
def test_shares_of_the_factors_of_a_product_add_up_to_it(name, softmax_rule):
    factors = [torch.randn(4, 4, requires_grad=True) for _ in range(3)]
    with LinearizedForward(None, 4, softmax_rule):
        result = PRODUCTS_OF_SIGNALS[name](*factors)
    assert torch.equal(result, PRODUCTS_OF_SIGNALS[name](*factors))
    gradients = torch.autograd.grad((result * result.detach()).sum(), factors, allow_unused=True)
    shares = [float((x * g).sum().detach()) for x, g in zip(factors, gradients, strict=True) if g is not None]
    assert sum(shares) == pytest.approx(float(result.detach().square().sum()), rel=1e-5)
    assert all(share == pytest.approx(shares[0], rel=1e-4) for share in shares)


def test_a_product_in_place_of_two_signals_is_refused():
    first, second = torch.randn(3, requires_grad=True).clone(), torch.randn(3, requires_grad=True)
    with LinearizedForward(None, 3), pytest.raises(UnsupportedModelError, match="in-place product"):
        first *= second


def test_a_product_of_two_activations_is_halved_as_by_the_general_rule():
    first, second = torch.randn(2, 3, 4, requires_grad=True), torch.randn(3, 1, requires_grad=True)
    weight = torch.randn(2, 3, 4)

    def gradients(product):
        return torch.autograd.grad((product * weight).sum(), (first, second))

    with LinearizedForward(None, 2):
        fast = first * second
    general = rules.uniform_rule(torch.mul, [first, second])
    assert torch.equal(fast, general)
    for one, other in zip(gradients(fast), gradients(general), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
