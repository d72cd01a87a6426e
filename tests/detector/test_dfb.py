"""Every method of the detector: shapes, signs, invariance, and that nothing else is touched."""

import copy
import io
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from torch.utils.data import Dataset, TensorDataset

from skdfb import CAMMaskGenerator, Trainer
from skdfb.detector import _outputs, _views
from skdfb.fusion import TemperatureFusion
from skdfb.networks import DenseClassifier, create_backbone
from skdfb.scorers import MSP, ODIN, BackgroundLogit, Energy, MaSF, RankFeat, ViM
from skdfb.scoring._joint_score import _lowered_by_rounding
from skdfb.utils import _arrays, temporary_array
from tests.detector.conftest import CLASSES, SIDE, make_detector, make_images, tiny_backbone

K = CLASSES


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_weights(module, expected):
    found = module.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def global_state():
    """Whatever a call could leave changed in the process."""
    return {
        "torch RNG": torch.get_rng_state().numpy().tobytes(),
        "numpy RNG": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "filters": list(warnings.filters),
    }


def fitted_state(detector):
    return {name: value for name, value in vars(detector).items() if name.endswith("_")}


def test_large_views_are_in_files(monkeypatch):
    """Features and logits of more than a GiB; here, of more than a byte."""
    X, y = make_images()
    expected = make_detector().fit(X, y).score_samples(X)
    stored = []
    monkeypatch.setattr(_arrays, "MEMORY_BUDGET", 1)
    monkeypatch.setattr(_views, "temporary_array", lambda *args: stored.append(temporary_array(*args)) or stored[-1])
    assert_array_equal(make_detector().fit(X, y).score_samples(X), expected)
    assert stored
    assert all(isinstance(array, np.memmap) for array in stored)


# ------------------------------------------------------------ shapes and signs


def test_scores_are_vectors_of_float64(fitted, X_new):
    n = len(X_new)
    parts = fitted.score_parts(X_new)
    assert list(parts) == ["foreground", "background"]
    for scores in (
        *parts.values(),
        fitted.score_samples(X_new),
        fitted.decision_function(X_new),
        fitted.p_values(X_new),
        fitted.score_foreground(X_new),
        fitted.score_background(X_new),
    ):
        assert scores.shape == (n,)
        assert scores.dtype == np.float64
        assert np.isfinite(scores).all()
    assert_array_equal(fitted.score_foreground(X_new), parts["foreground"])
    assert_array_equal(fitted.score_background(X_new), parts["background"])
    assert_array_equal(fitted.score_samples(X_new), fitted.fusion_.combine(parts))


def test_decision_function_is_score_less_offset(fitted, X_new):
    assert_array_equal(fitted.decision_function(X_new), fitted.score_samples(X_new) - fitted.offset_)


