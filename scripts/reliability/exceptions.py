"""Exceptions and interrupts at random moments of every task: everything is restored, and no lock stays locked.

python -m scripts.reliability.exceptions --count 300 --seed 0

First every kind of exception is raised in every task: before and after the forward of a random module, and in a random
call of PyTorch (allocations among them). Then Ctrl-C (a signal, or PyThreadState_SetAsyncExc) comes at `--count`
random moments. After each, the model and the process are compared with their state before, another thread takes the
lock of the model, and from time to time the task runs again and gives the same result.
"""

from __future__ import annotations

import ctypes
import random
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from hf_attn_mi import (
    HfAttnMiError,
    attention_maps,
    capture_attention,
    certify,
    compare,
    explain,
    fit_information,
    minimal_attention,
    minimal_tokens,
    recheck,
)
from hf_attn_mi import report as report_page
from scripts.reliability.common import (
    TEXTS,
    arguments,
    bert,
    changes,
    locks_free,
    model_state,
    process_state,
    quick_collections,
    report,
    tokenizer,
)

KINDS: tuple[type[BaseException], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    MemoryError,
    torch.OutOfMemoryError,
    StopIteration,
    SystemExit,
    KeyboardInterrupt,
)
POINTS = ("before a forward", "after a forward", "in a call of PyTorch")
FUNCTIONS = ("zeros", "empty", "zeros_like", "stack", "cat", "einsum", "matmul", "where", "arange", "tensor", "no_grad")
INPUTS = list(TEXTS[:3])
AGAIN_EVERY = 10  # runs


class Tasks:
    """Every task on one tiny model."""

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self.model = bert()
        self.encoded = tokenizer()(INPUTS, padding=True, return_tensors="pt")
        words = {"tokenizer": tokenizer()}
        data = [f"{'good' if i % 2 else 'bad'} film number {i}" for i in range(60)]
        found = minimal_tokens(self.model, INPUTS[0], budget=10.0, **words)
        self.calls: dict[str, Callable[[], Any]] = {
            **{
                f"explain: {method}": lambda method=method: explain(self.model, INPUTS, method=method, **words)
                for method in ("relevance", "attnlrp_iterative", "effective", "integrated_gradients", "occlusion")
            },
            "certify": lambda: certify(self.model, INPUTS[:2], checked_rows=2, **words),
            "minimal_tokens": lambda: minimal_tokens(self.model, INPUTS[:2], budget=10.0, **words),
            "recheck": lambda: recheck(self.model, found, **words),
            "compare": lambda: compare(self.model, INPUTS[:2], methods=["attention", "random"], **words),
            "attention_maps": lambda: attention_maps(self.model, INPUTS, **words),
            "fit_information": lambda: fit_information(
                self.model, data, estimator="gaussian", permutations=9, batch_size=16, **words
            ),
            "minimal_attention": lambda: minimal_attention(self.model, INPUTS[:2], budget=10.0, unit="head", **words),
            "report": lambda: report_page(self.model, INPUTS[:2], token_set=False, subgraph=False, **words),
            "several targets": lambda: explain(self.model, INPUTS, targets="all", **words),
            "windows": lambda: explain(self.model, f"{INPUTS[2]} " * 8, stride=4, **words),
            "capture_attention": self.capture,
        }
        if names is not None:
            self.calls = {name: self.calls[name] for name in names}

    def capture(self) -> Any:
        """A forward pass inside `capture_attention`."""
        with torch.no_grad(), capture_attention(self.model) as capture:
            self.model(**self.encoded)
        return len(capture.calls)


