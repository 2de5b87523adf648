"""Train an attention head on any Hugging Face encoder and any labeled data set, with the Trainer of transformers.

    python examples/train_attention_head.py --encoder sentence-transformers/all-MiniLM-L6-v2 \\
        --train stanfordnlp/sst2:train --dev stanfordnlp/sst2:validation --output my_head --freeze-encoder
    python examples/train_attention_head.py --train train.jsonl.gz --dev dev.csv --output my_head --score deep \\
        --normalizer gumbel --temperature 2 --anneal-to 0.5 --anneal-steps 500

Data are rows with a text (or a pair of texts) and a label: .jsonl, .json, .csv or .tsv (each also as .gz), a folder
saved by `datasets`, or a Hub name "name:split". The best epoch is kept; `--resume` continues from the last checkpoint.
`--explain-every 100` measures faithfulness, information and attention on evaluation texts every 100 steps, and writes a
report on two of them.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import accuracy_score, f1_score
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
from hf_attn_mi import ExplanationCallback
from hf_attn_mi.data import read_rows, text_columns
from hf_attn_mi.heads import AttentionHeadForSequenceClassification

EMBEDDED_MODEL = Path(hf_attn_mi.__file__).parent / "embedded_model"
LABELS = ("label_name", "label", "labels", "class", "target")
Row = tuple[tuple[str, ...], Any]  # the text or both texts of a pair, and the label as it is stored


def load_rows(source: str, text_field: Sequence[str] | None, label_field: str | None) -> list[Row]:
    """Read the rows of a file, a folder saved by `datasets`, or a Hub name."""
    rows: list[Row] = []
    texts, label = tuple(text_field or ()), label_field
    for row in read_rows(source):
        texts = texts or text_columns(list(row))
        label = label or next((name for name in LABELS if name in row), None)
        if label is None:
            raise SystemExit(f"{source}: no column of labels among {list(row)}; name it with --label-field")
        rows.append((tuple(str(row[name]) for name in texts), row[label]))
    if not rows:
        raise SystemExit(f"{source}: no rows")
    return rows


def read_splits(options: argparse.Namespace) -> tuple[list[Row], list[Row], list[str]]:
    """Return training rows, evaluation rows and the label names; the labels in the rows are numbers."""
    train = load_rows(options.train, options.text_field, options.label_field)
    random.Random(options.seed).shuffle(train)
    if options.dev is None:
        size = max(1, len(train) // 10)
        train, dev = train[size:], train[:size]
    else:
        dev = load_rows(options.dev, options.text_field, options.label_field)
    train = train[: options.limit]
    labels = {label for _, label in train}
    names = sorted(labels, key=lambda label: (0, int(label), "") if str(label).isdigit() else (1, 0, str(label)))
    unknown = sorted({str(label) for _, label in dev if label not in labels})
    if unknown:
        raise SystemExit(f"the evaluation data have labels that training does not: {', '.join(unknown)}")
    numbers = {label: number for number, label in enumerate(names)}
    train, dev = ([(texts, numbers[label]) for texts, label in rows] for rows in (train, dev))
    return train, dev, [str(name) for name in names]


def encode(rows: list[Row], tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
    """Return what the Trainer reads: token ids without padding, and the label."""
    columns = [[texts[i] for texts, _ in rows] for i in range(len(rows[0][0]))]
    encoding = tokenizer(*columns, truncation=True, max_length=max_length)
    return [
        {**{name: values[i] for name, values in encoding.items()}, "labels": label} for i, (_, label) in enumerate(rows)
    ]


def accuracy_and_f1(prediction: EvalPrediction) -> dict[str, float]:
    """Return accuracy and macro F1, the mean over the classes that occur."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    classes, labels = logits.argmax(-1), prediction.label_ids
    f1 = f1_score(labels, classes, average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(labels, classes)), "macro_f1": float(f1)}


def build_model(options: argparse.Namespace, labels: list[str]) -> AttentionHeadForSequenceClassification:
    """Return the encoder with an untrained head."""
    temperature: Any = options.temperature
    if options.anneal_to is not None:
        schedule = {"start": temperature, "end": options.anneal_to, "steps": options.anneal_steps}
        temperature = {"kind": "exponential", **schedule}
    return AttentionHeadForSequenceClassification.from_encoder(
        options.encoder,
        len(labels),
        labels=labels,
        score=options.score,
        normalizer=options.normalizer,
        temperature=temperature,
        heads=options.heads,
        queries=options.queries,
        recurrence=options.recurrence,
        freeze_encoder=options.freeze_encoder,
    )


