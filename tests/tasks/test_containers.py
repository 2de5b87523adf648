"""Every container of texts is a list of inputs, in every task; tables are refused with the columns."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset

from hf_attn_mi import (
    InvalidInputError,
    attention_maps,
    certify,
    compare,
    explain,
    fit_information,
    minimal_tokens,
)
from hf_attn_mi.data.texts import read_texts_of
from tests.sample_models import TEXTS

CONTAINERS = {
    "Column": lambda texts: Dataset.from_dict({"text": texts, "label": [0] * len(texts)})["text"],
    "Dataset": lambda texts: Dataset.from_dict({"label": [0] * len(texts), "sentence": texts}),
    "Series": pd.Series,
    "array": np.array,
    "array of objects": lambda texts: np.array(texts, dtype=object),
    "pyarrow": pa.array,
    "pyarrow chunks": lambda texts: pa.chunked_array([texts[:1], texts[1:]]),
    "pyarrow table": lambda texts: pa.table({"text": texts}),
    "iterator": iter,
    "generator": lambda texts: (text for text in texts),
    "keys": lambda texts: dict.fromkeys(texts),
    "deque": lambda texts: __import__("collections").deque(texts),
}
TASKS = {
    "explain": lambda *args, **options: explain(*args, layers="none", **options),
    "certify": certify,
    "minimal_tokens": lambda *args, **options: minimal_tokens(*args, second_ranking=None, **options),
    "attention_maps": lambda *args, **options: attention_maps(*args, kind="raw", layers=[0], **options),
    "compare": lambda *args, **options: compare(*args, methods=["random"], **options),
}
SHORT = ["A quietly moving film.", "dull"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", [kind for kind in CONTAINERS if kind != "keys"])
def test_a_container_is_a_list(demo, kind, task):
    found = TASKS[task](demo[0], CONTAINERS[kind](SHORT), tokenizer=demo[1])
    if task == "compare":
        assert found.inputs == 2
    elif task == "attention_maps":
        assert [one.tokens[1].lower() for one in found] == ["a", "dull"]
    else:
        assert [one.texts for one in found] == [(text,) for text in SHORT]


@pytest.mark.parametrize("kind", [kind for kind in CONTAINERS if kind != "keys"])
def test_a_profile_reads_the_same_containers(kind):
    assert list(read_texts_of(CONTAINERS[kind](SHORT))) == SHORT


def test_pairs_of_a_data_set(demo):
    pairs = Dataset.from_dict({"premise": ["A man eats.", "It rains."], "hypothesis": ["He eats.", "It is dry."]})
    found = explain(demo[0], pairs, tokenizer=demo[1], layers="none")
    assert [one.texts for one in found] == [("A man eats.", "He eats."), ("It rains.", "It is dry.")]


TABLE = pd.DataFrame({"review": TEXTS[:2], "label": [0, 1]})
REFUSED = {
    "DataFrame": (TABLE, r"is a DataFrame with columns \['review', 'label'\].* pass one column, .*table\['text'\]"),
    "Dataset": (Dataset.from_pandas(TABLE), r"columns \['review', 'label'\]"),
    "numbers": (np.arange(3), "not ndarray|must be a text"),
    "a matrix": (np.array([["a", "b"], ["c", "d"]]), "not ndarray|must be a text"),
    "a number": (3, "not int"),
    "none": (None, "not NoneType"),
    "bytes": (b"text", "not bytes"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_container_of_texts_is_refused_by_every_task(demo, kind):
    inputs, message = REFUSED[kind]
    for task in [*TASKS.values(), fit_information]:
        with pytest.raises(InvalidInputError, match=message):
            task(demo[0], inputs, tokenizer=demo[1])


@pytest.mark.parametrize("inputs", [{"a", "b"}, frozenset("ab"), dict.fromkeys("ab").keys()])
def test_what_has_no_order_is_refused(demo, inputs):
    with pytest.raises(InvalidInputError, match="has no order; pass a list"):
        explain(demo[0], inputs, tokenizer=demo[1])


BAD_TEXTS = {
    "empty": ("", r"is an empty text"),
    "lone surrogate": ("a \ud800 film", r"holds the lone surrogate '\\ud800' at character 2"),
    "second half": ("\udc00", r"holds the lone surrogate '\\udc00' at character 0"),
    "in a pair": (("fine", "b\udfff"), r"holds the lone surrogate '\\udfff' at character 1"),
    "no text": (3.5, r"must be a text or a pair of texts, not float"),
    "a missing value": (None, r"must be a text or a pair of texts, not NoneType"),
    "three texts": (("a", "b", "c"), r"must be a text or a pair of texts, not tuple"),
    "one in a tuple": (("a",), r"is a tuple of 1"),
    "a list": (["a", "b"], r"is a list of 2 strings"),
    "no token": ("\u200b", r"has no tokens other than special ones"),
    "too long": ("good " * 600, r"has 602 tokens, the model takes 512"),
}


@pytest.mark.parametrize("kind", BAD_TEXTS)
def test_a_bad_text_is_refused_with_its_index_by_every_task(demo, kind):
    text, message = BAD_TEXTS[kind]
    for task in TASKS.values():
        with pytest.raises(InvalidInputError, match=r"inputs\[2\] " + message):
            task(demo[0], [*SHORT, text, *SHORT], tokenizer=demo[1])


def test_a_profile_names_the_row_with_a_lone_surrogate(demo):
    with pytest.raises(InvalidInputError, match="dataset: row 2 holds the lone surrogate"):
        fit_information(demo[0], ["fine", "", "a \ud800"], tokenizer=demo[1])


class Breaking:
    """A tokenizer that fails on one text, as some do on text that others take."""

    is_fast = False

    def __init__(self, tokenizer):
        self.tokenizer_, self.all_special_ids = tokenizer, tokenizer.all_special_ids
        self.convert_ids_to_tokens = tokenizer.convert_ids_to_tokens

    def __call__(self, text, *rest, **options):
        if "dull" in text:
            raise Exception("TextEncodeInput must be Union[...]")
        return self.tokenizer_(text, *rest, **options)


def test_what_a_tokenizer_raises_names_the_input(demo):
    message = r"inputs\[1\] cannot be encoded by Breaking: Exception: TextEncodeInput .*; the text is \('dull',\)"
    with pytest.raises(InvalidInputError, match=message):
        explain(demo[0], SHORT, tokenizer=Breaking(demo[1]))
