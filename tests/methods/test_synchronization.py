"""Values that explain brings to the processor: their number does not grow with the number of layers of short inputs.

Attention calls of short inputs wait and are summarized together; those of long inputs are summarized one by one.
"""

import traceback
from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertForSequenceClassification

from hf_attn_mi import explain

READ = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::is_nonzero", "aten::item"}
MOVED = ("tolist", "cpu", "numpy")


class Synchronizations(TorchDispatchMode):
    """Counts the operations for which a device would have to finish its work, by the lines that ask for them."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.lines, self.moved = Counter(), {}
        for name in MOVED:
            original = getattr(Tensor, name)
            monkeypatch.setattr(Tensor, name, lambda *args, original=original, **more: self.move(original, args, more))

    def move(self, function, args, kwargs):
        """Count a transfer, unless the tensor is a part of what was brought to the processor before."""
        storage = args[0].untyped_storage()
        if storage.data_ptr() in self.moved:
            return function(*args, **kwargs)
        self.moved[storage.data_ptr()] = storage  # kept alive, so that the address stays its own
        return self.count(function, args, kwargs)

    def count(self, function, args, kwargs):
        own = [
            frame for frame in traceback.extract_stack() if "hf_attn_mi/" in frame.filename.split("site-packages")[-1]
        ]
        self.lines[f"{own[-1].filename}:{own[-1].lineno}" if own else "the model or PyTorch"] += 1
        return function(*args, **kwargs)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in READ:
            return self.count(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def synchronizations(depth, monkeypatch, **options):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 40}
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=depth, **sizes)).eval()
    inputs = {"input_ids": torch.arange(4, 24)[None], "attention_mask": torch.ones(1, 20, dtype=torch.long)}
    explain(model, inputs, **options)  # checks the model
    with monkeypatch.context() as patch, Synchronizations(patch) as counted:
        explain(model, inputs, **options)
    return counted.lines


@pytest.mark.parametrize(
    ("method", "layers"), [("relevance", "none"), ("relevance", "full"), ("attnlrp", "full"), ("attention", "summary")]
)
def test_nothing_is_read_for_each_layer(method, layers, monkeypatch):
    few, many = (synchronizations(n, monkeypatch, method=method, layers=layers) for n in (2, 6))
    assert sum(few.values()) > 0  # the premise: what is read once is counted
    assert {line: (few[line], n) for line, n in many.items() if n > few[line]} == {}
