"""Draw the pictures of tasks on texts in docs/images: train tiny models on sentences from templates, and explain them.

    python scripts/draw_tasks.py               # a few minutes on one thread; same pictures every time

Nothing is downloaded. The models know the words of their templates only; they show what the pictures mean: the word
that makes a name a place, the part of the question that selects the answer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertConfig, PreTrainedModel, pipeline

from hf_attn_mi import explain, targets

ROOT = Path(__file__).parents[1]
EMBEDDED = ROOT / "hf_attn_mi" / "embedded_model"
TOKENIZER = AutoTokenizer.from_pretrained(EMBEDDED)
SIZES = {"vocab_size": 8000, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 128, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SIZES |= {"max_position_embeddings": 64}
IGNORED = -100  # tokens without a label
Rng = np.random.Generator

NAMES = ("Paris", "Florence", "Charlotte", "Austin", "Jackson", "Madison")  # people or places: the context decides
PEOPLE = ("Tom", "Anna", "Peter", "Mary", "John", "Lucy")
PLACES = ("London", "Rome", "Berlin", "Moscow")
ENTITY_TEMPLATES = ("{p} made a film in {l} .", "in {l} {p} wrote a story .", "{p} met {q} in {l} .", "{p} loves {q} .")
ACTS = (  # what people do, and the question after the place
    ("wrote the story", "was the story written"),
    ("made the film", "was the film made"),
    ("sang the song", "was the song sung"),
    ("bought the house", "was the house bought"),
)
JOBS = {
    "teacher": "taught the class",
    "pilot": "flew the plane",
    "writer": "wrote the story",
    "singer": "sang the song",
    "director": "made the film",
    "doctor": "saved the child",
}
TOPICS = {
    "film": ("actor", "scene", "director", "camera"),
    "sports": ("team", "player", "game", "coach"),
    "music": ("song", "band", "singer", "guitar"),
}


def pick(rng: Rng, words: tuple[Any, ...]) -> Any:
    """One of these words."""
    return words[int(rng.integers(len(words)))]


def entity_batch(rng: Rng, size: int) -> dict[str, Tensor]:
    """Sentences with labels of their first tokens: 0 for none, 1 for people, 2 for places."""
    rows, labels = [], []
    for _ in range(size):
        template = pick(rng, ENTITY_TEMPLATES)
        chosen = {"p": pick(rng, NAMES + PEOPLE), "q": pick(rng, NAMES + PEOPLE), "l": pick(rng, NAMES + PLACES)}
        words = template.split()
        rows.append([chosen[word[1]] if word[0] == "{" else word for word in words])
        labels.append([{"{p}": 1, "{q}": 1, "{l}": 2}.get(word, 0) for word in words])
    batch = TOKENIZER(rows, is_split_into_words=True, padding=True, return_tensors="pt")
    numbers = torch.full(batch["input_ids"].shape, IGNORED)
    for i, row in enumerate(labels):
        places = batch.word_ids(i)
        for j, word in enumerate(places):
            if word is not None and (j == 0 or places[j - 1] != word):
                numbers[i, j] = row[word]
    return {**batch, "labels": numbers}


def answer_batch(rng: Rng, size: int) -> dict[str, Tensor]:
    """Questions about people and places with contexts that name both, and the first and last token of the answer."""
    questions, contexts, spans = [], [], []
    for _ in range(size):
        (act, question), person, place = pick(rng, ACTS), pick(rng, NAMES + PEOPLE), pick(rng, NAMES + PLACES)
        where = bool(rng.integers(2))
        contexts.append(f"{person} {act} in {place}.")
        questions.append(f"Where {question}?" if where else f"Who {act}?")
        start = len(contexts[-1]) - len(place) - 1 if where else 0
        spans.append((start, start + len(place if where else person) - 1))
    batch = TOKENIZER(questions, contexts, padding=True, return_tensors="pt")
    ends = [[batch.char_to_token(i, place, 1) for place in span] for i, span in enumerate(spans)]
    starts, stops = torch.tensor(ends).T
    return {**batch, "start_positions": starts, "end_positions": stops}


def mask_batch(rng: Rng, size: int) -> dict[str, Tensor]:
    """Sentences about two people at work, one of them masked."""
    texts, jobs = [], []
    for _ in range(size):
        job, other = (list(JOBS)[i] for i in rng.choice(len(JOBS), 2, replace=False))
        mask = TOKENIZER.mask_token
        forms = (
            f"The {mask} {JOBS[job]} while the {other} waited.",
            f"The {other} waited while the {mask} {JOBS[job]}.",
        )
        texts.append(forms[int(rng.integers(2))])
        jobs.append(TOKENIZER.convert_tokens_to_ids(job))
    batch = TOKENIZER(texts, padding=True, return_tensors="pt")
    masked = batch["input_ids"] == TOKENIZER.mask_token_id
    return {**batch, "labels": torch.where(masked, torch.tensor(jobs)[:, None], IGNORED)}


def topic_batch(rng: Rng, size: int) -> dict[str, Tensor]:
    """Sentences with hypotheses: 0 where the hypothesis follows, 2 where it does not."""
    premises, hypotheses, labels = [], [], []
    for _ in range(size):
        topic = list(TOPICS)[int(rng.integers(len(TOPICS)))]
        label = topic if rng.random() < 0.5 else list(TOPICS)[int(rng.integers(len(TOPICS)))]
        words = TOPICS[topic]
        mood = pick(rng, ("great", "slow", "old", "warm", "new"))
        premises.append(f"The {pick(rng, words)} is {mood} and I liked the {pick(rng, words)}.")
        hypotheses.append(f"This example is {label}.")
        labels.append(0 if topic == label else 2)
    return {**TOKENIZER(premises, hypotheses, padding=True, return_tensors="pt"), "labels": torch.tensor(labels)}


def trained(
    name: str, batch: Callable[[Rng, int], dict[str, Tensor]], steps: int, labels: tuple[str, ...] = ()
) -> PreTrainedModel:
    """A small BERT of this class, trained on batches from templates; its last loss is printed."""
    numbers = {label: number for number, label in enumerate(labels)}
    options: dict[str, Any] = {"id2label": dict(enumerate(labels)), "label2id": numbers} if labels else {}
    torch.manual_seed(0)
    model = getattr(transformers, name)(BertConfig(**SIZES, **options)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps)
    rng, losses = np.random.default_rng(0), []
    for _ in range(steps):
        loss = model(**batch(rng, 32)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    print(f"{name}: loss {np.mean(losses[-20:]):.3f}")
    return model.eval()


def draw_entities(steps: int, output: Path) -> None:
    """The same name as a person and as a place."""
    model = trained("BertForTokenClassification", entity_batch, steps, ("O", "PER", "LOC"))
    both = [targets.token(word="Paris", occurrence=n) for n in (0, 1)]
    explain(model, "Paris made a film in Paris.", tokenizer=TOKENIZER, targets=both).plot(output / "entities.png")


def draw_answer(steps: int, output: Path) -> None:
    """The answer to a question."""
    model = trained("BertForQuestionAnswering", answer_batch, steps)
    pair = ("Where was the film made?", "Paris made the film in Rome.")
    explain(model, pair, tokenizer=TOKENIZER).plot(output / "answer.png")


def draw_mask(steps: int, output: Path) -> None:
    """A masked word."""
    model = trained("BertForMaskedLM", mask_batch, steps)
    text = "The [MASK] flew the plane while the doctor waited."
    explain(model, text, tokenizer=TOKENIZER).plot(output / "mask.png")


def draw_zero_shot(steps: int, output: Path) -> None:
    """The best of three labels."""
    classes = ("entailment", "neutral", "contradiction")
    model = trained("BertForSequenceClassification", topic_batch, 3 * steps, classes)
    zero_shot = pipeline("zero-shot-classification", model=model, tokenizer=TOKENIZER)
    text = "The coach is old and I liked the player."
    explain(zero_shot, text, candidate_labels=list(TOPICS)).plot(output / "zero_shot.png")


def draw_similarity(steps: int, output: Path) -> None:
    """Two texts, by the encoder of the embedded model, which is not trained here."""
    encoder = AutoModel.from_pretrained(EMBEDDED, add_pooling_layer=False)
    target = targets.similarity("A joy from start to end.")
    text = "The plot is thin, but the cast is a delight."
    explain(encoder, text, tokenizer=TOKENIZER, target=target).plot(output / "similarity.png")


PICTURES = {
    "entities": draw_entities,
    "answer": draw_answer,
    "mask": draw_mask,
    "zero_shot": draw_zero_shot,
    "similarity": draw_similarity,
}


def main() -> None:
    """Train, explain and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", help=f"which of {', '.join(PICTURES)} (default: all)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    parser.add_argument("--steps", type=int, default=600, help="training steps, more for the harder tasks")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in arguments.pictures or PICTURES:
        PICTURES[name](arguments.steps, arguments.output)


if __name__ == "__main__":
    main()