def mixed_images():
    """Known images, noise, and plain surfaces: some are accepted, some rejected."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, size=(20, SIDE, SIDE, 3), dtype=np.uint8)
    plain = np.broadcast_to(rng.integers(0, 256, size=(20, 1, 1, 3), dtype=np.uint8), noise.shape)
    return np.concatenate([make_images(20, seed=5)[0], noise, plain])


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5])
def test_predict_is_the_sign_of_the_decision_and_agrees_with_p_values(fitted, alpha):
    detector = fitted.refit_scorer(alpha=alpha)
    X = mixed_images()
    predicted = detector.predict(X)
    assert set(predicted) == {1, -1}
    assert predicted.dtype.kind == "i"
    assert_array_equal(predicted, np.where(detector.decision_function(X) >= 0, 1, -1))
    assert_array_equal(predicted == -1, detector.p_values(X) <= alpha)
    known = detector.predict(make_images(60, seed=7)[0]) == 1
    assert known.mean() > 0.5 * (1 - alpha)


def test_unlike_images_score_lower(fitted):
    known = fitted.score_samples(make_images(30, seed=7)[0])
    white = fitted.score_samples(np.full((3, SIDE, SIDE, 3), 255, np.uint8))
    assert white.max() < known.min()


def test_at_most_alpha_of_the_held_out_images_is_rejected(fitted, X):
    held_out = X[fitted._split_.held_out]
    assert (fitted.predict(held_out) == -1).mean() <= 0.05


def test_held_out_images_train_nothing(X, y):
    """Other pixels in the held-out images: the same networks and scorers, another threshold."""
    first = make_detector().fit(X, y)
    changed = X.copy()
    changed[first._split_.held_out] = 255 - changed[first._split_.held_out]
    second = make_detector().fit(changed, y)
    assert_same_weights(second.dense_network_, weights(first.dense_network_))
    assert_array_equal(second.scorer_.residual_basis_, first.scorer_.residual_basis_)
    assert second.offset_ != first.offset_


def test_classes_and_maps(fitted, X, y, X_new):
    n = len(X_new)
    probabilities = fitted.predict_proba(X_new)
    assert probabilities.shape == (n, K)
    assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    assert_array_equal(fitted.classify(X_new), fitted.classes_[probabilities.argmax(1)])
    assert fitted.score(X, y) == np.mean(fitted.classify(X) == y) > 0.9
    segments = fitted.segment(X_new)
    assert segments.shape == (n, SIDE, SIDE, K + 1)
    assert segments.dtype == np.float32
    assert segments.min() >= 0
    assert_allclose(segments.sum(-1), 1, atol=1e-5)
    features = fitted.transform(X_new)
    assert features.shape == (n, fitted.dense_network_.num_features)
    assert features.dtype == np.float32


def test_few_pixels_are_segmented_at_once(fitted, X_new, monkeypatch):
    segments = fitted.segment(X_new)
    interpolate, sizes = _outputs.F.interpolate, []

    def spy(*args, **options):
        sizes.append((pixels := interpolate(*args, **options)).numel())
        return pixels

    monkeypatch.setattr(_outputs, "_PROBABILITIES_AT_ONCE", 3 * segments[0].size)
    monkeypatch.setattr(_outputs.F, "interpolate", spy)
    assert_array_equal(fitted.segment(X_new), segments)
    assert max(sizes) == 3 * segments[0].size


def test_float64_network_keeps_its_dtype(fitted64, X_new):
    assert fitted64.dense_network_.dtype == torch.float64
    assert fitted64.transform(X_new).dtype == np.float64


def test_fitted_attributes(fitted):
    assert_array_equal(fitted.classes_, range(K))
    assert fitted.classifier_.num_classes == K
    assert fitted.dense_network_.num_classes == K + 1
    assert not fitted.classifier_.training
    assert not fitted.dense_network_.training
    assert list(fitted.training_history_) == ["classifier", "dense"]
    for history in fitted.training_history_.values():
        assert len(history["loss"]) == len(history["learning_rate"]) == 30
    assert isinstance(fitted.scorer_, ViM)
    assert isinstance(fitted.part_scorers_["background"], BackgroundLogit)
    assert isinstance(fitted.fusion_, TemperatureFusion)
    assert fitted.offset_ == fitted.calibrator_.offset_


@pytest.mark.parametrize(
    "method",
    [
        "score_samples", "decision_function", "predict", "p_values", "score_parts", "score_foreground",
        "score_background", "predict_proba", "classify", "predict_open_set", "segment", "transform",
    ],
)  # fmt: skip
def test_methods_before_fit(method, X):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(make_detector(), method)(X)


def test_other_methods_before_fit(X, y):
    for call in (
        lambda detector: detector.score(X, y),
        lambda detector: detector.refit_scorer(Energy()),
        lambda detector: detector.get_feature_names_out(),
    ):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call(make_detector())


# ------------------------------------------------------------------ invariance


@pytest.mark.parametrize("method", ["score_samples", "score_background", "predict_proba", "transform", "segment"])
def test_batch_size_order_and_split_do_not_matter(fitted, X_new, method):
    expected = getattr(fitted, method)(X_new)
    scale = max(1.0, np.abs(expected).max())
    for batch_size in (1, 7, 24):
        other = clone_of_fitted(fitted).set_params(batch_size=batch_size)
        assert_allclose(getattr(other, method)(X_new), expected, atol=1e-5 * scale)
    order = np.random.default_rng(0).permutation(len(X_new))
    assert_allclose(getattr(fitted, method)(X_new[order]), expected[order], atol=1e-5 * scale)
    pieces = [getattr(fitted, method)(X_new[part]) for part in (slice(0, 1), slice(1, 11), slice(11, None))]
    assert_allclose(np.concatenate(pieces), expected, atol=1e-5 * scale)


def test_perturbed_images_do_not_depend_on_the_batch(fitted64, X, y, X_new):
    detector = fitted64.refit_scorer(ODIN(temperature=2.0, input_perturbation=0.02), X, y)
    expected = detector.score_foreground(X_new)
    assert_allclose(clone_of_fitted(detector).set_params(batch_size=5).score_foreground(X_new), expected, atol=1e-10)
    assert_allclose(detector.score_foreground(X_new[::-1])[::-1], expected, atol=1e-10)


def clone_of_fitted(detector):
    return pickle.loads(pickle.dumps(detector))


def test_one_seed_gives_one_detector(fitted, X, y, X_new):
    again = make_detector().fit(X, y)
    assert_same_weights(again.dense_network_, weights(fitted.dense_network_))
    assert_array_equal(again.score_samples(X_new), fitted.score_samples(X_new))
    assert again.offset_ == fitted.offset_
    twice = again.fit(X, y)
    assert twice is again
    assert_array_equal(again.score_samples(X_new), fitted.score_samples(X_new))


def test_other_seeds_give_other_detectors(fitted, X, y, X_new):
    other = make_detector(random_state=1).fit(X, y)
    assert not np.allclose(other.score_samples(X_new), fitted.score_samples(X_new))
    assert set(other._split_.held_out) != set(fitted._split_.held_out)
    drawn = make_detector(random_state=np.random.RandomState(0)).fit(X, y)
    assert_array_equal(drawn.score_samples(X_new), fitted.score_samples(X_new))


@pytest.mark.parametrize("n_jobs", [2, -1])
def test_threads_do_not_matter(fitted, X, y, X_new, n_jobs):
    other = make_detector(n_jobs=n_jobs, batch_size=7).fit(X, y)
    assert_allclose(other.score_samples(X_new), fitted.score_samples(X_new), atol=1e-4)


@pytest.mark.parametrize("store", ["pickle", "joblib", "deepcopy"])
def test_stored_detector_is_the_same(fitted, X_new, store, tmp_path):
    if store == "pickle":
        other = clone_of_fitted(fitted)
    elif store == "joblib":
        joblib.dump(fitted, tmp_path / "detector.joblib")
        other = joblib.load(tmp_path / "detector.joblib")
    else:
        other = copy.deepcopy(fitted)
    assert_array_equal(other.score_samples(X_new), fitted.score_samples(X_new))
    assert_array_equal(other.predict_open_set(X_new), fitted.predict_open_set(X_new))
    assert_array_equal(other.p_values(X_new), fitted.p_values(X_new))


def test_pickle_leaves_out_what_refitting_needs(X, y):
    """What the network said of the training images grows with their number, and scoring does not need it."""
    detector = make_detector().fit(X, y)
    kept = len(pickle.dumps(detector._kept_))
    state = vars(detector).copy()
    assert len(pickle.dumps(detector)) < len(pickle.dumps(state)) - kept / 2
    assert detector._kept_ is not None
    assert clone_of_fitted(detector)._kept_ is None


def test_unfitted_detector_can_be_pickled(X):
    with pytest.raises(NotFittedError):
        clone_of_fitted(make_detector()).predict(X)


# --------------------------------------------------------- nothing else changes


class Breaking:
    """A trainer, mask generator, scorer or fusion that stops where it is told to."""

    error: type[BaseException] = KeyboardInterrupt


class BreakingTrainer(Breaking, Trainer):
    def train(self, *args, **kwargs):
        super().train(*args, **kwargs)
        raise self.error("stopped")


class BreakingMasks(Breaking, CAMMaskGenerator):
    def fit_transform(self, X, y=None):
        super().fit_transform(X, y)
        raise self.error("stopped")


class BreakingScorer(Breaking, Energy):
    def score_samples(self, representation):
        raise self.error("stopped")


class BreakingFusion(Breaking, TemperatureFusion):
    def combine(self, parts):
        raise self.error("stopped")


STOPS = {
    "classifier_trainer": BreakingTrainer(max_steps=2),
    "dense_trainer": BreakingTrainer(max_steps=2),
    "mask_generator": BreakingMasks(scales=(1.0,)),
    "scorer": BreakingScorer(),
    "background_scorer": BreakingScorer(),
    "fusion": BreakingFusion(),
}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("name", STOPS)
def test_interrupted_fit_leaves_everything_as_it_was(fitted, X, y, X_new, name, error, monkeypatch):
    monkeypatch.setattr(Breaking, "error", error)
    backbone = tiny_backbone().train()
    backbone.second.eval()
    detector = make_detector(backbone=backbone, **{name: STOPS[name]})
    before, backbone_before = global_state(), weights(backbone)
    parameters = dict(vars(detector))
    with pytest.raises(error, match="stopped"):
        detector.fit(X, y)
    assert global_state() == before
    assert vars(detector) == parameters
    assert_same_weights(backbone, backbone_before)
    assert (backbone.training, backbone.first.training, backbone.second.training) == (True, True, False)
    assert not any(parameter.grad is not None for parameter in backbone.parameters())
    with pytest.raises(NotFittedError):
        detector.predict(X_new)

    working = clone_of_fitted(fitted)
    working.set_params(**{name: STOPS[name]})
    state, expected = dict(vars(working)), working.score_samples(X_new)
    with pytest.raises(error, match="stopped"):
        working.fit(X, y)
    assert vars(working) == state
    assert_array_equal(working.score_samples(X_new), expected)


def test_refused_fit_leaves_a_fitted_detector(fitted, X, y, X_new):
    detector = clone_of_fitted(fitted)
    state, expected = dict(vars(detector)), detector.score_samples(X_new)
    with pytest.raises(ValueError, match="60 images"):
        detector.fit(X, y[:-1])
    assert vars(detector) == state
    assert_array_equal(detector.score_samples(X_new), expected)


def test_global_state_and_parameters_stay(X, y, X_new):
    backbone = tiny_backbone().train()
    backbone.first.eval()
    backbone.second.bias.requires_grad_(False)
    detector = make_detector(backbone=backbone, scorer=ODIN())
    before, backbone_before = global_state(), weights(backbone)
    parameters = {name: repr(value) for name, value in detector.get_params().items()}
    identities = {name: id(value) for name, value in detector.get_params(deep=False).items()}
    pixels = X.copy()
    detector.fit(X, y)
    for method in ("predict", "p_values", "predict_proba", "classify", "predict_open_set", "segment", "transform"):
        getattr(detector, method)(X_new)
    detector.refit_scorer(MSP(), X, y)
    with pytest.raises(ValueError, match="X"):
        detector.predict(np.full((2, 4, 4, 3), np.nan))
    assert global_state() == before
    assert {name: repr(value) for name, value in detector.get_params().items()} == parameters
    assert {name: id(value) for name, value in detector.get_params(deep=False).items()} == identities
    assert_same_weights(backbone, backbone_before)
    assert (backbone.first.training, backbone.second.training) == (False, True)
    assert not backbone.second.bias.requires_grad
    assert not any(hasattr(detector.scorer, name) for name in ("n_features_in_", "n_classes_"))
    assert_array_equal(X, pixels)


def test_scoring_changes_no_fitted_state(fitted64, X, y, X_new):
    detector = fitted64.refit_scorer(ODIN(), X, y)
    state, network = dict(vars(detector)), weights(detector.dense_network_)
    detector.score_samples(X_new)
    detector.segment(X_new)
    assert vars(detector) == state
    assert_same_weights(detector.dense_network_, network)
    assert all(parameter.grad is None for parameter in detector.dense_network_.parameters())


@pytest.mark.parametrize(("switched_off", "inference"), [(torch.no_grad, False), (torch.inference_mode, True)])
def test_grad_mode_is_no_matter_and_kept(fitted, X, y, X_new, switched_off, inference):
    expected = fitted.score_samples(X_new)
    with switched_off():
        assert_array_equal(fitted.score_samples(X_new), expected)
        detector = make_detector().fit(X, y)  # trains all the same
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (False, inference)
        odin = detector.refit_scorer(ODIN(), X, y)
        odin.predict(X_new)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (False, inference)
    assert torch.is_grad_enabled()
    assert_array_equal(detector.score_samples(X_new), expected)
    assert_array_equal(odin.score_samples(X_new), fitted.refit_scorer(ODIN(), X, y).score_samples(X_new))


@pytest.mark.parametrize("method", ["score_samples", "predict_proba", "transform", "segment"])
def test_autocast_of_the_caller_does_not_matter(fitted, X_new, method):
    expected = getattr(fitted, method)(X_new)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_array_equal(getattr(fitted, method)(X_new), expected)
        assert torch.is_autocast_enabled("cpu")


def test_fit_under_autocast_of_the_caller(fitted, X, y, X_new):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = make_detector().fit(X, y)
    assert_array_equal(again.score_samples(X_new), fitted.score_samples(X_new))


def test_default_dtype_is_no_matter(fitted, X, y, X_new):
    torch.set_default_dtype(torch.float64)
    try:
        other = make_detector(backbone=tiny_backbone(torch.float32)).fit(X, y)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert other.dense_network_.dtype == torch.float32
    assert_allclose(other.score_samples(X_new), fitted.score_samples(X_new), rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------- labels, open set


def test_integer_labels_with_gaps(X, y, X_new, fitted):
    labels = np.array([7, -3, 40])
    detector = make_detector().fit(X, labels[y])
    assert_array_equal(detector.classes_, [-3, 7, 40])
    assert detector.score(X, labels[y]) > 0.6
    assert set(detector.classify(X_new)) <= {-3, 7, 40}


def test_string_labels(fitted, X, y, X_new):
    names = np.array(["ape", "bee", "cat"])
    detector = make_detector().fit(X, names[y].tolist())
    assert_array_equal(detector.classes_, names)
    # The order of the names is that of the numbers, so all else is equal.
    assert_array_equal(detector.classify(X_new), names[fitted.classify(X_new)])
    assert_array_equal(detector.score_samples(X_new), fitted.score_samples(X_new))
    assert detector.score(X, names[y]) == fitted.score(X, y)


def relabelled(detector, classes):
    """The same detector with other class labels."""
    other = clone_of_fitted(detector)
    other.classes_ = np.array(classes)
    return other


@pytest.mark.parametrize(
    ("classes", "given", "label", "kind"),
    [
        ([0, 1, 2], None, -1, "i"),
        ([0, 1, 2], 99, 99, "i"),
        (np.array([0, 1, 2], dtype=np.uint8), None, -1, "i"),
        ([0, 1, 2], "novel", "novel", "O"),
        (["a", "b", "c"], None, "unknown", "U"),
        (["a", "b", "c"], "something else", "something else", "U"),
        (["a", "b", "c"], -1, -1, "O"),
        (np.array(["a", "b", "c"], dtype=object), None, "unknown", "O"),
        ([0.0, 1.0, 2.0], None, -1.0, "f"),
    ],
)
def test_predict_open_set(fitted, classes, given, label, kind):
    detector = relabelled(fitted.refit_scorer(alpha=0.3), classes)
    X = mixed_images()
    known = detector.predict(X) == 1
    assert 0 < known.sum() < len(X)
    labels = detector.predict_open_set(X, unknown_label=given)
    assert labels.dtype.kind == kind
    assert all(found == label and isinstance(found, type(label)) for found in labels[~known].tolist())
    assert labels[known].tolist() == detector.classify(X)[known].tolist()


@pytest.mark.parametrize(("classes", "given"), [([-1, 0, 1], -1), ([0, 1, 2], 2), (["a", "b", "c"], "b")])
def test_unknown_label_must_not_be_a_class(fitted, X_new, classes, given):
    with pytest.raises(ValueError, match=r"unknown_label=.* is one of classes_: expected a label of no class"):
        relabelled(fitted, classes).predict_open_set(X_new, given)


# ---------------------------------------------------------------------- inputs


class LabelledImages(Dataset):
    def __init__(self, X, y=None):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        image = torch.from_numpy(self.X[index].copy()).permute(2, 0, 1)
        return image if self.y is None else (image, int(self.y[index]))


def test_every_form_of_images_gives_the_same(fitted, X, y, X_new, tmp_path):
    expected = fitted.score_samples(X_new)
    paths = [tmp_path / f"{index}.png" for index in range(len(X_new))]
    pictures = [Image.fromarray(image) for image in X_new]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    forms = {
        "list": X_new.tolist(),
        "paths": paths,
        "strings": [str(path) for path in paths],
        "array of paths": np.array([str(path) for path in paths]),
        "PIL": pictures,
        "dataset": LabelledImages(X_new),
        "labelled dataset": LabelledImages(X_new, np.zeros(len(X_new))),
        "tensor dataset": TensorDataset(torch.from_numpy(X_new).permute(0, 3, 1, 2)),
    }
    for name, form in forms.items():
        assert_allclose(fitted.score_samples(form), expected, atol=1e-4, err_msg=name)
    assert fitted.segment(paths).shape == (len(X_new), SIDE, SIDE, K + 1)


def test_rows_with_image_shape_are_images(fitted, X, y, X_new):
    rows = make_detector(image_shape=(SIDE, SIDE, 3)).fit(X.reshape(len(X), -1), y)
    assert rows.n_features_in_ == SIDE * SIDE * 3
    assert_array_equal(rows.score_samples(X_new.reshape(len(X_new), -1)), fitted.score_samples(X_new))
    assert_array_equal(rows.score_samples(X_new), fitted.score_samples(X_new))
    assert not hasattr(fitted, "n_features_in_")


def test_grey_images(X, y):
    grey = X.mean(-1).astype(np.uint8)
    forms = grey, grey[..., None], np.repeat(grey[..., None], 3, -1)
    detectors = [make_detector(scorer=Energy()).fit(images, y) for images in forms]
    scores = [detectors[0].score_samples(grey[:5]), detectors[1].score_samples(grey[:5, ..., None])]
    scores.append(detectors[2].score_samples(np.repeat(grey[:5, ..., None], 3, -1)))
    assert_allclose(scores[1], scores[0], atol=1e-4)
    assert_allclose(scores[2], scores[0], atol=1e-4)


def test_dataset_brings_its_labels(fitted, X, y, X_new):
    detector = make_detector(image_size=SIDE).fit(LabelledImages(X, y))
    assert_array_equal(detector.classes_, range(K))
    assert detector.score(X, y) > 0.9
    assert detector.score(LabelledImages(X, y)) == detector.score(X, y)
    with pytest.raises(ValueError, match="y is None: expected the label of each sample"):
        detector.score(X)
    explicit = make_detector(image_size=SIDE).fit(LabelledImages(X), y)
    assert_array_equal(explicit.score_samples(X_new), detector.score_samples(X_new))


def test_images_of_several_sizes(X, y):
    pictures = [Image.fromarray(image).resize((16 + 2 * (i % 3), 20)) for i, image in enumerate(X)]
    detector = make_detector(image_size=SIDE).fit(pictures, y)
    assert detector.predict(pictures[:4]).shape == (4,)
    assert detector.segment(pictures[:4]).shape == (4, SIDE, SIDE, K + 1)
    # An image scores the same alone, as an array.
    assert_allclose(
        detector.score_samples(pictures[:1]), detector.score_samples(np.asarray(pictures[0])[None]), atol=1e-4
    )


def test_network_input_size(X, y, X_new):
    detector = make_detector(image_size=24).fit(X, y)
    assert detector.dense_network_.preprocessor.image_size == 24
    assert detector.dense_network_.map_size == (6, 6)
    assert detector.segment(X_new[:2]).shape == (2, SIDE, SIDE, K + 1)


# --------------------------------------------------------------- without labels


@pytest.mark.parametrize("as_dataset", [False, True], ids=["array", "dataset"])
def test_without_labels_clusters_are_the_classes(X, X_new, as_dataset):
    images = LabelledImages(X) if as_dataset else X
    detector = make_detector(scorer=Energy(), image_size=SIDE).fit(images)
    assert_array_equal(detector.classes_, range(3))  # min(10, 60 // 20)
    again = make_detector(scorer=Energy(), image_size=SIDE).fit(images, None)
    assert_array_equal(again.score_samples(X_new), detector.score_samples(X_new))
    refitted = clone_of_fitted(detector).refit_scorer(MSP(), images)
    assert_allclose(refitted.score_samples(X_new), detector.refit_scorer(MSP()).score_samples(X_new), atol=1e-5)


def test_clusters_of_one_image_are_given_up(X):
    """Two far-off images would each be a cluster, and could be held out: no class may be without a training image."""
    images = X.copy()
    images[0], images[1] = 255, 0
    detector = make_detector(scorer=Energy()).fit(images)
    assert np.bincount(detector._labels_[detector._split_.train]).min() >= 2


def test_held_out_images_have_no_say_in_the_clusters(X):
    """Their own labels are of no matter, those of all others stay as they are when the held-out images are others."""
    one = make_detector(scorer=Energy()).fit(X)
    first = one._split_
    images = X.copy()
    images[first.held_out] = images[first.held_out][:, ::-1] // 2
    other = make_detector(scorer=Energy()).fit(images)
    assert_array_equal(other._split_.held_out, first.held_out)
    assert_array_equal(other._labels_[first.train], one._labels_[first.train])


@pytest.mark.parametrize("scorer", [None, Energy()], ids=["ViM", "Energy"])
def test_equal_images_without_labels(scorer):
    """One image in two forms, as integers and as floats: there are no clusters, and no residual for ViM."""
    image = torch.full((3, SIDE, SIDE), 100, dtype=torch.uint8)
    image[0] = 50
    images = [image, image.float() / 255] * 20
    detector = make_detector(scorer=scorer, alpha=0.2)
    if scorer is None:
        with pytest.raises(ValueError, match="residual"):
            detector.fit(images)
    else:
        assert len(detector.fit(images).classes_) == 2


@pytest.mark.parametrize("labels", [None, np.arange(40) % 2])
def test_images_that_are_all_the_same_are_refused(labels):
    images = np.full((40, SIDE, SIDE, 3), 100, np.uint8)
    with pytest.raises(ValueError, match=r"X holds 40 images that are all the same \(every pixel is 100\): expected"):
        make_detector(alpha=0.2).fit(images, labels)


# -------------------------------------------------------------- other components


class FarthestFeature:
    """A third party's scorer: plain NumPy, two methods, nothing inherited."""

    def fit(self, representation, y):
        assert len(y) == len(representation)
        assert set(np.unique(y)) <= set(range(representation.n_classes)) or representation.n_classes == 1
        self.centre = representation.features.numpy().mean(0)

    def score_samples(self, representation):
        return -np.abs(representation.features.numpy() - self.centre).max(1)


