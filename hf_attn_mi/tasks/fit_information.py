"""`fit_information`: run a data set through a model once and estimate the information in each layer."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from hf_attn_mi.data.texts import TextReader, read_texts_of
from hf_attn_mi.mi import Effort, check_effort, estimation_device, get_estimator
from hf_attn_mi.models.labels import label_names
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.tasks.arguments import check_seed, check_whole_number, progress_bar
from hf_attn_mi.tasks.information_estimates import estimate
from hf_attn_mi.tasks.processes import Processes
from hf_attn_mi.tasks.sites import DRAWS, read_sites
from hf_attn_mi.tasks.state_collection import StateCollection

CHUNK = 1024  # texts that are sorted by length together; fixed, so that no result depends on the batch size


def fit_information(
    model: Any,
    dataset: Any,
    *,
    tokenizer: Any = None,
    layers: list[int] | None = None,
    sites: str | tuple[str, ...] = "tokens",
    batch_size: int = 16,
    estimator: str = "auto",
    effort: Effort = "fast",
    permutations: int = 200,
    limit: int | None = None,
    memory: int = 2 * 2**30,
    seed: int = 0,
) -> InformationProfile:
    """Mutual information between the states of each layer and the model's output, and the probes that score tokens.

    Under `accelerate launch` the processes share the forward passes; the sample is that of a single process. Estimation
    runs on the model's device, except for the boosted trees of scikit-learn; `info["estimated_on"]` names it.

    Y | x ~ softmax(logits(x)) is the model's own output. Each site holds one state of each input. Texts longer than
    the model's maximum are cut; how many is in `InformationProfile.info`. The model is left exactly as it was.

    Args:
        model: a classifier with two classes or more, as in `explain`.
        dataset: texts or pairs of texts, at least a few hundred; a list, a datasets.Dataset or IterableDataset, a file
            (.txt, .jsonl, .json, .csv, .tsv, .arrow, .parquet), a saved folder or a Hub name (see `read_texts_of`).
        tokenizer: by default the one saved with the model.
        layers: indices of states, 0 for the embeddings, i for the output of layer i; None for all.
        sites: one or several of "tokens" (a token drawn at random), "first" (both are always there), "positions" (the
            first 8 that at least half of the inputs have), "attention" (the tokens ranked 1 to 5 by attention
            received), "types" (each special token; the tokens of text A and of text B).
        batch_size: maximum number of inputs in one forward pass.
        estimator: a name of `hf_attn_mi.mi.list_estimators()`; see `mutual_information`.
        effort: the effort spent on the lower bounds: "fast", "default" or "thorough"; see `mutual_information`.
        permutations: the number of permutations of the outputs, for the p-values.
        limit: maximum number of texts to read; None for all.
        memory: bytes for the states kept; of more inputs than fit, a random sample is kept, with a warning. Fitting
            takes about as much again.
        seed: the random seed for every random draw. Batches and padding change no draw.

    Returns:
        An `InformationProfile`, in nats.

    Raises:
        InvalidInputError: an argument is wrong; a model without a distribution over classes; fewer than 20 inputs for
            a class.
        UnsupportedModelError: the states of this model cannot be captured.

    Example:
        >>> profile = fit_information(model, "sst2.jsonl.gz", limit=2000)     # doctest: +SKIP
        >>> print(profile)                                                  # doctest: +SKIP
    """
    started = time.perf_counter()
    chosen = read_sites(sites)
    for name, number in (("batch_size", batch_size), ("memory", memory), ("permutations", permutations)):
        check_whole_number(name, number)
    check_seed(seed)
    check_effort(effort)
    get_estimator(estimator)  # an unknown name is refused before the data is read
    runner = EncoderRunner.of(model, tokenizer)
    texts, processes = read_texts_of(dataset, limit=limit), Processes.of_environment()
    runner.require_tokenizer()
    with torch.inference_mode(False), torch.no_grad():
        collection = StateCollection(runner, chosen, layers, memory, seed, texts.size)
        for number, chunk in enumerate(_chunks(texts)):
            collection.take(chunk, batch_size, mine=number % processes.count == processes.rank)
        kept = collection.finish(processes)
        inspection, device = collection.inspection, estimation_device(runner.device)
        settings: dict[str, Any] = {
            "estimator": estimator,
            "effort": effort,
            "permutations": permutations,
            "seed": seed,
        }
        sample = collection.sample, collection.plan, collection.layers, inspection.stack
        estimates = estimate(*sample, **settings, device=device)
    names = label_names(runner.config)
    notes = [*collection.notes(texts, kept), *estimates.notes]
    info = {
        **runner.provenance(),
        **settings,
        "estimated_on": str(device),
        "sites": list(chosen),
        "draws": DRAWS,
        "reads": inspection.reads,
        "last_layer": inspection.last,
        "texts": {
            "seen": texts.seen,
            "kept": kept,
            "empty": texts.empty,
            "without_tokens": collection.empty,
            "truncated": collection.cut,
        },
        "memory": {"cap": memory, "states": kept * collection.bytes_each},
        "seconds": {"forward": collection.seconds, "total": time.perf_counter() - started},
        "warnings": notes,
    }
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return InformationProfile(
        estimates.sites,
        estimates.information,
        estimates.probe,
        estimates.halves,
        tuple(names.get(c, f"class {c}") for c in range(inspection.classes)),
        runner.fingerprint(),
        info,
    )


def _chunks(texts: TextReader) -> Iterator[list[Any]]:
    """Runs of `CHUNK` texts, with a progress bar."""
    stream = iter(texts)
    with progress_bar(texts.size, "information", "text") as bar:
        while chunk := list(islice(stream, CHUNK)):
            yield chunk
            bar.update(len(chunk))
