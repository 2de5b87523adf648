"""Two continuous arrays: estimates against closed forms, bounds that hold, refusal where information is infinite."""

import math

import pytest
import torch
from scipy.stats import multivariate_t
from sklearn.feature_selection import mutual_info_regression

from hf_attn_mi.errors import InvalidInputError
from hf_attn_mi.mi import SiteData, draw_folds, mutual_information
from hf_attn_mi.mi.bounds import deviations
from hf_attn_mi.mi.continuous import kraskov_terms
from hf_attn_mi.mi.continuous_bounds import cells_of
from hf_attn_mi.mi.coordinates import balance, site_coordinates
from hf_attn_mi.mi.copula_ratios import cross_fitted_ratios, radial_information

N = 1000


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(correlation, d=1, n=N, seed=0):
    """Pairs of vectors whose information is -d log(1 - correlation^2) / 2."""
    x = normal(n, d, seed=seed)
    return x, correlation * x + math.sqrt(1 - correlation**2) * normal(n, d, seed=seed + 1000)


def of(correlation, d=1):
    return -d * math.log(1 - correlation**2) / 2


def found(x, y, **options):
    return mutual_information(x, y, **{"continuous": True, "permutations": 19, "folds": 5, **options})


@pytest.mark.parametrize(("correlation", "d"), [(0.0, 1), (0.5, 1), (0.9, 1), (0.99, 1), (0.6, 4), (0.3, 20)])
def test_gaussian_pairs_have_their_closed_form(correlation, d):
    result = found(*correlated(correlation, d))
    truth = of(correlation, d)
    assert result.nats.item() == pytest.approx(truth, abs=0.03 + 0.05 * truth)
    assert 0 <= result.lower_bound <= result.lower_bound_normal
    assert result.lower_bound <= truth + 1e-9
    assert result.upper_bound.isnan()
    assert result.ceiling is None
    assert (result.p_value.item() <= 0.05) == (correlation > 0)


def test_monotone_maps_of_coordinates_change_nothing():
    x, y = correlated(0.8)
    plain, mapped = found(x, y), found(x**3, y.exp())
    assert mapped.nats.item() == pytest.approx(plain.nats.item(), abs=1e-6)
    assert found(x**3, y.exp(), estimator="gaussian_continuous").nats < 0.8 * of(0.8)  # which ranks are needed for


def test_neighbors_decide_where_the_gaussian_model_finds_nothing():
    """y = x^2 + noise has no correlation with x; its information by numerical integration."""
    x = normal(N, 1)
    y = x**2 + 0.5 * normal(N, 1, seed=9)
    points = torch.linspace(-4, 25, 3000, dtype=torch.float64)
    grid = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    given = torch.special.ndtri(grid).square()
    density = torch.zeros_like(points)
    for part in given.split(400):
        density += torch.exp(-((points[:, None] - part) ** 2) / 0.5).sum(1)
    density = density / density.sum() / (points[1] - points[0])
    truth = -torch.trapezoid(torch.xlogy(density, density), points) - 0.5 * math.log(2 * math.pi * math.e * 0.25)
    result = found(x, y)
    assert result.parts == ("ksg_continuous",)
    assert result.nats.item() == pytest.approx(truth.item(), abs=0.06)
    assert 0.3 * truth < result.lower_bound < truth
    assert "they disagree, and the estimate follows the neighbors" in result.warnings[-1]
    assert result.p_value.item() <= 0.05


def test_the_gaussian_model_decides_where_neighbors_are_too_far():
    result = found(*correlated(0.3, 20))
    assert result.parts == ("gaussian_copula",)
    assert "follows the Gaussian copula" in result.warnings[-1]
    assert found(*correlated(0.3, 20), estimator="ksg").nats < 0.5 * of(0.3, 20)


def student(p, m, degrees, n=2000, seed=0, correlation=0.0):
    """Two parts of one Student vector, each coordinate of the first correlated with one of the second."""
    x, y = normal(n, p, seed=seed), normal(n, m, seed=seed + 1)
    y[:, : min(p, m)] = correlation * x[:, : min(p, m)] + math.sqrt(1 - correlation**2) * y[:, : min(p, m)]
    scale = (normal(n, degrees, seed=seed + 2).square().sum(1) / degrees).sqrt()
    return x / scale[:, None], y / scale[:, None]