class MeanRank:
    """A third party's fusion, which learns from scores."""

    def fit(self, parts):
        self.known = {name: np.sort(scores) for name, scores in parts.items()}
        return self

    def combine(self, parts):
        return np.mean([np.searchsorted(self.known[name], scores) for name, scores in parts.items()], axis=0)


class CentreMasks:
    """A third party's mask generator: the middle of each image is its class, the rest is background."""

    def fit_transform(self, X, y):
        masks = np.full((len(X), 12, 12), max(y) + 1, dtype=np.int16)
        masks[:, 3:9, 3:9] = np.asarray(y)[:, None, None]
        return masks


class TunableCentreMasks(BaseEstimator, CentreMasks):
    def __init__(self, backbone=None, mask_size=None, n_jobs=None):
        self.backbone, self.mask_size, self.n_jobs = backbone, mask_size, n_jobs

    def fit_transform(self, X, y):
        assert isinstance(self.backbone, DenseClassifier)
        assert self.mask_size == SIDE
        assert self.n_jobs == 2
        return super().fit_transform(X, y)


@pytest.mark.parametrize("place", ["scorer", "background_scorer"])
def test_third_party_scorer(fitted, X, y, X_new, place):
    scorer = FarthestFeature()
    detector = make_detector(**{place: scorer}).fit(X, y)
    assert not hasattr(scorer, "centre")
    part = {"scorer": "score_foreground", "background_scorer": "score_background"}[place]
    found = getattr(detector, part)(X_new)
    assert found.shape == (len(X_new),)
    assert (found <= 0).all()
    assert_same_weights(detector.dense_network_, weights(fitted.dense_network_))
    if place == "scorer":
        features = detector.transform(X[detector._split_.train])
        oracle = -np.abs(detector.transform(X_new) - features.mean(0)).max(1)
        assert_allclose(found, oracle, atol=1e-5)
    assert_array_equal(clone_of_fitted(detector).score_samples(X_new), detector.score_samples(X_new))


