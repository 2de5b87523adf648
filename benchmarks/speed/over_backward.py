"""Cost of explain over one forward and one backward pass, the limit of every class-linked score.

    python benchmarks/speed/over_backward.py            # writes benchmarks/speed/results/over_backward.jsonl
    python benchmarks/speed/over_backward.py --parts limit --models BERT --layers 2
    python benchmarks/speed/over_backward.py --parts long memory --models MiniLM --output rows.jsonl
    python benchmarks/speed/over_backward.py --quick    # one layer, small shapes, writes nothing

The peer is the model's own forward pass, with one backward pass to the embeddings, of the same batch without padding.
Weights are random: the time does not depend on them. Seconds are those of the processor in one thread, in turns.
Memory is the rise of the peak of a fresh process.
Correctness comes first: scores and bias terms must add up to the value of the plain forward pass.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch
import transformers
from torch import Tensor, nn

from benchmarks.common import Row, check, cpu_seconds_in_turns, result_row, run_parts
from benchmarks.speed.memory import METHOD, rise_of
from hf_attn_mi import explain

RESULTS = Path(__file__).parent / "results" / "over_backward.jsonl"
LARGEST_GAP = 1e-4  # completeness gap that is allowed
SHORTEST_TURN = 0.3  # seconds of a turn: shorter tasks are called several times in it
LONGEST = 8192  # tokens
LONG = 2048  # tokens of a batch above which a turn is one call
VOCABULARY = 1000

TASKS: dict[str, dict[str, str]] = {  # the options of explain
    "none": {"layers": "none"},
    "full": {"layers": "full"},
    "attnlrp": {"layers": "none", "method": "attnlrp"},
}
SHAPES = ((1, 16), (1, 32), (1, 128), (8, 128))  # batch, tokens
PATCHES = 197  # positions of an image of 224 x 224 pixels: [CLS] and 14 x 14 patches
IMAGES = ((1, PATCHES), (8, PATCHES))
LIMITS = {  # of the median, by task and number of tokens
    **{
        name: {"none": {16: 1.15, 32: 1.15, 128: 1.06}, "full": {16: 1.25, 32: 1.25, 128: 1.08}}
        for name in ("BERT", "RoBERTa", "DeBERTa-v2")
    },
    "ModernBERT": {"none": {16: 1.15, 32: 1.15, 128: 1.06}, "full": {16: 1.15, 32: 1.15, 128: 1.15}},
    "MiniLM": {"none": {16: 1.15, 32: 1.15, 128: 1.06}, "full": {16: 1.5}},
    "ViT": {"none": {PATCHES: 1.06}, "full": {PATCHES: 1.08}},
}


def architectures(layers: int | None) -> dict[str, Callable[[], Any]]:
    """Configurations by name; `layers` replaces their depths."""

    def made(kind: Any, depth: int, **options: Any) -> Callable[[], Any]:
        return lambda: kind(
            num_hidden_layers=layers or depth,
            vocab_size=VOCABULARY,
            max_position_embeddings=LONGEST,
            pad_token_id=0,
            **options,
        )

    small = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
    base = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
    relative = {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 256,
        "share_att_key": True,
    }
    token_ids = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    return {
        "BERT": made(transformers.BertConfig, 12),
        "RoBERTa": made(transformers.RobertaConfig, 12),
        "DeBERTa-v2": made(transformers.DebertaV2Config, 12, **base, **relative),
        "ModernBERT": made(transformers.ModernBertConfig, 22, reference_compile=False, **token_ids),
        "MiniLM": made(transformers.BertConfig, 6, **small),
        "ViT": lambda: transformers.ViTConfig(num_hidden_layers=layers or 12),
    }


@dataclass(frozen=True)
class Measured:
    """A model with random weights, and how its tasks are timed."""

    name: str
    model: nn.Module
    turns: int

    @classmethod
    def of(cls, name: str, layers: int | None, turns: int) -> Measured:
        """The model of this architecture, in float32 and evaluation mode."""
        torch.manual_seed(0)
        config = architectures(layers)[name]()
        kind = transformers.AutoModelForSequenceClassification
        if config.model_type == "vit":
            kind = transformers.AutoModelForImageClassification
        return cls(name, kind.from_config(config).eval(), turns)

    def batch(self, shape: tuple[int, int]) -> dict[str, Tensor]:
        """Random inputs: token ids of this batch and length, or images with this number of positions."""
        generator = torch.Generator().manual_seed(1)
        if self.model.main_input_name == "pixel_values":
            check(shape[1] == PATCHES, f"an image has {PATCHES} positions, not {shape[1]}")
            side = self.model.config.image_size  # type: ignore[union-attr]
            return {"pixel_values": torch.randn(shape[0], 3, side, side, generator=generator)}  # type: ignore[call-overload]
        ids = torch.randint(3, VOCABULARY, shape, generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """One forward pass: the embeddings, which a gradient can be taken of, and the logits."""
        if "pixel_values" in inputs:  # such a model does not take embeddings
            found: list[Tensor] = []

            def kept(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
                found.append(output.detach().requires_grad_(True))
                return found[0]

            hook = self.model.vit.embeddings.register_forward_hook(kept)  # type: ignore[union-attr,operator]
            try:
                logits = self.model(**inputs).logits
                return found[0], logits
            finally:
                hook.remove()
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        embeddings = self.model.get_input_embeddings()(ids).detach().requires_grad_(True)  # type: ignore[operator]
        return embeddings, self.model(inputs_embeds=embeddings, attention_mask=mask).logits

    def bare(self, inputs: dict[str, Tensor]) -> None:
        """One forward and one backward pass, to the embeddings."""
        embeddings, logits = self.forward(inputs)
        torch.autograd.grad(logits.amax(1).sum(), embeddings)

    def explain(self, inputs: dict[str, Tensor], **options: Any) -> Any:
        """Explain the whole batch in one pass."""
        size = len(next(iter(inputs.values())))
        return explain(self.model, inputs, batch_size=size, tokenizer=None, **options)

    def ratios(self, shape: tuple[int, int], tasks: list[str]) -> dict[str, list[float]]:
        """Seconds of the peer ("bare") and of each task on one batch."""
        inputs = self.batch(shape)
        self.check_sums(inputs)
        run: dict[str, Callable[[], Any]] = {"bare": partial(self.bare, inputs)}
        run |= {task: partial(self.explain, inputs, **TASKS[task]) for task in tasks}
        if shape[0] * shape[1] > LONG:  # the check has warmed up
            return cpu_seconds_in_turns(run, self.turns)
        first = cpu_seconds_in_turns(run, 1)  # warms up, too
        calls = max(1, int(SHORTEST_TURN / max(1e-4, min(seconds[0] for seconds in first.values()))))
        return cpu_seconds_in_turns(run, self.turns, calls)

    def check_sums(self, inputs: dict[str, Tensor]) -> None:
        """Check that scores and bias terms add up to the value of the plain forward pass."""
        explained = self.explain(inputs, layers="none")
        with torch.no_grad():
            logits = self.model(**inputs).logits.double()
        values = 2 * logits.amax(1) - logits.sum(1)  # of two classes: the logit minus the other
        for one, value in zip([explained] if len(values) == 1 else explained, values.tolist()):
            total = float(one.scores.double().sum()) + one.bias
            scale = max(abs(value), float(one.scores.abs().sum()))
            check(abs(total - value) <= LARGEST_GAP * scale, f"scores and bias add up to {total}, not {value}")


def limit(measured: Measured, shapes: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """Every task on small and middle shapes."""
    for shape in shapes:
        seconds = measured.ratios(shape, list(TASKS))
        for task in TASKS:
            options = ", ".join(f'{key}="{value}"' for key, value in TASKS[task].items())
            yield result_row(
                f"over forward and backward/{measured.name} {task}, {shape[0]} x {shape[1]}",
                f"explain({options}), over one forward and one backward pass of the batch",
                seconds[task],
                seconds["bare"],
                at_most=LIMITS[measured.name].get(task, {}).get(shape[1]),
            )
        yield result_row(
            f"over forward and backward/{measured.name} attnlrp over relevance, {shape[0]} x {shape[1]}",
            'explain(method="attnlrp") over explain(method="relevance"), both with layers="none"',
            seconds["attnlrp"],
            seconds["none"],
            at_most=1.05,
        )


def growth(measured: Measured, shapes: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """Cost against the number of tokens (batch 1), and against the batch (128 tokens)."""
    for batch, length in shapes:
        seconds = measured.ratios((batch, length), ["none", "full"])
        for task in ("none", "full"):
            yield result_row(
                f"growth over forward and backward/{measured.name} {task}, {batch} x {length}",
                f'explain(layers="{task}"), over one forward and one backward pass of the batch',
                seconds[task],
                seconds["bare"],
                model=measured.name,
                task=task,
                batch=batch,
                tokens=length,
            )


def growth_shapes(quick: bool, long: bool, most: int) -> list[tuple[int, int]]:
    """Batch and tokens of `growth`, or with `long` those of more than `LONG` tokens in a batch."""
    if quick:
        return [(1, 16), (1, 32), (2, 16)]
    shapes = [(1, 2**power) for power in range(4, 14)] + [(2**power, 128) for power in range(7)]
    return [one for one in dict.fromkeys(shapes) if one[0] * one[1] <= most and (one[0] * one[1] > LONG) is long]


def memory(name: str, layers: int | None, turns: int, lengths: Sequence[int]) -> Iterator[Row]:
    """The rise of the peak memory of explain over that of forward and backward, each in a fresh process."""
    for tokens in lengths:
        rises: dict[str, list[float]] = {"bare": [], "none": [], "full": []}
        for _ in range(turns):
            for task, column in rises.items():
                command = [sys.executable, "-W", "ignore", __file__, "--rise", task, "--models", name]
                command += ["--most", str(tokens), *(["--layers", str(layers)] if layers else [])]
                process = subprocess.run(command, capture_output=True, text=True)
                check(process.returncode == 0, f"{task}: {process.stderr[-300:]}")
                column.append(float(process.stdout))
        for task in ("none", "full"):
            yield result_row(
                f"memory over forward and backward/{name} {task}, 1 x {tokens}",
                f'peak memory of explain(layers="{task}") over that of one forward and one backward pass',
                rises[task],
                rises["bare"],
                unit="MiB",
                at_most=1.05 if tokens == LONGEST else None,
                method=METHOD,
            )


def print_rise(task: str, name: str, layers: int | None, tokens: int) -> None:
    """Print by how many MiB one call raises the peak of this process."""
    torch.set_num_threads(1)
    measured = Measured.of(name, layers, 1)

    def run(length: int) -> None:
        inputs = measured.batch((1, length))
        measured.bare(inputs) if task == "bare" else measured.explain(inputs, **TASKS[task])

    run(16)
    print(rise_of(lambda: run(tokens)))


def main() -> int:
    """Run the parts, print and write the rows; the exit status is 1 where a check failed."""
    names, every = list(architectures(None)), ("limit", "growth", "long", "memory")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--parts", nargs="+", choices=every, default=list(every))
    known = {f"{batch}x{tokens}": (batch, tokens) for batch, tokens in SHAPES}
    parser.add_argument("--shapes", nargs="+", choices=known, help="of `limit`: batch x tokens (default: all)")
    parser.add_argument("--layers", type=int, help="depth of every model (default: its own)")
    parser.add_argument("--most", type=int, default=LONGEST, help="most tokens of a batch in `growth` and `long`")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one layer, small shapes, one turn")
    parser.add_argument("--rise", choices=("bare", "none", "full"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="default results/over_backward.jsonl; none with --quick or a part")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if arguments.rise is not None:
        print_rise(arguments.rise, arguments.models[0], arguments.layers, arguments.most)
        return 0
    layers, turns = (1, 1) if arguments.quick else (arguments.layers, arguments.turns)

    shapes = [known[one] for one in arguments.shapes or (list(known)[:1] if arguments.quick else known)]

    def rows(part: str, name: str) -> Iterator[Row]:
        if part == "memory" and name == "ViT":  # its number of positions is fixed
            return
        if part == "memory":
            yield from memory(name, layers, min(turns, 2), (64,) if arguments.quick else (LONG, LONGEST))
            return
        measured = Measured.of(name, layers, 1 if part == "long" else turns)
        if part == "limit":
            yield from limit(measured, IMAGES[: 1 if arguments.quick else None] if name == "ViT" else shapes)
        elif name != "ViT":  # the number of positions of an image is fixed
            yield from growth(measured, growth_shapes(arguments.quick, part == "long", arguments.most))

    whole = not arguments.quick and layers is None and len(arguments.parts) == len(every) and arguments.models == names
    output = arguments.output or (RESULTS if whole and arguments.shapes is None else None)
    parts = [
        (f"{part} {name}", partial(rows, part, name), [1]) for part in arguments.parts for name in arguments.models
    ]
    _, failures = run_parts(parts, output, layers=layers)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
