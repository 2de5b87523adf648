"""Random inputs for the fuzzer: texts, tensors, values of arguments, damaged bytes; all drawn from one generator."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchEncoding

import hf_attn_mi
from scripts.reliability.common import TEXTS, tokenizer

RANGES = (  # ranges of code points that tokenizers, terminals and JSON treat differently
    (0x00, 0x1F),
    (0x20, 0x7E),
    (0x80, 0x9F),
    (0xA0, 0x24F),
    (0x300, 0x36F),
    (0x590, 0x6FF),
    (0x900, 0xDFF),
    (0x1100, 0x11FF),
    (0x200B, 0x200F),
    (0x2028, 0x202F),
    (0x3040, 0x30FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xD800, 0xDFFF),
    (0xE000, 0xE010),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFF),
    (0x1F300, 0x1FAFF),
    (0xE0000, 0xE007F),
    (0x10FFFF, 0x10FFFF),
)
PIECES = (
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[MASK]",
    "[UNK]",
    "<script>",
    "\x1b[31m",
    "\r\n",
    "   ",
    "naïve",
    "👩‍👩‍👧",
    "ﷺ",
    "-",
    "--x",
)


class Awkward:
    """An object whose special methods raise."""

    def __repr__(self) -> str:
        raise ValueError("no repr")

    def __eq__(self, other: object) -> bool:
        raise ValueError("no comparison")

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        raise ValueError("no length")

    def __bool__(self) -> bool:
        raise ValueError("no truth value")


def text(rng: random.Random) -> str:
    """A text of any characters."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(TEXTS)
    if kind < 0.5:
        return rng.choice(
            ["", " ", "\n\t", "\0", "\u200b", "a" * rng.choice([63, 64, 500]), "word " * rng.choice([60, 300])]
        )
    parts = []
    for _ in range(rng.choice([1, 2, 5, 12])):
        if rng.random() < 0.4:
            parts.append(rng.choice(PIECES))
        else:
            first, last = rng.choice(RANGES)
            parts.append("".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 6))))
    return rng.choice(["", " "]).join(parts)


def texts(rng: random.Random) -> Any:
    """Texts in some container, right or wrong."""
    count = rng.choice([0, 1, 1, 1, 2, 2, 2, 3, 3])
    items: list[Any] = [text(rng) for _ in range(count)]
    if rng.random() < 0.08 and items:
        items[rng.randrange(count)] = value(rng)
    forms: tuple[Callable[[], Any], ...] = (
        lambda: items,
        lambda: items[0] if items else "",
        lambda: tuple(items),
        lambda: [(one, text(rng)) for one in items],
        lambda: [[one] for one in items],
        lambda: np.array([str(one) for one in items if not isinstance(one, Awkward)]),
        lambda: iter(items),
        lambda: {"text": items},
        lambda: {"text": items[0] if items else "", "text_pair": text(rng)},
        lambda: set(map(id, items)),
        lambda: [one.encode("utf-8", "replace") if isinstance(one, str) else one for one in items],
    )
    return rng.choices(forms, weights=(6, 6, 1, 2, 1, 1, 1, 1, 1, 1, 1))[0]()


def encoding(rng: random.Random) -> dict[str, Any]:
    """Correct tensors of one to three texts."""
    chosen = [rng.choice(TEXTS) for _ in range(rng.randint(1, 3))]
    side = rng.choice(["left", "right"])
    return dict(tokenizer()(chosen, padding=True, padding_side=side, return_tensors="pt"))


def tensors(rng: random.Random, kind: str) -> Any:
    """Tensors for a kind of model with none, one or two things changed."""
    vision = kind == "vit"
    if vision and rng.random() < 0.5:
        return picture(rng)
    inputs: dict[str, Any] = {"pixel_values": torch.randn(rng.randint(1, 2), 3, 8, 8)} if vision else encoding(rng)
    if kind in ("distilbert", "llama") and rng.random() < 0.95:
        del inputs["token_type_ids"]
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        name = rng.choice(sorted(inputs))
        change = rng.random()
        if change < 0.15:
            inputs.pop(name)
            if not inputs:
                break
        elif change < 0.35:
            inputs[rng.choice(EXTRA)] = extra(rng, inputs)
        elif isinstance(inputs[name], torch.Tensor):
            try:
                inputs[name] = changed(rng, inputs[name])
            except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
                inputs[name] = value(rng)  # torch itself refuses this change
        else:
            inputs[name] = value(rng)
    form = rng.random()
    if form < 0.1:
        return BatchEncoding(inputs)
    if form < 0.15:
        return {
            name: item.tolist() if type(item) is torch.Tensor and _plain(item) else item
            for name, item in inputs.items()
        }
    if form < 0.2:
        return {
            name: item.numpy() if type(item) is torch.Tensor and _plain(item) else item for name, item in inputs.items()
        }
    return inputs


