"""Put other attention in the place of the model's own and see whether the prediction cares.

python examples/intervene.py
"""

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_attn_mi import capture_attention, effective_attention, efficient_attention
from hf_attn_mi.cli import embedded_model_path

TEXT = (
    "The first hour moves so slowly that half of the audience had left before the story found its feet, and yet the "
    "last twenty minutes are among the most gripping and surprising that any director has put on a screen this year."
)


def uniform(call):
    """Every allowed key gets the same weight."""
    allowed = call.allowed().expand(*call.output.shape[:3], call.value.shape[2]).float()
    return allowed / allowed.sum(-1, keepdim=True)


def effective(call):
    """The part of the attention that the head output can see (arXiv 1908.04211)."""
    return effective_attention(call.attention(), call.values_per_head()).attention


def efficient(call):
    """The vertex of all rows with the same output that keeps most of the model's own attention."""
    return efficient_attention(call.attention(), call.values_per_head()).attention


def main() -> None:
    """Print the logits under the model's own and under three other attentions."""
    path = str(embedded_model_path())
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    inputs = tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        own = model(**inputs).logits
        print(f"{inputs['input_ids'].shape[1]} tokens; logits of the model itself: {own[0].tolist()}")
        for replace in (effective, efficient, uniform):
            with capture_attention(model, lambda call: None, replace=replace):
                moved = float((model(**inputs).logits - own).abs().max())
            print(f"{replace.__name__:>10} attention in every head moves the logits by {moved:.1e}")


if __name__ == "__main__":
    main()
