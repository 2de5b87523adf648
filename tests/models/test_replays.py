"""Batches of variants: equal ones once, a budget of tokens, and half the size where memory runs out."""

import pytest
import torch

from hf_attn_mi.models.removal_predictor import RemovalPredictor, deleted
from hf_attn_mi.models.replays import MOST_KNOWN, TOKENS_ON_CPU, Replays, length_buckets
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from tests.sample_models import TEXTS

CPU = torch.device("cpu")


def test_equal_variants_are_run_once_and_remembered():
    replays, run = Replays(CPU), []

    def forward(places):
        run.extend(places)
        return [10 * place for place in places]

    assert replays.run("abab", [3, 3, 3, 3], forward) == [0, 10, 0, 10]
    assert replays.run("bac", [3, 3, 3], forward) == [10, 0, 20]
    assert run == [0, 1, 2]
    replays.forget()
    assert replays.run("b", [3], forward) == [0]


def test_what_is_remembered_is_bounded_and_a_large_call_is_answered_whole():
    count = MOST_KNOWN + 10
    replays, run = Replays(CPU), []

    def forward(places):
        run.extend(places)
        return places

    assert replays.run(range(count), [1] * count, forward) == list(range(count))
    run.clear()
    assert replays.run(range(count), [1] * count, forward) == list(range(count))
    assert sorted(run) == list(range(10))  # the oldest were forgotten


def test_a_pass_holds_at_most_the_budget_of_tokens():
    lengths = [100] * 50 + [5 * TOKENS_ON_CPU] + [7] * 400
    buckets = list(length_buckets(lengths, 256, TOKENS_ON_CPU, mixed=True))
    assert sorted(i for bucket in buckets for i in bucket) == list(range(len(lengths)))
    for bucket in buckets:
        widest = max(lengths[i] for i in bucket)
        assert len(bucket) == 1 or len(bucket) * widest <= TOKENS_ON_CPU
        assert len(bucket) <= 256
    assert len(buckets) == 1 + 3 + 2  # one too long, 50 in passes of 20, 400 in passes of 256


def test_groups_and_lengths_do_not_mix():
    buckets = list(length_buckets([4, 5, 4, 4], 8, None, [0, 0, 1, 0], mixed=False))
    assert sorted(map(sorted, buckets)) == [[0, 3], [1], [2]]


def test_where_memory_runs_out_this_and_all_later_batches_are_smaller():
    replays, sizes = Replays(CPU, 8), []

    def forward(places):
        sizes.append(len(places))
        if len(places) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return places

    assert replays.run(range(16), [1] * 16, forward) == list(range(16))
    assert sizes == [8, 4, *[2] * 8]
    assert replays.notes == ["Memory ran out: the batches were halved to 2."]


def test_memory_that_is_short_for_a_single_row_is_an_error():
    def forward(places):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Replays(CPU).run("ab", [1, 1], forward)


def test_the_removal_predictor_runs_equal_variants_once(demo):
    model, tokenizer = demo
    runner = EncoderRunner.of(model, tokenizer)
    inputs, _ = runner.encode(TEXTS[2:4])
    predictor = RemovalPredictor(runner, inputs, read_target(None, runner, inputs)[0], 16)
    predictor.settle(predictor.predict([(0, inputs[0]), (1, inputs[1])]))
    before = predictor.sequences
    variants = [(0, deleted(inputs[0], [2])), (1, deleted(inputs[1], [2])), (0, deleted(inputs[0], [3]))]
    variants += [(0, deleted(inputs[0], [2])), (0, inputs[0])]
    first = predictor.predict(variants)
    assert predictor.sequences == before + 4  # and the whole input anew, since its target was settled in between
    assert first[0] == first[3]
    assert first[0].value != first[2].value
    assert predictor.predict(variants) == first
    assert predictor.sequences == before + 4
