"""`certify`: does the prediction stand when other rows with the same head outputs take the place of attention?"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi._version import library_versions
from hf_attn_mi.capture import AttentionCall, capture_attention, model_lock, module_checks
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.batching import stack
from hf_attn_mi.models.encode import read_inputs
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.loading import device_of, evaluation_mode, model_and_tokenizer, name_of
from hf_attn_mi.models.targets import read_targets
from hf_attn_mi.results.certificate import Certificate, OutputChange
from hf_attn_mi.tasks.output_change import RunOutput, change, compared_output
from hf_attn_mi.tasks.row_replacement import CONTROLS, Replacement, control

FORMS = ("efficient", "effective", "effective_affine")
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}  # relative change of the output that arithmetic may make
ROUNDING_REDUCED = 5e-2  # half precision keeps three digits
_OWN_SUM = 1e-3


def certify(
    model: Any,
    inputs: Any,
    *,
    tokenizer: Any = None,
    layers: list[int] | None = None,
    form: str = "efficient",
    tolerance: float = 0.0,
    target: Any = None,
    rows: int | None = 64,
    seed: int = 0,
) -> Certificate | list[Certificate]:
    """Runs the model with new attention rows in every layer and certifies what changes.

    Layer by layer the rows are computed from that layer's own attention, which already follows from the new rows
    below it. Definitions and limits: docs/methods/certificates.md. The model is left exactly as it was, and inputs are
    processed one by one, without padding.

    Args:
        model: as in `explain`; encoders without a head are welcome, then the last hidden state is compared.
        inputs: as in `explain`, images and audio too.
        tokenizer: as in `explain`.
        layers: layer indices (of each stack, in encoder-decoders), None for all.
        form: "efficient" (a distribution over few keys, none of them dispensable), "effective" or "effective_affine"
            (projections of the row on what the output can see).
        tolerance: of efficient rows: 0 for the same output, else in (0, 1) as in `efficient_attention`.
        target: as in `explain`: the class whose probability is followed, or a function of the outputs.
        rows: how many rows, drawn at random over layers and heads, are checked for necessity; None for all.
        seed: of that sample, the noise and the permutations.

    Returns:
        One `Certificate` for one input, a list for a list. `holds` says whether it holds, `to_words()` what it says.

    Raises:
        InvalidInputError: an argument is wrong; the message names it.
        UnsupportedModelError: the attention of this model cannot be captured exactly.

    Example:
        >>> certificate = certify(model, "A quietly moving film.")     # doctest: +SKIP
        >>> certificate.holds                                          # doctest: +SKIP
        True
    """
    _check(form, tolerance, layers, rows, seed)
    inner, tokenizer = model_and_tokenizer(model, tokenizer)
    options = _Options(form, float(tolerance), None if layers is None else frozenset(layers), rows, seed)
    results = []
    with torch.inference_mode(False), torch.no_grad():
        examples, tokenizer, single = read_inputs(inputs, inner, tokenizer, False)
        wanted = read_targets(target, inner, len(examples))
        for i, example in enumerate(examples):
            with model_lock(inner), evaluation_mode(inner):
                results.append(_certify(inner, example, wanted if callable(wanted) else wanted[i], options))
    return results[0] if single else results


@dataclass(frozen=True)
class _Options:
    form: str
    tolerance: float
    layers: frozenset[int] | None
    rows: int | None
    seed: int


def _check(form: Any, tolerance: Any, layers: Any, rows: Any, seed: Any) -> None:
    if form not in FORMS:
        raise InvalidInputError(f"form {form!r} is not known; allowed are {', '.join(FORMS)}.")
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not number or not 0 <= tolerance < 1:
        raise InvalidInputError(f"tolerance must be 0 (exact) or a number between 0 and 1, not {tolerance!r}.")
    if tolerance > 0 and form != "efficient":
        raise InvalidInputError(f"tolerance is {tolerance}: form {form!r} is exact and has none; use form='efficient'.")
    wanted = isinstance(layers, list | tuple | range) and len(layers) > 0 and all(type(i) is int for i in layers)
    if layers is not None and not wanted:
        raise InvalidInputError(f"layers must be None (all) or a list of one or more whole numbers, not {layers!r}.")
    if rows is not None and (type(rows) is not int or rows < 1):
        raise InvalidInputError(f"rows must be None (all) or a whole number of 1 or more, not {rows!r}.")
    if type(seed) is not int:
        raise InvalidInputError(f"seed must be a whole number, not {seed!r}.")


def _certify(model: nn.Module, example: EncodedInput, wanted: Any, options: _Options) -> Certificate:
    started = time.perf_counter()
    batch: dict[str, Any] = dict(stack([example], 0, device_of(model)))
    if getattr(getattr(model, "config", None), "return_dict", True) is False:
        batch["return_dict"] = True
    calls: list[tuple[int, int, int]] = []  # index, layer, rows

    def count(call: AttentionCall) -> None:
        calls.append((call.index, call.layer, call.output.shape[:3].numel()))

    def run(around: AbstractContextManager[Any], aim: Any, seed: int = options.seed) -> RunOutput:
        # Layers that draw at random in evaluation, too, draw the same in every run.
        devices = [device_of(model)] if device_of(model).type == "cuda" else []
        with torch.random.fork_rng(devices), around:
            torch.manual_seed(seed)
            return compared_output(model(**batch), aim, model)

    def replaced(rows: Callable[[AttentionCall], Tensor | None], aim: Any) -> RunOutput:
        return run(capture_attention(model, _ignore, replace=rows), aim)

    own = run(capture_attention(model, count), wanted)
    aim = wanted if callable(wanted) else own.target
    again = run(nullcontext(), aim, options.seed + 1)
    new = Replacement(options.form, options.tolerance, _sample(calls, options))
    change_made = change(own, replaced(new, aim), model)
    sums = options.form != "effective"
    controls: dict[str, OutputChange | None] = {}
    for name in CONTROLS:
        if "noise" in name and not any(bool((norm > 0).any()) for norm in new.norms.values()):
            controls[name] = None
        else:
            other = control(name, new.norms, sums, options.seed)  # the same draws in each
            controls[name] = change(own, replaced(other, aim), model)
    checked = torch.cat([*new.smallest, torch.zeros(0, dtype=torch.float64)])
    necessary = options.form == "efficient" and len(checked) > 0
    return Certificate(
        form=options.form,
        tolerance=options.tolerance,
        output=own.name,
        scale=own.scale,
        rounding=ROUNDING.get(own.precision, ROUNDING_REDUCED),
        tokens=example.length,
        texts=example.texts,
        target=own.target,
        target_name=own.target_name,
        probability=own.probability,
        change=change_made,
        layers=tuple(new.layers),
        checked=len(checked),
        checked_keys=new.checked_keys,
        necessity=float(checked.min()) if necessary else None,
        necessity_median=float(checked.median()) if necessary else None,
        controls=controls,
        notes=_notes(model, example, new, own, change(own, again, model).largest, options),
        info=_provenance(model, own, options, time.perf_counter() - started),
    )


def _sample(calls: list[tuple[int, int, int]], options: _Options) -> dict[int, Tensor]:
    """The rows to check for necessity in each call that is to be replaced."""
    available = {layer for _, layer, _ in calls}
    missing = sorted((options.layers or frozenset()) - available)
    if missing:
        raise InvalidInputError(f"layers {missing} are not there; this model has layers {sorted(available)}.")
    mine = [(index, rows) for index, layer, rows in calls if options.layers is None or layer in options.layers]
    total = sum(rows for _, rows in mine)
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(options.seed))[: options.rows]
    chosen, start = {}, 0
    for index, rows in mine:
        chosen[index] = (drawn[(drawn >= start) & (drawn < start + rows)] - start).sort().values
        start += rows
    return chosen


def _ignore(call: AttentionCall) -> None:
    """Watch the pass for its checks only."""


def _notes(
    model: nn.Module, example: EncodedInput, new: Replacement, own: RunOutput, wobble: float, options: _Options
) -> tuple[str, ...]:
    """What a reader has to know about this model and input."""
    notes = list(example.warnings)
    layers = new.layers
    if options.layers is not None:
        notes.append(f"Only layers {sorted(options.layers)} were replaced.")
    if not any(layer.changed for layer in layers):
        notes.append(
            f"There was nothing to replace: with at most {max(layer.keys for layer in layers)} keys every row is the "
            "only one that gives its output (n <= rank), so the new rows are the model's own."
        )
    if wobble > 0:
        notes.append(
            f"The model draws at random in evaluation: its own {own.name} differ by up to {wobble:.1e} from run to "
            "run. Every run here used the same draws."
        )
    own_sums = max(layer.own_sum_error for layer in layers)
    if own_sums > _OWN_SUM:
        notes.append(
            f"Rows of the model's own attention do not sum to one (off by {own_sums:.1e}: attention sinks, dropout or "
            "half precision); the new rows have the same sums."
        )
    used = {layer.name for layer in layers}
    checks = {name: check for name, check in module_checks(model).items() if name in used}
    bent = sorted({check.ended_by for check in checks.values() if check.ended_by})
    if bent:
        notes.append(
            f"Between the heads and the output projection stands {', '.join(bent)}, so there is no linear W_O. The "
            "heads' outputs are the same all the same, and with them what follows."
        )
    for name, check in checks.items():
        if check.deficient:
            heads = ", ".join(map(str, check.deficient))
            notes.append(f"{name}: W_O of heads {heads} has not full rank; fewer keys than the kept ones could do.")
    unproved = sum(layer.unproved for layer in layers)
    if unproved:
        lacks = "miss the tolerance" if options.tolerance else "were not proved to keep most of the model's attention"
        notes.append(f"{unproved} rows {lacks}.")
    smallest = min((float(part.min()) for part in new.smallest if len(part)), default=torch.inf)
    floor = float(torch.finfo(own.precision).eps)
    if options.tolerance == 0:
        floor = max(floor, *(layer.residual for layer in layers))
    if 0 < smallest < floor:
        notes.append(
            f"Not firm: the smallest miss of a row without one of its keys ({smallest:.1e}) is below {floor:.1e}, the "
            "precision of the model or the residual; such keys have almost no weight."
        )
    return tuple(notes)


def _provenance(model: nn.Module, own: RunOutput, options: _Options, seconds: float) -> dict[str, Any]:
    config = getattr(model, "config", None)
    return {
        "model": name_of(model),
        "model_type": getattr(config, "model_type", type(model).__name__),
        "reference": "our operationalization of arXiv 2410.18541"
        if options.form == "efficient"
        else "arXiv 1908.04211, arXiv 2105.08855",
        "rows": options.rows,
        "seed": options.seed,
        "seconds": seconds,
        "attention_implementation": str(getattr(config, "_attn_implementation", "")),
        "dtype": str(own.precision).removeprefix("torch."),
        "versions": library_versions(),
    }
