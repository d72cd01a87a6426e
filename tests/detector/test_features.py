"""The detector on features: head, scorer, threshold."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_outlier_detector
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import skdfb
from skdfb import FeatureDetector
from skdfb.metrics import auroc_score
from skdfb.scorers import MSP, ODIN, Energy, Representation, ViM
from skdfb.scoring._joint_score import _lowered_by_rounding

K, C = 3, 8


def make_features(n=300, seed=0, unknown=False):
    """Gaussians around 8 e_k, one per class; unknown rows are around 8 e_K."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % K
    X = rng.normal(size=(n, C)) * np.linspace(1, 0.2, C)
    X[np.arange(n), K if unknown else y] += 8
    return X, y


@pytest.fixture(scope="module")
def data():
    X, y = make_features()
    X.setflags(write=False)
    return X, y


@pytest.fixture(scope="module")
def fitted(data):
    """Tests must not change it."""
    return FeatureDetector(random_state=0).fit(*data)


class Recorder:
    """A third-party scorer: scores a row by its first feature, and keeps what it was fitted on."""

    def fit(self, representation, y):
        self.rows, self.labels = np.asarray(representation.features), y
        self.head = np.asarray(representation.weight), np.asarray(representation.bias)

    def score_samples(self, representation):
        return np.asarray(representation.features)[:, 0]


class HeldOutRecorder(Recorder):
    learns_from_held_out = True

    def fit(self, representation, y, held_out=None):
        super().fit(representation, y)
        self.held_out = np.asarray(held_out[0].features), held_out[1]


class RecordingHead(LogisticRegression):
    def fit(self, X, y):
        type(self).seen = X, y
        return super().fit(X, y)


# ------------------------------------------------------ scikit-learn's checks

# Their data sets are small: a larger alpha can do with them.
CHECKED = FeatureDetector(alpha=0.3, calibration_fraction=0.4, random_state=0)


@parametrize_with_checks([CHECKED, clone(CHECKED).set_params(scorer=ViM(), head=RidgeClassifier())])
def test_sklearn_check(estimator, check):
    check(estimator)


def test_the_checks_are_yielded():
    names = [check.func.__name__ for _, check in estimator_checks_generator(CHECKED)]
    assert len(names) > 40
    assert {"check_outliers_train", "check_outliers_fit_predict", "check_methods_sample_order_invariance"} <= set(names)


# ------------------------------------------------------------------- scores


def test_finds_unknown_rows(fitted, data):
    X_new, (X_unknown, _) = make_features(seed=1)[0], make_features(seed=1, unknown=True)
    assert auroc_score(fitted.score_samples(X_new), fitted.score_samples(X_unknown)) > 0.98
    assert (fitted.predict(X_new) == -1).mean() < 0.15
    assert (fitted.predict(X_unknown) == -1).mean() > 0.9
    assert (fitted.classify(X_new) == make_features(seed=1)[1]).mean() > 0.98
    assert skdfb.FeatureDetector is FeatureDetector
    assert is_outlier_detector(fitted)


def test_scores_are_the_scorers_on_features_logits_and_head(data):
    X, y = data
    recorded = FeatureDetector(Recorder(), random_state=0).fit(X, y).scorer_
    rows, labels, (weight, bias) = recorded.rows, recorded.labels, recorded.head
    head = {"weight": weight, "bias": bias}
    by_hand = ViM(n_components=4).fit(Representation.from_numpy(features=rows, **head), labels)
    detector = FeatureDetector(ViM(n_components=4), random_state=0).fit(X, y)
    X_new = make_features(40, seed=1)[0]
    expected = by_hand.score_samples(Representation.from_numpy(features=X_new, **head))
    assert_allclose(detector.score_samples(X_new), expected, rtol=1e-12)
    assert_array_equal(detector.decision_function(X_new), detector.score_samples(X_new) - detector.offset_)
    assert_array_equal(detector.predict(X_new), np.where(detector.decision_function(X_new) >= 0, 1, -1))


