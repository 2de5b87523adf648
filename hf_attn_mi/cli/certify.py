"""`hf-attn-mi certify TEXT...`: certificates in words; the exit status says whether they hold."""

from __future__ import annotations

from typing import Annotated, Literal

from hf_attn_mi.cli import options as opt
from hf_attn_mi.cli.exit_codes import INTERRUPTED, exit_code, outcomes_of
from hf_attn_mi.cli.loading import import_libraries, reads_of
from hf_attn_mi.cli.media import load_for, read_inputs
from hf_attn_mi.cli.output import check_files, is_stdout, show, until_interrupted, warnings_as_lines, write_json

Form = Literal["efficient", "effective", "effective_affine"]


def certify(
    texts: opt.Texts = None,
    file: opt.TextFile = None,
    pair: opt.Pair = None,
    choice: opt.Choices = None,
    model: opt.Model = None,
    is_split_into_words: opt.SplitIntoWords = False,
    truncate: opt.Truncate = False,
    errors: opt.Errors = "raise",
    target: opt.Targets = None,
    form: Annotated[Form, opt.method_option(help="Which rows replace the attention rows.")] = "efficient",
    tolerance: Annotated[
        float,
        opt.method_option(metavar="T", help="Tolerance of efficient rows: a relative error in \\[0, 1); 0 is exact."),
    ] = 0.0,
    checked_rows: Annotated[
        int, opt.method_option(metavar="N", help="Number of random rows whose keys are checked for necessity.")
    ] = 64,
    seed: opt.Seed = 0,
    json: opt.Json = None,
    quiet: opt.Quiet = False,
) -> int:
    """Certify that few keys of each attention row suffice: replace the rows and compare the prediction."""
    inputs = read_inputs(texts, file, pair, choices=choice, is_split_into_words=is_split_into_words)
    check_files(json)

    import_libraries()
    from hf_attn_mi import Certificate
    from hf_attn_mi import certify as certify_texts

    classifier, preparer = load_for(inputs, model, quiet=quiet, reads=reads_of(target or (), model))
    with warnings_as_lines(quiet):
        certificates, interrupted = until_interrupted(
            lambda: certify_texts(
                classifier,
                inputs.items,
                **preparer,
                **opt.read_targets(target, classifier),
                form=form,
                tolerance=tolerance,
                checked_rows=checked_rows,
                truncation=truncate,
                is_split_into_words=is_split_into_words,
                errors=errors,
                seed=seed,
            ),
            len(inputs.items),
        )
    assert not isinstance(certificates, Certificate)  # a list of texts gives a list of results
    write_json(certificates.to_dicts(), json)
    if not quiet and not is_stdout(json):
        show(certificates.to_text())
    return INTERRUPTED if interrupted else exit_code(outcomes_of(certificates))