class Injection:
    """Raises one exception at the n-th of some points; counts them where n is 0."""

    def __init__(self, kind: type[BaseException], number: int) -> None:
        self.kind, self.number, self.passed = kind, number, 0

    def __call__(self, *_: Any) -> None:
        self.passed += 1
        if self.passed == self.number:
            raise self.kind("injected")

    @contextmanager
    def at(self, point: str, model: torch.nn.Module) -> Iterator[None]:
        """Inside, call this object at every point of a kind."""
        if point == "in a call of PyTorch":
            originals = {name: getattr(torch, name) for name in FUNCTIONS}

            def watched(original: Callable[..., Any]) -> Callable[..., Any]:
                def call(*values: Any, **options: Any) -> Any:
                    self()
                    return original(*values, **options)

                return call

            for name, original in originals.items():
                if name != "no_grad":
                    setattr(torch, name, watched(original))
            try:
                yield
            finally:
                for name, original in originals.items():
                    setattr(torch, name, original)
            return
        before = point == "before a forward"
        handles = [
            module.register_forward_pre_hook(self) if before else module.register_forward_hook(self)
            for module in model.modules()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class Checker:
    """Compares the model, the process and the results with those before."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks, self.failures, self.runs, self.shown = tasks, list[str](), 0, 0
        self.results = {name: call() for name, call in tasks.calls.items()}
        for call in tasks.calls.values():  # twice: libraries import and cache
            call()
        self.model, self.process = model_state(tasks.model), process_state()

    def check(self, name: str, what: str) -> None:
        """Note what is not as before after a run of a task."""
        self.runs += 1
        wrong = changes(self.model, model_state(self.tasks.model)) + changes(self.process, process_state())
        if wrong:
            self.failures.append(f"{name}, {what}: {', '.join(wrong)} changed")
            self.model, self.process = model_state(self.tasks.model), process_state()
        if not locks_free({name: self.tasks.model}):
            self.failures.append(f"{name}, {what}: the lock is locked")
        if self.runs % AGAIN_EVERY == 0:
            try:
                if not same(self.tasks.calls[name](), self.results[name]):
                    self.failures.append(f"{name}, {what}: the next run gives another result")
            except HfAttnMiError as error:
                self.failures.append(f"{name}, {what}: the next run is refused: {error}")
        for failure in self.failures[self.shown :]:
            print(failure, file=sys.stderr, flush=True)
        self.shown = len(self.failures)


def same(left: Any, right: Any) -> bool:
    """Whether two results are equal but for their times."""
    return _without_times(left) == _without_times(right)


def _without_times(result: Any) -> Any:
    if hasattr(result, "to_dict"):
        data = result.to_dict()
    elif hasattr(result, "to_dicts"):
        data = result.to_dicts()
    else:
        return result
    return _clean(data)


def _clean(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _clean(item) for name, item in data.items() if name not in ("seconds", "memory", "costs", "cost")}
    return [_clean(item) for item in data] if isinstance(data, list | tuple) else data


def inject(tasks: Tasks, checker: Checker, rng: random.Random, each: int) -> Counter[str]:
    """Raise every kind of exception at random points of every task; returns what became of them."""
    outcomes: Counter[str] = Counter()
    for name, call in tasks.calls.items():
        for point in POINTS:
            call()  # facts about the model are computed anew after hooks came and went, and kept
            count = Injection(RuntimeError, 0)
            with count.at(point, tasks.model):
                call()
            for kind in KINDS if count.passed else ():
                for _ in range(each):
                    injection = Injection(kind, rng.randint(1, count.passed))
                    try:
                        with injection.at(point, tasks.model):
                            call()
                        if injection.passed < injection.number:
                            outcomes["not reached"] += 1
                            continue
                        outcomes["answered"] += 1  # a method that failed is a row of a comparison
                        if not issubclass(kind, Exception):
                            checker.failures.append(f"{name}, {kind.__name__} {point}: it was swallowed")
                    except kind:
                        outcomes["the same exception"] += 1
                    except HfAttnMiError as error:
                        outcomes["documented error"] += 1
                        if not issubclass(kind, Exception):
                            checker.failures.append(f"{name}, {kind.__name__} {point}: became {error}")
                    except BaseException as error:
                        if isinstance(error.__cause__, kind):  # of a StopIteration in a generator (PEP 479)
                            outcomes["the same exception"] += 1
                            continue
                        outcomes["another exception"] += 1
                        checker.failures.append(f"{name}, {kind.__name__} {point}: became {type(error).__name__}")
                    checker.check(name, f"{kind.__name__} {point} (number {injection.number})")
    return outcomes


def interrupt(tasks: Tasks, checker: Checker, rng: random.Random, count: int) -> Counter[str]:
    """Send Ctrl-C at random moments; returns how many came while a task was running."""
    outcomes: Counter[str] = Counter()
    seconds = {}
    for name, call in tasks.calls.items():
        started = time.perf_counter()
        call()
        seconds[name] = time.perf_counter() - started
    main_thread = threading.get_ident()
    for number in range(count):
        name = list(tasks.calls)[number % len(tasks.calls)]
        moment, by_signal = rng.uniform(0, seconds[name]), number % 2 == 0

        def send(by_signal: bool = by_signal) -> None:
            if by_signal:
                signal.raise_signal(signal.SIGINT)  # the handler runs in the main thread
            else:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(main_thread), ctypes.py_object(KeyboardInterrupt)
                )

        timer = threading.Timer(moment, send)
        came = False
        try:
            timer.start()
            tasks.calls[name]()
            timer.cancel()
            timer.join()
            time.sleep(0.002)  # an interrupt that is under way arrives here
        except KeyboardInterrupt:
            came = True
        except Exception as error:
            came = True
            checker.failures.append(f"{name}, Ctrl-C {number}: became {type(error).__name__}: {error}")
        outcomes["interrupted" if came else "finished before"] += 1
        timer.join()
        checker.check(name, f"Ctrl-C {number} ({'signal' if by_signal else 'SetAsyncExc'})")
    return outcomes


def run(count: int, seed: int, each: int = 1, every: Sequence[str] | None = None) -> dict[str, Any]:
    """Inject every kind of exception `each` times at every kind of point, then `count` interrupts.

    Args:
        count: the number of interrupts.
        seed: the random seed for the points and moments.
        each: times that a kind is raised at a kind of point of a task.
        every: names of the tasks; None for all.
    """
    started, rng = time.perf_counter(), random.Random(seed)
    with warnings.catch_warnings(), quick_collections():
        warnings.simplefilter("ignore")
        tasks = Tasks(every)
        checker = Checker(tasks)
        exceptions = inject(tasks, checker, rng, each)
        interrupts = interrupt(tasks, checker, rng, count)
    return {
        "count": count,
        "seed": seed,
        "tasks": list(tasks.calls),
        "kinds": [kind.__name__ for kind in KINDS],
        "points": list(POINTS),
        "injected": sum(exceptions.values()),
        "outcomes": dict(exceptions),
        "interrupts": dict(interrupts),
        "seconds": round(time.perf_counter() - started, 1),
        "failures": checker.failures,
    }


def main() -> int:
    """Run and report."""
    options = arguments("Exceptions and interrupts at random moments.", 300).parse_args()
    torch.set_num_threads(1)
    result = run(options.count, options.seed)
    for failure in result["failures"][:40]:
        print(failure, file=sys.stderr)
    sentence = (
        f"{len(result['kinds'])} kinds of exceptions at {len(result['points'])} kinds of points in "
        f"{len(result['tasks'])} tasks, {result['injected']} in all, and {result['count']} interrupts "
        f"({result['interrupts'].get('interrupted', 0)} while the task was running): model, process and locks "
        f"{'as before each time' if not result['failures'] else 'NOT as before'}."
    )
    report("exceptions", result, sentence, write=options.write)
    return int(bool(result["failures"]))


if __name__ == "__main__":
    sys.exit(main())
