"""Bad input is refused by name, and leaves the model and the process as they were."""

import copy

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetForImageClassification,
)

from hf_attn_mi import HfAttnMiError, InvalidInputError, UnsupportedModelError, explain
from hf_attn_mi.models.targets import NothingToExplainError
from tests.sample_models import ANY_MODEL, SIZES, TEXTS, load_demo, state_of, zoo_model

IDS = {"input_ids": torch.tensor([[2, 50, 60, 3]])}


def refused(error, message, model, inputs, **options):
    before, generator = state_of(model), torch.get_rng_state()
    with pytest.raises(HfAttnMiError, match=message) as caught:
        explain(model, inputs, **options)
    assert type(caught.value) is error
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("", r"inputs\[0\] is an empty text \(''\); pass at least one visible character"),
        ("  \n", r"inputs\[0\] is an empty text"),
        (["good", ""], r"inputs\[1\] is an empty text"),
        (("good", ""), r"inputs\[0\] is an empty text"),
        ("\u200b", r"inputs\[0\] has no tokens other than special ones"),
        ([], "inputs is an empty list; allowed is a text, a pair"),
        ({}, "inputs is an empty dict; allowed is a text"),
        (3, "inputs must be a text, a pair .* not int"),
        (None, "inputs must be a text, .* not NoneType"),
        (torch.tensor([[2, 3]]), "inputs must be a text, .* not Tensor"),
        ([2, 50, 3], r"inputs\[0\] must be a text or a pair of texts, not int: 2; pass token ids as a dict"),
        (["good", ("a", "b", "c")], r"inputs\[1\] must be a text or a pair of texts, not tuple"),
        ("good " * 600, r"inputs\[0\] has 602 tokens, the model takes 512. Shorten it, or pass truncation=True"),
        (["good", "good " * 600], r"inputs\[1\] has 602 tokens"),
        ({"input_ids": [[2, 9000, 3]]}, r"inputs\[0\] holds token id 9000, .* ids 0 to 7999 only: the tokenizer"),
        ({"input_ids": [[2, 5, 3], [2, -1, 3]]}, r"inputs\[1\] holds token id -1"),
        ({"input_ids": [[2, 2**40, 3]]}, r"inputs\[0\] holds token id 1099511627776"),
        ({"input_ids": [[2.0, 3.0]]}, r"inputs\['input_ids'\] must be whole numbers, not torch.float32"),
        ({"input_ids": [[2, 3], [2]]}, r"inputs\['input_ids'\] must be a tensor or lists of equal length, not list"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.long)}, r"inputs\['input_ids'\] is empty: shape \(1, 0\)"),
        (
            {"input_ids": [[[2, 3]]]},
            r"inputs\['input_ids'\] must have 2 dimensions, batch first, not shape \(1, 1, 2\)",
        ),
        ({"input_ids": [[5] * 600]}, r"inputs\[0\] has 600 tokens, the model takes 512"),
        ({"attention_mask": [[1, 1]]}, r"inputs has keys \['attention_mask'\]; one of input_ids, inputs_embeds"),
        (
            {"input_ids": [[2, 3]], "attention_masks": [[1, 1]]},
            r"keys \['attention_masks'\] that this model does not know",
        ),
        ({"input_ids": [[2, 3]], "attention_mask": [[1, 1]] * 2}, r"\['attention_mask'\] has 2 rows, .* has 1; every"),
        (
            {"input_ids": [[2, 3]], "attention_mask": [[1]]},
            r"inputs\['attention_mask'\] has 1 columns, 'input_ids' has 2",
        ),
        (
            {"input_ids": [[2, 3]], "attention_mask": [[0, 0]]},
            r"\['attention_mask'\] is zero for every token of input 0",
        ),
        (
            {"inputs_embeds": torch.full((1, 3, 384), float("nan"))},
            r"\['inputs_embeds'\] holds NaN or infinite entries",
        ),
        (
            {"inputs_embeds": torch.full((1, 3, 384), float("inf"))},
            r"\['inputs_embeds'\] holds NaN or infinite entries",
        ),
        ({"inputs_embeds": torch.randn(1, 3, 64)}, r"inputs\['inputs_embeds'\] has width 64, .* have 384"),
        ({"inputs_embeds": torch.randn(1, 600, 384)}, r"inputs\[0\] has 600 tokens, the model takes 512"),
    ],
)
def test_inputs(demo, inputs, message):
    refused(InvalidInputError, message, demo[0], inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"target": "happy"},
            r"target 'happy' is not a label of this model; its labels are \['negative', 'positive'\]",
        ),
        ({"target": 2}, r"target 2 is out of range: this model has classes 0 to 1 \['negative', 'positive'\]"),
        ({"target": -1}, "target -1 is out of range"),
        ({"target": True}, "target must be None .* not bool: True"),
        ({"target": 1.0}, "target must be None .* not float: 1.0"),
        ({"target": [1, 0]}, "target has 2 entries for 1 inputs; pass one for each, or one for all"),
        ({"target": lambda outputs: outputs.logits}, r"target: the function must return .* \(batch,\), not \(1, 2\)"),
        ({"target": lambda outputs: 3.0}, r"target: the function must return a tensor of shape \(batch,\), not float"),
        ({"target": lambda outputs: outputs.logits[0]}, "target: the function returned 2 values for 1 inputs"),
        ({"target": lambda outputs: outputs.logits[:, 0] / 0}, "target: the value of the function is not finite"),
        ({"target": lambda outputs: outputs.logits[:, 0].to(torch.complex64)}, "must return real numbers, not"),
        (
            {"method": "magic"},
            r"method 'magic' is not known; allowed are relevance, attnlrp, attnlrp_iterative, attention, ",
        ),
        ({"batch_size": 0}, "batch_size must be a positive whole number, not 0"),
        ({"batch_size": True}, "batch_size must be a positive whole number, not True"),
        ({"batch_size": 2.0}, "batch_size must be a positive whole number, not 2.0"),
        (
            {"profile": ["a"]},
            "profile must be an InformationProfile, as fit_information or InformationProfile.load return it",
        ),
        ({"truncation": "longest"}, "truncation must be True or False, not 'longest'"),
    ],
)
def test_options(demo, options, message):
    for method in ("relevance", "attention"):
        refused(InvalidInputError, message, demo[0], TEXTS[0], **{"method": method, **options})


