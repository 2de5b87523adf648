"""`minimal_tokens`: which tokens carry this prediction: they suffice, the rest does not, and none can be removed?"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.dual_encoders import tower_of
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.removal_predictor import Prediction, RemovalPredictor
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target
from hf_attn_mi.results.results import Results
from hf_attn_mi.results.token_set import Removal, TokenSet
from hf_attn_mi.tasks.arguments import check_flag, check_seed, check_whole_number, progress_bar
from hf_attn_mi.tasks.each_input import bind_targets, check_input_options, read_inputs, result_of_each
from hf_attn_mi.tasks.media_removal import removal_predictor
from hf_attn_mi.tasks.rankings import RANDOM, check_ranking, ranking_name, ranking_scores
from hf_attn_mi.tasks.several_targets import refuse_functions, refuse_target_and_targets, results_of_targets
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

NO_TOKENS: Answer = (0.0, False)  # the empty set of a model without special tokens: there is no such input


def minimal_tokens(
    model: Any,
    inputs: Any,
    *,
    target: Any = None,
    targets: Any = None,
    keep: float = 0.9,
    strict: bool = False,
    ranking: Any = "relevance",
    second_ranking: Any = RANDOM,
    budget: float = 200.0,
    tokenizer: Any = None,
    processor: Any = None,
    sampling_rate: int | None = None,
    batch_size: int = 16,
    truncation: bool = False,
    is_split_into_words: bool = False,
    errors: str = "raise",
    seed: int = 0,
) -> TokenSet | Results[TokenSet]:
    """Search tokens that carry the prediction of each input: they suffice, the rest does not, and none can go.

    With p(J) the probability of the class when all tokens but J and the special ones are masked as keys in every layer:

    - J suffices: p(J) >= keep * p(all), and the prediction stays;
    - the rest (all tokens but J) does not suffice; with `strict` it changes the prediction;
    - without any single token of J, one of the two fails. J is locally minimal: neither smallest nor unique.

    Of an image or a recording the tokens are patches or moments. A removed one gets the state that an input of zeros
    has before the first layer (the baseline "blank" of occlusion); class tokens and registers stay.

    Where the special tokens alone already give the answer there is no evidence to find: `defined` is False.

    Args:
        model: as in `explain`, with class logits.
        inputs: as in `explain`, images and audio too.
        target: as in `explain`; it must have a probability.
        targets: several targets of each input, instead of `target`: a list, or "all", as in `explain`. The results are
            in the order of the inputs, and for each input in that of its targets.
        keep: share of p(all) that a sufficient set keeps, above 0, at most 1.
        strict: the rest must change the prediction.
        ranking: what ranks the tokens before the search: a method of `list_methods()`, "random", or a (tokens,) tensor
            of scores (a list of them for many inputs). It changes the set and the cost, never the guarantees.
        second_ranking: another ranking, to whose set the Jaccard index is taken; None for none.
        budget: the largest cost of each of the two searches of an input, in forward passes of the whole input, 2 or
            more. Where it runs out, `minimal` is False.
        tokenizer: as in `explain`; also names the special tokens of tensors.
        processor, sampling_rate: as in `explain`, for images and recordings.
        batch_size: sequences in one forward pass.
        truncation, is_split_into_words, errors: as in `explain`.
        seed: the random seed for random rankings; the same for each input, whatever its place.

    Returns:
        One `TokenSet` for one input, `Results` of them for a list. `outcome` says whether it holds.

    Raises:
        InvalidInputError: an argument is wrong, or the model has no class probabilities.
        UnsupportedModelError: the model takes no attention mask.
        KeyboardInterrupt: Ctrl-C; its `results` are those of the inputs that were finished.

    Example:
        >>> token_set = minimal_tokens(model, "A quietly moving film.")     # doctest: +SKIP
        >>> print(token_set)                                                # doctest: +SKIP
    """
    _check(keep, strict, budget)
    check_whole_number("batch_size", batch_size)
    check_input_options(errors, truncation, is_split_into_words)
    check_seed(seed)
    runner = EncoderRunner.of(model, tokenizer, processor=processor, sampling_rate=sampling_rate)
    runner = tower_of(runner, inputs, target, targets)
    refuse_target_and_targets(target, targets)
    refuse_functions(target, targets, "a set of tokens")
    encoded = read_inputs(
        runner,
        inputs,
        errors=errors,
        truncation=truncation,
        is_split_into_words=is_split_into_words,
        special_known=True,
    )
    rankings = {"ranking": check_ranking(ranking, "ranking", encoded.count)}
    if second_ranking is not None:
        rankings["second_ranking"] = check_ranking(second_ranking, "second_ranking", encoded.count)
    options = _Options(keep, strict, float(budget), rankings, batch_size, seed)
    if targets is not None:

        def run_one(one: EncodedInput, chosen: Target, place: int) -> TokenSet:
            predictor = removal_predictor(runner, [one], chosen, batch_size)
            return _token_sets(RestrictedInputs(predictor, [place]), options)[0]

        return results_of_targets(targets, runner, encoded, run_one, errors=errors, task="minimal tokens")
    bound, encoded = bind_targets(target, runner, encoded, errors=errors)

    def run(positions: list[int]) -> list[TokenSet]:
        chosen, places = [encoded.inputs[i] for i in positions], [encoded.places[i] for i in positions]
        predictor = removal_predictor(runner, chosen, bound.select(positions), batch_size)
        return _token_sets(RestrictedInputs(predictor, places), options)

    batches = _groups(len(encoded.inputs), batch_size)
    return result_of_each(encoded, batches, run, errors=errors, task="minimal tokens")


def _groups(count: int, most: int) -> list[list[int]]:
    """The inputs that are searched together: 1, 2, 4, ... and `most`, so that an interruption soon has results to keep.

    Example:
        >>> _groups(6, 16)
        [[0], [1, 2], [3, 4, 5]]
    """
    groups, start, size = list[list[int]](), 0, 1
    while start < count:
        groups.append(list(range(start, min(start + size, count))))
        start, size = start + size, min(2 * size, most)
    return groups


@dataclass(frozen=True)
class _Options:
    keep: float
    strict: bool
    budget: float
    rankings: Mapping[str, Any]  # by the name of the argument: a name, or the scores of each of the caller's inputs
    batch_size: int
    seed: int


class RestrictedInputs:
    """The model on some tokens of each input: the others are masked as keys, special tokens stay.

    Args:
        predictor: runs the whole inputs, with special tokens known.
        places: the index of each of these inputs among the caller's inputs; None for all of them.

    Attributes:
        predictor: as above.
        places: as above.
        fixed: for each input the tokens that always stay.
        movable: for each input the tokens that may be left out.

    Raises:
        UnsupportedModelError: the model takes no attention mask.
        InvalidInputError: an input with special tokens only, or whose special tokens are not known.
    """

    def __init__(self, predictor: RemovalPredictor, places: Sequence[int] | None = None) -> None:
        predictor.refuse()
        self.predictor = predictor
        self.places = tuple(range(len(predictor.inputs)) if places is None else places)
        predictor.settle_tokens()
        anchors = [predictor.target.anchors(i) for i in range(len(predictor.inputs))]
        pairs = [predictor.fixed_and_movable(i, *of_one) for i, of_one in enumerate(zip(self.places, anchors))]
        self.fixed, self.movable = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        predictor.try_token_dropping(self.fixed, self.movable)

    def run_originals(self) -> list[Prediction]:
        """The model's answers for the whole inputs; settles the targets."""
        predictions = self.run(list(enumerate(self.movable)))
        self.predictor.settle(predictions)
        return predictions

    def run(self, sets: Sequence[tuple[int, Sequence[int] | Tokens]]) -> list[Prediction]:
        """The model's answer for each (index of the input, tokens), in order; special tokens are added.

        Raises:
            InvalidInputError: a regression model, whose output has no probability.
        """
        variants = [(i, self.predictor.kept(i, {*self.fixed[i], *tokens})) for i, tokens in sets]
        predictions = self.predictor.predict(variants)
        for one in predictions:
            if one.explained.probability is None or one.predicted is None:
                raise InvalidInputError(
                    f"target {one.explained.name!r} of {self.predictor.runner.class_name} has no probability that a "
                    "set of tokens could keep (regression, similarity and margins have none). Explain a class, a "
                    "token, a mask or an answer."
                )
        return predictions

    def cost(self, index: int, size: int) -> float:
        """The cost of running `size` tokens of this input, in forward passes of the whole input."""
        if self.predictor.position_offset is None:
            return 1.0
        fixed = len(self.fixed[index])
        return (size + fixed) / (len(self.movable[index]) + fixed)


