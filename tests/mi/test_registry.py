"""The registry of estimators: built-in ones, ones registered from outside, and entry points."""

import ast
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import hf_attn_mi
from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi import (
    EstimatorSpec,
    SiteEstimate,
    get_estimator,
    list_estimators,
    mutual_information,
    output_ceiling,
    register_estimator,
    registry,
)
from hf_attn_mi.tasks.fit_information import fit_information
from tests.sample_models import load_demo

from .sample_data import shifted_classes

CONTINUOUS = ("auto_continuous", "gaussian_continuous", "gaussian_copula", "ksg_continuous")
BUILT_IN = ("auto", "gaussian", "probe", "ksg", "ksg_pca", "logistic", *CONTINUOUS)


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """A copy of the registry, so that no other test sees what is registered here."""
    monkeypatch.setattr(registry, "_SPECS", {name: registry._SPECS[name] for name in BUILT_IN})
    registry._entry_points.cache_clear()
    yield
    registry._entry_points.cache_clear()


def estimate_ceiling(site):
    """An estimator from outside: pointwise information of the input, whatever the states are."""
    logs = (site.outputs.clamp_min(1e-300) / site.share).log()
    return SiteEstimate.from_pointwise((site.outputs * logs).sum(1), site.fold_of, "outside")


def test_an_estimator_from_outside_is_used_by_name():
    states, labels = shifted_classes(200, 4, 1.0)
    register_estimator("outside", estimate_ceiling, summary="for this test")
    assert list_estimators() == (*BUILT_IN, "outside")
    result = mutual_information(torch.stack([states, states * 2]), labels, estimator="outside", permutations=9)
    assert (result.estimator, result.parts) == ("outside", ("outside", "outside"))
    assert result.nats.tolist() == pytest.approx([output_ceiling(labels)] * 2)
    assert result.interval.shape == (2, 2)


@pytest.mark.parametrize("coordinates", ["components", "gaussianized", "whitened"])
def test_it_gets_the_coordinates_that_it_asks_for(coordinates):
    states, labels = shifted_classes(300, 12, 1.0)
    seen = []

    def estimate(site):
        seen.append(site.points)
        return estimate_ceiling(site)

    register_estimator("outside", estimate, coordinates=coordinates)
    mutual_information(states, labels, estimator="outside", permutations=1)
    for points in seen:
        torch.testing.assert_close(points.T @ points / 300, torch.eye(12), atol=1e-3, rtol=0)


def test_an_entry_point_is_listed_at_once_and_imported_when_it_is_used(monkeypatch):
    entries = [
        EntryPoint("installed", f"{__name__}:estimate_ceiling", registry.ENTRY_POINTS),
        EntryPoint("with_options", f"{__name__}:SPEC", registry.ENTRY_POINTS),
        EntryPoint("other_name", f"{__name__}:SPEC", registry.ENTRY_POINTS),
        EntryPoint("broken", "no_such_package_here:estimate", registry.ENTRY_POINTS),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == registry.ENTRY_POINTS else [])
    states, labels = shifted_classes(200, 4, 1.0)
    assert list_estimators() == (*BUILT_IN, "installed", "with_options", "other_name", "broken")
    assert mutual_information(states, labels, estimator="installed", permutations=1).parts == ("outside",)
    assert get_estimator("with_options") is SPEC
    with pytest.raises(InvalidInputError, match=r"'broken' \(no_such_package_here:estimate\) cannot be imported"):
        get_estimator("broken")
    with pytest.raises(InvalidInputError, match=r"'other_name' .* calls itself 'with_options'"):
        get_estimator("other_name")
    with pytest.raises(InvalidInputError, match="name is 'installed': there is an estimator of this name already"):
        register_estimator("installed", estimate_ceiling)


SPEC = EstimatorSpec("with_options", estimate_ceiling, "an entry point with options", coordinates="whitened")


@pytest.mark.filterwarnings("ignore:.*no split-half reliability")
def test_fit_information_takes_it():
    words = ("brilliant", "moving", "dull", "awful", "film", "story", "the", "long")
    texts = [f"{first} {second} film" for first in words for second in words]
    register_estimator("outside", estimate_ceiling)
    model, tokenizer = load_demo()
    profile = fit_information(model, texts, tokenizer=tokenizer, estimator="outside", permutations=2)
    assert profile.information.estimator == "outside"
    informative = [part == "outside" for part in profile.information.parts]  # the first token's embedding is constant
    assert informative.count(False) == 1
    assert profile.information.nats[informative].tolist() == pytest.approx([profile.ceiling] * sum(informative))


def test_fit_information_refuses_an_unknown_one_before_it_reads_the_data():
    def texts():
        raise AssertionError("the data was read")
        yield

    model, tokenizer = load_demo()
    with pytest.raises(InvalidInputError, match="estimator is 'unknown': one of auto, gaussian"):
        fit_information(model, texts(), tokenizer=tokenizer, estimator="unknown")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("auto", estimate_ceiling), "name is 'auto': there is an estimator of this name already"),
        (("", estimate_ceiling), "name is ''"),
        (("new", None), "'new' is NoneType: it must be a function"),
    ],
)
def test_what_cannot_be_registered(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        register_estimator(*arguments)
    for name in ("coordinates", "outputs"):
        with pytest.raises(InvalidInputError, match=f"{name} is 'other'"):
            register_estimator("new", estimate_ceiling, **{name: "other"})
    assert list_estimators() == BUILT_IN


def test_what_an_estimator_must_return():
    states, labels = shifted_classes(200, 4, 1.0)
    for number, value in enumerate((0.5, SiteEstimate(0.5, torch.zeros(3), "short"))):
        register_estimator(f"wrong{number}", lambda site, value=value: value)
        with pytest.raises(InvalidInputError, match=rf"'wrong{number}' must return a SiteEstimate .* \(10,\)"):
            mutual_information(states, labels, estimator=f"wrong{number}", permutations=1)


def test_vectors_have_their_own_estimators():
    assert get_estimator("auto", vectors=True) is get_estimator("auto_continuous", vectors=True)
    with pytest.raises(InvalidInputError, match=r'"probe" is for classes; .* "auto", .*"gaussian_continuous"'):
        get_estimator("probe", vectors=True)
    with pytest.raises(InvalidInputError, match="needs continuous=True, or noise="):
        get_estimator("gaussian_continuous")
    with pytest.raises(InvalidInputError, match="estimator is 7"):
        get_estimator(7)


def test_no_estimator_is_compared_by_name():
    """Outside of the registry no variable or attribute called `estimator` is compared with a string."""
    for path in Path(hf_attn_mi.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                names = {getattr(side, "id", getattr(side, "attr", "")) for side in sides}
                strings = [s for side in sides for s in ast.walk(side) if isinstance(getattr(s, "value", None), str)]
                assert "estimator" not in names or not strings, f"{path}:{node.lineno}"
