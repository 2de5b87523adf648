"""`minimal_tokens`: which tokens carry this prediction, so that they suffice, the rest does not, and none can go?"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from hf_attn_mi._version import library_versions
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.methods.registry import METHODS
from hf_attn_mi.models.batching import padding_id, stack
from hf_attn_mi.models.encode import read_inputs
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.loading import device_of, model_and_tokenizer, name_of, own_tokenizer
from hf_attn_mi.models.masked_predictor import MaskedPredictor, Seen
from hf_attn_mi.models.targets import read_targets
from hf_attn_mi.models.token_dropping import choose_token_dropping
from hf_attn_mi.results.token_set import Removal, TokenSet
from hf_attn_mi.tasks.explain import explain
from hf_attn_mi.tasks.spans import pieces
from hf_attn_mi.tasks.token_search import NOTHING, Answer, Found, Search, SearchState, Tokens, run_together, search

RANDOM = "random"
NO_TOKENS: Answer = (0.0, False)  # the empty set of a model without special tokens: there is no such input


def minimal_tokens(
    model: Any,
    inputs: Any,
    *,
    keep: float = 0.9,
    strict: bool = False,
    tokenizer: Any = None,
    target: Any = None,
    start: Any = "relevance",
    second: Any = RANDOM,
    budget: float = 200.0,
    batch_size: int = 32,
    seed: int = 0,
    truncation: bool = False,
) -> TokenSet | list[TokenSet]:
    """Searches tokens that carry the prediction of each input: they suffice, the rest does not, and none can go.

    With p(J) the probability of the class when all tokens but J and the special ones are masked as keys in every layer:

    - J suffices: p(J) >= keep * p(all), and the prediction stays;
    - the rest (all tokens but J) does not suffice; with `strict` it changes the prediction;
    - without any single token of J, one of the two fails. J is inclusion-minimal, neither least in number nor unique.

    Where the special tokens alone already give the answer there is no evidence to find: `defined` is False.

    Args:
        model: as for `explain`, with class logits.
        inputs: a text, a pair (tuple) of texts, a list of either, or a BatchEncoding / dict of tensors with input_ids.
        keep: share of p(all) that a sufficient set keeps, above 0, at most 1.
        strict: the rest must change the prediction.
        tokenizer: as for `explain`; also names the special tokens of tensors.
        target: None (the predicted class), a class number, a label name, or one of these for each input.
        start: what ranks the tokens before the search: a method of `explain`, "random", or a (tokens,) tensor (a list
            of them for many inputs). Changes the set and the cost, never what is promised.
        second: another start, to whose set the Jaccard index is taken; None for none.
        budget: most forwards of the whole input that each of the two searches of an input may cost, 2 or more. Where it
            runs out, `minimal` is False.
        batch_size: sequences in one forward pass.
        seed: of random starts; the same for each input, whatever its place.
        truncation: cut texts that are longer than the model's maximum, with a warning that names the cut.

    Returns:
        One `TokenSet` for one input, a list for a list.

    Raises:
        InvalidInputError: an argument is wrong, or the model has no class probabilities.
        UnsupportedModelError: the model takes no attention mask.

    Example:
        >>> found = minimal_tokens(model, "A quietly moving film.")     # doctest: +SKIP
        >>> print(found)                                                # doctest: +SKIP
    """
    _check(keep, strict, budget, batch_size, seed, truncation)
    inner, tokenizer = model_and_tokenizer(model, tokenizer)
    if callable(target):
        raise InvalidInputError(
            "target is a function; a set of tokens is defined for a class: pass its number or name."
        )
    examples, tokenizer, single = read_inputs(inputs, inner, tokenizer, truncation)
    if any(example.special is None and "input_ids" in example.tensors for example in examples):
        examples, tokenizer, single = read_inputs(inputs, inner, own_tokenizer(inner), truncation)
    wanted = read_targets(target, inner, len(examples))
    assert not callable(wanted)
    runs = MaskedPredictor(inner, examples, batch_size)
    choose_token_dropping(runs)
    base = runs.run(list(enumerate(runs.movable)), wanted)
    results: list[list[tuple[Found, SearchState]]] = []
    seconds: list[float] = []
    for number, beginning in enumerate([start] if second is None else [start, second]):
        began = time.perf_counter()
        name = "second" if number else "start"
        scores = _scores(beginning, name, inner, examples, base, batch_size, seed + number)
        with _progress(len(examples), name) as bar:
            results.append(_search(runs, base, scores, bar, keep=keep, strict=strict, budget=float(budget)))
        seconds.append((time.perf_counter() - began) / len(examples))
    info = {**_provenance(inner, runs), "start": _named(start), "budget": budget, "seed": seed, "seconds": seconds}
    made = [
        _result(example, i, runs, base[i], [found[i] for found in results], second, info)
        for i, example in enumerate(examples)
    ]
    return made[0] if single else made


def _check(keep: Any, strict: Any, budget: Any, batch_size: Any, seed: Any, truncation: Any) -> None:
    def number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    if not number(keep) or not 0 < keep <= 1:
        raise InvalidInputError(f"keep must be a number above 0 and at most 1, not {keep!r}; 0.9 keeps nine tenths.")
    for name, value in (("strict", strict), ("truncation", truncation)):
        if not isinstance(value, bool):
            raise InvalidInputError(f"{name} must be True or False, not {value!r}.")
    if not number(budget) or not budget >= 2:
        raise InvalidInputError(f"budget must be a number of forwards, 2 or more, not {budget!r}.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidInputError(f"batch_size must be a positive whole number, not {batch_size!r}.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InvalidInputError(f"seed must be a whole number of 0 or more, not {seed!r}.")


def _named(start: Any) -> str:
    return start if isinstance(start, str) else "given"


def _scores(
    start: Any, name: str, model: nn.Module, examples: list[EncodedInput], base: list[Seen], batch_size: int, seed: int
) -> list[Tensor]:
    """(tokens,) scores of each input from this start."""
    lengths = [int(example.length or 0) for example in examples]
    if isinstance(start, str):
        if start == RANDOM:
            return [torch.rand(n, generator=torch.Generator().manual_seed(seed)) for n in lengths]
        if start not in METHODS:
            raise InvalidInputError(
                f"{name}={start!r} is not known; allowed are 'random', {', '.join(map(repr, METHODS))} and tensors."
            )
        targets = [seen.target for seen in base]
        tensors = stack(examples, padding_id(model) or 0, device_of(model))  # not the texts: they are cut and read
        found = explain(model, tensors, target=targets, method=start, batch_size=batch_size)
        return [one.scores for one in (found if isinstance(found, list) else [found])]
    given = [start] if isinstance(start, Tensor) and start.dim() == 1 else start
    if not isinstance(given, (list, tuple, Tensor)) or len(given) != len(examples):
        raise InvalidInputError(
            f"{name} must be a name or one (tokens,) tensor of scores for each of {len(examples)} inputs."
        )
    rows = [torch.as_tensor(row).detach().cpu() for row in given]
    for i, (row, n) in enumerate(zip(rows, lengths)):
        if row.shape != (n,) or not bool(torch.isfinite(row).all()):
            raise InvalidInputError(
                f"{name}[{i}] must be {n} finite scores, one for each token of inputs[{i}], special ones too; not "
                f"{tuple(row.shape)}."
            )
    return rows


def _progress(inputs: int, name: str) -> Any:
    """A progress bar of finished searches where there are several inputs and somebody watches."""
    hidden = inputs < 2 or not sys.stderr.isatty()
    return tqdm(total=inputs, desc=f"minimal tokens, {name}", unit="input", disable=hidden)


def _counted(one: Search, bar: Any) -> Search:
    found = yield from one
    bar.update()
    return found


def _search(
    runs: MaskedPredictor, base: list[Seen], scores: list[Tensor], bar: Any, *, keep: float, strict: bool, budget: float
) -> list[tuple[Found, SearchState]]:
    """What the search found for each input, and what it knows; `bar` counts the inputs that are done."""

    def oracle(asked: list[tuple[int, Tokens]]) -> list[Answer]:
        bar.set_postfix(sets_in_this_round=len(asked))  # searches share rounds: most of them end late
        seen = runs.run(asked, [base[i].target for i, _ in asked])
        return [(one.probability, one.prediction == base[i].prediction) for one, (i, _) in zip(seen, asked)]

    ledgers, searches = [], []
    for i, movable in enumerate(runs.movable):
        everything = frozenset(movable)
        answers: dict[Tokens, Answer] = {everything: (base[i].probability, True)}
        if not runs.fixed[i]:
            answers[NOTHING] = NO_TOKENS
        ledger = SearchState(
            everything,
            keep,
            strict,
            lambda size, i=i: runs.cost(i, size),
            budget,
            answers,
            spent=1.0,
            sequences=1,  # type: ignore[misc]
        )
        values = scores[i].double().tolist()
        ledgers.append(ledger)
        searches.append(_counted(search(sorted(movable, key=lambda token: -values[token]), ledger), bar))
    return list(zip(run_together(searches, oracle), ledgers))


def _result(
    example: EncodedInput,
    number: int,
    runs: MaskedPredictor,
    seen: Seen,
    results: Sequence[tuple[Found, SearchState]],
    second: Any,
    info: dict[str, Any],
) -> TokenSet:
    found, ledger = results[0]
    kept = tuple(sorted(found.kept or ()))
    defined, everything = found.kept is not None, ledger.everything
    p_special = ledger.answers[NOTHING][0] if runs.fixed[number] else None
    chosen, rest = frozenset(kept), everything - frozenset(kept)
    spans, words = pieces(example, kept)
    texts = {index: span.text for span in spans for index in span.tokens}
    other: dict[str, Any] = {}
    jaccard = p_set = p_rest = rest_same = None
    if defined:
        (p_set, _), (_, rest_same) = ledger.answers[chosen], ledger.answers[rest]
        p_rest = _probability(ledger, rest, p_special)
    if defined and len(results) > 1:
        again, cost = results[1]
        assert again.kept is not None  # the special tokens do not depend on the start
        jaccard = len(chosen & set(again.kept)) / len(chosen | set(again.kept))
        other = {
            "start": _named(second),
            "indices": sorted(again.kept),
            "minimal": again.minimal,
            "forwards": cost.spent,
            "sequences": cost.sequences,
        }
    return TokenSet(
        tokens=example.tokens or (),
        texts=example.texts,
        special=example.special or (),
        indices=kept,
        spans=spans,
        words=words,
        target=seen.target,
        target_name=seen.name,
        p_all=seen.probability,
        p_set=p_set,
        p_rest=p_rest,
        p_special=p_special,
        rest_same=rest_same,
        singles=tuple(_removal(ledger, chosen, i, texts[i], p_special) for i in kept if ledger.knows(chosen - {i})),
        defined=defined,
        minimal=found.minimal,
        keep=ledger.keep,
        strict=ledger.strict,
        reason=_reason(found, ledger, seen, p_special),
        forwards=ledger.spent,
        sequences=ledger.sequences,
        jaccard=jaccard,
        second=other,
        info={**info, "warnings": list(example.warnings)},
    )


def _removal(ledger: SearchState, chosen: Tokens, index: int, text: str, p_special: float | None) -> Removal:
    left = chosen - {index}
    rest = ledger.everything - left
    short, enough = not ledger.sufficient(left), ledger.dispensable(rest)
    return Removal(
        index=index,
        text=text,
        p_set=_probability(ledger, left, p_special),
        p_rest=ledger.answers[rest][0],
        set_same=ledger.answers[left][1],
        rest_same=ledger.answers[rest][1],
        fails="both" if short and enough else "set" if short else "rest" if enough else "",
    )


def _probability(ledger: SearchState, tokens: Tokens, p_special: float | None) -> float | None:
    return ledger.answers[tokens][0] if tokens else p_special


def _reason(found: Found, ledger: SearchState, seen: Seen, p_special: float | None) -> str:
    if found.kept is None:
        text = (
            f"Default class: the special tokens alone give {seen.name!r} with probability {p_special:.4f}, all tokens "
            f"{seen.probability:.4f}; no token of the text is evidence that the prediction needs."
        )
        if p_special is not None and math.isclose(p_special, seen.probability, rel_tol=1e-12):
            text += " Masking every token changed nothing at all: does this model read attention_mask?"
        return text
    if not found.minimal:
        return f"The budget of {ledger.budget:g} forwards ran out before every single removal was tried."
    return ""


def _provenance(model: nn.Module, runs: MaskedPredictor) -> dict[str, Any]:
    config = getattr(model, "config", None)
    return {
        "model": name_of(model),
        "model_type": getattr(config, "model_type", type(model).__name__),
        "dtype": str(next((p.dtype for p in model.parameters()), torch.float32)).removeprefix("torch."),
        "compacted": runs.offset is not None,
        "versions": library_versions(),
    }
