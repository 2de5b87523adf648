"""An example with some of its tokens taken out: on token ids, never decoded and tokenized again."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.encoded_input import per_token

WAYS = ("delete", "mask", "attention_mask")


def remove_tokens(
    example: Mapping[str, Tensor],
    positions: Collection[int],
    *,
    removal: str = "delete",
    mask_id: int | None = None,
) -> dict[str, Tensor]:
    """Return the example without the tokens at these positions.

    - "delete": the token ids and every other argument for each token (`PER_TOKEN`) are shortened. `position_ids`,
      where given, are closed up, each run of consecutive positions on its own, so that they are what the shorter text
      would have (also where they restart in the second text of a pair); where not given, the model numbers the shorter
      text itself.
    - "mask": the ids become `mask_id`; length, positions and all other tensors stay.
    - "attention_mask": the attention mask is zero there (ones are taken where none is given); ids, length and
      positions stay. Attention alone does not see the token: its own row still runs through the network, so a model
      that pools over all rows without using the mask still reads it.

    Args:
        example: one unpadded input, (tokens, ...) tensors by the model's argument names; others pass through.
        positions: the positions of the tokens to remove; none of them may be special.
        removal: "delete", "mask" or "attention_mask".
        mask_id: id of the mask token (or of another neutral token where the model has none), for "mask".

    Returns:
        A new dictionary; tensors that do not change are the example's own.

    Raises:
        InvalidInputError: unknown removal, no ids, "mask" without `mask_id`, or a position outside the text.

    Example:
        >>> pair = {"input_ids": torch.tensor([1, 7, 8, 2, 9]), "token_type_ids": torch.tensor([0, 0, 0, 0, 1])}
        >>> shorter = remove_tokens(pair, {1, 2})
        >>> shorter["input_ids"].tolist(), shorter["token_type_ids"].tolist()
        ([1, 2, 9], [0, 0, 1])
        >>> remove_tokens(pair, {1}, removal="mask", mask_id=4)["input_ids"].tolist()
        [1, 4, 8, 2, 9]
    """
    check_removal(example, removal, mask_id)
    length = token_count(example)
    gone = torch.zeros(length, dtype=torch.bool)
    for position in positions:
        if not 0 <= position < length:
            raise InvalidInputError(
                f"positions holds {position}, but the example has {length} tokens (0 to {length - 1})."
            )
        gone[position] = True
    changed = dict(example)
    if removal == "delete":
        for name, values in example.items():
            if per_token(name, values, length):
                kept = ~gone.to(values.device)
                changed[name] = closed_up(values, kept) if name == "position_ids" else values[kept]
    elif removal == "mask":
        assert mask_id is not None
        ids = example["input_ids"]
        changed["input_ids"] = ids.masked_fill(gone.to(ids.device), mask_id)
    else:
        mask = example.get("attention_mask", torch.ones_like(example["input_ids"]))
        changed["attention_mask"] = mask.masked_fill(gone.to(mask.device), 0)
    return changed


def closed_up(positions: Tensor, kept: Tensor) -> Tensor:
    """Return the positions of the kept tokens without gaps: each run of consecutive ones counts on from its start.

    Args:
        positions: (tokens,) position ids.
        kept: (tokens,) bool.

    Returns:
        (kept tokens,).

    Example:
        >>> closed_up(torch.tensor([2, 3, 4, 0, 1]), torch.tensor([True, False, True, True, True])).tolist()
        [2, 3, 0, 1]
    """
    if positions.dim() != 1:
        raise InvalidInputError(f"position_ids must be (tokens,), not {tuple(positions.shape)}; leave them out.")
    starts = torch.ones_like(kept)
    starts[1:] = positions[1:] != positions[:-1] + 1
    first = starts.nonzero()[:, 0][starts.long().cumsum(0) - 1]  # (tokens,) where the run of each token starts
    before = kept.long().cumsum(0) - kept.long()  # kept tokens before each
    return (positions[first] + (before - before[first]).to(positions.dtype))[kept]


def token_count(example: Mapping[str, Tensor]) -> int:
    """Return the number of tokens of an example."""
    return int(example["input_ids"].shape[0])


def check_removal(example: Mapping[str, Tensor], removal: str, mask_id: int | None) -> None:
    """Refuse what cannot be removed.

    Raises:
        InvalidInputError: unknown removal, no (tokens,) ids, a mask that is not (tokens,), or "mask" without `mask_id`.
    """
    if removal not in WAYS:
        raise InvalidInputError(f"removal must be one of {', '.join(map(repr, WAYS))}, not {shown(removal)}.")
    ids = example.get("input_ids")
    if ids is None or ids.dim() != 1:
        raise InvalidInputError(
            "example needs 'input_ids' of shape (tokens,), not "
            f"{None if ids is None else tuple(ids.shape)}: tokens are removed by their ids."
        )
    mask = example.get("attention_mask")
    if mask is not None and mask.shape != ids.shape:
        raise InvalidInputError(f"attention_mask must be {tuple(ids.shape)} like input_ids, not {tuple(mask.shape)}.")
    if removal == "mask" and (type(mask_id) is not int or mask_id < 0):
        raise InvalidInputError(
            f"removal='mask' needs mask_id, the id of a mask or neutral token; got {shown(mask_id)}."
        )