class Answering:
    def __init__(self, answer):
        self.answer = answer

    def fit(self, representation, y):
        return self

    def score_samples(self, representation):
        return self.answer(len(representation))


@pytest.mark.parametrize(
    "answer", [lambda n: torch.zeros(n, requires_grad=True), lambda n: [0] * n, lambda n: np.zeros(n, np.float16)]
)
def test_scores_may_be_of_any_kind(fitted, X_new, answer):
    scores = fitted.refit_scorer(Answering(answer)).score_foreground(X_new)
    assert scores.dtype == np.float64
    assert_array_equal(scores, 0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda n: np.zeros((n, 1)),
            r"^scorer of part 'foreground' returned shape \(21, 1\) for 21 images: expected \(n,\)",
        ),
        (lambda n: np.zeros(n + 1), r"^scorer of part 'foreground' returned shape \(22,\)"),
        (
            lambda n: np.full(n, np.nan),
            "part 'foreground' returned NaN or infinity for 21 of 21 images",
        ),
        (
            lambda n: np.full(n, np.inf),
            "part 'foreground' returned NaN or infinity for 21 of 21 images",
        ),
    ],
)
def test_wrong_scores_are_named(fitted, answer, message):
    with pytest.raises(ValueError, match=message):
        fitted.refit_scorer(Answering(answer))


