"""In which layer is the output known, and does the order of attention follow the information of each token?

    S=benchmarks/studies/information
    python $S/over_layers.py --quick
    python $S/over_layers.py --model PATH --data train.jsonl.gz --explain-data dev.jsonl.gz --plot FILE --docs PAGE

A profile of texts gives the mutual information between the states of each layer and the model's output. Other texts
then give, for each of their tokens, the information KL( q(Y|h) || q(Y) ) of its state behind a layer; its order is
compared with that of the attention which the token receives in this layer (raw, effective, efficient; no special
tokens). Two halves of the profile give the reliability of that order.
"""

import argparse
import itertools
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])  # `benchmarks` is imported as a package

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.common import EMBEDDED_MODEL
from hf_attn_mi import InformationProfile, attention_maps, explain, fit_information
from hf_attn_mi.data.texts import read_texts_of
from hf_attn_mi.evaluation import RankAgreement, rank_agreement
from hf_attn_mi.results.plots import COLORS, check_figure_path, new_figure, plot_information, save_figure

KINDS = ("raw", "effective", "efficient")
SUBJECTS = ("film", "story", "first hour", "cast", "ending", "music", "dialogue", "camera work", "script", "second act")
PREDICATES = (
    "is warm and very funny",
    "is a mess from start to end",
    "moves slowly, but it moves",
    "is dull",
    "is wonderful",
    "could have been shorter",
    "is a joy to watch",
    "has no charm at all",
    "is neither good nor bad",
    "is gripping",
    "left me cold",
    "is clever and tender",
    "is painfully loud",
    "holds a few surprises",
    "is a complete waste of time",
    "is beautifully made, if a little cold",
    "never finds its feet",
    "is among the best of this year",
    "is flat",
    "is better than I had feared",
    "made half of the audience leave",
    "is strange, uneven and finally moving",
)
READING = """Orders are compared within each text, over its tokens that are not special: the attention that a token
receives in layer i with KL( q(Y|h) || q(Y) ) of its state behind this layer. Intervals (95 %) resample texts. *Halves*:
rho of that information by one half of the profile with that by the other; *reliability*: what two whole profiles
would reach with each other (Spearman-Brown); *index*: its square root, what an order that is exactly true would reach
on average."""


def main() -> None:
    """Print information over layers and the agreement of attention with it; on request a figure and a page's part."""
    options = parse()
    if options.plot is not None:
        check_figure_path(options.plot)
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, dtype=torch.float32)
    fitted, explained = texts_of(options)
    profile = fit_information(
        model, fitted, tokenizer=tokenizer, estimator=options.estimator, permutations=options.permutations
    )
    print(profile, f"\n{ceiling_line(profile)}\n", flush=True)
    measured = measure(model, tokenizer, profile, explained)
    agreements = {
        layer: {
            kind: rank_agreement(columns[kind], columns["information"], halves=columns["halves"] or None)
            for kind in KINDS
            if len(columns[kind]) == len(explained)
        }
        for layer, columns in measured.items()
    }
    curve = ("Mutual information with the output, nats: bounds; estimate [95 %], family-wise p-value", profile.table())
    tables = agreement_tables(agreements, {layer: differing(columns) for layer, columns in measured.items()})
    for title, rows in tables:
        print(f"{title}\n{aligned(rows)}\n")
    print(f"{time.perf_counter() - started:.0f} s")
    if options.plot is not None:
        plot(profile, agreements, options.plot)
    if options.docs is not None:
        write_docs(options, profile, len(explained), [curve, *tables])


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(EMBEDDED_MODEL), help="Hub name or folder of a classifier")
    parser.add_argument("--data", help="texts for the profile: a file, folder or Hub name (default: built-in ones)")
    parser.add_argument("--limit", type=int, default=2000, help="texts for the profile")
    parser.add_argument("--explain-data", help="texts to compare attention on (default: those that follow in --data)")
    parser.add_argument("--explain", type=int, default=200, metavar="N", help="how many of them")
    parser.add_argument("--estimator", default="auto")
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="built-in texts, estimator probe, under a minute")
    parser.add_argument("--plot", type=Path, help="write the figure")
    parser.add_argument("--docs", type=Path, help="page whose part between the markers is replaced (needs --plot)")
    parser.add_argument("--name", default="", help="name of the part, a word, for pages with several parts")
    options = parser.parse_args()
    if options.docs is not None and options.plot is None:
        parser.error("--docs needs --plot: the page shows the figure")
    if options.quick:
        options.limit, options.explain, options.estimator, options.permutations = 200, 12, "probe", 50
    return options


