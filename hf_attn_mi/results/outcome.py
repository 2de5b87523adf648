"""The three outcomes of a result that makes a claim."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, Protocol

from hf_attn_mi.errors import InvalidInputError

__all__ = ["DOES_NOT_HOLD", "HOLDS", "NOTHING_TO_CERTIFY", "Outcome", "check_probabilities"]

Outcome = Literal["holds", "does not hold", "nothing to certify"]

HOLDS: Final = "holds"  # the claim was checked and is true
DOES_NOT_HOLD: Final = "does not hold"  # the claim was checked and is not true, or could not be checked to the end
NOTHING_TO_CERTIFY: Final = "nothing to certify"  # there is no claim that could be false


class SingleRemoval(Protocol):
    """One member of a set was left out: probabilities with the set and with the rest, and what fails then."""

    @property
    def p_set(self) -> float | None:
        """Probability with the set without the member."""

    @property
    def p_rest(self) -> float | None:
        """Probability with the rest and the member."""

    @property
    def set_same(self) -> bool:
        """Whether the set without the member keeps the prediction."""

    @property
    def rest_same(self) -> bool:
        """Whether the rest with the member keeps the prediction."""

    @property
    def fails(self) -> str:
        """What fails: "set", "rest", "both" or ""."""


def check_probabilities(
    p_all: float,
    p_set: float | None,
    p_rest: float | None,
    rest_same: bool | None,
    singles: Iterable[SingleRemoval],
    *,
    keep: float,
    strict: bool,
) -> None:
    """Check that the probabilities of a set say what the set claims: it suffices, the rest does not, each is needed.

    Raises:
        InvalidInputError: they do not, as in a file that was edited.
    """
    least = keep * p_all
    if p_set is not None and p_set < least:
        raise InvalidInputError(f"p_set is {p_set}, less than keep * p_all = {least}: such a set does not suffice")
    if p_rest is not None and rest_same and (strict or p_rest >= least):
        raise InvalidInputError(f"p_rest is {p_rest} and rest_same is true: with such a rest the set is not necessary")
    for one in singles:
        set_fails = not one.set_same or (one.p_set is not None and one.p_set < least)
        rest_fails = one.rest_same and (strict or one.p_rest is None or one.p_rest >= least)
        said = (one.fails in ("set", "both"), one.fails in ("rest", "both"))
        if (one.p_set is not None and said[0] != set_fails) or (one.p_rest is not None and said[1] != rest_fails):
            raise InvalidInputError(f"singles: fails is {one.fails!r}, which its probabilities contradict")
