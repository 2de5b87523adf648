"""`Record`: the base class of all results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import Tensor

from hf_attn_mi.atomic_files import as_path
from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.figures import draw
from hf_attn_mi.results.codec import decode, encode, read_field, same, thaw
from hf_attn_mi.results.document import Block, ColorDepth, html_page, html_section, terminal_text
from hf_attn_mi.results.storage import MAX_BYTES, read_folder, read_json, write_folder, write_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

R = TypeVar("R", bound="Record")
TYPES: dict[str, type[Record]] = {}  # every class of results by the "type" in its files


class Record:
    """Base of the frozen results: validation, equality, files, tables, text and HTML, all derived from the fields.

    A subclass is a frozen dataclass (`eq=False, repr=False`) whose annotations are enough to read its values back:
    tensors, plain numbers and strings, `X | None`, tuples, mappings with string keys, and dataclasses of these. It
    says what it shows by `_blocks` and `_columns`, and adds its own checks in `_check`.

    Equality is by data: tensors by dtype, shape and value, and NaN equals NaN. There is no hash. Values are read-only,
    and tensors are copies on the CPU.
    """

    TYPE: ClassVar[str]
    SCHEMA: ClassVar[int] = 1
    NOUN: ClassVar[str]  # what the record is called in messages and titles
    FOLDER: ClassVar[str] = ""  # stem of its two files, where `save` writes a folder with safetensors
    ADDED: ClassVar[frozenset[str]] = frozenset()  # fields that older files of the schema lack; they get their default
    IGNORED: ClassVar[frozenset[str]] = frozenset()  # entries of a file that are computed again or not read

    def __init_subclass__(cls) -> None:
        TYPES[cls.TYPE] = cls

    def __post_init__(self) -> None:
        for name in _names(self):
            object.__setattr__(self, name, read_field(type(self), name, getattr(self, name), saved=False))
        warnings = getattr(self, "info", {}).get("warnings", ())
        if not all(isinstance(text, str) for text in (warnings if isinstance(warnings, tuple) else (warnings,))):
            raise InvalidInputError(f"info['warnings'] must be a list of sentences, got {shown(warnings)}")
        self._check()

    def to_dict(self) -> dict[str, Any]:
        """Return strict JSON data (no NaN) from which `from_dict` makes an equal record."""
        return {**self._head(), **encode(self)}

    @classmethod
    def from_dict(cls: type[R], data: Mapping[str, Any]) -> R:
        """Return the record `to_dict` was called on. Values that follow from others are computed again, not read.

        Called on `Record` itself it returns a record of the type that `data` names.

        Raises:
            InvalidInputError: `data` does not come from `to_dict` of this class, or has another schema.
        """
        return cls._read(data, None)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the record, whole or not at all; creates no parent folder.

        One .json or .json.gz file; an `InformationProfile` and `AttentionMaps` are written as a folder, with their
        tensors in a safetensors file. No pickle.

        Args:
            path: the file or folder.
            overwrite: replace an existing file. Else the file is created exclusively.

        Raises:
            InvalidInputError: another suffix, a missing folder, or an existing file without `overwrite=True`.
            OSError: the file cannot be written (no permission, a full disk); an existing file stays unchanged.
        """
        if self.FOLDER:
            tensors: dict[str, Tensor] = {}
            data = {**self._head(), **encode(self, tensors)}
            write_folder(data, tensors, path, self.FOLDER, overwrite=overwrite)
        else:
            write_json(self.to_dict(), path, overwrite=overwrite)

    @classmethod
    def load(cls: type[R], path: str | Path, *, max_bytes: int = MAX_BYTES) -> R:
        """Return the record saved at `path`.

        Args:
            path: the file or folder that `save` wrote.
            max_bytes: the maximum number of bytes of JSON when unpacked, 512 MiB; see `results.storage.read_json`.
                Raise it for a larger file that you trust.

        Raises:
            InvalidInputError: the file holds no such record, one of another schema, or more than the limit; the message
                names the file.
            OSError: the file cannot be read.
        """
        path = as_path(path)
        try:
            if cls is not Record and cls.FOLDER:
                return cls._read(*read_folder(path, cls.FOLDER, max_bytes=max_bytes))
            return cls._read(read_json(path, max_bytes=max_bytes), None)
        except InvalidInputError as error:
            raise InvalidInputError(f"cannot load {str(path)!r}: {error}") from error

    def to_pandas(self) -> pd.DataFrame:
        """Return the main numbers as a pandas table; the class documents its rows."""
        import pandas as pd

        return pd.DataFrame(self._columns())

    def plot(self, path: str | Path | None = None, *, kind: str | None = None, ax: Axes | None = None) -> Figure:
        """Return a matplotlib figure of the numbers; docs/plots.md shows every kind.

        Args:
            path: where to write it; the suffix names the format (.png, .svg, .pdf). Equal results give equal files.
            kind: what is drawn; None for the first kind of the class. An unknown one is refused with the list.
            ax: matplotlib Axes to draw in; None for those of a new figure. A figure of several panels divides it.

        Returns:
            The `matplotlib.figure.Figure`. No window is opened, and pyplot's list of figures is left alone.

        Raises:
            BackendUnavailableError: matplotlib is not installed (extra `plots`).
            InvalidInputError: another kind, one that this record has no numbers for, `ax` that is no Axes, or a path
                that cannot be written.
        """
        return draw(self._plots(), self.NOUN, path, kind, ax)

    def to_text(self, *, color: ColorDepth | None = None) -> str:
        """Return lines for a terminal.

        Args:
            color: "truecolor", "256", "16" or "none"; None takes what standard output can show: none where it is not a
                terminal or NO_COLOR is set. In a terminal its lines then end between words, at its columns.
        """
        return terminal_text(self._blocks(), color)

    def to_html(self) -> str:
        """Return one self-contained HTML page: nothing is loaded, and no script runs."""
        return html_page([self._blocks()], self._title())

    def _repr_html_(self) -> str:
        return html_section(self._blocks())

    def __str__(self) -> str:
        return self.to_text(color="none")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._summary().items())})"

    def __eq__(self, other: object) -> bool:
        return same(self, other) if isinstance(other, Record) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only mapping can be neither pickled nor copied.
        return _rebuild, (type(self), {name: thaw(getattr(self, name)) for name in _names(self)})

    def _check(self) -> None:
        """Raise InvalidInputError where the fields do not fit together."""

    def _computed(self) -> dict[str, Any]:
        """Values that follow from the fields and are written for readers of the file."""
        return {}

    def _blocks(self) -> Sequence[Block]:
        """The content that text and HTML show."""
        raise NotImplementedError

    def _plots(self) -> Mapping[str, Callable[[Axes | None], Figure]]:
        """kind -> function that draws it into axes, or into a new figure for None; the first is the default."""
        return {}

    def _columns(self) -> dict[str, list[Any]]:
        """The columns of the pandas table."""
        raise NotImplementedError

    def _summary(self) -> dict[str, object]:
        """The content that `repr` shows."""
        raise NotImplementedError

    def _title(self) -> str:
        """The title of the HTML page."""
        model = getattr(self, "info", {}).get("model")
        return self.NOUN.capitalize() + (f": {model}" if model else "")

    def _head(self) -> dict[str, Any]:
        return {"type": self.TYPE, "schema": self.SCHEMA, **self._computed()}

    @classmethod
    def _read(cls: type[R], data: Any, tensors: Mapping[str, Tensor] | None) -> R:
        if cls is Record:
            return _class_of(data)._read(data, tensors)  # type: ignore[return-value]
        if not isinstance(data, Mapping) or data.get("type") != cls.TYPE:
            raise InvalidInputError(f"data is not a saved {cls.NOUN}: its 'type' must be {cls.TYPE!r}")
        if type(data.get("schema")) is not int or data["schema"] != cls.SCHEMA:
            raise InvalidInputError(
                f"data has schema {data.get('schema')!r}; this version reads schema {cls.SCHEMA} only"
            )
        names = _names(cls)
        missing = sorted(set(names) - data.keys() - cls.ADDED)
        unknown = sorted(map(str, data.keys() - set(names) - cls.IGNORED - {"type", "schema"}))
        if missing or unknown:
            wrong = [
                f"{', '.join(entries)} {what}"
                for entries, what in ((missing, "missing"), (unknown, "unknown"))
                if entries
            ]
            raise InvalidInputError(f"data is not a saved {cls.NOUN}: {'; '.join(wrong)}")
        try:
            present = [name for name in names if name in data]
            return cls(**{name: read_field(cls, name, decode(data[name], tensors), saved=True) for name in present})
        except InvalidInputError as error:
            raise InvalidInputError(f"data is not a saved {cls.NOUN}: {error}") from error
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
            raise InvalidInputError(f"data is not a saved {cls.NOUN}: {type(error).__name__}: {error}") from error


def _names(record: Any) -> list[str]:
    return [item.name for item in fields(record)]


def _rebuild(record_type: type[R], values: dict[str, Any]) -> R:
    return record_type(**values)


def _class_of(data: Any) -> type[Record]:
    name = data.get("type") if isinstance(data, Mapping) else None
    if not isinstance(name, str) or name not in TYPES:
        raise InvalidInputError(f"data is not a saved result: its 'type' must be one of {', '.join(sorted(TYPES))}")
    return TYPES[name]
