"""The passes of Captum's perturbation methods: each set of tokens once, many in a pass, removed tokens left out."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hf_attn_mi import InvalidInputError, explain
from hf_attn_mi.evaluation import Probabilities
from hf_attn_mi.methods import find_method, read_options
from hf_attn_mi.methods.captum.embedding_forward import EmbeddingForward
from hf_attn_mi.models.output_heads import ExplainedTarget, Function
from hf_attn_mi.models.removal_predictor import RemovalPredictor
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target
from tests.methods.toys import batch_of
from tests.sample_models import TEXTS, distance, tiny_bert

SHORT, LONG = "Dull and slow.", "An unforgettable comedy that nobody in the whole wide world should ever miss."
PERTURBATIONS = {
    "feature_ablation": {},
    "occlusion": {},
    "lime": {"samples": 40},
    "kernel_shap": {"samples": 40},
    "shapley_sampling": {"samples": 4},
}


@pytest.fixture
def passes(monkeypatch):
    """(inputs, tokens, embeddings) of every pass over replaced embeddings."""
    seen, forward = [], EmbeddingForward.forward

    def spy(self, embeddings, rows):
        seen.append((rows, embeddings.shape[1], embeddings.clone()))
        return forward(self, embeddings, rows)

    monkeypatch.setattr(EmbeddingForward, "forward", spy)
    return seen


def count_of(tokenizer, text):
    return len(tokenizer(text)["input_ids"])


@pytest.mark.parametrize("method", PERTURBATIONS)
def test_each_set_of_tokens_is_run_once(demo, passes, method):
    explain(demo[0], SHORT, tokenizer=demo[1], method=method, options=PERTURBATIONS[method])
    rows = [row.flatten() for _, _, embeddings in passes for row in embeddings]
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)
    assert len(rows) <= 2 ** (count_of(demo[1], SHORT) - 2)


@pytest.mark.parametrize("method", ["feature_ablation", "occlusion", "shapley_sampling"])
def test_what_captum_asks_in_many_calls_is_run_in_one_pass(demo, passes, method):
    options = PERTURBATIONS[method]
    alone = [explain(demo[0], text, tokenizer=demo[1], method=method, options=options) for text in TEXTS[:3]]
    assert len(passes) == 3
    passes.clear()
    together = explain(demo[0], TEXTS[:3], tokenizer=demo[1], method=method, options=options)
    assert len(passes) <= 2  # inputs of about one length share a pass
    for one, other in zip(together, alone, strict=True):
        assert distance(one.scores, other.scores) <= 1e-5


def test_a_short_input_is_not_run_with_the_padding_of_a_long_one(demo, passes):
    explain(demo[0], [SHORT, LONG], tokenizer=demo[1], method="lime", options={"samples": 10})
    lengths = {example: {tokens for rows, tokens, _ in passes if example in rows} for example in (0, 1)}
    assert sorted(map(sorted, lengths.values())) == sorted([[count_of(demo[1], text)] for text in (SHORT, LONG)])


def masked_value(model, tokenizer, text, target):
    """The probability as a function of which tokens the attention mask keeps, with a plain call of the model."""
    given = tokenizer(text, return_tensors="pt")

    def value(present):
        mask = torch.ones(len(present), given["input_ids"].shape[1], dtype=torch.long)
        mask[:, 1:-1] = present.long()
        with torch.no_grad():
            logits = model(input_ids=given["input_ids"].repeat(len(present), 1), attention_mask=mask).logits
        return logits.softmax(1)[:, target]

    return value, torch.ones(1, given["input_ids"].shape[1] - 2)


def captum_scores(method, value, present):
    """Plain calls of Captum, one row at a time."""
    from captum._utils.models.linear_model import SkLearnLinearModel
    from captum.attr import FeatureAblation, KernelShap, Lime, Occlusion, ShapleyValueSampling
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    torch.manual_seed(0)
    options = {"n_samples": PERTURBATIONS[method]["samples"]} if PERTURBATIONS[method] else {}
    if method == "occlusion":
        return Occlusion(value).attribute(present, sliding_window_shapes=(3,))[0]
    kernel = get_exp_kernel_similarity_function("cosine", 0.25)
    made = {
        "feature_ablation": lambda: FeatureAblation(value),
        "lime": lambda: Lime(value, SkLearnLinearModel("linear_model.Ridge", alpha=1.0), kernel),
        "kernel_shap": lambda: KernelShap(value),
        "shapley_sampling": lambda: ShapleyValueSampling(value),
    }
    return made[method]().attribute(present, **options)[0]


@pytest.mark.parametrize("method", PERTURBATIONS)
def test_removed_tokens_are_left_out_and_the_scores_are_those_of_the_mask(demo, monkeypatch, method):
    model, tokenizer = demo
    shapes, kept = [], RemovalPredictor.kept

    def spy(self, index, tokens):
        variant = kept(self, index, tokens)
        shapes.append((len(tokens), variant.token_count))
        return variant

    options = {**PERTURBATIONS[method], "baseline": "removed"}
    explain(model, LONG, tokenizer=tokenizer, method=method, options=options)  # tries how tokens are removed
    monkeypatch.setattr(RemovalPredictor, "kept", spy)
    found = explain(model, LONG, tokenizer=tokenizer, method=method, options=options)
    value, present = masked_value(model, tokenizer, LONG, found.target)
    assert distance(found.scores[1:-1], captum_scores(method, value, present)) <= 1e-5
    assert found.info["baseline"] == "no token: masked as a key in every layer"
    assert all(tokens == run for tokens, run in shapes)  # only what is there is run
    assert min(tokens for tokens, _ in shapes) < present.shape[1] + 2


def test_removed_tokens_of_several_inputs_and_of_a_function(demo):
    model, tokenizer = demo
    options = {"samples": 30, "baseline": "removed"}
    both = explain(model, [SHORT, LONG], tokenizer=tokenizer, method="kernel_shap", options=options)
    for text, one in zip((SHORT, LONG), both, strict=True):
        alone = explain(model, text, tokenizer=tokenizer, method="kernel_shap", options=options)
        assert distance(one.scores, alone.scores) <= 1e-5
        assert one.completeness_gap <= 1e-5
    options = {"baseline": "removed"}
    chosen = explain(
        model,
        LONG,
        tokenizer=tokenizer,
        method="feature_ablation",
        options=options,
        target=lambda outputs: outputs.logits.double().softmax(1)[:, 0],
    )
    named = explain(model, LONG, tokenizer=tokenizer, method="feature_ablation", options=options, target=0)
    assert distance(chosen.scores, named.scores) <= 1e-5


def shortened_value(model, given, places, target):
    """The probability as a function of which tokens are not deleted, with plain calls of the model."""

    def value(present):
        found = []
        for row in present.bool():
            kept = torch.ones(given["input_ids"].shape[1], dtype=torch.bool)
            kept[places] = row
            with torch.no_grad():
                logits = model(**{name: tensor[:, kept] for name, tensor in given.items()}).logits
            found.append(logits.softmax(1)[0, target])
        return torch.stack(found)

    return value, torch.ones(1, len(places))


@pytest.mark.parametrize("method", PERTURBATIONS)
def test_deleted_tokens_shorten_the_text(demo, method):
    model, tokenizer = demo
    options = {**PERTURBATIONS[method], "baseline": "deleted"}
    found = explain(model, LONG, tokenizer=tokenizer, method=method, options=options)
    given = tokenizer(LONG, return_tensors="pt")
    places = torch.arange(1, given["input_ids"].shape[1] - 1)
    value, present = shortened_value(model, given, places, found.target)
    assert distance(found.scores[1:-1], captum_scores(method, value, present)) <= 1e-5
    assert found.scores[[0, -1]].tolist() == [0, 0]
    assert found.info["baseline"] == "no token: deleted, later tokens move up"
    masked = explain(model, LONG, tokenizer=tokenizer, method=method, options={**options, "baseline": "removed"})
    assert distance(found.scores, masked.scores) > 1e-4  # the positions of later tokens matter to this model


def test_deleted_tokens_of_several_inputs_and_of_a_pair(demo):
    model, tokenizer = demo
    texts, options = [SHORT, (SHORT, LONG), LONG], {"samples": 30, "baseline": "deleted"}
    together = explain(model, texts, tokenizer=tokenizer, method="kernel_shap", options=options)
    for text, one in zip(texts, together, strict=True):
        alone = explain(model, text, tokenizer=tokenizer, method="kernel_shap", options=options)
        assert distance(one.scores, alone.scores) <= 1e-5
        assert one.completeness_gap <= 1e-5
    pair = explain(model, texts[1], tokenizer=tokenizer, method="feature_ablation", options={"baseline": "deleted"})
    given = tokenizer(*texts[1], return_tensors="pt")
    assert given["token_type_ids"].any()  # the second text keeps its segment
    places = (~torch.tensor(pair.special)).nonzero()[:, 0]
    value, present = shortened_value(model, given, places, pair.target)
    assert distance(pair.scores[places], captum_scores("feature_ablation", value, present)) <= 1e-5


def test_leave_one_out_by_deletion_is_what_the_metrics_delete(demo):
    model, tokenizer = demo
    found = explain(model, LONG, tokenizer=tokenizer, method="feature_ablation", options={"baseline": "deleted"})
    example = {name: values[0] for name, values in tokenizer(LONG, return_tensors="pt").items()}

    def predict(examples):
        with torch.no_grad():
            logits = [model(**{name: values[None] for name, values in one.items()}).logits for one in examples]
        return torch.cat(logits).softmax(1)[:, found.target]

    probabilities = Probabilities(predict, example, torch.tensor(found.special))
    expected = probabilities.full() - probabilities.removed([(token,) for token in probabilities.tokens])
    assert distance(found.scores[list(probabilities.tokens)], expected.float()) <= 1e-5


@pytest.mark.parametrize("baseline", ["removed", "deleted"])
def test_where_tokens_cannot_be_left_out_it_is_said(demo, baseline):
    model, tokenizer = demo
    options = {"baseline": baseline}
    with pytest.raises(InvalidInputError, match=f"'{baseline}', which leaves tokens out"):
        explain(model, SHORT, tokenizer=tokenizer, method="integrated_gradients", options=options)
    ids = tokenizer(SHORT, return_tensors="pt")["input_ids"]
    with pytest.raises(InvalidInputError, match="no token of an input is known to be special"):
        explain(model, {"input_ids": ids}, method="lime", options=options)


class Counting:
    """A backend of torch.compile that counts the graphs that it compiles and runs."""

    def __init__(self):
        self.compiled = self.runs = 0

    def __call__(self, module, example_inputs):
        self.compiled += 1

        def run(*args):
            self.runs += 1
            return module.forward(*args)

        return run


@pytest.fixture
def counting():
    torch._dynamo.reset()
    yield Counting()
    torch._dynamo.reset()


class Words(nn.Module):
    """A classifier of (batch, tokens) ids, small enough to be traced within a second."""

    def __init__(self, *, reads_ids=False):
        super().__init__()
        torch.manual_seed(3)
        self.words, self.weight, self.reads_ids = nn.Embedding(12, 4), nn.Parameter(torch.randn(4, 2)), reads_ids
        self.config = SimpleNamespace(pad_token_id=0)

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None):
        states = self.words(input_ids) if inputs_embeds is None else inputs_embeds
        states = states.cumsum(1).tanh() * attention_mask[..., None]
        if self.reads_ids and input_ids is not None:
            states = states * (input_ids > 4)[..., None]
        return {"logits": states.sum(1) @ self.weight}


def wrapped(model, backend):
    return torch.compile(model, backend=backend)


def compiled_in_place(model, backend):
    model.compile(backend=backend)
    return model


def scores_of(model, ids, method="feature_ablation", **options):
    """`TokenScores` of the first class of one row of ids, with its first and last token special."""
    runner, scorer = EncoderRunner.of(model), find_method(method)
    special = torch.zeros_like(ids).bool()
    special[:, [0, -1]] = True
    batch = batch_of(runner, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, special)
    target = Target([None], runner.model, head=Function(lambda outputs: outputs["logits"][:, 0]))
    target.explained = (ExplainedTarget(None, "first", None),)
    with runner.session():
        return scorer.score(runner, batch, target, **read_options(scorer, options))


def ids_of(length):
    return torch.randint(2, 12, (1, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("compile_model", [wrapped, compiled_in_place])
def test_perturbation_methods_run_the_compiled_forward(counting, compile_model):
    rows = [ids_of(length) for length in (7, 12, 9, 15)]
    model = Words()
    expected = [scores_of(model, ids).scores for ids in rows]
    compiled, graphs = compile_model(model, counting), []
    for ids, scores in zip(rows, expected, strict=True):
        before = counting.runs
        found = scores_of(compiled, ids)
        assert counting.runs > before
        assert distance(found.scores, scores) <= 1e-5
        assert found.notes == ()
        graphs.append(counting.compiled)
    assert graphs[-1] == graphs[1] <= 4  # one row and many, each first of one length and then of any
    before = counting.runs
    scores_of(compiled, rows[0], "integrated_gradients", steps=3)
    assert counting.runs == before  # what is differentiated is the original module
    scores_of(compiled, rows[0], "lime", samples=20, baseline="removed")
    assert counting.runs > before


def test_a_model_that_reads_more_off_its_ids_is_run_as_it_was_before_compilation(counting):
    model, ids = Words(reads_ids=True), ids_of(9)
    expected = scores_of(model, ids).scores
    found = scores_of(torch.compile(model, backend=counting), ids)
    assert distance(found.scores, expected) <= 1e-5
    assert len(found.notes) == 1
    assert "The compiled model was not used" in found.notes[0]


def test_a_hook_of_the_caller_keeps_the_original_model(counting):
    model, seen = Words(), []
    runner, ids = EncoderRunner.of(torch.compile(model, backend=counting)), ids_of(6)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    handle = model.register_forward_hook(lambda *call: seen.append(1))
    with runner.session(), torch.no_grad():
        hooked = runner.replay(given)["logits"]
        handle.remove()
        assert (len(seen), counting.runs) == (1, 0)
        assert distance(runner.replay(given)["logits"], hooked) <= 1e-5
    assert counting.runs > 0


@pytest.mark.slow
def test_explain_runs_a_compiled_bert(demo, counting):
    model, tokenizer = tiny_bert(num_hidden_layers=1), demo[1]
    expected = explain(model, SHORT, tokenizer=tokenizer, method="lime", options={"samples": 30})
    compiled = torch.compile(model, backend=counting)
    found = explain(compiled, SHORT, tokenizer=tokenizer, method="lime", options={"samples": 30})
    assert counting.runs > 0
    assert distance(found.scores, expected.scores) <= 1e-5
    assert found.info["warnings"] == expected.info["warnings"]
