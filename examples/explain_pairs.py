"""Explain whether one text follows from another: natural language inference.

python examples/explain_pairs.py
python examples/explain_pairs.py --model typeform/distilbert-base-uncased-mnli "A man sleeps." "Nobody is awake."
"""

import argparse

from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_attn_mi import explain

MODEL = "typeform/distilbert-base-uncased-mnli"
PAIR = ("A woman is playing the violin in the street.", "Somebody makes music.")


def main() -> None:
    """Print, for each label, its probability and the words of both texts that speak for it or against it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", default=PAIR, help="premise and hypothesis")
    parser.add_argument("--model", default=MODEL, help=f"Hub name or folder (default: {MODEL})")
    options = parser.parse_args()
    if len(options.texts) != 2:
        parser.error("two texts are needed: the premise and the hypothesis")

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model)
    for explanation in explain(model, tuple(options.texts), tokenizer=tokenizer, targets="all"):
        words = ", ".join(f"{word.text} {word.score:+.2f}" for word in explanation.top(4))
        print(f"{explanation.target_name} ({explanation.probability:.3f}): {words}")


if __name__ == "__main__":
    main()
