"""The limits that were set for speed and memory, each with the figures of the stored rows and why it is missed.

    python benchmarks/speed/targets.py    # prints the table of docs/benchmarks.md

Nothing is measured here. A limit holds for the rows whose names it matches, and is judged by the worst of them, by its
median. The reason of a miss comes from rows, too: the parts of a call, or its multiplications.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

from benchmarks.common import Row, processor, processors, ratio_text, read_rows, short
from benchmarks.speed.over_backward import LIMITS

RESULTS = Path(__file__).parent / "results"
Results = Mapping[str, Sequence[Row]]  # rows by the name of the benchmark
Reason = Callable[[Results, Row], str]
NEAR = 0.02  # of a ratio: a profile whose parts give one as near as this explains it
NO_PROFILE = "no profile"
LONG = "128|256|512|1024|2048|4096|8192"  # tokens, as a regular expression


@dataclass(frozen=True)
class Target:
    """A limit for some rows.

    Attributes:
        what: the quantity, as the table shows it.
        limit: for the median.
        script: the benchmark that prints the rows.
        rows: a regular expression that the whole name of a row matches.
        reason: what a miss of this row comes from.
        at_least: the limit is the smallest value that meets it.
    """

    what: str
    limit: float
    script: str
    rows: str
    reason: Reason | None = None
    at_least: bool = False


@dataclass(frozen=True)
class Verdict:
    """A target with its rows; those without rows are not measured."""

    target: Target
    rows: tuple[Row, ...]  # worst first

    @property
    def excess(self) -> float:
        """How far the worst row is beyond the limit, as a factor: at most 1 if the limit is met."""
        return excess(self.target, self.rows[0])

    @property
    def met(self) -> int:
        """How many rows meet the limit."""
        return sum(excess(self.target, row) <= 1 for row in self.rows)


def figure(row: Row) -> float:
    """Return the median ratio of a row, or its own figure where nothing is beside it."""
    value: float = row["ours"] if row["ratio"] is None else row["ratio"]["median"]
    return value


def excess(target: Target, row: Row) -> float:
    """Return by which factor a row is beyond the limit: at most 1 if it meets it."""
    return target.limit / figure(row) if target.at_least else figure(row) / target.limit


def profile(
    results: Results, task: str, shape: str, machine: str = ""
) -> tuple[str, dict[str, tuple[float, float]]] | None:
    """Return the shape nearest to this one that has a profile, and the seconds of its parts, ours and the peer's.

    Profiles of the same processor are taken if there are any.
    """
    profiles: dict[str, dict[str, tuple[float, float]]] = {}
    rows = [row for row in results.get("excess", ()) if row["name"].startswith(f"where the time goes/{task}, ")]
    for row in [row for row in rows if processor(row) == machine] or rows:
        call, _, part = row["name"].rpartition(": ")
        profiles.setdefault(call.rpartition(", ")[2], {})[part] = (row["ours"], row["peer"] or 0.0)
    if not profiles:
        return None
    nearest = _nearest(profiles, shape)
    return nearest, profiles[nearest]


def _nearest(shapes: Iterable[str], shape: str) -> str:
    """The shape itself if it is there, else that with the nearest number of tokens."""
    return min(shapes, key=lambda one: (one != shape, abs(math.log(_tokens(one) / _tokens(shape)))))


def time_of_parts(results: Results, row: Row) -> str:
    """Return which parts of a call take longer than those of forward + backward, largest first.

    Where the shape has no profile, that of the nearest number of tokens is taken, and named.
    """
    task, _, shape = row["name"].partition("/")[2].rpartition(", ")
    found = profile(results, task, shape, processor(row))
    if found is None:
        return NO_PROFILE
    nearest, parts = found
    bare = sum(peer for _, peer in parts.values())
    more = _largest_first({part: ours - peer for part, (ours, peer) in parts.items()})
    text = f"`excess`, {nearest}: beside the {1e3 * bare:.0f} ms of forward and backward, {more}"
    ratio = sum(ours for ours, _ in parts.values()) / bare if bare else math.inf
    return text + _unexplained(ratio, row, nearest == shape)


def _unexplained(ratio: float, row: Row, same_shape: bool) -> str:
    """Return by how much the parts of a profile miss the ratio of a row, where that is more than `NEAR`."""
    if "ratio" not in row or abs(ratio / figure(row) - 1) <= NEAR:
        return ""
    what = "another run" if same_shape else "another shape"
    return f"; these parts, of {what}, give {ratio:.2f} in place of {figure(row):.2f}: the difference is not explained"


def _largest_first(seconds: Mapping[str, float]) -> str:
    ordered = sorted(seconds.items(), key=lambda one: -one[1])
    return ", ".join(f"{part} {1e3 * value:+.1f} ms" for part, value in ordered)


def _tokens(shape: str) -> int:
    batch, _, tokens = shape.partition(" x ")
    return int(batch) * int(tokens)


def statistics_of_long_inputs(results: Results, row: Row) -> str:
    """Return the parts of a call; for long inputs of BERT what the pass over the attention rows takes by itself."""
    shape, layers = row["name"].rpartition(", ")[2], 12
    alone = [one for one in results.get("kernels", ()) if shape == one["name"].replace("growth/all ", "1 x ")]
    if "/BERT full" not in row["name"] or not alone:
        return time_of_parts(results, row)
    more, statistics = 1e3 * (row["ours"] - row["peer"]), 1e3 * layers * alone[0]["ours"]
    text = f"{more:.0f} ms above forward and backward"
    return f"{text}; `kernels`: statistics of all rows of {layers} layers {statistics:.0f} ms"


def multiplications(results: Results, row: Row) -> str:
    """Return how many times as many multiplications attnlrp needs as relevance."""
    name = row["name"].partition("/")[2]
    model, shape = name.split()[0], name.rpartition(", ")[2]
    counts = {
        one["name"].rpartition(", ")[2]: figure(one)
        for one in results.get("excess", ())
        if one["name"].startswith(f"operations of matrix products/{model} attnlrp over relevance")
    }
    if not counts:
        return "multiplications of this model are not counted"
    count = counts[_nearest(counts, shape)]
    text = f"attnlrp needs {count:.2f} times the multiplications of relevance"
    if count > 1.005:
        text += ", which sends no gradient to queries and keys"
    attnlrp, relevance = (profile(results, f"{model} {task}", shape, processor(row)) for task in ("attnlrp", "none"))
    if attnlrp is None or relevance is None:
        return f"{text} (`excess`)"
    more = {part: ours - relevance[1].get(part, (0.0, 0.0))[0] for part, (ours, _) in attnlrp[1].items()}
    total = 1e3 * sum(ours for ours, _ in relevance[1].values())
    text += f"; `excess`, {attnlrp[0]}: beside the {total:.0f} ms of relevance, {_largest_first(more)}"
    return text + _unexplained(1 + 1e3 * sum(more.values()) / total, row, attnlrp[0] == shape)


def replayed(results: Results, row: Row) -> str:
    """Return what share of the peer's multiplications is needed: the most that equal speed would give."""
    wanted = row["name"].partition("/")[2]
    counts = {
        one["name"].partition("/")[2]: figure(one)
        for one in results.get("replays", ())
        if one["name"].startswith("operations of perturbation methods/")
    }
    if wanted not in counts:
        return "multiplications are not counted"
    share = counts[wanted]
    return (
        f"{share:.2f} of the multiplications of plain Captum are needed for the same scores (`replays`), so that "
        f"{1 / share:.2f} is the most at equal speed"
    )


