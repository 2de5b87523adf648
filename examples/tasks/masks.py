"""Which words call for this word? A masked language model fills in a word.

python examples/tasks/masks.py
python examples/tasks/masks.py --model google-bert/bert-base-uncased "The {mask} barked at the cat." --plot mask.png

`{mask}` in a text becomes the tokenizer's own mask token.
"""

from tiny_models import load, load_tokenizer, read_options
from transformers import AutoModelForMaskedLM

from hf_attn_mi import explain


def main() -> None:
    """Print the most probable word for the first mask of each text, and the words that speak for it."""
    options = read_options(__doc__, "The {mask} was long and dull.")
    model, tokenizer = load(AutoModelForMaskedLM, options.model), load_tokenizer(options.model)
    texts = [text.format(mask=tokenizer.mask_token) for text in options.texts]
    # Another word: target='mask("film")'; for the second mask: target='mask("film", n=1)'
    explanations = explain(model, texts, tokenizer=tokenizer)
    for explanation in explanations:
        words = ", ".join(f"{word.text} {word.score:+.2f}" for word in explanation.top(3))
        print(f"{explanation.target_name} ({explanation.probability:.3f}): {words}")
    if options.plot is not None:
        explanations.plot(options.plot)


if __name__ == "__main__":
    main()
