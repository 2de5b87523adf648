"""Which words make a word an entity? Every entity that a token classifier finds in a text.

python examples/tasks/entities.py
python examples/tasks/entities.py --model dslim/bert-base-NER "Tom Hanks made a film in Paris." --plot entities.png
"""

from tiny_models import load, load_tokenizer, read_options
from transformers import AutoModelForTokenClassification

from hf_attn_mi import explain


def main() -> None:
    """Print, for each entity, its label, its probability and the words with the largest scores."""
    options = read_options(__doc__, "Tom made a film in Paris.")
    model = load(AutoModelForTokenClassification, options.model)
    # One entity alone: target='token(word="Paris", label="B-LOC")'
    entities = explain(model, options.texts, tokenizer=load_tokenizer(options.model), targets="all")
    if not entities:
        print("The model finds no entity.")
    for entity in entities:
        words = ", ".join(f"{word.text} {word.score:+.2f}" for word in entity.top(3))
        print(f"{entity.target_name} ({entity.probability:.3f}): {words}")
    if options.plot is not None and entities:
        entities.plot(options.plot)


if __name__ == "__main__":
    main()
