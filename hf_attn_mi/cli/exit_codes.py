"""The exit statuses of every command, in one table."""

from __future__ import annotations

from collections.abc import Iterable

DONE = 0  # done, and what the command claims holds
DOES_NOT_HOLD = 1  # done, but a claim does not hold or a method failed: the output says which
REFUSED = 2  # wrong usage, wrong input, a model that is not supported, a file that cannot be read or written
NOTHING_TO_CERTIFY = 3  # done, but for some input there is no claim to make
FAULT = 70  # a defect of this program: EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT, as shells report it; SIGTERM during a task ends it in the same way
PIPE_CLOSED = 141  # the reader closed standard output: 128 + SIGPIPE

OF_OUTCOME = {"holds": DONE, "does not hold": DOES_NOT_HOLD, "nothing to certify": NOTHING_TO_CERTIFY}


def exit_code(outcomes: Iterable[str]) -> int:
    """Return the exit status for the outcomes of several inputs: 1 before 3 before 0.

    Example:
        >>> exit_code(["holds", "nothing to certify"]), exit_code(["nothing to certify", "does not hold"])
        (3, 1)
    """
    codes = {OF_OUTCOME[outcome] for outcome in outcomes}
    return next((code for code in (DOES_NOT_HOLD, NOTHING_TO_CERTIFY) if code in codes), DONE)


def outcomes_of(results: Iterable[object]) -> list[str]:
    """Return the outcomes of results; an input that was skipped counts as one whose claim does not hold."""
    return [str(getattr(result, "outcome", "does not hold")) for result in results]


def in_words(done: str, does_not_hold: str | None = None, nothing: str | None = None) -> str:
    """Return the paragraph of a command's help that states the exit statuses the command can end with.

    Args:
        done: what status 0 means for this command.
        does_not_hold: what status 1 means; None if the command never ends with it.
        nothing: what status 3 means; None if the command never ends with it.

    Example:
        >>> in_words("done")
        'Exit status: 0 done; 2 refused: wrong usage, wrong input or a model that is not supported; 130 interrupted.'
    """
    meanings = {
        DONE: done,
        DOES_NOT_HOLD: does_not_hold,
        REFUSED: "refused: wrong usage, wrong input or a model that is not supported",
        NOTHING_TO_CERTIFY: nothing,
        INTERRUPTED: "interrupted",
    }
    return f"Exit status: {'; '.join(f'{code} {words}' for code, words in meanings.items() if words is not None)}."
