"""What is measured on a trained head: accuracy, concentration, information of states and tokens, and their orders."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.studies.information.kinds import ORDERS, PAIRS, Kind
from benchmarks.studies.information.states import Cached
from benchmarks.studies.information.training import evenness_of
from hf_attn_mi.evaluation import rank_correlations
from hf_attn_mi.heads import AttentionHead
from hf_attn_mi.mi import MutualInformation, fit_probe, mutual_information

PROFILE_TEXTS, TOKENS_EACH = 1000, 8  # training texts, and tokens of each, that the token probe is fitted on
PROBE_FOLDS = 5
PAIR_BOUNDS = (0.05, 0.2, 1.0)  # |ln a_i - ln a_j| between pairs of tokens
SITES = ("attended", "context")  # the state with the largest weight; the context, which has all of the information


@dataclass(frozen=True, eq=False)
class HeadOutputs:
    """Outputs of a head on the texts of a split, without noise."""

    probabilities: Tensor  # (texts, classes)
    permuted: Tensor  # (texts, classes) with the weights of each text permuted among its tokens
    context: Tensor  # (texts, width)
    weights: list[Tensor]  # (tokens,) of each text
    states: list[Tensor]  # (tokens, width) of each text: the states that attention weights apply to


@torch.no_grad()
def head_outputs(head: AttentionHead, data: Cached, texts: Tensor, seed: int) -> HeadOutputs:
    """Return the outputs of the head on these texts."""
    generator = torch.Generator().manual_seed(seed)
    by_text: dict[int, tuple[Tensor, ...]] = {}
    for batch in data.batches(texts):
        out = head(batch.states, batch.mask)
        attended = batch.states if head.recurrence is None else head.recurrence(batch.states, batch.mask)
        weights = out.weights[:, 0, 0]
        # Real tokens come first: a random order of them, then padding, whose weight is zero.
        order = torch.rand(weights.shape, generator=generator).masked_fill(~batch.mask, 2.0).argsort(1)
        shuffled = weights.gather(1, order)
        permuted = head.classifier((shuffled[:, None] @ attended)[:, 0])
        lengths = batch.mask.sum(1).tolist()
        for i, text in enumerate(batch.texts.tolist()):
            length = lengths[i]
            by_text[text] = (out.logits[i], permuted[i], out.context[i], weights[i, :length], attended[i, :length])
    columns = list(zip(*(by_text[text] for text in texts.tolist())))
    probabilities, shuffled_ones = (torch.stack(columns[i]).double().softmax(1) for i in (0, 1))
    return HeadOutputs(probabilities, shuffled_ones, torch.stack(columns[2]), list(columns[3]), list(columns[4]))


def token_information(profile: HeadOutputs, texts: Tensor, test: HeadOutputs, seed: int) -> list[Tensor]:
    """Return KL(q(Y | h_i) || q(Y)) in nats for each token of each test text, q fitted to these texts of the profile.

    All tokens of a text are in the same fold of the probe.
    """
    generator = torch.Generator().manual_seed(seed)
    states, outputs, folds = [], [], []
    for place, text in enumerate(texts.tolist()):
        chosen = profile.states[text][torch.randperm(len(profile.states[text]), generator=generator)[:TOKENS_EACH]]
        states.append(chosen)
        outputs.append(profile.probabilities[text].expand(len(chosen), -1))
        folds.append(torch.full((len(chosen),), place % PROBE_FOLDS))
    probe = fit_probe(torch.cat(states), torch.cat(outputs), folds=torch.cat(folds), seed=seed)
    log_posterior = probe.log_posterior(torch.cat(test.states)).double()
    divergence = (log_posterior.exp() * (log_posterior - probe.prior.double().log())).sum(1)
    return list(divergence.split([len(s) for s in test.states]))


def shape_of(weights: Tensor) -> tuple[float, float, float]:
    """Return H(a) / ln n, Gini = 1 - sum_i a_(i) (2 (n - i) + 1) / n (a in rising order, i from 1) and the largest."""
    count = len(weights)
    rising = weights.double().sort().values
    places = torch.arange(1, count + 1, dtype=torch.double)
    gini = 1 - float((rising * (2 * (count - places) + 1)).sum()) / count
    spread = float(evenness_of(rising[None], torch.ones(1, count))) if count > 1 else 0.0
    return spread, gini, float(rising[-1])


def pair_agreement(weights: Tensor, information: Tensor, halves: tuple[Tensor, Tensor]) -> np.ndarray:
    """Return (2, groups): mean agreement (+1, -1) of the order of pairs of tokens, by the distance of the log weights.

    First that of the weights with the information, then that of the information by one half of the profile with the
    other; NaN where a group has no pairs.
    """
    first, second = torch.triu_indices(len(weights), len(weights), 1)
    logs = weights.double().clamp_min(1e-12).log()
    distance = logs[first] - logs[second]
    differs = distance != 0
    first, second, distance = first[differs], second[differs], distance[differs]
    group = torch.bucketize(distance.abs(), torch.tensor(PAIR_BOUNDS, dtype=torch.double))
    one, other = (half[first] - half[second] for half in halves)
    groups = len(PAIR_BOUNDS) + 1
    count = torch.bincount(group, minlength=groups).double()
    orders = ((distance * (information[first] - information[second])).sign(), (one * other).sign())
    return torch.stack([torch.bincount(group, order, groups) / count for order in orders]).numpy()


def mi_of(outputs: HeadOutputs, options: argparse.Namespace, seed: int) -> tuple[dict[str, Any], MutualInformation]:
    """Return bounds and estimates of the information that the sites have about the output, for a row."""
    most = torch.stack([s[int(w.argmax())] for s, w in zip(outputs.states, outputs.weights)])
    found = mutual_information(
        torch.stack([most, outputs.context]),
        outputs.probabilities,
        estimator=options.estimator,
        effort="fast",
        permutations=options.permutations,
        seed=seed,
    )
    row: dict[str, Any] = {"ceiling": found.ceiling}
    for name in ("lower_bound", "upper_bound", "nats"):
        row[name] = dict(zip(SITES, getattr(found, name).tolist()))
    return row, found


def measure(
    head: AttentionHead, kind: Kind, seed: int, data: dict[str, Cached], options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the figures of a trained head, and those of each test text.

    Heads of uniform attention have no order and no largest weight: accuracy and concentration only.
    """
    count = len(data["test"].labels)
    outputs = head_outputs(head, data["test"], torch.arange(count), seed)
    labels = data["test"].labels
    shapes = np.array([shape_of(w) for w in outputs.weights])
    texts = {
        "correct": (outputs.probabilities.argmax(1) == labels).numpy(),
        "correct_permuted": (outputs.permuted.argmax(1) == labels).numpy(),
        "spread": shapes[:, 0],
        "gini": shapes[:, 1],
        "largest": shapes[:, 2],
    }
    row: dict[str, Any] = {}
    if kind.attention != "uniform":
        row["mi"], _ = mi_of(outputs, options, seed)
    if kind in ORDERS:
        texts |= orders_of(head, kind, seed, data, outputs)
    with np.errstate(invalid="ignore"):
        row["means"] = {name: mean_of(values) for name, values in texts.items()}
    return row, texts


