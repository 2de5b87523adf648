"""Targets by name: values, names and probabilities against `model(**inputs)`, in every task, and refusals."""

import math
import re
from functools import cache
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import BertConfig

from hf_attn_mi import InvalidInputError, attention_maps, certify, compare, explain, minimal_tokens, recheck, targets
from hf_attn_mi.models.target_kinds.heads import check_head
from hf_attn_mi.models.target_kinds.registry import TARGET_KINDS, parse_target, unregister_target
from tests.sample_models import SIZES, TEXTS, distance, load_demo
from tests.zoo.building import rescale

LABELS = {0: "O", 1: "B-LOC", 2: "B-PER"}
TEXT = "The film was made by Tom and the film is dull."
QUESTION, CONTEXT = "Who is dull?", "The plot is thin and the jokes are old."
PARTS = {"attention_heads": 4, "ffn_dim": 64}
MASKED = "The [MASK] is [MASK] and long."


@cache
def tiny(name):
    """A random model of this class of transformers, for the embedded model's tokenizer."""
    torch.manual_seed(0)
    if name.startswith("GPT2"):
        ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
        config = transformers.GPT2Config(vocab_size=8000, n_embd=32, n_layer=2, n_head=4, **ids)
    elif name.startswith("Bart"):
        sizes = {
            f"{side}_{what}": n
            for side in ("encoder", "decoder")
            for what, n in (("layers", 2), ("attention_heads", 4))
        }
        ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "decoder_start_token_id": 3}
        config = transformers.BartConfig(
            vocab_size=8000, d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, **sizes, **ids
        )
    else:
        labels = {"id2label": LABELS} if "Token" in name else {}
        config = BertConfig(**SIZES, intermediate_size=64, **labels)
    model = getattr(transformers, name)(config)
    rescale(model)
    return model.eval()


@cache
def tokenizer():
    return load_demo()[1]


def outputs_of(model, *texts):
    """The outputs of a plain forward pass on one text or pair, and its tokens."""
    inputs = tokenizer()(*texts, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs), tokenizer().convert_ids_to_tokens(inputs["input_ids"][0])


def contrast(logits, chosen):
    logits = logits.double()
    return float(logits[chosen] - (logits.sum() - logits[chosen]) / (len(logits) - 1))


def told(name, text, target):
    """The explanation of a text by the tiny model of this name."""
    return explain(tiny(name), text, target=target, tokenizer=tokenizer())


def agrees(model, text, target, value, probability, name):
    """The explanation has this name and probability, and its scores are those of a function with this value."""
    found = explain(model, text, target=target, tokenizer=tokenizer())
    assert found.target_name == name
    assert found.completeness_gap < 1e-5
    if probability is None:
        assert found.probability is None
    else:
        assert found.probability == pytest.approx(probability, abs=1e-6)
    by_function = explain(model, text, target=value, tokenizer=tokenizer())
    assert distance(found.scores, by_function.scores) < 1e-5
    return found


def test_the_label_of_a_word_is_read_at_its_first_token():
    model = tiny("BertForTokenClassification")
    outputs, tokens = outputs_of(model, TEXT)
    place = [i for i, token in enumerate(tokens) if token == "film"][1]
    logits = outputs.logits[0, place]
    found = agrees(
        model,
        TEXT,
        targets.token(word="film", label="B-LOC", occurrence=1),
        lambda out: out.logits[:, place, 1] - out.logits[:, place, [0, 2]].mean(1),
        float(logits.softmax(0)[1]),
        "B-LOC of 'film'",
    )
    assert found.target == 1
    assert found.info["target"] == f"token(position={place}, label=1)"
    for same in (f"token(position={place}, label='B-LOC')", targets.token(span=(33, 37), label=1)):
        assert torch.equal(explain(model, TEXT, target=same, tokenizer=tokenizer()).scores, found.scores)
    tensors = tokenizer()(TEXT, return_tensors="pt")
    by_tensors = explain(
        model, dict(tensors), tokenizer=tokenizer(), target=targets.token(word="film", label=1, occurrence=1)
    )
    assert torch.equal(by_tensors.scores, found.scores)


