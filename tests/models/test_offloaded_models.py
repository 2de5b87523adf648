"""Models whose weights accelerate keeps elsewhere: its hooks stay in charge, and the scores are those of the model."""

import copy

import pytest
import torch

from hf_attn_mi import certify, explain, minimal_tokens
from tests.sample_models import TEXTS, distance, load_demo, tiny_bert

accelerate = pytest.importorskip("accelerate")
METHODS = {
    "relevance": None,
    "attnlrp": None,
    "attnlrp_iterative": None,
    "attention": None,
    "effective": None,
    "value_norms": None,
    "integrated_gradients": {"steps": 4},
    "occlusion": None,
    "deeplift": None,
}


def offloaded(model, kind, folder):
    """A copy of the model with its weights on the "CPU" beside the device, on "disk", or a part of them on disk."""
    model, device = copy.deepcopy(model), torch.device("cpu")
    if kind == "cpu":
        accelerate.cpu_offload(model, execution_device=device)
    elif kind == "disk":
        accelerate.disk_offload(model, folder, execution_device=device)
    else:
        layers = {f"bert.encoder.layer.{i}": "disk" if i else "cpu" for i in range(2)}
        places = {"bert.embeddings": kind.split()[0], "bert.pooler": "disk", "dropout": "cpu", "classifier": "cpu"}
        accelerate.dispatch_model(model, {**places, **layers}, main_device="cpu", offload_dir=folder, force_hooks=True)
    return model


@pytest.mark.parametrize("kind", ["cpu", "disk", "cpu map", "disk map"])
def test_an_offloaded_model_has_the_scores_of_the_model(demo, kind, tmp_path):
    model, tokenizer = tiny_bert(pad_token_id=0), demo[1]
    moved = offloaded(model, kind, tmp_path)
    before = {name: parameter.device for name, parameter in moved.named_parameters()}
    assert torch.device("meta") in before.values()
    for method, options in METHODS.items() if kind == "cpu" else list(METHODS.items())[-2:]:
        settings = {"method": method, "options": options, "tokenizer": tokenizer}
        wanted, found = explain(model, TEXTS[:2], **settings), explain(moved, TEXTS[:2], **settings)
        for one, other in zip(found, wanted):
            assert distance(one.scores, other.scores) < 1e-5, method
            assert one.probability == pytest.approx(other.probability, abs=1e-6)
    assert (
        certify(moved, TEXTS[2], tokenizer=tokenizer).outcome == certify(model, TEXTS[2], tokenizer=tokenizer).outcome
    )
    options = {"tokenizer": tokenizer, "second_ranking": None}
    assert minimal_tokens(moved, TEXTS[0], **options).indices == minimal_tokens(model, TEXTS[0], **options).indices
    assert {name: parameter.device for name, parameter in moved.named_parameters()} == before
    assert all(hasattr(module, "_hf_hook") for module in moved.modules() if module._parameters)


def test_hooks_of_accelerate_are_as_before(tmp_path):
    model, tokenizer = load_demo()
    moved = offloaded(model, "cpu", tmp_path)

    def hooks():
        return {name: (vars(m).get("_hf_hook"), len(m._forward_hooks)) for name, m in moved.named_modules()}

    before = hooks()
    explain(moved, TEXTS[0], tokenizer=tokenizer, method="integrated_gradients", options={"steps": 2})
    assert hooks() == before
