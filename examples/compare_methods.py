"""Which method explains this classifier best on these texts? Ours beside methods of Captum.

python examples/compare_methods.py
python examples/compare_methods.py --model distilbert/distilbert-base-uncased-finetuned-sst-2-english --data reviews.csv
"""

import argparse
from pathlib import Path

from transformers import AutoModelForSequenceClassification, AutoTokenizer

import hf_attn_mi
from hf_attn_mi import compare
from hf_attn_mi.data import read_texts_of

EMBEDDED_MODEL = Path(hf_attn_mi.__file__).parent / "embedded_model"
METHODS = ("relevance", "attention", "effective", "integrated_gradients", "random")
TEXTS = (
    "A warm, funny and wise film.",
    "The plot is thin and the jokes are old.",
    "It was not bad at all.",
    "The music is far too loud, but I walked out smiling.",
    "Nobody in the audience laughed even once.",
    "A quiet story that stays with you for weeks.",
)


def main() -> None:
    """Print the table of faithfulness and which method is recommended, if any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(EMBEDDED_MODEL), help="Hub name or folder (default: the embedded model)")
    parser.add_argument("--data", help="texts: a file, folder or Hub name (default: built-in ones, too few to decide)")
    parser.add_argument("--limit", type=int, default=100, help="maximum number of texts")
    parser.add_argument("--methods", nargs="+", default=METHODS, help="see hf-attn-mi methods")
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model)
    texts = TEXTS if options.data is None else read_texts_of(options.data, limit=options.limit)
    print(compare(model, list(texts), methods=options.methods, tokenizer=tokenizer, truncation=True))


if __name__ == "__main__":
    main()
