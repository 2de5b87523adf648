"""A command starts without parts of torch and scipy that it does not need; they are there once they are used."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from hf_attn_mi.cli import main
from hf_attn_mi.cli.deferred_imports import _empty_like, _expect_true, _StandIn, _unless_on_meta
from tests.cli.command_line import ROOT, command

TEXT = "A quietly moving film."
COMMAND = """
import json, sys
from hf_attn_mi.cli.loading import Process
from hf_attn_mi.cli.main import main
Process.ends_with_command = True
status = main({arguments})
print(json.dumps([status, [name for name in {unused} if name in sys.modules]]))
"""
UNUSED = ("torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp", "scipy.optimize", "sympy", "sklearn")
AFTERWARDS = """
import sys
import torch
import torch.distributed

def settings():
    functions = {name: one for name, one in vars(torch.nn.init).items() if callable(one)}
    return functions, torch.compiler.disable, torch.compiler.allow_in_graph, torch.empty_like

before = settings()
from hf_attn_mi.cli.loading import Process, import_libraries
Process.ends_with_command = True
import_libraries()
assert settings() == before
assert torch.distributed.is_available()
assert "_dynamo" not in vars(torch)
assert not any(name in sys.modules for name in ("torch._dynamo", "scipy.optimize", "sympy"))

from transformers.integrations.eager_paged import eager_paged_attention_forward
from transformers.loss.loss_for_object_detection import linear_sum_assignment
from transformers.masking_utils import TransformGetItemToIndex
rows, columns = linear_sum_assignment([[4, 1], [2, 8]])
assert columns.tolist() == [1, 0]
import scipy.optimize
assert scipy.optimize.minimize(lambda x: (x[0] - 3) ** 2, [0.0]).x.round(4).tolist() == [3.0]

try:
    eager_paged_attention_forward()
except TypeError:
    pass
import torch._dynamo
assert torch._dynamo is sys.modules["torch._dynamo"] and torch._dynamo.config is not None
assert eager_paged_attention_forward.__wrapped__.__dynamo_disable._torchdynamo_disable
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex as Original
assert type(TransformGetItemToIndex()) is Original
import torch.fx.experimental.symbolic_shapes as shapes
assert shapes.expect_true(True) and shapes.guard_or_false
"""

LOADED = """
import json, sys
import torch
from hf_attn_mi.cli.loading import Process, _light_start, import_libraries
Process.ends_with_command = True
import_libraries()
from transformers import AutoModelForSequenceClassification
logits = []
for folder in {folders}:
    with _light_start():
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    logits.append(model.eval()(input_ids=torch.arange(3, 13)[None]).logits.tolist())
print(json.dumps(logits))
"""
SMALL = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
TOKENS = {"vocab_size": 60, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1}


def in_a_process(source):
    """The last line that this program prints."""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1] if done.stdout else ""


@pytest.mark.parametrize("name", ["explain", "subgraph"])
def test_a_command_loads_no_compiler_no_distributed_tensors_and_no_optimizer(name):
    source = COMMAND.format(arguments=[name, "--quiet", TEXT], unused=UNUSED)
    status, loaded = json.loads(in_a_process(source))
    assert status in (0, 1)
    assert loaded == []


def test_afterwards_everything_is_as_it_was_and_works_once_it_is_used():
    in_a_process(AFTERWARDS)


def test_the_program_gives_the_scores_of_the_library(tmp_path, capsys):
    paths = [tmp_path / "process.json", tmp_path / "here.json"]
    assert command("explain", "--quiet", "--json", str(paths[0]), TEXT).returncode == 0
    assert main(["explain", "--quiet", "--json", str(paths[1]), TEXT]) == 0
    one, other = ([result["scores"]["values"] for result in json.loads(path.read_text())] for path in paths)
    assert one == [pytest.approx(scores, abs=1e-6) for scores in other]


def test_models_of_several_kinds_are_loaded_as_without_it(tmp_path):
    """Tables of positions that are computed, sliding windows, relative positions, positions made by sines."""
    folders, wanted = [], []
    for kind in ("bert", "modernbert", "deberta-v2", "roformer"):
        config = AutoConfig.for_model(kind, **SMALL, **TOKENS, sep_token_id=2)
        model = AutoModelForSequenceClassification.from_config(config).eval()
        folders.append(str(tmp_path / kind))
        model.save_pretrained(folders[-1])
        wanted.append(model(input_ids=torch.arange(3, 13)[None]).logits.tolist())
    found = json.loads(in_a_process(LOADED.format(folders=folders)))
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted))


def test_a_stand_in_gives_way_to_its_module(monkeypatch):
    import colorsys

    stand_in = _StandIn("colorsys", {"rgb_to_hsv": len})
    monkeypatch.setitem(sys.modules, "colorsys", stand_in)
    from colorsys import rgb_to_hsv

    assert rgb_to_hsv is len
    assert not hasattr(stand_in, "__file__")
    assert sys.modules["colorsys"] is stand_in
    from colorsys import hsv_to_rgb  # not a member: the module is loaded

    assert hsv_to_rgb(0.0, 1.0, 1.0) == colorsys.hsv_to_rgb(0.0, 1.0, 1.0)
    assert sys.modules["colorsys"] is not stand_in


def test_what_is_replaced_does_the_same():
    ones, shape = _unless_on_meta(torch.nn.init.ones_), (2, 3)
    assert ones(torch.zeros(shape)).tolist() == [[1.0] * 3] * 2
    weight = torch.zeros(shape, device="meta")
    assert ones(weight) is weight
    empty_like = _empty_like(torch.empty_like)
    for tensor in (weight, weight.t(), weight.double(), torch.zeros(shape), torch.zeros(1, 3).expand(shape)):
        for options in ({"device": "cpu"}, {}, {"device": "cpu", "dtype": torch.int64}):
            made, wanted = empty_like(tensor, **options), torch.empty_like(tensor, **options)
            assert (made.shape, made.dtype, made.device) == (wanted.shape, wanted.dtype, wanted.device)
            assert made.stride() == wanted.stride()
    assert _expect_true(True) is True
    assert _expect_true(False) is False
