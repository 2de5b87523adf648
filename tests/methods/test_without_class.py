"""Methods whose scores belong to no class serve models without one; target and probability are absent then."""

import pytest
from transformers import AutoModel

from hf_attn_mi import Explanation, InvalidInputError, explain
from hf_attn_mi.methods import list_methods
from hf_attn_mi.methods.scoring import needs_target
from tests.sample_models import DEMO, TEXTS, distance

CLASSLESS = ["attention", "rollout", "effective", "efficient", "value_norms", "random"]


@pytest.fixture(scope="module")
def encoder():
    return AutoModel.from_pretrained(DEMO, local_files_only=True).eval()


def test_the_methods_without_class_are_those_that_read_no_target():
    names = {name for name, scorer in list_methods().items() if not needs_target(scorer)}
    assert {"head", *CLASSLESS} <= names
    assert not names & {"relevance", "attnlrp", "saliency", "occlusion", "lime", "integrated_gradients"}


@pytest.mark.parametrize("method", CLASSLESS)
def test_an_encoder_alone_has_the_scores_of_its_classifier(demo, encoder, method, tmp_path):
    model, tokenizer = demo
    found = explain(encoder, TEXTS[:2], method=method, tokenizer=tokenizer)
    for one, wanted in zip(found, explain(model, TEXTS[:2], method=method, tokenizer=tokenizer)):
        assert distance(one.scores, wanted.scores) < 1e-5
        assert (one.target, one.target_name, one.probability) == (None, "no class", None)
    one = found[0]
    one.save(tmp_path / "one.json")
    assert Explanation.load(tmp_path / "one.json") == one
    for text in (one.to_text(), one.to_html()):
        assert "no class" in text
        assert "speaks for" not in text
    assert len(one.to_pandas()) == len(one.tokens)
    assert "no class" in repr(one)


@pytest.mark.parametrize("method", ["relevance", "saliency", "occlusion"])
def test_methods_that_explain_something_ask_for_a_target(demo, encoder, method):
    with pytest.raises(InvalidInputError, match="target: BertModel has no class logits"):
        explain(encoder, TEXTS[0], method=method, tokenizer=demo[1])


def test_a_class_that_is_asked_for_is_not_forgotten(demo, encoder):
    with pytest.raises(InvalidInputError, match="target"):
        explain(encoder, TEXTS[0], method="attention", target=1, tokenizer=demo[1])
