"""Train the small sentiment BERT that ships in `hf_attn_mi/demo_model`.

A BertForSequenceClassification of 4 layers, 4 heads and hidden size 128 with its own 8,000-token WordPiece
vocabulary, trained on SST-2 and, with `--teacher`, distilled from a larger classifier (Hinton et al. 2015). The
result is saved as fp16 safetensors that load as float32, with a tokenizer and a model card.

    python examples/train_demo_model.py --data folder/with/jsonl.gz --teacher my/teacher --output my_model
"""

import argparse
import gzip
import json
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

OUTPUT = Path(__file__).resolve().parents[1] / "hf_attn_mi" / "demo_model"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY, HIDDEN, LAYERS, HEADS, POSITIONS = 8000, 128, 4, 4, 256
TEMPERATURE, SOFT_SHARE = 2.0, 0.7
CARD = """---
language: en
library_name: transformers
pipeline_tag: text-classification
datasets: [stanfordnlp/sst2]
---
# Demo sentiment model of hf_attn_mi

A small BertForSequenceClassification ({layers} layers, {heads} heads, hidden size {hidden}, {vocabulary:,} WordPiece
tokens, at most {positions} positions, {parameters:,} parameters) that calls a sentence of a movie review `negative` (0)
or `positive` (1), for examples and tests without a download. Weights are stored in fp16 and load as float32.

**Accuracy on SST-2 dev: {measured:.1%}** ({dev} sentences, measured on these files, reloaded). The same sentences were
looked at when the settings were chosen, so expect slightly less on new ones.

## Data and training
- SST-2 train, {train:,} phrases: contractions ("did n't") also in the usual spelling ("didn't"); none equals a dev
  sentence (compared by letters and digits only).
- {teaching}
- {epochs} epochs, the last one kept; batch size {batch_size}, AdamW, learning rate {lr:g}, linear warm-up and decay,
  word dropout {word_dropout:g} with [MASK], seed {seed}. Script: `examples/train_demo_model.py`.

## Limits
One domain: English movie-review sentences, mostly under 40 words; nothing else was measured. Not for decisions.

## License
SST-2 states no license; cite Socher et al. (2013), "Recursive Deep Models for Semantic Compositionality Over a
Sentiment Treebank", EMNLP. The code of the package is under Apache-2.0.
"""
Examples = tuple[list[str], list[int]]  # texts and their labels: 0 negative, 1 positive


@dataclass(frozen=True)
class Classifier:
    """A sequence classifier and its tokenizer."""

    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase

    @classmethod
    def load(cls, name: str | Path) -> "Classifier":
        """Return the classifier saved at a path or on the Hub, in float32."""
        model = transformers.AutoModelForSequenceClassification.from_pretrained(name, dtype=torch.float32)
        return cls(model, transformers.AutoTokenizer.from_pretrained(name))


def load_sst2(folder: Path | None) -> list[Examples]:
    """Return SST-2 train and dev, from a folder of {train,dev}.jsonl.gz (`text`, `label`) or else from the Hub."""
    if folder is None:
        from datasets import load_dataset

        splits = load_dataset("stanfordnlp/sst2", split=["train", "validation"])
        return [(list(split["sentence"]), list(split["label"])) for split in splits]
    files = [gzip.decompress((folder / f"{name}.jsonl.gz").read_bytes()).decode() for name in ("train", "dev")]
    splits = [[json.loads(line) for line in file.strip().split("\n")] for file in files]
    return [([row["text"] for row in rows], [row["label"] for row in rows]) for rows in splits]


def prepare_train(train: Examples, dev: Examples) -> Examples:
    """Return the training phrases, those with contractions ("did n't") also joined ("didn't"); no dev sentence."""
    rows = list(zip(*train))
    rows += [(text.replace(" n't", "n't"), label) for text, label in rows if " n't" in text]
    filler = re.compile(r"[\W_]+")  # what does not count when two texts are compared
    held_out = {filler.sub("", text.lower()) for text in dev[0]}
    rows = [(text, label) for text, label in rows if filler.sub("", text.lower()) not in held_out]
    assert not {text for text, _ in rows} & set(dev[0]), "a dev sentence is in the training data"
    return [text for text, _ in rows], [label for _, label in rows]


