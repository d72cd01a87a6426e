import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import Representation, ViM
from skdfb.scorers._principal_space import choose_components
from skdfb.testing._scorers._data import SmallBatches
from tests.scorers.early_errors import assert_same_error_early, message_of
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def vim_oracle(train, test, n_components):
    """ViM as in the paper, in float64: fit on `train` and score `test`; mappings with features, weight and bias."""
    W, b = (np.asarray(train[name], dtype=np.float64) for name in ("weight", "bias"))
    u = -np.linalg.pinv(W) @ b
    H = np.asarray(train["features"], dtype=np.float64)
    moment = np.zeros((H.shape[1], H.shape[1]))
    for h in H:
        moment += np.outer(h - u, h - u)
    eigenvalues, eigenvectors = np.linalg.eigh(moment)
    smallest_first = np.argsort(eigenvalues)
    R = eigenvectors[:, smallest_first[: H.shape[1] - n_components]]

    def residual(h):
        return np.sqrt(sum(float(r @ (h - u)) ** 2 for r in R.T))

    alpha = sum(max(W @ h + b) for h in H) / sum(residual(h) for h in H)
    scores = []
    for h in np.asarray(test["features"], dtype=np.float64):
        z = W @ h + b
        scores.append(max(z) + np.log(np.exp(z - max(z)).sum()) - alpha * residual(h))
    return np.array(scores)


def assert_scores_close(scores, expected):
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore:alpha_ is")
@given(seed=st.integers(0, 10**6), n=st.integers(12, 40), K=st.integers(2, 10), n_components=st.integers(1, 7))
@quick
def test_oracle(seed, n, K, n_components):
    train, test = random_arrays(seed, n=n, K=K), random_arrays(seed + 1, n=5, K=K)
    test.update(weight=train["weight"], bias=train["bias"])
    scorer = ViM(n_components=n_components).fit(Representation.from_numpy(**train))
    scores = scorer.score_samples(Representation.from_numpy(**test))
    assert_scores_close(scores, vim_oracle(train, test, n_components))


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6, 1e20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_at_any_scale(scale, dtype):
    train = random_arrays(scale=scale, dtype=dtype)
    scores = fit_and_score(ViM(n_components=3), Representation.from_numpy(**train))
    assert_scores_close(scores, vim_oracle(train, train, 3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("K", [2, 12])
def test_oracle_on_features_of_low_rank(dtype, K):
    # The rank is 5, or 6 about an origin outside the span. All further components consist of rounding errors.
    train = random_arrays(n=60, C=16, K=K, rank=5, dtype=dtype)
    scorer = ViM().fit(Representation.from_numpy(**train))
    assert scorer.n_components_ == 3
    assert_scores_close(scorer.score_samples(Representation.from_numpy(**train)), vim_oracle(train, train, 3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_on_head_of_low_rank(dtype):
    train = random_arrays(n=60, C=8, K=4, dtype=dtype)
    train["weight"][3] = train["weight"][2]
    scores = fit_and_score(ViM(n_components=3), Representation.from_numpy(**train))
    assert_scores_close(scores, vim_oracle(train, train, 3))


def test_head_with_rows_that_sum_to_zero_in_float32():
    # In float32 their sum is a rounding error, which must not move the origin far away.
    exact = random_arrays(n=60, C=8, K=4)
    exact["weight"] -= exact["weight"].mean(axis=0)
    rounded = {name: array.astype(np.float32) for name, array in exact.items()}
    scores = fit_and_score(ViM(n_components=3), Representation.from_numpy(**rounded))
    np.testing.assert_allclose(scores, vim_oracle(exact, exact, 3), atol=1e-4)


def test_oracle_with_fewer_images_than_features():
    train = random_arrays(n=6, C=40)
    scorer = ViM().fit(Representation.from_numpy(**train))
    assert scorer.n_components_ == 3
    test = {**random_arrays(1, n=5, C=40), "weight": train["weight"], "bias": train["bias"]}
    scores = scorer.score_samples(Representation.from_numpy(**test))
    assert np.isfinite(scores).all()
    assert_scores_close(scores, vim_oracle(train, test, 3))


def test_oracle_beyond_one_batch():
    train = random_arrays(n=2500, C=6)
    scores = fit_and_score(ViM(n_components=2), Representation.from_numpy(**train))
    assert_scores_close(scores, vim_oracle(train, train, 2))


def test_fitted_attributes():
    arrays = random_arrays(n=200, C=8)
    scorer = ViM(n_components=5).fit(Representation.from_numpy(**arrays))
    assert (scorer.n_components_, scorer.n_features_in_, scorer.n_classes_) == (5, 8, 4)
    assert scorer.origin_.shape == (8,)
    assert scorer.origin_.dtype == scorer.residual_basis_.dtype == np.float64
    np.testing.assert_allclose(arrays["weight"] @ scorer.origin_, -arrays["bias"], atol=1e-12)
    assert scorer.residual_basis_.shape == (8, 3)
    np.testing.assert_allclose(scorer.residual_basis_.T @ scorer.residual_basis_, np.eye(3), atol=1e-12)
    assert isinstance(scorer.alpha_, float)
    assert scorer.alpha_ > 0
    assert isinstance(scorer.n_components_, int)


@pytest.mark.parametrize(("C", "n", "expected"), [(2, 50, 1), (9, 50, 4), (20, 10, 5), (768, 20, 10), (770, 1100, 385)])
def test_default_n_components(C, n, expected):
    representation = random_representation(n=n, C=C, dtype=np.float32)
    assert ViM().fit(representation).n_components_ == expected


@pytest.mark.parametrize(("C", "expected"), [(767, 383), (768, 512), (2047, 512), (2048, 1000)])
def test_default_n_components_by_size(C, expected):
    assert choose_components(None, rank=4096, n_features=C, n_images=5000) == expected


@given(seed=st.integers(0, 10**6))
@quick
def test_rotation_invariant(seed):
    arrays = random_arrays(seed, n=40)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))
    rotated = {**arrays, "features": arrays["features"] @ rotation, "weight": arrays["weight"] @ rotation}
    scores = fit_and_score(ViM(n_components=4), Representation.from_numpy(**rotated))
    np.testing.assert_allclose(
        scores, fit_and_score(ViM(n_components=4), Representation.from_numpy(**arrays)), atol=1e-6
    )


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3))
@quick
def test_residual_term_does_not_depend_on_the_scale_of_features(seed, factor):
    arrays = random_arrays(seed, n=40)
    scaled = {**arrays, "features": arrays["features"] * factor, "weight": arrays["weight"] / factor}
    np.testing.assert_allclose(
        fit_and_score(ViM(n_components=4), Representation.from_numpy(**scaled)),
        fit_and_score(ViM(n_components=4), Representation.from_numpy(**arrays)),
        atol=1e-6,
    )


