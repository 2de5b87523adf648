"""All faithfulness metrics of one method on one input, from one call of the model."""

import math

import pytest
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import (
    DECILES,
    METRICS,
    AopcLimits,
    aopc,
    aopc_limits,
    comprehensiveness,
    faithfulness,
    leave_one_out_correlation,
    normalized_aopc,
    sufficiency,
)
from tests.evaluation.sample_predictor import padded, removal_probabilities


def test_only_what_the_metrics_need_is_predicted():
    scores = padded(4.0, 3.0, -1.0, 0.0)
    for metrics, sets in (
        (["comprehensiveness"], 3),  # the full text, the top token, the top two
        (["comprehensiveness", "sufficiency"], 5),
        (["leave_one_out"], 5),  # the full text and four tokens
        (["monotonicity", "deletion_area"], 5),
    ):
        found = removal_probabilities(10, 11, 12, 13)
        values = faithfulness(found, scores, metrics=metrics)
        assert found.evaluated == sets
        assert found.predict.calls == 1
        everything = faithfulness(removal_probabilities(10, 11, 12, 13), scores)
        assert values == {name: everything[name] for name in metrics}
    with pytest.raises(InvalidInputError, match=r"\['auprc'\] are not known; allowed are comprehensiveness"):
        faithfulness(removal_probabilities(10, 11), padded(1.0, 2.0), metrics=["auprc"])


def test_one_token_and_none():
    one = removal_probabilities(10)
    assert comprehensiveness(one, padded(-1.0)).values == (pytest.approx(0.4),) * 5
    assert sufficiency(one, padded(-1.0)).mean == pytest.approx(0)
    assert leave_one_out_correlation(one, padded(-1.0)) is None
    assert normalized_aopc(aopc(one, padded(1.0)), aopc_limits(one)) is None  # only one order
    values = faithfulness(removal_probabilities(), padded(), limits=AopcLimits(0, 1, True, 1))
    assert set(values.values()) == {None}
    # Without special tokens nothing would be left to run.
    alone = faithfulness(removal_probabilities(10, specials=False), torch.ones(1))
    assert {name for name, value in alone.items() if value is not None} == {"sufficiency", "sufficiency_deciles"}
    assert aopc_limits(removal_probabilities(10, 11, specials=False)) is None


def test_faithfulness_is_the_single_metrics_from_one_call():
    scores = padded(4.0, -3.0, 2.0, 1.0)
    found = removal_probabilities(10, 11, 12, 14)
    limits = aopc_limits(found)
    calls = found.predict.calls
    values = faithfulness(found, scores, limits=limits)
    assert found.predict.calls == calls  # all 16 subsets are known from the limits
    alone = removal_probabilities(10, 11, 12, 14)
    without = faithfulness(alone, scores)
    assert alone.predict.calls == 1
    assert values["comprehensiveness"] == without["comprehensiveness"] == comprehensiveness(found, scores).mean
    assert values["sufficiency_deciles"] == sufficiency(found, scores, bins=DECILES).mean
    assert values["normalized_aopc_ascending"] == normalized_aopc(aopc(found, scores, ascending=True), limits)
    assert without["normalized_aopc"] is None
    assert faithfulness(alone, scores, samples=0)["infidelity"] is None
    assert set(values) <= set(METRICS)
    for name, value in values.items():
        assert value >= METRICS[name].lowest, name
        assert METRICS[name].highest is None or value <= METRICS[name].highest, name


def test_a_long_text_is_predicted_in_one_call_too():
    ids = [10 + i % 5 for i in range(130)]
    found = removal_probabilities(*ids)
    faithfulness(found, padded(*torch.rand(130).tolist()), limits=AopcLimits(0, 1, False, 130))
    assert found.predict.calls == 1


def test_bad_scores():
    found = removal_probabilities(10, 11)
    for scores, message in (
        (torch.ones(3), r"shape \(3,\), the example has 4 tokens"),
        (torch.ones(5), r"shape \(5,\), the example has 4 tokens"),
        (padded(1.0, math.nan), "NaN or infinite"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            faithfulness(found, scores)
    faithfulness(found, torch.tensor([math.nan, 1.0, 2.0, math.nan]))  # of special tokens: not looked at
    with pytest.raises(InvalidInputError, match="by must be 'signed' or 'absolute', not 'size'"):
        comprehensiveness(found, padded(1.0, 2.0), by="size")
    for bins in ((), (0.0,), (1.1,)):
        with pytest.raises(InvalidInputError, match="bins must be shares"):
            comprehensiveness(found, padded(1.0, 2.0), bins=bins)
    for arguments in ({"exact": 30}, {"beam": 0}):
        with pytest.raises(InvalidInputError, match="exact must be"):
            aopc_limits(found, **arguments)
