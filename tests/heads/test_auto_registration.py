"""`import hf_attn_mi` makes saved attention heads loadable, whichever is imported first, and leaves no hook behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_attn_mi.heads import AttentionHeadForSequenceClassification
from tests.heads.families import tiny_encoder

LOAD = """
from transformers import AutoModelForSequenceClassification
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
"""
BEGINNINGS = {
    "ours first": "import hf_attn_mi",
    "transformers first": "import transformers\nimport hf_attn_mi",
    "auto classes first": "from transformers import AutoModelForSequenceClassification\nimport hf_attn_mi",
    "inside another import": "import hf_attn_mi\nfrom transformers import BertModel",
    "looked for, then imported": "import hf_attn_mi, importlib.util, transformers\n"
    "importlib.util.find_spec('transformers.models.auto.modeling_auto')",
    "twice": "import hf_attn_mi, importlib\nimportlib.reload(hf_attn_mi)",
}
REPORT = """
import importlib, inspect, json
auto = sys.modules["transformers.models.auto.modeling_auto"]
print(json.dumps({
    "class": type(model).__module__ + "." + type(model).__name__,
    "logits": model.eval()(torch.tensor([[3, 4, 5]])).logits[0].tolist(),
    "hooks": [type(finder).__name__ for finder in sys.meta_path if type(finder).__module__.startswith("hf_attn_mi")],
    "loader": sorted(vars(auto.__loader__)),
    "source": "class AutoModelForSequenceClassification" in inspect.getsource(auto),
}))
"""


def run(code, *arguments):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved head and its logits."""
    torch.manual_seed(0)
    model = AttentionHeadForSequenceClassification.from_encoder(tiny_encoder("roberta"), 2).eval()
    folder = tmp_path_factory.mktemp("head")
    model.save_pretrained(folder)
    return folder, model(torch.tensor([[3, 4, 5]])).logits[0].tolist()


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_saved_head_is_loaded_and_the_hook_is_gone(saved, beginning):
    folder, logits = saved
    result = json.loads(run(f"{BEGINNINGS[beginning]}\n{LOAD}\nimport torch\n{REPORT}", folder))
    assert result["class"] == "hf_attn_mi.heads.modeling.AttentionHeadForSequenceClassification"
    assert result["logits"] == pytest.approx(logits, abs=1e-6)
    assert result["hooks"] == []
    assert result["loader"] == ["name", "path"]  # what a loader of the standard library holds
    assert result["source"]


def test_the_hook_does_not_load_what_it_waits_for():
    code = """import json, hf_attn_mi, transformers
print(json.dumps([name for name in ("transformers.models.auto.modeling_auto", "transformers.modeling_utils",
                                    "hf_attn_mi.heads") if name in sys.modules]))"""
    assert json.loads(run(code)) == []
