"""Decoders that classify by their last token, without a padding token: one row in a pass, in every task."""

import pytest
import torch
import transformers
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from hf_attn_mi import (
    UnsupportedModelError,
    attention_maps,
    certify,
    compare,
    explain,
    fit_information,
    minimal_tokens,
    recheck,
)
from hf_attn_mi.methods import list_methods
from tests.sample_models import distance, logits

SIZES = {"vocab_size": 8000, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": None}
TEXTS = ["A quietly moving film.", "dull", "No sense, but brilliant and funny.", "A moving and quiet film."]
EQUAL = ["A quiet film.", "A funny film.", "A moving film."]  # of equal length: these were put into one pass
FEW = {"lime": {"samples": 20}, "kernel_shap": {"samples": 20}, "shapley_sampling": {"permutations": 2}}


def decoder(kind):
    torch.manual_seed(0)
    if kind == "qwen2":
        model = Qwen2ForSequenceClassification(Qwen2Config(**SIZES, **HEADS))
    elif kind == "qwen3":
        model = Qwen3ForSequenceClassification(Qwen3Config(**SIZES, **HEADS, head_dim=8))
    elif kind == "llama":
        model = LlamaForSequenceClassification(LlamaConfig(**SIZES, **HEADS))
    else:
        model = GPT2ForSequenceClassification(GPT2Config(vocab_size=8000, n_embd=32, n_layer=2, n_head=4))
    torch.nn.init.normal_(model.score.weight)
    assert model.config.pad_token_id is None
    return model.eval()


@pytest.fixture(scope="module", params=["qwen2", "qwen3", "llama", "gpt2"])
def model(request):
    return decoder(request.param)


def chances(model, tokenizer, text):
    return logits(model, dict(tokenizer(text, return_tensors="pt"))).double().softmax(1)[0]


@pytest.mark.parametrize("texts", [TEXTS, EQUAL], ids=["mixed lengths", "equal lengths"])
def test_explanations_are_of_what_the_model_says_about_each_row(demo, model, texts):
    for one, text in zip(explain(model, texts, tokenizer=demo[1], layers="none"), texts, strict=True):
        assert one.probability == pytest.approx(float(chances(model, demo[1], text).max()), abs=1e-5)
        assert distance(one.scores, explain(model, text, tokenizer=demo[1], layers="none").scores) <= 1e-5


@pytest.mark.parametrize("method", [name for name in list_methods() if name not in ("head", "deeplift")])
def test_every_method_scores_rows_of_equal_length(demo, method):
    model = decoder("qwen2")
    options = {name: value for name, value in FEW.get(method, {}).items() if name in list_methods()[method].options}
    found = explain(model, EQUAL, tokenizer=demo[1], method=method, options=options or None, layers="none")
    for one, text in zip(found, EQUAL, strict=True):
        alone = explain(model, text, tokenizer=demo[1], method=method, options=options or None, layers="none")
        assert distance(one.scores, alone.scores) <= 1e-4


def test_deeplift_needs_two_rows_in_a_pass_and_says_so(demo):
    with pytest.raises(UnsupportedModelError, match=r"takes one row in a pass.* set model.config.pad_token_id"):
        explain(decoder("qwen2"), EQUAL, tokenizer=demo[1], method="deeplift")


@pytest.mark.parametrize("texts", [TEXTS, EQUAL], ids=["mixed lengths", "equal lengths"])
def test_token_sets_and_certificates(demo, model, texts):
    tokenizer = demo[1]
    for one, text in zip(minimal_tokens(model, texts, tokenizer=tokenizer, budget=40), texts, strict=True):
        assert one.p_all == pytest.approx(float(chances(model, tokenizer, text).max()), abs=1e-5)
        again = recheck(model, one, tokenizer=tokenizer)
        assert again.holds, again.reasons
    for one, text in zip(certify(model, texts, tokenizer=tokenizer, checked_rows=4), texts, strict=True):
        assert one.probability == pytest.approx(float(chances(model, tokenizer, text).max()), abs=1e-5)
    assert len(attention_maps(model, texts, tokenizer=tokenizer, kind="raw")) == len(texts)


@pytest.mark.parametrize("removal", ["delete", "attention_mask"])
def test_comparisons(demo, model, removal):
    methods = ["relevance", "occlusion", "integrated_gradients", "random"]
    found = compare(model, EQUAL, tokenizer=demo[1], methods=methods, removal=removal, metrics="all")
    assert found.methods == tuple(methods)
    assert not found.failures


def test_profiles(demo):
    model = decoder("qwen2")
    words = ["quiet", "moving", "dull", "funny", "brilliant", "long", "slow", "warm"]
    texts = [f"A {a} and {b} film" + "." * (len(a) % 2) for a in words for b in words]
    profile = fit_information(model, texts, tokenizer=demo[1], estimator="gaussian", permutations=20)
    assert profile.n == len(texts)
    assert explain(model, EQUAL, tokenizer=demo[1], profile=profile, layers="none")[0].information is not None


def test_next_tokens_are_certified_and_drawn(demo):
    """GPT-2, Llama, Qwen and Gemma: rows of a decoder have key sets of their own."""
    sizes = {**SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    for name, config in (
        ("GPT2LMHeadModel", {"vocab_size": 8000, "n_embd": 32, "n_layer": 2, "n_head": 4}),
        ("LlamaForCausalLM", sizes),
        ("Qwen2ForCausalLM", sizes),
        ("GemmaForCausalLM", sizes),
    ):
        torch.manual_seed(0)
        kind = getattr(transformers, name)
        model = kind(kind.config_class(**config)).eval()
        options = {"tokenizer": demo[1], "target": 'next_token("film")'}
        one = explain(model, TEXTS[2], **options)
        with torch.no_grad():
            row = model(**demo[1](TEXTS[2], return_tensors="pt")).logits[0, -1].double()
        token = demo[1].convert_tokens_to_ids("film")
        others = (row.sum() - row[token]) / (len(row) - 1)
        assert one.value == pytest.approx(float(row[token] - others), abs=1e-4), name
        assert one.completeness_gap < 1e-5
        assert len(one.layers) == 2
        found = certify(model, TEXTS[2], **options)
        assert found.change.kept
        assert found.target_name == one.target_name
        rows = attention_maps(model, TEXTS[2], tokenizer=demo[1]).matrices[0][0]
        assert float(rows.triu(1).abs().max()) == 0.0
        assert torch.allclose(rows.sum(1), torch.ones(len(rows)), atol=1e-5)
