"""Explain which patches of an image made the prediction.

python examples/explain_image.py docs/images/image.png
python examples/explain_image.py cat.jpg --model google/vit-base-patch16-224 --output map.png
"""

import argparse

from transformers import AutoImageProcessor, AutoModelForImageClassification

from hf_attn_mi import explain

MODEL = "google/vit-base-patch16-224"


def main() -> None:
    """Print the class and the strongest patches, and draw the map over the image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", help="file of an image")
    parser.add_argument("--model", default=MODEL, help=f"Hub name or folder (default: {MODEL})")
    parser.add_argument("--output", help="file for the map over the image, such as map.png")
    options = parser.parse_args()

    processor = AutoImageProcessor.from_pretrained(options.model)
    model = AutoModelForImageClassification.from_pretrained(options.model)
    explanation = explain(model, options.image, processor=processor)
    print(f"{explanation.target_name} ({explanation.probability:.3f}), patches in rows and columns: {explanation.grid}")
    for patch in explanation.top(5, words=False):
        print(f"{patch.score:+8.3f}  {patch.text}")
    if options.output is not None:
        explanation.plot(options.output)


if __name__ == "__main__":
    main()
