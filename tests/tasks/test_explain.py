"""`explain`: every form of input, model and target, and what never changes a score."""

import copy
import io
import sys
import threading
import warnings

import pytest
import torch
from transformers import AutoModel, BertConfig, BertForQuestionAnswering, BertForTokenClassification, pipeline

from hf_attn_mi import Explanation, InvalidInputError, UnsupportedModelError, explain
from tests.sample_models import (
    ANY_MODEL,
    DEMO,
    SIZES,
    TEXTS,
    distance,
    load_demo,
    reads_its_padding,
    state_of,
    tiny_bert,
    zoo_model,
)

PAIR = ("The film was long.", "Nobody liked it much.")
LONG = "a quietly moving film , dull and boring in places . " * 8


def alike(found, wanted, tolerance=1e-5):
    assert [one.tokens for one in found] == [one.tokens for one in wanted]
    for one, other in zip(found, wanted):
        assert distance(one.scores, other.scores) <= tolerance
        assert one.probability == pytest.approx(other.probability, rel=1e-5)
        for layer, same in zip(one.layers, other.layers, strict=True):
            assert distance(layer.received, same.received) <= tolerance
            assert torch.equal(layer.rank, same.rank)


# --- inputs ------------------------------------------------------------------------------------------------------


def test_a_text_gives_one_explanation(demo):
    found = explain(demo[0], TEXTS[0], tokenizer=demo[1])
    assert isinstance(found, Explanation)
    assert found.tokens == ("[CLS]", "a", "quietly", "moving", "film", ".", "[SEP]")
    assert found.texts == (TEXTS[0],)
    assert found.special == (True, *[False] * 5, True)
    assert [word.text for word in found.to_words()] == ["A", "quietly", "moving", "film", "."]
    assert found.target_name == "positive"


def test_the_tokenizer_is_found_beside_the_model(demo):
    alike([explain(demo[0], TEXTS[0])], [explain(demo[0], TEXTS[0], tokenizer=demo[1])], 0)


def test_a_list_gives_a_list_in_its_order(demo):
    found = explain(demo[0], TEXTS)
    assert [one.texts[0] for one in found] == TEXTS
    assert len(explain(demo[0], TEXTS[:1])) == 1


def test_pairs_keep_their_token_types(demo):
    found = explain(demo[0], PAIR)
    assert found.texts == PAIR
    assert {found.sequence_ids[i] for i, special in enumerate(found.special) if not special} == {0, 1}
    assert next(word.text for word in found.to_words() if word.sequence == 1) == "Nobody"
    model = copy.deepcopy(demo[0])
    with torch.no_grad():
        model.bert.embeddings.token_type_embeddings.weight[1].normal_()
    assert distance(explain(model, PAIR).scores, found.scores) > 1e-3
    together = explain(demo[0], [PAIR, (TEXTS[2], TEXTS[1]), PAIR])
    alike([together[0], together[2]], [found, found])


def encoded(demo, texts, **options):
    return demo[1](texts, padding=True, return_tensors="pt", **options)


def test_tensors_give_the_scores_of_their_texts(demo):
    model, tokenizer = demo
    wanted = explain(model, TEXTS)
    batch = encoded(demo, TEXTS)
    alike(explain(model, batch), wanted)
    alike(explain(model, batch, tokenizer=tokenizer), wanted)
    found = explain(model, dict(batch), tokenizer=tokenizer)
    alike(found, wanted)
    assert found[0].special == wanted[0].special
    lists = explain(model, {"input_ids": batch["input_ids"][0, :7].tolist()})
    assert distance(lists.scores, wanted[0].scores) <= 1e-5
    assert lists.tokens[0] == str(tokenizer.cls_token_id)


def test_the_side_on_which_a_tokenizer_pads_does_not_change_the_scores_of_texts(demo):
    left = copy.deepcopy(demo[1])
    left.padding_side = "left"
    alike(explain(demo[0], TEXTS, tokenizer=left), explain(demo[0], TEXTS))


def test_what_a_tokenizer_adds_for_itself_is_no_argument(demo):
    batch = encoded(demo, TEXTS[:2], return_offsets_mapping=True, return_special_tokens_mask=True)
    alike(explain(demo[0], batch), explain(demo[0], TEXTS[:2]))


