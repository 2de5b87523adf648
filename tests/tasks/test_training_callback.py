"""`ExplanationCallback`: what it logs is what the tasks say, and the training does not notice it."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

from hf_attn_mi import (
    ExplanationCallback,
    InvalidInputError,
    UnsupportedModelError,
    compare,
    fit_information,
    register_method,
)
from hf_attn_mi.heads import AttentionHeadForSequenceClassification
from hf_attn_mi.methods import TokenScores, unregister_method
from hf_attn_mi.tasks import training_callback
from tests.sample_models import DEMO, state_of, tiny_bert

GOOD, BAD = ("brilliant", "moving", "funny"), ("dull", "boring", "awful")
TOKENIZER = AutoTokenizer.from_pretrained(DEMO)


def sentences(count, seed=0):
    """Texts and labels: whether a film is good."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        word = chance.choice((BAD, GOOD)[number % 2])
        made.append((f"the {chance.choice(('film', 'plot', 'cast'))} number {number} is {word}", number % 2))
    return made


TEXTS = [text for text, _ in sentences(60, seed=1)]
ROWS = [{**TOKENIZER(text), "labels": label} for text, label in sentences(40)]


def plain_model():
    return tiny_bert()


def head_model():
    torch.manual_seed(0)
    return AttentionHeadForSequenceClassification.from_encoder(
        tiny_bert().bert,
        2,
        heads=2,
        queries=2,
        normalizer="gumbel",
        temperature={"kind": "linear", "start": 2.0, "end": 0.5, "steps": 4},
    )


def make_trainer(folder, model, *, steps=5, **options):
    """A Trainer that logs every step."""
    arguments = TrainingArguments(
        **{
            "output_dir": str(folder),
            "max_steps": steps,
            "per_device_train_batch_size": 4,
            "learning_rate": 5e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "seed": 3,
            "dataloader_pin_memory": False,
            **options,
        }
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=ROWS,
        data_collator=DataCollatorWithPadding(TOKENIZER),
        processing_class=TOKENIZER,
    )


def watched(folder, model, *, steps=5, trainer_options=(), **options):
    """A trained Trainer with the callback."""
    trainer = make_trainer(folder, model, steps=steps, **dict(trainer_options))
    trainer.add_callback(ExplanationCallback(trainer, TEXTS, **{"every": 2, "compared": 4} | options))
    trainer.train()
    return trainer


def own_lines(trainer):
    """The lines of the log history that the callback wrote."""
    return [line for line in trainer.state.log_history if "explanation_comprehensiveness" in line]


class DrawsRandomNumbers:
    """A method that uses every global random number generator."""

    name, reference, cost = "draws", "none", "no pass"
    class_linked = needs_gradients = additive = False
    options = {}  # noqa: RUF012

    def score(self, runner, batch, target):
        random.random(), np.random.rand(3)
        return TokenScores(torch.rand(batch.real.shape))


@pytest.fixture
def draws():
    register_method(DrawsRandomNumbers())
    yield "draws"
    unregister_method("draws")


@pytest.mark.parametrize("build", [plain_model, head_model], ids=["classifier", "head"])
def test_the_training_is_the_same_as_without_it(tmp_path, build, draws):
    without = make_trainer(tmp_path / "without", build())
    without.train()
    trainer = watched(tmp_path / "with", build(), method=draws, every=3)
    for (name, one), other in zip(without.model.state_dict().items(), trainer.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    own = [line["step"] for line in own_lines(trainer)]
    assert own == [0, 3, 5]
    clocks = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
    lines = [line for line in trainer.state.log_history if "explanation_comprehensiveness" not in line]
    for one, other in zip(without.state.log_history, lines, strict=True):
        assert {k: v for k, v in one.items() if k not in clocks} == {k: v for k, v in other.items() if k not in clocks}


def test_the_model_is_left_as_it_was(tmp_path):
    model = head_model().train()
    trainer = make_trainer(tmp_path, model)
    callback = ExplanationCallback(trainer, TEXTS, compared=4, examples=1)
    model(**DataCollatorWithPadding(TOKENIZER)(ROWS[:4])).loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    before, numbers = state_of(model), torch.random.get_rng_state()
    steps = int(model.head.steps_seen)
    callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=model)
    assert len(own_lines(trainer)) == 1
    assert state_of(model) == before
    assert torch.equal(torch.random.get_rng_state(), numbers)
    assert int(model.head.steps_seen) == steps
    assert gradients
    assert all(torch.equal(p.grad, gradients[name]) for name, p in model.named_parameters() if name in gradients)


