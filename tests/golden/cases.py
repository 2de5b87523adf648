# ruff: noqa: E501 (recorded texts)
"""What was recorded: inputs, options, and groups of calls. Names of methods and options are the new ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.golden import calls
from tests.golden.calls import Record

SHORT: list[Any] = [
    "A quietly moving film.",
    "dull",
    "Brilliant!",
    "not good",
    "I laughed once, and that was at the credits.",
    "The camera loves her, and so will you.",
    "Two hours of my life that nobody will give back.",
    "A warm, funny and wise story about growing old together.",
    "The jokes are stale and the plot is thinner than paper.",
    "Nothing here is new, yet everything feels fresh.",
    "It is neither clever nor scary, but it is never boring.",
    "An unforgettable performance in a forgettable movie.",
    "The director trusts his actors, and they repay him with every glance.",
    "So slow that I could hear my watch.",
    "Go and see it twice.",
    "What a mess!",
    "The children in the row behind me were delighted; I was asleep.",
    "A thriller without thrills, a romance without romance.",
    "This little picture has more heart than ten blockbusters.",
    "Bad acting, bad script, bad lighting, and yet I could not look away.",
    "She carries the whole film on her shoulders with grace.",
    "The first half is wonderful, the second half is not.",
    "You will either love it or leave early.",
    "Its 95 minutes feel like 9 or 10.",
    "C'est très beau: a café, a piano, a goodbye.",
    "THE WORST SEQUEL OF THE SUMMER!!!",
    "the editing is sharp , the music is sharper .",
    "Few comedies are this generous to their characters.",
    "A hollow, noisy and cynical exercise in selling toys.",
    "I would not call it a failure, but I would not call it a success either.",
    "Tender, strange and beautifully photographed.",
    "If you like long silences, here are plenty.",
    "The ending ruins what came before.",
    "An old tale, told with new energy and a wink.",
    "My neighbour wept; I checked the time.",
    "Every scene looks like a postcard that somebody forgot to write on.",
    "Fast, loud, silly and a great deal of fun.",
    "There is no reason for this remake to exist.",
    "The script is lazy, but the two leads are a joy to watch.",
    "It earns its tears honestly.",
    "Predictable? Yes. Enjoyable? Also yes.",
    "A disappointing end to a promising career.",
    ("The plot is thin.", "The songs are lovely."),
    ("A masterpiece of patience.", "Nobody in the room was bored for a second."),
    ("It opens with a storm.", "After that nothing happens at all."),
    ("Who is this for?", "Not for me, and not for my children."),
]
MIDDLE: list[Any] = [  # more tokens than a head has dimensions (32)
    "The first hour moves so slowly that half of the audience had left before the story found its feet, and yet the last "
    "twenty minutes are gripping, surprising and very well played.",
    "What begins as a sober portrait of a fishing village turns into a chase through fog and harbour lights, which is "
    "handsome to look at and completely empty behind the eyes of its hero.",
]
LONG: list[Any] = [  # more than 64 tokens
    "I came for the famous battle scene and stayed for the kitchen, where three sisters argue about salt, letters and an "
    "uncle who never came home. The battle is noisy and short. The kitchen is quiet and goes on for most of the film, "
    "and it is there that the director shows what he can do: a hand on a cup, a door that will not close, and a laugh "
    "that is almost a sob. I loved every minute of it.",
    "There are films that fail because they try too much, and there are films that fail because they try nothing. This "
    "one manages both. It wants to be a satire of television, a love story, a warning about the sea and a musical, and "
    "it gives each of these about eleven minutes, after which somebody shouts and the picture cuts to a drone shot of "
    "the same grey coast. The actors look lost, the songs are weak, and the final joke was in the trailer.",
    "My grandmother, who has seen everything twice, says that the book was better. She is right, of course, but the film "
    "has something that the book does not: the face of its leading lady, who can play hope and dread in the same second "
    "and makes even the clumsy dialogue sound as if it had just come to her mind, on a cold morning, at a bus stop.",
    "A bank is robbed, a dog is lost, a wedding is called off; all of that before breakfast. The rest of the day belongs "
    "to an inspector who is tired of his job and to a thief who is good at hers, and it is a pleasure to watch them miss "
    "each other by a street, a minute, a sentence. The middle sags, one twist is silly, and the music never shuts up, "
    "but the last shot is perfect. Go.",
    "Let me be fair. The costumes are correct, the horses are real, and somebody has clearly read a great many letters "
    "from the period. But a museum is not a drama. For two hours and forty minutes people enter rooms, announce their "
    "titles, explain the war to one another and leave by a different door, and nobody, at any point, seems to want "
    "anything. I have been to livelier funerals, and the food was better as well.",
]
TEXTS = [*SHORT, *MIDDLE, *LONG]
CHECKED = [*MIDDLE, LONG[0], LONG[2], SHORT[37], SHORT[38], SHORT[43], SHORT[29]]  # of the costly groups

CHEAP = {  # method: options; on all texts
    "relevance": None,
    "attnlrp": None,
    "attnlrp_iterative": None,
    "attention": None,
    "rollout": None,
    "effective": None,
    "efficient": None,
    "saliency": None,
    "input_x_gradient": None,
    "integrated_gradients": {"steps": 8},
    "deeplift": None,
    "gradient_shap": {"samples": 4, "seed": 3},
    "random": {"seed": 5},
    "value_norms": None,
}
COSTLY = {  # on the short texts
    "occlusion": {"window": 2},
    "feature_ablation": None,
    "lime": {"samples": 40, "seed": 1},
    "kernel_shap": {"samples": 60, "seed": 2},
    "shapley_sampling": {"samples": 2, "seed": 4},
}
TINY = {**CHEAP, **COSTLY}
FOLLOWED = ("relevance", "attnlrp")  # what images can be explained by
TOKEN_MODELS = ("bert_multilabel", "deberta", "modernbert", "bart", "llama", "head")


@cache
def stored() -> dict[str, Tensor]:
    """The stored random tensors."""
    with np.load(Path(__file__).parent / "tensors.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def tensors(name: str) -> dict[str, Tensor]:
    """A padded batch for a tiny model."""
    if name == "vit":
        return {"pixel_values": stored()["pixels"]}
    found = {"input_ids": stored()["ids"].long(), "attention_mask": stored()["mask"].long()}
    if name in ("bert_multilabel", "head"):
        found["token_type_ids"] = stored()["types"].long()
    return found


def fitted_texts(count: int) -> list[str]:
    """Reviews from a template, no two alike."""
    things = [
        "film",
        "plot",
        "cast",
        "score",
        "script",
        "camera work",
        "dialogue",
        "ending",
        "opening",
        "pace",
        "humour",
    ]
    words = [
        "brilliant", "dull", "moving", "clumsy", "funny", "tired", "elegant", "awful", "fresh", "predictable", "warm",
        "lifeless", "clever", "silly", "gripping", "boring", "lovely",
    ]  # fmt: skip
    shapes = [
        "The {} is {}.", "A {} that is {} from start to finish.", "I found the {} {} and a little strange.",
        "The {} may be {}, but nobody in the audience cared.", "Such a {} {}!".replace("{} {}", "{1} {0}"),
    ]  # fmt: skip
    places = [(t, w, s) for s in range(len(shapes)) for t in range(len(things)) for w in range(len(words))]
    step = 367  # no divisor of 935: visits each once, mixed
    chosen = [places[i * step % len(places)] for i in range(count)]
    return [shapes[s].format(things[t], words[w]) for t, w, s in chosen]


def joined_texts(count: int) -> list[str]:
    """Two reviews in one text."""
    texts = fitted_texts(count)
    return [f"{text} {texts[(i * 7 + 31) % count]}" for i, text in enumerate(texts)]


def word_texts(count: int) -> list[str]:
    """Words for the tiny models, 6 to 14 a text, by a linear congruential generator."""
    state, texts = 12345, []
    for _ in range(count):
        drawn = []
        for _ in range(15):
            state = (1103515245 * state + 12345) % 2**31
            drawn.append(state >> 12)
        texts.append(" ".join(f"w{5 + number % 95}" for number in drawn[: 6 + drawn[14] % 9]))
    return texts


@cache
def profile(name: str) -> Any:
    """The information profile that tokens are scored by."""
    texts = joined_texts(400) if name == "demo_model" else word_texts(400)
    layers = [0, 1, 2, 4] if name == "demo_model" else None
    return calls.fit_information(name, texts, sites=("tokens", "attention"), layers=layers, permutations=50, seed=7)


def _named(inputs: list[Any], records: list[Record]) -> dict[str, Record]:
    assert len(inputs) == len(records)
    return {f"{i}: {str(one)[:40]}": record for i, (one, record) in enumerate(zip(inputs, records))}


def _rows(records: list[Record]) -> dict[str, Record]:
    return {f"row {i}": record for i, record in enumerate(records)}


def _explained(method: str) -> dict[str, Record]:
    inputs = TEXTS if method in CHEAP else SHORT
    options = TINY[method]
    layers = method in ("relevance", "efficient")
    return _named(inputs, calls.run_explain("demo_model", inputs, method, options=options, layers=layers))


def _tiny(name: str) -> dict[str, Record]:
    records = {}
    methods: dict[str, Any] = dict.fromkeys(FOLLOWED) if name == "vit" else dict(TINY)
    if name == "head":
        methods["head"] = None
    for method, options in methods.items():
        layers = method in ("relevance", "effective", "efficient", "head")
        found = calls.run_explain(name, tensors(name), method, options=options, layers=layers)
        records |= {f"{method}, row {i}": record for i, record in enumerate(found)}
    return records


def _targets() -> dict[str, Record]:
    inputs = SHORT[:10]
    targets: list[Any] = ["negative", 1, None, 0, "positive"] * 2
    found = calls.run_explain("demo_model", inputs, "relevance", target=targets)
    single = calls.run_explain("bert_multilabel", tensors("bert_multilabel"), "relevance", target="odd")
    value = calls.run_explain(
        "demo_model", SHORT[3], "attnlrp", target=lambda outputs: outputs.logits[:, 0] - 2 * outputs.logits[:, 1]
    )
    embeds = calls.run_explain("llama", {"inputs_embeds": stored()["embeds"]}, "relevance", target=1)
    return (
        {f"mixed, {key}": record for key, record in _named(inputs, found).items()}
        | {f"multi-label, {key}": record for key, record in _rows(single).items()}
        | {"function": value[0]} | {f"embeddings, {key}": record for key, record in _rows(embeds).items()}
    )  # fmt: skip


def _maps() -> dict[str, Record]:
    inputs, records = [SHORT[7], MIDDLE[0], LONG[2]], {}
    for kind in ("raw", "effective", "effective_affine", "efficient"):
        found = calls.run_maps("demo_model", inputs, kind=kind, layers=[0, 3], heads=[1])
        records |= {f"{kind}, {key}": record for key, record in _named(inputs, found).items()}
        found = calls.run_maps("modernbert", tensors("modernbert"), kind=kind, layers=[1, 2], heads=None)
        records |= {f"{kind}, modernbert, row {i}": found[i] for i in (1, 3)}
    return records


def _certified() -> dict[str, Record]:
    records = {}
    runs: dict[str, dict[str, Any]] = {
        "efficient": {},
        "efficient, tolerance": {"tolerance": 0.1, "layers": [0], "checked_rows": 20, "seed": 1},
        "efficient, layers": {"layers": [2, 3], "checked_rows": 16, "seed": 2},
        "effective": {"form": "effective"},
        "effective_affine": {"form": "effective_affine"},
    }
    for label, options in runs.items():
        found = calls.run_certify("demo_model", CHECKED, **options)
        records |= {f"{label}, {key}": record for key, record in _named(CHECKED, found).items()}
    for name in ("vit", "modernbert", "bart", "llama"):
        found = calls.run_certify(name, tensors(name), checked_rows=8)
        records |= {f"{name}, row {i}": found[i] for i in (1, 3)}
    return records


def _minimal() -> dict[str, Record]:
    found = calls.run_minimal_tokens("demo_model", SHORT, seed=11, check=False)
    records = _named(SHORT, found)
    strict = calls.run_minimal_tokens(
        "demo_model", CHECKED, strict=True, keep=0.8, ranking="attnlrp_iterative", second_ranking=None, check=True
    )
    records |= {f"strict, {key}": record for key, record in _named(CHECKED, strict).items()}
    for name in ("deberta", "llama", "bart"):
        own = calls.run_minimal_tokens(name, tensors(name), ranking="attention", budget=60.0)
        records |= {f"{name}, row {i}": record for i, record in enumerate(own)}
    return records


def _profiles() -> dict[str, Record]:
    runs: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
        "positions and types, probe": (
            "demo_model", joined_texts(300), {"sites": ("positions", "types"), "layers": [2, 4], "estimator": "probe"}
        ),
        "pairs, gaussian": (
            "demo_model", list(zip(joined_texts(300), fitted_texts(300))),
            {"sites": "first", "layers": [2, 4], "estimator": "gaussian", "limit": 250},
        ),
        "tiny, ksg_pca": ("llama", word_texts(300), {"sites": ("positions",), "estimator": "ksg_pca", "seed": 3}),
        "tiny, logistic": ("modernbert", word_texts(200), {"sites": "tokens", "estimator": "logistic", "layers": [1, 3]}),
    }  # fmt: skip
    records = {
        f"tokens and attention, auto, {name}": calls.profile_record(profile(name)) for name in ("demo_model", "deberta")
    }
    for label, (name, texts, options) in runs.items():
        records[label] = calls.profile_record(calls.fit_information(name, texts, permutations=50, **options))
    return records


def _information() -> dict[str, Record]:
    records = {}
    for name, inputs in (
        ("demo_model", [*SHORT[:6], SHORT[42], MIDDLE[0], LONG[0]]), ("deberta", [*word_texts(6), ("w7 w9", "w11")]),
    ):  # fmt: skip
        found = calls.run_explain(name, inputs, "relevance", profile=profile(name))
        records |= {f"{name}, {key}": record for key, record in _named(inputs, found).items()}
    return records


def _compared() -> dict[str, Record]:
    methods = (
        "relevance",
        "attnlrp_iterative",
        "attention",
        "effective",
        "input_x_gradient",
        "feature_ablation",
        "random",
    )
    inputs = SHORT[4:16]
    marked = [[(0, len(text) // 2)] for text in inputs]
    return {
        "delete": calls.run_compare("demo_model", inputs, methods=methods, metrics="all", rationales=marked),
        "mask, absolute": calls.run_compare(
            "demo_model", SHORT[16:28], methods=methods, removal="mask", by="absolute", seed=5,
            metrics=["sufficiency", "comprehensiveness", "comprehensiveness_deciles", "sufficiency_deciles"],
        ),
        "attention_mask": calls.run_compare(
            "demo_model", SHORT[28:40], methods=("relevance", "integrated_gradients", "lime"), removal="attention_mask",
            metrics=["comprehensiveness", "deletion_area"],
            options={"integrated_gradients": {"steps": 6}, "lime": {"samples": 40, "seed": 9}},
        ),
    }  # fmt: skip


def _attention_tensors() -> dict[str, Record]:
    have = stored()
    rows, values, low = have["rows"], have["values"], have["values_low_rank"]
    keys, by_row = have["key_mask"].bool(), have["row_mask"].bool()
    wide, masked = rows.double(), rows * keys[:, None, None]
    return {
        "effective": calls.run_effective(rows, values),
        "effective, keys": calls.run_effective(masked, values, keys),
        "effective, keys by row": calls.run_effective(rows * by_row, values, by_row),
        "effective, affine": calls.run_effective(rows, values, affine=True),
        "effective, low rank": calls.run_effective(rows, low),
        "effective, float64": calls.run_effective(wide, values.double(), affine=True),
        "efficient": calls.run_efficient(rows, values),
        "efficient, keys": calls.run_efficient(masked, values, keys),
        "efficient, keys by row": calls.run_efficient(rows * by_row, values, by_row),
        "efficient, low rank": calls.run_efficient(rows, low),
        "efficient, tolerance": calls.run_efficient(rows, values, tolerance=0.2),
        "efficient, head objective": calls.run_efficient(rows, values, objective="head"),
        "efficient, torch, float64": calls.run_efficient(wide, values.double(), backend="torch"),
        "interval": calls.run_interval(rows[0, :2, :3], values[0, :2], [0, 5, 11, 23]),
        "interval, keys": calls.run_interval(masked[1, :2, :2], values[1, :2], [0, 9, 20], keys[1].expand(2, -1)),
        "interval, one row": calls.run_interval(rows[1, 0, 0], low[1, 0], [2, 3, 4]),
        "rollout": calls.run_rollout(list(have["stack"])),
        "rollout, keys": calls.run_rollout(list(have["stack"]), have["stack_mask"].bool(), residual=0.3),
        "rollout, one head": calls.run_rollout([one[0, 0] for one in have["stack"]]),
    }


def _information_tensors() -> dict[str, Record]:
    have = stored()
    states, classes, soft = have["states"], have["classes"].long(), have["soft"]
    records = {}
    for estimator in ("auto", "gaussian", "probe", "ksg", "ksg_pca", "logistic"):
        for label, outputs in (("classes", classes), ("probabilities", soft)):
            records[f"{estimator}, {label}"] = calls.run_mutual_information(
                states, outputs, estimator=estimator, permutations=40, seed=2
            )
    records["auto, one site"] = calls.run_mutual_information(states[0], classes, folds=5, permutations=30)
    records["vectors"] = calls.run_mutual_information(
        states, have["vectors"], estimator="gaussian_continuous", noise=0.5, permutations=40, seed=1
    )
    return records


GROUPS: dict[str, Callable[[], dict[str, Record]]] = {
    **{f"explain, {method}": lambda method=method: _explained(method) for method in TINY},  # type: ignore[misc]
    **{f"explain, model {name}": lambda name=name: _tiny(name) for name in (*TOKEN_MODELS, "vit")},  # type: ignore[misc]
    "explain, targets": _targets,
    "attention_maps": _maps,
    "certify": _certified,
    "minimal_tokens": _minimal,
    "fit_information": _profiles,
    "explain, profile": _information,
    "compare": _compared,
    "attention of tensors": _attention_tensors,
    "mutual_information of tensors": _information_tensors,
}
