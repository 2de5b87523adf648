"""Cost of an attention head over mean pooling with a linear layer: one training step on a frozen encoder.

python benchmarks/speed/heads.py            # writes benchmarks/speed/results/heads.jsonl
python benchmarks/speed/heads.py --quick    # 4 x 16: checks that it runs; its figures mean nothing
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel
from transformers.utils import logging

from benchmarks.common import Row, check, result_row, run_parts, time_in_turns
from benchmarks.inputs import load_tokenizer, model_folder, read_texts, token_ids
from hf_attn_mi.heads import AttentionHeadForSequenceClassification

RESULTS = Path(__file__).parent / "results" / "heads.jsonl"
AT_MOST = 1.2
OPTIONS: dict[str, dict[str, Any]] = {
    "additive": {},
    "deep": {"score": "deep"},
    "scaled_dot": {"score": "scaled_dot"},
    "additive, gumbel": {"normalizer": "gumbel", "temperature": 0.5},
    "additive, 4 heads, 2 queries": {"heads": 4, "queries": 2},
    "additive, bilstm": {"recurrence": "bilstm"},
}


class MeanPooling(nn.Module):
    """The peer: the mean of the states of the tokens (no padding) and a linear layer, on the same frozen encoder."""

    def __init__(self, encoder: nn.Module, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(int(encoder.config.hidden_size), labels)  # type: ignore[union-attr, arg-type]

    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The encoder's states, without a graph."""
        with torch.no_grad():
            states: Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return states

    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        """Logits."""
        weights = mask[:, :, None] / mask.sum(1)[:, None, None]
        logits: Tensor = self.classifier(self.dropout((states * weights).sum(1)))
        return logits

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits from token ids."""
        return self.pooled(self.states(ids, mask), mask)


def step(logits: Callable[[], Tensor], labels: Tensor, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """A function that takes one training step."""

    def take_step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(logits(), labels).backward()
        optimizer.step()

    return take_step


@torch.no_grad()
def check_head(model: AttentionHeadForSequenceClassification, ids: Tensor, mask: Tensor) -> dict[str, float]:
    """Check that weights equal those of each input alone, are zero on padding, and sum to one."""
    model.eval()
    output = model(ids, mask)
    check(
        bool((output.weights[~mask.bool()[:, None, None].expand_as(output.weights)] == 0).all()), "padding has weight"
    )
    worst = 0.0
    for i in (0, 1, len(ids) - 1):
        count = int(mask[i].sum())
        alone = model(ids[i : i + 1, :count], mask[i : i + 1, :count])
        worst = max(worst, float((alone.weights[0] - output.weights[i, ..., :count]).abs().max()))
    check(worst <= 1e-6, f"weights of the batch differ from the single input's by {worst:.1e}")
    check(float((output.weights.sum(-1) - 1).abs().max()) <= 1e-5, "weights do not sum to one")
    model.train()
    return {"batch_less_single": worst}


def measure(encoder: nn.Module, ids: Tensor, turns: int) -> Iterator[Row]:
    """A row for each kind of head with the encoder's pass in the step, and one for the head alone."""
    batch, tokens = ids.shape
    lengths = torch.linspace(tokens // 2, tokens, batch).long()
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    ids, labels = ids * mask, torch.arange(batch) % 2
    encoder.requires_grad_(False)
    peer = MeanPooling(encoder.eval(), 2)
    states = peer.states(ids, mask)
    trained = torch.optim.AdamW(peer.classifier.parameters(), lr=1e-3)
    tasks = {"mean": step(lambda: peer(ids, mask), labels, trained)}
    alone = {"mean": step(lambda: peer.pooled(states, mask), labels, trained)}
    checks = {}
    for name, options in OPTIONS.items():
        model = AttentionHeadForSequenceClassification.from_encoder(encoder, 2, freeze_encoder=True, **options)
        checks[name] = check_head(model, ids, mask)
        optimizer = torch.optim.AdamW(model.head.parameters(), lr=1e-3)
        tasks[name] = step(lambda model=model: model(ids, mask).logits, labels, optimizer)  # type: ignore[misc]
        alone[name] = step(lambda head=model.head: head(states, mask).logits, labels, optimizer)  # type: ignore[misc]
    seconds, cached = time_in_turns(tasks, turns, warmed_up=True), time_in_turns(alone, turns)
    for name, check_values in checks.items():
        yield result_row(
            f"heads/{name}, {batch} x {tokens}",
            "training step, frozen encoder, over mean pooling and a linear layer",
            seconds[name],
            seconds["mean"],
            at_most=AT_MOST if name == "additive" else None,
            **check_values,
        )
        yield result_row(
            f"heads on cached states/{name}, {batch} x {tokens}",
            "the same without the encoder's pass",
            cached[name],
            cached["mean"],
            **check_values,
        )


def main() -> int:
    """Measure, print and write the rows; the exit status is 1 where the check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="encoder (default: the fine-tuned MiniLM, or the package's)")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="4 x 16: checks that it runs; its figures mean nothing")
    parser.add_argument("--output", type=Path, help="default results/heads.jsonl; none with --quick")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = model_folder(arguments.model)
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32)
    batch, tokens = (4, 16) if arguments.quick else (32, 128)
    ids = token_ids(read_texts(None, 2 * batch), load_tokenizer(folder), batch, tokens)
    part = partial(measure, encoder, ids, 2 if arguments.quick else arguments.turns)
    _, failures = run_parts([("heads", part, [1])], arguments.output or (None if arguments.quick else RESULTS))
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