def test_holes_in_the_mask_are_not_there(demo):
    model, tokenizer = demo
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    mask = torch.ones_like(ids)
    mask[0, 3] = 0
    for method in ANY_MODEL:
        found = explain(model, {"input_ids": ids, "attention_mask": mask}, method=method)
        assert found.scores[3] == 0.0
        assert all(float(layer.received[:, 3].abs().max()) == 0.0 and layer.n == 6 for layer in found.layers)
    moved = ids.clone()
    moved[0, 3] = tokenizer.convert_tokens_to_ids("awful")
    alike_scores = [explain(model, {"input_ids": x, "attention_mask": mask}).scores for x in (ids, moved)]
    assert distance(*alike_scores) < 1e-6


def test_unknown_words_are_words_not_special(demo):
    text = "a \u2603 film"
    for inputs in (text, encoded(demo, [text]), dict(encoded(demo, [text]))):
        found = explain(demo[0], inputs, tokenizer=demo[1])
        assert found.tokens[2] == "[UNK]"
        assert found.special == (True, False, False, False, True)


def test_embeddings_are_inputs_too(demo):
    model, tokenizer = demo
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    found = explain(model, {"inputs_embeds": model.get_input_embeddings()(ids).detach()})
    assert distance(found.scores, explain(model, TEXTS[0]).scores) < 1e-5
    assert found.info["space"] == "inputs_embeds"


@pytest.mark.parametrize("name", ["imgcls-vit", "audcls-wav2vec2", "audcls-audio-spectrogram-transformer"])
def test_images_and_audio(name):
    model, inputs = zoo_model(name)
    found = explain(model, inputs)
    assert len(found) == 2
    for i, one in enumerate(found):
        assert one.completeness_gap < 1e-4
        assert bool((one.scores != 0).any())
        with torch.no_grad():
            wanted = model(**inputs).logits[i].softmax(0).max()
        assert one.probability == pytest.approx(float(wanted), abs=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "Une com\u00e9die d\u2019une dr\u00f4lerie folle \U0001f600\U0001f44d\U0001f3fd!",  # emoji with a modifier
        "\u05d6\u05d4\u05d5 \u05e1\u05e8\u05d8 \u05d8\u05d5\u05d1",  # Hebrew, from right to left
        "\u4e00\u90e8\u597d\u7535\u5f71",  # Chinese, no spaces
        "supercalifragilisticexpialidocious " + "x" * 300,
        "[MASK] <b>good</b> [SEP] & 'bad'",
        "one\nline two\ttab",
        "e\u0301legant",  # a letter and a combining accent
    ],
)
def test_words_are_slices_of_any_text(demo, text):
    found = explain(demo[0], text)
    words = found.to_words()
    assert words
    for word in words:
        assert word.text == text[word.start : word.end]
    total = sum(word.score for word in words) + float(found.scores[torch.tensor(found.special)].sum())
    assert total == pytest.approx(float(found.scores.sum()), abs=1e-4)
    assert Explanation.from_dict(found.to_dict()) == found


# --- models ------------------------------------------------------------------------------------------------------


def test_a_pipeline_brings_its_tokenizer(demo):
    pipe = pipeline("text-classification", model=demo[0], tokenizer=demo[1], device="cpu")
    alike(explain(pipe, TEXTS[:2]), explain(demo[0], TEXTS[:2]))
    assert explain(pipe, TEXTS[0]).probability == pytest.approx(pipe(TEXTS[0])[0]["score"], abs=1e-5)


def test_compiled_models(fresh):
    model, _ = fresh
    wanted = explain(model, TEXTS)
    wrapped = torch.compile(model, backend="eager")
    with torch.no_grad():
        wrapped(input_ids=torch.tensor([[2, 5, 6, 3]]))
    alike(explain(wrapped, TEXTS), wanted)
    model.compile(backend="eager")
    alike(explain(model, TEXTS), wanted)


def test_a_model_prepared_by_accelerate(fresh):
    from accelerate import Accelerator

    model, tokenizer = fresh
    wanted = explain(model, TEXTS)
    prepared = Accelerator(cpu=True).prepare(model)
    alike(explain(prepared, TEXTS, tokenizer=tokenizer), wanted)


