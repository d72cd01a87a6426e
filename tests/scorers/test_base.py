"""Properties of all built-in scorers."""

import pickle
from dataclasses import replace

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skdfb.scorers import (
    ASH,
    DICE,
    DML,
    FDBD,
    GEN,
    KNN,
    MSP,
    ODIN,
    RAS,
    BackgroundLogit,
    CADRef,
    CARef,
    ClassGaussianMixture,
    Energy,
    Entropy,
    GradNorm,
    KernelPCA,
    KLMatching,
    Mahalanobis,
    MaSF,
    MaxCosine,
    MaxLogit,
    MaxNorm,
    Representation,
    ViM,
)
from skdfb.scorers._base import check_class_indices
from tests.scorers.helpers import (
    BUILT_IN,
    SCORERS,
    cyclic_labels,
    fit,
    fit_and_score,
    quick,
    random_arrays,
    random_representation,
)


def learns_classes(scorer):
    try:
        clone(scorer).fit(random_representation())
    except ValueError as error:
        return "y is None" in str(error)
    return False


every_scorer = pytest.mark.parametrize("scorer", SCORERS, ids=repr)


@every_scorer
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40))
@quick
def test_order_and_batches_do_not_matter(scorer, seed, n):
    fitted = fit(clone(scorer), random_representation(0))
    representation = random_representation(seed, n=n)
    representation = Representation.from_numpy(
        features=representation.features.numpy(), weight=random_arrays(0)["weight"], bias=random_arrays(0)["bias"]
    )
    scores = fitted.score_samples(representation)
    rng = np.random.default_rng(seed)
    order, cut = rng.permutation(n), int(rng.integers(0, n + 1))
    np.testing.assert_allclose(fitted.score_samples(representation[order]), scores[order], rtol=1e-12, atol=1e-12)
    parts = [fitted.score_samples(representation[:cut]), fitted.score_samples(representation[cut:])]
    np.testing.assert_allclose(np.concatenate(parts), scores, rtol=1e-12, atol=1e-12)


@every_scorer
def test_more_images_than_a_batch(scorer):
    representation = random_representation(n=2500)
    fitted = fit(clone(scorer), representation)
    scores = fitted.score_samples(representation)
    assert scores.shape == (2500,)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(fitted.score_samples(representation[2040:2060]), scores[2040:2060], rtol=1e-12)


@pytest.mark.parametrize("scorer", [scorer for scorer in SCORERS if not hasattr(scorer, "random_state")], ids=repr)
def test_order_of_training_images_does_not_matter(scorer):
    representation = random_representation(n=1500)
    reverse = clone(scorer).fit(representation[::-1], cyclic_labels(representation)[::-1])
    np.testing.assert_allclose(
        reverse.score_samples(representation), fit_and_score(clone(scorer), representation), rtol=1e-10, atol=1e-10
    )


@every_scorer
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 2e-2)])
def test_narrow_types(scorer, dtype, tolerance):
    wide = fit_and_score(clone(scorer), random_representation(n=60))
    narrow = fit_and_score(clone(scorer), random_representation(n=60, dtype=dtype))
    assert narrow.dtype == np.float64
    np.testing.assert_allclose(narrow, wide, rtol=tolerance, atol=tolerance * np.abs(wide).max())


@every_scorer
def test_bfloat16(scorer):
    wide = random_representation()
    narrow = Representation(
        features=wide.features.bfloat16(), logits=wide.logits.bfloat16(), weight=wide.weight, bias=wide.bias
    )
    scores = fit_and_score(clone(scorer), wide)
    np.testing.assert_allclose(fit_and_score(clone(scorer), narrow), scores, rtol=0.1, atol=0.1 * np.abs(scores).max())


@every_scorer
def test_inputs_and_settings_unchanged(scorer):
    arrays = random_arrays()
    before = {name: array.copy() for name, array in arrays.items()}
    representation = Representation.from_numpy(**arrays)
    logits = representation.logits.clone()
    fit_and_score(clone(scorer), representation)
    assert all(np.array_equal(arrays[name], before[name]) for name in arrays)
    assert torch.equal(representation.logits, logits)
    assert torch.is_grad_enabled()


@every_scorer
def test_tensors_with_gradient(scorer):
    plain = random_representation()
    with_gradient = Representation(
        features=plain.features.clone().requires_grad_(),
        logits=plain.logits.clone().requires_grad_(),
        weight=plain.weight.clone().requires_grad_(),
        bias=plain.bias.clone().requires_grad_(),
    )
    assert np.array_equal(fit_and_score(clone(scorer), with_gradient), fit_and_score(clone(scorer), plain))
    assert with_gradient.logits.grad is None


