"""`ExplanationCallback`: how the explanations of a model change while the Trainer of transformers trains it."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer_callback import TrainerCallback

from hf_attn_mi.data.texts import read_texts_of
from hf_attn_mi.errors import HfAttnMiError, InvalidInputError, UnsupportedModelError
from hf_attn_mi.evaluation import estimate
from hf_attn_mi.methods import find_method
from hf_attn_mi.methods.heads import has_head
from hf_attn_mi.models.inspect_layers import inspect_layers
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.results.comparison import Comparison
from hf_attn_mi.tasks.arguments import check_flag, check_seed, check_whole_number
from hf_attn_mi.tasks.compare import DEFAULT_METRICS, compare
from hf_attn_mi.tasks.explain import explain
from hf_attn_mi.tasks.fit_information import fit_information
from hf_attn_mi.tasks.report import METHODS, report
from hf_attn_mi.tasks.state_collection import LEAST

FOLDER = "explanations"  # in the output folder of the Trainer
HEAD = "head"  # the method that returns the attention of a head of hf_attn_mi.heads
Logs = dict[str, float | str]


class ExplanationCallback(TrainerCallback):  # type: ignore[misc]
    """Measure and log every `every` steps how faithful the explanations are and how much the last layer tells.

    It measures before the first step, after every `every` steps and after the last step, on the same texts each time.
    The values go to `trainer.log`, and so to the log history and to every logger of the Trainer (TensorBoard, Weights &
    Biases, ...):

    - "explanation_comprehensiveness", "explanation_sufficiency" (or the chosen metrics): faithfulness of `method`, mean
      over the first `compared` texts; see `compare`.
    - "information_<site>", "information_<site>_lower_bound" and "information_<site>_upper_bound": mutual information of
      the last layer's states with the model's output over all texts, in nats; the sites are "tokens" (a token drawn at
      random) and "first" (the first token). "information_ceiling": no state has more. See `fit_information`.
    - "head_entropy" (nats), "head_concentration" (1 - entropy / ln(tokens): 0 for uniform attention, 1 for one token)
      and "head_temperature" of an attention head of `hf_attn_mi.heads`, mean over its heads and the `compared` texts.
    - "explanation_of_text_<i>": the prediction for each of the first `examples` texts with the words that made it.

    The report on these texts is written to `<output_dir>/explanations/step-<step>.html`.

    The training is the same as without the callback: training mode, gradients, hooks and random number generators are
    restored. Where something cannot be computed before the first step, an error says why; later a warning says so, and
    the training goes on. The processes of data-parallel training share the forward passes for the information, and the
    first process does the rest.

    Args:
        trainer: the Trainer; add the callback to it with `trainer.add_callback`.
        texts: the sample; as `dataset` of `fit_information`: texts or pairs, a data set, a file or a Hub name. At least
            50 with `information`; a few hundred make the bounds narrow.
        every: training steps between two measurements.
        tokenizer: the tokenizer for the texts; by default the Trainer's `processing_class`.
        method: the method that scores the tokens, as in `explain`.
        metrics: names of `evaluation.METRICS` that need no rationales.
        compared: number of texts, from the first on, for faithfulness and for the attention of the head.
        examples: number of texts, from the first on, in the report; 0 writes none.
        report_options: further arguments of `report`, such as {"subgraph": True}.
        information: whether the information of the last layer is estimated.
        limit: maximum number of texts to read; None for all.
        batch_size: maximum number of inputs in one forward pass.
        seed: the random seed for every random draw of a measurement.

    Raises:
        InvalidInputError: an argument is wrong; the message names it.
        UnsupportedModelError: a Trainer that splits the weights among processes (FSDP, DeepSpeed).

    Example:
        >>> trainer.add_callback(ExplanationCallback(trainer, texts, every=200))     # doctest: +SKIP
        >>> trainer.train()                                                          # doctest: +SKIP
    """

    def __init__(
        self,
        trainer: Any,
        texts: Any,
        *,
        every: int = 500,
        tokenizer: Any = None,
        method: str = "relevance",
        metrics: Sequence[str] = DEFAULT_METRICS,
        compared: int = 32,
        examples: int = 2,
        report_options: Mapping[str, Any] | None = None,
        information: bool = True,
        limit: int | None = None,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        if not callable(getattr(trainer, "log", None)):
            raise InvalidInputError(f"trainer must be a Trainer of transformers, not a {type(trainer).__name__}.")
        if getattr(trainer, "is_fsdp_enabled", False) or getattr(trainer, "is_deepspeed_enabled", False):
            raise UnsupportedModelError(
                "trainer splits the weights among processes (FSDP or DeepSpeed), so that no process can run the model "
                "alone: explain saved checkpoints instead."
            )
        for name, value, least in (("every", every, 1), ("compared", compared, 1), ("examples", examples, 0)):
            check_whole_number(name, value, least)
        check_whole_number("batch_size", batch_size)
        check_flag("information", information)
        check_seed(seed)
        find_method(method)
        if report_options is not None and not isinstance(report_options, Mapping):
            raise InvalidInputError(
                f"report_options must be a dictionary of arguments of report, not {type(report_options).__name__}."
            )
        self.texts = list(read_texts_of(texts, limit=limit))
        least = LEAST if information else 1
        if len(self.texts) < least:
            reason = "information needs 20 for each class; information=False leaves it out" if information else "empty"
            raise InvalidInputError(f"texts has {len(self.texts)} entries, at least {least} are needed: {reason}.")
        self.trainer, self.every, self.method, self.metrics = trainer, every, method, metrics
        self.tokenizer = getattr(trainer, "processing_class", None) if tokenizer is None else tokenizer
        self.compared, self.examples, self.report_options = compared, examples, dict(report_options or {})
        self.information, self.batch_size, self.seed = information, batch_size, seed
        self._last_step: int | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **rest: Any) -> None:
        """Measure the model before the first step, unless a resumed run has done so; errors are raised."""
        self._last_step = max((line["step"] for line in state.log_history if _is_own(line)), default=None)
        if self._last_step != state.global_step:
            self._measure(args, state, control, model, begins=True)

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **rest: Any) -> None:
        """Measure after every `every` steps and after the last one; what cannot be computed gives a warning."""
        ends = control.should_training_stop or state.global_step >= state.max_steps
        if (ends or state.global_step % self.every == 0) and self._last_step != state.global_step:
            self._measure(args, state, control, model, begins=False)

    def _measure(self, args: Any, state: Any, control: Any, model: Any, *, begins: bool) -> None:
        self._last_step = step = state.global_step
        logs: Logs = {}
        first = state.is_world_process_zero
        # The information comes first, because all processes take part in it.
        parts: list[Callable[[Any, Path], Logs]] = [self._information] if self.information else []
        parts += [self._faithfulness, self._head, self._report] if first else []
        page = Path(args.output_dir) / FOLDER / f"step-{step:08d}.html"
        with _random_state_kept():
            for part in parts:
                try:
                    logs.update(part(model, page))
                except HfAttnMiError as error:
                    if begins:
                        raise
                    warnings.warn(f"step {step}: {part.__name__.strip('_')} was not measured: {error}", stacklevel=2)
        if first and logs:
            should_log = control.should_log  # Trainer.log takes it as done
            self.trainer.log(logs)
            control.should_log = should_log

    def _information(self, model: Any, page: Path) -> Logs:
        """Estimate and bounds of the last layer, in nats."""
        runner = EncoderRunner.of(model, self.tokenizer)
        encoded, _ = runner.encode(self.texts[:1], truncation=True)
        last = inspect_layers(runner, encoded[0]).layers[-1]
        profile = fit_information(
            model,
            self.texts,
            tokenizer=self.tokenizer,
            layers=[last],
            batch_size=self.batch_size,
            permutations=1,  # they serve the p-values alone, which are not logged
            seed=self.seed,
        )
        logs: Logs = {"information_ceiling": profile.ceiling}
        for place, site in enumerate(profile.sites):
            logs[f"information_{site.name}"] = float(profile.information.nats[place])
            logs[f"information_{site.name}_lower_bound"] = float(profile.information.lower_bound[place])
            logs[f"information_{site.name}_upper_bound"] = float(profile.information.upper_bound[place])
        return logs

    def _faithfulness(self, model: Any, page: Path) -> Logs:
        """Mean of each metric."""
        comparison = compare(
            model,
            self.texts[: self.compared],
            methods=[self.method],
            tokenizer=self.tokenizer,
            metrics=self.metrics,
            batch_size=self.batch_size,
            truncation=True,
            seed=self.seed,
        )
        assert isinstance(comparison, Comparison)  # of one target
        means = {name: estimate(values).mean for name, values in comparison.values[self.method].items()}
        return {f"explanation_{name}": mean for name, mean in means.items() if mean is not None}

    def _head(self, model: Any, page: Path) -> Logs:
        """Entropy and concentration of an attention head of this package; nothing for other models."""
        module: Any = EncoderRunner.of(model).model
        if not has_head(module):
            return {}
        explanations: Any = explain(  # a list of texts gives Results
            model,
            self.texts[: self.compared],
            method=HEAD,
            layers="summary",
            tokenizer=self.tokenizer,
            batch_size=self.batch_size,
            truncation=True,
        )
        heads = [one.layers[-1] for one in explanations]
        entropies = [float(head.entropy.double().mean()) for head in heads]
        logs: Logs = {"head_entropy": sum(entropies) / len(heads), "head_temperature": float(module.head.temperature)}
        shares = [1 - entropy / math.log(head.n) for entropy, head in zip(entropies, heads) if head.n > 1]
        return logs | ({"head_concentration": sum(shares) / len(shares)} if shares else {})

    def _report(self, model: Any, page: Path) -> Logs:
        """Write the report on the first texts and say what it says about each."""
        if not self.examples:
            return {}
        methods = (*METHODS, HEAD) if has_head(EncoderRunner.of(model).model) else METHODS
        options: dict[str, Any] = {
            "method": self.method,
            "methods": methods,
            "tokenizer": self.tokenizer,
            "subgraph": False,
            "truncation": True,
            "batch_size": self.batch_size,
        }
        record = report(model, self.texts[: self.examples], **(options | self.report_options))
        page.parent.mkdir(parents=True, exist_ok=True)
        record.save(page, overwrite=True)
        return {f"explanation_of_text_{i}": item.sentence for i, item in enumerate(record.items)}


def _is_own(line: Mapping[str, Any]) -> bool:
    """Whether this line of a log history comes from a measurement."""
    return any(name.startswith(("explanation_", "information_", "head_")) for name in line)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Restore the random number generators of Python, numpy and torch afterwards."""
    python, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
