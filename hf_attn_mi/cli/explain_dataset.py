"""`hf-attn-mi explain-dataset --data D --output DIR`: the scores of a whole data set, in shards."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from hf_attn_mi.cli import options as opt
from hf_attn_mi.cli.exit_codes import DONE
from hf_attn_mi.cli.explain import Layers
from hf_attn_mi.cli.inputs import check_data
from hf_attn_mi.cli.loading import import_libraries, load_model, reads_of
from hf_attn_mi.cli.output import check_files, is_stdout, show, warnings_as_lines, write_json
from hf_attn_mi.errors import InvalidInputError


def explain_dataset(
    data: opt.Data,
    output: Annotated[
        Path,
        opt.output_option(metavar="FOLDER", help="The folder of the shards; run again to do those that are missing."),
    ],
    model: opt.Model = None,
    columns: Annotated[
        list[str] | None,
        opt.input_option(
            metavar="ROLE=COLUMN",
            help="The column of the text, text_pair, id, label or target, such as text=review (default: by their "
            "names); may be repeated.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, opt.input_option(metavar="N", help="Maximum number of rows to read (default: all).")
    ] = None,
    is_split_into_words: Annotated[
        bool, opt.input_option("--is-split-into-words", help="The column of the text holds lists of words.")
    ] = False,
    truncate: opt.Truncate = False,
    stride: opt.Stride = None,
    aggregation: opt.Aggregation = "mean",
    target: opt.Targets = None,
    targets: Annotated[
        str | None,
        opt.method_option(metavar="all", help="'all': every label, choice or entity, a row for each."),
    ] = None,
    method: opt.Method = "relevance",
    options: opt.MethodOptions = None,
    layers: Annotated[Layers, opt.method_option(help="Statistics of each layer's attention.")] = "none",
    profile: Annotated[
        Path | None, opt.method_option(metavar="FOLDER", help="What 'mi --save' wrote: adds the information.")
    ] = None,
    batch_size: Annotated[
        str, opt.method_option(metavar="N", help="Maximum number of inputs in one pass; auto: as memory allows.")
    ] = "auto",
    shard_size: Annotated[int, opt.output_option(metavar="N", help="Rows of a shard.")] = 1000,
    num_shards: Annotated[
        int | None, opt.output_option(metavar="N", help="The number of shards, instead of their size.")
    ] = None,
    errors: Annotated[
        Literal["skip", "raise"],
        opt.method_option(help="A row that fails goes to the errors file of its shard, or ends the run."),
    ] = "skip",
    dry_run: Annotated[
        bool, opt.output_option("--dry-run", help="Write nothing; estimate time, size and memory from 50 rows.")
    ] = False,
    json: opt.Json = None,
    quiet: opt.Quiet = False,
) -> int:
    """Explain every row of a data set; run the same command again after any interruption to do what is missing.

    Several processes share the work: accelerate launch -m hf_attn_mi explain-dataset ...
    """
    settings = opt.read_options(options, '{"steps": 20}')
    chosen = _read_columns(columns)
    check_files(json)
    check_data(data)
    if profile is not None and not profile.exists():
        raise InvalidInputError(f"--profile {profile}: there is no such folder; 'hf-attn-mi mi --save' writes one.")
    import_libraries()
    opt.check_names("--method", [method], opt.method_names())

    from hf_attn_mi import InformationProfile
    from hf_attn_mi import explain_dataset as explain_rows
    from hf_attn_mi.tasks.processes import Processes, own_device

    processes = Processes.of_environment()
    information = None if profile is None else InformationProfile.load(profile)
    silent = quiet or not processes.first
    classifier, tokenizer = load_model(model, quiet=silent, reads=reads_of(target or (), model))
    explained = opt.read_targets(target, classifier)
    if targets is not None:
        if target:
            raise InvalidInputError("--target and --targets: pass one of them.")
        explained = {"targets": targets}
    _log(quiet)
    with warnings_as_lines():
        run = explain_rows(
            classifier.to(own_device()),
            data,
            output=output,
            method=method,
            options=settings,
            columns=chosen,
            layers=layers,
            profile=information,
            **explained,
            tokenizer=tokenizer,
            batch_size=_read_batch_size(batch_size),
            shard_size=shard_size,
            num_shards=num_shards,
            limit=limit,
            truncation=truncate,
            is_split_into_words=is_split_into_words,
            stride=stride,
            aggregation=aggregation,
            errors=errors,
            dry_run=dry_run,
        )
    if processes.first:
        write_json(run.to_dict(), json)
        if not quiet and not is_stdout(json):
            show(run.to_text())
            if run.complete:
                show(f"Next: hf-attn-mi summarize {shlex.quote(str(output))} --html learned.html")
    return DONE


def _read_columns(columns: list[str] | None) -> dict[str, Any] | None:
    """The roles and columns of --columns.

    Raises:
        InvalidInputError: an entry without an equals sign, or a role twice.
    """
    chosen_columns: dict[str, Any] = {}
    for entry in columns or ():
        role, sign, column = entry.partition("=")
        if not sign or not role or not column or role in chosen_columns:
            raise InvalidInputError(f"--columns {entry}: ROLE=COLUMN is needed, each role once, such as text=review.")
        chosen_columns[role] = column
    return chosen_columns or None


def _read_batch_size(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InvalidInputError(f"--batch-size {text}: 'auto' or a positive whole number is needed.")
    return int(text)


def _log(quiet: bool) -> None:
    """Let the log of the package appear on standard error, one line an entry."""
    logger = logging.getLogger("hf_attn_mi")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        logger.propagate = False