def test_without_a_target_the_most_probable_entity_token_is_explained():
    model = tiny("BertForTokenClassification")
    for text, found in zip(TEXTS, explain(model, TEXTS, tokenizer=tokenizer())):
        outputs, _ = outputs_of(model, text)
        probabilities = outputs.logits[0].softmax(1)[1:-1, 1:]
        place, label = divmod(int(probabilities.argmax()), 2)
        assert found.info["target"] == f"token(position={place + 1}, label={label + 1})"
        assert found.probability == pytest.approx(float(probabilities.max()), abs=1e-6)
        assert LABELS[found.target] in found.target_name
        alone = explain(model, text, tokenizer=tokenizer())
        assert distance(found.scores, alone.scores) < 1e-5


def test_all_tokens_of_an_entity_have_the_mean_of_their_values():
    model = tiny("BertForTokenClassification")
    target = targets.token(word="made by", label="B-PER", tokens="all")
    outputs, _ = outputs_of(model, TEXT)
    agrees(
        model,
        TEXT,
        target,
        lambda out: (1.5 * out.logits[:, 4:6, 2] - out.logits[:, 4:6].sum(2) / 2).mean(1),
        float(outputs.logits[0, 4:6].softmax(1)[:, 2].mean()),
        "B-PER of 'made by'",
    )


@pytest.mark.parametrize("n", [0, 1])
def test_a_mask_is_filled(n):
    model = tiny("BertForMaskedLM")
    outputs, tokens = outputs_of(model, MASKED)
    place = [i for i, token in enumerate(tokens) if token == "[MASK]"][n]
    word = tokenizer().convert_tokens_to_ids("film")
    logits = outputs.logits[0, place]
    agrees(
        model,
        MASKED,
        targets.mask("film", n=n),
        lambda out: out.logits[:, place, word] - (out.logits[:, place].sum(1) - out.logits[:, place, word]) / 7999,
        float(logits.double().softmax(0)[word]),
        f"'film' for mask {n}",
    )
    best = explain(model, MASKED, target=targets.mask(n=n), tokenizer=tokenizer())
    assert best.target == int(logits.argmax())
    if n == 0:
        assert torch.equal(explain(model, MASKED, tokenizer=tokenizer()).scores, best.scores)


def test_a_causal_model_names_the_token_after_the_last():
    model = tiny("GPT2LMHeadModel")
    found = explain(model, TEXTS[:2], tokenizer=tokenizer())
    for text, one in zip(TEXTS, found):
        outputs, _ = outputs_of(model, text)
        logits = outputs.logits[0, -1].double()
        assert one.target == int(logits.argmax())
        assert one.probability == pytest.approx(float(logits.softmax(0).max()), abs=1e-6)
        assert one.target_name == f"next token {tokenizer().decode([one.target])!r}"
        assert one.completeness_gap < 1e-5
    agrees(
        model,
        TEXT,
        targets.next_token("film"),
        lambda out: (
            out.logits[:, -1, one] * (1 + 1 / 7999) - out.logits[:, -1].sum(1) / 7999
            if (one := tokenizer().convert_tokens_to_ids("film"))
            else None
        ),
        float(outputs_of(model, TEXT)[0].logits[0, -1].double().softmax(0)[tokenizer().convert_tokens_to_ids("film")]),
        "next token 'film'",
    )


def test_an_answer_is_the_sum_of_its_start_and_end_logit():
    model = tiny("BertForQuestionAnswering")
    outputs, tokens = outputs_of(model, QUESTION, CONTEXT)
    start, end = tokens.index("jokes"), tokens.index("old")
    starts, ends = outputs.start_logits[0].double().softmax(0), outputs.end_logits[0].double().softmax(0)
    pair = (QUESTION, CONTEXT)
    agrees(
        model,
        pair,
        targets.answer("jokes are old"),
        lambda out: out.start_logits[:, start] + out.end_logits[:, end],
        float(starts[start] * ends[end]),
        "answer 'jokes are old'",
    )
    agrees(
        model,
        pair,
        "answer_start('jokes')",
        lambda out: out.start_logits[:, start],
        float(starts[start]),
        "start of answer 'jokes'",
    )
    agrees(
        model, pair, "answer_end('old')", lambda out: out.end_logits[:, end], float(ends[end]), "end of answer 'old'"
    )


