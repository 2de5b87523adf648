"""Which words make a passage relevant to a query? A cross-encoder scores pairs.

python examples/tasks/reranking.py
python examples/tasks/reranking.py --model cross-encoder/ms-marco-MiniLM-L6-v2 \
    "Who wrote the story?" "Anna wrote the story." "The film is long." --plot passages.png
"""

from tiny_models import load, load_tokenizer, read_options
from transformers import AutoModelForSequenceClassification

from hf_attn_mi import explain


def main() -> None:
    """Print the passages from the most to the least relevant, each with the words that make it so."""
    options = read_options(__doc__, "Who wrote the story?", "Anna wrote the story.", "The film is long.")
    query, *passages = options.texts
    # A CrossEncoder of sentence-transformers is taken as it is: explain(CrossEncoder(name), pairs)
    model = load(AutoModelForSequenceClassification, options.model, num_labels=1)
    pairs = [(query, passage) for passage in passages]
    explanations = explain(model, pairs, tokenizer=load_tokenizer(options.model))
    for one in sorted(explanations, key=lambda each: -each.value):
        words = ", ".join(f"{word.text} {word.score:+.2f}" for word in one.top(3))
        print(f"{one.value:+.2f} {one.texts[1]!r}: {words}")
    if options.plot is not None:
        explanations.plot(options.plot)


if __name__ == "__main__":
    main()
