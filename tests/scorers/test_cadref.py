import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from skdfb.scorers import MSP, CADRef, CARef, Energy, MaxLogit, Representation
from tests.scorers.helpers import fit_and_score, quick, random_arrays, random_representation
from tests.scorers.test_caref import assert_scores_close, class_means_oracle, logits_of, with_head_of

LOGIT_SCORES = ["energy", "max_logit", "msp"]
every_logit_score = pytest.mark.parametrize("logit_score", LOGIT_SCORES)


def confidence_oracle(z, logit_score):
    top = max(z)
    shares = sum(math.exp(value - top) for value in z)
    if logit_score == "msp":
        return 1 / shares
    score = top if logit_score == "max_logit" else top + math.log(shares)
    return score if score >= 1 else math.exp(max(score - 1, -300))


def cadref_oracle(train, test, logit_score="energy"):
    """CADRef image by image, in float64; for zeros and small confidences as in the docstring."""
    H, W, b = (np.asarray(train[name], dtype=np.float64) for name in ("features", "weight", "bias"))
    means = class_means_oracle(train)
    mean_confidence = sum(confidence_oracle(W @ h + b, logit_score) / len(H) for h in H)
    scores = []
    for h in np.asarray(test["features"], dtype=np.float64):
        z = W @ h + b
        c = max(means, key=lambda k, z=z: z[k])
        positive = negative = 0.0
        for weight, error in zip(W[c], h - means[c], strict=True):
            if weight * error > 0:
                positive += abs(error)
            elif weight * error < 0:
                negative += abs(error)
        norm = max(sum(abs(h)), 2.0**-23 * sum(abs(means[c]))) or 1.0
        scores.append(-positive / norm / confidence_oracle(z, logit_score) - negative / norm / mean_confidence)
    return np.array(scores)


def scores_after_fit(train, test, logit_score="energy"):
    scorer = CADRef(logit_score).fit(Representation.from_numpy(**train))
    return scorer.score_samples(Representation.from_numpy(**test))


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 40),
    K=st.integers(1, 10),
    C=st.integers(1, 8),
    logit_score=st.sampled_from(LOGIT_SCORES),
    shift=st.sampled_from([0.0, 10.0, -10.0]),
)
@quick
def test_oracle(seed, n, K, C, logit_score, shift):
    train = random_arrays(seed, n=n, K=K, C=C)
    train["bias"] += shift
    test = with_head_of(random_arrays(seed + 1, n=8, C=C), train)
    scores = scores_after_fit(train, test, logit_score)
    np.testing.assert_allclose(scores, cadref_oracle(train, test, logit_score), rtol=1e-9, atol=1e-9)


