"""Which moments of a recording carry its class?

python examples/tasks/audio.py
python examples/tasks/audio.py dog.wav --model superb/wav2vec2-base-superb-ks --plot sound.png
"""

import numpy as np
from tiny_models import load, read_options
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, Wav2Vec2FeatureExtractor

from hf_attn_mi import explain


def main() -> None:
    """Print the class of each recording and the moments with the largest scores."""
    options = read_options(__doc__)
    model = load(AutoModelForAudioClassification, options.model)
    if options.model is None:
        extractor = Wav2Vec2FeatureExtractor()
    else:
        extractor = AutoFeatureExtractor.from_pretrained(options.model)
    noise = {"array": np.random.default_rng(0).standard_normal(8000).astype(np.float32), "sampling_rate": 16000}
    explanations = explain(model, options.texts or [noise], processor=extractor)
    for one in explanations:
        order = one.scores.abs().argsort(descending=True)[:3].tolist()
        moments = ", ".join(f"{one.tokens[i]} {float(one.scores[i]):+.2f}" for i in order)
        print(f"{one.target_name} ({one.probability:.3f}): {moments}")
    if options.plot is not None:
        explanations.plot(options.plot)


if __name__ == "__main__":
    main()