def orders_of(
    head: AttentionHead, kind: Kind, seed: int, data: dict[str, Cached], outputs: HeadOutputs
) -> dict[str, np.ndarray]:
    """Return for each test text how the order of attention agrees with that of the tokens' information."""
    profile_texts = torch.arange(min(PROFILE_TEXTS, len(data["train"].labels)))
    profile = head_outputs(head, data["train"], profile_texts, seed)
    information = token_information(profile, profile_texts, outputs, seed)
    pairs = list(zip(outputs.weights, information))
    texts = {
        "tau": np.array([float(rank_correlations(w.double(), i)[0]) if len(w) > 2 else math.nan for w, i in pairs]),
        "attended": np.array([float((w.double() * i).sum()) for w, i in pairs]),
        "average": np.array([float(i.mean()) for i in information]),
    }
    if kind in PAIRS:
        halves = [token_information(profile, profile_texts[i::2], outputs, seed) for i in (0, 1)]
        agreement = np.stack([pair_agreement(w, i, (a, b)) for (w, i), a, b in zip(pairs, *halves)])
        for group in range(agreement.shape[2]):
            texts |= {f"pairs_{group}": agreement[:, 0, group], f"halves_{group}": agreement[:, 1, group]}
        texts["far_less_near"] = agreement[:, 0, -1] - agreement[:, 0, 0]
    return texts


def mean_of(values: np.ndarray) -> float | None:
    """Return the mean of what is finite; None where nothing is."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if finite.size else None
