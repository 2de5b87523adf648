"""The model around the head: saved, loaded, piped, frozen, on any family of encoder, refused where it must be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    DistilBertModel,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    pipeline,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import hub

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.heads import AttentionHeadConfig, AttentionHeadForSequenceClassification
from tests.heads.families import FAMILIES, SIZES, tiny_encoder
from tests.sample_models import DEMO, TEXTS, distance


def with_head(encoder, **options):
    torch.manual_seed(1)
    return AttentionHeadForSequenceClassification.from_encoder(encoder, 2, **options).eval()


def batch_of(tokenizer):
    return tokenizer(TEXTS, padding=True, return_tensors="pt")


@pytest.fixture
def demo_head(demo):
    """The embedded encoder, by its path, with a head; and the tokenizer."""
    return with_head(str(DEMO), labels=["negative", "positive"], queries=2), demo[1]


LOAD = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from hf_attn_mi import explain
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
text = sys.argv[2]
with torch.no_grad():
    out = model(**tokenizer([text], return_tensors="pt"))
piped = pipeline("text-classification", model=sys.argv[1])(text)
explained = explain(model, text, tokenizer=tokenizer, method="head")
print(json.dumps({"logits": out.logits[0].tolist(), "weights": out.weights.flatten().tolist(), "piped": piped,
                  "scores": explained.scores.tolist(), "passes": int(model.head.steps_seen)}))
"""


def test_a_fresh_process_offline_loads_pipes_and_explains_it(demo_head, tmp_path):
    model, tokenizer = demo_head
    model.head.steps_seen += 7
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path), TEXTS[0]],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    with torch.no_grad():
        out = model(**tokenizer([TEXTS[0]], return_tensors="pt"))
    assert found["logits"] == pytest.approx(out.logits[0].tolist(), abs=1e-6)
    assert found["weights"] == pytest.approx(out.weights.flatten().tolist(), abs=1e-6)
    assert found["scores"] == pytest.approx(out.weights[0].mean((0, 1)).tolist(), abs=1e-6)
    assert found["passes"] == 7  # a temperature schedule goes on where it was
    assert found["piped"][0]["label"] == ["negative", "positive"][int(out.logits.argmax())]
    assert found["piped"][0]["score"] == pytest.approx(float(out.logits.softmax(-1).max()), abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"score": "deep", "normalizer": "gumbel", "hard": True, "heads": 4, "queries": 2, "score_size": 5},
        {"recurrence": "bilstm", "recurrence_size": 12, "head_dropout": 0.3, "freeze_encoder": True},
        {"score": "scaled_dot", "temperature": {"kind": "linear", "start": 2.0, "end": 0.5, "steps": 8}},
    ],
    ids=str,
)
def test_loaded_is_bit_equal_to_saved(demo, tmp_path, options):
    model = with_head(str(DEMO), **options)
    model.head.steps_seen += 3
    model.save_pretrained(tmp_path)
    loaded = AttentionHeadForSequenceClassification.from_pretrained(tmp_path)
    batch = batch_of(demo[1])
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert loaded.head.temperature == model.head.temperature
    for name in ("score", "normalizer", "head_temperature", "hard", "heads", "queries", "recurrence", "freeze_encoder"):
        assert getattr(loaded.config, name) == getattr(model.config, name), name
    assert all(p.requires_grad != model.config.freeze_encoder for p in loaded.encoder.parameters())


def test_missing_weights_are_drawn_anew_and_the_others_kept(demo, tmp_path):
    model = with_head(str(DEMO))
    model.head.steps_seen += 3
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["head.classifier.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = AttentionHeadForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.head.score.weight, model.head.score.weight)
    assert int(loaded.head.steps_seen) == 3
    drawn = loaded.head.classifier.weight
    assert 0.5 * 128**-0.5 <= float(drawn.abs().max()) <= 128**-0.5  # uniform, as torch draws a linear layer of 128
    assert not torch.equal(drawn, model.head.classifier.weight)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_encoders(family, tmp_path):
    model = with_head(tiny_encoder(family))
    ids = torch.randint(3, 30, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    ids[mask == 0] = 0
    types = torch.zeros_like(ids)  # what many tokenizers make, whatever the encoder takes
    out = model(input_ids=ids, attention_mask=mask, token_type_ids=types)
    assert bool((out.weights[1, ..., 4:] == 0).all())
    if family != "fnet":  # which mixes pads into its tokens: it takes no mask
        alone = model(input_ids=ids[1:, :4], attention_mask=mask[1:, :4])
        assert distance(out.logits[1:], alone.logits) <= 1e-5
    model.save_pretrained(tmp_path)
    loaded = AttentionHeadForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids=ids, attention_mask=mask, token_type_ids=types).logits, out.logits)


