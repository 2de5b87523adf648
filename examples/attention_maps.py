"""How many keys does each head's output need? Raw, effective and efficient attention side by side.

python examples/attention_maps.py
python examples/attention_maps.py --model google-bert/bert-base-uncased --text-file review.txt --layer 3
"""

import argparse
from pathlib import Path

from transformers import AutoModel, AutoTokenizer

import hf_attn_mi
from hf_attn_mi import attention_maps

EMBEDDED_MODEL = Path(hf_attn_mi.__file__).parent / "embedded_model"
TEXT = (
    "The first hour moves so slowly that half of the audience had left before the story found its feet, and yet the "
    "last twenty minutes are among the most gripping, tender and surprising that any director has put on a screen this "
    "year; a strange, uneven and finally wonderful piece of work."
)


def main() -> None:
    """Print, for each head of a layer, what changes between raw, effective and efficient attention."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(EMBEDDED_MODEL), help="Hub name or folder (default: the embedded model)")
    parser.add_argument("--text-file", type=Path)
    parser.add_argument("--layer", type=int, default=1)
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModel.from_pretrained(options.model)
    text = options.text_file.read_text(encoding="utf-8") if options.text_file else TEXT
    raw, effective, efficient = (
        attention_maps(model, text, tokenizer=tokenizer, kind=kind, layers=[options.layer])
        for kind in ("raw", "effective", "efficient")
    )
    print(f"{len(raw.tokens)} tokens, layer {options.layer}")
    print("head  ||A - A_eff||/||A||   keys with weight: raw  efficient   largest residual")
    for head in range(len(raw.heads)):
        rows = raw[options.layer][head]
        change = float((rows - effective[options.layer][head]).norm() / rows.norm())
        keys = [float(maps.support[0][head].float().mean()) for maps in (raw, efficient)]
        residual = float(efficient.residual[0][head].max())
        print(f"{head:>4}  {change:>19.3f}  {keys[0]:>21.1f}  {keys[1]:>9.1f}  {residual:>17.1e}")


if __name__ == "__main__":
    main()
