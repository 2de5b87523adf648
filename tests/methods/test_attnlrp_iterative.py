"""Method "attnlrp_iterative" against the same stages written by hand, and what holds for every method."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification

from hf_attn_mi import Explanation, InvalidInputError, UnsupportedModelError, explain
from hf_attn_mi.methods.relevance import REMOVED_FRACTIONS, iterative_scores
from tests.sample_models import TEXTS, distance, load_demo, run_relevance, tiny_bert, zoo_model

LONG = (
    "The plot makes no sense, but the cast is brilliant and the story is very funny in places. A quietly moving film, "
    "beautifully acted and written; one of the best comedies of the year, not dull and never awful."
)
PAIR = ("The film was long.", "Nobody liked it much.")


def difference(outputs):
    return outputs.logits[:, 1] - outputs.logits[:, 0]


def deleted(model, ids, kept):
    """Relevance of the kept tokens alone, at their own positions: no mask is involved."""
    ids, positions = ids[:, kept], torch.tensor([kept])
    inputs = {"input_ids": ids, "position_ids": positions}
    return run_relevance(model, inputs, difference, softmax_rule="taylor").scores[0].tolist()


def by_hand(model, ids, special):
    """Scores in stages with lists and without masks."""
    everything = list(range(ids.shape[1]))
    removable = [i for i in everything if not special[i]]
    kept, current = everything, dict(zip(everything, deleted(model, ids, everything)))
    final, factor, gone = dict(current), 1.0, 0
    for share in REMOVED_FRACTIONS:
        goal = math.ceil(share * len(removable))
        ranked = sorted((i for i in kept if not special[i] and current[i] > 0), key=lambda i: -current[i])
        for i in ranked[: goal - gone]:
            final[i] = factor * current[i]
            lowest = final[i]
            kept = [j for j in kept if j != i]
            gone += 1
        current = dict(zip(kept, deleted(model, ids, kept)))
        left = [i for i in kept if not special[i]]
        factor = min(1.0, 0.999 * lowest / max(current[i] for i in left))
        final.update({i: factor * current[i] if current[i] > 0 else current[i] for i in left})
    return torch.tensor([final[i] for i in everything])


def ranked(scores, special):
    return sorted((i for i in range(len(scores)) if not special[i]), key=lambda i: -float(scores[i]))


def test_stages_equal_texts_without_the_tokens_of_the_stages_before():
    model, tokenizer = load_demo()
    model = model.double()
    for text in (LONG, *TEXTS[2:]):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        found = explain(model, text, tokenizer=tokenizer, method="attnlrp_iterative", target=1)
        wanted = by_hand(model, ids, found.special)
        assert distance(found.scores, wanted) <= 1e-5
    first = explain(model, LONG, tokenizer=tokenizer, target=1, method="attnlrp").scores
    found = explain(model, LONG, tokenizer=tokenizer, method="attnlrp_iterative", target=1)
    assert distance(found.scores, first) > 1e-2  # the premise: the later stages change something


def test_the_first_stage_is_that_of_one_pass(demo):
    for target in (0, 1):
        first = explain(demo[0], LONG, target=target, method="attnlrp")
        found = explain(demo[0], LONG, target=target, method="attnlrp_iterative")
        special = torch.tensor(found.special)
        count = math.ceil(REMOVED_FRACTIONS[0] * int((~special).sum()))
        assert count > 1  # the premise
        top = ranked(first.scores, found.special)[:count]
        assert ranked(found.scores, found.special)[:count] == top
        assert torch.equal(found.scores[top], first.scores[top])
        assert torch.equal(found.scores[special], first.scores[special])  # they stay in every stage
        assert found.completeness_gap is None
        assert found.probability == first.probability


def test_scores_of_two_stages_by_hand():
    first = torch.tensor([[9.0, 4.0, 2.0, -1.0, 1.0, 0.0], [9.0, -1.0, -2.0, 0.0, 0.0, 0.0]])
    removable = torch.tensor([[0, 1, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0]]).bool()
    asked = []

    passes = [[7.0, 0.0, 1.0, 8.0, -2.0, 0.0], [7.0, 0.0, -1.0, 0.0, 0.5, 0.0], [7.0, 0.0, 6.0, 0.0, 0.0, 0.0]]

    def again(kept):
        asked.append(kept.tolist())
        return torch.tensor([passes[len(asked) - 1], first[1].tolist()])

    found = iterative_scores(first, removable, again, fractions=[0.25, 0.5, 0.75])
    # Text 1: token 1 goes with 4; 3 with 8 times .999 * 4 / 8; 4 with .5, which is below; 2 with 6 times .999 * .5 / 6.
    wanted = torch.tensor([[9.0, 4.0, 0.999 * 0.5, 0.999 * 4, 0.5, 0.0], first[1].tolist()])
    torch.testing.assert_close(found, wanted)
    assert [row[0].count(False) for row in asked] == [1, 2, 3]
    assert all(row[1].count(False) == 0 for row in asked)  # nothing of text 2 speaks for the class


def test_one_token_always_stays():
    first, asked = torch.tensor([[1.0, 5.0, 3.0], [1.0, 5.0, 3.0]]), []
    removable = torch.tensor([[0, 1, 1], [0, 1, 0]]).bool()
    found = iterative_scores(first, removable, lambda kept: asked.append(kept.tolist()) or first, fractions=[0.9, 0.95])
    assert asked == [[[True, False, True], [True, True, True]]]
    assert torch.equal(found, first)


def test_scores_that_differ_by_rounding_alone_go_in_the_order_of_the_text():
    seen = []
    for noise in (1e-7, -1e-7):
        first = torch.tensor([[0.1, 0.7, 0.7 + noise, 0.2]])
        iterative_scores(
            first, torch.ones(1, 4).bool(), lambda kept: seen.append(kept.tolist()) or kept, fractions=[0.25]
        )
    assert seen == [[[True, False, True, True]]] * 2


class Stand(nn.Module):
    """logits from one attention head whose rows are almost all on one token: the second best waits for its turn."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(6, 2)
        # (key, value): tokens 1 and 2 speak for the class, 1 takes all the attention; 3 speaks a little; 4 is silent
        table = torch.tensor([[0.0, 0.0], [30.0, 2.0], [20.0, 2.0], [14.0, 9.0], [0.0, 0.0], [0.0, 0.0]])
        self.words.weight = nn.Parameter(table.double())

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask):
        states = self.words(input_ids)
        rows = states[..., 0].masked_fill(attention_mask == 0, -1e9).softmax(-1)
        return SimpleNamespace(logits=(rows[..., None] * states).sum(1))


