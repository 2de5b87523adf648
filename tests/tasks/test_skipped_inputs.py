"""errors="skip": an input of a list that cannot be used comes back with the reason, in its place."""

import json
import pickle

import pytest
import torch

from hf_attn_mi import (
    InvalidInputError,
    Results,
    SkippedInput,
    UnsupportedModelError,
    attention_maps,
    certify,
    explain,
    minimal_tokens,
)
from tests.sample_models import TEXTS, state_of, tiny_bert

BAD = [TEXTS[0], "", TEXTS[1], "a \ud800 b", ["two", "words"], "good " * 600, ("pair", TEXTS[2]), "\u200b", 3, None]
GOOD = [0, 2, 6]
TASKS = {
    "explain": lambda *args, **options: explain(*args, layers="none", **options),
    "certify": certify,
    "minimal_tokens": lambda *args, **options: minimal_tokens(*args, second_ranking=None, **options),
    "attention_maps": lambda *args, **options: attention_maps(*args, kind="raw", layers=[0], **options),
}


@pytest.fixture(scope="module")
def results(demo):
    return explain(demo[0], BAD, tokenizer=demo[1], errors="skip", layers="none")


@pytest.mark.parametrize("task", TASKS)
def test_what_cannot_be_used_is_skipped_in_its_place(demo, task):
    model, tokenizer = demo
    before = state_of(model)
    results = TASKS[task](model, BAD, tokenizer=tokenizer, errors="skip")
    assert state_of(model) == before
    assert len(results) == len(BAD)
    assert [i for i, one in enumerate(results) if not isinstance(one, SkippedInput)] == GOOD
    assert [one.index for one in results.skipped] == [i for i in range(len(BAD)) if i not in GOOD]
    assert all(f"inputs[{one.index}]" in one.reason for one in results.skipped)
    assert all(one.error == "InvalidInputError" for one in results.skipped)
    wanted = TASKS[task](model, [BAD[i] for i in GOOD], tokenizer=tokenizer)
    for one, alone in zip(results.answered, wanted, strict=True):
        if task == "explain":
            assert torch.equal(one.scores, alone.scores)
        assert getattr(one, "probability", None) == getattr(alone, "probability", None)
        assert one.to_pandas().select_dtypes("number").equals(alone.to_pandas().select_dtypes("number"))


@pytest.mark.parametrize("task", TASKS)
def test_by_default_the_first_such_input_raises(demo, task):
    with pytest.raises(InvalidInputError, match=r"inputs\[1\] is an empty text"):
        TASKS[task](demo[0], BAD, tokenizer=demo[1])


def test_targets_belong_to_the_inputs_as_passed(demo):
    model, tokenizer = demo
    results = explain(model, ["", TEXTS[0], TEXTS[1]], tokenizer=tokenizer, target=[0, 1, 0], errors="skip")
    assert [one.target for one in results.answered] == [1, 0]
    with pytest.raises(InvalidInputError, match="target has 2 entries for 3 inputs"):
        explain(model, ["", TEXTS[0], TEXTS[1]], tokenizer=tokenizer, target=[1, 0], errors="skip")
    ranking = [torch.zeros(0), torch.arange(len(tokenizer(TEXTS[0])["input_ids"])).float()]
    found = minimal_tokens(model, ["", TEXTS[0]], tokenizer=tokenizer, ranking=ranking, errors="skip")
    assert found[1].info["ranking"] == "given"


def test_a_single_input_always_raises(demo):
    for inputs in ("", ("a", ""), "a \ud800"):
        with pytest.raises(InvalidInputError, match=r"inputs\[0\]"):
            explain(demo[0], inputs, tokenizer=demo[1], errors="skip")


def test_a_list_without_a_good_input_is_all_skipped(demo):
    results = explain(demo[0], ["", " "], tokenizer=demo[1], errors="skip")
    assert [one.index for one in results.skipped] == [0, 1]
    assert results.answered == []
    assert "Input 1 was skipped" in results.to_text()
    assert "was skipped" in results.to_html()


