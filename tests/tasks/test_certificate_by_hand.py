"""The certificate of a real review against a forward pass, linear programs and distances written here.

Nothing of the package but `certify` is used: the model is run from its weights, layer by layer, and efficient rows come
from scipy's HiGHS, so that capture, solver, necessity and words are all on trial.
"""

import gzip
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from hf_attn_mi.tasks.certify import certify

SHARED = Path(os.environ.get("HF_ATTN_MI_SHARED", Path(__file__).parents[3] / "shared"))
MODEL, REVIEWS = SHARED / "models" / "minilm-sentiment", SHARED / "data" / "imdb" / "test.jsonl.gz"
TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
ZERO = 1e-12  # a weight below this is none, as in efficient_attention


def run(model, ids, rows_of):
    """Logits of a BERT classifier, from its weights; `rows_of(attention, values)` gives the rows to use in each layer.

    attention (heads, n, n) and values (heads, n, head_dim), both float64.
    """
    bert, heads = model.bert, model.config.num_attention_heads
    states = bert.embeddings(input_ids=ids)[0]
    for layer in bert.encoder.layer:
        own = layer.attention.self
        query, key, value = (
            part(states).view(len(states), heads, -1).transpose(0, 1) for part in (own.query, own.key, own.value)
        )
        scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        rows = rows_of(scores.softmax(-1).double(), value.double())
        mixed = (rows.to(value.dtype) @ value).transpose(0, 1).reshape(states.shape)
        middle = layer.attention.output.LayerNorm(layer.attention.output.dense(mixed) + states)
        inner = layer.intermediate.intermediate_act_fn(layer.intermediate.dense(middle))
        states = layer.output.LayerNorm(layer.output.dense(inner) + middle)
    return model.classifier(torch.tanh(bert.pooler.dense(states[0])))


def best_row(row, values, without=()):
    """The distribution with the output row @ values that keeps most of the row; None where there is none."""
    count = len(row)
    matrix = np.vstack([values.T, np.ones(count)])
    bounds = [(0, 0 if j in without else None) for j in range(count)]
    target = np.append(row @ values, row.sum())
    answer = linprog(-row, A_eq=matrix, b_eq=target, bounds=bounds, method="highs", options=TIGHT)
    return answer.x if answer.status == 0 else None


@pytest.fixture(scope="module")
def real():
    for path in (MODEL, REVIEWS):
        if not path.exists():
            pytest.skip(f"{path.relative_to(SHARED.parent)} is not there")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(MODEL, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    with gzip.open(REVIEWS, "rt", encoding="utf-8") as lines:
        texts = (json.loads(line)["text"] for line in lines)
        text = next(text for text in texts if 45 <= len(tokenizer(text)["input_ids"]) <= 64)
    return model, tokenizer, text, tokenizer(text, return_tensors="pt")["input_ids"]


def number(pattern, words):
    """The number that stands in these words."""
    found = re.search(pattern, words)
    assert found, f"{pattern!r} is not in:\n{words}"
    return float(found.group(1))


@pytest.mark.slow
@torch.no_grad()
def test_a_printed_certificate_of_a_real_review_is_what_hand_written_code_finds(real):
    model, tokenizer, text, ids = real
    words = str(certify(model, text, tokenizer=tokenizer))
    own = run(model, ids, lambda attention, values: attention)
    torch.testing.assert_close(own, model(ids).logits[0], atol=1e-5, rtol=1e-5)  # the forward written here is the model

    supports, changed, residuals = [], [], []

    def efficient(attention, values):
        new = []
        for head_rows, points in zip(attention.numpy(), values.numpy()):
            found = np.array([best_row(row, points) for row in head_rows])
            found[found < ZERO] = 0.0
            supports.extend((found > 0).sum(1))
            changed.extend(((found == 0) & (head_rows > 0)).any(1))
            outputs = head_rows @ points
            residuals.extend(np.linalg.norm(found @ points - outputs, axis=1) / np.linalg.norm(outputs, axis=1))
            new.append(found)
        return torch.from_numpy(np.array(new))

    logits = run(model, ids, efficient)
    count = ids.shape[1]
    rows = len(supports)
    assert rows == model.config.num_hidden_layers * model.config.num_attention_heads * count
    assert "The certificate HOLDS." in words
    assert number(r"(\d+) of \d+ rows changed", words) == sum(changed)
    assert number(r"\d+ of (\d+) rows changed", words) == rows
    name = model.config.id2label[int(logits.argmax())]
    probability = float(model(ids).logits[0].softmax(-1).max())
    assert int(own.argmax()) == int(logits.argmax())
    assert f"The prediction is kept ({name}, {probability:.4g})" in words
    assert max(residuals) < 1e-8
    assert number(r"reaches its head's output to ([\d.e+-]+) of", words) < 1e-8
    assert float((logits - own).abs().max() / own.abs().max()) < 1e-5
    assert number(r"move by at most [\d.e+-]+, ([\d.e+-]+) of their size", words) < 1e-5
    assert number(r"with ([\d.]+) keys on average", words) == pytest.approx(np.mean(supports), abs=0.06)
    assert number(r"and (\d+) at most of up to", words) == max(supports)
    assert number(r"at most of up to (\d+)", words) == count
    assert number(r"(\d+)% of the keys have no weight", words) == pytest.approx(
        100 * (1 - np.sum(supports) / (rows * count)), abs=0.6
    )


@pytest.mark.slow
@torch.no_grad()
def test_necessity_of_every_row_of_its_last_layer_by_hand(real):
    model, tokenizer, text, ids = real
    last = model.config.num_hidden_layers - 1
    certificate = certify(model, text, tokenizer=tokenizer, layers=[last], checked_rows=None)
    seen = []
    run(model, ids, lambda attention, values: seen.append((attention.numpy(), values.numpy())) or attention)
    attention, values = seen[last]
    smallest, kept_keys, refused = [], 0, 0
    for head, query in np.ndindex(attention.shape[:2]):
        row, points = attention[head, query], values[head]
        weights = best_row(row, points)
        kept = np.flatnonzero(weights > 1e-12)
        target = row @ points
        missed = []
        for key in kept:  # the distance to the affine hull of the other kept values
            base, *others = points[kept[kept != key]]
            edges = (np.array(others) - base).T
            nearest = base + edges @ np.linalg.lstsq(edges, target - base, rcond=None)[0]
            missed.append(np.linalg.norm(target - nearest) / np.linalg.norm(target))
        smallest.append(min(missed))
        kept_keys += len(kept)
        if (head * attention.shape[1] + query) % 97 == 0:  # no distribution reaches the output without one of the keys
            firm = [key for key, far in zip(kept, missed) if far > 1e-6]
            dropped = set(range(len(row))) - set(kept)
            assert all(best_row(row, points, dropped | {key}) is None for key in firm[::5])
            refused += len(firm[::5])
    assert certificate.checked == attention.shape[0] * attention.shape[1] == len(smallest)
    assert certificate.checked_keys == pytest.approx(kept_keys, rel=1e-3)
    assert certificate.necessity_median == pytest.approx(np.median(smallest), rel=0.02)
    assert certificate.necessity > 0
    assert refused > 20