def first_call(results: Results, row: Row) -> str:
    """Return the parts that only the first call has, or that take longer in it, largest first."""
    parts = [
        (one["ours"] - (one["peer"] or 0.0), one["name"].partition("/")[2])
        for one in results["excess"]
        if one["name"].startswith("first call of a process/") and " over " not in one["name"]
    ]
    largest = sorted(parts, reverse=True)[:6]
    listed = [f"{name} +{1e3 * more:.1f} ms" for more, name in largest]
    named = 1e3 * sum(more for more, _ in largest)
    more = 1e3 * (row["ours"] - row["peer"])
    return f"of {more:.1f} ms more than the second, {named:.1f} in: {', '.join(listed)} (`excess`)"


def encoder(results: Results, row: Row) -> str:
    """Return the processor time of the parts of a layer, and what two cores need at least for all of them."""
    parts = {
        one["name"].partition("/")[2]: one
        for one in results["efficient_rows"]
        if one["name"].startswith("one layer in processor seconds/")
    }
    if not parts:
        return NO_PROFILE
    listed = ", ".join(f"{name} {one['ours']:.2f} s (one thread {one['peer']:.2f})" for name, one in parts.items())
    least = 12 * sum(one["ours"] for one in parts.values()) / 2
    text = f"a layer takes with two threads {listed} of the processor, so that 12 layers take two cores at least "
    text += f"{least:.1f} s"
    whole = [one for one in results["efficient_rows"] if one["name"].endswith("processor seconds of all threads")]
    return f"{text}; {whole[0]['ours']:.1f} processor seconds in all" if whole else text


