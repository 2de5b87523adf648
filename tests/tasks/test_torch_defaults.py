"""Defaults of torch that a caller has changed: results do not depend on them, or the default is refused by name."""

import pytest
import torch

from hf_attn_mi import InvalidInputError, explain
from hf_attn_mi.methods import list_methods
from tests.sample_models import load_demo, tiny_bert

TEXTS = ["a warm film", "dull"]
METHODS = [name for name in list_methods() if name != "head"]


@pytest.fixture
def default_dtype():
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


@pytest.mark.parametrize("method", METHODS)
def test_the_default_dtype_changes_nothing(method, default_dtype):
    model, tokenizer = tiny_bert(num_hidden_layers=1), load_demo()[1]
    options = {name: 5 for name in ("samples", "steps") if name in list_methods()[method].options}
    wanted = explain(model, TEXTS, tokenizer=tokenizer, method=method, options=options)
    for dtype in (torch.bfloat16, torch.float64):
        default_dtype(dtype)
        for one, other in zip(explain(model, TEXTS, tokenizer=tokenizer, method=method, options=options), wanted):
            assert one.scores.dtype == torch.float32
            if method == "lime":  # Captum draws other samples in another default type
                assert one.scores.isfinite().all()
            else:  # Captum computes the weights of the steps in the default type
                rounding = torch.finfo(dtype).eps if method == "integrated_gradients" else 0.0
                assert torch.allclose(one.scores, other.scores, atol=1e-5 + rounding * float(other.scores.abs().max()))
            assert one.probability == other.probability


def test_another_default_device_is_refused_by_name():
    model, tokenizer = tiny_bert(num_hidden_layers=1), load_demo()[1]
    with torch.device("meta"), pytest.raises(InvalidInputError, match=r"default device of torch is 'meta'"):
        explain(model, TEXTS, tokenizer=tokenizer)
    with torch.device("meta"), torch.device("cpu"):
        assert len(explain(model, TEXTS, tokenizer=tokenizer)) == 2
