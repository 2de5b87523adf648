"""`hf-attn-mi summarize FOLDER`: what the model has learned, from the scores of a whole data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hf_attn_mi.cli import options as opt
from hf_attn_mi.cli.exit_codes import DONE
from hf_attn_mi.cli.loading import import_libraries
from hf_attn_mi.cli.output import check_files, is_stdout, show, write_json, write_text
from hf_attn_mi.errors import InvalidInputError

if TYPE_CHECKING:
    from hf_attn_mi import CorpusSummary


def summarize(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder that 'explain-dataset' wrote; it may be unfinished.")
    ],
    words: Annotated[int, opt.method_option(metavar="N", help="Words of each class and of each other list.")] = 20,
    least: Annotated[
        int, opt.method_option(metavar="N", help="Inputs that must hold a word; rarer words are left out.")
    ] = 10,
    resamples: Annotated[int, opt.method_option(metavar="N", help="Bootstrap resamples of each interval.")] = 2000,
    seed: opt.Seed = 0,
    html: opt.Html = None,
    plot: opt.Plot = None,
    json: opt.Json = None,
    quiet: opt.Quiet = False,
) -> int:
    """Show what the model has learned: words that speak for each class, words of errors, words against their class."""
    check_files(json, plot, html=html)
    _check_folder(folder, "FOLDER")
    import_libraries(models=False)

    from hf_attn_mi import summarize as summarize_folder
    from hf_attn_mi.results.plots import check_figure_path

    if plot is not None:
        check_figure_path(plot)
    summary = summarize_folder(folder, words=words, least=least, resamples=resamples, seed=seed)
    write_json(summary.to_dict(), json)
    if html is not None:
        write_text(summary.to_html(), html)
    if plot is not None:
        summary.plot(plot)
    if not quiet and not is_stdout(json):
        show(summary.to_text())
        for path in (html, plot):
            if path is not None:
                show(f"Written: {path.resolve()}")
    return DONE


def read_corpus(path: Path) -> CorpusSummary:
    """Return the summary of a folder of `explain-dataset`, or the one that a file of `summarize --json` holds.

    Raises:
        InvalidInputError: there is neither.
    """
    from hf_attn_mi import CorpusSummary
    from hf_attn_mi import summarize as summarize_folder

    if path.is_file():
        return CorpusSummary.load(path)
    _check_folder(path, f"--corpus {path}")
    return summarize_folder(path)


def _check_folder(path: Path, option: str) -> None:
    """Refuse what is no folder before the libraries are imported.

    Raises:
        InvalidInputError: there is no such folder.
    """
    if not path.is_dir():
        what = "it is a file" if path.exists() else "there is no such folder"
        name = option if option.endswith(str(path)) else f"{option} {path}"
        raise InvalidInputError(f"{name}: {what}; 'hf-attn-mi explain-dataset --output' writes the folder.")
