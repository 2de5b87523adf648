"""`Explainer`: `explain` as a function of batches of columns, for `datasets.map`, Ray and other engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import transformers

from hf_attn_mi.data.corpus_columns import find_columns
from hf_attn_mi.data.row_source import as_rows
from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.models.runner import EncoderRunner
from hf_attn_mi.results.information_profile import InformationProfile
from hf_attn_mi.tasks.arguments import check_choice
from hf_attn_mi.tasks.batch_explainer import BatchExplainer, ExplainOptions
from hf_attn_mi.tasks.corpus_shard import ShardExplainer
from hf_attn_mi.tasks.each_input import ERRORS

_OF_ROW = ("row", "place", "id", "text", "text_pair", "label", "label_name")  # the caller has them


class Explainer:
    """Explains batches of columns, such as engines for data sets pass them.

    Called with a mapping from column names to lists (or arrays) of equal length it returns the columns of `explain`'s
    results, one entry for each row: tokens, scores, offsets, target, target_name, probability and those of
    `results.explanation_rows.schema`, and `error`, the reason of a row that failed (None else). A batch whose columns
    are all NumPy arrays, as Ray passes them, gets its columns back beside these, since Ray drops what is not
    returned; `datasets` keeps them itself.

    It can be pickled. With a name or folder as `model` only that is pickled, and each process loads the model itself.

    Args:
        model: as in `explain`, or the Hub name or folder of a model, which is loaded in float32 when it is first
            needed.
        columns: as in `explain_dataset`.
        errors: "skip" puts the reason into the column `error`; "raise" stops.
        device: where a model that is loaded by its name is put.
        method, options, layers, profile, target, tokenizer, batch_size, truncation, stride, aggregation,
            is_split_into_words: as in `explain_dataset`.

    Raises:
        InvalidInputError: an argument is wrong, or the batch has none of the columns.

    Example:
        >>> scored = dataset.map(Explainer(model), batched=True)    # doctest: +SKIP
        >>> scored = ray_data.map_batches(                          # doctest: +SKIP
        ...     Explainer, fn_constructor_args=["name"], concurrency=2)
    """

    def __init__(
        self,
        model: Any,
        *,
        columns: Any = None,
        method: str = "relevance",
        options: Mapping[str, Any] | None = None,
        layers: str = "none",
        profile: InformationProfile | None = None,
        target: Any = None,
        tokenizer: Any = None,
        batch_size: int | str = "auto",
        truncation: bool = False,
        stride: int | None = None,
        aggregation: str = "mean",
        is_split_into_words: bool = False,
        errors: str = "skip",
        device: str | None = None,
    ) -> None:
        check_choice("errors", errors, ERRORS)
        self.model, self.tokenizer, self.columns, self.profile = model, tokenizer, columns, profile
        self.options = ExplainOptions(
            method, options, layers, target, None, truncation, stride, aggregation, is_split_into_words
        )
        self.batch_size, self.errors, self.device = batch_size, errors, device
        self._explainer: BatchExplainer | None = None
        if not isinstance(model, str):
            self._load()  # a wrong option is refused here, not later in another process

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """The columns of the explanations of a batch of rows."""
        if not isinstance(batch, Mapping) or any(
            isinstance(column, str | bytes) or not hasattr(column, "__len__") for column in batch.values()
        ):
            raise InvalidInputError(
                f"batch must be a mapping from columns to lists, not {type(batch).__name__}: {shown(batch, 80)}. With "
                "datasets pass batched=True."
            )
        rows = as_rows(batch)
        columns = find_columns(self.columns, list(map(str, batch)), rows[0] if rows else None)
        shard = ShardExplainer(self._load(), columns, "", errors=self.errors)
        answers = shard.explain(0, 0, rows)
        by_row = {row["row"]: row for row in answers.table.to_pylist()}
        reasons = {one["row"]: one["reason"] for one in answers.errors}
        names = [name for name in answers.table.column_names if name not in _OF_ROW]
        result: dict[str, Sequence[Any]] = {
            name: [by_row[i][name] if i in by_row else None for i in range(len(rows))] for name in names
        }
        kept = dict(batch) if all(isinstance(column, np.ndarray) for column in batch.values()) else {}
        return kept | result | {"error": [reasons.get(i) for i in range(len(rows))]}

    def __repr__(self) -> str:
        model = self.model if isinstance(self.model, str) else type(self.model).__name__
        return f"Explainer(model={model!r}, method={self.options.method!r}, errors={self.errors!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Without what can be made again."""
        return {**self.__dict__, "_explainer": None}

    def _load(self) -> BatchExplainer:
        if self._explainer is None:
            model = self.model
            if isinstance(model, str):
                model = _load_model(model)
                model = model.to(self.device) if self.device is not None else model
            runner = EncoderRunner.of(model, self.tokenizer)
            runner.require_tokenizer()
            self._explainer = BatchExplainer(runner, self.options, profile=self.profile, batch_size=self.batch_size)
        return self._explainer


def _load_model(name: str) -> Any:
    """The model of this name with the head that it was saved with, in float32.

    Raises:
        InvalidInputError: it cannot be loaded.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        kind = getattr(transformers, (config.architectures or ["AutoModelForSequenceClassification"])[0])
        return kind.from_pretrained(name, dtype="float32").eval()
    except Exception as error:  # transformers, safetensors and huggingface_hub each have their own
        raise InvalidInputError(
            f"model={name!r} cannot be loaded: {type(error).__name__}: {error}. Pass a Hub name, a folder, "
            "or the model itself."
        ) from error
