"""In which layer is the output known, and does the order of attention follow the information of each token?

    python examples/information_over_layers.py --quick
    python examples/information_over_layers.py --model NAME --data stanfordnlp/sst2:train --limit 2000

Some texts give a profile: the mutual information between the states of each layer and the model's output. The texts
after them give, for each token, the information KL( q(Y|h) || q(Y) ) of its state; its order is compared with that of
the attention that the token receives in the layer. The study with efficient attention, the reliability of the
information and figures is benchmarks/studies/information/over_layers.py.
"""

import argparse
import itertools
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import hf_attn_mi
from hf_attn_mi import explain, fit_information
from hf_attn_mi.data import read_texts_of
from hf_attn_mi.evaluation import rank_agreement

EMBEDDED_MODEL = Path(hf_attn_mi.__file__).parent / "embedded_model"
SUBJECTS = ("film", "story", "first hour", "cast", "ending", "music", "dialogue", "camera work", "script", "second act")
PREDICATES = (
    "is warm and very funny",
    "is a mess from start to end",
    "is dull",
    "is wonderful",
    "is a joy to watch",
    "has no charm at all",
    "is neither good nor bad",
    "left me cold",
    "is painfully loud",
    "holds a few surprises",
    "is a complete waste of time",
    "is among the best of this year",
)


def built_in_texts() -> list[str]:
    """Return short reviews in random order, for a run without data."""
    texts = [f"The {subject} {predicate}." for predicate, subject in itertools.product(PREDICATES, SUBJECTS)]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    return [texts[i] for i in order]


def main() -> None:
    """Print the information over layers, then the rank agreement of attention with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(EMBEDDED_MODEL), help="Hub name or folder (default: the embedded model)")
    parser.add_argument("--data", help="texts: a file, folder or Hub name (default: built-in ones)")
    parser.add_argument("--limit", type=int, default=2000, help="texts for the profile")
    parser.add_argument("--explain", type=int, default=50, metavar="N", help="further texts that are explained")
    parser.add_argument("--quick", action="store_true", help="100 built-in texts, estimator probe: seconds")
    options = parser.parse_args()
    estimator = "probe" if options.quick else "auto"
    if options.quick:
        options.limit, options.explain = 100, 12

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, dtype=torch.float32)
    if options.data is None:
        texts = built_in_texts()
        options.limit = min(options.limit, len(texts) - 20)
    else:
        texts = list(read_texts_of(options.data, limit=options.limit + options.explain))
    profile = fit_information(model, texts[: options.limit], tokenizer=tokenizer, estimator=estimator)
    print(profile)

    attention: dict[int, list[torch.Tensor]] = {}
    information: dict[int, list[torch.Tensor]] = {}
    explained = texts[options.limit : options.limit + options.explain]
    for explanation in explain(
        model, explained, tokenizer=tokenizer, method="attention", profile=profile, truncation=True
    ):
        words = ~torch.tensor(explanation.special)  # special tokens are left out
        by_layer = {layer["layer"]: layer for layer in explanation.information["layers"]}
        for layer in explanation.layers:
            if layer.layer + 1 in by_layer:  # the states after attention layer i have index i + 1
                nats = torch.tensor(by_layer[layer.layer + 1]["kl"], dtype=torch.float64)
                attention.setdefault(layer.layer, []).append(layer.received[:, words])
                information.setdefault(layer.layer, []).append(nats[words])
    print("\nRank agreement of the attention that tokens receive with their information, mean over texts and heads")
    for layer, received in attention.items():
        agreement = rank_agreement(received, information[layer]).overall
        interval = agreement.tau_interval or (float("nan"), float("nan"))
        print(f"layer {layer}: tau-b {agreement.tau:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]")


if __name__ == "__main__":
    main()