def test_data_parallel_wrappers_are_taken_off(fresh):
    alike(explain(torch.nn.DataParallel(fresh[0]), TEXTS[:2]), explain(fresh[0], TEXTS[:2]), 0)


def test_models_that_answer_with_tuples(fresh):
    wanted = explain(fresh[0], TEXTS)
    fresh[0].config.return_dict = False
    alike(explain(fresh[0], TEXTS), wanted, 0)
    assert fresh[0].config.return_dict is False


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_callers_without_gradients_get_the_same(demo, mode):
    with mode():
        found = explain(demo[0], TEXTS[:2])
        from_tensors = explain(demo[0], {"input_ids": torch.tensor([[2, 5, 6, 3]])})
    alike(found, explain(demo[0], TEXTS[:2]), 0)
    assert from_tensors.completeness_gap < 1e-5


def test_under_autocast(demo):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = explain(demo[0], TEXTS[0])
    assert distance(found.scores, explain(demo[0], TEXTS[0]).scores) < 0.1


# --- targets -----------------------------------------------------------------------------------------------------


def test_targets_by_number_name_and_list(demo):
    model, tokenizer = demo
    with torch.no_grad():
        probabilities = model(**tokenizer(TEXTS[0], return_tensors="pt")).logits[0].double().softmax(0).tolist()
    for target, index in ((None, 1), (0, 0), (1, 1), ("positive", 1), ("NEGATIVE", 0), (torch.tensor(0), 0)):
        found = explain(model, TEXTS[0], target=target)
        assert (found.target, found.target_name) == (index, ["negative", "positive"][index])
        assert found.probability == pytest.approx(probabilities[index], rel=1e-5)
    other, own = explain(model, TEXTS[0], target=0).scores, explain(model, TEXTS[0], target=1).scores
    assert distance(other, -own) < 1e-5  # two classes: one speaks against the other
    each = explain(model, TEXTS[:3], target=[0, "positive", None])
    assert [one.target for one in each[:2]] == [0, 1]
    assert [one.target for one in explain(model, TEXTS[:2], target=torch.tensor([1, 0]))] == [1, 0]


def test_three_classes_are_explained_against_the_mean_of_the_others():
    model, inputs = tiny_bert(num_labels=3), {"input_ids": torch.tensor([[2, 50, 60, 3]])}
    by_class = explain(model, inputs, target=2)
    by_hand = explain(model, inputs, target=lambda out: out.logits[:, 2] - out.logits[:, :2].mean(1))
    assert distance(by_class.scores, by_hand.scores) < 1e-5
    assert (by_hand.target, by_hand.probability) == (None, None)


def test_a_regression_is_explained_by_its_value():
    inputs = {"input_ids": torch.tensor([[2, 50, 60, 3]])}
    one = tiny_bert(num_labels=1)
    found = explain(one, inputs)
    assert (found.target, found.probability) == (0, None)
    assert distance(found.scores, explain(one, inputs, target=lambda out: out.logits[:, 0]).scores) < 1e-6
    several = tiny_bert(num_labels=3, problem_type="regression")
    found = explain(several, inputs, target=1)
    assert found.probability is None
    assert distance(found.scores, explain(several, inputs, target=lambda out: out.logits[:, 1]).scores) < 1e-6


def test_labels_of_a_multi_label_model_are_independent():
    model, inputs = tiny_bert(num_labels=3, problem_type="multi_label_classification"), torch.tensor([[2, 50, 60, 3]])
    found = explain(model, {"input_ids": inputs}, target=1)
    with torch.no_grad():
        assert found.probability == pytest.approx(float(model(input_ids=inputs).logits[0, 1].sigmoid()), rel=1e-5)
    assert distance(found.scores, explain(model, {"input_ids": inputs}, target=lambda o: o.logits[:, 1]).scores) < 1e-6


