"""The door of `explain` to the methods of `hf_attn_mi.methods.captum`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.methods.captum import Options, TokenScores, read_options
from hf_attn_mi.methods.registry import METHODS
from hf_attn_mi.models.batching import real_tokens
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.targets import Target


def read_settings(method: str, given: Mapping[str, Any] | None) -> Options:
    """The options of this method, checked.

    Raises:
        InvalidInputError: names the options it takes.
    """
    row = METHODS[method].baseline
    if row is None:
        return read_options(method, given, (), Options())
    return read_options(method, given, row.allowed, row.default)


def with_mask(settings: Options, tokenizer: Any) -> Options:
    """The options, with the id of the mask token that `baseline="mask"` asks for.

    Raises:
        InvalidInputError: no tokenizer to take it from.
    """
    if settings.baseline != "mask":
        return settings
    number = getattr(tokenizer, "mask_token_id", None)
    if number is None:
        raise InvalidInputError(
            "options['baseline'] is 'mask', but there is no tokenizer with a mask token: pass tokenizer=..., or 'pad' "
            "or 'zero'."
        )
    return replace(settings, mask_id=number)


def baseline_scores(
    model: nn.Module,
    arguments: dict[str, Any],
    examples: list[EncodedInput],
    aim: Target,
    method: str,
    settings: Options,
) -> tuple[TokenScores, dict[str, Any]]:
    """Scores of one batch, and what a reader should know about them.

    Args:
        model: in evaluation mode.
        arguments: of its forward.
        examples: of this batch.
        aim: already called on the model's outputs, so that the class to explain is settled.
        method: name of a row with a baseline.
        settings: its options.

    Raises:
        InvalidInputError: the inputs are no sequences of tokens, or as the method says.
        UnsupportedModelError: as the method says.
    """
    row = METHODS[method].baseline
    assert row is not None
    if examples[0].length is None:
        raise InvalidInputError(
            f"method {method!r} is for sequences of tokens; inputs has {', '.join(examples[0].tensors)}. Use "
            "method='relevance'."
        )
    real = real_tokens(arguments)
    special = torch.zeros_like(real)
    for i, example in enumerate(examples):
        if example.special is not None:
            special[i, : len(example.special)] = torch.tensor(example.special, device=real.device)
    found = row.score(model, arguments, _fixed(aim, model, not row.gradients), special, real, settings)
    notes = list(found.notes)
    if row.perturbs and any(example.special is None for example in examples):
        notes.append("Without a tokenizer it is not known which tokens are special: all of them were replaced.")
    about: dict[str, Any] = {"options": {name: getattr(settings, name) for name in row.allowed}, "notes": notes}
    if found.baseline is not None:
        about["baseline"] = found.baseline
    return found, about | _explained(method, aim)


def gap_note(method: str, gap: float) -> str:
    """What a completeness gap says about scores by this method."""
    if METHODS[method].baseline is None:
        return f"The scores miss {gap:.0%} of the explained value: part of this model is not followed exactly."
    if method == "deeplift":
        return (
            f"DeepLift's scores miss {gap:.0%} of f(x) - f(baseline) (convergence delta): Captum has no rule for "
            "attention, layer normalization or GELU."
        )
    more = {"integrated_gradients": "steps", "gradient_shap": "samples", "kernel_shap": "samples"}.get(method)
    hint = "." if more is None else f": pass options={{{more!r}: ...}} with more of them."
    return f"The scores miss {gap:.0%} of f(x) - f(baseline){hint}"


def _explained(method: str, aim: Target) -> dict[str, str]:
    row = METHODS[method].baseline
    assert row is not None
    if method in ("random", "value_norms"):
        return {"space": "none" if method == "random" else "attention received", "explained": "nothing"}
    if row.gradients:
        return {"space": "word embeddings", "explained": "the target's value, as for method 'relevance'"}
    known = all(explained.probability is not None for explained in aim.explained)
    return {"space": "presence of tokens", "explained": "probability of the class" if known else "the target's value"}


def _fixed(aim: Target, model: nn.Module, probability: bool) -> Any:
    """(outputs, rows) -> (n,) values of the classes that were found for the unchanged inputs."""
    settled = aim.wanted if callable(aim.wanted) else [explained.target for explained in aim.explained]

    def value(outputs: Any, rows: list[int]) -> Tensor:
        again = Target(settled if callable(settled) else [settled[row] for row in rows], model)
        values = again(outputs)
        if values.shape[0] != len(rows):
            raise InvalidInputError(
                f"target: the function returned {values.shape[0]} values for {len(rows)} rows; it must treat each row "
                "on its own, however many there are."
            )
        found = [explained.probability for explained in again.explained]
        if not probability or None in found:
            return values
        return torch.tensor(found, dtype=torch.float64, device=values.device)

    return value
