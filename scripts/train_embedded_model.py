"""Train the sentiment model that ships in `hf_attn_mi/embedded_model`.

The teacher is a MiniLM encoder (6 layers, Apache-2.0) fine-tuned on all of SST-2 train and IMDB train. The student
keeps some of the teacher's layers and a pruned vocabulary and is distilled from the teacher (Hinton et al. 2015).
It is saved as fp16 safetensors that load as float32, with a tokenizer and a model card.

    python scripts/train_embedded_model.py --data folder/of/data --encoder folder/of/encoder --output my_model

`--data` contains sst2, imdb and imdb_cad, each with train.jsonl.gz (and dev.jsonl.gz): one JSON object with `text` and
`label` on each line. `--cache` keeps the teacher and its logits for the next run.
"""

import argparse
import gzip
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from transformers import BertForSequenceClassification, BertTokenizer

OUTPUT = Path(__file__).resolve().parents[1] / "hf_attn_mi" / "embedded_model"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LABELS = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
UNLABELED = -100  # the label that `torch.nn.functional.cross_entropy` ignores
TEMPERATURE, SOFT_WEIGHT = 2.0, 0.7
TRAIN_LENGTH, BATCH_TEXTS, BATCH_TOKENS = 384, 64, 2048  # tokens of a text; size limits of a batch
REVIEW_REPEATS = 2  # the teacher sees each review this often in an epoch: there are few of them
SHARED_WORDS = 12  # a training text with this many consecutive words of a dev review is removed
DEMO = "The plot is thin and the jokes are old, but the two leads are a joy to watch."


@dataclass(frozen=True)
class Example:
    """A text and its label: 0 negative, 1 positive or UNLABELED."""

    text: str
    label: int = UNLABELED


@dataclass(frozen=True)
class TrainingData:
    """The labeled training examples by source; `rewrites` are the counterfactual versions of IMDB reviews."""

    phrases: list[Example]
    reviews: list[Example]
    rewrites: list[Example]


@dataclass(frozen=True)
class Classifier:
    """A sequence classifier and its tokenizer."""

    model: BertForSequenceClassification
    tokenizer: BertTokenizer

    @classmethod
    def load(cls, folder: Path) -> "Classifier":
        """Return the classifier saved in a folder; an encoder gets a new classification layer."""
        # Attention dropout costs time and no accuracy here; the eager implementation is the fastest one on a CPU.
        config = transformers.BertConfig.from_pretrained(folder, attention_probs_dropout_prob=0.0, **LABELS)
        model = BertForSequenceClassification.from_pretrained(
            folder, config=config, dtype=torch.float32, attn_implementation="eager"
        )
        return cls(model, transformers.AutoTokenizer.from_pretrained(folder))

    def encode(self, texts: list[str], length: int) -> list[list[int]]:
        """Return the token ids of every text, at most `length` each."""
        return self.tokenizer(texts, truncation=True, max_length=length)["input_ids"]


