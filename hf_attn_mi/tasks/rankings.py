"""Rankings of the tokens before a search: by a token-scoring method, at random, or by the caller's scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.methods import find_method, list_methods, read_options
from hf_attn_mi.methods.scoring import check_method, score_batch
from hf_attn_mi.models.removal_predictor import RemovalPredictor

RANDOM = "random"


def ranking_name(ranking: object) -> str:
    """The name of a ranking in results."""
    return ranking if isinstance(ranking, str) else "given"


def check_ranking(ranking: Any, argument: str, count: int) -> Any:
    """The name of a ranking, or one row of scores for each of `count` inputs.

    Raises:
        InvalidInputError: an unknown name, or another number of rows.
    """
    if isinstance(ranking, str):
        if ranking != RANDOM and ranking not in list_methods():
            raise InvalidInputError(
                f"{argument}={shown(ranking)} is not known; allowed are 'random', "
                f"{', '.join(map(repr, list_methods()))} and tensors."
            )
        return ranking
    rows = [ranking] if isinstance(ranking, Tensor) and ranking.dim() == 1 else ranking
    if not isinstance(rows, list | tuple | Tensor) or not getattr(rows, "shape", (1,)) or len(rows) != count:
        raise InvalidInputError(
            f"{argument} must be a name or one (tokens,) tensor of scores for each of {count} inputs."
        )
    return rows


def ranking_scores(
    ranking: Any,
    argument: str,
    predictor: RemovalPredictor,
    places: Sequence[int],
    batch_size: int,
    seed: int,
) -> list[Tensor]:
    """(tokens,) scores of each input by this ranking.

    Args:
        ranking: the result of `check_ranking`.
        argument: its name, for messages.
        predictor: runs the inputs.
        places: the index of these inputs among those that the ranking has scores for.
        batch_size: the batch size of a token-scoring method.
        seed: the random seed for random scores.

    Raises:
        InvalidInputError: scores that are not finite or not one for each token.
    """
    lengths = [one.token_count for one in predictor.inputs]
    if isinstance(ranking, str):
        if ranking == RANDOM:
            return [torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float32) for n in lengths]
        return _method_scores(ranking, predictor, batch_size)
    rows = []
    for place, n in zip(places, lengths):
        try:
            row = torch.as_tensor(ranking[place]).detach().cpu()
            good = row.shape == (n,) and not row.is_complex() and bool(torch.isfinite(row).all())
        except (TypeError, ValueError, RuntimeError, OverflowError):
            row, good = torch.empty(0, dtype=torch.float32), False
        if not good:
            raise InvalidInputError(
                f"{argument}[{place}] must be {n} finite scores, one for each token of inputs[{place}], special ones "
                f"too; not {tuple(row.shape)}."
            )
        rows.append(row)
    return rows


def _method_scores(name: str, predictor: RemovalPredictor, batch_size: int) -> list[Tensor]:
    """The scores of a token-scoring method for the classes that are explained."""
    scorer, runner = find_method(name), predictor.runner
    options = read_options(scorer, None)
    check_method(runner, scorer, options)
    scores: dict[int, Tensor] = {}
    for places in runner.batches(predictor.inputs, batch_size):
        batch = [predictor.inputs[i] for i in places]
        scored = score_batch(runner, batch, scorer, predictor.target.select(places), options)
        scores.update(zip(places, scored.scores))
    return [scores[i] for i in range(len(predictor.inputs))]
