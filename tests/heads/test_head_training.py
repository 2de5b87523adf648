"""Training: with Trainer and accelerate, killed and resumed, checkpointed, in bf16, compiled; and the example."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from hf_attn_mi.heads import AttentionHeadForSequenceClassification
from tests.sample_models import DEMO, distance, tiny_bert

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_attention_head.py"
SCHEDULE = {"kind": "linear", "start": 2.0, "end": 0.5, "steps": 12}
OPTIONS = {"normalizer": "gumbel", "temperature": SCHEDULE, "score_size": 8}


def make(**options):
    torch.manual_seed(0)
    encoder = tiny_bert(max_position_embeddings=32).bert
    return AttentionHeadForSequenceClassification.from_encoder(encoder, 2, **(OPTIONS | options))


def rows(count=48):
    """Texts of 3 to 8 ids whose label is whether id 5 is in them."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(count):
        ids = torch.randint(6, 90, (3 + number % 6,), generator=generator)
        if number % 2:
            ids[0] = 5
        made.append({"input_ids": ids.tolist(), "labels": number % 2})
    return made


def collate(batch):
    longest = max(len(row["input_ids"]) for row in batch)
    ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in batch])
    return {"input_ids": ids, "attention_mask": ids != 0, "labels": torch.tensor([row["labels"] for row in batch])}


class Kill(TrainerCallback):
    """Ends the process's training in the middle, as a signal would."""

    def on_step_end(self, args, state, control, **options):
        if state.global_step == 5:
            raise KeyboardInterrupt


def trainer(folder, model=None, callbacks=(), **options):
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=8,
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        save_steps=4,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
        dataloader_pin_memory=False,
        **options,
    )
    set_seed(3)
    return Trainer(
        model=model or make(), args=arguments, train_dataset=rows(), data_collator=collate, callbacks=list(callbacks)
    )


def losses(run):
    return [line["loss"] for line in run.state.log_history if "loss" in line]


def test_killed_and_resumed_is_as_not_killed(tmp_path):
    whole = trainer(tmp_path / "whole")
    whole.train()
    killed = trainer(tmp_path / "killed", callbacks=[Kill()])
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    checkpoint = get_last_checkpoint(str(tmp_path / "killed"))
    assert checkpoint.endswith("checkpoint-4")
    torch.manual_seed(99)  # a new process: other random numbers, a fresh model
    resumed = trainer(tmp_path / "killed")
    resumed.train(resume_from_checkpoint=checkpoint)
    assert int(resumed.model.head.steps_seen) == int(whole.model.head.steps_seen) == 8
    for (name, one), other in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.allclose(one.double(), other.double(), atol=1e-6), name
    assert losses(resumed)[-4:] == pytest.approx(losses(whole)[-4:], abs=1e-5)
    assert losses(whole)[0] != losses(whole)[-1]


def test_it_learns_and_evaluates(tmp_path):
    run = trainer(tmp_path, make(normalizer="softmax", temperature=1.0), num_train_epochs=1)
    run.args.max_steps = 60
    run.train()
    found = run.predict(rows())
    logits = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
    assert logits.shape == (48, 2)  # without the weights, which have a length of their own in each batch
    assert float((logits.argmax(1) == found.label_ids).mean()) >= 0.9


def test_accelerate_prepares_it():
    accelerator = Accelerator(cpu=True)
    model = make(normalizer="softmax")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    batch = collate(rows(8))
    twin = make(normalizer="softmax").train()
    torch.manual_seed(1)
    loss = prepared.train()(**batch).loss
    torch.manual_seed(1)
    wanted = twin(**batch).loss
    assert torch.equal(loss, wanted)
    accelerator.backward(loss)
    optimizer.step()
    wanted.backward()
    expected = twin.head.classifier.weight - 0.1 * twin.head.classifier.weight.grad
    assert torch.allclose(accelerator.unwrap_model(prepared).head.classifier.weight, expected)


def gradients(model, batch):
    torch.manual_seed(7)
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("recurrence", [None, "bilstm"])
def test_gradient_checkpointing_gives_the_same_gradients(recurrence):
    batch = collate(rows(8))
    model = make(recurrence=recurrence).train()
    plain = gradients(model, batch)
    model.head.steps_seen.zero_()
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    for name, gradient in gradients(model, batch).items():
        assert torch.allclose(gradient, plain[name], atol=1e-6), name