@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.1, 0.31])
def test_p_values_agree_with_predict(data, alpha):
    detector = FeatureDetector(Energy(), alpha=alpha, calibration_fraction=0.3, random_state=0).fit(*data)
    X_new = np.concatenate([make_features(seed=1)[0], make_features(seed=1, unknown=True)[0], data[0]])
    p_values = detector.p_values(X_new)
    assert_array_equal(p_values <= alpha, detector.predict(X_new) == -1)
    assert p_values.min() > 0
    assert p_values.max() <= 1


def test_conformal_promise():
    """The mean share of new rows that are rejected is floor(alpha (n + 1)) / (n + 1), for n = 49 held-out rows 4 %."""
    shares = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_t(3, size=(198 + 400, 5)), rng.integers(0, 2, 598)
        detector = FeatureDetector(calibration_fraction=0.25, random_state=seed).fit(X[:198], y[:198])
        assert len(detector.calibrator_.scores_) in (49, 50)
        shares.append((detector.predict(X[198:]) == -1).mean())
    assert abs(np.mean(shares) - 0.04) < 4 * np.std(shares) / np.sqrt(len(shares)) < 0.012


def test_order_and_batch_do_not_matter(fitted):
    X_new = make_features(50, seed=1)[0]
    scores = fitted.score_samples(X_new)
    assert_allclose(fitted.score_samples(X_new[::-1])[::-1], scores, rtol=1e-9)
    assert_allclose(np.concatenate([fitted.score_samples(row[None]) for row in X_new]), scores, rtol=1e-9)


# ---------------------------------------------------------------- held out


def identify(rows, X):
    """Indices of rows in X."""
    return np.asarray([np.flatnonzero((row == X).all(1)).item() for row in rows])


def test_threshold_is_set_on_rows_that_nothing_was_fitted_on(data):
    X, y = data
    detector = FeatureDetector(Recorder(), head=RecordingHead(), calibration_fraction=0.2, random_state=0).fit(X, y)
    train = identify(detector.scorer_.rows, X)
    held_out = np.flatnonzero(~np.isin(X[:, 0], X[train, 0]))
    assert len(train) == 240
    assert_array_equal(np.bincount(y[held_out]), [20, 20, 20])
    assert_array_equal(detector.scorer_.labels, y[train])
    assert_allclose(detector.calibrator_.scores_, np.sort(_lowered_by_rounding(X[held_out, 0])), rtol=1e-12)
    assert_array_equal(RecordingHead.seen[0], X[train])
    assert_array_equal(RecordingHead.seen[1], y[train])
    assert detector.offset_ == detector.calibrator_.scores_[2]  # floor(0.05 * 61) = 3rd smallest


def test_scorers_that_learn_from_held_out_rows_get_half_of_them(data):
    X, y = data
    detector = FeatureDetector(HeldOutRecorder(), calibration_fraction=0.2, random_state=0).fit(X, y)
    train, learning = identify(detector.scorer_.rows, X), identify(detector.scorer_.held_out[0], X)
    assert (len(train), len(learning), len(detector.calibrator_.scores_)) == (240, 30, 30)
    assert not set(train) & set(learning)
    assert_array_equal(detector.scorer_.held_out[1], y[learning])
    assert not np.isin(detector.calibrator_.scores_, X[np.concatenate([train, learning]), 0]).any()
    assert not np.all(np.diff(learning) > 0)  # at random, not the first


def test_random_state(data, fitted):
    again = FeatureDetector(random_state=0).fit(*data)
    assert_array_equal(again.calibrator_.scores_, fitted.calibrator_.scores_)
    other = FeatureDetector(random_state=1).fit(*data)
    assert not np.array_equal(other.calibrator_.scores_, fitted.calibrator_.scores_)


