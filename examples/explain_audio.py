"""Explain which moments of a recording made the prediction.

python examples/explain_audio.py dog.wav
python examples/explain_audio.py word.wav --model superb/wav2vec2-base-superb-ks --output sound.png
"""

import argparse

from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from hf_attn_mi import explain

MODEL = "superb/wav2vec2-base-superb-ks"


def main() -> None:
    """Print the class and the strongest moments, and draw the scores over the waveform."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", help="a .wav file")
    parser.add_argument("--model", default=MODEL, help=f"Hub name or folder (default: {MODEL})")
    parser.add_argument("--output", help="file for the scores over the waveform, such as sound.png")
    options = parser.parse_args()

    extractor = AutoFeatureExtractor.from_pretrained(options.model)
    model = AutoModelForAudioClassification.from_pretrained(options.model)
    explanation = explain(model, options.recording, processor=extractor)
    print(f"{explanation.target_name} ({explanation.probability:.3f})")
    for moment in explanation.top(5, words=False):
        print(f"{moment.score:+8.3f}  {moment.text}")
    if options.output is not None:
        explanation.plot(options.output)


if __name__ == "__main__":
    main()