class Strict(DistilBertModel):
    """An encoder that takes nothing but ids, mask and embeddings."""

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None):
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds)


def test_token_types_are_left_out_where_the_encoder_takes_none():
    torch.manual_seed(0)
    model = with_head(Strict(tiny_encoder("distilbert").config))
    ids = torch.tensor([[1, 5, 2]])
    assert torch.equal(model(ids, token_type_ids=torch.zeros_like(ids)).logits, model(ids).logits)


def test_a_path_an_object_and_what_is_left_of_it():
    encoder = AutoModel.from_pretrained(DEMO)
    model = with_head(encoder)
    assert model.encoder is encoder  # itself, not a copy
    assert all(p.requires_grad for p in encoder.parameters())
    half = with_head(AutoModel.from_pretrained(DEMO, dtype=torch.bfloat16))
    assert half(torch.tensor([[2, 5, 3]])).logits.dtype == torch.bfloat16  # the head follows its encoder


def test_the_encoder_half_of_t5_is_loaded_as_such(tmp_path):
    torch.manual_seed(0)
    encoder = T5EncoderModel(T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    model = with_head(encoder)
    model.save_pretrained(tmp_path)
    loaded = AttentionHeadForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded.encoder) is T5EncoderModel
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_frozen_encoder_stays_in_evaluation_and_gets_no_gradient(demo):
    model = with_head(str(DEMO), freeze_encoder=True).train()
    assert model.head.training
    assert not any(module.training for module in model.encoder.modules())
    batch = batch_of(demo[1])
    first, second = (model.encoder(**batch).last_hidden_state for _ in range(2))
    assert torch.equal(first, second)  # no dropout
    model(**batch, labels=torch.zeros(len(TEXTS), dtype=torch.long)).loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.head.parameters())
    embeds = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    model.eval()(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits.sum().backward()
    assert float(embeds.grad.abs().sum()) > 0  # explanations need gradients of the inputs, whatever is frozen


def test_freezing_by_hand_as_adapters_do(demo):
    model = with_head(str(DEMO)).train()
    for parameter in model.encoder.parameters():
        parameter.requires_grad = False
    before = {name: p.clone() for name, p in model.encoder.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(**batch_of(demo[1]), labels=torch.zeros(len(TEXTS), dtype=torch.long)).loss.backward()
    optimizer.step()
    assert all(torch.equal(before[name], p) for name, p in model.encoder.named_parameters())
    assert any(module.training for module in model.encoder.modules())  # its dropout is on: nobody asked otherwise


def test_losses_of_the_three_problems():
    ids = torch.tensor([[2, 5, 3], [2, 6, 3]])
    for labels, problem, expected in (
        (torch.tensor([0, 1]), "single_label_classification", torch.nn.functional.cross_entropy),
        (
            torch.tensor([[0.0, 1.0], [1.0, 1.0]]),
            "multi_label_classification",
            torch.nn.functional.binary_cross_entropy_with_logits,
        ),
    ):
        model = with_head(str(DEMO), problem_type=problem)
        out = model(ids, labels=labels)
        assert torch.allclose(out.loss, expected(out.logits, labels))
    regression = AttentionHeadForSequenceClassification.from_encoder(str(DEMO), 1).eval()
    out = regression(ids, labels=torch.tensor([0.5, 2.0]))
    assert torch.allclose(out.loss, ((out.logits[:, 0] - torch.tensor([0.5, 2.0])) ** 2).mean())
    as_tuple = regression(ids, return_dict=False)
    assert torch.equal(as_tuple[0], out.logits)


def test_embeddings_can_be_resized(tmp_path):
    model = with_head(str(DEMO))
    count = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(count + 3)
    ids = torch.tensor([[2, count + 2, 3]])
    logits = model(ids).logits
    model.save_pretrained(tmp_path)
    assert torch.equal(AttentionHeadForSequenceClassification.from_pretrained(tmp_path)(ids).logits, logits)


# --- the Hub -----------------------------------------------------------------------------------------------------


def test_push_to_hub_sends_the_model_with_a_card_that_states_its_options(demo_head, monkeypatch):
    model, _ = demo_head
    sent = {}

    def no_card(*arguments, **options):
        raise EntryNotFoundError("none yet")

    class Client:
        def create_repo(self, repo_id, **options):
            return type("Url", (), {"repo_id": repo_id})()

        def create_branch(self, *arguments, **options):
            pass

        def create_commit(self, repo_id, operations, **options):
            sent.update({op.path_in_repo: Path(op.path_or_fileobj).read_bytes() for op in operations})
            return "done"

    monkeypatch.setattr(hub.ModelCard, "load", no_card)
    monkeypatch.setattr(hub, "hf_api", Client)
    assert model.push_to_hub("somebody/my-head") == "done"
    assert {"config.json", "model.safetensors", "README.md"} <= set(sent)
    card = sent["README.md"].decode()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-classification\n")
    use = 'pipeline("text-classification", "somebody/my-head")'
    for word in ("additive", "softmax", "2", "0 negative, 1 positive", use):
        assert word in card, word
    monkeypatch.setattr(hub.ModelCard, "load", lambda *a, **k: hub.ModelCard("---\ntags: [mine]\n---\nMy own words."))
    model.push_to_hub("somebody/my-head")
    assert b"My own words." in sent["README.md"]  # a card that somebody wrote stays


# --- refused -----------------------------------------------------------------------------------------------------


class NoStates(PreTrainedModel):
    """An encoder whose output lacks last_hidden_state."""

    config_class = CONFIG_MAPPING["bert"]
    base_model_prefix = "none"

    def forward(self, input_ids=None, **options):
        return BaseModelOutput()


def test_models_that_are_no_encoders_are_refused():
    classifier = BertForSequenceClassification(CONFIG_MAPPING["bert"](**SIZES))
    with pytest.raises(InvalidInputError, match=r"BertForSequenceClassification has a head of its own.*model\.bert"):
        with_head(classifier)
    with pytest.raises(InvalidInputError, match="Linear has no config"):
        with_head(torch.nn.Linear(2, 2))
    with pytest.raises(InvalidInputError, match=r"NoStates is not what AutoModel"):
        with_head(NoStates(CONFIG_MAPPING["bert"](**SIZES)))
    model = AttentionHeadForSequenceClassification(
        AttentionHeadConfig(encoder=CONFIG_MAPPING["bert"](**SIZES)), NoStates(CONFIG_MAPPING["bert"](**SIZES))
    )
    with pytest.raises(InvalidInputError, match="NoStates returns no last_hidden_state"):
        model(torch.tensor([[1, 2]]))


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (0, {}, ["num_labels is 0"]),
        (-2, {}, ["num_labels is -2"]),
        (2.0, {}, ["num_labels is 2.0"]),
        (2, {"labels": ["one"]}, ["1 names", "num_labels = 2"]),
        (2, {"scores": "deep"}, ["scores", "score, normalizer"]),
        (2, {"score": "dot"}, ["dot", "additive, deep, scaled_dot"]),
        (2, {"normalizer": "hardmax"}, ["hardmax", "softmax, gumbel"]),
        (2, {"temperature": 0.0}, ["temperature is 0.0", "above 0"]),
        (2, {"problem_type": "ranking"}, ["ranking", "regression"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(labels, options, words):
    def build_and_run():
        model = AttentionHeadForSequenceClassification.from_encoder(str(DEMO), labels, **options)
        model(torch.tensor([[2, 3]]), labels=torch.tensor([0]))

    with pytest.raises(InvalidInputError) as caught:
        build_and_run()
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_input_that_is_all_masked_is_refused():
    with pytest.raises(InvalidInputError, match="input 1 without a real token"):
        with_head(str(DEMO))(torch.tensor([[2, 3], [2, 3]]), attention_mask=torch.tensor([[1, 1], [0, 0]]))


def edited(model, folder, **changes):
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        place = config if name in config else config["encoder"]
        place[name] = value
    (folder / "config.json").write_text(json.dumps(config))


def test_a_newer_schema_and_another_width_are_refused(tmp_path):
    model = with_head(str(DEMO))
    edited(model, tmp_path, schema=2)
    with pytest.raises(InvalidInputError, match=r"schema 2.*up to 1.*upgrade"):
        AttentionHeadForSequenceClassification.from_pretrained(tmp_path)
    edited(model, tmp_path, hidden_size=64)
    with pytest.raises(InvalidInputError, match=r"states_size is 384.*bert.*64"):
        AttentionHeadForSequenceClassification.from_pretrained(tmp_path)


def test_pipelines_and_auto_classes_load_the_head(demo_head, tmp_path):
    model, tokenizer = demo_head
    model.save_pretrained(tmp_path)
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path)) is type(model)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    alone, together = [classify(text)[0] for text in TEXTS], classify(TEXTS, batch_size=len(TEXTS))
    for one, other in zip(alone, together, strict=True):
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
