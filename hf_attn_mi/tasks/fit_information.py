"""`fit_information`: a data set through a model once, to the information in each of its layers."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from tqdm import tqdm

from hf_attn_mi._version import library_versions
from hf_attn_mi.data.texts import TextReader, read_texts_of
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.models.fingerprint import fingerprint_of
from hf_attn_mi.models.loading import model_and_tokenizer, name_of, own_tokenizer
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.tasks.information_estimates import estimate
from hf_attn_mi.tasks.sites import DRAWS, read_sites
from hf_attn_mi.tasks.state_collection import TextPass

CHUNK = 1024  # texts that are sorted by length together; fixed, so that no result depends on the batch size


def fit_information(
    model: Any,
    dataset: Any,
    *,
    tokenizer: Any = None,
    layers: list[int] | None = None,
    sites: str | tuple[str, ...] = "tokens",
    batch_size: int = 32,
    estimator: str = "auto",
    permutations: int = 200,
    limit: int | None = None,
    memory: int = 2 * 2**30,
    seed: int = 0,
) -> InformationProfile:
    """Mutual information between the states of each layer and the model's output, and the probes that score tokens.

    Y | x ~ softmax(logits(x)) is the model's own output. Each site holds one state of each input. Texts longer than
    the model's maximum are cut; how many is in `InformationProfile.info`. The model is left exactly as it was.

    Args:
        model: a classifier with two classes or more, as in `explain`.
        dataset: texts or pairs of texts, at least a few hundred; a list, a datasets.Dataset or IterableDataset, a file
            (.txt, .jsonl, .json, .csv, .tsv, .arrow), a saved folder or a Hub name (see `read_texts_of`).
        tokenizer: by default the one saved beside the model.
        layers: indices of states, 0 for the embeddings, i for the output of layer i; None for all.
        sites: one or several of "tokens" (a token drawn at random), "first" (both are always there), "positions" (the
            first 8 that at least half of the inputs have), "attention" (the tokens ranked 1 to 5 by attention
            received), "types" (each special token; the tokens of text A and of text B).
        batch_size: inputs in one forward pass.
        estimator: of `mutual_information`.
        permutations: of the outputs, for the p-values.
        limit: most texts to read; None for all.
        memory: bytes for the states kept; of more inputs than fit, a random sample is kept, with a warning. Fitting
            takes about as much again.
        seed: of every random draw. Batches and padding change no draw.

    Returns:
        A `InformationProfile`, in nats.

    Raises:
        InvalidInputError: an argument is wrong; a model without a distribution over classes; fewer than 20 inputs a class.
        UnsupportedModelError: the states of this model cannot be captured.

    Example:
        >>> profile = fit_information(model, "sst2.jsonl.gz", limit=2000)     # doctest: +SKIP
        >>> print(profile)                                                  # doctest: +SKIP
    """
    started = time.perf_counter()
    chosen = read_sites(sites)
    for name, number in (("batch_size", batch_size), ("memory", memory), ("permutations", permutations)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InvalidInputError(f"{name} must be a positive whole number, not {number!r}.")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InvalidInputError(f"seed must be a whole number, not {seed!r}.")
    inner, tokenizer = model_and_tokenizer(model, tokenizer)
    texts = read_texts_of(dataset, limit=limit)
    tokenizer = own_tokenizer(inner) if tokenizer is None else tokenizer
    with torch.inference_mode(False), torch.no_grad():
        run = TextPass(inner, tokenizer, chosen, layers, memory, seed, texts.size)
        for chunk in _chunks(texts):
            run.take(chunk, batch_size)
        kept = run.finish()
        found = estimate(
            run.sample, run.plan, run.layers, run.found.stack, estimator=estimator, permutations=permutations, seed=seed
        )
    names = getattr(getattr(inner, "config", None), "id2label", None) or {}
    notes = [*run.notes(texts, kept), *found.notes]
    for note in notes:
        warnings.warn(note, stacklevel=2)
    info = {
        "model": name_of(inner),
        "estimator": estimator,
        "permutations": permutations,
        "seed": seed,
        "sites": list(chosen),
        "draws": DRAWS,
        "reads": run.found.reads,
        "last_layer": run.found.last,
        "texts": {
            "seen": texts.seen,
            "kept": kept,
            "empty": texts.empty,
            "without_tokens": run.bare,
            "truncated": run.cut,
        },
        "memory": {"cap": memory, "states": kept * run.bytes_each},
        "dtype": str(next((p.dtype for p in inner.parameters()), torch.float32)).removeprefix("torch."),
        "versions": library_versions(),
        "seconds": {"forward": run.seconds, "total": time.perf_counter() - started},
        "warnings": notes,
    }
    return InformationProfile(
        found.sites,
        found.information,
        found.probe,
        found.halves,
        tuple(str(names.get(c, f"class {c}")) for c in range(run.found.classes)),
        fingerprint_of(inner),
        info,
    )


def _chunks(texts: TextReader) -> Iterator[list[Any]]:
    """Runs of `CHUNK` texts, with a progress bar where somebody watches."""
    stream = iter(texts)
    with tqdm(total=texts.size, desc="background", unit="text", disable=not sys.stderr.isatty()) as bar:
        while chunk := list(islice(stream, CHUNK)):
            yield chunk
            bar.update(len(chunk))