def test_the_best_answer_lies_in_the_context():
    model = tiny("BertForQuestionAnswering")
    outputs, tokens = outputs_of(model, QUESTION, CONTEXT)
    first = tokens.index("[SEP]") + 1
    sums = {
        (i, j): float(outputs.start_logits[0, i] + outputs.end_logits[0, j])
        for i in range(first, len(tokens) - 1)
        for j in range(i, len(tokens) - 1)
    }
    start, end = max(sums, key=sums.get)
    found = explain(model, (QUESTION, CONTEXT), tokenizer=tokenizer())
    assert found.info["target"] == f"answer(start={start}, end={end})"
    assert (
        found.info["target"]
        == explain(model, (QUESTION, CONTEXT), target="answer()", tokenizer=tokenizer()).info["target"]
    )


def test_a_decoder_writes_a_text():
    model = tiny("BartForConditionalGeneration")
    labels = tokenizer()(text_target="dull film", return_tensors="pt")["input_ids"]
    shifted = model.prepare_decoder_input_ids_from_labels(labels=labels)
    inputs = {**tokenizer()(TEXT, return_tensors="pt"), "decoder_input_ids": shifted}
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        logits = model(**inputs).logits[0].double()
    counted = [1, 2]  # without [CLS] and [SEP]
    chosen = labels[0, counted]

    def value(out):
        rows = out.logits[:, counted].double()
        picked = rows[:, [0, 1], chosen]
        return (picked - (rows.sum(2) - picked) / (rows.shape[2] - 1)).sum(1)

    found = explain(model, TEXT, target=targets.generated("dull film"), tokenizer=tokenizer())
    by_function = explain(model, inputs, target=value, tokenizer=tokenizer())
    assert distance(found.scores, by_function.scores) < 1e-5
    assert found.completeness_gap < 1e-5
    assert found.probability == pytest.approx(float(logits[counted].softmax(1)[[0, 1], chosen].prod()), rel=1e-5)
    assert found.target_name == "generated 'dull film'"
    name = "BartForConditionalGeneration"
    parts = [told(name, TEXT, f"generated('dull film', token={k})").scores for k in (0, 1)]
    assert distance(parts[0] + parts[1], found.scores) < 1e-5
    short = targets.generated("dull")
    mixed = told(name, TEXTS[:2], [short, targets.generated("dull film")])
    assert torch.equal(mixed[0].scores, told(name, TEXTS[0], short).scores)