def test_functions_explain_models_without_a_class(demo):
    torch.manual_seed(0)
    config = BertConfig(**SIZES, intermediate_size=64)
    bare, span = AutoModel.from_config(config), BertForQuestionAnswering(config)
    tags = BertForTokenClassification(config)

    def starts_at_second(outputs):
        return outputs.start_logits[:, 1]

    found = explain(span.eval(), TEXTS[:3], tokenizer=demo[1], target=starts_at_second)
    assert [one.target_name for one in found] == ["starts_at_second"] * 3
    for model, function in ((bare, lambda o: o.last_hidden_state[:, 0, 5]), (tags, lambda o: o.logits[:, 2, 1])):
        found = explain(model.eval(), TEXTS[:2], tokenizer=demo[1], target=function)
        assert all(one.completeness_gap < 1e-5 for one in found)
        alike_scores = explain(model, TEXTS[1], tokenizer=demo[1], target=function).scores
        assert distance(found[1].scores, alike_scores) < 1e-5


# --- what never changes a score ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ANY_MODEL)
def test_padding_batch_size_and_order_change_nothing(demo, method):
    model, _ = demo
    wanted = [explain(model, text, method=method) for text in TEXTS]
    for size in (1, 2, 16):
        alike(explain(model, TEXTS, method=method, batch_size=size), wanted)
    order = [3, 0, 4, 2, 1]
    alike(explain(model, [TEXTS[i] for i in order], method=method), [wanted[i] for i in order])


@pytest.mark.parametrize("kind", ["xlnet", "convbert"])
def test_models_that_read_their_padding(demo, kind):
    model, tokenizer = reads_its_padding(kind), demo[1]
    with torch.no_grad():  # the premise: this model's output does change with the padding
        alone = model(**tokenizer(TEXTS[1], return_tensors="pt")).logits
        beside = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits[1:2]
    assert distance(beside, alone) > 1e-3
    alike(explain(model, TEXTS, tokenizer=tokenizer), [explain(model, t, tokenizer=tokenizer) for t in TEXTS])


# --- what was seen in the layers ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_run():
    """A text with more tokens than head_dim, and query, key and value of each layer, caught by hooks."""
    model, tokenizer = load_demo()
    caught, handles = {}, []
    for index, layer in enumerate(model.bert.encoder.layer):
        for name in ("query", "key", "value"):
            module = getattr(layer.attention.self, name)
            handles.append(
                module.register_forward_hook(
                    lambda module, args, output, at=(index, name): caught.__setitem__(at, output.detach().double())
                )
            )
    batch = tokenizer(LONG, return_tensors="pt")
    with torch.no_grad():
        model(**batch)
    for handle in handles:
        handle.remove()
    return model, batch, {at: t[0].unflatten(-1, (12, 32)).transpose(0, 1) for at, t in caught.items()}


def test_layers_equal_a_singular_value_decomposition(long_run):
    model, batch, caught = long_run
    found = explain(model, LONG)
    n = batch["input_ids"].shape[1]
    assert n > 32
    for index, layer in enumerate(found.layers):
        assert (layer.layer, layer.n, layer.head_dim) == (index, n, 32)
        assert layer.name == f"bert.encoder.layer.{index}.attention.self"
        a = (caught[index, "query"] @ caught[index, "key"].transpose(1, 2) / 32**0.5).softmax(-1)
        for head in range(12):
            u, s, _ = torch.linalg.svd(caught[index, "value"][head], full_matrices=False)
            rank = int((s > s[0] * n * 1.2e-7).sum())
            assert int(layer.rank[head]) == rank
            effective = a[head] @ u[:, :rank] @ u[:, :rank].t()
            difference = (a[head] - effective).norm() / a[head].norm()
            assert float(layer.null_space_fraction[head]) == pytest.approx(float(difference), rel=1e-3)
            assert distance(layer.received_effective[head], effective.mean(0)) < 1e-3
        entropy = -(a * a.log()).sum(-1).mean(-1)
        torch.testing.assert_close(layer.entropy.double(), entropy, rtol=1e-4, atol=1e-5)


def test_received_attention_is_the_mean_of_the_models_own(fresh):
    model, tokenizer = fresh
    found = explain(model, TEXTS, method="attention")
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(**tokenizer(TEXTS, padding=True, return_tensors="pt"), output_attentions=True).attentions
    for i, one in enumerate(found):
        n = len(one.tokens)
        for layer, weights in zip(one.layers, attentions, strict=True):
            assert distance(layer.received, weights[i, :, :n, :n].mean(1)) < 1e-5
        mean = torch.stack([weights[i, :, :n, :n].mean((0, 1)) for weights in attentions]).mean(0)
        assert distance(one.scores, mean) < 1e-5
    alike(explain(model, TEXTS, method="attention"), found)


