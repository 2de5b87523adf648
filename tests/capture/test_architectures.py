"""Every architecture of the zoo is captured exactly or refused by name: nothing is silently wrong.

The tables below are the claim. A type that moves from one to another, for better or worse, turns a test red.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import cache

import pytest
from transformers.utils import logging

from tests.zoo import Job, jobs
from tests.zoo.checking import Check, check

JOBS = jobs()
REFUSED = {  # attention that is no softmax over keys times values, and what it is instead
    "seqcls-longformer": "banded products in chunks, global tokens written over the result",
    "seqcls-mra": "sparse blocks chosen by a coarse approximation, normalized by hand",
    "seqcls-nystromformer": "three attention matrices multiplied with one another (landmarks)",
    "seqcls-reformer": "hashed buckets, normalized by a log-sum-exp over rounds of hashing",
    "seqcls-yoso": "Bernoulli sampling, no softmax",
    "imgcls-mobilevitv2": "one context vector for all queries, no matrix over keys",
    "imgcls-swiftformer": "additive attention: one global query, no matrix over keys",
    "base-mgp-str": "attention, but its three read-out modules multiply a softmax without heads",
    "base-patchtsmixer": "attention, but its gating blocks use a softmax over channels",
    "enc-autoformer": "autocorrelation over delays found by a Fourier transform",
    "enc-informer": "rows for a few chosen queries, scattered into the mean of the values",
    "enc-led": "the banded products of longformer",
}
NO_ATTENTION = {
    "seqcls-fnet": "Fourier transforms",
    "imgcls-focalnet": "focal modulation",
    "imgcls-poolformer": "pooling",
    "imgcls-bit": "convolutions",
    "imgcls-convnext": "convolutions",
    "imgcls-convnextv2": "convolutions",
    "imgcls-efficientnet": "convolutions",
    "imgcls-hgnet_v2": "convolutions",
    "imgcls-mobilenet_v1": "convolutions",
    "imgcls-mobilenet_v2": "convolutions",
    "imgcls-pp_lcnet": "convolutions",
    "imgcls-regnet": "convolutions",
    "imgcls-resnet": "convolutions",
    "imgcls-textnet": "convolutions",
    "base-univnet": "convolutions",
}
NO_LINEAR_OUTPUT = {  # exact rows, values and head outputs; what stands between the heads and W_O
    "imgcls-levit": "hardswish",
    "base-aimv2_vision_model": "mean over queries, in the pooling head only",
    "base-neomme": "a projection off the values, then a gate",
    "seqcls-axk2": "a gate",
    "seqcls-diffllama": "a difference of two halves, then a norm",
    "seqcls-jetmoe": "experts",
    "seqcls-qwen3_5": "a gate",
    "seqcls-qwen3_5_text": "a gate",
    "seqcls-qwen3_next": "a gate",
}
NEEDS_A_PACKAGE = {"seqcls-layoutlmv2": "detectron2", "imgcls-dinat": "natten", "imgcls-timm_wrapper": "timm"}
NOT_EXPLAINED = {  # encoders whose capture is exact and whose inputs `explain` does not take
    "base-blip_2_qformer": "no input it knows (query_embeds)",
    "base-patchtst": "no input it knows (past_values)",
    "base-videoprism_vision_model": "frames folded into the batch",
}
LARGEST_GAP = 1e-5
LARGER_GAPS = {"seqcls-mobilebert": 1e-2}  # activations of 1e6 without normalization: float32 runs out of digits
OWN_SOFTMAX = {"audcls-sew-d"}  # an autograd function of its own: "attnlrp" misses its constant, and `explain` warns


@pytest.fixture(autouse=True, scope="module")
def _quiet_and_small() -> Iterator[None]:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    gc.collect()
    gc.freeze()  # what transformers has imported need not be searched after every model
    yield
    gc.unfreeze()
    logging.set_verbosity(verbosity)


@cache
def checked(job: Job) -> Check:
    result = check(job)
    gc.collect()
    return result


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_exact_or_refused_by_name(job: Job) -> None:
    result = checked(job)
    if result.verdict.startswith("not built"):
        assert job.name in NEEDS_A_PACKAGE, result.verdict
        pytest.skip(result.verdict)
    if job.name in REFUSED:
        assert result.verdict.startswith("refused: ")
    elif job.name in NO_ATTENTION:
        assert result.verdict == "no attention"
    elif job.name in NO_LINEAR_OUTPUT:
        assert result.verdict == "exact, no linear W_O"
    elif job.name in NEEDS_A_PACKAGE:
        assert result.verdict.startswith(("exact", "no attention"))
    else:
        assert result.verdict == "exact"


@pytest.mark.parametrize("job", [job for job in JOBS if job.kind != "decoder"], ids=lambda job: job.name)
def test_relevance_of_encoders_is_complete(job: Job) -> None:
    result = checked(job)
    if not result.verdict.startswith("exact"):
        pytest.skip("nothing captured")
    assert (result.completeness_gap is None) == (job.name in NOT_EXPLAINED), result.relevance_note
    if result.completeness_gap is not None:
        assert result.completeness_gap <= LARGER_GAPS.get(job.name, LARGEST_GAP)
        assert result.linear_gap is not None
        assert (result.linear_gap <= LARGER_GAPS.get(job.name, LARGEST_GAP)) != (job.name in OWN_SOFTMAX)


def test_the_tables_name_architectures_that_exist() -> None:
    names = {job.name for job in JOBS}
    for table in (REFUSED, NO_ATTENTION, NO_LINEAR_OUTPUT, NEEDS_A_PACKAGE, NOT_EXPLAINED, LARGER_GAPS, OWN_SOFTMAX):
        assert set(table) <= names


def test_how_many_are_exact() -> None:
    exact = [job for job in JOBS if checked(job).verdict.startswith("exact")]
    assert sum(job.kind != "decoder" for job in exact) >= 144
    assert sum(job.kind == "decoder" for job in exact) >= 55
    assert not [job.name for job in JOBS if checked(job).verdict.startswith(("wrong", "crashed"))]


def test_attention_equals_what_the_models_return_themselves() -> None:
    """`output_attentions` under eager attention is an implementation of its own: nearly every type offers it."""
    compared = [result.model_attention for result in map(checked, JOBS) if result.model_attention[1]]
    assert len(compared) >= 205
    assert all(equal == comparable for equal, comparable in compared)


def test_hidden_states_equal_what_the_models_return_themselves() -> None:
    assert sum(checked(job).states == "equal" for job in JOBS) >= 215
