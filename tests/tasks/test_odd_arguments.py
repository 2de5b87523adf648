"""Whatever is passed for whatever argument: a result or an error of this package, and the model as it was."""

import inspect

import numpy as np
import pytest
import torch

from hf_attn_mi import (
    HfAttnMiError,
    attention_maps,
    certify,
    compare,
    explain,
    fit_information,
    minimal_tokens,
    recheck,
    report,
)
from tests.sample_models import state_of, tiny_bert

TEXTS = ["A quietly moving film.", "dull and long"]


class WithoutLength:
    """A container that fails when it is asked for its length."""

    def __len__(self):
        raise RuntimeError("no length")


class WithoutValues:
    """An array that cannot be read."""

    def tolist(self):
        raise RuntimeError("no values")


class WithoutRepr:
    """An object that cannot be shown."""

    def __repr__(self):
        raise ValueError("no repr")


VALUES = [
    *(None, True, False, 0, 1, -1, 2.5, float("nan"), float("inf"), 10**30, 1j),
    *("", "x", b"x", "\ud800", [], ["x"], [None], [[]], (), {}, {"x": 1}, {1: 2}, set(), range(2)),
    *(object(), len, np.array([1, 2]), np.float32(1), np.int64(1), np.str_("x"), torch.float32),
    *(torch.tensor(1), torch.tensor([1.0, 2.0]), torch.zeros(2, 2, device="meta"), torch.eye(2).to_sparse()),
    *(WithoutLength(), WithoutValues(), WithoutRepr(), [WithoutRepr()]),
]
TASKS = {
    "explain": (explain, {"layers": "none"}),
    "certify": (certify, {"checked_rows": 1}),
    "minimal_tokens": (minimal_tokens, {"second_ranking": None, "budget": 5}),
    "attention_maps": (attention_maps, {"kind": "raw"}),
    "compare": (compare, {"methods": ["random"]}),
    "fit_information": (fit_information, {}),
    "recheck": (recheck, {}),
    "report": (
        report,
        {"methods": (), "token_set": False, "certificate": False, "subgraph": False, "attention": "none"},
    ),
}
FUNCTIONS = {"target"}  # a function of the caller may raise what it likes


@pytest.fixture(scope="module")
def base(demo):
    model = tiny_bert()
    token_set = minimal_tokens(model, TEXTS[0], tokenizer=demo[1], second_ranking=None)
    return model, demo[1], token_set


@pytest.mark.parametrize("task", TASKS)
def test_every_argument_takes_any_value_without_an_accident(base, task):
    model, tokenizer, token_set = base
    function, fixed = TASKS[task]
    before, generator = state_of(model), torch.get_rng_state()
    named = {"model": model, "inputs": TEXTS, "dataset": TEXTS, "token_set": token_set, "tokenizer": tokenizer, **fixed}
    names = list(inspect.signature(function).parameters)
    if task == "recheck":
        named["inputs"] = TEXTS[0]
    for name in names:
        for value in VALUES:
            if callable(value) and name in FUNCTIONS:
                continue
            arguments = {key: named[key] for key in names if key in named} | {name: value}
            try:
                function(**arguments)
            except HfAttnMiError:
                continue
            except BaseException as error:
                raise AssertionError(f"{task}({name}={value!r}) raised {type(error).__name__}: {error}") from error
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("explain", {"method": ["relevance"]}, r"method \['relevance'\] is not known"),
        (
            "explain",
            {"target": torch.zeros(2, device="meta")},
            "target must hold plain numbers; this Tensor",
        ),
        ("explain", {"options": [("steps", 1)]}, "options must be a dict of names and values, not list"),
        ("explain", {"truncation": 1}, "truncation must be True or False, not 1"),
        ("explain", {"is_split_into_words": "yes"}, "is_split_into_words must be True or False, not 'yes'"),
        ("explain", {"layers": ["full"]}, r"layers must be one of 'full', 'summary', 'none', not \['full'\]"),
        ("certify", {"seed": 1.0}, r"seed must be a whole number from 0 to 2\*\*32 - 1, not 1.0"),
        ("certify", {"layers": "0"}, r"layers must be None \(all\) or a list of one or more whole numbers, not '0'"),
        ("minimal_tokens", {"ranking": ["relevance"]}, "ranking must be a name or one .* for each of 2 inputs"),
        ("minimal_tokens", {"ranking": [[1.0], [2.0]]}, r"ranking\[0\] must be \d+ finite scores"),
        ("compare", {"methods": [["random"]]}, r"methods: \[\['random'\]\] are not known"),
        ("compare", {"metrics": np.array(["aopc"])}, "metrics: array.* is not known"),
        ("recheck", {"token_set": {}}, "token_set must be a TokenSet .* or an AttentionSubgraph .*, not dict"),
        ("recheck", {"tolerance": "small"}, "tolerance must be a number of 0 or more and below 1, not 'small'"),
        ("fit_information", {"batch_size": 0}, "batch_size must be a positive whole number, not 0"),
    ],
)
def test_the_message_has_the_argument_the_value_and_what_is_allowed(base, task, options, message):
    model, tokenizer, token_set = base
    function, fixed = TASKS[task]
    first = (token_set,) if task == "recheck" and "token_set" not in options else ()
    second = () if task == "recheck" else (TEXTS,)
    with pytest.raises(HfAttnMiError, match=message):
        function(model, *first, *second, **{**fixed, "tokenizer": tokenizer, **options})
