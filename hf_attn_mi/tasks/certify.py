"""`certify`: does the prediction stand when other rows with the same head outputs take the place of attention?"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_attn_mi.capture import AttentionCall, capture_attention, module_checks
from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.dual_encoders import tower_of
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import Target
from hf_attn_mi.results.certificate import Certificate, OutputChange
from hf_attn_mi.results.results import Results
from hf_attn_mi.tasks.arguments import (
    check_choice,
    check_indices,
    check_seed,
    check_whole_number,
)
from hf_attn_mi.tasks.each_input import bind_targets, check_input_options, read_inputs, result_of_each
from hf_attn_mi.tasks.output_change import RunOutput, output_change, read_output
from hf_attn_mi.tasks.row_replacement import CONTROLS, RowReplacement, control
from hf_attn_mi.tasks.several_targets import refuse_target_and_targets, results_of_targets

FORMS = ("efficient", "effective", "effective_affine")
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}  # relative change of the output that arithmetic may make
ROUNDING_REDUCED = 5e-2  # half precision keeps three digits
ROW_SUM_TOLERANCE = 1e-3  # a note mentions rows whose sum differs from one by more


def certify(
    model: Any,
    inputs: Any,
    *,
    target: Any = None,
    targets: Any = None,
    form: str = "efficient",
    tolerance: float = 0.0,
    layers: list[int] | None = None,
    checked_rows: int | None = 64,
    tokenizer: Any = None,
    processor: Any = None,
    sampling_rate: int | None = None,
    truncation: bool = False,
    is_split_into_words: bool = False,
    errors: str = "raise",
    seed: int = 0,
) -> Certificate | Results[Certificate]:
    """Run the model with new attention rows in every layer and certify what changes.

    Layer by layer the rows are computed from that layer's own attention, which already follows from the new rows
    below it. Definitions and limits: docs/methods/certificates.md. The model is left exactly as it was, and inputs are
    processed one by one, without padding.

    Args:
        model: as in `explain`; encoders without a head are supported: then the last hidden state is compared.
        inputs: as in `explain`, images and audio too.
        target: as in `explain`: the class whose probability is followed, or a function of the outputs.
        targets: several targets of each input, instead of `target`: a list, or "all", as in `explain`. The results are
            in the order of the inputs, and for each input in that of its targets.
        layers: layer indices (of each stack, in encoder-decoders), None for all.
        form: "efficient" (a distribution over few keys, none of them dispensable), "effective" or "effective_affine"
            (projections of the row on what the output can see).
        tolerance: the tolerance of efficient rows: 0 for the same output, else in (0, 1) as in `efficient_attention`.
        checked_rows: how many rows, drawn at random over layers and heads, are checked for necessity; None for all.
        tokenizer, processor, sampling_rate, truncation, is_split_into_words, errors: as in `explain`.
        seed: the random seed for that sample, the noise and the permutations.

    Returns:
        One `Certificate` for one input, `Results` of them for a list. `outcome` says whether it holds.

    Raises:
        InvalidInputError: an argument is wrong; the message names it.
        UnsupportedModelError: the attention of this model cannot be captured exactly.
        KeyboardInterrupt: Ctrl-C; its `results` are those of the inputs that were finished.

    Example:
        >>> certificate = certify(model, "A quietly moving film.")     # doctest: +SKIP
        >>> certificate.holds                                          # doctest: +SKIP
        True
    """
    _check(form, tolerance, layers, checked_rows, seed)
    check_input_options(errors, truncation, is_split_into_words)
    refuse_target_and_targets(target, targets)
    runner = EncoderRunner.of(model, tokenizer, processor=processor, sampling_rate=sampling_rate)
    runner = tower_of(runner, inputs, target, targets)
    options = _Options(form, float(tolerance), None if layers is None else frozenset(layers), checked_rows, seed)
    with torch.inference_mode(False), torch.no_grad():
        encoded = read_inputs(
            runner, inputs, errors=errors, truncation=truncation, is_split_into_words=is_split_into_words
        )
        if targets is not None:

            def run_one(one: EncodedInput, chosen: Target, place: int) -> Certificate:
                with runner.session():
                    return _certify(runner, one, chosen, options)

            return results_of_targets(targets, runner, encoded, run_one, errors=errors, task="certify")
        bound, encoded = bind_targets(target, runner, encoded, errors=errors)

        def run(positions: list[int]) -> list[Certificate]:
            with runner.session():
                return [_certify(runner, encoded.inputs[i], bound.select([i]), options) for i in positions]

        return result_of_each(encoded, [[i] for i in range(len(encoded.inputs))], run, errors=errors, task="certify")


@dataclass(frozen=True)
class _Options:
    form: str
    tolerance: float
    layers: frozenset[int] | None
    checked_rows: int | None
    seed: int


def _check(form: object, tolerance: object, layers: object, checked_rows: object, seed: object) -> None:
    check_choice("form", form, FORMS)
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not isinstance(tolerance, int | float) or not number or not 0 <= tolerance < 1:
        raise InvalidInputError(f"tolerance must be 0 (exact) or a number between 0 and 1, not {shown(tolerance)}.")
    if tolerance > 0 and form != "efficient":
        raise InvalidInputError(f"tolerance is {tolerance}: form {form!r} is exact and has none; use form='efficient'.")
    check_indices("layers", layers)
    if checked_rows is not None:
        check_whole_number("checked_rows", checked_rows)
    check_seed(seed)


def _certify(runner: EncoderRunner, one: EncodedInput, target: Target, options: _Options) -> Certificate:
    started = time.perf_counter()
    arguments, device = runner.collate([one]), runner.device
    calls: list[tuple[int, int, int]] = []  # index, layer, rows

    def count(call: AttentionCall) -> None:
        calls.append((call.index, call.layer, call.output.shape[:3].numel()))

    def run(context: AbstractContextManager[Any], target: Target, seed: int = options.seed) -> RunOutput:
        # Layers that draw at random in evaluation, too, draw the same in every run.
        with torch.random.fork_rng([device] if device.type == "cuda" else []), context:
            torch.manual_seed(seed)
            return read_output(runner.forward(arguments), target, runner)

    def run_with_rows(rows: Callable[[AttentionCall], Tensor | None], target: Target) -> RunOutput:
        return run(capture_attention(runner.model, _checks_only, replace=rows), target)

    original = run(capture_attention(runner.model, count), target)
    if not target.is_function and not target.reads_rows and original.target is not None:
        target = Target([original.target], runner.model, head=target.head, inputs=[one], runner=runner)
    repeated = run(nullcontext(), target, options.seed + 1)
    replacement = RowReplacement(options.form, options.tolerance, _sample(calls, options))
    change = output_change(original, run_with_rows(replacement, target))
    sums = options.form != "effective"
    controls: dict[str, OutputChange | None] = {}
    for name in CONTROLS:
        if "noise" in name and not any(bool((norm > 0).any()) for norm in replacement.norms.values()):
            controls[name] = None
        else:
            other = control(name, replacement.norms, sums, options.seed)  # every control uses the same seed
            controls[name] = output_change(original, run_with_rows(other, target))
    checked = torch.cat([*replacement.smallest, torch.zeros(0, dtype=torch.float64)])
    necessary = options.form == "efficient" and len(checked) > 0
    return Certificate(
        form=options.form,
        tolerance=options.tolerance,
        output=original.name,
        scale=original.scale,
        rounding=ROUNDING.get(original.precision, ROUNDING_REDUCED),
        tokens=one.length,
        texts=one.texts,
        target=original.target,
        target_name=original.target_name,
        probability=original.probability,
        change=change,
        layers=tuple(replacement.layers),
        checked=len(checked),
        checked_keys=replacement.checked_keys,
        necessity=float(checked.min()) if necessary else None,
        necessity_median=float(checked.median()) if necessary else None,
        controls=controls,
        notes=_notes(runner, one, replacement, original, output_change(original, repeated).largest, options),
        info=_provenance(runner, original, options, time.perf_counter() - started),
    )


def _sample(calls: list[tuple[int, int, int]], options: _Options) -> dict[int, Tensor]:
    """The rows to check for necessity in each call that is to be replaced."""
    available = {layer for _, layer, _ in calls}
    missing = sorted((options.layers or frozenset()) - available)
    if missing:
        raise InvalidInputError(f"layers {missing} do not exist; this model has layers {sorted(available)}.")
    rows_of_call = [(index, rows) for index, layer, rows in calls if options.layers is None or layer in options.layers]
    total = sum(rows for _, rows in rows_of_call)
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(options.seed))[: options.checked_rows]
    chosen, start = {}, 0
    for index, rows in rows_of_call:
        chosen[index] = (drawn[(drawn >= start) & (drawn < start + rows)] - start).sort().values
        start += rows
    return chosen


def _checks_only(call: AttentionCall) -> None:
    """Capture a pass for its checks: attention that cannot be captured exactly is refused."""


def _notes(
    runner: EncoderRunner,
    one: EncodedInput,
    replacement: RowReplacement,
    original: RunOutput,
    difference: float,
    options: _Options,
) -> tuple[str, ...]:
    """Remarks about this model and input for the reader."""
    notes = [*one.warnings, *runner.notes]
    layers = replacement.layers
    if options.layers is not None:
        notes.append(f"Only layers {sorted(options.layers)} were replaced.")
    if not any(layer.changed for layer in layers):
        notes.append(
            f"There was nothing to replace: with at most {max(layer.keys for layer in layers)} keys every row is the "
            "only one that gives its output (n <= rank), so the new rows are the model's original."
        )
    if difference > 0:
        notes.append(
            f"The model draws random numbers in evaluation mode: its own {original.name} differ by up to "
            f"{difference:.1e} from "
            "run to run. Every run here used the same draws."
        )
    row_sum_error = max(layer.own_sum_error for layer in layers)
    if row_sum_error > ROW_SUM_TOLERANCE:
        notes.append(
            f"Rows of the model's own attention do not sum to one (off by {row_sum_error:.1e}: attention sinks, "
            "dropout or half precision); the new rows have the same sums."
        )
    used = {layer.name for layer in layers}
    checks = {name: check for name, check in module_checks(runner.model).items() if name in used}
    nonlinear = sorted({check.ended_by for check in checks.values() if check.ended_by})
    if nonlinear:
        notes.append(
            f"Between the heads and the output projection lies {', '.join(nonlinear)}, so there is no linear W_O. "
            "The outputs of the heads are unchanged nevertheless, and so is everything that is computed from them."
        )
    for name, check in checks.items():
        if check.deficient:
            heads = ", ".join(map(str, check.deficient))
            notes.append(
                f"{name}: W_O of heads {heads} does not have full rank; fewer keys than the kept ones may suffice."
            )
    unproved = sum(layer.unproved for layer in layers)
    if unproved:
        lacks = "miss the tolerance" if options.tolerance else "were not proved to keep most of the model's attention"
        notes.append(f"{unproved} rows {lacks}.")
    smallest = min((float(part.min()) for part in replacement.smallest if len(part)), default=torch.inf)
    floor = float(torch.finfo(original.precision).eps)
    if options.tolerance == 0:
        floor = max(floor, *(layer.residual for layer in layers))
    if 0 < smallest < floor:
        notes.append(
            f"Not firm: the smallest distance by which a row misses its output without one of its keys "
            f"({smallest:.1e}) is below {floor:.1e}, the "
            "precision of the model or the residual; such keys have almost no weight."
        )
    return tuple(notes)


def _provenance(runner: EncoderRunner, original: RunOutput, options: _Options, seconds: float) -> dict[str, Any]:
    efficient = options.form == "efficient"
    return {
        **runner.provenance(),
        "dtype": str(original.precision).removeprefix("torch."),
        "reference": "our operationalization of arXiv 2410.18541"
        if efficient
        else "arXiv 1908.04211, arXiv 2105.08855",
        "checked_rows": options.checked_rows,
        "seed": options.seed,
        "seconds": seconds,
        "attention_implementation": str(getattr(runner.config, "_attn_implementation", "")),
    }
