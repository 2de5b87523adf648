"""What a certificate says in words, and why it does not hold. Knows the names of its fields and nothing else."""

from __future__ import annotations

from typing import Any

RESIDUAL = 1e-6  # largest relative residual of an exact row
SUM = 1e-6  # largest error of a row's sum
FORMS = {
    "efficient": "efficient attention, a distribution over few keys of which none can go",
    "effective": "effective attention, the part of the weights that the head outputs can see",
    "effective_affine": "effective attention with rows that sum to one",
}


def failures(made: Any) -> tuple[str, ...]:
    """Return why a certificate does not hold, one sentence each; every comparison is written so that NaN fails."""
    layers, found = made.layers, []
    if made.change.kept is False:
        found.append("The prediction changed.")
    if made.tolerance == 0 and not made.change.relative <= made.rounding:
        found.append(
            f"The {made.output} changed by {made.change.relative:.1e} of their size, more than the {made.rounding:.0e} "
            "that rounding may do."
        )
    limit = RESIDUAL if made.tolerance == 0 else made.tolerance + RESIDUAL
    if not all(layer.residual <= limit for layer in layers):
        found.append(f"A row misses its head's output by {_largest(layers, 'residual'):.1e}, more than {limit:g}.")
    if made.form != "effective" and not all(layer.sum_error <= SUM for layer in layers):
        found.append(f"The sum of a row is off by {_largest(layers, 'sum_error'):.1e}, more than {SUM:.0e}.")
    smallest = min(layer.smallest_weight for layer in layers)
    if made.form == "efficient" and not all(layer.smallest_weight >= 0 for layer in layers):
        found.append(f"A weight is negative ({smallest:.1e}).")
    if made.form == "efficient" and made.necessity is not None and not made.necessity > 0:
        found.append("A kept key can go: without it the output of its row is still reached.")
    return tuple(found)


def certificate_words(made: Any) -> str:
    """Return the sentences of a certificate, a paragraph for each part."""
    what = FORMS.get(made.form, made.form) + (f" within a tolerance of {made.tolerance:g}" if made.tolerance else "")
    names = {layer.name for layer in made.layers}
    rows, changed = _total(made.layers, "rows"), _total(made.layers, "changed")
    opening = (
        f"In {len(names)} attention modules ({_total(made.layers, 'heads')} heads), {what}, took the place of the "
        f"model's attention: {changed} of {rows} rows changed."
    )
    parts = [_verdict(made), opening, _output(made), _sufficient(made)]
    parts += [_necessary(made)] if made.necessity is not None else []
    if made.controls:
        parts.append("Controls, each in the same places:\n" + "\n".join(_control(made, name) for name in made.controls))
    parts += [f"Note: {note}" for note in made.notes]
    return "\n".join(parts)


def _verdict(made: Any) -> str:
    if made.holds:
        return "The certificate HOLDS."
    return "The certificate does NOT hold:\n" + "\n".join(f"  - {reason}" for reason in made.reasons)


def _output(made: Any) -> str:
    change = made.change
    verdicts = {True: "The prediction is kept", False: "The prediction CHANGED", None: "There is no class to keep"}
    kept = verdicts[change.kept]
    if made.target_name:
        kept += f" ({made.target_name}" + ("" if made.probability is None else f", {made.probability:.4g}") + ")"
    moved = f"the {made.output} move by at most {change.largest:.1e}, {change.relative:.1e} of their size"
    chance = "" if change.probability is None else f", the probability by {abs(change.probability):.1e}"
    return f"{kept}; {moved}{chance}."


def _sufficient(made: Any) -> str:
    layers = made.layers
    rows = max(1, _total(layers, "rows"))
    mean = sum(layer.support_mean * layer.rows for layer in layers) / rows
    dropped = sum(layer.dropped * layer.rows for layer in layers) / rows
    against = "the output's size" if made.tolerance == 0 else "the output's distance from the mean value"
    sums = "" if made.form == "effective" else f", row sums to {_largest(layers, 'sum_error'):.1e}"
    return (
        f"Every row reaches its head's output to {_largest(layers, 'residual'):.1e} of {against}{sums}, with "
        f"{mean:.1f} keys on average and {max(layer.support_max for layer in layers)} at most of up to "
        f"{max(layer.keys for layer in layers)}; {dropped:.0%} of the keys have no weight. The smallest weight is "
        f"{min(layer.smallest_weight for layer in layers):.1e}."
    )


def _necessary(made: Any) -> str:
    rows = sum(layer.rows for layer in made.layers)
    which = "all" if made.checked == rows else f"a random sample of {made.checked}"
    if made.checked == 0:
        return "No row was checked for necessity."
    return (
        f"Necessity, {which} of {rows} rows, {made.checked_keys} kept keys: without any one of them its row misses the "
        f"output by at least {made.necessity:.1e} of its size (median over rows: {made.necessity_median:.1e})."
    )


def _control(made: Any, name: str) -> str:
    change = made.controls[name]
    if change is None:
        return f"  {name:<16} nothing to add: no row changed"
    kept = {True: "prediction kept", False: "prediction changed", None: ""}[change.kept]
    chance = "" if change.probability is None else f", probability {change.probability:+.3f}"
    return f"  {name:<16} moves the {made.output} by {change.relative:.1e}{chance}" + (f", {kept}" if kept else "")


def _largest(layers: Any, name: str) -> float:
    return float(max(getattr(layer, name) for layer in layers))


def _total(layers: Any, name: str) -> int:
    return int(sum(getattr(layer, name) for layer in layers))
