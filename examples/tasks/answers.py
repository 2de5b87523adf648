"""Which words make this span the answer? Extractive question answering.

python examples/tasks/answers.py
python examples/tasks/answers.py --model distilbert/distilbert-base-cased-distilled-squad \
    "Who wrote the story?" "Tom made the film and Anna wrote the story." --plot answer.png
"""

from tiny_models import load, load_tokenizer, read_options
from transformers import AutoModelForQuestionAnswering

from hf_attn_mi import explain


def main() -> None:
    """Print the best answer, its probability and the words of question and context with the largest scores."""
    options = read_options(__doc__, "Who wrote the story?", "Tom made the film and Anna wrote the story.", count=2)
    question, context = options.texts
    model = load(AutoModelForQuestionAnswering, options.model)
    # Another answer: target='answer("Tom")'
    answer = explain(model, (question, context), tokenizer=load_tokenizer(options.model))
    words = ", ".join(f"{word.text} {word.score:+.2f}" for word in answer.top(4))
    print(f"{answer.target_name} ({answer.probability:.3f}): {words}")
    if options.plot is not None:
        answer.plot(options.plot)


if __name__ == "__main__":
    main()
