"""The metrics as `evaluate.Metric` objects give what the functions give."""

import json
import os
import subprocess
import sys

import pytest
import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import auprc, average_precision, hub_metric, hub_metric_path, hub_metrics, token_f1


def test_hub_metrics_give_what_the_functions_give():
    references, chosen = [[1, 1, 0, 0], [1, 0, 0]], [[0, 1, 1, 0], [1, 0, 0]]
    truths, picked = ([torch.tensor(row) for row in side] for side in (references, chosen))
    given = hub_metric("token_f1").compute(predictions=chosen, references=references)
    assert given["token_f1"] == token_f1(truths, picked).macro.f1 == pytest.approx(0.75)
    assert given["micro"]["precision"] == pytest.approx(2 / 3)
    given = hub_metric("iou_f1").compute(predictions=chosen, references=references)
    # (1, 3) against (0, 2) has IoU 1/3; the second is the same: precision and recall 0 and 1
    assert given["iou_f1"] == pytest.approx(0.5)
    scores = [[0.9, 0.5, 0.1, 0.0], [0.1, 0.2, 0.3]]
    for name, function in (("auprc", auprc), ("average_precision", average_precision)):
        given = hub_metric(name).compute(predictions=scores, references=references)
        assert given[name] == pytest.approx(function(truths, [torch.tensor(row) for row in scores]).mean)
        assert given[f"{name}_inputs"] == 2
        assert given[f"{name}_interval"][0] <= given[name] <= given[f"{name}_interval"][1]


def test_hub_faithfulness_by_hand():
    for name in ("comprehensiveness", "sufficiency"):
        given = hub_metric(name).compute(predictions=[[0.5, 0.25], [0.4], []], references=[0.9, 0.4, 0.3])
        assert given[name] == pytest.approx(((0.4 + 0.65) / 2 + 0) / 2)
        assert given[f"{name}_inputs"] == 2  # no bins: undefined
    given = hub_metric("deletion_area").compute(predictions=[[0.9, 0.5, 0.25]], references=[0.9])
    assert given["deletion_area"] == pytest.approx((0.9 / 2 + 0.5 + 0.25 / 2) / 2)
    given = hub_metric("insertion_area").compute(predictions=[[0.25, 0.9], [0.3]], references=[0.9, 0.3])
    assert (given["insertion_area"], given["insertion_area_interval"]) == (pytest.approx(1.15 / 2), None)
    with pytest.raises(InvalidInputError, match=r"predictions\[0\]\[-1\] is 0.5, not the reference 0.9"):
        hub_metric("insertion_area").compute(predictions=[[0.9, 0.5]], references=[0.9])
    with pytest.raises(InvalidInputError, match=r"there is no metric \['auprc'\]"):
        hub_metric(["auprc"])
    with pytest.raises(InvalidInputError, match="there is no metric 'bleu'; there are token_f1"):
        hub_metric("bleu")


def test_hub_metrics_are_evaluates_own():
    evaluate = pytest.importorskip("evaluate")
    metric = hub_metric("auprc")
    assert isinstance(metric, evaluate.Metric)
    assert (metric.name, "2020" in metric.info.citation) == ("auprc", True)
    metric.add_batch(predictions=[[0.9, 0.1]], references=[[1, 0]])
    metric.add_batch(predictions=[[0.9, 0.1]], references=[[0, 1]])
    assert metric.compute()["auprc"] == pytest.approx((1 + 0.25) / 2)


LOAD = """
import json, sys
import evaluate
from hf_attn_mi.evaluation import hub_metric_path
pairs = json.loads(sys.argv[1])
print(json.dumps({name: evaluate.load(hub_metric_path(name)).compute(**pair) for name, pair in pairs.items()}))
both = evaluate.combine([hub_metric_path("comprehensiveness"), hub_metric_path("sufficiency")])
print(json.dumps(both.compute(**pairs["comprehensiveness"])))
"""
CHOSEN = {"predictions": [[0, 1, 1, 0], [1, 0, 0]], "references": [[1, 1, 0, 0], [1, 0, 0]]}
SCORED = {"predictions": [[0.9, 0.5, 0.1, 0.0], [0.1, 0.2, 0.3]], "references": CHOSEN["references"]}
BINS = {"predictions": [[0.5, 0.25], [0.4]], "references": [0.9, 0.4]}
GIVEN = {
    "token_f1": CHOSEN,
    "iou_f1": CHOSEN,
    "auprc": SCORED,
    "average_precision": SCORED,
    "comprehensiveness": BINS,
    "sufficiency": BINS,
    "deletion_area": {"predictions": [[0.9, 0.5, 0.25]], "references": [0.9]},
    "insertion_area": {"predictions": [[0.25, 0.9]], "references": [0.9]},
}


def test_evaluate_loads_every_metric_from_the_package(tmp_path):
    # In a fresh interpreter: evaluate copies each script into a folder of modules that it reads at its import.
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", LOAD, json.dumps(GIVEN)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    each, both = map(json.loads, done.stdout.splitlines())
    assert set(each) == set(hub_metrics._DEFINITIONS)
    for name, pair in GIVEN.items():
        assert each[name] == json.loads(json.dumps(hub_metric(name).compute(**pair))), name
    assert both["comprehensiveness"] == each["comprehensiveness"]["comprehensiveness"]
    assert both["sufficiency"] == each["sufficiency"]["sufficiency"]
    with pytest.raises(InvalidInputError, match="there is no metric 'bleu'"):
        hub_metric_path("bleu")
