"""The information profile of a model: information of each site with intervals, and the probes for new inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi import MutualInformation, Probe
from hf_attn_mi.results.document import Block, Paragraph, Table
from hf_attn_mi.results.plots.information import plot_information
from hf_attn_mi.results.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOUNDS = ("lower_bound", "upper_bound")  # shown before every estimate
REACHED = 0.95  # required share of the ceiling, for the state that the output is read from


@dataclass(frozen=True)
class Site:
    """A group of states that information is computed for: one state from each of `n` inputs."""

    layer: int  # 0: the embeddings; i: the output of layer i
    stack: str  # name of the module whose layers these are, "" for the model itself
    name: str  # "first", "tokens", "position 3", "attention rank 2", "type [SEP]" ...
    pooled: str  # in words: which token of an input
    n: int


@dataclass(frozen=True, eq=False, repr=False)
class InformationProfile(Record):
    """Mutual information of each site with the model's output, and the probes that score the tokens of new inputs.

    `save` writes a folder with profile.json and profile.safetensors. `to_pandas` has a row for each site.

    Attributes:
        sites: layer by layer.
        information: nats, intervals and p-values in the order of `sites`. Sites that not every input has are
            estimated from those that have them (`Site.n`) and their family-wise p-values are Bonferroni's over such
            groups; `n` and `ceiling` are those of all inputs.
        probe: fitted to all inputs, one probe a site; that of "tokens" to several tokens of each input.
        halves: the same fitted to two disjoint random halves of the inputs, for the split-half reliability; () where
            the halves are too small.
        labels: names of the classes.
        fingerprint: SHA-256 of the model's "config" and "weights".
        info: how it was computed: model, estimator, seed, texts read, kept and left out, memory, versions, seconds,
            `reads` (the token whose last state the output is computed from: "first", "last" or None), `last_layer`,
            warnings.

    Example:
        >>> profile = fit_information(model, texts)            # doctest: +SKIP
        >>> profile.save("profile")                            # doctest: +SKIP
        >>> InformationProfile.load("profile").table()[1]      # doctest: +SKIP
    """

    TYPE: ClassVar[str] = "hf_attn_mi.InformationProfile"
    NOUN: ClassVar[str] = "information profile"
    FOLDER: ClassVar[str] = "profile"

    sites: tuple[Site, ...]
    information: MutualInformation
    probe: Probe
    halves: tuple[Probe, ...]
    labels: tuple[str, ...]
    fingerprint: Mapping[str, str]
    info: Mapping[str, Any] = field(default_factory=dict)

    def _check(self) -> None:
        count = len(self.sites)
        lengths = {
            "information": len(self.information.lower_bound),
            "probe": len(self.probe.offsets),
            **{f"halves[{i}]": len(half.offsets) for i, half in enumerate(self.halves)},
        }
        for name, length in lengths.items():
            if length != count:
                raise InvalidInputError(f"{name} has {length} sites, sites has {count}; one for each is needed")
        for name, tensor, shape in self._shapes():
            if tuple(tensor.shape) != shape:
                raise InvalidInputError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")

    def _shapes(self) -> Iterator[tuple[str, torch.Tensor, tuple[int, ...]]]:
        """Each tensor with its required shape."""
        count, classes = len(self.sites), len(self.labels)
        for name in (*BOUNDS, "lower_bound_normal", "nats", "p_value", "family_p_value", "null_mean"):
            yield f"information.{name}", getattr(self.information, name), (count,)
        yield "information.interval", self.information.interval, (count, 2)
        for name, probe in (("probe", self.probe), *((f"halves[{i}]", half) for i, half in enumerate(self.halves))):
            width = probe.directions.shape[-1] if probe.directions.dim() else 0
            yield f"{name}.directions", probe.directions, (count, classes, width)
            yield f"{name}.offsets", probe.offsets, (count, classes)
            yield f"{name}.prior", probe.prior, (classes,)

    @property
    def n(self) -> int:
        """Number of inputs that it was fitted to."""
        return self.information.n

    @property
    def ceiling(self) -> float:
        """I(input; output) in nats, exact for these inputs: no site has more."""
        return float(self.information.ceiling or 0.0)

    @property
    def prior(self) -> torch.Tensor:
        """(K,) mean output of the model."""
        return self.probe.prior

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers of the profile, in order."""
        return tuple(dict.fromkeys(site.layer for site in self.sites))

    def find(self, layer: int, name: str) -> int:
        """The index of a site in `sites`.

        Raises:
            InvalidInputError: no site has this layer and name; the message lists all sites.
        """
        for place, site in enumerate(self.sites):
            if (site.layer, site.name) == (layer, name):
                return place
        names = list(dict.fromkeys(site.name for site in self.sites))
        raise InvalidInputError(
            f"no site {name!r} of layer {layer}: there are layers {list(self.layers)}, sites {names}"
        )

    def table(self) -> list[list[str]]:
        """Return rows of strings: a header, then a row for each layer with "lower to upper, estimate, p" for each site.

        The bounds hold for any distribution; the estimate has its interval. The p-value is the family-wise one.
        A cell is "-" where the layer has no such site.
        """
        names = list(dict.fromkeys(site.name for site in self.sites))
        cells = {(site.layer, site.name): self._cell(place) for place, site in enumerate(self.sites)}
        rows = [[str(layer), *(cells.get((layer, name), "-") for name in names)] for layer in self.layers]
        return [["layer", *names], *rows]

    def warnings(self) -> list[str]:
        """Return what limits the bounds and estimates, of each kind the first one, with the number of the others.

        `information.warnings` has all of them.
        """
        alike: dict[str, list[str]] = {}
        for text in dict.fromkeys((*self.info.get("warnings", ()), *self.information.warnings)):
            alike.setdefault(re.sub(r"^layer \d+, [^:]*: |\d+(\.\d+)?", "", text), []).append(text)
        return [
            first + (f" (and {len(others)} more of this kind)" if others else "") for first, *others in alike.values()
        ]

    def ceiling_check(self) -> dict[str, Any]:
        """Return whether the state that the output is computed from reaches the ceiling, as it must.

        Returns:
            "site" and "layer"; its "lower_bound", "upper_bound" and "nats"; the "share" of "nats" in the "ceiling" with
            its "interval", the share of the lower bound ("proved"), and "reached" (a share of at least "required" =
            0.95). All but "ceiling" and "required" are None if the output is not read from one token, or where the
            profile lacks the last layer.
        """
        names = ("site", "layer", *BOUNDS, "nats", "share", "interval", "proved", "reached")
        check: dict[str, Any] = dict.fromkeys(names)
        check |= {"ceiling": self.ceiling, "required": REACHED}
        name, last = self.info.get("reads"), self.info.get("last_layer")
        if name is None or not self.ceiling > 0 or (last, name) not in {(s.layer, s.name) for s in self.sites}:
            return check
        place = self.find(int(str(last)), str(name))
        share, low, high = (
            float(x) / self.ceiling for x in (self.information.nats[place], *self.information.interval[place])
        )
        check |= {key: float(getattr(self.information, key)[place]) for key in (*BOUNDS, "nats")}
        check |= {"site": name, "layer": last, "share": share, "interval": [low, high], "reached": share >= REACHED}
        return check | {"proved": check["lower_bound"] / self.ceiling}

    def _plots(self) -> dict[str, Callable[[Axes | None], Figure]]:
        return {"layers": lambda ax: plot_information(self, ax=ax)}

    def _columns(self) -> dict[str, list[Any]]:
        names = (*BOUNDS, "nats", "p_value", "family_p_value", "null_mean")
        low, high = self.information.interval.unbind(-1)
        return {
            **{name: [getattr(site, name) for site in self.sites] for name in ("layer", "stack", "name", "n")},
            **{name: getattr(self.information, name).tolist() for name in names},
            **{"low": low.tolist(), "high": high.tolist()},
        }

    def _summary(self) -> dict[str, object]:
        return {
            "model": self.info.get("model"),
            "n": self.n,
            "layers": list(self.layers),
            "sites": list(dict.fromkeys(site.name for site in self.sites)),
            "ceiling": float(f"{self.ceiling:.4g}"),
        }

    def _blocks(self) -> list[Block]:
        header, *rows = self.table()
        entropy = -float(torch.special.xlogy(self.prior.double(), self.prior.double()).sum())
        return [
            Paragraph(f"Mutual information with the output of {self.info.get('model')}, nats, from {self.n} inputs"),
            Paragraph(
                f"ceiling {self.ceiling:.4f} nats ({self.ceiling / math.log(2):.4f} bits) of H(Y) = {entropy:.4f}"
            ),
            Paragraph(
                "Each cell: lower bound to upper bound, valid for independent inputs of any distribution (97.5 % "
                "each); then the estimate [its 95 % interval] and the family-wise p-value."
            ),
            Table(header, rows),
            *(Paragraph(f"warning: {text}") for text in self.warnings()),
        ]

    def _cell(self, place: int) -> str:
        information = self.information
        low, high = information.interval[place].tolist()
        p_value = float(information.family_p_value[place])
        lower, upper = float(information.lower_bound[place]), float(information.upper_bound[place])
        estimate = f"{float(information.nats[place]):.3f} [{low:.3f}, {high:.3f}] p = {p_value:.2g}"
        return f"{lower:.3f} to {upper:.3f}; {estimate}"
