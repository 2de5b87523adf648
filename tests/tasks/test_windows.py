"""Windows over long texts: the explained value is that of the windows' logits put together by hand."""

from itertools import pairwise

import pytest
import torch
from transformers import pipeline

from hf_attn_mi import Explanation, InvalidInputError, UnsupportedModelError, explain
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.windows import split_windows
from tests.sample_models import TEXTS, parameter_name, tiny_bert

LONG = " ".join(TEXTS * 3)
STRIDE, LIMIT = 8, 32


@pytest.fixture(scope="module")
def model():
    return tiny_bert(max_position_embeddings=LIMIT, num_labels=3)


def windows_by_tokenizer(model, tokenizer, *texts, stride=STRIDE):
    """(windows, classes) logits of the windows that the tokenizer itself cuts, and their offsets."""
    truncation = True if len(texts) == 1 else "only_second"
    options = {"return_overflowing_tokens": True, "stride": stride, "max_length": LIMIT, "truncation": truncation}
    full = tokenizer(*texts, return_offsets_mapping=True, **options)
    keys = ("input_ids", "attention_mask", "token_type_ids")
    rows = [{key: torch.tensor([full[key][i]]) for key in keys if key in full} for i in range(len(full["input_ids"]))]
    with torch.no_grad():
        return torch.cat([model(**row).logits for row in rows]).double(), full["offset_mapping"]


def margin(logits, label):
    return float(logits[label] - (logits.sum() - logits[label]) / (len(logits) - 1))


@pytest.mark.parametrize("aggregation", ["mean", "max"])
@pytest.mark.parametrize("texts", [(LONG,), (TEXTS[1], LONG)], ids=["text", "pair"])
def test_the_value_is_that_of_the_aggregated_logits(model, demo, aggregation, texts):
    tokenizer = demo[1]
    table, offsets = windows_by_tokenizer(model, tokenizer, *texts)
    joined = table.mean(0) if aggregation == "mean" else table.amax(0)
    one = explain(
        model,
        texts[0] if len(texts) == 1 else texts,
        tokenizer=tokenizer,
        stride=STRIDE,
        aggregation=aggregation,
    )
    assert one.target == int(joined.argmax())
    assert one.probability == pytest.approx(float(joined.softmax(0)[one.target]), abs=1e-6)
    windows = one.info["windows"]
    assert windows["count"] == len(table) > 3
    assert windows["aggregation"] == f"{aggregation} of the logits"
    assert windows["value"] == pytest.approx(margin(joined, one.target), abs=1e-5)
    assert sum(windows["values"]) == pytest.approx(windows["value"], abs=1e-9)
    assert windows["logits"] == pytest.approx(joined.tolist(), abs=1e-5)
    assert one.completeness_gap < 1e-5
    ends = [max(end for _, end in spans) for spans in offsets]  # where each window of the tokenizer ends in the text
    assert [max(end for _, end in one.offsets[first : last + 1]) for first, last in windows["tokens"]][-1] == ends[-1]


def test_the_offsets_are_those_of_the_whole_text(model, demo):
    one = explain(model, LONG, tokenizer=demo[1], stride=STRIDE)
    assert "".join(LONG.split()) == "".join(word.text for word in one.to_words())
    assert len(one.tokens) == len(demo[1](LONG)["input_ids"])
    assert one.special == (True, *[False] * (len(one.tokens) - 2), True)
    assert all(word.text == LONG[word.start : word.end] for word in one.to_words())


def test_scores_are_the_sum_of_the_windows_shares(model, demo):
    """Mean of logits: the scores of a window on its own, divided by the number of windows, added up."""
    tokenizer = demo[1]
    one = explain(model, LONG, tokenizer=tokenizer, stride=STRIDE, target=1)
    ids = torch.tensor(tokenizer(LONG)["input_ids"])
    room = LIMIT - 2
    expected = torch.zeros(len(ids), dtype=torch.float64)
    starts = list(range(1, len(ids) - 1, room - STRIDE))
    starts = [start for i, start in enumerate(starts) if i == 0 or starts[i - 1] + room < len(ids) - 1]
    for start in starts:
        places = [0, *range(start, min(start + room, len(ids) - 1)), len(ids) - 1]
        alone = explain(model, {"input_ids": ids[places][None]}, tokenizer=tokenizer, target=1)
        expected[places] += alone.scores.double() / len(starts)
    assert torch.allclose(one.scores.double(), expected, atol=1e-6)


def test_attention_is_averaged_over_the_windows_that_hold_a_token(model, demo):
    one = explain(model, LONG, tokenizer=demo[1], stride=STRIDE, method="attention")
    assert one.completeness_gap is None
    assert float(one.scores.min()) >= 0
    assert float(one.scores.max()) <= 1