def test_third_party_fusion(fitted, X, X_new):
    """What fitted it does not set the threshold: it gets half of the held-out images, the calibration the others."""
    fusion = MeanRank()
    detector = fitted.refit_scorer(fusion=fusion, alpha=0.2)
    assert not hasattr(fusion, "known")
    n_held_out = len(fitted._split_.held_out)
    assert len(detector.fusion_.known["foreground"]) == n_held_out // 2
    assert len(detector.calibrator_.scores_) == n_held_out - n_held_out // 2
    first, second = np.split(fitted._split_.held_out, [n_held_out // 2])
    assert_allclose(detector.fusion_.known["background"], np.sort(fitted.score_background(X[first])), atol=1e-5)
    scores = np.sort(detector.score_samples(X[second]))
    assert_allclose(detector.calibrator_.scores_, np.sort(_lowered_by_rounding(scores)), rtol=1e-12)
    assert detector.score_samples(X_new).shape == (len(X_new),)


def test_halves_of_the_held_out_images_are_alike(X, y):
    """Images sorted by class: a fusion must not learn from one class and the threshold from another."""
    order = np.argsort(y, kind="stable")
    detector = make_detector().fit(X[order], y[order])
    held_out_labels = y[order][detector._split_.held_out]
    half = len(held_out_labels) // 2
    assert set(held_out_labels[:half]) == set(held_out_labels[half:]) == {0, 1, 2}


@pytest.mark.parametrize("generator", [CentreMasks(), TunableCentreMasks()], ids=["plain", "estimator"])
def test_third_party_mask_generator(fitted, X, y, X_new, generator):
    detector = make_detector(mask_generator=generator, n_jobs=2).fit(X, y)
    assert_same_weights(detector.classifier_, weights(fitted.classifier_))
    assert detector.segment(X_new).shape == (len(X_new), SIDE, SIDE, K + 1)
    assert getattr(generator, "backbone", None) is None


def test_mask_generator_keeps_its_own_threads(X, y):
    with pytest.raises(AssertionError):
        make_detector(mask_generator=TunableCentreMasks(n_jobs=3), n_jobs=2).fit(X, y)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (lambda n: np.zeros((n, 8), int), r"shape \(39, 8\): expected integers of shape \(39, H, W\)"),
        (lambda n: np.zeros((n - 1, 8, 8), int), r"shape \(38, 8, 8\)"),
        (lambda n: np.zeros((n, 8, 8)), "dtype float64"),
        (
            lambda n: np.full((n, 8, 8), K + 1),
            r"values in 4\.\.4: expected .* 0\.\.2 for the classes and 3 for the background",
        ),
        (lambda n: np.full((n, 8, 8), -1), r"values in -1\.\.-1"),
    ],
)
def test_wrong_masks_are_named(X, y, masks, message):
    class Masks:
        def fit_transform(self, X, y):
            return masks(len(X))

    with pytest.raises(ValueError, match=f"mask_generator.fit_transform returned masks with .*{message}"):
        make_detector(mask_generator=Masks()).fit(X, y)


