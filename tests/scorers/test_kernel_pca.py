import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.decomposition import KernelPCA as SklearnKernelPCA

from skdfb.scorers import KernelPCA, Representation
from tests.scorers.early_errors import assert_same_error_early
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation

KERNELS = ["cosine", "cosine-gaussian"]
M = 30  # random features


def directions(features):
    """The features divided by their norm; zeros stay zeros."""
    H = np.asarray(features, dtype=np.float64)
    H = [h / np.abs(h).max() if h.any() else h for h in H]
    return np.array([h / np.sqrt(sum(h**2)) if h.any() else h for h in H])


def mapped(features, kernel, gamma, seed=0):
    """φ(z) of the paper, entry by entry."""
    Z = directions(features)
    if kernel == "cosine":
        return Z
    rng = np.random.RandomState(seed)
    W = np.sqrt(2 * gamma) * rng.normal(size=(Z.shape[1], M))
    u = rng.uniform(0, 2 * np.pi, size=M)
    return np.array([[np.sqrt(2 / M) * np.cos(w @ z + offset) for w, offset in zip(W.T, u, strict=True)] for z in Z])


def kernel_pca_oracle(features, new, kernel, n_components, gamma=1.0, seed=0):
    """KernelPCA scores as in the paper, in float64."""
    train, test = mapped(features, kernel, gamma, seed), mapped(new, kernel, gamma, seed)
    mean = sum(train) / len(train)
    # The right singular vectors of the centred rows are the principal components.
    _, singular, components = np.linalg.svd(train - mean)
    shares = np.cumsum(singular**2) / sum(singular**2)
    D = n_components
    if not isinstance(D, int):
        D = 1 + next(index for index, share in enumerate(shares) if share >= n_components)
    scores = []
    for row in test:
        centred = row - mean
        reconstructed = sum((p @ centred) * p for p in components[:D])
        scores.append(-np.sqrt(sum((centred - reconstructed) ** 2)))
    return np.array(scores)


def scorer_of(kernel, n_components=0.8, gamma=1.0, **options):
    return KernelPCA(kernel, n_components, gamma=gamma, n_random_features=M, **options)


def scores_of(scorer, arrays, features=None):
    """Fit on the arrays and score other features, or the same."""
    scorer.fit(Representation.from_numpy(**arrays))
    new = arrays if features is None else {**arrays, "features": features}
    return scorer.score_samples(Representation.from_numpy(**new))


