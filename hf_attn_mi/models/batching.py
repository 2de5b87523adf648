"""From unpadded examples to right-padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from hf_attn_mi.models.encoded_input import EncodedInput, per_token


def batches(examples: list[EncodedInput], size: int, *, mixed: bool) -> Iterator[list[int]]:
    """Positions in `examples` that share a forward pass, short inputs first.

    Args:
        examples: the inputs.
        size: most inputs in one pass.
        mixed: whether lengths may differ (padding on the right); False keeps to equal lengths.
    """
    order = sorted(range(len(examples)), key=lambda i: examples[i].length or 0)
    start = 0
    while start < len(order):
        chunk = order[start : start + size]
        if not mixed:
            chunk = [i for i in chunk if examples[i].length == examples[chunk[0]].length]
        start += len(chunk)
        yield chunk


def length_buckets(lengths: Sequence[int], size: int, *, mixed: bool) -> Iterator[list[int]]:
    """Places of sequences that share a forward: of one length, or (`mixed`) little longer than the shortest.

    Args:
        lengths: of the sequences.
        size: most sequences in one pass.
        mixed: whether lengths may differ, with padding on the right.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        most = (1.25 * lengths[batch[0]] + 4 if mixed else lengths[batch[0]]) if batch else 0
        if batch and (len(batch) == size or lengths[i] > most):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def padding_id(model: nn.Module) -> int | None:
    """The model's own id to pad with; None where it could not tell pads from tokens."""
    own = getattr(getattr(model, "config", None), "pad_token_id", None)
    return own if isinstance(own, int) and own >= 0 else None


def real_tokens(batch: dict[str, Tensor]) -> Tensor:
    """(batch, tokens) bool, True where a token is neither padding nor masked for every query."""
    mask = batch.get("attention_mask")
    if mask is not None and mask.dim() == 2:
        return mask.bool()
    main = batch[next(key for key in ("input_ids", "inputs_embeds", "inputs") if key in batch)]
    return torch.ones(main.shape[:2], dtype=torch.bool, device=main.device)


def stack(examples: list[EncodedInput], pad: int, device: torch.device) -> dict[str, Tensor]:
    """Model arguments for these examples, padded on the right, with their attention mask."""
    lengths = [example.length for example in examples]
    if lengths[0] is None:
        keys = examples[0].tensors
        return {key: torch.stack([e.tensors[key] for e in examples]).to(device) for key in keys}
    longest = max(length for length in lengths if length is not None)
    batch: dict[str, Tensor] = {}
    for key in examples[0].tensors:
        rows = []
        for example in examples:
            value = example.tensors[key]
            missing = longest - int(example.length or 0)
            if missing and per_token(key, value, int(example.length or 0)):
                fill = value.new_full((missing, *value.shape[1:]), pad if key in ("input_ids", "inputs") else 0)
                value = torch.cat([value, fill])
            rows.append(value)
        batch[key] = torch.stack(rows).to(device)
    if "attention_mask" not in batch:
        mask = [[1] * int(n or 0) + [0] * (longest - int(n or 0)) for n in lengths]
        batch["attention_mask"] = torch.tensor(mask, device=device)
    return batch
