"""The result of `mutual_information`: bounds, estimates, and how they are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hf_attn_mi.mi.plots import plot_sites

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class MutualInformation:
    """Information between the states of each site and the output, in nats: bounds, and an estimate with its error.

    The bounds hold whatever the distribution is; the estimate assumes more and is usually nearer to the truth.
    Tensors are float64 of shape (sites,), or () for states (n, d). An estimate is signed: where there is no information
    it scatters around zero, so that it may be slightly negative.

    Attributes:
        lower_bound: each site has at least this much, with 97.5 % confidence for any number of examples; 0 says that
            nothing was proved. See `hf_attn_mi.mi.bounds.site_bounds`, and for continuous outputs
            `hf_attn_mi.mi.continuous_bounds.vector_bounds`.
        upper_bound: no site has more, with 97.5 % confidence: the information between input and output with its error,
            where no class can occur but those of the examples. NaN for continuous outputs, of which none is known.
        lower_bound_normal: the lower bound by the normal approximation: shorter, and approximate.
        nats: the estimate, never above the ceiling; that of "auto" never below the lower bound.
        interval: (sites, 2) or (2,): lower and upper end of the 95 % interval of the estimate, by a jackknife over
            folds: how much it would move with other examples. docs/methods/mutual_information.md says how often it
            covers the truth.
        p_value: the p-value of each site alone, from permuted outputs.
        family_p_value: family-wise over all sites: the same permutations in each, largest statistic of all.
        null_mean: mean estimate on permuted outputs, over up to eight sites: reported, not subtracted.
        ceiling: I(input; output) of these examples in nats, for integer classes their entropy: no estimate is larger.
            Exact for these examples; `upper_bound` holds for their distribution. None for continuous outputs.
        n: examples.
        estimator: its name.
        parts: for each site the part of the estimator that the estimate rests on; "lower bound" where it was raised to
            the lower bound.
        predictors: for each site the predictor with the largest weight in its lower bound; "" where there is none.
        effort: the effort spent on the predictors.
        warnings: what limits the bounds and estimates; "site 3: ..." or a name of `names` says where.
        names: a name for each site; () for "site 0", "site 1" ...
    """

    lower_bound: Tensor
    upper_bound: Tensor
    lower_bound_normal: Tensor
    nats: Tensor
    interval: Tensor
    p_value: Tensor
    family_p_value: Tensor
    null_mean: Tensor
    ceiling: float | None
    n: int
    estimator: str
    parts: tuple[str, ...]
    predictors: tuple[str, ...]
    effort: str
    warnings: tuple[str, ...]
    names: tuple[str, ...] = ()

    @property
    def bits(self) -> Tensor:
        """The estimate in bits."""
        return self.nats / math.log(2)

    @property
    def share(self) -> Tensor | None:
        """The estimate over the ceiling; None without a ceiling, NaN where it is zero."""
        return None if self.ceiling is None else self.nats / (self.ceiling if self.ceiling > 0 else math.nan)

    def plot(
        self, path: str | Path | None = None, *, names: Sequence[str] | None = None, ax: Axes | None = None
    ) -> Figure:
        """Return a matplotlib figure: for each site the estimate with its interval, between the bounds.

        Args:
            path: where to write it; the suffix names the format (.png, .svg, .pdf).
            names: a name for each site; None for those of the result.
            ax: matplotlib Axes to draw in; None for those of a new figure.

        Raises:
            BackendUnavailableError: matplotlib is not installed (extra `plots`).
            InvalidInputError: names that do not fit, `ax` that is no Axes, or a path that cannot be written.
        """
        return plot_sites(self, path, self.names or None if names is None else names, ax)

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each site: bounds, estimate, interval, p-values, part and predictor."""
        import pandas as pd

        names = ("lower_bound", "upper_bound", "nats", "p_value", "family_p_value", "null_mean")
        columns: dict[str, Any] = {name: getattr(self, name).reshape(-1).tolist() for name in names}
        low, high = self.interval.reshape(-1, 2).unbind(-1)
        columns |= {"low": low.tolist(), "high": high.tolist(), "part": self.parts, "predictor": self.predictors}
        return pd.DataFrame(columns)

    def to_text(self) -> str:
        """Return lines for a terminal: what is guaranteed, then what is estimated, for each site; then the warnings.

        Example:
            >>> import torch
            >>> from hf_attn_mi import mutual_information
            >>> classes = torch.arange(400) % 2
            >>> states = classes[:, None] + torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
            >>> print(mutual_information(states, classes, estimator="gaussian"))
            Mutual information in nats, 400 examples, estimator gaussian, ceiling 0.6931
            Bounds hold for independent examples of any distribution (97.5 % each); an estimate has its 95 % interval.
            0.083 to 0.693; estimate 0.258 [0.207, 0.309], p = 0.005, family-wise p = 0.005
        """
        promise = "Bounds hold for independent examples of any distribution (97.5 % each)"
        lines = [self._title(), f"{promise}; an estimate has its 95 % interval."]
        table = self.to_pandas()
        for site, row in enumerate(table.itertuples()):
            bounds = f"{row.lower_bound:.3f} to {row.upper_bound:.3f}"
            if math.isnan(row.upper_bound):
                bounds = f"at least {row.lower_bound:.3f}"
            name = f"{self._names[site]}: " if len(table) > 1 else ""
            lines.append(
                f"{name}{bounds}; estimate {row.nats:.3f} [{row.low:.3f}, {row.high:.3f}], p = {row.p_value:.2g}, "
                f"family-wise p = {row.family_p_value:.2g}"
            )
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])

    def __str__(self) -> str:
        return self.to_text()

    @property
    def _names(self) -> list[str]:
        return list(self.names) or [f"site {site}" for site in range(len(self.parts))]

    def _title(self) -> str:
        ceiling = "" if self.ceiling is None else f", ceiling {self.ceiling:.4f}"
        return f"Mutual information in nats, {self.n} examples, estimator {self.estimator}{ceiling}"

    def _repr_html_(self) -> str:
        opening = (
            f"<p>{escape(self._title())}. lower_bound and upper_bound hold for independent examples of any "
            "distribution (97.5 % each); nats is the estimate, low to high its 95 % interval.</p>"
        )
        closing = "".join(f"<p>warning: {escape(text)}</p>" for text in self.warnings)
        table = self.to_pandas()
        if self.names:
            table.index = list(self.names)
        return opening + str(table.to_html(float_format=lambda x: f"{x:.4g}")) + closing

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, `share` and `bits` as numbers, strings and lists, for JSON."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values |= {"share": self.share, "bits": self.bits}
        plain = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}
        lists = {name: list(getattr(self, name)) for name in ("parts", "predictors", "warnings", "names")}
        return plain | lists
