"""The tokens that a decoder reads, with the scores that a method gave them."""

from __future__ import annotations

from hf_attn_mi.methods.base import TokenScores
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.results.decoder import DecoderTokens

DECODER_IDS = "decoder_input_ids"


def decoder_tokens(runner: EncoderRunner, one: EncodedInput, result: TokenScores, i: int) -> DecoderTokens | None:
    """The decoder's tokens of one input.

    Args:
        runner: runs the model; its tokenizer, where there is one, names the tokens.
        one: the input.
        result: the result of its batch.
        i: the index of the input in the batch.

    Returns:
        None if the decoder reads a copy of the input, and for methods that do not score its tokens.
    """
    shares, ids = result.other_inputs.get(DECODER_IDS), one.tensors.get(DECODER_IDS)
    if shares is None or ids is None or ids.dim() != 1:
        return None
    numbers = ids.tolist()
    names = numbers if runner.tokenizer is None else runner.tokenizer.convert_ids_to_tokens(numbers)
    return DecoderTokens(tuple(map(str, names)), shares[i, : len(numbers)])


def other_inputs(result: TokenScores, i: int) -> dict[str, float]:
    """Contributions of the tokens of other arguments to the value of one input, by argument name."""
    return {key: float(share[i].sum()) for key, share in result.other_inputs.items()}