def test_fit_predict_uses_the_labels(X, y, fitted):
    """scikit-learn's own would drop them."""
    assert_array_equal(make_detector().fit_predict(X, y), fitted.predict(X))
    assert_array_equal(make_detector().fit_transform(X, y), fitted.transform(X))


def test_verbose_shows_bars(X, y, capsys):
    make_detector(verbose=1).fit(X, y)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "training the classifier" in shown.err
    assert "training the dense" in shown.err
    assert "30/30" in shown.err


def test_quiet_by_default(X, y, X_new, capfd):
    make_detector().fit(X, y).predict(X_new)
    shown = capfd.readouterr()
    assert shown.out == shown.err == ""


# ------------------------------------------------------------ trained classifier


def test_trained_classifier_is_taken_as_it_is(fitted, X, y, X_new):
    trained = copy.deepcopy(fitted.classifier_).train()
    before = weights(trained)
    detector = make_detector(backbone=trained, classifier_trainer=BreakingTrainer()).fit(X, y)
    assert list(detector.training_history_) == ["dense"]
    assert_same_weights(trained, before)
    assert trained.training
    assert detector.classifier_ is not trained
    assert_same_weights(detector.classifier_, before)
    # The same classifier, seed and images: the same detector.
    assert_array_equal(detector.score_samples(X_new), fitted.score_samples(X_new))