def assert_scores_close(scores, expected, rtol=1e-6):
    np.testing.assert_allclose(scores, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


# ------------------------------------------------------------------ the formula


@pytest.mark.parametrize("kernel", KERNELS)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(12, 40),
    n_components=st.one_of(st.integers(1, 7), st.floats(0.05, 0.9)),
    gamma=st.floats(0.1, 5),
)
@quick
def test_oracle(kernel, seed, n, n_components, gamma):
    arrays = random_arrays(seed, n=n)
    new = random_arrays(seed + 1, n=5)["features"]
    scores = scores_of(scorer_of(kernel, n_components, gamma, random_state=seed), arrays, new)
    assert_scores_close(scores, kernel_pca_oracle(arrays["features"], new, kernel, n_components, gamma, seed))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_at_any_scale(kernel, scale, dtype):
    arrays = random_arrays(scale=scale, dtype=dtype)
    expected = kernel_pca_oracle(arrays["features"], arrays["features"], kernel, 3)
    assert_scores_close(scores_of(scorer_of(kernel, 3), arrays), expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_oracle_with_fewer_images_than_features(kernel):
    arrays, new = random_arrays(n=12, C=40), random_arrays(1, n=5, C=40)["features"]
    scores = scores_of(scorer_of(kernel, 6), arrays, new)
    assert_scores_close(scores, kernel_pca_oracle(arrays["features"], new, kernel, 6))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_on_features_of_low_rank(dtype):
    arrays = random_arrays(n=60, C=16, rank=5, dtype=dtype)
    scorer = scorer_of("cosine", 4)
    assert_scores_close(
        scores_of(scorer, arrays), kernel_pca_oracle(arrays["features"], arrays["features"], "cosine", 4), rtol=1e-5
    )
    # A share that only all five components have, or rounding alone, leaves one of them as the residual.
    assert scorer.set_params(n_components=1 - 1e-15).fit(Representation.from_numpy(**arrays)).n_components_ == 4


@pytest.mark.parametrize("kernel", KERNELS)
def test_oracle_beyond_one_batch(kernel):
    arrays = random_arrays(n=5000, C=6)
    few = arrays["features"][::500]
    scores = scores_of(scorer_of(kernel, 2), arrays, few)
    train = mapped(arrays["features"], kernel, 1.0)
    pca = PCA(2, svd_solver="full").fit(train)
    rows = mapped(few, kernel, 1.0)
    expected = -np.linalg.norm(rows - pca.inverse_transform(pca.transform(rows)), axis=1)
    assert_scores_close(scores, expected)


def test_cosine_kernel_is_kernel_pca_with_that_kernel():
    # The error from the kernel matrix: k(x, x) less the squared projections, all centred in the feature space.
    arrays, new = random_arrays(n=40), random_arrays(1, n=10)["features"]
    errors = errors_of_kernel_matrix(arrays["features"], new, n_components=3, kernel="cosine")
    assert_scores_close(scores_of(scorer_of("cosine", 3), arrays, new), -errors)


def test_random_features_approach_kernel_pca_with_a_gaussian_kernel():
    arrays, new = random_arrays(n=40, C=3), 3 * random_arrays(1, n=30, C=3)["features"]
    Z, Z_new = directions(arrays["features"]), directions(new)
    expected = -errors_of_kernel_matrix(Z, Z_new, n_components=3, kernel="rbf", gamma=1.5)
    far, near = (
        np.abs(scores_of(KernelPCA("cosine-gaussian", 3, gamma=1.5, n_random_features=m), arrays, new) - expected).max()
        for m in (10, 600)
    )
    assert near < 0.1 < far


def errors_of_kernel_matrix(features, new, n_components, **kernel):
    """Reconstruction errors of scikit-learn's kernel PCA, which uses no map of the features."""
    every = SklearnKernelPCA(**kernel, eigen_solver="dense").fit(np.vstack([features, new]))
    gram = every._get_kernel(np.vstack([features, new]))
    n = len(features)
    to_train = gram[n:, :n]
    squared = np.diag(gram)[n:] - 2 * to_train.mean(axis=1) + gram[:n, :n].mean()
    projected = SklearnKernelPCA(n_components, **kernel, eigen_solver="dense").fit(features).transform(new)
    return np.sqrt(squared - (projected**2).sum(axis=1))


def test_random_features_have_the_gaussian_kernel_as_product():
    arrays = random_arrays(n=20, C=5)
    scorer = KernelPCA("cosine-gaussian", gamma=0.7, n_random_features=600).fit(Representation.from_numpy(**arrays))
    Z = directions(arrays["features"])
    phi = np.sqrt(2 / 600) * np.cos(Z @ scorer.random_weights_ + scorer.random_offset_)
    squared = ((Z[:, None] - Z) ** 2).sum(axis=2)
    np.testing.assert_allclose(phi @ phi.T, np.exp(-0.7 * squared), atol=0.15)


# ------------------------------------------------------------------ the choices


@given(seed=st.integers(0, 10**6), share=st.floats(0.01, 0.99))
@quick
def test_share_takes_the_fewest_components(seed, share):
    representation = random_representation(seed, n=40)
    scorer = KernelPCA(n_components=share).fit(representation)
    shares = PCA(svd_solver="full").fit(directions(representation.features)).explained_variance_ratio_.cumsum()
    D = scorer.n_components_
    np.testing.assert_allclose(scorer.explained_variance_ratio_, shares[D - 1], rtol=1e-9)
    assert D == 1 or shares[D - 2] < share
    assert shares[D - 1] >= share or D == 7
    # The number instead of the share gives the same scores.
    again = KernelPCA(n_components=D).fit(representation)
    assert np.array_equal(again.score_samples(representation), scorer.score_samples(representation))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_automatic_gamma_is_one_over_the_mean_squared_distance(dtype):
    arrays = random_arrays(n=70, C=12, dtype=dtype)
    scorer = scorer_of("cosine-gaussian", gamma="auto").fit(Representation.from_numpy(**arrays))
    Z = directions(arrays["features"])
    np.testing.assert_allclose(scorer.gamma_, 1 / ((Z[:, None] - Z) ** 2).sum(axis=2).mean(), rtol=1e-6)
    fixed = scorer_of("cosine-gaussian", gamma=scorer.gamma_)
    representation = Representation.from_numpy(**arrays)
    assert np.array_equal(fit_and_score(fixed, representation), scorer.score_samples(representation))


def test_automatic_gamma_of_directions_that_are_close_together():
    # A variance of about 1e-12, of which 1 - |mean|² would keep four digits.
    arrays = random_arrays(n=50)
    arrays["features"] = 1 + 1e-6 * arrays["features"]
    scorer = scorer_of("cosine-gaussian", gamma="auto").fit(Representation.from_numpy(**arrays))
    Z = directions(arrays["features"])
    np.testing.assert_allclose(scorer.gamma_, 1 / (2 * Z.var(axis=0).sum()), rtol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_fitted_attributes(kernel):
    arrays = random_arrays(n=200)
    scorer = scorer_of(kernel, 5, gamma=2).fit(Representation.from_numpy(**arrays))
    width = 8 if kernel == "cosine" else M
    assert (scorer.n_components_, scorer.n_features_in_, scorer.n_classes_) == (5, 8, 4)
    assert isinstance(scorer.n_components_, int)
    assert (scorer.mean_.shape, scorer.components_.shape) == ((width,), (width, 5))
    assert scorer.mean_.dtype == scorer.components_.dtype == np.float64
    np.testing.assert_allclose(scorer.components_.T @ scorer.components_, np.eye(5), atol=1e-12)
    variances = ((mapped(arrays["features"], kernel, 2) - scorer.mean_) @ scorer.components_).var(axis=0)
    assert (np.diff(variances) > 0).all()
    if kernel == "cosine":
        assert scorer.gamma_ is scorer.random_weights_ is scorer.random_offset_ is None
    else:
        assert scorer.gamma_ == 2
        assert (scorer.random_weights_.shape, scorer.random_offset_.shape) == ((8, M), (M,))


def test_random_state():
    representation = random_representation(n=60)
    one, same, other, third, fourth = (
        fit_and_score(scorer_of("cosine-gaussian", random_state=seed), representation)
        for seed in (0, np.random.RandomState(0), 1, None, None)
    )
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)
    assert not np.allclose(third, fourth)
    assert np.array_equal(*(fit_and_score(KernelPCA(random_state=seed), representation) for seed in (None, 3)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_parameters_that_are_set_after_fit_change_no_score(kernel):
    representation = random_representation(n=60)
    scorer = scorer_of(kernel).fit(representation)
    before = scorer.score_samples(representation)
    other = "cosine" if kernel == "cosine-gaussian" else "cosine-gaussian"
    scorer.set_params(kernel=other, n_components=2, gamma=9.0, n_random_features=5, random_state=4)
    assert np.array_equal(scorer.score_samples(representation), before)


# ------------------------------------------------------------------- properties


@pytest.mark.parametrize("kernel", KERNELS)
@given(seed=st.integers(0, 10**6))
@quick
def test_norms_do_not_matter(kernel, seed):
    arrays = random_arrays(seed, n=40)
    norms = 10 ** np.random.default_rng(seed).uniform(-30, 30, size=(40, 1))
    scores = scores_of(scorer_of(kernel, 4), {**arrays, "features": norms * arrays["features"]})
    assert_scores_close(scores, scores_of(scorer_of(kernel, 4), arrays), rtol=1e-9)


@given(seed=st.integers(0, 10**6))
@quick
def test_rotation_changes_nothing_with_the_cosine_kernel(seed):
    arrays = random_arrays(seed, n=40)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))
    rotated = {**arrays, "features": arrays["features"] @ rotation}
    assert_scores_close(scores_of(KernelPCA(), rotated), scores_of(KernelPCA(), arrays), rtol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
@given(seed=st.integers(0, 10**6), n_components=st.integers(1, 6))
@quick
def test_more_components_leave_a_smaller_error(kernel, seed, n_components):
    representation = random_representation(seed)
    less = fit_and_score(scorer_of(kernel, n_components), representation)
    more = fit_and_score(scorer_of(kernel, n_components + 1), representation)
    assert (less <= more + 1e-12).all()
    assert (more <= 0).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_order_and_copies_of_training_images_do_not_matter(kernel):
    arrays = random_arrays(n=1500)
    scores = scores_of(scorer_of(kernel), arrays)
    for rows in (np.arange(1500)[::-1], np.repeat(np.arange(1500), 2)):
        again = scores_of(scorer_of(kernel), {**arrays, "features": arrays["features"][rows]}, arrays["features"])
        assert_scores_close(again, scores, rtol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_zero_features_have_a_finite_score(kernel):
    arrays = random_arrays(n=40)
    arrays["features"][[3, 17]] = 0
    scores = scores_of(scorer_of(kernel, 3), arrays)
    assert_scores_close(scores, kernel_pca_oracle(arrays["features"], arrays["features"], kernel, 3))
    assert scores[3] == scores[17] < scores.max()


def test_errors_on_a_narrow_cone():
    # Directions that differ by 1e-9: nothing cancels. The cone is exact: the features are small integers over 2^30.
    rng = np.random.default_rng(0)
    steps = rng.integers(-8, 9, size=(60, 5)) * [64, 16, 4, 1, 0]
    arrays = {**random_arrays(C=5), "features": np.array([0, 0, 0, 0, 1.0]) + steps * 2.0**-34}
    scores = scores_of(KernelPCA(n_components=2), arrays)
    flat = steps[:, :4] - steps[:, :4].mean(axis=0)
    pca = PCA(2, svd_solver="full").fit(flat)
    expected = -np.linalg.norm(flat - pca.inverse_transform(pca.transform(flat)), axis=1) * 2.0**-34
    assert_scores_close(scores, expected, rtol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_float32_and_float64_agree(kernel):
    scores = fit_and_score(scorer_of(kernel), random_representation(n=60, dtype=np.float32))
    expected = fit_and_score(scorer_of(kernel), random_representation(n=60))
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------- refusals


@pytest.mark.parametrize("n", [1, 2, 3, 40])
@pytest.mark.parametrize("C", [1, 2, 8])
@pytest.mark.parametrize("n_components", [0.8, 1, 5, 29, 30])
@pytest.mark.parametrize("kernel", KERNELS)
def test_sizes_are_checked_early(monkeypatch, kernel, n_components, C, n):
    # A narrow kernel, with which all random features count.
    scorer = scorer_of(kernel, n_components, gamma=50.0)
    assert_same_error_early(monkeypatch, scorer, random_representation(n=n, C=C))


@pytest.mark.parametrize(
    ("scorer", "C", "message"),
    [
        (KernelPCA(n_components=8), 8, r"^n_components=8 leaves no residual of the 8 feature\(s\) of representation"),
        (KernelPCA(), 1, r"^n_components=0\.8 leaves no residual of the 1 feature\(s\).* Energy\(\)"),
        (scorer_of("cosine-gaussian", 30), 8, r"^n_components=30 leaves no residual of the 30 random features"),
        (scorer_of("cosine-gaussian"), 1, r"^n_components=0\.8 leaves no residual of the 1 feature\(s\)"),
        (KernelPCA(n_components=4), 8, r"rank 4 over 5 training image"),
    ],
    ids=repr,
)
def test_sizes_that_leave_no_residual(scorer, C, message):
    with pytest.raises(ValueError, match=message):
        scorer.fit(random_representation(n=5, C=C))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_components_beyond_the_rank(dtype):
    representation = random_representation(n=60, C=16, rank=5, dtype=dtype)
    KernelPCA(n_components=4).fit(representation)
    with pytest.raises(ValueError, match=r"^n_components=5 leaves no residual: .*cosine kernel.* rank 5 .* lower"):
        KernelPCA(n_components=5).fit(representation)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("gamma", ["auto", 0.5, 50.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("C", [3, 100])
def test_features_that_differ_in_their_norm_alone(kernel, gamma, dtype, C):
    rng = np.random.default_rng(0)
    features = 2.0 ** rng.integers(-3, 4, size=(60, 1)) * rng.normal(size=C).astype(dtype)
    if dtype != np.float16:
        features = features * rng.uniform(1, 2, size=(60, 1))
    arrays = {**random_arrays(C=C, dtype=dtype), "features": features.astype(dtype)}
    with pytest.raises(ValueError, match=r"leaves no residual: .* rank 0 over 60 training image"):
        scorer_of(kernel, gamma=gamma).fit(Representation.from_numpy(**arrays))


@pytest.mark.parametrize("kernel", KERNELS)
def test_two_directions_leave_no_residual(kernel):
    arrays = random_arrays(n=60)
    arrays["features"] = arrays["features"][:2][np.arange(60) % 2]
    with pytest.raises(ValueError, match=r"rank 1 over 60 training image\(s\)\. Expected .* more varied images"):
        scorer_of(kernel).fit(Representation.from_numpy(**arrays))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("gamma", ["auto", 1.0])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_fit(kernel, gamma, value):
    representation = random_representation()
    representation.features[2, 1] = value
    with pytest.raises(ValueError, match=r"representation\.features.* NaN"):
        scorer_of(kernel, gamma=gamma).fit(representation)


@pytest.mark.parametrize(
    "parameters",
    [
        *({"n_components": value} for value in (0, -1, 0.0, 1.0, 2.5, None, "all")),
        *({"gamma": value} for value in (0.0, -1.0, float("nan"), float("inf"), "scale", None)),
        *({"kernel": value} for value in ("rbf", "gaussian", None)),
        *({"n_random_features": value} for value in (0, 2.5, None)),
        {"random_state": "seed"},
    ],
    ids=str,
)
def test_parameters_are_checked(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        KernelPCA(**parameters).fit(random_representation())
