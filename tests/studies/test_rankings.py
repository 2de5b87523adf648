"""Rankings of other papers: by hand on a BERT whose mechanism was planted, and against transformers and the package."""

import math

import pytest
import torch

from benchmarks.studies.causal import planted
from benchmarks.studies.faithfulness import judge, plan, value_shares
from benchmarks.studies.faithfulness.data import DataSet, Inputs
from benchmarks.studies.faithfulness.rankings import alti, bert, gim, globenc, libragrad, position_lrp, removal
from benchmarks.studies.faithfulness.rankings import transformer_attribution as chefer
from benchmarks.studies.faithfulness.rankings.gim import SoftmaxAtTemperature
from benchmarks.studies.faithfulness.rankings.other_starts import STARTS
from benchmarks.studies.faithfulness.rankings.registry import RANKINGS
from benchmarks.studies.faithfulness.run import NORMALIZED
from hf_attn_mi import compare, evaluation, explain
from hf_attn_mi.evaluation import Probabilities

TEXT = "The plot is thin, but the two leads are a joy."
IDS = planted.IDS[0]
LABEL = planted.MARK_AT
SLOPE = 6 * (1 - math.tanh(1) ** 2)  # of the margin 6 tanh(a) - 1.5 in the attention a to the label


@pytest.fixture(scope="module")
def one_head():
    """The label reaches the classifier through one head of the second layer; otherwise the answer is another class."""
    return planted.planted_bert(planted.MECHANISMS["a head of the second layer"][0])


@pytest.fixture(scope="module")
def two_steps():
    """The label reaches the classifier through the state of another token."""
    return planted.planted_bert(planted.MECHANISMS["a look-up through two layers"][0])


@pytest.fixture(scope="module")
def text(demo):
    return demo[1](TEXT, return_tensors="pt")["input_ids"][0]


@pytest.fixture(scope="module")
def inputs(demo):
    return Inputs(demo[0], demo[1], [TEXT], None, None, "")


def test_the_written_out_bert_gives_the_logits_and_states_of_transformers(demo, text):
    trace = bert.run(demo[0], text)
    with torch.no_grad():
        wanted = demo[0](input_ids=text[None], output_hidden_states=True)
    assert torch.allclose(trace.logits, wanted.logits, atol=1e-5)
    for layer, states in zip(trace.layers, wanted.hidden_states):
        assert torch.allclose(layer.states, states, atol=1e-5)
    changed = copy_with(demo[0].config, hidden_act="relu")
    with pytest.raises(ValueError, match="written for BERT with gelu"):
        bert.run(type("Other", (), {"config": changed})(), text)


def copy_with(config, **fields):
    other = type(config).from_dict(config.to_dict())
    for name, value in fields.items():
        setattr(other, name, value)
    return other


@pytest.mark.parametrize("name", RANKINGS)
def test_the_label_ranks_first_among_ordinary_tokens(name, one_head):
    scores = RANKINGS[name](one_head, IDS, 0)
    assert scores.shape == IDS.shape
    assert int(scores[1:].argmax()) + 1 == LABEL
    assert not scores.requires_grad


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("gradient x attention", SLOPE),
        ("generic attention", SLOPE / planted.HEADS),
        ("transformer attribution", SLOPE / planted.HEADS / 2),  # the product gives attention and values half each
        ("LibraGrad", 6 * math.tanh(1)),  # tanh as x times a constant
        ("position-aware LRP", 6 * math.tanh(1) / 2),  # the other half goes to queries and keys, which cancel
    ],
)
def test_the_score_of_the_label_in_closed_form(name, by_hand, one_head):
    assert float(RANKINGS[name](one_head, IDS, 0)[LABEL]) == pytest.approx(by_hand, rel=2e-3)


def test_generic_attention_multiplies_the_steps_of_a_look_up(two_steps):
    scores = RANKINGS["generic attention"](two_steps, IDS, 0)
    assert float(scores[planted.POINTER_AT]) == pytest.approx(SLOPE / planted.HEADS, rel=2e-3)
    assert float(scores[LABEL]) == pytest.approx((SLOPE / planted.HEADS) ** 2, rel=2e-3)


def test_atman_suppresses_one_key_in_closed_form(one_head):
    def loss(score):
        share = math.exp(score) / (math.exp(score) + len(IDS) - 1)
        return math.log1p(math.exp(-(6 * math.tanh(share) - 1.5)))

    wanted = loss(planted.SHARPNESS / 10) - loss(planted.SHARPNESS)
    assert float(RANKINGS["AtMan"](one_head, IDS, 0)[LABEL]) == pytest.approx(wanted, rel=1e-3)


