"""Draw the pictures of docs/concepts that no result draws by itself, with the embedded model.

    python scripts/draw_concepts.py            # half a minute on one thread; same pictures every time

Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import random
import sys
from itertools import permutations, product
from pathlib import Path

import torch
from matplotlib.figure import Figure
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from hf_attn_mi import Results, explain, fit_information
from hf_attn_mi.cli import embedded_model_path
from hf_attn_mi.figures import COLORS, PLAIN
from scripts.draw_plots import BAD, GOOD, LONG

ROOT = Path(__file__).parents[1]
LENGTHS = (8, 12, 16, 20, 24, 28, 32, 34, 36, 40, 44, 48, 56, 64, 80, 96)
SENTENCE = "This is a warm and funny comedy."  # of the kind that the profile is made of


def reviews(count: int) -> list[str]:
    """Short texts with two words each, of the same or of different tendency; none of them occurs twice."""
    openings = ("This is", "I saw", "They made", "It was", "We found")
    endings = ("film", "story", "comedy", "drama", "script", "show")
    pairs = permutations((*GOOD, *BAD), 2)
    texts = [f"{a} a {b} and {c} {d}." for a, (b, c), d in product(openings, pairs, endings)]
    return random.Random(0).sample(texts, count)


def short_texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Figure:
    """The null-space fraction of each layer, for the beginning of a review at a growing number of tokens."""
    ids = tokenizer(f"{LONG} {LONG}", add_special_tokens=False)["input_ids"]
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    shares, sizes = [], []
    for length in LENGTHS:
        text = torch.tensor([[first, *ids[: length - 2], last]])
        layers = explain(model, {"input_ids": text}, tokenizer=tokenizer).layers
        sizes.append(int(layers[0].rank.max()))
        shares.append([float(layer.null_space_fraction.mean()) for layer in layers])
    figure = Figure(figsize=(6.0, 2.8), layout="constrained", dpi=150)
    axes = figure.subplots()
    for number, column in enumerate(zip(*shares, strict=True)):
        axes.plot(LENGTHS, column, "o-", color=COLORS[number], markersize=4, label=f"layer {number}")
    axes.axvline(max(sizes), color=PLAIN, linestyle="--", linewidth=1)
    axes.annotate(
        f"{max(sizes)} dimensions", (max(sizes), axes.get_ylim()[1]), (-6, -10), textcoords="offset points", ha="right"
    )
    axes.set_xlabel("tokens")
    axes.set_ylabel("share of the attention\nwithout effect, mean over heads")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def information(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Figure:
    """The information of each token of one sentence in each layer."""
    profile = fit_information(model, reviews(600), tokenizer=tokenizer)
    explanation = explain(model, SENTENCE, tokenizer=tokenizer, profile=profile)
    assert not isinstance(explanation, Results)
    assert explanation.information is not None
    layers = explanation.information["layers"]
    values = torch.tensor([layer["kl"] for layer in layers])
    figure = Figure(figsize=(7.5, 2.5), layout="constrained", dpi=150)
    axes = figure.subplots()
    image = axes.imshow(values, cmap="Purples", origin="lower", aspect="auto", vmin=0)
    axes.set_xticks(range(len(explanation.tokens)), explanation.tokens, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(layers)), ["embeddings", *(f"layer {i}" for i in range(1, len(layers)))], fontsize=8)
    figure.colorbar(image, ax=axes, label="nats")
    return figure


def main() -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "concepts", help="folder of pictures")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    source = embedded_model_path()
    model = AutoModelForSequenceClassification.from_pretrained(source)
    tokenizer = AutoTokenizer.from_pretrained(source)
    for name, draw in (("short_texts", short_texts), ("information", information)):
        draw(model, tokenizer).savefig(folder / f"{name}.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
