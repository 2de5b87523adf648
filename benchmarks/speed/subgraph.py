"""Cost of `minimal_attention`: forward passes and seconds for one strict set of attention weights, by data set.

    python benchmarks/speed/subgraph.py            # 20 texts of each data set, writes results/subgraph.jsonl beside it
    python benchmarks/speed/subgraph.py --quick    # the embedded model and two short texts, writes only with --output

A row has the cost beside the single removals of the set, in forward passes of the whole input; the sizes of the sets,
the single removals and the seconds are further fields. A set is run again from its record (`recheck`) before it counts.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

from torch import nn

from benchmarks.common import EMBEDDED_MODEL, SHARED, Row, check, result_row, run_parts
from benchmarks.inputs import load_classifier, load_tokenizer
from hf_attn_mi import AttentionSubgraph, minimal_attention, recheck
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from hf_attn_mi.tasks.attention_edges import Edges
from hf_attn_mi.tasks.edge_ranking import EdgeScores, order_of
from hf_attn_mi.tasks.restricted_forward import Candidate, RestrictedForward

RESULTS = Path(__file__).parent / "results" / "subgraph.jsonl"
SENTENCE = "A quietly moving film that never lets its warm cast down, even when the plot makes no sense at all, sadly."
QUICK = (SENTENCE, "One of the worst movies of the year!")
LEAST_TOKENS = 10
TURNS = 3
SINGLES, SINGLE_TOKENS = 500, 40
ALONE = """
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model, tokenizer = (kind.from_pretrained({path!r}) for kind in (AutoModelForSequenceClassification, AutoTokenizer))
model(**tokenizer({text!r}, return_tensors="pt"))
"""


@dataclass(frozen=True)
class DataSet:
    """Texts, the model that classifies them, and the cost that is aimed at."""

    name: str
    file: str
    model: str
    tokens: int
    at_most: float


DATA_SETS = (
    DataSet("sst2", "sst2/dev", "minilm-sentiment", 64, 150),
    DataSet("agnews", "agnews/test", "minilm-agnews", 60, 250),
    DataSet("imdb", "imdb/dev", "minilm-sentiment", 128, 300),
)


def texts_of(data: DataSet, count: int, tokenizer: Any) -> list[dict[str, Any]]:
    """The ids of some texts in a fixed random order, cut to the length of the data set."""
    with gzip.open(SHARED / "data" / f"{data.file}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    random.Random(9).shuffle(rows)
    encoded = (tokenizer(row["text"], truncation=True, max_length=data.tokens, return_tensors="pt") for row in rows)
    long = (dict(one) for one in encoded if one["input_ids"].shape[1] >= LEAST_TOKENS)
    return [one for one, _ in zip(long, range(count))]


def cost_of(name: str, model: nn.Module, tokenizer: Any, inputs: list[Any], at_most: float | None) -> Iterator[Row]:
    """One row: the cost of a set of each input."""
    found: list[AttentionSubgraph] = []
    for one in inputs:
        subgraph = minimal_attention(model, one, tokenizer=tokenizer)
        assert isinstance(subgraph, AttentionSubgraph)
        found.append(subgraph)
    sets = [one for one in found if one.units]
    check(len(sets) > 0, f"no set was found for any of {len(found)} inputs")
    for one in sets[:3]:
        result = recheck(model, one, tokenizer=tokenizer)
        check(result.holds, f"a set could not be run again: {result.reasons}")
    yield result_row(
        f"cost/{name}",
        f"forward passes for one strict set beside its single removals, {len(sets)} inputs",
        [one.forwards - one.single_forwards for one in sets],
        unit="forwards",
        at_most=at_most,
        inputs=len(found),
        no_attention_needed=sum(not one.needs_attention for one in found),
        without_set=sum(one.needs_attention and not one.units for one in found),
        minimal=sum(one.minimal for one in sets),
        edges=statistics.median(one.edge_count for one in sets),
        set_size=statistics.median(len(one.units) for one in sets),
        set_sizes=[len(one.units) for one in sets],
        heads=statistics.median(len({(e.call, e.head) for e in one.edges}) for one in sets),
        sequences=statistics.median(one.sequences for one in sets),
        single_sequences=statistics.median(one.single_sequences for one in sets),
        single_forwards=statistics.median(one.single_forwards for one in sets),
        seconds=statistics.median(one.seconds for one in sets),
    )


def data_set(data: DataSet, count: int) -> Iterator[Row]:
    """The cost on one data set."""
    folder = SHARED / "models" / data.model
    check(folder.exists(), f"{folder} is not there")
    tokenizer = load_tokenizer(folder)
    yield from cost_of(data.name, load_classifier(folder), tokenizer, texts_of(data, count, tokenizer), data.at_most)


def quick() -> Iterator[Row]:
    """The embedded model on two texts."""
    model, tokenizer = load_classifier(EMBEDDED_MODEL), load_tokenizer(EMBEDDED_MODEL)
    yield from cost_of("embedded", model, tokenizer, list(QUICK), None)


def command_line() -> Iterator[Row]:
    """`hf-attn-mi subgraph` on a sentence of 20 words, the start of Python included, in turns with transformers alone.

    CPU seconds, which other processes of the machine change less than the time that passes.
    """
    command = [sys.executable, "-m", "hf_attn_mi", "subgraph", SENTENCE]
    alone = [sys.executable, "-c", ALONE.format(path=str(EMBEDDED_MODEL), text=SENTENCE)]
    turns = [(seconds_of_process(command), seconds_of_process(alone)) for _ in range(TURNS)]
    yield result_row(
        "command line",
        "CPU seconds for 20 words, and of loading the same model and one forward pass by transformers alone",
        [ours[0] for ours, _ in turns],
        at_most=5,
        elapsed=[ours[1] for ours, _ in turns],
        transformers_alone=[other[0] for _, other in turns],
    )


def seconds_of_process(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float]:
    """CPU seconds of a process, and seconds until it ended; in this environment, None for that of this process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    elapsed, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    check(done.returncode == 0, f"the command ended with status {done.returncode}: {done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, elapsed


def single_removals() -> Iterator[Row]:
    """500 weights of a MiniLM at 40 tokens, removed one by one from a set: both sides of each."""
    folder = SHARED / "models" / "minilm-sentiment"
    check(folder.exists(), f"{folder} is not there")
    model, tokenizer = load_classifier(folder), load_tokenizer(folder)
    data = DataSet("imdb", "imdb/dev", "minilm-sentiment", SINGLE_TOKENS, 0)
    (inputs,) = texts_of(data, 1, tokenizer)
    check(inputs["input_ids"].shape[1] == SINGLE_TOKENS, f"the text has fewer than {SINGLE_TOKENS} tokens")
    runner = EncoderRunner.of(model, tokenizer)
    target, (one,) = read_target(None, runner, runner.encode(inputs, special_known=True)[0])
    with RestrictedForward(runner, one, target, 16) as forward:
        scores = EdgeScores(forward, 0)
        order = order_of(scores.flat(scores.gradient()), forward.edges.present)
        numbers = order[:SINGLES].sort().values
        cpu, started, before = time.process_time(), time.perf_counter(), forward.forwards
        forward.share([Edges(numbers), Edges(numbers, rest=True)])
        candidates = []
        for rest in (False, True):
            for edge in numbers.tolist():
                start = forward.edges.call_of(edge).stack_layer
                candidates.append(Candidate(Edges(numbers[numbers != edge], rest), int(rest), start))
        answers = forward.run(candidates)
        seconds, elapsed = time.process_time() - cpu, time.perf_counter() - started
        some = range(0, len(answers), len(answers) // 10)
        forward.layers, forward.shared = (), {}
        whole = forward.run([Candidate(candidates[i].selection) for i in some])
        check(not any(forward.differ(answers[i], one) for i, one in zip(some, whole)), "shared states change an answer")
    yield result_row(
        "single removals",
        f"CPU seconds for {SINGLES} weights one by one at {SINGLE_TOKENS} tokens, {len(candidates)} sequences",
        [seconds],
        at_most=60,
        elapsed=elapsed,
        forwards=forward.forwards - before,
    )


def main() -> int:
    """Run the parts and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the embedded model and two texts")
    parser.add_argument("--inputs", type=int, default=20, help="texts of each data set")
    parser.add_argument(
        "--parts", nargs="*", help="names of data sets, 'command line', 'single removals'; all by default"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help=f"by default {RESULTS}; nothing with --quick")
    options = parser.parse_args()
    parts = {data.name: partial(data_set, data, options.inputs) for data in DATA_SETS}
    others = {"command line": command_line, "single removals": single_removals}
    parts = {"quick": quick} if options.quick else {**others, **parts}
    chosen = [(name, part, [options.threads]) for name, part in parts.items() if name in (options.parts or parts)]
    output = options.output if options.quick or options.output else RESULTS
    return run_parts(chosen, output)[1]


if __name__ == "__main__":
    sys.exit(main())
