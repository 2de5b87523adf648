"""Which ranking of attention weights finds the smallest set that carries a prediction, at the same promise?

Every ranking starts the same search (`hf_attn_mi.tasks.edge_search`) on the same inputs: a strict set, locally minimal
where the budget allows. A line of JSON for each input and ranking; what is there already is not run again.

    gradient        a_ij (g_ij - sum_k a_ik g_ik), g the gradient of the explained value; renewed while the prefix grows
    gradient_once   the same, never renewed
    relevance       a_ij <v_j - o_i, g_i> with the gradient of the linearized forward pass
    attattr         integrated gradients on the attention matrix of one layer at a time, of the probability
                    (Hao et al., arXiv 2004.11207), 20 steps
    eap_ig          weight times gradient, mean over inputs between the [MASK] embeddings and the input: edge
                    attribution patching (arXiv 2310.10348) with integrated gradients, single weights as edges, 5 steps
    head            importance of the head, |sum of weight times gradient| (arXiv 1905.10650), times the weight
    flow            information flow routes (arXiv 2403.00824), for layers of BERT; the class does not enter
    masks           masks learned with a factual and a counterfactual loss (CF^2, arXiv 2202.08816), 60 steps
    gim             gradient with respect to the attention logits by the backward rules of GIM (arXiv 2505.17630)
    relp            a_ij <v_j, g_i> by the backward rules of RelP (arXiv 2508.21258): `relevance`, not centered
    attention       the weight, a control
    random          a control

The last four rankings before the controls are in `peer_rankings.py`. The cost counts the passes of the search, not
those of the ranking before it.

    S=benchmarks/studies/causal/attention_weights.py
    python $S --data DATA --models MODELS --output RESULTS --inputs 30      # start or continue
    python $S --output RESULTS --table                                      # medians
    python $S --quick                                                       # embedded model, two texts
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # `benchmarks` is imported as a package

import torch
from torch import Tensor

from benchmarks.common import append_row, provenance, read_rows
from benchmarks.studies.causal.peer_rankings import flow_routes, gim, learned_masks, relp
from benchmarks.studies.causal.suites import SUITES, load_suite
from hf_attn_mi.capture import AttentionCall, capture_attention
from hf_attn_mi.models.output_heads import find_logits
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.models.targets import read_target
from hf_attn_mi.tasks.attention_edges import Edges
from hf_attn_mi.tasks.edge_ranking import EdgeScores, Scores, order_of
from hf_attn_mi.tasks.edge_search import EdgeSearch, Rule
from hf_attn_mi.tasks.restricted_forward import Candidate, RestrictedForward

STEPS_ON_ATTENTION, STEPS_ON_INPUTS = 20, 5
KEEP, TIE = 0.9, 1e-5


def weight_gradients(
    forward: RestrictedForward, arguments: dict[str, Any], of: Callable[[Any], Tensor], scale: dict[int, float]
) -> Scores:
    """Gradients with respect to the attention weights of every call, some of which are scaled first."""
    rows: dict[int, Tensor] = {}

    def replace(call: AttentionCall) -> Tensor:
        own = call.attention() * scale.get(call.index, 1.0)
        rows[call.index] = own if own.requires_grad else own.detach().requires_grad_()
        return rows[call.index]

    model = forward.runner.model
    with forward.paused(), torch.enable_grad(), capture_attention(model, lambda call: None, replace=replace):
        value = of(forward.runner.forward(arguments))
        slopes = torch.autograd.grad(value.sum(), list(rows.values()), allow_unused=True)
    given = zip(rows.items(), slopes)
    return {n: torch.zeros_like(own) if slope is None else slope for (n, own), slope in given}


def attattr(scores: EdgeScores, mask_id: int) -> Scores:
    """Integrated gradients of the probability on one attention matrix at a time."""
    forward, found = scores.forward, {}
    arguments, chosen = forward.runner.collate([forward.input]), forward.explained.target

    def probability(outputs: Any) -> Tensor:
        logits = find_logits(outputs, forward.runner.config)
        assert logits is not None
        return logits.softmax(-1)[:, chosen]

    for number, weights in scores.weights.items():
        total = torch.zeros_like(weights)
        for step in range(1, STEPS_ON_ATTENTION + 1):
            scale = {number: step / STEPS_ON_ATTENTION}
            total += weight_gradients(forward, arguments, probability, scale)[number]
        found[number] = weights * total / STEPS_ON_ATTENTION
    return found


def eap_ig(scores: EdgeScores, mask_id: int) -> Scores:
    """Weight times gradient, mean over inputs between [MASK] embeddings and the input."""
    forward = scores.forward
    arguments = forward.runner.collate([forward.input])
    table = forward.runner.input_embedding
    assert table is not None
    ids = arguments.pop("input_ids")
    special = torch.tensor(forward.input.special or (False,) * ids.shape[1])
    clean = table(ids).detach()
    corrupted = table(torch.where(special, ids, torch.full_like(ids, mask_id))).detach()
    target, total = forward.target.settled(), {n: torch.zeros_like(one) for n, one in scores.weights.items()}
    for step in range(1, STEPS_ON_INPUTS + 1):
        between = corrupted + (clean - corrupted) * step / STEPS_ON_INPUTS
        for n, slope in weight_gradients(forward, {**arguments, "inputs_embeds": between}, target, {}).items():
            total[n] += slope
    return {n: scores.weights[n] * slope / STEPS_ON_INPUTS for n, slope in total.items()}


def head_importance(scores: EdgeScores, mask_id: int) -> Scores:
    """The importance of the head times the attention weight."""
    return {n: one.sum((2, 3), keepdim=True).abs() * scores.weights[n] for n, one in scores.products.items()}


RANKINGS: dict[str, Callable[[EdgeScores, int], Scores]] = {
    "gradient": lambda scores, mask_id: scores.gradient(),
    "gradient_once": lambda scores, mask_id: scores.gradient(),
    "relevance": lambda scores, mask_id: scores.relevance(),
    "attattr": attattr,
    "eap_ig": eap_ig,
    "head": head_importance,
    "flow": flow_routes,
    "masks": learned_masks,
    "gim": gim,
    "relp": relp,
    "attention": lambda scores, mask_id: scores.attention(),
    "random": lambda scores, mask_id: scores.random(),
}


def run_input(
    runner: EncoderRunner, inputs: Any, rankings: list[str], budget: float, done: Callable[[dict[str, Any]], None]
) -> None:
    """Search a set by each of these rankings."""
    encoded, _ = runner.encode(inputs, special_known=True)
    target, (one,) = read_target(None, runner, encoded)
    mask_id = runner.mask_token_id or 0
    with RestrictedForward(runner, one, target, 16) as forward:
        scores = EdgeScores(forward, 0)
        rule = Rule(forward.whole, KEEP, True, TIE)
        none = forward.run([Candidate(Edges.of([]))])[0]
        shared = {"tokens": one.token_count, "edges": forward.edges.count, "p_all": forward.whole.probability}
        for name in rankings:
            if rule.sufficient(none):
                done({"ranking": name, **shared, "needs_attention": False})
                continue
            started, before = time.perf_counter(), forward.sequences
            order = order_of(scores.flat(RANKINGS[name](scores, mask_id)), forward.edges.present)
            search = EdgeSearch(forward, order, rule, budget=budget, adaptive=name == next(iter(RANKINGS)))
            found = search.run()
            size = None if found.numbers is None else len(found.numbers)
            places = [] if found.numbers is None else found.numbers.tolist()
            heads = {(forward.edges.call_of(edge).layer, forward.edges.call_of(edge).place(edge)[0]) for edge in places}
            done(
                {
                    "ranking": name,
                    **shared,
                    "needs_attention": True,
                    "prefix": found.prefix,
                    "size": size,
                    "minimal": found.group_size == 1,
                    "heads": len(heads),
                    "set": places if size is not None and size <= 1000 else None,
                    "forwards": search.spent,
                    "sequences": forward.sequences - before,
                    "seconds": time.perf_counter() - started,
                }
            )


def run_suite(name: str, options: argparse.Namespace, output: Path) -> None:
    """Run what is missing of one data set."""
    suite = load_suite(name, options.data, options.models)
    runner = EncoderRunner.of(suite.model, suite.tokenizer)
    there = {(row["suite"], row["input"], row["ranking"]) for row in read_rows(output)}
    for number in suite.order[: options.inputs]:
        missing = [ranking for ranking in options.rankings if (name, number, ranking) not in there]
        if not missing:
            continue
        key = {"suite": name, "input": number, "budget": options.budget}
        run_input(
            runner,
            suite.inputs(number),
            missing,
            options.budget,
            lambda row, key=key: append_row({**key, **row, **provenance()}, output),
        )


def table_of(rows: list[dict[str, Any]]) -> str:
    """Medians of each suite and ranking."""
    lines = [
        "| data | ranking | inputs | with a set | minimal | prefix | set | heads | forward passes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for suite, ranking in dict.fromkeys((row["suite"], row["ranking"]) for row in rows):
        mine = [r for r in rows if (r["suite"], r["ranking"]) == (suite, ranking) and r["needs_attention"]]
        sets = [row for row in mine if row["size"] is not None]
        cells = [len(mine), len(sets), sum(row["minimal"] for row in sets)]
        for field in ("prefix", "size", "heads", "forwards"):
            cells.append(f"{statistics.median(row[field] for row in sets):.0f}" if sets else "")
        lines.append(f"| {suite} | {ranking} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Run the study, or print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", type=Path, nargs="*", default=[])
    parser.add_argument("--output", type=Path, help="folder of the results")
    parser.add_argument("--suites", nargs="*", default=list(SUITES))
    parser.add_argument("--rankings", nargs="*", choices=list(RANKINGS), default=list(RANKINGS))
    parser.add_argument("--inputs", type=int, default=30)
    parser.add_argument("--budget", type=float, default=1000.0, help="forward passes for one search")
    parser.add_argument("--table", action="store_true", help="print the medians of what is there")
    parser.add_argument("--quick", action="store_true", help="the embedded model and two texts")
    options = parser.parse_args()
    if options.quick:
        options.suites, options.budget = ["quick"], min(options.budget, 200.0)
    with tempfile.TemporaryDirectory() as folder:
        output = (options.output or Path(folder)) / "attention_weights.jsonl"
        for suite in options.suites if not options.table else ():
            run_suite(suite, options, output)
        print(table_of(read_rows(output)))


if __name__ == "__main__":
    main()