@every_logit_score
@pytest.mark.parametrize("options", [{"rank": 2}, {"scale": 1e-20}, {"scale": 1e15}, {"K": 1}, {"C": 1}, {"n": 3000}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_oracle_on_unusual_input(options, dtype, logit_score):
    arrays = random_arrays(**options, dtype=dtype)
    expected = cadref_oracle(arrays, arrays, logit_score)
    assert_scores_close(fit_and_score(CADRef(logit_score), Representation.from_numpy(**arrays)), expected)


@given(seed=st.integers(0, 10**6), logit_score=st.sampled_from(LOGIT_SCORES))
@quick
def test_authors_formula(seed, logit_score):
    """The authors' code, as array operations: all classes are predicted, no image is 0, logits are not small."""
    train = random_arrays(seed, n=300)
    train["bias"] += 30
    test = with_head_of(random_arrays(seed + 1), train)
    function = {
        "energy": lambda z: logsumexp(z, axis=1),
        "max_logit": lambda z: z.max(axis=1),
        "msp": lambda z: softmax(z, axis=1).max(axis=1),
    }[logit_score]
    predicted, c = logits_of(train).argmax(axis=1), logits_of(test).argmax(axis=1)
    known = np.isin(c, predicted)
    h, c = test["features"][known], c[known]
    means = np.stack([train["features"][predicted == k].mean(axis=0) if k in predicted else h[0] for k in range(4)])
    directed = (h - means[c]) * np.sign(train["weight"][c])
    raised, lowered = np.where(directed > 0, directed, 0), np.where(directed < 0, -directed, 0)
    size = np.linalg.norm(h, ord=1, axis=1)
    expected = raised.sum(axis=1) / size / function(logits_of(test))[known]
    expected += lowered.sum(axis=1) / size / function(logits_of(train)).mean()
    np.testing.assert_allclose(scores_after_fit(train, test, logit_score)[known], -expected, rtol=1e-9)


@every_logit_score
def test_fitted_attributes(logit_score):
    representation = random_representation()
    scorer = CADRef(logit_score).fit(representation)
    class_aware = CARef().fit(representation)
    assert np.array_equal(scorer.means_, class_aware.means_)
    assert np.array_equal(scorer.has_mean_, class_aware.has_mean_)
    assert type(scorer.mean_confidence_) is float
    expected = np.mean([confidence_oracle(z, logit_score) for z in representation.logits.tolist()])
    assert scorer.mean_confidence_ == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("logit_score", "scorer"), [("energy", Energy()), ("max_logit", MaxLogit())])
def test_confidence_from_one_on_is_the_score(logit_score, scorer):
    arrays = random_arrays()
    arrays["bias"] += 30
    representation = Representation.from_numpy(**arrays)
    expected = fit_and_score(scorer, representation).mean()
    assert CADRef(logit_score).fit(representation).mean_confidence_ == pytest.approx(expected, rel=1e-12)


def test_confidence_of_probabilities():
    representation = random_representation()
    expected = np.exp(fit_and_score(MSP(), representation)).mean()
    assert CADRef("msp").fit(representation).mean_confidence_ == pytest.approx(expected, rel=1e-12)


@given(seed=st.integers(0, 10**6))
@quick
def test_equal_confidences_give_the_error_of_caref(seed):
    # With one class, the largest probability is 1.
    arrays = random_arrays(seed, K=1)
    representation = Representation.from_numpy(**arrays)
    np.testing.assert_allclose(
        fit_and_score(CADRef("msp"), representation), fit_and_score(CARef(), representation), rtol=1e-9
    )


def test_features_without_weight_are_left_out():
    arrays = random_arrays()
    arrays["weight"][:, 3] = 0
    changed = arrays["features"].copy()
    # The norm stays the same, so only the error of this feature changes.
    changed[:, 3] *= -1
    train, test = arrays, {**arrays, "features": changed}
    np.testing.assert_allclose(scores_after_fit(train, test), scores_after_fit(train, train), rtol=1e-9)


def test_only_positive_errors_are_scaled_by_the_image():
    """An error along the weight is divided by the energy of the image, one against it by the mean energy."""
    head = {"weight": np.array([[1.0, -1.0]]), "bias": np.array([5.0])}
    train = {"features": np.array([[2.0, 2.0], [4.0, 4.0]]), **head}
    test = {"features": np.array([[7.0, 3.0], [3.0, 7.0], [3.0, 1.0]]), **head}
    # Energies 5 + 4, 5 - 4 and 5 + 2; in training 5.
    expected = [-(4 / 10) / 9, -(4 / 10) / 5, -(2 / 4) / 7]
    np.testing.assert_allclose(scores_after_fit(train, test), expected, rtol=1e-12)


@every_logit_score
@given(bias=st.floats(-1000, 1000))
@quick
def test_less_confident_images_score_lower(bias, logit_score):
    """The confidence stays positive for logits of any sign, so it never turns the ranking round."""
    train = random_arrays(K=1)
    train["bias"][:] = bias
    h = train["features"].mean(axis=0) + np.sign(train["weight"][0])  # all errors are positive
    logits = np.linspace(bias - 5, bias + 5, 11)[:, None]
    new = Representation.from_numpy(**{**train, "features": np.tile(h, (11, 1))}, logits=logits)
    scores = CADRef(logit_score).fit(Representation.from_numpy(**train)).score_samples(new)
    assert (scores < 0).all()
    steps = np.diff(scores)
    if logit_score == "msp":
        assert (steps == 0).all()
    else:
        assert (steps > 0).all() or (bias < -290 and (steps >= 0).all())


def test_confidence_is_smooth_at_one():
    train = random_arrays(K=1)
    h = train["features"].mean(axis=0) + np.sign(train["weight"][0])
    logits = 1 + 1e-6 * np.arange(-3, 4)[:, None]
    new = Representation.from_numpy(**{**train, "features": np.tile(h, (7, 1))}, logits=logits)
    scores = CADRef().fit(Representation.from_numpy(**train)).score_samples(new)
    np.testing.assert_allclose(np.diff(scores) / scores[3], -1e-6, rtol=1e-4)


def test_class_that_is_never_predicted():
    arrays = random_arrays(n=100)
    rows = logits_of(arrays).argmax(axis=1) != 2
    train, test = ({**arrays, "features": arrays["features"][kept]} for kept in (rows, ~rows))
    assert CADRef().fit(Representation.from_numpy(**train)).has_mean_.tolist() == [1, 1, 0, 1]
    np.testing.assert_allclose(scores_after_fit(train, test), cadref_oracle(train, test), rtol=1e-9)


@every_logit_score
def test_features_of_zeros(logit_score):
    train = random_arrays()
    zeros = {**train, "features": np.zeros((1, 8))}
    scores = scores_after_fit(train, zeros, logit_score)
    np.testing.assert_allclose(scores, cadref_oracle(train, zeros, logit_score), rtol=1e-9)
    assert scores < scores_after_fit(train, train, logit_score).min()
    everywhere = {**train, "features": np.zeros((30, 8))}
    np.testing.assert_array_equal(scores_after_fit(everywhere, everywhere, logit_score), 0)


@pytest.mark.parametrize("level", [-1e30, -1e4, 1e30])
@pytest.mark.parametrize("K", [1, 4])
def test_extreme_logits_give_finite_scores(level, K):
    arrays = random_arrays(K=K)
    arrays["bias"] += level
    for logit_score in LOGIT_SCORES:
        scores = fit_and_score(CADRef(logit_score), Representation.from_numpy(**arrays))
        assert np.isfinite(scores).all()
        assert (scores <= 0).all()


@given(seed=st.integers(0, 10**6), factor=st.floats(1e-3, 1e3))
@quick
def test_invariances(seed, factor):
    arrays = random_arrays(seed)
    W = arrays["weight"]
    order = np.random.default_rng(seed).permutation(8)
    signs = np.random.default_rng(seed).choice([-1, 1], size=8)
    scores = fit_and_score(CADRef(), Representation.from_numpy(**arrays))
    for same in (
        {**arrays, "features": factor * arrays["features"], "weight": W / factor},
        {**arrays, "features": arrays["features"][:, order], "weight": W[:, order]},
        {**arrays, "features": signs * arrays["features"], "weight": signs * W},
    ):
        np.testing.assert_allclose(fit_and_score(CADRef(), Representation.from_numpy(**same)), scores, rtol=1e-6)


def test_duplicating_all_training_images_changes_nothing():
    arrays = random_arrays()
    twice = {**arrays, "features": np.repeat(arrays["features"], 2, axis=0)}
    np.testing.assert_allclose(scores_after_fit(twice, arrays), scores_after_fit(arrays, arrays), rtol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_broken_logits_are_refused(value):
    representation = random_representation()
    scorer = CADRef().fit(representation)
    representation.logits[2, 1] = value
    with pytest.raises(ValueError, match="1 scores that are NaN or infinite, first in row 2"):
        scorer.score_samples(representation)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_logits_in_fit(value):
    representation = random_representation()
    fitted = CADRef().fit(representation)
    means = fitted.means_.copy()
    representation.logits[2, 1] = value
    with pytest.raises(ValueError, match=r"representation\.logits hold NaN"):
        fitted.fit(representation)
    assert np.array_equal(fitted.means_, means)


@pytest.mark.parametrize("logit_score", ["gen", None, 1])
def test_logit_score_is_checked(logit_score):
    with pytest.raises(ValueError, match="logit_score"):
        CADRef(logit_score).fit(random_representation())
