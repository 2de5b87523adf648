"""Train an attention head on any Hugging Face encoder and any labeled data set, with the Trainer of transformers.

    python examples/train_attention_head.py --encoder sentence-transformers/all-MiniLM-L6-v2 \\
        --train stanfordnlp/sst2:train --dev stanfordnlp/sst2:validation --output my_head --freeze-encoder
    python examples/train_attention_head.py --train train.jsonl.gz --dev dev.csv --output my_head --score deep \\
        --normalizer gumbel --temperature 2 --anneal-to 0.5 --anneal-steps 500

Data are rows with a text (or a pair of texts) and a label: .jsonl, .json, .csv or .tsv (each also as .gz), a folder
saved by `datasets`, or a Hub name "name:split". The best epoch is kept; `--resume` goes on from the last checkpoint.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

import hf_attn_mi
from hf_attn_mi.data.files import load_folder, load_hub, read_file
from hf_attn_mi.data.texts import text_columns
from hf_attn_mi.heads import AttentionHeadForSequenceClassification

DEMO = Path(hf_attn_mi.__file__).parent / "demo_model"
NEVER = 1_000_000  # evaluations without a gain
LABELS = ("label_name", "label", "labels", "class", "target")
Row = tuple[tuple[str, ...], Any]  # the text or the two texts, and the label as it stands in the data


def load_rows(source: str, text_field: Sequence[str] | None, label_field: str | None) -> list[Row]:
    """Return the rows of a file, a folder saved by `datasets`, or a Hub name."""
    path = Path(source)
    data = load_folder(path) if path.is_dir() else read_file(path) if path.is_file() else load_hub(source)
    rows, texts, label = [], tuple(text_field or ()), label_field
    for row in data:
        texts = texts or text_columns(list(row))
        label = label or next((name for name in LABELS if name in row), None)
        if label is None:
            raise SystemExit(f"{source}: no column of labels among {list(row)}; name it with --label-field")
        rows.append((tuple(str(row[name]) for name in texts), row[label]))
    if not rows:
        raise SystemExit(f"{source}: no rows")
    return rows


def read_splits(options: argparse.Namespace) -> tuple[list[Row], list[Row], list[str]]:
    """Return training rows, evaluation rows and the label names; labels are numbers in the rows."""
    train = load_rows(options.train, options.text_field, options.label_field)
    random.Random(options.seed).shuffle(train)
    if options.dev is None:
        cut = max(1, len(train) // 10)
        train, dev = train[cut:], train[:cut]
    else:
        dev = load_rows(options.dev, options.text_field, options.label_field)
    train, dev = train[: options.limit], dev[: options.limit_dev]
    found = {label for _, label in train}
    names = sorted(found, key=lambda label: (0, int(label), "") if str(label).isdigit() else (1, 0, str(label)))
    missing = sorted({str(label) for _, label in dev if label not in found})
    if missing:
        raise SystemExit(f"the evaluation data have labels that training does not: {', '.join(missing)}")
    numbers = {label: number for number, label in enumerate(names)}
    return (
        [(texts, numbers[label]) for texts, label in train],
        [(texts, numbers[label]) for texts, label in dev],
        [str(name) for name in names],
    )


def encode(rows: list[Row], tokenizer: Any, longest: int) -> list[dict[str, Any]]:
    """Return what the Trainer reads: token ids without padding, and the label."""
    columns = [[texts[i] for texts, _ in rows] for i in range(len(rows[0][0]))]
    encoded = tokenizer(*columns, truncation=True, max_length=longest)
    return [
        {**{name: values[i] for name, values in encoded.items()}, "labels": label} for i, (_, label) in enumerate(rows)
    ]


def accuracy_and_f1(prediction: EvalPrediction) -> dict[str, float]:
    """Return accuracy and macro F1: 2 TP / (2 TP + FP + FN), mean over the classes that occur."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    found, wanted = torch.as_tensor(logits).argmax(-1), torch.as_tensor(prediction.label_ids)
    scores = []
    for label in sorted(set(found.tolist()) | set(wanted.tolist())):
        hits = int(((found == label) & (wanted == label)).sum())
        scores.append(2 * hits / (int((found == label).sum()) + int((wanted == label).sum())))
    return {"accuracy": float((found == wanted).double().mean()), "macro_f1": sum(scores) / len(scores)}


def build_model(options: argparse.Namespace, labels: list[str]) -> AttentionHeadForSequenceClassification:
    """Return the encoder with a fresh head."""
    temperature: Any = options.temperature
    if options.anneal_to is not None:
        temperature = {
            "kind": options.anneal,
            "start": temperature,
            "end": options.anneal_to,
            "steps": options.anneal_steps,
        }
    return AttentionHeadForSequenceClassification.from_encoder(
        options.encoder,
        len(labels),
        labels=labels,
        score=options.score,
        normalizer=options.normalizer,
        temperature=temperature,
        hard=options.hard,
        heads=options.heads,
        queries=options.queries,
        score_size=options.score_size,
        recurrence=options.recurrence,
        recurrence_size=options.recurrence_size,
        head_dropout=options.head_dropout,
        freeze_encoder=options.freeze_encoder,
    )