def _check(keep: object, strict: object, budget: object) -> None:
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep <= 1:
        raise InvalidInputError(
            f"keep must be a number above 0 and at most 1, not {shown(keep)}; 0.9 keeps nine tenths."
        )
    check_flag("strict", strict)
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not budget >= 2:
        raise InvalidInputError(f"budget must be a number of forward passes, 2 or more, not {shown(budget)}.")


def _token_sets(restricted: RestrictedInputs, options: _Options) -> list[TokenSet]:
    """The token set of each input: searched by one ranking, and by a second one."""
    originals = restricted.run_originals()
    results: list[list[tuple[SearchResult, SearchState]]] = []
    seconds: list[float] = []
    for number, (argument, ranking) in enumerate(options.rankings.items()):
        started = time.perf_counter()
        scores = ranking_scores(
            ranking, argument, restricted.predictor, restricted.places, options.batch_size, options.seed + number
        )
        with progress_bar(len(originals), f"minimal tokens, {argument}", "input") as bar:
            results.append(_search(restricted, originals, scores, bar, options))
        seconds.append((time.perf_counter() - started) / len(originals))
    names = [ranking_name(ranking) for ranking in options.rankings.values()]
    info = {
        **restricted.predictor.runner.provenance(),
        "token_dropping": restricted.predictor.position_offset is not None,
        "removal": restricted.predictor.removal,
        "ranking": names[0],
        "budget": options.budget,
        "seed": options.seed,
        "seconds": seconds,
    }
    return [
        _token_set(one, i, restricted, originals[i], [result[i] for result in results], names[-1], info)
        for i, one in enumerate(restricted.predictor.inputs)
    ]


