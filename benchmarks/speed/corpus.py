"""explain_dataset over a bare forward and backward pass, over one text at a time, and over one process.

    python benchmarks/speed/corpus.py --reviews 2706 --turns 1    # the published figures: the whole sets
    python benchmarks/speed/corpus.py --parts processes --rows 3000 --model hf_attn_mi/embedded_model
    python benchmarks/speed/corpus.py --parts memory long         # the rows of these parts are replaced
    python benchmarks/speed/corpus.py --quick                     # few rows, the embedded model, writes nothing

The rows go to benchmarks/speed/results/corpus.jsonl, and from there to docs/scale_figures.md.

Seconds are those of the processor (`time.process_time`) where one process is timed, so that other programs on the
machine change little; those of two processes, and of their peer, are on the clock. The bare loop runs the very batches
of `explain_dataset`, encoded beforehand, with gradients to the embeddings only. `explain_dataset` reads the file,
encodes, explains and writes the shards.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch

from benchmarks.common import (
    EMBEDDED_MODEL,
    ROOT,
    SHARED,
    Row,
    check,
    cpu_seconds_in_turns,
    read_rows,
    result_row,
    run_parts,
    write_rows,
)
from benchmarks.inputs import SENTIMENT_MODEL, load_classifier, load_tokenizer
from hf_attn_mi import explain, explain_dataset, load_results
from hf_attn_mi.data import read_texts_of
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.tasks import batch_explainer

RESULTS = Path(__file__).parent / "results" / "corpus.jsonl"
DATA = {"SST-2 phrases": ["sst2/train.jsonl.gz"], "IMDB reviews": ["imdb/train.jsonl.gz", "imdb/test.jsonl.gz"]}
LISTED = 400  # texts of one list
SINGLE = 100  # texts that are explained one at a time
LONG = (100_000, 5_000_000)  # characters


class Corpus:
    """A model, some texts, and the folder for results.

    Args:
        folder: the folder of the model.
        rows: how many texts of each data set.
        reviews: how many of them where the texts are long.
        turns: measurements of each task.
        quick: few rows.
    """

    def __init__(self, folder: Path, rows: int, reviews: int, turns: int, quick: bool) -> None:
        self.folder, self.rows, self.reviews, self.turns, self.quick = folder, rows, reviews, turns, quick
        self.model, self.tokenizer = load_classifier(folder), load_tokenizer(folder)
        self.output = Path(tempfile.mkdtemp())

    def texts(self, name: str) -> list[str]:
        """The first rows of a data set."""
        count = self.rows if name.startswith("SST") else self.reviews
        rows = chain.from_iterable(read_texts_of(SHARED / "data" / file) for file in DATA[name])
        return [text for text in islice(rows, count) if isinstance(text, str)]

    def dataset(self, texts: Sequence[str]) -> Any:
        """Explain the texts into an empty folder."""
        shutil.rmtree(self.output, ignore_errors=True)
        return explain_dataset(self.model, texts, output=self.output, tokenizer=self.tokenizer, truncation=True)

    def batches(self, run: Callable[[], Any], module: Any) -> list[list[EncodedInput]]:
        """The batches that a call makes of its texts, by the function of this module that explains one."""
        found: list[list[EncodedInput]] = []
        original = module.explain_batch

        def note(runner: EncoderRunner, inputs: Sequence[EncodedInput], *rest: Any) -> Any:
            found.append(list(inputs))
            return original(runner, inputs, *rest)

        module.explain_batch = note
        try:
            run()
        finally:
            module.explain_batch = original
        return found

    def bare(self, batches: Sequence[Sequence[EncodedInput]], *, backward: bool = True) -> None:
        """One forward and one backward pass of each batch, to the embeddings; or a plain forward pass."""
        runner, table = EncoderRunner.of(self.model, self.tokenizer), self.model.get_input_embeddings()
        for batch in batches:
            arguments = runner.collate(batch)
            if not backward:
                with torch.no_grad():
                    self.model(**arguments)
                continue
            embeddings = table(arguments.pop("input_ids")).detach().requires_grad_(True)
            logits = self.model(inputs_embeds=embeddings, **arguments).logits
            torch.autograd.grad(logits.amax(1).sum(), embeddings)


def throughput(corpus: Corpus) -> Iterator[Row]:
    """explain_dataset over the bare loop with the same batches, and over explain of one text at a time."""
    for name in DATA:
        texts = corpus.texts(name)
        if not texts:
            continue
        batches = corpus.batches(partial(corpus.dataset, texts), batch_explainer)
        check(sum(map(len, batches)) == len(texts) == len(load_results(corpus.output)), "a row is missing")
        few = texts[:: max(1, len(texts) // SINGLE)]
        tasks = {
            "bare": partial(corpus.bare, batches),
            "dataset": partial(corpus.dataset, texts),
            "single": lambda few=few: [
                explain(corpus.model, text, tokenizer=corpus.tokenizer, layers="none", truncation=True) for text in few
            ],
        }
        seconds = cpu_seconds_in_turns(tasks, corpus.turns)
        single = [value * len(texts) / len(few) for value in seconds["single"]]
        rates = {"rows": len(texts), "rows_per_cpu_second": len(texts) / statistics.median(seconds["dataset"])}
        yield result_row(
            f"explain_dataset/over the bare loop, {name}",
            f"throughput of explain_dataset over the bare forward and backward loop, {len(texts)} {name}",
            seconds["dataset"], seconds["bare"], faster=True, at_least=0.90, batches=len(batches), **rates,
        )  # fmt: skip
        yield result_row(
            f"explain_dataset/over one text at a time, {name}",
            f"explain_dataset over explain(text) in a loop ({len(few)} of {len(texts)} {name})",
            seconds["dataset"], single, faster=True, at_least=3.0, **rates,
        )  # fmt: skip


def list_of_texts(corpus: Corpus) -> Iterator[Row]:
    """explain of a list of texts, over bare loops with the same batches."""
    texts = corpus.texts("SST-2 phrases")[:LISTED]
    tasks: dict[str, Callable[[], Any]] = {
        layers: partial(explain, corpus.model, texts, tokenizer=corpus.tokenizer, layers=layers)
        for layers in ("none", "full")
    }
    batches = corpus.batches(tasks["none"], importlib.import_module("hf_attn_mi.tasks.explain"))
    check(sum(map(len, batches)) == len(texts), "a text is missing")
    tasks |= {"bare": partial(corpus.bare, batches), "forward": partial(corpus.bare, batches, backward=False)}
    for task in tasks.values():
        task()  # warms up
    seconds = cpu_seconds_in_turns(tasks, corpus.turns)
    for ours in ("none", "full"):
        for peer, name in (("bare", "forward and backward"), ("forward", "a forward pass")):
            yield result_row(
                f"list of texts/{ours} over {name}",
                f'explain(model, {len(texts)} texts, layers="{ours}") over {name} of the same {len(batches)} batches',
                seconds[ours], seconds[peer], rows=len(texts), batches=len(batches),
            )  # fmt: skip


def processes(corpus: Corpus) -> Iterator[Row]:
    """Two processes over one, started by accelerate; the time of the imports is taken off."""
    rows = 200 if corpus.quick else max(400, corpus.rows)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(1 if corpus.quick else min(3, corpus.turns)):
        for count in (1, 2) if turn % 2 == 0 else (2, 1):
            shutil.rmtree(corpus.output, ignore_errors=True)
            _launch(corpus, count, rows)
            seconds[count].append(load_results(corpus.output).run["runs"][0]["seconds"])
    yield result_row(
        "explain_dataset/two processes over one",
        f"accelerate launch with two processes of one thread over one, {rows} SST-2 phrases, on the clock",
        seconds[2], seconds[1], faster=True, at_least=1.8, rows=rows,
    )  # fmt: skip


def _launch(corpus: Corpus, count: int, rows: int) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count)]
    if count == 1:
        command = [sys.executable]
    else:
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["-m", "hf_attn_mi", "explain-dataset", "--data", str(SHARED / "data" / DATA["SST-2 phrases"][0])]
    command += ["--output", str(corpus.output), "--model", str(corpus.folder), "--limit", str(rows)]
    command += ["--shard-size", str(max(1, rows // 20)), "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)


PROBE = """
import sys, torch
torch.set_num_threads(1)
from benchmarks.inputs import load_tokenizer
from scripts.reliability.common import bert
from hf_attn_mi import explain_dataset
rows, output, data, folder = int(sys.argv[1]), *sys.argv[2:5]
print(explain_dataset(bert(), data, output=output, tokenizer=load_tokenizer(folder), limit=rows).peak_memory)
"""


def memory(corpus: Corpus) -> Iterator[Row]:
    """Peak memory of many rows over few, each in a process of its own, with a random model of two layers."""
    few, many = (100, 400) if corpus.quick else (1000, 50_000)
    peaks = {}
    for rows in (few, many):
        shutil.rmtree(corpus.output, ignore_errors=True)
        data = str(SHARED / "data" / DATA["SST-2 phrases"][0])
        command = [sys.executable, "-c", PROBE, str(rows), str(corpus.output), data, str(EMBEDDED_MODEL)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=ROOT)
        peaks[rows] = int(done.stdout) / 2**20
    yield result_row(
        f"explain_dataset/peak memory, {many} rows over {few}",
        f"peak memory of a run over {many} SST-2 phrases over one over {few}, a random model of two layers",
        [peaks[many]], [peaks[few]], unit="MiB", at_most=1.05,
    )  # fmt: skip


def long_text(corpus: Corpus) -> Iterator[Row]:
    """Seconds for each character of a long text over those of a shorter one: 1 is linear."""
    lengths = (20_000, 200_000) if corpus.quick else LONG
    each = {}
    for length in lengths:
        text = ("The plot is thin, but the two leads are a joy to watch. " * (length // 56 + 1))[:length]
        seconds = cpu_seconds_in_turns({"long": partial(corpus.dataset, [text])}, 2)["long"]
        each[length] = [value / length * 1e6 for value in seconds]
    yield result_row(
        f"explain_dataset/text of {lengths[1]} characters over {lengths[0]}",
        "seconds for a million characters, truncation=True: 1 is linear",
        each[lengths[1]], each[lengths[0]], at_most=1.2,
    )  # fmt: skip


def main() -> int:
    """Run the parts, print and write the rows; the exit status is 1 where a check failed."""
    parts: dict[str, Callable[[Corpus], Iterator[Row]]] = {
        "throughput": throughput,
        "list": list_of_texts,
        "processes": processes,
        "memory": memory,
        "long": long_text,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a BERT-like classifier (default: minilm-sentiment)")
    parser.add_argument("--rows", type=int, default=20_000, help="SST-2 phrases; 0 for none")
    parser.add_argument("--reviews", type=int, help="IMDB reviews (default: a twentieth of the rows, at least 8)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--quick", action="store_true", help="few rows, the embedded model, one turn")
    parser.add_argument(
        "--output", type=Path, help="rows of other parts are kept (default: results/corpus.jsonl; none with --quick)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.model or (EMBEDDED_MODEL if arguments.quick else SENTIMENT_MODEL)
    rows, turns = (60, 1) if arguments.quick else (arguments.rows, arguments.turns)
    reviews = max(8, rows // 20) if arguments.reviews is None else arguments.reviews
    corpus = Corpus(folder, rows, reviews, turns, arguments.quick)
    output = arguments.output or (None if arguments.quick else RESULTS)
    failures = 0
    for name in arguments.parts:
        found, failed = run_parts([(name, partial(parts[name], corpus), [1])], model=folder.name)
        failures += failed
        if output is not None:
            write_rows([row for row in read_rows(output) if row["part"] != name] + found, output)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