def test_too_few_held_out_rows_are_refused_before_the_head_is_fitted(data):
    X, y = data
    RecordingHead.seen = None
    with pytest.raises(ValueError, match=r"10 of 100 images are held out, but alpha=0\.05 needs at least 19"):
        FeatureDetector(head=RecordingHead(), calibration_fraction=0.1).fit(X[:100], y[:100])
    assert RecordingHead.seen is None
    detector = FeatureDetector(calibration_fraction=0.1, alpha=None).fit(X[:100], y[:100])
    assert detector.offset_ == -np.inf
    assert (detector.predict(100 * X) == 1).all()


def test_as_many_rows_are_held_out_as_the_threshold_needs(data, caplog):
    X, y = data
    detector = FeatureDetector(random_state=0).fit(X[:100], y[:100])
    assert len(detector.calibrator_.scores_) == 19
    assert detector.calibration_fraction_ == 0.19
    assert np.isfinite(detector.offset_)
    assert "19 of 100 images" in caplog.text


def test_labels_of_an_open_set_and_accuracy(fitted, data):
    X, y = data
    X_unknown, _ = make_features(seed=1, unknown=True)
    labels = fitted.predict_open_set(np.concatenate([X, X_unknown]))
    accepted = fitted.predict(np.concatenate([X, X_unknown])) == 1
    assert_array_equal(labels == -1, ~accepted)
    assert_array_equal(labels[:300][accepted[:300]], fitted.classify(X)[accepted[:300]])
    named = FeatureDetector(random_state=0).fit(X, np.array(["a", "b", "c"])[y])
    assert set(named.predict_open_set(X_unknown)) <= {"a", "b", "c", "unknown"}
    assert set(named.predict_open_set(X_unknown, unknown_label="?")) <= {"a", "b", "c", "?"}
    with pytest.raises(ValueError, match="unknown_label='a' is one of classes_"):
        named.predict_open_set(X, unknown_label="a")
    with pytest.warns(UserWarning, match="'unknown' is a class.* unknown_label='none'") as caught:
        named = FeatureDetector(random_state=0).fit(X, np.array(["a", "b", "unknown"])[y])
    assert caught[0].filename == __file__
    with pytest.raises(ValueError, match=r"unknown_label is None.* unknown_label='none'"):
        named.predict_open_set(X)
    assert fitted.score(X, y) == (fitted.classify(X) == y).mean()
    with pytest.warns(UserWarning, match="100 of 300 labels are of classes that were not in fit"):
        fitted.score(X, np.where(y == 2, 9, y))
    with pytest.raises(ValueError, match="y is None: expected the label of each sample"):
        fitted.score(X, None)
    scores, found = fitted.score_and_classify(X)
    assert_array_equal(scores, fitted.score_samples(X))
    assert_array_equal(found, fitted.classify(X))


# -------------------------------------------------------------------- heads


