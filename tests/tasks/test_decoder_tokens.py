"""The tokens that a decoder reads have scores of their own: gradient x input at their look-ups, by hand."""

import pytest
import torch

from hf_attn_mi import Explanation, explain
from tests.methods.test_cross_attention import bart, t5
from tests.sample_models import TEXTS

IDS = torch.tensor([[5, 17, 40, 8, 1], [9, 30, 4, 21, 1]])
DECODER = torch.tensor([[0, 7, 8, 5], [0, 9, 10, 17]])


def last(outputs):
    return outputs.logits[:, -1, 7]


def test_input_decoder_and_bias_add_up_to_the_value():
    """A token replaced by one of embedding zero takes its score away where the model is linear in it: here by sums."""
    model = t5()
    both = explain(model, {"input_ids": IDS, "decoder_input_ids": DECODER}, target=last)
    for i, one in enumerate(both):
        assert one.completeness_gap < 1e-4
        assert one.decoder.tokens == tuple(map(str, DECODER[i].tolist()))
        assert one.decoder.scores.shape == (4,)
        assert one.info["other_inputs"]["decoder_input_ids"] == pytest.approx(float(one.decoder.scores.sum()), abs=1e-5)
        assert not any("decoder_input_ids" in note for note in one.info["warnings"])
        alone = explain(model, {"input_ids": IDS[i : i + 1], "decoder_input_ids": DECODER[i : i + 1]}, target=last)
        assert torch.allclose(alone.decoder.scores, one.decoder.scores, atol=1e-5)


@pytest.mark.parametrize("method", ["relevance", "attnlrp"])
def test_the_same_text_in_input_and_decoder_is_told_apart(method):
    """Swapping the roles of input and decoder in a model of two linear towers swaps the scores."""
    model = t5()
    one = explain(model, {"input_ids": DECODER[:1], "decoder_input_ids": DECODER[:1]}, target=last, method=method)
    assert not torch.allclose(one.decoder.scores, one.scores[:4], atol=1e-4)
    assert float(one.decoder.scores.abs().sum()) > 0
    assert one.completeness_gap < 1e-4


def test_a_decoder_that_sees_only_itself_has_all_scores():
    """Without cross-attention the value depends on the decoder's tokens alone: theirs is the whole value but bias."""
    model = t5()
    with torch.no_grad():
        for block in model.decoder.block:
            block.layer[1].EncDecAttention.o.weight.zero_()
    one = explain(model, {"input_ids": IDS[:1], "decoder_input_ids": DECODER[:1]}, target=last)
    with torch.no_grad():
        value = float(model(input_ids=IDS[:1], decoder_input_ids=DECODER[:1]).logits[0, -1, 7])
    assert float(one.scores.abs().max()) < 1e-6
    assert float(one.decoder.scores.sum()) == pytest.approx(value, rel=1e-4)  # T5 has no bias terms


def test_a_decoder_that_reads_a_copy_of_the_input_has_its_part_in_the_words(demo):
    assert explain(bart(), TEXTS[0], tokenizer=demo[1]).decoder is None


def test_methods_that_do_not_score_the_decoder_leave_it_out():
    one = explain(t5(), {"input_ids": IDS[:1], "decoder_input_ids": DECODER[:1]}, target=last, method="attention")
    assert one.decoder is None


def test_the_table_and_the_file_have_the_tokens_of_the_decoder(demo, tmp_path):
    inputs = {"input_ids": IDS[:1], "decoder_input_ids": DECODER[:1]}
    one = explain(t5(), inputs, target=last, tokenizer=demo[1])
    assert one.decoder.tokens == tuple(demo[1].convert_ids_to_tokens(DECODER[0].tolist()))
    assert "What the decoder reads" in str(one)
    assert one.decoder.tokens[1] in one.to_html()
    one.save(tmp_path / "one.json")
    loaded = Explanation.load(tmp_path / "one.json")
    assert loaded == one
    assert torch.equal(loaded.decoder.scores, one.decoder.scores)
