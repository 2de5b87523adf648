"""Which words of a long text carry its class? Windows cover a text beyond the model's maximum.

python examples/tasks/long_text.py
python examples/tasks/long_text.py --model distilbert/distilbert-base-uncased-finetuned-sst-2-english --plot long.png
"""

from tiny_models import EMBEDDED_MODEL, load_tokenizer, read_options
from transformers import AutoModelForSequenceClassification

from hf_attn_mi import explain

REVIEW = (
    "The first hour is slow. The rooms are dark and the dialogue is wooden. Then the sister arrives, and the film "
    "wakes up: she is funny, warm and quick. "
)


def main() -> None:
    """Print the class of all windows together, their number and the words with the largest scores."""
    options = read_options(__doc__, 20 * REVIEW)
    model = AutoModelForSequenceClassification.from_pretrained(options.model or EMBEDDED_MODEL)
    # The class by the largest logits of the windows instead of their mean: aggregation="max"
    explanations = explain(model, options.texts, tokenizer=load_tokenizer(options.model), stride=32)
    for one in explanations:
        windows = one.info["windows"]
        words = ", ".join(f"{word.text} {word.score:+.2f}" for word in one.top(3))
        print(f"{one.target_name} ({windows['aggregation']} of {windows['count']} windows): {words}")
    if options.plot is not None:
        explanations.plot(options.plot)


if __name__ == "__main__":
    main()