def _by_length(limits: Mapping[int, float]) -> list[tuple[float, str]]:
    """Return the limits of `over_backward`, each with the numbers of tokens that it holds for: a regular expression."""
    if list(limits) == [16]:
        return [(limits[16], "16")]
    if len(set(limits.values())) == 1:
        return [(next(iter(limits.values())), r"\d+")]
    return [(limits[16], "16|32"), (limits[128], LONG)]


def _class_linked() -> list[Target]:
    words = {"16|32": "16 and 32 tokens", LONG: "128 tokens and more", r"\d+": "any length", "16": "1 x 16"}
    found = []
    for model, tasks in LIMITS.items():
        for task, limits in tasks.items():
            for limit, lengths in _by_length(limits):
                batch = "1" if lengths == "16" else r"\d+"
                rows = rf"(growth )?over forward and backward/{model} {task}, {batch} x ({lengths})"
                where = "images of 224 x 224" if model == "ViT" else words[lengths]
                what = f'`explain(layers="{task}")` over forward + backward, {model}, {where}'
                found.append(Target(what, limit, "over_backward", rows, statistics_of_long_inputs))
        found.append(
            Target(
                f"attnlrp over relevance, {model}, every size",
                1.05,
                "over_backward",
                rf"over forward and backward/{model} attnlrp over relevance, .*",
                multiplications,
            )
        )
    return found


TARGETS: tuple[Target, ...] = (
    *_class_linked(),
    *(
        Target(
            f"perturbation methods, times faster than plain Captum, baseline `{baseline}`",
            2.0,
            "replays",
            rf"perturbation methods against plain Captum/.*, {baseline}, .*",
            replayed,
            at_least=True,
        )
        for baseline in ("pad", "removed")
    ),
    Target(
        "peak memory of `explain` over that of forward + backward, 8,192 tokens",
        1.05,
        "over_backward",
        "memory over forward and backward/.* 1 x 8192",
    ),
    Target("efficient rows, one head of 186 rows, µs a row", 200.0, "efficient_rows", "small calls/one head.*"),
    Target(
        "efficient rows, whole encoder of BERT-base shapes, 512 tokens, two cores, seconds",
        30.0,
        "efficient_rows",
        r"whole encoder/12 layers, 12 heads, 512 tokens",
        encoder,
    ),
    Target(
        "first `explain` of a process over the second",
        1.5,
        "excess",
        "first call of a process/explain, first over second",
        first_call,
    ),
    Target("import over torch and transformers, warm", 1.02, "explain", "import/over torch and transformers, warm"),
    Target(
        "import over torch and transformers, no bytecode yet",
        1.05,
        "explain",
        "import/over torch and transformers, cold.*",
    ),
    Target("command `subgraph`, processor seconds", 4.0, "excess", "commands/subgraph"),
    Target("effective statistics over flash attention on a GPU", 2.0, "gpu", "attention on a GPU/effective"),
    Target(
        "memory of effective statistics over flash attention on a GPU",
        1.2,
        "gpu",
        "attention on a GPU/effective memory",
    ),
    Target("neighbor counts on a GPU, seconds", 0.5, "gpu", "information on a GPU/neighbors"),
    Target("closed-form information on a GPU, seconds", 0.3, "gpu", "information on a GPU/closed form"),
    Target(
        '`explain(layers="full")` over forward + backward on a GPU, BERT, 128 tokens and more',
        1.08,
        "gpu",
        r"explain on a GPU/BERT full, \d+ x \d{3,}",
    ),
)


