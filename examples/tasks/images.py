"""Which patches of an image carry its class?

python examples/tasks/images.py
python examples/tasks/images.py cat.jpg --model google/vit-base-patch16-224 --plot map.png
"""

import numpy as np
from tiny_models import load, read_options
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTImageProcessorPil

from hf_attn_mi import explain


def main() -> None:
    """Print the class of each image and the patches with the largest scores."""
    options = read_options(__doc__)
    model = load(AutoModelForImageClassification, options.model)
    if options.model is None:
        processor = ViTImageProcessorPil(size={"height": 96, "width": 96})
    else:
        processor = AutoImageProcessor.from_pretrained(options.model)
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    explanations = explain(model, options.texts or [noise], processor=processor)
    for one in explanations:
        order = one.scores.abs().argsort(descending=True)[:3].tolist()
        patches = ", ".join(f"{one.tokens[i]} {float(one.scores[i]):+.2f}" for i in order)
        print(f"{one.target_name} ({one.probability:.3f}), {one.grid[0]} x {one.grid[1]} patches: {patches}")
    if options.plot is not None:
        explanations.plot(options.plot)


if __name__ == "__main__":
    main()
