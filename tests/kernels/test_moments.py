"""Class moments and their factors against their definitions in float64 and closed forms."""

import math

import pytest
import torch
from sklearn.covariance import oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from hf_attn_mi.errors import BackendUnavailableError, InvalidInputError
from hf_attn_mi.kernels import class_moments, class_separation, factor_classes, linear_discriminant
from hf_attn_mi.kernels.moments.reference import reference_class_moments, reference_within_covariance


def mixture(n, d, classes, seed=0, distance=1.0):
    """States of Gaussian classes with a common covariance, their class and soft outputs."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    labels[: min(n, classes)] = torch.arange(classes)[:n]
    means = distance * torch.randn(classes, d, generator=generator)
    mixing = torch.randn(d, d, generator=generator) / math.sqrt(d) + torch.eye(d)
    states = (means[labels] + torch.randn(n, d, generator=generator)) @ mixing
    soft = torch.softmax(2 * torch.randn(n, classes, generator=generator).double(), 1)
    return states, labels, soft


def hot(labels, classes):
    return torch.nn.functional.one_hot(labels, classes).double()


@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [1, 63, 100, 257])
def test_equals_the_definition(n, dtype, shift):
    states, labels, soft = mixture(n, 24, 3)
    states = (states + shift).to(dtype)
    folds = min(n, 4)
    atol = 1e-9 if dtype == torch.float64 else 2e-4  # sums of 257 terms near 10, and the rounding of the mean
    for outputs, probabilities in ((labels, hot(labels, 3 if n > 2 else 1)), (soft, soft)):
        found = class_moments(states, outputs, folds=folds)
        weights, products, sums, grams = reference_class_moments(states, probabilities, found.fold_of, folds)
        torch.testing.assert_close(found.weights, weights)
        torch.testing.assert_close(found.products, products)
        # The states are centered by the rounded mean, which the reference does not round.
        offset = states.double().mean(0) - found.mean.double()
        torch.testing.assert_close(
            found.sums.double(), sums + weights[..., None] * offset, rtol=1e-5, atol=atol * (1 + shift / 10)
        )
        if shift == 0 or dtype == torch.float64:
            torch.testing.assert_close(found.grams.double(), grams, rtol=1e-5, atol=20 * atol)
        assert found.sizes.tolist() == torch.bincount(found.fold_of).tolist()


def test_no_worse_than_plain_products_in_the_same_dtype():
    # Far from the origin centring is what counts: a Gram of the raw states would lose all digits.
    states, labels, _ = mixture(257, 64, 3)
    states = states + 1000
    found = class_moments(states, labels)
    exact = reference_class_moments(states, hot(labels, 3), found.fold_of, 10)[3].sum(0)
    centered = (states.double() - states.double().mean(0)).float()
    ours = (found.grams.sum(0).double() - exact).abs().max()
    plain = ((centered.T @ centered).double() - exact).abs().max()
    assert ours <= 2 * plain + 2e-3
    assert ours < 1e-4 * exact.max()


def test_within_covariance_by_subtraction():
    states, labels, soft = mixture(257, 20, 4, distance=5.0)
    for outputs, probabilities in ((labels, hot(labels, 4)), (soft, soft.double())):
        moments = class_moments(states.double(), outputs, folds=5)
        factors = factor_classes(moments, shrinkage=0.0, leave_one_out=True)
        for fold in range(5):
            train = moments.fold_of != fold
            expected = reference_within_covariance(states[train], probabilities[train])
            raw = factors.factor[fold] * factors.scale[:, None]
            torch.testing.assert_close(raw @ raw.T, expected, rtol=1e-6, atol=1e-6)


def test_total_covariance_and_whitened_means():
    states, labels, _ = mixture(257, 20, 4)
    moments = class_moments(states.double(), labels, folds=3)
    factors = factor_classes(moments, metric="total", shrinkage=0.0, leave_one_out=True)
    for fold in range(3):
        train = moments.fold_of != fold
        part = states[train].double()
        raw = factors.factor[fold] * factors.scale[:, None]
        torch.testing.assert_close(raw @ raw.T, part.T.cov(correction=0), rtol=1e-8, atol=1e-8)
        means = torch.stack([part[labels[train] == c].mean(0) for c in range(4)])
        whitened = torch.linalg.solve_triangular(raw, (means - moments.mean).T, upper=False).T
        torch.testing.assert_close(factors.centers[fold], whitened, rtol=1e-8, atol=1e-8)


def test_discriminant_equals_scikit_learn():
    states, labels, _ = mixture(257, 10, 3)
    moments = class_moments(states.double(), labels)
    directions, offsets = linear_discriminant(factor_classes(moments, shrinkage=0.0))
    logits = (states.double() - moments.mean) @ directions[0].T + offsets[0]
    peer = LinearDiscriminantAnalysis(solver="lsqr").fit(states.double().numpy(), labels.numpy())
    expected = torch.from_numpy(peer.predict_log_proba(states.double().numpy()))
    torch.testing.assert_close(logits.log_softmax(1), expected, rtol=1e-8, atol=1e-8)


def test_oas_is_that_of_scikit_learn():
    # Theirs has no factor 1 - 2 / d in front; ours is the formula of the paper. They agree to about 2 / d.
    states, labels, _ = mixture(150, 100, 2)
    factors = factor_classes(class_moments(states.double(), labels), metric="total")
    covariance = factors.factor[0] @ factors.factor[0].T
    factor = factor_classes(class_moments(states.double(), labels), metric="total", shrinkage=0.0).factor[0]
    plain, target = factor @ factor.T, torch.eye(100, dtype=torch.float64)
    amount = 1 - covariance[0, 1] / plain[0, 1]  # shrinkage scales what is off the diagonal
    assert amount.item() == pytest.approx(oas((states.double() / factors.scale).numpy())[1], rel=0.03)
    torch.testing.assert_close(covariance, (1 - amount) * plain + amount * target)


def test_separation_of_hard_labels_has_a_closed_form():
    # For hard labels: (N - d - 1) / N M W^-1 M^T (N = n - K) minus the noise d (I - 1 p^T) diag(1 / n_c) (I - 1 p^T)^T.
    states, labels, _ = mixture(400, 15, 3)
    shuffled = labels[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    for classes in (labels, shuffled):
        moments = class_moments(states.double(), classes)
        found = class_separation(moments, factor_classes(moments, metric="total", shrinkage=0.0))
        sizes = torch.bincount(classes).double()
        means = torch.stack([states[classes == c].double().mean(0) for c in range(3)])
        centring = torch.eye(3, dtype=torch.float64) - (sizes / 400).expand(3, 3)
        scatter = 400 * reference_within_covariance(states, hot(classes, 3))
        free = 397
        spread = centring @ means @ torch.linalg.solve(scatter / free, means.T) @ centring.T
        expected = (free - 16) / free * spread - 15 * centring @ torch.diag(1 / sizes) @ centring.T
        torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_separation_is_unbiased(soft):
    # Class means at distance 1 in a space of 60; 60 data sets of 300. Soft: outputs drawn first, class from them.
    found, nulls = [], []
    means = torch.zeros(2, 60)
    means[0, 0], means[1, 0] = 0.5, -0.5
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        first = torch.rand(300, generator=generator) if soft else (torch.rand(300, generator=generator) < 0.5).float()
        outputs = torch.stack([first, 1 - first], 1)
        states = outputs @ means + torch.randn(300, 60, generator=generator)
        permutation = torch.randperm(300, generator=generator)
        for distances, given in ((found, outputs), (nulls, outputs[permutation])):
            moments = class_moments(states.double(), given)
            separation = class_separation(moments, factor_classes(moments, metric="total", shrinkage=0.0))[0]
            distances.append(separation[0, 0] - 2 * separation[0, 1] + separation[1, 1])
    # Soft: E[P | class] = 2/3 and 1/3, means 1/3 apart, variance within a class along the axis 1 + 1/18.
    expected = (1 / 9) / (1 + 1 / 18) if soft else 1.0
    error = torch.stack(found).std().item() / math.sqrt(60)
    assert torch.stack(found).mean().item() == pytest.approx(expected, abs=3.5 * error)
    assert torch.stack(nulls).mean().item() == pytest.approx(
        0, abs=3.5 * torch.stack(nulls).std().item() / math.sqrt(60)
    )


@pytest.mark.parametrize(("distance", "tolerance"), [(1.0, 2e-5), (10.0, 1e-3)])
def test_single_precision_is_enough(distance, tolerance):
    # What is left within classes loses the digits that the class means take: at distance 10 the means are 60
    # deviations apart, far beyond the point where the information stops at log K.
    states, labels, soft = mixture(600, 48, 4, distance=distance)
    states = states + 30
    for outputs in (labels, soft):
        results = []
        for dtype in (torch.float32, torch.float64):
            moments = class_moments(states.to(dtype), outputs)
            total = factor_classes(moments, metric="total", shrinkage=0.0)
            within = factor_classes(moments, leave_one_out=True).factor
            results.append((class_separation(moments, total), within.diagonal(dim1=-2, dim2=-1).double().log().sum(-1)))
        (separation, determinant), (exact, exact_determinant) = results
        assert (separation - exact).abs().max() < tolerance * (1 + exact.abs().max())
        assert (determinant - exact_determinant).abs().max() < 5e-3


def test_slots_and_layouts():
    states, labels, _ = mixture(6 * 63, 8, 3)
    states, labels = states.reshape(2, 3, 63, 8), labels[:63]
    crooked = states.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)
    found = class_moments(crooked, labels, folds=4)
    factors = factor_classes(found, metric="total", leave_one_out=True)
    separation = class_separation(found, factors)
    assert found.grams.shape == (2, 3, 4, 8, 8)
    assert found.sums.shape == (2, 3, 4, 3, 8)
    assert separation.shape == (2, 3, 4, 3, 3)
    for i in range(2):
        for j in range(3):
            single = class_moments(states[i, j], labels, folds=4)
            torch.testing.assert_close(found.grams[i, j], single.grams)
            torch.testing.assert_close(found.sums[i, j], single.sums)
            own = factor_classes(single, metric="total", leave_one_out=True)
            torch.testing.assert_close(separation[i, j], class_separation(single, own), rtol=1e-4, atol=1e-4)


def test_an_empty_class_changes_nothing():
    states, labels, _ = mixture(200, 6, 2)
    results = []
    for codes in (labels, 2 * labels):  # classes 0, 1 and classes 0, 2 with nobody in 1
        moments = class_moments(states.double(), codes)
        directions, offsets = linear_discriminant(factor_classes(moments, shrinkage=0.0))
        separation = class_separation(moments, factor_classes(moments, metric="total", shrinkage=0.0))[0]
        results.append((directions[0], offsets[0], separation))
    keep = torch.tensor([0, 2])
    torch.testing.assert_close(results[1][0][keep], results[0][0])
    torch.testing.assert_close(results[1][1][keep], results[0][1])
    assert results[1][1][1] == -math.inf
    torch.testing.assert_close(results[1][2][keep][:, keep], results[0][2], rtol=0.02, atol=1e-3)  # n - K differs
    assert (results[1][2][1] == 0).all()


def test_given_folds():
    states, labels, _ = mixture(20, 3, 2)
    folds = torch.arange(20) % 3
    found = class_moments(states, labels, folds=folds)
    assert torch.equal(found.fold_of, folds)
    assert found.sizes.tolist() == [7, 7, 6]


GOOD = mixture(20, 3, 2)


@pytest.mark.parametrize(
    ("outputs", "options", "message"),
    [
        (GOOD[1][:9], {}, "labels has shape"),
        (GOOD[1] - 1, {}, "class -1"),
        (GOOD[1].float(), {}, "labels is torch.float32"),
        (hot(GOOD[1], 2).long(), {}, "outputs is torch.int64"),
        (GOOD[2][:9], {}, "outputs has shape"),
        (2 * GOOD[2], {}, "not probabilities"),
        (GOOD[2] * math.nan, {}, "not probabilities"),
        (torch.tensor([[1.5, -0.5]]).expand(20, 2), {}, "not probabilities"),
        (GOOD[1], {"folds": 0}, "folds is 0"),
        (GOOD[1], {"folds": 21}, "only n = 20"),
        (GOOD[1], {"folds": torch.arange(20) * 2}, "at least one example"),
        (GOOD[1], {"folds": torch.arange(19)}, "folds is"),
        (GOOD[1], {"backend": "numpy"}, "backend is 'numpy'"),
    ],
)
def test_bad_input(outputs, options, message):
    with pytest.raises(InvalidInputError, match=message):
        class_moments(GOOD[0], outputs, **options)


def test_bad_states_backends_and_factors(monkeypatch):
    states, labels, _ = GOOD
    with pytest.raises(InvalidInputError, match="NaN or infinite"):
        class_moments(states.index_fill(0, torch.tensor([3]), math.nan), labels)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendUnavailableError, match=r"needs CUDA|not installed"):
        class_moments(states, labels, backend="triton")
    moments = class_moments(states, labels)
    assert moments.backend == "torch"
    with pytest.raises(InvalidInputError, match="metric is"):
        factor_classes(moments, metric="between")
    with pytest.raises(InvalidInputError, match="shrinkage is"):
        factor_classes(moments, shrinkage=1.5)
    with pytest.raises(InvalidInputError, match="two folds"):
        factor_classes(class_moments(states, labels, folds=1), leave_one_out=True)
    with pytest.raises(InvalidInputError, match='metric="total"'):
        class_separation(moments, factor_classes(moments))


def test_singular_covariances_are_refused_without_shrinkage():
    states, labels, _ = mixture(200, 6, 2)
    dependent = states - states.mean(1, keepdim=True)  # as behind a layer norm
    moments = class_moments(dependent, labels)
    with pytest.raises(InvalidInputError, match="singular"):
        factor_classes(moments, shrinkage=0.0)
    assert torch.isfinite(factor_classes(moments, shrinkage=1e-4).factor).all()
    constant = class_moments(torch.ones(200, 6), labels)
    with pytest.raises(InvalidInputError, match="singular"):
        factor_classes(constant)
    few, few_labels, _ = mixture(10, 20, 2)
    wide = class_moments(few, few_labels, folds=2)
    with pytest.raises(InvalidInputError, match="too few"):
        class_separation(wide, factor_classes(wide, metric="total"))
