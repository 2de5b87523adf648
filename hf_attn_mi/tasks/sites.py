"""Which token of an input each site uses: one state per input and site, so that examples are independent."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import EncodedInput

SITES = ("tokens", "first", "positions", "attention", "types")
DRAWS = 4  # tokens of an input that the probe of "tokens" is fitted to; the first of them is the one of the site
POSITIONS = 8  # aligned positions, 0 among them
RANKS = 5
TEXTS = ("text A", "text B")


class SitePlan:
    """The picks of every input: the site "tokens" (and its further draws), "first", and all other requested sites.

    Random draws depend on `seed`, the number of the input and the pick only.

    Args:
        chosen: names of `SITES`, as `read_sites` returns them.
        examples: some of the data, which says what special tokens there are and whether there are pairs.
        reads: "last" adds that site: the output is computed from the last token.
        seed: the random seed for the draws.

    Attributes:
        names: the names of the picks; the further draws of "tokens" follow it directly, under the same name.
        pooled: a description of the sampled token.
    """

    def __init__(self, chosen: Sequence[str], examples: Sequence[EncodedInput], reads: str | None, seed: int) -> None:
        self.seed = seed
        ordinary = (
            f"one token drawn at random from the tokens of an input that are not special (probe: {DRAWS} of them)"
        )
        picks = [("tokens", ordinary)] * DRAWS + [("first", "the first token of an input")]
        if reads == "last":
            picks.append(("last", "the last token of an input"))
        self.positions = range(1, POSITIONS) if "positions" in chosen else range(0)
        picks += [(f"position {p}", f"token {p} of an input, counted from 0") for p in self.positions]
        self.special: list[str] = []
        self.texts: list[int] = []
        if "types" in chosen:
            marked = [pair for e in examples for pair in zip(e.tokens or (), e.special or ())]
            self.special = sorted({token for token, special in marked if special})
            self.texts = sorted({s for e in examples for s in e.sequence_ids or () if s in (0, 1)})
        picks += [(f"type {t}", f"one {t} of an input, drawn at random") for t in self.special]
        picks += [
            (f"type {TEXTS[s]}", f"one token of {TEXTS[s]} that is not special, drawn at random") for s in self.texts
        ]
        self.ranks = RANKS if "attention" in chosen else 0
        where = "by attention received in the layer that made the state, mean over heads and queries"
        picks += [
            (f"attention rank {k}", f"the token ranked {k} of those that are not special, {where}")
            for k in range(1, self.ranks + 1)
        ]
        self.names = [name for name, _ in picks]
        self.pooled = [words for _, words in picks]

    def places(self, example: EncodedInput, number: int) -> list[int]:
        """The position of each pick but those by attention, -1 if the input has none."""
        length = int(example.length or 0)
        special = example.special or (False,) * length
        ordinary = [i for i in range(length) if not special[i]]
        shuffled = random.Random(f"{self.seed} tokens {number}").sample(ordinary, len(ordinary))
        places = [shuffled[draw % len(ordinary)] if ordinary else -1 for draw in range(DRAWS)] + [0]
        places += [length - 1] * ("last" in self.names)
        places += [p if p < length else -1 for p in self.positions]
        tokens = example.tokens or ("",) * length
        for sign in self.special:
            candidates = [i for i in range(length) if special[i] and tokens[i] == sign]
            places.append(self._draw(candidates, number, sign))
        for text in self.texts:
            candidates = [i for i in ordinary if example.sequence_ids is not None and example.sequence_ids[i] == text]
            places.append(self._draw(candidates, number, TEXTS[text]))
        return places

    def ranked(self, example: EncodedInput, received: Tensor | None) -> list[int]:
        """The positions of the picks by attention, -1 if there are fewer tokens or no attention (embeddings).

        Args:
            example: the input.
            received: (tokens,) attention received in the layer that made the state.
        """
        if received is None:
            return [-1] * self.ranks
        weights = received.tolist()
        ordinary = [i for i in range(len(weights)) if not (example.special and example.special[i])]
        order = sorted(ordinary, key=lambda i: (-weights[i], i))[: self.ranks]
        return order + [-1] * (self.ranks - len(order))

    def _draw(self, places: list[int], number: int, what: str) -> int:
        return random.Random(f"{self.seed} {what} {number}").choice(places) if places else -1


def read_sites(sites: Any) -> tuple[str, ...]:
    """The names of the requested sites.

    Raises:
        InvalidInputError: an unknown name, or no names.

    Example:
        >>> read_sites("positions")
        ('positions',)
    """
    chosen = (sites,) if isinstance(sites, str) else sites
    if not isinstance(chosen, (list, tuple)) or not chosen or not all(name in SITES for name in chosen):
        raise InvalidInputError(f"sites must be one or several of {', '.join(SITES)}; not {shown(sites)}.")
    return tuple(chosen)
