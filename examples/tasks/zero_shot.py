"""Which words make a text belong to a label that the model was not trained for? Zero-shot classification.

python examples/tasks/zero_shot.py
python examples/tasks/zero_shot.py --model MoritzLaurer/deberta-v3-base-zeroshot-v1 \
    "The striker scored twice." --labels film sports --plot labels.png
"""

import argparse
from pathlib import Path

from tiny_models import NLI, load, load_tokenizer
from transformers import AutoModelForSequenceClassification, pipeline

from hf_attn_mi import explain


def main() -> None:
    """Print the probability of every label, and the words of text and hypothesis that speak for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="The cast is warm and the story is funny.")
    parser.add_argument("--labels", nargs="+", default=["film", "sports"])
    parser.add_argument("--model", help="Hub name or folder of a model of natural language inference")
    parser.add_argument("--plot", type=Path, help="file of a picture: .png, .svg or .pdf")
    options = parser.parse_args()

    model = load(AutoModelForSequenceClassification, options.model, **NLI)
    zero_shot = pipeline("zero-shot-classification", model=model, tokenizer=load_tokenizer(options.model))
    # The best label alone: without targets=; one of them: target="sports"
    explanations = explain(zero_shot, options.text, candidate_labels=options.labels, targets="all")
    for one in explanations:
        words = ", ".join(f"{word.text} {word.score:+.2f}" for word in one.top(3))
        print(f"{one.target_name} ({one.probability:.3f}): {words}")
    if options.plot is not None:
        explanations.plot(options.plot)


if __name__ == "__main__":
    main()
