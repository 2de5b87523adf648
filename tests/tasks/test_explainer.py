"""`Explainer`: `explain` for `datasets.map` and other engines that pass batches of columns."""

import pickle
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest

from hf_attn_mi import Explainer, InvalidInputError, explain
from tests.sample_models import DEMO, TEXTS


def test_it_gives_columns_with_the_results_of_explain(demo):
    found = Explainer(demo[0], tokenizer=demo[1])({"text": np.array([*TEXTS, ""], dtype=object), "label": [0] * 6})
    expected = explain(demo[0], TEXTS, tokenizer=demo[1], layers="none")
    assert found["error"][:5] == [None] * 5
    assert "empty text" in found["error"][5]
    assert found["tokens"][5] is None
    for place, one in enumerate(expected):
        assert tuple(found["tokens"][place]) == one.tokens
        assert np.allclose(found["scores"][place], one.scores, atol=2e-5)
    assert not {"text", "label", "row"} & set(found)
    with pytest.raises(InvalidInputError, match="empty text"):
        Explainer(demo[0], tokenizer=demo[1], errors="raise")({"text": [""]})
    with pytest.raises(InvalidInputError, match="batched=True"):
        Explainer(demo[0], tokenizer=demo[1])("a text")


def test_batches_of_arrays_keep_their_columns_as_ray_drops_what_is_not_returned(demo):
    batch = {"text": np.array(TEXTS, dtype=object), "id": np.arange(len(TEXTS)), "probability": np.zeros(len(TEXTS))}
    found = Explainer(demo[0], tokenizer=demo[1])(batch)
    assert found["text"] is batch["text"]
    assert found["id"] is batch["id"]
    expected = [one.probability for one in explain(demo[0], TEXTS, tokenizer=demo[1], layers="none")]
    assert found["probability"] == pytest.approx(expected, abs=1e-5)


MAPPED = """
import datasets
from hf_attn_mi import Explainer
from tests.sample_models import DEMO, TEXTS

table = datasets.Dataset.from_dict({"review": TEXTS * 2})
explainer = Explainer(str(DEMO), columns="review", method="attention")
scored = table.map(explainer, batched=True, batch_size=5, num_proc=2)
assert scored["review"] == table["review"]
assert all(len(scores) == len(tokens) for scores, tokens in zip(scored["scores"], scored["tokens"]))
assert scored["error"][:] == [None] * 10
"""


def test_a_row_in_the_place_of_a_batch_is_refused(demo):
    """`datasets` passes rows unless it is told to pass batches; the letters of a text are no texts."""
    table = datasets.Dataset.from_dict({"text": ["A warm film."], "label": [1]})
    explainer = Explainer(demo[0], tokenizer=demo[1])
    for row in (table, table.remove_columns("label")):
        with pytest.raises(InvalidInputError, match="With datasets pass batched=True"):
            row.map(explainer)
    assert repr(explainer) == "Explainer(model='BertForSequenceClassification', method='relevance', errors='skip')"


def test_it_is_pickled_with_its_model():
    explainer = Explainer(str(DEMO), columns="review", method="attention")
    assert pickle.loads(pickle.dumps(explainer)).model == str(DEMO)


def test_datasets_maps_it_in_several_processes():
    """In a fresh interpreter: PyTorch cannot be forked once it has started threads, as other tests make it do."""
    root = Path(__file__).resolve().parents[2]
    process = subprocess.run([sys.executable, "-c", MAPPED], cwd=root, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-1000:]
