import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdfb.scorers import NECO, MaxLogit, Representation
from tests.scorers.early_errors import assert_same_error_early
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def neco_oracle(train, test, n_components, scale_by_max_logit=True):
    """NECO as in the paper on standardised features, in float64; mappings with features, weight and bias."""
    H, new = (np.asarray(arrays["features"], dtype=np.float64) for arrays in (train, test))
    W, b = (np.asarray(train[name], dtype=np.float64) for name in ("weight", "bias"))
    n = len(H)
    mean = sum(H) / n
    variance = sum((h - mean) ** 2 for h in H) / n
    scale = np.array([np.sqrt(v) if v > 1e-24 * m**2 else 1.0 for v, m in zip(variance, mean, strict=True)])
    # The right singular vectors of the standardised features, which are centred, are the principal components.
    standardised = np.array([(h - mean) / scale for h in H])
    P = np.linalg.svd(standardised)[2][:n_components]
    scores = []
    for h in new:
        h_standardised = (h - mean) / scale
        share = np.sqrt(sum(float(p @ h_standardised) ** 2 for p in P)) / np.sqrt(sum(h_standardised**2))
        scores.append(share * (max(W @ h + b) if scale_by_max_logit else 1))
    return np.array(scores)


def assert_scores_close(scores, expected):
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(12, 40),
    K=st.integers(1, 10),
    n_components=st.integers(1, 7),
    scale_by_max_logit=st.booleans(),
)
@quick
def test_oracle(seed, n, K, n_components, scale_by_max_logit):
    train, test = random_arrays(seed, n=n, K=K), random_arrays(seed + 1, n=5, K=K)
    test.update(weight=train["weight"], bias=train["bias"])
    scorer = NECO(n_components, scale_by_max_logit=scale_by_max_logit).fit(Representation.from_numpy(**train))
    scores = scorer.score_samples(Representation.from_numpy(**test))
    assert_scores_close(scores, neco_oracle(train, test, n_components, scale_by_max_logit))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_at_any_scale(scale, dtype):
    train = random_arrays(scale=scale, dtype=dtype)
    scores = fit_and_score(NECO(n_components=3), Representation.from_numpy(**train))
    # The default logits of float32 features are float32.
    np.testing.assert_allclose(scores, neco_oracle(train, train, 3), rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_on_features_of_low_rank(dtype):
    train = random_arrays(n=60, C=16, rank=5, dtype=dtype)
    scorer = NECO().fit(Representation.from_numpy(**train))
    assert scorer.n_components_ == 2
    assert_scores_close(scorer.score_samples(Representation.from_numpy(**train)), neco_oracle(train, train, 2))


@pytest.mark.parametrize("n_components", [5, 11])
def test_oracle_with_fewer_images_than_features(n_components):
    # 12 images span 11 dimensions. With 11 components, the share of training images is 1 and that of others is less.
    train = random_arrays(n=12, C=40)
    test = {**random_arrays(1, n=5, C=40), "weight": train["weight"], "bias": train["bias"]}
    scorer = NECO(n_components=n_components).fit(Representation.from_numpy(**train))
    scores = scorer.score_samples(Representation.from_numpy(**test))
    assert_scores_close(scores, neco_oracle(train, test, n_components))


def test_oracle_beyond_one_batch():
    train = random_arrays(n=5000, C=6)
    train["features"][:, 0] += 2 * train["features"][:, 1]
    test = {**train, "features": train["features"][::7]}
    scorer = NECO(n_components=2).fit(Representation.from_numpy(**train))
    H = train["features"]
    assert_scores_close(scorer.score_samples(Representation.from_numpy(**test)), covariance_neco(H, test, 2))
    assert len(fit_and_score(scorer, Representation.from_numpy(**train))) == 5000


def covariance_neco(H, test, n_components):
    """The oracle computed from the correlation matrix, for many images."""
    correlation = np.corrcoef(H.T)
    P = np.linalg.eigh(correlation)[1][:, -n_components:]
    standardised = (test["features"] - H.mean(axis=0)) / H.std(axis=0)
    share = np.linalg.norm(standardised @ P, axis=1) / np.linalg.norm(standardised, axis=1)
    return share * (test["features"] @ test["weight"].T + test["bias"]).max(axis=1)


def test_fitted_attributes():
    arrays = random_arrays(n=200, C=8)
    scorer = NECO(n_components=5).fit(Representation.from_numpy(**arrays))
    assert scorer.n_components_ == 5
    assert isinstance(scorer.n_components_, int)
    assert scorer.mean_.dtype == scorer.scale_.dtype == scorer.components_.dtype == np.float64
    np.testing.assert_allclose(scorer.mean_, arrays["features"].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scorer.scale_, arrays["features"].std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scorer.components_.T @ scorer.components_, np.eye(5), atol=1e-12)
    variances = (((arrays["features"] - scorer.mean_) / scorer.scale_) @ scorer.components_).var(axis=0)
    assert (np.diff(variances) > 0).all()


@pytest.mark.parametrize(("C", "n", "expected"), [(2, 50, 1), (9, 50, 4), (20, 10, 4), (150, 200, 75), (300, 350, 100)])
def test_default_n_components(C, n, expected):
    assert NECO().fit(random_representation(n=n, C=C, dtype=np.float32)).n_components_ == expected


@given(seed=st.integers(0, 10**6))
@quick
def test_scale_and_shift_of_each_feature_do_not_matter(seed):
    arrays = random_arrays(seed, n=40)
    rng = np.random.default_rng(seed)
    factors, shift = 10 ** rng.uniform(-3, 3, size=8) * rng.choice([-1, 1], size=8), rng.normal(size=8)
    logits = rng.normal(size=(40, 4))
    moved = {**arrays, "features": arrays["features"] * factors + shift}
    np.testing.assert_allclose(
        fit_and_score(NECO(n_components=3), Representation.from_numpy(**moved, logits=logits)),
        fit_and_score(NECO(n_components=3), Representation.from_numpy(**arrays, logits=logits)),
        rtol=1e-6,
    )


@given(seed=st.integers(0, 10**6), n_components=st.integers(1, 6))
@quick
def test_share_is_in_0_to_1_and_grows_with_the_components(seed, n_components):
    representation = random_representation(seed)
    less, more = (
        fit_and_score(NECO(D, scale_by_max_logit=False), representation) for D in (n_components, n_components + 1)
    )
    assert (less >= 0).all()
    assert (less <= more + 1e-12).all()
    assert (more <= 1 + 1e-12).all()


@given(seed=st.integers(0, 10**6))
@quick
def test_share_times_largest_logit(seed):
    representation = random_representation(seed)
    share = fit_and_score(NECO(3, scale_by_max_logit=False), representation)
    expected = share * fit_and_score(MaxLogit(), representation)
    np.testing.assert_allclose(fit_and_score(NECO(3), representation), expected, rtol=1e-12)


def test_duplicating_all_training_images_changes_nothing():
    arrays = random_arrays()
    twice = {**arrays, "features": np.repeat(arrays["features"], 2, axis=0)}
    scores = fit_and_score(NECO(n_components=3), Representation.from_numpy(**twice))
    np.testing.assert_allclose(
        scores, np.repeat(fit_and_score(NECO(n_components=3), Representation.from_numpy(**arrays)), 2), rtol=1e-9
    )


def test_leaving_the_principal_space_lowers_the_score():
    rng = np.random.default_rng(0)
    head = {"weight": np.eye(2, 4), "bias": np.ones(2)}
    features = rng.normal(size=(200, 2))[:, [0, 1, 0, 1]] + 0.1 * rng.normal(size=(200, 4))
    scorer = NECO(n_components=2).fit(Representation.from_numpy(features=features, **head))
    away = np.array([[2.0, 1, 2 - distance, 1 - distance] for distance in (0, 1, 2, 4)])
    assert (np.diff(scorer.score_samples(Representation.from_numpy(features=away, **head))) < 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_constant_features(dtype):
    # The scale is 1 instead of 0, also where the standard deviation of constants is not exactly 0 by rounding.
    train = random_arrays(n=3000, C=6, dtype=dtype)
    train["features"][:, :2] = np.array([0.1, 1000.1], dtype=dtype)
    scorer = NECO(n_components=2).fit(Representation.from_numpy(**train))
    assert scorer.scale_[:2].tolist() == [1, 1]
    assert scorer.mean_[:2].tolist() == train["features"][0, :2].tolist()
    test = {**random_arrays(1, n=4, C=6), "weight": train["weight"], "bias": train["bias"]}
    scores = scorer.score_samples(Representation.from_numpy(**test))
    assert_scores_close(scores, neco_oracle({**train, "features": train["features"][:]}, test, 2))


def test_image_at_the_mean():
    features = np.array([[1.0, 2, 3], [3, 2, 1], [2, 3, 4], [2, 1, 0], [2, 2, 2]])
    representation = Representation.from_numpy(features=features, weight=np.eye(2, 3), bias=np.ones(2))
    scores = fit_and_score(NECO(n_components=1), representation)
    assert scores[4] == 0
    assert np.isfinite(scores).all()


def test_one_class():
    train = random_arrays(K=1)
    scores = fit_and_score(NECO(n_components=3), Representation.from_numpy(**train))
    assert_scores_close(scores, neco_oracle(train, train, 3))


def test_float32_and_float64_agree():
    scores = fit_and_score(NECO(), random_representation(n=60, dtype=np.float32))
    np.testing.assert_allclose(scores, fit_and_score(NECO(), random_representation(n=60)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_components", [8, 9, 1000])
def test_too_many_components(n_components):
    with pytest.raises(ValueError, match=f"^n_components={n_components} leaves nothing outside .* 8 feature"):
        NECO(n_components=n_components).fit(random_representation())


@pytest.mark.parametrize("n", [1, 2, 3, 6, 40])
@pytest.mark.parametrize("C", [1, 2, 3, 8])
@pytest.mark.parametrize("n_components", [None, 1, 2, 5])
def test_sizes_are_checked_early(monkeypatch, n_components, C, n):
    assert_same_error_early(monkeypatch, NECO(n_components), random_representation(n=n, C=C))


def test_components_beyond_the_rank():
    representation = random_representation(n=60, C=16, rank=5)
    NECO(n_components=5).fit(representation)
    with pytest.raises(ValueError, match=r"^n_components=6 is more than .* rank is 5.* lower"):
        NECO(n_components=6).fit(representation)


def test_one_feature():
    with pytest.raises(ValueError, match=r"n_components=None leaves nothing outside .* 1 feature"):
        NECO().fit(random_representation(C=1))


@pytest.mark.parametrize("n", [1, 3000])
def test_equal_features(n):
    arrays = {**random_arrays(), "features": np.full((n, 8), 0.1)}
    with pytest.raises(ValueError, match="rank is 0"):
        NECO().fit(Representation.from_numpy(**arrays))


def test_nan_in_fit():
    representation = random_representation()
    representation.features[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"representation\.features.* NaN"):
        NECO().fit(representation)


@pytest.mark.parametrize(
    "parameters",
    [{"n_components": 0}, {"n_components": 2.5}, {"n_components": "all"}, {"scale_by_max_logit": "yes"}],
)
def test_parameters_are_checked(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        NECO(**parameters).fit(random_representation())
