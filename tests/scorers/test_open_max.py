import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log1p, logsumexp
from scipy.stats import weibull_min

from skdfb.scorers import OpenMax, Representation, _open_max
from tests.scorers.early_errors import early_error, late_error, message_of
from tests.scorers.helpers import fit_and_score, quick, random_representation, representation_of_logits


def weibull_oracle(tail):
    """Shape and scale with the largest likelihood, found on a fine grid and then by golden section."""
    tail = np.asarray(tail) / max(tail)

    def loss(log_shape):
        shape = np.exp(log_shape)
        scale = np.mean(tail**shape) ** (1 / shape)
        # The logarithm of the Weibull density: log κ/λ + (κ - 1) log x/λ - (x/λ)^κ.
        return -sum(np.log(shape / scale) + (shape - 1) * np.log(tail / scale) - (tail / scale) ** shape)

    grid = np.linspace(np.log(0.05), np.log(900), 100)
    best = grid[np.argmin([loss(point) for point in grid])]
    shape = np.exp(minimize_scalar(loss, bounds=(best - 0.2, best + 0.2), options={"xatol": 1e-12}).x)
    return shape, np.mean(tail**shape) ** (1 / shape)


def open_max_oracle(train, y, test, tail_size, alpha):
    """OpenMax as in the paper, with the signs and weights of its code: log of the probability of all known classes."""
    train, test = np.asarray(train, dtype=np.float64), np.asarray(test, dtype=np.float64)
    K = train.shape[1]
    models = {}
    for k in range(K):
        own = [z for z, label in zip(train, y, strict=True) if label == k and np.argmax(z) == k]
        if len(own) > 2:
            mean = np.mean(own, axis=0)
            distances = sorted(np.linalg.norm(z - mean) for z in own)[-tail_size:]
            shape, relative_scale = weibull_oracle(distances)
            models[k] = (mean, shape, relative_scale * distances[-1])
    scores = []
    for z in test:
        revised, unknown = z.copy(), 0.0
        a = min(alpha, K)
        for i, k in enumerate(np.argsort(-z, kind="stable")[:a], start=1):
            if k in models:
                mean, shape, scale = models[k]
                weight = (a + 1 - i) / a * weibull_min.cdf(np.linalg.norm(z - mean), shape, scale=scale)
                revised[k] = z[k] * (1 - weight)
                unknown += z[k] * weight
        scores.append(-log1p(np.exp(unknown - logsumexp(revised))))
    return np.array(scores)


