"""Which words call for the next one? A decoder predicts the token after a text.

python examples/tasks/next_token.py
python examples/tasks/next_token.py --model openai-community/gpt2 "The capital of France is" --plot next.png
"""

from tiny_models import load, load_tokenizer, read_options
from transformers import AutoModelForCausalLM

from hf_attn_mi import explain


def main() -> None:
    """Print the most probable next token of each text, and the words with the largest scores."""
    options = read_options(__doc__, "The story is very")
    model = load(AutoModelForCausalLM, options.model)
    # Another token: target='next_token(" Paris")', with its blank where the tokenizer keeps it
    explanations = explain(model, options.texts, tokenizer=load_tokenizer(options.model))
    for one in explanations:
        words = ", ".join(f"{word.text} {word.score:+.2f}" for word in one.top(3))
        print(f"{one.target_name} ({one.probability:.3f}): {words}")
    if options.plot is not None:
        explanations.plot(options.plot)


if __name__ == "__main__":
    main()