def test_a_token_that_takes_over_is_seen():
    model, ids = Stand(), torch.tensor([[4, 3, 2, 1, 4]])

    def score(kept):
        return run_relevance(model, {"input_ids": ids, "attention_mask": kept.long()}, lambda o: o.logits[:, 1]).scores

    everything = torch.ones(1, 5, dtype=torch.bool)
    first = score(everything)
    assert float(first[0, 2]) < 1e-3 * float(first[0, 3])
    found = iterative_scores(first, everything, score, fractions=[0.2, 0.4])
    torch.testing.assert_close(found[0, 3], first[0, 3])
    torch.testing.assert_close(found[0, 2], 0.999 * found[0, 3], rtol=2e-3, atol=0)  # all the attention, and 2.0 again
    assert ranked(found[0], [False] * 5)[:3] == [3, 2, 1]


def test_batches_order_pairs_and_seeds_change_nothing(demo):
    model, tokenizer = load_demo()
    with torch.no_grad():
        model.bert.embeddings.token_type_embeddings.weight[1].normal_(generator=torch.Generator().manual_seed(0))
    texts = [PAIR, ("dull", LONG), ("A moving film.", "One of the worst!")]
    alone = [explain(model, text, tokenizer=tokenizer, method="attnlrp_iterative") for text in texts]
    torch.manual_seed(5)
    for size in (1, 2, 16):
        together = explain(model, texts[::-1], tokenizer=tokenizer, method="attnlrp_iterative", batch_size=size)[::-1]
        for one, wanted in zip(together, alone, strict=True):
            assert distance(one.scores, wanted.scores) <= 1e-5
            assert one.info["warnings"] == wanted.info["warnings"]
            assert Explanation.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_padding_and_holes_in_the_mask_are_never_part_of_a_stage(demo):
    model, tokenizer = demo
    batch = dict(tokenizer([LONG, TEXTS[0]], padding=True, return_tensors="pt"))
    batch["attention_mask"][0, 7] = 0
    found = explain(model, batch, tokenizer=tokenizer, method="attnlrp_iterative")
    moved = dict(batch, input_ids=batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 77))
    again = explain(model, moved, tokenizer=tokenizer, method="attnlrp_iterative")
    for one, other in zip(found, again, strict=True):
        assert distance(other.scores, one.scores) <= 1e-5
    assert found[0].scores[7] == 0.0