def test_rollout_by_hand(fresh):
    model, tokenizer = fresh
    found = explain(model, TEXTS[0], method="rollout")
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(**tokenizer(TEXTS[0], return_tensors="pt"), output_attentions=True).attentions
    joint = torch.eye(len(found.tokens))
    for weights in attentions:
        joint = 0.5 * (weights[0].mean(0) + torch.eye(len(joint))) @ joint
    assert distance(found.scores, joint.mean(0)) < 1e-5


def test_support_of_efficient_attention_is_at_most_the_rank(long_run):
    model, _, caught = long_run
    found = explain(model, LONG, method="efficient")
    for index, layer in enumerate(found.layers):
        values = caught[index, "value"]
        rank = torch.linalg.matrix_rank(torch.cat([values, torch.ones_like(values[..., :1])], -1))
        assert bool((layer.support_size <= rank + 1e-6).all())
        assert bool((layer.support_size >= 1).all())
    assert float(found.scores.sum()) == pytest.approx(1.0, abs=1e-4)
    assert bool((found.scores >= 0).all())
    assert all(layer.support_size is None for layer in explain(model, TEXTS[0]).layers)


def test_explanations_are_lean_and_reload(demo, tmp_path):
    n = len(demo[1](LONG)["input_ids"])
    for method in ANY_MODEL:
        found = explain(demo[0], LONG, method=method)
        for layer in found.layers:
            assert all(value.numel() <= 12 * n for value in vars(layer).values() if isinstance(value, torch.Tensor))
        found.save(tmp_path / f"{method}.json.gz")
        assert Explanation.load(tmp_path / f"{method}.json.gz") == found
    assert {"model", "method", "versions", "seconds", "space", "reference", "dtype"} <= set(found.info)
    assert found.info["model"] == "embedded_model"


def test_encoder_decoders_show_their_encoder_and_what_the_decoder_reads_of_it():
    for name in ("seqcls-bart", "seqcls-t5"):
        model, inputs = zoo_model(name)
        found = explain(model, inputs)
        for one in found:
            encoder = [layer for layer in one.layers if layer.kind != "cross"]
            assert len(encoder) == 2
            assert all(layer.name.startswith(("encoder", "model.encoder", "transformer.encoder")) for layer in encoder)
            cross = [layer for layer in one.layers if layer.kind == "cross"]
            assert len(cross) == 2
            assert all("decoder" in layer.name for layer in cross)


# --- length ------------------------------------------------------------------------------------------------------