def test_leaving_the_principal_space_lowers_the_score():
    rng = np.random.default_rng(0)
    head = {"weight": np.eye(2, 4), "bias": np.ones(2)}
    features = rng.normal(size=(100, 4)) * [3, 3, 0.1, 0.1]
    scorer = ViM(n_components=2).fit(Representation.from_numpy(features=features, **head))
    # The third feature changes no logit.
    away = np.array([[3.0, 0, distance, 0] for distance in (0, 1, 2, 4)])
    scores = scorer.score_samples(Representation.from_numpy(features=away, **head))
    assert (np.diff(scores) < 0).all()


@pytest.mark.parametrize("n_components", [8, 9, 1000])
def test_too_many_components(n_components):
    with pytest.raises(ValueError, match=f"^n_components={n_components} leaves no residual of the 8 feature"):
        ViM(n_components=n_components).fit(random_representation())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_components_beyond_the_rank(dtype):
    arrays = random_arrays(n=60, C=16, rank=5, dtype=dtype)
    arrays["bias"][:] = 0
    representation = Representation.from_numpy(**arrays)
    assert ViM(n_components=4).fit(representation).alpha_ < 100
    with pytest.raises(ValueError, match=r"^n_components=5 leaves no residual: .* numerical rank 5 .* lower"):
        ViM(n_components=5).fit(representation)


def test_one_feature():
    with pytest.raises(ValueError, match=r"n_components=None leaves no residual of the 1 feature"):
        ViM().fit(random_representation(C=1))


def test_one_image():
    with pytest.raises(ValueError, match=r"n_components=None leaves no residual: .* rank 1 .* more varied images"):
        ViM().fit(random_representation(n=1))


def test_features_all_at_the_origin():
    arrays = {"features": np.zeros((5, 3)), "weight": np.ones((2, 3)), "bias": np.zeros(2)}
    with pytest.raises(ValueError, match="numerical rank 0"):
        ViM().fit(Representation.from_numpy(**arrays))


def test_nan_in_fit():
    representation = random_representation()
    representation.features[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"representation\.features.* NaN"):
        ViM().fit(representation)


def test_warns_if_the_residual_raises_the_score():
    arrays = random_arrays()
    logits = arrays["features"] @ arrays["weight"].T - 100
    with pytest.warns(UserWarning, match="alpha_ is -"):
        ViM().fit(Representation.from_numpy(**arrays, logits=logits))


def test_the_warning_names_the_callers_line():
    arrays = random_arrays()
    logits = arrays["features"] @ arrays["weight"].T - 100
    with pytest.warns(UserWarning, match="alpha_ is -") as warnings:
        ViM().fit(Representation.from_numpy(**arrays, logits=logits))
    assert warnings[0].filename == __file__


@pytest.mark.parametrize("n_components", [0, -1, 2.5, "all"])
def test_n_components_is_checked(n_components):
    with pytest.raises(ValueError, match="n_components"):
        ViM(n_components=n_components).fit(random_representation())


def test_batches_add_up():
    """The statistics are computed from all batches, not only from the last one."""
    arrays = random_arrays(n=60)
    whole = ViM(n_components=4).fit(Representation.from_numpy(**arrays))
    parts = ViM(n_components=4).fit(SmallBatches.from_numpy(**arrays))
    np.testing.assert_allclose(parts.alpha_, whole.alpha_, rtol=1e-10)
    np.testing.assert_allclose(np.abs(parts.residual_basis_.T @ whole.residual_basis_), np.eye(4), atol=1e-8)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 40])
@pytest.mark.parametrize("C", [1, 2, 3, 8])
@pytest.mark.parametrize("K", [1, 4])
@pytest.mark.parametrize("n_components", [None, 1, 2, 5])
@pytest.mark.filterwarnings("ignore:alpha_ is")
def test_sizes_are_checked_early(monkeypatch, n_components, K, C, n):
    assert_same_error_early(monkeypatch, ViM(n_components), random_representation(n=n, C=C, K=K))


@pytest.mark.parametrize(("C", "n", "refused"), [(2048, 1000, True), (2048, 1001, False), (1024, 513, False)])
def test_number_of_components_is_checked_against_the_images(C, n, refused):
    parameters = {"n_components": 1000 if C == 2048 else 512}
    assert (message_of(ViM(**parameters).check_sizes, C, 4, n) is not None) == refused
    # The default follows the number of images.
    ViM().check_sizes(C, 4, n)


def test_error_for_too_many_components_names_the_remedy():
    with pytest.raises(ValueError, match=r"n_components=8 leaves no residual.* Energy\(\) needs no features\.$"):
        ViM(n_components=8).check_sizes(8, 4, 1000)