def network_logits(seed, n=90, K=3, scale=1.0):
    """Logits of a network that classifies most images correctly, and the classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % K
    return scale * (5 * np.eye(K)[y] + rng.normal(size=(n, K))), y


def open_max(train, y, test, **parameters):
    return OpenMax(**parameters).fit(representation_of_logits(train), y).score_samples(representation_of_logits(test))


@given(seed=st.integers(0, 10**6), K=st.integers(1, 6), tail_size=st.integers(3, 30), alpha=st.integers(1, 8))
@quick
def test_oracle(seed, K, tail_size, alpha):
    train, y = network_logits(seed, K=K)
    test = np.random.default_rng(seed).normal(size=(8, K)) * 5 + 2
    expected = open_max_oracle(train, y, test, tail_size, alpha)
    scores = open_max(train, y, test, tail_size=tail_size, alpha=alpha)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 10.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_at_any_scale(scale, dtype):
    train, y = network_logits(0, scale=scale)
    train = train.astype(dtype)
    expected = open_max_oracle(train, y, train[:20], 20, 10)
    np.testing.assert_allclose(open_max(train, y, train[:20]), expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("scale", [1e6, 1e30])
def test_huge_logits(scale):
    train, y = network_logits(0, scale=scale)
    scorer = OpenMax().fit(representation_of_logits(train), y)
    small = OpenMax().fit(representation_of_logits(train / scale), y)
    np.testing.assert_allclose(scorer.shapes_, small.shapes_, rtol=1e-8)
    np.testing.assert_allclose(scorer.scales_ / scale, small.scales_, rtol=1e-8)
    scores = scorer.score_samples(representation_of_logits([[5 * scale, 0, 0], [500 * scale, 0, 0]]))
    assert scores[0] > -1e-9
    assert scores[1] == pytest.approx(-500 * scale, rel=1e-3)


def test_oracle_beyond_a_batch():
    train, y = network_logits(0, n=5001)
    scores = open_max(train, y, np.tile(train[:50], (30, 1)))
    expected = open_max_oracle(train, y, train[:50], 20, 10)
    np.testing.assert_allclose(scores.reshape(30, 50), np.tile(expected, (30, 1)), rtol=1e-5, atol=1e-12)


@given(seed=st.integers(0, 10**6), n=st.integers(3, 40), shape=st.floats(0.3, 100), scale=st.floats(1e-20, 1e20))
@quick
def test_weibull_fit(seed, n, shape, scale):
    tail = np.sort(np.random.default_rng(seed).weibull(shape, size=n))
    assume(tail[0] > 2e-6 * tail[-1])
    shapes, scales = _open_max._fit_weibulls([tail * scale])
    expected_shape, expected_scale = weibull_oracle(tail)
    if expected_shape < 890:
        np.testing.assert_allclose(shapes, expected_shape, rtol=1e-5)
        np.testing.assert_allclose(scales, expected_scale * tail[-1] * scale, rtol=1e-5)


def test_weibull_fit_as_scipy():
    tail = np.sort(np.random.default_rng(0).weibull(5, size=20)) * 3
    shape, _, scale = weibull_min.fit(tail, floc=0)
    np.testing.assert_allclose(_open_max._fit_weibulls([tail]), [[shape], [scale]], rtol=1e-3)


def test_weibull_fit_finds_the_true_one():
    tail = np.sort(np.random.default_rng(0).weibull(7.0, size=20000)) * 3
    np.testing.assert_allclose(np.ravel(_open_max._fit_weibulls([tail])), [7, 3], rtol=0.02)


def test_degenerate_tails():
    spread = np.array([1.0, 1.5, 1.7])
    tails = [spread, np.array([2.0, 2.0]), np.array([3.0]), np.array([]), spread**3]
    shapes, scales = _open_max._fit_weibulls(tails)
    median = np.median(shapes[[0, 4]])
    np.testing.assert_allclose(shapes[1:4], median)
    np.testing.assert_allclose(scales[1:4], [2, 3, np.inf])
    shapes, scales = _open_max._fit_weibulls(tails[1:4])
    assert shapes.tolist() == [1000] * 3
    np.testing.assert_allclose(scales, [2, 3, np.inf])
    assert _open_max._fit_weibulls([np.array([1, 1 + 1e-4])])[0].tolist() == [1000]


def test_tail():
    assert _open_max._tail(np.array([3.0, 1.0, 2.0, 4.0]), 3).tolist() == [2, 3, 4]
    assert _open_max._tail(np.array([3.0, 1.0]), 3).tolist() == [1, 3]
    assert _open_max._tail(np.array([1e-16, 3.0, 0.0]), 3).tolist() == [3]
    assert _open_max._tail(np.zeros(5), 3).size == 0
    assert _open_max._tail(np.array([]), 3).size == 0


def test_only_correctly_classified_images_count():
    train, y = network_logits(0)
    with_errors = np.vstack([train, [[-50, 0, 90]] * 3])
    labels = np.append(y, [0, 0, 1])
    test = train[:20] * 0.7
    assert np.array_equal(open_max(with_errors, labels, test), open_max(train, y, test))
    assert not np.allclose(open_max(np.vstack([train, [[50, 0, 0]] * 3]), np.append(y, [0, 0, 0]), test),
                           open_max(train, y, test))  # fmt: skip


@given(seed=st.integers(0, 10**6))
@quick
def test_order_of_classes_does_not_matter(seed):
    train, y = network_logits(seed, K=4)
    order = np.random.default_rng(seed).permutation(4)
    renamed = open_max(train[:, order], np.argsort(order)[y], train[:30, order], alpha=3)
    np.testing.assert_allclose(renamed, open_max(train, y, train[:30], alpha=3), rtol=1e-9)


@given(seed=st.integers(0, 10**6))
@quick
def test_duplicating_all_training_images_changes_nothing(seed):
    train, y = network_logits(seed)
    twice = np.repeat(np.arange(90), 2)
    np.testing.assert_allclose(
        open_max(train[twice], y[twice], train, tail_size=40), open_max(train, y, train, tail_size=20), rtol=1e-8
    )


def test_ranks_stay_distinct_at_both_ends():
    train, y = network_logits(0)
    # The probability of the unknown class is so small that 1 minus it rounds to 1.
    known = np.array([[5.0 + step, -200, -200] for step in np.linspace(0, 0.5, 20)])
    rescaled = np.vstack([train, [[5, -200, -200]] * 30 + np.random.default_rng(0).normal(size=(30, 3)) * 0.5])
    scores = open_max(rescaled, np.append(y, [0] * 30), known, alpha=1)
    assert len(set(scores)) == 20
    far = np.array([[500.0 + step, 0, 0] for step in range(20)])
    scores = open_max(train, y, far)
    assert len(set(scores)) == 20
    assert (np.diff(scores) < 0).all()


def test_distance_from_the_class_mean_lowers_the_score():
    train, y = network_logits(0)
    away = np.array([[5.0, distance, distance] for distance in (0, 1.5, 3, 4.5)])
    scores = open_max(train, y, away)
    assert (np.diff(scores) < 0).all()
    assert scores[0] > np.log(0.9)


def test_equal_logits_are_taken_in_order():
    train, y = network_logits(0)
    equal = np.full((1, 3), 2.0)
    np.testing.assert_allclose(open_max(train, y, equal, alpha=2), open_max_oracle(train, y, equal, 20, 2), rtol=1e-5)


def test_classes_that_cannot_be_fitted_are_not_revised():
    train, y = network_logits(0, K=5)
    keep = (y != 3) & (y != 4)
    train, y = np.vstack([train[keep], [[0, 0, 0, 9, 0]], [[0, 9, 0, 0, 0]]]), np.append(y[keep], [3, 4])
    scorer = OpenMax().fit(representation_of_logits(train), y)
    assert np.isinf(scorer.scales_).tolist() == [False, False, False, True, True]
    assert scorer.means_[3].tolist() == [0, 0, 0, 9, 0]
    assert scorer.means_[4].tolist() == [0] * 5
    test = np.array([[0, 0, 0, 8.0, 0], [0, 0, 0, 0, 8.0], [8.0, 0, 0, 0, 0]])
    np.testing.assert_allclose(
        scorer.score_samples(representation_of_logits(test)), open_max_oracle(train, y, test, 20, 10), rtol=1e-5
    )


@pytest.mark.parametrize("logits", [
    np.eye(3)[:1], np.ones((9, 3)), np.full((9, 3), 0.1), np.repeat(np.eye(3) * 7.3, 3, axis=0), np.eye(3)[[1, 2, 1]],
])  # fmt: skip
def test_no_class_to_fit(logits):
    with pytest.raises(ValueError, match=r"^y and representation\.logits leave OpenMax no class.*MSP\(\)"):
        OpenMax().fit(representation_of_logits(logits), np.arange(len(logits)) // 3)


def test_two_images_are_enough():
    scores = open_max([[3.0, 0], [4.0, 1]], [0, 0], [[3.5, 0.5], [9.0, 0.0]])
    assert scores[0] > np.log(0.9) - 0.1
    assert scores[1] < np.log(0.01)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("K", [1, 2, 5])
@pytest.mark.parametrize("scorer", [OpenMax(), OpenMax(tail_size=1, alpha=1)])
def test_sizes_are_checked_early(monkeypatch, scorer, K, C, n):
    representation = random_representation(n=n, C=C, K=K)
    # The best case: the network predicts one class for all images, and is right.
    representation.logits[:, 0] += 1000
    error = late_error(monkeypatch, scorer, representation, np.zeros(n, dtype=int))
    assert (early_error(scorer, representation) is None) == (error is None) == (n > 1)
    assert error is None or error.startswith("y and representation.logits leave OpenMax no class to fit")
    assert early_error(scorer, representation) == message_of(scorer.fit, representation, np.zeros(n, dtype=int))


@pytest.mark.parametrize("K", [1, 2, 30])
def test_numbers_of_classes(K):
    train, y = network_logits(0, n=300, K=K)
    scores = open_max(train, y, train)
    assert np.isfinite(scores).all()
    assert (scores <= 0).all()
    assert len(set(scores)) == 300


def test_one_class_needs_no_labels():
    train = random_representation(n=50, K=1)
    assert np.array_equal(OpenMax().fit(train).score_samples(train), fit_and_score(OpenMax(), train))


def test_half_precision():
    train, y = network_logits(0)
    narrow = open_max(train.astype(np.float16), y, train.astype(np.float16))
    np.testing.assert_allclose(narrow, open_max(train, y, train), rtol=0.05, atol=1e-3)


def test_activations_do_not_matter():
    train = random_representation(n=40)
    with_map = Representation(
        features=train.features, logits=train.logits, weight=train.weight, bias=train.bias,
        activations={"feature_map": train.features[:, :, None, None]},
    )  # fmt: skip
    y = train.logits.argmax(dim=1).numpy()
    assert np.array_equal(OpenMax().fit(with_map, y).scales_, OpenMax().fit(train, y).scales_)


def test_fitted_attributes():
    train, y = network_logits(0)
    scorer = OpenMax().fit(representation_of_logits(train), y)
    assert scorer.means_.shape == (3, 3)
    assert scorer.shapes_.shape == scorer.scales_.shape == (3,)
    assert scorer.means_.dtype == scorer.shapes_.dtype == scorer.scales_.dtype == np.float64
    right = train[(y == 1) & (train.argmax(axis=1) == 1)]
    np.testing.assert_allclose(scorer.means_[1], right.mean(axis=0), rtol=1e-12)
    assert scorer.output == "log_probability"


def test_missing_labels():
    with pytest.raises(ValueError, match=r"^y is None"):
        OpenMax().fit(random_representation())


def test_nan():
    train, y = network_logits(0)
    representation = representation_of_logits(train)
    scorer = OpenMax().fit(representation, y)
    representation.logits[2, int(y[2])] = np.nan
    with pytest.raises(ValueError, match="gives 1 scores that are NaN or infinite, first in row 2"):
        scorer.score_samples(representation)
    with pytest.raises(ValueError, match="NaN"):
        OpenMax().fit(representation, y)


@pytest.mark.parametrize("parameters", [{"tail_size": 0}, {"tail_size": 2.0}, {"alpha": 0}, {"alpha": "all"}])
def test_parameters_are_checked(parameters):
    train, y = network_logits(0)
    with pytest.raises(ValueError, match=next(iter(parameters))):
        OpenMax(**parameters).fit(representation_of_logits(train), y)