@pytest.mark.parametrize("recurrence", [None, "bilstm"])
def test_bf16_autocast(recurrence):
    batch = collate(rows(8))
    model = make(recurrence=recurrence, normalizer="softmax").eval()
    wanted = model(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(**batch)
        found.loss.backward()
    assert distance(found.logits, wanted.logits) <= 0.05  # bfloat16 has 8 bits
    assert float((found.weights.float().sum(-1) - 1).abs().max()) <= 0.02
    assert bool((found.weights[~batch["attention_mask"][:, None, None]] == 0).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
def test_compiled_gives_the_same():
    batch = collate(rows(8))
    model = make(temperature=0.7).eval()
    with torch.no_grad():
        wanted = model(**batch)
        found = torch.compile(model)(**batch)
    assert distance(found.logits, wanted.logits) <= 1e-5
    assert torch.allclose(found.weights, wanted.weights, atol=1e-6)


# --- the example -------------------------------------------------------------------------------------------------


@pytest.fixture
def reviews(tmp_path):
    """Two files of made-up reviews, one JSON lines and one CSV."""
    words = {"dull": "bad", "awful": "bad", "fun": "good", "moving": "good"}
    texts = [(f"the {thing} was {w}", words[w]) for w in words for thing in ("film", "plot", "cast", "story", "lead")]
    train, dev = tmp_path / "train.jsonl", tmp_path / "dev.csv"
    train.write_text("".join(json.dumps({"text": text, "label": name}) + "\n" for text, name in texts))
    dev.write_text("text,label\n" + "".join(f"{text},{name}\n" for text, name in texts[::2]))
    return train, dev


def run_example(*arguments):
    space = runpy.run_path(str(EXAMPLE))
    return space, space["main"]([str(argument) for argument in arguments])


def test_the_example_trains_resumes_and_saves(reviews, tmp_path, capsys):
    train, dev = reviews
    common = [
        "--train",
        train,
        "--dev",
        dev,
        "--output",
        tmp_path / "out",
        "--batch-size",
        4,
        "--freeze-encoder",
        "--head-lr",
        "5e-3",
        "--normalizer",
        "gumbel",
        "--temperature",
        "1",
        "--anneal-to",
        "0.5",
    ]
    run_example(*common, "--epochs", 1)
    space, found = run_example(*common, "--epochs", 4, "--resume", "--patience", 3)
    assert "continues from checkpoint-5" in capsys.readouterr().out
    assert found["accuracy"] >= 0.9
    loaded = AttentionHeadForSequenceClassification.from_pretrained(tmp_path / "out")
    assert loaded.config.id2label == {0: "bad", 1: "good"}
    assert loaded.config.freeze_encoder
    assert loaded.head.temperature < 1.0
    assert space["EMBEDDED_MODEL"] == DEMO


def test_the_example_explains_while_it_trains(reviews, tmp_path):
    train, dev = reviews
    dev.write_text("text,label\n" + "".join(f"the film number {i} was dull,bad\n" for i in range(50)))
    common = ["--train", train, "--dev", dev, "--output", tmp_path / "out", "--freeze-encoder", "--epochs", 1]
    space, _ = run_example(*common, "--explain-every", 100)
    options = space["parse"]([str(word) for word in common])
    assert options.explain_every is None
    state = json.loads(next((tmp_path / "out").glob("checkpoint-*/trainer_state.json")).read_text())
    lines = [line for line in state["log_history"] if "head_concentration" in line]
    assert [line["step"] for line in lines] == [0, 1]  # one step of 20 rows in a batch of 32
    pages = sorted(path.name for path in (tmp_path / "out" / "explanations").iterdir())
    assert pages == ["step-00000000.html", "step-00000001.html"]


def test_accuracy_and_macro_f1_by_hand():
    space = runpy.run_path(str(EXAMPLE))
    logits = torch.eye(3)[[0, 0, 1, 1, 1]].numpy()
    wanted = torch.tensor([0, 1, 1, 1, 2]).numpy()
    found = space["accuracy_and_f1"](EvalPrediction(predictions=logits, label_ids=wanted))
    assert found["accuracy"] == pytest.approx(3 / 5)
    # class 0: tp 1, fp 1, fn 0 -> 2/3; class 1: tp 2, fp 1, fn 1 -> 2/3; class 2: never found -> 0
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_the_example_names_what_is_wrong(reviews, tmp_path):
    train, _ = reviews
    (tmp_path / "other.csv").write_text("text,label\nfine,superb\n")
    with pytest.raises(SystemExit, match="superb"):
        run_example("--train", train, "--dev", tmp_path / "other.csv", "--output", tmp_path / "out")
    (tmp_path / "bare.csv").write_text("text\nfine\n")
    with pytest.raises(SystemExit, match="--label-field"):
        run_example("--train", tmp_path / "bare.csv", "--output", tmp_path / "out")
