"""Explain the answer of a question-answering model.

python examples/explain_answers.py
python examples/explain_answers.py --model distilbert/distilbert-base-cased-distilled-squad --question "Who is dull?"
"""

import argparse

from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from hf_attn_mi import explain

MODEL = "distilbert/distilbert-base-cased-distilled-squad"
QUESTION = "Where was the bridge built?"
CONTEXT = "The bridge was built in Porto in 1886. It was designed by a student of Gustave Eiffel."


def main() -> None:
    """Print the answer and the words of question and context that made it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--context", default=CONTEXT)
    parser.add_argument("--model", default=MODEL, help=f"Hub name or folder (default: {MODEL})")
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForQuestionAnswering.from_pretrained(options.model)
    explanation = explain(model, (options.question, options.context), tokenizer=tokenizer)
    print(f"answer: {explanation.target_name} ({explanation.probability:.3f})")
    for word in explanation.top(6):
        print(f"{word.score:+8.2f}  {word.text}  ({('question', 'context')[word.sequence]})")


if __name__ == "__main__":
    main()