def _plain(item: torch.Tensor) -> bool:
    return (
        item.layout == torch.strided
        and not item.is_meta
        and not item.is_nested
        and not item.requires_grad
        and item.dtype != torch.bfloat16
    )


EXTRA = (
    "labels",
    "features",
    "token_type_ids",
    "position_ids",
    "attention_mask",
    "inputs_embeds",
    "input_ids",
    "pixel_values",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "past_key_values",
    "use_cache",
    "head_mask",
    "decoder_input_ids",
    "special_tokens_mask",
    "offset_mapping",
    "",
)


def extra(rng: random.Random, inputs: dict[str, Any]) -> Any:
    """The value of an argument that was not there."""
    given = [item for item in inputs.values() if isinstance(item, torch.Tensor) and not item.is_nested]
    shape = next((item.shape for item in given if item.dim() == 2), (1, 5))
    batch, length = shape[0], shape[1]
    choices: tuple[Callable[[], Any], ...] = (
        lambda: torch.zeros(batch, dtype=torch.long),
        lambda: torch.tensor([1] * batch),
        lambda: torch.randn(batch, length),
        lambda: torch.randn(batch, length, 32),
        lambda: torch.randint(-3, 90, (batch, length)),
        lambda: torch.arange(length)[None].expand(batch, length),
        lambda: torch.ones(batch, length),
        lambda: torch.ones(batch, 1, length, length),
        lambda: rng.choice([True, False, None]),
        lambda: value(rng),
    )
    return rng.choice(choices)()


def changed(rng: random.Random, tensor: torch.Tensor) -> Any:
    """A tensor with another type, shape, layout or with other values."""
    dtypes = (
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.float16,
        torch.float64,
        torch.bool,
        torch.complex64,
        torch.bfloat16,
    )
    position = tuple(rng.randrange(size) if size else 0 for size in tensor.shape)

    def with_value(number: float) -> torch.Tensor:
        copy = tensor.clone()
        copy[position] = number
        return copy

    def inference() -> torch.Tensor:
        with torch.inference_mode():
            return tensor.clone()

    choices: tuple[Callable[[], Any], ...] = (
        lambda: tensor.to(rng.choice(dtypes)),
        lambda: tensor[0],
        lambda: tensor[None],
        lambda: tensor[..., None],
        lambda: tensor[:0],
        lambda: tensor[:, :0],
        lambda: tensor[:, :-1],
        lambda: torch.cat([tensor, tensor]),
        lambda: torch.cat([tensor] * 30, 1),
        lambda: with_value(rng.choice([-1, -100, 7999, 8000, 2**31, 2**62, 2, 3])),
        lambda: with_value(float("nan")) if tensor.is_floating_point() else tensor * 0,
        lambda: with_value(0),
        lambda: torch.zeros_like(tensor),
        lambda: tensor.float() * rng.choice([0.5, float("inf"), float("nan"), 1.0]),
        lambda: tensor.to_sparse(),
        lambda: tensor.to("meta"),
        lambda: torch.nested.nested_tensor(list(tensor)),
        lambda: tensor.float().requires_grad_(),
        lambda: tensor.t().contiguous().t(),
        lambda: tensor.flip(1),
        lambda: inference(),
        lambda: torch.nn.Parameter(tensor.float()),
        lambda: tensor.numpy(),
        lambda: tensor.tolist(),
        lambda: tensor.transpose(0, 1),
        lambda: tensor.sum(),
        lambda: value(rng),
    )
    return rng.choice(choices)()


