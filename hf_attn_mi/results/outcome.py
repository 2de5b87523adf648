"""The three outcomes of a result that makes a claim."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["DOES_NOT_HOLD", "HOLDS", "NOTHING_TO_CERTIFY", "Outcome"]

Outcome = Literal["holds", "does not hold", "nothing to certify"]

HOLDS: Final = "holds"  # the claim was checked and is true
DOES_NOT_HOLD: Final = "does not hold"  # it was checked and is not true, or could not be checked to the end
NOTHING_TO_CERTIFY: Final = "nothing to certify"  # there is no claim that could be false