def test_label_names_that_differ_by_case_only_must_be_exact(fresh):
    model, _ = fresh
    model.config.id2label = {0: "GOOD", 1: "good"}
    assert explain(model, TEXTS[0], target="good").target == 1
    refused(InvalidInputError, "target 'Good' names more than one label", model, TEXTS[0], target="Good")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", ANY_MODEL)
def test_weights_that_are_not_finite(fresh, method, value):
    model, _ = fresh
    with torch.no_grad():  # a query weight: the fused kernel makes zero rows of NaN, and finite logits
        model.bert.encoder.layer[1].attention.self.query.weight[0, 0] = value
    message = "model: weight bert.encoder.layer.1.attention.self.query.weight holds NaN or infinite entries; load sound"
    refused(InvalidInputError, message, model, TEXTS, method=method)


def test_weights_that_became_bad_after_a_sound_run(fresh):
    model, _ = fresh
    explain(model, TEXTS[0])
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    refused(InvalidInputError, "weight classifier.bias holds NaN", model, TEXTS[0])
    model.classifier.bias = nn.Parameter(torch.zeros(2))
    explain(model, TEXTS[0])


def test_a_forward_pass_that_overflows(fresh):
    model, _ = fresh
    with torch.no_grad():
        model.classifier.weight.fill_(6e4)
    message = "model: the logits are not finite. The weights are finite, so .* overflows"
    refused(InvalidInputError, message, model.half(), TEXTS[0])
    model, _ = load_demo()
    with torch.no_grad():
        model.bert.encoder.layer[2].attention.self.value.weight.fill_(3e38)
        model.bert.encoder.layer[2].attention.self.value.weight[:, ::2] = -3e38
    refused(InvalidInputError, "layer.2.attention.self computed NaN or infinite values .* overflows", model, TEXTS[0])


def test_models_that_are_no_classifiers():
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4)).eval()
    message = r"GPT2LMHeadModel has no class logits .* \(logits: \(1, 4, 99\)\)\. It has a head for next tokens: pass"
    refused(NothingToExplainError, message, gpt2, IDS, target=0)
    assert explain(gpt2, IDS).target_name.startswith("next token")
    bare = AutoModel.from_config(BertConfig(**SIZES, intermediate_size=64)).eval()
    message = (
        r"BertModel has no class logits .*AutoModelForSequenceClassification.*pass target=function.*hf_attn_mi\.targets"
    )
    refused(NothingToExplainError, message, bare, IDS)