def texts_of(options: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """Return the texts for the profile, and other texts to explain."""
    if options.data is None:
        built_in = [f"The {subject} {predicate}." for predicate, subject in itertools.product(PREDICATES, SUBJECTS)]
        order = torch.randperm(len(built_in), generator=torch.Generator().manual_seed(0)).tolist()
        first = [built_in[i] for i in order]
    else:
        more = options.explain if options.explain_data is None else 0
        first = list(read_texts_of(options.data, limit=options.limit + more))
    fitted, rest = first[: options.limit], first[options.limit :]
    if options.explain_data is not None:
        rest = list(read_texts_of(options.explain_data, limit=options.explain))
    if not rest:
        raise SystemExit(f"{len(first)} texts are too few for --limit {options.limit} and more of them to explain")
    return fitted, rest[: options.explain]


def measure(
    model: Any, tokenizer: Any, profile: InformationProfile, texts: list[Any]
) -> dict[int, dict[str, list[Tensor]]]:
    """Return for each attention layer what its tokens received and their information, one tensor a text."""
    measured: dict[int, dict[str, list[Tensor]]] = {}
    for text, explanation in zip(
        texts, explain(model, texts, tokenizer=tokenizer, method="attention", profile=profile, truncation=True)
    ):
        words = ~torch.tensor(explanation.special)  # special tokens are left out
        information = {layer["layer"]: layer for layer in explanation.information["layers"]}
        pair = text if isinstance(text, tuple) else (text,)
        inputs = tokenizer(*pair, truncation=True, return_tensors="pt")
        maps = attention_maps(model, inputs, tokenizer=tokenizer, kind="efficient")
        efficient = {layer: matrix.mean(-2) for layer, matrix in zip(maps.layers, maps.matrices)}
        for statistics in explanation.layers:
            if statistics.layer + 1 not in information:  # the states after attention layer i have index i + 1
                continue
            layer = information[statistics.layer + 1]
            columns = measured.setdefault(statistics.layer, {name: [] for name in (*KINDS, "information", "halves")})
            columns["information"].append(torch.tensor(layer["kl"], dtype=torch.float64)[words])
            if layer["split_half"]:
                columns["halves"].append(torch.tensor(layer["split_half"], dtype=torch.float64)[:, words])
            received = (statistics.received, statistics.received_effective, efficient[statistics.layer])
            for kind, weights in zip(KINDS, received):
                if weights is not None:  # effective attention is not computed where queries see different keys
                    columns[kind].append(weights[:, words])
    return measured


def ceiling_line(profile: InformationProfile) -> str:
    """Return a sentence: the share of the ceiling in the state that the output is computed from."""
    check = profile.ceiling_check()
    if check["share"] is None:
        return "the output is not computed from the last state of one token: no ceiling check"
    low, high = check["interval"]
    state = f"the last state of the token that the output is computed from ({check['site']})"
    return f"{state} holds {check['share']:.1%} [{low:.1%}, {high:.1%}] of the ceiling"


def agreement_tables(
    agreements: dict[int, dict[str, RankAgreement]], differs: dict[int, dict[str, float]]
) -> list[tuple[str, list[list[str]]]]:
    """Return two titled tables: agreement beside its reliability, and agreement by spread of the attention."""
    header = ["layer", "attention", "not raw", "texts", "tau-b", "rho", "heads from", "to"]
    means = [[*header, "halves", "reliability", "index of reliability"]]
    strata = [["layer", "attention", "most uneven", "middle", "flattest", "uneven less flattest"]]
    for layer, kinds in agreements.items():
        for kind, agreement in kinds.items():
            total, reliability = agreement.overall, agreement.reliability
            heads = [head.rho for head in agreement.heads if head.rho is not None]
            extremes = [f"{extreme(heads):+.2f}" for extreme in (min, max)] if heads else ["none", "none"]
            cells = ["none"] * 3
            if reliability is not None:
                cells = [
                    cell(reliability.halves.rho, reliability.halves.rho_interval),
                    cell(reliability.full, reliability.full_interval),
                    cell(reliability.index, reliability.index_interval),
                ]
            tau, rho = cell(total.tau, total.tau_interval), cell(total.rho, total.rho_interval)
            share = f"{differs[layer][kind]:.0%}"
            means.append([str(layer), kind, share, str(total.inputs), tau, rho, *extremes, *cells])
            parts = [cell(part.agreement.tau, part.agreement.tau_interval) for part in agreement.strata]
            contrast = agreement.contrast
            parts.append("none" if contrast is None else cell(contrast.tau, contrast.tau_interval))
            strata.append([str(layer), kind, *(parts if len(parts) == 4 else ["none"] * 4)])
    return [
        (
            "Rank agreement of attention received with information, mean over texts and heads (not raw: share of these "
            "whose attention is not the raw one; halves, reliability and its index are rho, as in `Reliability`)",
            means,
        ),
        ("Tau-b by spread of the attention, terciles of all pairs of a text and a head", strata),
    ]


def differing(columns: dict[str, list[Tensor]]) -> dict[str, float]:
    """Return for each kind the share of (text, head) pairs whose attention differs from raw attention."""
    shares = {}
    for kind in KINDS:
        pairs = zip(columns[kind], columns["raw"])
        differs = [((weights - raw).abs().amax(-1) > 1e-5).double() for weights, raw in pairs]
        shares[kind] = float(torch.cat(differs).mean()) if differs else 0.0
    return shares


def cell(mean: float | None, interval: tuple[float, float] | None) -> str:
    """Return "mean [low, high]"."""
    if mean is None:
        return "none"
    return f"{mean:+.2f}" + ("" if interval is None else f" [{interval[0]:+.2f}, {interval[1]:+.2f}]")


def aligned(rows: list[list[str]]) -> str:
    """Return the rows in columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def plot(profile: InformationProfile, agreements: dict[int, dict[str, RankAgreement]], path: Path) -> None:
    """Draw information over layers, and rho over layers with its reliability."""
    figure = new_figure(11.0, 4.2)
    left, right = figure.subplots(1, 2)
    plot_information(profile, ax=left)
    styles = {"raw": ("-", 3.5), "effective": ("--", 2.5), "efficient": (":", 1.5)}  # all visible where they agree
    for color, (kind, (style, width)) in zip(COLORS, styles.items()):
        overall = {layer: kinds[kind].overall for layer, kinds in agreements.items() if kind in kinds}
        overall = {layer: agreement for layer, agreement in overall.items() if agreement.rho_interval is not None}
        if overall:
            layers, line = list(overall), {"linestyle": style, "linewidth": width, "marker": "o", "markersize": 4}
            low, high = zip(*(agreement.rho_interval for agreement in overall.values()))
            right.fill_between(layers, low, high, color=color, alpha=0.18, linewidth=0)
            right.plot(layers, [agreement.rho for agreement in overall.values()], color=color, label=kind, **line)
    reliabilities = {layer: next(iter(kinds.values())).reliability for layer, kinds in agreements.items()}
    for name, style in (("full", ":"), ("index", "--")):
        values = {
            layer: getattr(reliability, name) for layer, reliability in reliabilities.items() if reliability is not None
        }
        label = {"full": "reliability of the profile", "index": "index of reliability"}[name]
        right.plot(
            list(values),
            [v if v is not None else float("nan") for v in values.values()],
            style,
            color="black",
            linewidth=1,
            label=label,
        )
    right.axhline(0.0, color="gray", linewidth=0.8)
    right.set_xticks(list(agreements))
    right.set_xlabel("attention layer")
    right.set_ylabel("Spearman's rho with the information")
    right.set_ylim(top=1.05)
    right.set_title("attention received: mean over texts and heads", fontsize="medium")
    right.grid(alpha=0.25)
    right.legend(fontsize="small")
    save_figure(figure, path)


def write_docs(options: argparse.Namespace, profile: InformationProfile, explained: int, tables: list[Any]) -> None:
    """Replace the part of the page between this script's markers, or append it."""
    start = " ".join(filter(None, ["<!-- generated: information_over_layers", options.name, "-->"]))
    end = "<!-- end generated -->"
    data = " and ".join(f"`{'/'.join(Path(x).parts[-2:])}`" for x in (options.data, options.explain_data) if x)
    figure = Path(os.path.relpath(options.plot, options.docs.parent)).as_posix()
    parts = [
        start,
        f"Model `{profile.info['model']}`, {profile.n} texts in the profile, {explained} others explained "
        f"({data or 'built-in texts'}); estimator `{options.estimator}`, {options.permutations} permutations; "
        f"made by `benchmarks/studies/information/over_layers.py`. Ceiling {profile.ceiling:.4f} nats; "
        f"{ceiling_line(profile)}.",
        f"![Information over layers, and agreement of attention with it]({figure})",
        *(f"{title}:\n\n{markdown(rows)}" for title, rows in tables),
        READING,
        *(f"Warning: {note}" for note in profile.info["warnings"]),
        end,
    ]
    text = options.docs.read_text(encoding="utf-8") if options.docs.exists() else ""
    part = "\n\n".join(parts)
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    text = pattern.sub(lambda _: part, text) if pattern.search(text) else f"{text.rstrip()}\n\n{part}\n".lstrip()
    options.docs.write_text(text, encoding="utf-8")


def markdown(rows: list[list[str]]) -> str:
    """Return the rows as a table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


if __name__ == "__main__":
    main()