def judge(results: Results) -> list[Verdict]:
    """Return a verdict for each target: missed ones first, by how much, then met ones, then those without rows."""
    found = []
    for target in TARGETS:
        rows = [
            row
            for row in results.get(target.script, ())
            if "failed_check" not in row and re.fullmatch(target.rows, row["name"])
        ]
        found.append(Verdict(target, tuple(sorted(rows, key=lambda row: -excess(target, row)))))
    return sorted(found, key=lambda one: -one.excess if one.rows else 0.0)


def table(results: Results) -> list[str]:
    """Return the table as lines of Markdown."""
    text = ["| target | limit | worst figure | of | rows that meet it | met | why not |", "|---" * 7 + "|"]
    for one in judge(results):
        target = one.target
        limit = f"{'>=' if target.at_least else '<='} {target.limit:g}"
        if not one.rows:
            text.append(f"| {target.what} | {limit} | not measured | | | | |")
            continue
        worst, count = one.rows[0], len(one.rows)
        name = worst["name"].partition("/")[2]
        name += f" ({processor(worst)})" if len(processors(results[target.script])) > 1 else ""
        missed = one.met < count
        reason = target.reason(results, worst) if missed and target.reason else ""
        shown = ratio_text(worst) if worst["ratio"] else short(figure(worst))
        verdict = "**no**" if missed else "yes"
        text.append(f"| {target.what} | {limit} | {shown} | {name} | {one.met} of {count} | {verdict} | {reason} |")
    return text


def growth_measured(results: Results) -> list[str]:
    """Return for each model the largest text and the largest batch whose cost was measured."""
    rows = [row for row in results.get("over_backward", ()) if row["name"].startswith("growth ")]
    text = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        tokens = max(row["tokens"] for row in own if row["batch"] == 1)
        batch = max(row["batch"] for row in own)
        text.append(f"{model} to {tokens:,} tokens and a batch of {batch}")
    return text


def reason_of(results: Results, script: str, row: Row) -> str:
    """Return what the miss of a row comes from; empty where no target of this table holds for it."""
    for target in TARGETS:
        if target.reason and target.script == script and re.fullmatch(target.rows, row["name"]):
            return target.reason(results, row)
    return ""


def faster_peers(results: Results) -> list[str]:
    """Return a line for each comparison in which another package is faster."""
    text = []
    for row in results.get("peers", ()):
        if "failed_check" not in row and figure(row) < 1:
            name = row["name"].partition("/")[2]
            tokens = name.partition(", ")[2].split()[0]
            parts = time_of_parts(results, {"name": f"/MiniLM {name.split()[0]}, 1 x {tokens}"})
            text.append(f"- {name}: ours is {figure(row):.2f} times as fast. Parts of ours on MiniLM: {parts}.")
    replays = [row for row in results.get("replays", ()) if row["name"].startswith("perturbation methods")]
    slower = sorted(figure(row) for row in replays if figure(row) < 1)
    if slower:
        text.append(
            f"- Captum's perturbation methods, called plainly, in {len(slower)} of {len(replays)} settings: ours are "
            f"{slower[0]:.2f} to {slower[-1]:.2f} times as fast."
        )
    return text


def stored() -> dict[str, list[Row]]:
    """Return the stored rows by the name of their benchmark."""
    files = sorted(RESULTS.glob("*.jsonl"))
    return {path.stem.removesuffix("_gpu"): read_rows(path) for path in files}


if __name__ == "__main__":
    print("\n".join(table(stored())))