class FirstIsSpecial:
    """Names tokens by their numbers; the first token of each input is special, as [CLS] is."""

    def __init__(self, ids):
        self.all_special_ids = ids[:, 0].tolist()

    def __call__(self, texts):
        raise AssertionError("tensors are not tokenized")

    def convert_ids_to_tokens(self, ids):
        return list(map(str, ids))


@pytest.mark.parametrize(
    "name",
    [
        "seqcls-roberta",
        "seqcls-bart",
        "seqcls-t5",
        "seqcls-xlnet",
        "seqcls-gpt2",
        "seqcls-modernbert",
        "seqcls-distilbert",
    ],
)
def test_other_architectures(name):
    compare_with_single_inputs(name, known=False)


def test_where_masked_queries_see_padding():
    # DeBERTa gives a masked query a uniform row over all positions: its pooled token must be known as special
    compare_with_single_inputs("seqcls-deberta-v2", known=True)


def compare_with_single_inputs(name, *, known):
    model, inputs = zoo_model(name)
    tokenizer = FirstIsSpecial(inputs["input_ids"]) if known else None
    model = model.eval()
    both = explain(model, inputs, method="attnlrp_iterative", tokenizer=tokenizer)
    for one in both:
        assert any("not known which tokens are special" in note for note in one.info["warnings"]) is not known
    plain = explain(model, inputs, method="attnlrp")
    for i, one in enumerate(both):
        single = {key: value[i : i + 1] for key, value in inputs.items()}
        alone = explain(model, single, method="attnlrp_iterative", tokenizer=tokenizer)
        assert distance(one.scores, alone.scores) <= 1e-5
        free = plain[i].scores if not known else plain[i].scores.masked_fill(torch.tensor(one.special), -math.inf)
        top = int(free.argmax())
        assert int(one.scores.masked_fill(free == -math.inf, -math.inf).argmax()) == top
        assert one.scores[top] == pytest.approx(float(plain[i].scores[top]), rel=1e-5)


def test_a_function_is_explained_in_every_stage(demo):
    by_class = explain(demo[0], LONG, method="attnlrp_iterative", target=1)
    by_function = explain(demo[0], LONG, method="attnlrp_iterative", target=difference)
    assert distance(by_function.scores, by_class.scores) <= 1e-6


def test_the_class_stays_when_the_stages_change_the_prediction(demo):
    model, tokenizer = demo
    inputs = tokenizer("dull but brilliant", return_tensors="pt")
    found = explain(model, "dull but brilliant", method="attnlrp_iterative")
    assert found.top(1, by="positive")[0].text == "dull"
    inputs["attention_mask"][0, 1] = 0
    with torch.no_grad():
        assert int(model(**inputs).logits.argmax()) != found.target  # the premise
    wanted = explain(model, "dull but brilliant", method="attnlrp_iterative", target=found.target)
    assert torch.equal(found.scores, wanted.scores)


class Unmasked(BertForSequenceClassification):
    def forward(self, input_ids):
        return super().forward(input_ids)


def test_what_has_no_tokens_to_mask_is_refused():
    model, inputs = zoo_model("imgcls-vit")
    with pytest.raises(
        InvalidInputError, match="'attnlrp_iterative' is for sequences of tokens; inputs has pixel_values"
    ):
        explain(model, inputs, method="attnlrp_iterative")
    torch.manual_seed(0)
    model = Unmasked(tiny_bert().config).eval()
    with pytest.raises(UnsupportedModelError, match=r"Unmasked.forward has no attention_mask.*method='relevance'"):
        explain(model, {"input_ids": torch.tensor([[2, 50, 60, 3]])}, method="attnlrp_iterative")
    mask = torch.ones(1, 4, 4, dtype=torch.long)
    with pytest.raises(InvalidInputError, match=r"\(batch, tokens\) for method 'attnlrp_iterative', not 3-dimensional"):
        explain(
            tiny_bert(),
            {"input_ids": torch.tensor([[2, 50, 60, 3]]), "attention_mask": mask},
            method="attnlrp_iterative",
        )