def test_a_choice_is_its_own_row():
    model = tiny("BertForMultipleChoice")
    question = ("The film was", ["good and long.", "bad."])
    rows = tokenizer()([question[0]] * 2, question[1], padding=True, return_tensors="pt")
    tensors = {key: value[None] for key, value in rows.items()}
    with torch.no_grad():
        logits = model(**tensors).logits[0]
    best = int(logits.argmax())
    for inputs in (question, tensors, [question]):
        found = explain(model, inputs, tokenizer=tokenizer())
        found = found[0] if inputs == [question] else found
        assert found.target == best
        assert found.probability == pytest.approx(float(logits.softmax(0)[best]), abs=1e-6)
    for k, choice in enumerate(question[1]):
        found = told("BertForMultipleChoice", question, targets.choice(k))
        assert found.target_name == f"choice {k}: {choice!r}"
        assert found.texts == (question[0], choice)
        alone = told("BertForMultipleChoice", (question[0], choice), lambda out: out.logits[:, 0])
        assert distance(found.scores, alone.scores) < 1e-5
        assert found.completeness_gap < 1e-5
        assert found.layers[0].received.shape == (4, len(found.tokens))
        assert torch.equal(told("BertForMultipleChoice", question, k).scores, found.scores)
    token_set = minimal_tokens(model, question, tokenizer=tokenizer())
    assert token_set.p_all == pytest.approx(float(logits.softmax(0)[best]), abs=1e-6)
    assert recheck(model, token_set, question, tokenizer=tokenizer()).holds
    assert not compare(model, [question], methods=["relevance"], tokenizer=tokenizer()).failures
    assert (
        certify(model, question, tokenizer=tokenizer(), checked_rows=1).target_name
        == f"choice {best}: {question[1][best]!r}"
    )
    for target, message in (
        (targets.choice(2), "k must be 0 to 1"),
        ("token(position=1)", "head for choices"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            explain(model, question, tokenizer=tokenizer(), target=target)
    with pytest.raises(InvalidInputError, match="several choices"):
        attention_maps(model, question, tokenizer=tokenizer())
    with pytest.raises(InvalidInputError, match="head for classes of tokens"):
        told("BertForTokenClassification", TEXT, "choice(0)")


def test_margins_of_classes_and_of_targets(demo):
    model, tk = demo
    found = explain(model, TEXTS[0], target=targets.margin("positive", "negative"))
    by_hand = explain(model, TEXTS[0], target=lambda out: out.logits[:, 1] - out.logits[:, 0])
    assert distance(found.scores, by_hand.scores) < 1e-6
    assert found.target_name == "positive rather than negative"
    ner = tiny("BertForTokenClassification")
    here, there = (targets.token(position=i, label="B-LOC") for i in (2, 5))
    both = explain(ner, TEXT, target=targets.margin(here, there), tokenizer=tk)
    scores = [explain(ner, TEXT, target=one, tokenizer=tk).scores for one in (here, there)]
    assert distance(both.scores, scores[0] - scores[1]) < 1e-5
    with pytest.raises(InvalidInputError, match="both sides are class 1"):
        explain(model, TEXTS[0], target=targets.margin(1, "positive"))


def test_a_label_is_the_class_and_its_name_wins_over_a_call(demo):
    model = demo[0]
    assert explain(model, TEXTS[0], target=targets.label("negative")).scores.equal(
        explain(model, TEXTS[0], target=0).scores
    )
    other = load_demo()[0]  # a copy
    other.config.id2label = {0: "mask(0)", 1: "positive"}
    assert explain(other, TEXTS[0], target="mask(0)", tokenizer=demo[1]).target == 0


def test_a_function_may_take_the_encoded_input(demo):
    def last(outputs, encoded):
        return outputs.logits[:, -1] * len(encoded.tokens)

    found = explain(demo[0], TEXTS[:2], target=last)
    for text, one in zip(TEXTS, found):
        plain = explain(demo[0], text, target=lambda outputs: outputs.logits[:, -1])
        assert distance(one.scores, plain.scores * len(one.tokens)) < 1e-6


CASES = [
    ("BertForTokenClassification", TEXT, targets.token(word="film", label="B-LOC")),
    ("BertForTokenClassification", TEXT, None),
    ("BertForMaskedLM", MASKED, targets.mask("film", n=1)),
    ("BertForQuestionAnswering", (QUESTION, CONTEXT), targets.answer("jokes are old")),
    ("BertForQuestionAnswering", (QUESTION, CONTEXT), "answer_start()"),
    ("GPT2LMHeadModel", TEXT, targets.next_token("film")),
]


@pytest.mark.parametrize(("name", "text", "target"), CASES, ids=lambda value: str(value)[:40])
def test_every_target_works_in_every_task(name, text, target):
    model = tiny(name)
    settings = {"target": target, "tokenizer": tokenizer()}
    explained = explain(model, text, **settings)
    for method in ("attnlrp", "integrated_gradients", "occlusion", "attention"):
        other = explain(model, text, method=method, **settings)
        assert (other.target_name, other.info["target"]) == (explained.target_name, explained.info["target"])
    for removal in ("delete", "attention_mask"):
        compared = compare(model, [text], methods=["relevance", "random"], removal=removal, **settings)
        assert not compared.failures
    token_set = minimal_tokens(model, text, keep=0.8, **settings)
    assert token_set.p_all == pytest.approx(explained.probability, abs=1e-6)
    assert token_set.target_name == explained.target_name
    assert recheck(model, token_set, tokenizer=tokenizer()).holds
    if target is not None:
        certificate = certify(model, text, checked_rows=1, **settings)
        assert certificate.target_name == explained.target_name
        assert certificate.probability == pytest.approx(explained.probability, abs=1e-6)


def test_the_token_that_is_read_stays_where_others_are_removed():
    model = tiny("BertForTokenClassification")
    tk = tokenizer()
    place = 6
    target = targets.token(position=place, label=1)
    compared = compare(model, [TEXT], methods=["relevance"], metrics=["comprehensiveness"], tokenizer=tk, target=target)
    scores = explain(model, TEXT, target=target, tokenizer=tk).scores
    free = [i for i in range(1, len(scores) - 1) if i != place]
    order = sorted(free, key=lambda i: -float(scores[i]))
    ids = tk(TEXT)["input_ids"]
    drops = []
    for share in (0.01, 0.05, 0.1, 0.2, 0.5):
        gone = set(order[: math.ceil(share * len(free))])
        kept = torch.tensor([[number for i, number in enumerate(ids) if i not in gone]])
        with torch.no_grad():
            logits = model(input_ids=kept, attention_mask=torch.ones_like(kept)).logits[0]
        drops.append(float(logits[place - sum(i < place for i in gone)].softmax(0)[1]))
    full = float(outputs_of(model, TEXT)[0].logits[0, place].softmax(0)[1])
    (found,) = compared.values["relevance"]["comprehensiveness"]
    assert found == pytest.approx(full - sum(drops) / len(drops), abs=1e-5)


REFUSED = [
    ("BertForTokenClassification", "token(word='Rome')", r"'Rome' is not in the text"),
    ("BertForTokenClassification", "token(word='film', occurrence=2)", r"stands 2 times .* 0 to 1, not 2"),
    ("BertForTokenClassification", "token(word='film', label='B-ORG')", r"'B-ORG' is not a label.*B-LOC"),
    ("BertForTokenClassification", "token(position=99)", r"position must be a whole number from 0 to"),
    ("BertForTokenClassification", "token(word='film', position=1)", r"pass one of word=, position=.*and position"),
    ("BertForTokenClassification", "token(span=(5, 2))", r"span must be \(start, end\)"),
    ("BertForTokenClassification", "token(place=3)", r"unexpected keyword argument 'place'"),
    ("BertForTokenClassification", "token(word=film)", r"film is neither a text in quotes nor a number"),
    ("BertForTokenClassification", "token(word=__import__('os'))", r"none of the targets"),
    ("BertForMaskedLM", "mask()", r"has no mask token; write \[MASK\]"),
    ("BertForTokenClassification", "answer_start(position=2)", r"head for classes of tokens"),
    ("BertForTokenClassification", "generated('a')", r"is not an encoder-decoder"),
    ("BertForMaskedLM", "mask(n=1)", r"has no mask token"),
    ("BertForMaskedLM", "mask('film', n=-1)", r"n must be a whole number"),
    ("BertForMaskedLM", "token(word='film')", r"head for masked tokens"),
    ("BertModel", None, r"no class logits.*AutoModelForSequenceClassification.*similarity"),
    ("BartForConditionalGeneration", None, r"generated\("),
    ("BartForConditionalGeneration", "next_token('film')", r"encoder-decoder; use generated"),
    ("BertForQuestionAnswering", "answer(start=5, end=3)", r"end, token 3, stands before the start"),
    ("BertForQuestionAnswering", "answer(start=5)", r"both start= and end="),
]


@pytest.mark.parametrize(("name", "target", "message"), REFUSED, ids=str)
def test_what_does_not_fit_is_refused_with_the_reason(name, target, message):
    with pytest.raises(InvalidInputError, match=message):
        explain(tiny(name), TEXT, target=target, tokenizer=tokenizer())


def test_a_word_of_several_tokens_and_a_class_are_refused():
    with pytest.raises(InvalidInputError, match=r"not a single token of this model's vocabulary \(its tokens are"):
        explain(tiny("BertForMaskedLM"), MASKED, target=targets.mask("unforgettably"), tokenizer=tokenizer())
    with pytest.raises(InvalidInputError, match=r"the class of 'mask'; call it: targets\.mask"):
        explain(tiny("BertForMaskedLM"), MASKED, target=targets.mask, tokenizer=tokenizer())
    with pytest.raises(InvalidInputError, match="has no probability that a set of tokens could keep"):
        minimal_tokens(tiny("BertModel"), TEXT, target=targets.similarity("A film."), tokenizer=tokenizer())


def test_a_target_from_elsewhere_is_known_by_name_everywhere():
    class Silent:
        kind = "silent"

        def bind(self, one, runner):
            return targets.token(position=1, label=0).bind(one, runner)

    targets.register_target(Silent)
    try:
        assert isinstance(targets.silent(), Silent)
        found = explain(tiny("BertForTokenClassification"), TEXT, target="silent()", tokenizer=tokenizer())
        assert found.target_name == "O of 'The'"
        with pytest.raises(InvalidInputError, match="exists already"):
            targets.register_target(Silent)
    finally:
        unregister_target("silent")
    with pytest.raises(AttributeError, match="no attribute 'silent'"):
        _ = targets.silent


def test_the_public_module_names_every_target():
    assert set(TARGET_KINDS) <= set(targets.__all__)
    for name, kind in TARGET_KINDS.items():
        assert getattr(targets, name) is kind
        assert kind.kind == name


def test_a_string_gives_the_target_that_it_writes():
    assert parse_target("token(word='film', label='O')") == targets.token(word="film", label="O")
    nested = parse_target("margin(token(position=1, label=0), token(position=2, label=0))")
    assert nested == targets.margin(targets.token(position=1, label=0), targets.token(position=2, label=0))


@pytest.mark.parametrize("template", ["no place", "{1} and {0}", "{name}", "an open {", "{}.{:d}", 3])
def test_a_template_that_takes_no_label_is_refused(template):
    with pytest.raises(InvalidInputError, match="template must hold"):
        targets.entails("film", among=["film", "sports"], template=template)


@pytest.mark.parametrize("name", ["XLMWithLMHeadModel", "FlaubertWithLMHeadModel"])
@pytest.mark.parametrize("target", [targets.mask("a"), targets.next_token("a")])
def test_a_language_model_of_either_kind_takes_masks_and_next_tokens(name, target):
    check_head(target, SimpleNamespace(model=type(name, (), {})(), class_name=name))
    with pytest.raises(InvalidInputError, match="masked language models"):
        check_head(targets.mask("a"), SimpleNamespace(model=type("GPT2LMHeadModel", (), {})(), class_name="GPT2"))


@pytest.mark.parametrize(
    ("name", "inputs", "word", "target"),
    [
        ("BertForTokenClassification", TEXT, "film", "token(word='film')"),
        ("BertForQuestionAnswering", ("Who?", TEXT), "film", "answer('film')"),
        ("BertForMaskedLM", "A [MASK] film.", "dull", "mask('dull')"),
    ],
)
def test_a_word_that_is_no_label_names_the_target_of_the_word(name, inputs, word, target):
    with pytest.raises(InvalidInputError, match=f"is not a label.*{re.escape(target)} is a target of it"):
        explain(tiny(name), inputs, target=word, tokenizer=tokenizer())
    one = explain(tiny(name), inputs, target=target, tokenizer=tokenizer(), layers="none")
    assert word in one.target_name


def test_a_class_of_a_model_without_classes_names_the_target_of_its_head():
    for name, inputs, target, words in (
        ("BertForTokenClassification", TEXT, 1, 'a head for classes of tokens: pass target=token(word="...")'),
        ("BertForMaskedLM", "A [MASK] film.", 0, "a head for masked tokens: pass target=mask()"),
    ):
        with pytest.raises(InvalidInputError, match=re.escape(words)):
            explain(tiny(name), inputs, target=target, tokenizer=tokenizer())


def test_a_question_with_its_context_is_a_pair():
    with pytest.raises(InvalidInputError, match=re.escape("Two texts are a tuple: (question, context)")):
        explain(tiny("BertForQuestionAnswering"), {"question": "Who?", "context": TEXT}, tokenizer=tokenizer())


@pytest.mark.parametrize("other", ["", " ", "very " * 600])
def test_a_refusal_of_the_other_text_of_a_similarity_is_about_that_text(demo, other):
    encoder = demo[0].bert
    with pytest.raises(InvalidInputError, match=r"^target similarity: other (is an empty text|has 602 tokens)"):
        explain(encoder, "A warm film.", tokenizer=demo[1], target=targets.similarity(other))
