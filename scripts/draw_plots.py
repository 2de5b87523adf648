"""Draw the pictures of docs/plots.md: every kind of figure, with the embedded model.

    python scripts/draw_plots.py            # about a minute on one thread; same pictures every time

Nothing is downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_attn_mi import (
    Results,
    attention_maps,
    certify,
    compare,
    explain,
    fit_information,
    minimal_attention,
    minimal_tokens,
    mutual_information,
    report,
)
from hf_attn_mi.cli import embedded_model_path

ROOT = Path(__file__).parents[1]
SHORT = "A warm and funny film."
PAIR = ("The plot is thin.", "The two leads are a joy to watch.")
LONG = (
    "I went in with low hopes. The plot is thin and the jokes are old, and for the first half hour I thought about "
    "leaving. But then the two leads meet, and the film comes alive: they are a joy to watch, quick and warm and never "
    "sentimental."
)
GOOD, BAD = ("warm", "funny", "lovely", "great", "moving"), ("dull", "boring", "bad", "cheap", "empty")
TOLERANCES = (0.0, 0.01, 0.03, 0.1, 0.3)


def reviews(count: int) -> list[str]:
    """Short texts of both classes, none of which occurs twice."""
    endings = ("film", "story", "comedy", "drama", "script", "cast")
    texts = []
    for i in range(count):
        words = GOOD if i % 2 else BAD
        first, second, ending = words[i % 5], words[(i // 5) % 5], endings[(i // 25) % 6]
        texts.append(f"This is number {i}: a {first} and {second} {ending}.")
    return texts


def main() -> None:
    """Compute every result once and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "plots", help="folder of pictures")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    source = embedded_model_path()
    model = AutoModelForSequenceClassification.from_pretrained(source)
    run = {"tokenizer": AutoTokenizer.from_pretrained(source)}

    explanation = explain(model, LONG, **run)
    explanation.plot(folder / "words.png", most=12)
    explanation.plot(folder / "text.png", kind="text")
    explanation.plot(folder / "heads.png", kind="heads")
    explain(model, LONG, method="attention", **run).plot(folder / "text_without_class.png", kind="text")

    report(model, SHORT, **run).plot(folder / "subgraph.png", kind="subgraph")
    page = report(model, LONG, methods=(), subgraph=False, **run)
    page.plot(folder / "report_text.png")
    page.plot(folder / "attention.png", kind="attention")
    page.plot(folder / "intervals.png", kind="intervals")
    kinds = [attention_maps(model, SHORT, kind=kind, layers=[2], **run) for kind in ("raw", "effective", "efficient")]
    Results(kinds).plot(folder / "attention_maps.png", layer=2, head=1)

    minimal_tokens(model, LONG, **run).plot(folder / "token_set.png")
    subgraph = minimal_attention(model, SHORT, **run)
    subgraph.plot(folder / "subgraph_heads.png", kind="heads")
    subgraph.plot(folder / "subgraph_probabilities.png", kind="probabilities")
    certify(model, LONG, **run).plot(folder / "certificate.png")
    certificates = [certify(model, LONG, tolerance=tolerance, **run) for tolerance in TOLERANCES]
    Results(certificates).plot(folder / "tolerance.png")
    certificates[0].plot(folder / "support.png", kind="support")

    texts = reviews(300)
    comparison = compare(model, texts[:40], methods=["relevance", "attnlrp", "attention", "random"], **run)
    comparison.plot(folder / "comparison.png")
    comparison.plot(folder / "agreement.png", kind="agreement")
    profile = fit_information(model, texts, **run)
    profile.plot(folder / "information.png")
    draw = torch.Generator().manual_seed(0)
    classes = torch.randint(2, (1000,), generator=draw)
    strengths = torch.tensor([0.0, 0.2, 0.5])[:, None, None]
    states = torch.randn(3, 1000, 8, generator=draw) + strengths * classes[:, None]
    names = ["no information", "a little", "more"]
    mutual_information(states, classes).plot(folder / "mutual_information.png", names=names)
    for path in sorted(folder.glob("*.png")):
        print(f"{path.name}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
