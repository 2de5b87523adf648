"""The frozen certificate: what happened when new rows took the place of a model's attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.results.certificate_text import certificate_words, failures
from hf_attn_mi.results.record import decode, encode, freeze, load_record, reading, same_fields, write_json

__all__ = ["Certificate", "LayerCertificate", "OutputChange"]

SCHEMA = 1
_KIND = "hf_attn_mi.Certificate"


@dataclass(frozen=True)
class OutputChange:
    """How the output of one run differs from the output of the model as it is.

    Attributes:
        largest: largest absolute change of an entry of the output.
        relative: the same divided by the largest absolute entry of the output.
        probability: change of the probability of the target; None where it has none.
        value: change of the explained value (class logit minus the mean of the others, or the caller's function).
        kept: whether the predicted class stayed; None where the output is no class.
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
        rows: attention rows that were looked at, over all heads.
        changed: rows that came out different; the others are determined by their output (n <= rank) or a vertex.
        keys: most keys a row could see.
        support_mean, support_max: keys with weight in a new row.
        dropped: share of all (row, allowed key) pairs that have no weight.
        difference: mean over rows of ||new row - attention|| / ||attention||.
        residual: largest ||new row V - o|| / ||o||; with a tolerance, divided by ||o - mean v|| as the tolerance is.
        sum_error: largest |sum of the new row - sum of the model's own|; the latter is one for a softmax.
        own_sum_error: largest |sum of the model's own row - 1|.
        smallest_weight: smallest weight that is not zero, negative where a row is no distribution.
        unproved: rows whose optimality the solver did not prove (they are sufficient all the same); with a tolerance,
            rows that do not meet it.
        checked: rows whose necessity was computed.
        necessity: smallest distance, relative to ||o||, by which such a row misses its output without one of its keys;
            None where no row was checked.
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
    difference: float
    residual: float
    sum_error: float
    own_sum_error: float
    smallest_weight: float
    unproved: int = 0
    checked: int = 0
    necessity: float | None = None


@dataclass(frozen=True, eq=False)
class Certificate:
    """What one input's output says when new rows take the place of attention. Frozen; `holds` is read off the numbers.

    Attributes:
        form: "efficient", "effective" or "effective_affine".
        tolerance: of the efficient rows; 0 is exact.
        output: what was compared: "logits", "start_logits, end_logits", "last_hidden_state", ...
        scale: largest absolute entry of the output of the model as it is.
        rounding: the largest relative change that arithmetic in the model's precision is allowed.
        tokens: length of the input; None for images and audio.
        texts: the original texts, () where the input was tensors.
        target, target_name, probability: of the explained class as in `Explanation`; None, "" and None without one.
        change: of the output by the new rows.
        layers: one record for each attention module that was replaced.
        checked: rows in the sample whose necessity was computed.
        checked_keys: kept keys of these rows.
        necessity: smallest distance, relative to ||o||, over these rows and keys, from what the new row gives (o up to
            the residual or tolerance); inf where each row has a single key; None for forms that promise no necessity.
        necessity_median: median over these rows of each row's smallest.
        controls: what other rows do: "null-space noise" and "visible noise" of the norm of (new - attention) in each
            row, "uniform", "permuted". None where there is nothing to add noise to.
        notes: what a reader has to know about this model and input.
        info: how it was made, JSON-like.

    Example:
        >>> still = OutputChange(0.0, 0.0, 0.0, 0.0, True)
        >>> layer = LayerCertificate(0, "0", 1, 2, 2, 4, 2.0, 2, 0.5, 0.7, 1e-16, 0.0, 0.0, 0.1)
        >>> made = Certificate("efficient", 0.0, "logits", 1.0, 1e-3, 4, ("a b",), 1, "good", 0.9, still, (layer,))
        >>> made.holds, Certificate.from_dict(made.to_dict()) == made
        (True, True)
    """

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

    def __post_init__(self) -> None:
        for name, kind in (("change", OutputChange), ("layers", LayerCertificate)):
            value = getattr(self, name)
            if not all(isinstance(item, kind) for item in (value if name == "layers" else (value,))):
                raise InvalidInputError(f"{name} must hold {kind.__name__}")
        for name in ("texts", "layers", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.layers:
            raise InvalidInputError("layers is empty: a certificate speaks of one attention module or more")
        object.__setattr__(self, "controls", dict(self.controls))
        object.__setattr__(self, "info", freeze(self.info, "info"))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the certificate does not hold, one sentence each; () where it holds."""
        return failures(self)

    @property
    def holds(self) -> bool:
        """Whether the new rows give the same prediction and output, and are what their form promises."""
        return not self.reasons

    def to_words(self) -> str:
        """Return plain sentences that say what was done, what was found, and whether the certificate holds."""
        return certificate_words(self)

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON data (no NaN) from which `from_dict` makes an equal certificate."""
        data: dict[str, Any] = {item.name: encode(getattr(self, item.name)) for item in fields(self)}
        data["change"] = encode(vars(self.change))
        data["layers"] = [encode(vars(layer)) for layer in self.layers]
        data["controls"] = {key: None if one is None else encode(vars(one)) for key, one in self.controls.items()}
        return {"kind": _KIND, "schema": SCHEMA, "holds": self.holds, "reasons": list(self.reasons), **data}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Certificate:
        """Return the certificate `to_dict` was called on. What `data` says of `holds` is not read but found anew.

        Raises:
            InvalidInputError: where `data` was not made by `to_dict`, or by another schema.
        """
        with reading(data, "certificate", kind=_KIND, schema=SCHEMA):
            values = {item.name: decode(data[item.name]) for item in fields(cls)}
            values["change"] = OutputChange(**values["change"])
            values["layers"] = tuple(LayerCertificate(**layer) for layer in values["layers"])
            values["controls"] = {
                key: None if one is None else OutputChange(**one) for key, one in values["controls"].items()
            }
            made = cls(**values)
            made.to_words()  # numbers where numbers are needed
        return made

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one .json or .json.gz file, whole or not at all; makes no folder.

        Raises:
            InvalidInputError: for another suffix, a missing folder, or an existing file without `overwrite=True`.
        """
        write_json(self.to_dict(), Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Certificate:
        """Return the certificate saved at `path`.

        Raises:
            InvalidInputError: where the file is no saved certificate, or of another schema.
            OSError: where the file cannot be read.
        """
        return load_record(Path(path), cls.from_dict)

    def __str__(self) -> str:
        return self.to_words()

    def __repr__(self) -> str:
        return (
            f"Certificate(form={self.form!r}, holds={self.holds}, relative={self.change.relative:.1e}, "
            f"kept={self.change.kept}, layers={len(self.layers)})"
        )

    def __eq__(self, other: object) -> bool:
        return same_fields(self, other) if isinstance(other, Certificate) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only mapping cannot be pickled or deep-copied; the plain form is lossless and can.
        return type(self).from_dict, (self.to_dict(),)