@pytest.mark.parametrize("n_classes", [2, 3])
def test_default_head_is_a_logistic_regression_on_scaled_features(n_classes):
    X, y = make_features()
    X, y = 1000 * X[y < n_classes] + 5000, y[y < n_classes]
    detector = FeatureDetector(Recorder(), random_state=0).fit(X, y)
    rows = detector.scorer_.rows
    mean, scale = rows.mean(0), np.sqrt(np.mean([column.var() for column in rows.T]))
    reference = LogisticRegression(max_iter=1000).fit((rows - mean) / scale, detector.scorer_.labels)
    X_new = 1000 * make_features(60, seed=1)[0] + 5000
    assert_allclose(detector.predict_proba(X_new), reference.predict_proba((X_new - mean) / scale), atol=1e-5)
    assert detector.weight_.shape == (n_classes, C)
    if n_classes == 2:
        assert_array_equal(detector.weight_[0], -detector.weight_[1])
        assert detector.bias_[0] == pytest.approx(-detector.bias_[1])


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "head",
    [
        LogisticRegression(C=0.1),
        RidgeClassifier(),
        SGDClassifier(random_state=0),
        LinearSVC(fit_intercept=False, random_state=0),
        LinearDiscriminantAnalysis(),
    ],
    ids=lambda head: type(head).__name__,
)
def test_linear_classifiers_as_head(head, n_classes):
    X, y = make_features()
    X, y = X[y < n_classes], np.asarray(["a", "b", "c"])[y[y < n_classes]]
    detector = FeatureDetector(Recorder(), head=head, random_state=0).fit(X, y)
    reference = clone(head).fit(detector.scorer_.rows, detector.classes_[detector.scorer_.labels])
    X_new = make_features(60, seed=1)[0]
    logits = X_new @ detector.weight_.T + detector.bias_
    decisions = reference.decision_function(X_new)
    if n_classes == 2:
        logits, decisions = logits[:, 1] - logits[:, 0], decisions.ravel()
    assert_allclose(logits, decisions, atol=1e-9)
    assert_array_equal(detector.classify(X_new), reference.predict(X_new))
    assert not hasattr(head, "coef_")  # it is a clone that was fitted


@pytest.mark.parametrize("head", [SVC(kernel="linear"), SVC(kernel="linear", decision_function_shape="ovo"), SVC()])
def test_heads_that_are_not_linear_are_refused(data, head):
    """One-against-one has a row a pair, which are as many as the classes where there are three."""
    with pytest.raises(ValueError, match="is not linear: expected a classifier like LogisticRegression"):
        FeatureDetector(head=head).fit(*data)


@pytest.mark.parametrize(
    "head",
    [Ridge(), LogisticRegression, "logistic", RandomForestClassifier(), 3],
    ids=["Ridge", "class", "str", "forest", "int"],
)
def test_things_that_are_no_head_are_refused(data, head):
    with pytest.raises(TypeError, match=r"head=.*: expected None, a linear classifier with coef_ and intercept_"):
        FeatureDetector(head=head).fit(*data)


def as_tensors(weight, bias):
    return torch.nn.Parameter(torch.from_numpy(weight)), torch.from_numpy(bias).bfloat16()


@pytest.mark.parametrize("convert", [lambda *head: head, lambda *head: [array.tolist() for array in head], as_tensors])
def test_head_of_a_network(data, convert):
    X, y = data
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(K, C)), np.array([1.0, -2.0, 0.5])
    head = convert(weight, bias)
    detector = FeatureDetector(Energy(), head=head, random_state=0).fit(X, y)
    assert_array_equal(detector.weight_, weight)
    assert_array_equal(detector.bias_, bias)
    assert detector.weight_.dtype == np.float64
    assert_allclose(detector.score_samples(X), np.log(np.exp(X @ weight.T + bias).sum(1)), rtol=1e-12)
    assert_array_equal(detector.classify(X), (X @ weight.T + bias).argmax(1))
    assert clone(detector).fit(X, y).offset_ == detector.offset_


def test_head_of_float32_keeps_its_type(data, fitted):
    """ViM tells the rounding of a weight from its substance by the type: see its origin."""
    X, y = data
    head = torch.from_numpy(fitted.weight_).float(), torch.from_numpy(fitted.bias_).float()
    detector = FeatureDetector(head=head, random_state=0).fit(X, y)
    assert detector.weight_.dtype == np.float32
    assert_allclose(detector.score_samples(X), fitted.score_samples(X), atol=1e-4)


