"""The arguments of `minimal_attention`: checked, with messages that name what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.tasks.arguments import check_choice, check_flag, check_whole_number
from hf_attn_mi.tasks.attention_units import MAKERS, UNITS, TokenUnits
from hf_attn_mi.tasks.edge_ranking import RANKINGS
from hf_attn_mi.tasks.edge_removal import REMOVALS


def check_options(
    unit: object, keep: object, strict: object, ranking: object, others: object, deeper: object, budget: object
) -> None:
    """Raise `InvalidInputError` for wrong values.

    Raises:
        InvalidInputError: names the argument.
    """
    check_choice("unit", unit, UNITS)
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep <= 1:
        raise InvalidInputError(
            f"keep must be a number above 0 and at most 1, not {shown(keep)}; 0.9 keeps nine tenths."
        )
    check_flag("strict", strict)
    check_flag("deeper", deeper)
    if not isinstance(ranking, str) or ranking not in RANKINGS:
        raise InvalidInputError(
            f"ranking must be one of {', '.join(map(repr, RANKINGS))}, not {shown(ranking)}: a method that scores "
            "tokens cannot rank attention weights."
        )
    check_whole_number("others", others, least=0)
    if others and MAKERS[str(unit)] is not MAKERS["edge"]:
        raise InvalidInputError(
            f"others={shown(others)} needs unit='edge', not {unit!r}: a family consists of sets of attention weights."
        )
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not budget >= 2:
        raise InvalidInputError(f"budget must be a number of forward passes, 2 or more, not {shown(budget)}.")


def read_removals(removals: Any, unit: object) -> tuple[str, ...]:
    """Return the kinds of removal; the set is found under the first one.

    Raises:
        InvalidInputError: not one or more of the kinds, or other kinds than one for tokens.
    """
    kinds = (removals,) if isinstance(removals, str) else removals
    good = isinstance(kinds, list | tuple) and len(kinds) > 0 and all(isinstance(kind, str) for kind in kinds)
    if not good or not set(kinds) <= set(REMOVALS) or len(set(kinds)) < len(kinds):
        raise InvalidInputError(
            f"removals must be one or more of {', '.join(map(repr, REMOVALS))}, each once, not {shown(removals)}."
        )
    if MAKERS.get(str(unit)) is TokenUnits and kinds != ("renormalized",) and kinds != ["renormalized"]:
        raise InvalidInputError(
            "removals must be ('renormalized',) with unit='token': tokens are removed by the attention mask."
        )
    return tuple(kinds)


def read_reference(
    runner: EncoderRunner, reference: Any, kinds: tuple[str, ...], encoded: Sequence[EncodedInput]
) -> EncodedInput | None:
    """Return the other input of the removal by resampling; None if no kind of removal needs one.

    Raises:
        InvalidInputError: it is missing, not needed, not one input, or shorter than an input.
    """
    needed = [kind for kind in kinds if REMOVALS[kind].needs_reference]
    if not needed:
        if reference is not None:
            raise InvalidInputError("reference is read only by removals=('resample', ...); leave it out.")
        return None
    if reference is None:
        raise InvalidInputError(
            f"removals has {needed[0]!r}, which takes the values of another input: pass reference=TEXT, at least as "
            "long as every input."
        )
    try:
        others, single = runner.encode(reference)
    except InvalidInputError as error:
        raise InvalidInputError(f"reference: {error}") from error
    if not single:
        raise InvalidInputError(f"reference must be one input, not {len(others)}.")
    longest = max((one.token_count for one in encoded), default=0)
    if others[0].token_count < longest:
        raise InvalidInputError(
            f"reference has {others[0].token_count} tokens, but an input has {longest}: it must be at least as long."
        )
    return others[0]
