"""Explain the entities that a token classifier finds in a text.

python examples/explain_entities.py
python examples/explain_entities.py --model dslim/bert-base-NER "Tom made a film in Paris."
"""

import argparse

from transformers import AutoModelForTokenClassification, AutoTokenizer

from hf_attn_mi import explain

MODEL = "dslim/bert-base-NER"
TEXT = "Maria Keller moved from Vienna to Lisbon to work for Siemens."


def main() -> None:
    """Print, for each entity, its label and the words that made it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default=TEXT)
    parser.add_argument("--model", default=MODEL, help=f"Hub name or folder (default: {MODEL})")
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForTokenClassification.from_pretrained(options.model)
    entities = explain(model, options.text, tokenizer=tokenizer, targets="all")
    for explanation in entities:
        words = ", ".join(f"{word.text} {word.score:+.2f}" for word in explanation.top(3))
        print(f"{explanation.target_name} ({explanation.probability:.3f}): {words}")
    print(f"{len(entities)} entities")


if __name__ == "__main__":
    main()
