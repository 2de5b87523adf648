"""`Results`: the results of several inputs, in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from hf_attn_mi.atomic_files import as_path
from hf_attn_mi.capture import unwrap
from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.figures import draw
from hf_attn_mi.models.weights import fingerprint
from hf_attn_mi.models.wrappers import unwrap_object
from hf_attn_mi.results import hub
from hf_attn_mi.results.document import Block, ColorDepth, Drawing, Paragraph, html_page, html_section, terminal_text
from hf_attn_mi.results.plots.several import check_plot_options, plot_below, plot_together
from hf_attn_mi.results.record import Record
from hf_attn_mi.results.skipped_input import SkippedInput
from hf_attn_mi.results.storage import MAX_BYTES, read_json, read_json_lines, write_json, write_json_lines
from hf_attn_mi.results.words import Words

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

R = TypeVar("R", bound=Record)
_LINES = (".jsonl", ".jsonl.gz")


class Results(Sequence[R], Generic[R]):
    """An immutable sequence of results of one kind: what a task returns for a list of inputs.

    Where a task was called with errors="skip", a `SkippedInput` replaces each input without a result, so
    that `results[i]` belongs to `inputs[i]`; `answered` and `skipped` tell the two apart.

    Args:
        items: the results, in the order of the inputs.

    Raises:
        InvalidInputError: an item is not a result, or of another class than the first one.

    Example:
        >>> from hf_attn_mi.results import Removal, Results, Span, TokenSet
        >>> len(Results([])), Results([]) == []
        (0, True)
    """

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[R] = ()) -> None:
        self._items = tuple(items)
        kinds = [type(item) for item in self._items if not isinstance(item, SkippedInput)]
        for place, item in enumerate(self._items):
            if not isinstance(item, Record) or not isinstance(item, (SkippedInput, *kinds[:1])):
                first = kinds[0].__name__ if kinds and issubclass(kinds[0], Record) else "result"
                raise InvalidInputError(
                    f"items[{place}] is a {type(item).__name__}; every item must be a {first} of this package"
                )

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> Results[R]: ...
    def __getitem__(self, index: int | slice) -> R | Results[R]:
        return Results(self._items[index]) if isinstance(index, slice) else self._items[index]

    @property
    def answered(self) -> Results[R]:
        """The results without the inputs that were skipped."""
        return Results(item for item in self if not isinstance(item, SkippedInput))

    @property
    def skipped(self) -> tuple[SkippedInput, ...]:
        """The inputs that were skipped, each with its index and the reason."""
        return tuple(item for item in self if isinstance(item, SkippedInput))

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[R]:
        return iter(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Results | list | tuple):
            return len(self) == len(other) and all(left == right for left, right in zip(self, other))
        return NotImplemented

    def __repr__(self) -> str:
        first = [repr(item) for item in self._items[:3]] + ["..."] * (len(self) > 3)
        counts = Counter(type(item).__name__ for item in self)
        names = ", ".join(f"{count} x {name}" for name, count in counts.items())
        return f"Results({names}: [{', '.join(first)}])" if self else "Results([])"

    def __str__(self) -> str:
        return self.to_text(color="none")

    def __reduce__(self) -> tuple[Any, ...]:
        return Results, (list(self._items),)

    def to_text(self, *, color: ColorDepth | None = None) -> str:
        """Return `to_text` of each result, with an empty line between them and each below its input.

        Args:
            color: as in `Record.to_text`.
        """
        if len(self) == 1:
            return self[0].to_text(color=color)
        return "\n\n".join(
            "\n".join([terminal_text([Paragraph(_heading(item, place))], color), item.to_text(color=color)])
            for place, item in enumerate(self)
        )

    def to_html(self, title: str | None = None) -> str:
        """Return one self-contained HTML page with all results.

        Args:
            title: the title of the page; None for the title of the first result.
        """
        if title is None:
            title = (self.answered or self)[0]._title() if self else "No results"
        return html_page(self._sections(), title)

    def _repr_html_(self) -> str:
        return "".join(html_section(blocks, style=place == 0) for place, blocks in enumerate(self._sections()))

    def _sections(self) -> list[list[Block]]:
        """The blocks of each result; of several each below its input, if it does not show the words itself."""
        sections = [list(item._blocks()) for item in self]
        for place, (item, blocks) in enumerate(zip(self, sections)):
            if len(self) > 1 and not any(isinstance(block, Words | Drawing) for block in blocks):
                blocks.insert(0, Paragraph(_heading(item, place), small=True))
        return sections

    def plot(
        self,
        path: str | Path | None = None,
        *,
        kind: str | None = None,
        ax: Axes | None = None,
        most: int = 6,
        **options: Any,
    ) -> Figure:
        """Return a matplotlib figure of the results, one panel for each, below each other.

        Certificates of one input with different tolerances are drawn as the number of keys that a row needs against the
        tolerance; attention maps of one input (raw, effective, efficient) side by side on one scale.

        Args:
            path, ax: as in `Record.plot`.
            kind: the kind of plot of the results; None for their default.
            most: the maximum number of results that are drawn, from the first on; inputs that were skipped have none.
            options: further options of `plot` of the results, such as `layer` and `head` of attention maps.

        Raises:
            BackendUnavailableError: matplotlib is not installed (extra `plots`).
            InvalidInputError: no result, `most` below 1, an option that the results do not have, or as in their `plot`.
        """
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidInputError(f"most must be an integer of 1 or more, got {shown(most)}")
        items = list(self.answered)
        if not items:
            raise InvalidInputError("There is no result that could be drawn.")
        check_plot_options(items[0], options)
        plot = plot_together(items, options) if kind is None else None
        if plot is None:
            plot = partial(plot_below, items, kind, most, options)
        return draw({"results": plot}, "list of results", path, None, ax)

    def to_pandas(self) -> pd.DataFrame:
        """Return the tables of all results below each other; the column `input` numbers the results from 0.

        Where an input has several results, one for each target, `input` is the number of the input and the column
        `target` the name of the target (or the target as a call, where two of them have the same name).
        An input that was skipped has one row, with the reason in the column `skipped` and nothing in the others.
        """
        import pandas as pd

        tables = [item.to_pandas() for item in self]
        places = [_input_of(item, place) for place, item in enumerate(self)]
        for place, table in zip(places, tables):
            table.insert(0, "input", place)
        names = [getattr(item, "target_name", "") for item in self]
        if len(set(names)) > 1 or len(set(places)) < len(places):
            calls = [_call_of(item) for item in self]
            distinct = Counter((place, name) for place, name, _ in {*zip(places, names, calls)})
            for table, place, name, call in zip(tables, places, names, calls):
                table.insert(1, "target", call if distinct[place, name] > 1 else name)
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"input": []})

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return `to_dict` of each result: strict JSON data."""
        return [item.to_dict() for item in self]

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one file, whole or not at all: .json(.gz) with a list, or .jsonl(.gz) with a line for each result.

        Raises:
            InvalidInputError: another suffix, a missing folder, or an existing file without `overwrite=True`.
            OSError: the file cannot be written (no permission, a full disk); what was there before stays.
        """
        path = as_path(path)
        if path.name.endswith(_LINES):
            write_json_lines(self.to_dicts(), path, overwrite=overwrite)
        elif path.name.endswith((".json", ".json.gz")):
            write_json(self.to_dicts(), path, overwrite=overwrite)
        else:
            raise InvalidInputError(f"path={str(path)!r}: the name must end in .json, .jsonl, .json.gz or .jsonl.gz")

    @classmethod
    def load(cls, path: str | Path, *, max_bytes: int = MAX_BYTES) -> Results[Any]:
        """Return the results saved at `path`, of whatever kind.

        Args:
            path: what `save` wrote.
            max_bytes: the maximum number of bytes of JSON when unpacked, 512 MiB; see `results.storage.read_json`.
                Raise it for a larger file that you trust.

        Raises:
            InvalidInputError: the file is not a list of saved results of one kind, or exceeds the limit; the message
                names it.
            OSError: the file cannot be read.
        """
        path = as_path(path)
        read = read_json_lines if path.name.endswith(_LINES) else read_json
        data = read(path, max_bytes=max_bytes)
        if isinstance(data, Mapping) or not isinstance(data, list):
            raise InvalidInputError(f"cannot load {str(path)!r}: it holds no list of results")
        items: list[Any] = []
        for place, item in enumerate(data):
            try:
                items.append(Record.from_dict(item))
            except InvalidInputError as error:
                raise InvalidInputError(f"cannot load {str(path)!r}: result {place}: {error}") from error
        return cls(items)

    def to_dataset(self) -> datasets.Dataset:
        """Return a `datasets.Dataset` with one row for each result and the same columns for every kind of result.

        Columns: input, type, text, text_pair, model, method, target, probability, outcome, tokens, scores, skipped
        (what a kind does not have is None), and record: the whole result as JSON, which `from_dataset` reads.
        """
        places = [_input_of(item, place) for place, item in enumerate(self)]
        return hub.to_dataset(self._items, places)

    @classmethod
    def from_dataset(cls, dataset: datasets.Dataset | Iterable[Mapping[str, Any]]) -> Results[Any]:
        """Return the results that `to_dataset` was called on.

        Args:
            dataset: what `to_dataset` returned, also filtered, sorted, saved and loaded, in another format, or with
                further columns; a `pandas.DataFrame` of it, or its rows.

        Raises:
            InvalidInputError: rows without the column "record", or with a record that cannot be read.
        """
        records: list[Any] = hub.read_records(dataset)
        return cls(records)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        split: str = "train",
        model: Any = None,
        private: bool | None = None,
        token: str | bool | None = None,
        **commit: Any,
    ) -> str:
        """Upload the results as a data set on the Hugging Face Hub, with a card made from them, in one commit.

        The card states model, fingerprint, method, versions and columns. A card that somebody wrote is kept; one that
        this method made is replaced. Other splits of the data set stay.

        Args:
            repo_id: name of the data set, such as "organization/explanations"; made if it does not exist.
            split: name of the split, whose former rows are replaced.
            model: the explained model, whose fingerprint (SHA-256 of configuration and weights) the card then states.
            private: whether a new data set is private.
            token: the access token; None for the one that is logged in.
            commit: further arguments of `huggingface_hub.HfApi.upload_folder`: commit_message, revision, create_pr.

        Returns:
            The address of the commit, or of the pull request with create_pr=True.

        Raises:
            InvalidInputError: a wrong name of the data set or of the split.
            huggingface_hub.errors.HfHubHTTPError: the Hub refuses the upload, for example without an access token.

        Example:
            >>> explain(model, texts).push_to_hub("organization/explanations", model=model)     # doctest: +SKIP
        """
        digest = None if model is None else fingerprint(unwrap(unwrap_object(model).model))
        return hub.push(
            self._items, self.to_dataset(), repo_id, split=split, fingerprint=digest, private=private, token=token,
            **commit,
        )  # fmt: skip


def _input_of(item: Record, place: int) -> int:
    """The number of the input of a result: its place in the list, unless the inputs have other numbers of results."""
    if isinstance(item, SkippedInput):
        return item.index
    number = getattr(item, "info", {}).get("input", place)
    return number if isinstance(number, int) else place


def _call_of(item: Record) -> str:
    """The target of a result as a call: as it was settled, or the number of its class."""
    call = getattr(item, "info", {}).get("target")
    return str(call or f"label({getattr(item, 'target', None)})")


def _heading(item: Record, place: int, most: int = 300) -> str:
    """The texts of a result on one line, shortened; without any its target or its number."""
    texts, target = getattr(item, "texts", None), getattr(item, "target_name", "")
    name = f"target {target}" if texts is None and target else f"input {place}"
    line = " ".join(" | ".join(texts or ()).split()) or name
    return line if len(line) <= most else f"{line[:most]} ..."
