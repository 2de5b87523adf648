"""Tensors as callers have them: known arguments for each token are cut, others passed on, odd ones refused by name."""

import pytest
import torch
from torch import nn
from transformers import BertForMultipleChoice

from hf_attn_mi import (
    HfAttnMiError,
    InvalidInputError,
    attention_maps,
    certify,
    compare,
    explain,
    minimal_tokens,
)
from tests.sample_models import TEXTS, distance, load_demo, state_of, tiny_bert, zoo_model

IDS = torch.tensor([[2, 50, 60, 70, 3]])
TASKS = {
    "explain": explain,
    "certify": certify,
    "minimal_tokens": minimal_tokens,
    "attention_maps": attention_maps,
    "compare": lambda model, inputs, **options: compare(model, inputs, methods=["random", "relevance"], **options),
}


class WithFeatures(nn.Module):
    """A BERT classifier that adds a linear function of (batch, any) features to its logits."""

    def __init__(self, width):
        super().__init__()
        self.inner = tiny_bert()
        self.config = self.inner.config
        self.linear = nn.Linear(width, 2)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, features=None):
        logits = self.inner(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits
        return {"logits": logits + self.linear(features)}


@pytest.mark.parametrize("task", TASKS)
def test_features_as_wide_as_a_text_is_long_reach_the_model_as_they_are(demo, task):
    torch.manual_seed(0)
    tokenizer = demo[1]
    batch = dict(tokenizer(["A warm film.", "A warm and funny film, I think."], padding=True, return_tensors="pt"))
    for width in batch["attention_mask"].sum(1).tolist():  # once for each of the two texts
        model = WithFeatures(width).eval()
        inputs = {**batch, "features": torch.randn(2, width)}
        results = TASKS[task](model, inputs, tokenizer=tokenizer)
        if task in ("attention_maps", "compare"):
            continue
        with torch.no_grad():
            wanted = model(**inputs)["logits"].softmax(1).max(1).values
        for one, probability in zip(results, wanted.tolist(), strict=True):
            found = one.p_all if task == "minimal_tokens" else one.probability
            assert found == pytest.approx(probability, abs=1e-5)


def test_the_scores_of_a_text_do_not_change_with_features_beside_it(demo):
    tokenizer = demo[1]
    model = WithFeatures(3).eval()
    with torch.no_grad():
        model.linear.weight.zero_()
        model.linear.bias.zero_()
    encoded = dict(tokenizer(TEXTS[:2], padding=True, return_tensors="pt"))
    found = explain(model, {**encoded, "features": torch.randn(2, 3)}, tokenizer=tokenizer)
    for one, text in zip(found, TEXTS[:2], strict=True):
        assert distance(one.scores, explain(model.inner, text, tokenizer=tokenizer).scores) <= 1e-5


NESTED = torch.nested.nested_tensor([torch.tensor([2, 50, 3]), torch.tensor([2, 3])])
ODD = {
    "position id above": ({"position_ids": IDS * 0 + 600}, r"\['position_ids'\] holds 600 in input 0.* 0 to 511 only"),
    "position id below": ({"position_ids": IDS * 0 - 1}, r"\['position_ids'\] holds -1"),
    "positions too few": ({"position_ids": IDS[:, :3]}, r"\['position_ids'\] has 3 columns, 'input_ids' has 5"),
    "positions as floats": (
        {"position_ids": IDS.float()},
        r"must be whole numbers, not torch.float32",
    ),
    "type above": ({"token_type_ids": IDS * 0 + 2}, r"\['token_type_ids'\] holds 2 in input 0.* 0 to 1 only"),
    "type below": ({"token_type_ids": IDS * 0 - 3}, r"\['token_type_ids'\] holds -3"),
    "types too many": ({"token_type_ids": torch.zeros(1, 9, dtype=torch.long)}, r"\['token_type_ids'\] has 9 columns"),
    "mask without columns": (
        {"attention_mask": torch.ones(1, dtype=torch.long)},
        r"has no columns",
    ),
    "mask with three": ({"attention_mask": torch.ones(1, 3)}, r"\['attention_mask'\] has 3 columns"),
    "mask of NaN": ({"attention_mask": IDS * float("nan")}, r"\['attention_mask'\] holds NaN"),
    "uint8": (
        {"input_ids": IDS.to(torch.uint8)},
        r"must be whole numbers, not torch.uint8: .*\.long\(\)",
    ),
    "int16": ({"input_ids": IDS.to(torch.int16)}, r"\['input_ids'\] must be whole numbers, not torch.int16"),
    "uint16": ({"input_ids": IDS.to(torch.uint16)}, r"\['input_ids'\] has the dtype torch.uint16"),
    "complex": ({"input_ids": IDS.to(torch.complex64)}, r"\['input_ids'\] has the dtype torch.complex64"),
    "bool": ({"input_ids": IDS > 0}, r"\['input_ids'\] must be whole numbers, not torch.bool"),
    "meta": ({"input_ids": IDS.to("meta")}, r"\['input_ids'\] is on the meta device"),
    "sparse": ({"input_ids": IDS.to_sparse()}, r"\['input_ids'\] is sparse: pass it with .to_dense"),
    "sparse rows": ({"attention_mask": IDS.float().to_sparse_csr()}, r"\['attention_mask'\] is sparse"),
    "nested": ({"input_ids": NESTED}, r"\['input_ids'\] is nested"),
    "ids and embeddings": (
        {"inputs_embeds": torch.randn(1, 5, 384)},
        "has both 'input_ids' and",
    ),
    "outside the vocabulary": ({"input_ids": IDS + 8000}, r"inputs\[0\] holds token id 8070"),
    "numbers beyond 64 bits": ({"input_ids": [[2**70]]}, r"\['input_ids'\] must be a tensor or lists"),
    "strings": ({"input_ids": [["two", "three"]]}, r"\['input_ids'\] must be a tensor or lists"),
    "a text as ids": ({"input_ids": "text"}, r"\['input_ids'\] must be a tensor or lists"),
    "three rows of types": ({"token_type_ids": torch.zeros(3, 5, dtype=torch.long)}, r"has 3 rows, .* has 1"),
    "a scalar": ({"input_ids": torch.tensor(5)}, r"\['input_ids'\] must have 2 dimensions"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_are_refused_by_name_in_every_task(demo, kind):
    changes, message = ODD[kind]
    model, tokenizer = demo
    before = state_of(model)
    for name, task in TASKS.items():
        with pytest.raises(InvalidInputError, match=message):
            task(model, {"input_ids": IDS, **changes}, tokenizer=tokenizer)
        assert state_of(model) == before, name


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float32, torch.float64])
def test_masks_of_every_kind_of_number_are_one_mask(demo, dtype):
    model, tokenizer = demo
    encoded = dict(tokenizer(TEXTS[:2], padding=True, return_tensors="pt"))
    wanted = explain(model, encoded, tokenizer=tokenizer)
    found = explain(model, {**encoded, "attention_mask": encoded["attention_mask"].to(dtype)}, tokenizer=tokenizer)
    assert [one.probability for one in found] == pytest.approx([one.probability for one in wanted], abs=1e-6)


def test_positions_of_roberta_count_from_its_padding_id():
    model = zoo_model("seqcls-roberta")[0].eval()
    most = model.roberta.embeddings.position_embeddings.num_embeddings
    ids = torch.tensor([[5, 6, 7]])
    explain(model, {"input_ids": ids, "position_ids": torch.tensor([[2, 3, most - 1]])})
    with pytest.raises(InvalidInputError, match=rf"holds {most} in input 0.* 0 to {most - 1} only"):
        explain(model, {"input_ids": ids, "position_ids": torch.tensor([[2, 3, most]])})


class Stubborn(nn.Module):
    """A model that accepts no input of fewer than six tokens."""

    def __init__(self, error):
        super().__init__()
        self.inner, self.error = tiny_bert(), error
        self.config = self.inner.config

    def forward(self, input_ids, attention_mask=None):
        if input_ids.shape[1] < 6:
            raise self.error("six tokens\nor more")
        return self.inner(input_ids, attention_mask=attention_mask)


@pytest.mark.parametrize("error", [RuntimeError, IndexError, TypeError, KeyError, ZeroDivisionError, AttributeError])
def test_what_the_forward_of_a_model_raises_is_said_with_the_shapes(demo, error):
    model = Stubborn(error).eval()
    message = rf"Stubborn.forward raised {error.__name__}: .*input_ids \(1, \d\)"
    for task in TASKS.values():
        with pytest.raises(HfAttnMiError, match=message) as caught:
            task(model, {"input_ids": IDS}, tokenizer=demo[1])
        assert type(caught.value.__cause__) is error or task is TASKS["compare"]  # which names one for each method


def test_memory_that_ran_out_and_interrupts_are_raised_as_they_are(demo):
    for error in (torch.OutOfMemoryError, MemoryError, KeyboardInterrupt):
        with pytest.raises(error):
            explain(Stubborn(error).eval(), {"input_ids": IDS}, tokenizer=demo[1])


def test_padding_is_kept_where_the_model_does_not_take_the_shorter_row(demo):
    model = Stubborn(ValueError).eval()
    inputs = {"input_ids": torch.cat([IDS, IDS * 0], 1), "attention_mask": torch.tensor([[1] * 5 + [0] * 5])}
    one = explain(model, inputs, tokenizer=demo[1])
    with torch.no_grad():
        assert one.probability == pytest.approx(float(model(**inputs).logits.softmax(1).max()), abs=1e-5)
    assert len(one.tokens) == 10


@pytest.mark.parametrize("inputs", [{"input_ids": torch.ones(2, 5, dtype=torch.long)}, TEXTS[0], TEXTS[:2]], ids=len)
def test_inputs_without_choices_are_refused_by_a_model_for_multiple_choice(demo, inputs):
    model = BertForMultipleChoice(tiny_bert().config).eval()
    for task in TASKS.values():
        with pytest.raises(InvalidInputError, match=r"a multiple-choice model takes \(prompt, \[choice"):
            task(model, inputs, tokenizer=demo[1])


@pytest.mark.parametrize("tokenizer", [object(), "bert-base-uncased", 3, [], load_demo()[1].backend_tokenizer, len])
def test_what_is_no_tokenizer_is_refused_by_every_task(demo, tokenizer):
    for task in TASKS.values():
        with pytest.raises(InvalidInputError, match="tokenizer must be a tokenizer of transformers, not"):
            task(demo[0], TEXTS[0], tokenizer=tokenizer)


@pytest.mark.parametrize("value", [5, "abcdef", [1, 2, 3, 4, 5], [[1, 2, 3]] * 5, [(0, "a")] * 5, torch.rand(1, 5, 2)])
@pytest.mark.parametrize("key", ["offset_mapping", "special_tokens_mask"])
def test_what_a_tokenizer_says_of_each_token_is_checked(demo, key, value):
    with pytest.raises(InvalidInputError, match=rf"inputs\['{key}'\] must (hold|be)"):
        explain(demo[0], {"input_ids": IDS, key: value}, tokenizer=demo[1])


def test_a_single_number_is_no_image():
    model, _ = zoo_model("imgcls-vit")
    with pytest.raises(InvalidInputError, match=r"inputs\['pixel_values'\] is a single number"):
        explain(model, {"pixel_values": torch.tensor(1.0)})


def test_compare_needs_a_mask_of_tokens(demo):
    inputs = {"input_ids": IDS, "attention_mask": torch.ones(1, 1, 5, 5)}
    with pytest.raises(
        InvalidInputError, match=r"must be \(batch, tokens\) where tokens are removed, not 4-dimensional"
    ):
        compare(demo[0], inputs, tokenizer=demo[1], methods=["random"])