@every_scorer
def test_autocast_of_the_caller_does_not_matter(scorer):
    representation = random_representation(dtype=np.float32)
    scores = fit_and_score(clone(scorer), representation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(fit_and_score(clone(scorer), representation), scores)


@every_scorer
def test_no_images(scorer):
    representation = random_representation()
    fitted = fit(clone(scorer), representation)
    scores = fitted.score_samples(representation[:0])
    assert scores.shape == (0,)
    assert scores.dtype == np.float64
    with pytest.raises(ValueError, match="representation holds no images"):
        clone(scorer).fit(representation[:0])


@every_scorer
def test_not_fitted(scorer):
    with pytest.raises(NotFittedError, match=type(scorer).__name__):
        clone(scorer).score_samples(random_representation())


@every_scorer
@pytest.mark.parametrize("sizes", [{"C": 9}, {"K": 5}])
def test_other_sizes_than_fitted(scorer, sizes):
    fitted = fit(clone(scorer), random_representation())
    with pytest.raises(ValueError, match=rf"representation has .* this {type(scorer).__name__} was fitted on 8 and 4"):
        fitted.score_samples(random_representation(**sizes))


@every_scorer
def test_not_a_representation(scorer):
    with pytest.raises(TypeError, match=r"representation is a ndarray: expected a Representation.*from_numpy"):
        clone(scorer).fit(np.zeros((3, 2)))
    fitted = fit(clone(scorer), random_representation())
    with pytest.raises(TypeError, match=r"representation is a ndarray.*from_numpy"):
        fitted.score_samples(np.zeros((3, 2)))


@every_scorer
def test_nan_raises_an_error(scorer):
    good = random_representation()
    fitted = fit(clone(scorer), good)
    features, logits = good.features.clone(), good.logits.clone()
    features[3] = logits[3] = torch.nan
    bad = Representation(features=features, logits=logits, weight=good.weight, bias=good.bias)
    with pytest.raises(ValueError, match=r"representation gives 1 scores .* row 3"):
        fitted.score_samples(bad)


@pytest.mark.parametrize("scorer", [scorer for scorer in SCORERS if not learns_classes(scorer)], ids=repr)
@pytest.mark.parametrize("y", [None, np.zeros(30, dtype=int), ["a"], "ignored"], ids=["none", "ints", "short", "str"])
def test_labels_are_ignored(scorer, y):
    representation = random_representation()
    labelled = clone(scorer).fit(representation, y)
    assert np.array_equal(labelled.score_samples(representation), fit_and_score(clone(scorer), representation))


@every_scorer
def test_sklearn_conventions(scorer, tmp_path):
    representation = random_representation(n=200, C=16)
    fresh = clone(scorer)
    parameters = fresh.get_params()
    fitted = fit(fresh, representation)
    assert fitted is fresh
    assert fitted.get_params() == parameters
    assert (fitted.n_features_in_, fitted.n_classes_) == (16, 4)
    assert not hasattr(clone(fitted), "n_features_in_")
    assert repr(fitted) == repr(scorer)
    assert not hasattr(fitted, "set_fit_request")
    scores = fitted.score_samples(representation)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).score_samples(representation), scores)
    joblib.dump(fitted, tmp_path / "scorer.joblib")
    # Memory-mapped arrays are read-only, as in the worker processes of joblib.
    mapped = joblib.load(tmp_path / "scorer.joblib", mmap_mode="r")
    assert np.array_equal(mapped.score_samples(representation), scores)


@pytest.mark.parametrize("scorer", [MSP(), ODIN(input_perturbation=0)], ids=repr)
def test_softmax_needs_two_classes(scorer):
    with pytest.raises(ValueError, match=r"1 class\(es\).*BackgroundLogit"):
        scorer.fit(random_representation(K=1))


@pytest.mark.parametrize("scorer", [MaxLogit(), Energy(), BackgroundLogit()], ids=repr)
def test_one_logit_is_its_own_score(scorer):
    representation = random_representation(K=1)
    np.testing.assert_allclose(fit_and_score(scorer, representation), representation.logits.numpy()[:, 0], rtol=1e-14)


def test_failed_fit_keeps_the_earlier_one():
    representation = random_representation()
    scorer = ViM().fit(representation)
    scores = scorer.score_samples(representation)
    with pytest.raises(ValueError, match="rank"):
        scorer.fit(random_representation(n=30, C=5)[[0] * 30])
    assert np.array_equal(scorer.score_samples(representation), scores)


SIZES = [(C, K, n) for C in (1, 2, 5) for K in (1, 2, 3) for n in (1, 2, 3, 4, 6, 9, 10, 49, 50)]


def representation_of_sizes(C, K, n, seed=0):
    """A random representation with activations, so that every scorer can be fitted on it."""
    rng = np.random.default_rng(seed)
    activations = {
        name: torch.from_numpy(rng.normal(size=shape)) for name, shape in (("feature_map", (n, C, 2, 2)), ("1", (n, 3)))
    }
    return replace(random_representation(seed, C=C, K=K, n=n), activations=activations)


def message_of(function, *arguments):
    """The message of the ValueError that a call raises, or None."""
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("scorer", [scorer_class() for scorer_class in BUILT_IN], ids=repr)
def test_fit_raises_the_errors_of_check_sizes(scorer):
    for sizes in SIZES:
        message = message_of(scorer.check_sizes, *sizes)
        if message is not None:
            assert message_of(fit, clone(scorer), representation_of_sizes(*sizes)) == message