@pytest.mark.parametrize("names", [["a", "b", "c", "d", "e"], [1, 4, 5, 7, 30], [-2.0, -1.0, 0.0, 1.0, 2.0]])
def test_rows_of_a_labelled_head(data, names):
    """Rows come in any order, and those of classes that are not in y are dropped."""
    X, y = data
    rng = np.random.default_rng(0)
    weight, bias, labels = rng.normal(size=(5, C)), rng.normal(size=5), np.asarray(names)[[3, 0, 4, 2, 1]]
    y = np.asarray(names)[[0, 2, 3]][y]
    detector = FeatureDetector(head=(weight, bias, labels), random_state=0).fit(X, y)
    assert_array_equal(detector.classes_, np.asarray(names)[[0, 2, 3]])
    assert_array_equal(detector.weight_, weight[[1, 3, 0]])
    assert_array_equal(detector.bias_, bias[[1, 3, 0]])


W, B = np.ones((K, C)), np.zeros(K)


@pytest.mark.parametrize(
    ("head", "match"),
    [
        ((W,), r"head has 1 items: expected \(weight, bias\)"),
        ((W.T, B), r"weight of shape \(8, 3\) and a bias of shape \(3,\): expected \(K, 8\)"),
        ((W, B[:2]), r"bias of shape \(2,\)"),
        ((W[:2], B[:2]), r"head has 2 rows and y has 3 class\(es\).*head=\(weight, bias, labels\)"),
        ((W, B, [0, 1]), r"head has 3 rows and the labels \[0, 1\]: expected one different label per row"),
        ((W, B, [0, 1, 1]), r"the labels \[0, 1, 1\]: expected one different label per row"),
        ((W, B, [0, 1, 3]), r"head has no row for the class 2 of y \(1 missing\): .* got \[0, 1, 3\]"),
        ((W * np.nan, B), "head contains NaN"),
    ],
)
def test_bad_heads_of_a_network(data, head, match):
    with pytest.raises(ValueError, match=match):
        FeatureDetector(head=head).fit(*data)


# ------------------------------------------------------------------ labels


@pytest.mark.parametrize(
    "names", [["cat", "dog", "eel"], np.array(["cat", "dog", "eel"], dtype=object), [-5, 3, 100], [1.0, 2.0, 4.0]]
)
def test_labels_of_any_kind(data, fitted, names):
    X, y = data
    labels = np.asarray(names)[y]
    detector = FeatureDetector(random_state=0).fit(X, labels)
    assert_array_equal(detector.score_samples(X), fitted.score_samples(X))
    assert_array_equal(detector.classify(X), labels[[0, 1, 2]][fitted.classify(X)])
    assert detector.classify(X).dtype == detector.classes_.dtype


def test_booleans():
    X, y = make_features()
    detector = FeatureDetector(random_state=0).fit(X, y == 1)
    assert (detector.classify(X) == (y == 1)).mean() > 0.95


@pytest.mark.parametrize("y", [None, np.full(300, "one"), np.zeros(300, dtype=int)])
def test_one_class_is_vims_residual(data, y):
    X, _ = data
    detector = FeatureDetector(ViM(n_components=3), random_state=0).fit(X, y)
    assert len(detector.classes_) == 1
    assert_array_equal(detector.classes_, [0] if y is None else y[:1])
    assert_array_equal(detector.predict_proba(X), np.ones((300, 1)))
    recorder = FeatureDetector(Recorder(), random_state=0).fit(X, y).scorer_
    basis = np.linalg.svd(recorder.rows)[2][3:]
    mean_residual = np.linalg.norm(recorder.rows @ basis.T, axis=1).mean()
    X_new = make_features(20, seed=1)[0]
    expected = 1 - np.linalg.norm(X_new @ basis.T, axis=1) / mean_residual
    assert_allclose(detector.score_samples(X_new), expected, rtol=1e-6)
    assert_array_equal(detector.predict(X), FeatureDetector(ViM(3), random_state=0).fit_predict(X, y))