def build_trainer(options: argparse.Namespace) -> Trainer:
    """Return a Trainer for the model and the data; the untrained head has a larger learning rate than the encoder."""
    set_seed(options.seed)
    train, dev, labels = read_splits(options)
    tokenizer = AutoTokenizer.from_pretrained(options.encoder)
    model = build_model(options, labels)
    groups = [{"params": list(model.head.parameters()), "lr": options.head_lr}]
    if not options.freeze_encoder:
        groups.append({"params": list(model.encoder.parameters()), "lr": options.lr})
    max_length = min(options.max_length, tokenizer.model_max_length)
    arguments = TrainingArguments(
        output_dir=str(options.output),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=64,
        warmup_steps=options.warmup,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_steps=50,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        seed=options.seed,
        report_to=options.report_to,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=encode(train, tokenizer, max_length),
        eval_dataset=encode(dev, tokenizer, max_length),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=accuracy_and_f1,
        optimizers=(torch.optim.AdamW(groups, weight_decay=0.01), None),
        callbacks=[EarlyStoppingCallback(options.patience)],
    )
    if options.explain_every is not None:
        texts = [texts if len(texts) > 1 else texts[0] for texts, _ in dev]
        trainer.add_callback(ExplanationCallback(trainer, texts, every=options.explain_every, limit=500))
    return trainer


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--encoder", default=str(EMBEDDED_MODEL), help="Hub name or folder (default: the embedded model)")
    add("--train", required=True, help="file, folder saved by datasets, or Hub name:split")
    add("--dev", help="likewise (default: a tenth of the training rows)")
    add("--limit", type=int, help="most training rows")
    add("--text-field", nargs="+", help="column of the text, or two of a pair")
    add("--label-field", help=f"column of the label (default: the first of {', '.join(LABELS)})")
    add("--output", type=Path, required=True, help="folder for checkpoints and the model")
    add("--score", default="additive", help="additive, deep or scaled_dot")
    add("--normalizer", default="softmax", help="softmax or gumbel")
    add("--temperature", type=float, default=1.0)
    add("--anneal-to", type=float, help="temperature at the end, from --temperature, exponentially")
    add("--anneal-steps", type=int, default=1000, help="training steps until the end is reached")
    add("--heads", type=int, default=1)
    add("--queries", type=int, default=1)
    add("--recurrence", choices=["bilstm"])
    add("--freeze-encoder", action="store_true")
    add("--epochs", type=float, default=3)
    add("--batch-size", type=int, default=32)
    add("--lr", type=float, default=5e-5, help="learning rate of the encoder")
    add("--head-lr", type=float, default=1e-3)
    add("--warmup", type=int, default=0, help="warm-up steps")
    add("--max-length", type=int, default=128, help="tokens")
    add("--patience", type=int, default=1000, help="stop after this many epochs without a gain")
    add("--resume", action="store_true", help="continue from the last checkpoint in --output, if any")
    add("--report-to", nargs="*", default=[], help="loggers of the Trainer, such as tensorboard")
    add("--explain-every", type=int, metavar="STEPS", help="measure explanations on evaluation texts every STEPS steps")
    add("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate, save; return accuracy and macro F1."""
    options = parse(arguments)
    trainer = build_trainer(options)
    checkpoint = get_last_checkpoint(str(options.output)) if options.resume and options.output.is_dir() else None
    print(f"{len(trainer.train_dataset)} training rows, {len(trainer.eval_dataset)} evaluation rows", flush=True)
    if checkpoint is not None:
        print(f"continues from {Path(checkpoint).name}", flush=True)
    trainer.train(resume_from_checkpoint=checkpoint)
    metrics = trainer.evaluate()
    trainer.save_model(str(options.output))
    figures = {name: float(metrics[f"eval_{name}"]) for name in ("accuracy", "macro_f1")}
    print(f"accuracy {figures['accuracy']:.4f}, macro F1 {figures['macro_f1']:.4f}; saved in {options.output.name}")
    return figures


if __name__ == "__main__":
    main()
