"""`hf-attn-mi recheck FILE`: compute saved token sets and subgraphs again; the exit status says whether they hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_attn_mi.cli import options as opt
from hf_attn_mi.cli.exit_codes import exit_code
from hf_attn_mi.cli.loading import import_libraries, load_model
from hf_attn_mi.cli.minimal import verdicts
from hf_attn_mi.cli.output import check_files, is_stdout, show, warnings_as_lines, write_json
from hf_attn_mi.errors import InvalidInputError

if TYPE_CHECKING:
    from hf_attn_mi import AttentionSubgraph, TokenSet
    from hf_attn_mi.tasks.recheck import Recheck


def recheck(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="What 'minimal --json', 'subgraph --json' or `save` wrote: one result or a list.",
        ),
    ],
    model: opt.Model = None,
    tolerance: Annotated[
        float | None,
        opt.method_option(
            metavar="P",
            help="Largest change of a probability (default: 1e-5, in half precision 2e-2).",
            show_default=False,
        ),
    ] = None,
    json: opt.Json = None,
    quiet: opt.Quiet = False,
) -> int:
    """Compute every number of saved token sets and subgraphs again, one text at a time, and compare them."""
    check_files(json)
    import_libraries()

    from hf_attn_mi import recheck as recheck_record

    records = read_records(file)
    classifier, tokenizer = load_model(model, quiet=quiet)
    checks: list[Recheck | None] = []
    with warnings_as_lines(quiet):
        for place, record in enumerate(records):
            if record is None:
                checks.append(None)
                continue
            try:
                checks.append(recheck_record(classifier, record, tokenizer=tokenizer, tolerance=tolerance))
            except InvalidInputError as error:
                raise InvalidInputError(f"{file}: result {place}: {error}") from error
    made = [check for check in checks if check is not None]
    write_json([vars(check) for check in made], json)
    if not quiet and not is_stdout(json):
        show("\n".join(verdicts(checks, 0)))
    return exit_code("holds" if check.holds else "does not hold" for check in made)


def read_records(file: Path) -> list[TokenSet | AttentionSubgraph | None]:
    """Return the token sets or subgraphs of a file, which holds one or a list; None for an input that was skipped.

    Raises:
        InvalidInputError: there is no such file, it holds no saved results, or results of a kind that has no check.
    """
    from hf_attn_mi import AttentionSubgraph, TokenSet
    from hf_attn_mi.results import Record, SkippedInput
    from hf_attn_mi.results.storage import read_json, read_json_lines

    if not file.is_file():
        raise InvalidInputError(f"{file}: there is no such file.")
    data = read_json_lines(file) if file.name.endswith((".jsonl", ".jsonl.gz")) else read_json(file)
    checked: list[TokenSet | AttentionSubgraph | None] = []
    for place, values in enumerate(data if isinstance(data, list) else [data]):
        try:
            item: Any = Record.from_dict(values)
        except InvalidInputError as error:
            raise InvalidInputError(f"{file}: result {place}: {error}") from error
        if isinstance(item, TokenSet | AttentionSubgraph):
            checked.append(item)
        elif isinstance(item, SkippedInput):
            checked.append(None)
        else:
            raise InvalidInputError(
                f"{file}: result {place} holds a saved {item.NOUN}; token sets (minimal) and attention subgraphs "
                "(subgraph) are rechecked. A certificate holds no rows that could be run again: run certify again."
            )
    if all(one is None for one in checked):
        raise InvalidInputError(f"{file}: it holds no result that could be checked.")
    return checked
