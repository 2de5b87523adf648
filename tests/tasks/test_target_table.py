"""Every target in every task: it answers, or is refused with the reason that docs/targets.md states."""

import json
import re
from pathlib import Path

import pytest
import torch
import transformers

from hf_attn_mi import InvalidInputError, certify, compare, explain, minimal_attention, minimal_tokens, report
from hf_attn_mi.cli import main
from hf_attn_mi.models.target_kinds.registry import TARGET_KINDS
from tests.media_models import SPEECH, feature_extractor, tone, write_wav
from tests.sample_models import SIZES, load_demo
from tests.zoo.building import rescale

PAGE = Path(__file__).parents[2] / "docs" / "targets.md"
TASKS = ("explain", "compare", "minimal_tokens", "certify", "minimal_attention", "report", "hf-attn-mi explain")
INTERNAL = {"entity", "pipeline_entity"}  # what pipelines answer; `token` is what people write
REASONS = {"no probability": "has no probability that a set", "no tokens to remove": "remove tokens from texts"}
TEXT, PAIR = "The film was made by Tom.", ("Who made it?", "The film was made by Tom.")
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "decoder_start_token_id": 2}
HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
BART = {"vocab_size": 8000, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, **HEADS, **SPECIAL}
GPT2 = {"vocab_size": 8000, "n_embd": 32, "n_layer": 2, "n_head": 4, **SPECIAL}


def labels(*names):
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


CASES = {  # target -> class and configuration of a model, and its input
    'label("positive")': ("BertForSequenceClassification", labels("negative", "positive"), TEXT),
    'margin("positive", "negative")': ("BertForSequenceClassification", labels("negative", "positive"), TEXT),
    "value()": ("BertForSequenceClassification", {"num_labels": 1}, TEXT),
    'token(word="film", label="B-LOC")': ("BertForTokenClassification", labels("O", "B-LOC"), TEXT),
    'mask("film")': ("BertForMaskedLM", {}, "The [MASK] was made by Tom."),
    'answer("Tom")': ("BertForQuestionAnswering", {}, PAIR),
    "answer_start()": ("BertForQuestionAnswering", {}, PAIR),
    "answer_end()": ("BertForQuestionAnswering", {}, PAIR),
    'next_token("film")': ("GPT2LMHeadModel", GPT2, TEXT),
    'generated("a film")': ("BartForConditionalGeneration", BART, TEXT),
    'similarity("A dull story.")': ("BertModel", {}, TEXT),
    "choice(1)": ("BertForMultipleChoice", {}, ("The story was", ["funny.", "dull."])),
    'entails("film", among=["film", "sports"])': (
        "BertForSequenceClassification",
        labels("entailment", "neutral", "contradiction"),
        TEXT,
    ),
    "frame(2, 5)": ("Wav2Vec2ForCTC", {**SPEECH, "vocab_size": 32}, None),
}


def table():
    """(target, task) -> the cell of the page."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = [row for row in rows if len(row) == len(TASKS) + 1]
    return {(row[0].strip("`"), task): cell for row in rows for task, cell in zip(TASKS, row[1:], strict=True)}


def build(target):
    """The model, its input, and what prepares the input."""
    name, settings, inputs = CASES[target]
    model_class = getattr(transformers, name)
    base = {**SIZES, "intermediate_size": 64} if name.startswith("Bert") else {}
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**{**base, **settings}))
    rescale(model)
    if inputs is not None:
        return model.eval(), inputs, {"tokenizer": load_demo()[1]}
    recording = feature_extractor("wav2vec2")(tone(0.3), sampling_rate=16000, return_tensors="pt")
    return model.eval(), dict(recording), {}


def on_the_command_line(target, model, inputs, folder, capsys):
    """The name of what was explained."""
    model.save_pretrained(folder)
    if isinstance(inputs, dict):
        feature_extractor("wav2vec2").save_pretrained(folder)
        words = ["--audio", str(write_wav(folder / "tone.wav", tone(0.3)))]
    else:
        load_demo()[1].save_pretrained(folder)
        text, second = (inputs, None) if isinstance(inputs, str) else inputs
        pair = [] if second is None else ["--pair", second]
        choices = [word for choice in second for word in ("--choice", choice)] if isinstance(second, list) else pair
        words = [text, *choices]
    arguments = ["--model", str(folder), "--target", target, "--layers", "none", "--json", "-"]
    status = main(["explain", *words, *arguments])
    output = capsys.readouterr()
    assert status == 0, output.err
    return json.loads(output.out)[0]["target_name"]


@pytest.mark.parametrize("target", CASES)
def test_a_target_answers_in_each_task_as_the_table_says(target, tmp_path, capsys):
    model, inputs, options = build(target)
    several = inputs if isinstance(inputs, dict) else [inputs, inputs]
    options["target"] = target
    quick = {"methods": (), "attention": "none", "subgraph": False, "token_set": False, "certificate": False}
    runs = {
        "explain": lambda: explain(model, inputs, layers="none", **options),
        "compare": lambda: compare(model, several, methods=("relevance", "random"), **options),
        "minimal_tokens": lambda: minimal_tokens(model, inputs, budget=30, **options),
        "certify": lambda: certify(model, inputs, checked_rows=2, **options),
        "minimal_attention": lambda: minimal_attention(model, inputs, unit="layer", budget=30, **options),
        "report": lambda: report(model, inputs, **quick, **options),
    }
    page, name = table(), runs["explain"]().target_name
    for task, run in runs.items():
        if page[target, task] == "yes":
            result = run()
            assert (result.items[0].explanations[0] if task == "report" else result).target_name == name
        else:
            with pytest.raises(InvalidInputError, match=re.escape(REASONS[page[target, task]])):
                run()
    assert page[target, TASKS[-1]] == "yes"
    assert on_the_command_line(target, model, inputs, tmp_path, capsys) == name


def test_the_table_has_every_target():
    found = {target for target, _ in table()}
    assert found == set(CASES)
    assert {target.partition("(")[0] for target in found} == set(TARGET_KINDS) - INTERNAL