def test_gim_takes_the_gradient_of_a_warmer_softmax():
    scores = torch.tensor([2.0 * math.log(3.0), 0.0], requires_grad=True)
    rows = SoftmaxAtTemperature.apply(scores)
    assert rows.tolist() == pytest.approx([0.9, 0.1])
    rows[0].backward()  # at temperature 2 the row is (3, 1) / 4
    assert scores.grad.tolist() == pytest.approx([0.75 * 0.25, -0.75 * 0.25])


def test_libragrad_is_relevance_and_positions_are_added_to_attnlrp(demo, text):
    target = int(demo[0](input_ids=text[None]).logits.argmax())
    scores = {name: explain(demo[0], TEXT, tokenizer=demo[1], method=name).scores for name in ("relevance", "attnlrp")}
    found = RANKINGS["LibraGrad"](demo[0], text, target)
    assert torch.allclose(found, scores["relevance"], atol=1e-5 * float(found.abs().max()))
    trace = bert.run(demo[0], text, position_lrp.ATTNLRP)
    words, positions = position_lrp.attnlrp_of_words_and_positions(trace, target)
    assert torch.allclose(words, scores["attnlrp"], atol=1e-5 * float(words.abs().max()))
    assert torch.allclose(RANKINGS["position-aware LRP"](demo[0], text, target), words + positions)
    assert float(positions.abs().max()) > 0.01 * float(words.abs().max())


def test_the_baseline_takes_the_part_of_padding_off_the_scores(demo, text):
    """Gradient x (x - [PAD]) is gradient x input less gradient x [PAD]: a token [PAD] has no score."""
    target = int(demo[0](input_ids=text[None]).logits.argmax())
    padding = demo[0].config.pad_token_id
    mixed = torch.cat([text[:3], torch.tensor([padding]), text[3:]])
    for name, rules in (("relevance, [PAD] baseline", libragrad.RULES), ("GIM, [PAD] baseline", gim.RULES)):
        scores = STARTS[name](demo[0], mixed, target)
        assert float(scores[3]) == 0.0
        trace = bert.run(demo[0], mixed, rules)
        (gradient,) = torch.autograd.grad(bert.explained_value(trace.logits, target).sum(), trace.words)
        plain = RANKINGS["LibraGrad" if "relevance" in name else "GIM"](demo[0], mixed, target)
        taken = (gradient[0] @ demo[0].get_input_embeddings().weight[padding]).detach()
        assert torch.allclose(scores, plain - taken, atol=1e-5 * float(plain.abs().max()))
        assert float(taken.abs().max()) > 0.01 * float(plain.abs().max())


def test_attcat_against_the_states_and_gradients_of_transformers(demo, text):
    model = demo[0]
    attention = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        outputs = model(input_ids=text[None], output_hidden_states=True, output_attentions=True)
    finally:
        model.set_attn_implementation(attention)
    states = outputs.hidden_states[:-1]
    gradients = torch.autograd.grad(outputs.logits[0, 1] - outputs.logits[0, 0], states)
    parts = [
        (state * gradient).sum(-1)[0] * rows[0].mean(0).mean(0)
        for state, gradient, rows in zip(states, gradients, outputs.attentions)
    ]
    assert torch.allclose(RANKINGS["AttCAT"](model, text, 1), sum(parts), atol=1e-6)


def test_shares_of_tokens_add_up_to_the_output_of_attention(demo, text):
    for layer in bert.run(demo[0], text).layers:
        shares = bert.transformed_vectors(layer).sum(1) + layer.module.attention.output.dense.bias
        assert torch.allclose(shares, layer.added[0], atol=1e-4)


@pytest.mark.parametrize("contributions", [alti.contributions, globenc.contributions])
def test_contributions_by_hand(contributions, one_head, demo, text):
    """Rows of one for ALTI, none for GlobEnc; a token that looks at itself alone is all of itself."""
    for layer in bert.run(demo[0], text).layers:
        sums = contributions(layer).sum(-1)
        assert torch.allclose(sums, torch.ones(len(text)), atol=1e-5) == (contributions is alti.contributions)
    layer = bert.run(one_head, IDS).layers[0]
    alone = {**vars(layer), "attention": torch.eye(len(IDS)).expand_as(layer.attention)}
    found = contributions(bert.Layer(**alone))
    assert torch.allclose(found / found.sum(-1, keepdim=True), torch.eye(len(IDS)), atol=1e-6)


