"""The texts of the pages that are looked at."""

from dataclasses import replace

import torch
from transformers import Wav2Vec2FeatureExtractor

import hf_attn_mi
from tests.results.result_samples import explanation, report
from tests.sample_models import zoo_model

REVIEW = (
    "I went in with low hopes. The plot is thin and the jokes are old, and for the first half hour I thought about "
    "leaving. But then the two leads meet, and the film comes alive: they are a joy to watch, quick and warm and never "
    "sentimental. The ending is a little too neat, and the music is far too loud, but I walked out smiling, and I "
    "would happily see it again with friends."
)
SHORT = "A warm and funny film."
PAIR = ("The film was long.", "Nobody liked it much, but the music is lovely.")
LONG_REVIEW = " ".join([REVIEW] * 5)  # 430 words
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--\u2028\u2029&lt;b&gt;",
)


def two_hundred():
    """Texts of different length and class, each of which occurs once."""
    words = REVIEW.split()
    ends = (".", "! But it is dull and boring.", ", a joy to watch.")
    return [f"{' '.join(words[i % 60 : i % 60 + 6 + i % 23])} {i}{ends[i % 3]}" for i in range(200)]


def a_recording():
    """The report on a recording of two tones."""
    model, _ = zoo_model("audcls-wavlm")
    times = torch.linspace(0, 0.25, 4000)
    wave = torch.sin(2 * torch.pi * 220 * times) * (times < 0.1) + torch.sin(2 * torch.pi * 900 * times) * (
        times > 0.15
    )
    sound = {"array": wave.numpy(), "sampling_rate": 16000}
    return hf_attn_mi.report(model, sound, processor=Wav2Vec2FeatureExtractor(), methods=(), certificate=False)


def with_information():
    """A report whose explanation has the information of three layers, with bounds."""
    layers = [
        {
            "layer": layer,
            "kl": [0.1 * (layer + i) for i in range(5)],
            "mi": {
                "first": {
                    "nats": 0.2 * layer,
                    "interval": [0.15 * layer, 0.25 * layer],
                    "lower_bound": 0.125 * layer,
                    "upper_bound": 0.625,
                }
            },
        }
        for layer in range(3)
    ]
    information = {"ceiling": 0.5, "n": 300, "layers": layers}
    item = replace(report().items[0], explanations=(explanation(information=information),), methods=())
    return report(items=(item,))


def hostile_report():
    """A report whose tokens, names and texts would be markup, if they were not text."""
    item = report().items[0]
    tokens = ("[CLS]", *HOSTILE, "[SEP]")
    text = " ".join(HOSTILE)
    starts = [text.index(part) for part in HOSTILE]
    offsets = ((0, 0), *((start, start + len(part)) for start, part in zip(starts, HOSTILE)), (0, 0))
    one = explanation(
        tokens=tokens,
        texts=(text,),
        offsets=offsets,
        word_ids=(None, 0, 1, 2, None),
        target_name=HOSTILE[1],
        info={"model": HOSTILE[0], "method": "relevance", "warnings": [HOSTILE[0]]},
    )
    classes = tuple(replace(x, name=name) for x, name in zip(item.classes, HOSTILE))
    token_set = replace(item.token_set, tokens=tokens, texts=(text,), target_name=HOSTILE[1])
    hostile = replace(
        item,
        classes=classes,
        explanations=(one,),
        methods=(),
        token_set=token_set,
        label=HOSTILE[1],
        notes={"lime": text},
    )
    return report(items=(hostile, hostile), info={"model": HOSTILE[0], "method": HOSTILE[1]})
