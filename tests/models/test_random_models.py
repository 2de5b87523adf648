"""A model that is random in evaluation mode is named in every result; one that only draws numbers is not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_attn_mi import attention_maps, certify, compare, explain, fit_information, minimal_tokens
from tests.sample_models import TEXTS, tiny_bert


class StaysOn(nn.Module):
    """Dropout that ignores the mode: Monte Carlo dropout."""

    def forward(self, x):
        return F.dropout(x, 0.1, training=True)


class Draws(nn.Module):
    """Draws a number and does not use it, as layer drop does."""

    def forward(self, x):
        torch.rand([])
        return x


def with_module(model, module):
    model.dropout = module
    return model


def notes(record):
    return [note for note in record.info["warnings"] if note.startswith("The model is random")]


def test_monte_carlo_dropout_is_named_by_every_task(demo):
    model, tokenizer = with_module(tiny_bert(pad_token_id=0), StaysOn()), demo[1]
    for method in ("relevance", "attention", "integrated_gradients", "random"):
        assert len(notes(explain(model, TEXTS[0], method=method, tokenizer=tokenizer))) == 1, method
    assert any(note.startswith("The model is random") for note in certify(model, TEXTS[0], tokenizer=tokenizer).notes)
    assert notes(minimal_tokens(model, TEXTS[0], tokenizer=tokenizer, second_ranking=None))
    assert notes(attention_maps(model, TEXTS[0], tokenizer=tokenizer))
    assert notes(compare(model, TEXTS[:3], methods=["relevance", "random"], tokenizer=tokenizer))
    with pytest.warns(UserWarning, match="The model is random"):
        fit_information(model, TEXTS * 40, tokenizer=tokenizer, layers=[0])


@pytest.mark.parametrize("module", [Draws(), nn.Dropout(0.5), nn.Identity()])
def test_a_model_that_gives_the_same_outputs_is_not_random(fresh, module):
    model, tokenizer = with_module(fresh[0], module), fresh[1]
    assert not notes(explain(model, TEXTS[0], tokenizer=tokenizer, layers="none"))


def test_trying_a_model_draws_nothing_from_the_callers_numbers_and_runs_once(fresh):
    model, tokenizer = with_module(fresh[0], StaysOn()), fresh[1]
    calls = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    torch.manual_seed(0)
    explain(model, TEXTS[0], tokenizer=tokenizer, method="random", layers="none")
    first = len(calls)
    explain(model, TEXTS[1], tokenizer=tokenizer, method="random", layers="none")
    handle.remove()
    assert first == 3  # two passes for the probe, one to settle the class
    assert len(calls) == 4