def test_default_scorer_without_labels(data):
    """The squared Mahalanobis distance to the mean."""
    X, _ = data
    rows = FeatureDetector(Recorder(), random_state=0).fit(X).scorer_.rows
    centred = make_features(20, seed=1)[0] - rows.mean(0)
    expected = -np.einsum("ij,jk,ik->i", centred, np.linalg.inv(np.cov(rows.T, bias=True)), centred)
    found = FeatureDetector(random_state=0).fit(X).score_samples(make_features(20, seed=1)[0])
    assert_allclose(found, expected, rtol=1e-9)


def test_one_class_with_a_head_of_one_row(data):
    X, _ = data
    head = np.arange(1.0, C + 1)[None], np.array([2.0])
    detector = FeatureDetector(Recorder(), head=head, random_state=0).fit(X)
    assert_array_equal(detector.scorer_.head[0], head[0])


def test_scorers_that_compare_classes_refuse_a_single_one(data):
    with pytest.raises(ValueError, match=r"part 'foreground', MSP\(\): .*at least 2"):
        FeatureDetector(MSP()).fit(data[0])


def test_fit_predict_uses_the_labels(data, fitted):
    assert_array_equal(FeatureDetector(random_state=0).fit_predict(*data), fitted.predict(data[0]))


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (np.arange(299) % 3, "inconsistent numbers of samples"),
        (np.linspace(0, 1, 300), "Unknown label type"),
        (np.where(np.arange(300) == 7, np.nan, np.arange(300.0) % 3), "y contains NaN"),
        (np.where(np.arange(300) == 7, 3, np.arange(300) % 3), r"class 3 has 1 image\(s\)"),
        (np.zeros((300, 2)), "y should be a 1d array"),
    ],
)
def test_bad_labels(data, y, match):
    with pytest.raises(ValueError, match=match):
        FeatureDetector().fit(data[0], y)


# ------------------------------------------------------------------ refusal


class WithActivations(Recorder):
    needs_activations = ("feature_map",)


@pytest.mark.parametrize(
    ("scorer", "error", "match"),
    [
        (ODIN(), ValueError, "needs perturbed images.*set its input_perturbation to 0"),
        (WithActivations(), ValueError, "needs activations.*DFBDetector"),
        (ViM, TypeError, "pass ViM"),
        ("ViM", TypeError, "without fit and score_samples"),
        (ViM(n_components="all"), ValueError, "'n_components' parameter of ViM"),
    ],
)
def test_scorers_are_refused_before_anything_else(scorer, error, match):
    with pytest.raises(error, match=match):
        FeatureDetector(scorer).fit("no features", "no labels")


def test_odin_without_perturbation(data):
    detector = FeatureDetector(ODIN(input_perturbation=0), random_state=0).fit(*data)
    assert np.isfinite(detector.score_samples(data[0])).all()


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"alpha": 0}, "'alpha' parameter"),
        ({"alpha": 1.0}, "'alpha' parameter"),
        ({"calibration_fraction": 0.6}, "'calibration_fraction' parameter"),
        ({"random_state": "a"}, "'random_state' parameter"),
        ({"scorer": ViM(n_components=C)}, r"ViM\(n_components=8\): n_components=8 leaves no residual"),
    ],
)
def test_bad_parameters(data, parameters, match):
    with pytest.raises(ValueError, match=match):
        FeatureDetector(**parameters).fit(*data)


@pytest.mark.parametrize(
    ("scores", "match"), [(lambda n: np.zeros((n, 2)), r"shape \(\d+, 2\)"), (lambda n: np.full(n, np.nan), "NaN")]
)
def test_bad_scores_of_a_third_party_scorer(data, scores, match):
    class Bad(Recorder):
        def score_samples(self, representation):
            return scores(len(representation))

    with pytest.raises(ValueError, match=match):
        FeatureDetector(Bad()).fit(*data)


def test_a_failed_fit_changes_nothing(data):
    X, y = data
    detector = FeatureDetector(random_state=0).fit(X, y)
    before = dict(vars(detector))
    with pytest.raises(ValueError, match="leaves no residual"):
        detector.fit(np.repeat(X[:, :1], C, axis=1), y)  # rank 1 shows in the scorer's fit only
    assert vars(detector) == before
    with pytest.raises(NotFittedError):
        FeatureDetector().predict(X)