def test_trained_classifier_of_other_classes(fitted, X, y):
    with pytest.raises(ValueError, match=r"DenseClassifier with 3 outputs.*y has 2 classes"):
        make_detector(backbone=fitted.classifier_, calibration_fraction=0.5).fit(X[y < 2], y[y < 2])
    with pytest.raises(ValueError, match="target y is None"):
        make_detector(backbone=fitted.classifier_).fit(X)


# ------------------------------------------------------------------ refit_scorer


def assert_equal_detectors(first, second, X):
    assert_allclose(first.score_samples(X), second.score_samples(X), atol=1e-5, rtol=1e-5)
    assert_allclose(first.offset_, second.offset_, atol=1e-5, rtol=1e-5)
    assert_allclose(first.calibrator_.scores_, second.calibrator_.scores_, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scorer", [Energy(), MSP(), ViM(n_components=2), FarthestFeature()])
def test_refit_equals_a_fresh_fit(fitted, X, y, X_new, scorer):
    state = dict(vars(fitted))
    expected = fitted.score_samples(X_new)
    refitted = fitted.refit_scorer(scorer)
    assert refitted is not fitted
    assert refitted.scorer is scorer
    assert refitted.dense_network_ is fitted.dense_network_
    assert vars(fitted) == state
    assert_array_equal(fitted.score_samples(X_new), expected)
    assert_equal_detectors(refitted, make_detector(scorer=scorer).fit(X, y), X_new)
    # And on, from the new one.
    assert_equal_detectors(refitted.refit_scorer(ViM()), fitted, X_new)


def test_refit_of_the_other_components(fitted, X, y, X_new):
    changes = {"background_scorer": Energy(), "fusion": TemperatureFusion(temperature=1.0), "alpha": 0.2}
    refitted = fitted.refit_scorer(**changes)
    assert {name: refitted.get_params(deep=False)[name] for name in changes} == changes
    assert refitted.scorer is None
    assert_equal_detectors(refitted, make_detector(**changes).fit(X, y), X_new)
    assert refitted.offset_ > fitted.refit_scorer(**changes | {"alpha": 0.1}).offset_


def test_refit_with_perturbed_images(fitted, X, y, X_new):
    scorer = ODIN(input_perturbation=0.01)
    with pytest.raises(ValueError, match=r"X is None.*were not kept: expected the X and y of fit"):
        fitted.refit_scorer(scorer)
    refitted = fitted.refit_scorer(scorer, X, y)
    fresh = make_detector(scorer=scorer).fit(X, y)
    assert_equal_detectors(refitted, fresh, X_new)
    # The perturbed images serve no other scorer.
    for detector in (refitted, fresh):
        with pytest.raises(ValueError, match="X is None"):
            detector.refit_scorer(Energy())
        assert_equal_detectors(detector.refit_scorer(Energy(), X, y), fitted.refit_scorer(Energy()), X_new)
    unperturbed = fitted.refit_scorer(ODIN(input_perturbation=0))
    assert_equal_detectors(unperturbed, make_detector(scorer=ODIN(input_perturbation=0)).fit(X, y), X_new)


def test_refit_after_unpickling(fitted, X, y, X_new):
    unpickled = clone_of_fitted(fitted)
    with pytest.raises(ValueError, match=r"X is None.*expected the X and y of fit.*not saved or pickled"):
        unpickled.refit_scorer(Energy())
    assert_equal_detectors(unpickled.refit_scorer(Energy(), X, y), fitted.refit_scorer(Energy()), X_new)
    kept = unpickled.refit_scorer(Energy(), X, y)
    assert_equal_detectors(kept.refit_scorer(MSP()), fitted.refit_scorer(MSP()), X_new)


def test_refit_refuses_other_data(fitted, X, y):
    with pytest.raises(ValueError, match="X has 59 images: expected the 60 of fit"):
        fitted.refit_scorer(Energy(), X[:-1], y[:-1])
    with pytest.raises(ValueError, match="y differs from the labels of fit"):
        fitted.refit_scorer(Energy(), X, np.roll(y, 1))
    with pytest.raises(ValueError, match="y differs from the labels of fit"):
        fitted.refit_scorer(Energy(), X, y + 1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"scorer": Energy}, TypeError, r"pass Energy\(\)"),
        ({"background_scorer": 3}, TypeError, "scorer of part 'background' is 3"),
        ({"fusion": "sum"}, TypeError, "fusion='sum'"),
        ({"alpha": 1.5}, ValueError, "'alpha' parameter"),
        ({"scorer": ViM(n_components=-1)}, ValueError, "part 'foreground': The 'n_components' parameter"),
    ],
)
def test_refit_refuses_wrong_components(fitted, changes, error, message):
    state = dict(vars(fitted))
    with pytest.raises(error, match=message):
        fitted.refit_scorer(**changes)
    assert vars(fitted) == state


