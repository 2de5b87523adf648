"""How much of each head's attention does its output need? Raw, effective and efficient attention side by side.

python examples/attention_maps.py
python examples/attention_maps.py --model google-bert/bert-base-uncased --text-file review.txt --layer 3
"""

import argparse
from pathlib import Path

from transformers import AutoModel, AutoTokenizer

from hf_attn_mi import attention_maps
from hf_attn_mi.cli import embedded_model_path

TEXT = (
    "The first hour moves so slowly that half of the audience had left before the story found its feet, and yet the "
    "last twenty minutes are among the most gripping, tender and surprising that any director has put on a screen this "
    "year; a strange, uneven and finally wonderful piece of work."
)


def main() -> None:
    """Print, for each head of a layer, what changes between raw, effective and efficient attention."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(embedded_model_path()), help="Hub name or folder of an encoder")
    parser.add_argument("--text-file", type=Path)
    parser.add_argument("--layer", type=int, default=1)
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModel.from_pretrained(options.model)
    text = options.text_file.read_text(encoding="utf-8") if options.text_file else TEXT
    kinds = ("raw", "effective", "efficient")
    maps = {kind: attention_maps(model, text, tokenizer=tokenizer, kind=kind, layers=[options.layer]) for kind in kinds}
    print(f"{len(maps['raw'].tokens)} tokens, layer {options.layer}")
    print("head  ||A - A_eff||/||A||   keys used: raw  efficient   largest residual")
    for head in range(len(maps["raw"].heads)):
        raw, effective = (maps[kind][options.layer][head] for kind in ("raw", "effective"))
        difference = float((raw - effective).norm() / raw.norm())
        used = [float(maps[kind].support[0][head].float().mean()) for kind in ("raw", "efficient")]
        residual = float(maps["efficient"].residual[0][head].max())
        print(f"{head:>4}  {difference:>19.3f}  {used[0]:>15.1f}  {used[1]:>9.1f}  {residual:>17.1e}")


if __name__ == "__main__":
    main()