# -------------------------------------------------------------- composition


def test_parameters_and_clone():
    detector = FeatureDetector(ViM(n_components=3), head=LogisticRegression(), alpha=0.1)
    changed = clone(detector).set_params(scorer__n_components=5, head__C=0.5)
    assert (changed.scorer.n_components, changed.head.C, changed.alpha) == (5, 0.5, 0.1)
    assert (detector.scorer.n_components, detector.head.C) == (3, 1.0)
    assert repr(FeatureDetector(ViM(n_components=3))) == "FeatureDetector(scorer=ViM(n_components=3))"


def test_pickle(fitted, data):
    again = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(again.score_samples(data[0]), fitted.score_samples(data[0]))


def test_pipeline(data):
    X, y = data
    pipeline = make_pipeline(StandardScaler(), FeatureDetector(random_state=0)).fit(X, y)
    by_hand = FeatureDetector(random_state=0).fit(StandardScaler().fit_transform(X), y)
    X_new = make_features(30, seed=1)[0]
    scaled = StandardScaler().fit(X).transform(X_new)
    assert_array_equal(pipeline.predict(X_new), by_hand.predict(scaled))
    assert_array_equal(pipeline.score_samples(X_new), by_hand.score_samples(scaled))
    assert_array_equal(pipeline.classes_, np.arange(K))


def test_data_frames(data):
    pandas = pytest.importorskip("pandas")
    X, y = data
    frame = pandas.DataFrame(X, columns=[f"feature{i}" for i in range(C)])
    detector = FeatureDetector(random_state=0).fit(frame, pandas.Series(y, dtype="category"))
    assert_array_equal(detector.feature_names_in_, frame.columns)
    with pytest.raises(ValueError, match="feature names should match"):
        detector.predict(frame.rename(columns=str.upper))


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-4), (np.float16, 0.1), (">f8", 1e-9)])
def test_other_float_types(fitted, data, dtype, rtol):
    X, y = data
    detector = FeatureDetector(random_state=0).fit(X.astype(dtype), y)
    scores = detector.score_samples(X.astype(dtype))
    assert scores.dtype == np.float64
    assert_allclose(scores, fitted.score_samples(X), atol=rtol)


def test_memory_map_and_input_stay_as_they_are(tmp_path, fitted, data):
    X, y = data
    np.save(tmp_path / "features.npy", X)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    detector = FeatureDetector(random_state=0).fit(mapped, y)
    assert_array_equal(detector.score_samples(mapped), fitted.score_samples(X))
    assert_array_equal(mapped, make_features()[0])


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
@pytest.mark.parametrize("scorer", [Energy(), ViM()], ids=["Energy", "ViM"])
def test_scale_of_the_features_does_not_matter(data, scale, scorer):
    X, y = data
    expected = FeatureDetector(scorer, random_state=0).fit(X, y).score_samples(X)
    found = FeatureDetector(scorer, random_state=0).fit(scale * X, y).score_samples(scale * X)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_features_that_hardly_vary_do_not_rule_the_logits(data):
    """A column that is nearly constant in training and not in new rows must not drown the others."""
    X, y = data
    dead = 1e-3 * np.random.default_rng(0).normal(size=(len(X), 1))
    detector = FeatureDetector(Energy(), random_state=0).fit(np.hstack([X, dead]), y)
    assert abs(detector.weight_[:, -1]).max() < 0.1 * abs(detector.weight_).max()


def test_constant_features(data):
    detector = FeatureDetector(Energy(), random_state=0).fit(np.ones((300, 4)), data[1])
    assert np.isfinite(detector.score_samples(np.ones((3, 4)))).all()
    assert (detector.predict(np.ones((3, 4))) == 1).all()
