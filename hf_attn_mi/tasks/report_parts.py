"""The parts of a report beside the first explanations: what could not be computed is left out, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hf_attn_mi.errors import HfAttnMiError, InvalidInputError
from hf_attn_mi.models.encoded_input import EncodedInput
from hf_attn_mi.models.targets import Target
from hf_attn_mi.results.explanation import Explanation
from hf_attn_mi.results.record import Record
from hf_attn_mi.results.report_parts import AttentionDetail
from hf_attn_mi.results.results import Results
from hf_attn_mi.tasks.arguments import progress_bar
from hf_attn_mi.tasks.report_attention import attention_detail, default_level
from hf_attn_mi.tasks.report_inputs import LONG, ReportRun, ReportTargets

FEW_INPUTS = 20  # inputs up to which token sets and certificates are computed by default
FEW_PAGES = 4  # inputs up to which matrices are kept by default
STOPPED = "Interrupted before this was computed."
Part = TypeVar("Part")
RecordT = TypeVar("RecordT", bound=Record)


def explained_target(one: Explanation) -> Any:
    """The explained target, in a form that `target=` accepts."""
    return one.info.get("target", one.target)


class ReportParts:
    """Computes the parts of a report one after another; after Ctrl-C those that are left are not computed.

    Args:
        run: the inputs; its `interrupt` is set by Ctrl-C.
        first: the explanation of each input.

    Attributes:
        notes: for each input: part -> why it was not computed.
    """

    def __init__(self, run: ReportRun, first: Sequence[Explanation]) -> None:
        self.run, self.first = run, first
        self.longs = [run.is_long(one) for one in first]
        self.notes: list[dict[str, str]] = [{} for _ in first]

    def unless_interrupted(self, compute: Callable[[], Part], otherwise: Part) -> Part:
        """The result of `compute()`; `otherwise` after Ctrl-C, now or before."""
        if self.run.interrupt is None:
            try:
                return compute()
            except KeyboardInterrupt as stop:
                self.run.interrupt = stop
        return otherwise

    def further_methods(
        self, chosen: ReportTargets, names: Sequence[str], batch_size: int
    ) -> list[tuple[Explanation, ...]]:
        """For each input the explanations of its target by further methods; a method that fails is noted."""
        targets = chosen.main if chosen.is_function else list(map(explained_target, self.first))
        further: list[list[Explanation]] = [[] for _ in self.first]

        def explain(name: str) -> list[Explanation]:
            return self.run.explain(targets, method=name, layers="none", batch_size=batch_size)

        for name in names:
            try:
                results = self.unless_interrupted(lambda name=name: explain(name), None)  # type: ignore[misc]
                if results is None:
                    self._note(name, STOPPED)
                    continue
                if len(results) < len(self.first):
                    raise InvalidInputError(f"method {name!r} does not fit every input.")
            except (HfAttnMiError, ImportError) as error:
                self._note(name, str(error))
                continue
            for row, one in zip(further, results):
                row.append(one)
        if self.run.kept_passes is not None:  # nothing else reads them
            self.run.kept_passes.release()
        return [tuple(row) for row in further]

    def optional(
        self,
        name: str,
        wanted: bool | None,
        most: int,
        task: Callable[..., RecordT | Results[RecordT]],
        **options: Any,
    ) -> list[RecordT | None]:
        """The results of a task on each input; None and a note where they were disabled, or are not possible.

        Args:
            name: of the part.
            wanted: False: not computed; True: what is not possible is an error; None: computed for up to `most` inputs.
            most: see `wanted`.
            task: a task of the package.
            options: its options.
        """
        results: Sequence[RecordT | str] = ()
        reason = STOPPED
        if wanted is False:
            reason = f"Not asked for ({name}=False)."
        elif wanted is None and len(self.notes) > most:
            reason = f"Not computed for more than {most} inputs; {name}=True computes it."
        elif self.run.interrupt is None:
            try:
                results = self.run.part(task, self.longs, **options)
            except KeyboardInterrupt as stop:
                self.run.interrupt = stop
                finished = dict(zip(getattr(stop, "places", ()), getattr(stop, "results", ())))
                results = [finished.get(place, STOPPED) for place in self.run.kept]
            except HfAttnMiError as error:
                if wanted:
                    raise
                reason = str(error)
        if not results:
            self._note(name, reason)
            return [None] * len(self.notes)
        for note, one in zip(self.notes, results):
            if isinstance(one, str):
                note[name] = one
        return [None if isinstance(one, str) else one for one in results]

    def attention(
        self, encoded: Sequence[EncodedInput], targets: Sequence[Target], level: str | None
    ) -> list[AttentionDetail | None]:
        """The heads of each input, by default as much as a page can hold.

        Args:
            encoded: the inputs.
            targets: the target of each.
            level: see `report`.
        """
        if level is None and len(encoded) > FEW_INPUTS:
            self._note("attention", f"Not computed for more than {FEW_INPUTS} inputs; attention='top' computes it.")
            return [None] * len(encoded)
        details: list[AttentionDetail | None] = []
        with progress_bar(len(encoded), "attention", "input") as bar:
            for i, (one, target) in enumerate(zip(encoded, targets)):
                self.notes[i]["attention"] = STOPPED
                details.append(
                    self.unless_interrupted(lambda i=i, x=one, y=target: self._of_heads(i, x, y, level), None)  # type: ignore[misc]
                )
                bar.update()
        return details

    def _of_heads(self, i: int, one: EncodedInput, target: Target, level: str | None) -> AttentionDetail | None:
        explanation, note = self.first[i], self.notes[i]
        heads = sum(len(layer.rank) for layer in explanation.layers)
        if self.longs[i]:
            note["attention"] = f"{LONG}Attention is that of one window; attention_maps draws a part of the text."
            return None
        chosen = level or ("none" if len(self.first) > FEW_PAGES else default_level(one.token_count, heads))
        try:
            detail = attention_detail(self.run.runner, one, target, explanation.layers, chosen)
        except HfAttnMiError as error:
            if level is not None:
                raise
            note["attention"] = str(error)
            return None
        del note["attention"]
        return detail

    def _note(self, name: str, reason: str) -> None:
        for note in self.notes:
            note[name] = reason