def picture(rng: random.Random) -> Any:
    """An image, or what is nearly one."""
    size = (rng.choice([1, 8, 9]), rng.choice([1, 8, 30]))
    choices: tuple[Callable[[], Any], ...] = (
        lambda: Image.new(rng.choice(["RGB", "RGB", "L", "RGBA", "1", "P", "F", "CMYK"]), size),
        lambda: np.zeros((*size, 3), dtype=np.uint8),
        lambda: np.zeros((*size, 3), dtype=rng.choice([np.float32, np.int64, bool, complex])),
        lambda: np.full(size, np.nan),
        lambda: np.zeros((0, 0, 3), dtype=np.uint8),
        lambda: torch.rand(3, *size),
        lambda: "none.png",
        lambda: value(rng),
    )
    made = rng.choice(choices)()
    return [made] * rng.choice([1, 2]) if rng.random() < 0.3 else made


def recording(rng: random.Random) -> Any:
    """A recording, or what is nearly one."""
    samples = rng.choice([0, 1, 7, 400, 1600, 4000])
    tone = np.sin(np.arange(samples) / 9)
    choices: tuple[Callable[[], Any], ...] = (
        lambda: tone,
        lambda: tone.astype(np.float32),
        lambda: (tone * 2**14).astype(np.int16),
        lambda: np.stack([tone, tone], rng.choice([0, 1])),
        lambda: {"array": tone, "sampling_rate": rng.choice([16000, 8000, 44100, 0, -1, None, "16000"])},
        lambda: {"array": value(rng), "sampling_rate": 16000},
        lambda: {"raw": tone, "sampling_rate": 16000},
        lambda: np.full(samples, np.nan),
        lambda: np.zeros(samples, dtype=rng.choice([bool, complex, object])),
        lambda: torch.as_tensor(tone),
        lambda: tone.tolist(),
        lambda: {"input_values": torch.as_tensor(tone, dtype=torch.float32)[None]},
        lambda: "none.wav",
        lambda: value(rng),
    )
    made = rng.choice(choices)()
    return [made] * rng.choice([1, 2]) if rng.random() < 0.3 else made


def data(rng: random.Random) -> Any:
    """Texts for a profile of information, or what is nearly that."""
    count = rng.choice([1, 40, 60, 60, 80])
    choices: tuple[Callable[[], Any], ...] = (
        lambda: [f"{'good' if i % 2 else 'bad'} film {i}" for i in range(count)],
        lambda: [f"{'good' if i % 2 else 'bad'} film {i}" for i in range(count)],
        lambda: [(f"film {i}", "good" if i % 3 else "bad") for i in range(count)],
        lambda: ["the same film"] * count,
        lambda: [text(rng) for _ in range(count)],
        lambda: texts(rng),
        lambda: "none.csv",
        lambda: value(rng),
    )
    return rng.choice(choices)()


def function(rng: random.Random) -> Callable[[], Any]:
    """A call of a function of tensors: rows of attention with values, or states with outputs."""
    heads, tokens, width = rng.choice([1, 2]), rng.choice([1, 3, 7]), rng.choice([1, 4, 9])
    attention = torch.rand(heads, tokens, tokens).softmax(-1)
    values: Any = torch.randn(heads, tokens, width)
    states, outputs = torch.randn(60, 3), torch.arange(60) % 2
    tensors_of: dict[str, list[Any]] = {
        "effective_attention": [attention, values],
        "efficient_attention": [attention, values],
        "attention_interval": [attention[0, 0], values[0], [0]],
        "rollout": [[attention, attention]],
        "mutual_information": [states, outputs],
    }
    name = rng.choice(sorted(tensors_of))
    given = tensors_of[name]
    if rng.random() < 0.75:
        place = rng.randrange(len(given))
        try:
            given[place] = changed(rng, given[place]) if isinstance(given[place], torch.Tensor) else value(rng)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
            given[place] = value(rng)
    options: dict[str, Any] = {"permutations": 3, "estimator": "gaussian"} if name == "mutual_information" else {}
    if rng.random() < 0.3:
        options[rng.choice(OPTIONS[name])] = value(rng)
    return lambda: getattr(hf_attn_mi, name)(*given, **options)