def read_examples(file: Path) -> list[Example]:
    """Return the distinct examples of a gzip JSON Lines file in their order."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return list(dict.fromkeys(Example(row["text"], row["label"]) for row in rows))


def letters(text: str) -> str:
    """Return the lower-case letters and digits of a text, by which two texts are compared."""
    return re.sub(r"[\W_]+", "", text.lower())


def word_runs(text: str) -> set[str]:
    """Return every sequence of SHARED_WORDS consecutive words of a text."""
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i : i + SHARED_WORDS]) for i in range(len(words) - SHARED_WORDS + 1)}


def load_training_data(folder: Path) -> TrainingData:
    """Return the training data without anything that is also in SST-2 dev or IMDB dev."""
    dev_phrases = {letters(example.text) for example in read_examples(folder / "sst2" / "dev.jsonl.gz")}
    dev_reviews = read_examples(folder / "imdb" / "dev.jsonl.gz")
    dev_texts = {letters(example.text) for example in dev_reviews}
    dev_runs = {run for example in dev_reviews for run in word_runs(example.text)}

    def is_new(example: Example) -> bool:
        return letters(example.text) not in dev_texts and not word_runs(example.text) & dev_runs

    phrases = [e for e in read_examples(folder / "sst2" / "train.jsonl.gz") if letters(e.text) not in dev_phrases]
    reviews = [e for e in read_examples(folder / "imdb" / "train.jsonl.gz") if is_new(e)]
    known = {letters(e.text) for e in reviews}
    rewrites = [e for e in read_examples(folder / "imdb_cad" / "train.jsonl.gz") if letters(e.text) not in known]
    return TrainingData(phrases, reviews, [e for e in rewrites if is_new(e)])


def split_review(text: str) -> list[str]:
    """Return the review in pieces of one to three sentences, the same ones in every run."""
    rng = random.Random(text)
    sentences, pieces = re.split(r"(?<=[.!?])\s+", text), []
    while sentences:
        size = rng.randint(1, 3)
        pieces.append(" ".join(sentences[:size]))
        sentences = sentences[size:]
    return pieces


def student_examples(data: TrainingData) -> list[Example]:
    """Return what the student learns from: all labeled texts, joined contractions and unlabeled pieces of reviews."""
    joined = [replace(e, text=e.text.replace(" n't", "n't")) for e in data.phrases if " n't" in e.text]
    pieces = [Example(piece) for e in data.reviews for piece in split_review(e.text)]
    return list(dict.fromkeys(data.phrases + joined + data.reviews + data.rewrites + pieces))


def length_batches(lengths: list[int], rng: random.Random | None = None) -> list[list[int]]:
    """Return index batches of similar length within BATCH_TEXTS and BATCH_TOKENS; with `rng` in random order."""
    index, batches = list(range(len(lengths))), []
    if rng is not None:
        rng.shuffle(index)
    pool = len(index) if rng is None else 50 * BATCH_TEXTS
    for start in range(0, len(index), pool):
        batch: list[int] = []
        for i in sorted(index[start : start + pool], key=lengths.__getitem__):  # ascending: i is the longest so far
            if len(batch) == BATCH_TEXTS or (len(batch) + 1) * lengths[i] > BATCH_TOKENS:
                batches.append(batch)
                batch = []
            batch.append(i)
        batches.append(batch)
    if rng is not None:
        rng.shuffle(batches)
    return batches


def pad(encoded: list[list[int]], padding: int) -> dict[str, Tensor]:
    """Return the ids padded on the right and their attention mask, (texts, tokens) each."""
    width = max(len(ids) for ids in encoded)
    ids = [row + [padding] * (width - len(row)) for row in encoded]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in encoded]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@torch.no_grad()
def predict(classifier: Classifier, texts: list[str], *, length: int = 512, bf16: bool = False) -> Tensor:
    """Return the logits of every text, (texts, classes)."""
    model, encoded = classifier.model.eval(), classifier.encode(texts, length)
    logits = torch.zeros(len(texts), model.config.num_labels)
    for batch in length_batches([len(ids) for ids in encoded]):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = model(**pad([encoded[i] for i in batch], classifier.tokenizer.pad_token_id))
        logits[batch] = output.logits.float()
    return logits


def accuracy(classifier: Classifier, examples: list[Example]) -> float:
    """Return the fraction of examples whose most probable class is the label."""
    predicted = predict(classifier, [e.text for e in examples]).argmax(-1)
    return (predicted == torch.tensor([e.label for e in examples])).float().mean().item()


def distillation_loss(logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
    """Return the cross-entropy with the labels, mixed with the KL divergence from the teacher's soft labels, if given.

    Both terms are means over the batch; a text without a label contributes zero to the first.
    """
    hard = F.cross_entropy(logits, labels, ignore_index=UNLABELED, reduction="sum") / len(labels)
    if soft is None:
        return hard
    student, teacher = F.log_softmax(logits / TEMPERATURE, -1), F.softmax(soft / TEMPERATURE, -1)
    divergence = F.kl_div(student, teacher, reduction="batchmean")
    return (1 - SOFT_WEIGHT) * hard + SOFT_WEIGHT * TEMPERATURE**2 * divergence


def fit(
    classifier: Classifier,
    examples: list[Example],
    soft: Tensor | None,
    *,
    epochs: int,
    lr: float,
    word_dropout: float = 0.0,
    seed: int,
    bf16: bool,
) -> None:
    """Train the model in place with AdamW, linear warm-up and linear decay."""
    model, tokenizer = classifier.model, classifier.tokenizer
    encoded = classifier.encode([e.text for e in examples], TRAIN_LENGTH)
    lengths, labels = [len(ids) for ids in encoded], torch.tensor([e.label for e in examples])
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    schedule = [batch for _ in range(epochs) for batch in length_batches(lengths, rng)]
    steps, start = len(schedule), time.monotonic()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, fused=True)
    special = torch.tensor(tokenizer.all_special_ids)
    model.train()
    for step, batch in enumerate(schedule):
        inputs = pad([encoded[i] for i in batch], tokenizer.pad_token_id)
        ids = inputs["input_ids"]
        dropped = (torch.rand(ids.shape, generator=generator) < word_dropout) & ~torch.isin(ids, special)
        inputs["input_ids"] = ids.masked_fill(dropped, tokenizer.mask_token_id)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(**inputs).logits
        loss = distillation_loss(logits.float(), labels[batch], None if soft is None else soft[batch])
        optimizer.param_groups[0]["lr"] = lr * min((step + 1) / (0.06 * steps), (steps - step) / (0.94 * steps))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            minutes = (time.monotonic() - start) / 60
            print(f"  step {step + 1}/{steps}  {minutes:.1f} min  loss {loss.item():.3f}", flush=True)


def train_teacher(data: TrainingData, options: argparse.Namespace) -> Classifier:
    """Return the teacher: the cached one or else the encoder fine-tuned on the phrases and reviews."""
    folder = options.cache / "teacher"
    if (folder / "config.json").exists():
        return Classifier.load(folder)
    teacher = Classifier.load(options.encoder)
    settings = {"epochs": options.teacher_epochs, "lr": options.teacher_lr, "seed": options.seed, "bf16": options.bf16}
    fit(teacher, data.phrases + REVIEW_REPEATS * data.reviews, None, **settings)
    teacher.model.save_pretrained(folder)
    teacher.tokenizer.save_pretrained(folder)
    return teacher


def soft_labels(teacher: Classifier, texts: list[str], options: argparse.Namespace) -> Tensor:
    """Return the teacher's logits, (texts, classes); those in the cache are not computed again."""
    file = options.cache / "logits.pt"
    known = dict(zip(*torch.load(file))) if file.exists() else {}
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    if missing:
        known |= zip(missing, predict(teacher, missing, length=TRAIN_LENGTH, bf16=options.bf16))
        torch.save((list(known), torch.stack(list(known.values()))), file)
    return torch.stack([known[text] for text in texts])