def optimizer_of(model: AttentionHeadForSequenceClassification, options: argparse.Namespace) -> torch.optim.AdamW:
    """Return AdamW with one rate for the head, which is new, and a smaller one for the encoder, which is not."""
    groups: list[dict[str, Any]] = [{"params": list(model.head.parameters()), "lr": options.head_lr}]
    if not options.freeze_encoder:
        groups.append({"params": list(model.encoder.parameters()), "lr": options.lr})
    return torch.optim.AdamW(groups, weight_decay=0.01)


def make_trainer(options: argparse.Namespace) -> Trainer:
    """Return a Trainer with everything in it."""
    set_seed(options.seed)
    train, dev, labels = read_splits(options)
    tokenizer = AutoTokenizer.from_pretrained(options.encoder)
    model = build_model(options, labels)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    longest = min(options.max_length, tokenizer.model_max_length)
    when = "epoch" if options.eval_steps is None else "steps"
    arguments = TrainingArguments(
        output_dir=str(options.output),
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=64,
        warmup_steps=options.warmup,
        eval_strategy=when,
        save_strategy=when,
        logging_steps=options.log_steps,
        eval_steps=options.eval_steps,
        save_steps=options.eval_steps or 500,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        train_sampling_strategy="group_by_length",
        seed=options.seed,
        bf16=options.bf16,
        report_to=[],
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=encode(train, tokenizer, longest),
        eval_dataset=encode(dev, tokenizer, longest),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=accuracy_and_f1,
        optimizers=(optimizer_of(model, options), None),
        # Always there: the Trainer cannot resume with a callback that the checkpoint does not know.
        callbacks=[EarlyStoppingCallback(options.patience or NEVER)],
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default=str(DEMO), help="Hub name or path (default: the embedded demo model)")
    parser.add_argument("--train", required=True, help="file, folder saved by datasets, or Hub name:split")
    parser.add_argument("--dev", help="likewise; by default a tenth of the training rows")
    parser.add_argument("--text-field", nargs="+", help="column of the text, or two of a pair")
    parser.add_argument("--label-field", help=f"column of the label (default: the first of {', '.join(LABELS)})")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints and the model")
    head = parser.add_argument_group("head")
    head.add_argument("--score", default="additive", help="additive, deep or scaled_dot")
    head.add_argument("--normalizer", default="softmax", help="softmax or gumbel")
    head.add_argument("--temperature", type=float, default=1.0)
    head.add_argument("--anneal-to", type=float, help="temperature at the end; from --temperature")
    head.add_argument("--anneal", default="exponential", help="exponential or linear")
    head.add_argument("--anneal-steps", type=int, default=1000, help="training passes until the end is reached")
    head.add_argument("--hard", action="store_true", help="one-hot weights, straight-through gradient")
    head.add_argument("--heads", type=int, default=1)
    head.add_argument("--queries", type=int, default=1)
    head.add_argument("--score-size", type=int)
    head.add_argument("--recurrence", choices=["bilstm"])
    head.add_argument("--recurrence-size", type=int)
    head.add_argument("--head-dropout", type=float, default=0.1)
    training = parser.add_argument_group("training")
    training.add_argument("--freeze-encoder", action="store_true")
    training.add_argument("--epochs", type=float, default=3)
    training.add_argument("--max-steps", type=int, default=-1)
    training.add_argument("--batch-size", type=int, default=32)
    training.add_argument("--lr", type=float, default=5e-5, help="of the encoder")
    training.add_argument("--head-lr", type=float, default=1e-3)
    training.add_argument("--warmup", type=int, default=0, help="steps")
    training.add_argument("--max-length", type=int, default=128, help="tokens")
    training.add_argument("--limit", type=int, help="most training rows")
    training.add_argument("--limit-dev", type=int, help="most evaluation rows")
    training.add_argument("--eval-steps", type=int, help="evaluate and save every so many steps, not every epoch")
    training.add_argument("--log-steps", type=int, default=50)
    training.add_argument("--patience", type=int, default=0, help="stop after so many evaluations without a gain")
    training.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --output, if any")
    training.add_argument("--bf16", action="store_true")
    training.add_argument("--gradient-checkpointing", action="store_true")
    training.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate, save; return the figures."""
    options = parse(arguments)
    trainer = make_trainer(options)
    last = get_last_checkpoint(str(options.output)) if options.resume and options.output.is_dir() else None
    print(f"{len(trainer.train_dataset)} training rows, {len(trainer.eval_dataset)} evaluation rows", flush=True)
    if last is not None:
        print(f"goes on from {Path(last).name}", flush=True)
    trainer.train(resume_from_checkpoint=last)
    found = trainer.evaluate()
    trainer.save_model(str(options.output))
    figures = {name: float(found[f"eval_{name}"]) for name in ("accuracy", "macro_f1")}
    print(f"accuracy {figures['accuracy']:.4f}, macro F1 {figures['macro_f1']:.4f}; saved in {options.output.name}")
    return figures


if __name__ == "__main__":
    main()
