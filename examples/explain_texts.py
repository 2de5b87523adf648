"""Explain the predictions of a sequence classifier on a few texts.

python examples/explain_texts.py
python examples/explain_texts.py --model distilbert/distilbert-base-uncased-finetuned-sst-2-english "A fine film."
"""

import argparse
from pathlib import Path

from transformers import AutoModelForSequenceClassification, AutoTokenizer

import hf_attn_mi
from hf_attn_mi import explain

EMBEDDED_MODEL = Path(hf_attn_mi.__file__).parent / "embedded_model"
TEXTS = ["A warm, funny and wise film.", "The plot is thin and the jokes are old.", "It was not bad at all."]


def main() -> None:
    """Print, for each text, the class, the strongest words, and how completely the scores account for the logit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", default=TEXTS)
    parser.add_argument("--model", default=str(EMBEDDED_MODEL), help="Hub name or folder (default: the embedded model)")
    parser.add_argument("--save", type=Path, help="folder for one JSON file a text")
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model)
    for number, explanation in enumerate(explain(model, options.texts, tokenizer=tokenizer)):
        words = ", ".join(f"{word.text} {word.score:+.2f}" for word in explanation.top(3))
        print(f"{explanation.target_name} ({explanation.probability:.3f}): {words}")
        print(f"    not accounted for: {explanation.completeness_gap:.1e} of the class logit")
        if options.save is not None:
            explanation.save(options.save / f"{number}.json", overwrite=True)


if __name__ == "__main__":
    main()
