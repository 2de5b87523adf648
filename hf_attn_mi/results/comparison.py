"""The frozen comparison and its parts; knows nothing of models and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.evaluation import METRICS, Estimate, PairedTest, RankMatrix, estimate, paired_tests
from hf_attn_mi.results import comparison_html as page
from hf_attn_mi.results import comparison_tables as tables
from hf_attn_mi.results import comparison_verdict as verdict
from hf_attn_mi.results.record import decode, encode, freeze, load_record, reading, same_fields, write_json

SCHEMA = 1
_KIND = "hf_attn_mi.Comparison"


@dataclass(frozen=True)
class MethodCost:
    """What the scores of one input cost, mean over the inputs; the prediction of its class is not counted.

    Attributes:
        seconds: wall-clock time.
        forwards: sequences that went through the model, not calls of it.
        backwards: sequences through which a gradient came back.
    """

    seconds: float
    forwards: float
    backwards: float

    @property
    def passes(self) -> float:
        """Forward and backward sequences together."""
        return self.forwards + self.backwards


@dataclass(frozen=True, eq=False)
class Comparison:
    """How well the token scores of several methods say what the model reads, on the same inputs.

    Attributes:
        methods: those with results, in the order asked for; scores from outside last.
        metrics: names of `hf_attn_mi.evaluation.METRICS`; the first one decides.
        inputs: number of inputs.
        table: for each method and metric the mean over inputs with its 95 % interval.
        tests: for each metric every pair of methods on the inputs where both have a value: mean difference, Wilcoxon's
            test, p after Holm's correction over the pairs of this metric.
        agreement: mean rank correlation (tau-b) of the scores of each two methods, special tokens left out.
        costs: of each method that was run here; scores from outside have none.
        failures: why a method has no results, or not on all inputs.
        values: for each method and metric one number an input, None where undefined.
        info: how it was made, JSON-like.

    Raises:
        InvalidInputError: methods, metrics and numbers of inputs that do not fit together; or `info` is not JSON-like.

    Example:
        >>> values = {"a": {"comprehensiveness": (0.5, 0.7)}, "b": {"comprehensiveness": (0.1, 0.2)}}
        >>> made = Comparison.from_values(values, ("comprehensiveness",), RankMatrix((), ()))
        >>> round(made.table["a"]["comprehensiveness"].mean, 6), Comparison.from_dict(made.to_dict()) == made
        (0.6, True)
    """

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

    def __post_init__(self) -> None:
        for name in ("methods", "metrics"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("table", "values", "tests", "costs", "failures"):
            object.__setattr__(self, name, _read_only(getattr(self, name), name))
        object.__setattr__(self, "info", freeze(self.info, "info"))
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise InvalidInputError(f"metrics {unknown or '()'}: names of METRICS are wanted: {', '.join(METRICS)}.")
        for name in ("table", "values"):
            rows = getattr(self, name)
            if set(rows) != set(self.methods) or any(set(row) != set(self.metrics) for row in rows.values()):
                raise InvalidInputError(f"{name} must hold every metric {self.metrics} of every method {self.methods}.")
        if set(self.tests) != set(self.metrics):
            raise InvalidInputError(f"tests must hold every metric {self.metrics}, not {tuple(self.tests)}.")
        for method, row in self.values.items():
            if wrong := {metric: len(column) for metric, column in row.items() if len(column) != self.inputs}:
                raise InvalidInputError(f"values[{method!r}] has {wrong} numbers for {self.inputs} inputs.")

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
        """Return the comparison of these numbers: means, intervals and paired tests are made here.

        Args:
            values: for each method and metric one number an input, None where undefined.
            metrics: which of them, the one that decides first.
            agreement: of the scores.
            costs, failures, info: of the comparison.
            seed: of the bootstrap.

        Raises:
            InvalidInputError: numbers of inputs that differ, or values that are not finite.

        Example:
            >>> made = Comparison.from_values({"a": {"auprc": (0.5, None)}}, ("auprc",), RankMatrix((), ()))
            >>> made.inputs, made.table["a"]["auprc"]
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
    def deciding(self) -> str:
        """The metric that was chosen beforehand to decide."""
        return self.metrics[0]

    @property
    def recommended(self) -> str | None:
        """The cheapest of the methods that none is shown to beat; None where nothing is shown to beat chance."""
        return verdict.judged(self).recommended

    @property
    def recommendation(self) -> str:
        """Which method to take for these inputs, how sure that is, and what it costs, in sentences."""
        return verdict.recommendation(self)

    def to_markdown(self) -> str:
        """Return the recommendation and all tables in Markdown."""
        return tables.markdown(self)

    def to_html(self) -> str:
        """Return one self-contained page: nothing is loaded and no script runs."""
        return page.html(self)

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON data (no NaN) from which `from_dict` makes an equal comparison."""
        plain = ("methods", "metrics", "inputs", "failures", "values", "info")
        data: dict[str, Any] = {name: encode(getattr(self, name)) for name in plain}
        data["table"] = {m: {name: encode(asdict(x)) for name, x in row.items()} for m, row in self.table.items()}
        data["tests"] = {name: [encode(asdict(test)) for test in tests] for name, tests in self.tests.items()}
        data["agreement"] = encode(asdict(self.agreement))
        data["costs"] = {method: encode(asdict(cost)) for method, cost in self.costs.items()}
        told = {"recommended": self.recommended, "recommendation": self.recommendation}
        return {"kind": _KIND, "schema": SCHEMA, **told, **data}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        """Return the comparison `to_dict` was called on; its recommendation is not read but found anew.

        Raises:
            InvalidInputError: where `data` was not made by `to_dict`, or by another schema.
        """
        with reading(data, "comparison", kind=_KIND, schema=SCHEMA):
            values = {item.name: decode(data[item.name]) for item in fields(cls)}
            values["table"] = {
                m: {name: Estimate(**x) for name, x in row.items()} for m, row in values["table"].items()
            }
            values["tests"] = {name: tuple(map(_test, tests)) for name, tests in values["tests"].items()}
            matrix = values["agreement"]
            rows = tuple(tuple(Estimate(**cell) for cell in row) for row in matrix["tau"])
            values["agreement"] = RankMatrix(matrix["methods"], rows)
            values["costs"] = {method: MethodCost(**cost) for method, cost in values["costs"].items()}
            made = cls(**values)
            made.to_markdown()  # numbers where numbers are needed
        return made

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one .json or .json.gz file, whole or not at all; makes no folder.

        Raises:
            InvalidInputError: for another suffix, a missing folder, or an existing file without `overwrite=True`.
        """
        write_json(self.to_dict(), Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Return the comparison saved at `path`.

        Raises:
            InvalidInputError: where the file is no saved comparison, or of another schema.
            OSError: where the file cannot be read.
        """
        return load_record(Path(path), cls.from_dict)

    def __str__(self) -> str:
        return tables.terminal(self)

    def __repr__(self) -> str:
        return (
            f"Comparison(methods={list(self.methods)}, metrics={list(self.metrics)}, inputs={self.inputs}, "
            f"recommended={self.recommended!r}, failures={list(self.failures)})"
        )

    def __eq__(self, other: object) -> bool:
        return same_fields(self, other) if isinstance(other, Comparison) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only mapping cannot be pickled or deep-copied; the plain form is lossless and can.
        return type(self).from_dict, (self.to_dict(),)


def _read_only(value: Any, name: str) -> Any:
    """Mappings within mappings, none of which can be changed; their values are frozen already."""
    if not isinstance(value, Mapping):
        return tuple(value) if isinstance(value, list) else value
    for key in value:
        if not isinstance(key, str):
            raise InvalidInputError(f"{name}: key {key!r} must be a string.")
    return MappingProxyType({key: _read_only(item, name) for key, item in value.items()})


def _test(data: Mapping[str, Any]) -> PairedTest:
    return PairedTest(**{**data, "difference": Estimate(**data["difference"])})