def test_interrupted_refit_leaves_the_detector(fitted, X_new, monkeypatch):
    monkeypatch.setattr(Breaking, "error", KeyboardInterrupt)
    state = dict(vars(fitted))
    with pytest.raises(KeyboardInterrupt):
        fitted.refit_scorer(BreakingScorer())
    assert vars(fitted) == state


def test_clone_is_unfitted(fitted, X_new):
    unfitted = clone(fitted)
    assert not fitted_state(unfitted)
    with pytest.raises(NotFittedError):
        unfitted.predict(X_new)


def test_detector_of_a_named_backbone(X, y, X_new):
    """With timm's own normalisation and random weights that follow the seed."""
    trainer = Trainer(max_steps=1, batch_size=8)
    changes = {"classifier_trainer": trainer, "dense_trainer": trainer, "scorer": Energy(), "alpha": 0.3}
    backbone = create_backbone("test_resnet", pretrained=False, random_state=0)
    detector = make_detector(backbone=backbone, image_size=128, **changes)
    scores = [unfitted.fit(X[:12], y[:12]).score_samples(X_new[:3]) for unfitted in (detector, clone(detector))]
    assert_array_equal(scores[0], scores[1])
    assert detector.dense_network_.preprocessor.mean == (0.5, 0.5, 0.5)


def test_without_alpha_nothing_is_rejected(X, y):
    detector = make_detector(alpha=None).fit(X, y)
    assert detector.offset_ == -np.inf
    assert (detector.predict(mixed_images()) == 1).all()
    assert np.isfinite(detector.score_samples(mixed_images())).all()


def test_saved_to_a_stream(fitted, X_new):
    stream = io.BytesIO()
    joblib.dump(fitted, stream)
    stream.seek(0)
    assert_array_equal(joblib.load(stream).predict(X_new), fitted.predict(X_new))


def test_mask_generator_keeps_what_its_user_set(X, y, monkeypatch):
    seen = []
    original = CAMMaskGenerator.fit_transform

    def recorded(self, X, y):
        seen.append((self.mask_size, self.random_state, self.device))
        return original(self, X, y)

    monkeypatch.setattr(CAMMaskGenerator, "fit_transform", recorded)
    make_detector(mask_generator=CAMMaskGenerator(mask_size=8, random_state=7, device="cpu")).fit(X, y)
    make_detector(mask_generator=CAMMaskGenerator()).fit(X, y)
    assert seen[0] == (8, 7, "cpu")
    assert seen[1][0] == SIDE
    assert seen[1][1] is not None


@pytest.mark.parametrize("scorer", [Energy(), ODIN(), MaSF(), RankFeat()], ids=lambda scorer: type(scorer).__name__)
def test_eight_threads_get_what_one_gets(fitted, X, y, scorer):
    """Hooks, gradients and train flags belong to one call, though the network is shared."""
    detector = fitted.refit_scorer(scorer, X, y)
    sets = [make_images(20 + seed, seed=seed)[0] for seed in range(8)]
    alone = [detector.score_samples(images) for images in sets]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(detector.score_samples, 3 * sets))
    for scores, expected in zip(together, 3 * alone, strict=True):
        assert_array_equal(scores, expected)


def test_labels_that_fit_did_not_see_count_as_wrong(fitted, X, y):
    with pytest.warns(UserWarning, match="3 of 60 labels are of classes that were not in fit, and count as wrong"):
        score = fitted.score(X, np.where(np.arange(60) < 3, 99, y))
    assert score == np.mean((fitted.classify(X) == y)[3:].tolist() + [False] * 3)


class BeganError(Exception):
    """The training began."""


class NoTrainer(Trainer):
    def train(self, *args, **kwargs):
        raise BeganError


def test_too_few_held_out_images_are_refused_before_the_training(X, y, fitted):
    with pytest.raises(ValueError, match=r"21 of 60 images are held out, but alpha=0\.01 needs at least 99"):
        make_detector(alpha=0.01, classifier_trainer=NoTrainer()).fit(X, y)
    with pytest.raises(ValueError, match="21 of 60 images are held out"):
        fitted.refit_scorer(alpha=0.01)


class LabelledItems(Dataset):
    """Items (image, label) without a ``targets`` attribute."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return torch.tensor(self.images[index]).permute(2, 0, 1), int(self.labels[index])