def wordpiece(vocabulary: dict[str, int] | None) -> Tokenizer:
    """Return a lower-casing BERT WordPiece tokenizer without its special-token template."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def train_tokenizer(texts: list[str]) -> transformers.PreTrainedTokenizerFast:
    """Return a fast BERT tokenizer with a WordPiece vocabulary learned from the texts."""
    learner = wordpiece(None)
    # The learner numbers "##x" pieces in the order of a hash map and breaks ties by number: naming them all first,
    # in a fixed order, makes every run learn the same vocabulary.
    characters = sorted(set("".join(learner.normalizer.normalize_str(text) for text in texts)) - {" "})
    first = SPECIAL + [mark + character for mark in ("", "##") for character in characters]
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=first, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learned = sorted(set(learner.get_vocab()) - set(SPECIAL))
    tokenizer = wordpiece({token: number for number, token in enumerate(SPECIAL + learned)})
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL))
    names |= {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS, **names)


def batches_by_length(lengths: list[int], size: int, order: random.Random | None = None) -> list[list[int]]:
    """Return index batches of similar length; with `order`, shuffled within pools of 50 batches and between batches."""
    index, batches = list(range(len(lengths))), []
    if order is not None:
        order.shuffle(index)
    pool = len(index) if order is None else 50 * size
    for start in range(0, len(index), pool):
        near = sorted(index[start : start + pool], key=lengths.__getitem__)
        batches += [near[i : i + size] for i in range(0, len(near), size)]
    if order is not None:
        order.shuffle(batches)
    return batches


def pad(encoded: list[list[int]], padding: int) -> dict[str, Tensor]:
    """Return ids padded on the right and their attention mask, (texts, tokens) each."""
    width = max(len(ids) for ids in encoded)
    ids = [row + [padding] * (width - len(row)) for row in encoded]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in encoded]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@torch.no_grad()
def predict(classifier: Classifier, texts: list[str]) -> Tensor:
    """Return the logits of every text, (texts, classes)."""
    model, tokenizer = classifier.model.eval(), classifier.tokenizer
    encoded = tokenizer(texts, truncation=True, max_length=POSITIONS)["input_ids"]
    logits = torch.zeros(len(texts), model.config.num_labels)
    for batch in batches_by_length([len(ids) for ids in encoded], 64):
        logits[batch] = model(**pad([encoded[i] for i in batch], tokenizer.pad_token_id)).logits
    return logits


def accuracy(classifier: Classifier, examples: Examples) -> float:
    """Return the share of examples whose most probable class is the label."""
    return (predict(classifier, examples[0]).argmax(-1) == torch.tensor(examples[1])).float().mean().item()


def project_embeddings(teacher: Classifier, tokens: list[str]) -> Tensor:
    """Return word embeddings for `tokens`, (tokens, HIDDEN): the teacher's, averaged over its pieces, then PCA."""
    tokenizer, table = teacher.tokenizer, teacher.model.get_input_embeddings().weight.detach()
    known, rows = tokenizer.get_vocab(), []
    for token in tokens:
        pieces = [token] if token in known else tokenizer.tokenize(token.removeprefix("##"))
        rows.append(table[[known[piece] for piece in pieces or [tokenizer.unk_token]]].mean(0))
    words = torch.stack(rows) - torch.stack(rows).mean(0)
    projected = words @ torch.linalg.svd(words, full_matrices=False).Vh[:HIDDEN].T
    return projected * (0.05 / projected.std())


def build_model(vocabulary: int, embeddings: Tensor | None) -> transformers.BertForSequenceClassification:
    """Return the untrained student; its word embeddings are `embeddings` where given."""
    shape = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    sizes = {"vocab_size": vocabulary, "intermediate_size": 4 * HIDDEN, "max_position_embeddings": POSITIONS}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**shape, **sizes, **names))
    if embeddings is not None:
        model.get_input_embeddings().weight.data.copy_(embeddings)
    return model