def test_globenc_multiplies_the_norms_as_they_are(demo, text):
    """Rows are not divided by their sums, as in the authors' code."""
    scores = RANKINGS["GlobEnc"](demo[0], text, 0)
    matrices = [globenc.contributions(layer) for layer in bert.run(demo[0], text).layers]
    assert torch.allclose(scores, torch.linalg.multi_dot(matrices[::-1])[0], rtol=1e-5)
    assert float(scores.sum()) != pytest.approx(1.0, rel=0.1)


def test_alti_and_globenc_of_two_shares():
    """y = x_1 + x_2 with x_1 = (3, -3, 0, 0) and x_2 = (0, 0, 1, -1); normalizations divide by their own constant."""
    norm = torch.nn.LayerNorm(4, eps=0.0)
    shares = torch.tensor([[[3.0, -3.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]]])
    whole = shares.sum(1)
    std = math.sqrt(20 / 4)
    found = globenc.normalized(shares, whole, norm)
    assert torch.allclose(found, shares / std, atol=1e-6)
    near = (whole.abs().sum(-1, keepdim=True) - (whole[:, None] - shares).abs().sum(-1)).clamp_min(0)
    assert near.tolist() == [[6.0, 2.0]]


def test_rules_of_lrp_by_hand():
    linear = torch.nn.Linear(2, 1, bias=False)
    linear.weight.data = torch.tensor([[1.0, 1.0]])
    relevance = torch.tensor([[3.0]])
    assert chefer.through_linear(relevance, torch.tensor([[1.0, 2.0]]), linear).tolist() == [pytest.approx([1.0, 2.0])]
    assert chefer.through_linear(relevance, torch.tensor([[1.0, -1.0]]), linear).tolist() == [pytest.approx([3.0, 0.0])]
    first, second = torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0], [1.0]])
    one, other = chefer.through_product(torch.tensor([[8.0]]), first, second)
    assert one.tolist() == [pytest.approx([1.0, 3.0])]
    assert other.flatten().tolist() == pytest.approx([1.0, 3.0])
    one, other = chefer.through_sum(torch.tensor([6.0]), torch.tensor([1.0]), torch.tensor([2.0]))
    assert (float(one), float(other)) == pytest.approx((2.0, 4.0))
    one, other = chefer.through_sum(torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([-2.0]))
    assert (float(one), float(other)) == pytest.approx((0.6, 0.4))  # sizes, and no sum larger than what came in


def test_methods_that_remove_tokens_find_the_weights_of_a_sum():
    """p is .1 + .3 a + .2 b - .1 c of the tokens that are left: each method has to give these numbers."""
    weights = torch.tensor([0.0, 0.3, 0.2, -0.1, 0.0])

    def predict(examples):
        return torch.stack([0.1 + weights[example["input_ids"]].sum() for example in examples])

    special = torch.tensor([True, False, False, False, True])
    probabilities = Probabilities(predict, {"input_ids": torch.arange(5)}, special)
    for name in ("leave-one-out", "kernel SHAP"):
        assert removal.METHODS[name](probabilities).tolist() == pytest.approx([0.3, 0.2, -0.1], abs=1e-6)
    lime = removal.lime(probabilities)
    assert lime.argsort(descending=True).tolist() == [0, 1, 2]
    assert float(lime[0] / lime[1]) == pytest.approx(1.5, rel=0.1)  # the penalty shrinks all of them
    assert probabilities.evaluated == 8


def test_metrics_that_nothing_was_tuned_on_by_hand(demo, inputs, text):
    one = judge.Judged(inputs, TEXT)
    scores = torch.zeros(len(text))
    scores[4] = 1.0  # the whole score on one token
    with torch.no_grad():
        words = demo[0].get_input_embeddings()(text)
        without, alone = words.clone(), words * one.special.bool()[:, None]
        without[4], alone[4] = 0.0, words[4]
        logits = [demo[0](inputs_embeds=states[None]).logits for states in (words, without, alone)]
        whole, first, second = (float(row.double().softmax(-1)[0, one.target]) for row in logits)
    soft = one.softly(scores)
    assert soft["soft_comprehensiveness"] == pytest.approx(max(0, whole - first), abs=1e-6)
    assert soft["soft_sufficiency"] == pytest.approx(max(0, whole - second), abs=1e-6)
    assert one.softly(torch.zeros(len(text)))["soft_sufficiency"] is None
    scores = torch.arange(len(text), 0.0, -1)  # the order of the text
    ordinary, falls = len(text) - 2, []
    for share in (0.01, 0.05, 0.1, 0.2, 0.5):
        changed = text.clone()
        changed[1 : 1 + math.ceil(share * ordinary)] = demo[1].mask_token_id
        with torch.no_grad():
            p = demo[0](input_ids=changed[None]).logits.double().softmax(-1)[0, one.target]
        falls.append(math.log(float(p)) - math.log(whole))
    assert one.removed(scores, "mask")["log_odds"] == pytest.approx(sum(falls) / 5, abs=1e-5)


