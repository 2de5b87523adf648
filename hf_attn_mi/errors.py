"""Exception classes. Imports nothing, so that every other module may import it."""


class HfAttnMiError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidInputError(HfAttnMiError, ValueError):
    """An argument is wrong: the message names it, what came, what is allowed and what to do."""


class UnsupportedModelError(HfAttnMiError):
    """The model cannot be explained exactly: the message says why and what is supported."""


class BackendUnavailableError(HfAttnMiError):
    """A backend was asked for by name and is not there."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a task over several inputs.

    Attributes:
        results: `Results` of the inputs that were finished.
        places: their numbers in the list of inputs.
    """

    def __init__(self, results: object, places: list[int]) -> None:
        super().__init__(f"interrupted after {len(places)} inputs; their results are in the attribute `results`")
        self.results, self.places = results, places
