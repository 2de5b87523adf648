"""Removal on token ids, and the probabilities that come of it."""

import pytest
import torch
from transformers.models.roberta.modeling_roberta import RobertaEmbeddings

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import Probabilities
from hf_attn_mi.models.removal import remove_tokens
from tests.evaluation.sample_predictor import MASK, CountingPredictor, probability, removal_probabilities


def pair():
    """[CLS] a b [SEP] c d [SEP] with everything that has an entry for each token, and some that have not."""
    return {
        "input_ids": torch.tensor([1, 10, 11, 1, 12, 13, 1]),
        "attention_mask": torch.ones(7, dtype=torch.long),
        "token_type_ids": torch.tensor([0, 0, 0, 0, 1, 1, 1]),
        "position_ids": torch.tensor([0, 1, 2, 3, 0, 1, 2]),  # restart in the second text
        "bbox": torch.arange(14.0).view(7, 2),
        "features": torch.arange(14.0).view(7, 2),  # as many rows as tokens, by chance
        "decoder_input_ids": torch.arange(7),
        "labels": torch.arange(7),
        "pixel": torch.zeros(3),
    }


def test_delete_shortens_every_per_token_tensor_and_closes_positions_up():
    example = pair()
    found = remove_tokens(example, [1, 4])
    assert found["input_ids"].tolist() == [1, 11, 1, 13, 1]
    assert found["attention_mask"].tolist() == [1] * 5
    assert found["token_type_ids"].tolist() == [0, 0, 0, 1, 1]
    assert found["position_ids"].tolist() == [0, 1, 2, 0, 1]
    assert found["bbox"][:, 0].tolist() == [0, 4, 6, 10, 12]
    for untouched in ("decoder_input_ids", "labels", "pixel", "features"):
        assert found[untouched] is example[untouched]
    assert all(torch.equal(example[name], other) for name, other in pair().items())  # the argument is as it was


def test_closed_up_positions_are_those_the_model_gives_the_shorter_text():
    ids = torch.tensor([0, 50, 60, 70, 80, 2])  # RoBERTa counts from its padding id + 1
    positions = RobertaEmbeddings.create_position_ids_from_input_ids(ids[None], 1)[0]
    found = remove_tokens({"input_ids": ids, "position_ids": positions}, [2, 4])
    wanted = RobertaEmbeddings.create_position_ids_from_input_ids(found["input_ids"][None], 1)[0]
    assert found["position_ids"].tolist() == wanted.tolist() == [2, 3, 4, 5]


def test_mask_and_attention_mask_keep_the_length():
    example = pair()
    masked = remove_tokens(example, [1, 4], removal="mask", mask_id=MASK)
    assert masked["input_ids"].tolist() == [1, 2, 11, 1, 2, 13, 1]
    hidden = remove_tokens(example, [1, 4], removal="attention_mask")
    assert hidden["attention_mask"].tolist() == [1, 0, 1, 1, 0, 1, 1]
    for found, changed in ((masked, "input_ids"), (hidden, "attention_mask")):
        assert all(found[name] is value for name, value in example.items() if name != changed)
    assert example["attention_mask"].tolist() == [1] * 7  # the argument is as it was
    del example["attention_mask"]
    made_up = remove_tokens(example, [2], removal="attention_mask")["attention_mask"]
    assert made_up.tolist() == [1, 1, 0, 1, 1, 1, 1]
    assert all(torch.equal(example[name], other) for name, other in pair().items() if name != "attention_mask")


def test_each_set_is_predicted_once_and_in_one_call():
    found = removal_probabilities(10, 11, 13)
    # odds 27, 3, 9, 9 (again), 1
    assert found.removed([(), (1,), (2,), (2, 3), (3, 2), (1, 2, 3)]).tolist() == pytest.approx(
        [27 / 28, 3 / 4, 9 / 10, 9 / 10, 9 / 10, 1 / 2]
    )
    assert found.kept([(1,), (2,)]).tolist() == pytest.approx([9 / 10, 3 / 4])  # the second: without 1 and 3
    assert found.full() == pytest.approx(27 / 28)
    assert (found.predict.calls, found.evaluated, len(found.predict.examples)) == (2, 6, 6)
    assert found.tokens == (1, 2, 3)


def test_removals_agree_on_a_model_without_positions():
    sets = [(1,), (2, 3), (1, 2, 3)]
    wanted = removal_probabilities(10, 11, 12).removed(sets)
    for removal in ("mask", "attention_mask"):
        assert torch.equal(removal_probabilities(10, 11, 12, removal=removal).removed(sets), wanted)


def test_an_input_that_would_be_empty_is_nan_and_not_run():
    for removal in ("delete", "attention_mask"):
        found = removal_probabilities(10, 11, removal=removal, specials=False)
        values = found.removed([(0,), (0, 1)])
        assert values[0] == pytest.approx(3 / 4)
        assert bool(values[1].isnan())
        assert found.evaluated == 1
    assert removal_probabilities(10, 11, removal="mask", specials=False).removed([(0, 1)])[0] == pytest.approx(1 / 2)


def test_tokens_hidden_by_the_examples_own_mask_are_not_removed():
    example = {"input_ids": torch.tensor([1, 10, 11, 0]), "attention_mask": torch.tensor([1, 1, 1, 0])}
    found = Probabilities(CountingPredictor(), example, torch.tensor([True, False, False, False]))
    assert found.tokens == (1, 2)


def test_bad_input():
    example = pair()
    for arguments, message in (
        ({"removal": "drop"}, "removal must be one of 'delete', 'mask', 'attention_mask', not 'drop'"),
        ({"removal": "mask"}, "needs mask_id"),
        ({"removal": "mask", "mask_id": -1}, "needs mask_id.*got -1"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            remove_tokens(example, [1], **arguments)
        with pytest.raises(InvalidInputError, match=message):
            Probabilities(probability, example, **arguments)
    with pytest.raises(InvalidInputError, match="positions holds 7, but the example has 7 tokens"):
        remove_tokens(example, [7])
    with pytest.raises(InvalidInputError, match="'input_ids' of shape"):
        remove_tokens({"inputs_embeds": torch.zeros(3, 4)}, [1])
    with pytest.raises(InvalidInputError, match="attention_mask must be"):
        remove_tokens({**example, "attention_mask": torch.ones(7, 7)}, [1])
    with pytest.raises(InvalidInputError, match="position_ids must be"):
        remove_tokens({**example, "position_ids": torch.ones(7, 3)}, [1])
    with pytest.raises(InvalidInputError, match=r"special has shape \(3,\), the example has 7"):
        Probabilities(CountingPredictor(), example, torch.zeros(3))
    with pytest.raises(InvalidInputError, match=r"positions \[0\] are special"):
        removal_probabilities(10).removed([(0, 1)])
    for wrong in (torch.zeros(1, 2), torch.tensor([float("nan")]), torch.zeros(2)):
        with pytest.raises(InvalidInputError, match="one probability for each example"):
            Probabilities(lambda examples, wrong=wrong: wrong, example).full()
