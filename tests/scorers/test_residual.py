import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import Energy, Representation, Residual, ViM
from tests.scorers.early_errors import assert_same_error_early
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def residual_oracle(train, test, n_components):
    """Residual scores as in the ViM paper, in float64; the arguments are mappings with features, weight and bias."""
    W, b = (np.asarray(train[name], dtype=np.float64) for name in ("weight", "bias"))
    u = -np.linalg.pinv(W) @ b
    H = np.asarray(train["features"], dtype=np.float64)
    moment = np.zeros((H.shape[1], H.shape[1]))
    for h in H:
        moment += np.outer(h - u, h - u)
    eigenvalues, eigenvectors = np.linalg.eigh(moment)
    R = eigenvectors[:, np.argsort(eigenvalues)[: H.shape[1] - n_components]]
    new = np.asarray(test["features"], dtype=np.float64)
    return np.array([-np.sqrt(sum(float(r @ (h - u)) ** 2 for r in R.T)) for h in new])


def assert_scores_close(scores, expected):
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@given(seed=st.integers(0, 10**6), n=st.integers(12, 40), K=st.integers(1, 10), n_components=st.integers(1, 7))
@quick
def test_oracle(seed, n, K, n_components):
    train, test = random_arrays(seed, n=n, K=K), random_arrays(seed + 1, n=5, K=K)
    test.update(weight=train["weight"], bias=train["bias"])
    scorer = Residual(n_components=n_components).fit(Representation.from_numpy(**train))
    scores = scorer.score_samples(Representation.from_numpy(**test))
    assert_scores_close(scores, residual_oracle(train, test, n_components))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_at_any_scale(scale, dtype):
    train = random_arrays(scale=scale, dtype=dtype)
    scores = fit_and_score(Residual(n_components=3), Representation.from_numpy(**train))
    assert_scores_close(scores, residual_oracle(train, train, 3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_on_features_of_low_rank(dtype):
    train = random_arrays(n=60, C=16, rank=5, dtype=dtype)
    scorer = Residual().fit(Representation.from_numpy(**train))
    assert scorer.n_components_ == 3
    assert_scores_close(scorer.score_samples(Representation.from_numpy(**train)), residual_oracle(train, train, 3))


def test_oracle_beyond_one_batch():
    train = random_arrays(n=9000, C=6)
    scores = fit_and_score(Residual(n_components=2), Representation.from_numpy(**train))
    assert_scores_close(scores, residual_oracle(train, train, 2))


def test_is_the_residual_of_vim():
    representation = random_representation(n=80)
    vim = ViM(n_components=5).fit(representation)
    energy = fit_and_score(Energy(), representation)
    residual = fit_and_score(Residual(n_components=5), representation)
    np.testing.assert_allclose(vim.score_samples(representation), energy + vim.alpha_ * residual, rtol=1e-12)


def test_fitted_attributes():
    arrays = random_arrays(n=200, C=8)
    scorer = Residual(n_components=5).fit(Representation.from_numpy(**arrays))
    assert (scorer.n_components_, scorer.n_features_in_, scorer.n_classes_) == (5, 8, 4)
    assert isinstance(scorer.n_components_, int)
    assert scorer.origin_.dtype == scorer.residual_basis_.dtype == np.float64
    np.testing.assert_allclose(arrays["weight"] @ scorer.origin_, -arrays["bias"], atol=1e-12)
    np.testing.assert_allclose(scorer.residual_basis_.T @ scorer.residual_basis_, np.eye(3), atol=1e-12)


@pytest.mark.parametrize(("C", "n", "expected"), [(2, 50, 1), (9, 50, 4), (20, 10, 5), (768, 20, 10)])
def test_default_n_components(C, n, expected):
    assert Residual().fit(random_representation(n=n, C=C, dtype=np.float32)).n_components_ == expected


@given(seed=st.integers(0, 10**6))
@quick
def test_rotation_invariant(seed):
    arrays = random_arrays(seed, n=40)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))
    rotated = {**arrays, "features": arrays["features"] @ rotation, "weight": arrays["weight"] @ rotation}
    scores = fit_and_score(Residual(n_components=4), Representation.from_numpy(**rotated))
    expected = fit_and_score(Residual(n_components=4), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3))
@quick
def test_grows_with_the_scale_of_features(seed, factor):
    arrays = random_arrays(seed, n=40)
    scaled = {**arrays, "features": arrays["features"] * factor, "bias": arrays["bias"] * factor}
    scores = fit_and_score(Residual(n_components=4), Representation.from_numpy(**scaled))
    expected = fit_and_score(Residual(n_components=4), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, factor * expected, rtol=1e-6, atol=1e-6 * factor)


@given(seed=st.integers(0, 10**6), n_components=st.integers(1, 6))
@quick
def test_a_larger_principal_space_leaves_a_smaller_residual(seed, n_components):
    representation = random_representation(seed)
    less = fit_and_score(Residual(n_components=n_components), representation)
    more = fit_and_score(Residual(n_components=n_components + 1), representation)
    assert (less <= more + 1e-12).all()
    assert (more <= 0).all()


def test_duplicating_all_training_images_changes_nothing():
    arrays = random_arrays()
    twice = {**arrays, "features": np.repeat(arrays["features"], 2, axis=0)}
    scores = fit_and_score(Residual(n_components=3), Representation.from_numpy(**twice))
    once = fit_and_score(Residual(n_components=3), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, np.repeat(once, 2), rtol=1e-9)


def test_float32_and_float64_agree():
    scores = fit_and_score(Residual(), random_representation(n=60, dtype=np.float32))
    np.testing.assert_allclose(scores, fit_and_score(Residual(), random_representation(n=60)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_components", [8, 9, 1000])
def test_too_many_components(n_components):
    with pytest.raises(ValueError, match=f"^n_components={n_components} leaves no residual of the 8 feature"):
        Residual(n_components=n_components).fit(random_representation())


def test_components_beyond_the_rank():
    arrays = random_arrays(n=60, C=16, rank=5)
    arrays["bias"][:] = 0
    representation = Representation.from_numpy(**arrays)
    Residual(n_components=4).fit(representation)
    with pytest.raises(ValueError, match=r"^n_components=5 leaves no residual: .* numerical rank 5 .* lower"):
        Residual(n_components=5).fit(representation)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"C": 1}, "no residual of the 1 feature"), ({"n": 1}, "numerical rank 1 .* more varied images")],
)
def test_nothing_left(sizes, message):
    with pytest.raises(ValueError, match=message):
        Residual().fit(random_representation(**sizes))


@pytest.mark.parametrize("n", [1, 2, 3, 6, 40])
@pytest.mark.parametrize("C", [1, 2, 3, 8])
@pytest.mark.parametrize("K", [1, 4])
@pytest.mark.parametrize("n_components", [None, 1, 2, 5])
def test_sizes_are_checked_early(monkeypatch, n_components, K, C, n):
    assert_same_error_early(monkeypatch, Residual(n_components), random_representation(n=n, C=C, K=K))


def test_equal_features():
    # All features are at one point, which is not the origin: the rank is 1.
    arrays = {**random_arrays(), "features": np.full((50, 8), 0.1)}
    with pytest.raises(ValueError, match="numerical rank 1"):
        Residual().fit(Representation.from_numpy(**arrays))


@pytest.mark.parametrize("n_components", [0, -1, 2.5, "all"])
def test_n_components_is_checked(n_components):
    with pytest.raises(ValueError, match="n_components"):
        Residual(n_components=n_components).fit(random_representation())