@pytest.mark.parametrize(("p", "m", "degrees", "correlation"), [(1, 1, 1, 0.0), (4, 2, 2, 0.0), (3, 3, 4, 0.6)])
def test_a_student_vector_has_its_closed_form(p, m, degrees, correlation):
    truth = radial_information(1 / degrees, p, m) + of(correlation, min(p, m))
    x, y = student(p, m, degrees, correlation=correlation)
    result = found(x, y.sinh().clamp(-1e8, 1e8) if degrees > 1 else y)  # monotone maps change nothing
    assert result.parts == ("student_copula",)
    assert result.nats.item() == pytest.approx(truth, abs=0.02 + 0.05 * truth)
    assert result.lower_bound < truth
    assert found(x, y, estimator="gaussian_copula").nats < truth - 0.05


def test_the_information_of_a_student_vector_is_that_of_its_density():
    """The mean of log t(x, y) - log t(x) - log t(y) over draws, the densities by SciPy."""
    x, y = student(2, 3, 3, n=200_000)
    joint = torch.cat([x, y], 1)
    logs = [multivariate_t(shape=torch.eye(z.shape[1]).numpy(), df=3).logpdf(z.numpy()) for z in (joint, x, y)]
    assert radial_information(1 / 3, 2, 3) == pytest.approx(float((logs[0] - logs[1] - logs[2]).mean()), abs=0.004)


def test_the_degrees_of_freedom_of_one_side_alone_are_no_information():
    x, _ = student(4, 1, 2)
    result = found(x, normal(2000, 2, seed=7))
    assert abs(result.nats.item()) < 0.02
    assert result.lower_bound == 0


def test_kraskov_agrees_with_scikit_learn():
    """Which adds noise of 1e-10 and uses the same algorithm on one column, with k neighbors."""
    x, y = correlated(0.7)
    expected = mutual_info_regression(x.numpy(), y[:, 0].numpy(), n_neighbors=3, random_state=0)[0]
    scaled = [(values - values.mean()) / values.std(correction=0) for values in (x, y)]
    assert float(kraskov_terms(*scaled, k=3).mean()) == pytest.approx(expected, abs=2e-3)


def test_bounds_hold_over_samples_without_and_with_information():
    for correlation, d in ((0.0, 3), (0.7, 1), (0.5, 5)):
        for seed in range(4):
            result = found(*correlated(correlation, d, n=400, seed=seed))
            assert result.lower_bound.item() <= of(correlation, d) + 1e-12


def test_the_error_of_a_mean_is_bernsteins():
    values = normal(50)
    mean, approximate, bernstein = deviations(values, 3.0, missed=0.01, independent=20)
    logarithm, variance = math.log(200), float(values.var())
    expected = math.sqrt(2 * variance * logarithm / 20) + 7 * 3 * logarithm / (3 * 19)
    assert (mean, bernstein) == (pytest.approx(float(values.mean())), pytest.approx(expected))
    assert approximate == pytest.approx(2.3263 * math.sqrt(variance / 20), rel=1e-4)


def test_held_out_log_ratios_are_those_of_the_true_density():
    x, y = correlated(0.6, n=4000)
    fold_of = draw_folds(torch.zeros(4000, dtype=torch.long), 5, 0)
    whitened = site_coordinates(balance(x)[0], "components")
    ratios = cross_fitted_ratios(SiteData(whitened, y, torch.zeros(4000, dtype=torch.long), fold_of, False)).gaussian
    u, v = x[:, 0], y[:, 0]
    true = -math.log(1 - 0.36) / 2 - (0.36 * u**2 + 0.36 * v**2 - 1.2 * u * v) / (2 * (1 - 0.36))
    assert float((ratios.pointwise - true).abs().median()) < 0.02
    pairs = torch.cat([part[~part.isnan()] for part in ratios.apart])
    assert float(pairs.exp().mean()) == pytest.approx(1, abs=0.02)  # a density ratio


