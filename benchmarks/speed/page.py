"""How soon the page of a report is painted, and how long its steps hold up the browser, for a text of 2,000 tokens.

Each visit starts without a cache. Times are those of the browser, on the clock: other programs make them longer.

    python benchmarks/speed/page.py             # needs playwright and chromium
    python benchmarks/speed/page.py --turns 3
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # `benchmarks` is imported as a package

import torch
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.common import EMBEDDED_MODEL, check, result_row, run_parts
from benchmarks.inputs import load_tokenizer
from benchmarks.speed.timed_model import Rows
from hf_attn_mi import report

RESULTS = Path(__file__).parent / "results" / "page.jsonl"
TOKENS = 2000
FIRST_PAINT, LONGEST_STEP = 1.0, 0.05  # seconds: targets
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WATCH = """
window.steps = []; // [start, duration] of what holds up the browser for more than 50 ms
new PerformanceObserver((list) => window.steps.push(...list.getEntries().map((x) => [x.startTime, x.duration])))
  .observe({entryTypes: ["longtask"]});
"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def write_page(path: Path, tokens: int) -> int:
    """Write the report of a text of so many tokens by a random model, and return its tokens."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(EMBEDDED_MODEL)
    tokenizer.model_max_length = tokens + 48
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=tokens + 48, **sizes)
    model = BertForSequenceClassification(config).eval()
    text = (Path(__file__).parents[2] / "examples" / "review.txt").read_text(encoding="utf-8").strip()
    text = " ".join([text] * (1 + tokens // len(tokenizer(text)["input_ids"])))
    plain = {"token_set": False, "certificate": False, "subgraph": False}
    made = report(model, text, tokenizer=tokenizer, methods=("attention",), truncation=True, **plain)
    made.save(path)
    return len(made.items[0].explanation.tokens)


def visit(browser: Any, path: Path) -> dict[str, float]:
    """Return the seconds of one visit: first paint, longest later step, longest step of a click on a word."""
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(path.as_uri())
    page.locator("#provenance h2").wait_for()
    page.wait_for_timeout(200)
    paint = page.evaluate(PAINTED)
    later = [duration for start, duration in page.evaluate("window.steps") if start > paint]
    page.evaluate("window.steps.length = 0")
    page.locator("#text .w").nth(900).dispatch_event("click")
    page.locator("#text .links").wait_for()
    page.wait_for_timeout(200)
    clicked = [duration for _, duration in page.evaluate("window.steps")]
    context.close()
    return {"paint": paint / 1e3, "later": max(later, default=0) / 1e3, "click": max(clicked, default=0) / 1e3}


def long_page(browser: Any, tokens: int, turns: int) -> Rows:
    """Visit the page of a long text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.html"
        count = write_page(path, tokens)
        check(count >= tokens, f"the page shows {count} tokens")
        visits = [visit(browser, path) for _ in range(turns)]
    for name, key, most in (
        ("first paint", "paint", FIRST_PAINT),
        ("longest step after it", "later", LONGEST_STEP),
        ("longest step of a click on a word", "click", LONGEST_STEP),
    ):
        seconds = [one[key] for one in visits]
        yield result_row(f"page of {tokens} tokens/{name}", f"{name}, in the browser", seconds, at_most=most)


def main() -> int:
    """Run the benchmark; the exit status is 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        parts = [("page", partial(long_page, browser, TOKENS, arguments.turns), [1])]
        _, failures = run_parts(parts, arguments.output, browser=f"chromium {browser.version}")
        browser.close()
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