def test_a_judged_input_has_a_value_for_each_method_and_metric(inputs):
    dataset = DataSet("quick", "", "", 1, 64, False, 1, "")
    names = ("relevance", "GIM", "leave-one-out, attention mask")
    untuned, deleted = judge.judge(dataset, inputs, (0,), names, groups={"mask": "untuned", "delete": "judged"})
    assert (untuned["group"], untuned["removal"], deleted["group"], deleted["removal"]) == (
        "untuned",
        "mask",
        "judged",
        "delete",
    )
    assert set(untuned["values"]) == set(deleted["values"]) == set(names)
    metrics = {"comprehensiveness", "sufficiency", *judge.HIGHER}
    assert all(set(columns) == metrics for columns in untuned["values"].values())
    values = [column[0] for columns in deleted["values"].values() for column in columns.values()]
    assert all(isinstance(value, float) for value in values)


def test_a_row_has_the_removal_that_its_metrics_were_computed_with(inputs):
    dataset = DataSet("quick", "", "", 1, 64, False, 1, "")
    name = "leave-one-out, attention mask"
    (row,) = judge.judge(dataset, inputs, (0,), (name,), groups={"attention_mask": "sampled"})
    assert (row["group"], row["removal"], set(row["values"])) == ("sampled", "attention_mask", {name})
    one = judge.Judged(inputs, TEXT)
    probabilities = one.probabilities("attention_mask")
    wanted = evaluation.comprehensiveness(probabilities, one.scores(name)).mean
    assert row["values"][name]["comprehensiveness"] == [pytest.approx(wanted, abs=1e-6)]


def test_aopc_of_long_texts_is_normalized_as_compare_normalizes_that_of_short_ones(inputs):
    """The same beam over the same orders; `compare` refuses longer inputs, this does not."""
    dataset = DataSet("quick", "", "", 1, 64, False, 1, "")
    methods = ("relevance", "attnlrp", "attention")
    (row,) = judge.judge_normalized(dataset, inputs, (0,), methods, group=plan.BEAM, beam=5)
    options = {"methods": list(methods), "metrics": list(NORMALIZED), "tokenizer": inputs.tokenizer}
    wanted = compare(inputs.model, [TEXT], **options).values
    for method in methods:
        for metric in NORMALIZED:
            assert row["values"][method][metric] == pytest.approx(wanted[method][metric], abs=1e-5)
    ((low, high),) = row["limits"]
    assert high - low > 0.1


def test_units_of_rankings_come_from_all_data_sets_in_turns():
    units = plan.pending_units("rankings", [])
    assert [unit.dataset.name for unit in units[:6]] == ["sst2", "agnews", "imdb"] * 2
    done = {"kind": "run", "set": "sst2", "group": units[0].group, "removal": "delete"}
    done["places"] = list(units[0].positions)
    assert plan.pending_units("rankings", [done]) == units[1:]


def test_parts_of_the_value_add_up_and_agree_with_the_package(demo, text):
    """Under relevance nothing is left for constants; under AttnLRP the words have what the package's scores have."""
    target = int(demo[0](input_ids=text[None]).logits.argmax())
    found = {name: value_shares.parts_of(demo[0], text, target, rules) for name, rules in value_shares.METHODS.items()}
    assert abs(found["relevance"]["constants of the softmax"]) < 1e-4
    assert abs(found["attnlrp"]["constants of the softmax"]) > 0.01
    for name, shares in found.items():
        package = explain(demo[0], TEXT, tokenizer=demo[1], method=name)
        assert shares["words"] == pytest.approx(float(package.scores.sum() / package.value), abs=1e-4)
        assert sum(shares.values()) == pytest.approx(1.0)
    shares = {part: [share] for part, share in found["attnlrp"].items()}
    table = value_shares.table_of([{"set": "sst2", "method": "attnlrp", "places": [0], "shares": shares}])
    assert f"| SST-2 | attnlrp | 1 | {found['attnlrp']['words']:.0%} (" in table