def test_a_text_within_the_limit_is_explained_as_without_windows(model, demo):
    plain = explain(model, TEXTS[0], tokenizer=demo[1])
    one = explain(model, TEXTS[0], tokenizer=demo[1], stride=STRIDE)
    assert torch.allclose(one.scores, plain.scores, atol=1e-6)
    assert one.target == plain.target
    assert one.probability == pytest.approx(plain.probability, abs=1e-6)
    assert one.info["windows"]["count"] == 1


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion", "attnlrp", "random", "rollout"])
def test_other_methods_run_over_windows(model, demo, method):
    options = {"steps": 30} if method == "integrated_gradients" else None
    both = explain(model, [LONG, TEXTS[0]], tokenizer=demo[1], stride=STRIDE, method=method, options=options)
    alone = explain(model, LONG, tokenizer=demo[1], stride=STRIDE, method=method, options=options, batch_size=1)
    assert torch.allclose(both[0].scores, alone.scores, atol=1e-5 * float(alone.scores.abs().max()))
    if method == "integrated_gradients":
        assert both[0].completeness_gap < 0.01


def test_targets_are_classes_for_each_input(model, demo):
    found = explain(model, [LONG, TEXTS[0]], tokenizer=demo[1], stride=STRIDE, target=[2, None])
    assert found[0].target == 2
    assert found[0].target_name == "LABEL_2"


def test_a_pipelines_own_limit_is_that_of_its_windows(demo):
    model, tokenizer = demo
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, truncation=True, max_length=16)
    assert explain(pipe, LONG, stride=4).info["windows"]["limit"] == 16


def test_a_long_explanation_is_saved_and_shown(model, demo, tmp_path):
    one = explain(model, LONG, tokenizer=demo[1], stride=STRIDE)
    one.save(tmp_path / "long.json")
    assert Explanation.load(tmp_path / "long.json") == one
    assert f"{one.info['windows']['count']} windows" in str(one)
    assert "mean of the logits" in one.to_html()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": -1}, "stride must be"),
        ({"stride": 2.0}, "stride must be"),
        ({"stride": 30}, "a smaller stride"),
        ({"stride": 4, "aggregation": "median"}, "aggregation must be one of 'mean', 'max'"),
        ({"stride": 4, "truncation": True}, "exclude each other"),
        ({"stride": 4, "target": lambda out: out.logits[:, 0]}, "must be a class"),
        ({"stride": 4, "target": 7}, "out of range"),
        ({"stride": 4, "layers": "full"}, "layers='full' and stride exclude each other: every window has"),
        ({"stride": 4, "layers": "summary"}, "layers='summary' and stride exclude"),
        ({"stride": 4, "candidate_labels": ["a", "b"]}, "candidate_labels and stride exclude each other"),
        ({"stride": 4, "targets": [0], "target": 1}, "target and targets"),
        ({"stride": 4, "targets": []}, "targets must be a list"),
        ({"stride": 4, "targets": [[0, 1]]}, "targets holds a list"),
        ({"stride": 4, "targets": [0, lambda out: out.logits[:, 0]]}, "must be a class with stride="),
    ],
    ids=parameter_name,
)
def test_what_windows_cannot_do_is_refused(model, demo, options, message):
    with pytest.raises(InvalidInputError, match=message):
        explain(model, LONG, tokenizer=demo[1], **options)


@pytest.mark.parametrize("targets", [[2, "LABEL_0"], "all"], ids=["list", "all"])
def test_several_classes_share_the_windows(model, demo, targets):
    found = explain(model, [LONG, TEXTS[0]], tokenizer=demo[1], stride=STRIDE, targets=targets)
    numbers = [2, 0] if isinstance(targets, list) else [0, 1, 2]
    assert [one.target for one in found] == numbers * 2
    assert [one.info["input"] for one in found] == [0] * len(numbers) + [1] * len(numbers)
    for one, number in zip(found, numbers):
        alone = explain(model, LONG, tokenizer=demo[1], stride=STRIDE, target=number)
        assert torch.equal(one.scores, alone.scores)
        assert one.layers == ()


def test_tensors_and_models_without_class_logits_are_refused(model, demo):
    with pytest.raises(InvalidInputError, match="stride= is for texts"):
        explain(model, {"input_ids": torch.ones(1, 40).long()}, stride=4)
    with pytest.raises(UnsupportedModelError, match="no class logits"):
        explain(tiny_bert().bert, LONG, tokenizer=demo[1], stride=4)


def test_words_of_a_text_and_skipped_inputs(model, demo):
    words = LONG.split()
    one = explain(model, words, tokenizer=demo[1], stride=STRIDE, is_split_into_words=True)
    assert one.texts == (" ".join(words),)
    found = explain(model, [LONG, ""], tokenizer=demo[1], stride=STRIDE, errors="skip")
    assert [type(item).__name__ for item in found] == ["Explanation", "SkippedInput"]


def test_windows_of_a_sequence_cover_it_with_the_overlap():
    for count in (7, 8, 11, 20):
        special = (True, *[False] * (count - 2), True)
        windows = split_windows(EncodedInput({"input_ids": torch.arange(count)}, count, special=special), 7, 2)
        spans = [window.positions[1:-1].tolist() for window in windows]
        assert sorted({place for span in spans for place in span}) == list(range(1, count - 1))
        assert all(left[-2:] == right[:2] for left, right in pairwise(spans))
