"""benchmarks/studies/causal/planted_trained.py: tasks of known sources, paths, and an encoder that learned one."""

import pytest
import torch

from benchmarks.studies.causal import planted_trained as study

CHAIN = {(0, 0, 5, 3), (1, 2, 0, 5)}  # from 3 to 5 in the first layer, from 5 to [CLS] in the second


def test_the_marked_tokens_of_copy_are_its_sources_and_hold_the_label():
    for marked in (1, 2):
        batch = study.copy_batch(50, torch.Generator().manual_seed(0), marked)
        assert torch.equal(batch.types.bool(), batch.sources)
        assert (batch.sources.sum(1) == marked).all()
        letters = (batch.ids - study.FIRST_LETTER)[batch.sources].view(50, marked)
        assert torch.equal(letters, batch.labels[:, None].expand(50, marked))
        assert len(set(batch.labels.tolist())) == study.LETTERS


def test_the_label_of_look_up_is_the_letter_of_the_record_with_the_key_of_the_question():
    batch = study.look_up_batch(50, torch.Generator().manual_seed(0))
    for ids, label, sources in zip(batch.ids.tolist(), batch.labels.tolist(), batch.sources):
        (asked,) = [one - study.FIRST_QUESTION for one in ids if study.FIRST_QUESTION <= one < study.FIRST_RECORD]
        records = {i: divmod(one - study.FIRST_RECORD, study.LETTERS) for i, one in enumerate(ids)}
        (place,) = [i for i, (key, _) in records.items() if ids[i] >= study.FIRST_RECORD and key == asked]
        assert records[place][1] == label
        question = ids.index(study.FIRST_QUESTION + asked)
        assert sources.nonzero()[:, 0].tolist() == sorted([question, place])


@pytest.mark.parametrize(
    ("weights", "sources", "expected"),
    [
        (CHAIN, [3], (1.0, 1.0)),
        (CHAIN | {(1, 0, 0, 7)}, [3], (1.0, 2 / 3)),  # 7 holds nothing
        ({(0, 0, 0, 3), (1, 0, 0, 0)}, [3], (1.0, 1.0)),  # [CLS] holds it after the first layer
        ({(1, 2, 5, 3), (0, 0, 0, 5)}, [3], (0.0, 0.0)),  # the wrong way round
        ({(0, 0, 5, 3)}, [3], (0.0, 0.0)),  # does not reach [CLS]
        (CHAIN, [3, 5], (1.0, 1.0)),
        ({(1, 2, 0, 5)}, [3, 5], (0.5, 1.0)),
        (set(), [3], (0.0, 0.0)),
    ],
)
def test_recall_and_precision_of_paths_by_hand(weights, sources, expected):
    assert study.recall_and_precision(weights, sources) == pytest.approx(expected)


def test_an_encoder_that_learned_to_copy_is_read_by_its_gradient():
    """Every set holds a path from the marked token, since the label can come from nowhere else."""
    model = study.trained_bert("copy", steps=120)
    rows = study.rows_of("copy, one marked token", model, 2, ["gradient", "random"])
    assert rows[0]["accuracy"] > 0.95
    assert rows[0]["sets"] == 2
    assert all(row["recall_set"] == row["sets"] / 2 for row in rows)  # an input without a set counts as 0
    assert rows[0]["precision_best"] > rows[1]["precision_best"]
    assert f"| copy, one marked token | gradient | {rows[0]['recall_best']:.2f} |" in study.table_of(rows)
