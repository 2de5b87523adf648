"""The comparison of several methods on the same inputs: numbers, tests, recommendation, tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import METRICS, Estimate, PairedTest, RankMatrix, estimate, paired_tests
from hf_attn_mi.results import comparison_verdict as verdict
from hf_attn_mi.results.document import Block, Cell, ColorDepth, Facts, Paragraph, Table, markdown_text, terminal_text
from hf_attn_mi.results.plots.comparison import draw_agreement, plot_comparison
from hf_attn_mi.results.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BOLD = (
    "Bold: the best mean of a column, and every method it is not shown to beat (p < 0.05 after Holm's correction). "
    "Brackets: 95 % intervals over inputs. Passes are sequences, mean over inputs."
)


@dataclass(frozen=True)
class MethodCost:
    """The cost of the scores of one input, mean over the inputs; the prediction of its class is not counted.

    Attributes:
        seconds: wall-clock time.
        forwards: sequences that went through the model, not calls of it.
        backwards: sequences through which a gradient was propagated.
    """

    seconds: float
    forwards: float
    backwards: float

    @property
    def passes(self) -> float:
        """Forward and backward sequences together."""
        return self.forwards + self.backwards


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Record):
    """How well the token scores of several methods agree with what the model uses, on the same inputs.

    `to_pandas` has a row for each method and metric.

    Attributes:
        methods: those with results, in the requested order; scores passed by the caller last.
        metrics: names of `hf_attn_mi.evaluation.METRICS`; the first one decides.
        inputs: number of inputs.
        table: for each method and metric the mean over inputs with its 95 % interval.
        tests: for each metric every pair of methods on the inputs where both have a value: mean difference, Wilcoxon's
            test, p after Holm's correction over the pairs of this metric.
        agreement: mean rank correlation (tau-b) of the scores of each pair of methods, special tokens left out.
        costs: the cost of each method that was run; scores passed by the caller have none.
        failures: why a method has no results, or has results on some inputs only.
        values: for each method and metric one number per input, None if undefined.
        info: how it was computed, JSON-like.

    Raises:
        InvalidInputError: methods, metrics and numbers of inputs that do not fit together; or `info` is not JSON-like.

    Example:
        >>> values = {"a": {"comprehensiveness": (0.5, 0.7)}, "b": {"comprehensiveness": (0.1, 0.2)}}
        >>> comparison = Comparison.from_values(values, ("comprehensiveness",), RankMatrix((), ()))
        >>> round(comparison.table["a"]["comprehensiveness"].mean, 6)
        0.6
        >>> Comparison.from_dict(comparison.to_dict()) == comparison
        True
    """

    TYPE: ClassVar[str] = "hf_attn_mi.Comparison"
    NOUN: ClassVar[str] = "comparison"
    # data: where the texts come from, written by the command line
    IGNORED: ClassVar[frozenset[str]] = frozenset({"recommended", "recommendation", "data"})

    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    inputs: int
    table: Mapping[str, Mapping[str, Estimate]]
    tests: Mapping[str, tuple[PairedTest, ...]]
    agreement: RankMatrix
    costs: Mapping[str, MethodCost] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, tuple[float | None, ...]]] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_values(
        cls,
        values: Mapping[str, Mapping[str, Sequence[float | None]]],
        metrics: Sequence[str],
        agreement: RankMatrix,
        *,
        costs: Mapping[str, MethodCost] | None = None,
        failures: Mapping[str, str] | None = None,
        info: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Comparison:
        """Return the comparison of these numbers; means, intervals and paired tests are computed here.

        Args:
            values: for each method and metric one number per input, None if undefined.
            metrics: the names of the metrics; the first one decides.
            agreement: the agreement of the scores.
            costs, failures, info: those of the comparison.
            seed: the random seed for the bootstrap.

        Raises:
            InvalidInputError: numbers of inputs that differ, or values that are not finite.

        Example:
            >>> comparison = Comparison.from_values({"a": {"auprc": (0.5, None)}}, ("auprc",), RankMatrix((), ()))
            >>> comparison.inputs, comparison.table["a"]["auprc"]
            (2, Estimate(mean=0.5, interval=None, inputs=1))
        """
        columns = {method: {name: tuple(row[name]) for name in metrics} for method, row in values.items()}
        lengths = {len(column) for row in columns.values() for column in row.values()}
        return cls(
            methods=tuple(columns),
            metrics=tuple(metrics),
            inputs=max(lengths, default=0),
            table={m: {name: estimate(x, seed=seed) for name, x in row.items()} for m, row in columns.items()},
            tests={name: paired_tests({m: row[name] for m, row in columns.items()}, seed=seed) for name in metrics},
            agreement=agreement,
            costs=costs or {},
            failures=failures or {},
            values=columns,
            info=info or {},
        )

    @property
    def target_name(self) -> str:
        """The name of the target that was explained; "" for the prediction of each input."""
        return str(self.info.get("target", ""))

    @property
    def deciding(self) -> str:
        """The metric that was chosen beforehand to decide."""
        return self.metrics[0]

    @property
    def recommended(self) -> str | None:
        """The cheapest of the methods that none is shown to beat; None if nothing is shown to beat chance."""
        return verdict.judged(self).recommended

    @property
    def recommendation(self) -> str:
        """Which method to take for these inputs, how sure that is, and what it costs, in sentences."""
        return verdict.recommendation(self)

    def to_text(self, *, color: ColorDepth | None = None) -> str:
        """Return the main table, failures and notes, then the recommendation; `color` as in `Record`."""
        blocks = [self._main_table(short=True), Paragraph(""), *self._remarks("note")]
        blocks += [Paragraph("")] * bool(blocks[2:]) + [Paragraph(self.recommendation, wrapped=True)]
        return terminal_text(blocks, color)

    def to_markdown(self) -> str:
        """Return the recommendation and all tables in Markdown."""
        blocks = [block for block in self._blocks() if not (isinstance(block, Table) and block.title == _ORIGIN)]
        return markdown_text([Paragraph(f"Recommendation. {self.recommendation}"), *blocks[1:]])

    def _plots(self) -> dict[str, Callable[[Axes | None], Figure]]:
        return {"metrics": lambda ax: plot_comparison(self, ax=ax), "agreement": lambda ax: draw_agreement(self, ax)}

    def _check(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise InvalidInputError(f"metrics {unknown or '()'}: allowed are names of METRICS: {', '.join(METRICS)}.")
        for name in ("table", "values"):
            rows = getattr(self, name)
            if set(rows) != set(self.methods) or any(set(row) != set(self.metrics) for row in rows.values()):
                raise InvalidInputError(f"{name} must hold every metric {self.metrics} of every method {self.methods}.")
        if set(self.tests) != set(self.metrics):
            raise InvalidInputError(f"tests must hold every metric {self.metrics}, not {tuple(self.tests)}.")
        for method, row in self.values.items():
            if wrong := {metric: len(column) for metric, column in row.items() if len(column) != self.inputs}:
                raise InvalidInputError(f"values[{method!r}] has {wrong} numbers for {self.inputs} inputs.")
        tests = [test for column in self.tests.values() for test in column]
        if strangers := {name for test in tests for name in (test.first, test.second)} - set(self.methods):
            raise InvalidInputError(f"tests name {sorted(strangers)}, which are not among the methods {self.methods}.")
        estimates = [x for row in self.table.values() for x in row.values()] + [test.difference for test in tests]
        if wrong_counts := [x.inputs for x in estimates if not 0 <= x.inputs <= self.inputs]:
            raise InvalidInputError(f"table and tests count {wrong_counts[0]} inputs of {self.inputs}.")
        if len(self.agreement.tau) != len(self.agreement.methods) or any(
            len(row) != len(self.agreement.methods) for row in self.agreement.tau
        ):
            raise InvalidInputError("agreement must hold one entry for each pair of its methods.")

    def _computed(self) -> dict[str, Any]:
        return {"recommended": self.recommended, "recommendation": self.recommendation}

    def _summary(self) -> dict[str, object]:
        return {
            "methods": list(self.methods),
            "metrics": list(self.metrics),
            "inputs": self.inputs,
            "recommended": self.recommended,
            "failures": list(self.failures),
        }

    def _title(self) -> str:
        model = self.info.get("model")
        return f"{self.inputs} inputs" + (f", {model}" if model else "") + ": which explanation to trust"

    def _columns(self) -> dict[str, list[Any]]:
        pairs = [(method, metric) for method in self.methods for metric in self.metrics]
        estimates = [self.table[method][metric] for method, metric in pairs]
        costs = [self.costs.get(method) for method, _ in pairs]
        return {
            "method": [method for method, _ in pairs],
            "metric": [metric for _, metric in pairs],
            "mean": [x.mean for x in estimates],
            "low": [None if x.interval is None else x.interval[0] for x in estimates],
            "high": [None if x.interval is None else x.interval[1] for x in estimates],
            "inputs": [x.inputs for x in estimates],
            **{name: [getattr(x, name, None) for x in costs] for name in ("seconds", "forwards", "backwards")},
        }

    def _blocks(self) -> list[Block]:
        blocks = [
            Paragraph(self.recommendation),
            self._main_table(),
            Paragraph(_BOLD, small=True),
            *self._remarks("Note"),
        ]
        header = ("pair", "first is better by", "p", "p adjusted", "inputs")
        for metric in self.metrics:
            if rows := [_difference(test, metric) for test in self.tests[metric]]:
                blocks.append(Table(header, rows, title=f"Pairs of methods: {METRICS[metric].title}", folded=True))
        names = self.agreement.methods
        if names:
            rows = [[name, *(verdict.number(x.mean) for x in row)] for name, row in zip(names, self.agreement.tau)]
            blocks.append(Table(("", *names), rows, title="Rank correlation of the scores (tau-b)", folded=True))
        facts = [[name, str(value)] for name, value in self.info.items() if isinstance(value, str | int | float)]
        return blocks + [Table(("", ""), facts, title=_ORIGIN, folded=True)] * bool(facts)

    def _remarks(self, noun: str) -> list[Block]:
        lines = [f"target: {self.target_name}"] if self.target_name else []
        lines += [f"failed: {name}: {reason}" for name, reason in self.failures.items()]
        lines += [f"{noun}: {note}" for note in self.info.get("warnings", ())]
        return [Facts(lines)] if lines else []

    def _main_table(self, *, short: bool = False) -> Table:
        """A row for each method: its mean and interval in each metric, and its cost."""
        better = "" if short else " is better"
        metrics = [f"{name} ({'higher' if METRICS[name].higher else 'lower'}{better})" for name in self.metrics]
        leading = {name: set(verdict.leaders(self, name)) for name in self.metrics}
        rows: list[list[str | Cell]] = []
        for method in self.methods:
            cells: list[str | Cell] = [method]
            for name in self.metrics:
                mean = self.table[method][name]
                text = verdict.with_interval(mean) + (f" (n={mean.inputs})" if mean.inputs != self.inputs else "")
                cells.append(Cell(text, method in leading[name], self._interval(method, name)))
            cost = self.costs.get(method)
            numbers = ["-"] * 3
            if cost is not None:
                numbers = [f"{cost.seconds:.2g}", verdict.times(cost.forwards), verdict.times(cost.backwards)]
            rows.append([*cells, *numbers])
        return Table(("method", *metrics, "seconds", "forwards", "backwards"), rows)

    def _interval(self, method: str, metric: str) -> tuple[float, float, float] | None:
        """Low end, mean and high end on the scale of all intervals of the metric, which goes from 0 to 1."""
        ends = [end for name in self.methods for end in _ends(self.table[name][metric])]
        if not (interval := _ends(self.table[method][metric])):
            return None
        low, middle, high = ((end - min(ends)) / ((max(ends) - min(ends)) or 1) for end in interval)
        return low, middle, high


_ORIGIN = "How it was computed"


def _ends(mean: Estimate) -> list[float]:
    if mean.mean is None:
        return []
    low, high = mean.interval or (mean.mean, mean.mean)
    return [low, mean.mean, high]


def _difference(test: PairedTest, metric: str) -> list[str]:
    """A row of the table: the pair, by how much the first is better, p, adjusted p, number of inputs."""
    mean, interval = verdict.gain(test, metric, test.first)
    better = f"{verdict.number(mean)}{verdict.bracket(interval)}"
    p_values = (verdict.small(test.p_value), verdict.small(test.adjusted))
    return [f"{test.first} - {test.second}", better, *p_values, str(test.difference.inputs)]