def test_cells_are_placed_by_the_chosen_examples_alone():
    y = normal(200, 2)
    placing = torch.arange(200) < 60
    changed = y.clone()
    changed[150] = 1e6
    before, after = cells_of(y, placing), cells_of(changed, placing)
    assert torch.equal(before[:150], after[:150])
    assert int(before.max()) == 15
    assert cells_of(y, torch.arange(200) < 4) is None


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (normal(300, 2), lambda x: x @ torch.tensor([[1.0], [-2.0]], dtype=torch.float64) + 3, "linear function"),
        (normal(300, 40), lambda x: torch.cat([normal(300, 1, seed=5), x[:, 3:4].exp().log()], 1), "linear function"),
        (normal(300, 1), lambda x: torch.sin(3 * x), "outputs are a smooth function of states"),
        (normal(300, 2), lambda x: x[:, 0].tanh(), "outputs are a smooth function of states"),
        (
            normal(300, 1).exp(),
            lambda x: torch.cat([x**2, normal(300, 1, seed=6)], 1),
            "smooth function",
        ),
        (torch.sin(3 * normal(300, 1)), lambda x: 3 * normal(300, 1), "states are a smooth function of outputs"),
    ],
)
def test_infinite_information_is_refused(x, y, message):
    with pytest.raises(InvalidInputError, match=message) as error:
        found(x, y(x))
    assert "infinite" in str(error.value)
    assert "noise=" in str(error.value)


def test_little_noise_is_warned_about_and_declared_noise_is_not_refused():
    x = normal(N, 3)
    almost = found(x, torch.tanh(x.sum(1) / 4) + 1e-3 * normal(N, seed=3))
    assert any("infinite" in warning for warning in almost.warnings)
    noisy = found(x, x[:, :1], noise=1.0)
    assert noisy.nats.item() == pytest.approx(math.log(2) / 2, abs=0.06)


def test_which_outputs_are_continuous():
    x, y = correlated(0.6, n=300)
    assert mutual_information(x, y[:, 0], permutations=4).ceiling is None  # numbers that are not whole
    assert mutual_information(x, (y[:, 0] > 0).long(), permutations=4).ceiling is not None
    for outputs, options in (
        ((y[:, 0] > 0).double(), {}),  # classes as floats: which is meant?
        (y, {}),  # no probabilities
        ((y[:, 0] > 0).long(), {"continuous": True}),
        (y, {"continuous": False, "noise": 1.0}),
        (y, {"continuous": "yes"}),
        (y, {"continuous": True, "estimator": "probe"}),
        (y[:, 0], {"continuous": False}),
        (torch.ones(300, 2), {"continuous": True}),
        (y * math.inf, {"continuous": True}),
    ):
        with pytest.raises(InvalidInputError, match=r"outputs|continuous"):
            mutual_information(x, outputs, permutations=4, **options)


def test_repeated_and_constant_columns_count_once():
    x, y = correlated(0.6, n=600)
    plain = found(x, y)
    extended = found(torch.cat([x, x, torch.ones(600, 1)], 1), torch.cat([y, y.exp(), torch.zeros(600, 1)], 1))
    assert extended.nats.item() == pytest.approx(plain.nats.item(), abs=0.05)
    rounded = found(x, (2 * y).round() / 2 + 0.25)
    assert "values repeat" in rounded.warnings[0]


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_units_do_not_matter(scale):
    x, y = correlated(0.6, n=300)
    assert found(x * scale, y * scale).nats.item() == pytest.approx(found(x, y).nats.item(), abs=1e-3)


def test_repeated_values_and_outliers_are_not_taken_for_functions():
    x, y = correlated(0.6, n=300)
    far = x.clone()
    far[7] = 1e12
    for states, outputs in (
        (far, y),
        (x, (y > 0).double()),
        (x.round(), y),
        (torch.cat([torch.zeros(299, 1), torch.ones(1, 1)]), y),
        (x[:30].repeat(10, 1), y[:30].repeat(10, 1)),
        (normal(300, 250), y),
    ):
        result = found(states, outputs)
        assert result.lower_bound <= result.nats
        assert bool(result.interval.isfinite().all())
