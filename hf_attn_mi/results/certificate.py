"""The certificate: how the output changed when new rows replaced a model's attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.document import Block, Facts, Paragraph, Table, Tone
from hf_attn_mi.results.outcome import DOES_NOT_HOLD, HOLDS, NOTHING_TO_CERTIFY, Outcome
from hf_attn_mi.results.plots.certificates import draw_changes, draw_support
from hf_attn_mi.results.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESIDUAL = 1e-6  # largest relative residual of an exact row
SUM = 1e-6  # largest error of a row's sum
FORMS = {
    "efficient": "efficient attention (a distribution over few keys, each of which is needed)",
    "effective": "effective attention (the part of the weights that has an effect on the head outputs)",
    "effective_affine": "effective attention with rows that sum to one",
}


@dataclass(frozen=True)
class OutputChange:
    """How the output of one run differs from the output of the unchanged model.

    Attributes:
        largest: largest absolute change of an entry of the output.
        relative: the same divided by the largest absolute entry of the output.
        probability: change of the probability of the target; None if it has none.
        value: change of the explained value (class logit minus the mean of the others, or the caller's function).
        kept: whether the predicted class stayed; None if the output is not a class.
    """

    largest: float
    relative: float
    probability: float | None
    value: float | None
    kept: bool | None


@dataclass(frozen=True)
class LayerCertificate:
    """The new rows of one attention module. Rows without any allowed key are not counted.

    Attributes:
        layer: index in its stack.
        name: module name.
        heads: heads of the module.
        rows: attention rows, over all heads.
        changed: rows that differ from the model's; the others are determined by their output (n <= rank) or a vertex.
        keys: largest number of keys that a row could attend to.
        support_mean, support_max: keys with weight in a new row.
        dropped: share of all (row, allowed key) pairs that have no weight.
        relative_change: mean over rows of ||new row - attention|| / ||attention||.
        residual: largest ||new row V - o|| / ||o||; with a tolerance, divided by ||o - mean v|| as the tolerance is.
        sum_error: largest |sum of the new row - sum of the model's own|; the latter is one for a softmax.
        own_sum_error: largest |sum of the model's own row - 1|.
        smallest_weight: smallest weight that is not zero, negative where a row is not a distribution.
        unproved: rows whose optimality the solver did not prove (they are sufficient all the same); with a tolerance,
            rows that do not meet it.
        checked: rows whose necessity was computed.
        necessity: smallest distance, relative to ||o||, by which such a row misses its output without one of its keys;
            None if no row was checked.
    """

    layer: int
    name: str
    heads: int
    rows: int
    changed: int
    keys: int
    support_mean: float
    support_max: int
    dropped: float
    relative_change: float
    residual: float
    sum_error: float
    own_sum_error: float
    smallest_weight: float
    unproved: int = 0
    checked: int = 0
    necessity: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Certificate(Record):
    """How one input's output changes when new rows replace attention. `outcome` follows from the numbers.

    `to_pandas` has a row for each attention module.

    Attributes:
        form: "efficient", "effective" or "effective_affine".
        tolerance: the tolerance of the efficient rows; 0 is exact.
        output: what was compared: "logits", "start_logits, end_logits", "last_hidden_state", ...
        scale: largest absolute entry of the output of the unchanged model.
        rounding: the largest relative change that arithmetic in the model's precision is allowed.
        tokens: length of the input; None for images and audio.
        texts: the original texts, () if the input was tensors.
        target, target_name, probability: the explained class as in `Explanation`; None, "", None without one.
        change: how the new rows change the output.
        layers: one record for each attention module that was replaced.
        checked: rows in the sample whose necessity was computed.
        checked_keys: kept keys of these rows.
        necessity: smallest distance, relative to ||o||, over these rows and keys, from what the new row gives (o up to
            the residual or tolerance); inf where each row has a single key; None for forms that promise no necessity.
        necessity_median: median over these rows of each row's smallest.
        controls: changes of the output by other rows: "null-space noise" and "visible noise" of the norm of
            (new - attention) in each row, "uniform", "permuted". None if there is nothing to add noise to.
        notes: remarks about this model and input.
        info: how it was computed, JSON-like.

    Example:
        >>> no_change = OutputChange(0.0, 0.0, 0.0, 0.0, True)
        >>> layer = LayerCertificate(0, "0", 1, 2, 2, 4, 2.0, 2, 0.5, 0.7, 1e-16, 0.0, 0.0, 0.1)
        >>> certificate = Certificate(
        ...     "efficient", 0.0, "logits", 1.0, 1e-3, 4, ("a b",), 1, "good", 0.9, no_change, (layer,)
        ... )
        >>> certificate.outcome, Certificate.from_dict(certificate.to_dict()) == certificate
        ('holds', True)
    """

    TYPE: ClassVar[str] = "hf_attn_mi.Certificate"
    NOUN: ClassVar[str] = "certificate"
    IGNORED: ClassVar[frozenset[str]] = frozenset({"outcome", "holds", "reasons"})

    form: str
    tolerance: float
    output: str
    scale: float
    rounding: float
    tokens: int | None
    texts: tuple[str, ...]
    target: int | None
    target_name: str
    probability: float | None
    change: OutputChange
    layers: tuple[LayerCertificate, ...]
    checked: int = 0
    checked_keys: int = 0
    necessity: float | None = None
    necessity_median: float | None = None
    controls: Mapping[str, OutputChange | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the certificate does not hold, one sentence each; () if there is no reason."""
        return tuple(_failures(self))

    @property
    def outcome(self) -> Outcome:
        """The outcome of the certificate.

        "holds": the new rows give the same prediction and output, and are what their form promises. "does not hold":
        one of these fails, and `reasons` says which. "nothing to certify": no row of any layer changed (n <= rank), so
        that the new rows are the model's own.
        """
        if self.reasons:
            return DOES_NOT_HOLD
        return HOLDS if self._total("changed") else NOTHING_TO_CERTIFY

    @property
    def holds(self) -> bool:
        """Whether `outcome` is "holds"."""
        return self.outcome == HOLDS

    def _check(self) -> None:
        if not self.layers:
            raise InvalidInputError("layers is empty: a certificate is about one attention module or more")
        if (self.necessity is None) != (self.necessity_median is None):
            raise InvalidInputError("necessity and necessity_median must be numbers, or both None")

    def _computed(self) -> dict[str, Any]:
        return {"outcome": self.outcome, "holds": self.holds, "reasons": list(self.reasons)}

    def _plots(self) -> dict[str, Callable[[Axes | None], Figure]]:
        return {"changes": lambda ax: draw_changes(self, ax), "support": lambda ax: draw_support(self, ax)}

    def _columns(self) -> dict[str, list[Any]]:
        return {item.name: [getattr(layer, item.name) for layer in self.layers] for item in fields(LayerCertificate)}

    def _summary(self) -> dict[str, object]:
        return {
            "form": self.form,
            "outcome": self.outcome,
            "relative": float(f"{self.change.relative:.1e}"),
            "kept": self.change.kept,
            "layers": len(self.layers),
        }

    def _blocks(self) -> list[Block]:
        what = FORMS.get(self.form, self.form) + (
            f" within a tolerance of {self.tolerance:g}" if self.tolerance else ""
        )
        opening = (
            f"In {len({layer.name for layer in self.layers})} attention modules ({self._total('heads')} heads), {what} "
            f"replaced the model's attention: {self._total('changed')} of {self._total('rows')} rows changed."
        )
        sentences = [opening, self._output_sentence()]
        if self.outcome != "nothing to certify":  # else they would be about the rows of the model itself
            sentences.append(self._sufficiency_sentence())
            sentences += [self._necessity_sentence()] if self.necessity is not None else []
        blocks: list[Block] = [*self._outcome_blocks(), *map(Paragraph, sentences)]
        if self.controls:
            blocks.append(Facts(["Controls, which replace the same rows:", *map(self._control, self.controls)]))
        blocks += [Paragraph(f"Note: {note}") for note in self.notes]
        rows = [
            [layer.name, *map(str, (layer.rows, layer.changed)), f"{layer.support_mean:.1f}", f"{layer.residual:.1e}"]
            for layer in self.layers
        ]
        header = ("module", "rows", "changed", "keys with weight (mean)", "residual")
        return [*blocks, Table(header, rows, title="Attention modules", folded=True)]

    def _outcome_blocks(self) -> Iterator[Block]:
        words: dict[Outcome, tuple[Tone, str]] = {
            "holds": ("good", "The certificate HOLDS."),
            "does not hold": ("bad", "The certificate does NOT hold:"),
            "nothing to certify": ("neutral", "Nothing to certify: no row could change, n <= rank in every layer."),
        }
        tone, sentence = words[self.outcome]
        yield Paragraph(sentence, tone)
        if self.reasons:
            yield Facts([f"  - {reason}" for reason in self.reasons])

    def _output_sentence(self) -> str:
        kept = {True: "The prediction is kept", False: "The prediction CHANGED", None: "There is no class to keep"}
        prediction = kept[self.change.kept]
        if self.target_name:
            probability = "" if self.probability is None else f", {self.probability:.4g}"
            prediction += f" ({self.target_name}{probability})"
        change = (
            f"the {self.output} move by at most {self.change.largest:.1e}, {self.change.relative:.1e} of their size"
        )
        if self.change.probability is not None:
            change += f", the probability by {abs(self.change.probability):.1e}"
        return f"{prediction}; {change}."

    def _sufficiency_sentence(self) -> str:
        layers, rows = self.layers, max(1, self._total("rows"))
        mean = sum(layer.support_mean * layer.rows for layer in layers) / rows
        dropped = sum(layer.dropped * layer.rows for layer in layers) / rows
        against = "the output's size" if self.tolerance == 0 else "the output's distance from the mean value"
        sums = "" if self.form == "effective" else f", row sums to {self._largest('sum_error'):.1e}"
        return (
            f"Every row reaches its head's output to {self._largest('residual'):.1e} of {against}{sums}, with "
            f"{mean:.1f} keys on average and {max(layer.support_max for layer in layers)} at most of up to "
            f"{max(layer.keys for layer in layers)}; {dropped:.0%} of the keys have no weight. The smallest weight is "
            f"{min(layer.smallest_weight for layer in layers):.1e}."
        )

    def _necessity_sentence(self) -> str:
        rows = self._total("rows")
        which = "all" if self.checked == rows else f"a random sample of {self.checked}"
        if self.checked == 0:
            return "No row was checked for necessity."
        return (
            f"Necessity, {which} of {rows} rows, {self.checked_keys} kept keys: without any one of them its row misses "
            f"the output by at least {self.necessity:.1e} of its size (median over rows: {self.necessity_median:.1e})."
        )

    def _control(self, name: str) -> str:
        change = self.controls[name]
        if change is None:
            return f"  {name:<16} nothing to add: no row changed"
        kept = {True: ", prediction kept", False: ", prediction changed", None: ""}[change.kept]
        probability = "" if change.probability is None else f", probability {change.probability:+.3f}"
        return f"  {name:<16} moves the {self.output} by {change.relative:.1e}{probability}{kept}"

    def _largest(self, name: str) -> float:
        return float(max(getattr(layer, name) for layer in self.layers))

    def _total(self, name: str) -> int:
        return int(sum(getattr(layer, name) for layer in self.layers))


def _failures(certificate: Certificate) -> Iterator[str]:
    """Why a certificate does not hold, one sentence each; every comparison is written so that NaN fails."""
    change, layers, exact = certificate.change, certificate.layers, certificate.tolerance == 0
    if change.kept is False:
        yield "The prediction changed."
    if exact and not change.relative <= certificate.rounding:
        yield (
            f"The {certificate.output} changed by {change.relative:.1e} of their size, more than the "
            f"{certificate.rounding:.0e} that rounding explains."
        )
    limit = RESIDUAL if exact else certificate.tolerance + RESIDUAL
    if not all(layer.residual <= limit for layer in layers):
        yield f"A row misses its head's output by {certificate._largest('residual'):.1e}, more than {limit:g}."
    if certificate.form != "effective" and not all(layer.sum_error <= SUM for layer in layers):
        yield f"The sum of a row is off by {certificate._largest('sum_error'):.1e}, more than {SUM:.0e}."
    if certificate.form == "efficient" and not all(layer.smallest_weight >= 0 for layer in layers):
        yield f"A weight is negative ({min(layer.smallest_weight for layer in layers):.1e})."
    if certificate.form == "efficient" and certificate.necessity is not None and not certificate.necessity > 0:
        yield "A kept key can be left out: without it the output of its row is still reached."
