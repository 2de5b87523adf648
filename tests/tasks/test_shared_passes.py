"""Passes that methods and targets share: how many are run, and that nothing else changes."""

from dataclasses import dataclass, field

import pytest
import torch

from hf_attn_mi import compare, explain, report
from hf_attn_mi.errors import UnsupportedModelError
from hf_attn_mi.methods import TokenScores, find_method, register_method, unregister_method
from hf_attn_mi.methods.kept_passes import KeptPasses, tensor_bytes
from hf_attn_mi.methods.scoring import score_batch
from hf_attn_mi.models.pass_counter import counted
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from tests.sample_models import distance, load_demo, tiny_bert

TEXTS = ["a warm film", "a dull film .", "a quietly moving film of the year"]
READ_ATTENTION = ["attention", "effective", "rollout", "efficient", "value_norms"]


@pytest.fixture(scope="module")
def demo():
    """A model of these tests alone: once a forward was replaced, even if it was put back, rows run alone as well."""
    return load_demo()


def scoring_passes(model, **options):
    """(forwards, backwards) in sequences of the scores alone, and what `compare` returns."""
    compare(model, TEXTS, **options)  # what is tried once for a model
    with counted(model) as passes:
        found = compare(model, TEXTS, **options)
    several = found if "targets" in options else [found]
    return passes.forwards - sum(one.info["sequences"] for one in several), passes.backwards, found


def test_methods_that_read_attention_share_one_pass(demo):
    model, tokenizer = demo
    forwards, _, found = scoring_passes(model, tokenizer=tokenizer, methods=READ_ATTENTION)
    assert forwards == len(TEXTS) + 1  # each input once for all methods; the shortest once before the clock starts
    assert {cost.forwards for cost in found.costs.values()} == {1}  # what each of them takes alone
    for name in READ_ATTENTION:
        alone = compare(model, TEXTS, tokenizer=tokenizer, methods=[name])
        assert found.values[name]["comprehensiveness"] == pytest.approx(
            alone.values[name]["comprehensiveness"], abs=1e-6
        )


def test_attention_is_read_in_the_pass_of_a_method_before_it(demo):
    model, tokenizer = demo
    methods = ["relevance", "attention", "effective", "attnlrp"]
    forwards, backwards, found = scoring_passes(model, tokenizer=tokenizer, methods=methods)
    passes_of_each = len(TEXTS) + 1
    assert forwards == 2 * passes_of_each  # relevance and attnlrp linearize differently: one pass each
    assert backwards == 2 * passes_of_each
    costs = {name: (cost.forwards, cost.backwards) for name, cost in found.costs.items()}
    assert costs == {"relevance": (1, 1), "attention": (1, 0), "effective": (1, 0), "attnlrp": (1, 1)}
    assert all(cost.seconds > 0 for cost in found.costs.values())


def test_targets_share_forward_passes_and_scores_that_have_no_target(demo):
    model, tokenizer = demo
    options = {"tokenizer": tokenizer, "methods": ["relevance", "value_norms", "attnlrp"]}
    forwards, backwards, found = scoring_passes(model, targets=[0, 1, None], **options)
    passes_of_each = len(TEXTS) + 1
    assert forwards == 2 * passes_of_each  # relevance (with value_norms in its pass) and attnlrp, once for all targets
    assert backwards == 3 * 2 * passes_of_each  # one for each target
    for one in found:
        assert {name: (cost.forwards, cost.backwards) for name, cost in one.costs.items()} == {
            "relevance": (1, 1),
            "value_norms": (1, 0),
            "attnlrp": (1, 1),
        }


def test_a_target_that_fails_does_not_stop_the_others(demo):
    model, tokenizer = demo

    def broken(outputs):
        if outputs.logits.requires_grad:
            raise UnsupportedModelError("no gradient of this target")
        return outputs.logits[:, 0]

    def first(outputs):
        return outputs.logits[:, 0]

    found = compare(model, TEXTS, tokenizer=tokenizer, methods=["relevance", "attention"], targets=[first, broken])
    assert found[0].failures == {}
    assert found[1].failures == {"relevance": "no gradient of this target"}
    assert found[0].values == compare(
        model, TEXTS, tokenizer=tokenizer, methods=["relevance", "attention"], target=first
    ).values  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"layers": "none"}, {"targets": [0, 1]}], ids=["full", "none", "targets"])
def test_value_norms_are_read_in_the_pass_of_the_explanation(demo, options):
    model, tokenizer = demo
    explain(model, TEXTS[0], tokenizer=tokenizer)
    with counted(model) as passes:
        explain(model, TEXTS[0], tokenizer=tokenizer, method="value_norms", **options)
    assert passes.forwards == 1


@dataclass
class Observed:
    """A method of another package: counts the attention calls, and fails on the second one."""

    name: str = "observed"
    reference: str = "none"
    cost: str = "1 forward"
    class_linked = needs_gradients = additive = False
    options: dict = field(default_factory=dict)

    def observer(self, batch):
        calls = []

        def receive(call):
            calls.append(call.layer)
            if len(calls) > 1:
                raise ValueError("two are enough")

        return receive

    def score(self, runner, batch, target):
        batch.observed(self.observer)
        return TokenScores(batch.real.float())