def test_rows_of_tensors_are_skipped_too(demo):
    ids = torch.tensor([[2, 50, 3], [2, 9000, 3], [2, 60, 3]])
    results = explain(demo[0], {"input_ids": ids}, errors="skip", layers="none")
    assert [one.index for one in results.skipped] == [1]
    assert "token id 9000" in results[1].reason
    assert results[1].texts == ()


class FailsOnLong(torch.nn.Module):
    """A model that fails on more than six tokens."""

    def __init__(self, most=6):
        super().__init__()
        self.inner, self.most = tiny_bert(), most
        self.config = self.inner.config

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        if input_ids.shape[1] > self.most:
            raise RuntimeError("too long for me")
        return self.inner(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)


@pytest.mark.parametrize("task", ["explain", "certify", "attention_maps"])
def test_an_input_that_fails_in_the_model_fails_alone(demo, task):
    texts = ["fine", TEXTS[2], "dull"]
    results = TASKS[task](FailsOnLong().eval(), texts, tokenizer=demo[1], errors="skip")
    assert [type(one) is SkippedInput for one in results] == [False, True, False]
    assert results[1].error == "UnsupportedModelError"
    assert "too long for me" in results[1].reason
    assert results[1].texts == (TEXTS[2],)


@pytest.mark.parametrize("task", TASKS)
def test_where_all_fail_in_the_model_the_error_is_raised(demo, task):
    with pytest.raises(UnsupportedModelError, match="too long for me"):
        TASKS[task](FailsOnLong(1).eval(), ["fine", "", "dull"], tokenizer=demo[1], errors="skip")


@pytest.mark.parametrize("errors", ["ignore", True, None, 3, ["skip"]])
def test_other_values_are_refused(demo, errors):
    for task in TASKS.values():
        with pytest.raises(InvalidInputError, match="errors must be one of 'raise', 'skip'"):
            task(demo[0], TEXTS, tokenizer=demo[1], errors=errors)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".jsonl.gz"])
def test_skipped_inputs_are_saved_and_loaded(results, tmp_path, suffix):
    results.save(tmp_path / f"r{suffix}")
    assert Results.load(tmp_path / f"r{suffix}") == results
    assert pickle.loads(pickle.dumps(results)) == results
    assert json.dumps(results.to_dicts(), allow_nan=False)
    assert SkippedInput.from_dict(results[3].to_dict()).texts == ("a \ud800 b",)


def test_skipped_inputs_are_shown_and_sliced(results):
    assert repr(results).startswith("Results(3 x Explanation, 7 x SkippedInput: [")
    part = results[1:4]
    assert [type(one).__name__ for one in part] == ["SkippedInput", "Explanation", "SkippedInput"]
    text, page = results.to_text(), results.to_html()
    for one in results.skipped:
        assert f"Input {one.index} was skipped: inputs[{one.index}]" in text
        assert f"Input {one.index} was skipped" in page
    page.encode("utf-8")
    text.encode("utf-8")
    assert results._repr_html_().count("was skipped") == 7


def test_the_table_has_a_row_with_the_reason(results):
    table = results.to_pandas()
    skipped = table[table["skipped"].notna()]
    assert skipped["input"].tolist() == [one.index for one in results.skipped]
    assert skipped["skipped"].tolist() == [one.reason for one in results.skipped]
    assert skipped["token"].isna().all()
    assert len(table) == sum(len(one.tokens) for one in results.answered) + 7
    assert "skipped" not in results.answered.to_pandas().columns


def test_kinds_of_results_are_still_not_mixed(results):
    with pytest.raises(InvalidInputError, match=r"items\[1\] is a Certificate"):
        Results([results[0], object.__new__(type("Certificate", (), {})), results[1]])
    assert Results([results[1], results[0]])[0] is results[1]