def choose_vocabulary(teacher: Classifier, texts: Iterable[str], size: int) -> list[str]:
    """Return `size` WordPieces of the teacher: the special tokens, then the others in the teacher's order.

    Kept are the Latin characters and general punctuation, alone and as a continuation ("##a"), so that every English
    text can be tokenized; for nine tenths of the rest the most frequent pieces of the texts; then the first of
    the teacher's pieces, whose order is about that of their frequency in general English.
    """
    known = teacher.tokenizer.get_vocab()
    in_order = [piece for piece in sorted(known, key=known.__getitem__) if not re.fullmatch(r"\[.+\]", piece)]

    def is_latin(character: str) -> bool:
        return ord(character) < 0x250 or 0x2000 <= ord(character) < 0x20D0

    bare = {piece: piece.removeprefix("##") for piece in in_order}
    kept = {piece for piece in in_order if len(bare[piece]) == 1 and is_latin(bare[piece])}
    counts = Counter(i for ids in teacher.encode(list(texts), 512) for i in ids)
    frequent = sorted((piece for piece in in_order if len(bare[piece]) > 1), key=lambda piece: -counts[known[piece]])
    room = size - len(SPECIAL) - len(kept)
    kept |= set(frequent[: 9 * room // 10])
    general = [piece for piece in in_order if piece not in kept and all(map(is_latin, bare[piece]))]
    kept |= set([piece for piece in general if len(bare[piece]) > 1][: size - len(SPECIAL) - len(kept)])
    return SPECIAL + [piece for piece in in_order if piece in kept]


def build_student(teacher: Classifier, vocabulary: list[str], layers: list[int]) -> Classifier:
    """Return the untrained student: the teacher's weights for the given WordPieces and layers."""
    config = transformers.BertConfig.from_dict(teacher.model.config.to_dict())
    config.vocab_size, config.num_hidden_layers = len(vocabulary), len(layers)
    student = BertForSequenceClassification._from_config(config, attn_implementation="eager", dtype=torch.float32)
    table = "bert.embeddings.word_embeddings.weight"
    weights = {n: v for n, v in teacher.model.state_dict().items() if not n.startswith("bert.encoder.layer.")}
    weights[table] = weights[table][teacher.tokenizer.convert_tokens_to_ids(vocabulary)]
    for new, old in enumerate(layers):
        for name, value in teacher.model.bert.encoder.layer[old].state_dict().items():
            weights[f"bert.encoder.layer.{new}.{name}"] = value
    student.load_state_dict(weights)
    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = BertTokenizer(vocab=numbers, do_lower_case=True, model_max_length=config.max_position_embeddings)
    return Classifier(student, tokenizer)


def train_student(teacher: Classifier, data: TrainingData, options: argparse.Namespace) -> Classifier:
    """Return the student distilled from the teacher."""
    texts = [example.text for example in data.phrases + data.reviews]
    vocabulary = choose_vocabulary(teacher, texts, options.vocabulary)
    student = build_student(teacher, vocabulary, options.layers)
    examples = student_examples(data)
    soft = soft_labels(teacher, [example.text for example in examples], options)
    settings = {"epochs": options.epochs, "lr": options.lr, "word_dropout": options.word_dropout}
    settings |= {"seed": options.seed, "bf16": options.bf16}
    fit(student, examples, soft, **settings)
    return student


def save(student: Classifier, folder: Path) -> None:
    """Write the model in fp16 and its tokenizer; the config says float32, so it is loaded as float32."""
    halves = {name: value.half() for name, value in student.model.state_dict().items()}
    student.model.save_pretrained(folder, state_dict=halves)
    student.tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written for the owner only, but part of a package


def card(reloaded: Classifier, table: str, data: TrainingData, megabytes: float, options: argparse.Namespace) -> str:
    """Return the model card."""
    config = reloaded.model.config
    head_dim = config.hidden_size // config.num_attention_heads
    return f"""---
language: en
library_name: transformers
pipeline_tag: text-classification
base_model: sentence-transformers/all-MiniLM-L6-v2
datasets: [stanfordnlp/sst2, stanfordnlp/imdb]
---
# Embedded sentiment model of hf_attn_mi

A small BertForSequenceClassification that classifies a sentence or a review about a movie as `negative` (0) or
`positive` (1). It is part of the package, so that examples and tests need no download.

| property | value |
|---|---|
| layers, heads, head dimension | {len(options.layers)}, {config.num_attention_heads}, {head_dim} |
| hidden size, positions | {config.hidden_size}, {config.max_position_embeddings} |
| vocabulary | {config.vocab_size:,} WordPieces, lower case |
| parameters | {reloaded.model.num_parameters():,} |
| files | {megabytes:.1f} MB; the weights are stored in fp16 and load as float32 |

## Accuracy
{table}

Measured once on these files after loading them again, texts truncated to {config.max_position_embeddings} tokens. None
of these data were used for training or for choosing settings: the settings were fixed in advance, and one teacher and
one student were trained, without a comparison of settings or epochs.

## Origin and training
- Encoder: sentence-transformers/all-MiniLM-L6-v2 (6 layers, Apache-2.0).
- Teacher: this encoder with a classification layer, fine-tuned on all of SST-2 train ({len(data.phrases):,} phrases)
  and IMDB train ({len(data.reviews):,} reviews, each used {REVIEW_REPEATS} times in an epoch); epochs:
  {options.teacher_epochs}, learning rate {options.teacher_lr:g}.
- Student: layers {options.layers} of the teacher (counted from 0), its pooler, classification layer and embeddings for
  the Latin characters, the most frequent WordPieces of the training data and frequent ones of general English.
- Texts for distillation: the phrases, those with contractions ("did n't") also in the usual spelling ("didn't"), the
  reviews, {len(data.rewrites):,} counterfactual rewrites of them, and pieces of one to three sentences of the reviews.
- Loss: KL divergence from the teacher's soft labels at temperature {TEMPERATURE:g}, weight {SOFT_WEIGHT:g}, and
  cross-entropy with the labels; the pieces have soft labels only.
- AdamW, epochs: {options.epochs}, the last one kept; learning rate {options.lr:g}, linear warm-up and decay; batches of
  at most {BATCH_TEXTS} texts and {BATCH_TOKENS:,} tokens; at most {TRAIN_LENGTH} tokens of a text; word dropout
  {options.word_dropout:g} with [MASK]; seed {options.seed}. Script: `scripts/train_embedded_model.py`.
- A training text that equals a dev text (letters and digits compared), or that has {SHARED_WORDS} consecutive words in
  common with an IMDB dev review, was removed.

## Limits
English movie reviews only; nothing else was measured. A neutral text gets one of the two classes. Probabilities are not
calibrated. A rare word is split into pieces, and the model knows little about it. Not for decisions.

## Licenses
The encoder and the code of the package are under Apache-2.0. SST-2 states no license; cite Socher et al. (2013),
"Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank", EMNLP. The IMDB reviews state no
license; cite Maas et al. (2011), "Learning Word Vectors for Sentiment Analysis", ACL. Their selection and the rewrites
are under Apache-2.0; cite Kaushik et al. (2020), "Learning the Difference that Makes a Difference with
Counterfactually-Augmented Data", ICLR.
"""


def measure(teacher: Classifier, data: TrainingData, options: argparse.Namespace) -> None:
    """Load the saved files again, measure them, print the accuracies and write the card."""
    reloaded = Classifier.load(options.output)
    rows = ["| data | examples | this model | teacher |", "|---|---|---|---|"]
    for name, file in (("SST-2 dev", "sst2/dev"), ("IMDB dev", "imdb/dev"), ("IMDB test (999 reviews)", "imdb/test")):
        path = options.data / f"{file}.jsonl.gz"
        if path.exists():
            examples = read_examples(path)
            pair = f"{accuracy(reloaded, examples):.1%} | {accuracy(teacher, examples):.1%}"
            rows.append(f"| {name} | {len(examples)} | {pair} |")
    file = options.output / "README.md"
    size = sum(other.stat().st_size for other in options.output.iterdir() if other != file) / 1e6
    text = card(reloaded, "\n".join(rows), data, size, options)
    file.write_text(text, encoding="utf-8")
    print(*rows, f"P(positive) of {DEMO!r}: {predict(reloaded, [DEMO]).softmax(-1)[0, 1]:.3f}", sep="\n")


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that contains sst2, imdb and imdb_cad")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the model (default: the package's)")
    parser.add_argument("--cache", type=Path, default=Path("embedded_model_cache"), help="teacher and its logits")
    for name, default in (("--teacher-epochs", 1), ("--epochs", 2), ("--vocabulary", 8000), ("--seed", 0)):
        parser.add_argument(name, type=int, default=default)
    for name, default in (("--teacher-lr", 7e-5), ("--lr", 1.5e-4), ("--word-dropout", 0.1)):
        parser.add_argument(name, type=float, default=default)
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 1, 2], help="layers of the teacher to keep")
    parser.add_argument("--bf16", action="store_true", help="train with matrix products in bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Train the teacher, then choose the vocabulary, train the student, save and measure it."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    data = load_training_data(options.data)
    print(f"{len(data.phrases)} phrases, {len(data.reviews)} reviews, {len(data.rewrites)} rewrites", flush=True)
    teacher = train_teacher(data, options)
    torch.manual_seed(options.seed)  # the student does not depend on whether the teacher was cached
    save(train_student(teacher, data, options), options.output)
    measure(teacher, data, options)


if __name__ == "__main__":
    main()