def _search(
    restricted: RestrictedInputs,
    originals: Sequence[Prediction],
    scores: Sequence[Tensor],
    bar: Any,
    options: _Options,
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
        if not restricted.fixed[i] and not restricted.predictor.runs_nothing:
            answers[EMPTY] = NO_TOKENS
        state = SearchState(
            everything,
            options.keep,
            options.strict,
            lambda size, i=i: restricted.cost(i, size),  # type: ignore[misc]
            options.budget,
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
    second_ranking: str,
    info: dict[str, Any],
) -> TokenSet:
    result, state = results[0]
    kept = tuple(sorted(result.kept or ()))
    defined, everything = result.kept is not None, state.everything
    p_special = state.answers[EMPTY][0] if restricted.fixed[index] or restricted.predictor.runs_nothing else None
    chosen, rest = frozenset(kept), everything - frozenset(kept)
    spans, words = spans_of(one, kept)
    texts = {index: span.text for span in spans for index in span.tokens}
    second_search: dict[str, Any] = {}
    call = restricted.predictor.target.call(index)
    called = {} if call is None else {"target": call}
    jaccard = p_set = p_rest = rest_same = None
    if defined:
        (p_set, _), (_, rest_same) = state.answers[chosen], state.answers[rest]
        p_rest = _probability(state, rest, p_special)
    if defined and len(results) > 1:
        second, cost = results[1]
        assert second.kept is not None  # the special tokens do not depend on the ranking
        jaccard = len(chosen & set(second.kept)) / len(chosen | set(second.kept))
        second_search = {
            "ranking": second_ranking,
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
        info={**info, **called, "warnings": [*one.warnings, *restricted.predictor.runner.notes]},
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
        return f"The budget of {state.budget:g} forward passes ran out before every single removal was tried."
    return ""
