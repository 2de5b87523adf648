"""Exception classes, and how messages show values. Imports nothing, so that every other module may import it."""


class HfAttnMiError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidInputError(HfAttnMiError, ValueError):
    """An argument is wrong: the message names it, its value, what is allowed and what to do."""


class UnsupportedModelError(HfAttnMiError):
    """The model cannot be explained exactly: the message says why and what is supported."""


class BackendUnavailableError(HfAttnMiError):
    """A backend or a package that was asked for by name is not available."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a task over several inputs.

    Attributes:
        results: `Results` of the inputs that were finished.
        places: their numbers in the list of inputs.
    """

    def __init__(self, results: object, places: list[int]) -> None:
        super().__init__(f"interrupted after {len(places)} inputs; their results are in the attribute `results`")
        self.results, self.places = results, places


def shown(value: object, longest: int = 200) -> str:
    """How a message shows what a user passed: its `repr`, shortened; its type where the `repr` fails.

    Args:
        value: anything.
        longest: characters that are kept of it.

    Example:
        >>> shown([1, 2]), shown(10**5000)
        ('[1, 2]', '<int>')
    """
    try:
        text = repr(value)
    except Exception:  # a number of thousands of digits, or a class whose __repr__ fails
        return f"<{type(value).__name__}>"
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"
