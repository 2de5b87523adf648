"""The registry of estimators: what `mutual_information(estimator=...)` may be called with.

To add an estimator to this package, write it in a file of its own and add a line to `_SPECS`. From another package,
call `register_estimator`, or declare an entry point in the group "hf_attn_mi.estimators".
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Literal, get_args

from hf_attn_mi.errors import InvalidInputError, shown
from hf_attn_mi.mi.auto import estimate_auto
from hf_attn_mi.mi.continuous import estimate_auto_continuous, estimate_gaussian_copula, estimate_ksg_continuous
from hf_attn_mi.mi.coordinates import Coordinates
from hf_attn_mi.mi.estimator import Estimator, EstimatorSpec
from hf_attn_mi.mi.gaussian import estimate_gaussian, estimate_gaussian_continuous
from hf_attn_mi.mi.logistic import estimate_logistic
from hf_attn_mi.mi.neighbors import estimate_ksg, estimate_ksg_pca
from hf_attn_mi.mi.probe import estimate_probe

ENTRY_POINTS = "hf_attn_mi.estimators"
_SPECS = {
    spec.name: spec
    for spec in (
        EstimatorSpec(
            "auto",
            estimate_auto,
            "the largest of several estimators, as far as they differ by more than chance",
            coordinates="gaussianized",
            for_vectors="auto_continuous",
            within_bounds=True,
        ),
        EstimatorSpec(
            "gaussian",
            estimate_gaussian,
            "closed form for Gaussian classes",
            coordinates="whitened",
            for_vectors="gaussian_continuous",
        ),
        EstimatorSpec("probe", estimate_probe, "cross-fitted linear probe, a lower bound"),
        EstimatorSpec("ksg", estimate_ksg, "nearest neighbors of the states", for_vectors="ksg_continuous"),
        EstimatorSpec("ksg_pca", estimate_ksg_pca, "nearest neighbors on eight principal components"),
        EstimatorSpec("logistic", estimate_logistic, "cross-fitted logistic regression, a lower bound"),
        EstimatorSpec(
            "auto_continuous",
            estimate_auto_continuous,
            "for continuous outputs: the Gaussian copula where held-out examples support it, else neighbors",
            outputs="vectors",
            within_bounds=True,
        ),
        EstimatorSpec(
            "gaussian_continuous",
            estimate_gaussian_continuous,
            "closed form for jointly Gaussian states and continuous outputs",
            outputs="vectors",
        ),
        EstimatorSpec(
            "gaussian_copula",
            estimate_gaussian_copula,
            "the same after a monotone map of each coordinate to a normal one",
            outputs="vectors",
        ),
        EstimatorSpec(
            "ksg_continuous",
            estimate_ksg_continuous,
            "nearest neighbors of states and continuous outputs (Kraskov)",
            outputs="vectors",
        ),
    )
}


def register_estimator(
    name: str,
    function: Estimator,
    *,
    summary: str = "",
    coordinates: Coordinates = "components",
    outputs: Literal["classes", "vectors"] = "classes",
    for_vectors: str | None = None,
) -> None:
    """Make an estimator available by name in `mutual_information` and `fit_information`.

    A package that is installed can instead declare an entry point in the group "hf_attn_mi.estimators": its name is the
    estimator's, its object the function or an `EstimatorSpec`. It is imported when the estimator is first used.

    Args:
        name: a new name.
        function: maps `SiteData` to `SiteEstimate`.
        summary: one line for help texts.
        coordinates: see `EstimatorSpec`.
        outputs: see `EstimatorSpec`.
        for_vectors: see `EstimatorSpec`.

    Raises:
        InvalidInputError: the name is taken or empty, the function cannot be called, or unknown coordinates or outputs.

    Example:
        >>> import torch
        >>> from hf_attn_mi.mi import SiteEstimate, mutual_information
        >>> def estimate_class_means(site):  # squared distance of the class means from the mean, halved
        ...     means = site.outputs.T @ site.points.double() / len(site.points)
        ...     pointwise = (site.outputs @ means * site.points).sum(1) / 2
        ...     return SiteEstimate.from_pointwise(pointwise, site.fold_of, "class_means")
        >>> register_estimator("class_means", estimate_class_means)
        >>> classes = torch.arange(400) % 2
        >>> states = classes[:, None] + torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> mutual_information(states, classes, estimator="class_means").nats > 0
        tensor(True)
    """
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"name is {shown(name)}: it must be a string that is not empty")
    if name in list_estimators():
        raise InvalidInputError(f"name is {name!r}: there is an estimator of this name already; choose another one")
    _register(EstimatorSpec(name, function, summary, coordinates, outputs, for_vectors))


def list_estimators() -> tuple[str, ...]:
    """Return the names of all estimators: those of this package, registered ones, and entry points.

    Example:
        >>> list_estimators()[:3]
        ('auto', 'gaussian', 'probe')
    """
    return tuple(dict.fromkeys([*_SPECS, *_entry_points()]))


def get_estimator(name: str, *, vectors: bool = False) -> EstimatorSpec:
    """Return the estimator of this name for class outputs or for vectors.

    Args:
        name: one of `list_estimators()`.
        vectors: whether outputs are continuous.

    Raises:
        InvalidInputError: no estimator has this name, an entry point cannot be imported, or outputs of the other kind.

    Example:
        >>> get_estimator("auto", vectors=True).name
        'auto_continuous'
    """
    if not isinstance(name, str) or name not in list_estimators():
        raise InvalidInputError(f"estimator is {shown(name)}: one of {', '.join(list_estimators())}")
    spec = _SPECS[name] if name in _SPECS else _load(_entry_points()[name])
    if spec.outputs == "vectors" and not vectors:
        raise InvalidInputError(
            f'estimator="{name}" is for continuous outputs: it needs continuous=True, or noise=, the standard '
            "deviation of noise on the outputs"
        )
    if vectors and spec.outputs != "vectors":
        if spec.for_vectors is None:
            possible = [
                f'"{other.name}"' for other in _SPECS.values() if other.for_vectors or other.outputs == "vectors"
            ]
            raise InvalidInputError(
                f'estimator="{name}" is for classes; for continuous outputs it is one of {", ".join(possible)}'
            )
        return get_estimator(spec.for_vectors, vectors=True)
    return spec


def _register(spec: EstimatorSpec) -> None:
    if not callable(spec.function):
        raise InvalidInputError(f"estimator {spec.name!r} is {type(spec.function).__name__}: it must be a function")
    if spec.coordinates not in get_args(Coordinates):
        raise InvalidInputError(
            f"coordinates is {shown(spec.coordinates)}: one of {', '.join(map(repr, get_args(Coordinates)))}"
        )
    if spec.outputs not in ("classes", "vectors"):
        raise InvalidInputError(f"outputs is {shown(spec.outputs)}: 'classes' or 'vectors'")
    _SPECS[spec.name] = spec


@cache
def _entry_points() -> dict[str, EntryPoint]:
    """The entry points of other packages by name; reading them imports nothing."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _load(entry: EntryPoint) -> EstimatorSpec:
    """Import an entry point and register what it holds."""
    try:
        loaded = entry.load()
    except Exception as error:  # whatever the other package raises on import
        raise InvalidInputError(f"estimator {entry.name!r} ({entry.value}) cannot be imported: {error}") from error
    if isinstance(loaded, EstimatorSpec) and loaded.name != entry.name:
        raise InvalidInputError(f"estimator {entry.name!r} ({entry.value}) calls itself {loaded.name!r}")
    _register(loaded if isinstance(loaded, EstimatorSpec) else EstimatorSpec(entry.name, loaded, ""))
    return _SPECS[entry.name]