def test_the_values_are_those_of_the_tasks(tmp_path):
    trainer = watched(tmp_path, head_model(), steps=2, examples=2)
    line = own_lines(trainer)[-1]
    model = trainer.model
    assert line["step"] == 2
    comparison = compare(model, TEXTS[:4], methods=["relevance"], tokenizer=TOKENIZER)
    for name in ("comprehensiveness", "sufficiency"):
        values = comparison.values["relevance"][name]
        assert line[f"explanation_{name}"] == pytest.approx(sum(values) / 4)
    profile = fit_information(model, TEXTS, tokenizer=TOKENIZER)
    assert line["information_ceiling"] == pytest.approx(profile.ceiling)
    for site in ("tokens", "first"):
        place = profile.find(2, site)  # the last of two layers
        assert line[f"information_{site}"] == pytest.approx(float(profile.information.nats[place]))
        for bound in ("lower_bound", "upper_bound"):
            wanted = float(getattr(profile.information, bound)[place])
            assert line[f"information_{site}_{bound}"] == pytest.approx(wanted)
        assert line[f"information_{site}_lower_bound"] <= line[f"information_{site}_upper_bound"]
    entropies, shares = [], []
    model.eval()
    for text in TEXTS[:4]:
        batch = TOKENIZER(text, return_tensors="pt")
        with torch.no_grad():
            weights = model(**batch).weights.double()
        entropy = float(-(weights * weights.log()).sum(-1).mean())
        entropies.append(entropy)
        shares.append(1 - entropy / math.log(weights.shape[-1]))
    assert line["head_entropy"] == pytest.approx(sum(entropies) / 4, rel=1e-5)
    assert line["head_concentration"] == pytest.approx(sum(shares) / 4, abs=1e-5)
    assert line["head_temperature"] == model.head.temperature == 2.0 - 1.5 * 2 / 4
    for step in (0, 2):
        page = (tmp_path / "explanations" / f"step-{step:08d}.html").read_text(encoding="utf-8")
        assert page.startswith("<!DOCTYPE html>")
        assert all(text.split()[3] in page for text in TEXTS[:2])
    assert all(" %" in line[f"explanation_of_text_{i}"] for i in range(2))


def test_tensorboard_shows_the_values_and_the_sentences(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reporting = {"report_to": ["tensorboard"]}
    trainer = watched(tmp_path, plain_model(), steps=2, trainer_options=reporting, examples=1)
    (file,) = tmp_path.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file.parent))
    events.Reload()
    lines = own_lines(trainer)
    for name, value in lines[-1].items():
        if name in ("step", "epoch"):
            continue
        if isinstance(value, str):
            logged = events.Tensors(f"train/{name}/text_summary")
            assert [one.tensor_proto.string_val[0].decode() for one in logged] == [line[name] for line in lines]
        else:
            logged = events.Scalars(f"train/{name}")
            assert [one.value for one in logged] == pytest.approx([line[name] for line in lines], rel=1e-6)
        assert [one.step for one in logged] == [0, 2]


def test_a_resumed_run_does_not_measure_a_step_again(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 2}
    options = {"information": False, "examples": 0, "trainer_options": saving}
    watched(tmp_path, plain_model(), steps=2, **options)
    trainer = make_trainer(tmp_path, plain_model(), steps=4, **saving)
    trainer.add_callback(ExplanationCallback(trainer, TEXTS[:4], every=2, information=False, examples=0, compared=4))
    trainer.train(resume_from_checkpoint=True)
    assert [line["step"] for line in own_lines(trainer)] == [0, 2, 4]
    assert not (tmp_path / "explanations").exists()
    assert not any(name.startswith("information") for line in own_lines(trainer) for name in line)


def test_what_cannot_be_measured_is_refused_at_the_start_and_a_warning_later(tmp_path, monkeypatch):
    regression = tiny_bert(num_labels=1)
    trainer = make_trainer(tmp_path, regression, steps=1)
    trainer.add_callback(ExplanationCallback(trainer, TEXTS))
    with pytest.raises(InvalidInputError, match="Mutual information needs a distribution"):
        trainer.train()

    def fails(*arguments, **options):
        raise InvalidInputError("model: weight x holds NaN")

    trainer = make_trainer(tmp_path, plain_model(), steps=2)
    trainer.add_callback(ExplanationCallback(trainer, TEXTS[:4], every=1, information=False, examples=0))

    class Break(TrainerCallback):
        def on_step_begin(self, args, state, control, **options):
            if state.global_step == 1:
                monkeypatch.setattr(training_callback, "compare", fails)

    trainer.add_callback(Break())
    with pytest.warns(UserWarning, match=r"step 2: faithfulness was not measured: model: weight x holds NaN"):
        trainer.train()
    assert [line["step"] for line in own_lines(trainer)] == [0, 1]
    assert trainer.state.global_step == 2


def test_wrong_arguments_are_named(tmp_path):
    trainer = SimpleNamespace(log=print)
    with pytest.raises(InvalidInputError, match="trainer must be a Trainer of transformers, not a list"):
        ExplanationCallback([], TEXTS)
    with pytest.raises(InvalidInputError, match=r"texts has 3 entries, at least 50 are needed.*information=False"):
        ExplanationCallback(trainer, TEXTS[:3])
    with pytest.raises(InvalidInputError, match="every must be a positive whole number, not 0"):
        ExplanationCallback(trainer, TEXTS, every=0)
    with pytest.raises(InvalidInputError, match="report_options must be a dictionary"):
        ExplanationCallback(trainer, TEXTS, report_options=["subgraph"])
    with pytest.raises(UnsupportedModelError, match="splits the weights among processes"):
        ExplanationCallback(SimpleNamespace(log=print, is_fsdp_enabled=True), TEXTS)
