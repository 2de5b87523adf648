"""Which words make two texts similar? The cosine of their embeddings.

python examples/tasks/similarity.py
python examples/tasks/similarity.py --model sentence-transformers/all-MiniLM-L6-v2 \
    "A warm and funny film." "The movie made us laugh." --plot similarity.png

A model of sentence-transformers, loaded with `SentenceTransformer(name)`, keeps its own pooling; see also reranking.py.
"""

from tiny_models import EMBEDDED_MODEL, load_tokenizer, read_options
from transformers import AutoModel

from hf_attn_mi import explain, targets


def main() -> None:
    """Print the cosine of the first text with the second, and the words of the first that raise or lower it."""
    options = read_options(__doc__, "A warm and funny film.", "The movie made us laugh.", count=2)
    text, other = options.texts
    model = AutoModel.from_pretrained(options.model or EMBEDDED_MODEL, add_pooling_layer=False)
    target = targets.similarity(other, pooling="mean")  # or "cls", "last", "max"
    explanation = explain(model, text, tokenizer=load_tokenizer(options.model), target=target)
    words = ", ".join(f"{word.text} {word.score:+.2f}" for word in explanation.top(4))
    print(f"{explanation.target_name}: {explanation.value:.3f}: {words}")
    if options.plot is not None:
        explanation.plot(options.plot)


if __name__ == "__main__":
    main()
