"""Training of the study's heads, the choice of learning rate and epochs, and heads of equal entropy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.studies.information.kinds import Cell, Kind
from benchmarks.studies.information.states import Batch, Cached
from hf_attn_mi.heads import AttentionHead, masked_softmax

RATES = (3e-3, 1e-2, 3e-2)
EPOCHS = 6  # the most epochs that a kind may choose
SCORE_SIZE = RECURRENCE_SIZE = 64
TUNING_SEED = 1000  # no seed of the study
STEPS = 40  # of bisection


@dataclass(frozen=True)
class Setting:
    """What was chosen on held-out texts for one kind on one data set."""

    rate: float
    epochs: int


def make_head(kind: Kind, seed: int, train: Cached, temperature: float | None = None) -> AttentionHead:
    """Return a head of this kind, untrained; `temperature` in place of the kind's own."""
    torch.manual_seed(seed)
    recurrent = kind.recurrence == "bilstm"
    head = AttentionHead(
        train.states.shape[1],
        int(train.labels.max()) + 1,
        score=kind.score,
        normalizer=kind.normalizer,
        temperature=kind.temperature if temperature is None else temperature,
        score_size=SCORE_SIZE,
        recurrence="bilstm" if recurrent else None,
        recurrence_size=RECURRENCE_SIZE if recurrent else None,
    )
    if kind.attention != "trained":
        head.score.requires_grad_(False)
    if kind.attention == "uniform":
        torch.nn.init.zeros_(head.score.query)  # all scores zero: every token has the same weight
    return head


def epochs_of(
    module: nn.Module, logits: Callable[[Any], Tensor], batches: Sequence[Any], rate: float, seed: int
) -> Iterator[int]:
    """Train what requires a gradient with AdamW at a constant rate; yield the number of epochs after each."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of dropout and Gumbel noise
    epoch = 0
    while True:
        module.train()
        for i in torch.randperm(len(batches), generator=generator).tolist():
            loss = functional.cross_entropy(logits(batches[i]), batches[i].labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        module.eval()
        epoch += 1
        yield epoch


@dataclass(frozen=True, eq=False)
class Contexts:
    """Contexts of a batch of texts: all that the classifier reads."""

    context: Tensor  # (batch, width)
    labels: Tensor  # (batch,)


@torch.no_grad()
def contexts_of(head: AttentionHead, batches: Sequence[Batch]) -> list[Contexts]:
    """Return the contexts of a head whose attention is not trained."""
    head.eval()
    return [Contexts(head(batch.states, batch.mask).context, batch.labels) for batch in batches]


def training_of(head: AttentionHead, batches: Sequence[Batch], rate: float, seed: int) -> Iterator[int]:
    """Train the head; where only its classifier is trained the contexts are computed once, with the same result."""
    if head.recurrence is None and not any(p.requires_grad for p in head.score.parameters()):
        reader = nn.Sequential(head.dropout, head.classifier)
        return epochs_of(reader, lambda part: reader(part.context), contexts_of(head, batches), rate, seed)
    return epochs_of(head, lambda batch: head(batch.states, batch.mask).logits, batches, rate, seed)


def train_head(head: AttentionHead, batches: Sequence[Batch], setting: Setting, seed: int) -> None:
    """Train the head for the epochs of the setting."""
    for epoch in training_of(head, batches, setting.rate, seed):
        if epoch == setting.epochs:
            break
    head.eval()


@torch.no_grad()
def accuracy(head: AttentionHead, batches: Sequence[Batch]) -> float:
    """Return the share of the texts that the head gets right."""
    hits = sum(int((head(b.states, b.mask).logits.argmax(1) == b.labels).sum()) for b in batches)
    return hits / sum(len(b.labels) for b in batches)


def tune(
    kind: Kind, data: dict[str, Cached], batches: Sequence[Batch], *, rates: Sequence[float], epochs: int
) -> tuple[Setting, list[list[float]]]:
    """Return the setting with the best accuracy on held-out texts, and the accuracy of each (rate, epochs).

    Of equal ones, that with the fewest epochs, then with the smallest rate.
    """
    held_out = data["held_out"].batches()
    table = []
    for rate in rates:
        head, line = make_head(kind, TUNING_SEED, data["train"]), []
        for epoch in training_of(head, batches, rate, TUNING_SEED):
            head.eval()
            line.append(accuracy(head, held_out))
            if epoch == epochs:
                break
        table.append(line)
    return best_setting(rates, table), table


def best_setting(rates: Sequence[float], table: Sequence[Sequence[float]]) -> Setting:
    """Return the setting with the best accuracy of a table (rate, epochs)."""
    entries = [(-value, epoch + 1, rate) for rate, line in zip(rates, table) for epoch, value in enumerate(line)]
    _, epochs, rate = min(entries)
    return Setting(rate, epochs)


@torch.no_grad()
def temperature_for(head: AttentionHead, data: Cached, entropy: float) -> float:
    """Return the temperature at which the mean of H / ln n of the head's attention on these texts is `entropy`."""
    parts = []
    for batch in data.batches():
        attended = batch.states if head.recurrence is None else head.recurrence(batch.states, batch.mask)
        parts.append((head.score(attended[:, None])[:, 0, :, 0], batch.mask))
    low, high = 1e-4, 1e4
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        evenness = torch.cat([evenness_of(masked_softmax(s, m, temperature=middle), m) for s, m in parts]).mean()
        low, high = (middle, high) if float(evenness) < entropy else (low, middle)
    return (low * high) ** 0.5


def evenness_of(weights: Tensor, mask: Tensor) -> Tensor:
    """Return H(a) / ln n of each row (batch, tokens), zero for a single token."""
    return torch.special.entr(weights.double()).sum(1) / mask.sum(1).clamp_min(2).double().log()


def matched_head(
    cell: Cell, trained: AttentionHead, data: dict[str, Cached], batches: Sequence[Batch], setting: Setting
) -> tuple[AttentionHead, float]:
    """Return the trained head at the temperature of the cell's entropy, its classifier trained again, and that number.

    The entropy is that of the attention on the test texts, where heads are compared; labels have no part in it. The
    classifier starts from the trained one and gets the same rate and epochs.
    """
    assert cell.kind.entropy is not None
    temperature = temperature_for(trained, data["test"], cell.kind.entropy)
    head = make_head(cell.kind, cell.seed, data["train"], temperature)
    head.load_state_dict(trained.state_dict())
    head.score.requires_grad_(False)
    train_head(head, batches, setting, cell.seed)
    return head, temperature