def test_an_observer_that_fails_fails_alone(demo):
    model, tokenizer = demo
    register_method(Observed())
    try:
        found = compare(model, TEXTS, tokenizer=tokenizer, methods=["attention", "observed", "effective"])
        assert list(found.failures) == ["observed"]
        assert "two are enough" in found.failures["observed"]
        assert found.methods == ("attention", "effective")
    finally:
        unregister_method("observed")


def kept_after(model, tokenizer, names, **options):
    """The sequences that are run for these methods, two batches each, and what was kept of them."""
    runner, scorers = EncoderRunner(model, tokenizer), [find_method(name) for name in names]
    inputs, _ = runner.encode(TEXTS)
    kept, scores = KeptPasses(runner, scorers, **options), {}
    with counted(model) as passes:
        for scorer in scorers:
            for one in inputs[:2]:
                target = read_target(0, runner, [one])[0]
                found = score_batch(runner, [one], scorer, target, {}, reader=kept.reader([one], scorer))
                scores.setdefault(scorer.name, []).append(found.scores[0])
    return passes.forwards, kept, scores


def test_what_is_kept_is_bounded_and_holds_no_graph(demo):
    model, tokenizer = demo
    names = ["relevance", "attention", "effective"]
    forwards, kept, scores = kept_after(model, tokenizer, names)
    assert forwards == 2
    passes = [one.shared for one in kept._kept.values()]
    assert not any(one.outputs.logits.requires_grad for one in passes)
    held = sum(tensor_bytes(vars(consumer.receive)) for one in passes for consumer in one.consumers)
    assert 0 < held < 40_000
    forwards, _, again = kept_after(model, tokenizer, names, most_bytes=1)
    assert forwards == 2 + 2  # the second input is run by each method
    for name in names:
        for one, other in zip(scores[name], again[name]):
            assert torch.equal(one, other)
    kept.release()
    assert not kept._kept


QUIET = {"token_set": False, "certificate": False, "subgraph": False}


@pytest.mark.parametrize(("labels", "targets"), [(2, None), (4, None), (4, [3, 0, 1])])
def test_a_report_shares_passes(labels, targets):
    model = tiny_bert(num_labels=labels)
    tokenizer, options = load_demo()[1], {"classes": labels, "targets": targets, **QUIET}
    report(model, TEXTS[0], tokenizer=tokenizer, **options)
    with counted(model) as passes:
        page = report(model, TEXTS[0], tokenizer=tokenizer, **options)
    item = page.items[0]
    explained = labels if targets is None else len(targets)
    assert len(item.explanations) == explained
    # relevance of the target, with the statistics, the outputs, and what "attention" and "effective" read; relevance of
    # all other classes; attnlrp; the gradient at every head.
    assert passes.forwards == (4 if targets is None else 2 + explained)
    assert passes.backwards == explained + 2
    for one in item.explanations:
        alone = explain(model, TEXTS[0], tokenizer=tokenizer, target=one.target)
        assert torch.equal(one.scores, alone.scores)
        assert one.probability == alone.probability
        assert set(one.info) == set(alone.info)
    for one in item.methods:
        alone = explain(model, TEXTS[0], tokenizer=tokenizer, target=one.target, method=one.info["method"])
        assert distance(one.scores, alone.scores) < 1e-6


def test_all_labels_are_found_on_the_first_input(demo):
    model, tokenizer = demo
    explain(model, TEXTS, tokenizer=tokenizer, targets="all")
    with counted(model) as passes:
        explain(model, TEXTS, tokenizer=tokenizer, targets="all", layers="none")
    assert (passes.forwards, passes.backwards) == (1 + len(TEXTS), 2 * len(TEXTS))


def test_a_model_whose_attention_cannot_be_read_is_explained_all_the_same(demo):
    class Twice(torch.nn.Module):
        """Runs its encoder on embeddings and on ids, so that the pass of the input is not known."""

        def __init__(self):
            super().__init__()
            self.bert, self.fc, self.config = demo[0].bert, demo[0].classifier, demo[0].config

        def forward(self, inputs_embeds, other_ids):
            states = self.bert(inputs_embeds=inputs_embeds).pooler_output + self.bert(other_ids).pooler_output
            return {"logits": self.fc(states)}

    runner, scorers = EncoderRunner(Twice().eval()), [find_method("relevance"), find_method("attention")]
    ids = demo[1](TEXTS[0], return_tensors="pt").input_ids
    embeddings = demo[0].get_input_embeddings()(ids).detach()
    inputs, _ = runner.encode({"inputs_embeds": embeddings, "other_ids": ids})
    kept, target = KeptPasses(runner, scorers), read_target(0, runner, inputs)[0]
    found = score_batch(runner, inputs, scorers[0], target, {}, reader=kept.reader(inputs, scorers[0]))
    assert found.gaps[0] < 1e-5
    with pytest.raises(UnsupportedModelError, match="runs bert more than once"):
        score_batch(runner, inputs, scorers[1], target, {}, reader=kept.reader(inputs, scorers[1]))