def works_for_some_classes(scorer, representation, new):
    """Whether the scorer can be fitted, and score new images, with all images in one class or spread over classes."""
    spreads = np.zeros(len(representation), int), cyclic_labels(representation)
    fitted = [clone(scorer) for y in spreads]
    messages = [message_of(one.fit, representation, y) for one, y in zip(fitted, spreads, strict=True)]
    return any(
        message is None and one.score_samples(new).shape == (len(new),)
        for one, message in zip(fitted, messages, strict=True)
    )


def is_useful_without_check(scorer, representation, new):
    """Whether the scorer can be fitted without `check_sizes` and then gives different images different scores."""
    unchecked = clone(scorer)
    unchecked.check_sizes = lambda *sizes: None
    try:
        return np.ptp(fit_and_score(unchecked, representation)) > 0 or np.ptp(unchecked.score_samples(new)) > 0
    except (ValueError, RuntimeError, IndexError):
        return False


# Scorers whose early check is complete, with parameters that it depends on.
CHECKED = [ASH(), BackgroundLogit(), DICE(), DML(), Energy(), Entropy(), FDBD(), GEN(), GradNorm(), KLMatching()]
CHECKED += [MaSF(), MaxCosine(), MaxLogit(), MaxNorm(), MSP(), Mahalanobis(), Mahalanobis(0.5), Mahalanobis("auto")]
CHECKED += [Mahalanobis(use_classes=False), KernelPCA(), KernelPCA(n_components=2)]
CHECKED += [KNN(), KNN(3), KNN(3, bank_size=2), KNN(3, bank_size=5), KNN(2, bank_size=0.5), KNN(1, bank_size=0.1)]
CHECKED += [CARef(), CADRef(), CADRef("max_logit"), RAS()]
CHECKED += [ClassGaussianMixture(J, samples_per_class=m) for J, m in ((2, 5000), (1, 5000), (9, None), (4, 1))]


@pytest.mark.parametrize("scorer", CHECKED, ids=repr)
def test_check_sizes_raises_exactly_if_fit_is_impossible(scorer):
    for sizes in SIZES:
        representation, new = representation_of_sizes(*sizes), representation_of_sizes(*sizes[:2], 20, seed=1)
        if message_of(scorer.check_sizes, *sizes) is None:
            assert works_for_some_classes(scorer, representation, new), sizes
        else:
            assert not is_useful_without_check(scorer, representation, new), sizes


@pytest.mark.parametrize(
    ("scorer", "accepted", "refused"),
    [
        (MSP(), (1, 2, 1), (1, 1, 1)),
        (KNN(), (1, 1, 50), (1, 1, 49)),
        (KNN(2, bank_size=0.1), (1, 1, 16), (1, 1, 14)),
        (Mahalanobis(), (1, 5, 2), (1, 5, 1)),
        (ClassGaussianMixture(), (1, 5, 2), (1, 5, 1)),
        (ViM(), (2, 1, 50), (1, 1, 50)),
        (RAS(), (2, 1, 1), (1, 1, 1)),
    ],
    ids=repr,
)
def test_limits_of_check_sizes(scorer, accepted, refused):
    assert message_of(scorer.check_sizes, *accepted) is None
    assert message_of(scorer.check_sizes, *refused) is not None


@every_scorer
def test_check_sizes_checks_images_and_parameters(scorer):
    assert "representation holds no images" in message_of(scorer.check_sizes, 8, 4, 0)
    for name in type(scorer)._parameter_constraints:
        with pytest.raises(ValueError, match=name):
            clone(scorer).set_params(**{name: object()}).check_sizes(8, 4, 50)


@pytest.mark.gpu
@every_scorer
def test_gpu(scorer):
    representation = random_representation(n=1500, C=32)
    scores = fit_and_score(clone(scorer), representation)
    np.testing.assert_allclose(
        fit_and_score(clone(scorer), representation.to("cuda")), scores, rtol=1e-9, atol=1e-9 * np.abs(scores).max()
    )


@pytest.mark.parametrize("y", [[0, 3, 2], np.array([0, 3, 2], dtype=np.uint8), torch.tensor([0, 3, 2])])
def test_check_class_indices(y):
    labels = check_class_indices(y, random_representation(n=3))
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 3, 2]


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (None, ValueError, "^y is None: expected the class of each training image"),
        ([0, 1], ValueError, r"^y has shape \(2,\): expected \(3,\)"),
        ([[0], [1], [2]], ValueError, "^y has shape"),
        (["a", "b", "c"], TypeError, "^y has dtype.*LabelEncoder"),
        ([0.0, 1.0, 2.0], TypeError, "^y has dtype float64"),
        ([True, False, True], TypeError, "^y has dtype bool"),
        ([0, 1, 4], ValueError, "^y runs from 0 to 4"),
        ([-1, 1, 2], ValueError, "^y runs from -1 to 2"),
    ],
)
def test_check_class_indices_raises(y, error, message):
    with pytest.raises(error, match=message):
        check_class_indices(y, random_representation(n=3))