def distillation_loss(logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
    """Return cross-entropy with the labels, mixed with the tempered KL to the teacher's soft labels where given."""
    hard = F.cross_entropy(logits, labels)
    if soft is None:
        return hard
    student, target = F.log_softmax(logits / TEMPERATURE, -1), F.softmax(soft / TEMPERATURE, -1)
    return (1 - SOFT_SHARE) * hard + SOFT_SHARE * TEMPERATURE**2 * F.kl_div(student, target, reduction="batchmean")


def train_batch(encoded: list[list[int]], dropout: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Return one padded training batch with word dropout and, half the time, all positions shifted."""
    inputs = pad(encoded, SPECIAL.index("[PAD]"))
    ids = inputs["input_ids"]
    dropped = (ids >= len(SPECIAL)) & (torch.rand(ids.shape, generator=generator) < dropout)
    # Phrases are short: without a shift the later position embeddings would never be trained.
    shift = torch.randint(POSITIONS - ids.shape[1] + 1, (), generator=generator)
    shift *= torch.randint(2, (), generator=generator)
    masked = ids.masked_fill(dropped, SPECIAL.index("[MASK]"))
    return {**inputs, "input_ids": masked, "position_ids": torch.arange(ids.shape[1])[None] + shift}


def fit(student: Classifier, train: Examples, soft: Tensor | None, dev: Examples, options: argparse.Namespace) -> None:
    """Train the model in place with AdamW, linear warm-up and decay; print the dev accuracy of every epoch."""
    encoded = student.tokenizer(train[0], truncation=True, max_length=POSITIONS)["input_ids"]
    lengths, labels = [len(ids) for ids in encoded], torch.tensor(train[1])
    order, generator = random.Random(options.seed), torch.Generator().manual_seed(options.seed)
    steps = options.epochs * math.ceil(len(encoded) / options.batch_size)
    optimizer = torch.optim.AdamW(student.model.parameters(), lr=options.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.06 * steps + 1), max(0.0, (steps - step) / (0.94 * steps)))
    )
    for epoch in range(1, options.epochs + 1):
        student.model.train()
        total = 0.0
        for batch in batches_by_length(lengths, options.batch_size, order):
            logits = student.model(**train_batch([encoded[i] for i in batch], options.word_dropout, generator)).logits
            loss = distillation_loss(logits, labels[batch], None if soft is None else soft[batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        report = f"epoch {epoch}/{options.epochs}  loss {total / len(encoded):.4f}  dev {accuracy(student, dev):.4f}"
        print(report, flush=True)


def save(student: Classifier, phrases: int, dev: Examples, options: argparse.Namespace) -> None:
    """Write model, tokenizer and card to `options.output`; print the accuracy of what was written, loaded again."""
    # The config says float32, so the halves are loaded as float32.
    halves = {name: value.half() for name, value in student.model.state_dict().items()}
    student.model.save_pretrained(options.output, state_dict=halves)
    student.tokenizer.save_pretrained(options.output)
    (options.output / "model.safetensors").chmod(0o644)  # written for the owner only, but part of a package
    measured = accuracy(Classifier.load(options.output), dev)
    print(f"SST-2 dev accuracy of the saved files: {measured:.4f} ({len(dev[0])} sentences)")
    teaching = "Hard labels only, without a teacher."
    if options.teacher is not None:
        name = Path(options.teacher).name if Path(options.teacher).exists() else options.teacher
        teaching = f"Distilled from `{name}` ({options.teacher_note}):\n  soft labels at temperature {TEMPERATURE:g}, "
        teaching += f"weight {SOFT_SHARE:g}, beside the hard labels; word embeddings start from its own by PCA."
    shape = {"layers": LAYERS, "heads": HEADS, "hidden": HIDDEN, "positions": POSITIONS}
    sizes = {"vocabulary": len(student.tokenizer), "parameters": student.model.num_parameters()}
    facts = {"measured": measured, "train": phrases, "dev": len(dev[0]), "teaching": teaching, **vars(options)}
    card = CARD.format(**shape, **sizes, **facts)
    (options.output / "README.md").write_text(card, encoding="utf-8")


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with {train,dev}.jsonl.gz; default: SST-2 from the Hub")
    parser.add_argument("--teacher", help="path or Hub name of a negative/positive classifier to distil from")
    parser.add_argument("--teacher-note", default="no note", help="what the card says of the teacher: origin, license")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the model (default: the package's)")
    for name, default in (("--epochs", 4), ("--batch-size", 64), ("--seed", 0), ("--threads", 1)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--word-dropout", type=float, default=0.3, help="share of words replaced by [MASK]")
    parser.add_argument("--quick", action="store_true", help="2,000 phrases and one epoch: a smoke test")
    options = parser.parse_args()
    if options.quick and options.output == OUTPUT:
        parser.error("--quick trains a useless model: give it an --output of its own")
    return options


def main() -> None:
    """Train, save, reload, measure and write the card."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    train, dev = load_sst2(options.data)
    if options.quick:
        train, options.epochs = (train[0][:2000], train[1][:2000]), 1
    train = prepare_train(train, dev)
    print(f"{len(train[0])} training texts, {len(dev[0])} dev sentences", flush=True)
    tokenizer = train_tokenizer(train[0])
    soft = embeddings = None
    if options.teacher is not None:
        teacher = Classifier.load(options.teacher)
        if teacher.model.config.num_labels != 2:
            raise SystemExit(f"--teacher {options.teacher} must have two classes, 0 negative and 1 positive")
        soft = predict(teacher, train[0])
        embeddings = project_embeddings(teacher, tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    student = Classifier(build_model(len(tokenizer), embeddings), tokenizer)
    fit(student, train, soft, dev, options)
    save(student, len(train[0]), dev, options)


if __name__ == "__main__":
    main()