def test_long_texts_are_cut_on_request_only(demo):
    text = "good " * 600
    with pytest.raises(InvalidInputError, match=r"602 tokens, the model takes 512.*truncation=True"):
        explain(demo[0], text)
    with pytest.warns(UserWarning, match="cut from 602 to 512 tokens") as caught:
        found = explain(demo[0], [TEXTS[0], text], truncation=True)
    assert caught[0].filename == __file__
    assert [len(one.tokens) for one in found] == [7, 512]
    assert any("602" in note for note in found[1].info["warnings"])
    assert not found[0].info["warnings"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(demo[0], "good " * 510)


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_progress_bar_only_where_somebody_waits_and_watches(demo, monkeypatch):
    for stream, size, shown in ((Screen(), 2, True), (Screen(), 16, False), (io.StringIO(), 2, False)):
        monkeypatch.setattr(sys, "stderr", stream)
        explain(demo[0], TEXTS, batch_size=size)
        assert ("explain: 100%" in stream.getvalue()) == shown
        assert shown or stream.getvalue() == ""


# --- nothing is left behind --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ANY_MODEL)
def test_the_model_is_as_before(fresh, method):
    model, _ = fresh
    model.train()
    model.bert.encoder.layer[1].eval()
    model.bert.embeddings.requires_grad_(False)
    model.config._attn_implementation = "sdpa"
    before = state_of(model)
    first = explain(model, TEXTS, method=method)
    assert state_of(model) == before
    alike(explain(model, TEXTS, method=method), first, 0)  # no dropout inside, although it is in training

    def broken(outputs):
        raise RuntimeError("from the caller")

    with pytest.raises(RuntimeError, match="from the caller"):
        explain(model, TEXTS, method=method, target=broken)
    assert state_of(model) == before
    if method != "relevance":
        return
    with pytest.raises((InvalidInputError, UnsupportedModelError)):
        explain(model, TEXTS, target=lambda outputs: outputs.logits)
    assert state_of(model) == before


def test_images_leave_no_hook_behind():
    model, inputs = zoo_model("imgcls-vit")
    before = state_of(model)
    explain(model, inputs)
    with pytest.raises(ZeroDivisionError):
        explain(model, inputs, target=lambda outputs: 1 / 0)
    assert state_of(model) == before


def in_threads(jobs):
    results, start = {}, threading.Barrier(len(jobs))

    def work(key, job):
        start.wait()
        try:
            results[key] = [job() for _ in range(4)]
        except BaseException as error:
            results[key] = error

    threads = [threading.Thread(target=work, args=item) for item in jobs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_two_threads_share_one_model(fresh):
    model, _ = fresh
    model.train()  # a thread that leaves must not switch dropout on for the other
    before = state_of(model)
    wanted = {0: explain(model, TEXTS), 1: explain(model, TEXTS[::-1], method="rollout")}
    found = in_threads({0: lambda: explain(model, TEXTS), 1: lambda: explain(model, TEXTS[::-1], method="rollout")})
    for key, runs in found.items():
        assert not isinstance(runs, BaseException), runs
        for run in runs:
            alike(run, wanted[key], 1e-6)
    assert state_of(model) == before


def test_two_threads_share_one_image_model():
    model, inputs = zoo_model("imgcls-vit")
    one, two = {"pixel_values": inputs["pixel_values"][:1]}, {"pixel_values": inputs["pixel_values"][1:]}
    wanted = [explain(model, one).scores, explain(model, two).scores]
    found = in_threads({0: lambda: explain(model, one), 1: lambda: explain(model, two)})
    for key, runs in found.items():
        assert not isinstance(runs, BaseException), runs
        assert all(distance(run.scores, wanted[key]) < 1e-5 for run in runs)


def test_decoder_inputs_are_not_taken_for_the_encoders():
    classifier, inputs = zoo_model("seqcls-bart")
    model = classifier.model
    decoder = inputs["input_ids"].flip(1)  # as long as the padded input; the second input is shorter
    assert int(inputs["attention_mask"][1].sum()) < decoder.shape[1]

    def last(outputs):
        return outputs.last_hidden_state[:, -1, 3]

    found = explain(model, {**inputs, "decoder_input_ids": decoder}, target=last)
    single = explain(model, {"input_ids": inputs["input_ids"][1:, :12], "decoder_input_ids": decoder[1:]}, target=last)
    assert distance(found[1].scores, single.scores) < 1e-5
    assert found[1].completeness_gap < 1e-5


def test_the_embedded_model_lies_where_the_tests_say():
    assert (DEMO / "config.json").is_file()


# --- statistics of the layers -------------------------------------------------------------------------------------


def test_less_of_the_layers_changes_no_score(demo):
    model, tokenizer = demo
    for method in ("relevance", "attention", "effective", "efficient", "saliency"):
        full, summary, none = (
            explain(model, LONG, tokenizer=tokenizer, method=method, layers=layers)
            for layers in ("full", "summary", "none")
        )
        assert distance(summary.scores, full.scores) <= 1e-6
        assert distance(none.scores, full.scores) <= 1e-6
        assert (len(full.layers), len(none.layers)) == (3, 0)
        for layer, wanted in zip(summary.layers, full.layers, strict=True):
            assert torch.equal(layer.rank, wanted.rank)
            assert distance(layer.entropy, wanted.entropy) <= 1e-6
            assert distance(layer.received, wanted.received) <= 1e-6
            assert (layer.null_space_fraction is None) == (method != "effective")
        assert "layers" in none.info
        assert str(none)
        assert none.to_html()


def test_a_level_of_the_layers_that_does_not_exist_is_refused(demo):
    with pytest.raises(InvalidInputError, match="layers must be one of 'full', 'summary', 'none', not 'all'"):
        explain(demo[0], TEXTS[0], layers="all")
