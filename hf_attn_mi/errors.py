"""Exception classes, and how messages show values and numbers. Imports nothing, so that every module may import it."""


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
        results: what was finished: `Results` of the inputs that were finished; the `Comparison` of those that were
            measured; the `Report` without the parts that were not finished. None if there is no result yet.
        places: the numbers of these inputs in the list of inputs.
        scores: of `compare`: {method: its scores of each input} for the methods that had scored every input; another
            call takes them as `scores=`.
    """

    def __init__(self, results: object, places: list[int], scores: object = None) -> None:
        where = "their results are in the attribute `results`" if results is not None else "the scores are in `scores`"
        super().__init__(f"interrupted after {counted(len(places), 'input')}; {where}")
        self.results, self.places, self.scores = results, places, scores


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


def counted(number: int, noun: str) -> str:
    """A number with its noun, as sentences write it.

    Args:
        number: 0 or more.
        noun: in the singular.

    Example:
        >>> counted(1, "shard"), counted(20000, "row"), counted(2, "process"), counted(3, "batch")
        ('1 shard', '20,000 rows', '2 processes', '3 batches')
    """
    ending = "" if number == 1 else "es" if noun.endswith(("s", "ch", "sh", "x")) else "s"
    return f"{number:,} {noun}{ending}"
