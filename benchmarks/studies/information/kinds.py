"""Which heads the study trains: kinds of heads, the order of the run, and which kinds a seed must have to count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

SCORES = ("additive", "deep", "scaled_dot")
ENTROPY = 0.5  # H(attention) / ln n at which kinds are compared with concentration held equal
SEEDS = {"sst2": 10, "agnews": 10, "imdb": 5}


@dataclass(frozen=True)
class Kind:
    """One kind of head. `attention`: "trained", "frozen" (random scores) or "uniform".

    With `entropy`, the scores are those of the trained head of the same kind; their temperature is set so that the mean
    of H / ln n is this number, and the classifier is trained again.
    """

    score: str
    normalizer: str = "softmax"
    temperature: float = 1.0
    recurrence: str = "none"
    attention: str = "trained"
    entropy: float | None = None

    @property
    def name(self) -> str:
        """A name for rows and files, such as "bilstm additive softmax 1 trained"."""
        if self.attention == "uniform":
            return f"{self.recurrence} uniform"
        words = f"{self.recurrence} {self.score} {self.normalizer} {self.temperature:g} {self.attention}"
        return words if self.entropy is None else f"{words} entropy {self.entropy:g}"

    @property
    def base(self) -> Kind:
        """The kind whose head, learning rate and number of epochs this kind uses."""
        return replace(self, entropy=None)


@dataclass(frozen=True)
class Cell:
    """One head to train."""

    dataset: str
    seed: int
    kind: Kind

    @property
    def key(self) -> str:
        """A name for files."""
        return f"{self.dataset} {self.seed} {self.kind.name}".replace(" ", "_")


UNIFORM = Kind("scaled_dot", attention="uniform")
FROZEN = Kind("additive", attention="frozen")
# A seed of a data set counts once it has all kinds of the group "main"; the other groups add to it.
GROUPS: dict[str, tuple[Kind, ...]] = {
    "main": (
        *(Kind(score) for score in SCORES),
        FROZEN,
        UNIFORM,
        *(Kind(score, entropy=ENTROPY) for score in SCORES),
        *(Kind(score, "gumbel", 0.5) for score in SCORES),
        *(Kind(score, "softmax", 0.5) for score in SCORES),
    ),
    "recurrent": tuple(Kind(score, recurrence="bilstm") for score in SCORES),
    "noise": tuple(Kind(score, "gumbel", 1.0) for score in SCORES),
}
PAIRS = GROUPS["main"][:3]  # kinds whose attention is compared with information by pairs of tokens
ORDERS = (*PAIRS, FROZEN, *GROUPS["recurrent"])  # kinds whose attention is compared with the information of the tokens


def cells_in_order(seeds: dict[str, int]) -> Iterator[Cell]:
    """Return the cells in the order of the run, seed after seed, so that a stopped run has whole seeds.

    The first five seeds of the groups "main" and "recurrent", then the others, then the group "noise".
    """
    parts = [("main", 0, 5), ("recurrent", 0, 5), ("main", 5, 99), ("recurrent", 5, 99), ("noise", 0, 99)]
    for group, first, last in parts:
        for seed in range(first, min(last, max(seeds.values()))):
            for dataset, count in seeds.items():
                if seed < count:
                    yield from (Cell(dataset, seed, kind) for kind in GROUPS[group])
