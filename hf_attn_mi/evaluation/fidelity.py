"""Infidelity: do sums of scores predict what removing several tokens does?"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_attn_mi.evaluation.areas import defined
from hf_attn_mi.evaluation.probabilities import Probabilities

SAMPLES = 64


def infidelity(
    found: Probabilities, scores: Tensor, *, samples: int = SAMPLES, seed: int = 0, scaled: bool = True
) -> float | None:
    """Return the mean squared error of scores as a linear prediction of removals. Lower is better, 0 and above.

    mean over random sets S of (beta sum_{i in S} score_i - (p(x) - p(x without S)))^2 (Yeh et al. 2019, arXiv
    1901.09392, with removal of tokens as the perturbation). beta is the factor that fits best, <a, b> / <a, a> for the
    sums a and the falls b (Captum's `normalize`; at most the mean of b^2 then), since the scores of most methods are no
    probabilities; scaled=False takes 1. Magnitudes are meant: scores are taken with their sign. S has a size drawn
    evenly from 1 to n and tokens drawn evenly; the same seed draws the same sets for every method.

    Returns:
        None where no token may be removed, or a drawn set leaves nothing of the input.

    Example:
        >>> predict = lambda examples: torch.stack([e["input_ids"].sum() / 10 for e in examples])
        >>> found = Probabilities(predict, {"input_ids": torch.tensor([0, 6, 4])}, torch.tensor([True, False, False]))
        >>> round(infidelity(found, torch.tensor([0.0, 3.0, 2.0])), 6)  # in proportion to the truth
        0.0
    """
    values = found.values(scores)
    if len(values) == 0:
        return None
    sets = random_sets(found, samples=samples, seed=seed)
    place = {token: index for index, token in enumerate(found.tokens)}
    sums = torch.stack([values[[place[token] for token in sorted(positions)]].sum() for positions in sets])
    falls = found.full() - found.removed(sets)
    squares = float(sums.square().sum())
    beta = float((sums * falls).sum()) / squares if scaled and squares > 0 else 1.0
    return defined((beta * sums - falls).square().mean()[None])[0]


def random_sets(found: Probabilities, *, samples: int = SAMPLES, seed: int = 0) -> list[frozenset[int]]:
    """Return random sets of tokens, none of them empty; [] where no token may be removed."""
    generator, tokens = torch.Generator().manual_seed(seed), found.tokens
    sets = []
    for _ in range(samples if tokens else 0):
        size = int(torch.randint(1, len(tokens) + 1, (1,), generator=generator))
        drawn = torch.randperm(len(tokens), generator=generator)[:size].tolist()
        sets.append(frozenset(tokens[index] for index in drawn))
    return sets
