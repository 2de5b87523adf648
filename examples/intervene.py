"""Replace the attention of a model during a forward pass and measure how much the logits change.

python examples/intervene.py
python examples/intervene.py --model distilbert/distilbert-base-uncased-finetuned-sst-2-english
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import hf_attn_mi
from hf_attn_mi import capture_attention, effective_attention, efficient_attention
from hf_attn_mi.capture import AttentionCall

EMBEDDED_MODEL = Path(hf_attn_mi.__file__).parent / "embedded_model"
TEXT = (
    "The first hour moves so slowly that half of the audience had left before the story found its feet, and yet the "
    "last twenty minutes are among the most gripping and surprising that any director has put on a screen this year."
)


def uniform(call: AttentionCall) -> Tensor:
    """Give the same weight to every key that the query may attend to."""
    allowed = call.allowed().expand(*call.output.shape[:3], call.value.shape[2]).float()
    return allowed / allowed.sum(-1, keepdim=True)


def effective(call: AttentionCall) -> Tensor:
    """Remove the part of the attention that cannot change the head's output (arXiv 1908.04211)."""
    return effective_attention(call.attention(), call.values_per_head()).attention


def efficient(call: AttentionCall) -> Tensor:
    """Use the rows that give the same output with few keys."""
    return efficient_attention(call.attention(), call.values_per_head()).attention


def main() -> None:
    """Print how far each replacement changes the logits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(EMBEDDED_MODEL), help="Hub name or folder (default: the embedded model)")
    parser.add_argument("--text", default=TEXT)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model).eval()
    inputs = tokenizer(options.text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
        print(f"{inputs['input_ids'].shape[1]} tokens; logits without a replacement: {logits[0].tolist()}")
        for replace in (effective, efficient, uniform):
            with capture_attention(model, lambda call: None, replace=replace):
                change = float((model(**inputs).logits - logits).abs().max())
            print(f"{replace.__name__:>10} attention in every head changes the logits by {change:.1e}")


if __name__ == "__main__":
    main()