OPTIONS = {
    "effective_attention": ("mask", "affine", "query_mask", "outputs"),
    "efficient_attention": ("mask", "tolerance", "objective", "query_mask", "backend"),
    "attention_interval": ("mask",),
    "rollout": ("mask", "residual", "head_dimension"),
    "mutual_information": ("folds", "seed", "noise", "estimator"),
}


def value(rng: random.Random) -> Any:
    """A value of any type."""
    choices: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: rng.choice([True, False]),
        lambda: rng.choice([-1, 0, 1, 2, 3, 16, 10**9, 2**31, 2**63, 10**30, -(10**5000), 10**5000]),
        lambda: rng.choice([0.0, -0.5, 0.5, 1.0, 1e308, 1e-320, float("nan"), float("inf"), -float("inf")]),
        lambda: text(rng),
        lambda: text(rng).encode("utf-8", "replace"),
        lambda: [],
        lambda: [value(rng) for _ in range(rng.randint(1, 2))],
        lambda: {},
        lambda: {text(rng): value(rng)},
        lambda: {1: 2},
        lambda: (),
        lambda: range(rng.randint(0, 4)),
        lambda: {1, 2},
        lambda: object(),
        lambda: Awkward(),
        lambda: int,
        lambda: lambda *_: None,
        lambda: np.float32(0.5),
        lambda: np.int64(2),
        lambda: np.array([1, 2]),
        lambda: torch.tensor(1),
        lambda: torch.tensor([0.5, float("nan")]),
        lambda: torch.nn.Linear(2, 2),
        lambda: complex(1, 2),
        lambda: iter([1]),
        lambda: Path("none"),
        lambda: NotImplemented,
        lambda: Exception("x"),
    )
    return rng.choice(choices)()


def damaged(rng: random.Random, content: bytes) -> bytes:
    """The bytes of a file with a few of them changed, missing or added; some are cut or compressed."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(len(data) + 1) if data else 0
        kind = rng.randrange(6)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place : place + rng.choice([1, 4, 100])] = b""
        elif kind == 2:
            data[place:place] = rng.choice(
                [b"\xff\xfe", b"\0", b"[" * 2000, b'"', b"\n", b"9" * 5000, b"NaN", b"\xed\xa0\x80", b"1e999"]
            )
        elif kind == 3:
            del data[place:]
        elif kind == 4 and place < len(data):
            data[place] = rng.randrange(256)
    changed_bytes = bytes(data)
    if rng.random() < 0.1:
        changed_bytes = gzip.compress(changed_bytes)
        if rng.random() < 0.5:
            changed_bytes = changed_bytes[: rng.randrange(len(changed_bytes))]
    return changed_bytes


def edited(rng: random.Random, data: Any, depth: int = 0) -> Any:
    """JSON data with one value replaced, removed or added somewhere."""
    if isinstance(data, dict) and data and (depth == 0 or rng.random() < 0.8):
        name = rng.choice(sorted(data))
        result = dict(data)
        kind = rng.random()
        if kind < 0.08:
            del result[name]
        elif kind < 0.12:
            result[rng.choice(["extra", "type", "schema", "__tensor__", "__float__", ""])] = json_value(rng)
        else:
            result[name] = edited(rng, data[name], depth + 1)
        return result
    if isinstance(data, list) and data and rng.random() < 0.8:
        place = rng.randrange(len(data))
        kind = rng.random()
        if kind < 0.1:
            return data[:place] + data[place + 1 :]
        if kind < 0.2:
            return [*data[:place], data[place], *data[place:]]
        return [*data[:place], edited(rng, data[place], depth + 1), *data[place + 1 :]]
    return json_value(rng)


def json_value(rng: random.Random) -> Any:
    """A value that JSON can hold."""
    special = (
        {"__tensor__": "float32", "shape": [2, 2], "values": [1, 2, 3]},
        {"__tensor__": "float99"},
        {"__float__": "x"},
    )
    return rng.choice(
        [
            None,
            True,
            False,
            0,
            -1,
            3,
            10**18,
            10**40,
            0.5,
            -1e308,
            "",
            "x",
            "\ud800",
            "\0",
            [],
            [[]],
            {},
            {"a": 1},
            [1, "a"],
            *special,
        ]
    )


def as_json(data: Any) -> bytes:
    """The bytes of JSON data."""
    return json.dumps(data).encode("ascii")
