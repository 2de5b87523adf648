"""`minimal_tokens`: which tokens carry this prediction, so that they suffice, the rest does not, and none can go?"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.methods import find_method, list_methods, read_options
from hf_attn_mi.methods.scoring import check_method, score_batch
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.removal_predictor import Prediction, RemovalPredictor, fixed_and_movable, refuse_unmaskable
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from hf_attn_mi.results.results import Results
from hf_attn_mi.results.token_set import Removal, TokenSet
from hf_attn_mi.tasks.arguments import check_flag, check_seed, check_whole_number, one_or_results, progress_bar
from hf_attn_mi.tasks.spans import spans_of
from hf_attn_mi.tasks.token_search import (
    EMPTY,
    Answer,
    Search,
    SearchResult,
    SearchState,
    Tokens,
    run_together,
    search,
)

RANDOM = "random"
NO_TOKENS: Answer = (0.0, False)  # the empty set of a model without special tokens: there is no such input


def minimal_tokens(
    model: Any,
    inputs: Any,
    *,
    target: Any = None,
    keep: float = 0.9,
    strict: bool = False,
    ranking: Any = "relevance",
    second_ranking: Any = RANDOM,
    budget: float = 200.0,
    tokenizer: Any = None,
    batch_size: int = 16,
    truncation: bool = False,
    seed: int = 0,
) -> TokenSet | Results[TokenSet]:
    """Search tokens that carry the prediction of each input: they suffice, the rest does not, and none can go.

    With p(J) the probability of the class when all tokens but J and the special ones are masked as keys in every layer:

    - J suffices: p(J) >= keep * p(all), and the prediction stays;
    - the rest (all tokens but J) does not suffice; with `strict` it changes the prediction;
    - without any single token of J, one of the two fails. J is locally minimal: neither smallest nor unique.

    Where the special tokens alone already give the answer there is no evidence to find: `defined` is False.

    Args:
        model: as in `explain`, with class logits.
        inputs: a text, a pair (tuple) of texts, a list of either, or a BatchEncoding / dict of tensors with input_ids.
        target: None (the predicted class), a class number, a label name, or one of these for each input.
        keep: share of p(all) that a sufficient set keeps, above 0, at most 1.
        strict: the rest must change the prediction.
        ranking: what ranks the tokens before the search: a method of `list_methods()`, "random", or a (tokens,) tensor
            of scores (a list of them for many inputs). Changes the set and the cost, never what is promised.
        second_ranking: another ranking, to whose set the Jaccard index is taken; None for none.
        budget: most forwards of the whole input that each of the two searches of an input may cost, 2 or more. Where it
            runs out, `minimal` is False.
        tokenizer: as in `explain`; also names the special tokens of tensors.
        batch_size: sequences in one forward pass.
        truncation: cut texts that are longer than the model's maximum, with a warning that names the cut.
        seed: of random rankings; the same for each input, whatever its place.

    Returns:
        One `TokenSet` for one input, `Results` of them for a list. `outcome` says whether it holds.

    Raises:
        InvalidInputError: an argument is wrong, or the model has no class probabilities.
        UnsupportedModelError: the model takes no attention mask.

    Example:
        >>> token_set = minimal_tokens(model, "A quietly moving film.")     # doctest: +SKIP
        >>> print(token_set)                                                # doctest: +SKIP
    """
    _check(keep, strict, budget)
    check_whole_number("batch_size", batch_size)
    check_flag("truncation", truncation)
    check_seed(seed)
    runner = EncoderRunner.of(model, tokenizer)
    if callable(target):
        raise InvalidInputError(
            "target is a function; a set of tokens is defined for a class: pass its number or name."
        )
    encoded, single = runner.encode(inputs, truncation=truncation, special_known=True)
    restricted = RestrictedInputs(
        RemovalPredictor(
            runner, encoded, read_target(target, runner.model, len(encoded), runner.output_head), batch_size
        )
    )
    originals = restricted.run_originals()
    rankings = [ranking] if second_ranking is None else [ranking, second_ranking]
    results: list[list[tuple[SearchResult, SearchState]]] = []
    seconds: list[float] = []
    for name, chosen, number in zip(("ranking", "second_ranking"), rankings, range(2)):
        started = time.perf_counter()
        scores = _scores(chosen, name, restricted, batch_size, seed + number)
        with progress_bar(len(encoded), f"minimal tokens, {name}", "input") as bar:
            results.append(_search(restricted, originals, scores, bar, keep=keep, strict=strict, budget=float(budget)))
        seconds.append((time.perf_counter() - started) / len(encoded))
    info = {
        **runner.provenance(),
        "compacted": restricted.predictor.position_offset is not None,
        "ranking": _name(ranking),
        "budget": budget,
        "seed": seed,
        "seconds": seconds,
    }
    records = [
        _token_set(one, i, restricted, originals[i], [result[i] for result in results], second_ranking, info)
        for i, one in enumerate(encoded)
    ]
    return one_or_results(records, single)


class RestrictedInputs:
    """The model on some tokens of each input: the others are masked as keys, special tokens stay.

    Args:
        predictor: of the whole inputs, with special tokens known.

    Attributes:
        predictor: as above.
        fixed: for each input the tokens that always stay.
        movable: for each input the tokens that may be left out.

    Raises:
        UnsupportedModelError: the model takes no attention mask.
        InvalidInputError: an input without tokens of its own, or whose special tokens are not known.
    """

    def __init__(self, predictor: RemovalPredictor) -> None:
        refuse_unmaskable(
            predictor.runner,
            "It cannot be restricted to some of its tokens: minimal_tokens needs a classifier that takes one.",
        )
        self.predictor = predictor
        pairs = [fixed_and_movable(one, i) for i, one in enumerate(predictor.inputs)]
        self.fixed, self.movable = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        predictor.try_compaction(self.fixed, self.movable)

    def run_originals(self) -> list[Prediction]:
        """What the model says about the whole inputs; settles the targets."""
        predictions = self.run(list(enumerate(self.movable)))
        self.predictor.settle(predictions)
        return predictions

    def run(self, sets: Sequence[tuple[int, Sequence[int] | Tokens]]) -> list[Prediction]:
        """What the model says for each (index of the input, tokens), in order; special tokens are added.

        Raises:
            InvalidInputError: a regression model, whose output has no probability.
        """
        variants = [(i, self.predictor.kept(i, {*self.fixed[i], *tokens})) for i, tokens in sets]
        predictions = self.predictor.predict(variants)
        for one in predictions:
            if one.explained.probability is None or one.predicted is None:
                raise InvalidInputError(
                    f"model: {self.predictor.runner.class_name} is a regression model, its output has no probability "
                    "that a set of tokens could keep. Pass a model with class logits."
                )
        return predictions

    def cost(self, index: int, size: int) -> float:
        """Of running `size` tokens of this input, in forwards of the whole input."""
        if self.predictor.position_offset is None:
            return 1.0
        fixed = len(self.fixed[index])
        return (size + fixed) / (len(self.movable[index]) + fixed)


def _check(keep: object, strict: object, budget: object) -> None:
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep <= 1:
        raise InvalidInputError(f"keep must be a number above 0 and at most 1, not {keep!r}; 0.9 keeps nine tenths.")
    check_flag("strict", strict)
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not budget >= 2:
        raise InvalidInputError(f"budget must be a number of forwards, 2 or more, not {budget!r}.")


def _name(ranking: object) -> str:
    return ranking if isinstance(ranking, str) else "given"


def _scores(ranking: Any, argument: str, restricted: RestrictedInputs, batch_size: int, seed: int) -> list[Tensor]:
    """(tokens,) scores of each input by this ranking."""
    predictor = restricted.predictor
    lengths = [one.token_count for one in predictor.inputs]
    if isinstance(ranking, str):
        if ranking == RANDOM:
            return [torch.rand(n, generator=torch.Generator().manual_seed(seed)) for n in lengths]
        if ranking not in list_methods():
            raise InvalidInputError(
                f"{argument}={ranking!r} is not known; allowed are 'random', "
                f"{', '.join(map(repr, list_methods()))} and tensors."
            )
        return _method_scores(ranking, predictor, batch_size)
    rows_given = [ranking] if isinstance(ranking, Tensor) and ranking.dim() == 1 else ranking
    if not isinstance(rows_given, list | tuple | Tensor) or len(rows_given) != len(lengths):
        raise InvalidInputError(
            f"{argument} must be a name or one (tokens,) tensor of scores for each of {len(lengths)} inputs."
        )
    rows = [torch.as_tensor(row).detach().cpu() for row in rows_given]
    for i, (row, n) in enumerate(zip(rows, lengths)):
        if row.shape != (n,) or not bool(torch.isfinite(row).all()):
            raise InvalidInputError(
                f"{argument}[{i}] must be {n} finite scores, one for each token of inputs[{i}], special ones too; not "
                f"{tuple(row.shape)}."
            )
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


def _search(
    restricted: RestrictedInputs,
    originals: Sequence[Prediction],
    scores: Sequence[Tensor],
    bar: Any,
    *,
    keep: float,
    strict: bool,
    budget: float,
) -> list[tuple[SearchResult, SearchState]]:
    """The result of the search for each input, and what it knows; `bar` counts the inputs that are done."""

    def oracle(sets: list[tuple[int, Tokens]]) -> list[Answer]:
        bar.set_postfix(sets_in_this_round=len(sets))  # searches share rounds: most of them end late
        predictions = restricted.run(sets)
        return [(one.value, one.predicted == originals[i].predicted) for one, (i, _) in zip(predictions, sets)]

    def counted(one: Search) -> Search:
        result = yield from one
        bar.update()
        return result

    states, searches = [], []
    for i, movable in enumerate(restricted.movable):
        everything = frozenset(movable)
        answers: dict[Tokens, Answer] = {everything: (originals[i].value, True)}
        if not restricted.fixed[i]:
            answers[EMPTY] = NO_TOKENS
        state = SearchState(
            everything,
            keep,
            strict,
            lambda size, i=i: restricted.cost(i, size),  # type: ignore[misc]
            budget,
            answers,
            spent=1.0,
            sequences=1,
        )
        values = scores[i].double().tolist()
        order = sorted(movable, key=lambda token: -values[token])
        states.append(state)
        searches.append(counted(search(order, state)))
    return list(zip(run_together(searches, oracle), states))


def _token_set(
    one: EncodedInput,
    index: int,
    restricted: RestrictedInputs,
    original: Prediction,
    results: Sequence[tuple[SearchResult, SearchState]],
    second_ranking: Any,
    info: dict[str, Any],
) -> TokenSet:
    result, state = results[0]
    assert original.explained.target is not None
    kept = tuple(sorted(result.kept or ()))
    defined, everything = result.kept is not None, state.everything
    p_special = state.answers[EMPTY][0] if restricted.fixed[index] else None
    chosen, rest = frozenset(kept), everything - frozenset(kept)
    spans, words = spans_of(one, kept)
    texts = {index: span.text for span in spans for index in span.tokens}
    second_search: dict[str, Any] = {}
    jaccard = p_set = p_rest = rest_same = None
    if defined:
        (p_set, _), (_, rest_same) = state.answers[chosen], state.answers[rest]
        p_rest = _probability(state, rest, p_special)
    if defined and len(results) > 1:
        second, cost = results[1]
        assert second.kept is not None  # the special tokens do not depend on the ranking
        jaccard = len(chosen & set(second.kept)) / len(chosen | set(second.kept))
        second_search = {
            "ranking": _name(second_ranking),
            "indices": sorted(second.kept),
            "minimal": second.minimal,
            "forwards": cost.spent,
            "sequences": cost.sequences,
        }
    return TokenSet(
        tokens=one.tokens or (),
        texts=one.texts,
        special=one.special or (),
        indices=kept,
        spans=spans,
        words=words,
        target=original.explained.target,
        target_name=original.explained.name,
        p_all=original.value,
        p_set=p_set,
        p_rest=p_rest,
        p_special=p_special,
        rest_same=rest_same,
        singles=tuple(_removal(state, chosen, i, texts[i], p_special) for i in kept if state.knows(chosen - {i})),
        defined=defined,
        minimal=result.minimal,
        keep=state.keep,
        strict=state.strict,
        reason=_reason(result, state, original, p_special),
        forwards=state.spent,
        sequences=state.sequences,
        jaccard=jaccard,
        second_ranking=second_search,
        info={**info, "warnings": list(one.warnings)},
    )


def _removal(state: SearchState, chosen: Tokens, index: int, text: str, p_special: float | None) -> Removal:
    left = chosen - {index}
    rest = state.everything - left
    short, enough = not state.sufficient(left), state.dispensable(rest)
    return Removal(
        index=index,
        text=text,
        p_set=_probability(state, left, p_special),
        p_rest=state.answers[rest][0],
        set_same=state.answers[left][1],
        rest_same=state.answers[rest][1],
        fails="both" if short and enough else "set" if short else "rest" if enough else "",
    )


def _probability(state: SearchState, tokens: Tokens, p_special: float | None) -> float | None:
    return state.answers[tokens][0] if tokens else p_special


def _reason(result: SearchResult, state: SearchState, original: Prediction, p_special: float | None) -> str:
    if result.kept is None:
        text = (
            f"Default class: the special tokens alone give {original.explained.name!r} with probability "
            f"{p_special:.4f}, all tokens {original.value:.4f}; no token of the text is evidence that the prediction "
            "needs."
        )
        if p_special is not None and math.isclose(p_special, original.value, rel_tol=1e-12):
            text += " Masking every token changed nothing at all: does this model read attention_mask?"
        return text
    if not result.minimal:
        return f"The budget of {state.budget:g} forwards ran out before every single removal was tried."
    return ""
