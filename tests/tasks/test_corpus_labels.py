"""Gold labels of a data set: which class of the model they name, in every container, and where they name none."""

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from hf_attn_mi import explain_dataset, load_results, summarize
from hf_attn_mi.tasks.corpus_shard import class_of
from tests.sample_models import load_small

TEXTS = ["A warm and funny film.", "A dull and awful film."]  # positive, negative; the data set counts from positive
FEATURES = datasets.Features(
    {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["positive", "negative"])}
)
DATA = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 1]}, features=FEATURES)


def parquet(folder):
    DATA.to_parquet(folder / "rows.parquet")
    return str(folder / "rows.parquet")


CONTAINERS = {
    "plain": lambda folder: DATA,
    "numpy": lambda folder: DATA.with_format("numpy"),
    "torch": lambda folder: DATA.with_format("torch"),
    "pandas": lambda folder: DATA.with_format("pandas"),
    "stream of numpy": lambda folder: DATA.to_iterable_dataset().with_format("numpy"),
    "Arrow table": lambda folder: DATA.data.table,
    "Parquet file": parquet,
}


def labels_of(model, rows, output, **options):
    """(label, label_name, correct) of each row."""
    explain_dataset(model, rows, output=output, tokenizer=load_small()[1], **options)
    return [(one.label, one.label_name, one.correct) for one in load_results(output).with_rows()]


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_names_of_the_classes_of_a_data_set_are_read_in_every_container(name, tmp_path):
    found = labels_of(load_small()[0], CONTAINERS[name](tmp_path), tmp_path / "out")
    assert found == [("positive", "positive", True), ("negative", "negative", True)]


@pytest.mark.parametrize("number", [1, np.int64(1), torch.tensor(1), 1.0])
def test_numbers_of_classes_are_read_whatever_their_type(number, tmp_path):
    rows = [{"text": TEXTS[0], "label": number}]
    assert labels_of(load_small()[0], rows, tmp_path / "out") == [("1", "positive", True)]


def test_numbers_as_names_of_classes_are_not_taken_for_numbers_of_classes():
    stars = {number: str(number + 1) for number in range(5)}
    assert [class_of(str(number), stars, number) for number in range(6)] == [0, 1, 2, 3, 4, None]
    assert [class_of(str(number), stars) for number in range(6)] == [None, 0, 1, 2, 3, 4]


def small_model(kind, **config):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return kind(BertConfig(vocab_size=8000, max_position_embeddings=256, **sizes, **config)).eval()


@pytest.mark.parametrize(
    ("kind", "config", "named"),
    [
        (BertForSequenceClassification, {"num_labels": 1}, False),
        (BertForSequenceClassification, {"num_labels": 3, "problem_type": "regression"}, False),
        (BertForSequenceClassification, {"num_labels": 3, "problem_type": "multi_label_classification"}, True),
        (BertForTokenClassification, {"num_labels": 3}, False),
    ],
)
def test_models_that_predict_no_single_class_are_neither_right_nor_wrong(kind, config, named, tmp_path):
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, (0, 0))]
    found = labels_of(small_model(kind, **config), rows, tmp_path / "out")
    assert [(name is not None, correct) for _, name, correct in found] == [(named, None)] * 2
    assert summarize(tmp_path / "out", least=2).accuracy is None


def test_columns_with_numbers_as_names_are_read(tmp_path):
    output = tmp_path / "out"
    options = {"columns": {"text": "0", "label": "1"}}
    found = labels_of(load_small()[0], pd.DataFrame({0: TEXTS, 1: ["positive", "negative"]}), output, **options)
    assert [correct for *_, correct in found] == [True, True]
