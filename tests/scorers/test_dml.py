import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from skdfb.scorers import DML, MaxCosine, MaxNorm, Representation
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation


def parts_oracle(arrays):
    """Largest cosine and norm of each image."""
    W = np.asarray(arrays["weight"], dtype=np.float64)
    cosines, norms = [], []
    for h in np.asarray(arrays["features"], dtype=np.float64):
        norms.append(np.linalg.norm(h))
        cosines.append(max(float(h @ w) / (np.linalg.norm(h) * np.linalg.norm(w)) for w in W))
    return np.array(cosines), np.array(norms)


def dml_oracle(train, test, cosine_weight):
    if cosine_weight is None:
        cosines, norms = parts_oracle(train)
        cosine_weight = sum(norms) / sum(abs(cosine) for cosine in cosines)
    cosines, norms = parts_oracle(test)
    return cosine_weight * cosines + norms


@given(
    seed=st.integers(0, 10**6), K=st.integers(1, 6), n=st.integers(1, 20), cosine_weight=st.none() | st.floats(0, 1e3)
)
@quick
def test_oracle(seed, K, n, cosine_weight):
    train, test = random_arrays(seed, n=n, K=K), random_arrays(seed + 1, n=5, K=K)
    test.update(weight=train["weight"], bias=train["bias"])
    scorer = DML(cosine_weight=cosine_weight).fit(Representation.from_numpy(**train))
    scores = scorer.score_samples(Representation.from_numpy(**test))
    np.testing.assert_allclose(scores, dml_oracle(train, test, cosine_weight), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("cosine_weight", [None, 2.0])
def test_oracle_at_any_scale(scale, rank, cosine_weight):
    arrays = random_arrays(rank=rank, scale=scale)
    scores = fit_and_score(DML(cosine_weight=cosine_weight), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, dml_oracle(arrays, arrays, cosine_weight), rtol=1e-6)


def test_oracle_beyond_one_batch():
    arrays = random_arrays(n=2500)
    scores = fit_and_score(DML(), Representation.from_numpy(**arrays))
    np.testing.assert_allclose(scores, dml_oracle(arrays, arrays, None), rtol=1e-9)


@given(seed=st.integers(0, 10**6), cosine_weight=st.floats(0, 1e3))
@quick
def test_sum_of_its_parts(seed, cosine_weight):
    representation = random_representation(seed)
    parts = cosine_weight * fit_and_score(MaxCosine(), representation) + fit_and_score(MaxNorm(), representation)
    np.testing.assert_allclose(fit_and_score(DML(cosine_weight=cosine_weight), representation), parts, rtol=1e-12)


def test_extreme_weights_keep_one_part_only():
    representation = random_representation()
    assert np.array_equal(fit_and_score(DML(cosine_weight=0), representation), fit_and_score(MaxNorm(), representation))
    cosines_alone = fit_and_score(DML(cosine_weight=1e9), representation)
    assert np.array_equal(rankdata(cosines_alone), rankdata(fit_and_score(MaxCosine(), representation)))


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3), copies=st.integers(1, 3))
@quick
def test_default_follows_the_scale_of_the_features(seed, factor, copies):
    arrays = random_arrays(seed)
    scaled = {**arrays, "features": np.tile(factor * arrays["features"], (copies, 1))}
    np.testing.assert_allclose(
        fit_and_score(DML(), Representation.from_numpy(**scaled))[:30],
        factor * fit_and_score(DML(), Representation.from_numpy(**arrays)),
        rtol=1e-9,
    )


def test_default_weight():
    arrays = {"features": np.array([[3.0, 4.0], [-2.0, 0.0]]), "weight": np.array([[2.0, 0.0]]), "bias": np.zeros(1)}
    scorer = DML().fit(Representation.from_numpy(**arrays))
    assert scorer.cosine_weight is None
    assert isinstance(scorer.cosine_weight_, float)
    # Norms 5 and 2, cosines 0.6 and -1.
    assert np.isclose(scorer.cosine_weight_, 7 / 1.6)


def test_given_weight_is_a_plain_number():
    weight = DML(cosine_weight=np.float32(2)).fit(random_representation()).cosine_weight_
    assert type(weight) is float
    assert weight == 2


@pytest.mark.parametrize("zero", ["features", "weight"])
def test_cosines_of_zero(zero):
    arrays = random_arrays()
    arrays[zero][:] = 0
    scorer = DML().fit(Representation.from_numpy(**arrays))
    assert scorer.cosine_weight_ == 1
    new = Representation.from_numpy(**{**random_arrays(1), "weight": arrays["weight"]})
    expected = fit_and_score(MaxCosine(), new) + fit_and_score(MaxNorm(), new)
    np.testing.assert_allclose(scorer.score_samples(new), expected, rtol=1e-12)


def test_features_of_zero_score_zero():
    scorer = DML(cosine_weight=5.0).fit(random_representation())
    zero = {**random_arrays(), "features": np.zeros((2, 8))}
    assert scorer.score_samples(Representation.from_numpy(**zero)).tolist() == [0, 0]


@pytest.mark.parametrize("cosine_weight", [-1, float("inf"), float("nan"), "1"])
def test_cosine_weight_is_checked(cosine_weight):
    with pytest.raises(ValueError, match="cosine_weight"):
        DML(cosine_weight=cosine_weight).fit(random_representation())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_features_raise_an_error(value):
    representation = random_representation()
    scorer = DML().fit(representation)
    representation.features[3, 1] = value
    with pytest.raises(ValueError, match=r"representation gives 1 scores .* row 3"):
        scorer.score_samples(representation)


def test_output():
    assert DML.output == "logit"