def test_a_convolutional_net_has_no_attention():
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_channels=3)
    images = {"pixel_values": torch.randn(1, 3, 32, 32)}
    model = ResNetForImageClassification(config).eval()
    for method in ("relevance", "attention"):
        refused(UnsupportedModelError, "ResNetForImageClassification", model, images, method=method)


def test_a_name_is_no_model():
    with pytest.raises(
        InvalidInputError, match=r"model must be a loaded model, not the name 'bert-base-uncased'.*from_pre"
    ):
        explain("bert-base-uncased", TEXTS[0])
    with pytest.raises(InvalidInputError, match=r"model must be .* not NoneType"):
        explain(None, TEXTS[0])


def test_the_tokenizer_of_another_model(demo):
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**{**SIZES, "vocab_size": 99}, intermediate_size=64)).eval()
    message = "embeddings for ids 0 to 98 only: the tokenizer is another"
    refused(InvalidInputError, message, model, TEXTS[0], tokenizer=demo[1])
    refused(InvalidInputError, "tokenizer: BertForSequenceClassification does not name the folder", model, TEXTS[0])
    model.config._name_or_path = "/nowhere"
    refused(InvalidInputError, "tokenizer: none could be loaded from the model's own path '/nowhere'", model, TEXTS[0])


class FlashOnly(BertForSequenceClassification):
    """Stands for models whose attention can only be run by a kernel that shows nothing."""

    def set_attn_implementation(self, *args, **kwargs):
        raise ValueError("FlashOnly supports flash_attention_2 only")


def test_an_implementation_that_shows_no_attention(demo, fresh):
    torch.manual_seed(0)
    model = FlashOnly(BertConfig(**SIZES, intermediate_size=64)).eval()
    model.config._attn_implementation_internal = "flash_attention_2"
    message = "FlashOnly runs attention implementation 'flash_attention_2', whose kernel cannot be traced"
    refused(UnsupportedModelError, message, model, IDS)
    assert model.config._attn_implementation == "flash_attention_2"
    usual, _ = fresh
    wanted = explain(demo[0], TEXTS)
    usual.config._attn_implementation_internal = "flash_attention_2"  # can be switched to sdpa, and is switched back
    assert all(torch.equal(a.scores, b.scores) for a, b in zip(explain(usual, TEXTS), wanted))
    assert usual.config._attn_implementation == "flash_attention_2"


def test_quantized_weights_give_no_gradients(fresh):
    model, _ = fresh
    quantized = copy.deepcopy(model)
    int8 = type("Linear8bitLt", (nn.Linear,), {"__module__": "bitsandbytes.nn.modules"})
    quantized.bert.encoder.layer[0].intermediate.dense.__class__ = int8
    message = r"layer.0.intermediate.dense \(Linear8bitLt\) has quantized weights.*Load .* float32.*attention, rollout"
    refused(UnsupportedModelError, message, quantized, TEXTS[0])
    found, wanted = (explain(one, TEXTS[0], method="attention") for one in (quantized, model))
    assert torch.equal(found.scores, wanted.scores)


def test_weights_on_the_meta_device():
    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig(**SIZES, intermediate_size=64))
    message = "model: the weights of BertForSequenceClassification are on the meta device.*from_pretrained"
    refused(InvalidInputError, message, model, IDS)


def test_attention_methods_need_tokens():
    model, inputs = zoo_model("imgcls-swin")
    message = "method 'attention' needs attention over the same positions in every layer.*method='relevance'"
    refused(InvalidInputError, message, model, inputs, method="attention")


class WithoutRepr:
    """An object that cannot be shown."""

    def __repr__(self):
        raise ValueError("no repr")


@pytest.mark.parametrize("value", [-(10**5000), WithoutRepr(), [WithoutRepr()]], ids=["long", "object", "list"])
@pytest.mark.parametrize("name", ["batch_size", "layers", "method", "options", "truncation", "target", "tokenizer"])
def test_values_that_cannot_be_shown_are_refused_as_any_other(demo, name, value):
    refused(InvalidInputError, name, demo[0], TEXTS[0], **{name: value})
