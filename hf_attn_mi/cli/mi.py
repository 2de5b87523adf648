"""`hf-attn-mi mi --data F`: the mutual information of each layer and the output, over a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

from hf_attn_mi.cli import options as opt
from hf_attn_mi.cli.exit_codes import DONE
from hf_attn_mi.cli.inputs import check_data
from hf_attn_mi.cli.loading import import_libraries, load_model
from hf_attn_mi.cli.output import check_files, is_stdout, nothing_to_keep, show, warnings_as_lines, write_json
from hf_attn_mi.errors import InvalidInputError

if TYPE_CHECKING:
    from hf_attn_mi import InformationProfile


WHOLE = (
    "Every number of a profile is about all of its texts: one of the texts read so far would be a sample of the first "
    "rows. --limit N fits a smaller one."
)


def mi(
    data: opt.Data,
    model: opt.Model = None,
    limit: Annotated[
        int | None, opt.input_option(metavar="N", help="Largest number of texts to read (default: all).")
    ] = None,
    layers: Annotated[
        list[int] | None,
        opt.method_option(
            metavar="L...", help="0 for the embeddings, i for the output of layer i (default: all).", show_default=False
        ),
    ] = None,
    sites: Annotated[
        list[str] | None,
        opt.method_option(
            metavar="SITE...",
            help="States to measure: tokens (a token drawn at random) and first (the first token) are always measured; "
            "positions, attention (the tokens with most attention) and types (of tokens) are added.",
            show_default=False,
        ),
    ] = None,
    estimator: Annotated[
        str,
        opt.method_option(
            metavar="ESTIMATOR", help="auto, gaussian, probe, ksg, ksg_pca, logistic, or one that was registered."
        ),
    ] = "auto",
    effort: Annotated[
        str,
        opt.method_option(
            metavar="EFFORT", help="Effort for the lower bounds: fast, default (boosted trees as well) or thorough."
        ),
    ] = "fast",
    permutations: Annotated[int, opt.method_option(metavar="N", help="Number of permutations for the p-values.")] = 200,
    batch_size: opt.BatchSize = 16,
    seed: opt.Seed = 0,
    json: opt.Json = None,
    plot: opt.Plot = None,
    save: Annotated[
        Path | None, opt.output_option(metavar="FOLDER", help="Save the profile, for 'explain --profile'.")
    ] = None,
    quiet: opt.Quiet = False,
) -> int:
    """Measure the mutual information between the states of each layer and the model's output."""
    check_files(json, plot)  # checked before the work, which may take hours
    if save is not None and save.exists():
        raise InvalidInputError(f"--save {save}: it exists already; name another folder.")
    check_files(save)
    check_data(data)

    import_libraries()
    from hf_attn_mi import fit_information
    from hf_attn_mi.mi import Effort, list_estimators
    from hf_attn_mi.results.plots import check_figure_path
    from hf_attn_mi.tasks.sites import SITES

    opt.check_names("--sites", sites or (), SITES)
    opt.check_names("--estimator", [estimator], list_estimators())
    opt.check_names("--effort", [effort], get_args(Effort))
    if plot is not None:
        check_figure_path(plot)
    classifier, tokenizer = load_model(model, quiet=quiet, classifier=True)
    with warnings_as_lines(quiet), nothing_to_keep(WHOLE):
        profile = fit_information(
            classifier,
            data,
            tokenizer=tokenizer,
            layers=layers,
            sites=tuple(sites or ("tokens",)),
            batch_size=batch_size,
            estimator=estimator,
            effort=cast(Effort, effort),
            permutations=permutations,
            limit=limit,
            seed=seed,
        )
    if save is not None:
        profile.save(save)
    write_json(_numbers(profile), json)
    if plot is not None:
        profile.plot(plot)
    if not quiet and not is_stdout(json):
        show(f"{profile.to_text()}\n{_ceiling_line(profile.ceiling_check())}")
        if plot is not None:
            show(f"Figure: {plot.resolve()}")
    return DONE


BOUNDS = ("lower_bound", "upper_bound", "lower_bound_normal")


def _numbers(profile: InformationProfile) -> dict[str, Any]:
    """The profile without its tensors, as data."""
    information = profile.information
    columns: dict[str, list[Any]] = {
        name: values.tolist()
        for name in (*BOUNDS, "nats", "interval", "p_value", "family_p_value", "null_mean", "share")
        if (values := getattr(information, name)) is not None
    }
    sites = [
        {**vars(site), **{name: values[place] for name, values in columns.items()}, "part": information.parts[place]}
        for place, site in enumerate(profile.sites)
    ]
    return {
        "unit": "nats",
        "n": profile.n,
        "labels": profile.labels,
        "prior": profile.prior.tolist(),
        "ceiling": profile.ceiling,
        "ceiling_check": profile.ceiling_check(),
        "sites": sites,
        "warnings": list(information.warnings),
        "fingerprint": profile.fingerprint,
        "info": profile.info,
    }


def _ceiling_line(check: dict[str, Any]) -> str:
    if check["share"] is None:
        return "ceiling check: not possible; it needs the last state of the one token that the output is computed from."
    low, high = check["interval"]
    verdict = "reached" if check["reached"] else f"NOT reached (required: {check['required']:.0%})"
    place = f"'{check['site']}' of layer {check['layer']}"
    bounds = f"{check['proved']:.1%} to {check['upper_bound'] / check['ceiling']:.1%} for any distribution"
    share = f"{check['share']:.1%} [{low:.1%}, {high:.1%}] (bounds {bounds})"
    return f"ceiling check: {place} has {share} of the ceiling: {verdict}."
